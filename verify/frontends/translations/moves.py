"""What only moves values around: a Reshape or a Gather, told by where torch sends the numbers of the elements."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.core.ops import Concat, Gather, Op, Reshape
from assay.verify.frontends.trace import Call, Untranslatable, Value, traced


def same(call: Call) -> Any:
    """The identity; a constant moved to the dtype of a traced value, ``c.to(x)``, is still a constant."""
    x = call.args[0] if call.args else call.kwargs.get("input")
    if not isinstance(x, Value):
        return call.concrete
    if call.concrete.dtype != x.concrete.dtype:
        raise Untranslatable(f"casts to {call.concrete.dtype}")
    if not torch.equal(call.concrete, x.concrete):
        raise Untranslatable("changes values")
    return Value(x.position, call.concrete)  # the numbers are the same, their order in memory may not be


def rearranged(call: Call) -> Any:
    """Whatever only moves values around, told by where the numbers of the elements go."""
    return _rearranged(call, call.again(_numbered(call.operand.concrete)), call.concrete, fill=0.0)


def pad(call: Call) -> Value:
    """Padding with a constant, or by reflection or replication."""
    if call.module is not None:
        module: Any = call.module
        x, padding, mode, value = call.operand, module.padding, "constant", getattr(module, "value", 0.0)
    else:
        defaults = {"mode": "constant", "value": None}
        x, padding, mode, value = call.options(("input", "pad", "mode", "value"), defaults)
    number = _numbered(traced(x).concrete)
    moved = F.pad(number, padding, value=0.0) if mode == "constant" else F.pad(number, padding, mode)
    found = _rearranged(call, moved, call.concrete, fill=float(value or 0.0))
    assert isinstance(found, Value)
    return found


def padded(call: Call, x: Value, padding: list[int]) -> Value:
    """``x`` with zeros around, as torch counts them: from the last axis on, before and after."""
    moved = F.pad(_numbered(x.concrete), padding)
    return call.emit(Gather(moved[0].flatten().long() - 1, tuple(moved.shape[1:])), x, last=False)


def _numbered(batch: Tensor) -> Tensor:
    """The numbers of all elements of ``batch`` from 1 on, in its shape."""
    return torch.arange(1, batch.numel() + 1, dtype=torch.float64).reshape(batch.shape)


def _rearranged(call: Call, moved: Any, concrete: Any, fill: float) -> Any:
    if isinstance(moved, (tuple, list)):
        pairs = zip(moved, concrete, strict=True)
        return type(moved)(_rearranged(call, part, value, fill) for part, value in pairs)
    if not isinstance(moved, Tensor) or moved.dim() < 1 or len(moved) != len(call.operand.concrete):
        raise Untranslatable
    # The other samples' elements must go the same ways; 0 is what padding put there.
    size = call.operand.concrete[0].numel()
    later = torch.arange(len(moved)).view(-1, *[1] * (moved.dim() - 1)) * size
    if bool((moved[0] > size).any()) or not torch.equal(moved, moved[:1] + later * (moved[:1] > 0)):
        raise Untranslatable
    shape, index = tuple(moved.shape[1:]), moved[0].flatten().long() - 1
    in_place = torch.equal(index, torch.arange(call.operand.concrete[0].numel()))
    op: Op = Reshape(shape) if in_place else Gather(index, shape, fill)
    return call.translation.emit(op, [call.operand], concrete)


def item(call: Call) -> Any:
    """``x[...]``: of a value a rearrangement, of a tuple of values one of them."""
    return rearranged(call) if isinstance(call.args[0], Value) else call.args[0][call.args[1]]


def concat(call: Call) -> Value:
    """Values side by side; constants among them are not read."""
    parts, axis = call.options(("tensors", "dim"), {"dim": 0})
    operands = [traced(part) for part in parts]
    axis = axis % call.concrete.dim()
    if axis == 0:
        raise Untranslatable
    return call.emit(Concat(axis - 1), *operands)
