"""Proved lower bounds from linear programs, and what is known of a network before the first one is solved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
import torch
from torch import Tensor

from assay.verify.bounds import layers
from assay.verify.bounds.backward.rows import lower_rows
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.network import Network
from assay.verify.core.region import Region
from assay.verify.core.region.rounding import directed_sum
from assay.verify.core.result import Reason
from assay.verify.core.spec import Spec
from assay.verify.core.verifier import Bounds
from assay.verify.programs.dual import safe_bounds
from assay.verify.programs.encode import Encoding, Unbounded
from assay.verify.programs.hints import Passed
from assay.verify.programs.loading import Loaded, load
from assay.verify.programs.program import Status, Vector
from assay.verify.programs.solver import Solver
from assay.verify.support.floats import UNIT


@dataclass(frozen=True, eq=False)
class Known:
    """``bounds`` of every node (1 x shape of the node), ``rows``: lower bounds of the objective (rows), both by linear
    bounds; ``grain``: a bound of a margin that is positive but no larger than this means nothing."""

    bounds: list[Bounds]
    rows: Tensor
    grain: float

    def by_disjunct(self, spec: Spec) -> list[float]:
        """Lower bounds of max over rows of ``A y - b`` for each disjunct, where the rows are the specification's."""
        rows = directed_sum(self.rows, -spec.b, up=False)
        return [rows[spec.disjunct == d].max().item() if len(p.b) else -inf for d, p in enumerate(spec.disjuncts)]


def known(
    network: Network,
    region: Region,
    objective: Tensor,
    budget: Budget,
    linear: bool = True,
    sides: Tensor | None = None,
) -> Known:
    """CROWN's bounds for a region of one sample, or CROWN-IBP's without ``linear``: objective (rows x outputs). The
    grain counts what is rounded when ``sides`` (rows) are taken off.

    Raises :class:`assay.verify.core.budget.Expired` when the time is over.
    """
    budget.check()
    bounder = layers.by_linear_bounds if linear else layers.by_intervals
    relaxed = bounder(network, layers.batch_box(region, network.input_shape), torch.float64, budget.on_cpu())
    rows = lower_rows(relaxed, objective[None], linear=True)[0]
    doubt = 4 * UNIT * float(sides.abs().amax()) if sides is not None and len(sides) else 0.0
    return Known(relaxed.bounds, rows, grain(relaxed, objective) + doubt)


def grain(relaxed: Relaxed, objective: Tensor) -> float:
    """The most that rounding may take of a row of ``objective`` (rows x outputs) within the bounds, by any lines."""
    assert relaxed.rounding is not None
    losses = objective.abs() @ relaxed.rounding.anyhow(relaxed.bounds)[-1].flatten()
    return max([0.0, *(loss if isfinite(loss) else inf for loss in losses.tolist())])


def attempt(work: Callable[[], None]) -> Reason:
    """Why a problem is open that ``work``, done as far as time, memory and numbers allow, leaves undecided."""
    try:
        work()
    except Expired:
        return Reason.TIMEOUT
    except Unbounded:
        return Reason.NUMERICAL
    except MemoryError:
        return Reason.MEMORY
    return Reason.INCOMPLETE


@dataclass(frozen=True, eq=False)
class Lower:
    """A proved ``bound`` of a program's optimum (-inf: none), the ``status`` and point ``x`` of the solver's answer,
    the ``sensitivity`` of the optimum to errors of the rows (infinite: not known), and the ``duals`` that prove it."""

    bound: float
    status: Status
    x: Vector | None = None
    sensitivity: float = inf
    duals: Vector | None = None


def lower(loaded: Loaded, budget: Budget, cost: Vector | None = None, offset: float = 0.0) -> Lower:
    """A lower bound of ``cost @ x + offset`` over a linear program, whatever the solver's answer is worth.

    The cautious bound that its duals prove (:func:`assay.verify.programs.dual.safe_bounds`). ``cost``: (columns), or
    None, the program's own. Raises :class:`Expired` when the time is over.
    """
    budget.check()
    answer = loaded.solve(cost, offset, budget.remaining)
    if answer.duals is None:
        return Lower(-inf, answer.status, answer.x)
    safe = safe_bounds(loaded.program, answer.duals[None], cost, offset)
    return Lower(safe.cautious.item(), answer.status, answer.x, safe.sensitivity.item(), answer.duals)


class Relaxation:
    """The linear relaxation of an encoding inside a solver, for one disjunct after another."""

    def __init__(self, encoding: Encoding, solver: Solver, budget: Budget) -> None:
        self.encoding, self._solver, self._budget = encoding, solver, budget
        self._loaded = load(solver, encoding.draft.program().relaxed(), budget.threads, budget.seed)

    def disjunct(self, A: Tensor, b: Tensor) -> Lower:
        """A lower bound of max over rows of ``A y - b``: A (rows x outputs), b (rows), at least one row.

        One row is a new cost vector; several are a program of their own.
        """
        if len(b) == 1:
            return lower(self._loaded, self._budget, *self.encoding.cost(A[0].numpy(), float(b[0])))
        program = self.encoding.disjunct(A.numpy(), b.numpy()).relaxed()
        return lower(load(self._solver, program, self._budget.threads, self._budget.seed), self._budget)

    def passed(self, A: Tensor, b: Tensor, duals: Vector) -> tuple[Passed, Vector]:
        """What ``duals`` (rows of the program) of such a disjunct say of its neurons (1 x neurons), and the weights of
        its rows (rows)."""
        if len(b) == 1:
            matrix, (cost, _), weights = self._loaded.program.matrix, self.encoding.cost(A[0].numpy()), np.ones(1)
        else:
            program = self.encoding.disjunct(A.numpy(), b.numpy())  # the rows of the disjunct are its last ones
            matrix, cost, weights = program.matrix, program.cost, np.maximum(duals[-len(b) :], 0.0)
        return Passed.of(self.encoding.neurons, matrix, duals[None], cost), weights
