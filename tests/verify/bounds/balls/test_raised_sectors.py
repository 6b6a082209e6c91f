"""Tests of bounds.balls.raised_sectors: true bounds, derivatives, and what the ascent begins and ends with."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from assay.verify.backends.alpha_crown import AlphaCROWN
from assay.verify.backends.crown import CROWN
from assay.verify.bounds.balls import raised_sectors
from assay.verify.bounds.balls.raised_sectors import Climb, Cones
from assay.verify.bounds.balls.sectors import Strays, sector
from assay.verify.bounds.optimised.slopes import Ascent
from assay.verify.core.budget import Expired
from assay.verify.core.ops import LeakyRelu, Op, Relu, evaluate
from assay.verify.core.region import LpBall, take
from assay.verify.core.verifier import Bounds
from tests import nets
from tests.contract.graphs import eye, random_graph
from tests.verify.bounds.balls.test_sectors import D, known, lowest, normal, some

ASCENT = Ascent(10, 0.3, 0.95)


def somewhere(climb: Climb, seed: int) -> Climb:
    """The same with slopes and shares anywhere, none of them at the end of its range."""
    for i, cone in climb.cones.items():
        rng, (least, most) = nets.generator(seed + i), cone.steep
        for tensor, low, high in ((cone.slope, least, most), (cone.share, 0.0, 1.0)):
            anywhere = low + (high - low) * (0.1 + 0.8 * torch.rand(tensor.shape, dtype=D, generator=rng))
            tensor.copy_(torch.where(cone.movable > 0, anywhere, tensor))
        cone.keep()
    return climb


@given(
    st.sampled_from([Relu(), *(LeakyRelu(s) for s in (0.01, 0.5, 1.7, 20.0))]),
    st.floats(-2, 2),
    st.floats(0, 3),
    st.floats(0, 3),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_lines_with_widths_hold(op: Op, at: float, left: float, right: float, tilt: float, share: float) -> None:
    one = torch.ones(1, 1, dtype=D)
    z, point = Bounds((at - left) * one, (at + right) * one), Bounds(at * one, at * one)
    none = torch.zeros(1, 1, 1, dtype=D)
    part = Strays(sector(op, z, point), torch.zeros(1, 1, dtype=torch.int64), none, 0 * one, {}, 0 * one, none)
    for sign in (1.0, -1.0):
        coef = sign * torch.ones(1, 1, 1, dtype=D)
        cone = Cones.of(op, part, z, coef)
        assert not bool(cone.widths(coef).missed.amax() > 1e-12)  # the sector misses nothing
        if bool(cone.movable):
            cone.slope.fill_(cone.steep[0] + tilt * (cone.steep[1] - cone.steep[0]))
            cone.share.fill_(share)
        now, lines = cone.widths(coef), cone.lines()
        v = torch.linspace(at - left, at + right, 101, dtype=D)[:, None]
        assert lines.intercept is not None
        line = lines.slope * v + lines.intercept
        room = now.width[0] * (v - at).abs() + now.missed[0] + cone.rounded()[0] + part.sector.error
        assert bool((sign * (evaluate(op, v) - line) >= -room - 1e-15).all())


def test_it_begins_with_the_sectors() -> None:
    for seed in range(5):
        network, ball = some(seed)
        found, rows = known(network, ball), eye(network)[None].expand(3, -1, -1)
        standing = Climb(found, rows, ASCENT).stand()
        torch.testing.assert_close(standing.bound, found.lower(len(network.nodes) - 1, rows), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_derivatives_are_those_of_finite_differences(seed: int) -> None:
    network, ball = some(seed, domain=None)
    rows = normal(3, 4, network.output_size, seed=seed)
    climb = somewhere(Climb(known(network, ball), rows, ASCENT), seed)
    told = climb.gradients(climb.stand())
    step, checked = 1e-6, 0
    for i, cone in climb.cones.items():
        for tensor, slope in zip(cone.tensors(), cone.gradient(*told[i]), strict=True):
            flat = tensor.view(-1)
            free = (cone.movable.expand_as(tensor).reshape(-1) > 0).nonzero().flatten()
            for place in free[:: max(1, len(free) // 8)].tolist():
                row = place // tensor.shape[2]
                before, ends = flat[place].item(), []
                for side in (step, -step):
                    flat[place] = before + side
                    ends.append(climb.stand().bound.flatten()[row].item())
                flat[place] = before
                found = (ends[0] - ends[1]) / (2 * step)
                assert found == pytest.approx(slope.view(-1)[place].item(), rel=1e-5, abs=1e-6)
                checked += 1
    assert checked >= 16


@pytest.mark.parametrize("seed", range(5))
def test_bounds_are_true_wherever_the_parameters_are(seed: int) -> None:
    network, ball = some(seed, 1, 0.4, None)
    climb = Climb(known(network, ball), eye(network)[None], ASCENT)
    least = [
        (network(lowest(network, LpBall(ball.centre[0], 0.4, 2, None), row, seed=seed)).flatten(1) @ row).amin()
        for row in eye(network)
    ]
    for draw in range(10):
        bound = somewhere(climb, 100 * seed + draw).stand().bound[0]
        assert bool((bound <= torch.stack(least) + 1e-9).all())


@pytest.mark.slow
@settings(max_examples=20)
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_graphs_of_any_wiring(seed: int, image: bool, inner: bool) -> None:
    network = random_graph(seed, image, more=True)
    ball = LpBall(normal(*network.input_shape, seed=seed), 0.2, 2, None)
    found = AlphaCROWN(steps=4, inner=inner).bound(network, ball, eye(network))
    before = CROWN().bound(network, ball, eye(network))
    assert bool((found.lower >= before.lower).all() & (found.upper <= before.upper).all())
    row = normal(network.output_size, seed=seed + 1)
    for sign in (1.0, -1.0):
        values = network(lowest(network, ball, sign * row, 10, 4, seed)).flatten(1)
        slack = 1e-9 * (1 + values.abs().amax())
        assert bool(((found.lower - slack <= values) & (values <= found.upper + slack)).all())


def raised_by(seed: int, steps: int) -> Tensor:
    network, ball = some(seed)
    rows = eye(network)[None].expand(3, -1, -1)
    return raised_sectors.lower_rows(known(network, ball), rows, Ascent(steps, 0.3, 0.95))


@pytest.mark.slow
def test_more_steps_prove_more() -> None:
    gains = []
    for seed in range(4):
        bounds = [raised_by(seed, steps) for steps in (0, 5, 40)]
        assert bool((bounds[2] >= bounds[1]).all() & (bounds[1] >= bounds[0]).all())
        gains.append(float((bounds[2] - bounds[0]).mean()))
    assert sum(gains) > 0.02


def test_a_batch_gives_what_single_samples_give() -> None:
    network, ball = some(0)
    rows = eye(network)[None].expand(3, -1, -1)
    together = raised_sectors.lower_rows(known(network, ball), rows, ASCENT)
    for i in range(3):
        alone = raised_sectors.lower_rows(known(network, take(ball, slice(i, i + 1))), rows[i : i + 1], ASCENT)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rounds", [0, 1, 4])
def test_when_the_time_is_over_what_is_proved_stands(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, ball = some(0)
    rows = eye(network)[None].expand(3, -1, -1)
    about, original, calls = known(network, ball), Climb.stand, list[int]()

    def stand(self: Climb) -> raised_sectors.Standing:
        calls.append(1)
        if len(calls) > rounds:
            raise Expired
        return original(self)

    monkeypatch.setattr(Climb, "stand", stand)
    if rounds:
        found = raised_sectors.lower_rows(about, rows, ASCENT)
        assert bool((found >= about.lower(len(network.nodes) - 1, rows) - 1e-9).all())
        assert len(calls) == rounds + 1
    else:
        with pytest.raises(Expired):
            raised_sectors.lower_rows(about, rows, ASCENT)
