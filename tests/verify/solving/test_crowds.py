"""Tests of verify.solving.crowds: boxes of many problems, against exact minima, samples, and what cannot be decided."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import torch

from assay.verify.backends.crown import CROWN
from assay.verify.core.budget import Budget
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.result import Reason, Verdict
from assay.verify.solving.auto import CROWD, Auto
from assay.verify.solving.crowds import Crowd, halved
from tests.breadth import seeds
from tests.contract.graphs import members, random_graph
from tests.exact import true_margin
from tests.nets import generator
from tests.verify.backends.test_input_split_soundness import below, layers


@cache
def crowd(seed: int) -> tuple[list[Problem], list[float]]:
    """Boxes of a ReLU network of two inputs, of the last of which one does not vary, and their true margins: positive
    where linear bounds of the whole box are not, or, in every third, negative."""
    draw = generator(seed)
    sizes = (2, 4, 3, 1)
    weights = [
        (torch.randn(o, i, generator=draw).tolist(), torch.randn(o, generator=draw).tolist())
        for i, o in pairwise(sizes)
    ]
    network = layers(*weights)
    problems, margins = [], []
    for number in range(4):
        centre = 2 * torch.rand(2, generator=draw, dtype=torch.float64) - 1
        radius = 0.5 + torch.rand(2, generator=draw, dtype=torch.float64)
        radius[0] *= number < 3
        problem = Problem(network, Box(centre - radius, centre + radius), below(0.0))
        least, proved = float(true_margin(problem)), CROWN().verify(problem).margin
        assert proved is not None
        bound = least + 0.1 if number % 3 == 1 else (least + proved) / 2
        problems.append(problem.with_parts(spec=below(bound)))
        margins.append(least - bound)
    return problems, margins


def graphs(seed: int) -> list[Problem]:
    """Boxes of a network of all kinds of operations, whose first output is to stay a little above its samples."""
    network, draw = random_graph(seed), generator(seed)
    radius = torch.zeros(network.nodes[0].size, dtype=torch.float64)
    radius[:3] = 0.3
    problems = []
    for centre in torch.rand(4, *network.input_shape, generator=draw, dtype=torch.float64):
        box = Box(centre - radius.view_as(centre), centre + radius.view_as(centre))
        lowest = network(members(box.lower, box.upper, 200))[:, 0].min().item()
        problems.append(Problem(network, box, below(lowest - 0.1, network.output_size)))
    return problems


@seeds(2, of=12)
def test_verified_is_what_the_exact_minimum_says(seeds: range) -> None:
    """Every margin is below the true one, what is unsafe stays open, and halves decide what one box does not."""
    for seed in seeds:
        problems, margins = crowd(seed)
        for result, true in zip(Crowd().verify_many(problems), margins, strict=True):
            if true <= 0:
                assert result.reason is Reason.INCOMPLETE
            elif true > 1e-3:  # there is more between them than a bound that is exact
                assert result.verdict is Verdict.VERIFIED
                assert result.margin is not None
                assert 0 < result.margin <= true


@seeds(3, of=12)
def test_graphs_against_samples(seeds: range) -> None:
    """Networks of all kinds of operations: no sampled point is unsafe where all boxes were closed."""
    problems = [problem for seed in seeds for problem in graphs(seed)]
    for problem, result in zip(problems, Crowd().verify_many(problems), strict=True):
        if result.verdict is Verdict.VERIFIED:
            box = problem.region.box()
            y = problem.network(members(box.lower, box.upper, 500))
            assert result.margin is not None
            assert problem.spec.margin(problem.spec.rows(y)).min() >= result.margin - 1e-9


def test_halves_are_all_of_a_box() -> None:
    whole = Box(torch.tensor([0.0, -1.0, 2.0]), torch.tensor([1.0, 3.0, 2.0]))
    first, second = halved(whole, whole)
    third, fourth = halved(first, whole)
    assert [first.upper[0], second.lower[0]] == [0.5, 0.5]
    assert [third.upper[1], fourth.lower[1]] == [1.0, 1.0]
    assert first.upper[1:].equal(whole.upper[1:])
    assert second.lower[1:].equal(whole.lower[1:])
    point = Box(torch.ones(2), torch.ones(2))
    assert halved(point, point) == []
    edge = torch.tensor([1.0], dtype=torch.float64)
    assert halved(Box(edge, edge.nextafter(2 * edge)), whole.map(lambda t: t[:1])) == []


def test_what_is_not_decided_says_why() -> None:
    problems, _ = crowd(0)
    empty = problems[0].with_parts(region=Box(torch.ones(2), torch.zeros(2)))
    results = Crowd().verify_many([*problems, empty], Budget(0.0))
    assert [result.reason for result in results] == [Reason.TIMEOUT] * 4 + [Reason.VACUOUS]
    assert Crowd().verify_many([]) == []
    assert Crowd(max_inputs=1).verify(problems[1]).reason is Reason.UNSUPPORTED
    ball = problems[0].with_parts(region=LpBall(torch.zeros(2), 0.1, 2))
    assert "no box" in str(Crowd().supports(ball))


def test_auto_asks_for_a_crowd_alone() -> None:
    """The parts of a property are halved together where they are many; fewer are searched one by one."""
    problems, margins = crowd(0)
    hard = next(p for p, true in zip(problems, margins, strict=True) if true > 1e-3)
    for count in (CROWD - 1, CROWD):
        for result in Auto().verify_many([hard] * count, Budget(20)):
            assert result.verdict is Verdict.VERIFIED
            assert (repr(Crowd()) in result.stats["stages"]) is (count == CROWD)


def test_an_unsafe_problem_is_given_up_and_the_others_are_not() -> None:
    problems, _ = crowd(1)
    unsafe = problems[0].with_parts(spec=below(1e3))
    together = Crowd().verify_many([unsafe, *problems])
    assert together[0].verdict is Verdict.UNKNOWN
    assert together[0].stats["boxes"] < 1000
    assert [r.verdict for r in together[1:]] == [r.verdict for r in Crowd().verify_many(problems)]
