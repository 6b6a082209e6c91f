"""Tests of the layers' norms: published numbers, unrolled matrices, and bounds that are never below the truth."""

from __future__ import annotations

from dataclasses import replace
from math import inf, sqrt

import pytest
import torch
from torch import Tensor

from assay.verify.backends.lipschitz import unrolled
from assay.verify.backends.lipschitz.fourier import fourier_bound
from assay.verify.backends.lipschitz.norms import operator_norm
from assay.verify.backends.lipschitz.spectral import (
    cholesky_bound,
    gram,
    gram_bound,
    matrix_bound,
    power_iteration,
    svd_bound,
)
from assay.verify.backends.lipschitz.unrolled import unrolled_bound
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.ops import Conv2d, ConvTranspose2d, Gather, Input, LeakyRelu, Linear, Op, Relu, Scale, evaluate
from tests import nets
from tests.breadth import few

D = torch.float64
M = torch.tensor([[3.0, 1.0], [1.0, 2.0], [0.0, 1.0]], dtype=D)
TRUE = 3.6585741494644  # of M in l2


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=nets.generator(seed))


def conv(weight: Tensor, **options: object) -> Conv2d:
    return replace(Conv2d(weight, torch.zeros(len(weight), dtype=D)), **options)  # type: ignore[arg-type]


def matrix(op: Op, shape: tuple[int, ...]) -> Tensor:
    """The operation written out, one input after the other: (outputs x inputs)."""
    size = torch.Size(shape).numel()
    basis = torch.eye(size, dtype=D).view(size, *shape)
    return (evaluate(op, basis) - evaluate(op, torch.zeros_like(basis))).flatten(1).T


def exact(op: Op, shape: tuple[int, ...], p: float) -> float:
    return torch.linalg.matrix_norm(matrix(op, shape), p).item()


# Matrices.


@pytest.mark.parametrize(("steps", "bound"), list(enumerate([4.0, 3.692991, 3.65924, 3.658575, 3.658574])))
def test_gram_iteration_has_the_published_values(steps: int, bound: float) -> None:
    assert gram_bound(M, steps) == pytest.approx(bound, abs=1e-6)


@pytest.mark.parametrize(("p", "true"), [(1, 4.0), (2, 3.658574), (inf, 4.0)])
def test_a_matrix_with_known_norms(p: float, true: float) -> None:
    upper = operator_norm(Linear(M, torch.zeros(3, dtype=D)), (2,), p)
    assert upper.estimate == pytest.approx(true, abs=1e-6)
    assert upper.estimate <= upper.upper == pytest.approx(true, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 5), (30, 8), (8, 30), (100, 200)])
@pytest.mark.parametrize("scale", [1.0, 1e-120, 1e120])
def test_every_bound_of_a_matrix_is_above_its_norm_and_close(shape: tuple[int, int], scale: float) -> None:
    weight = scale * random(*shape)
    true = torch.linalg.matrix_norm(weight, 2).item()
    square, error = gram(weight)
    upper = svd_bound(weight), gram_bound(weight, 12), cholesky_bound(square, error, true * (1 - 1e-9))
    for bound in upper:
        assert true * (1 - 1e-14) <= bound <= true * (1 + 1e-2)
    assert matrix_bound(weight, true)[0] <= true * (1 + 1e-6)


def test_equal_singular_values_are_no_trap() -> None:
    orthogonal = torch.linalg.qr(random(60, 60)).Q
    for bound in (svd_bound(orthogonal), gram_bound(orthogonal, 10), matrix_bound(orthogonal, 1.0)[0]):
        assert 1 - 1e-14 <= bound <= 1.01


def test_matrices_of_zeros_and_of_no_numbers() -> None:
    zero = torch.zeros(3, 2, dtype=D)
    assert gram_bound(zero) == 0
    assert svd_bound(zero) <= 1e-100
    assert matrix_bound(zero, 0.0)[0] <= 1e-100
    for bad in (inf, -inf, float("nan")):
        broken = M.clone()
        broken[1, 1] = bad
        assert svd_bound(broken) == gram_bound(broken) == matrix_bound(broken, 1.0)[0] == inf


