"""Bounds that hold where the output is unsafe: what is known of it narrows the neurons before (INVPROP: Kotha et al.
2023, arXiv:2302.01404).

Where ``A @ y <= b`` holds of the output y, a neuron z is at least ``z + g @ (A @ y - b)`` for any multipliers g >= 0.
That is a row which begins at two nodes; its least value over the region is bounded from below as that of any other row,
and g is raised together with its lines. Where bounds cross, no input of the region has such an output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds.optimised.raised import OwnRows, chunks, in_float32, of_samples
from assay.verify.bounds.optimised.slopes import (
    Ascent,
    Climb,
    Functions,
    Moving,
    ascend,
    at_rest,
    in_other_precision,
    taken,
)
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxations.relax import feeds, undecided_by_any
from assay.verify.bounds.relaxed import Relaxed, fits_float32
from assay.verify.bounds.rounding import FEW, Rounding, largest
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import down, gamma


@dataclass(frozen=True, eq=False)
class Unsafe:
    """Sets of outputs y, each with ``A @ y <= b``: A (sets x rows x outputs), b (sets x rows), float64."""

    A: Tensor
    b: Tensor

    def __len__(self) -> int:
        return len(self.A)


def unreachable(relaxed: Relaxed, unsafe: Unsafe, ascent: Ascent, passes: int) -> Tensor:
    """Which of the unsafe sets no input of the region leads to, as far as this proves it: (sets).

    ``relaxed``: all of the network over the region of one sample, in float64. All layers are narrowed so many times.
    Raises :class:`Expired` when the time is over.
    """
    conditions = _Conditions.of(relaxed, unsafe, ascent)
    for _ in range(passes):
        conditions.narrow()
        if bool(conditions.closed.all()):
            break
    return conditions.closed


@dataclass(eq=False)
class _Conditions:
    """The network under each of the conditions: ``relaxed``, with a sample for each set, its ``bounds`` narrowed layer
    by layer; ``closed``: sets that are refuted. ``rounding``: what it takes of rows, whatever the output; ``sizes``:
    magnitudes of outputs (outputs)."""

    relaxed: Relaxed
    unsafe: Unsafe
    ascent: Ascent
    rounding: Rounding
    sizes: Tensor
    closed: Tensor

    @classmethod
    def of(cls, relaxed: Relaxed, unsafe: Unsafe, ascent: Ascent) -> _Conditions:
        assert relaxed.rounding is not None
        like = relaxed.bounds[0].lower
        sets = torch.zeros(len(unsafe), dtype=torch.long, device=like.device)  # each begins as the one sample
        bounds = [taken(b, sets) for b in relaxed.bounds]
        region = None if relaxed.ball is None else of_samples(relaxed.ball, sets)
        spread = replace(relaxed, bounds=bounds, region=region, rounding=None)
        unsafe = Unsafe(*(t.to(like) for t in (unsafe.A, unsafe.b)))
        sizes = largest(relaxed.bounds[-1]).flatten()
        closed = torch.zeros_like(sets, dtype=torch.bool)
        return cls(spread, unsafe, ascent, relaxed.rounding, sizes, closed)

    def narrow(self) -> None:
        """Narrow all layers, then see whether the unsafe rows themselves can be met."""
        readers = feeds(self.relaxed.network)
        for position in sorted(readers.keys() - {0}):
            self._relax()
            self._narrow(position, undecided_by_any(readers[position], self.relaxed.bounds[position]).flatten(1))
        self._relax()
        self._ask()

    def _relax(self) -> None:
        relaxed = self.relaxed
        self.relaxed = replace(relaxed, lines=Relaxed.over(relaxed.network, relaxed.bounds).lines)

    def _narrow(self, position: int, wanted: Tensor) -> None:
        """The neurons that are ``wanted`` (sets x features) of a node, from below and from above."""
        known, size = self.relaxed.bounds[position], wanted.shape[1]
        lower, upper = (t.flatten(1).clone() for t in (known.lower, known.upper))
        owner, feature = (wanted & ~self.closed[:, None]).nonzero(as_tuple=True)
        for part in chunks(self.relaxed, 2 * len(owner), 2, self._besides):
            who, what = owner[part], feature[part]
            unit = lower.new_zeros(len(who), 2, size)
            number = torch.arange(len(who), device=who.device)
            unit[number, 0, what], unit[number, 1, what] = 1.0, -1.0
            width = (upper[who, what] - lower[who, what]).repeat_interleave(2)
            below, above = self._lower(position, unit.flatten(0, 1), who.repeat_interleave(2), width).view(-1, 2).T
            low, high = torch.maximum(lower[who, what], below), torch.minimum(upper[who, what], -above)
            crossed = low > high
            self.closed[who[crossed]] = True
            lower[who, what] = torch.where(crossed, lower[who, what], low)
            upper[who, what] = torch.where(crossed, upper[who, what], high)
        self.relaxed.bounds[position] = Bounds(lower.view_as(known.lower), upper.view_as(known.upper))

    def _ask(self) -> None:
        """Each row ``A @ y - b`` of a set from below: where one is above 0, the set is out of reach."""
        count = self.unsafe.b.shape[1]
        owner = (~self.closed).nonzero().flatten().repeat_interleave(count)
        rows = torch.arange(count, device=owner.device).repeat(len(owner) // max(count, 1))
        last = len(self.relaxed.network.nodes) - 1
        for part in chunks(self.relaxed, len(owner), 1, self._besides):
            who, which = owner[part], rows[part]
            A, b = self.unsafe.A[who, which], self.unsafe.b[who, which]
            margin = down(self._lower(last, A, who, A.abs() @ self.sizes) - b)
            self.closed[who[margin.isfinite() & (margin > 0)]] = True

    @property
    def _besides(self) -> int:
        """Numbers of the constraints that a row needs: as they are, as magnitudes, in float32, and one more for each
        that is worked with."""
        return 4 * self.unsafe.A[0].numel()

    def _lower(self, position: int, coef: Tensor, owner: Tensor, width: Tensor) -> Tensor:
        """Lower bounds where the output is in the owner's set: coef (rows x features), owner and the width of what is
        known of them (rows). What overflows is -inf."""
        last = len(self.relaxed.network.nodes) - 1
        A, b = self.unsafe.A[owner], self.unsafe.b[owner]
        unit = width[:, None] / (A.abs() @ self.sizes).clamp(min=torch.finfo(width.dtype).tiny)
        draft = in_float32(self.relaxed) if fits_float32(self.relaxed.network) else self.relaxed
        lines, weights = self._raise(draft, {position: coef}, owner, A, b, unit)
        here = OwnRows.of(self.relaxed, {position: coef}, owner)
        constraints = (weights[:, None] @ A)[:, 0]
        start = {**here.start, last: constraints + here.start[last] if position == last else constraints}
        moved = {
            i: in_other_precision(self.relaxed.network, layer, here.lines[i], here.operands[i], i)
            for i, layer in lines.items()
        }
        functions = replace(here, start=start).charged({**here.lines, **moved}, self.rounding, torch.zeros_like(owner))
        bound = here.region.minimum(functions) - (weights * b).sum(1)
        # What rounding takes of the sums that the row begins with.
        size = (weights * (A.abs() @ self.sizes + b.abs())).sum(1)
        if position == last:
            size = size + coef.abs() @ self.sizes
        lost = 2 * gamma(A.shape[2] + 2 * b.shape[1] + FEW) * size
        return (bound - lost - self.rounding.precision.dust).nan_to_num(nan=-inf, posinf=-inf, neginf=-inf)

    def _raise(
        self, draft: Relaxed, start: dict[int, Tensor], owner: Tensor, A: Tensor, b: Tensor, unit: Tensor
    ) -> tuple[dict[int, Moving], Tensor]:
        """Lines of the rows, by position, and multipliers of the constraints, in float64 (rows x constraints), raised
        together; a step of a multiplier is a share of its ``unit``."""
        rows, last = OwnRows.of(draft, start, owner), len(draft.network.nodes) - 1
        A, b, unit = (t.to(rows.region.centre) for t in (A, b, unit))
        share = torch.zeros_like(b)
        (moments,) = at_rest([share])

        def backward(lines: Mapping[int, Lines], seen: dict[int, Tensor]) -> Functions:
            weights = share * unit
            constraints = (weights[:, None] @ A)[:, 0]
            begin = {**rows.start, last: constraints + rows.start[last] if last in rows.start else constraints}
            functions = replace(rows, start=begin).backward(lines, seen)
            return Functions(functions.coef, functions.constant - (weights * b).sum(1))

        climb = Climb(draft.network, backward, rows.region, rows.lines, rows.operands, self.ascent)
        for step in range(1, self.ascent.steps + 1):
            values = climb.move(climb.functions(), step)
            gap = (A @ values[last].flatten(1)[..., None])[..., 0] - b
            ascend(share, gap * unit, moments, self.ascent, step)
            share.clamp_(min=0)
        weights = (share * unit).double()
        return climb.free, torch.where(weights.isfinite(), weights, 0.0)
