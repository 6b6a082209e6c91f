"""Regular rows: as many for each sample or domain, kept on all features. For specifications, searches and training.

Nothing is overwritten, so that gradients pass through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, prod

import torch
from torch import Tensor

from assay.verify.bounds.backward import affine, shares
from assay.verify.bounds.backward.affine import Part
from assay.verify.bounds.backward.walk import propagate_backwards
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxations.relax import relaxes
from assay.verify.bounds.relaxed import Relaxed, middle_and_radius
from assay.verify.core.budget import Budget
from assay.verify.core.network import Node
from assay.verify.core.region import LpBall
from assay.verify.core.region.rounding import round_up
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import length

COPIES = 8  # of a block of coefficients that live at once while it passes a node
BLOCK = 1 << 24  # coefficients of a block, at most


@dataclass(frozen=True, eq=False)
class RowRules:
    """Rules for rows (domains * rows x features), those of a domain one after the other.

    ``lines``: of an activation, by position: (domains x features [x operands]). ``seen`` gets the coefficients that
    arrive at each activation, by position. ``operand``: the bounds of an activation's operand, by position, (domains x
    features [x operands]). ``domain``: that of each row (rows), where there are no operands and rows are in any order.
    """

    nodes: Sequence[Node]
    lines: Callable[[int], Lines]
    budget: Budget
    seen: dict[int, Tensor] | None = None
    operand: Callable[[int], Bounds] | None = None
    domain: Tensor | None = None

    def pull(self, position: int, rows: Part) -> tuple[Sequence[Part], Tensor | None]:
        """See :class:`assay.verify.bounds.backward.walk.Rules`."""
        self.budget.check()
        node = self.nodes[position]
        if not relaxes(node.op):
            return affine.pull(node.op, rows, [self.nodes[i].shape for i in node.inputs], node.shape)
        lines, besides = self.lines(position), None
        if self.operand is not None and shares.sums_to_one(node):
            rows, besides = self._without_common(position, rows, lines)
        part, constant = between(lines, rows, node.size, self.domain)
        constant = constant if besides is None else constant + besides
        if self.seen is not None:
            self.seen[position] = rows.dense(node.size)
        return [part], constant

    def _without_common(self, position: int, rows: Part, lines: Lines) -> tuple[Part, Tensor]:
        node = self.nodes[position]
        assert self.operand is not None
        values = shares.between(lines, self.operand(position))
        coef = by_domain(rows.dense(node.size), len(values.lower))
        left, common, error = shares.without_common(coef, values, node.shape[-1], len(self.nodes))
        return Part(left.flatten(0, 1)), (common - error).flatten()

    def add(self, position: int, a: Part, b: Part) -> Part:
        """See :class:`assay.verify.bounds.backward.walk.Rules`."""
        if a.support is b.support:
            return Part(a.coef + b.coef, a.support)
        size = self.nodes[position].size
        return Part(a.dense(size) + b.dense(size))


def between(lines: Lines, part: Part, size: int, domain: Tensor | None = None) -> tuple[Part, Tensor]:
    """Rows of an activation's value as rows of its operand: positive coefficients take the lower line, negative ones
    the upper line; and the constants (rows).

    ``lines``: (domains x features [x operands]); rows of one domain lie side by side, but where the ``domain`` of each
    is told (rows).
    """
    several = lines.slope.dim() > lines.intercept_gap.dim()
    if several:
        part = Part(part.dense(size))
    if part.support is not None:
        lines = lines.take(part.support, 1)
    if domain is not None:
        lines = lines.take(domain)
    rows = by_domain(part.coef, len(lines.intercept_gap))
    negative = rows.clamp(max=0)
    constant = weighed(negative, lines.intercept_gap)
    if lines.intercept is not None:
        constant = constant + weighed(rows, lines.intercept)
    if several:
        rows, negative = rows[..., None], negative[..., None]
    passed = (rows * lines.slope[:, None]).addcmul_(negative, lines.slope_gap[:, None])
    return Part(passed.flatten(0, 1).flatten(1), part.support), constant


def by_domain(coef: Tensor, domains: int) -> Tensor:
    """(domains * rows x features) to (domains x rows x features)."""
    return coef.view(domains, -1, coef.shape[-1])


def weighed(rows: Tensor, values: Tensor) -> Tensor:
    """The sum of coefficients (domains x rows x features) times values (domains x features): (domains * rows)."""
    if rows.shape[1] == 1:
        one: Tensor = torch.linalg.vecdot(rows[:, 0], values)
        return one
    return (rows @ values[..., None]).flatten()


def charge(coef: Tensor, lost: Tensor, dust: float) -> Tensor:
    """What rounding takes of each row where one unit of coefficient loses so much (domains x features), and what is
    lost to no coefficient: (rows)."""
    return weighed(by_domain(coef.abs(), len(lost)), lost) + dust


def least(rows: Tensor, box: Bounds) -> Tensor:
    """The least value of each row (domains x rows x features) over its domain's box (domains x features): (domains *
    rows)."""
    centre, radius = middle_and_radius(box)
    return weighed(rows, centre) - weighed(rows.abs(), radius)


def over_ball(rows: Tensor, ball: LpBall) -> Tensor:
    """The least value of each row (domains x rows x features) over its domain's ball, by the dual norm: (domains *
    rows)."""
    eps = round_up(torch.as_tensor(ball.eps, dtype=torch.float64), rows.dtype).to(rows).expand(len(rows))[:, None]
    at_centre = weighed(rows, ball.centre.flatten(1).to(rows))
    return at_centre - (eps * length(rows, 2 if ball.p == 2 else inf, dim=2)).flatten()


def lower_rows(
    relaxed: Relaxed, objective: Tensor, linear: bool, down: Callable[[Backward], Tensor] | None = None
) -> Tensor:
    """Lower bounds of ``objective @ output``: objective (samples x rows x outputs), result (samples x rows).

    From the intervals at the last activations, and with ``linear`` from the relaxed network too, the larger. ``down``:
    what takes rows from there to the region, if others than :meth:`Backward.over_region` are to: (samples x rows).
    """
    down = (down or Backward.over_region) if linear else None
    return torch.cat([_block(relaxed, objective[:, block], down) for block in _blocks(relaxed, objective)], 1)


def _block(relaxed: Relaxed, objective: Tensor, down: Callable[[Backward], Tensor] | None) -> Tensor:
    backward = Backward.of(relaxed, objective).to_activations()
    lowest = backward.over_intervals()
    return lowest if down is None else torch.maximum(lowest, down(backward))


def _blocks(relaxed: Relaxed, objective: Tensor) -> Iterator[slice]:
    """Slices of as many rows of each sample as memory allows."""
    samples, count, _ = objective.shape
    most = affordable(relaxed, samples)
    return (slice(begin, begin + most) for begin in range(0, max(count, 1), most))


def affordable(relaxed: Relaxed, samples: int) -> int:
    """How many rows of each sample memory allows at a time, at least one."""
    widest = max(node.size for node in relaxed.network.nodes) * samples
    memory = relaxed.budget.memory // (COPIES * relaxed.bounds[0].lower.element_size())
    return max(1, min(BLOCK, memory) // widest)


@dataclass(frozen=True, eq=False)
class Backward:
    """Rows of a relaxed network on their way to the input: ``rows`` by position, and their ``total`` constants."""

    relaxed: Relaxed
    rows: dict[int, Part]
    total: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, relaxed: Relaxed, objective: Tensor) -> Backward:
        """Rows of the network's output: objective (samples x rows x outputs), in the dtype of the bounds."""
        return cls.at(relaxed, len(relaxed.network.nodes) - 1, objective.to(relaxed.bounds[0].lower))

    @classmethod
    def at(cls, relaxed: Relaxed, position: int, coef: Tensor) -> Backward:
        """Rows of the node at ``position``, up to which the network must be relaxed: coef (samples x rows x
        features)."""
        rows = coef.flatten(0, 1)
        total = rows.new_zeros(len(rows))
        if relaxed.rounding is not None:
            total = total - charge(rows, relaxed.lost(position), relaxed.rounding.here(position).dust)
        return cls(relaxed, {position: Part(rows)}, total, (coef.shape[0], coef.shape[1]))

    def to_activations(self) -> Backward:
        """The same rows, at the first activation on each path."""
        nodes = self.relaxed.network.nodes
        rows, total = propagate_backwards(
            nodes, self._rules, self.rows, self.total, lambda position: relaxes(nodes[position].op)
        )
        return Backward(self.relaxed, rows, total, self.shape)

    def over_intervals(self) -> Tensor:
        """The least values over the intervals of the nodes at which the rows are: (samples x rows)."""
        total = self.total
        for position, part in self.rows.items():
            if position == 0:
                total = total + self._at_input(part)
                continue
            here, node = _flat(self.relaxed.bounds[position]), self.relaxed.network.nodes[position]
            rows = by_domain(part.dense(node.size), len(here.lower))
            if shares.sums_to_one(node):
                steps = len(self.relaxed.network.nodes)
                rows, common, error = shares.without_common(rows, here, node.shape[-1], steps)
                total = total + (common - error).flatten()
            total = total + least(rows, here)
            if self.relaxed.rounding is not None:
                dust = self.relaxed.rounding.here(position).dust
                total = total - charge(rows.flatten(0, 1), self.relaxed.summed(position).flatten(1), dust)
        return total.view(self.shape)

    def over_region(self) -> Tensor:
        """The least values over the region: (samples x rows)."""
        rows, total = propagate_backwards(self.relaxed.network.nodes, self._rules, self.rows, self.total)
        return (total + self._at_input(rows[0]) if 0 in rows else total).view(self.shape)

    @property
    def _rules(self) -> RowRules:
        relaxed = self.relaxed
        return RowRules(relaxed.network.nodes, relaxed.charged, relaxed.budget, operand=relaxed.operand)

    def _at_input(self, part: Part) -> Tensor:
        box, ball = _flat(self.relaxed.bounds[0]), self.relaxed.ball
        rows = by_domain(part.dense(prod(self.relaxed.network.input_shape)), len(box.lower))
        lowest = least(rows, box)
        if ball is not None:
            return torch.maximum(lowest, over_ball(rows, ball))
        if (constraints := self.relaxed.constraints) is None:
            return lowest
        tied = constraints.least(rows, box.lower[:, None], box.upper[:, None]).flatten()
        return torch.where(tied > lowest, tied, lowest)


def _flat(bounds: Bounds) -> Bounds:
    return Bounds(bounds.lower.flatten(1), bounds.upper.flatten(1))
