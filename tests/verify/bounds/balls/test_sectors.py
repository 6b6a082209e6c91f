"""Tests of bounds.balls.sectors: sectors hold activations, neurons stray no further, bounds over l2 balls are true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import inf, nan, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from assay.verify.backends.crown import CROWN
from assay.verify.bounds import layers
from assay.verify.bounds.backward import rows
from assay.verify.bounds.balls import sectors
from assay.verify.bounds.balls.sectors import Sectors, Strays, sector, sectored
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import Gather, LeakyRelu, Linear, Max, Op, Relu, Reshape, Smooth, evaluate
from assay.verify.core.region import Box, LpBall, take
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import length
from tests import exact, nets
from tests.breadth import few, seeds
from tests.contract.graphs import eye, random_graph

D = torch.float64
OPS: list[Op] = [Relu(), *(LeakyRelu(s) for s in (0.01, 0.5, 1.0, 1.7, 50.0)), Smooth("tanh")]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=D, generator=nets.generator(seed))


def smooth(seed: int) -> nn.Module:
    layers = [nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 7), nn.LeakyReLU(0.2), nn.Linear(7, 6), nn.ReLU()]
    return nets.randomised(nn.Sequential(*layers, nn.Linear(6, 3)), seed)


MADE: list[tuple[Callable[[int], nn.Module], tuple[int, ...]]] = [
    (lambda seed: nets.random_mlp(seed, (6, 12, 12, 12, 4)), (6,)),
    (nets.random_cnn, (1, 6, 6)),
    (nets.random_resnet, (1, 4, 4)),
    (nets.random_functional, (1, 4, 4)),
    (smooth, (5,)),
]


def some(
    seed: int, samples: int = 3, eps: float = 0.3, domain: tuple[float, float] | None = (0.0, 1.0)
) -> tuple[Network, LpBall]:
    make, shape = MADE[seed % len(MADE)]
    centre = torch.rand(samples, *shape, generator=nets.generator(seed))
    return to_network(make(seed), shape), LpBall(centre, eps, 2, domain)


def known(network: Network, ball: LpBall) -> Sectors:
    found = Sectors(layers.by_linear_bounds(network, layers.batch_box(ball, network.input_shape), D))
    found.advance()
    return found


def within(ball: LpBall, x: Tensor) -> Tensor:
    """Points next to x (batch x shape) a little inside of the ball, and of the domain, which leads no further away."""
    step = (x - ball.centre).flatten(1)
    size = length(step, 2, keepdim=True).clamp(min=1e-300)
    x = ball.centre + (step * (float(ball.eps) * (1 - 1e-12) / size).clamp(max=1.0)).view_as(x)
    return x if ball.domain is None else x.clamp(*ball.domain)  # type: ignore[call-overload, no-any-return]


def lowest(network: Network, ball: LpBall, row: Tensor, steps: int = 30, starts: int = 24, seed: int = 0) -> Tensor:
    """Members (steps * starts x shape) at which a row of the output is small: steepest descent on the ball."""
    network = network.to(D)
    x = within(ball, ball.centre + 2 * float(ball.eps) * normal(starts, *ball.shape, seed=seed))
    tried = [x]
    for step in range(steps):
        with torch.enable_grad():
            at = x.clone().requires_grad_()
            values = (network(at).flatten(1) @ row).sum()
            slope = torch.autograd.grad(values, at, materialize_grads=True)[0] if values.requires_grad else 0 * x
        x = within(ball, x - 0.9**step * ball.steepest(slope))
        tried.append(x)
    return torch.cat(tried)


# One activation.


@given(st.sampled_from(OPS), st.floats(-3, 3), st.floats(0, 4), st.floats(0, 4), st.integers(0, 10**6))
def test_an_activation_lies_within_its_sector(op: Op, at: float, left: float, right: float, seed: int) -> None:
    z = Bounds(torch.tensor([[at - left]], dtype=D), torch.tensor([[at + right]], dtype=D))
    point = Bounds(torch.tensor([[at - 1e-9]], dtype=D), torch.tensor([[at + 1e-9]], dtype=D))
    point = Bounds(torch.maximum(point.lower, z.lower), torch.minimum(point.upper, z.upper))
    found = sector(op, z, point)
    u = torch.rand(2, 200, 1, dtype=D, generator=nets.generator(seed))
    u[0, :3, 0] = torch.tensor([0.0, 0.5, 1.0])
    v, centre = (b.lower + part * (b.upper - b.lower) for b, part in zip((z, point), u, strict=True))
    value, there = evaluate(op, v), evaluate(op, centre)
    lines, far = found.lines, (v - centre).abs()
    intercept = torch.zeros_like(lines.slope) if lines.intercept is None else lines.intercept
    slack = 1e-14 * (1 + value.abs())
    low = lines.slope * v + intercept - found.below * far - found.error
    high = (lines.slope + lines.slope_gap) * v + intercept + lines.intercept_gap + found.above * far + found.error
    assert bool((low <= value + slack).all() & (value <= high + slack).all())
    assert bool(((value - there - found.middle * (v - centre)).abs() <= found.radius * far + slack).all())
    assert bool((found.error <= 1e-6 * (1 + value.abs().amax())).all())


@given(st.floats(-2, 2), st.floats(0, 2), st.floats(0, 2), st.sampled_from([0.0, 0.25, 3.0]))
def test_sectors_hold_in_exact_arithmetic(at: float, left: float, right: float, slope: float) -> None:
    """Tolerance 0: at the ends, the kink and the centre, whichever value within rounding the centre has."""
    op = LeakyRelu(slope) if slope else Relu()
    ends = at - left, at + right
    near = max(at - 1e-15, ends[0]), min(at + 1e-15, ends[1])
    z, point = (Bounds(*(torch.tensor([[v]], dtype=D) for v in pair)) for pair in (ends, near))
    found = sector(op, z, point)

    def number(t: Tensor | None) -> Fraction:
        return Fraction(0) if t is None else Fraction(t.item())

    def act(v: Fraction) -> Fraction:
        return v if v >= 0 else Fraction(slope) * v

    low, base = number(found.lines.slope), number(found.lines.intercept)
    high, top = low + number(found.lines.slope_gap), base + number(found.lines.intercept_gap)
    unit = Fraction(8, 2**53) * (1 + abs(Fraction(slope))) * (abs(Fraction(at)) + 4)  # of the lines' own sums
    for v in {*ends, *near, min(max(0.0, ends[0]), ends[1])}:
        for centre in near:
            far = abs(Fraction(v) - Fraction(centre))
            room = number(found.error) + unit
            value = act(Fraction(v))
            assert low * Fraction(v) + base - number(found.below) * far - room <= value
            assert value <= high * Fraction(v) + top + number(found.above) * far + room
            moved = value - act(Fraction(centre)) - number(found.middle) * (Fraction(v) - Fraction(centre))
            assert abs(moved) <= number(found.radius) * far


def test_stable_neurons_are_lines() -> None:
    z = Bounds(torch.tensor([[0.0, 1.0, -2.0, -1.0]], dtype=D), torch.tensor([[1.0, 2.0, 0.0, -0.5]], dtype=D))
    middle = (z.lower + z.upper) / 2
    found = sector(Relu(), z, Bounds(middle, middle))
    assert found.lines.slope.tolist() == [[1.0, 1.0, 0.0, 0.0]]
    for part in (found.radius, found.below, found.above, found.error, found.lines.slope_gap, found.lines.intercept_gap):
        assert not bool(part.any())


def test_closed_form() -> None:
    """x1 - relu(x2 + 1) about 0, radius 2: secants from 1 to [-1, 3] have slopes in [1/2, 1], and 3/4 + 1/4 is the
    slope at the minimum: -1 - 2 sqrt 2, the truth."""
    first = Linear(torch.eye(2, dtype=D), torch.tensor([3.0, 1.0], dtype=D))
    network = chain((2,), [first, Relu(), Linear(torch.tensor([[1.0, -1.0]], dtype=D), torch.tensor([-3.0], dtype=D))])
    ball = LpBall(torch.zeros(2), 2.0, 2, None)
    found = CROWN().bound(network, ball, eye(network)).lower.item()
    assert found == pytest.approx(-1 - 2 * sqrt(2), rel=1e-12)
    assert found < -1 - 2 * sqrt(2)
    assert CROWN(sectors=False).bound(network, ball, eye(network)).lower.item() < found - 0.1


# Neurons.


@pytest.mark.parametrize("seed", few(range(10), range(4)))
def test_operands_stray_no_further_than_is_said(seed: int) -> None:
    network, ball = some(seed, domain=None)
    found = known(network, ball)
    x = ball.sample(300, nets.generator(seed)).double()
    values = [v.view(300, 3, -1) for v in found.relaxed.network.values(x.flatten(0, 1))]
    there = [v.flatten(1) for v in found.relaxed.network.values(ball.centre)]
    step = (x - ball.centre).flatten(2)
    far = {
        i: part.gather((values[source] - there[source]).movedim(0, 1).abs())
        for i, part in found.strays.items()
        for source in network.nodes[i].inputs
    }
    for i, part in found.strays.items():
        along = torch.einsum("nsi,ski->snk", step, part.direction).abs() * part.reach[:, None]
        spilt = sum((far[j] @ spill.mT for j, spill in part.spills.items()), torch.zeros(()))
        assert bool((far[i] <= along + spilt + part.error[:, None] + 1e-12).all())
        assert bool((part.error <= 1e-9).all())


# What rows lose.


def of_one_layer(directions: Tensor, reach: Tensor) -> Sectors:
    """Sectors of which nothing but how far neurons stray is filled in."""
    network = chain((directions.shape[2],), [Relu()])
    found = Sectors(layers.by_intervals(network, LpBall(torch.zeros(1, directions.shape[2]), 1.0, 2, None), D))
    here = sector(Relu(), *(Bounds(-torch.ones_like(reach), torch.ones_like(reach)),) * 2)
    index, none = torch.arange(reach.shape[1])[None], torch.zeros_like(reach)
    found.strays[1] = Strays(here, index, directions, reach, {}, none, (directions @ directions.mT).abs())
    return found


@given(st.integers(1, 7), st.integers(1, 4), st.sampled_from([1e-300, 1e-170, 1e-20, 1.0, 1e160]), nets.seeds)
def test_the_longest_sum_is_no_longer_than_is_said(neurons: int, inputs: int, scale: float, seed: int) -> None:
    direction = normal(1, neurons, inputs, seed=seed)
    direction = direction / direction.norm(dim=2, keepdim=True)
    reach = normal(1, neurons, seed=seed + 1).abs()
    slope, width = normal(1, 1, inputs, seed=seed + 2), normal(1, 1, neurons, seed=seed + 3).abs()
    found = of_one_layer(direction, reach).longest(slope * scale, {1: width * scale}).item() / scale
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=neurons)), dtype=D)
    ends = slope[0] + (signs * width[0] * reach) @ direction[0]
    longest = ends.norm(dim=1).amax().item()
    assert longest <= found * (1 + 1e-12)
    assert found <= slope.norm().item() + (width[0] * reach).sum().item() * (1 + 1e-9)


@pytest.mark.parametrize(("slope", "width"), [(nan, 1.0), (inf, 1.0), (1.0, nan), (1.0, inf)])
def test_what_is_no_number_has_no_length(slope: float, width: float) -> None:
    found = of_one_layer(torch.ones(1, 1, 1, dtype=D), torch.ones(1, 1, dtype=D))
    one = torch.ones(1, 1, 1, dtype=D)
    longest = found.longest(slope * one, {1: width * one}).item()
    assert not longest < inf
    assert found.longest(0 * one, {1: 0 * one}).item() == 0


# Bounds.


@pytest.mark.parametrize("domain", [None, (0.0, 1.0)])
@pytest.mark.parametrize("seed", few(range(3), range(1)))
def test_bounds_are_true_and_never_below_the_plain_ones(seed: int, domain: tuple[float, float] | None) -> None:
    for eps in (0.05, 0.6):
        network, ball = some(seed, eps=eps, domain=domain)
        found, plain = (CROWN(sectors=s).bound(network, ball, eye(network)) for s in (True, False))
        assert bool((found.lower >= plain.lower).all() & (found.upper <= plain.upper).all())
        for i in range(3):
            one = LpBall(ball.centre[i], eps, 2, domain)
            for k, row in enumerate(eye(network)):
                for sign, bound in ((1.0, found.lower[i, k]), (-1.0, -found.upper[i, k])):
                    reached = (network(lowest(network, one, sign * row, seed=seed)).flatten(1) @ (sign * row)).amin()
                    assert bound <= reached + 1e-9 * (1 + reached.abs())


@pytest.mark.slow
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([1e-3, 0.1, 1.0]))
def test_graphs_of_any_wiring(seed: int, image: bool, eps: float) -> None:
    network = random_graph(seed, image, more=True)
    ball = LpBall(normal(*network.input_shape, seed=seed), eps, 2, None)
    found, plain = (CROWN(sectors=s).bound(network, ball, eye(network)) for s in (True, False))
    assert bool((found.lower >= plain.lower).all() & (found.upper <= plain.upper).all())
    row = normal(network.output_size, seed=seed + 1)
    for sign in (1.0, -1.0):
        values = network(lowest(network, ball, sign * row, 20, 8, seed)).flatten(1)
        slack = 1e-9 * (1 + values.abs().amax())
        assert bool(((found.lower - slack <= values) & (values <= found.upper + slack)).all())


@pytest.mark.slow
def test_in_two_dimensions_no_bound_passes_the_minimum_and_most_are_close() -> None:
    """Against a grid of the whole disc, its edge among it."""
    radius, angle = torch.meshgrid(
        torch.linspace(0, 1, 101, dtype=D), torch.linspace(0, 6.2832, 721, dtype=D), indexing="ij"
    )
    disc = torch.stack([radius * angle.cos(), radius * angle.sin()], -1).view(-1, 2)
    gaps = []
    for seed in range(12):
        network = to_network(nets.random_mlp(seed, (2, 7, 6, 3)), (2,)).to(D)
        for eps in (0.1, 0.5):
            centre = normal(2, seed=seed)
            found, plain = (
                CROWN(sectors=s).bound(network, LpBall(centre, eps, 2, None), eye(network)).lower[0]
                for s in (True, False)
            )
            least = network(centre + eps * disc).amin(0)
            assert bool((found <= least + 1e-9).all())
            gaps.append(torch.stack([(least - found).sum(), (least - plain).sum()]))
    ours, theirs = torch.stack(gaps).sum(0).tolist()
    assert ours < 0.75 * theirs


@pytest.mark.slow
@seeds(4, of=11)
def test_bounds_hold_in_exact_arithmetic(seeds: range) -> None:
    """Tolerance 0, at members that are next to the minimum."""
    for seed in seeds:
        module = nets.random_mlp(seed, (4, 8, 7, 3))
        network = to_network(module, (4,))
        centre = normal(4, seed=seed)
        for eps in (0.0, 2.0**-40, 1e-3, 0.5):
            ball = LpBall(centre, eps, 2, None)
            found = CROWN().bound(network, ball, eye(network)).lower[0].tolist()
            for k, row in enumerate(eye(network)):
                x = lowest(network, ball, row, 20, 4, seed)
                best = ball.project(x[(network(x) @ row).argmin()][None])
                assert bool(ball.contains(best))
                assert Fraction(found[k]) <= exact.value(network, best[0])[k]


@pytest.mark.slow
def test_rounding_is_charged_and_costs_next_to_nothing() -> None:
    for seed in range(10):
        network, ball = some(seed, domain=None)
        found, rows_ = known(network, ball), eye(network)[None].expand(3, -1, -1)
        last = len(network.nodes) - 1
        charged = found.lower(last, rows_)
        for part in found.strays.values():
            part.error.zero_()
            part.sector.error.zero_()
        free = found.lower(last, rows_) + found.lost(last, rows_)
        assert bool((charged < free).all())
        assert bool((charged > free - 1e-8 * (1 + free.abs())).all())


@pytest.mark.parametrize("seed", range(5))
def test_of_no_radius_the_bound_is_the_value(seed: int) -> None:
    network, ball = some(seed, eps=0.0)
    found = CROWN().bound(network, ball, eye(network))
    value = network(ball.centre)
    torch.testing.assert_close(found.lower, value, rtol=1e-9, atol=1e-9)
    assert bool((found.lower <= value + 1e-13 * (1 + value.abs())).all())


@pytest.mark.parametrize("eps", [1e-320, 1e-170, 1e-100])
def test_radii_that_have_no_square_are_not_lost(eps: float) -> None:
    """What the rest of the network makes large again: y = 2**600 (x1 - relu(x2)), exact at magnitudes this small."""
    first = Linear(torch.eye(2, dtype=D) * 2.0**300, torch.zeros(2, dtype=D))
    last = Linear(torch.tensor([[1.0, -1.0]], dtype=D) * 2.0**300, torch.zeros(1, dtype=D))
    network = chain((2,), [first, Relu(), last])
    found = CROWN().bound(network, LpBall(torch.zeros(2), eps, 2, None), eye(network))
    assert found.lower.item() <= -(2.0**600) * eps
    assert found.upper.item() >= (2.0**600) * eps


@pytest.mark.slow
def test_a_batch_gives_what_single_samples_give() -> None:
    for seed in range(5):
        network, ball = some(seed, 5)
        ball = LpBall(ball.centre, torch.tensor([0.0, 0.01, 0.1, 0.4, 1.0]), 2, ball.domain)
        together = CROWN().bound(network, ball, eye(network))
        for i in range(5):
            alone = CROWN().bound(network, take(ball, slice(i, i + 1)), eye(network))
            torch.testing.assert_close(together.lower[i : i + 1], alone.lower, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(together.upper[i : i + 1], alone.upper, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_layers_are_true_and_tightened() -> None:
    tighter = 0
    for seed in range(10):
        network, ball = some(seed, domain=None)
        tightening = sectors.Tightening()
        plain = layers.by_linear_bounds(network, ball, D)
        found = layers.by_linear_bounds(network, ball, D, further=tightening)
        x = ball.sample(200, nets.generator(seed)).double()
        for value, new, old in zip(plain.network.values(x.flatten(0, 1)), found.bounds, plain.bounds, strict=True):
            value = value.view(200, *new.lower.shape)
            slack = 1e-9 * (1 + value.abs().amax())
            assert bool(((new.lower - slack <= value) & (value <= new.upper + slack)).all())
            tighter += int(((new.upper - new.lower) < (old.upper - old.lower) * 0.95).sum())
    assert tighter > 100


# Where it applies.


def test_where_it_applies() -> None:
    network, ball = some(0)
    assert sectored(network, ball)
    assert not sectored(network, LpBall(ball.centre, 0.1, 1))
    assert not sectored(network, LpBall(ball.centre, 0.1, inf))
    assert not sectored(network, ball.box())
    pooled = chain((4,), [Linear(normal(4, 4), normal(4)), Reshape((2, 2)), Max()])
    assert not sectored(pooled, LpBall(torch.zeros(1, 4), 0.1, 2, None))
    affine = chain((4,), [Linear(normal(4, 4), normal(4)), Gather(torch.tensor([0, 2]), (2,), 0.0)])
    ball = LpBall(torch.zeros(4), 0.1, 2, None)
    for other in (pooled, affine):
        found, plain = (CROWN(sectors=s).bound(other, ball, eye(other)) for s in (True, False))
        torch.testing.assert_close(found.lower, plain.lower, rtol=1e-12, atol=1e-12)


def test_float32_keeps_to_the_plain_bounds_and_verdicts_do_not() -> None:
    network, ball = some(0)
    found, plain = (CROWN("float32", sectors=s).bound(network, ball, eye(network)).lower for s in (True, False))
    assert torch.equal(found, plain)


# Memory and time.


@pytest.mark.slow
def test_little_memory_changes_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(5):
        network, ball = some(seed)
        plenty = CROWN().bound(network, ball, eye(network)).lower
        plain = layers.by_linear_bounds(network, ball, D)
        assert sectors.samples_at_once(plain) > 3
        rows_ = eye(network)[None].expand(3, -1, -1)
        one_by_one = sectors.lower_rows(network, ball, rows_, Budget().started(), 1)
        torch.testing.assert_close(torch.fmax(one_by_one, rows.lower_rows(plain, rows_, True)), plenty)
        with monkeypatch.context() as patch:
            patch.setattr(sectors, "MOST", 2000)
            found = known(network, ball).lower(len(network.nodes) - 1, rows_)
        torch.testing.assert_close(found, known(network, ball).lower(len(network.nodes) - 1, rows_))


def test_what_does_not_fit_is_left_to_the_plain_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ball = some(0)
    plain = CROWN(sectors=False).bound(network, ball, eye(network)).lower
    assert not torch.equal(CROWN().bound(network, ball, eye(network)).lower, plain)
    monkeypatch.setattr(sectors, "MOST", 10)
    assert torch.equal(CROWN().bound(network, ball, eye(network)).lower, plain)


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_when_the_time_is_over_the_plain_bounds_stand(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, ball = some(0)
    plain = CROWN(sectors=False).bound(network, ball, eye(network)).lower
    original, calls = Sectors.backward, list[int]()

    def backward(self: Sectors, *arguments: object) -> object:
        calls.append(1)
        if len(calls) > rounds:
            raise Expired
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Sectors, "backward", backward)
    assert torch.equal(CROWN().bound(network, ball, eye(network)).lower, plain)
    assert len(calls) == rounds + 1


def test_what_has_no_bounds_gets_none() -> None:
    network, ball = some(0, 1)
    relaxed = layers.by_linear_bounds(network, ball, D)
    relaxed.bounds[1].upper[0, 2] = nan
    found = Sectors(relaxed).lower(len(network.nodes) - 1, eye(network)[None])
    assert not bool(found.isfinite().any())
    box = Box(ball.centre[0], ball.centre[0])
    assert bool(CROWN().bound(network, box, eye(network)).lower.isfinite().all())


def test_weights_that_are_replaced_are_seen() -> None:
    """Nothing of one network is kept for another."""
    network, ball = some(0)
    before = CROWN().bound(network, ball, eye(network)).lower
    node = network.nodes[1]
    assert isinstance(node.op, Linear)
    other = replace(
        network,
        nodes=(network.nodes[0], replace(node, op=Linear(2 * node.op.weight, node.op.bias)), *network.nodes[2:]),
    )
    assert not torch.allclose(CROWN().bound(other, ball, eye(network)).lower, before)
