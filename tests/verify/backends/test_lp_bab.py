"""Tests of bab.programs.lp_bab: enumeration's verdicts and optima, trees that cover, duals that prove."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from assay.verify.backends.bab.programs import lp_tree
from assay.verify.backends.bab.programs.certificate import Tree
from assay.verify.backends.bab.programs.lp_bab import LPBaB
from assay.verify.backends.bab.programs.simplex import Simplex
from assay.verify.backends.bab.programs.splits import ACTIVE, INACTIVE, Splits
from assay.verify.backends.crown import CROWN
from assay.verify.check.checker import Rejected
from assay.verify.check.replay import replay
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import chain, to_network
from assay.verify.core.ops import Gather, LeakyRelu, Linear, Max, Smooth
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.programs.dual import safe_bounds
from assay.verify.programs.encode import encode
from assay.verify.programs.program import Status, Vector
from assay.verify.programs.relaxation import known
from assay.verify.registry import get_verifier
from assay.verify.solving import parts
from assay.verify.solving.parts import Files
from tests import nets
from tests.breadth import seeds
from tests.verify.programs.cases import cases, lowered
from tests.verify.programs.test_encode import read_twice

KINDS = ("mlp", "conv", "residual", "skips", "leaky")


def agrees(result: Result, problem: Problem, true: float) -> None:
    """The verdict is enumeration's; a counterexample replays."""
    assert result.verdict is (Verdict.VERIFIED if true > 0 else Verdict.FALSIFIED)
    assert result.margin is None or result.margin <= true + 1e-9 * (1 + abs(true))
    if result.counterexample is not None:
        assert replay(problem, result.counterexample).confirmed


@pytest.mark.parametrize("kind", KINDS)
@seeds(3, of=7)
def test_verdicts_and_optima_are_enumerations(kind: str, seeds: range) -> None:
    nodes = 0
    for problem, true in cases(kind, seeds):
        agrees(get_verifier("lp-bab").verify(problem, Budget(seed=1)), problem, true)
        result = get_verifier("lp-bab(optimum=True,steps=0)").verify(problem, Budget())
        agrees(result, problem, true)
        assert result.margin == pytest.approx(true, abs=1e-6)
        assert result.stats["optimum"] == result.margin
        least = result.stats["minimiser"][None]
        assert problem.spec.margin(problem.spec.rows(problem.network(least))).item() == pytest.approx(true, abs=1e-6)
        assert bool(problem.region.contains(least).all())
        nodes += result.stats["nodes"]
    assert nodes > len(seeds) // 2


def hard() -> Problem:
    """A claim that holds, but takes some splits: 20 unstable neurons, a tree of 9 leaves."""
    network = to_network(nets.random_mlp(1, (8, 14, 14, 3)), (8,))
    x = torch.full((8,), 0.5)
    return Problem.robustness(network, x, int(network(x[None].double()).argmax()), 0.25)


# Certificates.


def proved(problem: Problem, certificate: dict[str, Any]) -> dict[str, Any]:
    """What the checker says that the trees prove."""
    files = Files.of_problem(problem)
    part = parts.of_record(files, 0, problem.spec, certificate)
    assert part is not None
    return files.certificate("tree", "real", [part]).check()


def checkable(problem: Problem) -> bool:
    return all(0 <= n.op.slope <= 1 for n in problem.network.nodes if isinstance(n.op, LeakyRelu))


@pytest.mark.parametrize("kind", KINDS)
@seeds(3, of=12)
def test_trees_prove_the_optimum_but_for_rounding_and_no_more(kind: str, seeds: range) -> None:
    """After a round trip through JSON, to a checker that knows nothing of programs."""
    leaves = 0
    for problem, true in filter(lambda case: checkable(case[0]), cases(kind, seeds)):
        result = LPBaB(optimum=True, steps=0).verify(problem, Budget())
        again = Result.from_json(result.to_json())
        assert again.certificate is not None
        assert again.certificate["network"] == problem.network.id
        assert len(again.certificate["trees"]) == len(problem.spec.disjuncts)
        leaves += proved(lowered(problem, 1e-5 - true), again.certificate)["leaves"]
        with pytest.raises(Rejected):
            proved(lowered(problem, -1e-6 - true), again.certificate)  # files round what was folded
    assert leaves >= len(seeds)


