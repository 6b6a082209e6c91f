"""Tests of bounds.backward.patches: rows on windows of an image give the bounds of the same rows on all of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from assay.verify.bounds.backward import patches
from assay.verify.bounds.backward.columns import lower_bound
from assay.verify.bounds.backward.forms import Form, Owners, Patches, Units, add, dense, multiple, windows
from assay.verify.bounds.backward.group import Group
from assay.verify.core.network import Builder, Network
from assay.verify.core.ops import Add, Conv2d, LeakyRelu, Op, Relu, Smooth, Sub
from assay.verify.core.region import Box
from tests.breadth import slow
from tests.verify.bounds import groups


def conv(generator: torch.Generator, into: int, out: int, kernel: int, stride: int, padding: int) -> Conv2d:
    weight = torch.randn(out, into, kernel, kernel, dtype=torch.float64, generator=generator) / kernel
    bias = torch.randn(out, dtype=torch.float64, generator=generator)
    return Conv2d(weight, bias, (stride, stride), (padding, padding))


def residual(seed: int, activation: Op, side: int = 14, stride: int = 1) -> Network:
    """Two convolutions, a block with both kinds of shortcut, pooling, and a convolution straight after another."""
    g = torch.Generator().manual_seed(seed)

    def pick(n: int) -> int:
        return int(torch.randint(n, (1,), generator=g))

    b = Builder((2, side, side + 1))
    x = b.add(activation, b.add(conv(g, 2, 3, 3, stride, pick(2)), 0))
    kernel, padding = ((3, 1), (1, 0))[pick(2)]
    y = b.add(activation, b.add(conv(g, 3, 3, kernel, 1, padding), x))
    y = b.add(conv(g, 3, 3, 3, 1, 1), y)
    y = b.add((Add, Sub)[pick(2)](), y, x if pick(2) else b.add(conv(g, 3, 3, 1, 1, 0), x))
    y = b.add(activation, y)
    if pick(2):
        mean = torch.full((3, 1, 2, 2), 0.25, dtype=torch.float64)
        y = b.add(Conv2d(mean, torch.zeros(3, dtype=torch.float64), (1, 1), (1, 1), (1, 1), 3), y)
    y = b.add(conv(g, 3, 2, 2, 1, 1), b.add(conv(g, 3, 3, 3, 2, 1), y))
    return b.build(y)


def group_of(network: Network, seed: int, samples: int) -> Group:
    g = torch.Generator().manual_seed(seed)
    lower = torch.rand(samples, *network.input_shape, dtype=torch.float64, generator=g)
    return groups.group_of(network, Box(lower, lower + 0.2))


def units(network: Network, position: int, samples: int, seed: int) -> tuple[Units, Owners]:
    g = torch.Generator().manual_seed(seed)
    size, count = network.nodes[position].size, 40
    feature = torch.randint(size, (count,), generator=g)
    value = torch.randn(count, dtype=torch.float64, generator=g)
    return Units(feature, value), Owners.of(torch.randint(samples, (count,), generator=g).sort().values, torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("examples", [12, slow(50)])
def test_windows_change_no_bound(examples: int) -> None:
    @settings(max_examples=examples)
    @given(st.integers(0, 10**6), st.sampled_from([Relu(), LeakyRelu(0.1), Smooth("tanh")]), st.integers(1, 3))
    def check(seed: int, activation: Op, samples: int) -> None:
        network = residual(seed, activation)
        group = group_of(network, seed, samples)
        met = 0
        for position, node in enumerate(network.nodes):
            if len(node.shape) != 3 or not position:
                continue
            form, rows = units(network, position, samples, seed)
            met += patches.begins(node.op, group, position)
            on_windows = lower_bound(group, position, form, rows)
            whole = lower_bound(group, position, Form(dense(form, node.size)), rows)
            torch.testing.assert_close(on_windows, whole, rtol=1e-9, atol=1e-9)
        assert met > 0

    check()


@pytest.mark.parametrize("examples", [12, slow(50)])
def test_windows_are_below_sampled_values(examples: int) -> None:
    @settings(max_examples=examples)
    @given(st.integers(0, 10**6), st.sampled_from([1, 2]))
    def check(seed: int, stride: int) -> None:
        network = residual(seed, Relu(), stride=stride)
        group = group_of(network, seed, 1)
        g = torch.Generator().manual_seed(seed)
        corner = torch.rand(50, *network.input_shape, dtype=torch.float64, generator=g).round()
        values = network.values(group.relaxed.bounds[0].lower + corner * 0.2)
        for position, node in enumerate(network.nodes[1:], start=1):
            form, rows = units(network, position, 1, seed)
            lowest = lower_bound(group, position, form, rows)
            true = (values[position].flatten(1)[:, form.feature] * form.value).amin(0)
            assert bool((lowest <= true + 1e-9 * (1 + true.abs())).all()), (position, node.op.label)

    check()


@pytest.mark.parametrize(("shift", "window"), [((0, 0), (2, 3)), ((1, 2), (3, 3)), ((2, 0), (4, 2))])
def test_sums_of_windows_are_sums_of_their_images(shift: tuple[int, int], window: tuple[int, int]) -> None:
    grid = (2, 7, 9)
    one = windows(Units(torch.tensor([0, 30, 62, 63, 125]), torch.arange(1.0, 6.0)), grid)
    other = _moved(one, shift, window)
    assert isinstance(add(multiple(one), multiple(other), 126), Patches)
    torch.testing.assert_close(dense(add(multiple(one), multiple(other), 126), 126), one.dense() + other.dense())
    apart = windows(Units(torch.tensor([1, 30, 62, 63, 125]), torch.arange(1.0, 6.0)), grid)
    torch.testing.assert_close(dense(add(multiple(apart), multiple(other), 126), 126), apart.dense() + other.dense())


def _moved(form: Patches, shift: tuple[int, int], window: tuple[int, int]) -> Patches:
    g = torch.Generator().manual_seed(0)
    coef: Tensor = torch.randn(2 * window[0] * window[1], form.coef.shape[1], generator=g)
    return Patches(coef, form.grid, window, form.origin, (1, 1), shift, (4, 4), clean=False)
