"""Tests of verify.support.files: a file is there whole, or as it was."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import pytest

from assay.verify.core.errors import InputError, ResourceError
from assay.verify.support.files import replace_file, replacing


def test_the_file_appears_at_the_end_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_on_the_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_it_as_any_new_file(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", b"")
    (tmp_path / "other").touch()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize("place", ["nowhere/file", "."])
def test_what_cannot_be_written_is_told(tmp_path: Path, place: str) -> None:
    with pytest.raises(InputError, match="cannot write"):
        replace_file(tmp_path / place, b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_has_the_path_and_is_a_lack_of_resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    path = tmp_path / "file"
    with pytest.raises(OSError, match="No space left") as caught, replacing(path) as file:
        file.write(b"new")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    with pytest.raises(ResourceError, match=f"cannot write {path}: No space left on device"):
        replace_file(path, b"new")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "file"):
        (tmp_path / "missing").read_bytes()
    assert caught.value.filename == str(tmp_path / "missing")
