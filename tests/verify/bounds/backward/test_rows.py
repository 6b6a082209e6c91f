"""Tests of backward.rows: the numbers of the other representation, sound on samples, with the right gradients."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from assay.verify.backends.alpha_crown import AlphaCROWN
from assay.verify.backends.crown import CROWN
from assay.verify.backends.crown_ibp import CROWNIBP
from assay.verify.bounds import layers
from assay.verify.bounds.backward import rows as rows_module
from assay.verify.bounds.backward.columns import lower_bound, over_region
from assay.verify.bounds.backward.forms import Form, Owners
from assay.verify.bounds.backward.group import Group
from assay.verify.bounds.backward.rows import Backward
from assay.verify.bounds.interval import propagate_box
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import Conv2d, LeakyRelu, Linear, Relu, Reshape, Scale
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.result import Verdict
from assay.verify.core.spec import Spec
from assay.verify.core.verifier import Bounds
from tests import nets
from tests.contract.graphs import members, random_box, random_graph


def boxes(network: Network, seed: int, samples: int = 3) -> Bounds:
    """A batch of boxes: (samples x input shape)."""
    pairs = [random_box(network, seed + i) for i in range(samples)]
    region = Box(torch.stack([low for low, _ in pairs]), torch.stack([high for _, high in pairs])).box()
    return Bounds(region.lower, region.upper)  # widened where no float32 lies inside, as the engine widens it


def rows(network: Network, seed: int, samples: int = 3) -> Tensor:
    """An objective: (samples x 2 x outputs)."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 2, network.output_size, dtype=torch.float64, generator=rng)


def lower_rows(network: Network, bounds: list[Bounds], objective: Tensor, linear: bool) -> Tensor:
    """As in training: without rounding, in the dtype of the bounds."""
    backward = Backward.of(Relaxed.over(network, bounds), objective)
    return backward.over_region() if linear else backward.to_activations().over_intervals()


def by_columns(network: Network, box: Bounds, objective: Tensor) -> Tensor:
    """The same rows over the same lines, by the other representation."""
    group = Group(layers.by_intervals(network, Box(box.lower, box.upper), torch.float64))
    for position, value in enumerate(group.relaxed.bounds[1:], start=1):
        group.enter(position, value)
    samples, count, outputs = objective.shape
    owners = Owners.of(torch.arange(samples).repeat_interleave(count), torch.float64)
    coef = objective.reshape(-1, outputs).T.contiguous()
    return lower_bound(group, len(network.nodes) - 1, Form(coef), owners).view(samples, count)


@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_the_bounds_are_sound_and_those_of_the_columns(seed: int, image: bool, linear: bool) -> None:
    network = random_graph(seed, image)
    box, objective = boxes(network, seed), rows(network, seed)
    bounds = lower_rows(network, propagate_box(network, box), objective, linear)
    if linear:
        torch.testing.assert_close(bounds, by_columns(network, box, objective), rtol=1e-9, atol=1e-9)
    for i in range(len(objective)):
        values = network(members(box.lower[i], box.upper[i], 32, seed)).flatten(1) @ objective[i].T
        assert bool((values >= bounds[i] - 1e-9 * (1 + values.abs())).all())


@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_with_rounding_charged_the_bounds_hold_and_are_hardly_lower(seed: int, image: bool, linear: bool) -> None:
    network = random_graph(seed, image, more=True)
    box, objective = boxes(network, seed), rows(network, seed)
    relaxed = layers.by_intervals(network, Box(box.lower, box.upper), torch.float64)
    charged = rows_module.lower_rows(relaxed, objective, linear)
    exact = lower_rows(network, relaxed.bounds, objective, linear)
    assert bool((charged <= exact + 1e-9).all() if not linear else True)
    assert bool((charged >= exact - 1e-6 * (1 + exact.abs())).all())


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([torch.float64, torch.float32]))
def test_rows_go_on_as_columns_with_the_same_charge(seed: int, image: bool, dtype: torch.dtype) -> None:
    """From the last activations down, over the same intervals: equal but for how sums are rounded, and below values."""
    network = random_graph(seed, image, more=True)
    box, objective = boxes(network, seed), rows(network, seed)
    relaxed = layers.by_intervals(network, Box(box.lower, box.upper), dtype)
    group = Group(relaxed)
    for position, value in enumerate(relaxed.bounds[1:], start=1):
        group.enter(position, value)
    down = partial(over_region, group)
    regular = rows_module.lower_rows(relaxed, objective, linear=True)
    columns = rows_module.lower_rows(relaxed, objective, linear=True, down=down)
    share = 1e-9 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(columns, regular, rtol=share, atol=share, equal_nan=True)
    for i in range(len(objective)):
        values = network(members(box.lower[i], box.upper[i], 32, seed)).flatten(1) @ objective[i].T
        slack = 1e-9 * (1 + values.abs())  # the values are rounded
        assert not bool((values < columns[i].double() - slack).any())


