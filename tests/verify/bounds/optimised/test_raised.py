"""Tests of optimised.raised: better than lines that stay where they are, and true, over every region and wiring."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from assay.verify.bounds import layers
from assay.verify.bounds.backward import rows
from assay.verify.bounds.optimised import kinks, raised, slopes
from assay.verify.bounds.optimised.slopes import Ascent
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.budget import UNLIMITED, Budget, Expired
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import LeakyRelu, Linear, Op, Relu, Scale, Smooth, Step
from assay.verify.core.region import Box, LpBall, Region, take
from assay.verify.core.verifier import Bounds
from tests import curved, exact, nets
from tests.breadth import seeds
from tests.contract.graphs import members, random_box, random_graph

D = torch.float64
ASCENT = Ascent(5, 0.3, 0.95)
# Lines are drafted in float32, where sums depend on how many rows are taken together: so far do bounds agree.
DRAFTED = 1e-6


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=D, generator=nets.generator(seed))


def bent(*activations: Op, last: bool = True) -> Network:
    """Activations between layers of 4, 8, 8, ... and 3 features; they end the network without ``last``."""
    ops: list[Op] = []
    for k, activation in enumerate(activations):
        before = 8 if k else 4
        ops += [Linear(normal(8, before, seed=k) * (2 / before) ** 0.5, normal(8, seed=k + 50) / 3), activation]
    return replace(chain((4,), [*ops, *([Linear(normal(3, 8, seed=99) / 2, normal(3))] if last else [])]), dtype=D)


def pooled() -> Network:
    parts = [nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)]
    return to_network(nets.randomised(nn.Sequential(*parts), 0), (1, 6, 6))


def sigmoids() -> Network:
    parts = [nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 3)]
    return to_network(nets.randomised(nn.Sequential(*parts), 0), (4,))


NETWORKS = {
    "mlp": to_network(nets.random_mlp(0, (4, 8, 8, 3)), (4,)),
    "cnn": to_network(nets.random_cnn(0), (1, 6, 6)),
    "resnet": to_network(nets.random_resnet(0), (1, 4, 4)),
    "functional": to_network(nets.random_functional(0), (1, 4, 4)),
    "tanh": bent(Smooth("tanh"), Smooth("tanh")),
    "sigmoid": sigmoids(),
    "leaky": bent(LeakyRelu(0.1), LeakyRelu(0.1)),
    "steep": bent(LeakyRelu(3.0), LeakyRelu(0.5)),
    "pooled": pooled(),
    "mixed": bent(Smooth("tanh"), Relu(), LeakyRelu(2.0)),
    "gelu": bent(Smooth("gelu"), Smooth("sin")),
    "attention": curved.attention(0),
}
# There is nothing to raise in the first two, and little in the third.
PLAIN = {
    "affine": replace(chain((4,), [Linear(normal(3, 4), normal(3)), Scale(normal(3), normal(3))]), dtype=D),
    "steep alone": bent(LeakyRelu(3.0)),
    "layer norm": curved.normalised(0),
    "ends in an activation": bent(Relu(), Relu(), last=False),
    "ends in tanh": bent(Smooth("tanh"), last=False),
    "steps": bent(Step("round"), Step("sign")),
    "one after the other": replace(
        chain((4,), [Linear(normal(5, 4), normal(5)), Smooth("tanh"), Relu(), LeakyRelu(0.5)]), dtype=D
    ),
}
ALL = NETWORKS | PLAIN


def ball_about(network: Network, p: float, samples: int = 3, eps: float = 0.15) -> LpBall:
    centre = torch.rand(samples, *network.input_shape, generator=nets.generator(1))
    return LpBall(centre, eps if p == inf else 2 * eps, p, (0.0, 1.0))


def points(region: Region, samples: int, count: int = 100) -> Tensor:
    """Members of each sample's region: (samples x count x shape)."""
    members = [take(region, slice(i, i + 1)).sample(count, nets.generator(i)) for i in range(samples)]
    return torch.stack([f.reshape(count, *region.shape[1:]) for f in members]).double()


