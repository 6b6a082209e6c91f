"""What depends on constants and shapes only: computed at once, in its own dtype, as the runtime would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from assay.verify.frontends.onnx.translation import Call, Handler, broadcast_shape
from assay.verify.frontends.refusal import Untranslatable

# Attributes of Constant other than a tensor, with the dtype of their value.
PLAIN = {
    "value_float": torch.float32,
    "value_floats": torch.float32,
    "value_int": torch.int64,
    "value_ints": torch.int64,
}


def shape(call: Call) -> Tensor:
    """The shape of the operand, at a batch of one."""
    lengths, start = list(call.operand().shape), call.integer("start", 0)
    return torch.tensor(lengths[start : call.integer("end", len(lengths))], dtype=torch.int64)


def size(call: Call) -> Tensor:
    """The number of elements of the operand, at a batch of one."""
    return torch.tensor(prod(call.operand().shape), dtype=torch.int64)


def constant(call: Call) -> Tensor:
    """A tensor, a number or numbers from the node's attributes."""
    ((name, value),) = call.node.attributes.items()
    call.ignore(name)
    if name == "value" and isinstance(value, Tensor):
        return value
    if name not in PLAIN:
        raise Untranslatable(f"attribute {name!r}")
    return torch.tensor(value, dtype=PLAIN[name])


def filled(call: Call) -> Tensor:
    """One value in a constant shape."""
    lengths, value = call.constant(0).tolist(), call.node.attributes.get("value", torch.zeros(1))
    call.ignore("value")
    call.translation.claim(lengths)
    if not isinstance(value, Tensor):
        raise Untranslatable("without a value")
    return value.reshape(()).expand(lengths).clone()


def numbers(call: Call) -> Tensor:
    """From a start by steps up to a limit, which is left out."""
    start, limit, step = (call.constant(i).item() for i in range(3))
    call.translation.claim([max(int((limit - start) / step), 0)])
    return torch.arange(start, limit, step, dtype=call.constant(0).dtype)


def dequantized(call: Call) -> Tensor:
    """``(x - zero) * scale`` of whole numbers, per tensor or per index of an axis."""
    x, factor, axis = call.constant(0), call.constant(1), call.integer("axis", 1)
    zero = call.constant(2) if call.has(2) else torch.zeros((), dtype=x.dtype)
    if call.integer("block_size", 0):
        raise Untranslatable("in blocks")
    if factor.numel() > 1:
        axis = axis + x.dim() if axis < 0 else axis
        along = [-1 if i == axis else 1 for i in range(x.dim())]
        factor, zero = factor.reshape(along), zero.reshape(along) if zero.numel() > 1 else zero.reshape(())
    else:
        factor, zero = factor.reshape(()), zero.reshape(())
    return (x.to(torch.int64) - zero.to(torch.int64)).to(factor.dtype) * factor


def remainder(call: Call) -> Tensor:
    """Of a division, with the sign of the divisor; with ``fmod`` with that of what is divided."""
    a, b = call.constant(0), call.constant(1)
    call.translation.claim(broadcast_shape(a.shape, b.shape))
    return torch.fmod(a, b) if call.integer("fmod", 0) else torch.remainder(a, b)


def places(call: Call) -> Tensor:
    """Where numbers are other than 0: (axes x places)."""
    return call.constant(0).nonzero().T


def one_hot(call: Call) -> Tensor:
    """One value at each index of a new axis, another elsewhere."""
    index, depth, values = call.constant(0).long(), int(call.constant(1)), call.constant(2)
    axis = call.integer("axis", -1)
    call.translation.claim([*index.shape, depth])
    hot = (torch.where(index < 0, index + depth, index).unsqueeze(-1) == torch.arange(depth)).movedim(-1, axis)
    return torch.where(hot, values[1], values[0])


def sources() -> dict[str, Handler]:
    """Handlers of what is made of constants only, by operation."""
    return {
        "Constant": constant,
        "ConstantOfShape": filled,
        "DequantizeLinear": dequantized,
        "Mod": remainder,
        "NonZero": places,
        "OneHot": one_hot,
        "Range": numbers,
    }


def elementwise() -> dict[str, Handler]:
    """Handlers of arithmetic and comparisons, by operation."""
    functions: dict[str, Callable[..., Tensor]] = {
        "Abs": torch.abs,
        "Add": torch.add,
        "And": torch.logical_and,
        "Ceil": torch.ceil,
        "Div": lambda a, b: a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc"),
        "Equal": torch.eq,
        "Exp": torch.exp,
        "Floor": torch.floor,
        "Greater": torch.gt,
        "GreaterOrEqual": torch.ge,
        "Less": torch.lt,
        "LessOrEqual": torch.le,
        "Log": torch.log,
        "Max": lambda *operands: _stacked(operands).amax(0),
        "Min": lambda *operands: _stacked(operands).amin(0),
        "Mul": torch.mul,
        "Sign": torch.sign,
        "Xor": torch.logical_xor,
        "Neg": torch.neg,
        "Not": torch.logical_not,
        "Or": torch.logical_or,
        "Pow": lambda a, b: torch.pow(a, b).to(a.dtype),
        "Reciprocal": torch.reciprocal,
        "Sqrt": torch.sqrt,
        "Sub": torch.sub,
        "Where": torch.where,
    }
    return {name: _broadcasting(function) for name, function in functions.items()}


def _broadcasting(function: Callable[..., Tensor]) -> Handler:
    """The handler for a function of tensors that broadcast."""

    def handle(call: Call) -> Tensor:
        operands = [call.constant(i) for i in range(len(call.inputs))]
        call.translation.claim(broadcast_shape(*(v.shape for v in operands)))
        return function(*operands)

    return handle


def _stacked(operands: Sequence[Tensor]) -> Tensor:
    shape = broadcast_shape(*(v.shape for v in operands))
    return torch.stack([v.expand(shape) for v in operands])
