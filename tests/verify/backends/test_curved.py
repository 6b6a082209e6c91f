"""Networks of curves, products, softmaxes, normalisations and steps through the methods that bound them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from assay.verify.backends.alpha_crown import AlphaCROWN
from assay.verify.backends.bab.inputs.input_split import InputSplit
from assay.verify.backends.crown import CROWN
from assay.verify.backends.ibp import IBP
from assay.verify.bounds import layers
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network, chain
from assay.verify.core.ops import InverseSumExp, Linear, Op, Product, Relu, Reshape, Scale, Smooth
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Verdict
from assay.verify.core.roundings import noise
from assay.verify.core.spec import Spec
from assay.verify.registry import get_verifier
from tests.breadth import few
from tests.curved import ALL_CURVES, NETWORKS, boxes, intervals, least, named, rows

D = torch.float64
QUICK = ["Smooth(gelu)", "Smooth(sin)", "Smooth(elu)1.7", "Smooth(power)-0.5", "Step(round)", "Step(sign)", "gated"]
names = pytest.mark.parametrize("name", few(NETWORKS, [*QUICK, "quotient", "attention", "log_softmax", "layer norm"]))


@names
@pytest.mark.parametrize("radius", [0.0, 0.01, 0.2])
def test_bounds_are_ordered_and_hold(name: str, radius: float) -> None:
    """Intervals, linear bounds, raised ones, the least value at points: each no more than the next."""
    for seed in range(2):
        network = NETWORKS[name](seed)
        box = boxes(network, seed, radius, 2)
        seen = least(network, *box, rows(3))
        found = [IBP().bound(network, Box(*box), rows(3)), CROWN().bound(network, Box(*box), rows(3))]
        found.append(AlphaCROWN(steps=5).bound(network, Box(*box), rows(3)))
        for worse, better in pairwise(found):
            assert bool((worse.lower <= better.lower + 1e-9 * (1 + worse.lower.abs())).all())
        for bounds in found:
            assert bool(bounds.lower.isfinite().all())
            assert bool((bounds.lower <= seen + 1e-12 * (1 + seen.abs())).all())
            assert bool((bounds.upper >= -seen.roll(3, 1) - 1e-12 * (1 + seen.abs())).all())
        if radius == 0:
            torch.testing.assert_close(found[1].lower, seen, rtol=1e-6, atol=1e-6)


@names
def test_a_batch_and_one_sample_have_the_same_bounds(name: str) -> None:
    network = NETWORKS[name](5)
    lower, upper = boxes(network, 5, 0.1)
    for method in (IBP(), CROWN()):
        together = method.bound(network, Box(lower, upper), rows(3))
        for i in range(len(lower)):
            alone = method.bound(network, Box(lower[i], upper[i]), rows(3))
            torch.testing.assert_close(together.lower[i], alone.lower[0], rtol=1e-9, atol=1e-9)


@names
def test_bounds_in_float32_hold(name: str) -> None:
    network = NETWORKS[name](7)
    lower, upper = boxes(network, 7, 0.05)
    seen = least(network, lower, upper, rows(3))
    for method in (IBP(dtype="float32"), CROWN(dtype="float32")):
        bounds = method.bound(network, Box(lower, upper), rows(3)).lower
        known = bounds.isfinite()
        assert bool((bounds <= seen + 1e-12)[known].all())


def outside_of(op: Smooth, low: float) -> Network:
    """``op`` of relu(x) + low, and what is at most 1 of that: bounded, whatever the operand is."""
    shape = torch.ones(1, dtype=D)
    last = Linear(-torch.ones(1, 1, dtype=D), 2 * shape)
    return chain((1,), [Relu(), Scale(shape, low * shape), op, Smooth("sigmoid"), last])


@pytest.mark.parametrize(
    "op", [Smooth("log"), Smooth("sqrt"), Smooth("reciprocal"), Smooth("power", -0.5), Smooth("power", 1.5)], ids=repr
)
@pytest.mark.parametrize(
    "method", ["ibp", "crown", "alpha-crown", "crown-ibp", "input-split", "lp", "auto", "smt", "milp"]
)
def test_where_a_domain_may_be_left_nothing_is_verified(op: Smooth, method: str) -> None:
    """2 - sigmoid(f(relu(x) + low)) is above 1 wherever it is a number: it is none for x = 0 and low = -0.1."""
    for low, safe in ((-0.1, False), (0.5, True)):
        network = outside_of(op, low)
        region = Box(torch.tensor([-1.0], dtype=D), torch.tensor([1.0], dtype=D))
        spec = Spec.halfspaces([[1.0]], [0.5])
        result = get_verifier(method).verify(Problem(network, region, spec), Budget(seconds=2.0))
        if not safe:
            assert result.verdict is not Verdict.VERIFIED, (method, result)
        elif method in ("ibp", "crown", "alpha-crown", "input-split", "auto"):
            assert result.verdict is Verdict.VERIFIED, (method, result)


def test_halving_boxes_decides_what_bounds_do_not() -> None:
    network = NETWORKS["Smooth(sin)"](3)
    lower, upper = boxes(network, 3, 0.3, 1)
    row = rows(3)[:1]
    seen = float(least(network, lower, upper, row, 3000))
    flat = float(CROWN().bound(network, Box(lower, upper), row).lower)
    target = seen - 0.1 * (seen - flat)
    spec = Spec.halfspaces(row.tolist(), [target])
    problem = Problem(network, Box(lower[0], upper[0]), spec)
    assert CROWN().verify(problem).verdict is Verdict.UNKNOWN
    result = InputSplit().verify(problem)
    assert result.verdict is Verdict.VERIFIED
    assert result.margin is not None
    assert 0 < result.margin <= seen - target + 1e-12
    assert math.isfinite(result.margin)


@names
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_at_one_point_there_is_room_for_rounding(name: str, dtype: str) -> None:
    """Intervals about one point are as wide as what the library's curves may err by."""
    network = NETWORKS[name](9)
    lower, _ = boxes(network, 9, 0.0, 2)
    eps = torch.finfo(getattr(torch, dtype)).eps
    bounds = IBP(dtype=dtype).bound(network, Box(lower, lower), rows(3))
    known = bounds.lower.isfinite() & bounds.upper.isfinite()
    assert bool((bounds.upper - bounds.lower > 8 * eps * bounds.upper.abs())[known].all())


@pytest.mark.parametrize("op", [*ALL_CURVES, InverseSumExp(), Product()], ids=named)
@pytest.mark.parametrize("dtype", [D, torch.float32], ids=["double", "single"])
def test_what_a_curve_loses_is_charged(op: Op, dtype: torch.dtype) -> None:
    """Its own rounding, by what it is made of, not of its value alone."""
    network = chain((4,), [Reshape((2, 2)), op]) if op.several else chain((4,), [op])
    low, _ = intervals(op, 40, 2)
    x = low.flatten()[:40].view(10, 4)
    relaxed = layers.by_intervals(network, Box(x, x), dtype)
    z, y = relaxed.bounds[-2], relaxed.bounds[-1]
    size = noise(op, z.lower, z.upper, torch.minimum(y.lower.abs(), y.upper.abs()))
    room = y.upper - y.lower
    inside = torch.ones_like(room, dtype=torch.bool)
    if isinstance(op, Smooth):
        inside = (y.lower > op.of.image[0]) & (y.upper < op.of.image[1])
    assert bool((room >= 8 * torch.finfo(dtype).eps * size)[inside & room.isfinite()].all())
