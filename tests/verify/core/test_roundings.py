"""Tests of verify.core.roundings: what curves, products and steps do to errors, against what is computed."""

from __future__ import annotations

import pytest
import torch

from assay.verify.core.network import Network
from assay.verify.core.ops import InverseSumExp, Op, Product, Smooth, Step, evaluate
from assay.verify.core.roundings import curved, drift, noise, terms
from tests.breadth import few
from tests.curved import ALL_CURVES, NETWORKS, STEPS, inside, intervals, named
from tests.nets import generator

D = torch.float64
OPS: list[Op] = [*ALL_CURVES, *STEPS, Product(), InverseSumExp()]


@pytest.mark.parametrize("op", OPS, ids=named)
@pytest.mark.parametrize("scale", [1e-9, 1e-3, 0.3])
def test_no_error_drifts_further(op: Op, scale: float) -> None:
    low, high = intervals(op, 1000, 5, operands=2)
    error = scale * torch.rand(low.shape, generator=generator(1), dtype=D)
    most = drift(op, low, high, error)
    z = inside(low, high, 40)
    for share in (-1.0, -0.3, 0.7, 1.0):
        moved = (evaluate(op, z + share * error) - evaluate(op, z)).abs()
        rounding = 1e-12 * (1 + evaluate(op, z).abs())
        known = most.isfinite()
        assert bool((moved <= most + rounding)[:, known].all())
    assert bool(most.isfinite().any())


def test_a_step_that_is_not_near_keeps_its_value() -> None:
    far = torch.tensor([0.4], dtype=D)
    assert float(drift(Step("floor"), far, far, torch.tensor([0.1], dtype=D))) == 0.0
    assert float(drift(Step("floor"), far, far, torch.tensor([0.5], dtype=D))) == 1.0
    assert float(drift(Step("sign"), far, far, torch.tensor([0.5], dtype=D))) == 2.0


@pytest.mark.parametrize("op", [*ALL_CURVES, Product(), InverseSumExp()], ids=named)
def test_float32_errs_by_no_more_than_its_noise(op: Op) -> None:
    z, _ = intervals(op, 3000, 6, torch.float32, operands=3 if isinstance(op, InverseSumExp) else 2)
    exact = evaluate(op, z.double())
    size = noise(op, z.double(), z.double(), exact.abs())
    error = (evaluate(op, z).double() - exact).abs()
    known = (exact.abs() < 1e37) & (size > 1e-30)
    assert bool((error <= terms(op) * 2**-24 * size + 1e-38)[known].all())


@pytest.mark.parametrize("name", few(NETWORKS, ["Smooth(gelu)", "Smooth(exp)", "attention", "layer norm", "quotient"]))
def test_a_network_in_float32_stays_within_its_rounding_error(name: str) -> None:
    compared = 0
    for seed in range(4):
        network: Network = NETWORKS[name](seed)
        x = torch.randn((50, *network.input_shape), generator=generator(seed), dtype=torch.float32)
        error, size = network.rounding_error(x, torch.float32)
        difference = (network(x).double() - network(x.double())).abs()
        known = error.isfinite()
        assert bool((difference <= error)[known].all())
        compared += int((known & (error < 1e-2 * (1 + size))).sum())
    assert compared > 0 or "Step" in name, "nothing is compared"


def test_where_a_curve_is_left_there_is_no_bound() -> None:
    zero = torch.zeros(1, dtype=D)
    for op in (Smooth("log"), Smooth("sqrt"), Smooth("reciprocal"), Smooth("power", -0.5)):
        assert curved(op)
        assert not bool(drift(op, zero, zero, zero + 1e-9).isfinite())
