"""Rows propagated backwards through a network: the one walk behind all linear bounds (CROWN: Zhang et al. 2018,
arXiv:1811.00866).

A row is a linear function of one node's value. Going down, it becomes a linear function of the operands, the operation
before: exactly where that is affine, and below it, by one of two lines, where it is an activation. Rows that reach a
node by several paths are added up. How rows are kept, and what each operation does to them, is a matter of their
representation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from torch import Tensor

from assay.verify.core.network import Node

R = TypeVar("R")


class Rules(Protocol[R]):
    """What a representation ``R`` of rows does at the nodes of a network, by their positions.

    Rows that are handed over may be overwritten.
    """

    def pull(self, position: int, rows: R) -> tuple[Sequence[R], Tensor | None]:
        """Rows of the node's value as rows of each of its operands, and what has to be added: one number a row, in
        the representation's layout; None is 0."""
        ...

    def add(self, position: int, a: R, b: R) -> R:
        """The sum of rows of one node."""
        ...


def propagate_backwards(
    nodes: Sequence[Node],
    rules: Rules[R],
    pending: dict[int, R],
    total: Tensor,
    until: Callable[[int], bool] = lambda position: False,
) -> tuple[dict[int, R], Tensor]:
    """Rows of nodes' values, by position, taken down to the input, or to the nodes at which they are to stay.

    ``pending`` is used up; ``total``: the constant of each row, in the representation's layout. Result: the rows
    where they are now, and their constants.
    """
    pending, resting = dict(pending), {}
    while pending:
        position = max(pending)
        rows = pending.pop(position)
        if position == 0 or until(position):
            resting[position] = rows
            continue
        parts, constant = rules.pull(position, rows)
        if constant is not None:
            total = total + constant
        for source, part in zip(nodes[position].inputs, parts, strict=True):
            pending[source] = rules.add(source, pending[source], part) if source in pending else part
    return resting, total
