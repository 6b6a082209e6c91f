"""Bounds of neurons by raised lines: against points, exact values, and faults that are put into them."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any
from weakref import ref

import pytest
import torch
from torch import Tensor

from assay.verify.backends.bab.neurons import raising
from assay.verify.backends.bab.neurons.bab import BaB
from assay.verify.backends.bab.neurons.compact import Compact
from assay.verify.backends.bab.neurons.raising import Raising, Root
from assay.verify.core.budget import UNLIMITED, Budget, Expired
from assay.verify.core.network import Network
from assay.verify.core.region import Box
from assay.verify.core.result import Verdict
from tests import exact
from tests.breadth import seeds
from tests.verify.backends.test_bab import KINDS, Made, made, supported
from tests.verify.backends.test_bab_shared import accepted
from tests.verify.programs.cases import case

every_kind = pytest.mark.parametrize("kind", KINDS)


def raised(at: Made, budget: Budget = UNLIMITED, proof: bool = False) -> tuple[Tensor, Tensor]:
    found = Raising(at.compact, at.relaxed, proof)
    found.run(budget)
    return found.lower, found.upper


@every_kind
@seeds(3, of=24, start=1000)
def test_no_point_lies_outside_and_no_bound_gets_worse(kind: str, seeds: range) -> None:
    tighter = 0
    for seed in supported(kind, seeds):
        at = made(kind, seed)
        before, after = at.compact.bounds(), raised(at)
        assert bool((at.operands.amin(1) >= after[0]).all() and (at.operands.amax(1) <= after[1]).all())
        assert bool((after[0] >= before[0]).all() and (after[1] <= before[1]).all())
        tighter += int((after[0] > before[0] + 1e-6).sum() + (after[1] < before[1] - 1e-6).sum())
    assert tighter > 0


@seeds(2, of=12, start=1000)
def test_no_bound_is_beyond_the_exact_one(seeds: range) -> None:
    for seed in seeds:
        at = made("mlp", seed)
        network, box = at.problem.network, at.problem.region.box()
        lower, upper = raised(at)
        for layer, begin in zip(at.compact.layers, at.compact.starts, strict=False):
            before = Network(network.nodes[: network.nodes[layer.position].inputs[0] + 1])
            for i, feature in enumerate(layer.features[: layer.unstable].tolist()):
                one = torch.zeros(before.output_size, dtype=torch.float64)
                one[feature] = 1.0
                for bound, sign in ((lower[begin + i].item(), 1.0), (-upper[begin + i].item(), -1.0)):
                    assert bound <= exact.minimum(before, Box(box.lower, box.upper), sign * one) + 1e-12


def test_without_time_bounds_stay_and_are_raised_for_whoever_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    at = made("residual", 1000)
    whole, part = raised(at), Raising(at.compact, at.relaxed)
    part.run(Budget(0).started())
    assert part.done == 0
    assert all(old.equal(new) for old, new in zip(at.compact.bounds(), (part.lower, part.upper), strict=True))
    with monkeypatch.context() as patch:
        asked = iter([False] * 4)
        patch.setattr(Budget, "expired", property(lambda self: next(asked, True)))
        part.run(Budget())
    assert 0 < part.done < len(at.compact.layers)
    part.run(UNLIMITED)
    for ours, theirs in zip((part.lower, part.upper), whole, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_with_little_memory_rows_go_one_by_one_to_the_same_bounds() -> None:
    at = made("mlp", 1001)
    for wide, narrow in zip(raised(at), raised(at, Budget(memory=1)), strict=True):
        assert torch.allclose(wide, narrow, atol=1e-5)


@pytest.mark.parametrize("proof", [False, True])
def test_rows_of_few_places_go_apart_through_what_they_read_to_the_same_bounds(
    proof: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, parts = made("conv", 1002), list[tuple[int, int]]()
    original = Compact.reached

    def noted(self: Compact, wanted: Tensor) -> tuple[Compact, Tensor]:
        part, index = original(self, wanted)
        parts.append((len(self.layers), sum(len(layer.features) for layer in part.layers)))
        return part, index

    whole = raised(at, proof=proof)
    with monkeypatch.context() as patch:
        patch.setattr(raising, "ENOUGH", 1)
        patch.setattr(Compact, "reached", noted)
        some = raised(at, proof=proof)
    for wide, narrow in zip(whole, some, strict=True):
        assert torch.allclose(wide, narrow, atol=1e-5)
    assert bool((at.operands.amin(1) >= some[0]).all() and (at.operands.amax(1) <= some[1]).all())
    for depth in {depth for depth, _ in parts}:
        sizes = [size for layers, size in parts if layers == depth]
        assert min(sizes) < sum(len(layer.features) for layer in at.compact.layers[:depth])


def test_dear_layers_have_fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    at, asked = made("mlp", 1001), []
    monkeypatch.setattr(raising, "ascend", lambda tables, kinks, own, how, unit: asked.append(how))
    raised(at)
    assert set(asked) == {raising.LINES}
    monkeypatch.setattr(raising, "DEAR", 0)
    raised(at)
    assert asked[-1] == raising.HURRIED


@every_kind
@seeds(2, of=12, start=1000)
def test_what_comes_between_layers_holds_as_well(kind: str, seeds: range) -> None:
    """And of what can matter every operand has the bounds that all of the network has."""
    for seed in supported(kind, seeds):
        at = made(kind, seed)
        relaxed, compact, _ = Root(at.problem.network, Box(*(t[None] for t in box_of(at)))).bounded(UNLIMITED, 1.0)
        for value, bounds in zip(at.problem.network.values(at.points), relaxed.bounds, strict=True):
            assert bool((value >= bounds.lower - 1e-12).all() and (value <= bounds.upper + 1e-12).all())
        for layer in compact.layers:
            z = relaxed.operand(layer.position)
            index = torch.from_numpy(layer.features)
            assert bool((layer.lower <= z.upper[0, index]).all() and (layer.upper >= z.lower[0, index]).all())
            assert bool((z.lower[0, index] >= layer.lower).all() and (z.upper[0, index] <= layer.upper).all())


def box_of(at: Any) -> tuple[Tensor, Tensor]:
    box = at.problem.region.box()
    return box.lower, box.upper


def test_a_root_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = case("residual", 3)
    first, compact, _ = Root.of(problem).bounded(UNLIMITED, 1.0)

    def never(*_: Any) -> Tensor:
        raise AssertionError

    monkeypatch.setattr(raising._Rows, "least", never)
    again, same, _ = Root.of(problem).bounded(UNLIMITED, 1.0)
    for old, new in zip(first.bounds, again.bounds, strict=True):
        assert old.lower.equal(new.lower)
        assert old.upper.equal(new.upper)
    assert compact.unstable == same.unstable
    with pytest.raises(Expired):
        Root.of(problem).bounded(Budget(0).started(), 1.0)


def test_nothing_keeps_a_problem_alive_that_its_root_is_kept_of() -> None:
    problem = replace(case("mlp", 5)[0])
    BaB().verify(problem)
    gone = ref(problem)
    del problem
    gc.collect()
    assert gone() is None


def test_a_network_too_large_to_be_written_out_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def large(relaxed: Any) -> Compact:
        raise MemoryError

    monkeypatch.setattr(Compact, "of", large)
    easy = next(p for p, true in (case("conv", seed) for seed in range(20)) if true > 0.9)
    assert BaB().verify(replace(easy)).verdict.value == "verified"


# Proofs.


@every_kind
@seeds(2, of=12, start=1000)
def test_slopes_that_are_kept_give_the_bounds(kind: str, seeds: range) -> None:
    """To the checker, which knows nothing else but intervals; those of half a layer are not kept."""
    told = 0
    for seed in supported(kind, seeds):
        at = made(kind, seed)
        for budget in (UNLIMITED, Budget(memory=1 << 14)):
            verifier = BaB(proof=True, leaves=0)
            problem = replace(at.problem)
            result = verifier.verify(problem, budget)
            if result.verdict is Verdict.VERIFIED and result.certificate is not None:
                assert accepted(result, problem)
                told += 1
    assert told or len(seeds) < 4


def test_slopes_are_shares_of_the_lines_that_bounds_are_of() -> None:
    at = made("residual", 1000)
    found = Raising(at.compact, at.relaxed, proof=True)
    found.run(UNLIMITED)
    assert found.slopes
    for position, (feature, slopes) in found.slopes.items():
        assert len(feature) == len(set(feature.tolist()))
        for activation, shares in slopes.items():
            assert activation < position
            assert shares.shape == (2 * len(feature), at.problem.network.nodes[activation].size)


def test_slopes_too_large_for_the_memory_are_raised_again_by_who_has_more() -> None:
    at = made("residual", 1000)
    root = Root(at.problem.network, Box(*(t[None] for t in box_of(at))))
    assert root.bounded(Budget(memory=1), 1.0, proof=True)[2] is None
    before = root.raising
    assert root.bounded(Budget(memory=1), 1.0, proof=True)[2] is None
    assert root.bounded(UNLIMITED, 1.0)[2] is None
    assert root.raising is before
    assert root.bounded(UNLIMITED, 1.0, proof=True)[2]


def test_a_layer_that_is_cut_off_keeps_no_bounds_without_their_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    at = made("residual", 1000)
    found, asked = Raising(at.compact, at.relaxed, proof=True), iter([False] * 3)
    with monkeypatch.context() as patch:
        patch.setattr(raising, "TOGETHER", 1)
        patch.setattr(Budget, "expired", property(lambda self: next(asked, True)))
        found.run(Budget())
    assert found.slopes is not None
    done = {int(at.problem.network.nodes[at.compact.layers[k].position].inputs[0]) for k in range(found.done)}
    assert set(found.slopes) <= done
    for layer, begin in zip(at.compact.layers[found.done :], at.compact.starts[found.done :], strict=False):
        assert found.lower[begin : begin + layer.unstable].equal(layer.lower[: layer.unstable])


def test_a_layer_that_is_begun_again_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, part = (
        Raising(made("residual", 1000).compact, made("residual", 1000).relaxed, proof=True) for _ in range(2)
    )
    whole.run(UNLIMITED)
    with monkeypatch.context() as patch:
        asked = iter([False, True] * 4)
        patch.setattr(Budget, "expired", property(lambda self: next(asked, True)))
        for _ in range(4):
            part.run(Budget())
    part.run(UNLIMITED)
    assert 0 < part.size == whole.size


# Faults.


def test_bounds_that_cross_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    at = made("residual", 1000)
    high = torch.full((1,), 1e3, dtype=torch.float64)
    monkeypatch.setattr(raising._Rows, "least", lambda self, rows, below: (high.expand(len(rows)), None))
    for old, new in zip(at.compact.bounds(), raised(at), strict=True):
        assert old.equal(new)


def sunk(patch: pytest.MonkeyPatch) -> None:
    """Upper lines lose what they are above the kink by."""
    original = raising.backward
    patch.setattr(
        raising,
        "backward",
        lambda tables, kinks, own, charged: original(
            tables, replace(kinks, height=torch.zeros_like(kinks.height)), own, charged=charged
        ),
    )


def swapped(patch: pytest.MonkeyPatch) -> None:
    """A row's bound is taken for another one's."""
    original = raising._Rows.least
    patch.setattr(
        raising._Rows, "least", lambda self, rows, below: tuple(t.roll(1, -1) for t in original(self, rows, below))
    )


@pytest.mark.parametrize("fault", [sunk, swapped])
def test_points_notice_faults(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        test_no_point_lies_outside_and_no_bound_gets_worse("mlp", range(1000, 1003))


@pytest.mark.parametrize("kind", ["conv", "leaky"])
@seeds(3, of=20, start=1000)
def test_verdicts_are_the_true_ones(kind: str, seeds: range) -> None:
    for seed in supported(kind, seeds):
        problem, true = case(kind, seed)
        assert BaB().verify(problem, Budget(seconds=10)).verdict.value == ("verified" if true > 0 else "falsified")
