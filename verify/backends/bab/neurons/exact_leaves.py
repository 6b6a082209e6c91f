"""Leaves whose every neuron is split, as linear programs: what remains of the network there is linear.

Programs have affine operations multiplied out, and do not know what that rounded: their duals are multipliers of the
splits and of the unsafe rows, no more, and what counts is the bound that these have with every rounding charged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from assay.verify.backends.bab.neurons.compact import FEW, Compact
from assay.verify.backends.bab.neurons.multipliers import Kinks, Multipliers, Walk, backward
from assay.verify.backends.bab.neurons.tables import Tables
from assay.verify.backends.bab.programs.simplex import Objective, Simplex
from assay.verify.backends.bab.programs.splits import ACTIVE, OPEN, Phases, Splits
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.problem import Problem
from assay.verify.core.region import Polytope
from assay.verify.core.verifier import Bounds
from assay.verify.programs.encode import Encoding, encode
from assay.verify.programs.expressions import as_array
from assay.verify.programs.program import Index, Status, Vector
from assay.verify.support.floats import TINY, down, gamma

NOTHING = 1e30  # the bound of a leaf that holds no point

# Points (n x inputs) that may be counterexamples: the one that is, if any.
Look = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True, eq=False)
class Leaves:
    """The program of a disjunct, which leaves differ from in bounds alone, and what is minimised."""

    splits: Splits
    simplex: Simplex
    cost: Vector
    offset: float
    objective: Objective


@dataclass(eq=False)
class ExactLeaves:
    """Programs on the ``bounds`` of every node (1 x shape); they are made when the first leaf asks for them. ``last``:
    what proves the bound of the last leaf, of all unstable neurons."""

    problem: Problem
    bounds: Sequence[Bounds]
    compact: Compact
    look: Look
    budget: Budget
    last: Multipliers | None = None

    def settle(self, phase: Tensor, disjunct: int) -> tuple[float, Tensor | None]:
        """A proved bound of the disjunct in a leaf, -inf if there is none, and a counterexample if that is what the
        leaf holds. ``phase``: of the compact network's unstable neurons (unstable); those at 0 stay relaxed.

        Raises :class:`assay.verify.core.budget.Expired`.
        """
        leaves = self._leaves(disjunct)
        phases = np.full(len(leaves.splits), OPEN, dtype=np.int8)
        known = self._numbers >= 0
        phases[self._numbers[known]] = phase.numpy()[known]
        return self._solved(leaves, phases, phase, disjunct)

    def _solved(self, leaves: Leaves, phases: Phases, phase: Tensor, disjunct: int) -> tuple[float, Tensor | None]:
        simplex = leaves.simplex
        simplex.aim(leaves.objective)
        simplex.within(phases)
        status = simplex.solve(None, float("inf"), self.budget.remaining)
        if status is Status.TIMEOUT:
            raise Expired
        if status is Status.INFEASIBLE:
            ray = simplex.ray()
            if ray is None:
                return -np.inf, None
            ray = ray / max(np.abs(ray).max(initial=0.0), TINY)
            proved = self._charged(leaves.splits, phase, disjunct, ray, None)
            return (NOTHING if proved > 0 else -np.inf), None
        if status is not Status.OPTIMAL:
            return -np.inf, None
        x, duals = simplex.solution()
        bound = self._charged(leaves.splits, phase, disjunct, duals, leaves.cost)
        witness = None if bound > 0 else self.look(torch.from_numpy(self._encoding.inputs_at(x[None])))
        return bound, witness

    def _charged(self, splits: Splits, phase: Tensor, disjunct: int, duals: Vector, cost: Vector | None) -> float:
        """The bound that duals (rows) prove of a leaf by the network itself; -inf if there is none. Without a ``cost``
        (columns) a positive bound proves that there is no unsafe point."""
        split = np.flatnonzero((phase.numpy() != OPEN) & (self._numbers >= 0))
        number, active = self._numbers[split], phase.numpy()[split] == ACTIVE
        residual = (0.0 if cost is None else cost) - splits.program.transposed @ duals
        beta = torch.zeros(len(phase), 1, dtype=torch.float64)
        beta[split, 0] = torch.from_numpy(np.where(active, residual[splits.a[number]], residual[splits.p[number]]))
        rows = self.problem.spec.disjunct == disjunct
        weight = torch.zeros(len(rows), 1, dtype=torch.float64)
        count = int(rows.sum())
        if count > 1:  # the rows of the epigraph are the last ones
            weight[rows, 0] = torch.from_numpy(np.maximum(duals[-count:], 0.0))
        elif cost is not None:
            weight[rows, 0] = 1.0
        if cost is not None:
            weight = weight / weight.sum()
        lower, upper = (t[:, None] for t in self.compact.bounds())
        kinks = Kinks.of(self._tables, lower, upper, phase[:, None], torch.tensor([0]))
        alpha = ((kinks.slope > 0.5).double() * kinks.open).add_(kinks.fixed)
        self.last = Multipliers(alpha, beta.clamp(min=0), weight)
        walk = backward(self._tables, kinks, self.last, charged=True)
        bound = self._tied(walk, duals)
        bound = down(bound - 4 * gamma(len(weight) + FEW) * bound.abs())  # weights add up to 1 but for rounding
        return bound.nan_to_num(nan=-np.inf, posinf=-np.inf).item()

    def _tied(self, walk: Walk, duals: Vector) -> Tensor:
        """The bound of a walk, with multiples of a polytope's constraints, the first rows, added: (1)."""
        region, compact = self.problem.region, self.compact
        if not isinstance(region, Polytope):
            return walk.bound
        multipliers = torch.from_numpy(np.maximum(-duals[: len(region.b)], 0.0))
        added = ((multipliers @ region.A) * compact.radius)[torch.from_numpy(compact.varied)][:, None]
        rest = multipliers @ (region.A @ compact.centre - region.b)
        size = walk.at_input.abs().sum(0) + added.abs().sum(0)
        size += multipliers @ (region.A.abs() @ (compact.centre.abs() + compact.radius) + region.b.abs())
        bound = walk.bound + (walk.at_input.abs().sum(0) - (walk.at_input + added).abs().sum(0)) + rest
        count = region.A.shape[1] + len(region.b) + FEW
        error = 8 * gamma(count) * (size + walk.bound.abs()) + count * (1 + multipliers.sum()) * TINY
        tied = down(bound - error)
        return torch.where(tied > walk.bound, tied, walk.bound)

    @cached_property
    def _tables(self) -> Tables:
        spec = self.problem.spec
        return Tables(self.compact, self.compact.output.weighed(as_array(spec.A), as_array(spec.b)), torch.float64)

    @cached_property
    def _encoding(self) -> Encoding:
        return encode(self.problem.network, self.problem.region, list(self.bounds))

    @cached_property
    def _numbers(self) -> Index:
        """The number in the encoding of each unstable neuron of the compact network, -1 if it has none: (unstable)."""
        neurons = self._encoding.neurons
        pairs = zip(neurons.position.tolist(), neurons.feature.tolist(), strict=True)
        number = {pair: i for i, pair in enumerate(pairs)}
        found = [
            number.get((layer.position, feature), -1)
            for layer in self.compact.layers
            for feature in layer.features[: layer.unstable].tolist()
        ]
        return np.array(found, dtype=np.int64)

    @cached_property
    def _programs(self) -> dict[int, Leaves]:
        return {}

    def _leaves(self, d: int) -> Leaves:
        """The program of a disjunct; those of several rows have one of their own."""
        if d not in self._programs:
            disjunct = self.problem.spec.disjuncts[d]
            A, b = disjunct.A.numpy(), disjunct.b.numpy()
            program = self._encoding.disjunct(A, b)
            splits = _by_splits_alone(Splits.of(self._encoding, program), self._encoding.inputs)
            simplex = Simplex(splits, self.budget.threads, self.budget.seed)
            cost = splits.cost(program.cost)
            self._programs[d] = Leaves(splits, simplex, cost, program.offset, simplex.objective(cost, program.offset))
        return self._programs[d]


def _by_splits_alone(splits: Splits, inputs: Index) -> Splits:
    """The program with room beyond all bounds but those of ``inputs`` (columns, -1: none) and splits, which follow from
    these two in a leaf: duals then speak of nothing else."""
    program = splits.program
    room = 1 + program.upper - program.lower
    room[inputs[inputs >= 0]] = 0.0
    lower, upper, row_upper = program.lower - room, program.upper + room, program.row_upper.copy()
    lower[splits.a], lower[splits.p] = program.lower[splits.a], program.lower[splits.p]
    row_upper[splits.chord] = 2 * np.abs(row_upper[splits.chord]) + 1
    return replace(splits, program=replace(program, lower=lower, upper=upper, row_upper=row_upper))
