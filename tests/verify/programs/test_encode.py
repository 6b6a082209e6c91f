"""Tests of verify.programs.encode: every point of the network is a point of the program, and no others if exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import inf

import numpy as np
import pytest
import torch
from torch import Tensor

from assay.verify.core.budget import Budget
from assay.verify.core.network import Builder, Network, chain
from assay.verify.core.ops import Add, Gather, LeakyRelu, Linear, Max, Op, Relu, Reshape, Scale, Smooth, Sub
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.core.verifier import Bounds
from assay.verify.programs.encode import Encoding, Unbounded, encode, without_encoding, without_relaxation
from assay.verify.programs.loading import get_solver, load
from assay.verify.programs.maxima import chord_above
from assay.verify.programs.program import Program, Status
from assay.verify.programs.relaxation import known
from assay.verify.programs.solvers.highs import Highs
from tests import nets
from tests.contract.graphs import random_box, random_graph
from tests.verify.programs.cases import KINDS, network


def linear(inputs: int, outputs: int, seed: int) -> Linear:
    rng = nets.generator(seed)
    weight = torch.randn(outputs, inputs, dtype=torch.float64, generator=rng)
    return Linear(weight, torch.randn(outputs, dtype=torch.float64, generator=rng))


def windows() -> Network:
    """Max over overlapping windows, before and after a ReLU."""
    index = torch.tensor([0, 1, 2, 1, 2, 3, 3, 4, 5])
    windows = Gather(index, (3, 3))
    return chain((4,), [linear(4, 6, 1), windows, Max(), linear(3, 6, 2), Relu(), windows, Max(), linear(3, 2, 3)])


def leaky(slope: float) -> Network:
    ops: list[Op] = [linear(3, 5, 1), LeakyRelu(slope), linear(5, 4, 2), LeakyRelu(slope), linear(4, 2, 3)]
    return chain((3,), ops)


def read_twice() -> Network:
    """A ReLU of an input, a ReLU of a ReLU, a node with two readers, a constant neuron, a dead one."""
    builder = Builder((3,))
    first = builder.add(Relu(), 0)
    again = builder.add(Relu(), builder.add(Relu(), first))
    hidden = builder.add(linear(3, 3, 4), builder.add(Add(), 0, again))
    both = builder.add(Sub(), builder.add(Relu(), hidden), builder.add(LeakyRelu(0.1), hidden))
    factor = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
    shifted = builder.add(Scale(factor, torch.tensor([0.3, -50.0, 0.0], dtype=torch.float64)), both)
    return builder.build(builder.add(linear(3, 2, 5), builder.add(Relu(), shifted)))


NETWORKS: dict[str, Callable[[], Network]] = {
    "windows": windows,
    "leaky": lambda: leaky(0.2),
    "steep": lambda: leaky(1.7),
    "read-twice": read_twice,
    **{kind: lambda kind=kind: network(kind, 1) for kind in KINDS},  # type: ignore[misc]
}


def encoded(made: Network, region: Region, exact: bool = False, linear: bool = True) -> Encoding:
    objective = torch.eye(made.output_size, dtype=torch.float64)
    with torch.no_grad():
        bounded = known(made, region, objective, Budget(), linear)
        return encode(made, region, bounded.bounds, exact)


def a_box(made: Network, width: float = 0.4) -> Box:
    centre = torch.rand(made.input_shape, generator=nets.generator(0), dtype=torch.float64) - 0.3
    return Box(centre - width, centre + width)


def span(encoding: Encoding, at: Tensor, row: np.ndarray, solver: str = "highs") -> tuple[float, float]:
    """The least and the largest value of ``row @ output`` in the program where the input is ``at``."""
    x = at.flatten().numpy()
    program = encoding.draft.program()
    lower, upper = program.lower.copy(), program.upper.copy()
    varying = encoding.inputs >= 0
    lower[encoding.inputs[varying]] = upper[encoding.inputs[varying]] = x[varying]
    fixed = Program(program.matrix, program.row_lower, program.row_upper, lower, upper, program.integer, program.cost)
    cost, offset = encoding.cost(row)
    ends = []
    for sign in (1.0, -1.0):
        answer = load(get_solver(solver), fixed).solve(sign * cost, sign * offset)
        assert answer.status is Status.OPTIMAL
        ends.append(sign * answer.value)
    return ends[0], ends[1]


@pytest.mark.parametrize("name", NETWORKS)
def test_an_exact_program_is_the_network(name: str) -> None:
    made = NETWORKS[name]()
    box = a_box(made)
    encoding = encoded(made, box, exact=True)
    assert encoding.draft.program().integer.any()
    row = np.linspace(1, -2, made.output_size)
    for at in box.sample(4, nets.generator(1)).double():
        value = float(made(at[None]).flatten().numpy() @ row)
        assert span(encoding, at, row) == pytest.approx((value, value), abs=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("linear", [True, False])
def test_a_relaxation_holds_the_network(name: str, linear: bool) -> None:
    made = NETWORKS[name]()
    box = a_box(made)
    encoding = encoded(made, box, linear=linear)
    assert not encoding.draft.program().integer.any()
    row = np.linspace(1, -2, made.output_size)
    widths = []
    for at in box.sample(6, nets.generator(1)).double():
        value = float(made(at[None]).flatten().numpy() @ row)
        low, high = span(encoding, at, row)
        assert low - 1e-7 <= value <= high + 1e-7
        widths.append(high - low)
    assert max(widths) > 1e-3  # a relaxation indeed


def test_random_graphs_are_held() -> None:
    for seed in range(40):
        made = random_graph(seed, image=seed % 3 == 0, neurons=12)
        lower, upper = random_box(made, seed)
        box = Box(lower, upper).box()
        row = np.linspace(1, -2, made.output_size)
        at = box.sample(1, nets.generator(seed)).double()
        at = torch.minimum(torch.maximum(at, box.lower), box.upper)
        value = float(made(at).flatten().numpy() @ row)
        slack = 1e-6 * (1 + abs(value))
        low, high = span(encoded(made, box), at[0], row)
        assert low - slack <= value <= high + slack, f"seed {seed}"
        assert span(encoded(made, box, exact=True), at[0], row) == pytest.approx((value, value), abs=slack)


def test_stable_neurons_cost_no_columns() -> None:
    """Three inputs of which one is fixed; a dead neuron, one that is always active, an unstable one."""
    weight = torch.eye(3, dtype=torch.float64)
    made = chain((3,), [Linear(weight, torch.tensor([-9.0, 9.0, 0.0])), Relu(), linear(3, 1, 0)])
    box = Box(torch.tensor([0.0, -1.0, -1.0]), torch.tensor([0.0, 1.0, 1.0]))
    encoding = encoded(made, box)
    assert encoding.inputs.tolist() == [-1, 0, 1]
    assert encoding.draft.width == 2 + 1 + 1  # the inputs, z of the active neuron, a of the unstable one: z is an input
    assert len(encoding.neurons) == 1
    assert (encoding.neurons.position[0], encoding.neurons.feature[0]) == (2, 2)
    assert encoding.input(np.array([5.0, 6.0, 0.0, 0.0])).tolist() == [0.0, 5.0, 6.0]


@pytest.mark.parametrize("active", [False, True])
def test_a_split_changes_bounds_alone(active: bool) -> None:
    made = network("mlp", 3)
    box = a_box(made)
    encoding = encoded(made, box)
    neurons = encoding.neurons
    program = encoding.draft.program()
    cost, offset = encoding.cost(np.eye(made.output_size)[0])
    z, a = neurons.z[:1], neurons.a[:1]
    lower, upper, row_upper = program.lower.copy(), program.upper.copy(), program.row_upper.copy()
    if active:
        lower[z] = row_upper[neurons.above[:1]] = 0.0
    else:
        upper[z] = upper[a] = 0.0
    split = replace(program, lower=lower, upper=upper, row_upper=row_upper)
    free, answer = (load(Highs(), p).solve(cost, offset) for p in (program, split))
    assert answer.x is not None
    assert answer.value >= free.value - 1e-9
    assert answer.x[a] == pytest.approx(np.maximum(answer.x[z], 0), abs=1e-7)


def test_a_conjunction_is_the_largest_of_its_rows() -> None:
    made = network("mlp", 2)
    box = a_box(made)
    encoding = encoded(made, box, exact=True)
    A = np.random.default_rng(0).normal(size=(3, made.output_size))
    b = np.array([0.1, -0.2, 0.3])
    answer = load(Highs(), encoding.disjunct(A, b)).solve()
    assert answer.x is not None
    at = torch.from_numpy(encoding.input(answer.x)).view(1, *made.input_shape)
    assert float((A @ made(at).flatten().numpy() - b).max()) == pytest.approx(answer.value, abs=1e-7)
    points = made(box.sample(2000, nets.generator(3)).double()).numpy()
    assert float((points @ A.T - b).max(1).min()) >= answer.value - 1e-9
    assert encoding.draft.width < len(answer.x)  # the encoding itself has not grown


@pytest.mark.parametrize("p", [1, 2])
def test_balls_are_no_boxes(p: float) -> None:
    """Over an affine network the program's optimum is the support function of the ball."""
    made = chain((4,), [linear(4, 1, 0)])
    centre = torch.full((4,), 0.5)
    ball = LpBall(centre, 0.2, p, (0.0, 1.0))
    encoding = encoded(made, ball)
    cost, offset = encoding.cost(np.ones(1))
    solver = get_solver("highs" if p == 1 else "cvxpy:CLARABEL")
    answer = load(solver, encoding.draft.program()).solve(cost, offset)
    op = made.nodes[1].op
    assert isinstance(op, Linear)
    dual = op.weight.norm(p=inf if p == 1 else 2)
    assert answer.value == pytest.approx(float(made(centre[None].double()) - 0.2 * dual), abs=1e-6)