def test_power_iteration_is_below_and_never_certifies() -> None:
    """What it says after one step is far off; the bound that begins with it is not."""
    weight = random(100, 200)
    true = torch.linalg.matrix_norm(weight, 2).item()

    def estimate(steps: int) -> float:
        return power_iteration(lambda v: weight.T @ (weight @ v), 200, steps)

    assert estimate(1) < 0.9 * true
    assert estimate(1) < estimate(5) < estimate(20) < estimate(60) <= true * (1 + 1e-12)
    square, error = gram(weight)
    for guess in (estimate(1), estimate(5), 0.8 * true, 0.9999999 * true):
        assert cholesky_bound(square, error, guess) >= true
    assert cholesky_bound(square, error, 0.1 * true) == inf
    assert matrix_bound(weight, 0.1 * true)[0] >= true


def test_a_direction_that_power_iteration_cannot_see() -> None:
    """The start lies in a space that never meets the largest singular value; the bound does not care."""
    weight = torch.diag(torch.tensor([1.0, 1.0, 5.0], dtype=D))
    blind = torch.tensor([1.0, 1.0, 0.0], dtype=D)
    guess = power_iteration(lambda v: blind * (weight.T @ (weight @ (blind * v))), 3, 50)
    assert guess <= 1 + 1e-9
    assert matrix_bound(weight, guess)[0] >= 5


def test_the_factorisation_of_a_matrix_too_large_for_a_full_decomposition() -> None:
    weight = random(400, 300)
    true = torch.linalg.matrix_norm(weight, 2).item()
    upper = operator_norm(Linear(weight, torch.zeros(400, dtype=D)), (300,), 2)
    assert upper.by == "cholesky"
    assert upper.estimate <= true <= upper.upper <= true * 1.001


# Convolutions.

KERNELS = {
    "plain": (conv(random(4, 3, 3, 3), padding=(1, 1)), (3, 6, 6)),
    "no padding": (conv(random(2, 3, 3, 3)), (3, 5, 7)),
    "wide padding": (conv(random(2, 1, 3, 3), padding=(4, 3)), (1, 4, 5)),
    "stride": (conv(random(5, 2, 4, 4), stride=(2, 2), padding=(1, 1)), (2, 8, 8)),
    "stride 3": (conv(random(5, 2, 4, 4), stride=(3, 3)), (2, 9, 11)),
    "stride beyond the kernel": (conv(random(2, 2, 2, 2), stride=(3, 3)), (2, 8, 8)),
    "uneven stride": (conv(random(3, 2, 3, 2), stride=(1, 2), padding=(0, 1)), (2, 7, 4)),
    "dilated": (conv(random(3, 2, 3, 3), dilation=(2, 2), padding=(2, 2)), (2, 7, 7)),
    "dilated and strided": (conv(random(3, 2, 3, 3), dilation=(2, 3), stride=(2, 2), padding=(1, 2)), (2, 9, 8)),
    "groups": (conv(random(6, 2, 3, 3), groups=3, padding=(1, 1)), (6, 5, 5)),
    "depthwise": (conv(random(4, 1, 3, 3), groups=4), (4, 5, 6)),
    "equal groups": (conv(torch.full((4, 1, 2, 2), 0.25, dtype=D), groups=4, stride=(2, 2)), (4, 6, 6)),
    "rows": (conv(random(3, 2, 1, 5), padding=(0, 2)), (2, 1, 12)),
    "one point": (conv(random(3, 5, 1, 1)), (5, 4, 4)),
    "factorised by bands": (conv(random(8, 4, 3, 3), padding=(1, 1)), (4, 12, 11)),
    "bands, stride": (conv(random(12, 8, 4, 4), stride=(2, 2), padding=(1, 1)), (8, 20, 12)),
    "bands, tall": (conv(random(10, 10, 3, 3), dilation=(1, 2), padding=(1, 1)), (10, 11, 9)),
}
TRANSPOSED = {
    "transposed": (
        ConvTranspose2d(random(3, 2, 4, 4), torch.zeros(2, dtype=D), (2, 2), (1, 1)),
        (3, 5, 5),
    ),
    "transposed, groups": (
        ConvTranspose2d(random(4, 2, 3, 3), torch.zeros(4, dtype=D), (2, 1), (1, 0), (1, 0), (1, 2), 2),
        (4, 4, 5),
    ),
}