def test_trees_cover_and_leaves_lie_apart() -> None:
    tree = Tree()
    for node, neuron in ((0, 2), (1, 0), (4, 1)):
        tree.split(node, neuron)
    codes, paths = tree.preorder()
    assert codes == [2, 0, -1, 1, -1, -1, -1]
    assert list(paths) == [3, 5, 6, 2]
    assert sum(Fraction(1, 2 ** len(path)) for path in paths.values()) == 1
    assert paths[5] == ((2, INACTIVE), (0, ACTIVE), (1, INACTIVE))


def test_a_certificate_that_was_changed_does_not_prove_as_much() -> None:
    result = LPBaB(optimum=True).verify(hard(), Budget())
    assert result.certificate is not None
    problem = lowered(hard(), 1e-5 - result.stats["optimum"])
    assert proved(problem, result.certificate)["leaves"] > 8
    d, told = max(result.certificate["trees"].items(), key=lambda item: len(item[1]["tree"]))
    for name, value in (("slopes", told["slopes"].flip(0)), ("multipliers", told["multipliers"] / 2)):
        trees = {**result.certificate["trees"], d: {**told, name: value}}
        with pytest.raises(Rejected, match="not proved"):
            proved(problem, {**result.certificate, "trees": trees})


def test_proved_bounds_are_those_of_the_program_with_the_splits_in_it() -> None:
    """A batch of nodes against one program each, for arbitrary duals, whatever the size of the batch."""
    problem = hard()
    bounds = known(problem.network, problem.region, problem.spec.A, Budget()).bounds
    encoding = encode(problem.network, problem.region, bounds)
    splits = Splits.of(encoding, encoding.draft.program())
    program = splits.program
    line, offset = encoding.cost(problem.spec.A[0].numpy())
    cost = splits.cost(line)
    rng = np.random.default_rng(0)
    phases = rng.integers(-1, 2, (20, len(splits))).astype(np.int8)
    duals = rng.standard_normal((20, len(program.row_lower))) * rng.integers(0, 2, (20, 1))
    duals[3, 4] = np.nan
    for row, y, bound in zip(phases, duals, splits.proved(phases, duals, cost, offset), strict=True):
        split = safe_bounds(replace(program, upper=splits.upper(row)), y[None], cost, offset)
        assert bound <= split.bound.item()
        assert bound == pytest.approx(split.cautious.item(), rel=1e-9)


# Traps, and solvers that lie.


@pytest.mark.parametrize("trap", nets.NEVER_VERIFIED)
@pytest.mark.parametrize("optimum", [False, True])
def test_float_traps_are_never_verified(trap: str, optimum: bool) -> None:
    for B, dtype in ((2.0**25, torch.float32), (2.0**54, torch.float64)):
        for steps in (0, 20):
            result = LPBaB(optimum=optimum, steps=steps).verify(nets.trap_problem(trap, B, dtype), Budget())
            assert result.verdict is not Verdict.VERIFIED
            assert result.margin is None or result.margin <= -0.5 + 1e-7


def test_a_true_claim_about_a_trap_is_verified() -> None:
    assert LPBaB().verify(nets.trap_problem("N3"), Budget()).verdict is Verdict.VERIFIED


