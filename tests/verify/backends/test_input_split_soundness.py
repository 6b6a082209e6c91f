"""Attempts to make `input-split` call something safe that is not: planted holes, exact truths, samples, and floats."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from math import prod

import pytest
import torch
from torch import Tensor

from assay.verify.backends.bab.inputs import input_split
from assay.verify.backends.bab.inputs.input_split import EARLY, InputSplit
from assay.verify.backends.bab.inputs.input_tree import Boxes, InputTree
from assay.verify.backends.bab.search import Bounded
from assay.verify.core.budget import Budget
from assay.verify.core.network import Builder, Network, to_network
from assay.verify.core.ops import (
    Add,
    Concat,
    Conv2d,
    Gather,
    LeakyRelu,
    Linear,
    Max,
    Op,
    Relu,
    Reshape,
    Scale,
    Smooth,
    Sub,
)
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.solving.auto import Auto
from tests.breadth import few, seeds
from tests.contract.graphs import members, random_graph
from tests.exact import true_margin, value
from tests.nets import NEVER_VERIFIED, random_mlp, trap_problem
from tests.verify.solving.clock import Clock

# What rounding may add to a margin, as a share of the magnitudes that it is made of.
ROUNDING = 1e-11
ENOUGH = Budget(seconds=20)


def t(values: object) -> Tensor:
    """As a float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)


def layers(*weights: tuple[object, object]) -> Network:
    """Fully connected layers with ReLU between them, in float64."""
    ops: list[Op] = []
    for weight, bias in weights:
        ops += [Linear(t(weight), t(bias)), Relu()]
    return float64(t(weights[0][0]).shape[1], ops[:-1])


def float64(inputs: int | tuple[int, ...], ops: Sequence[Op]) -> Network:
    """A chain whose oracle runs in float64."""
    builder, last = Builder((inputs,) if isinstance(inputs, int) else inputs), 0
    for op in ops:
        last = builder.add(op, last)
    return builder.build(last, dtype=torch.float64)


def box(lower: Sequence[float], upper: Sequence[float]) -> Box:
    return Box(t(lower), t(upper))


def below(bound: float, outputs: int = 1) -> Spec:
    """Unsafe: the first output is at most ``bound``."""
    return Spec.halfspaces([[1.0] + [0.0] * (outputs - 1)], [bound])


def run(problem: Problem, budget: Budget = ENOUGH, **options: int) -> Result:
    """The result, after what must hold of every one has been checked."""
    result = InputSplit(**options).verify(problem, budget)
    check(problem, result)
    return result


def check(problem: Problem, result: Result) -> None:
    """Margin at most what is sampled; verified only with a positive one; counterexamples are ones."""
    region = problem.region.box()
    x = torch.cat([members(region.lower, region.upper, 2000), region.centre[None]])
    y = problem.network(x)
    sampled = problem.spec.margin(problem.spec.rows(y))
    finite = sampled[sampled.isfinite()]
    if result.margin is not None and len(finite):
        assert result.margin <= float(finite.min()) + ROUNDING * scale(problem)
    if result.verdict is Verdict.VERIFIED:
        assert result.margin is not None
        assert result.margin > 0 or "touched" in result.stats
        assert not bool((sampled <= -ROUNDING * scale(problem)).any())
    if result.verdict is Verdict.FALSIFIED:
        assert result.counterexample is not None
        point = result.counterexample[None]
        assert bool(problem.region.contains(point))
        assert bool(problem.spec.violated(problem.network(point.double())))


def scale(problem: Problem) -> float:
    """The size of the numbers that a margin is the sum of."""
    region = problem.region.box()
    _, size = problem.network.rounding_error(torch.maximum(region.lower.abs(), region.upper.abs())[None], torch.float64)
    rows = problem.spec.A.abs().sum(1) if problem.spec.disjuncts else t([0.0])
    return 1 + float(size.abs().max()) * float(rows.max()) + float(problem.spec.b.abs().max())


# Few inputs that vary among many.


