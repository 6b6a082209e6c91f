"""The softmax that a classifier ends in, or its logarithm: left out, as the order of the outputs stays the same."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from assay.verify.frontends.trace import Call, Untranslatable, Value, traced

SOFTMAX = (nn.Softmax, F.softmax, torch.softmax, "softmax")
LOG_SOFTMAX = (nn.LogSoftmax, F.log_softmax, torch.log_softmax, "log_softmax")


def readout(call: Call) -> Value:
    """The logits; the network says what its oracle goes on with."""
    x, axis, dtype = _operands(call)
    if any(user.op != "output" for user in call.node.users) or call.translation.live:
        raise Untranslatable("is read as the last layer only")
    if x.concrete.dim() != 2 or axis not in (None, 1, -1) or dtype is not None:
        raise Untranslatable("is read over the classes of (batch x classes) only")
    key = type(call.module) if call.module is not None else call.node.target
    call.translation.readout = "softmax" if key in SOFTMAX else "log_softmax"
    return x


def _operands(call: Call) -> tuple[Value, int | None, torch.dtype | None]:
    """What it is of, over which axis, and the precision that it casts to."""
    names: tuple[str, ...] = ("input", "dim")
    if call.node.target in (F.softmax, F.log_softmax):
        names = ("input", "dim", "_stacklevel", "dtype")
    elif call.module is None:
        names = ("input", "dim", "dtype")
    x, axis, *rest = call.options(names, {"dim": None, "_stacklevel": 3, "dtype": None})
    return traced(x), axis, rest[-1] if rest else None
