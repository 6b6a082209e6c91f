"""Smooth activations and piecewise constant ones: curves of each element, scaled and shifted before and after."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.frontends import composed
from assay.verify.frontends.composed import Emit, scaled, smooth
from assay.verify.frontends.composed import Value as Node
from assay.verify.frontends.onnx.layers import ZERO, scale
from assay.verify.frontends.onnx.moves import broadcast
from assay.verify.frontends.onnx.piecewise import at_least, at_most
from assay.verify.frontends.onnx.translation import Call, Handler, Value, broadcast_shape
from assay.verify.frontends.refusal import Untranslatable


def of_each(call: Call, x: Value, function: Callable[[Emit, Node], Node]) -> Value:
    """A function of each element."""
    return call.value(function(call.append, call.sample(x)), x.shape, x.dtype)


def curve(name: str, parameter: float = 0.0) -> Handler:
    """The handler of one curve."""
    return lambda call: of_each(call, call.traced(), lambda emit, x: smooth(emit, x, name, parameter))


def step(kind: str) -> Handler:
    """The handler of a function that is constant in pieces."""
    return lambda call: of_each(call, call.traced(), lambda emit, x: composed.stepped(emit, x, kind))


def sigmoid(call: Call) -> Value:
    """The logistic function."""
    return of_each(call, call.traced(), composed.sigmoid)


def gelu(call: Call) -> Value:
    """``x`` times the normal distribution function of x, or that by a tanh."""
    kind = call.text("approximate", "none")
    if kind not in ("none", "tanh"):
        raise Untranslatable(f"by {kind!r}")
    return of_each(call, call.traced(), lambda emit, x: smooth(emit, x, "gelu_tanh" if kind == "tanh" else "gelu"))


def elu(call: Call) -> Value:
    """``x`` where x > 0, ``alpha (exp(x) - 1)`` elsewhere."""
    return _elu(call, call.number("alpha", 1.0), 1.0, 1.0)


def selu(call: Call) -> Value:
    """``gamma`` times that."""
    return _elu(
        call, call.number("alpha", 1.67326319217681884765625), 1.0, call.number("gamma", 1.05070102214813232421875)
    )


def celu(call: Call) -> Value:
    """``x`` where x > 0, ``alpha (exp(x / alpha) - 1)`` elsewhere."""
    alpha = call.number("alpha", 1.0)
    if alpha <= 0:
        raise Untranslatable(f"alpha {alpha:g}, expected a positive one")
    return _elu(call, 1.0, 1 / alpha, alpha)


def _elu(call: Call, alpha: float, inner: float, outer: float) -> Value:
    if alpha <= 0:
        raise Untranslatable(f"alpha {alpha:g}, expected a positive one")
    return of_each(
        call, call.traced(), lambda emit, x: scaled(emit, smooth(emit, scaled(emit, x, inner), "elu", alpha), outer)
    )


def swish(call: Call) -> Value:
    """``x`` times the logistic function of ``alpha x``."""
    alpha = call.number("alpha", 1.0)
    if alpha == 0:
        return scale(call, call.traced(), torch.tensor(0.5, dtype=torch.float64), ZERO)
    return of_each(
        call, call.traced(), lambda emit, x: scaled(emit, smooth(emit, scaled(emit, x, alpha), "silu"), 1 / alpha)
    )


def power(call: Call) -> Value:
    """A value to a constant power, or a positive constant to the power of a value."""
    x, exponent = call.operand(0), call.operand(1)
    shape = broadcast_shape(x.shape, exponent.shape)
    if isinstance(exponent, Tensor):
        flat = exponent.to(torch.float64).flatten()
        if not len(flat) or bool((flat != flat[0]).any()):
            raise Untranslatable("to several powers")
        wide = broadcast(call, call.traced(), shape)
        assert isinstance(wide, Value)
        return of_each(call, wide, lambda emit, x: composed.power(emit, x, float(flat[0])))
    if isinstance(x, Value):
        raise Untranslatable("to a power that depends on the input")
    if not bool((x > 0).all()):
        raise Untranslatable("of a base that is not positive")
    return of_each(call, scale(call, exponent, x.to(torch.float64).log(), ZERO), lambda emit, x: smooth(emit, x, "exp"))


def quantized(call: Call) -> Value:
    """``round(x / scale) + zero``, within the range of the whole numbers that it goes to."""
    x, factor = call.traced(), per_axis(call, call.constant(1, "the scale").to(torch.float64), call.traced())
    zero = call.constant(2, "the zero point") if call.has(2) else torch.zeros((), dtype=torch.uint8)
    call.ignore("saturate")
    if call.integer("output_dtype", 0) or zero.is_floating_point() or call.integer("block_size", 0):
        raise Untranslatable("in blocks, or to another type than whole numbers")
    if bool((factor <= 0).any()):
        raise InputError(f"{call.node.label} has a scale that is not positive")
    offset, ends = per_axis(call, zero.to(torch.float64), x), torch.iinfo(zero.dtype)
    whole = of_each(call, scale(call, x, 1 / factor, ZERO), lambda emit, x: composed.stepped(emit, x, "round"))
    low, high = (torch.tensor(float(end), dtype=torch.float64) for end in (ends.min, ends.max))
    kept = at_most(call, at_least(call, scale(call, whole, torch.ones_like(low), offset), low), high)
    return Value(kept.position, kept.shape, zero.dtype)


def dequantized(call: Call) -> Value:
    """``(x - zero) * scale``."""
    x, given = call.traced(), call.constant(1, "the scale")
    if x.dtype.is_floating_point:
        raise Untranslatable("of a value that is not quantised")
    zero = call.constant(2, "the zero point") if call.has(2) else torch.zeros(())
    if call.integer("block_size", 0) or call.integer("output_dtype", 0):
        raise Untranslatable("in blocks, or to another type")
    factor, offset = (per_axis(call, t.to(torch.float64), x) for t in (given, zero))
    y = scale(call, scale(call, x, torch.ones_like(factor), -offset), factor, ZERO)
    return Value(y.position, y.shape, given.dtype)


def per_axis(call: Call, given: Tensor, x: Value) -> Tensor:
    """One number for all, or for each index of an axis, as it broadcasts against x."""
    axis = call.integer("axis", 1)
    if given.numel() == 1:
        return given.reshape(())
    axis = axis + len(x.shape) if axis < 0 else axis
    return given.reshape([-1 if i == axis else 1 for i in range(len(x.shape))])
