"""The relaxations of tanh, leaky ReLU and maxima on intervals of every kind, against points in between."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxations.relax import relax, undecided
from assay.verify.core.ops import LeakyRelu, Max, Op, Smooth, evaluate
from assay.verify.core.verifier import Bounds
from tests.nets import generator, seeds

ENDS = [-1e300, -1e6, -40.0, -8.0, -1.0, -0.3, -1e-3, -1e-9, -1e-300, 0.0, 1e-300, 1e-9, 1e-3, 0.3, 1.0, 8.0, 40.0, 1e6]
CURVES = [Smooth("tanh"), LeakyRelu(0.0), LeakyRelu(0.1), LeakyRelu(1.0), LeakyRelu(3.0)]


def between(low: Tensor, high: Tensor, count: int = 201) -> Tensor:
    """Points of each interval, its ends among them: (count x intervals)."""
    share = torch.linspace(0, 1, count, dtype=low.dtype)[:, None]
    inner = low * (1 - share) + high * share
    return torch.cat([low[None], high[None], torch.minimum(torch.maximum(inner, low), high)])


def violation(lines: Lines, op: Op, z: Tensor) -> Tensor:
    """By how much the activation leaves its lines at ``z`` (points x intervals), beyond the rounding of this test."""
    slope, slope_gap, intercept_gap = lines.slope[:, 0], lines.slope_gap[:, 0], lines.intercept_gap[:, 0]
    base = torch.zeros_like(intercept_gap) if lines.intercept is None else lines.intercept[:, 0]
    value, eps = evaluate(op, z), torch.finfo(z.dtype).eps
    slack = 8 * eps * ((slope.abs() + slope_gap.abs()) * z.abs() + value.abs() + base.abs() + intercept_gap.abs())
    below, above = slope * z + base - value, value - ((slope + slope_gap) * z + base + intercept_gap)
    return torch.maximum(below, above) - slack


@pytest.mark.parametrize("op", CURVES, ids=lambda op: f"{op.label}({getattr(op, 'slope', '')})")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_lines_on_intervals_of_every_kind(op: Op, dtype: torch.dtype) -> None:
    pairs = [(a, b) for a in ENDS for b in ENDS if a <= b and (dtype == torch.float64 or abs(a) < 1e30)]
    low, high = (torch.tensor([pair[k] for pair in pairs], dtype=dtype) for k in (0, 1))
    worst = violation(relax(op, Bounds(low[:, None], high[:, None])), op, between(low, high)).amax(0)
    assert bool((worst <= 0).all()), [pairs[i] for i in (worst > 0).nonzero().flatten().tolist()][:5]


@given(st.floats(-6, 6), st.floats(0, 6), st.sampled_from(CURVES))
def test_lines_on_random_intervals(low: float, width: float, op: Op) -> None:
    ends = torch.tensor([low], dtype=torch.float64), torch.tensor([low + width], dtype=torch.float64)
    lines = relax(op, Bounds(ends[0][:, None], ends[1][:, None]))
    assert float(violation(lines, op, between(*ends, count=2001)).max()) <= 0


def test_the_lines_of_tanh_are_tight() -> None:
    """On [-1, 1] the lower line is the tangent that meets the curve again at 1; on [0, 2] it is the chord."""
    ends = torch.tensor([[-1.0], [0.0]], dtype=torch.float64), torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    lines = relax(Smooth("tanh"), Bounds(*ends))
    assert lines.intercept is not None
    at_upper = lines.slope * ends[1] + lines.intercept
    torch.testing.assert_close(at_upper, torch.tanh(ends[1]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bad", [(float("nan"), 1.0), (-1.0, float("nan")), (float("nan"), float("nan"))])
@pytest.mark.parametrize("op", CURVES, ids=lambda op: f"{op.label}({getattr(op, 'slope', '')})")
def test_nan_never_becomes_lines_that_decide(op: Op, bad: tuple[float, float]) -> None:
    ends = [torch.tensor([[end]], dtype=torch.float64) for end in bad]
    lines = relax(op, Bounds(ends[0], ends[1]))
    base = torch.zeros_like(lines.intercept_gap) if lines.intercept is None else lines.intercept
    assert not bool((lines.slope_gap + lines.intercept_gap + base).isfinite().any())


@given(seeds, st.integers(1, 5), st.sampled_from([0.0, 0.01, 1.0, 100.0]))
def test_a_maximum_lies_between_its_lines(seed: int, operands: int, width: float) -> None:
    rng = generator(seed)
    low = torch.randn((7, 2, operands), generator=rng, dtype=torch.float64)
    high = low + width * torch.rand(low.shape, generator=rng, dtype=torch.float64)
    lines = relax(Max(), Bounds(low, high))
    for _ in range(50):
        share = torch.rand(low.shape, generator=rng, dtype=torch.float64).round(decimals=1)
        z = low + share * (high - low)
        value = z.amax(-1)
        slack = 1e-12 * (1 + z.abs().amax(-1))
        assert bool(((lines.slope * z).sum(-1) <= value + slack).all())
        assert bool((((lines.slope + lines.slope_gap) * z).sum(-1) + lines.intercept_gap >= value - slack).all())


def test_a_maximum_that_is_decided_is_exact() -> None:
    low, high = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[3.0, 1.5, 2.0]])
    lines = relax(Max(), Bounds(low, high))
    assert lines.slope.flatten().tolist() == [1.0, 0.0, 0.0]
    assert lines.slope_gap.flatten().tolist() == [0.0, 0.0, 0.0]
    assert lines.intercept_gap.flatten().tolist() == [0.0]
    assert not bool(undecided(Max(), Bounds(low, high)).any())
