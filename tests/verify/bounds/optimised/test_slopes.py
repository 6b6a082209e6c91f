"""Tests of bounds.optimised.slopes: gradients by other means, lines that hold wherever they are moved, and ascents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from assay.verify.bounds import layers
from assay.verify.bounds.optimised import raised
from assay.verify.bounds.optimised.slopes import (
    Ascent,
    Climb,
    Functions,
    in_other_precision,
    raise_lines,
    values_on_lines,
)
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxations.parameters import Parameters, TouchingPoints, Turns, parameters
from assay.verify.bounds.relaxations.relax import relax
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.network import Network, chain
from assay.verify.core.ops import InverseSumExp, LeakyRelu, Linear, Max, Op, Product, Relu, Reshape, Smooth
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.core.verifier import Bounds
from tests.nets import generator, seeds
from tests.verify.bounds.test_curves import CURVES, ENDS, between, violation

D = torch.float64
SMOOTH = [Smooth(name) for name in ("tanh", "gelu", "sin", "softplus", "softsign")]
MOVABLE = [Relu(), LeakyRelu(0.0), LeakyRelu(0.1), Max(), *SMOOTH, Product(), InverseSumExp()]
NAN = float("nan")


def named(op: Op) -> str:
    return f"{op.label}({getattr(op, 'slope', '')})"


def network_of(op: Op, seed: int) -> Network:
    """Two layers of an activation between three of weights, 3 inputs and 2 outputs."""
    rng = generator(seed)

    def linear(inputs: int, outputs: int) -> Op:
        weight = torch.randn(outputs, inputs, dtype=D, generator=rng)
        return Linear(weight, torch.randn(outputs, dtype=D, generator=rng) / 2)

    operands = (2 if isinstance(op, Product) else 3) if op.several else 1
    ops: list[Op] = []
    for inputs in (3, 5):
        ops += [linear(inputs, 5 * operands), Reshape((5, operands)), op] if op.several else [linear(inputs, 5), op]
    return replace(chain((3,), [*ops, linear(5, 2)]), dtype=D)


def climb_of(op: Op, seed: int, ascent: Ascent, ball: bool = False, budget: Budget | None = None) -> Climb:
    """Both outputs of two samples, up and down: eight rows with lines of their own."""
    network = network_of(op, seed)
    centre = torch.randn(2, 3, dtype=D, generator=generator(seed + 1))
    region: Region = LpBall(centre, 0.7, 2, domain=None) if ball else Box(centre - 0.5, centre + 0.5)
    relaxed = layers.by_intervals(network, region, D)
    relaxed.budget = budget or Budget()
    coef = torch.cat([torch.eye(2, dtype=D), -torch.eye(2, dtype=D)]).repeat(2, 1)
    sample = torch.tensor([0, 1]).repeat_interleave(4)
    owners = raised.OwnRows.of(relaxed, {len(network.nodes) - 1: coef}, sample)
    return Climb(network, owners.backward, owners.region, owners.lines, owners.operands, ascent)


def strewn(moved: Parameters, rng: torch.Generator, size: float = 0.3) -> None:
    """Put the parameters somewhere else, where their lines hold."""
    for tensor in moved.tensors():
        tensor += size * torch.randn(tensor.shape, dtype=D, generator=rng).to(tensor)
    moved.keep()


def gradients(climb: Climb) -> dict[int, list[Tensor]]:
    """Of each row's bound, by the tensors of parameters at each position."""
    point = climb.region.minimiser(climb.functions())
    values = values_on_lines(climb.network, climb.lines, point, climb.seen)
    return {
        i: m.gradient(climb.seen[i], values[climb.network.nodes[i].inputs[0]].view_as(climb.operands[i].lower))
        for i, m in climb.free.items()
    }


def bound(climb: Climb) -> Tensor:
    """Of each row, by the parameters as they are: (rows)."""
    lines = {**climb.lines, **{i: m.into(climb.lines[i].map(torch.clone)) for i, m in climb.free.items()}}
    return climb.region.minimum(climb.backward(lines, {}))


