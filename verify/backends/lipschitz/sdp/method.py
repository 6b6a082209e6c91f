"""The two methods: certificates from LipSDP's constants, and from the relaxation of robustness."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, nan
from typing import Any, ClassVar, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch

from assay.verify.backends.lipschitz import radii
from assay.verify.backends.lipschitz.reach import Reach, conversion
from assay.verify.backends.lipschitz.sdp import lipsdp, relaxation
from assay.verify.backends.lipschitz.sdp.relaxation import Ranges
from assay.verify.backends.lipschitz.sdp.solving import Unsolved, check_solver, missing
from assay.verify.backends.lipschitz.sdp.unrolled import Array, Unrolled, neurons, refusal, unrolled
from assay.verify.bounds import rigorous
from assay.verify.bounds.verdicts import concluded, unanswerable
from assay.verify.core.budget import UNLIMITED, Budget, Expired, running
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Guarantee, Reason, Result
from assay.verify.core.spec import Spec
from assay.verify.core.verifier import Bounds, Verifier
from assay.verify.support.floats import TINY, down, gamma

# Inputs and neurons together: beyond it the programs take hours.
LARGEST = 400


@dataclass(frozen=True)
class LipSDP:
    """One constant in l2 for each row of the specification, by a semidefinite program; for small networks.

    ``solver``: SCS, or CLARABEL, which is more accurate, far slower, and late to stop. ``rows``: ``each`` has a program
    of its own; ``together`` one program for all outputs gives the multipliers, and what they prove of each row is
    somewhat more than the least constant, at the price of one program a network. ``proof``: return the multipliers as
    a certificate. ``stats`` hold ``radius``, in the
    norm of the region about its centre: all points nearer than it are safe; and ``constant``, the largest of the rows.
    """

    solver: str = "SCS"
    rows: Literal["each", "together"] = "each"
    proof: bool = False
    name: ClassVar[str] = "lipsdp"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        check_solver(self.solver)
        if self.rows not in ("each", "together"):
            raise InputError(f"rows of lipsdp must be each or together, got {self.rows!r}")

    def supports(self, problem: Problem) -> str | None:
        """Piecewise linear operations; networks that are too large end as UNKNOWN for want of memory."""
        return refusal(problem.network) or missing()

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """VERIFIED if the margin at the centre is larger than what it can lose over the region."""
        return _answered(self, problem, budget, self._work)

    def _work(self, problem: Problem, budget: Budget) -> Answer:
        network, spec, reach = problem.network.to(torch.float64), problem.spec, Reach.of(problem.region)
        layers = unrolled(network)
        values = radii.row_values(spec, rigorous.intervals(network, Box(reach.centre[None], reach.centre[None]))[-1])
        found = [self._constant(row.numpy(), layers, _known(problem.network, self.solver), budget) for row in spec.A]
        slopes = torch.tensor([one.constant for one in found], dtype=torch.float64)
        lost = slopes * reach.within(2) * rigorous.MORE + TINY
        own = slopes * conversion(reach.centre.numel(), reach.p, 2) * rigorous.MORE
        stats = {"constant": max(slopes.tolist(), default=0.0), "radius": radii.radius(spec, values, own)}
        record = None
        if self.proof:
            rho = torch.tensor([[one.rho] for one in found], dtype=torch.float64)
            multipliers = torch.from_numpy(np.stack([one.multipliers for one in found]))
            record = {"kind": "lipsdp", "multipliers": multipliers, "rho": rho}
        return radii.margin(spec, values, lost.nan_to_num(nan=inf, posinf=inf)), stats, record

    def _constant(self, row: Array, layers: Unrolled, known: Known, budget: Budget) -> lipsdp.Proved:
        """The constant of a row, which is that of its opposite: worked out once for each network and solver."""
        key = (self.rows, max(tuple(row.tolist()), tuple((-row).tolist())))
        if key not in known.constants:
            if self.rows == "each":
                known.constants[key] = lipsdp.of_solver(layers, row[None], self.solver, budget)
            else:
                if known.multipliers is None:
                    known.multipliers = lipsdp.multipliers(layers, np.eye(len(row)), self.solver, budget)
                budget.check()
                known.constants[key] = lipsdp.shared(layers, row[None], known.multipliers)
        return known.constants[key]


@dataclass(eq=False)
class Known:
    """What a solver has said of a network: constants of rows, and the multipliers of all outputs together."""

    constants: dict[tuple[str, tuple[float, ...]], lipsdp.Proved] = field(default_factory=dict)
    multipliers: Array | None = None


# By solver, for as long as the network lives; networks are told apart by identity.
_KNOWN: WeakKeyDictionary[Network, dict[str, Known]] = WeakKeyDictionary()


def _known(network: Network, solver: str) -> Known:
    return _KNOWN.setdefault(network, {}).setdefault(solver, Known())


@dataclass(frozen=True)
class SDP:
    """One semidefinite program for each row of the specification, over bounds of the layers; for small networks.

    ``solver``: SCS, or CLARABEL, which is more accurate and far slower. ``proof``: return the multipliers as a
    certificate.
    """

    solver: str = "SCS"
    proof: bool = False
    name: ClassVar[str] = "sdp"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        check_solver(self.solver)

    def supports(self, problem: Problem) -> str | None:
        """Piecewise linear operations; networks that are too large end as UNKNOWN for want of memory."""
        return refusal(problem.network) or missing()

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """VERIFIED if every disjunct has a row that the relaxation keeps positive."""
        return _answered(self, problem, budget, self._work)

    def _work(self, problem: Problem, budget: Budget) -> Answer:
        network, spec = problem.network.to(torch.float64), problem.spec
        layers = unrolled(network)
        box = problem.region.box()
        batch = Box(box.lower[None], box.upper[None])
        bounds, rows_below = rigorous.linear_bounds(network, batch, spec.A[None], budget)
        ranges = _ranges(layers, bounds, problem)
        lowest = rows_below[0] - spec.b
        told: dict[int, tuple[Array, float]] = {}
        centre = spec.rows(network(problem.region.centre[None].to(torch.float64)))[0]
        for d in range(len(spec.disjuncts)):
            rows = (spec.disjunct == d).nonzero().flatten()
            if bool((lowest[rows] > 0).any()):
                continue  # what linear bounds prove needs no program
            for i in rows[centre[rows] > 0].tolist():
                below, values, t = relaxation.lower_bound(layers, ranges, spec.A[i].numpy(), self.solver, budget)
                told[i] = values, t
                lowest[i] = torch.maximum(lowest[i], down(below - spec.b[i]))
            if not bool((lowest[rows] > 0).any()):
                break  # one disjunct that stays open is enough
        return spec.margin(down(lowest)).item(), {}, _record(told, ranges, layers, spec) if self.proof else None


def _record(
    told: dict[int, tuple[Array, float]], ranges: Ranges, layers: Unrolled, spec: Spec
) -> dict[str, Any] | None:
    """Multipliers of each row ``A y - b`` (rows x forms), of entries, of neurons kind by kind and of the ball, and the
    number taken off the corner (rows x 1); None where linear bounds prove all."""
    if not told:
        return None
    entries, ends = len(ranges.lower), len(ranges.lower) + 3 * len(layers.z)
    multipliers, corner = np.zeros((len(spec.b), ends + 1)), -spec.b.numpy()[:, None]
    for i, (values, t) in told.items():
        of_neurons = values[entries:ends].reshape(-1, 3).T.ravel()
        multipliers[i] = np.concatenate([values[:entries], of_neurons, [values[ends:].sum()]])
        corner[i] += t
    return {"kind": "sdp", "multipliers": torch.from_numpy(multipliers), "t": torch.from_numpy(corner)}


def _ranges(layers: Unrolled, bounds: Sequence[Bounds], problem: Problem) -> Ranges:
    """Between which numbers the input and all neurons lie: by the bounds of the nodes, and by intervals."""
    lower, upper = bounds[0].lower.flatten().tolist(), bounds[0].upper.flatten().tolist()
    for z, error, place in zip(layers.z, layers.z_error, layers.places, strict=True):
        if place is None:
            low, high = _interval(z[: len(lower) + 1], error[: len(lower) + 1], np.array(lower), np.array(upper))
        else:
            low, high = (getattr(bounds[place[0]], side).flatten()[place[1]].item() for side in ("lower", "upper"))
        lower.append(max(low, 0.0))
        upper.append(max(high, 0.0))
    reach = Reach.of(problem.region)
    ball = (reach.centre.flatten().numpy(), reach.eps) if reach.p == 2 else (None, inf)
    return Ranges(np.array(lower), np.array(upper), *ball)


def _interval(z: Array, error: Array, lower: Array, upper: Array) -> tuple[float, float]:
    """What an affine function (1 + entries) takes over a box of entries."""
    size = np.concatenate([[1.0], np.maximum(np.abs(lower), np.abs(upper))])
    slack = float((np.abs(z) * size).sum()) * 4 * gamma(len(z) + 4) + float(error @ size) * 2 + TINY
    a, b = z[1:] * lower, z[1:] * upper
    return float(z[0] + np.minimum(a, b).sum()) - slack, float(z[0] + np.maximum(a, b).sum()) + slack


# A lower bound of the margin, what is reported beside it, and what proves it.
Answer = tuple[float, dict[str, Any], dict[str, Any] | None]


def _answered(
    verifier: Verifier, problem: Problem, budget: Budget, work: Callable[[Problem, Budget], Answer]
) -> Result:
    """The result of ``work``."""
    begun, budget = time.monotonic(), running(budget)
    declined = unanswerable(verifier, problem)
    if declined is not None:
        return declined
    margin, reason, stats, record = nan, Reason.NUMERICAL, dict[str, Any](), None
    try:
        budget.check()
        if (size := problem.network.nodes[0].size + neurons(problem.network)) > LARGEST:
            raise MemoryError(f"{size} inputs and neurons are too many for a semidefinite program: at most {LARGEST}")
        with torch.no_grad(), np.errstate(all="ignore"):  # what overflows decides nothing
            margin, stats, record = work(problem, budget)
        reason = Reason.INCOMPLETE if isfinite(margin) else Reason.NUMERICAL
    except Expired:
        reason = Reason.TIMEOUT
    except MemoryError as error:
        reason, stats = Reason.MEMORY, {"explanation": str(error)}
    except Unsolved as error:
        reason, stats = Reason.SOLVER, {"explanation": str(error)}
    return concluded(verifier, problem, margin, reason, time.monotonic() - begun, None, stats, record)