def objective(network: Network, samples: int, count: int = 5) -> Tensor:
    return normal(samples, count, network.output_size, seed=3)


def outputs(network: Network, x: Tensor, A: Tensor) -> Tensor:
    """The least value of each row at the points: (samples x rows)."""
    values = network(x.flatten(0, 1)).view(*x.shape[:2], -1)
    return (values @ A.mT).amin(1)


@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize("name", ALL)
def test_rows_are_true_and_no_worse_than_before(name: str, p: float) -> None:
    network = ALL[name]
    ball, A = ball_about(network, p), objective(network, 3)
    relaxed = layers.by_linear_bounds(network, ball, D)
    before, lowest = rows.lower_rows(relaxed, A, linear=True), raised.lower_rows(relaxed, A, ASCENT)
    assert bool((lowest >= before).all())
    assert bool((lowest <= outputs(relaxed.network, points(ball, 3), A) + 1e-9).all())
    if name in NETWORKS:
        assert bool((lowest > before + 1e-4).any()), "nothing is raised"


@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize("name", ALL)
def test_layers_are_true_and_tightened(name: str, p: float) -> None:
    network = ALL[name]
    ball = ball_about(network, p, eps=0.3)
    tightened: list[int] = []

    def further(relaxed: Relaxed, position: int, known: Bounds, wanted: Tensor) -> Bounds:
        tighter = raised.tighten(relaxed, position, known, wanted, ASCENT)
        assert tighter.lower.shape == known.lower.shape
        assert bool(((tighter.lower == known.lower) & (tighter.upper == known.upper))[~wanted].all())
        assert bool((tighter.lower >= known.lower).all() & (tighter.upper <= known.upper).all())
        tightened.append(int((tighter.lower > known.lower).sum() + (tighter.upper < known.upper).sum()))
        return tighter

    relaxed = layers.by_linear_bounds(network, ball, D, further=further)
    for values, bounds in zip(relaxed.network.values(points(ball, 3).flatten(0, 1)), relaxed.bounds, strict=True):
        value = values.view(3, -1, *values.shape[1:])
        slack = 1e-9 * (1 + value.abs().amax())
        assert bool((bounds.lower[:, None] <= value + slack).all())
        assert bool((value <= bounds.upper[:, None] + slack).all())
    assert name in (*PLAIN, "steep", "pooled") or sum(tightened) > 0


@given(st.integers(0, 10**6), st.booleans())
def test_graphs_of_any_wiring(seed: int, image: bool) -> None:
    network = random_graph(seed, image, more=True)
    lower, upper = random_box(network, seed)
    A = objective(network, 1)
    relaxed = layers.by_linear_bounds(network, Box(lower[None], upper[None]), D)
    lowest = raised.lower_rows(relaxed, A, ASCENT)
    assert bool((lowest >= rows.lower_rows(relaxed, A, linear=True)).all())
    assert bool(
        (lowest <= outputs(relaxed.network, members(lower, upper, 64)[None], A) + 1e-9 * (1 + lowest.abs())).all()
    )


@seeds(4, of=8)
def test_no_bound_passes_the_true_minimum(seeds: range) -> None:
    for seed in seeds:
        network = random_graph(seed, neurons=8, steps=7)
        box = Box(*random_box(network, seed + 1)).box()
        A = objective(network, 1, 2)
        relaxed = layers.by_linear_bounds(network, layers.batch_box(box, network.input_shape), D)
        for row, low in zip(A[0], raised.lower_rows(relaxed, A, ASCENT)[0].tolist(), strict=True):
            assert low <= exact.minimum(network, box, row) + 1e-9 * (1 + abs(low)), f"seed {seed}"


