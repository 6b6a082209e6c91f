"""Sums of whole numbers: exact intervals, only where nothing can be lost."""

from __future__ import annotations

import torch

from assay.verify.bounds import layers
from assay.verify.bounds.whole import exact
from assay.verify.core.network import Builder, chain
from assay.verify.core.ops import Linear, Scale, Step, Sub
from assay.verify.core.region import Box
from assay.verify.core.verifier import Bounds
from tests.nets import generator

UNIT = 2.0**-53


def _bounds(*values: tuple[float, float]) -> Bounds:
    lower, upper = zip(*values, strict=True)
    return Bounds(torch.tensor([lower], dtype=torch.float64), torch.tensor([upper], dtype=torch.float64))


def test_whole_ends_and_weights_make_exact_sums() -> None:
    op = Linear(torch.tensor([[2.0, -3.0]]).double(), torch.tensor([1.0]).double())
    some, size = _bounds((0.0, 1.0), (-2.0, 5.0)), torch.full((1, 1), 30.0, dtype=torch.float64)
    known = exact(op, [some], size, UNIT)
    assert known is not None
    assert known.tolist() == [True]
    for other in (
        exact(op, [_bounds((0.0, 0.5), (-2.0, 5.0))], size, UNIT),
        exact(op, [some], size * 2.0**52, UNIT),
        exact(Linear(op.weight / 2, op.bias), [some], size, UNIT),
        exact(op, [_bounds((0.0, float("nan")), (0.0, 1.0))], size, UNIT),
    ):
        assert other is None


def test_each_sample_by_itself() -> None:
    one = Bounds(*(torch.tensor([[1.0, 2.0], [0.25, 2.0]], dtype=torch.float64) for _ in range(2)))
    known = exact(Scale(torch.ones(1), torch.ones(1)), [one], torch.full((2, 2), 4.0, dtype=torch.float64), UNIT)
    assert known is not None
    assert known.tolist() == [True, False]


def test_exact_intervals_are_those_of_whole_arithmetic() -> None:
    """Against integers, which know no rounding, at the corners of random boxes."""
    draw = generator(3)
    for _ in range(20):
        weight = torch.randint(-9, 10, (4, 3), generator=draw)
        low = torch.randint(-50, 50, (3,), generator=draw)
        high = low + torch.randint(0, 7, (3,), generator=draw)
        network = chain((3,), [Linear(weight.double(), torch.arange(4).double())])
        (_, made) = layers.by_intervals(network, Box(low.double(), high.double()), torch.float64).bounds
        positive, negative = weight.clamp(min=0), weight.clamp(max=0)
        assert made.lower[0].tolist() == (positive @ low + negative @ high + torch.arange(4)).tolist()
        assert made.upper[0].tolist() == (positive @ high + negative @ low + torch.arange(4)).tolist()


def test_equal_labels_are_known_to_be_equal() -> None:
    """A label less itself, by sums of truth values, is 0 and has the sign 0, whatever sums of others would lose."""
    builder = Builder((2,))
    first = builder.add(Step("sign"), 0)
    label = builder.add(Linear(torch.tensor([[1.0, 2.0]]), torch.tensor([3.0])), first)
    other = builder.add(Linear(torch.tensor([[1.0, 0.0]]), torch.tensor([5.0])), first)
    network = builder.build(builder.add(Step("sign"), builder.add(Sub(), label, other)))
    made = layers.by_intervals(network, Box(torch.tensor([0.3, 0.1]), torch.tensor([0.9, 0.2])), torch.float64)
    assert (made.bounds[-1].lower.item(), made.bounds[-1].upper.item()) == (0.0, 0.0)


def test_weights_that_were_rounded_to_whole_numbers_are_none() -> None:
    """To float32, or as products when the network was folded."""
    near, one = 1 - 2.0**-26, torch.ones(1, dtype=torch.float64)
    network = chain((1,), [Linear(near * torch.ones(1, 1).double(), torch.zeros(1).double()), Scale(one, -one)])
    for dtype in (torch.float32, torch.float64):
        bounds = layers.by_intervals(network, Box(one, one), dtype).bounds[-1]
        assert bool((bounds.lower.double() <= near - 1).all() and (bounds.upper.double() >= near - 1).all())
    whole = Linear(torch.ones(1, 1).double(), torch.zeros(1).double())
    size, ends = torch.full((1, 1), 4.0, dtype=torch.float64), [_bounds((1.0, 1.0))]
    assert exact(whole, ends, size, UNIT, chain((1,), [whole])) is not None
    assert exact(whole, ends, size, UNIT, network) is None