def test_what_rounding_takes_of_columns_is_subtracted() -> None:
    """Charged far more than is lost, rows lose as columns what they lose as they are."""
    network = to_network(nets.random_mlp(3, (4, 9, 9, 3)), (4,))
    box, objective = boxes(network, 41), rows(network, 41)
    relaxed = layers.by_intervals(network, Box(box.lower, box.upper), torch.float64)

    def entered() -> Group:
        group = Group(relaxed)
        for position, value in enumerate(relaxed.bounds[1:], start=1):
            group.enter(position, value)
        return group

    before = Backward.of(relaxed, objective).to_activations()
    free = over_region(entered(), before)
    assert relaxed.rounding is not None
    relaxed.rounding.lost = {i: 1e9 * t for i, t in relaxed.rounding.lost.items()}
    charged, regular = over_region(entered(), before), before.over_region()
    assert bool((charged < free - 1e-9).all())
    torch.testing.assert_close(charged, regular, rtol=1e-12, atol=1e-12)


def test_float32_gives_the_same_to_its_precision() -> None:
    network = random_graph(41, image=True)
    box, objective = boxes(network, 41), rows(network, 41)
    exact = lower_rows(network, propagate_box(network, box), objective, linear=True)
    small = Bounds(box.lower.float(), box.upper.float())
    single = network.to(torch.float32)
    ours = lower_rows(single, propagate_box(single, small), objective.float(), linear=True)
    assert ours.dtype is torch.float32
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("linear", [False, True])
def test_gradients_in_the_weights_are_those_of_finite_differences(linear: bool) -> None:
    rng = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=rng)

    box = Bounds(normal(2, 1, 5, 8), torch.empty(0))
    box = Bounds(box.lower, box.lower + 0.3)
    objective = normal(2, 2, 3)

    def bound(kernel: Tensor, bias: Tensor, factor: Tensor, weight: Tensor) -> Tensor:
        ops = [
            Conv2d(kernel, bias, stride=(2, 2), padding=(1, 0)),
            Scale(factor, bias[:, None, None]),
            Relu(),
            Conv2d(kernel.transpose(0, 1).flip(2), bias[:1]),
            LeakyRelu(0.1),
            Reshape((2,)),
            Linear(weight, weight[:, 0]),
        ]
        network = chain((1, 5, 8), ops)  # in float64 nothing is copied on the way
        return lower_rows(network, propagate_box(network, box), objective, linear)

    inputs = [normal(2, 1, 2, 3), normal(2), normal(2, 1, 1), normal(3, 2)]
    assert torch.autograd.gradcheck(bound, [t.requires_grad_() for t in inputs], atol=1e-6)


@pytest.mark.parametrize("p", [1, 2])
def test_gradients_over_balls_are_those_of_finite_differences(p: float) -> None:
    rng = torch.Generator().manual_seed(0)
    rows, centre = (torch.randn(*s, dtype=torch.float64, generator=rng) for s in ((2, 3, 4), (2, 4)))
    ball = LpBall(centre, 0.3, p, domain=None)
    assert torch.autograd.gradcheck(lambda r: rows_module.over_ball(r, ball), [rows.requires_grad_()])


def test_stable_neurons_and_points_have_finite_gradients() -> None:
    weight = torch.tensor([[1.0], [-1.0], [0.5]], requires_grad=True)
    bias = torch.tensor([5.0, -5.0, 0.0], requires_grad=True)
    built = chain((1,), [Linear(weight.detach(), bias.detach()), Relu()])
    nodes = (built.nodes[0], replace(built.nodes[1], op=Linear(weight, bias)), built.nodes[2])
    network = Network(nodes, dtype=torch.float32)
    for radius in (0.0, 0.5):
        box = Bounds(torch.tensor([[-radius]]), torch.tensor([[radius]]))
        total = lower_rows(network, propagate_box(network, box), 1e6 * torch.eye(3)[None], linear=True).sum()
        gradients = torch.autograd.grad(total, [weight, bias])
        assert all(bool(g.isfinite().all()) for g in gradients)


def test_rows_of_an_activation_are_charged_when_they_go_through_it_and_not_before() -> None:
    network = chain((2,), [Linear(torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)), Relu()])
    box = Box(-torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    relaxed = layers.by_intervals(network, box, torch.float64)
    totals = [Backward.at(relaxed, p, torch.ones(1, 1, 2, dtype=torch.float64)).total.item() for p in (1, 2)]
    assert totals[0] < -1e-16 < totals[1] <= 0  # but for what may underflow


@pytest.mark.parametrize("method", [CROWN(), CROWNIBP(), AlphaCROWN(steps=2)], ids=lambda method: method.name)
def test_what_is_asked_is_not_changed(method: CROWN | CROWNIBP | AlphaCROWN) -> None:
    """One row of one sample is its own transpose, and the last activation reads it as it was given."""
    network, low, high = chain((1,), [Relu()]), torch.tensor([[-1.0]]), torch.tensor([[1.0]])
    objective = torch.tensor([[[-3.0]]], dtype=torch.float64)
    method.lower(network, Box(low, high), objective, Budget())
    assert objective.item() == -3.0
    problem = Problem(network, Box(low[0], high[0]), Spec.halfspaces([[-3.0]], [-2.0]))
    assert method.verify(problem).verdict is Verdict.UNKNOWN
    assert problem.spec.A.item() == -3.0