@pytest.mark.parametrize("low", [-1e-300, -1.0, -(2.0**53), -1e90])
@pytest.mark.parametrize("high", [5e-324, 0.3, 1e16, 1e90])
def test_chords_lie_above_the_relu(low: float, high: float) -> None:
    """At both ends, in exact arithmetic, however the slope is rounded."""
    slope, intercept = (v[0] for v in chord_above(np.array([low]), np.array([high])))
    assert 0 <= slope <= 1
    assert Fraction(slope) * Fraction(low) + Fraction(intercept) >= 0
    assert Fraction(slope) * Fraction(high) + Fraction(intercept) >= Fraction(high)
    assert intercept <= min(-low, high) * (1 + 1e-9) + 1e-200


@pytest.mark.parametrize(("low", "high"), [(float("nan"), 1.0), (-inf, 1.0), (2.0, 1.0), (-1.0, 1e200)])
def test_bounds_without_sense_make_no_program(low: float, high: float) -> None:
    made = chain((1,), [Reshape((1,)), Relu()])
    region = Box(torch.zeros(1), torch.ones(1))
    bounds = [Bounds(torch.tensor([[low]]), torch.tensor([[high]]))] * 3
    with pytest.raises(Unbounded):
        encode(made, region, bounds)


def test_what_has_no_encoding_is_named() -> None:
    made = chain((2,), [linear(2, 2, 0), Smooth("tanh"), Relu()])
    why = without_encoding(made)
    assert why is not None
    assert "tanh" in why
    assert "Relu" not in why
    assert without_encoding(network("residual", 0)) is None
    assert without_relaxation(made) is None