every_kernel = pytest.mark.parametrize("name", KERNELS)


@pytest.mark.parametrize("name", [*KERNELS, *TRANSPOSED])
@pytest.mark.parametrize("p", [1, 2, inf])
def test_convolutions_against_their_unrolled_matrices(name: str, p: float) -> None:
    op, shape = {**KERNELS, **TRANSPOSED}[name]
    true, upper = exact(op, shape, p), operator_norm(op, shape, p)
    assert true * (1 - 1e-6) <= upper.estimate <= true * (1 + 1e-12)
    assert true * (1 - 1e-14) <= upper.upper <= true * 1.0011


@every_kernel
def test_the_fourier_bound_is_above_the_unrolled_norm(name: str) -> None:
    op, shape = KERNELS[name]
    for weight in op.weight.reshape(op.groups, -1, *op.weight.shape[1:]):
        one, size = conv(weight, stride=op.stride, padding=op.padding, dilation=op.dilation), shape[0] // op.groups
        true, upper = exact(one, (size, *shape[1:]), 2), fourier_bound(one, (size, *shape[1:]))
        assert upper is not None
        assert true * (1 - 1e-14) <= upper <= true * 1.6


@pytest.mark.parametrize("seed", few(range(40), quick=range(10)))
def test_the_fourier_bound_holds_for_every_geometry(seed: int) -> None:
    rng = nets.generator(seed)

    def draw(low: int, high: int) -> tuple[int, int]:
        a, b = torch.randint(low, high + 1, (2,), generator=rng).tolist()
        return a, b

    kernel, stride, padding, dilation = draw(1, 4), draw(1, 3), draw(0, 4), draw(1, 3)
    size = tuple(n + d * (k - 1) for n, d, k in zip(draw(1, 6), dilation, kernel, strict=True))
    weight = torch.randn(2, 2, *kernel, dtype=D, generator=rng)
    op = conv(weight, stride=stride, padding=padding, dilation=dilation)
    upper, true = fourier_bound(op, (2, *size)), exact(op, (2, *size), 2)
    assert upper is not None
    assert upper >= true * (1 - 1e-14)
    assert operator_norm(op, (2, *size), 2).upper >= true * (1 - 1e-14)


def test_a_torus_of_the_images_own_size_would_be_too_small() -> None:
    """Kernel [1, -1, 0] on three points: true norm 1.801938, on a torus of three 1.732051, on one of five 1.902113."""
    op = conv(torch.tensor([[[[1.0, -1.0, 0.0]]]], dtype=D), padding=(0, 1))
    assert exact(op, (1, 1, 3), 2) == pytest.approx(1.801938, abs=1e-6)
    assert fourier_bound(op, (1, 1, 3)) == pytest.approx(1.902113, abs=1e-6)
    assert operator_norm(op, (1, 1, 3), 2).upper == pytest.approx(1.801938, abs=1e-5)


def test_a_kernel_of_ones() -> None:
    ones = conv(torch.ones(1, 1, 3, 3, dtype=D), padding=(1, 1))
    assert fourier_bound(ones, (1, 8, 8)) == pytest.approx(9)
    assert operator_norm(ones, (1, 8, 8), 2).upper == pytest.approx(8.290859, abs=1e-5)
    assert operator_norm(replace(ones, stride=(2, 2)), (1, 8, 8), 2).upper == pytest.approx(4.532089, abs=1e-5)
    assert operator_norm(ones, (1, 8, 8), 1).upper == operator_norm(ones, (1, 8, 8), inf).upper == pytest.approx(9)


