"""Tests of verify.bounds.needed: which neurons rows depend on, and that the others change no bound of theirs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from assay.verify.bounds.backward.rows import lower_rows
from assay.verify.bounds.layers import batch_box, by_linear_bounds
from assay.verify.bounds.needed import needed
from assay.verify.core.network import Builder, Network
from assay.verify.core.ops import Add, Conv2d, Gather, Max, Relu
from assay.verify.core.region import Box


def network(seed: int) -> Network:
    """Convolutions of images with a shortcut, and a largest value of pairs: 128 outputs."""
    g = torch.Generator().manual_seed(seed)

    def conv(into: int, out: int) -> Conv2d:
        weight = torch.randn(out, into, 3, 3, dtype=torch.float64, generator=g) / 3
        return Conv2d(weight, torch.randn(out, dtype=torch.float64, generator=g) / 4, (1, 1), (1, 1))

    b = Builder((1, 8, 8))
    x = b.add(Relu(), b.add(conv(1, 2), 0))
    x = b.add(Relu(), b.add(Add(), b.add(conv(2, 2), x), x))
    x = b.add(conv(2, 4), x)
    return b.build(b.add(Max(), b.add(Gather(torch.arange(256), (128, 2)), x)))


def objective(*outputs: int) -> Tensor:
    rows = torch.zeros(1, len(outputs), 128, dtype=torch.float64)
    rows[0, torch.arange(len(outputs)), torch.tensor(outputs)] = 1.0
    return rows


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_not_needed_has_no_influence(seed: int) -> None:
    """The outputs that are read move with each input that is needed, and with no other."""
    net = network(seed)
    rows = objective(0, 3)
    mask = needed(net, rows)[1].view(2, 8, 8)
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    seen = torch.zeros(64, dtype=torch.bool)
    for _ in range(20):
        x = torch.rand(1, 1, 8, 8, dtype=torch.float64) if _ else x
        slope = torch.autograd.functional.jacobian(lambda z: net(z).flatten() @ rows[0].T, x)
        seen |= (slope.reshape(2, 64) != 0).any(0)
    # What the first layer is read at reaches one element further in the input.
    reach = torch.nn.functional.max_pool2d(mask.any(0)[None, None].double(), 3, 1, 1)[0, 0] > 0
    assert bool((reach.flatten() | ~seen).all())
    assert 0 < int(mask.sum()) < mask.numel()


@pytest.mark.parametrize("seed", [0, 1])
def test_bounds_of_rows_are_the_same(seed: int) -> None:
    net, rows = network(seed), objective(5, 70)
    centre = torch.rand(1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    region = batch_box(Box(centre - 0.1, centre + 0.1), net.input_shape)
    all_, some = (by_linear_bounds(net, region, torch.float64, asked=asked) for asked in (None, needed(net, rows)))
    torch.testing.assert_close(
        lower_rows(some, rows, linear=True), lower_rows(all_, rows, linear=True), rtol=1e-9, atol=1e-9
    )
    looser = [bool((a.lower > b.lower + 1e-9).any()) for a, b in zip(all_.bounds, some.bounds, strict=True)]
    assert any(looser)


def test_where_most_outputs_are_read_all_neurons_count() -> None:
    assert needed(network(0), torch.ones(1, 1, 128, dtype=torch.float64)) == {}
