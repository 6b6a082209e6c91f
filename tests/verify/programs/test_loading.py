"""Tests of verify.programs.loading and of every solver that is installed: they agree, and only claims are claims."""

from __future__ import annotations

import os
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.programs import loading
from assay.verify.programs.dual import safe_bounds
from assay.verify.programs.loading import SOLVERS, check_name, get_solver, listed, load, missing
from assay.verify.programs.program import Answer, Program, Status, Vector
from assay.verify.programs.start import Begin
from assay.verify.registry import get_verifier
from tests.verify.programs.cases import case
from tests.verify.programs.test_dual import random_program, solved

THROUGH_CVXPY = ("CLARABEL", "HIGHS", "OSQP", "SCIPY", "SCS", "SCIP", "GUROBI")
LINEAR = [s for s in ("highs", "scipy", *(f"cvxpy:{n}" for n in THROUGH_CVXPY)) if missing(s, integer=False) is None]
INTEGER = [
    s
    for s in ("highs", "scipy", "pulp:cbc", "pulp:highs", "scip", "gurobi", *(f"cvxpy:{n}" for n in THROUGH_CVXPY))
    if missing(s, integer=True) is None
]
FIRST_ORDER = ("cvxpy:OSQP", "cvxpy:SCS")  # far from the optimum, and often inaccurate by their own account


def knapsack(capacity: float = 7.5) -> Program:
    """Of weights 2, 3, 4, 5 worth 3, 4.5, 5, 6 take 7.5 in all: 3 and 4 are best, worth 9.5; and half a piece of 1."""
    matrix = sparse.csr_array(np.array([[2.0, 3.0, 4.0, 5.0, 1.0]]))
    upper = np.array([1.0, 1.0, 1.0, 1.0, 0.5])
    whole = np.array([True] * 4 + [False])
    cost = -np.array([3.0, 4.5, 5.0, 6.0, 0.5])
    return Program(matrix, np.array([-inf]), np.array([capacity]), np.zeros(5), upper, whole, cost, 1.0)


def test_the_solvers_that_always_come_along_are_here() -> None:
    assert {"highs", "scipy", "cvxpy:CLARABEL", "cvxpy:HIGHS"} <= set(LINEAR)
    assert {"highs", "scipy", "pulp:cbc", "pulp:highs", "cvxpy:HIGHS"} <= set(INTEGER)


@pytest.mark.parametrize("name", LINEAR)
def test_linear_programs(name: str) -> None:
    """Optima, and duals that prove them whatever the status says."""
    for seed in range(6):
        program = random_program(seed)
        optimum, _ = solved(program)
        answer = load(get_solver(name), program).solve()
        assert answer.duals is not None
        bound = safe_bounds(program, answer.duals[None]).bound.item()
        assert bound <= optimum + 1e-9 * (1 + abs(optimum))
        if name in FIRST_ORDER:
            continue
        assert answer.status is Status.OPTIMAL
        assert answer.value == pytest.approx(optimum, abs=1e-5)
        assert bound == pytest.approx(optimum, abs=1e-5)


@pytest.mark.parametrize("name", LINEAR)
def test_one_cost_after_another(name: str) -> None:
    program = random_program(11)
    loaded = load(get_solver(name), program)
    for seed in range(4):
        cost = np.random.default_rng(seed).normal(size=8)
        optimum, _ = solved(replace(program, cost=cost, offset=2.0))
        answer = loaded.solve(cost, 2.0)
        assert answer.duals is not None
        bound = safe_bounds(program, answer.duals[None], cost, 2.0).bound.item()
        assert bound <= optimum + 1e-9 * (1 + abs(optimum))
        assert name in FIRST_ORDER or bound == pytest.approx(optimum, abs=1e-5)


