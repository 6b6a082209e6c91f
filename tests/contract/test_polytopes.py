"""Polytopes: every method and every attack either keeps to the constraints between inputs or declines, and what is
exact agrees with enumeration in rational arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import islice
from math import inf

import pytest
import torch

from assay.attacks import get_attack
from assay.attacks.registry import ATTACKS
from assay.verify.backends.smt import method
from assay.verify.backends.smt.question import Question
from assay.verify.check.replay import replay
from assay.verify.core.budget import Budget
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network, to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, Polytope
from assay.verify.core.result import Reason, Verdict
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.programs import encode
from assay.verify.programs.program import Draft, Index, Vector
from assay.verify.registry import get_bounder, get_verifier, list_verifiers
from assay.verify.solving.stages import decide
from tests import exact, nets
from tests.breadth import few, seeds
from tests.contract.graphs import eye
from tests.polytopes import random_polytope, unit_box

CLOSE = 2e-6  # how well the truth is known
EXACT = ["milp", "lp-bab", "smt", "input-split"]
OPTIMA = ["milp(optimum=True)", "lp-bab(optimum=True)", "smt(optimum=True)"]
BOUNDERS = ["ibp", "crown-ibp", "crown", "crown(dtype=float32)", "alpha-crown", "lp", "lp(tighten=all)"]
EVERY = [name for name in list_verifiers() if not name.startswith(("smoothing", "layer-", "derandomized", "auto"))]


@cache
def made(seed: int, room: float = 0.02) -> Problem:
    """A tiny network over a polytope, with a claim whose margin is 0.3 or -0.3."""
    network = to_network(nets.random_mlp(seed, (3, 4, 4, 2)), (3,))
    A = 5 * torch.randn(1 + seed % 2, 2, generator=nets.generator(seed + 1), dtype=torch.float64)
    b = torch.zeros(len(A), dtype=torch.float64)
    x = torch.rand(2000, 3, generator=nets.generator(seed), dtype=torch.float64).round(decimals=1)
    lowest = x[(network(x) @ A.T).amax(1).argmin()]  # where the margin is least over all of the box
    polytope = random_polytope(*unit_box(3), seed, rows=1 + seed % 3, room=room, away=lowest)
    least = exact.least_of_largest(network, polytope, A, b)
    claim = least - (0.3 if seed % 4 < 2 else -0.3)
    return Problem(network, polytope, Spec((Polyhedron(A, b + claim, torch.zeros_like(b, dtype=torch.bool)),)))


@cache
def truth(seed: int) -> float:
    """The true margin of ``made(seed)``."""
    return exact.true_margin(made(seed))


def over_box(problem: Problem) -> float:
    """The true margin when the constraints are forgotten."""
    assert isinstance(problem.region, Polytope)
    return exact.true_margin(Problem(problem.network, problem.region.within, problem.spec))


@pytest.mark.parametrize("name", EXACT)
@seeds(5, of=18)
def test_exact_methods_agree_with_enumeration(name: str, seeds: range) -> None:
    for seed in seeds:
        problem = made(seed)
        true = truth(seed)
        result = get_verifier(name).verify(problem, Budget(60))
        assert result.verdict is (Verdict.VERIFIED if true > 0 else Verdict.FALSIFIED), (seed, result.reason)
        assert result.margin is None or result.margin <= true + CLOSE
        if result.counterexample is not None:
            assert replay(problem, result.counterexample).confirmed


@pytest.mark.parametrize("name", OPTIMA)
@seeds(4, of=11)
def test_optima_are_those_of_enumeration(name: str, seeds: range) -> None:
    for seed in seeds:
        problem = made(seed)
        result = get_verifier(name).verify(problem, Budget(60))
        assert result.stats["optimum"] == pytest.approx(truth(seed), abs=CLOSE), seed


@pytest.mark.parametrize("name", few(EVERY, [n for n in EVERY if n not in ("lipsdp", "sdp")]))
@seeds(2, of=9)
def test_no_method_verifies_what_is_false_or_claims_too_much(name: str, seeds: range) -> None:
    """Margins within 0.01 of the truth on either side; a method that does not keep to the constraints says so, or
    bounds all of the box."""
    for seed in seeds:
        problem = made(seed)
        true, disjunct = truth(seed), problem.spec.disjuncts[0]
        for gap in (0.01, -0.01):
            spec = Spec((Polyhedron(disjunct.A, disjunct.b + (true - gap), disjunct.strict),))
            asked = Problem(problem.network, problem.region, spec)
            result = get_verifier(name).verify(asked, Budget(20))
            assert result.verdict is not (Verdict.VERIFIED if gap < 0 else Verdict.FALSIFIED), (seed, gap)
            assert result.margin is None or result.margin <= gap + CLOSE
            if result.reason is Reason.UNSUPPORTED:
                assert result.stats["explanation"]


@pytest.mark.parametrize("name", BOUNDERS)
@seeds(6, of=18)
def test_bounds_hold_at_members_and_are_no_worse_than_over_the_box(name: str, seeds: range) -> None:
    tighter = 0
    for seed in seeds:
        network = to_network(nets.random_mlp(seed, (4, 8, 8, 3)), (4,))
        polytope = random_polytope(*unit_box(4), seed, rows=2)
        bounds = get_bounder(name).bound(network, polytope, eye(network), Budget())
        wide = get_bounder(name).bound(network, polytope.within, eye(network), Budget())
        x = polytope.sample(400, nets.generator(seed)).double()
        x = x[polytope.contains(x)]
        assert len(x) > 100
        y = network(x).flatten(1)
        slack = 1e-9 * (1 + y.abs().amax())
        assert bool((bounds.lower <= y + slack).all())
        assert bool((y <= bounds.upper + slack).all())
        if "crown" not in name:  # whose slopes adapt: the bounds of a part may be worse
            assert bool((bounds.lower >= wide.lower - 1e-6).all())
        tighter += bool((bounds.lower > wide.lower + 1e-3).any())
    assert tighter >= len(seeds) // 5


def batch_of(polytope: Polytope, count: int) -> Polytope:
    lower = polytope.within.lower.repeat(count, 1)
    upper = polytope.within.upper - 0.05 * torch.arange(count).view(-1, 1)
    return Polytope(Box(lower, torch.maximum(upper, lower)), polytope.A, polytope.b)


@pytest.mark.parametrize("name", ["ibp", "crown", "alpha-crown"])
def test_a_batch_gives_what_its_samples_give_alone(name: str) -> None:
    network = to_network(nets.random_mlp(5, (4, 8, 8, 3)), (4,))
    batch = batch_of(random_polytope(*unit_box(4), 5), 3)
    together = get_bounder(name).bound(network, batch, eye(network), Budget())
    for i in range(3):
        alone = get_bounder(name).bound(network, batch.take(slice(i, i + 1)), eye(network), Budget())
        torch.testing.assert_close(together.lower[i : i + 1], alone.lower, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", list(ATTACKS))
@seeds(1, of=3, start=2)  # a false claim, which attacks that find it are done with soon
def test_attacks_stay_within_the_constraints_or_decline(name: str, seeds: range) -> None:
    for seed in seeds:
        problem = made(seed)
        try:
            found = get_attack(name).search([problem])
        except UnsupportedError:
            continue
        assert bool(problem.region.contains(found.adversarial).all())
        if bool(found.success):
            assert truth(seed) <= CLOSE
            assert replay(problem, found.adversarial[0]).confirmed


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd", "square", "fab", "random", "grid"])
def test_attacks_of_labels_take_polytopes(name: str) -> None:
    model = nets.random_mlp(1, (4, 8, 8, 3))
    polytope = random_polytope(*unit_box(4), 1)
    x = polytope.sample(6, nets.generator(0))
    with torch.no_grad():
        found = get_attack(name).run(model, x, model(x).argmax(1), polytope)
    assert bool(polytope.contains(found.adversarial).all())


@pytest.mark.slow
def test_gradient_attacks_find_what_is_there() -> None:
    found = 0
    for seed in (2, 3, 6, 7, 10, 11):  # false claims, by 0.3
        problem = made(seed)
        found += bool(get_attack("pgd(steps=50,restarts=5)").search([problem]).success)
    assert found >= 4


@pytest.mark.parametrize("name", EVERY)
def test_an_empty_polytope_is_vacuous(name: str) -> None:
    network = to_network(nets.random_mlp(0, (3, 4, 2)), (3,))
    lower, upper = unit_box(3)
    # No single row rules out a point of the box, nor do intervals: only both rows together.
    A = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
    empty = Polytope(Box(lower, upper), A, torch.tensor([1.5, -1.5009765625]))
    result = get_verifier(name).verify(Problem(network, empty, Spec.halfspaces([[1.0, 0.0]], [-1e6])), Budget())
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.VACUOUS)
    assert result.stats["explanation"] == "the region is empty"


@pytest.mark.parametrize("name", ["ibp", "crown", "alpha-crown", "lp", "milp", "lp-bab", "input-split", "auto"])
def test_strict_constraints_decide_where_the_margin_is_zero(name: str) -> None:
    """y = x and x_0 > x_1: y_1 >= y_0 is out of reach, and only just; where x_0 >= x_1 it is not."""
    identity: Network = to_network(nets.weighted([([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])], torch.float32), (2,))
    lower, upper = unit_box(2)
    spec = Spec.halfspaces([[1.0, -1.0]], [0.0])
    for strict, verdict in ((True, Verdict.VERIFIED), (False, Verdict.FALSIFIED)):
        polytope = Polytope(Box(lower, upper), [[-1.0, 1.0]], [0.0], [strict])
        (result,) = decide(get_verifier(name), [Problem(identity, polytope, spec)], Budget(60))
        if strict:
            assert result.verdict is verdict
        else:
            assert result.verdict in (verdict, Verdict.UNKNOWN)
            assert result.verdict is verdict or name in ("ibp", "crown", "alpha-crown", "lp", "input-split", "lp-bab")


def without_rows(*arguments: object) -> None:
    """Constraints are left out of programs."""


def turned_round(draft: Draft, x: Index, A: Vector, b: Vector, fixed: Vector) -> None:
    constraints(draft, x, -A, b, fixed)


def first_alone(draft: Draft, x: Index, A: Vector, b: Vector, fixed: Vector) -> None:
    constraints(draft, x, A[:1], b[:1], fixed)


constraints = encode._constraints


@pytest.mark.parametrize("fault", [without_rows, turned_round, first_alone])
def test_faults_in_programs_are_noticed(fault: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The least margin is another one than that of enumeration, or there is none."""
    monkeypatch.setattr(encode, "_constraints", fault)

    def noticed(seed: int) -> bool:
        result = get_verifier("milp(optimum=True)").verify(made(seed), Budget(60))
        return abs(result.stats.get("optimum", inf) - truth(seed)) > CLOSE or result.verdict is Verdict.UNKNOWN

    assert len([*islice(filter(noticed, (4, 5, 8, 10, 11)), 2)]) == 2


def test_a_question_without_its_limits_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Question, "within", lambda self, point: True)
    monkeypatch.setattr(method, "encode", lambda *arguments: original(*arguments[:4]))

    def noticed(seed: int) -> bool:
        result = get_verifier("smt(optimum=True)").verify(made(seed), Budget(60))
        return abs(result.stats.get("optimum", inf) - truth(seed)) > CLOSE

    assert len([*islice(filter(noticed, (4, 5, 8, 10, 11)), 2)]) == 2


original = method.encode


def test_forgetting_the_constraints_would_be_noticed() -> None:
    """Over the box margins are less by more than what the claims of these tests leave."""
    assert sum(over_box(made(seed)) < truth(seed) - 0.02 for seed in range(8)) >= 4
