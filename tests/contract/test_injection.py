"""Faults put into the engine on purpose: the laws and the second opinion must notice every one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from assay.verify.backends.crown import CROWN
from assay.verify.bounds import layers, relaxed
from assay.verify.bounds.backward import affine, chain, columns, group, layered, patches, rows
from assay.verify.bounds.backward.forms import AnyForm, Owners, multiple
from assay.verify.bounds.backward.group import Group
from assay.verify.bounds.backward.matrix import constant, matrix
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.bounds.relaxations.relax import relax
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network, to_network
from assay.verify.core.ops import Conv2d, Op, Relu
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.spec import Spec
from assay.verify.core.verifier import Bounds
from assay.verify.solving.stages import decide
from tests import nets
from tests.contract.graphs import eye, members, random_box, random_graph

SEEDS = range(40)


def made(seed: int) -> Network:
    """Small networks of any wiring, whose bounds are nearly exact, and some in which the layers' bounds matter: anew
    each time, so that it remembers nothing of an earlier fault."""
    return replace(read(seed))


@cache
def read(seed: int) -> Network:
    if seed % 4 == 0:
        return to_network(nets.random_mlp(seed, (4, 8, 8, 8, 3)), (4,))
    if seed % 4 == 1:
        return to_network(nets.random_cnn(seed), (1, 6, 6))
    return random_graph(seed, image=seed % 4 == 2)


Patch = Callable[[pytest.MonkeyPatch], None]


def boxes(network: Network, seed: int) -> list[tuple[Tensor, Tensor]]:
    """A small one and a wide one, ends that are float32 numbers."""
    pairs = (random_box(network, s) for s in (4 * seed + 1, 4 * seed + 3))
    return [(lower.float().double(), upper.float().double()) for lower, upper in pairs]


def breaks_a_law(seed: int) -> bool:
    """Whether a sampled point lies outside of the bounds, of the output or of any layer, of a network."""
    network = made(seed)
    small, wide = boxes(network, seed)
    regions = Box(torch.stack([small[0], wide[0]]), torch.stack([small[1], wide[1]]))
    CROWN().bound(network, Box(*small), eye(network), Budget())
    output = CROWN(group=1).bound(network, regions, eye(network), Budget())
    values = torch.stack([network(members(*box, 64)).flatten(1) for box in (small, wide)])
    return outside(values, output.lower[:, None], output.upper[:, None]) or any(
        outside(value, bounds.lower[1:], bounds.upper[1:])
        for value, bounds in zip(
            network.values(members(*wide, 64)),
            layers.by_linear_bounds(network, regions, torch.float64, Budget()).bounds,
            strict=True,
        )
    )


def outside(values: Tensor, lower: Tensor, upper: Tensor) -> bool:
    slack = 1e-6 * (1 + values.abs().amax())
    return bool(((values < lower - slack) | (values > upper + slack)).any())


def raises_an_alarm(seed: int) -> bool:
    """Whether the second opinion withdraws a claim of a property that the faulty bounds of a network just prove."""
    network = made(seed)
    small, wide = boxes(network, seed)
    CROWN().bound(network, Box(*small), eye(network), Budget())
    region = Box(*wide)
    lower = CROWN().bound(network, region, eye(network), Budget()).lower[0]
    if not bool(lower.isfinite().all()):
        return False
    claims = [
        Spec.halfspaces([row.tolist()], [low - 1e-3]) for row, low in zip(eye(network), lower.tolist(), strict=True)
    ]
    checked = decide(CROWN(), [Problem(network, region, spec) for spec in claims], Budget())
    return any("alarm" in result.stats for result in checked)


def on_lines(change: Callable[[Lines], Lines]) -> Patch:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(relaxed, "relax", lambda op, z: change(relax(op, z)))

    return patch


def dropped_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    original = constant
    monkeypatch.setattr(columns, "constant", lambda op, shape: torch.zeros_like(original(op, shape)))


def dropped_bias_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    original = affine.pull

    def without(op: Op, *arguments: Any) -> Any:
        return original(op, *arguments)[0], None

    monkeypatch.setattr(rows.affine, "pull", without)


def shifted_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel one pixel off is what one row of padding too many on one side does."""

    def off_by_one(op: Op, shape: tuple[int, ...]) -> Any:
        return matrix(replace(op, weight=op.weight.roll(1, -1)) if isinstance(op, Conv2d) else op, shape)

    monkeypatch.setattr(group, "matrix", off_by_one)
    monkeypatch.setattr(patches, "matrix", off_by_one)
    monkeypatch.setattr(layered, "matrix", off_by_one)


