"""Rows of a specification under intervals of the neurons between: lines over these intervals, and multipliers that tie
the rows to them.

Where a neuron z lies within [l, u], ``m z`` is at most ``max(m l, m u)`` for any real m, so that a row is at least
itself with ``m z - max(m l, m u)`` added (beta-CROWN: Wang et al. 2021, arXiv:2103.06624, with both ends in one
number). Such a row begins at the output and at the neurons that were split; lines and multipliers are raised together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from assay.verify.bounds import rigorous
from assay.verify.bounds.optimised.raised import Owned, OwnRows
from assay.verify.bounds.optimised.slopes import Ascent, Climb, Functions, ascend, at_rest, in_other_precision
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxed import Relaxed, fits_float32
from assay.verify.bounds.rounding import FEW, largest
from assay.verify.bounds.sites import Sites
from assay.verify.core.network import Network
from assay.verify.core.spec import Polyhedron
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import down, gamma


@dataclass(frozen=True, eq=False)
class Unsafe:
    """Sets of outputs ``A y <= b``: A (sets x rows x outputs), b (sets x rows), float64; one with fewer rows repeats
    its first one."""

    A: Tensor
    b: Tensor

    @classmethod
    def of(cls, sets: Sequence[Polyhedron]) -> Unsafe:
        """Of sets with at least one row each."""
        most = max(len(s.b) for s in sets)
        index = [torch.arange(most) % len(s.b) for s in sets]
        return cls(
            torch.stack([s.A[i] for s, i in zip(sets, index, strict=True)]),
            torch.stack([s.b[i] for s, i in zip(sets, index, strict=True)]),
        )


@dataclass(frozen=True, eq=False)
class Root:
    """What is worked out once for all domains: the ``relaxed`` network over the region of one sample, in float64; its
    ``sites``; the ``unsafe`` sets; ``sizes``: magnitudes of outputs (outputs); ``draft``: the network to search in, and
    its ``dtype``."""

    relaxed: Relaxed
    sites: Sites
    unsafe: Unsafe
    sizes: Tensor
    draft: Network
    dtype: torch.dtype

    @classmethod
    def of(cls, relaxed: Relaxed, unsafe: Unsafe) -> Root:
        """Work it out."""
        network = relaxed.network
        dtype = torch.float32 if fits_float32(network) else torch.float64
        draft, sizes = network.to(dtype, "cpu"), largest(relaxed.bounds[-1]).flatten()
        return cls(relaxed, Sites.of(relaxed), unsafe, sizes, draft, dtype)

    def pushed(self, lower: Tensor, upper: Tensor) -> list[Bounds]:
        """Bounds of all nodes, float64 (domains x shape of the node), where the sites lie within ``lower`` and
        ``upper`` (domains x sites): by intervals, met with what is known at the root."""
        network, count = self.relaxed.network, len(lower)
        low, high = self.sites.parts(lower.double()), self.sites.parts(upper.double())
        bounds: list[Bounds] = []
        for position, (node, root) in enumerate(zip(network.nodes, self.relaxed.bounds, strict=True)):
            known = Bounds(*(t.expand(count, *t.shape[1:]) for t in (root.lower, root.upper)))
            if position in low:
                known = Bounds(
                    *(
                        t.flatten(1).index_copy(1, self.sites.index[position], new[position]).view_as(t)
                        for t, new in ((known.lower, low), (known.upper, high))
                    )
                )
            if position:
                known = met(known, rigorous.step(node.op, *(bounds[i] for i in node.inputs)))
            bounds.append(known)
        return bounds


def met(known: Bounds, other: Bounds) -> Bounds:
    """The intersection of two intervals (any shape); ``known`` where they do not meet, ``other`` where that is NaN."""
    low, high = torch.maximum(known.lower, other.lower), torch.minimum(known.upper, other.upper)
    kept, unknown = low <= high, known.lower.isnan() | known.upper.isnan()
    return Bounds(
        *(
            torch.where(unknown, b, torch.where(kept, t, a))
            for t, a, b in ((low, known.lower, other.lower), (high, known.upper, other.upper))
        )
    )


@dataclass(frozen=True, eq=False)
class Tied:
    """Rows in one precision, one a domain: ``rows`` on the lines over the domain's bounds; the unsafe set of each, A
    (domains x rows x outputs) and b (domains x rows); ``lower``, ``upper``: of the sites (domains x sites)."""

    root: Root
    rows: OwnRows
    A: Tensor
    b: Tensor
    lower: Tensor
    upper: Tensor

    @classmethod
    def over(cls, root: Root, dtype: torch.dtype, bounds: Sequence[Bounds], which: Tensor) -> Tied:
        """Domains with these bounds of all nodes (domains x shape), to be bounded in ``dtype``; ``which`` of the unsafe
        sets each is about (domains)."""
        network = root.relaxed.network if dtype == torch.float64 else root.draft
        bounds = [Bounds(b.lower.to(dtype), b.upper.to(dtype)) for b in bounds]
        relaxed = replace(Relaxed.over(network, bounds), region=root.relaxed.region, budget=root.relaxed.budget)
        operands = {i: relaxed.operand(i) for i in relaxed.lines}
        region = Owned.of(relaxed, torch.arange(len(which)))
        rows = OwnRows(relaxed, {}, relaxed.lines, operands, region)
        A, b = (t.index_select(0, which).to(dtype) for t in (root.unsafe.A, root.unsafe.b))
        lower = root.sites.pick({i: bounds[i].lower for i in root.sites.index})
        upper = root.sites.pick({i: bounds[i].upper for i in root.sites.index})
        return cls(root, rows, A, b, lower, upper)

    def backward(
        self, weight: Tensor, multiplier: Tensor, lines: Mapping[int, Lines], seen: dict[int, Tensor]
    ) -> Functions:
        """``weight @ (A y - b)`` tied by multipliers, (domains x rows) and (domains x sites), as functions of the
        input."""
        functions = self._begun(weight, multiplier).backward(lines, seen)
        return Functions(functions.coef, functions.constant - self._constant(weight, multiplier))

    def charged(self, weight: Tensor, multiplier: Tensor, lines: Mapping[int, Lines]) -> Functions:
        """As :meth:`backward`, in float64, less all that rounding takes: one function a domain."""
        root, number = self.root, torch.zeros(len(weight), dtype=torch.int64)
        functions = self._begun(weight, multiplier).charged(lines, root.relaxed.rounding, number)
        # The sums that the rows begin with.
        size = (weight * (self.A.abs() @ root.sizes + self.b.abs())).sum(1)
        size = size + (multiplier.abs() * torch.maximum(self.lower.abs(), self.upper.abs())).sum(1)
        lost = 2 * gamma(self.A.shape[2] + 2 * self.b.shape[1] + multiplier.shape[1] + FEW) * size
        return Functions(functions.coef, functions.constant - self._constant(weight, multiplier) - lost)

    def _begun(self, weight: Tensor, multiplier: Tensor) -> OwnRows:
        last = len(self.rows.relaxed.network.nodes) - 1
        return replace(self.rows, start={**self.root.sites.spread(multiplier), last: (weight[:, None] @ self.A)[:, 0]})

    def _constant(self, weight: Tensor, multiplier: Tensor) -> Tensor:
        return (weight * self.b).sum(1) + torch.maximum(multiplier * self.lower, multiplier * self.upper).sum(1)


@dataclass(eq=False)
class Raised:
    """Rows on their way up: ``share``: multipliers in units (domains x sites), moved where they are ``free``; the
    ``weight`` of the unsafe rows (domains x rows); the best ``bound`` (domains) and the last ``functions``. Steps are
    those of ``lines``; those of ``multipliers`` have sizes of their own."""

    tied: Tied
    unit: Tensor
    free: Tensor
    share: Tensor
    weight: Tensor
    lines: Ascent
    multipliers: Ascent

    def __post_init__(self) -> None:
        rows = self.tied.rows
        self.climb = Climb(rows.relaxed.network, self._backward, rows.region, rows.lines, rows.operands, self.lines)
        self.moments = at_rest([self.share, self.weight])

    def _backward(self, lines: Mapping[int, Lines], seen: dict[int, Tensor]) -> Functions:
        return self.tied.backward(self.weight, self.share * self.unit, lines, seen)

    def run(self, enough: float) -> None:
        """Raise them all, or until each is above ``enough``, and leave each where it was best. Raises
        :class:`Expired`."""
        best: list[Tensor] = []
        for step in range(1, self.lines.steps + 2):
            self.functions = self.climb.functions()
            bound = self.climb.region.minimum(self.functions)
            if not best:
                self.bound, best = bound, [t.clone() for t in self._moved]
            else:
                better = bound > self.bound
                self.bound = torch.where(better, bound, self.bound)
                for kept, now in zip(best, self._moved, strict=True):
                    kept.copy_(torch.where(better.view(-1, *[1] * (now.dim() - 1)), now, kept))
            if step > self.lines.steps or bool((self.bound > enough).all()):
                break
            self._move(step)
        for now, kept in zip(self._moved, best, strict=True):
            now.copy_(kept)

    @property
    def _moved(self) -> list[Tensor]:
        """All that is raised."""
        lines = (t for layer in self.climb.free.values() for t in layer.parameters.tensors())
        return [self.share, self.weight, *lines]

    def _move(self, step: int) -> None:
        tied = self.tied
        values = self.climb.move(self.functions, step)
        z = tied.root.sites.pick({i: values[i] for i in tied.root.sites.index})
        over, under = z - tied.upper, z - tied.lower
        still = over.clamp(min=0) + under.clamp(max=0)
        pull = torch.where(self.share > 0, over, torch.where(self.share < 0, under, still))
        ascend(self.share, pull.mul_(self.unit).mul_(self.free), self.moments[0], self.multipliers, step)
        if self.weight.shape[1] > 1:
            y = values[-1].flatten(1)
            ascend(self.weight, (tied.A @ y[..., None])[..., 0] - tied.b, self.moments[1], self.lines, step)
            self.weight.clamp_(min=0)
            self.weight.div_(self.weight.sum(1, keepdim=True).clamp(min=torch.finfo(y.dtype).tiny))

    def proved(self, domains: Tensor, bounds: Sequence[Bounds], which: Tensor) -> Tensor:
        """Bounds of the largest row of the sets with every rounding charged, of some ``domains``, by number: float64
        (domains). ``bounds`` (all domains x shape) in float64, ``which`` sets (all domains)."""
        root = self.tied.root
        bounds = [Bounds(b.lower.index_select(0, domains), b.upper.index_select(0, domains)) for b in bounds]
        tied = Tied.over(root, torch.float64, bounds, which.index_select(0, domains))
        trial = replace(self.tied.rows, region=self.tied.rows.region.take(domains))
        moved = self.climb.take(domains, self._backward, trial.region).free
        lines = dict(tied.rows.lines)
        for i, layer in moved.items():
            lines[i] = in_other_precision(root.relaxed.network, layer, lines[i], tied.rows.operands[i], i)
        weight, multiplier = (t.index_select(0, domains).double() for t in (self.weight, self.share * self.unit))
        multiplier = torch.where(multiplier.isfinite(), multiplier, 0.0)
        weight = weight / weight.sum(1, keepdim=True)
        bound = tied.rows.region.minimum(tied.charged(weight, multiplier, lines))
        # The largest of some rows is at least their mean, whose weights add up to 1 but for rounding.
        return down(bound - 4 * gamma(weight.shape[1] + FEW) * bound.abs())
