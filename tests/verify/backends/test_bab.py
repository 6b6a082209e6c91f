"""``bab``: its bounds against points, its trees against the truth, and faults that are put into it on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from assay.verify.backends.bab.account import Account
from assay.verify.backends.bab.frontier import Frontier, Leaves
from assay.verify.backends.bab.neurons import bab, phases, subtrees, tightened
from assay.verify.backends.bab.neurons.bab import BaB
from assay.verify.backends.bab.neurons.climbing import Climbing, climb
from assay.verify.backends.bab.neurons.compact import Compact, unsplit
from assay.verify.backends.bab.neurons.exact_leaves import ExactLeaves
from assay.verify.backends.bab.neurons.multipliers import Kinks, Multipliers, Units, backward, forward
from assay.verify.backends.bab.neurons.nodes import Nodes
from assay.verify.backends.bab.neurons.phases import Phases, PhaseTree
from assay.verify.backends.bab.neurons.race import Race
from assay.verify.backends.bab.neurons.record import preorder
from assay.verify.backends.bab.neurons.tables import Tables
from assay.verify.backends.bab.search import Bounded, Limits, search
from assay.verify.backends.ibp import IBP
from assay.verify.bounds import layers
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.errors import InputError, InternalError
from assay.verify.core.network import chain
from assay.verify.core.ops import LeakyRelu, Linear, Relu
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Reason, Verdict
from assay.verify.programs.expressions import as_array
from tests import nets
from tests.breadth import few, seeds
from tests.contract.test_exact_agreement import agrees
from tests.verify.backends.test_input_split_soundness import below, peak
from tests.verify.programs.cases import case

KINDS = ("mlp", "conv", "residual", "skips", "leaky")
WEAK = BaB(neurons=0, steps=1, below=0, leaves=0)  # many leaves
STEPWISE = BaB(neurons=100, passes=1, first=1, below=1, together=3, steps=1, leaves=0)  # many nodes
SPLITTING = BaB(neurons=0, steps=2, below=0, leaves=0)  # proofs by splits alone
TRAPS = nets.NEVER_VERIFIED

every_kind = pytest.mark.parametrize("kind", KINDS)


def supported(kind: str, seeds: range) -> list[int]:
    """Some leaky ReLUs are too steep."""
    return [seed for seed in seeds if unsplit(case(kind, seed)[0].network) is None]


@dataclass(frozen=True)
class Made:
    """A small problem as the search sees it, with points of its region and the operands of unstable neurons there."""

    problem: Problem
    relaxed: Relaxed
    compact: Compact
    double: Tables
    points: Tensor
    operands: Tensor  # (unstable x points)
    rows: Tensor  # A y - b: (unsafe rows x points)


def made(kind: str, seed: int) -> Made:
    problem, _ = case(kind, seed)
    network, spec, box = problem.network, problem.spec, problem.region.box()
    region = layers.batch_box(box, network.input_shape)
    relaxed = layers.by_linear_bounds(network, region, torch.float64)
    compact = Compact.of(relaxed)
    double = Tables(compact, compact.output.weighed(as_array(spec.A), as_array(spec.b)), torch.float64)
    u = torch.rand(4000, *network.input_shape, dtype=torch.float64, generator=nets.generator(seed))
    points = torch.lerp(box.lower, box.upper, torch.where(u < 0.2, 0.0, torch.where(u > 0.8, 1.0, u)))
    values = network.values(points)
    found = [
        values[network.nodes[layer.position].inputs[0]].flatten(1)[:, layer.features[: layer.unstable]].T
        for layer in compact.layers
    ]
    operands = torch.cat([*found, torch.zeros(0, len(points), dtype=torch.float64)])
    return Made(problem, relaxed, compact, double, points, operands, spec.rows(values[-1].flatten(1)).T)


def drawn(at: Made, rows: int, seed: int) -> tuple[Tensor, Multipliers]:
    """Phases of which some points have some, and any slopes, multipliers and weights."""
    rng = nets.generator(seed)
    signs = at.operands[:, torch.randint(at.operands.shape[1], (rows,), generator=rng)].sign()
    phase = (signs * (torch.rand(signs.shape, generator=rng) < 0.4)).to(torch.int8)
    low = 0.0 if at.double.left is None else at.double.left
    alpha = low + (1 - low) * torch.rand(signs.shape, dtype=torch.float64, generator=rng)
    beta = torch.rand(signs.shape, dtype=torch.float64, generator=rng) * (phase != 0)
    weight = torch.rand(len(at.rows), rows, dtype=torch.float64, generator=rng)
    return phase, Multipliers(alpha, beta, weight / weight.sum(0))


def inside(at: Made, phase: Tensor) -> Tensor:
    """Which points are in these phases: (rows x points)."""
    return ~((phase.T[:, :, None] * at.operands[None]) < 0).any(1)


# Bounds.


@every_kind
@seeds(3, of=18, start=1000)
def test_no_point_lies_below_a_bound_whatever_the_multipliers(kind: str, seeds: range) -> None:
    tried = 0
    for seed in supported(kind, seeds):
        at = made(kind, seed)
        phase, own = drawn(at, 16, seed)
        kinks = Kinks.of(
            at.double, *(t[:, None] for t in at.compact.bounds()), phase, torch.zeros(16, dtype=torch.int64)
        )
        bound = backward(at.double, kinks, own, charged=True).bound
        margin = (own.weight.T @ at.rows).masked_fill(~inside(at, phase), torch.inf).amin(1)
        assert bool((bound <= margin).all())
        tried += int(margin.isfinite().sum())
    assert tried > 6 * len(seeds)


@every_kind
@seeds(5, of=18, start=1000)
def test_no_point_of_the_unsafe_set_lies_outside_of_tightened_bounds(kind: str, seeds: range) -> None:
    """Also where the output is not asked about, points of the right phases."""
    tighter = 0
    for seed in supported(kind, seeds):
        at = made(kind, seed)
        spec, count = at.problem.spec, len(at.problem.spec.disjuncts)
        lower, upper = (t[:, None].repeat(1, count) for t in at.compact.bounds())
        phase, own = drawn(at, count, seed)
        member = (spec.disjunct[:, None] == torch.arange(count)).float()
        nodes = Nodes(phase, lower, upper, own.alpha.float(), own.beta.float(), member, *2 * [torch.arange(count)])
        single = Tables(at.compact, at.double.output, torch.float32)
        for free in (None, member):
            how = Climbing(10, 0.3, 0.3)
            everywhere = torch.ones_like(phase, dtype=torch.bool)
            found, empty = tightened.tighten(single, at.double, nodes, everywhere, free, how, UNLIMITED)
            here = inside(at, phase)
            if free is not None:
                unsafe = at.rows[None].masked_fill(member.T[:, :, None] == 0, -torch.inf).amax(1) <= 0
                here = here & unsafe
            assert not bool((here.any(1) & empty).any())
            assert bool((found.lower >= lower).all())
            assert bool((found.upper <= upper).all())
            outside = (at.operands[:, None] < found.lower[..., None]) | (at.operands[:, None] > found.upper[..., None])
            assert not bool((outside.any(0) & here & ~empty[:, None]).any())
            tighter += int((found.upper - found.lower < upper - lower - 1e-6).sum())
    assert tighter > 0


@every_kind
def test_the_gradient_is_that_of_finite_differences(kind: str) -> None:
    at = made(kind, 1003)
    phase, own = drawn(at, 8, 3)
    owner = torch.zeros(8, dtype=torch.int64)
    kinks = Kinks.of(at.double, *(t[:, None] for t in at.compact.bounds()), phase, owner)
    walk = backward(at.double, kinks, own)
    y = forward(at.double, walk.room)
    assert y is not None
    z = walk.room.operand.clone()
    by_slope = walk.seen.clamp(min=0) * z * kinks.open
    step = 1e-7
    for i in range(at.compact.unstable):
        for name, expected in (("alpha", by_slope), ("beta", -kinks.sign * z)):
            moved = replace(own, **{name: getattr(own, name).clone()})
            getattr(moved, name)[i] += step * (kinks.open[i] if name == "alpha" else 1.0)
            rise = (backward(at.double, kinks, moved).bound - walk.bound) / step
            assert rise.tolist() == pytest.approx(expected[i].tolist(), abs=1e-4)
    by_weight = replace(own, weight=own.weight + step * torch.eye(len(own.weight), dtype=torch.float64)[:, :1])
    assert ((backward(at.double, kinks, by_weight).bound - walk.bound) / step).tolist() == pytest.approx(
        y[0].tolist(), abs=1e-4
    )


@every_kind
@seeds(4, of=10, start=1000)
def test_climbing_raises_bounds(kind: str, seeds: range) -> None:
    rose = 0
    for seed in supported(kind, seeds):
        at = made(kind, seed)
        phase, own = drawn(at, 6, seed)
        owner = torch.zeros(6, dtype=torch.int64)
        kinks = Kinks.of(at.double, *(t[:, None] for t in at.compact.bounds()), phase, owner)
        before = backward(at.double, kinks, own).bound
        after = climb(at.double, kinks, own, Climbing(20, 0.2, 0.2), None).bound
        rose += int((after > before + 1e-6).sum()) - int((after < before - 1e-6).sum())
    assert rose > 2 * len(seeds)


@every_kind
@seeds(4, of=10, start=1000)
def test_what_cannot_matter_is_left_out_and_nothing_changes(kind: str, seeds: range) -> None:
    """Neurons that tighter bounds make stable: with all others as they are, bounds are the same."""
    cut = 0
    for seed in supported(kind, seeds):
        at = made(kind, seed)
        lower, upper = at.compact.bounds()
        stable = torch.arange(len(lower)) % 3
        lower, upper = torch.where(stable == 1, 0.0, lower), torch.where(stable == 2, 0.0, upper)
        small, index = at.compact.cut(lower, upper, torch.zeros_like(lower, dtype=torch.bool))
        spec = at.problem.spec
        tables = Tables(small, small.output.weighed(as_array(spec.A), as_array(spec.b)), torch.float64)
        phase, own = drawn(at, 4, seed)
        own.alpha = (upper > 0)[:, None] * torch.where((lower >= 0)[:, None], 1.0, own.alpha)
        if at.double.left is not None:
            own.alpha = torch.maximum(own.alpha, at.double.left)
        phase.zero_()
        own.beta.zero_()
        owner = torch.zeros(4, dtype=torch.int64)
        whole = Kinks.of(at.double, lower[:, None], upper[:, None], phase, owner)
        part = Kinks.of(tables, lower[index, None], upper[index, None], phase[index], owner)
        less = Multipliers(own.alpha[index], own.beta[index], own.weight)
        assert torch.allclose(backward(at.double, whole, own).bound, backward(tables, part, less).bound, atol=1e-9)
        cut += len(lower) - len(index)
    assert cut > 0


@pytest.mark.parametrize("left", [0.1, 0.3, 0.7])
def test_slopes_of_float32_are_none_of_float64(left: float) -> None:
    """The next smaller number of float32 is too little for the lower line of a leaky ReLU."""
    weight = torch.tensor([[1.0], [1.0]], dtype=torch.float64)
    network = chain((1,), [Linear(weight, torch.zeros(2)), LeakyRelu(left), Linear(weight.T, torch.zeros(1))])
    region = Box(torch.tensor([[-1.0]]), torch.tensor([[2.0**-20]]))
    compact = Compact.of(layers.by_linear_bounds(network, region, torch.float64))
    double = Tables(compact, compact.output, torch.float64)
    least = torch.full((2, 1), left).nextafter(torch.tensor(0.0)).double()
    own = Multipliers(least, torch.zeros_like(least), torch.ones(1, 1, dtype=torch.float64))
    phase, owner = torch.zeros(2, 1, dtype=torch.int8), torch.zeros(1, dtype=torch.int64)
    kinks = Kinks.of(double, *(t[:, None] for t in compact.bounds()), phase, owner)
    assert backward(double, kinks, own, charged=True).bound.item() <= -2 * left


def test_bounds_of_neurons_follow_splits_of_the_same_layer() -> None:
    """Of h - 1/2 and h - 1/4 the second is at least 1/4 where the first is not negative, and so is its opposite."""
    one, two = torch.ones(1, 1, dtype=torch.float64), torch.tensor([[1.0], [1.0]], dtype=torch.float64)
    shift = torch.tensor([-0.5, -0.25])
    steps = [Linear(one, torch.zeros(1)), Relu(), Linear(two, shift), Relu(), Linear(two.T, torch.zeros(1))]
    network = chain((1,), steps)
    region = Box(torch.tensor([[-1.0]]), torch.tensor([[1.0]]))
    compact = Compact.of(layers.by_linear_bounds(network, region, torch.float64))
    single, double = (Tables(compact, compact.output, dtype) for dtype in (torch.float32, torch.float64))
    lower, upper = (t[:, None].repeat(1, 2) for t in compact.bounds())
    phase = torch.tensor([[0, 0], [1, -1], [0, 0]], dtype=torch.int8)
    blank, tree = torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64)
    nodes = Nodes(phase, lower, upper, blank, blank, torch.ones(1, 2), tree, tree)
    chosen, how = torch.ones(3, 2, dtype=torch.bool), Climbing(100, 0.2, 0.5)
    found, empty = tightened.tighten(single, double, nodes, chosen, None, how, UNLIMITED)
    assert not bool(empty.any())
    assert 0.2 < found.lower[2, 0] <= 0.25 <= found.upper[2, 1] < 0.3


def test_rows_may_begin_at_any_layer() -> None:
    at = made("mlp", 1003)
    phase, own = drawn(at, 2, 0)
    own.weight.zero_()
    owner = torch.zeros(2, dtype=torch.int64)
    kinks = Kinks.of(at.double, *(t[:, None] for t in at.compact.bounds()), phase, owner)
    for k, (layer, begin) in enumerate(zip(at.compact.layers, at.compact.starts, strict=False), start=1):
        for feature in range(layer.unstable):
            units = Units(k, torch.full((2,), feature), torch.tensor([1.0, -1.0], dtype=torch.float64))
            bound = backward(at.double, kinks, own, units, charged=True).bound
            here = inside(at, phase)
            low = at.operands[begin + feature].masked_fill(~here[0], torch.inf).min()
            high = at.operands[begin + feature].masked_fill(~here[1], -torch.inf).max()
            assert bound[0] <= low
            assert -bound[1] >= high


@every_kind
@seeds(3, of=10, start=1000)
def test_the_least_bound_of_all_exact_leaves_is_the_true_margin(kind: str, seeds: range) -> None:
    """Every pattern of phases, or those of the first few neurons, where the rest are left to the relaxation."""
    exact = 0
    for seed in supported(kind, seeds):
        at, (problem, true) = made(kind, seed), case(kind, seed)
        leaves = ExactLeaves(problem, at.relaxed.bounds, at.compact, lambda points: None, UNLIMITED)
        count = at.compact.unstable
        bounds = []
        for pattern in product((-1, 1), repeat=min(count, 6)):
            phase = torch.tensor([*pattern, *[0] * (count - len(pattern))], dtype=torch.int8)
            bounds += [leaves.settle(phase, d)[0] for d in range(len(problem.spec.disjuncts))]
        assert min(bounds) <= true + 1e-7
        if count <= 6:
            assert min(bounds) == pytest.approx(true, abs=1e-6)
            exact += 1
    assert exact or kind in ("residual", "skips")


# Trees.


@every_kind
@pytest.mark.parametrize("method", [WEAK, STEPWISE, BaB(output=False, first=2, below=4)], ids=repr)
@seeds(3, of=9, start=1000)
def test_verdicts_are_the_true_ones(method: BaB, kind: str, seeds: range) -> None:
    asked = 0
    for problem, true in (case(kind, seed) for seed in seeds):
        if unsplit(problem.network) is None:
            agrees(method.verify(problem), problem, true)
            asked += 1
    assert asked >= 0.6 * len(seeds)


@every_kind
@seeds(1, of=7, start=1000)
def test_batches_of_any_size_come_to_the_same_verdict(kind: str, seeds: range) -> None:
    for problem, true in (case(kind, seed) for seed in seeds):
        for batch in (1, 2, 256):
            method = BaB(batch=batch, neurons=0, below=0, steps=1, leaves=0)
            if unsplit(problem.network) is None:
                agrees(method.verify(problem), problem, true)


@pytest.mark.parametrize("margin", few([1e-1, 1e-3, 1e-6, 1e-9], quick=[1e-1, 1e-9]))
@pytest.mark.parametrize(("d", "steepness"), [(2, 25.0), (2, 1000.0), (5, 25.0)])
def test_planted_holes_are_never_verified_and_mostly_found(d: int, steepness: float, margin: float) -> None:
    network, at = peak(d, steepness, 1.5, seed=d)
    problem = Problem(network, Box(torch.zeros_like(at), torch.ones_like(at)), below(-0.5 + margin))
    result = BaB().verify(problem, Budget(seconds=20))
    assert result.verdict is Verdict.FALSIFIED or (margin < 1e-6 and result.verdict is Verdict.UNKNOWN)


@pytest.mark.parametrize(("d", "steepness"), [(2, 25.0), (3, 250.0), (5, 25.0), (10, 25.0)])
def test_their_safe_twins_are_verified(d: int, steepness: float) -> None:
    network, at = peak(d, steepness, 0.9 / 1.5, seed=d)
    problem = Problem(network, Box(torch.zeros_like(at), torch.ones_like(at)), below(0.0))
    result = BaB(output=False).verify(problem, Budget(seconds=60))
    assert result.verdict is Verdict.VERIFIED
    assert result.margin is not None
    assert 0 < result.margin <= 0.4 + 1e-9
    assert BaB().verify(problem, Budget(seconds=60)).verdict is Verdict.VERIFIED


@pytest.mark.parametrize("name", TRAPS)
def test_float_traps_are_never_verified(name: str) -> None:
    assert BaB().verify(nets.trap_problem(name), Budget(seconds=5)).verdict is not Verdict.VERIFIED


def test_little_memory_and_no_time_prove_nothing_wrong() -> None:
    problem, true = case("mlp", 1003)
    agrees(BaB(neurons=0, below=0, steps=1, leaves=0).verify(problem, Budget(memory=20000)), problem, true)
    late = BaB().verify(problem, Budget(seconds=0))
    assert late.reason is Reason.TIMEOUT or late.verdict is not Verdict.UNKNOWN


def test_what_is_no_box_is_declined() -> None:
    ball = Problem.robustness(nets.random_mlp(0, (4, 8, 3)), torch.full((4,), 0.5), 0, 0.1, norm=2)
    assert "l2 ball" in (BaB().supports(ball) or "")


@pytest.mark.parametrize("option", ["batch", "together", "passes", "steps", "below", "neurons", "slope"])
def test_options_out_of_range_are_refused(option: str) -> None:
    with pytest.raises(InputError, match=f"{option} of bab must be a number of at least"):
        BaB(**{option: -1})


@dataclass(frozen=True, eq=False)
class Falling:
    """Domains that are bounded less and less well, the deeper the worse."""

    depth: Tensor

    def root(self) -> Falling:
        return self

    def bound(self, domains: Falling, budget: Budget) -> Bounded[Falling]:
        lower = -1.0 - domains.depth.double()
        return Bounded(lower, lower, domains)

    def divisible(self, domains: Falling) -> Tensor:
        return domains.depth < 3

    def halve(self, domains: Falling) -> Falling:
        return Falling((domains.depth + 1).repeat(2))


def test_a_domain_is_never_worse_than_what_it_was_split_from() -> None:
    outcome = search(Falling(torch.zeros(1, dtype=torch.int64)), Limits(4, 0, 0, order="deep"), UNLIMITED)
    assert outcome.margin == -1.0
    assert not outcome.complete


@pytest.mark.parametrize("leaves", [1, 2, 40])
def test_trees_are_found_from_their_leaves(leaves: int) -> None:
    """Every leaf comes once, below splits into its phases, the inactive half of each first."""
    rng = nets.generator(leaves)
    phases_ = [torch.zeros(9, dtype=torch.int8)]
    while len(phases_) < leaves:
        deep = phases_.pop(int(torch.randint(min(3, len(phases_)), (1,), generator=rng)))
        free = (deep == 0).nonzero().flatten()
        neuron = free[torch.randint(len(free), (1,), generator=rng)]
        phases_ += [deep.index_fill(0, neuron, sign) for sign in (-1, 1)]
    order = torch.randperm(leaves, generator=rng)
    phase = torch.stack(phases_)[order].numpy()
    found = preorder(phase, [11])
    assert found is not None
    place, seen = 0, 0
    stack: list[list[tuple[int, int]]] = [[]]
    for code in found.codes.tolist():
        path = stack.pop()
        if code >= 0:
            stack += [[*path, (code, 1)], [*path, (code, -1)]]
            continue
        leaf = phase[found.leaves[seen]]
        assert {(int(n), int(leaf[n])) for n in leaf.nonzero()[0]} == set(path)
        end = place + int(found.paths.counts[seen])
        assert found.paths.neurons[place:end].tolist() == [11, *(n for n, _ in path)]
        place, seen = end, seen + 1
    assert not stack
    assert seen == leaves
    assert preorder(np.eye(2, dtype=np.int8), []) is None


@pytest.mark.parametrize(("order", "seen"), [("shallow", [0, 1, 1, 2]), ("deep", [0, 1, 2, 3])])
def test_shallow_and_deep_searches_take_leaves_in_their_order(
    order: Literal["shallow", "deep"], seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    depths: list[int] = []
    original = Falling.bound

    def noted(self: Falling, domains: Falling, budget: Budget) -> Bounded[Falling]:
        depths.extend(domains.depth.tolist())
        return original(self, domains, budget)

    monkeypatch.setattr(Falling, "bound", noted)
    search(Falling(torch.zeros(1, dtype=torch.int64)), Limits(1, 0, 1 << 20, 4, order), UNLIMITED)
    assert depths == seen


@dataclass(frozen=True, eq=False)
class Rising(Falling):
    """Domains of which those at a depth of 3 are safe."""

    def root(self) -> Rising:
        return self

    def bound(self, domains: Falling, budget: Budget) -> Bounded[Falling]:
        lower = domains.depth.double() - 2.5
        return Bounded(lower, lower, domains)

    def divisible(self, domains: Falling) -> Tensor:
        return domains.depth < 4

    def halve(self, domains: Falling) -> Rising:
        return Rising((domains.depth + 1).repeat(2))


def test_a_tree_that_is_closed_but_for_a_deep_leaf_is_not_told_as_all_of_it() -> None:
    account = Account(1)
    account.close(torch.arange(1, 61))
    assert not account.complete
    assert account.measure < 1.0
    account.close(torch.tensor([60]))
    assert account.complete
    assert account.measure == 1.0


def test_searches_go_on_from_what_others_left_open_and_no_leaf_is_lost() -> None:
    tree = Rising(torch.zeros(2, dtype=torch.int64))
    account = Account(2)
    first = search(tree, Limits(4, 0, 1 << 20, 10, "shallow"), UNLIMITED, None, account)
    assert first.stats["domains"] == 10
    assert first.spent.sum() == 10
    alone = search(tree, Limits(4, 0, 1 << 20), UNLIMITED, first.open.take(first.open.tree == 1), account)
    assert alone.closed == [False, True]
    assert alone.spent.tolist() == [0, 15 - first.spent[1]]
    rest = first.open.take(first.open.tree == 0)
    with pytest.raises(InternalError, match="do not make up the tree"):
        search(tree, Limits(4, 0, 1 << 20), UNLIMITED, rest.take(torch.arange(1, len(rest.bound))), account)


def test_in_a_race_each_way_has_copies_and_what_one_has_closed_is_left_out_of_the_others() -> None:
    ways = Climbing(5), Climbing(10)
    race = Race(ways, 2, Leaves.roots(Rising(torch.zeros(4, dtype=torch.int64))))
    heats = race.heats(80)
    assert next(heats) == (0, 2)
    mine = race.take(0)
    assert mine.tree.tolist() == [0, 1]
    race.note(
        search(Rising(mine.domains.depth), Limits(4, 0, 1 << 20), UNLIMITED, mine.take(mine.tree == 0), race.account)
    )
    assert race.closed.tolist() == [True, False]
    assert race.first_closed.tolist() == [True, False, False, False]
    assert next(heats) == (1, 2)
    assert race.take(1).tree.tolist() == [3]
    assert race.best == 0
    assert next(heats) == (0, 10), "one slice of eight"


@pytest.mark.parametrize(("other", "slices"), [(float("inf"), 8), (1e6, 8), (10.0, 2)])
def test_a_way_is_given_up_where_trees_are_closed_sooner_otherwise(other: float, slices: int) -> None:
    """Of each tree half of what is open is closed by as many domains: that is given up for a way that takes few."""
    race = Race((Climbing(5),), 1, Leaves.roots(Rising(torch.zeros(1, dtype=torch.int64))))
    given = 0
    for depth, (way, domains) in enumerate(race.heats(800, other=other), start=1):
        assert (way, domains) == (0, 100)
        race.account.close(torch.tensor([depth]))
        race.spent += domains
        given += 1
    assert given == slices


def test_a_race_is_counted_among_the_domains_and_its_roots_once() -> None:
    """All that was bounded are domains, those of ways that were dropped apart; a root is one node in all ways."""
    problem, _ = case("mlp", 1000)
    bounded: list[int] = []
    original = PhaseTree.bound

    def counting(self: PhaseTree, domains: Phases, budget: Budget) -> Bounded[Phases]:
        bounded.append(len(domains.tree))
        return original(self, domains, budget)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PhaseTree, "bound", counting)
        raced, alone = (
            BaB(neurons=4, passes=1, first=40, below=4, leaves=0, steps=1, race=race).verify(problem).stats
            for race in (True, False)
        )
    assert raced["domains"] + alone["domains"] == sum(bounded)
    assert alone["raced"] == 0
    assert 0 < raced["raced"] < raced["domains"]
    assert raced["nodes"] == alone["nodes"] == len(problem.spec.disjuncts)


def test_the_account_is_kept_tree_by_tree() -> None:
    account = Account(2)
    account.close(torch.tensor([1, 2, 2, 1]), torch.tensor([0, 0, 0, 1]))
    assert account.closed == [True, False]
    assert account.measure == pytest.approx(0.75)
    account.close(torch.tensor([1]), torch.tensor([1]))
    assert account.complete
    account.close(torch.tensor([3]), torch.tensor([0]))  # more than all of a tree is no tree either
    assert not account.complete


# Faults.

Patch = Callable[[pytest.MonkeyPatch], None]


def flipped_split(patch: pytest.MonkeyPatch) -> None:
    original = phases.split
    patch.setattr(phases, "split", lambda domains, phase: original(domains, -1))


def flipped_half(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Nodes, "split", lambda self, neuron: Nodes.join([self._half(neuron, 1), self._half(neuron, 1)]))


def dropped_leaf(patch: pytest.MonkeyPatch) -> None:
    original = Frontier.push

    def short(self: Any, leaves: Any) -> None:
        original(self, leaves.take(torch.arange(len(leaves.bound) - 1)) if len(leaves.bound) > 1 else leaves)

    patch.setattr(Frontier, "push", short)


def wrong_sign(patch: pytest.MonkeyPatch) -> None:
    """What is known of a split is turned round."""
    original = Kinks.of
    patch.setattr(Kinks, "of", lambda *arguments: replace(k := original(*arguments), sign=-k.sign))


def closed_without_proof(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(phases.PhaseTree, "charged", lambda self, phase, tree, own: torch.ones(len(tree)).double())
    patch.setattr(phases.PhaseTree, "enough", -0.05, raising=False)
    patch.setattr(subtrees, "ENOUGH", -0.5)


FAULTS: dict[str, Patch] = {
    "split-flipped": flipped_split,
    "half-flipped": flipped_half,
    "leaf-dropped": dropped_leaf,
    "sign-wrong": wrong_sign,
    "proof-skipped": closed_without_proof,
}


def wrong(method: BaB, seeds: range) -> bool:
    """Whether a verdict is not the true one, or the account does not come out even."""
    for kind, seed in ((kind, seed) for seed in seeds for kind in ("mlp", "skips")):
        problem, true = case(kind, seed)
        try:
            result = method.verify(problem, Budget(seconds=2))
        except InternalError:
            return True
        if result.verdict is Verdict.VERIFIED and true < 0:
            return True
    return False


@pytest.fixture
def unseeing(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No point is looked at: else counterexamples come before proofs."""
    monkeypatch.setattr(bab.Work, "look", lambda self, points: None)
    return monkeypatch


