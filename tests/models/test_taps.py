"""TAPS and STAPS: where the network is cut, points within the boxes, the connector, and the losses of both parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.models import architectures, data, training
from assay.models.data import Dataset
from assay.models.training import Step, isolated
from assay.models.training.certified import Live, ball, worst_case
from assay.models.training.expressive import SABR
from assay.models.training.taps import STAPS, TAPS, after, connected, cut
from assay.verify.core.errors import InputError
from assay.verify.core.network import chain
from assay.verify.core.ops import Linear, Relu
from assay.verify.frontends.live import read_live


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """A small part of the training split."""
    return data.load("digits", "train").take(64)


def fresh(text: str = "cnn(channels=4-8,hidden=10,batchnorm=true)") -> nn.Module:
    with isolated(0):
        return architectures.parse(text).build((1, 8, 8), 10).train()


def at() -> Step:
    return Step(1.0, torch.Generator().manual_seed(0), (0.0, 1.0))


@pytest.mark.parametrize("tail", [1, 2, 3])
def test_the_parts_are_the_whole(tail: int, digits: Dataset) -> None:
    network, logits = read_live(fresh(), digits.x)
    position = cut(network, tail)
    assert len([node for node in network.nodes[position:] if isinstance(node.op, Relu)]) == tail
    torch.testing.assert_close(after(network, position, network.values(digits.x)[position]), logits)


def test_a_network_that_cannot_be_cut_is_refused(digits: Dataset) -> None:
    with pytest.raises(InputError, match="has 3 activations, and its tail should have 4"):
        TAPS(tail=4).loss(fresh(), digits.x, digits.y, at())
    residual, _ = read_live(fresh("resnet(channels=2)"), digits.x)
    cut(residual, 1)
    with pytest.raises(InputError, match="does not depend on their operand alone"):
        cut(residual, 2)


@pytest.mark.parametrize("tail", [1, 3])
def test_points_are_between_the_clean_ones_and_what_is_proven(tail: int, digits: Dataset) -> None:
    live = Live.read(fresh(), digits.x, digits.y)
    boxes = live.over(ball(digits.x, 0.1, (0.0, 1.0)))
    found = TAPS(tail=tail, steps=4).found(boxes, at())
    proven = boxes.margins(linear=False)
    assert bool((found >= proven - 1e-4).all())
    assert torch.equal(found.gather(1, digits.y[:, None]), torch.zeros(len(digits), 1))
    clean = live.logits.gather(1, digits.y[:, None]) - live.logits
    assert (found < clean).float().mean() > 0.8


def test_one_step_finds_the_worst_corner_of_a_linear_tail() -> None:
    """One activation that is always active: the tail is linear, and its minimum over a box that of intervals."""
    weight = torch.tensor([[1.0, -2.0], [3.0, 1.0], [0.0, 1.0]])
    network = chain((2,), [Linear(torch.eye(2), torch.tensor([9.0, 9.0])), Relu(), Linear(weight, torch.zeros(3))])
    x = torch.tensor([[0.3, 0.4], [0.1, 0.9]], dtype=torch.float64)
    live = Live(network, network(x), torch.tensor([0, 2]))
    boxes = live.over(ball(x, 0.2, (-5.0, 5.0)))
    torch.testing.assert_close(TAPS().found(boxes, at()), boxes.margins(linear=False))


def test_the_connector_moves_points_with_the_near_side() -> None:
    lower, upper = (torch.tensor([[value] * 5], requires_grad=True) for value in (1.0, 3.0))
    share = torch.tensor([[0.0, 0.25, 0.5, 0.9, 1.0]])
    point = connected(lower, upper, share)
    torch.testing.assert_close(point, 1 + 2 * share)
    of_lower, of_upper = torch.autograd.grad(point.sum(), (lower, upper))
    torch.testing.assert_close(of_lower, torch.tensor([[1.0, 0.5, 0.0, 0.0, 0.0]]))
    torch.testing.assert_close(of_upper, torch.tensor([[0.0, 0.0, 0.0, 0.8, 1.0]]))


def test_the_gradient_weighs_both_losses(digits: Dataset) -> None:
    model = fresh()

    def gradients(weight: float) -> list[torch.Tensor]:
        loss, _ = TAPS(weight=weight).mixture(Live.read(model, digits.x, digits.y), digits.x, 0.05, at())
        return list(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True))

    alone, even, most = gradients(0.0), gradients(1.0), gradients(1e9)
    for a, b, both in zip(alone, most, even, strict=True):
        torch.testing.assert_close(both, (a + b) / 2, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(alone[0], most[0])


def test_without_an_attack_in_the_ball_the_boxes_are_whole(digits: Dataset) -> None:
    live = Live.read(fresh(), digits.x, digits.y)
    whole = live.over(ball(digits.x, 0.05, (0.0, 1.0)))
    loss, boxes = TAPS(weight=0.0).mixture(live, digits.x, 0.05, at())
    assert torch.equal(boxes.bounds[0].lower, whole.bounds[0].lower)
    by_points = worst_case(TAPS().found(whole, at()), digits.y)
    torch.testing.assert_close(loss, 2 * worst_case(whole.margins(linear=False), digits.y) * by_points)
    small, ours = (recipe.small(live, digits.x, 0.05, at()) for recipe in (SABR(tau=0.3), STAPS(tau=0.3)))
    assert torch.equal(ours.bounds[0].upper, small.bounds[0].upper)


def test_options_that_mean_nothing_are_refused() -> None:
    for text, message in (("taps(tail=0)", "tail >= 1"), ("staps(weight=-1)", "weight >= 0"), ("staps(tau=2)", "tau")):
        with pytest.raises(InputError, match=message):
            training.recipe(text)
