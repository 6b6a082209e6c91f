"""What is exact agrees with all else that is exact: with enumeration in rational arithmetic, on verdicts and optima."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
import torch

from assay.attacks import get_attack
from assay.verify.backends.bab.neurons.compact import unsplit
from assay.verify.check.replay import replay
from assay.verify.core.budget import Budget
from assay.verify.core.problem import Problem
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.programs.encode import encode
from assay.verify.programs.loading import get_solver, load
from assay.verify.programs.program import Status
from assay.verify.programs.relaxation import Relaxation, known
from assay.verify.registry import get_verifier, list_verifiers
from tests import nets
from tests.breadth import seeds
from tests.verify.programs.cases import case
from tests.verify.programs.test_loading import INTEGER

CLOSE = 1e-6  # nearer to 0 than this a method may leave a problem open; optima differ by no more
KINDS = ("mlp", "conv", "residual", "skips", "pooled")
SOLVERS = [name for name in INTEGER if name not in ("highs", "scipy", "cvxpy:SCIPY")]  # the others are too coarse
EXACT = [name for name in ("milp", "lp-bab", "bab", "smt") if name in list_verifiers()]
OPTIMISERS = [name for name in EXACT if name in ("milp", "lp-bab")]  # find the least margin itself
PROVERS = [*EXACT, *(f"milp(solver={name})" for name in INTEGER), "lp", "lp(tighten=all)"]
FEW = 8  # unstable neurons that SMT is asked about

every_kind = pytest.mark.parametrize("kind", KINDS)
each = seeds(4, of=10, start=1000)  # of every kind: 100 networks and boxes


def supported(name: str, problem: Problem) -> bool:
    """Max and many unstable neurons are not for everyone; what ``bab`` splits at points may go on for long."""
    if name == "bab" and unsplit(problem.network) is not None:
        return False
    few = not name.startswith("smt") or unstable(problem) <= FEW
    return few and get_verifier(name).supports(problem) is None


def unstable(problem: Problem) -> int:
    with torch.no_grad():
        bounded = known(problem.network, problem.region, problem.spec.A, Budget())
        return int(encode(problem.network, problem.region, bounded.bounds, exact=True).draft.program().integer.sum())


def agrees(result: Result, problem: Problem, true: float) -> None:
    """The verdict is the true one, unless the margin is next to nothing; counterexamples replay."""
    if abs(true) < CLOSE and result.verdict is Verdict.UNKNOWN:
        assert result.reason is Reason.NUMERICAL
    else:
        assert result.verdict is (Verdict.VERIFIED if true > 0 else Verdict.FALSIFIED)
    assert result.margin is None or result.margin <= true + 1e-7 * (1 + abs(true))
    if result.verdict is Verdict.FALSIFIED:
        assert result.counterexample is not None
        assert replay(problem, result.counterexample).confirmed


def optimal(result: Result, problem: Problem, true: float) -> None:
    """The least margin is the true one, and lies where it is said to be."""
    assert result.margin == pytest.approx(true, abs=CLOSE)
    assert result.stats["optimum"] == pytest.approx(true, abs=CLOSE)
    at = result.stats["minimiser"][None].double()
    assert bool(problem.region.contains(at).all())
    assert problem.spec.margin(problem.spec.rows(problem.network(at).flatten(1))).item() == pytest.approx(
        true, abs=CLOSE
    )


@every_kind
@each
@pytest.mark.parametrize("name", EXACT)
def test_verdicts_are_those_of_enumeration(name: str, kind: str, seeds: range) -> None:
    asked = 0
    for problem, true in (case(kind, seed) for seed in seeds):
        if supported(name, problem):
            agrees(get_verifier(name).verify(problem, Budget()), problem, true)
            asked += 1
    assert asked >= 0.6 * len(seeds) or (kind == "pooled" and name in ("lp-bab", "bab"))


@every_kind
@each
@pytest.mark.parametrize("name", [f"{m}(optimum=True,steps=0)" for m in OPTIMISERS])
def test_optima_are_those_of_enumeration(name: str, kind: str, seeds: range) -> None:
    for problem, true in (case(kind, seed) for seed in seeds):
        if supported(name, problem):
            result = get_verifier(name).verify(problem, Budget())
            agrees(result, problem, true)
            optimal(result, problem, true)


@every_kind
@seeds(3, of=7, start=1000)
@pytest.mark.parametrize("name", [f"milp(solver={s},optimum=True,steps=0)" for s in SOLVERS] + ["smt(optimum=True)"])
def test_every_solver_finds_the_optimum(name: str, kind: str, seeds: range) -> None:
    chosen = [p for p in (case(kind, seed) for seed in seeds) if supported(name, p[0])][:4]
    assert chosen
    for problem, true in chosen:
        result = get_verifier(name).verify(problem, Budget())
        agrees(result, problem, true)
        optimal(result, problem, true)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("gap", [1e-9, -1e-9, 0.0])
@seeds(3, of=6, start=1000)
def test_what_rounding_decides_is_never_verified_wrongly(name: str, gap: float, seeds: range) -> None:
    """Margins of 1e-9, within or without the tolerances of solvers."""
    for problem, true in (case("mlp", seed) for seed in seeds):
        moved = tuple(Polyhedron(d.A, d.b + (true - gap), d.strict) for d in problem.spec.disjuncts)
        close = Problem(problem.network, problem.region, Spec(moved))
        result = get_verifier(name).verify(close, Budget())
        if gap <= 0:
            assert result.verdict is not Verdict.VERIFIED or result.guarantee == "rigorous"
        if result.counterexample is not None:
            assert replay(close, result.counterexample).confirmed


def attacked(problem: Problem) -> float:
    """The least margin that PGD finds."""
    points = get_attack("pgd(steps=20)").search([problem]).adversarial
    points = problem.region.project(points.double())
    return problem.spec.margin(problem.spec.rows(problem.network(points).flatten(1))).min().item()


@every_kind
@each
def test_relaxation_optimum_and_attack_are_in_order(kind: str, seeds: range) -> None:
    """Linear bounds <= linear programs <= integer programs <= points, all on one set of intermediate bounds."""
    loose = 0
    for problem, true in (case(kind, seed) for seed in seeds):
        attack = attacked(problem)
        least, relaxed, exact = inf, inf, inf
        with torch.no_grad():
            bounded = known(problem.network, problem.region, problem.spec.A, Budget())
            solver = get_solver("highs")
            relaxation = Relaxation(encode(problem.network, problem.region, bounded.bounds), solver, Budget())
            encoding = encode(problem.network, problem.region, bounded.bounds, exact=True)
        for crown, disjunct in zip(bounded.by_disjunct(problem.spec), problem.spec.disjuncts, strict=True):
            bound = relaxation.disjunct(disjunct.A, disjunct.b).bound
            answer = load(solver, encoding.disjunct(disjunct.A.numpy(), disjunct.b.numpy())).solve()
            assert answer.status is Status.OPTIMAL
            slack = 1e-8 * (1 + abs(answer.value))
            assert crown - slack <= bound <= answer.value + slack
            least, relaxed, exact = min(least, crown), min(relaxed, bound), min(exact, answer.value)
        assert least - 1e-8 <= relaxed <= exact + 1e-8
        assert exact == pytest.approx(true, abs=CLOSE)
        assert exact <= attack + CLOSE
        loose += least < relaxed - 1e-4 or relaxed < exact - 1e-4 or exact < attack - 1e-4
    assert loose > len(seeds) // 6


@pytest.mark.slow  # each time it is asked of solvers without a descent, and of methods without a solver of choice
@pytest.mark.parametrize("name", PROVERS)
@pytest.mark.parametrize("trap", nets.NEVER_VERIFIED)
@pytest.mark.parametrize(("B", "dtype"), [(2.0**25, torch.float32), (2.0**54, torch.float64)])
def test_false_claims_about_float_traps_are_never_verified(name: str, trap: str, B: float, dtype: torch.dtype) -> None:
    problem = nets.trap_problem(trap, B, dtype)
    result = get_verifier(name).verify(problem, Budget())
    assert result.verdict is not Verdict.VERIFIED
    assert result.margin is None or np.isnan(result.margin) or result.margin <= -0.5 + 1e-7
    if result.counterexample is not None:
        assert replay(problem, result.counterexample).confirmed


@pytest.mark.parametrize("name", EXACT)
def test_a_true_claim_about_a_float_trap_may_be_verified(name: str) -> None:
    result = get_verifier(name).verify(nets.trap_problem("N3"), Budget())
    assert result.verdict is Verdict.VERIFIED or result.reason is Reason.NUMERICAL
