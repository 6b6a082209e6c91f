"""One's own .npz: what is done to the numbers, and everything that is refused."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assay.models import data
from assay.models.data import files
from assay.verify.core.errors import AssayError, InputError, ResourceError

X = np.random.default_rng(0).random((6, 1, 4, 4), dtype=np.float32)
Y = np.array([0, 1, 2, 0, 1, 3])


def save(folder: Path, **arrays: Any) -> Path:
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_float32_stays_as_it_is(tmp_path: Path, pack: Any) -> None:
    path = tmp_path / "mine.npz"
    pack(path, x=X, y=Y)
    got = data.load(str(path))
    assert torch.equal(got.x, torch.from_numpy(X))
    assert got.y.tolist() == Y.tolist()
    assert (got.name, got.split, got.shape, got.classes) == (str(path), "test", (1, 4, 4), 4)
    assert got.origin == f"{path}, x and y; float32 as it is"


def test_other_types_are_converted_as_recorded(tmp_path: Path) -> None:
    wide = np.random.default_rng(1).random((6, 5))
    got = data.load(str(save(tmp_path, x=wide, y=Y)))
    assert torch.equal(got.x, torch.from_numpy(wide.astype(np.float32)))
    assert got.origin.endswith("rounded from float64")
    narrow = data.load(str(save(tmp_path, x=X.astype(np.float16), y=Y)))
    assert narrow.origin.endswith("widened from float16")
    assert torch.equal(narrow.x, torch.from_numpy(X.astype(np.float16)).float())
    pixels = np.arange(96, dtype=np.uint8).reshape(6, 16)
    got = data.load(str(save(tmp_path, x=pixels, y=Y.astype(np.uint8))))
    assert torch.equal(got.x, torch.from_numpy(pixels).float() / 255)
    assert got.origin.endswith("bytes / 255")


def test_order_of_memory_and_of_bytes_do_not_matter(tmp_path: Path) -> None:
    got = data.load(str(save(tmp_path, x=np.asfortranarray(X).astype(">f4"), y=Y.astype(">i2"))))
    assert torch.equal(got.x, torch.from_numpy(X))
    assert got.y.tolist() == Y.tolist()
    pixels = np.asfortranarray((X * 255).astype(np.uint8))
    assert torch.equal(data.load(str(save(tmp_path, x=pixels, y=Y))).x[3], torch.from_numpy(pixels[3].copy()) / 255)


def test_a_relative_name_starts_at_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, x=X, y=Y)
    assert data.load("mine.npz", folder=tmp_path).name == "mine.npz"
    with pytest.raises(InputError, match=r"there is no file mine\.npz"):
        data.load("mine.npz")
    monkeypatch.chdir(tmp_path)
    assert len(data.load("mine.npz")) == 6


def test_a_training_split_lies_beside(tmp_path: Path) -> None:
    path = save(tmp_path, x=X, y=Y, x_train=X[:2], y_train=np.array([5, 0]))
    learn, test = data.load(str(path), "train"), data.load(str(path), "test")
    assert torch.equal(learn.x, torch.from_numpy(X[:2]))
    assert learn.y.tolist() == [5, 0]
    assert learn.classes == test.classes == 6
    with pytest.raises(InputError, match=r"has no x_train and no y_train for the train split; it holds x, y"):
        data.load(str(save(tmp_path, x=X, y=Y)), "train")


def bad(value: float) -> np.ndarray:
    x = X.copy()
    x[1, 0, 2, 3] = value
    return x


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "has no x and no y for the test split; it holds nothing"),
    "no y": ({"x": X}, "has no y for the test split; it holds x"),
    "other names": ({"images": X, "labels": Y}, r"expected the arrays x and y .*, got images, labels"),
    "one more": ({"x": X, "y": Y, "z": Y}, "got x, y, z"),
    "other counts": ({"x": X, "y": Y[:5]}, r"got x \(6, 1, 4, 4\) and y \(5,\)"),
    "no samples": ({"x": X[:0], "y": Y[:0]}, r"with n > 0, got x \(0, 1, 4, 4\)"),
    "empty samples": ({"x": X[:, :0], "y": Y}, r"with n > 0, got x \(6, 0, 4, 4\)"),
    "no shape": ({"x": X[:, 0, 0, 0], "y": Y}, r"got x \(6,\) and y \(6,\)"),
    "one-hot labels": ({"x": X, "y": np.eye(6, dtype=int)}, r"and y \(6, 6\)"),
    "a scalar": ({"x": np.float32(1), "y": Y}, r"got x \(\) and"),
    "NaN": ({"x": bad(np.nan), "y": Y}, r"expected x within \[0, 1\], got nan"),
    "infinity": ({"x": bad(np.inf), "y": Y}, r"expected x within \[0, 1\], got .* to inf"),
    "negative": ({"x": bad(-0.5), "y": Y}, r"expected x within \[0, 1\], got -0.5 to"),
    "pixels as floats": ({"x": X * 255, "y": Y}, r"expected x within \[0, 1\], .*save pixels as uint8"),
    "pixels as int64": ({"x": (X * 255).astype(int), "y": Y}, "expected x in uint8 or float, got int64"),
    "objects": ({"x": X.astype(object), "y": Y}, r"x\.npy: expected an array of numbers, got object"),
    "object labels": ({"x": X, "y": Y.astype(object)}, r"y\.npy: expected an array of numbers, got object"),
    "text": ({"x": X, "y": Y.astype(str)}, r"y\.npy: expected an array of numbers, got <U"),
    "complex": ({"x": X.astype(complex), "y": Y}, r"x\.npy: expected an array of numbers, got complex128"),
    "booleans": ({"x": X > 0.5, "y": Y}, r"x\.npy: expected an array of numbers, got bool"),
    "float labels": ({"x": X, "y": Y.astype(float)}, "expected whole numbers as labels, got float64"),
    "negative label": ({"x": X, "y": Y - 1}, "expected labels from 0 to 99999, got -1 to 2"),
    "huge label": ({"x": X, "y": Y + 2**62}, "expected labels from 0 to 99999, got 46"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD.values(), ids=BAD)
def test_bad_arrays_are_one_clear_line(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = save(tmp_path, **arrays)
    with pytest.raises(InputError, match=rf"mine\.npz: .*{message}|mine\.npz: {message}") as caught:
        data.load(str(path))
    assert "\n" not in str(caught.value)


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    path = save(tmp_path, x=np.array([Trap()] * 6, dtype=object), y=Y)
    with pytest.raises(InputError, match="expected an array of numbers"):
        data.load(str(path))
    assert not (tmp_path / "sprung").exists()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def archive(folder: Path, x: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    """An .npz with the given bytes as x.npy."""
    path = folder / "mine.npz"
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("x.npy", x)
        file.writestr("y.npy", npy(Y))
    return path


DAMAGED = {
    "cut short": (npy(X)[:-1], r"x\.npy: .* bytes do not hold an array of float32 with shape \(6, 1, 4, 4\)"),
    "too long": (npy(X) + b"\0", r"x\.npy: .* bytes do not hold"),
    "no header": (b"", r"x\.npy: .*EOF"),
    "wrong magic": (b"PK" + npy(X)[2:], r"x\.npy: .*magic"),
    "other version": (npy(X)[:6] + b"\x09\x00" + npy(X)[8:], r"x\.npy: version \(9, 0\)"),
    "damaged header": (npy(X).replace(b"'descr'", b"'d\xffscr'"), r"x\.npy: "),
    "code in the header": (npy(X).replace(b"(6, 1, 4, 4)", b"(6, 1, 2+2,)"), r"x\.npy: "),
    "a shape of petabytes": (npy(X).replace(b"(6, 1, 4, 4), ", b"(9**9, 9**9), "), r"x\.npy: "),
    "a huge shape": (npy(X).replace(b"(6, 1, 4, 4), ", b"(6, 99999999),"), r"x\.npy: .* bytes do not hold"),
    "a negative shape": (npy(X).replace(b"(6, 1, 4, 4), ", b"(6, -1, 4, 4),"), r"x\.npy: .* bytes do not hold"),
}


@pytest.mark.parametrize(("x", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_arrays_are_refused(tmp_path: Path, x: bytes, message: str) -> None:
    with pytest.raises(InputError, match=rf"mine\.npz: {message}"):
        data.load(str(archive(tmp_path, x)))


def test_a_doubled_array_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, npy(X))
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("x.npy", npy(X))
    with pytest.raises(InputError, match="got x, y, x"):
        data.load(str(path))


def test_other_compressions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.npy: expected it stored or deflated"):
        data.load(str(archive(tmp_path, npy(X), zipfile.ZIP_LZMA)))


@pytest.mark.parametrize("content", [b"", b"no zip file", npy(X)])
def test_files_of_another_kind_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"mine\.npz: not a readable \.npz file"):
        data.load(str(path))


def test_no_damage_anywhere_escapes_as_another_error(tmp_path: Path) -> None:
    path = archive(tmp_path, npy(X), zipfile.ZIP_DEFLATED)
    whole = path.read_bytes()
    for position in range(0, len(whole), 3):
        content = bytearray(whole)
        content[position] ^= 0x5A
        path.write_bytes(content)
        with suppress(AssayError):
            got = data.load(str(path))
            assert torch.equal(got.x, torch.from_numpy(X))
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"mine\.npz"):
            data.load(str(path))


def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.zeros((2, 2**20), dtype=np.float32)
    with pytest.raises(ResourceError, match=r"mine\.npz: \d+ bytes unpack to \d+ or more, above the cap of 200 to 1"):
        data.load(str(archive(tmp_path, npy(x), zipfile.ZIP_DEFLATED)))
    monkeypatch.setattr(files, "MAX_BYTES", 2**20)
    with pytest.raises(ResourceError, match=r"mine\.npz: announces \d+ bytes, more than the cap of 1048576"):
        data.load(str(archive(tmp_path, npy(x))))
