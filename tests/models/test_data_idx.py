"""MNIST and Fashion-MNIST: what IDX files say, plain and packed, and every way in which they can be damaged."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from assay.models import data
from assay.models.data import files, folders, mnist, shipped
from assay.models.data.pixels import scaled
from assay.verify.core.errors import AssayError, InputError, ResourceError

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    """The array as an IDX file."""
    return struct.pack(f">{1 + array.ndim}I", kind << 8 | array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def images(n: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 28, 28), dtype=np.uint8)


def labels(n: int = 12) -> np.ndarray:
    return np.arange(n) % 10


def write(folder: Path, x: bytes, y: bytes, suffix: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pack: Callable[[bytes], bytes] = gzip.compress if suffix == ".gz" else bytes
    (folder / f"{IMAGES}{suffix}").write_bytes(pack(x))
    (folder / f"{LABELS}{suffix}").write_bytes(pack(y))
    return folder


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_images_and_labels_come_out_as_they_were_written(tmp_path: Path, name: str, suffix: str) -> None:
    write(tmp_path, idx(images()), idx(labels()), suffix)
    got = data.load(name, folder=tmp_path)
    assert (got.name, got.split, got.shape, got.classes, got.domain) == (name, "test", (1, 28, 28), 10, (0.0, 1.0))
    assert torch.equal((got.x * 255).round().to(torch.uint8).squeeze(1), torch.from_numpy(images()))
    assert got.y.tolist() == labels().tolist()
    assert str(tmp_path / IMAGES) in got.origin
    assert "bytes / 255" in got.origin


def test_a_gz_name_on_a_plain_file_and_the_reverse_are_read(tmp_path: Path) -> None:
    (tmp_path / f"{IMAGES}.gz").write_bytes(idx(images()))
    (tmp_path / LABELS).write_bytes(gzip.compress(idx(labels())))
    assert len(data.load("mnist", folder=tmp_path)) == 12


def test_each_byte_is_divided_by_255_and_rounded_once() -> None:
    for k, value in enumerate(scaled(np.arange(256, dtype=np.uint8)).numpy()):
        exact = Fraction(k, 255)
        error = abs(Fraction(float(value)) - exact)
        below, above = (Fraction(float(np.nextafter(value, np.float32(to)))) for to in (-1, 2))
        assert error <= min(abs(below - exact), abs(above - exact))
        assert value == (torch.tensor(k, dtype=torch.float32) / 255).item()


def test_only_the_split_asked_for_is_read(tmp_path: Path) -> None:
    write(tmp_path, idx(images()), idx(labels()))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"damaged")
    assert len(data.load("mnist", "test", tmp_path)) == 12
    with pytest.raises(InputError, match=r"has train-images-idx3-ubyte but lacks train-labels-idx1-ubyte or"):
        data.load("mnist", "train", tmp_path)


SYSTEM = mnist.FASHION.system


@pytest.mark.skipif(SYSTEM is None or not SYSTEM.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
def test_the_distributions_fashion_mnist_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(folders.VARIABLE, raising=False)
    got = data.load("fashion-mnist")
    assert got.x.shape == (10_000, 1, 28, 28)
    assert torch.bincount(got.y).tolist() == [1000] * 10
    assert got.y[:10].tolist() == list(mnist.FIRST_LABELS["fashion-mnist", "test"])
    x, y = shipped.read("fashion-mnist")
    assert torch.equal(got.x[: len(x), 0], scaled(x))
    assert torch.equal(got.y[: len(y)], torch.from_numpy(y))
    with pytest.raises(InputError, match=r"expected the test labels of mnist, got the test labels of fashion-mnist"):
        data.load("mnist", folder=SYSTEM)


X, Y = idx(images()), idx(labels())
BAD = {
    "empty images": (b"", Y, f"{IMAGES}: cut short: expected 4 bytes of magic number, got 0"),
    "no dimensions": (X[:10], Y, f"{IMAGES}: cut short: expected 12 bytes of dimensions, got 6"),
    "images cut short": (X[:-1], Y, f"{IMAGES}: cut short: expected 9408 bytes of 12 items, got 9407"),
    "labels cut short": (X, Y[:-3], f"{LABELS}: cut short: expected 12 bytes of 12 items, got 9"),
    "images exchanged with labels": (Y, X, f"{LABELS}: expected the IDX magic number 2049, got 2051"),
    "no IDX file": (b"<html>" * 9, Y, f"{IMAGES}: expected the IDX magic number 2051, got {0x3C68746D}"),
    "floats": (idx(images(), 13), Y, f"{IMAGES}: expected the IDX magic number 2051, got 3331"),
    "other size": (
        idx(images()[:, :27]),
        Y,
        f"{IMAGES}: expected dimensions n x 28 x 28 with n > 0, got 12 x 27 x 28",
    ),
    "no images": (idx(images(0)), Y, f"{IMAGES}: expected dimensions n x 28 x 28 with n > 0, got 0 x 28 x 28"),
    "fewer labels": (X, idx(labels(11)), f"{IMAGES} has 12 images, but .*{LABELS} 11 labels"),
    "label too large": (X, idx(labels() + 1), f"{LABELS}: expected labels from 0 to 9, got 10 at sample 9"),
    "labels of the other set": (
        X,
        idx(np.array([9, 2, 1, 1, 6, 1, 4, 6, 5, 7, 0, 0])),
        f"{LABELS}: expected the test labels of mnist, got the test labels of fashion-mnist",
    ),
    "labels of the other split": (
        X,
        idx(np.array([5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 0, 0])),
        f"{LABELS}: expected the test labels of mnist, got the train labels of mnist",
    ),
}


@pytest.mark.parametrize(("x", "y", "message"), BAD.values(), ids=BAD)
def test_bad_content_is_one_clear_line(tmp_path: Path, x: bytes, y: bytes, message: str) -> None:
    write(tmp_path, x, y)
    with pytest.raises(InputError, match=message) as caught:
        data.load("mnist", folder=tmp_path)
    assert "\n" not in str(caught.value)
    write(tmp_path, X, Y)
    assert len(data.load("mnist", folder=tmp_path)) == 12


def test_bytes_after_the_end_are_refused(tmp_path: Path) -> None:
    write(tmp_path, X + b"\0", Y)
    with pytest.raises(InputError, match=rf"{IMAGES}: expected 9424 bytes, got 9425"):
        data.load("mnist", folder=tmp_path)


BROKEN = {
    "cut short": (lambda packed: packed[:-20], "gzip stream is cut short"),
    "checksum cut off": (lambda packed: packed[:-4], "gzip stream is cut short"),
    "header only": (lambda packed: packed[:5], "gzip stream is cut short"),
    "wrong checksum": (lambda packed: packed[:-8] + bytes(4) + packed[-4:], "damaged gzip stream"),
    "flipped bits": (lambda packed: packed[:40] + bytes(b ^ 255 for b in packed[40:]), "damaged gzip stream|cut short"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_damaged_gzip_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    write(tmp_path, X, Y, ".gz")
    packed = tmp_path / f"{IMAGES}.gz"
    packed.write_bytes(damage(packed.read_bytes()))
    with pytest.raises(InputError, match=rf"{IMAGES}\.gz: .*({message})"):
        data.load("mnist", folder=tmp_path)


@pytest.mark.parametrize("position", range(0, 60, 3))
def test_no_damage_to_the_first_bytes_escapes_as_another_error(tmp_path: Path, position: int) -> None:
    write(tmp_path, X, Y, ".gz")
    packed = tmp_path / f"{IMAGES}.gz"
    content = bytearray(packed.read_bytes())
    content[position] ^= 0xA5
    packed.write_bytes(content)
    # gzip's header has fields without meaning here, such as the time: then nothing is raised, and nothing changed.
    with suppress(AssayError):
        got = data.load("mnist", folder=tmp_path)
        assert torch.equal((got.x * 255).round().to(torch.uint8).squeeze(1), torch.from_numpy(images()))


def zeros(n: int) -> bytes:
    """n zero bytes as gzip, made in pieces."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(n >> 20)) + packer.flush()


