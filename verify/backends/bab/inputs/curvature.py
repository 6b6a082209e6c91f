"""All products of a network together, to second order.

Planes about each product for itself (McCormick 1976) lose what is known of several: a quadratic form, as Lyapunov
functions are, may be convex, and planes about its terms lose as much as if it were not. Over a box with middle m, let
an operand be ``p = p0 + y + e`` with ``y = J (x - m)`` and e small. Then ``p q = p0 q + q0 p - p0 q0 + (p - p0)
(q - q0)``; of a row of coefficients the first terms go on to the input as all that is linear does, and the last one is
``y y' + e (q - q0) + y e'``. Of all products that a row meets, the ``y y'`` are one quadratic form of x, and what is
convex of it lies above its tangents; products with e have planes of McCormick's for themselves. (Alpha-BB: Adjiman et
al. 1998, doi:10.1016/S0098-1354(98)00027-1, with enclosures in place of second derivatives.)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds.optimised.slopes import Functions
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import UNIT, gamma

SWEEPS = 8  # over the coordinates in search of where a convex function is least: a box that is not closed is dear
WORTH = 0.5  # of a neuron's interval: a linear function that it is not this near to says no more than the interval
LEAST, MOST = 1e-100, 1e100  # sizes of a form of which eigenvalues are asked
OPERATIONS = 64  # that a term passes at most, beside the sum that it belongs to


@dataclass(frozen=True, eq=False)
class Enclosure:
    """Neurons about linear functions of the inputs that vary: ``|neuron - mid - slope @ (x - m)| <= radius`` over a
    box with middle m; slope (boxes x neurons x varied inputs), mid and radius (boxes x neurons)."""

    slope: Tensor
    mid: Tensor
    radius: Tensor

    @classmethod
    def within(cls, z: Bounds, varied: int) -> Enclosure:
        """Of nothing but intervals ``z`` (boxes x neurons)."""
        mid = z.lower / 2 + z.upper / 2
        return cls(mid.new_zeros(*mid.shape, varied), mid, torch.maximum(z.upper - mid, mid - z.lower))

    @classmethod
    def between(cls, below: Functions, error: Tensor, lower: Tensor, upper: Tensor, varied: Tensor) -> Enclosure:
        """Of one neuron a box, ``lower`` and ``upper`` (boxes x inputs), by linear functions ``below`` it and below its
        opposite (boxes x 2), which may be off by ``error`` (boxes)."""
        centre, radius = lower / 2 + upper / 2, upper / 2 - lower / 2
        under, over = below.coef[:, 0], -below.coef[:, 1]
        slope = (under[:, varied] + over[:, varied]) / 2
        whole = torch.zeros_like(under).index_copy_(1, varied, slope)
        least = below.constant[:, 0] + torch.linalg.vecdot(under, centre)
        most = torch.linalg.vecdot(over, centre) - below.constant[:, 1]
        least = least - torch.linalg.vecdot((under - whole).abs(), radius) - error
        most = most + torch.linalg.vecdot((over - whole).abs(), radius) + error
        mid = least / 2 + most / 2
        return cls(slope, mid, torch.maximum(most - mid, mid - least))

    def put(self, box: Tensor, neuron: Tensor, better: Enclosure) -> None:
        """Write those of some neurons of some boxes, by number, where they are better by far."""
        kept = (better.radius < WORTH * self.radius[box, neuron]).nonzero().flatten()
        index = box[kept], neuron[kept]
        self.slope[index], self.mid[index], self.radius[index] = (
            t.index_select(0, kept) for t in (better.slope, better.mid, better.radius)
        )

    def take(self, index: Tensor, axis: int = 0) -> Enclosure:
        """Those of some boxes (axis 0) or neurons (axis 1) by number."""
        return Enclosure(*(t.index_select(axis, index) for t in (self.slope, self.mid, self.radius)))

    @staticmethod
    def join(parts: list[Enclosure]) -> Enclosure:
        """Neurons beside one another."""
        return Enclosure(*(torch.cat([getattr(e, name) for e in parts], 1) for name in ("slope", "mid", "radius")))


@dataclass(frozen=True, eq=False)
class Curvature:
    """The products of a network over boxes: enclosures of their operands, ``left`` and ``right``, by position; the
    middle of each box and how far it reaches, ``centre`` and ``radius`` (boxes x varied inputs)."""

    left: dict[int, Enclosure]
    right: dict[int, Enclosure]
    centre: Tensor
    radius: Tensor
    varied: Tensor

    def take(self, box: Tensor) -> Curvature:
        """Over the boxes at these positions."""
        left, right = ({i: e.take(box) for i, e in side.items()} for side in (self.left, self.right))
        return Curvature(left, right, self.centre[box], self.radius[box], self.varied)

    def planes(self) -> dict[int, Planes]:
        """Planes about the products, by position, that touch at the middle of the operands."""
        return {i: Planes.touching(left, self.right[i], self.radius) for i, left in self.left.items()}

    def below(self, functions: Functions, seen: dict[int, Tensor], planes: dict[int, Planes]) -> Functions:
        """Linear functions of the input below rows, one a box: ``functions``, those with products on the ``planes``;
        ``seen``: the coefficients that arrived at each product, by position (rows x products)."""
        r = self.radius
        met = {i: (seen[i], p) for i, p in planes.items() if i in seen}
        besides = sum((p.besides(c) for c, p in met.values()), torch.zeros_like(r))
        lost, convex = split(self._form(seen))
        at = minimiser((functions.coef[:, self.varied] + besides) * r, convex)
        bend = (convex @ at[..., None])[..., 0]
        coef = 2 * bend / r.clamp(min=torch.finfo(r.dtype).tiny) + besides
        constant = functions.constant - torch.linalg.vecdot(at, bend) - torch.linalg.vecdot(coef, self.centre)
        # What rounding made of all this comes to less, whatever the coefficients are.
        size = sum((torch.linalg.vecdot(c.abs(), p.size) for c, p in met.values()), torch.zeros_like(constant))
        terms = OPERATIONS + sum(c.shape[1] for c, _ in met.values()) + 4 * r.shape[1] ** 2
        constant = constant - lost.sum(1) - gamma(terms) * (size + torch.linalg.vecdot(coef.abs(), self._farthest))
        return Functions(functions.coef.index_add(1, self.varied, coef), constant)

    def lost(self, seen: dict[int, Tensor], planes: dict[int, Planes]) -> tuple[Tensor, dict[int, Tensor]]:
        """What rows lose to what is not convex along each input (rows x varied inputs), and at each product, by
        position, to what is not linear of its operands (rows x products)."""
        return split(self._form(seen))[0], {i: seen[i].abs() * p.loss for i, p in planes.items() if i in seen}

    @property
    def _farthest(self) -> Tensor:
        return self.centre.abs() + self.radius

    def _form(self, seen: dict[int, Tensor]) -> Tensor:
        """The quadratic form over boxes that reach from -1 to 1: (rows x varied inputs x varied inputs)."""
        r = self.radius
        form = r.new_zeros(*r.shape, r.shape[1])
        for i in self.left.keys() & seen.keys():
            form = torch.baddbmm(form, (self.left[i].slope * seen[i][..., None]).mT, self.right[i].slope)
        form = form * r[:, :, None] * r[:, None]
        return form / 2 + form.mT / 2


@dataclass(eq=False)
class Planes:
    """Planes about products but for ``y y'``, (rows x products). ``e (q - q0) >= s (w e + r (q - q0)) - r w`` with r
    and w the most of the two, for any s from -1 to 1: ``by_p``; ``by_q`` is that of ``y e'``. Where a product's
    coefficient is negative, r is replaced by -r. ``reach_p``, ``reach_q``: the most of y and y'; ``at``: where
    the row is least last (rows x varied inputs), from the middle."""

    p: Enclosure
    q: Enclosure
    reach_p: Tensor
    reach_q: Tensor
    by_p: Tensor
    by_q: Tensor
    at: Tensor

    @classmethod
    def touching(cls, p: Enclosure, q: Enclosure, radius: Tensor) -> Planes:
        """Those that touch at the middle; ``radius`` of the boxes (rows x varied inputs)."""
        reach_p, reach_q = ((side.slope.abs() * radius[:, None]).sum(2) for side in (p, q))
        return cls(p, q, reach_p, reach_q, torch.zeros_like(p.mid), torch.zeros_like(p.mid), torch.zeros_like(radius))

    @property
    def far_q(self) -> Tensor:
        """The most of ``q - q0``: (rows x products)."""
        return self.reach_q + self.q.radius

    @property
    def loss(self) -> Tensor:
        """The most that a plane is off: (rows x products)."""
        return self.p.radius * self.far_q + self.reach_p * self.q.radius

    @property
    def size(self) -> Tensor:
        """No product of two numbers here is larger: (rows x products)."""
        return (self.p.mid.abs() + 2 * (self.reach_p + self.p.radius)) * (self.q.mid.abs() + 2 * self.far_q)

    def lines(self) -> Lines:
        """See :class:`assay.verify.bounds.relaxations.parameters.Parameters`."""
        p0, q0 = self.p.mid, self.q.mid
        to_p, to_q, turn = q0 + self.by_p * self.far_q, p0 + self.by_q * self.reach_p, self.by_p * self.p.radius
        gap = torch.stack([torch.zeros_like(turn), -2 * turn], -1)
        constant = p0 * q0 - (to_p * p0 + (to_q + turn) * q0) - self.loss
        return Lines(torch.stack([to_p, to_q + turn], -1), gap, 2 * turn * q0 + 2 * self.loss, constant)

    def besides(self, coef: Tensor) -> Tensor:
        """What rows have of the input, beside what they have of the operands: coef (rows x products), result (rows x
        varied inputs)."""
        to_p = coef.abs() * self.by_q * self.q.radius - coef * self.by_p * self.far_q
        to_q = -coef * self.by_q * self.reach_p
        both: Tensor = (to_p[:, None] @ self.p.slope + to_q[:, None] @ self.q.slope)[:, 0]
        return both

    def gradient(self, coef: Tensor, z: Tensor) -> list[Tensor]:
        """See :class:`assay.verify.bounds.relaxations.parameters.Parameters`."""
        y_p, y_q = ((side.slope @ self.at[..., None])[..., 0] for side in (self.p, self.q))
        from_p, from_q = z[..., 0] - self.p.mid, z[..., 1] - self.q.mid
        return [
            coef * self.far_q * (from_p - y_p) + coef.abs() * self.p.radius * from_q,
            coef * self.reach_p * (from_q - y_q) + coef.abs() * self.q.radius * y_p,
        ]

    def tensors(self) -> list[Tensor]:
        """See :class:`assay.verify.bounds.relaxations.parameters.Parameters`."""
        return [self.by_p, self.by_q]

    def keep(self) -> None:
        """See :class:`assay.verify.bounds.relaxations.parameters.Parameters`."""
        for turn in self.tensors():
            turn.clamp_(-1.0, 1.0)


def split(form: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric matrices (rows x n x n) less diagonal ones of nothing above zero, so that convex ones are left: what
    the diagonal ones take over [-1, 1]^n at most, by coordinate (rows x n), and the convex ones.

    The diagonal is what rows lack that are not dominant, or the least eigenvalue throughout, whichever takes less.
    """
    n, size = form.shape[-1], form.abs().sum(2)
    diagonal = form.diagonal(dim1=1, dim2=2)
    lacking = (size - diagonal.abs() - diagonal).clamp(min=0)
    whole = size.sum(1, keepdim=True)
    # Numbers whose squares are none, or that are none themselves, have no eigenvalues that anything could rely on.
    sound = ((whole > LEAST) & (whole < MOST)).all(1)
    least = torch.full_like(whole, -inf)
    least[sound] = torch.linalg.eigvalsh(form[sound])[:, :1] - 4 * n * UNIT * whole[sound]
    even = (-least).clamp(min=0).expand_as(lacking)
    taken = torch.where(lacking.sum(1, keepdim=True) < even.sum(1, keepdim=True), lacking, even)
    return taken, form + torch.diag_embed(taken)


def minimiser(slope: Tensor, convex: Tensor) -> Tensor:
    """About where ``slope @ z + z @ convex @ z`` is least over [-1, 1]^n, by one coordinate after the other: slope
    (rows x n), convex (rows x n x n), result (rows x n)."""
    at, gradient = torch.zeros_like(slope), slope
    steep = 2 * convex.diagonal(dim1=1, dim2=2).clamp(min=torch.finfo(slope.dtype).tiny)
    for i in [*range(slope.shape[1])] * SWEEPS:
        new = (at[:, i] - gradient[:, i] / steep[:, i]).clamp(-1, 1)
        gradient = torch.addcmul(gradient, convex[:, i], 2 * (new - at[:, i])[:, None])
        at[:, i] = new
    return at
