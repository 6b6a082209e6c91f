"""Published files over http(s): streamed with a cap, verified by SHA-256, and put in place whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import urlopen

from assay.models.data.folders import cache
from assay.models.data.sources import PUBLISHED, Remote
from assay.verify.core.errors import InputError, unknown_name
from assay.verify.support.files import replacing, unwritten

CHUNK = 2**16
TIMEOUT = 30.0  # seconds without a byte


def download(name: str, folder: str | Path | None = None, mirror: str | None = None) -> Path:
    """What :func:`assay.models.data.download` says. Files that are there already and match are not fetched again.

    They go into a folder of the data set's name below ``folder``, where ``load(name, folder=folder)`` finds them.
    """
    if name not in PUBLISHED:
        raise unknown_name("data set to download", name, PUBLISHED)
    if mirror is not None and not mirror.startswith(("http://", "https://")):
        raise InputError(f"expected a mirror that begins with http:// or https://, got {mirror!r}")
    published = PUBLISHED[name]
    target = (cache() if folder is None else Path(folder).expanduser()) / name
    with _writing(target):
        target.mkdir(parents=True, exist_ok=True)
    for remote in published.files:
        if not _present(remote, target):
            _fetch_any((mirror,) if mirror else published.mirrors, remote, target)
    return target


def _present(remote: Remote, folder: Path) -> bool:
    """Whether the file is there as published. Members were put in place by us after a check: their size suffices."""
    if remote.members:
        paths = [folder / Path(member).name for member in remote.members]
        return all(path.is_file() and path.stat().st_size == remote.member_size for path in paths)
    path = folder / remote.name
    if not path.is_file() or path.stat().st_size != remote.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == remote.sha256


def _fetch_any(mirrors: tuple[str, ...], remote: Remote, folder: Path) -> None:
    """The file from the first mirror that gives it as published."""
    failures = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{remote.name}"
        try:
            if remote.members:
                with _scratch(folder) as archive:
                    _receive(url, remote, archive)
                    _unpack(archive, remote, folder)
            else:
                with _replacing(folder / remote.name) as file:
                    _receive(url, remote, file)
        except RefusedError as refusal:
            failures.append(f"{url}: {refusal}")
        else:
            return
    raise InputError(f"cannot download {remote.name}: {'; '.join(failures)}")


class RefusedError(Exception):
    """What a mirror gave, if anything, is not the published file."""


def _receive(url: str, remote: Remote, file: BinaryIO) -> None:
    """Stream ``url`` into ``file``. Raises :class:`RefusedError` unless it is the published file to the last bit."""
    digest, size = hashlib.sha256(), 0
    try:
        with urlopen(url, timeout=TIMEOUT) as response:
            while chunk := response.read(CHUNK):
                size += len(chunk)
                if size > remote.size:
                    raise RefusedError(f"expected {remote.size} bytes, got more")
                digest.update(chunk)
                with _writing(remote.name):
                    file.write(chunk)
    except HTTPError as error:
        error.close()
        raise RefusedError(f"the server answered {error.code} {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:  # ValueError: a malformed address
        raise RefusedError(str(getattr(error, "reason", None) or error) or type(error).__name__) from None
    if size < remote.size:
        raise RefusedError(f"cut short: expected {remote.size} bytes, got {size}")
    if digest.hexdigest() != remote.sha256:
        raise RefusedError(f"expected sha256 {remote.sha256}, got {digest.hexdigest()}")


def _unpack(archive: BinaryIO, remote: Remote, folder: Path) -> None:
    """The members of a verified .tar.gz, by name, into ``folder``; nothing else in it is touched."""
    archive.seek(0)
    try:
        with tarfile.open(fileobj=archive, mode="r:gz") as tar:
            for name in remote.members:
                member = tar.getmember(name)
                content = tar.extractfile(member)
                if content is None or member.size != remote.member_size:
                    raise InputError(f"{remote.name}: expected {name} to be a file of {remote.member_size} bytes")
                with _replacing(folder / Path(name).name) as file:
                    shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError, KeyError) as error:
        raise InputError(f"{remote.name}: {error}") from None


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file that replaces ``path`` if the body succeeds, and is removed if not."""
    with _writing(path), replacing(path) as file:
        yield file


@contextmanager
def _scratch(folder: Path) -> Iterator[BinaryIO]:
    """A temporary file in ``folder``, gone at the end."""
    with _writing(folder), tempfile.TemporaryFile(dir=folder) as file:
        yield file


@contextmanager
def _writing(path: str | Path) -> Iterator[None]:
    """A failure of the disk as one clear line, apart from those of the network."""
    try:
        yield
    except OSError as error:
        raise unwritten(path, error) from None