@pytest.mark.parametrize("end", [Status.CUTOFF, Status.INFEASIBLE, Status.FAILED, Status.OPTIMAL])
@pytest.mark.parametrize("optimum", [False, True])
def test_claims_of_a_solver_prove_nothing(end: Status, optimum: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    noise = lambda self: rng.standard_normal(len(self.nothing))  # noqa: E731
    monkeypatch.setattr(Simplex, "solve", lambda *_: end)
    monkeypatch.setattr(Simplex, "ray", noise)
    monkeypatch.setattr(Simplex, "duals", noise)
    monkeypatch.setattr(Simplex, "value", 1.0)
    monkeypatch.setattr(Simplex, "basis", None)
    monkeypatch.setattr(Simplex, "solution", lambda self: (self._splits.program.upper, noise(self)))
    for problem, true in [*cases("mlp", range(3)), *cases("residual", range(3))]:
        result = LPBaB(optimum=optimum, steps=0).verify(problem, Budget(seconds=0.3))
        assert result.verdict is not (Verdict.FALSIFIED if true > 0 else Verdict.VERIFIED)
        assert result.margin is None or result.margin <= true + 1e-9
        assert result.stats.get("optimum", true) == pytest.approx(true, abs=1e-5)


@pytest.mark.slow
def test_duals_that_prove_too_little_are_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of each dual: nodes are solved again, split to the end, and stay open in the end."""
    real = Simplex.duals
    asked = []

    def half(self: Simplex) -> Vector:
        asked.append(1)
        return real(self) / 2

    monkeypatch.setattr(Simplex, "duals", half)
    result = LPBaB(steps=0).verify(hard(), Budget(seconds=2))
    monkeypatch.undo()
    assert asked
    assert result.verdict is not Verdict.FALSIFIED
    assert result.margin is None or result.margin <= LPBaB(optimum=True).verify(hard(), Budget()).stats["optimum"]


def test_a_bound_above_what_was_seen_is_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Splits, "proved", lambda self, phases, *_: np.full(len(phases), 100.0))
    for problem, _ in cases("mlp", range(6)):
        for optimum in (False, True):
            result = LPBaB(optimum=optimum).verify(problem, Budget())
            assert result.verdict is not Verdict.VERIFIED
            assert result.margin is None or result.margin < 100
            assert "optimum" not in result.stats


# Time.


def endless() -> Problem:
    """A random network with hundreds of unstable neurons, which nobody decides in a second."""
    network = to_network(nets.random_mlp(0, (30, 60, 60, 60, 5)), (30,))
    x = torch.full((30,), 0.5)
    free = network(Box(x - 0.4, x + 0.4).sample(500, nets.generator(0)).double())[:, 0].min().item()
    return Problem(network, Box(x - 0.4, x + 0.4), Spec.halfspaces([[1.0, 0, 0, 0, 0]], [free - 2.0]))


@pytest.mark.parametrize("optimum", [False, True])
def test_time_is_kept_and_the_bound_is_better_than_before(optimum: bool) -> None:
    problem = endless()
    result = LPBaB(optimum=optimum).verify(problem, Budget(seconds=1.5))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.TIMEOUT)
    crown = CROWN().verify(problem, Budget()).margin
    assert result.margin is not None
    assert crown is not None
    assert crown < result.margin
    assert result.certificate is None
    assert "optimum" not in result.stats


def test_memory_is_kept() -> None:
    """The tree gets narrow where there is little, and what proves its leaves is given up before the search is."""
    result = LPBaB().verify(endless(), Budget(seconds=60, memory=1 << 14))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.MEMORY)
    assert result.stats["leaves"] > (1 << 13) // 2000
    assert result.stats["open"] < 100  # of several hundred where all batches are full


def test_where_proofs_are_given_up_the_verdict_is_none_the_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lp_tree, "EACH", 0)
    result = LPBaB().verify(hard(), Budget(memory=1 << 10))
    assert result.verdict is Verdict.VERIFIED
    assert result.certificate is None
    assert result.margin == pytest.approx(LPBaB().verify(hard(), Budget()).margin, abs=1e-6)


def test_no_node_is_lost_when_time_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever it does: what is claimed then is never above the truth."""
    problem, true = hard(), LPBaB(optimum=True).verify(hard(), Budget()).stats["optimum"]
    for after in range(14):
        ends = iter([*[None] * after, *[Status.TIMEOUT] * 1000])
        real = Simplex.solve
        monkeypatch.setattr(Simplex, "solve", lambda *a, ends=ends, real=real: next(ends) or real(*a))
        monkeypatch.setattr(lp_tree, "TOGETHER", 1)
        result = LPBaB(steps=0).verify(problem, Budget(seconds=30))
        monkeypatch.undo()
        assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.TIMEOUT)
        assert result.margin is not None
        assert result.margin <= true


# Odd requests.


