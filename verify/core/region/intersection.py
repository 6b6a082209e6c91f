"""Intersections of norm balls about one centre: l1, l2 and linf at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.network import content_hash
from assay.verify.core.norms import norm_name
from assay.verify.core.region.ball import Domain, LpBall
from assay.verify.core.region.box import Box
from assay.verify.core.region.projections import onto_l1, onto_l2
from assay.verify.support import shown
from assay.verify.support.floats import length

SWEEPS = 8  # of projections onto the balls in turn, before what is left is shrunk


@dataclass(frozen=True, eq=False, repr=False)
class Intersection:
    """The points that lie in all of the ``balls``, of different norms, about one centre, within one domain.

    Raises :class:`InputError` for fewer than two of them, and for balls that differ in more than norm and radius.
    """

    balls: tuple[LpBall, ...]

    def __post_init__(self) -> None:
        balls = tuple(sorted(self.balls, key=lambda ball: -ball.p))
        if len(balls) < 2 or len({float(ball.p) for ball in balls}) < len(balls):
            raise InputError("expected two or three balls of different norms")
        if any(not torch.equal(ball.centre, balls[0].centre) for ball in balls):
            raise InputError("expected balls about one centre")
        if len({_domain(ball) for ball in balls}) > 1:
            raise InputError("expected balls within one domain")
        object.__setattr__(self, "balls", balls)

    @classmethod
    def of(
        cls, centre: Tensor, radii: Mapping[float, float | Tensor], domain: Domain | None = (0.0, 1.0)
    ) -> Intersection:
        """The balls of these ``radii``, by norm, about ``centre``: (shape) or (batch x shape)."""
        return cls(tuple(LpBall(centre, eps, p, domain) for p, eps in radii.items()))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the centre."""
        return self.balls[0].shape

    @property
    def centre(self) -> Tensor:
        """The one of all balls: (shape), float64."""
        return self.balls[0].centre

    @property
    def round(self) -> LpBall:
        """The ball in l2, else that in l1."""
        return next(ball for ball in self.balls if ball.p != inf)

    def __repr__(self) -> str:
        return shown.line("Intersection", self.facts)

    def _repr_html_(self) -> str:
        return shown.table("Intersection", self.facts)

    @property
    def facts(self) -> dict[str, object]:
        """What people want to see of it."""
        radii = {norm_name(float(ball.p)): ball.facts["eps"] for ball in self.balls}
        return {"shape": self.shape, **radii, "domain": self.balls[0].facts["domain"]}

    @property
    def empty(self) -> bool:
        """Never: the centre is a member."""
        return False

    @cached_property
    def id(self) -> str:
        """Hash of the content."""
        return content_hash("intersection", *(ball.id for ball in self.balls))

    def box(self) -> Box:
        """The smallest of the bounding boxes in each coordinate."""
        return self.bounds.box()

    @cached_property
    def bounds(self) -> Box:
        """What the boxes of all balls have in common: rounded outward, and inward for the members."""
        boxes = [ball.bounds for ball in self.balls]
        inner = [box.inner or box for box in boxes]

        def common(of: list[Box]) -> tuple[Tensor, Tensor]:
            lower = torch.stack([box.lower for box in of]).amax(0)
            return lower, torch.stack([box.upper for box in of]).amin(0)

        return Box(*common(boxes), Box(*common(inner)))

    def contains(self, x: Tensor) -> Tensor:
        """Exact membership of x (batch x shape): (batch)."""
        return torch.stack([ball.contains(x) for ball in self.balls]).all(0)

    def project(self, x: Tensor) -> Tensor:
        """A member near x (batch x shape): projections onto the balls in turn, then towards the centre until membership
        holds after rounding too."""
        member = self.contains(x)
        if bool(member.all()):
            return x
        each = (-1,) + (1,) * (x.dim() - 1)
        centre = self.centre.to(x.device)
        step = self.bounds.project(x.double()) - centre
        for _ in range(SWEEPS):
            for ball in self.balls:
                step = _onto(ball, step)
        size = torch.stack([_share(ball, step) for ball in self.balls]).amax(0).clamp(min=1)
        slack = 2 * torch.finfo(x.dtype).eps
        shrink = (1 - slack) / size
        for attempt in range(8):
            moved = self.bounds.project((centre + shrink.view(each) * step).to(x.dtype))
            candidate = torch.where(member.view(each), x, moved)
            inside = self.contains(candidate)
            if bool(inside.all()):
                return candidate
            shrink = torch.where(inside, shrink, shrink * (1 - slack * 8**attempt))
        return torch.where(inside.view(each), candidate, self.bounds.project(centre.expand_as(x).to(x.dtype)))

    def steepest(self, grad: Tensor) -> Tensor:
        """Of the steps that the balls take, each as far as the others let it go, the one that a linear function gains
        most from: grad and result (batch x shape)."""
        each = (-1,) + (1,) * (grad.dim() - 1)
        best, gain = torch.zeros_like(grad), grad.new_zeros(len(grad))
        for ball in self.balls:
            step = ball.steepest(grad)
            size = torch.stack([_share(other, step.double()) for other in self.balls]).amax(0).clamp(min=1).to(grad)
            step = step / size.view(each)
            gained = (grad * step).flatten(1).sum(1)
            best = torch.where((gained > gain).view(each), step, best)
            gain = torch.maximum(gained, gain)
        return best

    def point(self, u: Tensor) -> Tensor:
        """The cube mapped onto the bounding box, then projected: u and result (batch x shape)."""
        return self.project(self.bounds.point(u))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n random members, not uniform: (n x shape)."""
        return self.point(torch.rand((n, *self.shape), generator=generator))


def _onto(ball: LpBall, step: Tensor) -> Tensor:
    radius = ball.radius.to(step)
    if ball.p == inf:
        return step.clamp(-radius, radius)
    return (onto_l1 if ball.p == 1 else onto_l2)(step, radius)


def _share(ball: LpBall, step: Tensor) -> Tensor:
    """How many radii long each step (batch x shape) is: (batch)."""
    radius = ball.radius.to(step)
    tiny = torch.finfo(step.dtype).tiny
    if ball.p == inf:
        return (step.abs() / radius.clamp(min=tiny)).flatten(1).amax(1)
    return length(step.flatten(1), ball.p) / radius.reshape(-1).clamp(min=tiny)


def _domain(ball: LpBall) -> str:
    sides = () if ball.domain is None else tuple(torch.as_tensor(side, dtype=torch.float64) for side in ball.domain)
    return content_hash(*sides)