def moved_climb(op: Op, seed: int, ball: bool) -> Climb:
    climb = climb_of(op, seed, Ascent(0, 0.1), ball)
    assert len(climb.free) == 2
    for position, moved in climb.free.items():
        strewn(moved.parameters, generator(seed + 2))
        climb.lines[position] = moved.into(climb.lines[position])
    return climb


def differences(gradient: Tensor, moved: Parameters) -> Tensor:
    """Weights below a maximum move against each other: what a gradient has in common for all of them is left out."""
    contested = getattr(moved, "contested", None)
    if contested is None:
        return gradient
    mean = (gradient * contested).sum(-1, keepdim=True) / contested.sum(-1, keepdim=True)
    centred: Tensor = (gradient - mean) * contested
    return centred


def free_to_move(moved: Parameters, tensor: Tensor) -> Tensor:
    """Which parameters are no constants, and not at an end of where their lines are the best of their slopes."""
    if isinstance(moved, TouchingPoints):
        side = moved.below if tensor is moved.low else moved.above
        return (side.first + 1e-4 < tensor) & (tensor < side.last - 1e-4)
    if isinstance(moved, Turns):  # beyond the ends other corners count
        return (tensor > 1e-4) & (tensor < 1 - 1e-4)
    return getattr(moved, "unstable", torch.ones(()))


@pytest.mark.parametrize("op", MOVABLE, ids=named)
@pytest.mark.parametrize("ball", [False, True], ids=["box", "ball"])
def test_gradients_are_those_of_autograd(op: Op, ball: bool) -> None:
    for seed in range(5):
        climb = moved_climb(op, 10 * seed, ball)
        ours = gradients(climb)
        for position, moved in climb.free.items():
            tensors = [t.requires_grad_() for t in moved.parameters.tensors()]
            theirs = torch.autograd.grad(bound(climb).sum(), tensors)
            for tensor, a, b in zip(tensors, ours[position], theirs, strict=True):
                tensor.requires_grad_(False)
                inside = free_to_move(moved.parameters, tensor)
                near = (
                    1e-9 if isinstance(op, (Relu, LeakyRelu, Max)) else 1e-6
                )  # intercepts of others leave room for rounding
                torch.testing.assert_close(
                    a * inside,
                    differences(b, moved.parameters) * inside,
                    rtol=near,
                    atol=near * (1 + float(a.abs().max())),
                )
            assert any(bool((g != 0).any()) for g in theirs), "nothing is compared"


@pytest.mark.parametrize("op", MOVABLE, ids=named)
@pytest.mark.parametrize("ball", [False, True], ids=["box", "ball"])
def test_gradients_are_finite_differences_of_the_bound(op: Op, ball: bool) -> None:
    step = 1e-6
    climb = moved_climb(op, 3, ball)
    ours = gradients(climb)
    for position, moved in climb.free.items():
        for tensor, gradient in zip(moved.parameters.tensors(), ours[position], strict=True):
            numeric = torch.zeros_like(tensor)
            for index in product(*(range(n) for n in tensor.shape[1:])):  # of all rows at once: they share nothing
                here: tuple[slice | int, ...] = (slice(None), *index)
                start = tensor[here].clone()
                tensor[here] = start + step
                above = bound(climb)
                tensor[here] = start - step
                numeric[here] = (above - bound(climb)) / (2 * step)
                tensor[here] = start
            numeric = differences(numeric, moved.parameters)
            inside = free_to_move(moved.parameters, tensor)
            gradient, numeric = gradient * inside, numeric * inside
            torch.testing.assert_close(gradient, numeric, rtol=1e-5, atol=1e-6)


# Lines that hold.


def anywhere(moved: Parameters, size: float, seed: int) -> None:
    """Parameters of any size, brought back to where their lines hold."""
    rng = generator(seed)
    for tensor in moved.tensors():
        tensor.copy_(size * torch.randn(tensor.shape, dtype=D, generator=rng))
    moved.keep()


CONVEX = [op for op in CURVES if getattr(op, "slope", 0.0) < 1]