@pytest.mark.slow
def test_operands_that_are_inputs_or_shared() -> None:
    """ReLUs of inputs, and two activations that read one value: their neurons keep their operand's column."""
    network, shared = read_twice(), 0
    for seed in range(6):
        rng = nets.generator(seed)
        centre = torch.randn(3, generator=rng, dtype=torch.float64) / 2
        row = torch.randn(2, generator=rng, dtype=torch.float64)
        problem = Problem(network, Box(centre - 0.7, centre + 0.7), Spec.halfspaces([row.tolist()], [0.0]))
        mine, milp = (get_verifier(f"{name}(optimum=True)").verify(problem, Budget()) for name in ("lp-bab", "milp"))
        assert mine.margin == pytest.approx(milp.margin, abs=1e-6)
        assert mine.verdict is milp.verdict
        assert mine.certificate is not None
        assert proved(lowered(problem, 1e-5 - mine.margin), mine.certificate)["claim"] == "unsat"
        bounds = known(problem.network, problem.region, problem.spec.A, Budget()).bounds
        encoding = encode(problem.network, problem.region, bounds)
        shared += int(Splits.of(encoding, encoding.draft.program()).shared.sum())
    assert shared > 5


def test_balls_in_l1_are_as_milp_has_them() -> None:
    for seed in range(4):
        network = to_network(nets.random_mlp(seed, (4, 5, 4, 2)), (4,))
        ball = LpBall(torch.full((4,), 0.4), 0.5, 1, (0.0, 1.0))
        problem = Problem(network, ball, Spec.halfspaces([[1.0, -1.0]], [0.0]))
        milp, mine = (get_verifier(f"{name}(optimum=True)").verify(problem, Budget()) for name in ("milp", "lp-bab"))
        assert mine.verdict is milp.verdict
        assert mine.margin == pytest.approx(milp.margin, abs=1e-6)


def test_a_disjunct_without_rows_is_everywhere() -> None:
    none = Polyhedron(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    one = Polyhedron(torch.ones(1, 2), torch.tensor([-9.0]), torch.zeros(1, dtype=torch.bool))
    for spec in (Spec((none,)), Spec((one, none))):
        problem = Problem(chain((2,), []), Box(torch.zeros(2), torch.ones(2)), spec)
        for optimum in (False, True):
            result = LPBaB(optimum=optimum).verify(problem, Budget())
            assert result.verdict is Verdict.FALSIFIED
            assert result.margin is None
            assert result.certificate is None


def test_a_point() -> None:
    network = to_network(nets.random_mlp(3, (4, 10, 10, 3)), (4,))
    for x in torch.rand(5, 4, generator=nets.generator(0)):
        scores = network(x[None].double())[0]
        result = LPBaB(optimum=True).verify(Problem.robustness(network, x, int(scores.argmax()), 0.0), Budget())
        assert result.verdict is Verdict.VERIFIED
        top = scores.topk(2).values
        assert result.margin == pytest.approx(float(top[0] - top[1]), abs=1e-9)


def test_a_margin_within_rounding_is_no_verdict() -> None:
    base, true = next((p, t) for p, t in cases("mlp", range(10)) if t > 0.1 and len(p.spec.disjuncts) == 1)
    (disjunct,) = base.spec.disjuncts
    close = Polyhedron(disjunct.A, disjunct.b + true - 1e-13, disjunct.strict)
    result = LPBaB(steps=0).verify(replace(base, spec=Spec((close,))), Budget(seconds=5))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.NUMERICAL)


def test_what_is_not_supported() -> None:
    box, spec = Box(torch.zeros(2), torch.ones(2)), Spec.halfspaces([[1.0, 0.0]], [-1.0])
    curve = Problem(chain((2,), [Smooth("tanh")]), box, spec)
    ball = Problem(chain((2,), []), LpBall(torch.zeros(2), 1.0, 2, domain=None), spec)
    pool = [Gather(torch.tensor([0, 1, 1, 0]), (2, 2)), Max(), Linear(torch.eye(2), torch.zeros(2))]
    pooled = Problem(chain((2,), pool), box, spec)
    for problem, word in ((curve, "tanh"), (ball, "l2"), (pooled, "Max")):
        result = LPBaB().verify(problem, Budget())
        assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED)
        assert word in str(result.stats)


@pytest.mark.parametrize("options", ["steps=-1", "optimum=maybe", "proof=2", "solver=highs"])
def test_options_that_are_none(options: str) -> None:
    with pytest.raises(InputError):
        get_verifier(f"lp-bab({options})")
