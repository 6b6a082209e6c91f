"""Tests of verify.backends.lp: between CROWN and the truth, whoever solves the programs and whatever they answer."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
import torch

from assay.verify.backends import lp
from assay.verify.backends.crown import CROWN
from assay.verify.backends.lp import LP
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import Linear, Op, Relu, evaluate
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.core.spec import Spec
from assay.verify.programs import loading
from assay.verify.programs.program import Status
from assay.verify.registry import get_bounder, get_verifier
from assay.verify.solving import parts
from assay.verify.solving.parts import Files
from tests import exact, nets
from tests.breadth import few, seeds
from tests.contract.graphs import eye, random_box, random_graph
from tests.verify.programs.cases import KINDS, cases, lowered
from tests.verify.programs.test_relaxation import Liar

VARIANTS = ["lp", "lp(tighten=all)", "lp(intermediate=ibp)", "lp(intermediate=ibp,tighten=all)"]
SOLVERS = ["highs", "scipy", "cvxpy:CLARABEL", "cvxpy:HIGHS", "cvxpy:SCS"]


def lower(name: str, network: Network, region: Box | LpBall, objective: torch.Tensor) -> torch.Tensor:
    return get_bounder(name).bound(network, region, objective, Budget()).lower[0]


@pytest.mark.parametrize("kind", KINDS)
@seeds(5, of=15)
def test_margins_lie_between_crown_and_the_truth(kind: str, seeds: range) -> None:
    tighter = 0
    for problem, true in cases(kind, seeds):
        crown = get_verifier("crown").verify(problem, Budget()).margin
        margins = {name: get_verifier(name).verify(problem, Budget()).margin for name in VARIANTS}
        assert crown is not None
        for name, margin in margins.items():
            assert margin is not None
            assert margin <= true + 1e-9 * (1 + abs(true)), name
        assert margins["lp"] >= crown - 1e-9 * (1 + abs(crown))
        assert margins["lp(tighten=all)"] >= margins["lp"] - 1e-9 * (1 + abs(crown))
        tighter += margins["lp"] > crown + 1e-6
    assert tighter > len(seeds) // 6


@pytest.mark.parametrize("kind", KINDS)
@seeds(3, of=15)
def test_verdicts_are_true(kind: str, seeds: range) -> None:
    verified = 0
    for problem, true in cases(kind, seeds):
        for name in VARIANTS:
            result = get_verifier(name).verify(problem, Budget())
            assert result.verdict is not Verdict.FALSIFIED
            assert result.verdict is not Verdict.VERIFIED or true > 0
            assert result.verdict is Verdict.VERIFIED or result.reason is Reason.INCOMPLETE
            verified += result.verdict is Verdict.VERIFIED
    assert verified > len(seeds) // 2


@pytest.mark.parametrize("name", ["lp(proof=true)", "lp(tighten=all,proof=true)"])
@seeds(2, of=12)
def test_slopes_from_duals_prove_what_lines_of_crown_do_not(name: str, seeds: range) -> None:
    """To a checker that knows nothing of programs, margins but for rounding."""
    better = 0
    for kind in ("mlp", "skips"):
        for problem, _ in cases(kind, seeds):
            margin = get_verifier(name).verify(problem, Budget()).margin
            crown = get_verifier("crown").verify(problem, Budget()).margin
            assert margin is not None
            assert crown is not None
            just = lowered(problem, 1e-5 - margin)
            result = get_verifier(name).verify(just, Budget())
            assert result.verdict is Verdict.VERIFIED
            files = Files.of_problem(just)
            part = parts.of_search(files, 0, just.spec, Result.from_json(result.to_json()).certificate)
            assert part is not None
            assert files.certificate("tree", "real", [part]).check()["leaves"] == len(just.spec.disjuncts)
            better += crown < margin - 1e-4
    assert better


def test_no_proof_is_kept_unless_it_is_asked_for_and_can_be_written() -> None:
    (problem, _), (largest, _) = cases("mlp", range(9, 10))[0], cases("largest", range(4, 5))[0]
    assert get_verifier("lp").verify(problem, Budget()).certificate is None
    assert get_verifier("lp(proof=true)").verify(problem, Budget()).certificate is not None
    result = get_verifier("lp(proof=true)").verify(largest, Budget())
    assert result.verdict is Verdict.VERIFIED
    assert result.certificate is None


@seeds(10, of=30)
def test_bounds_of_both_sides_hold_the_outputs(seeds: range) -> None:
    for seed in seeds:
        network = random_graph(seed, image=seed % 3 == 0, neurons=10)
        box = Box(*random_box(network, seed)).box()
        values = network(box.sample(100, nets.generator(seed)).double().clamp(box.lower, box.upper)).flatten(1)
        slack = 1e-9 * (1 + values.abs().amax())
        for name in VARIANTS:
            bounds = get_bounder(name).bound(network, box, eye(network), Budget())
            assert bool((bounds.lower - slack <= values).all())
            assert bool((values <= bounds.upper + slack).all())


def test_one_hidden_layer_is_exact_on_single_neurons() -> None:
    """Over a box the triangle is the hull of one neuron: with one neuron the relaxation's optimum is the network's."""
    network = chain((3,), [Linear(torch.randn(1, 3, generator=nets.generator(0)), torch.zeros(1)), Relu()])
    box = Box(-torch.ones(3), torch.ones(3))
    bounds = get_bounder("lp").bound(network, box, torch.ones(1, 1), Budget())
    assert bounds.lower.item() == pytest.approx(0, abs=1e-9)
    assert bounds.upper.item() == pytest.approx(-exact.minimum(network, box, -torch.ones(1)), abs=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_agree(solver: str) -> None:
    for seed in range(4):
        network = to_network(nets.random_mlp(seed, (4, 8, 8, 3)), (4,))
        box = Box(torch.zeros(4), torch.ones(4))
        want, lowest = (lower(name, network, box, eye(network)) for name in ("lp", f"lp(solver={solver})"))
        assert bool((lowest <= want + 1e-9).all())
        torch.testing.assert_close(lowest, want, rtol=0, atol=2e-2 if solver == "cvxpy:SCS" else 1e-6)


def test_tightening_every_layer_forgets_where_it_began() -> None:
    for seed in range(6):
        network = to_network(nets.random_mlp(seed, (4, 8, 8, 3)), (4,))
        box = Box(torch.zeros(4), torch.ones(4))
        crown, ibp = (lower(f"lp(tighten=all,intermediate={i})", network, box, eye(network)) for i in ("crown", "ibp"))
        torch.testing.assert_close(crown, ibp, rtol=1e-7, atol=1e-7)


def test_tightening_every_layer_is_monotone_in_the_region() -> None:
    for seed in range(5):
        network = to_network(nets.random_mlp(seed, (4, 8, 8, 3)), (4,))
        last = torch.full((3,), -inf, dtype=torch.float64)
        for width in (0.5, 0.35, 0.2, 0.1, 0.0):
            box = Box(torch.full((4,), 0.5 - width), torch.full((4,), 0.5 + width))
            here = lower("lp(tighten=all)", network, box, eye(network))
            assert bool((here >= last - 1e-8).all())
            last = here


@pytest.mark.parametrize("p", [1, 2])
def test_balls_are_worth_more_than_their_boxes(p: float) -> None:
    """And never more than the truth at the members of the ball."""
    better = 0
    for seed in range(4):
        network = to_network(nets.random_mlp(seed, (5, 8, 6, 3)), (5,))
        ball = LpBall(torch.full((5,), 0.5), 0.6, p, (0.0, 1.0))
        over_ball, over_box = (lower("lp", network, region, eye(network)) for region in (ball, ball.box()))
        crown = CROWN(sectors=False).bound(network, ball, eye(network), Budget()).lower[0]
        assert bool((over_ball >= crown - 1e-9).all())
        values = network(ball.sample(3000, nets.generator(0)).double())
        assert bool((values.amin(0) >= over_ball - 1e-9).all())
        better += int((over_ball > torch.maximum(over_box, crown) + 1e-4).sum())
    assert better


def test_a_conjunction_is_one_program() -> None:
    """y = (x, -x) - 1/4 on x in [-1, 1]: each row reaches below 0 alone, both together never."""
    weight = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    network = chain((1,), [Linear(weight, torch.zeros(2, dtype=torch.float64))])
    problem = Problem(
        network, Box(-torch.ones(1), torch.ones(1)), Spec.halfspaces([[1.0, 0.0], [0.0, 1.0]], [-0.25] * 2)
    )
    assert get_verifier("crown").verify(problem, Budget()).verdict is Verdict.UNKNOWN
    result = get_verifier("lp").verify(problem, Budget())
    assert result.verdict is Verdict.VERIFIED
    assert result.margin == pytest.approx(0.25, abs=1e-9)


@pytest.mark.parametrize("duals", few([None, [float("nan")], [1e6, -3.0], [0.0]], quick=[None, [1e6, -3.0]]))
@pytest.mark.parametrize("status", [Status.OPTIMAL, Status.INFEASIBLE, Status.FAILED])
def test_a_solver_that_lies_changes_nothing(
    duals: list[float] | None, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lp, "get_solver", lambda name: Liar(duals, status))
    for tighten in ("last", "all"):
        for problem, true in cases("mlp", range(6)):
            result = LP(tighten=tighten).verify(problem, Budget())  # type: ignore[arg-type]
            crown = CROWN().verify(problem, Budget())
            assert result.margin is not None
            assert crown.margin is not None
            assert crown.margin - 1e-12 <= result.margin <= true + 1e-9
            assert result.verdict is crown.verdict


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("trap", nets.NEVER_VERIFIED)
@pytest.mark.parametrize(("B", "dtype"), [(2.0**25, torch.float32), (2.0**54, torch.float64)])
def test_float_traps_are_never_verified(name: str, trap: str, B: float, dtype: torch.dtype) -> None:
    result = get_verifier(name).verify(nets.trap_problem(trap, B, dtype), Budget())
    assert result.verdict is Verdict.UNKNOWN
    assert result.margin is None or result.margin <= -0.5 + 1e-7


def test_a_true_claim_about_a_trap_is_verified() -> None:
    assert get_verifier("lp").verify(nets.trap_problem("N3"), Budget()).verdict is Verdict.VERIFIED


@pytest.mark.parametrize("name", ["lp", "lp(tighten=all)"])
def test_time(name: str) -> None:
    """What was proved before the time was over stands."""
    network = to_network(nets.random_mlp(0, (50, 300, 300, 10)), (50,))
    x = torch.rand(50, generator=nets.generator(0))
    problem = Problem.robustness(network, x, int(network(x[None].double()).argmax()), 0.1)
    result = get_verifier(name).verify(problem, Budget(seconds=0.6))
    assert result.verdict is Verdict.UNKNOWN
    assert result.reason in (Reason.TIMEOUT, Reason.INCOMPLETE)
    crown = CROWN().verify(problem, Budget()).margin
    assert result.margin is None or (crown is not None and result.margin >= crown - 1e-6 * (1 + abs(crown)))


def test_a_solver_that_runs_out_of_time_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lp, "get_solver", lambda name: Liar([0.0], Status.TIMEOUT))
    problem, true = next((p, t) for p, t in cases("mlp", range(15)) if t < 0)
    result = LP().verify(problem, Budget())
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.TIMEOUT)
    assert result.margin is not None
    assert result.margin <= true


class Unheard(Op):
    """An operation that no rule but this one knows."""


@evaluate.register
def _(op: Unheard, x: torch.Tensor) -> torch.Tensor:
    return x


def test_what_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    network = chain((2,), [Linear(torch.eye(2), torch.zeros(2)), Unheard()])
    problem = Problem(network, Box(torch.zeros(2), torch.ones(2)), Spec.halfspaces([[1.0, 0.0]], [-1.0]))
    result = LP().verify(problem, Budget())
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED)
    assert "Unheard" in str(result.stats)
    with pytest.raises(UnsupportedError, match="Unheard"):
        LP().bound(network, problem.region, torch.eye(2), Budget())
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    fine = Problem(chain((2,), []), problem.region, problem.spec)
    result = LP(solver="cvxpy:CLARABEL").verify(fine, Budget())
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED)
    assert "pip install cvxpy" in str(result.stats)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("tighten=some", ["last", "all", "some"]),
        ("intermediate=zonotope", ["crown", "ibp", "zonotope"]),
        ("solver=gurobi", ["solver", "gurobi"]),
        ("solver=cvxpy", ["cvxpy:NAME"]),
    ],
)
def test_options_that_are_none(options: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        get_verifier(f"lp({options})")
    assert all(word in str(caught.value) for word in words)
    with pytest.raises(InputError):
        LP(tighten="some")  # type: ignore[arg-type]


def test_a_batch_of_regions_and_objectives() -> None:
    network = to_network(nets.random_mlp(2, (4, 6, 6, 3)), (4,))
    centre = torch.rand(3, 4, generator=nets.generator(0))
    objective = torch.randn(3, 2, 3, dtype=torch.float64, generator=nets.generator(1))
    together = LP().bound(network, Box(centre - 0.2, centre + 0.2), objective, Budget())
    assert together.lower.shape == together.upper.shape == (3, 2)
    for i in range(3):
        alone = LP().bound(network, Box(centre[i] - 0.2, centre[i] + 0.2), objective[i], Budget())
        torch.testing.assert_close(together.lower[i], alone.lower[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(together.upper[i], alone.upper[0], rtol=1e-9, atol=1e-9)
    assert np.isfinite(together.lower.numpy()).all()
