"""Tests of verify.support.files: a file is there whole, or as it was."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from assay.verify.core.errors import InputError
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
