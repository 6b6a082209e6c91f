"""Data sets: shapes, ranges, the split, and what is refused."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch

from assay.models import data
from assay.models.data import Dataset, shipped
from assay.verify.core.errors import InputError


@pytest.mark.parametrize(("split", "size"), [("train", 1437), ("test", 360)])
def test_digits_have_the_documented_shape_range_and_size(split: str, size: int) -> None:
    digits = data.load("digits", split)
    assert digits.x.shape == (size, 1, 8, 8)
    assert digits.x.dtype == torch.float32
    assert digits.y.dtype == torch.int64
    assert (digits.x.min(), digits.x.max()) == (0, 1)
    assert digits.y.unique().tolist() == list(range(10))
    assert (digits.name, digits.split, digits.classes, digits.domain) == ("digits", split, 10, (0.0, 1.0))
    assert digits.shape == (1, 8, 8)


# SHA-256 of images and labels as they were published: by scikit-learn (load_digits), and by Zalando (the first 500).
PUBLISHED = {
    "digits": (
        "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3",
        "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0",
    ),
    "fashion-mnist": (
        "00cc52584679205ab764cf9e1e98915407f8bb5a0ab0bd054345f1805679a298",
        "86ad59396c444dad595925f6a22f96a7b7a9bbe0fcaf605eaf73dddbe7daba59",
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_comes_along_is_as_published(name: str) -> None:
    assert tuple(hashlib.sha256(array.tobytes()).hexdigest() for array in shipped.read(name)) == PUBLISHED[name]


def test_the_split_takes_every_fifth_sample_and_loses_none() -> None:
    images, labels = (torch.from_numpy(array) for array in shipped.read("digits"))
    train, test = data.load("digits", "train"), data.load("digits", "test")
    for position in (0, 5, 1795):
        assert torch.equal(test.x[position // 5] * 16, images[position].float()[None])
        assert test.y[position // 5] == labels[position]
    both = torch.cat([train.x, test.x]).flatten(1) * 16
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, images.flatten(1).tolist()))


def test_loading_is_deterministic() -> None:
    assert torch.equal(data.load("digits").x, data.load("digits").x)


def test_names_are_what_load_knows() -> None:
    assert "digits" in data.names()
    with pytest.raises(InputError, match=r"unknown data set 'digit'; did you mean 'digits'\? \(known: .*digits"):
        data.load("digit")
    with pytest.raises(InputError, match=r"unknown split 'validation'"):
        data.load("digits", "validation")


def test_take_gives_the_first_samples() -> None:
    digits = data.load("digits")
    few = digits.take(7)
    assert len(few) == 7
    assert torch.equal(few.x, digits.x[:7])
    assert torch.equal(few.y, digits.y[:7])
    assert len(digits.take(360)) == 360


@pytest.mark.parametrize("n", [0, -1, 361])
def test_take_says_how_many_there_are(n: int) -> None:
    with pytest.raises(InputError, match=rf"expected from 1 to 360 samples of digits \(test\), got n = {n}"):
        data.load("digits").take(n)


def test_indices_are_those_of_every_so_many_th_sample() -> None:
    digits = data.load("digits")
    assert digits.indices(3, 100) == range(0, 201, 100)
    assert list(digits.indices(None, 100)) == [0, 100, 200, 300]
    with pytest.raises(InputError, match=r"expected from 1 to 4 samples \(360, every 100th\) of digits .*, got n = 5$"):
        digits.indices(5, 100)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.int64), "float32"),
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), r"\(2, 3\) and \(3,\)"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "n > 0"),
        (torch.full((2, 3), 1.5), torch.zeros(2, dtype=torch.int64), "values from 0 to 1"),
        (torch.full((2, 3), torch.nan), torch.zeros(2, dtype=torch.int64), "NaN"),
        (torch.zeros(2, 3), torch.tensor([0, 4]), "labels from 0 to 3, got 0 to 4"),
        (torch.zeros(2, 3).numpy(), torch.tensor([0, 1]), "expected x as a tensor, got ndarray"),
        (torch.zeros(2, 3), [0, 1], "expected y as a tensor, got list"),
    ],
)
def test_damaged_data_is_refused(x: Any, y: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Dataset("mine", "test", x, y, classes=4)