@pytest.mark.parametrize("op", [Relu(), *CONVEX], ids=named)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_lines_hold_wherever_they_are_moved(op: Op, dtype: torch.dtype) -> None:
    pairs = [(a, b) for a in ENDS for b in ENDS if a <= b and (dtype == D or abs(a) < 1e30)]
    low, high = (torch.tensor([pair[k] for pair in pairs], dtype=dtype) for k in (0, 1))
    z = Bounds(low[:, None], high[:, None])
    for seed, size in enumerate((0.0, 1e-9, 0.3, 1.0, 10.0, 1e6, 1e30)):
        moved = parameters(op, relax(op, z), z)
        assert moved is not None
        anywhere(moved, size, seed)
        points = between(low, high)
        # A slope that is kept as a gap is off by as much as the larger slope: so much is charged for raised lines.
        slack = 8 * torch.finfo(dtype).eps * points.abs() if isinstance(op, Smooth) else 0.0
        worst = (violation(moved.lines(), op, points) - slack).amax(0)
        assert bool((worst <= 0).all()), [pairs[i] for i in (worst > 0).nonzero().flatten().tolist()][:5]


@given(seeds, st.integers(1, 5), st.sampled_from([0.0, 1e-9, 0.01, 1.0, 1e6]), st.sampled_from([0.0, 0.3, 1e3]))
def test_means_lie_below_a_maximum_wherever_they_are_moved(seed: int, operands: int, width: float, size: float) -> None:
    rng = generator(seed)
    low = torch.randn((7, 2, operands), generator=rng, dtype=D)
    high = low + width * torch.rand(low.shape, generator=rng, dtype=D)
    z = Bounds(low, high)
    moved = parameters(Max(), relax(Max(), z), z)
    assert moved is not None
    anywhere(moved, size, seed)
    lines = moved.lines()
    assert bool((lines.slope >= 0).all())
    torch.testing.assert_close(lines.slope.sum(-1), torch.ones(7, 2, dtype=D), rtol=1e-12, atol=0)
    for _ in range(20):
        share = torch.rand(low.shape, generator=rng, dtype=D).round(decimals=1)
        point = low + share * (high - low)
        value = point.amax(-1)
        slack = 1e-12 * (1 + point.abs().amax(-1))
        assert bool(((lines.slope * point).sum(-1) <= value + slack).all())
        assert bool((((lines.slope + lines.slope_gap) * point).sum(-1) + lines.intercept_gap >= value - slack).all())


@pytest.mark.parametrize("bad", [(NAN, 1.0), (-1.0, NAN), (NAN, NAN), (NAN, -1.0), (1.0, NAN)])
@pytest.mark.parametrize("op", [Relu(), *CONVEX, Max()], ids=named)
def test_nan_never_becomes_lines_that_decide(op: Op, bad: tuple[float, float]) -> None:
    ends = [torch.tensor([[end]], dtype=D) for end in bad]
    z = Bounds(*(t[..., None] for t in ends)) if isinstance(op, Max) else Bounds(*ends)
    if isinstance(op, Max) and not ends[1].isnan():
        return  # its lines hold whatever the lower bounds are
    moved = parameters(op, relax(op, z), z)
    assert moved is not None
    for size in (0.0, 1.0):
        anywhere(moved, size, 0)
        lines = moved.lines()
        base = torch.zeros_like(lines.intercept_gap) if lines.intercept is None else lines.intercept
        gap = lines.slope_gap[..., 0] if isinstance(op, Max) else lines.slope_gap
        assert not bool((gap + lines.intercept_gap + base).isfinite().any())


def test_a_concave_kink_has_no_lines_to_move() -> None:
    z = Bounds(-torch.ones(1, 2), torch.ones(1, 2))
    for slope in (1.0, 1.5, 50.0):
        assert parameters(LeakyRelu(slope), relax(LeakyRelu(slope), z), z) is None


