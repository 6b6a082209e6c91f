"""Halves of the region by ``bab``: against points, exact margins, and less time than they take."""

from __future__ import annotations

import gc
from dataclasses import replace
from weakref import ref

import pytest
import torch
from torch import Tensor

from assay.verify.backends.bab.neurons import boxes
from assay.verify.backends.bab.neurons.bab import BaB
from assay.verify.backends.bab.neurons.boxes import Boxes
from assay.verify.backends.bab.neurons.compact import Compact
from assay.verify.backends.bab.neurons.multipliers import Walk
from assay.verify.backends.bab.neurons.tables import Tables
from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.problem import Problem
from assay.verify.core.spec import Spec
from tests.breadth import seeds
from tests.contract.test_exact_agreement import agrees
from tests.verify.backends.test_bab import KINDS, Made, made, supported
from tests.verify.programs.cases import case, lowered

EASIER = 0.5  # than what is asked, in terms of the margin

every_kind = pytest.mark.parametrize("kind", KINDS)


def begun(at: Made) -> Boxes:
    """The region alone, nothing of which is kept."""
    disjuncts = tuple(range(len(at.problem.spec.disjuncts)))
    return Boxes(at.problem, at.relaxed, [boxes.Part(at.compact, disjuncts, 0)], disjuncts)


def after(most: int) -> tuple[list[Tensor], boxes.Look]:
    """Points that were looked at, and who looks: as if there were a counterexample, but so many times."""
    seen: list[Tensor] = []

    def look(points: Tensor) -> Tensor | None:
        seen.append(points)
        return points[0] if len(seen) >= most else None

    return seen, look


def within(at: Made, compact: Compact) -> Tensor:
    """Which points lie in a part of the cube: (points)."""
    points, radius = at.points.flatten(1), compact.radius + 1e-12
    return ((points >= compact.centre - radius) & (points <= compact.centre + radius)).all(1)


@every_kind
@seeds(1, of=12, start=1000)
def test_no_point_of_a_half_lies_outside_of_its_bounds_and_none_is_in_neither(kind: str, seeds: range) -> None:
    tighter = 0
    for seed in supported(kind, seeds):
        at = made(kind, seed)
        for number in range(min(2, len(at.compact.varied))):
            all_ = torch.zeros(len(at.points), dtype=torch.bool)
            for half in at.compact.halves(number):
                for quarter in (half, half.halves(0)[1]):
                    here = within(at, quarter)
                    lower, upper = quarter.bounds()
                    assert bool((at.operands[:, here] >= lower[:, None]).all())
                    assert bool((at.operands[:, here] <= upper[:, None]).all())
                    tighter += int((lower > at.compact.bounds()[0] + 1e-9).sum())
                all_ |= within(at, half)
            assert bool(all_.all())
    assert tighter > 0


@every_kind
@seeds(1, of=12, start=1000)
def test_no_point_of_the_region_lies_below_what_boxes_prove(kind: str, seeds: range) -> None:
    closed = 0
    for seed in supported(kind, seeds):
        at, margin = made(kind, seed), case(kind, seed)[1]
        of = begun(replace(at, problem=lowered(at.problem, EASIER)))
        of.run(UNLIMITED, after(6)[1])
        if of.account.complete:
            assert 0 < min(of.lower.values()) <= margin + EASIER
        for d, low in of.lower.items():
            if of.account.closed[d]:
                worst = at.rows[at.problem.spec.disjunct == d].amax(0)
                assert low <= worst.min() + EASIER
                closed += 1
    assert closed > 0


@pytest.mark.parametrize("met", [0, 1])
def test_a_disjunct_is_closed_by_rows_of_its_own_alone(met: int) -> None:
    """One of the two is far away, and the other is all that there is."""
    at = made("mlp", 1002)
    far = (100.0, -100.0) if met == 0 else (-100.0, 100.0)
    sets = tuple(replace(d, b=d.b + away) for d, away in zip(at.problem.spec.disjuncts, far, strict=True))
    of = begun(replace(at, problem=at.problem.with_parts(spec=Spec(sets))))
    of.run(UNLIMITED, after(3)[1])
    assert of.account.closed == [met == 1, met == 0]


@every_kind
@seeds(1, of=12, start=1000)
def test_points_at_which_open_rows_are_least_are_in_the_region(kind: str, seeds: range) -> None:
    for seed in supported(kind, seeds):
        at = made(kind, seed)
        seen, look = after(3)
        begun(at).run(UNLIMITED, look)
        box = at.problem.region.box()
        for points in seen:
            inside = points.view(-1, *box.lower.shape)
            assert bool(((inside >= box.lower - 1e-12) & (inside <= box.upper + 1e-12)).all())


@every_kind
@seeds(1, of=12, start=1000)
def test_halves_come_first_where_they_are_worth_it_and_agree(
    kind: str, seeds: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boxes, "DEAR", 0)
    monkeypatch.setattr(boxes, "MOST", 3)
    halved = 0
    for seed in supported(kind, seeds):
        problem, margin = case(kind, seed)
        result = BaB().verify(problem, UNLIMITED)
        agrees(result, problem, margin)
        halved += result.stats.get("boxes", 0)
    assert halved > 0


def test_without_time_nothing_is_closed_and_nothing_is_lost() -> None:
    of = begun(made("mlp", 1000))
    assert of.run(Budget(seconds=0).started(), after(1)[1]) is None
    assert len(of.parts) == 1
    assert not of.account.complete
    assert of.bounded == 0


def test_many_inputs_are_not_halved_and_boxes_have_no_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "DEAR", 0)
    at = made("mlp", 1001)
    assert boxes.worth(at.compact)
    result = BaB(proof=True).verify(at.problem, UNLIMITED)
    assert result.verdict is BaB().verify(at.problem, UNLIMITED).verdict
    assert "boxes" not in result.stats or result.certificate is None
    monkeypatch.setattr(boxes, "FEW", 0)
    assert not boxes.worth(at.compact)


def test_what_is_kept_of_a_problem_does_not_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "DEAR", 0)
    at, kept = made("mlp", 1001), len(boxes.BOXES.of)
    problem = Problem(at.problem.network, at.problem.region, at.problem.spec)
    result, gone = BaB().verify(problem, UNLIMITED), ref(problem)
    assert "boxes" in result.stats
    del problem
    gc.collect()
    assert gone() is None
    assert len(boxes.BOXES.of) <= kept


def test_a_box_that_is_broken_off_is_bounded_by_whoever_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    of, times = begun(made("mlp", 1000)), 0
    whole = begun(made("mlp", 1000))
    whole.run(Budget(), after(99)[1])
    rows = boxes._rows

    def broken(single: Tables, double: Tables) -> Walk:
        nonlocal times
        times += 1
        if times == 2:
            raise KeyboardInterrupt
        return rows(single, double)

    monkeypatch.setattr(boxes, "_rows", broken)
    with pytest.raises(KeyboardInterrupt):
        of.run(Budget(), after(99)[1])
    assert of.parts
    of.run(Budget(), after(99)[1])
    assert of.account.measure == whole.account.measure == 1.0
    assert of.lower == whole.lower
