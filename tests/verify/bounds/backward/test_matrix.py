"""Tests of bounds.backward.matrix: the matrices are what the operations compute, whole and cut down."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from assay.verify.bounds.backward import matrix as module
from assay.verify.bounds.backward.matrix import (
    Blocks,
    Convolved,
    Dense,
    Repeated,
    Sparse,
    constant,
    matrix,
    sorted_by_output,
)
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.ops import Conv2d, ConvTranspose2d, Linear, Relu, evaluate

OPTIONS = list(product([(1, 1), (2, 1), (1, 3)], [(0, 0), (1, 0), (2, 3)], [(1, 1), (2, 1)], [1, 2]))


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def true_matrix(op: Conv2d | ConvTranspose2d | Linear, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The matrix (inputs x outputs) and the constant, by evaluating the operation at 0 and at unit vectors."""
    size = torch.Size(shape).numel()
    units = torch.eye(size, dtype=torch.float64).view(size, *shape)
    shift = evaluate(op, torch.zeros(1, *shape, dtype=torch.float64))
    return (evaluate(op, units) - shift).flatten(1), shift.flatten()


def convolution(stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], groups: int) -> Conv2d:
    return Conv2d(randn(4, 4 // groups, 2, 3), randn(4, seed=1), stride, padding, dilation, groups)


@pytest.mark.parametrize("largest", [40_000_000, 0], ids=["sparse", "convolved"])
@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), OPTIONS)
def test_convolutions(
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    largest: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LARGEST", largest)
    op, shape = convolution(stride, padding, dilation, groups), (4, 5, 6)
    true, shift = true_matrix(op, shape)
    form = matrix(op, shape)
    assert isinstance(form, Convolved if largest == 0 else Sparse)
    coef = randn(true.shape[1], 3)
    check(form, true, coef)
    out = evaluate(op, torch.zeros(1, *shape, dtype=torch.float64)).shape[1:]
    assert torch.equal(constant(op, tuple(out)), shift)


@pytest.mark.parametrize(("stride", "padding", "extra", "groups"), list(product([1, 2], [0, 1], [0, 1], [1, 2])))
def test_transposed_convolutions(stride: int, padding: int, extra: int, groups: int) -> None:
    if extra >= stride:
        pytest.skip("torch has no output padding as large as the stride")
    pairs = [(n, n) for n in (stride, padding, extra)]
    op = ConvTranspose2d(randn(4, 3, 2, 3), randn(3 * groups, seed=1), pairs[0], pairs[1], pairs[2], (1, 1), groups)
    true, shift = true_matrix(op, (4, 3, 4))
    check(matrix(op, (4, 3, 4)), true, randn(true.shape[1], 3))
    out = evaluate(op, torch.zeros(1, 4, 3, 4, dtype=torch.float64)).shape[1:]
    assert torch.equal(constant(op, tuple(out)), shift)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 3), (1, 3)])
def test_linear_on_the_last_axis(shape: tuple[int, ...]) -> None:
    op = Linear(randn(4, 3), randn(4, seed=1))
    true, shift = true_matrix(op, shape)
    form = matrix(op, shape)
    assert isinstance(form, Dense if len(shape) == 1 else Sparse)
    check(form, true, randn(true.shape[1], 3))
    check(Repeated(op.weight, torch.Size(shape[:-1]).numel()), true, randn(true.shape[1], 3))
    torch.testing.assert_close(constant(op, (*shape[:-1], 4)), shift, rtol=0, atol=0)


