"""Tests of verify.bounds.rigorous: no real value ever lies outside, by however little, and little is given away."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import inf

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from assay.verify.bounds import rigorous
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Builder, Network, chain, to_network
from assay.verify.core.ops import (
    Add,
    Concat,
    ConvTranspose2d,
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
from assay.verify.core.region import Box
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import gamma
from tests import curved, exact, nets
from tests.breadth import seeds, slow
from tests.contract.graphs import eye, members, random_box, random_graph


def boxed(lower: Tensor, upper: Tensor) -> Box:
    """One sample's box as a batch of one."""
    return Box(lower[None], upper[None])


def output_bounds(network: Network, box: Box) -> list[Bounds]:
    """Every way to bound the output: (batch x outputs) each."""
    objective = eye(network).expand(len(box.lower), -1, -1)
    by_intervals = rigorous.intervals(network, box)[-1]
    bounds, lower = rigorous.linear_bounds(network, box, objective, Budget())
    _, opposite = rigorous.linear_bounds(network, box, -objective, Budget())
    ways = [Bounds(b.lower.flatten(1), b.upper.flatten(1)) for b in (by_intervals, bounds[-1])]
    return [*ways, Bounds(lower, -opposite)]


def assert_holds(network: Network, box: Box, points: Tensor, sample: int = 0) -> None:
    """Real values at ``points`` lie within bounds of the box's ``sample``, tolerance 0."""
    values = [exact.value(network, x) for x in points]
    for bounds in output_bounds(network, box):
        for i, (low, high) in enumerate(zip(bounds.lower[sample].tolist(), bounds.upper[sample].tolist(), strict=True)):
            assert low <= min(v[i] for v in values), f"output {i}"
            assert max(v[i] for v in values) <= high, f"output {i}"


@pytest.mark.parametrize("image", [False, True])
@seeds(9, of=23)
def test_real_values_lie_within(image: bool, seeds: range) -> None:
    for seed in seeds:
        network = random_graph(seed, image, steps=6)
        lower, upper = random_box(network, seed)
        assert_holds(network, boxed(lower, upper), members(lower, upper, 4, seed))


def magnified(network: Network, factor: float) -> Network:
    """Each Linear's weights times ``factor``: rounding errors of another size."""
    ops = [
        Linear(op.weight * factor, op.bias) if isinstance(op, Linear) else op
        for op in (node.op for node in network.nodes[1:])
    ]
    return chain(network.input_shape, ops)


@pytest.mark.parametrize("examples", [10, slow(50)])
def test_at_points_of_no_width_only_rounding_is_lost(examples: int) -> None:
    @settings(max_examples=examples)
    @given(nets.mlps(), nets.seeds)
    def check(made: tuple[nn.Module, tuple[int, ...]], seed: int) -> None:
        module, shape = made
        for factor in (1.0, 2.0**40, 3.0**-30):
            network = magnified(to_network(module, shape), factor)
            x = torch.rand(shape, generator=nets.generator(seed)).double()
            assert_holds(network, boxed(x, x), x[None])
            _, size = network.rounding_error(x[None], torch.float64)
            for bounds in output_bounds(network, boxed(x, x)):
                assert bool((bounds.upper - bounds.lower <= 1e-11 * size).all())

    check()


def image_ops() -> list[Op]:
    """Every operation that works on images, from (1, 3, 3) to 2 outputs."""
    rng = nets.generator(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=rng)

    windows = torch.tensor([0, 1, 5, 6, 2, -1, 7, 8, 10, 11, 15, -1]).flatten()
    return [
        ConvTranspose2d(normal(1, 2, 2, 2), normal(2), stride=(2, 2), padding=(1, 1)),
        LeakyRelu(0.3),
        Scale(normal(2, 1, 1), normal(2, 4, 4)),
        Gather(windows, (3, 4), fill=-0.7),
        Max(),
        Linear(normal(4, 3), normal(4)),
        LeakyRelu(2.5),
        Reshape((2, 2)),
        Linear(normal(3, 2), normal(3)),
        Relu(),
        Reshape((6,)),
        Linear(normal(2, 6), normal(2)),
    ]


@seeds(6, of=18)
def test_real_values_of_every_operation_lie_within(seeds: range) -> None:
    network = chain((1, 3, 3), image_ops())
    for seed in seeds:
        lower, upper = random_box(network, seed)
        assert_holds(network, boxed(lower, upper), members(lower, upper, 4, seed))


