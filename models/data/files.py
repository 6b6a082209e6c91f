"""The bytes of a file, plain or gzip, read to a length known beforehand and never beyond."""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from assay.verify.core.errors import InputError, ResourceError

MAX_BYTES = 2**30
MAX_RATIO = 200  # images compress 2 to 8 times
RATIO_FROM = 2**20  # below that a ratio says nothing: small files of one colour compress 1000 times
CHUNK = 2**20


def check_size(path: Path, announced: int) -> None:
    """Raise :class:`ResourceError` if a file announces more bytes than the cap, before any is unpacked."""
    if announced > MAX_BYTES:
        raise ResourceError(f"{path}: announces {announced} bytes, more than the cap of {MAX_BYTES}")


def check_ratio(path: Path, unpacked: int, stored: int) -> None:
    """Raise :class:`ResourceError` if ``unpacked`` bytes from ``stored`` ones are above the cap of the ratio."""
    if unpacked > RATIO_FROM and unpacked > MAX_RATIO * stored:
        raise ResourceError(
            f"{path}: {stored} bytes unpack to {unpacked} or more, above the cap of {MAX_RATIO} to 1; "
            "store it uncompressed if it is meant so"
        )


@contextmanager
def reading(path: Path) -> Iterator[Source]:
    """The file as a :class:`Source`; gzip is told by its first bytes. Whatever cannot be read is an InputError."""
    try:
        with _regular(path) as raw:
            if raw.read(2) == b"\x1f\x8b":
                raw.seek(0)
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield Source(path, unpacked, compressed=True)
            else:
                raw.seek(0)
                yield Source(path, raw, compressed=False)
    except EOFError:
        raise InputError(f"{path}: the gzip stream is cut short") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged gzip stream ({error})") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def _regular(path: Path) -> BinaryIO:
    """The opened file; a pipe or a device, on which opening could wait for ever, is refused."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise InputError(f"cannot read {path}: it is no regular file")
    return path.open("rb")


class Source:
    """A file's unpacked bytes, taken in pieces of known length."""

    def __init__(self, path: Path, stream: BinaryIO | gzip.GzipFile, compressed: bool) -> None:
        self.path = path
        self._stream = stream
        self._compressed = compressed
        self._taken = 0

    def take(self, n: int, what: str) -> bytes:
        """The next n bytes, ``what`` in words. Raises :class:`InputError` if there are fewer."""
        check_size(self.path, self._taken + n)
        content = bytearray()
        while len(content) < n and (chunk := self._stream.read(min(CHUNK, n - len(content)))):
            content += chunk
            if self._compressed:
                check_ratio(self.path, self._taken + len(content), os.path.getsize(self.path))
        if len(content) < n:
            raise InputError(f"{self.path}: cut short: expected {n} bytes of {what}, got {len(content)}")
        self._taken += n
        return bytes(content)

    def end(self) -> None:
        """Check that nothing is left, and with it gzip's checksum. Reads at most one byte.

        Raises :class:`InputError`; for gzip, where the rest could be of any size, :class:`ResourceError`.
        """
        if not self._stream.read(1):
            return
        if self._compressed:
            raise ResourceError(f"{self.path}: unpacks to more than the {self._taken} bytes expected; not read further")
        raise InputError(f"{self.path}: expected {self._taken} bytes, got {os.path.getsize(self.path)}")
