"""The bytes of a file, plain or gzipped: nothing is taken in beyond the caps."""

from __future__ import annotations

import zlib
from pathlib import Path

from assay.verify.core.errors import InputError, ResourceError

MAX_FILE = 2**31 - 1  # bytes; what one protobuf message may hold
MAX_RATIO = 500  # of gzip; weights that are nearly all zero reach 250, and deflate can do no more than 1032
SMALL = 2**26  # bytes that may come out at any ratio
CHUNK = 2**20
GZIP = b"\x1f\x8b"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def read_bytes(path: Path, cap: int = MAX_FILE) -> bytes:
    """The content of ``path``, unpacked if it ends in .gz; where ``path`` is missing, that of ``path.gz``.

    Raises :class:`InputError` where there is no such file, it is empty, no whole gzip file or a Git LFS pointer,
    :class:`ResourceError` for more than ``cap`` bytes, before or after unpacking, and for a ratio that no honest file
    has.
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
    refuse_stand_in(content, str(path))
    if path.suffix == ".gz":
        content = _unpacked(content, path, cap)
        refuse_stand_in(content, str(path))
    elif content.startswith(GZIP):
        raise InputError(f"{path} is a gzip file: give it a name that ends in .gz")
    return content


def _unpacked(content: bytes, path: Path, cap: int) -> bytes:
    """The one gzip member in ``content``, piece by piece: a bomb is noticed before it goes off."""
    stream = zlib.decompressobj(wbits=31)
    pieces: list[bytes] = []
    size = taken = 0
    try:
        while taken < len(content) and not stream.eof:
            rest = content[taken : taken + CHUNK]
            taken += len(rest)
            while rest and not stream.eof:
                pieces.append(stream.decompress(rest, CHUNK))
                rest = stream.unconsumed_tail
                size += len(pieces[-1])
                if size > cap:
                    raise ResourceError(f"{path} holds more than {cap} bytes once unpacked: no more are read")
                if size > max(SMALL, MAX_RATIO * (taken - len(rest))):
                    raise ResourceError(
                        f"{path} holds more than {size} bytes in {taken - len(rest)}: more than {MAX_RATIO} times as "
                        "much is not unpacked; unpack it yourself if you trust it"
                    )
    except zlib.error as error:
        raise InputError(f"{path} is no gzip file or is damaged: {error}") from error
    if not stream.eof:
        raise InputError(f"{path} ends in the midst of its gzip data: the file was cut off")
    if stream.unused_data or taken < len(content):
        raise InputError(f"{path} goes on after its gzip data")
    return b"".join(pieces)


def refuse_package(path: Path) -> None:
    """Raise :class:`InputError` for a file that torch.export saved: torch.export.load unpickles what is in it."""
    if path.suffix.lower() == ".pt2":
        raise InputError(
            f"{path}: .pt2 files can run code when they are loaded and are refused; if you trust it, load it yourself "
            "and pass the ExportedProgram, or path/file.py:factory that returns its module()"
        )


def refuse_stand_in(content: bytes, what: str) -> None:
    """Raise :class:`InputError` for nothing, and for what Git LFS leaves in the place of a file: neither is damaged."""
    if not content:
        raise InputError(f"{what} is empty")
    if content.startswith(LFS_POINTER):
        raise InputError(f"{what} is a Git LFS pointer, not the file itself: fetch it with git lfs pull")
