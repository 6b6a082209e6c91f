"""Tests of verify.support.arrays: what is taken as numbers, without a loss, and what is told of the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from assay.verify.core.errors import InputError
from assay.verify.support.arrays import as_labels, as_tensor


@pytest.mark.parametrize(
    "value", [0.1, [0.1], ([0.1], [0.2]), np.array([0.1]), np.float64(0.1), torch.tensor([0.1], dtype=torch.float64)]
)
def test_numbers_keep_their_precision(value: Any) -> None:
    assert as_tensor(value, "x", torch.float64).flatten()[0].item() == 0.1


def test_arrays_keep_their_dtype_and_are_copied() -> None:
    frozen = np.ones(2, dtype=np.float32)
    frozen.flags.writeable = False
    copied = as_tensor(frozen, "x")
    assert copied.dtype is torch.float32
    copied += 1
    assert frozen.tolist() == [1.0, 1.0]


def test_tensors_leave_their_graph() -> None:
    assert not as_tensor(torch.ones(2, requires_grad=True), "x").requires_grad


@pytest.mark.parametrize("value", ["x", None, [[1.0], [1.0, 2.0]], np.array(["x"]), object(), 1j, [1j], {"x": 1.0}])
@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_what_is_no_number_is_named(value: Any, dtype: torch.dtype | None) -> None:
    with pytest.raises(InputError, match="expected the input: "):
        as_tensor(value, "the input", dtype)


@pytest.mark.parametrize("value", [[0, 2], (0, 2), np.array([0, 2], dtype=np.uint8), torch.tensor([0, 2])])
def test_labels_are_integers(value: Any) -> None:
    assert as_labels(value, 2).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([0], r"shape \(2,\), got \(1,\)"),
        (3, r"got \(\)"),
        ([0.0, 1.0], "integer labels, got torch.float32"),
        (np.array([True, False]), "integer labels, got torch.bool"),
        ([0, -1], "label -1 is out of range"),
        ([0, "cat"], "expected labels"),
        ([0, 2**70], "expected labels"),
    ],
)
def test_other_labels_are_refused(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_labels(value, 2)


def test_no_labels_of_no_samples() -> None:
    assert as_labels([], 0).tolist() == []
