"""``bab`` on networks of more than ReLUs: bounds against points, trees against the truth and input splitting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from assay.verify.backends.bab import search
from assay.verify.backends.bab.domains import take
from assay.verify.backends.bab.inputs.input_split import InputSplit
from assay.verify.backends.bab.neurons import bab, intervals
from assay.verify.backends.bab.neurons.bab import BaB
from assay.verify.backends.bab.neurons.intervals import IntervalTree
from assay.verify.backends.bab.neurons.tied import Raised, Root, Tied, Unsafe
from assay.verify.bounds import layers
from assay.verify.bounds.backward.rows import lower_rows
from assay.verify.bounds.demand import by_demand
from assay.verify.bounds.optimised.slopes import Ascent
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.bounds.sites import Sites
from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.network import chain, to_network
from assay.verify.core.ops import Linear, Op, Relu, Scale, Smooth
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Reason, Verdict
from assay.verify.core.spec import Spec
from tests import nets
from tests.breadth import few, seeds
from tests.contract.test_exact_agreement import agrees
from tests.curved import NETWORKS, boxes, least, rows
from tests.verify.backends.test_input_split_soundness import below, peak
from tests.verify.programs.cases import case

D = torch.float64
KINDS = ("leaky", "largest", "pooled")
ALL = [name for name in NETWORKS if name not in ("Step(sign)", "Step(floor)", "Step(ceil)", "Step(round)")]
QUICK = ["Smooth(sigmoid)", "Smooth(sin)", "Smooth(gelu)", "gated", "attention"]
curved = pytest.mark.parametrize("name", few(ALL, QUICK))
HOW = Ascent(3, 0.2, 0.9), Ascent(3, 0.5, 0.9)


def kinked(kind: str, seed: int) -> tuple[Problem, float] | None:
    """A case of a kind; None where all activations are ReLUs."""
    problem, true = case(kind, seed)
    plain = all(n.op.affine or isinstance(n.op, Relu) for n in problem.network.nodes[1:])
    return None if plain or (kind == "leaky" and seed % 4 != 3) else (problem, true)


def asked(name: str, seed: int, short: float, samples: int = 2000) -> tuple[Problem, float]:
    """A network of curves, and a row whose least value at points is so far above the bound: the problem, and that."""
    network = NETWORKS[name](seed)
    lower, upper = boxes(network, seed, 0.15, 1)
    row = rows(network.output_size)[:1]
    seen = float(least(network, lower, upper, row, samples))
    spec = Spec.halfspaces(row.tolist(), [seen - short])
    return Problem(network, Box(lower[0], upper[0]), spec), short


def relaxed_of(problem: Problem) -> Relaxed:
    box = layers.batch_box(problem.region.box(), problem.network.input_shape)
    return layers.by_linear_bounds(problem.network, box, D)


def points_of(problem: Problem, count: int, seed: int) -> Tensor:
    box = problem.region.box()
    u = torch.rand(count, *problem.network.input_shape, dtype=D, generator=nets.generator(seed))
    return torch.lerp(box.lower, box.upper, torch.where(u < 0.2, 0.0, torch.where(u > 0.8, 1.0, u)))


# Bounds.


@curved
def test_no_point_of_a_domain_lies_below_its_bound_whatever_the_multipliers(name: str) -> None:
    problem, _ = asked(name, 1, 0.0, 10)
    root = Root.of(relaxed_of(problem), Unsafe.of(problem.spec.disjuncts))
    rng, sites = nets.generator(3), root.sites
    values = problem.network.values(points_of(problem, 400, 5))
    at = sites.pick(dict(enumerate(values)))
    first, last = (
        sites.pick({i: getattr(b, s) for i, b in enumerate(root.relaxed.bounds)}) for s in ("lower", "upper")
    )
    # Domains about some of the points, narrowed at some of the sites.
    about = at[:12]
    narrow = torch.rand(about.shape, generator=rng, dtype=D) < 0.4
    width = torch.rand(about.shape, generator=rng, dtype=D) * (last - first) / 2
    lower = torch.where(narrow, torch.maximum(first, about - width), first)
    upper = torch.where(narrow, torch.minimum(last, about + width), last)
    which = torch.zeros(len(about), dtype=torch.int64)
    bounds = root.pushed(lower, upper)
    inside = ((lower[:, None] <= at) & (at <= upper[:, None])).all(2)
    for value, known in zip(values, bounds, strict=True):
        held = (known.lower.flatten(1)[:, None] <= value.flatten(1)) & (
            value.flatten(1) <= known.upper.flatten(1)[:, None]
        )
        assert bool((held.all(2) | ~inside).all())
    tied = Tied.over(root, root.dtype, bounds, which)
    share = torch.randn(about.shape, generator=rng, dtype=D).to(root.dtype)
    weight = torch.ones(len(about), 1, dtype=root.dtype)
    raised = Raised(tied, torch.ones(1, len(sites), dtype=root.dtype), narrow.to(root.dtype), share, weight, *HOW)
    raised.run(torch.inf)
    bound = raised.proved(torch.arange(len(about)), bounds, which)
    margin = problem.spec.rows(values[-1].flatten(1))[:, 0].expand_as(inside).masked_fill(~inside, torch.inf).amin(1)
    assert bool(bound.isfinite().all())
    assert bool((bound <= margin).all())
    assert bool(inside.any(1).all())


@pytest.mark.parametrize("name", few(ALL, QUICK[:1]))
def test_splits_cover_their_domain_and_do_not_lower_its_bound(name: str) -> None:
    problem, _ = asked(name, 2, 1e-3, 50)
    tree = IntervalTree.of(relaxed_of(problem), problem.spec.disjuncts, lambda points: None)
    bounded = tree.bound(tree.root(), UNLIMITED)
    if bool(bounded.lower[0] > 0):
        return
    domains = bounded.domains
    for _ in range(3):
        halves = tree.halve(domains)
        number = torch.arange(len(domains.site))
        below, above = take(halves, number), take(halves, number + len(number))
        at = domains.site[:, None]
        assert torch.equal(below.upper.gather(1, at), above.lower.gather(1, at))
        assert torch.equal(below.lower, domains.lower)
        assert torch.equal(above.upper, domains.upper)
        children = tree.bound(halves, UNLIMITED)
        worst = children.lower.view(2, -1).amin(0)  # what is raised in a few steps may end a little lower
        assert bool((worst >= bounded.lower - 0.5 * bounded.lower.abs() - 1e-2).all())
        bounded, domains = children, children.domains
        assert bool(tree.divisible(domains).all())


# Trees.


@pytest.mark.parametrize("kind", KINDS)
@seeds(2, of=30, start=1000)
def test_verdicts_are_those_of_enumeration(kind: str, seeds: range) -> None:
    """A margin of 1e-4 may stay open, and is never misjudged."""
    for seed in seeds:
        if (found := kinked(kind, seed)) is not None:
            close = abs(found[1]) < 1e-3
            result = BaB().verify(found[0], Budget(1.0 if close else 60.0))
            if not (close and result.verdict is Verdict.UNKNOWN):
                agrees(result, *found)


@pytest.mark.parametrize("name", few(ALL, ["Smooth(sigmoid)", "gated"]))
@pytest.mark.parametrize("seed", few(range(2), [0]))
def test_verdicts_are_those_of_input_splitting(name: str, seed: int) -> None:
    for short, verdict in ((0.1, Verdict.VERIFIED), (-0.05, Verdict.FALSIFIED)):
        problem, _ = asked(name, seed, short)
        found = BaB().verify(problem, Budget(2.0))
        other = InputSplit(max_inputs=64).verify(problem, Budget(2.0))
        assert {found.verdict, other.verdict} != {Verdict.VERIFIED, Verdict.FALSIFIED}
        if verdict is Verdict.VERIFIED:
            assert other.verdict is not verdict or found.verdict is not Verdict.FALSIFIED
        elif name != "transformer":  # which takes longer than that
            assert found.verdict is verdict


@pytest.mark.slow
def test_intervals_are_split_where_bounds_do_not_decide() -> None:
    problem, _ = asked("Smooth(cosh)", 3, 0.02)
    result = BaB().verify(problem, Budget(20.0))
    assert result.verdict is Verdict.VERIFIED
    assert result.stats["domains"] > 1
    assert result.stats["closed"] == 1.0


def test_a_leaf_that_is_lost_closes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = asked("Smooth(cosh)", 3, 0.02)
    halve = IntervalTree.halve

    def half(self: IntervalTree, domains: intervals.Intervals) -> intervals.Intervals:
        both = halve(self, domains)
        return take(both, torch.arange(len(both.site) - 1))

    monkeypatch.setattr(IntervalTree, "halve", half)
    with pytest.raises((search.InternalError, RuntimeError)):
        BaB().verify(problem, Budget(20.0))


@pytest.mark.parametrize("op", [Smooth("log"), Smooth("sqrt"), Smooth("reciprocal")], ids=repr)
def test_where_a_curve_is_not_defined_nothing_is_verified(op: Op) -> None:
    """2 - sigmoid(f(relu(x) + low)) is above 1 wherever it is a number: it is none for x = 0 and low = -0.1."""
    one = torch.ones(1, dtype=D)
    for low, safe in ((-0.1, False), (0.5, True)):
        last = Linear(-torch.ones(1, 1, dtype=D), 2 * one)
        network = chain((1,), [Relu(), Scale(one, low * one), op, Smooth("sigmoid"), last])
        problem = Problem(network, Box(-one, one), Spec.halfspaces([[1.0]], [0.5]))
        assert (BaB().verify(problem, Budget(1.0)).verdict is Verdict.VERIFIED) == safe


@pytest.mark.parametrize("name", nets.NEVER_VERIFIED)
def test_float_traps_are_never_verified(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bab, "unsplit", lambda network: "taken for another kind")
    network = to_network(nets.trap(name), (1,))
    region = Box(torch.zeros(1, dtype=D), torch.ones(1, dtype=D))
    result = BaB().verify(Problem(network, region, Spec.halfspaces([[1.0]], [0.0])), Budget(2.0))
    assert result.verdict is not Verdict.VERIFIED


@pytest.mark.parametrize("kind", ["mlp", "conv", "skips"])
@seeds(1, of=20, start=1000)
def test_relus_are_split_as_intervals_as_well(kind: str, seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bab, "unsplit", lambda network: "taken for another kind")
    for problem, true in (case(kind, seed) for seed in seeds):
        agrees(BaB().verify(problem, Budget(60.0)), problem, true)


@pytest.mark.parametrize("margin", [1e-1, 1e-6])
@pytest.mark.parametrize(("d", "steepness"), [(2, 25.0), (5, 1000.0)])
def test_planted_holes_are_never_verified(
    d: int, steepness: float, margin: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bab, "unsplit", lambda network: "taken for another kind")
    network, at = peak(d, steepness, 1.5, seed=d)
    problem = Problem(network, Box(torch.zeros_like(at), torch.ones_like(at)), below(-0.5 + margin))
    assert BaB().verify(problem, Budget(1.0)).verdict is not Verdict.VERIFIED


def test_a_spent_budget_is_a_timeout() -> None:
    problem, _ = asked("Smooth(cosh)", 3, 0.02)
    result = BaB().verify(problem, Budget(0.0))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.TIMEOUT)


# Bounds as rows ask for them.


@pytest.mark.parametrize("name", few(ALL, QUICK))
def test_bounds_by_demand_hold_and_are_between_intervals_and_all_linear_bounds(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assay.verify.bounds.demand.AT_ONCE", 5)
    problem, _ = asked(name, 4, 0.0, 50)
    box = layers.batch_box(problem.region.box(), problem.network.input_shape)
    found = by_demand(problem.network, box, problem.spec.A, problem.spec.b, UNLIMITED)
    plain = layers.by_intervals(problem.network, box, D)
    values = problem.network.values(points_of(problem, 200, 7))
    for value, known, wide in zip(values, found.bounds, plain.bounds, strict=True):
        assert bool(((known.lower <= value) & (value <= known.upper)).all())
        slack = 1e-9 * (1 + wide.lower.abs() + wide.upper.abs())
        assert bool(((known.lower >= wide.lower - slack) & (known.upper <= wide.upper + slack)).all())
    low = [lower_rows(r, problem.spec.A[None], linear=True) for r in (plain, found)]
    # Planes over a smaller box are not above those over a larger one everywhere.
    assert bool((low[1] >= low[0] - 1e-9 - 0.01 * low[0].abs()).all())


def test_bounds_that_another_method_has_are_where_a_search_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many neurons there are."""
    monkeypatch.setattr(intervals, "MANY", 0)
    asked_for: list[int] = []
    monkeypatch.setattr(intervals, "by_demand", lambda *given: asked_for.append(1) or by_demand(*given))
    problem, _ = asked("attention", 4, 0.0, 50)
    box = layers.batch_box(problem.region.box(), problem.network.input_shape).box()

    def begun() -> Relaxed:
        return intervals.bounded(problem.network, box, problem.spec, UNLIMITED, lambda *given: given[2])

    begun()
    assert asked_for == [1]
    found = relaxed_of(problem)
    for one, other in zip(begun().bounds, found.bounds, strict=True):
        assert one.lower.equal(other.lower)
        assert one.upper.equal(other.upper)
    assert asked_for == [1]


def test_what_splits_promise_is_told_of_the_neurons_that_are_read() -> None:
    """A product of two sigmoids of one layer: the sites are the operands of the sigmoids."""
    network = NETWORKS["gated"](0)
    lower, upper = boxes(network, 0, 0.2, 1)
    relaxed = layers.by_linear_bounds(network, Box(lower, upper), D)
    sites = Sites.of(relaxed)
    told = sites.gather({i: torch.ones_like(lines.slope) for i, lines in relaxed.lines.items()}, relaxed.lines)
    assert told.shape == (1, len(sites))
    assert bool((told >= 0).all())
    assert bool((told > 0).any())
