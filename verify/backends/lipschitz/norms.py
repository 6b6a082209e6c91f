"""Operator norms of single operations in l1, l2 and linf: an estimate from below, and a sound bound from above.

Every norm is that of the operation as it is applied: exact zero padding, stride, dilation, groups, and the size of
its input. It is kept for as long as the operation lives, by input shape and norm; operations are never shared between
networks of different weights, precisions or devices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import singledispatch
from math import inf

import torch
from torch import Tensor

from assay.verify.backends.lipschitz.fourier import fourier_bound
from assay.verify.backends.lipschitz.outward import root, times, up
from assay.verify.backends.lipschitz.spectral import matrix_bound, power_iteration
from assay.verify.backends.lipschitz.unrolled import unrolled_bound
from assay.verify.bounds.memo import per_op, remember
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.ops import (
    Conv2d,
    ConvTranspose2d,
    Gather,
    LeakyRelu,
    Linear,
    Max,
    Op,
    Relu,
    Reshape,
    Scale,
    Smooth,
    evaluate,
    map_tensors,
)
from assay.verify.core.ranges import slopes_everywhere
from assay.verify.core.roundings import spread
from assay.verify.support.floats import TINY, gamma

ITERATIONS = 40  # of the estimate; each costs one application and one transposed application
CLOSE = 1.001  # a Fourier bound no further than this above the estimate is not worth the factorisation


@dataclass(frozen=True)
class Norm:
    """``estimate`` is reached, up to rounding, so that the norm is no smaller; ``upper`` is sound; ``by`` names what
    gave it."""

    estimate: float
    upper: float
    by: str


def operator_norm(op: Op, shape: tuple[int, ...], p: float) -> Norm:
    """The Lipschitz constant in l_p, p in {1, 2, inf}, of an operation of one operand of ``shape``.

    Raises :class:`UnsupportedError` for an operation without a rule.
    """
    if norm.dispatch(type(op)) is norm.dispatch(object):
        raise UnsupportedError(f"operation {op.label} has no Lipschitz rule")
    return remember(_known(op), (shape, float(p)), lambda: norm(map_tensors(op, torch.float64, "cpu"), shape, p))


@per_op
def _known(op: Op) -> dict[tuple[tuple[int, ...], float], Norm]:
    return {}


@singledispatch
def norm(op: Op, shape: tuple[int, ...], p: float) -> Norm:
    """:func:`operator_norm` without memory; tensors in float64 on the processor."""
    raise UnsupportedError(f"operation {op.label} has no Lipschitz rule")


@norm.register(Relu)
@norm.register(Max)
@norm.register(Reshape)
def _(op: Op, shape: tuple[int, ...], p: float) -> Norm:
    """Slopes of at most 1; the largest of several values moves no further than the one of them that moves most."""
    return Norm(1.0, 1.0, "exact")


@norm.register
def _(op: Smooth, shape: tuple[int, ...], p: float) -> Norm:
    steepest = max(abs(slope) for slope in slopes_everywhere(op.of))
    if steepest == inf:
        raise UnsupportedError(f"operation {op.label} has no Lipschitz constant")
    return Norm(steepest, steepest, "exact")


@norm.register
def _(op: LeakyRelu, shape: tuple[int, ...], p: float) -> Norm:
    return Norm(max(op.slope, 1.0), max(op.slope, 1.0), "exact")


@norm.register
def _(op: Scale, shape: tuple[int, ...], p: float) -> Norm:
    largest = op.factor.abs().amax().item()
    return Norm(largest, largest, "exact")


@norm.register
def _(op: Gather, shape: tuple[int, ...], p: float) -> Norm:
    """As often as a value is picked, as often it counts: overlapping windows multiply."""
    picked = op.index[op.index >= 0]
    most = float(torch.bincount(picked).amax()) if len(picked) else 0.0
    exact = {1: most, 2: most**0.5, inf: min(most, 1.0)}[p]
    return Norm(exact, root(most) if p == 2 else exact, "exact")


@norm.register
def _(op: Linear, shape: tuple[int, ...], p: float) -> Norm:
    if p != 2:
        return _by_sums(op, shape[-1:], p)
    weight = op.weight if op.weight.shape[0] >= op.weight.shape[1] else op.weight.T
    guess = power_iteration(lambda v: weight.T @ (weight @ v), weight.shape[1], ITERATIONS)
    upper, by = matrix_bound(weight, guess)
    return _least(guess, {by: upper}, op, shape[-1:])


@norm.register
def _(op: Conv2d, shape: tuple[int, ...], p: float) -> Norm:
    """Groups are blocks of one matrix: the largest of their norms; groups of equal weights are done once."""
    if p != 2:
        return _by_sums(op, shape, p)
    members = op.weight.reshape(op.groups, -1, *op.weight.shape[1:])
    different = torch.unique(members.flatten(1), dim=0).view(-1, *members.shape[1:])
    size = (shape[0] // op.groups, *shape[1:])
    of_groups = [_of_group(replace(op, weight=w, bias=w.new_zeros(len(w)), groups=1), size) for w in different]
    estimate, decisive = max(n.estimate for n in of_groups), max(of_groups, key=lambda n: n.upper)
    return _least(estimate, {decisive.by: decisive.upper}, op, shape)


@norm.register
def _(op: ConvTranspose2d, shape: tuple[int, ...], p: float) -> Norm:
    """A matrix and its transpose have one 2-norm: that of the convolution which this one is the transpose of."""
    if p != 2:
        return _by_sums(op, shape, p)
    size = tuple(evaluate(op, torch.zeros(1, *shape, dtype=torch.float64)).shape[1:])
    bias = op.weight.new_zeros(len(op.weight))
    return norm(Conv2d(op.weight, bias, op.stride, op.padding, op.dilation, op.groups), size, p)


def _of_group(op: Conv2d, shape: tuple[int, ...]) -> Norm:
    """A convolution of one group in l2, by whichever of its bounds is the least."""
    guess = power_iteration(_gram(op, shape), torch.Size(shape).numel(), ITERATIONS)
    bounds: dict[str, float] = {}
    if (bound := fourier_bound(op, shape)) is not None:
        bounds["fourier"] = bound
    if min(bounds.values(), default=inf) > CLOSE * guess and (bound := unrolled_bound(op, shape, guess)) is not None:
        bounds["cholesky"] = bound
    return _least(guess, bounds, op, shape)


def _least(guess: float, bounds: dict[str, float], op: Op, shape: tuple[int, ...]) -> Norm:
    """The least bound, the root of the largest row and column sums among them (||A||_2^2 <= ||A||_1 ||A||_inf)."""
    sums = {"sums": root(times(_by_sums(op, shape, 1).upper, _by_sums(op, shape, inf).upper)), **bounds}
    best = min(sums, key=sums.__getitem__)
    return Norm(min(guess, sums[best]), sums[best], best)


def _by_sums(op: Op, shape: tuple[int, ...], p: float) -> Norm:
    """The largest column sum (p = 1) or row sum (p = inf) of magnitudes: the norm itself, up to rounding."""
    absolute = spread(op)
    ones = torch.ones(1, *shape, dtype=torch.float64)
    sums = evaluate(absolute, ones) if p == inf else transposed(absolute, shape)(torch.ones_like(evaluate(op, ones)))
    largest = sums.abs().amax().item()
    count = max(ones.numel(), evaluate(op, ones).numel())  # no sum has more terms
    return Norm(largest, up(largest * (1 + 2 * gamma(count + 2)) + count * TINY), "sums")


def transposed(op: Op, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """The transpose of an affine operation on inputs of ``shape``: (batch x its output) to (batch x shape)."""

    def pull(y: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.zeros(len(y), *shape, dtype=y.dtype, requires_grad=True)
            (pulled,) = torch.autograd.grad(evaluate(op, x), x, y.clone())
        return pulled

    return pull


def _gram(op: Op, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """A^T A of an affine operation without bias, on one flat vector."""
    back = transposed(op, shape)
    return lambda v: back(evaluate(op, v.view(1, *shape))).flatten()