@pytest.mark.parametrize("name", ALL)
def test_rounding_is_charged_and_costs_next_to_nothing(name: str) -> None:
    network = ALL[name]
    relaxed = layers.by_linear_bounds(network, ball_about(network, inf), D)
    last, coef = len(network.nodes) - 1, objective(network, 3).flatten(0, 1)
    sample = torch.arange(3).repeat_interleave(5)
    raising = raised.Raising.of(relaxed, last)
    free = replace(raising, relaxed=replace(raising.relaxed, rounding=None)).lower(coef, sample, ASCENT)
    charged = raising.lower(coef, sample, ASCENT)
    assert bool((charged < free).all())
    steep = name in ("layer norm", "steps")  # what passes through steep lines counts for more
    assert bool((charged > free - (1e-6 if steep else 1e-9)).all())


@pytest.mark.parametrize("name", ["cnn", "tanh", "pooled"])
def test_little_memory_changes_nothing_but_the_last_digits_of_drafts(name: str) -> None:
    network = ALL[name]
    ball, A = ball_about(network, inf), objective(network, 3)
    plenty, little = (layers.by_linear_bounds(network, ball, D, Budget(memory=m)) for m in (1 << 30, 1))
    lowest = raised.lower_rows(little, A, ASCENT)
    torch.testing.assert_close(lowest, raised.lower_rows(plenty, A, ASCENT), rtol=DRAFTED, atol=DRAFTED)


@pytest.mark.parametrize("memory", [1, 10**5, 1 << 30])
@pytest.mark.parametrize("count", [0, 1, 7, 1200])
@pytest.mark.parametrize("least", [1, 2])
def test_chunks_cover_everything_once(memory: int, count: int, least: int) -> None:
    network = NETWORKS["mlp"]
    relaxed = layers.by_intervals(network, ball_about(network, inf), D, Budget(memory=memory))
    chunks = list(raised.chunks(relaxed, count * least, least))
    assert [i for c in chunks for i in range(count)[c]] == list(range(count))
    assert all(len(range(count)[c]) * least <= raised.MOST for c in chunks)


@pytest.mark.parametrize("p", [1, inf])
@pytest.mark.parametrize("name", ALL)
def test_a_batch_gives_what_single_samples_give(name: str, p: float) -> None:
    network = ALL[name]
    ball, A = ball_about(network, p), objective(network, 3)
    together = raised.lower_rows(layers.by_linear_bounds(network, ball, D), A, ASCENT)
    for i in range(3):
        relaxed = layers.by_linear_bounds(network, take(ball, slice(i, i + 1)), D)
        alone = raised.lower_rows(relaxed, A[i : i + 1], ASCENT)
        near = 5e-3 if name == "attention" else DRAFTED  # drafts of softmaxes in float32 go different ways
        torch.testing.assert_close(together[i : i + 1], alone, rtol=near, atol=near)


def test_balls_of_one_list_may_differ_in_their_radii() -> None:
    network = NETWORKS["mlp"]
    ball = ball_about(network, 2)
    ball = LpBall(ball.centre, torch.tensor([0.1, 0.2, 0.3]), 2, None)
    A = objective(network, 3)
    together = raised.lower_rows(layers.by_linear_bounds(network, ball, D), A, ASCENT)
    for i in range(3):
        one = LpBall(ball.centre[i : i + 1], float(torch.tensor([0.1, 0.2, 0.3])[i]), 2, None)
        alone = raised.lower_rows(layers.by_linear_bounds(network, one, D), A[i : i + 1], ASCENT)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=DRAFTED, atol=DRAFTED)


