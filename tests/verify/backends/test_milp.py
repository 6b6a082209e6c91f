"""Tests of verify.backends.milp: enumeration's verdicts and optima, by every solver, and no claim beyond tolerance."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from math import inf

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from assay.verify.backends import milp
from assay.verify.backends.milp import MILP
from assay.verify.check.replay import replay
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import Linear, Scale, Smooth
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.programs import loading
from assay.verify.programs.loading import get_solver, load
from assay.verify.programs.program import Answer, Program, Status, Vector
from assay.verify.programs.start import Begin
from assay.verify.registry import get_verifier
from tests import exact, nets
from tests.breadth import few, seeds
from tests.verify.programs.cases import KINDS, cases
from tests.verify.programs.test_encode import encoded
from tests.verify.programs.test_loading import INTEGER, hard

EVERY = range(25)
FINE = [s for s in INTEGER if s not in ("scipy", "cvxpy:SCIPY")]


def agrees(result: Result, problem: Problem, true: float) -> None:
    """The verdict is enumeration's; a counterexample replays."""
    assert result.verdict is (Verdict.VERIFIED if true > 0 else Verdict.FALSIFIED)
    assert result.margin is None or result.margin <= true + 1e-7 * (1 + abs(true))
    if result.counterexample is not None:
        assert replay(problem, result.counterexample).confirmed


@pytest.mark.parametrize("kind", KINDS)
@seeds(4, of=12)
def test_highs_agrees_with_enumeration(kind: str, seeds: range) -> None:
    programs = 0
    for problem, true in cases(kind, seeds):
        sign = get_verifier("milp").verify(problem, Budget(seed=1))
        agrees(sign, problem, true)
        result = get_verifier("milp(optimum=True,steps=0)").verify(problem, Budget())
        agrees(result, problem, true)
        assert result.margin == pytest.approx(true, abs=1e-6)
        assert result.stats["optimum"] == pytest.approx(true, abs=1e-6)
        at = problem.spec.margin(problem.spec.rows(problem.network(result.stats["minimiser"][None])))
        assert at.item() == pytest.approx(true, abs=1e-6)
        assert bool(problem.region.contains(result.stats["minimiser"][None]).all())
        programs += sign.stats["programs"] + result.stats["programs"]
    assert programs > len(seeds) // 3


@pytest.mark.parametrize("solver", [s for s in INTEGER if s != "highs"])
@pytest.mark.parametrize("kind", KINDS)
@seeds(2, of=6)
def test_every_solver_agrees_with_enumeration(kind: str, solver: str, seeds: range) -> None:
    for problem, true in cases(kind, seeds):
        result = get_verifier(f"milp(solver={solver},optimum=True,steps=0)").verify(problem, Budget())
        if solver in FINE:
            agrees(result, problem, true)
            assert result.margin == pytest.approx(true, abs=1e-6)
        else:  # a tolerance of 1e-6 leaves margins near 0 open, and optima as far below the truth as it may be worth
            assert result.margin is None or true - 1e-2 <= result.margin <= true + 1e-7 * (1 + abs(true))
            assert abs(true) < 1e-3 or result.verdict is (Verdict.VERIFIED if true > 0 else Verdict.FALSIFIED)
        sign = get_verifier(f"milp(solver={solver},steps=0)").verify(problem, Budget())
        assert sign.verdict is not (Verdict.FALSIFIED if true > 0 else Verdict.VERIFIED)
        assert solver not in FINE or sign.verdict is result.verdict


def least_over_l1(network: Network, ball: LpBall, row: Tensor) -> float:
    """Enumeration over the ball's box, with |x - c| = p + n that sum up to eps at most."""
    box, size = ball.box(), network.nodes[0].size
    box_bounds = zip(box.lower.flatten().tolist(), box.upper.flatten().tolist(), strict=True)
    both, bounds = np.eye(size), [*box_bounds, *[(0, None)] * (2 * size)]
    best = inf
    for piece in exact.pieces(network, box):
        output, conditions = piece.output.astype(float), piece.conditions.astype(float)
        cost = row.numpy() @ output
        above = np.hstack([conditions[:, 1:], np.zeros((len(conditions), 2 * size))])
        solution = linprog(
            np.concatenate([cost[1:], np.zeros(2 * size)]),
            A_ub=np.vstack([above, np.concatenate([np.zeros(size), np.ones(2 * size)])]),
            b_ub=np.append(-conditions[:, 0], float(ball.eps)),
            A_eq=np.hstack([both, -both, both]),
            b_eq=ball.centre.flatten().numpy(),
            bounds=bounds,
        )
        if solution.status == 0:
            best = min(best, float(solution.fun) + float(cost[0]))
    return best


