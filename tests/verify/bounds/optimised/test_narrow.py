"""Tests of bounds.optimised.narrow: inactive neurons are gone, the bounds are the same, and branches are left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from assay.verify.bounds import layers
from assay.verify.bounds.backward.rows import Backward
from assay.verify.bounds.optimised.narrow import narrowed
from assay.verify.bounds.relaxations.relax import relaxes
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.network import Builder, Network
from assay.verify.core.ops import Add, LeakyRelu, Linear, Op, Relu, Sub
from assay.verify.core.region import Box, LpBall
from tests.contract.graphs import random_graph
from tests.nets import generator, seeds

D = torch.float64


def linear(inputs: int, outputs: int, seed: int, shift: float = 0.0) -> Linear:
    rng = generator(seed)
    weight = torch.randn(outputs, inputs, dtype=D, generator=rng) / inputs**0.5
    return Linear(weight, torch.randn(outputs, dtype=D, generator=rng) + shift)


def built(*steps: tuple[Op, int] | tuple[Op, int, int], inputs: int = 4) -> Network:
    """Operations with the positions of their operands; the last one is the output."""
    builder = Builder((inputs,))
    last = 0
    for op, *sources in steps:
        last = builder.add(op, *sources)
    return builder.build(last, dtype=D)


def deep(seed: int, widths: tuple[int, ...], shift: float) -> Network:
    steps: list[tuple[Op, int]] = []
    before = 4
    for width in widths:
        steps += [(linear(before, width, seed + len(steps), shift), len(steps)), (Relu(), len(steps) + 1)]
        before = width
    return built(*steps, (linear(before, 3, seed + 99), len(steps)))


def relaxed(network: Network, seed: int, samples: int = 3, radius: float = 0.2, p: float = torch.inf) -> Relaxed:
    centre = torch.randn(samples, *network.input_shape, dtype=D, generator=generator(seed))
    region = LpBall(centre, radius, p, domain=None) if p == 2 else Box(centre - radius, centre + radius)
    return layers.by_linear_bounds(network, region, D)


def bounds(relaxed: Relaxed, position: int, seed: int) -> Tensor:
    """Of some rows of a node, nothing charged: (samples x rows)."""
    network = replace(relaxed.network, nodes=relaxed.network.nodes[: position + 1])
    lines = {i: t for i, t in relaxed.lines.items() if i <= position}
    here = replace(relaxed, network=network, bounds=relaxed.bounds[: position + 1], lines=lines, rounding=None)
    objective = torch.randn(relaxed.samples, 4, network.nodes[-1].size, dtype=D, generator=generator(seed))
    backward = Backward.of(here, objective)
    return torch.stack([backward.over_region(), backward.to_activations().over_intervals()])


def assert_the_same(whole: Relaxed, seed: int) -> int:
    """At every node; result: by how many neurons narrowed networks are narrower together."""
    nodes, gone = whole.network.nodes, 0
    for position in range(1, len(nodes)):
        narrow = narrowed(whole, position)
        assert narrow.network.nodes[-1].shape == nodes[position].shape
        torch.testing.assert_close(
            bounds(narrow, position, seed), bounds(whole, position, seed), rtol=1e-12, atol=1e-12
        )
        gone += sum(n.size for n in nodes[: position + 1]) - sum(n.size for n in narrow.network.nodes)
        for i, node in enumerate(narrow.network.nodes):
            assert narrow.bounds[i].lower.shape == (whole.samples, *node.shape)
            if relaxes(node.op):
                assert narrow.lines[i].slope.shape == (whole.samples, node.size)
    return gone


@given(seeds, st.sampled_from([-1.0, -2.0, 0.0]), st.integers(1, 4), st.sampled_from([2, torch.inf]))
def test_the_bounds_are_those_of_the_whole_network(seed: int, shift: float, samples: int, p: float) -> None:
    assert_the_same(relaxed(deep(seed, (12, 9, 15), shift), seed, samples, p=p), seed)


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_a_neuron_is_gone_where_all_of_the_batch_has_it_inactive(samples: int) -> None:
    whole = relaxed(deep(0, (20, 20), -0.7), 0, samples)
    narrow = narrowed(whole, 5)
    for before in (1, 3):
        count = int((whole.bounds[before].upper > 0).any(0).sum())
        assert 0 < count < 20
        assert narrow.network.nodes[before].shape == narrow.network.nodes[before + 1].shape == (count,)
    assert narrow.rounding is not None
    assert narrow.rounding.lost[1].shape == narrow.bounds[1].lower.shape
    assert assert_the_same(whole, 1) > 0


@given(st.integers(0, 10**6), st.booleans())
def test_graphs_of_any_wiring(seed: int, image: bool) -> None:
    whole = relaxed(random_graph(seed, image, more=True), seed)
    assert_the_same(whole, seed)


BRANCHES = {
    "a sum reads the neurons": built(
        (linear(4, 10, 0, -1), 0), (Relu(), 1), (linear(10, 10, 1), 2), (Add(), 2, 3), (linear(10, 3, 2), 4)
    ),
    "a difference reads the neurons": built(
        (linear(4, 10, 0, -1), 0), (Relu(), 1), (linear(10, 10, 1), 2), (Sub(), 3, 2), (linear(10, 3, 2), 4)
    ),
    "something else reads what is bent": built(
        (linear(4, 10, 0, -1), 0), (Relu(), 1), (Sub(), 2, 1), (linear(10, 3, 2), 3)
    ),
    "a second activation reads what is bent": built(
        (linear(4, 10, 0, -1), 0), (Relu(), 1), (LeakyRelu(0.1), 1), (linear(10, 3, 1), 2), (linear(10, 3, 2), 3),
        (Add(), 4, 5),
    ),
    "what is bent is a sum": built(
        (linear(4, 10, 0, -1), 0), (linear(4, 10, 1, -1), 0), (Add(), 1, 2), (Relu(), 3), (linear(10, 3, 2), 4)
    ),
    "another activation": built((linear(4, 10, 0, -1), 0), (LeakyRelu(0.0), 1), (linear(10, 3, 2), 2)),
    "the neurons are the output": built((linear(4, 10, 0, -1), 0), (Relu(), 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", BRANCHES)
def test_what_anything_but_a_linear_layer_reads_stays_whole(name: str) -> None:
    network = BRANCHES[name]
    whole = relaxed(network, 0)
    last = len(network.nodes) - 1
    assert [n.shape for n in narrowed(whole, last).network.nodes] == [n.shape for n in network.nodes]
    assert_the_same(whole, 0)


def test_two_linear_layers_may_read_the_same_neurons() -> None:
    network = built(
        (linear(4, 20, 0, -1), 0), (Relu(), 1), (linear(20, 5, 1), 2), (linear(20, 5, 2), 2), (Sub(), 3, 4)
    )  # fmt: skip
    whole = relaxed(network, 0)
    narrow = narrowed(whole, 5).network.nodes
    assert narrow[1].size == narrow[2].size < 20
    assert assert_the_same(whole, 0) > 0


@pytest.mark.parametrize("shift", [-50.0, 50.0])
def test_a_layer_stays_whole_where_all_neurons_are_inactive_or_none_is(shift: float) -> None:
    network = built((linear(4, 10, 0, shift), 0), (Relu(), 1), (linear(10, 3, 1), 2))
    whole = relaxed(network, 0)
    assert bool((whole.bounds[1].upper <= 0).all()) == (shift < 0)
    assert [n.shape for n in narrowed(whole, 3).network.nodes] == [n.shape for n in network.nodes]
    assert_the_same(whole, 0)


def test_neurons_without_bounds_are_kept() -> None:
    whole = relaxed(deep(0, (20,), -1.0), 0)
    whole.bounds[1].upper[:, 7] = torch.nan
    kept = narrowed(whole, 3).bounds[1].upper
    assert bool(kept.isnan().any())


def test_the_whole_network_stays_as_it_was() -> None:
    whole = relaxed(deep(0, (20, 20), -1.0), 0)
    shapes, before = [n.shape for n in whole.network.nodes], [b.lower.clone() for b in whole.bounds]
    narrowed(whole, 5)
    assert [n.shape for n in whole.network.nodes] == shapes
    assert all(torch.equal(a, b.lower) for a, b in zip(before, whole.bounds, strict=True))
