"""Tests of verify.bounds.colours: what depends on a place, and symbols side by side are those of an image each."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from assay.verify.bounds import zonotopes
from assay.verify.bounds.colours import Colours, Reach, reaches, side_by_side
from assay.verify.bounds.layers import batch_box, by_intervals
from assay.verify.bounds.zonotopes import Zonotopes
from assay.verify.core.network import Builder, Network
from assay.verify.core.ops import Add, Conv2d, Linear, Relu, Scale, evaluate
from assay.verify.core.region import Box
from assay.verify.core.verifier import Bounds
from tests.breadth import slow
from tests.contract.graphs import members, random_box, random_graph

D = torch.float64


def conv(g: torch.Generator, into: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> Conv2d:
    weight = torch.randn(out, into // groups, kernel, kernel, dtype=D, generator=g) / kernel
    bias = torch.randn(out, dtype=D, generator=g)
    return Conv2d(weight, bias, (stride, stride), (kernel // 2, kernel // 2), (1, 1), groups)


def residual(seed: int, side: int = 13) -> Network:
    """Convolutions, pooling, and a block with a shortcut of stride 2."""
    g = torch.Generator().manual_seed(seed)
    b = Builder((2, side, side))
    x = b.add(Relu(), b.add(conv(g, 2, 3, 3), 0))
    x = b.add(Scale(torch.randn(3, 1, 1, dtype=D, generator=g), torch.randn((), dtype=D, generator=g)), x)
    y = b.add(Relu(), b.add(conv(g, 3, 4, 3, 2), x))
    y = b.add(Relu(), b.add(Add(), b.add(conv(g, 4, 4, 3), y), b.add(conv(g, 3, 4, 1, 2), x)))
    y = b.add(conv(g, 4, 4, 2, 2, 2), y)
    return b.build(b.add(conv(g, 4, 2, 3), y))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_depends_on_a_place_is_within_its_reach_and_its_ends_are(seed: int) -> None:
    """Derivatives along all paths, with magnitudes of weights, so that none cancel."""
    network = residual(seed)
    windows = reaches(network.nodes, 0)
    assert set(windows) == set(range(len(network.nodes)))
    images = torch.eye(13 * 13, dtype=D).view(-1, 1, 13, 13).repeat(1, 2, 1, 1)
    values = [images]
    for node in network.nodes[1:]:
        op, read = node.op, [values[i] for i in node.inputs]
        if isinstance(op, Conv2d):
            op = Conv2d(op.weight.abs(), torch.zeros_like(op.bias), op.stride, op.padding, op.dilation, op.groups)
        values.append(read[0] if isinstance(op, Scale) else evaluate(op, *read))
    for position, (vertical, horizontal) in windows.items():
        depends = (values[position] > 0).any(1).view(13, 13, *network.nodes[position].shape[1:])
        within = vertical.inside[:, None, :, None] & horizontal.inside[None, :, None, :]
        assert not bool((depends & ~within).any())
        assert bool((depends.any(1).any(2) == vertical.inside).all())


@given(*[st.integers(1, 4)] * 2, st.integers(0, 3), st.integers(1, 2), st.integers(5, 12))
def test_places_at_their_distance_reach_nothing_together(
    kernel: int, stride: int, padding: int, dilation: int, size: int
) -> None:
    out = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    if out < 1:
        return
    reach = Reach.itself(size).through(kernel, stride, padding, dilation, out)
    for distance in range(reach.distance, size + 1):
        owners = reach.owners(distance)
        for colour in range(distance):
            inside = reach.inside[colour::distance]
            assert bool((inside.sum(0) <= 1).all())
            assert torch.equal(inside.any(0), owners[colour] >= 0)
            place = torch.where(owners[colour] >= 0, owners[colour] - colour, 0)
            assert bool((place % distance == 0).all())


def test_operations_that_are_no_windows_end_it() -> None:
    """A dense layer along the last axis mixes places; so does what is added to it, or reads it."""
    g = torch.Generator().manual_seed(0)
    b = Builder((2, 5, 5))
    x = b.add(conv(g, 2, 2, 3), 0)
    mixed = b.add(Linear(torch.ones(5, 5, dtype=D), torch.zeros(5, dtype=D)), x)
    both = b.add(Add(), mixed, x)
    other = b.add(Relu(), x)
    last = b.add(conv(g, 2, 2, 3), both)
    network = b.build(b.add(Add(), other, last))
    assert set(reaches(network.nodes, 0)) == {0, x, other}
    assert set(reaches(network.nodes, mixed)) == {mixed, both, last, last + 1}


def test_symbols_of_one_place_are_in_different_images() -> None:
    features = torch.tensor([0, 1, 2, 6, 7, 12])  # of an image of 3 x 2 x 3: places 0, 1, 2, 0, 1, 0
    beside, rest = side_by_side((3, 2, 3), features, 2)
    assert [some.tolist() for _, some in beside] == [[0, 1, 2], [6, 7]]
    assert rest.tolist() == [12]
    assert [(c.y.tolist(), c.x.tolist()) for c, _ in beside] == [([0, 0, 0], [0, 1, 2]), ([0, 0], [0, 1])]


def test_symbols_keep_their_coefficients_when_they_move_apart() -> None:
    """From every distance to every larger one, and to an image each."""
    reach = Reach.itself(6).through(2, 1, 0, 1, 5)
    place = torch.arange(36)
    window = reach, reach
    each = torch.randn(36, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    each = each * reach.inside[place // 6][:, None, :, None] * reach.inside[place % 6][:, None, None, :]

    def images(distance: tuple[int, int]) -> tuple[Colours, Tensor]:
        number = place // 6 % distance[0] * distance[1] + place % 6 % distance[1]
        made = torch.zeros(distance[0] * distance[1], 2, 5, 5).index_add_(0, number, each)
        return Colours(place // 6, place % 6, distance), made

    for near in ((2, 2), (2, 3), (4, 2), (6, 6)):
        colours, made = images(near)
        torch.testing.assert_close(colours.apart(made, window, place[5:20]), each[5:20])
        for far in ((4, 5), (6, 3), (6, 6)):
            if far[0] >= near[0] and far[1] >= near[1]:
                new, expected = images(far)
                torch.testing.assert_close(colours.spread(made, window, new), expected)


def carried(network: Network, box: Box, dtype: torch.dtype, beside: int, hold: bool) -> tuple[list[Bounds], int]:
    """Bounds of all nodes by zonotopes, of which symbols stay side by side if they are so many, and how many images
    these took; ``hold``: all is carried at once."""
    relaxed = by_intervals(network, batch_box(box, network.input_shape), dtype)
    last, multiplied = len(network.nodes) - 1, [0]
    made = Zonotopes._made

    def counted(self: Zonotopes, position: int, parts: list[Tensor | None], line: zonotopes.Line | None) -> Tensor:
        images = made(self, position, parts, line)
        multiplied[0] += len(images)
        return images

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zonotopes, "BESIDE", beside)
        patch.setattr(Zonotopes, "_made", counted)
        zonotope = Zonotopes.of(relaxed)
        assert zonotope is not None
        return [zonotope.bounds(i) for i in ([last] if hold else range(1, last + 1))], multiplied[0]


@pytest.mark.parametrize("seed", [0, 1, *map(slow, range(2, 20))])
@pytest.mark.parametrize("hold", [False, True])
def test_side_by_side_is_as_one_by_one_and_takes_fewer_images(seed: int, hold: bool) -> None:
    network = residual(seed)
    g = torch.Generator().manual_seed(seed)
    lower = torch.rand(2, 13, 13, dtype=D, generator=g)
    width = 0.1 * torch.rand(2, 13, 13, dtype=D, generator=g).round()  # some inputs have no symbol
    one, images = carried(network, Box(lower, lower + width), D, 10**6, hold)
    beside, fewer = carried(network, Box(lower, lower + width), D, 8, hold)
    assert fewer < 0.7 * images
    for a, b in zip(one, beside, strict=True):
        torch.testing.assert_close(a.lower, b.lower, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(a.upper, b.upper, rtol=1e-9, atol=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([D, torch.float32]))
def test_values_lie_inside_on_graphs_of_every_wiring(seed: int, dtype: torch.dtype) -> None:
    network = random_graph(seed, True, more=True)
    lower, upper = random_box(network, seed)
    bounds, _ = carried(network, Box(lower, upper), dtype, 1, False)
    for value, known in zip(network.values(members(lower, upper, 64))[1:], bounds, strict=True):
        slack = 1e-12 * (1 + value.abs().amax())
        assert bool(((known.lower.double() <= value + slack) & (value <= known.upper.double() + slack)).all())
