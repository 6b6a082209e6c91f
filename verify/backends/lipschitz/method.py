"""The method: the margin at the centre of the region, less what Lipschitz constants allow it to lose."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import ClassVar, Literal

import torch
from torch import Tensor

from assay.verify.backends.lipschitz import radii
from assay.verify.backends.lipschitz.local import strays
from assay.verify.backends.lipschitz.product import constants, row_slopes, without_rule
from assay.verify.backends.lipschitz.reach import Reach, conversion
from assay.verify.bounds import rigorous
from assay.verify.bounds.verdicts import concluded, unanswerable
from assay.verify.core.budget import UNLIMITED, Budget, Expired, running
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Guarantee, Reason, Result
from assay.verify.core.spec import Spec
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import TINY


@dataclass(frozen=True)
class Lipschitz:
    """Certificates from Lipschitz constants, with a certified radius for each sample.

    ``norm``: that constants are measured in, 1, 2 or inf; None takes the better of l2 and the region's own, which is
    linf for a box. ``scope``:
    ``global`` multiplies sound norms of the layers, once for each network; ``local`` bounds the derivatives over the
    region too, and takes the better. ``steps``: larger radii that ``local`` tries after it, for the certified radius.

    A result's ``stats`` hold ``radius``, in the norm of the region about its centre: all points nearer than it are
    safe, wherever the domain ends; ``constant``, the sound Lipschitz constant of the network in the norm ``norm``, and
    ``estimate``, what power iteration says of it, which nothing rests on.
    """

    norm: float | None = None
    scope: Literal["global", "local"] = "global"
    steps: int = 0
    name: ClassVar[str] = "lipschitz"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        if self.norm not in (None, 1, 2, inf):
            raise InputError(f"norm of lipschitz must be 1, 2 or inf, got {self.norm}")
        if self.scope not in ("global", "local"):
            raise InputError(f"scope of lipschitz must be global or local, got {self.scope!r}")
        if self.steps < 0:
            raise InputError(f"steps of lipschitz must be at least 0, got {self.steps}")

    def supports(self, problem: Problem) -> str | None:
        """Every operation needs a Lipschitz rule."""
        return without_rule(problem.network)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """VERIFIED if the margin at the centre is larger than what it can lose over the region."""
        begun, budget = time.monotonic(), running(budget)
        declined = unanswerable(self, problem)
        if declined is not None:
            return declined
        if not len(problem.spec.b):  # every output is unsafe
            return concluded(self, problem, -inf, Reason.INCOMPLETE, 0.0)
        certificate, reason = None, Reason.INCOMPLETE
        try:
            with torch.no_grad():
                certificate = self._certificate(problem, budget)
        except Expired:
            reason = Reason.TIMEOUT
        except MemoryError:
            reason = Reason.MEMORY
        spent = time.monotonic() - begun
        if certificate is None:
            return concluded(self, problem, nan, reason, spent)
        reason = reason if certificate.margin > -inf else Reason.NUMERICAL
        record = {"kind": "lipschitz", "norms": self._norms(Reach.of(problem.region))}
        return concluded(self, problem, certificate.margin, reason, spent, None, certificate.stats, record)

    def verify_many(self, problems: Sequence[Problem], budget: Budget = UNLIMITED) -> list[Result]:
        """One result per problem; what a network's layers say is worked out once for all of its problems."""
        budget = running(budget)
        return [self.verify(problem, budget) for problem in problems]

    def _certificate(self, problem: Problem, budget: Budget) -> Certificate:
        network, spec = problem.network.to(torch.float64), problem.spec
        reach = Reach.of(problem.region)
        at = Sample(network, spec, reach, rigorous.intervals(network, Box(reach.centre[None], reach.centre[None])))
        constants = [_global(network, spec, reach, norm, budget) for norm in self._norms(reach)]
        best = max(constants, key=lambda constant: radii.radius(spec, at.values, constant.slopes))
        lost = torch.stack([constant.lost for constant in constants]).amin(0)
        radius = radii.radius(spec, at.values, torch.stack([constant.slopes for constant in constants]).amin(0))
        if self.scope == "local":
            lost = torch.fmin(lost, at.strays(reach, budget))
            radius = at.radius(reach.inside, lost, radius, self.steps, budget)
        stats = {"radius": radius, "norm": best.norm, "constant": best.upper, "estimate": best.estimate}
        return Certificate(radii.margin(spec, at.values, lost.nan_to_num(nan=inf, posinf=inf)), stats)

    def _norms(self, reach: Reach) -> list[float]:
        return sorted({reach.p, 2.0}) if self.norm is None else [float(self.norm)]


@dataclass(frozen=True, eq=False)
class Global:
    """Constants in one norm, of the network (``upper`` is sound, ``estimate`` is not) and of the rows: ``slopes`` in
    the norm of the region, and what they can have ``lost`` over it (rows each)."""

    norm: float
    upper: float
    estimate: float
    slopes: Tensor
    lost: Tensor


def _global(network: Network, spec: Spec, reach: Reach, norm: float, budget: Budget) -> Global:
    known = constants(network, norm, budget)
    slopes = row_slopes(network, spec.A, norm, known).upper
    lost = slopes * reach.within(norm) * rigorous.MORE + TINY
    own = slopes * conversion(reach.centre.numel(), reach.p, norm) * rigorous.MORE
    return Global(
        norm, known[-1].upper, known[-1].estimate, own.nan_to_num(nan=inf, posinf=inf), lost.nan_to_num(nan=inf)
    )


@dataclass(frozen=True, eq=False)
class Certificate:
    """A lower bound of the margin, and what is reported beside it."""

    margin: float
    stats: dict[str, float]


@dataclass(frozen=True, eq=False)
class Sample:
    """One problem: what every node takes at the centre, and from there how far rows stray over larger regions."""

    network: Network
    spec: Spec
    reach: Reach
    centre: list[Bounds]

    @property
    def values(self) -> Tensor:
        """Lower bounds of the rows ``A y - b`` at the centre: (rows)."""
        return radii.row_values(self.spec, self.centre[-1])

    def strays(self, reach: Reach, budget: Budget) -> Tensor:
        """At least how far each row strays over ``reach`` from its value at the centre: (rows)."""
        return strays(self.network, reach, self.spec.A, self.centre, budget)

    def radius(self, tried: float, lost: Tensor, known: float, steps: int, budget: Budget) -> float:
        """The fixed point of R -> min(R, margin / L_R), from below: the constant over the ball R certifies so much of
        it. ``known`` is certified already; rows stray by ``lost`` (rows) within ``tried``."""
        best = max(known, self._within(tried, lost)) if tried > 0 else known
        high = inf
        for _ in range(steps if best > 0 else 0):
            middle = 2 * best if high == inf else (best + high) / 2
            try:
                certified = self._within(middle, self.strays(self.reach.ball(middle), budget))
            except Expired:
                break  # what is certified stays so
            high = high if certified >= middle else middle
            best = max(best, certified)
        return best

    def _within(self, tried: float, lost: Tensor) -> float:
        """What of a ball of radius ``tried`` is certified, if rows stray by ``lost`` over it at most."""
        slopes = lost / tried * rigorous.MORE
        return min(tried, radii.radius(self.spec, self.values, slopes))
