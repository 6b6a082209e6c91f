"""Tests of verify.programs.between and verify.bounds.cuts: linear programs over curves, products and steps."""

from __future__ import annotations

import pytest
import torch

from assay.verify.backends.crown import CROWN
from assay.verify.backends.lp import LP
from assay.verify.bounds.relaxations.cuts import cuts
from assay.verify.core.ops import InverseSumExp, Op, Product
from assay.verify.core.region import Box
from assay.verify.core.verifier import Bounds
from tests.breadth import few
from tests.curved import ALL_CURVES, NETWORKS, STEPS, boxes, inside, intervals, least, named, outside, rows

D = torch.float64


@pytest.mark.parametrize("op", [*ALL_CURVES, *STEPS, Product(), InverseSumExp()], ids=named)
def test_all_cuts_hold(op: Op) -> None:
    low, high = intervals(op, 1000, 11, operands=3)
    points = inside(low, high, 40)
    for lines in cuts(op, Bounds(low, high)):
        assert not bool((outside(lines, op, points) > 0).any())


@pytest.mark.parametrize("name", few(NETWORKS, ["Smooth(gelu)", "Smooth(sin)", "Step(floor)", "gated", "attention"]))
def test_programs_are_no_worse_than_the_lines_that_they_hold(name: str) -> None:
    """CROWN on the same bounds of layers, the program's bound, the least value that is seen."""
    for seed in range(2):
        network = NETWORKS[name](seed)
        lower, upper = boxes(network, seed, 0.15, 1)
        seen = least(network, lower, upper, rows(3))
        bounds, linear = (
            LP().bound(network, Box(lower, upper), rows(3)),
            CROWN().bound(network, Box(lower, upper), rows(3)),
        )
        assert bool((bounds.lower <= seen + 1e-9).all())
        assert bool((linear.lower <= bounds.lower + 1e-7 * (1 + linear.lower.abs())).all())


def test_programs_gain_on_lines() -> None:
    """Where several tangents count at once."""
    gain = 0.0
    for seed in range(3):
        network = NETWORKS["gated"](seed)
        lower, upper = boxes(network, seed, 0.3, 1)
        gain += float(
            (
                LP().bound(network, Box(lower, upper), rows(3)).lower
                - CROWN().bound(network, Box(lower, upper), rows(3)).lower
            ).mean()
        )
    assert gain > 1e-3