@pytest.mark.parametrize("p", [1, 2, inf])
def test_the_point_at_which_a_row_is_least_is_one(p: float) -> None:
    """In the region, but for rounding and the domain, and its value is the least."""
    network = NETWORKS["mlp"]
    ball = replace(ball_about(network, p, 5), domain=None)
    relaxed = layers.by_intervals(network, ball, D)
    region = raised.OwnRows.of(relaxed, {1: torch.zeros(5, 8, dtype=D)}, torch.arange(5)).region
    functions = slopes.Functions(normal(5, 4), normal(5, seed=1))
    x = region.minimiser(functions)
    torch.testing.assert_close((functions.coef * x).sum(1) + functions.constant, region.minimum(functions))
    assert bool((torch.linalg.vector_norm(x - ball.centre.double(), p, dim=1) <= float(ball.eps) + 1e-6).all())


def test_nothing_wanted_leaves_all_as_it_is() -> None:
    network = NETWORKS["mlp"]
    relaxed = layers.by_intervals(network, ball_about(network, inf), D)
    relaxed.bounds = relaxed.bounds[:3]
    known = relaxed.next()
    assert raised.tighten(relaxed, 3, known, torch.zeros_like(known.lower, dtype=torch.bool), ASCENT) is known


# Where drafts fail.


def test_what_float32_cannot_hold_keeps_the_lines_as_they_began() -> None:
    """Hidden values of 1e60, whose float32 is infinite: the bounds are those of the lines that do not move."""
    huge = Scale(torch.full((), 1e60, dtype=D), torch.zeros((), dtype=D))
    back = Scale(torch.full((), 1e-60, dtype=D), torch.zeros((), dtype=D))
    first, second = Linear(normal(8, 4), normal(8)), Linear(normal(8, 8), normal(8) * 1e60)
    last = Linear(normal(3, 8), normal(3))
    network = replace(chain((4,), [first, huge, Relu(), second, Relu(), back, last]), dtype=D)
    ball, A = ball_about(network, inf), objective(network, 3)
    relaxed = layers.by_linear_bounds(network, ball, D)
    before, lowest = rows.lower_rows(relaxed, A, linear=True), raised.lower_rows(relaxed, A, ASCENT)
    assert bool(before.isfinite().all())
    assert bool((lowest >= before).all())
    known = relaxed.bounds[4]
    here = replace(relaxed, bounds=relaxed.bounds[:4], lines={3: relaxed.lines[3]})
    met = raised.tighten(here, 4, known, (known.lower < 0) & (known.upper > 0), ASCENT)
    assert bool(((met.lower >= known.lower) & (met.upper <= known.upper)).all())


def test_raised_lines_without_bounds_take_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    network = NETWORKS["mlp"]
    relaxed, A = layers.by_linear_bounds(network, ball_about(network, inf), D), objective(network, 3)
    before, known = rows.lower_rows(relaxed, A, linear=True), relaxed.bounds[3]
    monkeypatch.setattr(raised.Raising, "lower", lambda self, coef, *rest: coef.new_full((len(coef),), nan))
    assert torch.equal(raised.lower_rows(relaxed, A, ASCENT), before)
    here = replace(relaxed, bounds=relaxed.bounds[:3], lines={2: relaxed.lines[2]})
    met = raised.tighten(here, 3, known, torch.ones_like(known.lower, dtype=torch.bool), ASCENT)
    assert torch.equal(met.lower, known.lower)
    assert torch.equal(met.upper, known.upper)


def test_what_has_no_bounds_gets_none() -> None:
    network = NETWORKS["mlp"]
    relaxed = layers.by_linear_bounds(network, ball_about(network, inf, 1), D)
    relaxed.bounds[1].upper[0, 2] = torch.nan
    relaxed.lines[2].intercept_gap[0, 2] = torch.nan
    lowest = raised.lower_rows(relaxed, objective(network, 1), ASCENT)
    assert not bool(lowest.isfinite().any())


# Time.


