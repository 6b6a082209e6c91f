"""Tests of verify.programs.relaxation: bounds are proved from duals alone, less what rounding can be worth."""

from __future__ import annotations

from functools import cache
from math import inf, nan

import numpy as np
import pytest
import torch

from assay.verify.bounds import layers
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.result import Reason
from assay.verify.core.spec import Polyhedron
from assay.verify.core.verifier import Bounds
from assay.verify.programs.encode import Encoding, Unbounded, encode
from assay.verify.programs.loading import get_solver, load
from assay.verify.programs.program import Answer, Program, Status, Vector
from assay.verify.programs.relaxation import Relaxation, attempt, grain, known, lower
from assay.verify.programs.start import Begin
from tests import nets
from tests.breadth import seeds
from tests.verify.programs.cases import KINDS, cases


class Liar:
    """Answers of a solver that claims the impossible, with duals as given."""

    tolerance = 1e-9
    punctual = True
    drops = 1e-9

    def __init__(self, duals: list[float] | None, status: Status, shape: tuple[int, int] = (0, 0)) -> None:
        self.duals, self.status, self.shape = duals, status, shape

    def load(self, program: Program, threads: int, seed: int) -> Liar:
        return Liar(self.duals, self.status, program.matrix.shape)

    def solve(self, cost: Vector, seconds: float, target: float, begin: Begin) -> Answer:
        duals = None if self.duals is None else np.resize(np.array(self.duals), self.shape[0])
        return Answer(self.status, 1e9, np.zeros(self.shape[1]), duals, 1e9)


@cache
def honest(seed: int) -> tuple[Encoding, list[tuple[Polyhedron, float]]]:
    """A relaxation, and what is proved of each disjunct from duals that are as they should be."""
    ((problem, _),) = cases("mlp", range(seed, seed + 1))
    with torch.no_grad():
        bounded = known(problem.network, problem.region, problem.spec.A, Budget())
        encoding = encode(problem.network, problem.region, bounded.bounds)
    relaxation = Relaxation(encoding, get_solver("highs"), Budget())
    return encoding, [(each, relaxation.disjunct(each.A, each.b).bound) for each in problem.spec.disjuncts]


@pytest.mark.parametrize("duals", [None, [nan], [inf], [1.0], [-1e12, 3.0], [0.0], [1e300, -1e300]])
@pytest.mark.parametrize("status", Status)
def test_no_answer_makes_a_bound_that_is_wrong(duals: list[float] | None, status: Status) -> None:
    for encoding, proved in map(honest, range(4)):
        relaxation = Relaxation(encoding, Liar(duals, status), Budget())
        for disjunct, bound in proved:
            assert relaxation.disjunct(disjunct.A, disjunct.b).bound <= bound + 1e-9


@pytest.mark.parametrize("kind", KINDS)
@seeds(4, of=6)
def test_relaxations_lie_between_crown_and_the_truth(kind: str, seeds: range) -> None:
    for problem, true in cases(kind, seeds):
        spec = problem.spec
        with torch.no_grad():
            bounded = known(problem.network, problem.region, spec.A, Budget())
            encoding = encode(problem.network, problem.region, bounded.bounds)
        relaxation = Relaxation(encoding, get_solver("highs"), Budget())
        bounds = [relaxation.disjunct(d.A, d.b).bound for d in spec.disjuncts]
        assert min(bounds) <= true + 1e-9
        crown = bounded.by_disjunct(spec)
        # CROWN's own bound may be that of the intervals at the last activations, which are rows here, too.
        assert all(b >= c - 1e-9 * (1 + abs(c)) for b, c in zip(bounds, crown, strict=True))


def test_rows_of_a_conjunction_are_worth_more_together() -> None:
    better = 0
    for seed in range(12):
        for problem, _ in cases("mlp", range(seed, seed + 1)):
            with torch.no_grad():
                bounded = known(problem.network, problem.region, problem.spec.A, Budget())
                encoding = encode(problem.network, problem.region, bounded.bounds)
            relaxation = Relaxation(encoding, get_solver("highs"), Budget())
            for d in problem.spec.disjuncts:
                apart = max(relaxation.disjunct(d.A[i : i + 1], d.b[i : i + 1]).bound for i in range(len(d.b)))
                together = relaxation.disjunct(d.A, d.b).bound
                assert together >= apart - 1e-9
                better += together > apart + 1e-3
    assert better


@pytest.mark.parametrize("name", ["N1", "N2", "N4", "N6"])
def test_the_grain_of_a_trap_is_coarse(name: str) -> None:
    """Where float64 loses the answer, margins up to 1/2 mean nothing; elsewhere the grain is next to nothing."""
    for B, dtype, coarse in ((2.0**54, torch.float64, True), (2.0**25, torch.float32, False)):
        problem = nets.trap_problem(name, B, dtype)
        bounded = known(problem.network, problem.region, problem.spec.A, Budget())
        assert (bounded.grain > 0.5) == coarse
        assert coarse or bounded.grain < 1e-3


def test_the_grain_of_what_is_not_known_is_infinite() -> None:
    problem = nets.trap_problem("N1")
    relaxed = layers.by_intervals(problem.network, layers.batch_box(problem.region, (1,)), torch.float64)
    relaxed.bounds = [Bounds(torch.full_like(b.lower, nan), b.upper) for b in relaxed.bounds]
    assert grain(relaxed, problem.spec.A) == inf


def test_time() -> None:
    problem, _ = cases("mlp", range(1))[0]
    over = Budget(seconds=0).started()
    with pytest.raises(Expired):
        known(problem.network, problem.region, problem.spec.A, over)
    bounded = known(problem.network, problem.region, problem.spec.A, Budget())
    loaded = load(get_solver("highs"), encode(problem.network, problem.region, bounded.bounds).draft.program())
    with pytest.raises(Expired):
        lower(loaded, over)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Expired, Reason.TIMEOUT), (Unbounded, Reason.NUMERICAL), (MemoryError, Reason.MEMORY), (None, Reason.INCOMPLETE)],
)
def test_why_an_attempt_ended(error: type[Exception] | None, reason: Reason) -> None:
    def work() -> None:
        if error is not None:
            raise error

    assert attempt(work) is reason