def test_a_bomb_behind_an_honest_header_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK", 2**16)
    header = struct.pack(">4I", 2051, 600_000, 28, 28)
    write(tmp_path, X, Y, ".gz")
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(header) + zeros(2**24))
    with pytest.raises(ResourceError, match=rf"{IMAGES}\.gz: \d+ bytes unpack to (\d+) or more, .*200 to 1") as caught:
        data.load("mnist", folder=tmp_path)
    unpacked = int(str(caught.value).split("unpack to ")[1].split()[0])
    stored = (tmp_path / f"{IMAGES}.gz").stat().st_size
    assert unpacked <= max(files.RATIO_FROM, 200 * stored) + 2**16


def test_a_bomb_behind_a_small_header_is_read_no_further(tmp_path: Path) -> None:
    write(tmp_path, X, Y, ".gz")
    (tmp_path / f"{LABELS}.gz").write_bytes(gzip.compress(Y) + zeros(2**24))
    with pytest.raises(ResourceError, match=rf"{LABELS}\.gz: unpacks to more than the 20 bytes expected"):
        data.load("mnist", folder=tmp_path)


def test_a_header_beyond_the_cap_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    write(tmp_path, struct.pack(">4I", 2051, 2**32 - 1, 28, 28), Y)
    with pytest.raises(ResourceError, match=rf"{IMAGES}: announces {(2**32 - 1) * 784 + 16} bytes, more than the cap"):
        data.load("mnist", folder=tmp_path)


def test_small_images_of_one_colour_are_no_bomb(tmp_path: Path) -> None:
    write(tmp_path, idx(np.zeros((1000, 28, 28))), idx(labels(1000)), ".gz")
    assert len(data.load("mnist", folder=tmp_path)) == 1000


def test_a_file_without_permission_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, X, Y)

    def denied(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(InputError, match=rf"cannot read .*{LABELS}: Permission denied"):
        data.load("mnist", folder=tmp_path)