@pytest.mark.parametrize("method", [STEPWISE, SPLITTING], ids=["stepwise", "splitting"])
def test_without_a_fault_nothing_is_wrong(method: BaB, unseeing: pytest.MonkeyPatch) -> None:
    assert not wrong(method, range(1000, 1004))


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_noticed(fault: str, unseeing: pytest.MonkeyPatch) -> None:
    FAULTS[fault](unseeing)
    assert wrong(STEPWISE if fault == "half-flipped" else SPLITTING, range(1000, 1060))


def test_points_notice_stale_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node with the bounds of another one."""
    original = tightened.tighten

    def stale(*arguments: Any) -> Any:
        found, empty = original(*arguments)
        return replace(found, lower=found.lower.roll(1, 1), upper=found.upper.roll(1, 1)), empty

    monkeypatch.setattr(tightened, "tighten", stale)
    with pytest.raises(AssertionError):
        test_no_point_of_the_unsafe_set_lies_outside_of_tightened_bounds("mlp", range(1000, 1040))


@pytest.mark.slow
def test_what_is_tried_takes_a_search() -> None:
    counts = [WEAK.verify(case("mlp", seed)[0]).stats["domains"] for seed in range(1000, 1020)]
    assert sum(count > 5 for count in counts) >= 3


def test_what_intervals_prove_has_no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = nets.random_mlp(3, (4, 10, 10, 3)), torch.full((4,), 0.5)
    label = int(network(x[None]).argmax())
    near, far = (Problem.robustness(network, x, label, eps) for eps in (1e-3, 0.1))
    bound = IBP().verify(near).margin
    assert IBP().verify(far).verdict is Verdict.UNKNOWN
    asked = list[Problem]()
    root = bab.Work.root

    def noted(work: bab.Work) -> Relaxed:
        asked.append(work.problem)
        return root(work)

    monkeypatch.setattr(bab.Work, "root", noted)
    result = BaB().verify(near)
    assert (result.verdict, result.margin) == (Verdict.VERIFIED, bound)
    BaB().verify(far)
    assert asked == [far]
    assert BaB(proof=True).verify(near).certificate is not None
    assert asked == [far, near]


def test_what_has_no_bounds_is_left_unstable_when_a_network_is_cut() -> None:
    at = made("mlp", 1003)
    lower, upper = at.compact.bounds()
    lower[0], upper[0] = torch.nan, torch.nan
    rest, left = at.compact.cut(lower, upper, torch.zeros(len(lower), dtype=torch.bool))
    assert left.tolist() == list(range(at.compact.unstable))
    assert bool(rest.bounds()[0][0].isnan())
