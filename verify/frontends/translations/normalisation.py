"""Normalisation: by statistics that were collected, or by those of the value itself, in groups of its elements."""

from __future__ import annotations

from math import inf, prod

import torch
from torch import Tensor

from assay.verify.core.ops import Linear, Max, Scale, Smooth
from assay.verify.frontends import composed
from assay.verify.frontends.composed import Value, centred, mean, normalised, scaled
from assay.verify.frontends.refusal import Untranslatable
from assay.verify.frontends.translation import Step
from assay.verify.frontends.translations.activations import magnitude
from assay.verify.frontends.translations.arithmetic import axes_of, last


def batch_norm(step: Step) -> Value:
    """Batch normalisation with the statistics that it has collected; under live training those of the batch.

    In two steps, the mean first: what cancels there is rounded in the original, and must be in the error bound. With
    statistics of its own, on one sample, it is how torch normalises each channel of an instance.
    """
    given = _statistics(step)
    if given is None:
        return _of_instance(step)
    x = step.value("input")
    centre, width = given
    shape = (-1, *[1] * (step["input"].number.dim() - 2))
    weight, bias = step.constant("weight"), step.constant("bias")
    if not step.live:
        centre, width = centre.detach().double(), width.detach().double()
    centre = centre.reshape(shape)
    factor = ((width + step["eps"]).rsqrt() * (1 if weight is None else weight)).reshape(shape)
    shift = torch.zeros_like(factor) if bias is None else bias.reshape(shape)
    if step.live:
        return step.emit(Scale(factor, shift - centre * factor), x, shape=x.shape)
    about = step.emit(Scale(torch.ones_like(centre), -centre), x, shape=x.shape)
    return step.emit(Scale(factor, shift.double()), about, shape=x.shape)


def _statistics(step: Step) -> tuple[Tensor, Tensor] | None:
    of_batch = step.translation.statistics.pop(0) if step.translation.statistics else None
    if of_batch is not None:
        return of_batch
    centre, width = step.constant("running_mean"), step.constant("running_var")
    return None if step.given.get("training") or centre is None or width is None else (centre, width)


def _of_instance(step: Step) -> Value:
    x: Tensor = step["input"].number
    if len(x) != 1:
        raise Untranslatable("normalises by the statistics of its input")
    rows = step.value("input", lambda x: x.reshape(1, x.shape[1], -1))
    return _affine(step, normalised(step.emit, centred(step.emit, rows), step["eps"]), x.dim() - 2)


def layer_norm(step: Step) -> list[Value]:
    """By the statistics of the last axes."""
    return [_affine(step, normalised(step.emit, centred(step.emit, _rows(step)), step["eps"]))]


def rms_norm(step: Step) -> list[Value]:
    """By the root of the mean square of the last axes."""
    eps = step["eps"]
    least = torch.finfo(step["input"].number.dtype).eps if eps is None else eps
    return [_affine(step, normalised(step.emit, _rows(step), least))]


def _rows(step: Step) -> Value:
    count = len(step["normalized_shape"])
    return step.value("input", lambda x: x.reshape(*x.shape[: x.dim() - count], -1))


def group_norm(step: Step) -> list[Value]:
    """By the statistics of each group of channels."""
    if step["N"] != 1:
        raise Untranslatable("of several samples at once")
    rows = step.value("input", lambda x: x.reshape(1, int(step["group"]), -1))
    y = normalised(step.emit, centred(step.emit, rows), step["eps"])
    return [_affine(step, y, step["input"].number.dim() - 2)]


def _affine(step: Step, y: Value, behind: int = 0) -> Value:
    """Weights and biases applied, with so many axes behind those that they have."""
    y = step.shaped(y)
    given: list[Tensor | None] = [step.constant(name) if name in step.given else None for name in ("weight", "bias")]
    like = next((tensor for tensor in given if tensor is not None), None)
    if like is None:
        return y
    factor = torch.ones_like(like) if given[0] is None else given[0]
    shift = torch.zeros_like(like) if given[1] is None else given[1]
    shape = (*factor.shape, *[1] * behind)
    return step.emit(Scale(factor.reshape(shape), shift.reshape(shape)), y, shape=y.shape)


def variance(step: Step) -> Value:
    """The variance over some axes, or all, with Bessel's correction or another."""
    return _variance(step)


def deviation(step: Step) -> Value:
    """The root of the variance."""
    x = _variance(step)
    return step.emit(Smooth("sqrt"), x, shape=x.shape)


def variance_and_mean(step: Step) -> list[Value]:
    """Both."""
    axes = axes_of(step)
    return [_variance(step), mean(step.emit, step.value("self", lambda x: last(x, axes)))]


def _variance(step: Step) -> Value:
    axes = axes_of(step)
    size = prod(step["self"].number.shape[axis] for axis in axes)
    given = step.given.get("correction")
    count = size - (1 if given is None else float(given))
    if count <= 0:
        raise Untranslatable("of too few values")
    about = centred(step.emit, step.value("self", lambda x: last(x, axes)))
    square = step.emit(Smooth("square"), about, shape=about.shape)
    return scaled(step.emit, mean(step.emit, square), size / count)


def norm(step: Step) -> Value:
    """The norm in l1, l2 or linf over some axes, or all."""
    axes, order = axes_of(step), float(step["ord"])
    if order not in (1.0, 2.0, inf):
        raise Untranslatable(f"in l{order:g}")
    x = step.value("self", lambda x: last(x, axes))
    if order == inf:
        rows = magnitude(step, x)
        rows = rows if len(rows.shape) > 1 else composed.reshaped(step.emit, rows, (1, *rows.shape))
        return step.emit(Max(), rows, shape=rows.shape[:-1])
    weight = torch.ones(1, x.shape[-1], dtype=torch.float64)
    op = Linear(weight, weight.new_zeros(1))
    if order == 1:
        return step.emit(op, magnitude(step, x), shape=(*x.shape[:-1], 1))
    squares = step.emit(op, step.emit(Smooth("square"), x, shape=x.shape), shape=(*x.shape[:-1], 1))
    return step.emit(Smooth("sqrt"), squares, shape=squares.shape)
