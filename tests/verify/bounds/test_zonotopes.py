"""Tests of verify.bounds.zonotopes: values lie inside, what is exact, little room, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from assay.verify.bounds import layers, zonotopes
from assay.verify.bounds.backward.group import Group
from assay.verify.bounds.backward.waists import Sides
from assay.verify.bounds.layers import batch_box, by_intervals, by_linear_bounds
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.bounds.zonotopes import Zonotopes, products_of_a_row
from assay.verify.core.budget import UNLIMITED, Budget, Expired
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import Conv2d, Linear, Op, Relu, Smooth, evaluate
from assay.verify.core.region import Box
from assay.verify.core.verifier import Bounds
from tests import nets
from tests.contract.graphs import members, random_box, random_graph

D, F = torch.float64, torch.float32


def carried(network: Network, box: Box, dtype: torch.dtype, budget: Budget = UNLIMITED) -> tuple[Relaxed, list[Bounds]]:
    """The network on intervals, and what a zonotope about these knows of each node, from one to the next."""
    relaxed = by_intervals(network, batch_box(box, network.input_shape), dtype, budget)
    zonotope = Zonotopes.of(relaxed)
    assert zonotope is not None
    return relaxed, [zonotope.bounds(position) for position in range(1, len(network.nodes))]


def contained(value: Tensor, bounds: Bounds) -> bool:
    """Up to what float64 loses in the value itself."""
    slack = 1e-12 * (1 + value.abs().amax())
    return bool(((bounds.lower.double() <= value + slack) & (value <= bounds.upper.double() + slack)).all())


@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([D, F]))
def test_values_lie_inside(seed: int, image: bool, dtype: torch.dtype) -> None:
    network = random_graph(seed, image, more=True)
    lower, upper = random_box(network, seed)
    _, bounds = carried(network, Box(lower, upper), dtype)
    for value, known in zip(network.values(members(lower, upper, 64))[1:], bounds, strict=True):
        assert contained(value, known)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.booleans())
def test_what_has_no_room_goes_into_the_rest_and_values_lie_inside_still(seed: int, image: bool) -> None:
    network = random_graph(seed, image, more=True)
    lower, upper = random_box(network, seed)
    little = Budget(memory=8 * max(node.size for node in network.nodes))
    _, bounds = carried(network, Box(lower, upper), D, little)
    for value, known in zip(network.values(members(lower, upper, 64))[1:], bounds, strict=True):
        assert contained(value, known)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.booleans())
def test_how_far_it_is_carried_at_a_time_changes_nothing(seed: int, image: bool) -> None:
    network = random_graph(seed, image, more=True)
    relaxed, bounds = carried(network, Box(*random_box(network, seed)), D)
    at_once = Zonotopes.of(relaxed)
    assert at_once is not None
    last = at_once.bounds(len(network.nodes) - 1) if len(network.nodes) > 1 else None
    if last is not None:
        torch.testing.assert_close(last.lower, bounds[-1].lower, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(last.upper, bounds[-1].upper, rtol=1e-9, atol=1e-9)


def test_where_nothing_is_unstable_it_is_exact() -> None:
    """x + 3 and x - 3 are stable on [-1, 1]: relu(x + 3) - x is 3, where intervals say 1 to 5."""
    ops = [
        Linear(torch.tensor([[1.0], [1.0]]), torch.tensor([3.0, -3.0])),
        Relu(),
        Linear(torch.tensor([[1.0, 1.0], [-1.0, 5.0]]), torch.tensor([0.5, 1.0])),
    ]
    _, bounds = carried(chain((1,), ops), Box(-torch.ones(1), torch.ones(1)), D)
    torch.testing.assert_close(bounds[-1].lower, torch.tensor([[2.5, -3.0]], dtype=D), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(bounds[-1].upper, torch.tensor([[4.5, -1.0]], dtype=D), rtol=1e-12, atol=1e-12)


def test_an_unstable_neuron_is_between_its_chord_and_a_parallel() -> None:
    """relu(x) on [-1, 3] is 0.75 x + 0.375 +- 0.375; of relu(x) - 0.75 x the parallels are left."""
    ops = [
        Linear(torch.tensor([[1.0], [1.0]]), torch.tensor([0.0, 10.0])),
        Relu(),
        Linear(torch.tensor([[1.0, -0.75]]), torch.tensor([7.5])),
    ]
    _, bounds = carried(chain((1,), ops), Box(torch.tensor([-1.0]), torch.tensor([3.0])), D)
    assert bounds[1].lower[0, 0].item() == pytest.approx(-0.75)
    assert bounds[1].upper[0, 0].item() == pytest.approx(3.0)
    assert (bounds[-1].lower.item(), bounds[-1].upper.item()) == pytest.approx((0.0, 0.75))


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.booleans())
def test_with_it_the_bounds_of_layers_hold_and_are_inside_of_intervals(seed: int, image: bool) -> None:
    network = random_graph(seed, image, more=True)
    lower, upper = random_box(network, seed)
    region = batch_box(Box(lower, upper), network.input_shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Zonotopes, "pays", lambda self, position, rows: True)
        tight = by_linear_bounds(network, region, D).bounds
    loose = by_intervals(network, region, D).bounds
    for value, wide, narrow in zip(network.values(members(lower, upper, 64)), loose, tight, strict=True):
        slack = 1e-9 * (1 + value.abs().amax())
        assert contained(value, narrow)
        assert bool(((narrow.lower >= wide.lower - slack) & (narrow.upper <= wide.upper + slack)).all())


def test_it_is_used_where_many_rows_would_go_far_down() -> None:
    network = to_network(nets.random_mlp(0, (2, *[60] * 6, 3)), (2,))
    box = batch_box(Box(torch.full((2,), 0.2), torch.full((2,), 0.4)), (2,))

    def carried_to(dear: float, faster: float) -> int:
        at = [0]
        bounds = Zonotopes.bounds

        def noted(self: Zonotopes, position: int) -> Bounds:
            at.append(position)
            return bounds(self, position)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Zonotopes, "bounds", noted)
            patch.setattr(zonotopes, "DEAR", dear)
            patch.setattr(zonotopes, "FASTER", faster)
            by_linear_bounds(network, box, D)
        return max(at)

    assert carried_to(0, 3.0) > 6
    assert carried_to(0, 1e-9) == carried_to(1e9, 3.0) == 0


def test_what_it_has_no_rule_for_goes_without() -> None:
    curved = chain((2,), [Linear(torch.eye(2), torch.zeros(2)), Smooth("tanh")])
    box = Box(torch.zeros(1, 2), torch.ones(1, 2))
    assert isinstance(curved.nodes[-1].op, Smooth)
    assert Zonotopes.of(by_intervals(curved, box, D)) is None
    several = Box(torch.zeros(2, 2), torch.ones(2, 2))
    assert Zonotopes.of(by_intervals(chain((2,), [Relu()]), several, D)) is None


@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
@pytest.mark.parametrize(("padding", "dilation"), [((0, 0), (1, 1)), ((2, 1), (1, 2)), ((1, 2), (2, 1))])
def test_a_convolution_of_many_images_is_the_convolution(
    stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> None:
    drawn = torch.Generator().manual_seed(0)
    images, weight = (torch.randn(shape, dtype=D, generator=drawn) for shape in ((5, 3, 8, 7), (4, 3, 3, 2)))
    op = Conv2d(weight, torch.zeros(4, dtype=D), stride, padding, dilation)
    expected = evaluate(op, images)
    torch.testing.assert_close(zonotopes._convolved(op, images, tuple(expected.shape[1:])), expected)


def test_the_time_is_asked_at_each_node() -> None:
    network = to_network(nets.random_mlp(0, (2, 20, 20, 3)), (2,))
    relaxed = by_intervals(network, batch_box(Box(torch.zeros(2), torch.ones(2)), (2,)), D)
    zonotope = Zonotopes.of(relaxed)
    assert zonotope is not None
    relaxed.budget = Budget(seconds=0).started()
    with pytest.raises(Expired):
        zonotope.bounds(len(network.nodes) - 1)


def test_products_of_a_row_are_counted_on_windows() -> None:
    mlp = to_network(nets.random_mlp(0, (3, 7, 5, 2)), (3,))
    last = len(mlp.nodes) - 1
    assert products_of_a_row(mlp, last) == 7 * 4 + 5 * 8 + 2 * 6
    first = layers.feeds(mlp)
    assert min(products_of_a_row(mlp, i) for i in first) == 7 * 4


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_has_no_room_grows_as_lengths_do(seed: int) -> None:
    """Through many dense layers, all neurons of the first of which are in the rest; values lie inside."""
    network = to_network(nets.random_mlp(seed, (3, *[60] * 6, 2)), (3,))
    box = Box(torch.full((3,), 0.1), torch.full((3,), 0.4))
    little = Budget(memory=8 * 60 * 4)
    _, bounds = carried(network, box, D, little)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zonotopes, "stretch", lambda op, shape: None)
        _, boxes = carried(network, box, D, little)
    for value, known in zip(network.values(members(box.lower, box.upper, 256))[1:], bounds, strict=True):
        assert contained(value, known)
    widths = [float((each[-1].upper - each[-1].lower).amax()) for each in (bounds, boxes)]
    assert widths[0] < 0.5 * widths[1]


def test_what_is_unsure_is_what_lines_leave() -> None:
    """relu(x) on [-1, 3] is 0.75 x + 0.375 +- 0.375, x being 1 +- 2; x + 10 is sure."""
    network = chain((1,), [Linear(torch.tensor([[1.0], [1.0]]), torch.tensor([0.0, 10.0])), Relu()])
    relaxed = by_intervals(network, Box(torch.tensor([[-1.0]]), torch.tensor([[3.0]])), D)
    zonotope = Zonotopes.of(relaxed)
    assert zonotope is not None
    for position, expected in enumerate(([0.0, 0.0], [0.2, 0.0]), start=1):
        zonotope.bounds(position)
        torch.testing.assert_close(zonotope.unsure(), torch.tensor([expected], dtype=D), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_rows_go_down_only_where_they_can_narrow_it_by_much(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = to_network(nets.random_mlp(seed, (3, *[30] * 4, 2)), (3,))
    box = Box(torch.full((1, 3), 0.1), torch.full((1, 3), 0.25))
    rows, lowest = [0], layers.lowest
    monkeypatch.setattr(Zonotopes, "pays", lambda self, position, rows: True)

    def counted(group: Group, position: int, sides: Sides, readers: Sequence[Op]) -> Tensor:
        rows[0] += len(sides.sample)
        return lowest(group, position, sides, readers)

    monkeypatch.setattr(layers, "lowest", counted)

    asked, width = [], []
    for unsure in (0.0, 0.25, 1.0):
        rows[0] = 0
        monkeypatch.setattr(layers, "UNSURE", unsure)
        bounds = by_linear_bounds(replace(network), box, D).bounds
        asked.append(rows[0])
        width.append(float((bounds[-1].upper - bounds[-1].lower).amax()))
        for value, known in zip(network.values(members(box.lower[0], box.upper[0], 256)), bounds, strict=True):
            assert contained(value, known)
    assert asked[0] > asked[1] > asked[2] == 0
    assert width[0] <= width[1] + 1e-9 <= width[2] + 2e-9