def branched(seed: int) -> Network:
    """Values that are read twice, put together and subtracted."""
    rng = nets.generator(seed)
    builder = Builder((3,))
    first = builder.add(Linear(torch.randn(3, 3, generator=rng), torch.randn(3, generator=rng)), 0)
    hidden = builder.add(Relu(), first)
    joined = builder.add(Concat(0), hidden, first, 0)
    other = builder.add(Linear(torch.randn(9, 9, generator=rng), torch.randn(9, generator=rng)), joined)
    last = builder.add(Sub(), builder.add(LeakyRelu(0.01), other), joined)
    return builder.build(builder.add(Linear(torch.randn(2, 9, generator=rng), torch.zeros(2)), last))


def test_real_values_of_branches_lie_within() -> None:
    for seed in range(20):
        network = branched(seed)
        lower, upper = random_box(network, seed)
        assert_holds(network, boxed(lower, upper), members(lower, upper, 6, seed))


def test_steps_are_rounded_outward() -> None:
    """In fractions, on numbers whose sums and products are never representable."""
    rng = nets.generator(0)
    a, b = (Bounds(*torch.rand(2, 1, 500, dtype=torch.float64, generator=rng).sort(0).values) for _ in range(2))
    third = Fraction(1 / 3)
    low, high = Bounds(-a.upper, -a.lower), a
    cases: list[tuple[Op, list[Bounds], Callable[..., Fraction]]] = [
        (Add(), [a, b], lambda x, y: x + y),
        (Sub(), [Bounds(a.lower, a.lower), Bounds(b.lower, b.lower)], lambda x, y: x - y),
        (LeakyRelu(1 / 3), [low], lambda x: third * x),
        (LeakyRelu(1 / 3), [high], lambda x: x),
    ]
    for op, inputs, value in cases:
        step = rigorous.propagate(op, *inputs)
        for end, bound in ((0, step.lower), (1, step.upper)):
            numbers = [(x.lower, x.upper)[end][0].tolist() for x in inputs]
            for i, column in enumerate(zip(*numbers, strict=True)):
                true, got = value(*map(Fraction, column)), Fraction(bound[0, i].item())
                assert got <= true if end == 0 else got >= true
                assert float(abs(got - true)) < 1e-15


def test_tanh() -> None:
    """Against sampled values in floating point, for want of exact ones."""
    ops = [Scale(torch.tensor(3.0), torch.tensor(0.1)), Smooth("tanh"), Linear(torch.ones(1, 2), torch.zeros(1))]
    network = chain((2,), ops)
    for seed in range(20):
        lower, upper = random_box(network, seed)
        values = network(members(lower, upper, 100))
        for bounds in output_bounds(network, boxed(lower, upper)):
            assert bool((bounds.lower <= values + 1e-14).all())
            assert bool((values - 1e-14 <= bounds.upper).all())
    saturated = rigorous.intervals(chain((1,), [Smooth("tanh")]), boxed(torch.tensor([50.0]), torch.tensor([60.0])))[-1]
    assert saturated.lower.item() < 1.0 == saturated.upper.item()


def test_no_bound_passes_the_true_minimum() -> None:
    for seed in range(30):
        network = random_graph(seed, image=seed % 5 == 0, neurons=8, steps=7)
        box = Box(*random_box(network, seed + 1))
        rows = eye(network)
        for bounds in output_bounds(network, Box(box.lower[None], box.upper[None])):
            for row, low in zip(rows, bounds.lower[0].tolist(), strict=True):
                _, upper = exact.bracket(network, box, row[None], torch.zeros(1, dtype=torch.float64))
                assert low <= upper, f"seed {seed}"


def test_a_sum_that_floating_point_gets_wrong() -> None:
    big = 2.0**54
    network = chain((3,), [Linear(torch.tensor([[big, 1.0, -big], [1.0, -big, big]]), torch.zeros(2))])
    one = torch.ones(3, dtype=torch.float64)
    assert [float(v) for v in exact.value(network, one)] == [1.0, 1.0]
    assert_holds(network, boxed(one, one), one[None])


@pytest.mark.parametrize("name", sorted(nets.TRAPS))
@pytest.mark.parametrize("B", [2.0**25, 2.0**54])
def test_float_traps(name: str, B: float) -> None:
    network = to_network(nets.trap(name, B, torch.float64), (1,))
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for bounds in output_bounds(network, boxed(zero, one)):
        assert bounds.upper.item() >= nets.TRAPS[name]
    assert_holds(network, boxed(zero, one), torch.rand(20, 1, dtype=torch.float64, generator=nets.generator(0)))


