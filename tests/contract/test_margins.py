"""Every margin that is reported holds in the reals, tolerance 0, whatever the right-hand sides; strict rows count."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from math import inf, nextafter

import pytest
import torch
from torch import Tensor

from assay.verify.bounds import touching
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import LeakyRelu, Linear, Op, Relu
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Verdict
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.registry import get_verifier
from assay.verify.solving import stages
from tests import exact, nets
from tests.breadth import few, seeds
from tests.contract.graphs import random_box, random_graph

METHODS = ("ibp", "crown", "crown-ibp", "alpha-crown", "lp", "lp(tighten=all)", "milp", "milp(optimum=true)", "lp-bab")
METHODS += ("lp-bab(optimum=true)", "bab", "input-split", "smt", "lipschitz", "sdp", "lirpa")
BOUNDS = ("ibp", "crown", "crown-ibp", "alpha-crown", "lp", "milp", "lp-bab", "bab", "input-split", "smt", "sdp")


BRIEF = Budget(0.3)  # splitting goes on for as long as there is time where nothing can be proved


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def unsafe(A: list[list[float]], b: list[float], strict: bool) -> Polyhedron:
    sides = vector(*b)
    return Polyhedron(torch.tensor(A, dtype=torch.float64), sides, torch.full_like(sides, strict, dtype=torch.bool))


@cache
def questions(seed: int) -> list[tuple[Problem, Fraction]]:
    """Two rows as two disjuncts and as one, with right-hand sides of all sizes, and what no margin exceeds."""
    network = to_network(nets.random_mlp(seed, (2, 4, 2)), (2,))
    rng = nets.generator(seed)
    lower = torch.rand(2, dtype=torch.float64, generator=rng)
    box, made = Box(lower, lower + 0.3), []
    for scale in (1.0, 1e3, 1e8, 1e15):
        A = torch.randn(2, 2, dtype=torch.float64, generator=rng)
        b = -scale * torch.rand(2, dtype=torch.float64, generator=rng) - 3
        disjuncts = [Polyhedron(A[i : i + 1], b[i : i + 1], torch.zeros(1, dtype=torch.bool)) for i in range(2)]
        for spec in (Spec(tuple(disjuncts)), Spec((Polyhedron(A, b, torch.zeros(2, dtype=torch.bool)),))):
            least = min(exact.bracket(network, box, d.A, d.b)[1] for d in spec.disjuncts)
            made.append((Problem(network, box, spec), least))
    return made


@pytest.mark.parametrize("method", METHODS)
@seeds(1, of=3)
def test_no_margin_exceeds_the_true_minimum_where_right_hand_sides_are_large(method: str, seeds: range) -> None:
    verifier = get_verifier(method)
    for seed in seeds:
        for problem, least in questions(seed):
            if verifier.supports(problem) is None:
                margin = verifier.verify(problem, Budget(20)).margin
                assert margin is None or margin <= least, (seed, float(margin - least))


ONE = Linear(vector(1.0)[None], vector(0.0))
ABOUT_ZERO = Box(vector(-1.0), vector(1.0))
BELOW_ZERO = [[1.0]], [0.0]


def network_of(*ops: Op) -> Network:
    return replace(chain((1,), ops), dtype=torch.float64)


ODD = Linear(torch.tensor([[0.1], [-0.3]], dtype=torch.float64), vector(-0.2, -0.7))
TOUCHED = {
    "relu": (network_of(ONE, Relu()), ABOUT_ZERO, *BELOW_ZERO),
    "sum of relus": (network_of(ODD, Relu(), Linear(vector(2.1, 3.3)[None], vector(0.0))), ABOUT_ZERO, *BELOW_ZERO),
    "tie": (network_of(Linear(vector(0.1, 0.1)[:, None], vector(0.3, 0.3))), ABOUT_ZERO, [[1.0, -1.0]], [0.0]),
    "constant": (network_of(Linear(vector(0.0)[None], vector(0.1))), ABOUT_ZERO, [[1.0]], [0.1]),
    "no output": (network_of(ONE), ABOUT_ZERO, [[0.0]], [0.0]),
    "identity": (network_of(ONE), Box(vector(0.1), vector(1.0)), [[1.0]], [0.1]),
    "scaled": (network_of(ONE, Relu()), ABOUT_ZERO, [[1e-300]], [0.0]),
}


@pytest.mark.parametrize("method", BOUNDS)
@pytest.mark.parametrize("name", few(TOUCHED, quick=["tie", "identity"]))
def test_a_strict_unsafe_set_that_is_only_touched_is_not_met(name: str, method: str) -> None:
    network, box, A, b = TOUCHED[name]
    strict, closed = (Problem(network, box, Spec((unsafe(A, b, s),))) for s in (True, False))
    (safe,) = stages.decide(get_verifier(method), [strict], Budget())
    assert (safe.verdict, safe.margin) == (Verdict.VERIFIED, 0.0)
    assert get_verifier(method).verify(closed, BRIEF).verdict is not Verdict.VERIFIED


@pytest.mark.parametrize("method", BOUNDS)
@pytest.mark.parametrize("depth", [5e-324, 1e-300, 1e-100, 1e-17])
def test_a_strict_unsafe_set_that_is_entered_by_next_to_nothing_is_not_verified(method: str, depth: float) -> None:
    inside = Box(vector(-depth), vector(1.0))
    below = network_of(ONE), inside, *BELOW_ZERO
    nearly = network_of(Linear(vector(1.0, 1.0)[:, None], vector(0.0, depth))), ABOUT_ZERO, [[1.0, -1.0]], [0.0]
    shifted = network_of(ONE, Relu(), Linear(vector(1.0)[None], vector(-depth))), ABOUT_ZERO, *BELOW_ZERO
    for network, box, A, b in (below, nearly, shifted):
        problem = Problem(network, box, Spec((unsafe(A, b, True),)))
        assert get_verifier(method).verify(problem, BRIEF).verdict is not Verdict.VERIFIED


def test_a_row_that_is_not_strict_does_not_hide_behind_one_that_is() -> None:
    """y0 = relu(x), y1 = -relu(x): y0 < 0 is never met, y1 >= 0 is, at x = 0."""
    two = Linear(vector(1.0, -1.0)[:, None], vector(0.0, 0.0))
    network = network_of(ONE, Relu(), two)
    below, closed = unsafe([[1.0, 0.0]], [0.0], True), unsafe([[0.0, -1.0]], [0.0], False)
    both = Polyhedron(torch.cat([below.A, closed.A]), torch.cat([below.b, closed.b]), torch.tensor([True, False]))
    verdicts = [
        get_verifier("crown").verify(Problem(network, ABOUT_ZERO, Spec(disjuncts)), Budget()).verdict
        for disjuncts in ((below,), (closed,), (both,), (below, closed), (below, below))
    ]
    yes, no = Verdict.VERIFIED, Verdict.UNKNOWN
    assert verdicts == [yes, no, yes, no, yes]


@seeds(12, of=20)
def test_bounds_without_rounding_hold_and_are_attained(seeds: range) -> None:
    """On random graphs they are below the exact values at points; where nothing is bent they are the least value."""
    for seed in seeds:
        network = random_graph(seed, image=seed % 2 == 0, neurons=6, steps=6, more=seed % 3 == 0)
        box = Box(*random_box(network, seed))
        A = torch.randn(2, network.output_size, dtype=torch.float64, generator=nets.generator(seed))
        b = torch.randn(2, dtype=torch.float64, generator=nets.generator(seed + 1))
        strict = torch.ones(1, dtype=torch.bool)
        spec = Spec(tuple(Polyhedron(A[i : i + 1], b[i : i + 1], strict) for i in range(2)))
        problem = Problem(network, box, spec)
        lowest, box = touching.lower_rows(problem), problem.region.box()
        assert lowest is not None
        points = [box.lower, box.upper, box.centre]
        linear = not any(isinstance(node.op, (Relu, LeakyRelu)) for node in network.nodes)
        for i, (row, a, side) in enumerate(
            zip(lowest.rows.tolist(), exact.fractions(A), exact.fractions(b), strict=True)
        ):
            least = min(sum(a * exact.value(network, x)) - side for x in points)
            assert row <= least, seed
            if linear:
                true = exact.bracket(network, box, A[i : i + 1], b[i : i + 1])[0]
                assert row <= true < nextafter(row, inf), seed


def test_numbers_of_all_scales_are_exact() -> None:
    values = vector(5e-324, 1e-310, -1e-17, 0.0, 0.1, -3.0, 1e300)
    held = touching.Dyadic.of(values)
    assert held.down() == values.tolist()
    assert (held + touching.Dyadic.of(-values)).down() == [0.0] * 7
    assert (held * held).down()[:2] == [0.0, 0.0]
    assert (held * touching.Dyadic.of(-torch.ones_like(values))).down() == (-values).tolist()


def test_a_network_too_large_for_it_is_left_alone() -> None:
    big = chain((2000,), [Linear(torch.ones(2000, 2000), torch.zeros(2000)), Relu()])
    box = Box(torch.zeros(2000), torch.ones(2000))
    spec = Spec((unsafe([[1.0] + [0.0] * 1999], [0.0], True),))
    assert touching.lower_rows(Problem(big, box, spec)) is None
