"""Polytopes: boxes in which linear constraints tie inputs to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.network import content_hash
from assay.verify.core.region.box import Box
from assay.verify.core.region.halfspaces import tightened
from assay.verify.core.region.room import Room, excludes, room
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.support import shown
from assay.verify.support.arrays import own_tensor

PASSES = 8  # over the rows, while they still tighten the box
SWEEPS = 30  # over the rows, on the way into the polytope
LARGEST = 1e300  # of what a row can change by over the box, where room is measured by that
SHARE = 0.5  # of the room at the point that has most of it, kept on the way to the middle of the box


@dataclass(frozen=True, eq=False, repr=False)
class Polytope:
    """The points x of the box ``within`` with ``A x <= b``, or ``<`` in the rows marked ``strict``.

    A: (rows x inputs), of flattened inputs; b, strict: (rows); all rows are closed where ``strict`` is left out. The
    box is finite, of one sample or of a batch, whose samples share the rows. Where the true coefficients or limits are
    no float64 numbers, A, b and the box hold a polytope around the true one, and ``inner`` has the limits of the
    members, whose points are all in it; only members are witnesses. ``interior``: a point well inside, of the shape of
    the box; it is looked for where it is needed and not given.

    Raises :class:`InputError` for shapes that do not fit, numbers that are not finite, and no rows at all.
    """

    within: Box
    A: Tensor
    b: Tensor
    strict: Tensor | None = None
    inner: Polyhedron | None = None
    interior: Tensor | None = None

    def __post_init__(self) -> None:
        rows, limits = (own_tensor(v, f"{n} of a polytope", torch.float64) for n, v in (("A", self.A), ("b", self.b)))
        if self.strict is None:
            strict = torch.zeros(limits.shape, dtype=torch.bool)
        else:
            strict = own_tensor(self.strict, "strict of a polytope", torch.bool)
        for name, value in (("A", rows), ("b", limits), ("strict", strict)):
            object.__setattr__(self, name, value)
        flat = self.within.lower.flatten().shape[0]
        if rows.dim() != 2 or not len(rows) or limits.shape != rows.shape[:1] or strict.shape != limits.shape:
            raise InputError(
                "expected A (rows x inputs), at least one row, with b and strict (rows), got "
                f"{tuple(rows.shape)}, {tuple(limits.shape)}, {tuple(strict.shape)}"
            )
        if not rows.shape[1] or flat % rows.shape[1]:
            raise InputError(f"the rows of a polytope speak of {rows.shape[1]} inputs, the box has {flat}")
        if not bool(rows.isfinite().all() & limits.isfinite().all()):
            raise InputError("the coefficients and limits of a polytope must be finite")
        if not bool((self.within.lower.isfinite() & self.within.upper.isfinite()).all()):
            raise InputError("the box of a polytope must be finite")
        if self.inner is not None and self.inner.A.shape != rows.shape:
            raise InputError("a polytope and its inner rows differ in shape")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the box."""
        return self.within.shape

    def __repr__(self) -> str:
        return shown.line("Polytope", self.facts)

    def _repr_html_(self) -> str:
        return shown.table("Polytope", self.facts)

    @property
    def facts(self) -> dict[str, object]:
        """What people want to see of it."""
        return {**self.within.facts, "rows": len(self.b)}

    @property
    def rows(self) -> Polyhedron:
        """The rows alone, for proofs."""
        assert self.strict is not None
        return Polyhedron(self.A, self.b, self.strict)

    @cached_property
    def members(self) -> Spec:
        """The rows that members keep, as a set that a point may lie in."""
        return Spec((self.inner or self.rows,))

    @cached_property
    def id(self) -> str:
        """Hash of the content."""
        return content_hash("polytope", self.within.id, self.rows, *(() if self.inner is None else (self.inner,)))

    def map(self, view: Callable[[Tensor], Tensor]) -> Polytope:
        """The polytope with its box and its interior point reshaped by ``view``."""
        interior = None if self.interior is None else view(self.interior)
        return replace(self, within=self.within.map(view), interior=interior)

    def take(self, index: Tensor | slice) -> Polytope:
        """The samples at ``index`` of a polytope of a batch."""
        interior = None if self.interior is None else self.interior[index]
        return replace(self, within=self.within.map(lambda bound: bound[index]), interior=interior)

    @cached_property
    def empty(self) -> bool:
        """Whether there is no point at all (in some sample), proved: by intervals, or by exact multipliers of the rows.

        Where that takes too long, or nothing but strictness leaves no point, it may be empty and not be known to be.
        """
        return self._tight.empty or any(self._excluded(i) for i in range(len(self._boxes)))

    def _excluded(self, sample: int) -> bool:
        found = self._rooms[sample]
        box, rows = self._boxes[sample], self.rows
        return found is not None and excludes(
            found.duals, rows.A.tolist(), rows.b.tolist(), rows.strict.tolist(), box.lower.tolist(), box.upper.tolist()
        )

    @cached_property
    def centre(self) -> Tensor:
        """A point well inside: on the way to the middle of the box from the point that keeps the largest distance from
        all rows: (shape), float64. Of an empty polytope the middle of the box."""
        if self.interior is not None:
            return self.interior
        points = [self._centre(box, found) for box, found in zip(self._boxes, self._rooms, strict=True)]
        return torch.stack(points).view(self.shape)

    def _centre(self, box: Box, found: Room | None) -> Tensor:
        middle = box.centre
        if found is None or box.empty:
            return self._led_in(middle[None], box)[0]
        point = torch.tensor(found.point, dtype=torch.float64)
        slack, step = self.b - self.A @ point, self.A @ (middle - point)
        share = torch.where(step > 0, SHARE * slack.clamp(min=0) / step, inf).amin().clamp(max=1)
        return torch.lerp(point, middle, share)

    @cached_property
    def _boxes(self) -> list[Box]:
        """The box of each sample, flattened."""
        box, size = self.within.box(), self.A.shape[1]
        pairs = zip(box.lower.view(-1, size), box.upper.view(-1, size), strict=True)
        return [Box(lower, upper) for lower, upper in pairs]

    @cached_property
    def _rooms(self) -> list[Room | None]:
        return [None if box.empty else self._room(box) for box in self._boxes]

    def _room(self, box: Box) -> Room | None:
        weights = self.A.abs() @ (box.upper - box.lower)
        weights = torch.where(weights > 0, weights, 1.0).clamp(max=LARGEST)
        return room(self.A, self.b, box.lower, box.upper, weights)

    def box(self) -> Box:
        """The box as far as each row, with the other inputs at their best, lets each input go: rounded outward."""
        return self._tight

    @cached_property
    def _tight(self) -> Box:
        box, size = self.within.box(), self.A.shape[1]
        lower, upper = box.lower.reshape(-1, size), box.upper.reshape(-1, size)
        for _ in range(PASSES):
            narrower = tightened(self.A, self.b, lower, upper)
            if torch.equal(narrower[0], lower) and torch.equal(narrower[1], upper):
                break
            lower, upper = narrower
        return Box(lower.view(self.shape), upper.view(self.shape))

    def contains(self, x: Tensor) -> Tensor:
        """Exact membership, tolerance 0: x (batch x shape), result (batch)."""
        inside = self.within.contains(x)
        kept = inside.clone()
        kept[inside] = self.members.violated(x[inside].flatten(1))
        return kept

    def project(self, x: Tensor) -> Tensor:
        """A member near x (batch x shape), in its dtype: led in by projections onto the rows in turn (Agmon 1954,
        Motzkin and Schoenberg 1954), then towards the interior point until it is one after rounding too.

        Next to the polytope where no such point is found, as may be where rows leave no room at all.
        """
        member = self.contains(x)
        if bool(member.all()):
            return x
        each = (-1,) + (1,) * (x.dim() - 1)
        centre = self.centre.to(x.device).expand_as(x).flatten(1)
        led = self._led_in(self.within.project(x).double().flatten(1), self.within)
        step = led - centre
        A, b = self.A.to(x.device), (self.b if self.inner is None else self.inner.b).to(x.device)
        room_, rate = (b - centre @ A.T).clamp(min=0), step @ A.T
        # A row without room at the centre is one that no step towards it would help.
        share = torch.where((rate > 0) & (room_ > 0), room_ / rate, inf).amin(1).clamp(max=1)
        lost = torch.zeros_like(share)
        candidate = x
        for attempt in range(12):
            point = self.within.project((centre + ((1 - lost) * share)[:, None] * step).view_as(x).to(x.dtype))
            candidate = torch.where(member.view(each), candidate, point)
            member = self.contains(candidate)
            if bool((member | (lost >= 1)).all()):
                break  # what is no member by now is at the interior point
            lost = torch.where(member, lost, torch.finfo(x.dtype).eps * 32.0**attempt).clamp(max=1)
        return candidate

    def _led_in(self, x: Tensor, box: Box) -> Tensor:
        """Near a point of the polytope: x and result (batch x inputs), float64."""
        lower, upper = (t.reshape(-1, x.shape[1]).to(x.device) for t in (box.lower, box.upper))
        A, b = self.A.to(x.device), self.b.to(x.device)
        size = A.square().sum(1).clamp(min=torch.finfo(A.dtype).tiny)
        for _ in range(SWEEPS):
            if not bool((x @ A.T > b).any()):
                break
            for row, limit, length in zip(A, b, size, strict=True):
                x = x - ((x @ row - limit).clamp(min=0) / length)[:, None] * row
            x = torch.minimum(torch.maximum(x, lower), upper)
        return x

    def steepest(self, grad: Tensor) -> Tensor:
        """Half the width of its bounding box along the sign of the gradient: (batch x shape)."""
        return self.box().steepest(grad)

    def point(self, u: Tensor) -> Tensor:
        """The cube mapped onto the bounding box, then projected: u and result (batch x shape)."""
        return self.project(self.box().point(u))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n random members, not uniform: (n x shape)."""
        return self.point(torch.rand((n, *self.shape), generator=generator))