@pytest.mark.parametrize("seed", range(3))
def test_inputs_that_hardly_vary_are_not_counted(seed: int) -> None:
    """Two inputs of 24 vary; some others as much as float32 rounds them. The truth is that of enumeration."""
    rng = torch.Generator().manual_seed(seed)
    net = layers(
        (torch.randn(6, 24, generator=rng).tolist(), [0.1] * 6), (torch.randn(1, 6, generator=rng).tolist(), [0.0])
    )
    lower = torch.rand(24, dtype=torch.float64, generator=rng) + 0.5
    upper = lower.clone()
    upper[::3] += 2.0**-26
    upper[[4, 17]] += 2.0
    region = Box(lower, upper)
    truth = true_margin(Problem(net, region, below(0.0)))
    for bound, verdict in ((truth - 0.01, Verdict.VERIFIED), (truth + 0.01, Verdict.FALSIFIED)):
        result = run(Problem(net, region, below(bound)), max_inputs=2)
        assert result.verdict is verdict
        assert InputSplit(max_inputs=1).supports(Problem(net, region, below(bound))) == (
            "2 inputs that vary, more than the 1 that are halved at most"
        )


def test_layers_too_wide_for_tables_are_declined() -> None:
    """What a table would hold is counted before it is made."""
    net = float64(
        (1, 100, 100), [Conv2d(torch.ones(1, 1, 1, 1, dtype=torch.float64), t([0.0])), Relu(), Reshape((-1,))]
    )
    lower = torch.zeros(1, 100, 100, dtype=torch.float64)
    upper = lower.clone()
    upper[0, 5, 5] = 1.0
    why = InputSplit().supports(Problem(net, Box(lower, upper), below(-1.0, 10000)))
    assert why is not None
    assert why.startswith("10000 inputs of layers that are too wide")


# Planted counterexamples.


def peak(d: int, steepness: float, height: float, seed: int) -> tuple[Network, Tensor]:
    """y = 1 - height * relu(1 - steepness * sum_i |x_i - x*_i|), disguised, and x* within [0, 1]^d: y(x*) = 1 - height.

    All weights are powers of two or small dyadic numbers, so that the disguise changes nothing.
    """
    rng = torch.Generator().manual_seed(seed)
    at = (torch.randint(1, 2**10, (d,), generator=rng) / 2**10).double()
    eye = torch.eye(d, dtype=torch.float64)
    distance = torch.cat([eye, -eye])
    order = torch.randperm(2 * d, generator=rng)
    powers = 2.0 ** torch.randint(-3, 4, (2 * d,), generator=rng).double()
    first = Linear((distance * powers[:, None])[order], (torch.cat([-at, at]) * powers)[order])
    total = Linear((-steepness / powers)[order][None].repeat(2, 1) * t([[1.0], [0.5]]), t([1.0, 0.5]))
    # A layer split in two: h and h / 2 are taken together again.
    split = Linear(t([[1.0, 0.0], [0.0, 2.0]]), t([0.0, 0.0]))
    last = Linear(t([[-height / 2, -height / 2]]), t([1.0]))
    return float64(d, [first, Relu(), total, Relu(), split, Relu(), last]), at


@pytest.mark.parametrize("margin", few([1e-1, 1e-3, 1e-6, 1e-9], quick=[1e-1, 1e-9]))
@pytest.mark.parametrize(("d", "steepness"), [(2, 25.0), (2, 1000.0), (3, 100.0), (5, 25.0)])
def test_planted_holes_of_any_depth_are_never_verified(d: int, steepness: float, margin: float) -> None:
    """The hole is ``margin`` deep below the threshold: only a proof that is wrong passes over it."""
    network, at = peak(d, steepness, 1.5, seed=d)
    problem = Problem(network, Box(torch.zeros_like(at), torch.ones_like(at)), below(-0.5 + margin))
    assert value(network, at) == [Fraction(-1, 2)]
    result = run(problem, Budget(seconds=3 if d < 4 else 1))
    assert result.verdict is not Verdict.VERIFIED
    assert result.margin is None or result.margin <= -margin + ROUNDING


