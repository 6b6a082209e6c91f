"""The bytes of a file, plain or gzipped: nothing is taken in beyond the caps."""

from __future__ import annotations

import zlib
from pathlib import Path

from assay.verify.core.errors import InputError, ResourceError

MAX_FILE = 2**31 - 1  # bytes; what one protobuf message may hold
MAX_RATIO = 500  # of gzip; weights that are nearly all zero reach 250, and deflate can do no more than 1032
SMALL = 2**26  # bytes that may come out at any ratio
CHUNK = 2**20


def read_bytes(path: Path, cap: int = MAX_FILE) -> bytes:
    """The content of ``path``, unpacked if it ends in .gz; where ``path`` is missing, that of ``path.gz``.

    Raises :class:`InputError` where there is no such file or it is no whole gzip file, :class:`ResourceError` for
    more than ``cap`` bytes, before or after unpacking, and for a ratio that no honest file has.
    """
    packed = path.with_name(path.name + ".gz")
    if not path.exists() and packed.exists():
        path = packed
    try:
        if not path.is_file():
            raise InputError(f"there is no file {path}" if not path.exists() else f"{path} is not a regular file")
        size = path.stat().st_size
        if size > cap:
            raise ResourceError(f"{path} has {size} bytes; at most {cap} are read")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return _unpacked(content, path, cap) if path.suffix == ".gz" else content


def _unpacked(content: bytes, path: Path, cap: int) -> bytes:
    """The one gzip member in ``content``, piece by piece: a bomb is noticed before it goes off."""
    stream = zlib.decompressobj(wbits=31)
    pieces: list[bytes] = []
    size, rest = 0, content
    limit = min(cap, max(SMALL, MAX_RATIO * len(content)))
    try:
        while rest and not stream.eof:
            pieces.append(stream.decompress(rest, CHUNK))
            rest = stream.unconsumed_tail
            size += len(pieces[-1])
            if size > limit:
                raise ResourceError(f"{path} holds more than {limit} bytes in {len(content)}: refused")
    except zlib.error as error:
        raise InputError(f"{path} is no gzip file or is damaged: {error}") from error
    if not stream.eof:
        raise InputError(f"{path} ends in the midst of its gzip data: the file was cut off")
    if stream.unused_data:
        raise InputError(f"{path} goes on after its gzip data")
    return b"".join(pieces)
