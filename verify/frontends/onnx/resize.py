"""Planes made larger or smaller: by the nearest element, which only moves values, or linearly between two."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.frontends.onnx.layers import linear
from assay.verify.frontends.onnx.moves import different_axes, rearrange
from assay.verify.frontends.onnx.translation import Call, Operand, Value
from assay.verify.frontends.refusal import Untranslatable

NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
FIRST = "of the first version"  # how Upsample and the first Resize round: down, or up where the axis becomes shorter


def upsample(call: Call) -> Operand:
    """The forerunner of Resize, by constant scales."""
    operand = call.operand()
    factors = call.constant(1, "the scales").float() if call.has(1) else torch.tensor(call.numbers("scales"))
    axes = range(len(operand.shape))
    lengths = _scaled(call, tuple(operand.shape), factors)
    return _resized(call, operand, [(a, lengths[a], factors[a]) for a in axes], "asymmetric", FIRST)


def resize(call: Call) -> Operand:
    """To constant sizes, or by constant scales."""
    operand = call.operand()
    call.ignore("cubic_coeff_a", "extrapolation_value", "exclude_outside")
    place = 1 if len(call.inputs) == 2 else 2  # the first version had no region of interest
    kind = call.text("coordinate_transformation_mode", "half_pixel" if place == 2 else "asymmetric")
    rounding = call.text("nearest_mode", "round_prefer_floor" if place == 2 else FIRST)
    if call.integer("antialias", 0) or call.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Untranslatable("with antialiasing, or keeping the aspect ratio")
    rank = len(operand.shape)
    axes = call.integers("axes") or tuple(range(rank))
    different_axes(axes, rank)
    old = tuple(operand.shape[a] for a in axes)
    if call.has(place) and call.constant(place, "the scales").numel():
        factors = call.constant(place).float()
        lengths = _scaled(call, old, factors)
    else:
        lengths = call.needed("sizes", 3)
        if len(lengths) != len(axes):
            raise InputError(f"{call.node.label} has {len(lengths)} sizes for {len(axes)} axes")
        factors = torch.tensor(lengths, dtype=torch.float32) / torch.tensor(old, dtype=torch.float32)
    each = [(a % rank, n, f) for a, n, f in zip(axes, lengths, factors, strict=True)]
    return _resized(call, operand, each, kind, rounding)


def _scaled(call: Call, old: tuple[int, ...], factors: Tensor) -> tuple[int, ...]:
    """The lengths that ``factors`` lead to."""
    if len(factors) != len(old) or not bool((factors > 0).all()):
        raise InputError(f"{call.node.label} has the scales {factors.tolist()} for {list(old)}")
    return tuple(torch.floor(torch.tensor(old, dtype=torch.float32) * factors).long().tolist())


def _resized(call: Call, operand: Operand, each: list[tuple[int, int, Tensor]], kind: str, rounding: str) -> Operand:
    """Axis by axis: (axis, new length, its quotient by the old one)."""
    mode = call.text("mode", "nearest")
    if mode not in ("nearest", "linear") or rounding not in (*NEAREST, FIRST):
        raise Untranslatable(f"mode {mode!r}, {rounding!r}")
    if mode == "linear" and kind == "half_pixel_symmetric":  # its places depend on the order of rounding
        raise Untranslatable(f"mode {mode!r}, {kind!r}")
    longer = list(operand.shape)
    for axis, length, factor in each:
        n = operand.shape[axis]
        longer[axis] = length
        if not length:
            raise Untranslatable("a value without elements")
        call.translation.claim(longer)
        if length == n and float(factor) == 1:
            continue
        place = _places(n, length, factor, kind)
        if mode == "linear":
            operand = _between(call, operand, axis, place.clamp(0, n - 1))
        else:
            if float(factor.frexp().mantissa) != 0.5:  # no power of two: the order of rounding may decide
                call.translation.delicate = call.node.label
            first = "ceil" if float(factor) < 1 else "floor"
            index = _nearest(place, first if rounding == FIRST else rounding).long().clamp(0, n - 1)
            operand = rearrange(call, operand, lambda x, a=axis, i=index: x.index_select(a, i))  # type: ignore[misc]
    return operand


def _places(n: int, length: int, factor: Tensor, kind: str) -> Tensor:
    """Where the new elements of an axis lie among the ``n`` old ones, computed in float32 as the runtime does."""
    new = torch.arange(length, dtype=torch.float32)
    match kind:
        case "half_pixel":
            return (new + 0.5) / factor - 0.5
        case "pytorch_half_pixel":
            return (new + 0.5) / factor - 0.5 if length > 1 else torch.zeros(1)
        case "asymmetric":
            return new / factor
        case "align_corners":
            return new * (n - 1) / (length - 1) if length > 1 else torch.zeros(1)
        case "tf_half_pixel_for_nn":
            return (new + 0.5) / factor
        case "half_pixel_symmetric":
            offset = n / 2 * (1 - length / (factor * n))
            return offset + (new + 0.5) / factor - 0.5
    raise Untranslatable(f"coordinates {kind!r}")


def _nearest(place: Tensor, rounding: str) -> Tensor:
    match rounding:
        case "floor":
            return place.floor()
        case "ceil":
            return place.ceil()
        case "round_prefer_floor":
            return (place - 0.5).ceil()
    return (place + 0.5).floor()


def _between(call: Call, operand: Operand, axis: int, place: Tensor) -> Operand:
    """A mean of the two old elements around each place, the nearer one counting more."""
    if not isinstance(operand, Value):
        raise Untranslatable("of a constant, linearly")
    n, first = operand.shape[axis], place.floor().long()
    share = (place - first)[:, None].double()
    units = torch.eye(n, dtype=torch.float64)
    weight = (1 - share) * units[first] + share * units[(first + 1).clamp(max=n - 1)]
    last = cast(Value, rearrange(call, operand, lambda x: x.movedim(axis, -1)))
    return rearrange(call, linear(call, last, weight), lambda x: x.movedim(-1, axis))