@pytest.mark.parametrize("rounds", [0, 1, 4])
@pytest.mark.parametrize("name", ["mlp", "mixed"])
def test_when_the_time_is_over_the_bounds_of_before_stand(
    name: str, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, A = NETWORKS[name], objective(NETWORKS[name], 3)
    relaxed = layers.by_linear_bounds(network, ball_about(network, inf), D, UNLIMITED)
    before = rows.lower_rows(relaxed, A, linear=True)
    climb, step = (kinks.Columns, "gradient") if name == "mlp" else (slopes.Climb, "functions")
    original = getattr(climb, step)
    calls: list[int] = []

    def counted(self: object, *rest: bool) -> object:
        calls.append(1)
        if len(calls) > rounds:
            raise Expired
        return original(self, *rest)

    monkeypatch.setattr(climb, step, counted)
    assert torch.equal(raised.lower_rows(relaxed, A, ASCENT), before)
    assert len(calls) == rounds + 1


def test_layers_are_not_begun_without_time() -> None:
    network = NETWORKS["mlp"]
    relaxed = layers.by_intervals(network, ball_about(network, inf), D)
    relaxed.bounds, relaxed.lines = relaxed.bounds[:3], {2: relaxed.lines[2]}
    known = relaxed.next()
    relaxed.budget = Budget(seconds=0).started()
    with pytest.raises(Expired):
        raised.tighten(relaxed, 3, known, torch.ones_like(known.lower, dtype=torch.bool), ASCENT)


# Rows that stop.


def climbed_rows(
    name: str, monkeypatch: pytest.MonkeyPatch, patience: int, steps: int = 40
) -> tuple[Tensor, list[int]]:
    """The least bounds of many rows, among them one of nothing, and how many of them were propagated each time."""
    network, many = NETWORKS[name], objective(NETWORKS[name], 3, 20)
    many[:, 0] = 0.0
    relaxed = layers.by_linear_bounds(network, ball_about(network, inf), D)
    counts: list[int] = []
    original, columns = raised.OwnRows._down, kinks.Columns.gradient

    def down(self: raised.OwnRows, rules: rows.RowRules) -> slopes.Functions:
        counts.append(len(self))
        return original(self, rules)

    def gradient(self: kinks.Columns, bounded: bool) -> tuple[Tensor, Tensor | None]:
        counts.append(len(self.constant))
        return columns(self, bounded)

    with monkeypatch.context() as patch:
        patch.setattr(raised, "PATIENCE", patience)
        patch.setattr(kinks, "PATIENCE", patience)
        patch.setattr(raised.OwnRows, "_down", down)
        patch.setattr(kinks.Columns, "gradient", gradient)
        return raised.lower_rows(relaxed, many, Ascent(steps, 0.4, 0.9)), counts


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "attention"])  # all of whose rows rise on
def test_rows_that_hardly_rise_are_not_raised_further(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped, counts = climbed_rows(name, monkeypatch, raised.PATIENCE)
    alone, whole = climbed_rows(name, monkeypatch, 1000)
    assert whole == [60] * 41, "without patience running out all rows are raised to the end"
    assert counts[0] == counts[-1] == 60, "the first and the proving time are of all rows"
    assert sum(counts) < 0.99 * sum(whole)
    assert counts[:-1] == sorted(counts[:-1], reverse=True)
    plain, _ = climbed_rows(name, monkeypatch, 1000, steps=0)
    assert float((alone - stopped).mean()) <= 0.02 * float((alone - plain).mean())
    assert bool((stopped[:, 0] <= 0).all())


@pytest.mark.parametrize("name", ["mlp", "resnet", "mixed"])
def test_where_a_row_stops_does_not_depend_on_the_others(name: str) -> None:
    network, many = NETWORKS[name], objective(NETWORKS[name], 3, 20)
    relaxed = layers.by_linear_bounds(network, ball_about(network, inf), D)
    ascent = Ascent(40, 0.4, 0.9)
    together = raised.lower_rows(relaxed, many, ascent)
    apart = torch.cat([raised.lower_rows(relaxed, many[:, i : i + 1], ascent) for i in range(20)], 1)
    close = (together - apart).abs() <= DRAFTED
    assert float(close.double().mean()) >= 0.9, "a last digit may decide where a row stops, but seldom does"
