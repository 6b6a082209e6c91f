"""CIFAR-10's binary batches: the order of bytes, and files that are cut short, too long or wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from assay.models import data
from assay.models.data import cifar10
from assay.verify.core.errors import InputError


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """Batches of four records instead of 10,000."""
    monkeypatch.setattr(cifar10, "RECORDS", 4)
    return 4


def batch(seed: int, n: int = 4) -> np.ndarray:
    """n records: a label, then red, green and blue row by row."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
    return np.concatenate([rng.integers(0, 10, (n, 1), dtype=np.uint8), pixels], axis=1)


@pytest.mark.parametrize("below", ["", "cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"])
def test_records_are_read_channel_by_channel(tmp_path: Path, few: int, below: str) -> None:
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    batch(7).tofile(tmp_path / below / "test_batch.bin")
    got = data.load("cifar10", folder=tmp_path)
    assert (got.name, got.split, got.x.shape, got.classes, got.domain) == (
        "cifar10", "test", (4, 3, 32, 32), 10, (0.0, 1.0),
    )  # fmt: skip
    assert got.y.tolist() == batch(7)[:, 0].tolist()
    for channel, row, column in ((0, 0, 0), (0, 0, 31), (1, 3, 5), (2, 31, 31)):
        byte = batch(7)[2, 1 + 1024 * channel + 32 * row + column]
        assert got.x[2, channel, row, column] == np.float32(byte) / np.float32(255)
    assert "test_batch.bin in" in got.origin


def test_the_training_split_is_the_five_batches_in_order(tmp_path: Path, few: int) -> None:
    for i in range(1, 6):
        batch(i).tofile(tmp_path / f"data_batch_{i}.bin")
    got = data.load("cifar10", "train", tmp_path)
    assert got.y.tolist() == [int(record[0]) for i in range(1, 6) for record in batch(i)]
    assert torch.equal((got.x[4:8].flatten(1) * 255).round().to(torch.uint8), torch.from_numpy(batch(2)[:, 1:]))


def test_the_published_size_is_10000_records(tmp_path: Path) -> None:
    batch(1, 10_000).tofile(tmp_path / "test_batch.bin")
    assert data.load("cifar10", folder=tmp_path).x.shape == (10_000, 3, 32, 32)
    batch(1, 9_999).tofile(tmp_path / "test_batch.bin")
    with pytest.raises(InputError, match=r"test_batch\.bin: cut short: expected 30730000 bytes of 10000 records, got"):
        data.load("cifar10", folder=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut short: expected 12292 bytes of 4 records, got 0"),
        (batch(1).tobytes()[:-1], "cut short: expected 12292 bytes of 4 records, got 12291"),
        (batch(1).tobytes() + b"\0", "expected 12292 bytes, got 12293"),
        (b"\x0a" + batch(1).tobytes()[1:], "expected labels from 0 to 9, got 10 at record 0"),
        (batch(1).tobytes()[:3073] + b"\xff" + batch(1).tobytes()[3074:], ".*got 255 at record 1"),
    ],
)
def test_bad_batches_are_refused(tmp_path: Path, few: int, content: bytes, message: str) -> None:
    (tmp_path / "test_batch.bin").write_bytes(content)
    with pytest.raises(InputError, match=rf"test_batch\.bin: {message}"):
        data.load("cifar10", folder=tmp_path)


def test_a_missing_batch_is_named(tmp_path: Path, few: int) -> None:
    for i in (1, 2, 4, 5):
        batch(i).tofile(tmp_path / f"data_batch_{i}.bin")
    with pytest.raises(InputError, match=r"has data_batch_1\.bin but lacks data_batch_3\.bin$"):
        data.load("cifar10", "train", tmp_path)


def test_no_batches_at_all_is_explained(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"cifar10: found no test_batch\.bin in .*cifar10.*data\.download\('cifar10'\)"
    ):
        data.load("cifar10", folder=tmp_path)
