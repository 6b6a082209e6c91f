"""The laws of every registered method: bounds hold, verdicts are true, and odd requests get an honest answer."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from math import inf

import pytest
import torch

from assay.verify.core.budget import Budget
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import Linear, Op, Relu, Scale, evaluate
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.core.verifier import Bounder, OtherSubject, Verifier
from assay.verify.registry import get_bounder, get_verifier, list_verifiers
from tests import exact, nets
from tests.breadth import few, seeds
from tests.contract.graphs import eye, members, random_box, random_graph


def variants() -> list[str]:
    """Every method that speaks of the network, as it comes, and in float32 where that is an option."""
    names = [name for name in list_verifiers() if not isinstance(get_verifier(name), OtherSubject)]
    return [*names, *(f"{n}(dtype=float32)" for n in names if "dtype" in {f.name for f in fields(get_verifier(n))})]  # type: ignore[arg-type]


VERIFIERS = variants()
BOUNDERS = [name for name in list_verifiers() if isinstance(get_verifier(name), Bounder)]

every_verifier = pytest.mark.parametrize("name", VERIFIERS)
every_prover = pytest.mark.parametrize("name", [n for n in VERIFIERS if get_verifier(n).guarantee != "empirical"])
every_bounder = pytest.mark.parametrize("name", BOUNDERS)


# These go on for as long as there is time where float64 cannot tell, or take long over what they cannot prove.
UNHURRIED = ("auto", "bab", "input-split", "lipsdp", "sdp")
DRAFTS = ("alpha-crown", "auto")  # raise lines in float32, whose sums depend on how many rows are taken together


def verify(name: str, problem: Problem, budget: Budget | None = None) -> Result:
    return get_verifier(name).verify(problem, budget or Budget(0.2 if name in UNHURRIED else inf))


# Bounds.


@every_bounder
@pytest.mark.parametrize("image", [False, True])
@seeds(9, of=27)
def test_sampled_points_lie_inside_the_bounds(name: str, image: bool, seeds: range) -> None:
    for seed in seeds:
        network = random_graph(seed, image)
        lower, upper = random_box(network, seed)
        bounds = get_bounder(name).bound(network, Box(lower, upper), eye(network), Budget())
        values = network(members(lower, upper, 64)).flatten(1)
        slack = 1e-9 * (1 + values.abs().amax())
        assert not bool((values < bounds.lower - slack).any()), f"seed {seed}"
        assert not bool((values > bounds.upper + slack).any()), f"seed {seed}"
        assert bool(bounds.lower.isfinite().all()), f"seed {seed}"


@every_bounder
@pytest.mark.parametrize("p", [1, 2, inf])
@seeds(1, of=5)
def test_sampled_points_of_balls_lie_inside_the_bounds(name: str, p: float, seeds: range) -> None:
    for seed in seeds:
        shape = ((1, 6, 6), (1, 4, 4), (1, 4, 4))[seed % 3]
        made = (nets.random_cnn(seed), nets.random_resnet(seed), nets.random_functional(seed))[seed % 3]
        network = to_network(made, shape)
        centre = torch.rand(shape, generator=nets.generator(seed))
        ball = LpBall(centre, (0.02, 0.3)[seed % 2], p, (0.0, 1.0))
        bounds = get_bounder(name).bound(network, ball, eye(network), Budget())
        values = network(ball.sample(200, nets.generator(0)).double())
        assert bool((bounds.lower <= values + 1e-9).all())
        assert bool((values <= bounds.upper + 1e-9).all())


@pytest.mark.parametrize("name", [name for name in BOUNDERS if hasattr(get_verifier(name), "lower")])
def test_the_lower_side_alone_is_that_of_both(name: str) -> None:
    for seed in range(10):
        network = random_graph(seed, seed % 2 == 0)
        box = Box(*random_box(network, seed))
        both = get_bounder(name).bound(network, box, eye(network), Budget()).lower
        alone = get_verifier(name).lower(network, box, eye(network), Budget())  # type: ignore[attr-defined]
        assert alone.shape == both.shape
        assert torch.allclose(alone, both, rtol=1e-9, atol=1e-9), f"seed {seed}"


@every_bounder
@seeds(9, of=23)
def test_bounds_never_pass_the_true_minimum(name: str, seeds: range) -> None:
    for seed in seeds:
        network = random_graph(seed, image=seed % 5 == 0, neurons=8, steps=7)
        box = Box(*random_box(network, seed + 1)).box()
        lower = get_bounder(name).bound(network, box, eye(network), Budget()).lower[0]
        for row, low in zip(eye(network), lower.tolist(), strict=True):
            assert low <= exact.minimum(network, box, row) + 1e-7 * (1 + abs(low)), f"seed {seed}"


def test_crown_is_never_worse_than_intervals() -> None:
    for seed in range(100):
        network = random_graph(seed, image=seed % 2 == 0)
        box = Box(*random_box(network, seed))
        ibp, crown = (get_bounder(n).bound(network, box, eye(network), Budget()) for n in ("ibp", "crown"))
        assert bool((crown.lower >= ibp.lower - 1e-9 * (1 + ibp.lower.abs())).all()), f"seed {seed}"
        assert bool((crown.upper <= ibp.upper + 1e-9 * (1 + ibp.upper.abs())).all()), f"seed {seed}"


# Verdicts.


@cache
def question(seed: int) -> tuple[Problem, float]:
    """A problem of any wiring with its true margin, near 0 on either side or far from it."""
    network = random_graph(seed, image=seed % 4 == 0, neurons=8, steps=6)
    box = Box(*random_box(network, seed)).box()
    rng = nets.generator(seed)
    rows = [torch.randn(1 + k, network.output_size, dtype=torch.float64, generator=rng) for k in range(seed % 3)]
    rows = rows or [torch.randn(1, network.output_size, dtype=torch.float64, generator=rng)]
    zero = [torch.zeros(len(A), dtype=torch.float64) for A in rows]
    free = min(exact.least_of_largest(network, box, A, b) for A, b in zip(rows, zero, strict=True))
    gap = (1e-5, -1e-5, 0.5, -0.5, 3.0)[seed % 5]
    spec = Spec(
        tuple(
            Polyhedron(A, b + free - gap, torch.zeros(len(A), dtype=torch.bool))
            for A, b in zip(rows, zero, strict=True)
        )
    )
    problem = Problem(network, box, spec)
    return problem, exact.true_margin(problem)


@every_verifier
@seeds(4, of=18)
def test_verdicts_and_margins_are_true(name: str, seeds: range) -> None:
    for problem, true in map(question, seeds):
        result = verify(name, problem)
        assert result.margin is None or result.margin <= true + 1e-7 * (1 + abs(true))
        assert result.verdict is not Verdict.VERIFIED or true > 0
        assert result.verdict is not Verdict.FALSIFIED or true <= 0
        assert "alarm" not in result.stats


@every_prover
def test_something_is_decided(name: str) -> None:
    """A method that never answers would pass every other law."""
    clear = (problem for problem, true in map(question, range(40)) if true > 1)
    assert any(verify(name, problem, Budget(2.0)).verdict is Verdict.VERIFIED for problem in clear)


@every_verifier
@pytest.mark.parametrize("B", few([2.0**25, 2.0**54], quick=[2.0**54]))
@pytest.mark.parametrize("trap", nets.NEVER_VERIFIED)
def test_float_traps_are_never_verified(name: str, trap: str, B: float) -> None:
    problem = nets.trap_problem(trap, B, torch.float32 if B < 2**50 else torch.float64)
    result = verify(name, problem)
    assert result.verdict is not Verdict.VERIFIED
    assert result.margin is None or result.margin <= -0.5 + 1e-7  # the true margin


@every_verifier
def test_what_is_lost_early_and_magnified_late(name: str) -> None:
    """x in [0, 2**-29], y = 2**30 relu(relu(x + 2**25) - 2**25): 2 is reached where floating point adds nothing."""
    one, shift = torch.ones(1, 1, dtype=torch.float64), torch.tensor([2.0**25], dtype=torch.float64)
    ops: list[Op] = [Linear(one, shift), Relu(), Linear(one, -shift), Relu(), Scale(one[0] * 2.0**30, 0 * shift)]
    box = Box(torch.zeros(1, dtype=torch.float64), torch.full((1,), 2.0**-29, dtype=torch.float64))
    result = verify(name, Problem(chain((1,), ops), box, Spec.halfspaces([[-1.0]], [-1.0])))
    assert result.verdict is not Verdict.VERIFIED
    assert result.margin is None or result.margin <= -1 + 1e-7


@every_verifier
def test_sampled_margins_in_float32_traps(name: str) -> None:
    """Far from 0, where no verdict hangs on it, the margin is still a float64 lower bound."""
    network = nets.trap_problem("N1").network
    problem = Problem(network, Box(torch.zeros(1), torch.ones(1)), Spec.halfspaces([[-1.0]], [0.25]))
    result = verify(name, problem)  # A y - b = -y - 0.25, at least -1.25
    assert result.margin is None or result.margin <= -1.25 + 1e-7


def planted(seed: int, peak: float, hidden: int) -> Problem:
    """Unsafe y <= 0 for y = 1 - peak * relu(1 - 25 sum |x_i - t_i|): only a needle of inputs comes close to t.

    ``hidden``: 1 permutes and rescales the neurons, 2 splits a layer, too; the function stays the same bit for bit
    at t.
    """
    size = 10
    rng = nets.generator(seed)
    centre = torch.rand(size, generator=rng)
    target = (centre + 0.2 * (2 * torch.rand(size, generator=rng) - 1)).clamp(0, 1).mul(1024).round().div(1024)
    target = torch.minimum(torch.maximum(target, (centre - 0.19).clamp(min=0)), (centre + 0.19).clamp(max=1))
    sides = torch.cat([torch.eye(size), -torch.eye(size)]).double()
    scale = torch.ones(2 * size, dtype=torch.float64)
    order = torch.arange(2 * size)
    if hidden:
        order = torch.randperm(2 * size, generator=rng)
        scale = 2.0 ** torch.randint(-8, 9, (2 * size,), generator=rng).double()
    first = [Linear(scale[:, None] * sides[order], -scale * (sides @ target.double())[order]), Relu()]
    middle = Linear(-25 / scale[None], torch.ones(1, dtype=torch.float64))
    split: list[Op] = [Linear(torch.diag(2 * torch.ones(2 * size)), torch.zeros(2 * size))] if hidden == 2 else []
    if split:
        middle = Linear(middle.weight / 2, middle.bias)
    last = Linear(torch.tensor([[-peak]], dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    network = chain((size,), [*first, *split, middle, Relu(), last])
    return Problem(network, LpBall(centre, 0.2, inf, (0.0, 1.0)), Spec.halfspaces([[1.0]], [0.0]))


@every_verifier
@pytest.mark.parametrize("hidden", few([0, 1, 2], quick=[2]))
def test_planted_counterexamples_are_never_verified(name: str, hidden: int) -> None:
    problems = [planted(seed, 1 + depth, hidden) for seed, depth in enumerate([0.5, 1e-1, 1e-3, 1e-6, 1e-9])]
    assert all(verify(name, p).verdict is not Verdict.VERIFIED for p in problems)


@every_verifier
@pytest.mark.parametrize("hidden", few([0, 1, 2], quick=[2]))
def test_their_safe_twins_are_never_falsified(name: str, hidden: int) -> None:
    problems = [planted(seed, 1 - depth, hidden) for seed, depth in enumerate([0.4, 1e-1, 1e-3, 1e-6])]
    results = [verify(name, p) for p in problems]
    assert all(r.verdict is not Verdict.FALSIFIED for r in results)
    assert all(r.margin is None or r.margin <= d + 1e-9 for r, d in zip(results, [0.4, 1e-1, 1e-3, 1e-6], strict=True))


def test_the_planted_networks_are_what_they_claim() -> None:
    for hidden in (0, 1, 2):
        problem = planted(3, 1.5, hidden)
        relu = problem.network.nodes[1].op
        assert isinstance(relu, Linear)
        solution = -torch.linalg.lstsq(relu.weight, relu.bias[:, None]).solution.T
        target = problem.region.project(solution.float())
        torch.testing.assert_close(target.double(), solution, rtol=0, atol=1e-9)
        assert problem.network(target.double()).item() == pytest.approx(-0.5, abs=1e-9)


# Odd requests.

NETWORK = to_network(nets.random_mlp(3, (4, 10, 10, 3)), (4,))
XS = torch.rand(40, 4, generator=nets.generator(0))
SCORES = NETWORK(XS.double())


@every_prover
def test_a_radius_of_zero_is_a_point_check(name: str) -> None:
    top = SCORES.topk(2, dim=1).values
    clear = [i for i in range(len(XS)) if top[i, 0] - top[i, 1] > 1e-3]
    assert len(clear) > 30
    for i in clear[:5]:
        label = int(SCORES[i].argmax())
        assert verify(name, Problem.robustness(NETWORK, XS[i], label, 0.0), Budget()).verdict is Verdict.VERIFIED
        assert verify(name, Problem.robustness(NETWORK, XS[i], (label + 1) % 3, 0.0)).verdict is not Verdict.VERIFIED


@every_verifier
@pytest.mark.parametrize("eps", few([0.0, 0.01, 1.0], quick=[0.01]))
def test_a_misclassified_sample_is_never_verified(name: str, eps: float) -> None:
    wrong = SCORES.argmin(1)
    problems = Problem.robustness_many(NETWORK, XS[:5], wrong[:5], eps)
    assert all(verify(name, p).verdict is not Verdict.VERIFIED for p in problems)


@every_verifier
def test_a_tie_is_never_verified(name: str) -> None:
    """Two outputs with the same weights: the label is nowhere strictly the largest."""
    row = torch.randn(1, 4, dtype=torch.float64, generator=nets.generator(1))
    network = chain((4,), [Linear(row.repeat(2, 1), torch.zeros(2)), Relu()])
    assert verify(name, Problem.robustness(network, XS[0], 0, 0.1)).verdict is not Verdict.VERIFIED


@every_verifier
def test_a_batch_is_answered_as_one_by_one(name: str) -> None:
    problems = [p for eps in (0.005, 0.05) for p in Problem.robustness_many(NETWORK, XS[:3], SCORES[:3].argmax(1), eps)]
    problems += [
        Problem(NETWORK, Box(XS[i] - 0.01, XS[i] + 0.01), Spec.halfspaces([[1.0, 0, 0], [0, 1.0, 0]], [0.1, 0]))
        for i in range(3)
    ]
    verifier = get_verifier(name)
    many = getattr(verifier, "verify_many", None)
    together = many(problems, Budget()) if many else [verifier.verify(p, Budget()) for p in problems]
    for problem, result in zip(problems, together, strict=True):
        alone = verifier.verify(problem, Budget())
        assert result.problem_id == alone.problem_id == problem.id
        assert (result.verdict, result.reason) == (alone.verdict, alone.reason)
        assert (result.margin is None) == (alone.margin is None)
        if alone.margin is not None:
            # Sums of float32 depend on their order; so do drafts in it.
            few = 1e-4 if "float32" in name else 1e-6 if name in DRAFTS else 1e-9
            assert result.margin == pytest.approx(alone.margin, rel=few, abs=1e-3 * few)


@every_verifier
def test_one_list_may_speak_of_several_networks(name: str) -> None:
    problems = [question(seed)[0] for seed in range(4)]
    verifier = get_verifier(name)
    many = getattr(verifier, "verify_many", None)
    together = many(problems, Budget()) if many else [verifier.verify(p, Budget()) for p in problems]
    assert [r.verdict for r in together] == [verifier.verify(p, Budget()).verdict for p in problems]


class Modulus(Op):
    """|x|, which no method knows."""


@evaluate.register
def _(op: Modulus, x: torch.Tensor) -> torch.Tensor:
    return x.abs()


@every_prover
def test_an_unknown_operation_is_unsupported(name: str) -> None:
    network = chain((2,), [Linear(torch.eye(2), torch.zeros(2)), Modulus(), Relu()])
    problem = Problem(network, Box(-torch.ones(2), torch.ones(2)), Spec.halfspaces([[1.0, 0.0]], [-1.0]))
    result = verify(name, problem)
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED)
    assert "Modulus" in str(result.stats)


@every_verifier
def test_no_time_is_a_timeout(name: str) -> None:
    network: Network = to_network(nets.random_mlp(0, (12, 400, 400, 400, 10)), (12,))
    x = torch.rand(12, generator=nets.generator(0))
    problem = Problem.robustness(network, x, int(network(x[None].double()).argmax()), 0.05)
    result = verify(name, problem, Budget(seconds=0))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.TIMEOUT)


@every_verifier
@pytest.mark.parametrize("empty", ["region", "spec"])
def test_empty_questions_are_vacuous(name: str, empty: str) -> None:
    low, high = (torch.ones(2), torch.zeros(2)) if empty == "region" else (torch.zeros(2), torch.ones(2))
    spec = Spec(()) if empty == "spec" else Spec.robust(0, 2)
    result = verify(name, Problem(chain((2,), []), Box(low, high), spec))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.VACUOUS)


@every_verifier
def test_overflow_is_never_verified(name: str) -> None:
    """In the reals y(x) = 0.5 - relu(x) on one network and 0.5 - relu(5 - x) on the other: both reach below 0."""
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    end = Linear(-one, zero + 0.5)
    steep = [Linear(1e308 * one, zero), Relu(), Linear(1e-308 * one, zero), end]
    huge = [Linear(-1e308 * one, zero), Linear(1e-308 * one, zero + 5), Relu(), end]
    for ops, low, high in [(steep, -1.0, 1.0), (huge, 1.25, 1.375)]:
        region = Box(torch.tensor([low]), torch.tensor([high]))
        result = verify(name, Problem(chain((1,), ops), region, Spec.halfspaces([[1.0]], [0.0])))
        assert result.verdict is not Verdict.VERIFIED
        assert "alarm" not in result.stats


@every_verifier
def test_results_survive_json(name: str) -> None:
    for problem, _ in map(question, range(4)):
        result = verify(name, problem)
        again = Result.from_json(result.to_json())
        assert again.to_json() == result.to_json()
        assert (again.verdict, again.reason, again.margin) == (result.verdict, result.reason, result.margin)


@every_verifier
def test_names_and_flags(name: str) -> None:
    verifier = get_verifier(name)
    assert isinstance(verifier, Verifier)
    assert verifier.name == name.partition("(")[0]
    assert isinstance(verifier.complete, bool)
    assert isinstance(verifier.guarantee, Guarantee)
    problem, _ = question(0)
    assert verifier.supports(problem) is None
    result = verifier.verify(problem, Budget())
    assert result.verifier == repr(verifier)
    assert result.problem_id == problem.id
    assert result.subject == "network"
