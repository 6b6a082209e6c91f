"""Faults put into the engine on purpose: the laws and the second opinion must notice every one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from assay.verify.backends.crown import CROWN
from assay.verify.bounds import group, layers, linear, patches
from assay.verify.bounds.forms import Rows
from assay.verify.bounds.group import Group
from assay.verify.bounds.matrix import constant, matrix
from assay.verify.bounds.relax import Lines, relax
from assay.verify.core.budget import Budget
from assay.verify.core.ops import Conv2d, Op, Relu
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.spec import Spec
from assay.verify.core.verifier import Bounds
from assay.verify.solving.stages import decide
from tests.contract.graphs import eye, members, random_box, random_graph

SEEDS = range(40)
Patch = Callable[[pytest.MonkeyPatch], None]


def broken_laws() -> int:
    """On how many networks a sampled point lies outside of the bounds."""
    count = 0
    for seed in SEEDS:
        network = random_graph(seed, image=seed % 2 == 0)
        small, wide = (random_box(network, s) for s in (4 * seed + 1, 4 * seed + 3))
        regions = Box(torch.stack([small[0], wide[0]]), torch.stack([small[1], wide[1]]))
        CROWN().bound(network, Box(*small), eye(network), Budget())
        found = CROWN(group=1).bound(network, regions, eye(network), Budget())
        values = torch.stack([network(members(*box, 64)).flatten(1) for box in (small, wide)])
        slack = 1e-6 * (1 + values.abs().amax())
        outside = (values < found.lower[:, None] - slack) | (values > found.upper[:, None] + slack)
        count += bool(outside.any())
    return count


def alarms() -> int:
    """How many claims the second opinion withdraws, of properties that the faulty bounds just prove."""
    count = 0
    for seed in SEEDS:
        network = random_graph(seed, image=seed % 2 == 0)
        CROWN().bound(network, Box(*random_box(network, 4 * seed + 1)), eye(network), Budget())
        region = Box(*random_box(network, 4 * seed + 3))
        lower = CROWN().bound(network, region, eye(network), Budget()).lower[0]
        if not bool(lower.isfinite().all()):
            continue
        claims = [
            Spec.halfspaces([row.tolist()], [low - 1e-3]) for row, low in zip(eye(network), lower.tolist(), strict=True)
        ]
        checked = decide(CROWN(), [Problem(network, region, spec) for spec in claims], Budget())
        count += any("alarm" in result.stats for result in checked)
    return count


def on_lines(change: Callable[[Lines], Lines]) -> Patch:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(group, "relax", lambda op, z: change(relax(op, z)))

    return patch


def dropped_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    original = constant
    monkeypatch.setattr(linear, "constant", lambda op, shape: torch.zeros_like(original(op, shape)))


def shifted_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel one pixel off is what one row of padding too many on one side does."""

    def off_by_one(op: Op, shape: tuple[int, ...]) -> Any:
        return matrix(replace(op, weight=op.weight.roll(1, -1)) if isinstance(op, Conv2d) else op, shape)

    monkeypatch.setattr(group, "matrix", off_by_one)
    monkeypatch.setattr(patches, "matrix", off_by_one)


def wrong_support(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first neuron of each layer that could be active is left out with the inactive ones."""
    original = Group.relax

    def short(self: Group, position: int, z: Bounds) -> None:
        if isinstance(self.network.nodes[position].op, Relu):
            upper = z.upper.clone()
            active = (upper > 0).any(1).nonzero().flatten()
            upper[active[:1]] = -1.0
            z = Bounds(torch.minimum(z.lower, upper), upper)
        original(self, position, z)

    monkeypatch.setattr(Group, "relax", short)


def stale_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers bounded once per network, whatever the region."""
    original = layers.by_linear_bounds
    seen: dict[int, tuple[Any, Group]] = {}

    def remembered(group: Group, budget: Budget, crowd: float) -> list[Bounds]:
        first = seen.get(id(group.network.nodes))
        if first is None or first[1].samples != group.samples:
            seen[id(group.network.nodes)] = (original(group, budget, crowd), group)
            return seen[id(group.network.nodes)][0]  # type: ignore[no-any-return]
        group.lines.update(first[1].lines)
        group.support.update(first[1].support)
        group.whole.update(first[1].whole)
        group.at_centre, group.rounding = first[1].at_centre, first[1].rounding
        group.operands.update(first[1].operands)
        return first[0]  # type: ignore[no-any-return]

    monkeypatch.setattr(layers, "by_linear_bounds", remembered)


def best_corner(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest value over a box in place of the least."""

    def largest(coef: Tensor, centre: Tensor, radius: Tensor, rows: Rows) -> Tensor:
        return rows.dot(centre, coef) + rows.dot(radius, coef.abs())

    monkeypatch.setattr(linear, "box_minimum", largest)


def dropped_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node read twice gets only the form that came last."""
    monkeypatch.setattr(linear, "add", lambda a, b, size: b)


FAULTS: dict[str, Patch] = {
    "slopes-swapped": on_lines(lambda t: replace(t, slope=t.slope + t.slope_gap, slope_gap=-t.slope_gap)),
    "intercept-gap-dropped": on_lines(lambda t: replace(t, intercept_gap=0 * t.intercept_gap)),
    "intercept-gap-flipped": on_lines(lambda t: replace(t, intercept_gap=-t.intercept_gap)),
    "lower-slope-one-half-more": on_lines(lambda t: replace(t, slope=t.slope + 0.5, slope_gap=t.slope_gap - 0.5)),
    "bias-dropped": dropped_bias,
    "padding-off-by-one": shifted_padding,
    "support-wrong": wrong_support,
    "bounds-stale": stale_bounds,
    "corner-wrong": best_corner,
    "branch-dropped": dropped_branch,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_sampled_points_notice(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    assert broken_laws() > 0


@pytest.mark.parametrize("fault", FAULTS)
def test_the_second_opinion_notices(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    assert alarms() > 0


def test_without_a_fault_there_is_nothing_to_notice() -> None:
    assert broken_laws() == 0
    assert alarms() == 0
