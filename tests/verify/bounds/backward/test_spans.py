"""Tests of bounds.backward.spans: rows that cross products and softmax in one step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from assay.verify.bounds import layers
from assay.verify.bounds.backward import group
from assay.verify.bounds.backward.matrix import Blocks
from assay.verify.bounds.backward.spans import spans
from assay.verify.core.budget import UNLIMITED
from assay.verify.core.network import Network, Node
from assay.verify.core.ops import Gather, Input, InverseSumExp, Linear, Product, Relu, Reshape, Sub
from assay.verify.core.region import Box
from assay.verify.core.verifier import Bounds
from tests.breadth import few
from tests.curved import boxes, points
from tests.nets import generator
from tests.verify.bounds.backward.test_differences import network

D = torch.float64


def bounded(net: Network, low: Tensor, high: Tensor, dtype: torch.dtype = D) -> list[Bounds]:
    with torch.inference_mode():
        return layers.by_linear_bounds(net, Box(low, high), dtype, UNLIMITED).bounds


def sums(seed: int) -> Network:
    """Weighted sums of products of gathered values, some of which are the filling, and a layer that reads them."""
    rng = generator(seed)
    index = torch.randint(-1, 6, (4 * 3 * 2,), generator=rng)

    def linear(outputs: int, inputs: int) -> Linear:
        return Linear(
            torch.randn(outputs, inputs, generator=rng, dtype=D), torch.randn(outputs, generator=rng, dtype=D)
        )

    nodes = (
        Node(Input(), (), (3,)),
        Node(linear(6, 3), (0,), (6,)),
        Node(Relu(), (1,), (6,)),
        Node(Gather(index, (4, 3, 2)), (2,), (4, 3, 2)),
        Node(Product(), (3,), (4, 3)),
        Node(linear(1, 3), (4,), (4, 1)),
        Node(Reshape((4,)), (5,), (4,)),
        Node(linear(5, 4), (6,), (5,)),
        Node(Relu(), (7,), (5,)),
        Node(linear(2, 5), (8,), (2,)),
    )
    return Network(nodes)


def test_where_attention_has_spans() -> None:
    net, position = network(True, 0)
    found = spans(net)
    ops = [type(net.nodes[end].op) for end in found]
    assert ops == [Linear, InverseSumExp, Linear]
    scores, softmax, values = found.values()
    assert isinstance(net.nodes[scores.activation].op, Product)
    assert scores.minus is None
    assert softmax.minus is not None
    assert isinstance(net.nodes[position].op, Sub)
    assert values.summed == 6
    assert all(found[end].source < found[end].activation <= end for end in found)


def test_a_product_that_others_read_is_summed_up_by_itself() -> None:
    """Rows that come to it on two paths are added up before they take one of its planes."""
    net = sums(0)
    assert list(spans(net)) == [5]
    nodes = (*net.nodes[:-1], Node(Linear(torch.ones(1, 3, dtype=D), torch.zeros(1, dtype=D)), (4,), (4, 1)))
    assert list(spans(Network(nodes))) == [4]


def test_products_of_the_input_itself_are_none() -> None:
    one = Linear(torch.ones(1, 2, dtype=D), torch.zeros(1, dtype=D))
    nodes = (Node(Input(), (), (2, 2)), Node(Product(), (0,), (2,)), Node(one, (1,), (1,)))
    assert spans(Network(nodes)) == {}


@pytest.mark.parametrize("seed", few(range(12), range(3)))
@pytest.mark.parametrize("make", [sums, lambda seed: network(True, seed)[0]])
def test_bounds_are_those_of_the_single_steps(seed: int, make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    nets = [make(seed) for _ in range(2)]  # type: ignore[operator]
    low, high = boxes(nets[0], seed, 0.3, count=1)
    crossed = bounded(nets[0], low, high)
    monkeypatch.setattr(group, "spans", lambda network: {})
    for one, other in zip(crossed, bounded(nets[1], low, high), strict=True):
        torch.testing.assert_close(one.lower, other.lower, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(one.upper, other.upper, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", few(range(12), range(2)))
@pytest.mark.parametrize("make", [sums, lambda seed: network(True, seed)[0]])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_value_lies_outside(seed: int, make: object, dtype: torch.dtype) -> None:
    net = make(seed)  # type: ignore[operator]
    for radius in (1e-3, 0.3):
        low, high = boxes(net, seed, radius, count=1)
        inside = net.values(points(low, high, 300, seed).flatten(0, 1))
        for value, here in zip(inside, bounded(net, low, high, dtype), strict=True):
            value = value.view(300, *here.lower.shape)
            assert bool((here.lower <= value).all())
            assert bool((value <= here.upper).all())


@pytest.mark.parametrize("seed", range(3))
def test_what_rows_become_is_below_them(seed: int) -> None:
    """Of each span alone: coefficients at its end and at its source, over a box about the source."""
    for net in (sums(seed), network(True, seed)[0]):
        low, high = boxes(net, seed, 0.5, count=1)
        with torch.inference_mode():
            relaxed = layers.by_intervals(net, Box(low, high), D)
            here = group.Group(relaxed)
            for position in range(1, len(net.nodes)):
                here.enter(position, relaxed.bounds[position])
            for end, span in spans(net).items():
                across, linear = here.across(end), net.nodes[end].op
                coef = torch.randn(net.nodes[end].size, 8, generator=generator(seed), dtype=D)
                rows, gained = across.pull(coef)
                if isinstance(linear, Linear):
                    gained = gained + coef.sum(0) * linear.bias
                values = net.values(points(low, high, 200, seed).flatten(0, 1))
                source, value = (values[i].flatten(1) for i in (span.source, end))
                assert bool((source @ rows + gained <= value @ coef + 1e-12).all())


def test_attention_is_dense_blocks() -> None:
    """Of six tokens: queries by tokens, keys by tokens, each with the signs of its scores."""
    net, _ = network(False, 1)
    low, high = boxes(net, 1, 0.1, count=1)
    with torch.inference_mode():
        relaxed = layers.by_intervals(net, Box(low, high), D)
        here = group.Group(relaxed)
        for position in range(1, len(net.nodes)):
            here.enter(position, relaxed.bounds[position])
        kinds = [here.across(end).slopes for end in spans(net)]
    # Three features by twelve scores are too few for dense blocks, six scores by twelve are not.
    assert [all(isinstance(one, Blocks) for one in some) for some in kinds] == [False, True, False]
    softmax = kinds[1][0]
    assert isinstance(softmax, Blocks)
    assert softmax.blocks.shape == (6, 6, 12)


def test_several_samples_take_the_single_steps() -> None:
    net, _ = network(True, 2)
    low, high = boxes(net, 2, 0.2)
    assert group.Group(layers.by_intervals(net, Box(low, high), D)).spans == {}
    assert spans(net)