@pytest.mark.parametrize(("d", "steepness"), [(2, 25.0), (2, 1000.0), (3, 25.0), (3, 250.0)])
def test_the_safe_twins_of_planted_holes_are_verified(d: int, steepness: float) -> None:
    network, at = peak(d, steepness, 0.9 / 1.5, seed=d)
    problem = Problem(network, Box(torch.zeros_like(at), torch.ones_like(at)), below(0.0))
    result = run(problem)
    assert result.verdict is Verdict.VERIFIED
    assert result.margin is not None
    assert result.margin <= 0.4 + ROUNDING


def test_auto_never_verifies_planted_holes() -> None:
    network, at = peak(2, 1000.0, 1.5, seed=1)
    problem = Problem(network, Box(torch.zeros_like(at), torch.ones_like(at)), below(-0.5 + 1e-6))
    result = Auto().verify(problem, Budget(seconds=5))
    assert result.verdict is not Verdict.VERIFIED


# Random networks and specifications.


def random_network(seed: int) -> Network:
    """Every operation, nodes read several times, and sometimes as many outputs as inputs."""
    choice, rng = random.Random(seed), torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=rng)

    builder = Builder((choice.randint(1, 5),))
    for _ in range(choice.randint(0, 7)):
        flat = [i for i, node in enumerate(builder.nodes) if len(node.shape) == 1]
        source = choice.choice(flat[-3:])
        (size,) = shape = builder.nodes[source].shape
        alike = [i for i, node in enumerate(builder.nodes) if node.shape == shape]
        index = torch.tensor([choice.randint(-1, size - 1) for _ in range(6)])
        thin = Linear(normal(12, size) * (torch.rand(12, size, generator=rng) < 0.08), normal(12))
        leaky = LeakyRelu(choice.choice([0.0, 0.01, 0.5, 1.0, 1.7, 4.0]))
        ops: list[tuple[Op, ...]] = [
            (Linear(normal(4, size), normal(4)), Relu()),
            (Linear(normal(12, size) / 2, normal(12)), Relu()),
            (thin, Relu()),
            (leaky,),
            (Smooth("tanh"),),
            (Gather(index, (2, 3), choice.choice([0.0, -1.0, 2.0])), Max()),
            (Scale(normal(size), normal()), Relu()),
        ]
        branches: list[Op] = [Add(), Sub(), Concat(0)]
        if choice.random() < 0.3:
            builder.add(choice.choice(branches), source, choice.choice(alike))
        else:
            for op in choice.choice(ops):
                source = builder.add(op, source)
    last = len(builder.nodes) - 1
    outputs = choice.choice([1, 2, builder.nodes[0].size])
    last = builder.add(Linear(normal(outputs, builder.nodes[last].size), normal(outputs)), last)
    return builder.build(last, dtype=torch.float64)


def random_region(shape: tuple[int, ...], seed: int) -> Box:
    """Widths from 0 to 1e6, all mixed."""
    choice, rng = random.Random(seed), torch.Generator().manual_seed(seed)
    centre = torch.randn(shape, dtype=torch.float64, generator=rng)
    widths = [
        choice.choice([0.3, 0.3, 1.0, 1.0, 0.0, 1e-12, 1e6 if seed % 5 == 0 else 2.0]) for _ in range(prod(shape))
    ]
    width = t(widths).view(shape)
    lower, upper = centre - width, centre + width
    strict = Box(torch.nextafter(lower, upper), torch.nextafter(upper, lower)) if seed % 3 == 0 else None
    return Box(lower, upper, strict if strict is not None and not strict.empty else None)


def random_spec(network: Network, region: Box, seed: int) -> Spec:
    """Up to three disjuncts of up to three rows, with thresholds about what the network takes, some strict."""
    choice, rng = random.Random(seed), torch.Generator().manual_seed(seed)
    y = network(members(region.lower, region.upper, 64)).flatten(1)
    disjuncts = []
    for _ in range(choice.randint(1, 3)):
        rows = choice.randint(1, 3)
        A = torch.randn(rows, y.shape[1], dtype=torch.float64, generator=rng)
        values = y @ A.T
        spread = values.amax(0) - values.amin(0)
        b = values.amin(0) + spread * choice.choice([-0.3, -0.02, 0.02, 0.3])
        disjuncts.append(Polyhedron(A, b, torch.rand(rows, generator=rng) < 0.3))
    return Spec(tuple(disjuncts))