def shifted_padding_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    original = affine.pull

    def off_by_one(op: Op, *arguments: Any) -> Any:
        return original(replace(op, weight=op.weight.roll(1, -1)) if isinstance(op, Conv2d) else op, *arguments)

    monkeypatch.setattr(rows.affine, "pull", off_by_one)
    monkeypatch.setattr(chain, "lower_rows", lambda *_: None)  # which knows a chain's convolutions by itself


def wrong_support(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first neuron of each layer that could be active is left out with the inactive ones."""
    original = Group.enter

    def short(self: Group, position: int, value: Bounds) -> None:
        original(self, position, value)
        if isinstance(self.network.nodes[position].op, Relu):
            kept = self.support[position]
            kept = torch.arange(self.network.nodes[position].size) if kept is None else kept
            self.support[position] = kept[1:]
            self.lines[position] = self.whole[position].take(kept[1:])

    monkeypatch.setattr(Group, "enter", short)


def stale_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers bounded once per network, whatever the region."""
    original = layers._tighten
    kept: dict[tuple[int, int], Relaxed] = {}

    def remembered(here: Relaxed, *arguments: Any) -> None:
        original(here, *arguments)
        first = kept.setdefault((id(here.network), here.samples), here)
        here.bounds, here.lines, here.rounding = first.bounds, first.lines, first.rounding

    monkeypatch.setattr(layers, "_tighten", remembered)


def best_corner(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest value over a box in place of the least."""
    original = columns._at_input

    def largest(group: Group, form: AnyForm, owners: Owners, centred: bool) -> Tensor:
        return -original(group, multiple(form, -1.0), owners, centred)

    monkeypatch.setattr(columns, "_at_input", largest)


def best_corner_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    original = rows.least
    monkeypatch.setattr(rows, "least", lambda coef, box: -original(-coef, box))


def dropped_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node read twice gets only the rows that came last."""
    monkeypatch.setattr(columns, "add", lambda a, b, size: b)


def dropped_branch_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows.RowRules, "add", lambda self, position, a, b: b)


FAULTS: dict[str, Patch] = {
    "slopes-swapped": on_lines(lambda t: replace(t, slope=t.slope + t.slope_gap, slope_gap=-t.slope_gap)),
    "intercept-gap-dropped": on_lines(lambda t: replace(t, intercept_gap=0 * t.intercept_gap)),
    "intercept-gap-flipped": on_lines(lambda t: replace(t, intercept_gap=-t.intercept_gap)),
    "lower-slope-one-half-more": on_lines(lambda t: replace(t, slope=t.slope + 0.5, slope_gap=t.slope_gap - 0.5)),
    "bias-dropped": dropped_bias,
    "bias-dropped-of-rows": dropped_bias_of_rows,
    "padding-off-by-one": shifted_padding,
    "padding-off-by-one-of-rows": shifted_padding_of_rows,
    "support-wrong": wrong_support,
    "bounds-stale": stale_bounds,
    "corner-wrong": best_corner,
    "corner-wrong-of-rows": best_corner_of_rows,
    "branch-dropped": dropped_branch,
    "branch-dropped-of-rows": dropped_branch_of_rows,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_sampled_points_notice(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    assert any(map(breaks_a_law, SEEDS))


# What is wrong about layers alone seldom reaches a verdict; their own bounds show it, above.
OF_LAYERS = {"bias-dropped", "branch-dropped", "corner-wrong"}


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - OF_LAYERS))
def test_the_second_opinion_notices(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    assert any(map(raises_an_alarm, SEEDS))


def test_without_a_fault_there_is_nothing_to_notice() -> None:
    assert not any(breaks_a_law(seed) or raises_an_alarm(seed) for seed in SEEDS[:20])
