"""Tests of verify.backends.alpha_crown: options, closed forms, never below CROWN, and what is left without time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.verify.backends.alpha_crown import AlphaCROWN
from assay.verify.backends.crown import CROWN
from assay.verify.backends.crown_ibp import CROWNIBP
from assay.verify.bounds.optimised import raised
from assay.verify.bounds.optimised.slopes import PATIENCE
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import Linear, Relu
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.result import Reason, Verdict
from assay.verify.core.spec import Spec
from assay.verify.registry import get_verifier
from tests import exact, nets
from tests.breadth import few
from tests.contract.graphs import eye, members, random_box, random_graph

D = torch.float64
MAKE: list[tuple[Callable[[int], torch.nn.Module], tuple[int, ...]]] = [
    (lambda seed: nets.random_mlp(seed, (6, 12, 12, 12, 4)), (6,)),
    (nets.random_cnn, (1, 6, 6)),
    (nets.random_resnet, (1, 4, 4)),
]


def small(seed: int, samples: int = 3, eps: float = 0.1, p: float = inf) -> tuple[Network, LpBall]:
    make, shape = MAKE[seed % 3]
    centre = torch.rand(samples, *shape, generator=nets.generator(seed))
    return to_network(make(seed), shape), LpBall(centre, eps, p, (0.0, 1.0))


@pytest.mark.parametrize(
    "options",
    [{"steps": -1}, {"group": 0}, {"rate": -0.1}, {"decay": -1.0}, {"rate": nan}, {"decay": inf}, {"rate": inf}],
)
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))} of alpha-crown"):
        AlphaCROWN(**options)


@pytest.mark.parametrize("text", ["steps=-1", "steps=1.5", "group=0", "inner=perhaps", "speed=1"])
def test_options_that_cannot_be_written(text: str) -> None:
    with pytest.raises(InputError):
        get_verifier(f"alpha-crown({text})")


def test_options_as_they_are_written() -> None:
    expected = AlphaCROWN(steps=5, inner=False, rate=0.5, decay=0.9, group=2)
    assert get_verifier("alpha-crown(steps=5,inner=false,rate=0.5,decay=0.9,group=2)") == expected


def test_closed_form() -> None:
    """y = relu(x) - 0.5 x on [-1, 3]: relu(x) >= a x makes (a - 0.5) x, least at an end; a = 0.5 proves 0, the truth,
    where CROWN, whose line has slope 1 there, proves -0.5."""
    first = Linear(torch.tensor([[1.0], [0.5], [-0.5]], dtype=D), torch.tensor([0.0, 1.0, 2.0], dtype=D))
    last = Linear(torch.tensor([[1.0, -0.5, 0.5]], dtype=D), torch.tensor([-0.5], dtype=D))
    network = chain((1,), [first, Relu(), last])  # of the last two, which are active, 0.5 (0.5 - x) is left
    box = Box(torch.tensor([-1.0]), torch.tensor([3.0]))
    assert exact.minimum(network, box, torch.ones(1)) == pytest.approx(0.0, abs=1e-9)
    assert CROWN().bound(network, box, eye(network)).lower.item() == pytest.approx(-0.5)
    for inner in (False, True):
        bounds = AlphaCROWN(inner=inner, steps=100).bound(network, box, eye(network))
        assert -0.02 < bounds.lower.item() <= 0
        assert bounds.upper.item() == pytest.approx(CROWN().bound(network, box, eye(network)).upper.item())


@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_never_below_crown_on_graphs_of_any_wiring(seed: int, image: bool, inner: bool) -> None:
    network = random_graph(seed, image, more=True)
    lower, upper = random_box(network, seed)
    box = Box(lower, upper)
    bounds = AlphaCROWN(steps=4, inner=inner).bound(network, box, eye(network))
    before = CROWN().bound(network, box, eye(network))
    values = network(members(lower, upper, 32)).flatten(1)
    slack = 1e-9 * (1 + values.abs().amax())
    assert bool((bounds.lower >= before.lower).all() & (bounds.upper <= before.upper).all())
    assert bool(((bounds.lower - slack <= values) & (values <= bounds.upper + slack)).all())


@pytest.mark.parametrize("p", few([1, 2, inf], quick=[2, inf]))
@pytest.mark.parametrize("inner", [False, True])
def test_better_than_crown_on_usual_networks(inner: bool, p: float) -> None:
    for seed in range(3):
        network, ball = small(seed, p=p, eps=0.1 if p == inf else 0.3)
        bounds = AlphaCROWN(steps=10, inner=inner).bound(network, ball, eye(network))
        before = CROWN().bound(network, ball, eye(network))
        assert bool((bounds.lower >= before.lower).all())
        assert float((bounds.lower - before.lower).mean()) > 1e-3
        inside = ball.sample(100, nets.generator(seed)).double().flatten(0, 1)
        outputs = network(inside).view(-1, 3, network.output_size)
        assert bool((outputs >= bounds.lower - 1e-9).all())
        assert bool((outputs <= bounds.upper + 1e-9).all())


@pytest.mark.slow
def test_raised_layers_help_and_cannot_hurt_much() -> None:
    """On the mean, with lines of layers raised too, the bounds are at least those of a raised objective alone."""
    gain = []
    for seed in range(3):
        network, ball = small(seed)
        outer, inner = (AlphaCROWN(inner=i).bound(network, ball, eye(network)).lower for i in (False, True))
        gain.append(float((inner - outer).mean()))
    assert min(gain) > -1e-3
    assert sum(gain) > 0.01


def test_margins_never_pass_the_true_minimum_and_are_closer_than_crowns() -> None:
    gaps = []
    for seed in range(8):
        network = to_network(nets.random_mlp(seed, (3, 6, 6, 3)), (3,))
        box = LpBall(torch.rand(3, generator=nets.generator(seed)), 0.2, domain=None).box()
        true = [exact.minimum(network, box, row) for row in eye(network)]
        bounds, before = (m.bound(network, box, eye(network)).lower[0].tolist() for m in (AlphaCROWN(), CROWN()))
        assert all(low <= least + 1e-9 for low, least in zip(bounds, true, strict=True))
        gaps.append([sum(true) - sum(bounds), sum(true) - sum(before)])
    ours, theirs = (sum(each) for each in zip(*gaps, strict=True))
    assert ours < 0.8 * theirs


@pytest.mark.parametrize("steps", [0, 1])
def test_few_steps_are_crown_or_better(steps: int) -> None:
    network, ball = small(0)
    bounds, before = (m.bound(network, ball, eye(network)).lower for m in (AlphaCROWN(steps=steps), CROWN()))
    torch.testing.assert_close(torch.maximum(bounds, before), bounds, rtol=0, atol=0)
    assert steps or torch.allclose(bounds, before, rtol=1e-9)


def test_more_steps_prove_more() -> None:
    network, ball = small(0)
    means = [float(AlphaCROWN(steps=k).bound(network, ball, eye(network)).lower.mean()) for k in (0, 3, 40)]
    assert means == sorted(means)


@pytest.mark.slow
@pytest.mark.parametrize("group", few([2, 100], quick=[2]))
def test_the_size_of_a_group_changes_the_last_digits_of_drafts_alone(group: int) -> None:
    """Lines are drafted in float32, whose sums depend on how many rows are taken together: as long as they do not
    decide where a row stops, which is looked at after so many steps."""
    for seed in range(3):
        network, ball = small(seed, 5)
        bounds, alone = (AlphaCROWN(steps=PATIENCE, group=g).bound(network, ball, eye(network)) for g in (group, 1))
        torch.testing.assert_close(bounds.lower, alone.lower, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(bounds.upper, alone.upper, rtol=1e-6, atol=1e-6)


def test_the_same_question_gets_the_same_answer() -> None:
    network, ball = small(0)
    first, second = (AlphaCROWN(steps=5).bound(network, ball, eye(network)).lower for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("B", [2.0**25, 2.0**54])
@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("trap", nets.NEVER_VERIFIED)
def test_float_traps_are_never_verified(trap: str, inner: bool, B: float) -> None:
    problem = nets.trap_problem(trap, B, torch.float32 if B < 2**50 else D)
    result = AlphaCROWN(inner=inner).verify(problem)
    assert result.verdict is not Verdict.VERIFIED
    assert result.margin is None or result.margin <= -0.5


# Time, by a clock that the work itself moves.


def problem() -> Problem:
    network, ball = small(0, 1)
    return Problem(network, LpBall(ball.centre[0], 0.25), Spec.robust(0, 4))


def ticking(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every question for the time takes a second."""
    asked: list[int] = []

    def now() -> float:
        asked.append(1)
        return float(len(asked))

    monkeypatch.setattr("assay.verify.core.budget.time.monotonic", now)
    return asked


