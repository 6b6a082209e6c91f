"""Tests of benchmarks.measure.sampled: every operation is read, and its bounds hold; bounds that do not are counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from assay.benchmarks.measure import sampled
from assay.benchmarks.measure.sampled import INPUTS, OPERATIONS, Between, drawn, examine
from assay.verify.core.network import to_network
from assay.verify.core.verifier import Bounds
from tests.breadth import few

QUICK = ["argmax", "softmax", "layer-norm"]


@pytest.mark.parametrize("name", few(OPERATIONS, QUICK))
def test_bounds_of_operations_hold(name: str) -> None:
    network = to_network(Between(OPERATIONS[name], 1).eval(), (INPUTS,))
    for method in ("ibp", "crown"):
        outside, unknown, width = examine(network, method, 200, 1)
        assert outside == 0
        assert unknown == 0 or name == "norm"  # a root of what may be 0, and a little less by rounding
        assert width >= 1 - 1e-6


def test_points_lie_in_their_boxes() -> None:
    box, points = drawn(50, torch.Generator().manual_seed(0))
    assert bool(((points >= box.lower[:, None]) & (points <= box.upper[:, None])).all())


def test_what_lies_outside_is_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Wrong:
        def bound(self, network: Any, box: Any, rows: Any, budget: Any) -> Bounds:
            flat = torch.zeros(len(box.lower), 3, dtype=torch.float64)
            return Bounds(flat, flat)

    monkeypatch.setattr(sampled, "get_bounder", lambda name: Wrong())
    assert sampled.main(["--operations", "relu", "--methods", "ibp", "--cases", "40"]) == 1
    assert "40 of the sampled points lie outside" in capsys.readouterr().out
