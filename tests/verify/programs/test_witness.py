"""Tests of verify.programs.witness: what is called a counterexample is one, and descent stays in the region."""

from __future__ import annotations

from math import inf

import pytest
import torch
from torch import Tensor

from assay.verify.check.replay import replay
from assay.verify.core.budget import Budget
from assay.verify.core.network import chain, to_network
from assay.verify.core.ops import Linear
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.programs.witness import by_disjunct, confirmed, descend
from tests import nets
from tests.verify.programs.cases import KINDS, case, cases


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_confirmed_replays(kind: str) -> None:
    confirmations = 0
    for problem, true in cases(kind, range(6)):
        points = problem.region.sample(200, nets.generator(0)).double()
        point = confirmed(problem, points)
        if point is not None:
            assert replay(problem, point).confirmed
            assert true <= 0
            confirmations += 1
    assert confirmations


def test_points_beyond_the_region_are_moved_into_it() -> None:
    problem = Problem(chain((1,), []), Box(torch.zeros(1), torch.ones(1)), Spec.halfspaces([[-1.0]], [-0.75]))
    point = confirmed(problem, torch.tensor([[7.0], [0.5]], dtype=torch.float64))
    assert point is not None
    assert point.tolist() == [1.0]
    assert confirmed(problem, torch.tensor([[0.5]], dtype=torch.float64)) is None


def test_the_oracle_has_the_last_word() -> None:
    """On N2 the network in the reals reaches y = 1, and the model in float32 stays at 0."""
    problem = nets.trap_problem("N2")
    assert problem.spec.violated(problem.network(torch.ones(1, 1, dtype=torch.float64))).item()
    assert confirmed(problem, torch.ones(1, 1, dtype=torch.float64)) is None


def test_strictness_is_honoured() -> None:
    strict = Spec((Polyhedron(torch.ones(1, 1), torch.zeros(1), torch.ones(1, dtype=torch.bool)),))
    at_zero = torch.zeros(1, 1, dtype=torch.float64)
    box = Box(torch.zeros(1), torch.ones(1))
    assert confirmed(Problem(chain((1,), []), box, strict), at_zero) is None
    assert confirmed(Problem(chain((1,), []), box, Spec.halfspaces([[1.0]], [0.0])), at_zero) is not None


@pytest.mark.parametrize("p", [1, 2, inf])
def test_descent_stays_in_the_region_and_never_climbs(p: float) -> None:
    network = to_network(nets.random_mlp(1, (6, 12, 3)), (6,))
    ball = LpBall(torch.full((6,), 0.5), 0.3, p, (0.0, 1.0))
    problem = Problem(network, ball, Spec.robust(0, 3))
    points = ball.sample(10, nets.generator(0)).double()
    points = ball.project(points)
    disjunct = torch.tensor([0, 1] * 5)
    after = descend(problem, disjunct, points, 20)
    assert bool(ball.contains(after).all())
    before, then = (by_disjunct(problem, x).gather(1, disjunct[:, None]) for x in (points, after))
    assert bool((then <= before).all())
    assert bool((then < before - 1e-3).any())


def test_descent_finds_the_corner_of_a_linear_function() -> None:
    weight = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    problem = Problem(
        chain((3,), [Linear(weight, torch.zeros(1))]),
        Box(torch.zeros(3), torch.ones(3)),
        Spec.halfspaces([[1.0]], [0.0]),
    )
    (after,) = descend(problem, torch.tensor([0]), torch.full((1, 3), 0.5, dtype=torch.float64), 20)
    assert after.tolist() == [0.0, 1.0, 0.0]


def test_disjuncts_apart() -> None:
    def parts(*rows: list[float]) -> Polyhedron:
        A = torch.tensor(rows, dtype=torch.float64).reshape(-1, 2)
        return Polyhedron(A, torch.zeros(len(A)), torch.zeros(len(A), dtype=torch.bool))

    spec = Spec((parts([1.0, 0.0], [0.0, 1.0]), parts(), parts([-1.0, 0.0])))
    problem = Problem(chain((2,), []), Box(torch.zeros(2), torch.ones(2)), spec)
    x: Tensor = torch.tensor([[0.25, 0.5]], dtype=torch.float64)
    assert by_disjunct(problem, x).tolist() == [[0.5, -inf, -0.25]]
    everything = Problem(chain((2,), []), problem.region, Spec((parts(),)))
    assert torch.equal(descend(everything, torch.tensor([0]), x, 5), x)
    assert confirmed(everything, x) is not None


def test_descent_ends_with_the_time() -> None:
    problem, _ = case("mlp", 2)
    points = problem.region.sample(8, nets.generator(0)).double()
    disjunct = torch.zeros(8, dtype=torch.int64)
    assert not torch.equal(descend(problem, disjunct, points, 20), points)
    assert torch.equal(descend(problem, disjunct, points, 20, budget=Budget(0).started()), points)
