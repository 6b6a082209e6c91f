"""Tests of bounds.backward.waists: where rows stop, and that what they leave behind is a bound."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from assay.verify.bounds import layers
from assay.verify.bounds.backward import waists
from assay.verify.bounds.backward.forms import AnyForm, Owners
from assay.verify.bounds.backward.group import Group
from assay.verify.bounds.layers import batch_box, by_linear_bounds
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.budget import Budget
from assay.verify.core.network import Builder, Network
from assay.verify.core.ops import Add, LeakyRelu, Linear, Relu, Smooth, Step
from assay.verify.core.region import Box
from tests.breadth import slow
from tests.contract.graphs import members, random_box, random_graph


def dense(seed: int, outputs: int, inputs: int) -> Linear:
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, dtype=torch.float64, generator=g) / inputs**0.5
    return Linear(weight, torch.randn(outputs, dtype=torch.float64, generator=g))


def residual() -> Network:
    """A layer, two blocks with shortcuts, and a layer: (input 0, 1, relu 2, 3, relu 4, 5, sum 6, relu 7, ...)."""
    b = Builder((3,))
    x = b.add(Relu(), b.add(dense(0, 8, 3), 0))
    for block in range(2):
        inner = b.add(Relu(), b.add(dense(2 * block + 1, 8, 8), x))
        x = b.add(Relu(), b.add(Add(), b.add(dense(2 * block + 2, 8, 8), inner), x))
    return b.build(b.add(dense(9, 4, 8), x))


@pytest.mark.parametrize(("position", "expected"), [(3, []), (5, [1]), (6, [1]), (8, [1]), (11, [6, 1]), (13, [6, 1])])
def test_waists_are_where_all_paths_meet(position: int, expected: list[int]) -> None:
    assert waists.waists(residual().nodes, position) == expected


def dear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound all layers as dear ones, and look at rows wherever they meet."""
    monkeypatch.setattr(layers, "DEAR", 0)
    monkeypatch.setattr(waists, "DEAR", 0)


def relaxed(network: Network, lower: Tensor, upper: Tensor, memory: int = 1 << 30) -> Relaxed:
    region = batch_box(Box(lower, upper), network.input_shape)
    return by_linear_bounds(replace(network), region, torch.float64, Budget(memory=memory))


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2, *map(slow, range(3, 40))])
def test_values_lie_inside_wherever_rows_stop(seed: int, image: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    dear(monkeypatch)
    network = random_graph(seed, image)
    lower, upper = random_box(network, seed)
    bounds = relaxed(network, lower, upper).bounds
    for value, box in zip(network.values(members(lower, upper, 64)), bounds, strict=True):
        slack = 1e-9 * (1 + value.abs().amax())
        assert bool((box.lower <= value + slack).all())
        assert bool((value <= box.upper + slack).all())


@pytest.mark.parametrize("activation", [Relu(), LeakyRelu(0.1), Step("sign"), Smooth("tanh")], ids=repr)
@pytest.mark.parametrize("seed", [0, 1])
def test_rows_that_stop_are_those_that_settle(activation: Relu, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer that is bounded backwards keeps the bounds that it had where it is unsettled, or better ones; no
    neuron that was settled is not; and chunks change nothing."""
    b = Builder((4,))
    x = 0
    for k, (inputs, outputs) in enumerate(((4, 12), (12, 12), (12, 40))):
        x = b.add(dense(10 * seed + k, outputs, inputs), x)
        x = x if k == 2 else b.add(activation, x)
    last = b.add(activation, x)
    network = b.build(last)
    lower, upper = -0.3 * torch.ones(4, dtype=torch.float64), 0.3 * torch.ones(4, dtype=torch.float64)
    plain = relaxed(network, lower, upper).bounds[3]
    dear(monkeypatch)
    stopped, chunked = relaxed(network, lower, upper), relaxed(network, lower, upper, memory=1)
    here = stopped.bounds[3]
    still = torch.zeros(12, dtype=torch.bool)
    still[waists.unsettled([activation], type(here)(here.lower[0], here.upper[0]))] = True
    was = torch.zeros(12, dtype=torch.bool)
    was[waists.unsettled([activation], type(here)(plain.lower[0], plain.upper[0]))] = True
    assert bool((was | ~still).all())
    assert bool((here.lower[0] >= plain.lower[0] - 1e-9)[still].all())
    assert bool((here.upper[0] <= plain.upper[0] + 1e-9)[still].all())
    for a, c in zip(stopped.bounds, chunked.bounds, strict=True):
        torch.testing.assert_close(a.lower, c.lower, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(a.upper, c.upper, rtol=1e-9, atol=1e-9)


def test_settled_neurons_go_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neurons that the layer below settles do not reach the input, and are settled all the same."""
    b = Builder((4,))
    x = b.add(Relu(), b.add(dense(0, 8, 4), 0))
    x = b.add(Relu(), b.add(dense(1, 8, 8), x))
    network = b.build(b.add(Relu(), b.add(dense(2, 60, 8), x)))
    box = -0.1 * torch.ones(4, dtype=torch.float64), 0.1 * torch.ones(4, dtype=torch.float64)
    dear(monkeypatch)
    ended: list[int] = []
    to_input = waists.lower_bound

    def counted(group: Group, here: int, form: AnyForm, owners: Owners, total: Tensor) -> Tensor:
        ended.append(len(total))
        return to_input(group, here, form, owners, total)

    monkeypatch.setattr(waists, "lower_bound", counted)
    early = relaxed(network, *box).bounds[5]
    some = sum(ended)
    ended.clear()
    monkeypatch.setattr(waists, "stops", lambda group, position: [])
    late = relaxed(network, *box).bounds[5]
    assert some < sum(ended)
    assert torch.equal(waists.unsettled([Relu()], early), waists.unsettled([Relu()], late))
