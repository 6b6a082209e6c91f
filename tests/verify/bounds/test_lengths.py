"""Tests of verify.bounds.lengths: lengths of errors are bounded, and not by much more than they come to."""

from __future__ import annotations

from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from assay.verify.bounds.lengths import length, stretch
from assay.verify.core.ops import Conv2d, Linear, Op, Relu, evaluate

D = torch.float64


def matrix(op: Op, shape: tuple[int, ...]) -> Tensor:
    """Outputs by inputs."""
    units = torch.eye(torch.Size(shape).numel(), dtype=D).view(-1, *shape)
    plain = [Linear(op.weight, torch.zeros_like(op.bias))] if isinstance(op, Linear) else []
    if isinstance(op, Conv2d):
        plain = [Conv2d(op.weight, torch.zeros_like(op.bias), op.stride, op.padding, op.dilation)]
    return evaluate(plain[0], units).flatten(1).T


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=D, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40)
@given(st.integers(0, 10**6), *[st.integers(1, 4)] * 2, st.integers(1, 3), st.integers(0, 2), st.integers(1, 2))
def test_no_error_of_a_convolution_is_longer(
    seed: int, inputs: int, outputs: int, stride: int, padding: int, dilation: int
) -> None:
    kernel = 1 + seed % 3
    op = Conv2d(
        drawn(seed, outputs, inputs, kernel, kernel),
        drawn(seed, outputs),
        (stride, 1),
        (padding, padding),
        (1, dilation),
    )
    full, known = matrix(op, (inputs, 7, 6)), stretch(op, (inputs, 7, 6))
    assert known is not None
    exact = torch.linalg.matrix_norm(full, 2)
    assert exact <= known.whole <= 1.1 * kernel * torch.linalg.matrix_norm(op.weight.flatten(1), 2)
    rows = torch.linalg.vector_norm(full, dim=1).view(outputs, -1)
    assert bool((rows <= known.each[:, 0]).all())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("shape", [(7, 30), (30, 7), (1, 5), (12, 12)])
def test_the_largest_singular_value_is_known_to_a_few_percent(seed: int, shape: tuple[int, int]) -> None:
    op = Linear(1e-9 * drawn(seed, *shape), drawn(seed, shape[0]))
    known, exact = stretch(op, (shape[1],)), float(torch.linalg.matrix_norm(op.weight, 2))
    assert known is not None
    assert exact <= known.whole <= 1.15 * exact
    torch.testing.assert_close(known.each, torch.linalg.vector_norm(op.weight, dim=1), rtol=1e-5, atol=0)


def test_rows_of_a_float32_layer_are_no_shorter() -> None:
    op = Linear(drawn(0, 50, 40).float(), torch.zeros(50))
    known = stretch(op, (40,))
    assert known is not None
    assert bool((known.each.double() >= torch.linalg.vector_norm(op.weight.double(), dim=1)).all())


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 2, 0), (4, 2, 1), (1, 1, 3)])
def test_of_an_image_of_some_size_little_is_added(kernel: int, stride: int, padding: int) -> None:
    op = Conv2d(drawn(0, 5, 4, kernel, kernel), drawn(0, 5), (stride, stride), (padding, padding))
    known, exact = stretch(op, (4, 12, 12)), float(torch.linalg.matrix_norm(matrix(op, (4, 12, 12)), 2))
    assert known is not None
    assert exact <= known.whole <= 1.15 * exact


def test_what_is_out_of_the_ordinary() -> None:
    grouped = Conv2d(drawn(0, 2, 1, 3, 3), torch.zeros(2, dtype=D), groups=2)
    assert stretch(grouped, (2, 5, 5)) is None
    assert stretch(Relu(), (2,)) is None
    for value, expected in ((0.0, 0.0), (1e200, 1e200 * 6**0.5), (1e-200, 1e-200 * 6**0.5), (inf, inf)):
        known = stretch(Linear(torch.full((2, 3), value, dtype=D), torch.zeros(2, dtype=D)), (3,))
        assert known is not None
        assert known.whole == pytest.approx(expected, rel=0.01)
        assert known.whole >= expected * (1 - 1e-12)
    assert not length(torch.tensor([inf, 1.0])) < inf


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e-160, 1e-82, 1e-79, 1e200])
def test_numbers_whose_squares_are_none_have_their_lengths(scale: float) -> None:
    """(3, 4) is of length 5, and so is the matrix with it as its only row that is not 0."""
    row = scale * torch.tensor([3.0, 4.0], dtype=D)
    known = stretch(Linear(torch.stack([row, 0 * row]), torch.zeros(2, dtype=D)), (2,))
    assert known is not None
    for found in (length(row), known.whole, float(known.each[0])):
        assert row.norm(p=inf) * 1.2499 <= found <= 5.3 * scale + 1e-323
    assert known.each[1] == 0


def test_rows_of_the_least_numbers_of_float32_are_no_shorter() -> None:
    known = stretch(Linear(torch.full((1, 2), 1e-45), torch.zeros(1)), (2,))
    assert known is not None
    assert float(known.each) >= 2**0.5 * 2.0**-149


def test_a_length_is_no_less_than_it_is() -> None:
    values = drawn(3, 1000).float()
    assert float(torch.linalg.vector_norm(values.double())) < length(values) < inf