@pytest.mark.parametrize("inner", [False, True])
def test_when_the_time_is_over_what_is_proved_by_then_stands(inner: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    question = problem()
    method, crown, least = AlphaCROWN(inner=inner), CROWN().verify(question), CROWNIBP().verify(question).margin
    best = method.verify(question).margin
    assert crown.margin is not None
    assert best is not None
    assert least is not None
    assert best > crown.margin + 1e-3
    margins: set[float] = set()
    for seconds in range(1, 250, 8):
        with monkeypatch.context() as patch:
            ticking(patch)
            # A network of its own: nothing is known of it from the last time.
            result = method.verify(replace(question, network=replace(question.network)), Budget(seconds))
        if result.margin is None:
            assert result.reason is Reason.TIMEOUT
            assert not margins, "less is proved in more time"
        else:
            assert least <= result.margin <= best
            whole = crown.margin <= result.margin + 1e-9
            assert whole or result.stats["unrefined"], "all layers had their linear bounds"
            assert result.verdict is Verdict.VERIFIED or result.reason in (Reason.TIMEOUT, Reason.INCOMPLETE)
            assert result.reason is not Reason.INCOMPLETE or result.margin == best, "what was cut short is not complete"
            margins.add(result.margin)
    assert any(margin == pytest.approx(crown.margin, abs=1e-9) for margin in margins)


@pytest.mark.parametrize("inner", [False, True])
def test_an_ascent_that_is_cut_off_leaves_crowns_bound(inner: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    question = problem()

    def expired(*arguments: Any) -> Any:
        raise Expired

    monkeypatch.setattr(raised.Raising, "lower", expired)
    crown, ours = (method.verify(question).margin for method in (CROWN(), AlphaCROWN(inner=inner)))
    assert crown is not None
    assert ours is not None
    # Rows that go down as they are and as columns may differ in the last place: the better of both is kept.
    assert crown <= ours == pytest.approx(crown, abs=1e-12)


def test_no_time_at_all() -> None:
    result = AlphaCROWN().verify(problem(), Budget(seconds=0))
    assert (result.verdict, result.reason, result.margin) == (Verdict.UNKNOWN, Reason.TIMEOUT, None)


def test_one_who_is_out_of_time_leaves_the_others_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ball = small(0, 4)
    problems = [Problem(network, LpBall(x, 0.1), Spec.robust(0, 4)) for x in ball.centre]
    crown, least = ([r.margin for r in method.verify_many(problems)] for method in (CROWN(), CROWNIBP()))
    ticking(monkeypatch)
    margins = [r.margin for r in AlphaCROWN(group=2).verify_many(problems, Budget(300))]
    # To a few units in the last place: the sums of a group of two are not those of all four together.
    assert all(a is not None and b is not None and a >= b - 1e-12 for a, b in zip(margins[:2], crown, strict=False))
    assert all(a is None or (b is not None and a >= b - 1e-12) for a, b in zip(margins, least, strict=True))
