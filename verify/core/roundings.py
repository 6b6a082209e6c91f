"""What an operation does to magnitudes and to errors: running error analysis (Higham 2002, chapter 3).

Affine operations and piecewise linear ones carry errors forward by an operation that knows no values. What a curve or
a product makes of an error depends on where the operand is: these have rules that read an interval of it. An interval
is (... x shape), ``low`` and ``high``.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import singledispatch

import torch
from torch import Tensor

from assay.verify.core import ranges
from assay.verify.core.ops import (
    Add,
    Conv2d,
    ConvTranspose2d,
    Gather,
    InverseSumExp,
    LeakyRelu,
    Linear,
    Normalised,
    Op,
    Opaque,
    Product,
    Scale,
    Smooth,
    Step,
    Sub,
    evaluate,
)

NEAR = 2.0**-40  # by which share of the operand an interval is widened before a step is said to be constant on it


@singledispatch
def magnitude(op: Op) -> Op:
    """The operation that carries magnitudes forward: ``|op(x)| <= magnitude(op)(|x|)``."""
    return op


@magnitude.register(Linear)
@magnitude.register(Conv2d)
@magnitude.register(ConvTranspose2d)
@magnitude.register(Scale)
def _(op: Op) -> Op:
    weights = [f.name for f in fields(op) if isinstance(getattr(op, f.name), Tensor)]
    return replace(op, **{name: getattr(op, name).abs() for name in weights})


@magnitude.register
def _(op: Sub) -> Op:
    return Add()


@magnitude.register
def _(op: LeakyRelu) -> Op:
    """Of a magnitude it is not known which side it comes from: the steeper one counts."""
    return spread(op)


@magnitude.register
def _(op: Gather) -> Op:
    return replace(op, fill=abs(op.fill))


@singledispatch
def spread(op: Op) -> Op:
    """The operation that carries radii and errors forward: ``|op(x + e) - op(x)| <= spread(op)(|e|)``."""
    return op


@spread.register(Linear)
@spread.register(Conv2d)
@spread.register(ConvTranspose2d)
def _(op: Linear | Conv2d | ConvTranspose2d) -> Op:
    return replace(op, weight=op.weight.abs(), bias=torch.zeros_like(op.bias))


@spread.register
def _(op: Scale) -> Op:
    return Scale(op.factor.abs(), torch.zeros_like(op.shift))


@spread.register
def _(op: Sub) -> Op:
    return Add()


@spread.register
def _(op: LeakyRelu) -> Op:
    factor = torch.tensor(max(op.slope, 1.0), dtype=torch.float64, device="cpu")  # goes with tensors anywhere
    return Scale(factor, torch.zeros_like(factor))


@spread.register
def _(op: Gather) -> Op:
    return replace(op, fill=0.0)


@singledispatch
def terms(op: Op) -> int:
    """How many products are summed into one output of ``op``, or roundings made; 0 where nothing is rounded."""
    return 0


@terms.register
def _(op: Linear) -> int:
    return int(op.weight.shape[1]) + 1


@terms.register
def _(op: Conv2d) -> int:
    return int(op.weight[0].numel()) + 1


@terms.register
def _(op: ConvTranspose2d) -> int:
    return int(op.weight[:, 0].numel()) + 1


@terms.register(Scale)
@terms.register(Add)
@terms.register(Sub)
@terms.register(LeakyRelu)
def _(op: Op) -> int:
    return 2


@terms.register
def _(op: Gather) -> int:
    return 1 if op.fill else 0  # what is filled in is rounded to the dtype


@terms.register(Smooth)
@terms.register(InverseSumExp)
def _(op: Op) -> int:
    return 8  # a library's curve errs by a few units in the last place of what :func:`noise` says


@terms.register
def _(op: Product) -> int:
    return 2


@terms.register
def _(op: Normalised) -> int:
    return 8 + op.count  # whoever sums the squares sums this one, too


def curved(op: Op) -> bool:
    """Whether what ``op`` makes of an error depends on its operand."""
    return drift.dispatch(type(op)) is not drift.dispatch(object)


@singledispatch
def drift(op: Op, low: Tensor, high: Tensor, error: Tensor) -> Tensor:
    """At least ``|op(x + e) - op(x)|`` for all x in the interval of the operand and ``|e| <= error`` (of its shape): of
    the value's shape. NaN or infinite where there is no bound."""
    return evaluate(spread(op), error)


@drift.register
def _(op: Smooth, low: Tensor, high: Tensor, error: Tensor) -> Tensor:
    least, most = ranges.slopes(op.of, low - error, high + error)
    return torch.maximum(least.abs(), most.abs()) * (1 + NEAR) * error


@drift.register
def _(op: Product, low: Tensor, high: Tensor, error: Tensor) -> Tensor:
    size = torch.maximum(low.abs(), high.abs())
    return (size * error.flip(-1)).sum(-1) + error[..., 0] * error[..., 1]


@drift.register
def _(op: InverseSumExp, low: Tensor, high: Tensor, error: Tensor) -> Tensor:
    """Its derivatives are the value times weights of sum 1, and it falls with each operand."""
    return evaluate(op, low - error) * (1 + NEAR) * error.amax(-1)


@drift.register
def _(op: Normalised, low: Tensor, high: Tensor, error: Tensor) -> Tensor:
    """With q the least sum of all squares its derivatives are at most 1 / sqrt(q) and 1 / (2 q), times the root of the
    count."""
    wide_low, wide_high = low - error, high + error
    near = torch.maximum(wide_low[..., 0], -wide_high[..., 0]).clamp(min=0)
    least = torch.where(wide_low[..., 1] > 0, near.square() + wide_low[..., 1], torch.nan)
    root: float = op.count**0.5 * (1 + NEAR)
    return root * (error[..., 0] * least.rsqrt() + error[..., 1] / (2 * least))


@drift.register
def _(op: Opaque, low: Tensor, high: Tensor, error: Tensor) -> Tensor:
    """Nobody knows."""
    return torch.full_like(evaluate(op, low), torch.inf)


@drift.register
def _(op: Step, low: Tensor, high: Tensor, error: Tensor) -> Tensor:
    far = (1 + NEAR) * error + NEAR * torch.maximum(low.abs(), high.abs())
    jump = evaluate(op, high + far) - evaluate(op, low - far)
    return jump if op.kind == "sign" else torch.minimum(jump, 1 + far)


@singledispatch
def noise(op: Op, low: Tensor, high: Tensor, value: Tensor) -> Tensor:
    """What the roundings of ``op``, :func:`terms` of them, are relative to, where its operand lies in the interval, and
    its value is of this magnitude: of the shape of ``value``."""
    return value


@noise.register
def _(op: Smooth, low: Tensor, high: Tensor, value: Tensor) -> Tensor:
    more = op.of.noise
    return value if more is None else value + more(torch.maximum(low.abs(), high.abs()))


@noise.register
def _(op: InverseSumExp, low: Tensor, high: Tensor, value: Tensor) -> Tensor:
    """The sum has so many terms, and its logarithm is rounded before it is an exponent."""
    return value * (low.shape[-1] + value.clamp(min=torch.finfo(value.dtype).tiny).log().abs())
