"""Leaves whose every neuron is split, as linear programs: what remains of the network there is linear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from assay.verify.backends.bab.compact import Compact
from assay.verify.backends.bab.simplex import Objective, Simplex
from assay.verify.backends.bab.splits import OPEN, Phases, Splits
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.problem import Problem
from assay.verify.core.verifier import Bounds
from assay.verify.programs.encode import Encoding, encode
from assay.verify.programs.program import Index, Status, Vector

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
    """Programs on the ``bounds`` of every node (1 x shape); they are made when the first leaf asks for them."""

    problem: Problem
    bounds: Sequence[Bounds]
    compact: Compact
    look: Look
    budget: Budget

    def settle(self, phase: Tensor, disjunct: int) -> tuple[float, Tensor | None]:
        """A proved bound of the disjunct in a leaf, -inf if there is none, and a counterexample if that is what the
        leaf holds. ``phase``: of the compact network's unstable neurons (unstable); those at 0 stay relaxed.

        Raises :class:`assay.verify.core.budget.Expired`.
        """
        leaves = self._leaves(disjunct)
        phases = np.full(len(leaves.splits), OPEN, dtype=np.int8)
        known = self._numbers >= 0
        phases[self._numbers[known]] = phase.numpy()[known]
        return self._solved(leaves, phases)

    def _solved(self, leaves: Leaves, phases: Phases) -> tuple[float, Tensor | None]:
        splits, simplex = leaves.splits, leaves.simplex
        simplex.aim(leaves.objective)
        simplex.within(phases)
        status = simplex.solve(None, float("inf"), self.budget.remaining)
        if status is Status.TIMEOUT:
            raise Expired
        if status is Status.INFEASIBLE:
            ray = simplex.ray()
            proved = -1.0 if ray is None else splits.proved(phases[None], ray[None], np.zeros_like(leaves.cost), 0.0)[0]
            return (NOTHING if proved > 0 else -np.inf), None
        if status is not Status.OPTIMAL:
            return -np.inf, None
        x, duals = simplex.solution()
        bound = float(splits.proved(phases[None], duals[None], leaves.cost, leaves.offset)[0])
        witness = None if bound > 0 else self.look(torch.from_numpy(self._encoding.inputs_at(x[None])))
        return bound, witness

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
            splits = Splits.of(self._encoding, program)
            simplex = Simplex(splits, self.budget.threads, self.budget.seed)
            cost = splits.cost(program.cost)
            self._programs[d] = Leaves(splits, simplex, cost, program.offset, simplex.objective(cost, program.offset))
        return self._programs[d]
