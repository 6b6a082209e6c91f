"""What a network ends in that leaves the order of its outputs as it is: left out where only the order matters."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from assay.verify.core.ops import Op, Reshape, Scale, Smooth

# Curves that are defined everywhere and increase strictly.
INCREASING = {"tanh", "sigmoid", "erf", "arctan", "arcsinh", "softsign", "softplus", "logsigmoid", "elu", "exp", "sinh"}


def ending(nodes: Sequence[tuple[Op, tuple[int, ...]]]) -> tuple[int, float, list[str]]:
    """The position of the node before the last increasing curves, how many times its value they take, and their names,
    the first one first.

    ``nodes``: operations and the positions of their operands. A logistic function is a tanh of half of what it takes.
    """
    factor = 1.0
    names: list[str] = []
    last = position = len(nodes) - 1
    after: Op | None = None
    while position:
        op, operands = nodes[position]
        if isinstance(op, Smooth) and op.curve in INCREASING:
            logistic = op.curve == "tanh" and _halves(after)
            names.insert(0, "sigmoid" if logistic else op.curve)
            (last,), factor = operands, 2.0 if logistic else 1.0
        elif not (isinstance(op, Reshape) or (isinstance(op, Scale) and _keeps_order(op))):
            break
        after = op
        position = operands[0]
    return last, factor, names


def _keeps_order(op: Scale) -> bool:
    return all(_same(part) for part in (op.factor, op.shift)) and bool((op.factor > 0).all())


def _halves(op: Op | None) -> bool:
    """Whether it makes a logistic function of a tanh."""
    return isinstance(op, Scale) and bool((op.factor == 0.5).all()) and bool((op.shift == 0.5).all())


def _same(part: Tensor) -> bool:
    return bool((part == part.flatten()[0]).all())