def check(form: module.Matrix, true: Tensor, coef: Tensor) -> None:
    """pull, columns and cut against the dense truth."""
    inputs = torch.arange(0, true.shape[0], 2)
    outputs = torch.arange(1, true.shape[1], 3)
    none = torch.arange(0)
    for rows, cols in [(None, None), (inputs, None), (None, outputs), (inputs, outputs), (none, None), (None, none)]:
        small = true if rows is None else true[rows]
        small = small if cols is None else small[:, cols]
        part = coef if cols is None else coef[cols]
        torch.testing.assert_close(form.cut(rows, cols).pull(part), small @ part, rtol=1e-12, atol=1e-12)
        if cols is None:
            which = torch.tensor([true.shape[1] - 1, 0, 0])
            value = torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64)
            torch.testing.assert_close(
                form.columns(which, value, rows), small[:, which] * value, rtol=1e-12, atol=1e-12
            )


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(0, 10**6))
def test_sparse_equals_convolved(height: int, width: int, kernel: int, stride: int, seed: int) -> None:
    padding = kernel  # enough for any kernel to fit
    op = Conv2d(randn(2, 3, kernel, kernel, seed=seed), randn(2), (stride, stride), (padding, padding))
    written, kept = matrix(op, (3, height, width)), Convolved(op, (3, height, width))
    assert isinstance(written, Sparse)
    coef = randn(written.shape[1], 2, seed=seed)
    torch.testing.assert_close(written.whole.pull(coef), kept.pull(coef), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("channels", [2, 3])
def test_patches_that_do_not_overlap_are_dense_blocks(padding: int, channels: int) -> None:
    """Whole patches beyond the image have no weights, others as many as a patch."""
    op = Conv2d(randn(5, channels, 4, 4), randn(5, seed=1), (4, 4), (padding, padding))
    shape = (channels, 8, 12)
    form, (true, _) = matrix(op, shape), true_matrix(op, shape)
    assert isinstance(form, Sparse)
    whole = form.whole
    assert isinstance(whole, Blocks)
    assert whole.blocks.shape[1:] == (16 * channels, 5)
    coef = randn(true.shape[1], 3)
    torch.testing.assert_close(whole.pull(coef), true @ coef, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_blocks_are_found_in_any_order(seed: int) -> None:
    """Among inputs and outputs that no entry has; and not where a block lacks one, or one is of another size."""
    rng, (count, width, length) = torch.Generator().manual_seed(seed), (3, 8, 9)
    rows, columns = (torch.randperm(n, generator=rng) for n in (count * width + 2, count * length + 3))
    place = torch.arange(count * width * length)
    block, inside = place // (width * length), place % (width * length)
    inputs, outputs = rows[block * width + inside // length], columns[block * length + inside % length]
    order = outputs.argsort()
    inputs, outputs, values, shape = inputs[order], outputs[order], randn(len(place), seed=seed), (26, 30)

    def found(kept: Tensor) -> object:
        sparse = sorted_by_output(inputs[kept], outputs[kept], values[kept], shape)
        true = torch.zeros(shape, dtype=torch.float64)
        true[inputs[kept], outputs[kept]] = values[kept]
        coef = randn(30, 4, seed=seed)
        torch.testing.assert_close(sparse.whole.pull(coef), true @ coef, rtol=1e-12, atol=1e-12)
        return sparse.whole

    every = torch.arange(len(place))
    assert isinstance(found(every), Blocks)
    assert not isinstance(found(every[1:]), Blocks)
    assert not isinstance(found(every[outputs != outputs[0]]), Blocks)
    assert not isinstance(found(every[:0]), Blocks)


def test_an_empty_matrix_gives_zeros() -> None:
    op = convolution((1, 1), (0, 0), (1, 1), 1)
    form = matrix(op, (4, 5, 6))
    assert isinstance(form, Sparse)
    empty = form.cut(torch.arange(0), torch.arange(0))
    assert empty.pull(torch.zeros(0, 3, dtype=torch.float64)).shape == (0, 3)


def test_a_matrix_is_worked_out_once_per_shape() -> None:
    op = Linear(randn(4, 3), randn(4))
    assert matrix(op, (3,)) is matrix(op, (3,))
    assert matrix(op, (2, 3)) is not matrix(op, (3,))


def test_operations_without_a_matrix_are_named() -> None:
    with pytest.raises(UnsupportedError, match="Relu"):
        matrix(Relu(), (3,))


@pytest.mark.parametrize(("stride", "dilation", "extra"), [(1, 2, 1), (2, 3, 2), (1, 3, 2), (2, 1, 1)])
def test_transposed_convolutions_with_much_output_padding(stride: int, dilation: int, extra: int) -> None:
    op = ConvTranspose2d(
        randn(2, 3, 2, 3), randn(3, seed=1), (stride, stride), (1, 0), (extra, extra), (dilation, dilation)
    )
    expected, _ = true_matrix(op, (2, 3, 4))
    coef = randn(expected.shape[1], 5, seed=2)
    torch.testing.assert_close(matrix(op, (2, 3, 4)).cut(None, None).pull(coef), expected @ coef)