def random_problem(seed: int) -> Problem:
    network = random_network(seed)
    region = random_region(network.input_shape, seed)
    return Problem(network, region, random_spec(network, region, seed))


@pytest.mark.parametrize("block", few(range(8), quick=range(2)))
def test_random_problems_agree_with_samples(block: int) -> None:
    for seed in range(10 * block, 10 * block + 10):
        run(random_problem(seed), Budget(seconds=0.2))


@pytest.mark.parametrize("block", few(range(4), quick=range(1)))
def test_random_graphs_and_images_agree_with_samples(block: int) -> None:
    for seed in range(10 * block, 10 * block + 10):
        network = random_graph(seed, image=seed % 2 == 0)
        region = random_region(network.input_shape, seed)
        if network.nodes[0].size <= 16:
            run(Problem(network, region, random_spec(network, region, seed)), Budget(seconds=0.2))


@pytest.mark.parametrize("seed", few(range(24), quick=range(4)))
def test_random_problems_agree_with_the_exact_margin(seed: int) -> None:
    """Conjunctions that only their intersection decides, and several disjuncts: thresholds next to the truth."""
    choice, rng = random.Random(seed), torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=rng)

    d, rows = choice.randint(1, 3), choice.randint(1, 3)
    activation: Op = choice.choice([Relu(), LeakyRelu(0.1), LeakyRelu(2.5)])
    network = float64(d, [Linear(normal(4, d), normal(4)), activation, Linear(normal(3, 4), normal(3)), Relu(),
                          Linear(normal(2, 3), normal(2))])  # fmt: skip
    region = box([-1.0] * d, [1.0] * d)
    disjuncts = [Polyhedron(normal(rows, 2), normal(rows), torch.zeros(rows, dtype=torch.bool)) for _ in range(2)]
    truth = true_margin(Problem(network, region, Spec(tuple(disjuncts))))
    for gap in (1e-3, -1e-3):
        # All thresholds moved alike: the true margin becomes the gap.
        spec = Spec(tuple(Polyhedron(p.A, p.b + truth - gap, p.strict) for p in disjuncts))
        result = run(Problem(network, region, spec))
        assert result.verdict is (Verdict.VERIFIED if gap > 0 else Verdict.FALSIFIED)
        assert result.margin is not None
        assert result.margin <= gap + 1e-9


# Shapes of problems.


IDENTITY = float64(2, [Linear(torch.eye(2, dtype=torch.float64), t([0.0, 0.0]))])


def test_a_disjunct_without_rows_is_all_of_the_outputs() -> None:
    free = Polyhedron(t([]).view(0, 2), t([]), torch.zeros(0, dtype=torch.bool))
    far = below(-9.0, 2).disjuncts[0]
    for disjuncts in ((free,), (far, free), (free, far)):
        assert run(Problem(IDENTITY, box([0, 0], [1, 1]), Spec(disjuncts))).verdict is Verdict.FALSIFIED


def test_a_conjunction_that_no_row_decides_alone() -> None:
    """Unsafe: y0 <= 0.4 and y1 <= 0.4, where y0 + y1 = 1."""
    line = float64(1, [Linear(t([[1.0], [-1.0]]), t([0.0, 1.0])), Relu()])
    tight = Spec.halfspaces([[1.0, 0.0], [0.0, 1.0]], [0.5 - 1e-9, 0.5 - 1e-9])
    met = Spec.halfspaces([[1.0, 0.0], [0.0, 1.0]], [0.5 + 1e-9, 0.5 + 1e-9])
    assert run(Problem(line, box([0], [1]), tight)).verdict is Verdict.VERIFIED
    assert run(Problem(line, box([0], [1]), met), Budget(seconds=2)).verdict is not Verdict.VERIFIED