def test_what_overflows_is_unbounded() -> None:
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    steep = [Linear(1e308 * one, zero), Relu(), Linear(1e-308 * one, zero)]
    box = boxed(torch.tensor([-4.0]), torch.tensor([4.0]))
    for bounds in output_bounds(chain((1,), steep), box):
        assert bounds.lower.item() <= 0
        assert bounds.upper.item() >= 4
    first = rigorous.intervals(chain((1,), steep[:1]), box)[-1]
    assert (first.lower.item(), first.upper.item()) == (-inf, inf)
    # In the reals the value at 1 is 1: an overflow on the way must not make it look like anything else.
    huge = chain((1,), [Linear(1e308 * one, zero), Linear(10 * one, zero), Linear(1e-309 * one, zero)])
    assert_holds(huge, boxed(torch.ones(1), torch.ones(1)), torch.ones(1, 1))


def test_products_that_underflow_are_charged() -> None:
    small = torch.full((1, 8), 2.0**-600, dtype=torch.float64)
    network = chain(
        (8,),
        [Linear(small, torch.zeros(1)), Linear(torch.full((1, 1), 2.0**1000, dtype=torch.float64), torch.zeros(1))],
    )
    x = torch.full((8,), 2.0**-600, dtype=torch.float64)
    assert_holds(network, boxed(x, x), x[None])


def test_a_batch_is_bounded_as_one_by_one() -> None:
    network = to_network(nets.random_cnn(1), (1, 6, 6))
    boxes = [random_box(network, seed) for seed in range(4)]
    together = output_bounds(network, Box(torch.stack([b[0] for b in boxes]), torch.stack([b[1] for b in boxes])))
    for i, box in enumerate(boxes):
        for whole, alone in zip(together, output_bounds(network, boxed(*box)), strict=True):
            torch.testing.assert_close(whole.lower[i], alone.lower[0], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(whole.upper[i], alone.upper[0], rtol=1e-9, atol=1e-9)


def test_time_is_asked() -> None:
    network = to_network(nets.random_mlp(0), (4,))
    with pytest.raises(Expired):
        rigorous.linear_bounds(network, boxed(torch.zeros(4), torch.ones(4)), eye(network)[None], Budget(0).started())


class Modulus(Op):
    """|x|, which has no rule."""


def test_an_unknown_operation_is_named() -> None:
    with pytest.raises(UnsupportedError, match="Modulus"):
        rigorous.propagate(Modulus(), Bounds(torch.zeros(1), torch.ones(1)))


def test_gamma() -> None:
    assert gamma(0) == 0
    assert Fraction(gamma(1000)) >= Fraction(1000, 2**53)
    assert gamma(2**53) == inf


@pytest.mark.parametrize("name", ["Smooth(gelu)", "Smooth(exp)", "Smooth(sin)", "attention", "quotient", "layer norm"])
def test_curves_products_and_softmaxes(name: str) -> None:
    """Values at points lie in their intervals, and at one point there is room for the roundings of a library."""
    network = curved.NETWORKS[name](1)
    lower, upper = curved.boxes(network, 1, 0.05, 1)
    x = curved.points(lower, upper, 50)
    for values, bounds in zip(
        network.values(x.flatten(0, 1)), rigorous.intervals(network, Box(lower, upper)), strict=True
    ):
        assert bool((bounds.lower <= values + 1e-300).all())
        assert bool((values <= bounds.upper + 1e-300).all())
    at = rigorous.intervals(network, Box(lower, lower))[-1]
    assert bool((at.upper - at.lower > 1e-16 * at.upper.abs()).all())


@pytest.mark.parametrize("op", [Smooth("log"), Smooth("sqrt"), Smooth("reciprocal"), Smooth("power", -0.5)], ids=repr)
def test_where_a_domain_may_be_left_nothing_is_known_from_there_on(op: Smooth) -> None:
    """Not even that a tanh of it is at most 1."""
    network = chain((1,), [op, Linear(torch.ones(1, 1), torch.zeros(1)), Smooth("tanh"), Max(), Relu()])
    bounds = rigorous.intervals(network, boxed(torch.tensor([-0.5]), torch.tensor([2.0])))
    assert all(bool(b.lower.isnan().all() and b.upper.isnan().all()) for b in bounds[1:])
    fine = rigorous.intervals(network, boxed(torch.tensor([0.5]), torch.tensor([2.0])))
    assert all(bool(b.lower.isfinite().all() and b.upper.isfinite().all()) for b in fine)
