"""Sums of whole numbers, of which floating point loses nothing: labels and truth values are compared exactly."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from assay.verify.bounds.memo import per_op
from assay.verify.core.network import Network
from assay.verify.core.ops import Add, Linear, Op, Scale, Sub
from assay.verify.core.verifier import Bounds
from assay.verify.support import devices

SUMS = (Add, Linear, Scale, Sub)
FIRST = 16  # numbers that are looked at before all are


@per_op
def _of_whole_numbers(op: Op) -> bool:
    return all(_whole(value) for value in _tensors(op))


def exact(
    op: Op, operands: Sequence[Bounds], size: Tensor, unit: float, literal: Network | None = None
) -> Tensor | None:
    """In which samples the interval of a node over its operands' (samples x shape) is exact as it was computed:
    (samples); None if in none. ``size``: the magnitude of all that is summed; ``unit``: of the arithmetic. ``literal``:
    the network before it was folded, if it was; weights that are not there are products, which were rounded.

    With whole ends and weights all terms, and what is half way between the ends, are multiples of 1/2, and so are their
    sums in any order, which are exact below ``1 / (2 unit)``.
    """
    if not isinstance(op, SUMS) or not devices.is_host(size) or not _of_whole_numbers(op):
        return None
    ends = [side.flatten(1) for operand in operands for side in (operand.lower, operand.upper)]
    if not all(bool(_each(end[:, :FIRST]).any()) for end in ends):
        return None
    known = (size.flatten(1) < 0.25 / unit).all(1)
    for end in ends:
        known = known & _each(end)
    return known if bool(known.any()) and (literal is None or _stands_in(literal, op)) else None


def _stands_in(network: Network, op: Op) -> bool:
    """Whether an operation of the network has these weights."""
    mine = _tensors(op)
    return not mine or any(
        type(node.op) is type(op)
        and len(theirs := _tensors(node.op)) == len(mine)
        and all(a.shape == b.shape and a.double().equal(b.double()) for a, b in zip(mine, theirs, strict=True))
        for node in network.nodes
    )


def _tensors(op: Op) -> list[Tensor]:
    return [value for value in vars(op).values() if isinstance(value, Tensor)]


def _each(values: Tensor) -> Tensor:
    """Which samples (samples x values) are whole numbers throughout: (samples)."""
    return (values == values.round()).all(1)


def _whole(values: Tensor) -> bool:
    return bool((values == values.round()).all())