@pytest.mark.parametrize("strict", [False, True])
def test_touching_the_threshold_is_verified_of_strict_sets_alone(strict: bool) -> None:
    """y >= 0 and unsafe y <= 0 or y < 0: the first is false, the second true, and the margin 0 in both."""
    spec = Spec((Polyhedron(t([[1.0]]), t([0.0]), torch.tensor([strict])),))
    network = float64(1, [Relu()])
    result = run(Problem(network, box([-1], [1]), spec))
    assert result.verdict is (Verdict.VERIFIED if strict else Verdict.FALSIFIED)
    assert not strict or (result.margin == 0 and "touched" in result.stats)
    assert result.stats["domains"] <= EARLY


def test_a_strict_set_that_is_not_touched_is_searched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """In two parts, which together are as large as one and prove the same."""
    monkeypatch.setattr(input_split, "EARLY", 3)
    network, at = peak(2, 25.0, 0.625, 7)
    for bound in (0.375 - 1e-3, 0.375 + 1e-3):
        results = [
            run(
                Problem(
                    network,
                    Box(torch.zeros_like(at), torch.ones_like(at)),
                    Spec((Polyhedron(t([[1.0]]), t([bound]), torch.tensor([strict])),)),
                ),
                batch=1,
            )
            for strict in (False, True)
        ]
        plain, strict = results
        assert plain.verdict is strict.verdict is (Verdict.VERIFIED if bound < 0.375 else Verdict.FALSIFIED)
        if strict.verdict is Verdict.VERIFIED:
            assert strict.stats["domains"] > 3
            assert strict.stats["leaves"] == (strict.stats["domains"] + 1) // 2
            assert strict.margin is not None
            assert strict.margin <= 1e-3 + 1e-9


@pytest.mark.parametrize(
    ("ops", "least"),
    [
        ([Relu()], 0.0),
        ([LeakyRelu(3.0)], -3.0),
        ([Smooth("tanh")], -0.76159415595576),
        ([Linear(t([[0.0]]), t([7.0]))], 7.0),
        ([Linear(t([[0.0]]), t([-7.0])), Relu(), Linear(t([[5.0]]), t([2.0]))], 2.0),
        ([Scale(t([-2.0]), t([1.0])), Reshape((1, 1)), Max()], -1.0),
    ],
)
def test_networks_with_next_to_nothing_in_them(ops: list[Op], least: float) -> None:
    """Activations straight on the input, constants, dead neurons."""
    network = float64(1, ops)
    for gap in (1e-6, -1e-6):
        result = run(Problem(network, box([-1], [1]), below(least - gap)))
        assert result.verdict is (Verdict.VERIFIED if gap > 0 else Verdict.FALSIFIED)


def test_a_convolution_on_a_tiny_image() -> None:
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(1, 1, 2, 2, dtype=torch.float64, generator=rng)
    head = Linear(torch.randn(1, 9, dtype=torch.float64, generator=rng), t([0.0]))
    network = float64((1, 2, 2), [Conv2d(weight, t([0.1]), padding=(1, 1)), Relu(), Reshape((9,)), head])
    region = Box(-torch.ones(1, 2, 2), torch.ones(1, 2, 2))
    truth = true_margin(Problem(network, Box(region.lower / 4, region.upper / 4), below(0.0)))
    for gap in (1e-3, -1e-3):
        problem = Problem(network, Box(region.lower / 4, region.upper / 4), below(truth - gap))
        assert run(problem).verdict is (Verdict.VERIFIED if gap > 0 else Verdict.FALSIFIED)


# Floating point.


@pytest.mark.slow  # each time with less time, as a law of every method
@pytest.mark.parametrize("name", NEVER_VERIFIED)
@pytest.mark.parametrize("method", [InputSplit(), Auto()])
def test_float_traps_are_never_verified(name: str, method: InputSplit | Auto) -> None:
    assert method.verify(trap_problem(name), Budget(seconds=0.5)).verdict is not Verdict.VERIFIED


@pytest.mark.parametrize("name", ["N1", "N2", "N4", "N4b", "N6"])
def test_float_traps_of_float64_are_never_verified(name: str) -> None:
    problem = trap_problem(name, 2.0**54, torch.float64)
    assert InputSplit().verify(problem, Budget(seconds=0.5)).verdict is not Verdict.VERIFIED