@pytest.mark.parametrize("seed", few(range(6), quick=range(2)))
def test_balls_in_l1(seed: int) -> None:
    network = to_network(nets.random_mlp(seed, (4, 5, 4, 2)), (4,))
    ball = LpBall(torch.full((4,), 0.4), 0.5, 1, (0.0, 1.0))
    row = torch.tensor([1.0, -1.0], dtype=torch.float64)
    true = least_over_l1(network, ball, row)
    for shift in (-0.01, 0.01):
        problem = Problem(network, ball, Spec.halfspaces([row.tolist()], [true + shift]))
        result = get_verifier("milp(optimum=True)").verify(problem, Budget())
        assert result.margin == pytest.approx(-shift, abs=1e-6)
        agrees(get_verifier("milp").verify(problem, Budget()), problem, -shift)


# Traps.


@pytest.mark.parametrize("solver", INTEGER)
@pytest.mark.parametrize("trap", few(nets.NEVER_VERIFIED, quick=["N2", "N5c"]))
def test_float_traps_are_never_verified(solver: str, trap: str) -> None:
    for (B, dtype), optimum in product([(2.0**25, torch.float32), (2.0**54, torch.float64)], [False, True]):
        problem = nets.trap_problem(trap, B, dtype)
        result = MILP(solver=solver, optimum=optimum, steps=0).verify(problem, Budget())
        assert result.verdict is not Verdict.VERIFIED
        assert result.margin is None or result.margin <= -0.5 + 1e-7


@pytest.mark.parametrize("solver", FINE)
@pytest.mark.parametrize("trap", ["N5", "N5c"])
def test_coefficients_that_solvers_drop_are_not_dropped(solver: str, trap: str) -> None:
    """The program itself, without the points that are looked at beside it: the largest y is 1."""
    problem = nets.trap_problem(trap)
    encoding = encoded(problem.network, problem.region, exact=True)
    program = encoding.disjunct(problem.spec.A.numpy(), problem.spec.b.numpy())
    answer = load(get_solver(solver), program).solve()
    assert answer.value == pytest.approx(-0.5, abs=1e-6)
    assert load(get_solver(solver), program.limited(-0.4)).solve().status is Status.OPTIMAL


def test_a_true_claim_about_a_trap_is_verified() -> None:
    assert get_verifier("milp").verify(nets.trap_problem("N3"), Budget()).verdict is Verdict.VERIFIED


def test_scaled_neurons_change_nothing() -> None:
    """Powers of two from 2^-30 to 2^30 between the layers."""
    for problem, true in cases("mlp", range(8)):
        powers = 2.0 ** torch.linspace(-30, 30, 5).round().double()
        first = problem.network.nodes[1].op
        assert isinstance(first, Linear)
        size = len(first.bias)
        factor = powers[torch.arange(size) % 5]
        ops = [n.op for n in problem.network.nodes[1:]]
        ops[0] = Linear(first.weight * factor[:, None], first.bias * factor)
        ops.insert(2, Scale(1 / factor, torch.zeros(size, dtype=torch.float64)))
        scaled = chain(problem.network.input_shape, ops)
        again = replace(problem, network=scaled)
        result = get_verifier("milp(optimum=True,steps=0)").verify(again, Budget())
        assert result.margin == pytest.approx(true, abs=1e-6)


# Solvers that lie.


class Scripted:
    """A solver that answers as it is told."""

    tolerance = 1e-9
    punctual = True
    drops = 1e-9

    def __init__(self, status: Status, value: float = inf, bound: float = -inf, point: float | None = None) -> None:
        self.status, self.value, self.bound, self.point = status, value, bound, point

    def load(self, program: Program, threads: int, seed: int) -> Scripted:
        self.columns = program.matrix.shape[1]
        return self

    def solve(self, cost: Vector, seconds: float, target: float, begin: Begin) -> Answer:
        x = None if self.point is None else np.full(self.columns, self.point)
        return Answer(self.status, self.value, x, None, self.bound, message="told to")


def scripted(answer: Scripted, problem: Problem, monkeypatch: pytest.MonkeyPatch, optimum: bool = False) -> Result:
    real = milp.get_solver
    monkeypatch.setattr(milp, "get_solver", lambda name: answer if name == "scip" else real(name))
    monkeypatch.setattr(milp, "missing", lambda name, integer: None)
    return MILP(solver="scip", optimum=optimum, steps=0).verify(problem, Budget())


