"""Downloads from a server on this machine: verified, whole or not at all, and clear about what went wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from assay.models import data
from assay.models.data import cifar10, fetch, sources
from assay.models.data.sources import Published, Remote
from assay.verify.core.errors import InputError, ResourceError
from tests.models.test_data_cifar10 import batch
from tests.models.test_data_idx import idx, images, labels

CONTENT = {
    f"{prefix}-{what}-idx{dims}-ubyte.gz": gzip.compress(idx(make(n)), mtime=0)
    for prefix, n in (("t10k", 6), ("train", 9))
    for what, dims, make in (("images", 3, images), ("labels", 1, labels))
}


class Server(ThreadingHTTPServer):
    """Serves ``pages``, a path or the status of a refusal; counts requests; can promise more than it sends."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, bytes | int] = {}
        self.requests: list[str] = []
        self.missing = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        page = self.server.pages.get(self.path, 404)
        if isinstance(page, int):
            self.send_error(page)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(page) + self.server.missing))
        self.end_headers()
        with suppress(ConnectionError):  # whoever asked has seen enough
            self.wfile.write(page)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A mirror of a small MNIST, which is what counts as published in the test."""
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with Server() as mirror:
        thread = threading.Thread(target=mirror.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        mirror.pages.update({f"/mnist/{name}": content for name, content in CONTENT.items()})
        remotes = tuple(
            Remote(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in CONTENT.items()
        )
        monkeypatch.setitem(sources.PUBLISHED, "mnist", Published((f"{mirror.address}/mnist",), remotes))
        yield mirror
        mirror.shutdown()
        thread.join()


FIRST = "t10k-images-idx3-ubyte.gz"


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_is_downloaded_can_be_loaded(server: Server, tmp_path: Path) -> None:
    assert data.download("mnist", tmp_path) == tmp_path / "mnist"
    assert listing(tmp_path) == [f"mnist/{name}" for name in sorted(CONTENT)]
    assert len(data.load("mnist", "test", tmp_path)) == 6
    assert len(data.load("mnist", "train", tmp_path)) == 9


def test_the_cache_is_the_place_if_none_is_given(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ASSAY_DATA", raising=False)
    assert data.download("mnist") == tmp_path / "assay/data/mnist"
    assert len(data.load("mnist")) == 6


def test_what_is_there_is_not_fetched_again_and_what_is_damaged_is(server: Server, tmp_path: Path) -> None:
    data.download("mnist", tmp_path)
    assert len(server.requests) == 4
    data.download("mnist", tmp_path)
    assert len(server.requests) == 4
    whole = (tmp_path / "mnist" / FIRST).read_bytes()
    (tmp_path / "mnist" / FIRST).write_bytes(whole[:-1] + b"?")
    data.download("mnist", tmp_path)
    assert server.requests[4:] == [f"/mnist/{FIRST}"]
    assert (tmp_path / "mnist" / FIRST).read_bytes() == whole


def test_files_get_the_users_permissions(server: Server, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        data.download("mnist", tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "mnist" / FIRST).stat().st_mode & 0o777 == 0o640


def test_another_mirror_can_be_given_and_the_checksums_stay(server: Server, tmp_path: Path) -> None:
    server.pages.update({f"/elsewhere/{name}": content for name, content in CONTENT.items()})
    data.download("mnist", tmp_path, mirror=f"{server.address}/elsewhere/")
    assert set(server.requests) == {f"/elsewhere/{name}" for name in CONTENT}
    server.pages[f"/forged/{FIRST}"] = gzip.compress(idx(images(5)), mtime=0)
    (tmp_path / "mnist" / FIRST).unlink()
    with pytest.raises(InputError, match=r"/forged/t10k-images.*: (expected|cut short)"):
        data.download("mnist", tmp_path, mirror=f"{server.address}/forged")


def test_the_next_mirror_is_tried(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = sources.PUBLISHED["mnist"]
    both = replace(published, mirrors=(f"{server.address}/gone", *published.mirrors))
    monkeypatch.setitem(sources.PUBLISHED, "mnist", both)
    data.download("mnist", tmp_path)
    assert listing(tmp_path) == [f"mnist/{name}" for name in sorted(CONTENT)]
    assert len(server.requests) == 8


WRONG: dict[str, tuple[bytes | int, int, str]] = {
    "missing": (404, 0, "the server answered 404 Not Found"),
    "failing": (503, 0, "the server answered 503 Service Unavailable"),
    "another content": (CONTENT[FIRST][:-1] + b"?", 0, "expected sha256 [0-9a-f]{64}, got [0-9a-f]{64}"),
    "cut short": (CONTENT[FIRST][:-9], 0, r"cut short: expected \d+ bytes, got \d+"),
    "connection lost": (CONTENT[FIRST][:-9], 9, r"cut short: expected \d+ bytes, got \d+"),
    "empty": (b"", 0, "cut short: expected .* bytes, got 0"),
    "too long": (CONTENT[FIRST] + bytes(10_000_000), 0, r"expected \d+ bytes, got more"),
    "a page of a portal": (b"<html>log in</html>", 0, "cut short"),
}


@pytest.mark.parametrize(("page", "missing", "message"), WRONG.values(), ids=WRONG)
def test_what_is_not_as_published_is_never_put_in_place(
    server: Server, tmp_path: Path, page: bytes | int, missing: int, message: str
) -> None:
    server.pages[f"/mnist/{FIRST}"] = page
    server.missing = missing
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / FIRST).write_bytes(b"the old file")
    with pytest.raises(InputError, match=rf"^cannot download {FIRST}: {server.address}/mnist/{FIRST}: {message}"):
        data.download("mnist", tmp_path)
    assert (tmp_path / "mnist" / FIRST).read_bytes() == b"the old file"
    assert listing(tmp_path) == [f"mnist/{FIRST}"]


def test_no_server_and_no_name_are_clear(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unused = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    unused.server_close()
    with pytest.raises(InputError, match=rf"127\.0\.0\.1:{unused.server_port}/.*: .*[Cc]onnection refused"):
        data.download("mnist", tmp_path, mirror=f"http://127.0.0.1:{unused.server_port}")
    with pytest.raises(InputError, match=r"unknown data set to download 'digits' \(known: cifar10, fashion-mnist, mn"):
        data.download("digits", tmp_path)
    with pytest.raises(InputError, match=r"http://\[::/t10k.*Invalid IPv6 URL"):
        data.download("mnist", tmp_path, mirror="http://[::")
    for mirror in ("ftp://127.0.0.1/mnist", "file:///etc", "mnist"):
        with pytest.raises(InputError, match="expected a mirror that begins with http:// or https://"):
            data.download("mnist", tmp_path, mirror=mirror)


def test_a_server_that_falls_silent_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
    released = threading.Event()
    monkeypatch.setattr(Handler, "do_GET", lambda handler: released.wait(10))
    try:
        with pytest.raises(InputError, match="timed out"):
            data.download("mnist", tmp_path)
    finally:
        released.set()
    assert listing(tmp_path) == []


def test_a_full_disk_is_no_fault_of_the_network(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResourceError, match=rf"cannot write .*{FIRST}: No space left on device"):
        data.download("mnist", tmp_path)
    assert listing(tmp_path) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot write .*file.mnist: "):
        data.download("mnist", tmp_path / "file")


def tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


BATCHES = {f"cifar-10-batches-bin/{name}": batch(i).tobytes() for i, name in enumerate(sum(cifar10.FILES.values(), ()))}


def publish_cifar10(server: Server, monkeypatch: pytest.MonkeyPatch, archive: bytes) -> None:
    monkeypatch.setattr(cifar10, "RECORDS", 4)
    server.pages["/cifar-10-binary.tar.gz"] = archive
    (remote,) = sources.PUBLISHED["cifar10"].files
    remote = replace(
        remote, size=len(archive), sha256=hashlib.sha256(archive).hexdigest(), member_size=4 * cifar10.RECORD
    )
    monkeypatch.setitem(sources.PUBLISHED, "cifar10", Published((server.address,), (remote,)))


def test_the_batches_are_taken_out_of_their_archive_and_nothing_else(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_cifar10(server, monkeypatch, tar({**BATCHES, "../evil": b"!", "cifar-10-batches-bin/readme.html": b"-"}))
    folder = data.download("cifar10", tmp_path)
    assert listing(tmp_path) == sorted(f"cifar10/{Path(name).name}" for name in BATCHES)
    assert (folder / "test_batch.bin").read_bytes() == BATCHES["cifar-10-batches-bin/test_batch.bin"]
    assert len(data.load("cifar10", "train", tmp_path)) == 20
    data.download("cifar10", tmp_path)
    assert len(server.requests) == 1
    (folder / "data_batch_3.bin").unlink()
    data.download("cifar10", tmp_path)
    assert len(server.requests) == 2
    assert len(data.load("cifar10", "train", tmp_path)) == 20


def test_an_archive_without_its_members_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "cifar-10-batches-bin/data_batch_1.bin"
    for archive, message in (
        (tar({"other": b""}), f"filename '{name}' not found"),
        (tar({name: b"short"}), f"expected {name} to be a file of 12292 bytes"),
        (b"no archive", "not a gzip file"),
    ):
        publish_cifar10(server, monkeypatch, archive)
        with pytest.raises(InputError, match=rf"cifar-10-binary\.tar\.gz: .*{message}"):
            data.download("cifar10", tmp_path)
        assert listing(tmp_path) == []


def test_the_published_table_is_whole() -> None:
    for name in ("mnist", "fashion-mnist"):
        assert {remote.name for remote in sources.PUBLISHED[name].files} == set(CONTENT)
    for published in sources.PUBLISHED.values():
        assert all(len(bytes.fromhex(remote.sha256)) == 32 and remote.size > 0 for remote in published.files)
        assert all(mirror.startswith("http") for mirror in published.mirrors)
    assert len({remote.sha256 for published in sources.PUBLISHED.values() for remote in published.files}) == 9