@seeds(6, of=18)
def test_ties_are_never_verified_by_rounding(seeds: range) -> None:
    """Unsafe: y <= b, where b is the nearest float64 above the exact value of y at a point of the box."""
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        first, second = (Linear(torch.randn(3, n, dtype=torch.float64, generator=rng), t([0.1] * 3)) for n in (2, 3))
        network = float64(2, [first, Relu(), second])
        at = torch.rand(2, dtype=torch.float64, generator=rng)
        exact = value(network, at)[0]
        b = float(exact)
        bound = b if Fraction(b) >= exact else float(torch.nextafter(t(b), t(2 * abs(b) + 1)))
        result = InputSplit().verify(Problem(network, Box(at, at), below(bound, 3)), Budget(seconds=0.2))
        assert result.verdict is not Verdict.VERIFIED, (
            f"seed {seed}: verified, though y - b = {float(exact - Fraction(bound))}"
        )


# Overflow on the way of a sum makes +inf of what is -1 in the reals: no bound at all.
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3), (2, 3, 0, 1), (0, 3, 2, 1)])
@pytest.mark.parametrize("hidden", [False, True])
def test_sums_that_overflow_prove_nothing(order: tuple[int, ...], hidden: bool) -> None:
    weight = t([[1e308, 1e308, -1e308, -1e308]])[:, list(order)]
    head = Linear(weight, t([-1.0]))
    start: list[Op] = [Linear(torch.eye(4, dtype=torch.float64), torch.zeros(4)), Relu()] if hidden else []
    network = float64(4, [*start, head])
    for width in (0.0, 2.0**-20):
        problem = Problem(network, box([1.0] * 4, [1.0 + width] * 4), below(0.0))
        result = InputSplit().verify(problem, Budget(seconds=0.3))
        assert result.verdict is not Verdict.VERIFIED
        assert result.margin is None or result.margin <= -1


@pytest.mark.parametrize("size", few([1e160, 1e200, 1e300], quick=[1e160]))
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("outputs", [1, 2])
def test_products_that_overflow_prove_nothing(size: float, sign: float, outputs: int) -> None:
    """Unsafe in the reals: y0 = x * size**2 * sign passes any bound on the one side or the other."""
    network = layers(([[size]], [0.0]), ([[sign * size]] * outputs, [1.0] * outputs))
    problem = Problem(network, box([-1.0], [2.0]), Spec.halfspaces([[sign] + [0.0] * (outputs - 1)], [sign * 2.0]))
    result = InputSplit().verify(problem, Budget(seconds=0.3))
    assert result.verdict is not Verdict.VERIFIED
    negative = Problem(network, box([1.0], [2.0]), Spec.halfspaces([[-sign] + [0.0] * (outputs - 1)], [0.5]))
    result = InputSplit().verify(negative, Budget(seconds=0.3))
    assert result.verdict is not Verdict.VERIFIED
    assert result.margin is None or result.margin < -1e308  # the truth is -size**2 and less


# Options and budgets.


@pytest.mark.parametrize("seed", few(range(5), quick=range(2)))
def test_neither_batch_nor_fill_changes_a_verdict(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    weights = [torch.randn(shape, dtype=torch.float64, generator=rng) for shape in ((5, 2), (5,), (2, 5), (2,))]
    network = float64(2, [Linear(*weights[:2]), Relu(), Linear(*weights[2:])])
    region = box([-1.0, -1.0], [1.0, 0.5])
    truth = true_margin(Problem(network, region, below(0.0, 2)))
    for gap in (1e-2, -1e-2):
        expected = Verdict.VERIFIED if gap > 0 else Verdict.FALSIFIED
        for batch, fill in ((1, 0), (2, 5), (3, 32), (1024, 0), (1024, 32)):
            result = run(Problem(network, region, below(truth - gap, 2)), batch=batch, fill=fill)
            assert result.verdict is expected


def test_two_runs_are_the_same() -> None:
    network, at = peak(2, 25.0, 0.9, seed=3)
    problem = Problem(network, Box(torch.zeros_like(at), torch.ones_like(at)), below(0.05))
    first, second = (run(problem, batch=16) for _ in range(2))
    assert (first.verdict, first.margin, first.stats["domains"]) == (
        second.verdict,
        second.margin,
        second.stats["domains"],
    )


@pytest.mark.parametrize("seconds", [0.0, 1e-3, 0.05])
def test_a_spent_budget_proves_nothing(seconds: float) -> None:
    """The margin is 0: nothing can close the tree, and what is said of it before the end is true."""
    network, at = peak(5, 25.0, 1.0, seed=5)
    problem = Problem(network, Box(torch.zeros_like(at), torch.ones_like(at)), below(1e-9))
    result = run(problem, Budget(seconds=seconds))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.TIMEOUT)
    assert result.margin is None or result.margin <= -1e-9


