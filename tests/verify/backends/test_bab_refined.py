"""Bounds of neurons by trees of their own: against points, exact values, and faults that are put into them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from assay.verify.backends.bab.neurons import bab, refined
from assay.verify.backends.bab.neurons.bab import BaB
from assay.verify.backends.bab.neurons.climbing import Climbing
from assay.verify.backends.bab.neurons.multipliers import backward
from assay.verify.backends.bab.neurons.record import Record, preorder
from assay.verify.backends.bab.neurons.refined import Leaves, Passes, Refining, price, refine
from assay.verify.bounds.optimised.raised import GRAINS
from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.network import Network
from assay.verify.core.region import Box
from assay.verify.core.result import Verdict
from tests import exact
from tests.breadth import seeds
from tests.verify.backends.test_bab import KINDS, Made, made, supported
from tests.verify.programs.cases import case

HOW = Climbing(5, 0.1, 0.5)
every_kind = pytest.mark.parametrize("kind", KINDS)


def finer(at: Made, leaves: int, how: Climbing = HOW, budget: Budget = UNLIMITED) -> tuple[Tensor, Tensor]:
    return refine(at.compact, *at.compact.bounds(), Refining(leaves, leaves, how), budget)


@every_kind
@seeds(3, of=24, start=1000)
def test_no_point_lies_outside_and_no_bound_gets_worse(kind: str, seeds: range) -> None:
    tighter = 0
    for seed in supported(kind, seeds):
        at = made(kind, seed)
        before, after = at.compact.bounds(), finer(at, 8)
        assert bool((at.operands.amin(1) >= after[0]).all() and (at.operands.amax(1) <= after[1]).all())
        assert bool((after[0] >= before[0]).all() and (after[1] <= before[1]).all())
        tighter += int((after[0] > before[0] + 1e-6).sum() + (after[1] < before[1] - 1e-6).sum())
    assert tighter > 0


@seeds(2, of=12, start=1000)
def test_whole_trees_come_to_the_exact_bounds(seeds: range) -> None:
    compared = 0
    for seed in seeds:
        at = made("mlp", seed)
        network, box = at.problem.network, at.problem.region.box()
        lower, upper = finer(at, 256, Climbing(200, 0.1, 0.5, 0.99))
        for layer, begin in list(zip(at.compact.layers, at.compact.starts, strict=False))[1:]:
            source = network.nodes[layer.position].inputs[0]
            before = Network(network.nodes[: source + 1])
            for i, feature in enumerate(layer.features[: layer.unstable].tolist()):
                one = torch.zeros(before.output_size, dtype=torch.float64)
                one[feature] = 1.0
                for bound, sign in ((lower[begin + i].item(), 1.0), (-upper[begin + i].item(), -1.0)):
                    true = exact.minimum(before, Box(box.lower, box.upper), sign * one)
                    assert bound <= true
                    if bound < 0 and true < 0:  # others end once they are stable
                        assert bound == pytest.approx(true, abs=2e-2)
                        compared += 1
    assert compared > 0


def test_more_leaves_make_bounds_tighter() -> None:
    widths = dict.fromkeys((1, 4, 32), 0.0)
    for at in (made("mlp", seed) for seed in range(1000, 1006)):
        for leaves in widths:
            lower, upper = finer(at, leaves)
            widths[leaves] += float((upper - lower).sum())
    assert widths[32] < widths[4] < widths[1]


def test_without_time_bounds_stay_as_they_are() -> None:
    at = made("mlp", 1000)
    assert all(
        old.equal(new) for old, new in zip(at.compact.bounds(), finer(at, 8, budget=Budget(0).started()), strict=True)
    )


def test_with_little_memory_trees_grow_one_after_the_other_to_the_same_bounds() -> None:
    at = made("mlp", 1001)
    for wide, narrow in zip(finer(at, 8), finer(at, 8, budget=Budget(memory=1)), strict=True):
        assert torch.allclose(wide, narrow, atol=1e-5)


def test_bounds_whose_proof_was_given_up_prove_nothing_later() -> None:
    problem, margin = case("mlp", 5)
    assert margin > 0
    first = BaB(first=0, leaves=6, proof=True).verify(problem, Budget(memory=100))
    assert first.certificate is None
    assert not bab.REFINED.of[problem].proof
    again = BaB(first=0, leaves=6, proof=True).verify(problem)
    assert again.certificate is not None
    assert bab.REFINED.of[problem].proof


@every_kind
def test_what_is_noted_proves_the_bounds(kind: str) -> None:
    """By the leaves alone, which are all of each tree."""
    at = made(kind, supported(kind, range(1000, 1010))[0])
    lower, upper = at.compact.bounds()
    heard = []

    def note(low: Tensor, index: Tensor, neuron: Tensor, bound: Tensor, leaves: Leaves) -> None:
        heard.append((neuron, bound, leaves))
        shares = leaves.own.alpha * GRAINS
        assert shares.equal(shares.round())
        assert leaves.own.beta.half().double().equal(leaves.own.beta)
        for n in range(len(neuron)):
            below = preorder(leaves.phase[:, leaves.row == n].T.numpy(), ())
            assert below is not None
            assert len(below.leaves) == int((leaves.row == n).sum()) <= 6

    found = refine(at.compact, lower, upper, Refining(6, 6, HOW), UNLIMITED, note)
    for neuron, bound, _ in heard:
        for code, value in zip(neuron.tolist(), bound.tolist(), strict=True):
            side, sign = ((found[0], 1), (found[1], -1))[code % 2]
            assert sign * side[code // 2].item() >= value
    assert heard


def test_of_each_side_of_a_neuron_the_best_tree_is_written() -> None:
    at = made("mlp", 1001)
    record = Record(at.problem)
    record.start(at.compact, [], None, [])  # type: ignore[arg-type]
    bounds = at.compact.bounds()
    for leaves in (2, 8):
        bounds = refine(at.compact, *bounds, Refining(leaves, leaves, HOW), UNLIMITED, record.refined)
    document = record.document()
    assert document is not None
    told = {name: part.numpy() for name, part in document["finer"].items()}
    assert len(np.unique(told["neurons"])) == len(told["neurons"]) == told["rows"].sum()
    assert (np.diff(told["neurons"]) > 0).all()
    assert (told["tree"] < 0).sum() == len(told["slopes"])
    assert (told["tree"] < 0).sum() - (told["tree"] >= 0).sum() == len(told["neurons"])  # as many trees
    best = {
        int(n): max(float(b) for part in record.finer for m, b in zip(part.neuron, part.bound, strict=True) if m == n)
        for n in told["neurons"]
    }
    lower, upper = bounds
    assert all((lower, -upper)[n % 2][n // 2].item() >= b for n, b in best.items())


def test_the_price_of_a_pass_grows_with_its_trees_and_is_that_of_what_is_open() -> None:
    compact = made("mlp", 1001).compact
    lower, upper = compact.bounds()
    prices = [price(compact, lower, upper, Refining(leaves, 64, HOW)) for leaves in (1, 4, 16)]
    assert 0 < prices[0] < prices[1] < prices[2]
    assert price(compact, lower.abs(), upper.abs() + lower.abs(), Refining(4, 64, HOW)) == 0.0


def test_passes_grow_while_they_pay_and_go_on_where_they_were() -> None:
    passes = Passes.begun(made("mlp", 1001).compact, proof=False)
    told = []
    for short in (100.0, 50.0, 49.0, 30.0, 29.9, 29.8):  # one may be in vain, two may not
        told.append(passes.leaves)
        passes.note(short, 4096, took=1.0)
        assert passes.worth(4.0) == (short > 29.8)
        assert passes.worth(3.9) == (short not in (49.0, 29.9, 29.8)), "after one in vain time counts"
    assert told == [2, 8, 32, 128, 512, 2048]
    assert passes.leaves == 0
    assert passes.serves(made("mlp", 1001).compact, proof=False)
    assert not passes.serves(made("mlp", 1001).compact, proof=True)
    assert not Passes.begun(made("mlp", 1001).compact, proof=True).serves(made("mlp", 1001).compact, proof=False)
    assert not passes.serves(made("mlp", 1002).compact, proof=False)


@pytest.mark.parametrize("kind", ["mlp", "residual"])
@seeds(3, of=20, start=1000)
def test_verdicts_are_the_true_ones(kind: str, seeds: range) -> None:
    for seed in seeds:
        problem, true = case(kind, seed)
        result = BaB(first=1, race=False, leaves=16).verify(problem, Budget(seconds=10))
        assert result.verdict is not (Verdict.VERIFIED if true < 0 else Verdict.FALSIFIED)


# Faults.


def dropped(patch: pytest.MonkeyPatch) -> None:
    original = refined._Trees.grown

    def short(self: Any, rows: Tensor, budget: Budget) -> Leaves:
        found = original(self, rows, budget)
        kept = (found.row.diff(append=torch.tensor([-1])) != 0) | (found.row % 2 == 0)  # of some the last one alone
        return Leaves(found.phase[:, kept], found.row[kept], found.own.take(kept.nonzero().flatten()))

    patch.setattr(refined._Trees, "grown", short)


def flipped(patch: pytest.MonkeyPatch) -> None:
    """Both halves of a split are the inactive one."""
    patch.setattr(
        refined._Trees,
        "proved",
        lambda self, leaves, rows, of=refined._Trees.proved: of(self, replace(leaves, phase=-leaves.phase.abs()), rows),
    )


def swapped(patch: pytest.MonkeyPatch) -> None:
    """A row's bound is taken for another one's."""
    patch.setattr(
        refined._Trees, "proved", lambda self, leaves, rows, of=refined._Trees.proved: of(self, leaves, rows).roll(1)
    )


@pytest.mark.parametrize("fault", [dropped, flipped, swapped])
def test_points_notice_faults(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        test_no_point_lies_outside_and_no_bound_gets_worse("mlp", range(1000, 1040))


def test_bounds_that_are_no_numbers_keep_their_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """And prove nothing."""
    at = made("mlp", 1000)
    monkeypatch.setattr(refined, "backward", lambda *a, **k: replace(w := backward(*a, **k), bound=w.bound * torch.nan))
    assert all(old.equal(new) for old, new in zip(at.compact.bounds(), finer(at, 8), strict=True))