@cache
def open_problems() -> list[Problem]:
    """Falsifiable ones that neither the relaxation decides nor the points at its optimum."""
    near = [p for p, true in cases("mlp", EVERY) if -0.3 < true < 0]
    return [p for p in near if get_verifier("milp(steps=0)").verify(p, Budget()).stats["programs"]]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Scripted(Status.TIMEOUT, bound=1.0), Reason.TIMEOUT),
        (Scripted(Status.FAILED, bound=1.0), Reason.SOLVER),
        (Scripted(Status.OPTIMAL, 1.0, 1.0), Reason.SOLVER),  # without a point
        (Scripted(Status.OPTIMAL, 1.0, 1.0, 0.3), Reason.NUMERICAL),
        (Scripted(Status.OPTIMAL, float("nan"), float("nan"), 0.3), Reason.NUMERICAL),
        (Scripted(Status.TARGET, -1.0, -1.0, 0.3), Reason.NUMERICAL),
    ],
)
@pytest.mark.parametrize("optimum", [False, True])
def test_answers_that_prove_nothing(
    answer: Scripted, reason: Reason, optimum: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = open_problems()
    assert problems
    for problem in problems:
        result = scripted(answer, problem, monkeypatch, optimum)
        assert result.verdict is not Verdict.VERIFIED
        if result.verdict is Verdict.UNKNOWN:
            assert result.reason is reason
        assert result.margin is None or result.margin <= 0
        assert "optimum" not in result.stats


def test_an_infeasibility_that_a_point_refutes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The centre of the region is a counterexample in the reals, but not to the model in float32."""
    problem = nets.trap_problem("N2")
    for optimum in (False, True):
        result = scripted(Scripted(Status.INFEASIBLE), problem, monkeypatch, optimum)
        assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.NUMERICAL)


def test_a_claim_within_tolerance_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A margin of 1e-12 is not verified, whatever the solver says of it."""
    base, true = next((p, t) for p, t in cases("mlp", EVERY) if t > 0.1 and len(p.spec.disjuncts) == 1)
    (disjunct,) = base.spec.disjuncts
    close = Polyhedron(disjunct.A, disjunct.b + true - 1e-12, disjunct.strict)
    problem = Problem(base.network, base.region, Spec((close,)))
    for optimum in (False, True):
        result = get_verifier(f"milp(optimum={optimum},steps=0)").verify(problem, Budget())
        assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.NUMERICAL)
        assert result.margin is None or result.margin <= 1e-12


# Odd requests.


def test_a_disjunct_without_rows_is_everywhere() -> None:
    none = Polyhedron(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    one = Polyhedron(torch.ones(1, 2), torch.tensor([-9.0]), torch.zeros(1, dtype=torch.bool))
    for spec in (Spec((none,)), Spec((one, none))):
        for optimum in (False, True):
            problem = Problem(chain((2,), []), Box(torch.zeros(2), torch.ones(2)), spec)
            result = MILP(optimum=optimum).verify(problem, Budget())
            assert result.verdict is Verdict.FALSIFIED
            assert result.margin is None


def test_a_point() -> None:
    network = to_network(nets.random_mlp(3, (4, 10, 10, 3)), (4,))
    for x in torch.rand(5, 4, generator=nets.generator(0)):
        scores = network(x[None].double())[0]
        label = int(scores.argmax())
        problem = Problem.robustness(network, x, label, 0.0)
        result = MILP(optimum=True).verify(problem, Budget())
        assert result.verdict is Verdict.VERIFIED
        top = scores.topk(2).values
        assert result.margin == pytest.approx(float(top[0] - top[1]), abs=1e-9)


@pytest.mark.parametrize("solver", ["highs", "pulp:cbc"])
def test_time_is_kept(solver: str) -> None:
    """A random network with hundreds of unstable neurons, which nobody decides in a second."""
    network = to_network(nets.random_mlp(0, (30, 60, 60, 60, 5)), (30,))
    x = torch.full((30,), 0.5)
    margin = network(x[None].double())[0]
    row = torch.zeros(5, dtype=torch.float64)
    row[0] = 1.0
    free = network(Box(x - 0.4, x + 0.4).sample(500, nets.generator(0)).double())[:, 0].min().item()
    problem = Problem(network, Box(x - 0.4, x + 0.4), Spec.halfspaces([row.tolist()], [free - 2.0]))
    assert margin[0] > free - 2.0
    result = MILP(solver=solver).verify(problem, Budget(seconds=1.0))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.TIMEOUT)
    relaxed = get_verifier("lp").verify(problem, Budget()).margin
    assert result.margin is not None
    assert relaxed is not None
    assert relaxed - 1e-9 <= result.margin <= 0


def test_what_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    box, spec = Box(torch.zeros(2), torch.ones(2)), Spec.halfspaces([[1.0, 0.0]], [-1.0])
    curve = Problem(chain((2,), [Smooth("tanh")]), box, spec)
    ball = Problem(chain((2,), []), LpBall(torch.zeros(2), 1.0, 2, domain=None), spec)
    for problem, word in ((curve, "tanh"), (ball, "l2")):
        result = MILP().verify(problem, Budget())
        assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED)
        assert word in str(result.stats)
    monkeypatch.setattr(loading, "find_spec", lambda name: None if name == "gurobipy" else object())
    result = MILP(solver="gurobi").verify(Problem(chain((2,), []), box, spec), Budget())
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED)
    assert "pip install gurobipy" in str(result.stats)


@pytest.mark.parametrize("options", ["solver=cplex", "solver=pulp", "solver=pulp:glpk", "steps=-1", "optimum=maybe"])
def test_options_that_are_none(options: str) -> None:
    with pytest.raises(InputError):
        get_verifier(f"milp({options})")


def test_the_hard_program_is_hard() -> None:
    """What the tests of time stand on: its optimum is not found at once."""
    assert load(get_solver("highs"), hard()).solve(seconds=0.2).status is Status.TIMEOUT