@pytest.mark.parametrize("proof", [False, True])
@pytest.mark.parametrize("gap", [1e-2, -1e-3])
def test_a_search_whose_time_was_over_is_gone_on_with(gap: float, proof: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Round by round it comes to what it comes to at once, and proves it by the same tree."""
    clock, bound = Clock.installed(monkeypatch), InputTree.bound
    network, at = peak(2, 25.0, 0.9, seed=3)
    region = Box(torch.zeros_like(at), torch.ones_like(at))
    problem, other = (Problem(network, region, below(0.1 - gap)) for _ in range(2))
    method = InputSplit(batch=1, fill=0, proof=proof)
    whole = method.verify(other)

    def slow(tree: InputTree, boxes: Boxes, budget: Budget) -> Bounded[Boxes]:
        bounded = bound(tree, boxes, budget)
        clock.now += 1.0
        return bounded

    monkeypatch.setattr(InputTree, "bound", slow)
    slices = [method.verify(problem, Budget(seconds=1.0))]
    while slices[-1].reason is Reason.TIMEOUT:
        check(problem, slices[-1])
        slices.append(method.verify(problem, Budget(seconds=1.0)))
    last = slices[-1]
    check(problem, last)
    assert len(slices) > 2
    assert last.verdict is whole.verdict is (Verdict.VERIFIED if gap > 0 else Verdict.FALSIFIED)
    assert last.margin is not None
    assert last.margin <= gap
    if gap > 0:  # a counterexample is met by chance
        assert sum(each.stats["domains"] for each in slices) == whole.stats["domains"]
        assert last.stats["leaves"] == whole.stats["leaves"]
        assert (last.certificate is None) == (whole.certificate is None) == (not proof)
        if last.certificate is not None and whole.certificate is not None:
            assert torch.equal(last.certificate["tree"], whole.certificate["tree"])
    again = method.verify(problem)
    assert gap < 0 or again.stats["domains"] == whole.stats["domains"], "what is decided is not kept"


@pytest.mark.parametrize("memory", [1, 1000, 100_000])
def test_little_memory_changes_no_verdict(memory: int) -> None:
    for height, verdict in ((0.9, Verdict.VERIFIED), (1.5, Verdict.FALSIFIED)):
        network, at = peak(2, 25.0, height, seed=2)
        problem = Problem(network, Box(torch.zeros_like(at), torch.ones_like(at)), below(-0.2))
        result = run(problem, Budget(seconds=5, memory=memory))
        assert result.verdict in (verdict, Verdict.UNKNOWN)


def test_inputs_that_are_fixed_do_not_count() -> None:
    """Of 20 inputs two vary, so that two are halved; where all vary it declines."""
    network = to_network(random_mlp(3, (20, 8, 2)), (20,))
    x, wide = torch.full((20,), 0.5, dtype=torch.float64), torch.arange(20) < 2
    spec = Spec.robust(int(network(x[None]).argmax()), 2)
    few_ = Problem(network, Box(x - 0.25 * wide, x + 0.25 * wide), spec)
    assert InputSplit().supports(few_) is None
    result = InputSplit().verify(few_)
    assert result.verdict is (Verdict.VERIFIED if true_margin(few_) > 0 else Verdict.FALSIFIED)
    why = InputSplit().supports(Problem(network, Box(x - 0.25, x + 0.25), spec))
    assert why is not None
    assert "20 inputs that vary" in why