def test_no_instance_of_highs_is_heard(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """From 1.16 on it prints a banner when it is made, before it can be told not to."""
    import highspy

    made: list[Any] = []

    class Greeting(highspy.Highs):  # type: ignore[misc]
        def __init__(self) -> None:
            os.write(1, b"Running HiGHS")
            made.append(self)
            super().__init__()  # type: ignore[no-untyped-call]

    monkeypatch.setattr(highspy, "Highs", Greeting)
    assert load(get_solver("highs"), knapsack()).solve().status is Status.OPTIMAL
    assert load(get_solver("highs"), random_program(0)).solve().status is Status.OPTIMAL
    problem, _ = case("mlp", 0)
    assert get_verifier("lp-bab(optimum=True,steps=0)").verify(problem, Budget()).margin is not None
    assert len(made) == 3
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", INTEGER)
def test_integer_programs(name: str) -> None:
    answer = load(get_solver(name), knapsack()).solve()
    assert answer.status is Status.OPTIMAL
    assert answer.value == pytest.approx(1 - 9.5 - 0.25, abs=1e-6)
    assert answer.bound <= answer.value + 1e-9
    assert answer.duals is None
    assert answer.x is not None
    assert answer.x == pytest.approx([0, 1, 1, 0, 0.5], abs=1e-6)


@pytest.mark.parametrize("name", INTEGER)
def test_no_point_is_infeasible(name: str) -> None:
    impossible = replace(knapsack(), row_lower=np.array([15.0]), row_upper=np.array([inf]))
    answer = load(get_solver(name), impossible).solve()
    assert (answer.status, answer.x) == (Status.INFEASIBLE, None)


@pytest.mark.parametrize("name", sorted({*LINEAR, *INTEGER} - set(FIRST_ORDER)))
def test_a_column_that_occurs_nowhere_has_a_value(name: str) -> None:
    program = knapsack() if name in INTEGER else knapsack().relaxed()
    wide = replace(
        program,
        matrix=sparse.csr_array((program.matrix.data, program.matrix.indices, program.matrix.indptr), shape=(1, 6)),
        lower=np.append(program.lower, 2.0),
        upper=np.append(program.upper, 3.0),
        integer=np.append(program.integer, False),
        cost=np.append(program.cost, 0.0),
    )
    answer = load(get_solver(name), wide).solve()
    assert answer.x is not None
    assert 2 - 1e-6 <= answer.x[-1] <= 3 + 1e-6


def hard(seed: int = 0, size: int = 60) -> Program:
    """Market split (Cornuejols, Dawande 1998): rows of equalities with large coefficients, hopeless in little time."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 100, (6, size)).astype(float)
    slack = np.hstack([weights, np.eye(6), -np.eye(6)])
    cost = np.concatenate([np.zeros(size), np.ones(12)])
    upper = np.concatenate([np.ones(size), np.full(12, 1e4)])
    whole = np.concatenate([np.ones(size, dtype=bool), np.zeros(12, dtype=bool)])
    side = np.floor(weights.sum(1) / 2)
    return Program(sparse.csr_array(slack), side, side, np.zeros(size + 12), upper, whole, cost)


@pytest.mark.parametrize("name", INTEGER)
def test_time_is_kept_and_makes_no_claim(name: str) -> None:
    answer = load(get_solver(name), hard()).solve(seconds=0.3)
    assert answer.status is Status.TIMEOUT
    assert load(get_solver(name), hard()).solve(seconds=0.0).status in (Status.TIMEOUT, Status.FAILED)


@pytest.mark.parametrize("name", ["highs", "scip", "gurobi"])
def test_a_target_ends_the_search(name: str) -> None:
    if name not in INTEGER:
        pytest.skip("not installed")
    answer = load(get_solver(name), hard()).solve(seconds=20.0, target=2000.0)
    assert answer.status is Status.TARGET
    assert answer.value <= 2000


def test_highs_runs_in_another_number_of_threads() -> None:
    for threads in (1, 2, 1):
        assert load(get_solver("highs"), knapsack(), threads=threads).solve().status is Status.OPTIMAL


def test_numbers_that_highs_refuses_are_a_failure() -> None:
    program = random_program(0)
    program.matrix.data[0] = np.inf
    assert load(get_solver("highs"), program).solve().status is not Status.OPTIMAL


class Pointless:
    """A solver that claims an optimum and shows none."""

    tolerance = 1e-9
    punctual = True
    drops = 1e-9

    def load(self, program: Program, threads: int, seed: int) -> Pointless:
        return self

    def solve(self, cost: Vector, seconds: float, target: float, begin: Begin) -> Answer:
        return Answer(Status.OPTIMAL, value=-1.0)


def test_an_optimum_without_a_point_is_a_failure() -> None:
    assert load(Pointless(), knapsack()).solve().status is Status.FAILED


@pytest.mark.parametrize(
    ("text", "integer", "words"),
    [
        ("higs", True, ["higs", "did you mean 'highs'"]),
        ("pulp:cbc", False, ["pulp:cbc", "cvxpy, highs, scipy"]),
        ("gurobi", False, ["gurobi"]),
        ("cvxpy", False, ["cvxpy:NAME"]),
        ("pulp", True, ["pulp:cbc or pulp:highs"]),
        ("pulp:glpk", True, ["pulp:cbc or pulp:highs", "glpk"]),
        ("highs:ipm", True, ["highs:ipm"]),
        ("", True, ["solver"]),
    ],
)
def test_names_that_are_none(text: str, integer: bool, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        check_name(text, integer)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_what_is_missing_is_told_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None if name == "gurobipy" else object())
    why = missing("gurobi", integer=True)
    assert why is not None
    assert "pip install gurobipy" in why
    (entry,) = (e for e in listed() if e["name"] == "gurobi")
    assert entry == {"name": "gurobi", "methods": ["milp"], "missing": "pip install gurobipy"}
    assert [e["missing"] for e in listed() if e["name"] != "gurobi"] == [None] * (len(SOLVERS) - 1)


def test_solvers_behind_cvxpy_are_looked_for() -> None:
    why = missing("cvxpy:NOBODY", integer=False)
    assert why is not None
    assert "NOBODY" in why
    assert "CLARABEL" in why
    why = missing("cvxpy:CLARABEL", integer=True)
    assert why is not None
    assert "HIGHS" in why