@pytest.mark.slow
@pytest.mark.parametrize("dense", [0, 10_000])
def test_bands_and_full_matrices_say_the_same(monkeypatch: pytest.MonkeyPatch, dense: int) -> None:
    monkeypatch.setattr(unrolled, "DENSE", dense)
    op, shape = KERNELS["bands, stride"]
    true = exact(op, shape, 2)
    upper = unrolled_bound(op, shape, true * (1 - 1e-8))
    assert upper is not None
    assert true <= upper <= true * (1 + 1e-6)
    assert unrolled_bound(op, shape, true * 0.99) == pytest.approx(true, rel=0.02)
    low = unrolled_bound(op, shape, true * 0.1)
    assert low == inf


def test_what_is_too_large_for_the_factorisation_has_the_fourier_bound() -> None:
    op = conv(random(24, 24, 3, 3), padding=(1, 1))
    assert unrolled_bound(op, (24, 40, 40), 1.0) is None
    upper = operator_norm(op, (24, 40, 40), 2)
    assert upper.by == "fourier"
    assert upper.estimate <= upper.upper <= 1.02 * upper.estimate


# Other operations.


@pytest.mark.parametrize("p", [1, 2, inf])
def test_a_weight_on_the_last_of_several_axes(p: float) -> None:
    op = Linear(random(3, 4), torch.zeros(3, dtype=D))
    upper = operator_norm(op, (5, 4), p)
    assert upper.upper == pytest.approx(torch.linalg.matrix_norm(op.weight, p).item(), rel=1e-6)
    assert upper.upper == pytest.approx(exact(op, (5, 4), p), rel=1e-6)


@pytest.mark.parametrize(("p", "true"), [(1, 3.0), (2, sqrt(3)), (inf, 1.0)])
def test_values_that_are_picked_several_times_multiply(p: float, true: float) -> None:
    op = Gather(torch.tensor([0, 1, 1, -1, 1, 2]), (2, 3), fill=7.0)
    assert exact(op, (4,), p) == pytest.approx(true)
    assert operator_norm(op, (4,), p).upper == pytest.approx(true)
    assert operator_norm(op, (4,), p).upper >= exact(op, (4,), p) - 1e-15


def test_activations_and_scalings() -> None:
    assert operator_norm(Relu(), (4,), 2).upper == 1
    assert operator_norm(LeakyRelu(0.1), (4,), 2).upper == 1
    assert operator_norm(LeakyRelu(1.5), (4,), 2).upper == 1.5
    scale = Scale(torch.tensor([2.0, -3.0], dtype=D), torch.zeros(2, dtype=D))
    assert all(operator_norm(scale, (2,), p).upper == 3 for p in (1, 2, inf))


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="Input has no Lipschitz rule"):
        operator_norm(Input(), (2,), 2)


# Memory.


def test_nothing_is_shared_between_models_norms_and_shapes() -> None:
    first, second = Linear(M, torch.zeros(3, dtype=D)), Linear(10 * M, torch.zeros(3, dtype=D))
    image = conv(random(2, 2, 3, 3), padding=(1, 1))
    for _ in range(2):  # once to fill what is remembered, once to read it
        for p in (1, 2, inf):
            true = torch.linalg.matrix_norm(M, p).item()
            assert operator_norm(first, (2,), p).upper == pytest.approx(true, rel=1e-6)
            assert operator_norm(second, (2,), p).upper == pytest.approx(10 * true, rel=1e-6)
        for shape in ((2, 3, 3), (2, 6, 6)):
            assert operator_norm(image, shape, 2).upper == pytest.approx(exact(image, shape, 2), rel=2e-3)


def test_live_weights_are_worked_out_anew() -> None:
    weight = M.clone().requires_grad_()
    op = Linear(weight, torch.zeros(3, dtype=D))
    with torch.no_grad():
        assert operator_norm(op, (2,), 2).upper == pytest.approx(TRUE, rel=1e-6)
        weight.mul_(2)
        assert operator_norm(op, (2,), 2).upper == pytest.approx(2 * TRUE, rel=1e-6)