@pytest.mark.parametrize("op", MOVABLE, ids=named)
@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
def test_a_draft_that_overflows_leaves_the_lines_as_they_began(op: Op, value: float) -> None:
    climb = climb_of(op, 0, Ascent(0, 0.1))
    for position, moved in climb.free.items():
        start, z = climb.lines[position], climb.operands[position]
        began = parameters(op, start, z)
        assert began is not None
        for tensor in moved.parameters.tensors():
            tensor.fill_(value)
        drafts = in_other_precision(climb.network, moved, start, z, position)
        for a, b in zip(_numbers(drafts), _numbers(began.lines()), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def _numbers(lines: Lines) -> list[Tensor]:
    intercept = [] if lines.intercept is None else [lines.intercept]
    return [lines.slope, lines.slope + lines.slope_gap, lines.intercept_gap, *intercept]


# The ascent.


@pytest.mark.parametrize("op", MOVABLE, ids=named)
@pytest.mark.parametrize("rate", [0.0, 0.1, 50.0])
def test_the_best_bound_is_never_below_that_of_the_start(op: Op, rate: float) -> None:
    for seed in range(3):
        start = raise_lines(climb_of(op, seed, Ascent(0, rate)), 0)
        best = raise_lines(climb_of(op, seed, Ascent(10, rate, 0.95)), 10)
        assert bool((best.bound >= start.bound).all())
        assert rate != 0.1 or bool((best.bound > start.bound + 1e-3).any()), "no line was raised"
        region = climb_of(op, seed, Ascent(0, rate)).region
        assert torch.equal(region.minimum(best.function), best.bound), "the function is not the one of the bound"


@pytest.mark.parametrize("op", MOVABLE, ids=named)
def test_every_bound_on_the_way_holds(op: Op) -> None:
    climb = climb_of(op, 7, Ascent(10, 0.5))
    centre = torch.randn(2, 3, dtype=D, generator=generator(8))
    x = centre[:, None] + torch.rand(2, 200, 3, dtype=D, generator=generator(9)) - 0.5
    outputs = climb.network(x.flatten(0, 1)).view(2, 200, 2)
    least = torch.cat([outputs.amin(1), (-outputs).amin(1)], 1).flatten()
    for step in range(1, 11):
        functions = climb.functions()
        assert bool((climb.region.minimum(functions) <= least + 1e-9).all())
        climb.move(functions, step)


def test_without_time_for_the_first_bounds_there_are_none() -> None:
    climb = climb_of(Relu(), 0, Ascent(5, 0.1), budget=Budget(seconds=0).started())
    with pytest.raises(Expired):
        raise_lines(climb, 5)


@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_when_the_time_is_over_midway_the_best_bound_stands(rounds: int) -> None:
    climb = climb_of(Relu(), 0, Ascent(20, 0.5))
    original = climb.backward
    met: list[Tensor] = []

    def backward(lines: Mapping[int, Lines], seen: dict[int, Tensor]) -> Functions:
        if len(met) == rounds:
            raise Expired
        functions = original(lines, seen)
        met.append(climb.region.minimum(functions))
        return functions

    climb.backward = backward
    best = raise_lines(climb, 20)
    assert len(met) == rounds
    assert torch.equal(best.bound, torch.stack(met).amax(0))


def test_without_lines_to_move_one_round_is_enough() -> None:
    climb = climb_of(LeakyRelu(2.0), 0, Ascent(20, 0.5))
    original = climb.backward
    calls: list[int] = []

    def backward(lines: Mapping[int, Lines], seen: dict[int, Tensor]) -> Functions:
        calls.append(1)
        return original(lines, seen)

    climb.backward = backward
    raise_lines(climb, 20)
    assert len(calls) == 1


def test_functions_are_least_at_their_corners() -> None:
    rng = generator(0)
    functions = Functions(torch.randn(4, 3, dtype=D, generator=rng), torch.randn(4, dtype=D, generator=rng))
    lower = torch.randn(4, 3, dtype=D, generator=rng)
    upper = lower + torch.rand(4, 3, dtype=D, generator=rng)
    corner = functions.corner(lower, upper)
    at_corner = functions.constant + (functions.coef * corner).sum(1)
    torch.testing.assert_close(functions.minimum(lower, upper), at_corner, rtol=1e-12, atol=1e-12)
    index = torch.tensor([2, 0])
    part = functions.take(index)
    assert torch.equal(part.minimum(lower[index], upper[index]), functions.minimum(lower, upper)[index])
