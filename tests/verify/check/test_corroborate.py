"""Tests of verify.check.corroborate: margins that are too large, and claims that a member breaks, are noticed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from assay.verify.check.corroborate import corroborate
from assay.verify.core.network import chain, to_network
from assay.verify.core.ops import Linear, Scale
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.result import Result, Verdict
from assay.verify.core.spec import Spec
from tests import exact, nets
from tests.breadth import slow


def claim(problem: Problem, margin: float | None) -> str | None:
    (fault,) = corroborate([problem], [Result(problem.id, "liar", Verdict.VERIFIED, margin=margin)])
    return fault


def problem_of(seed: int, eps: float = 0.1, p: float = float("inf")) -> Problem:
    network = to_network(nets.random_mlp(seed, (3, 6, 3)), (3,))
    x = torch.rand(3, generator=nets.generator(seed))
    return Problem.robustness(network, x, int(network(x[None].double()).argmax()), eps, p)


@pytest.mark.slow
@pytest.mark.parametrize("examples", [15, slow(50)])
def test_the_truth_stands_and_more_than_the_truth_does_not(examples: int) -> None:
    @settings(max_examples=examples)
    @given(nets.seeds)
    def check(seed: int) -> None:
        problem = problem_of(seed)
        true = exact.true_margin(problem)
        assume(true > 1e-3)
        assert claim(problem, true) is None
        assert claim(problem, 0.5 * true) is None
        assert claim(problem, true + 0.5) is not None

    check()


@pytest.mark.slow
@given(nets.seeds)
def test_the_upper_bound_in_place_of_the_lower_is_noticed(seed: int) -> None:
    problem = problem_of(seed)
    inside = problem.network(problem.region.sample(64).double())
    largest = float(problem.spec.margin(problem.spec.rows(inside)).max())
    smallest = float(problem.spec.margin(problem.spec.rows(inside)).min())
    assume(largest - smallest > 1e-3)
    assert claim(problem, largest) is not None


@pytest.mark.slow
@settings(max_examples=20)
@given(nets.seeds, st.floats(0.01, 0.2))
def test_a_dropped_bias_is_noticed(seed: int, bias: float) -> None:
    """A margin computed without a bias that lowers it is too large by just that bias."""
    base = problem_of(seed)
    true = exact.true_margin(base)
    assume(true > bias + 1e-3)
    label = base.label
    assert label is not None
    shift = torch.zeros(3, dtype=torch.float64)
    shift[label] = -bias
    network = to_network(base.network)
    lowered = type(network)(
        (*network.nodes, type(network.nodes[0])(Scale(torch.ones((), dtype=torch.float64), shift), (3,), (3,)))
    )
    problem = Problem(lowered, base.region, base.spec, label)
    assert claim(problem, true) is not None
    assert claim(problem, true - bias) is None


def test_a_member_that_breaks_the_property_is_noticed_without_a_margin() -> None:
    problem = problem_of(0, eps=2.0)
    assert exact.true_margin(problem) < 0
    assert "violates" in str(claim(problem, None))


@pytest.mark.parametrize("p", [1, 2, float("inf")])
def test_the_corner_is_found_though_random_members_miss_it(p: float) -> None:
    """In 200 dimensions random members stay near the middle; the steepest step reaches the edge."""
    weight = torch.stack([torch.ones(200), -torch.ones(200)])
    network = chain((200,), [Linear(weight, torch.zeros(2))], oracle=None)
    x = torch.full((200,), 0.5)
    x[0] = 0.75
    reach = {1: 1.0, 2: 200**0.5, float("inf"): 200.0}[p]
    eps = 0.25 / reach
    problem = Problem(network, LpBall(x, eps, p, (0.0, 1.0)), Spec.robust(0, 2))
    true = 2 * float(x.double().sum()) - 2 * 0.25
    assert claim(problem, true - 1e-6) is None
    assert claim(problem, true + 0.1) is not None


def test_outputs_that_are_not_finite_confirm_nothing() -> None:
    """Where the network overflows there is no margin at all, and none can be claimed."""
    network = chain((1,), [Scale(torch.tensor(1e308), torch.tensor(0.0))] * 2)
    problem = Problem(network, Box(torch.ones(1), 2 * torch.ones(1)), Spec.halfspaces([[1.0]], [0.0]))
    assert claim(problem, 1.0) is not None


@pytest.mark.parametrize("margin", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_margin_that_proves_nothing_is_no_proof(margin: float) -> None:
    """VERIFIED means a finite margin above 0, whoever claims it."""
    network = chain((1,), [])
    problem = Problem(network, Box(torch.ones(1), 2 * torch.ones(1)), Spec.halfspaces([[1.0]], [0.0]))
    assert claim(problem, 1.0) is None
    assert claim(problem, margin) is not None


def test_what_only_float32_breaks_is_no_fault() -> None:
    problem = Problem(
        to_network(nets.trap("N3"), (1,)), Box(torch.zeros(1), torch.ones(1)), Spec.halfspaces([[-1.0]], [-0.5])
    )
    assert claim(problem, 0.5) is None


def test_each_problem_gets_its_own_answer() -> None:
    """Networks, norms, radii and claims mixed in one list."""
    problems = [
        problem_of(s, eps, p) for s, eps, p in [(1, 0.05, 2.0), (2, 0.01, 1.0), (1, 0.1, 2.0), (3, 0.1, float("inf"))]
    ]
    problems.append(
        Problem(problems[0].network, LpBall(problems[0].region.centre, 0.0, 2, domain=None), problems[0].spec)
    )
    claims = [1e3, 1e-9, 1e3, None, 1e3]
    results = [Result(p.id, "liar", Verdict.VERIFIED, margin=m) for p, m in zip(problems, claims, strict=True)]
    together = corroborate(problems, results)
    assert together == [corroborate([p], [r])[0] for p, r in zip(problems, results, strict=True)]
    assert [fault is not None for fault in together][::2] == [True, True, True]


def test_no_problems() -> None:
    assert corroborate([], []) == []


def test_the_original_model_is_asked() -> None:
    """The network and its oracle disagree: a violation has to be there in both, a margin in float64."""
    network = chain((2,), [], oracle=nn.Identity())
    problem = Problem(network, Box(torch.zeros(2), torch.ones(2)), Spec.robust(0, 2))
    assert "violates" in str(claim(problem, None))


def test_a_single_point_is_asked_about_alone() -> None:
    """What is wrong there is noticed, and the model is run there and at the corner that it leads to only."""
    seen: list[int] = []

    def model(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return x

    point = torch.tensor([0.25, 0.5])
    problem = Problem(chain((2,), [], oracle=model), Box(point, point), Spec.robust(0, 2))
    assert "violates" in str(claim(problem, None))
    assert seen == [2]
    other = Problem(problem.network, Box(point.flip(0), point.flip(0)), problem.spec)
    assert claim(other, 0.2) is None
    assert "exceeds" in str(claim(other, 0.3))
