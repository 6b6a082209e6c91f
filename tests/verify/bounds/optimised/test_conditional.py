"""Tests of bounds.optimised.conditional: no set that is reached is refuted, and bounds hold of all that leads there."""

from __future__ import annotations

from functools import cache
from math import inf, nextafter

import pytest
import torch
from torch import Tensor

from assay.verify.bounds import layers
from assay.verify.bounds.optimised import conditional, raised
from assay.verify.bounds.optimised.conditional import Unsafe, unreachable
from assay.verify.bounds.optimised.slopes import Ascent, values_on_lines
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.network import Network, to_network
from assay.verify.core.ops import LeakyRelu, Relu, Smooth
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.core.result import Reason, Verdict
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.registry import get_verifier
from tests import exact, nets
from tests.breadth import few
from tests.verify.bounds.optimised.test_raised import bent, pooled

D = torch.float64
ASCENT = Ascent(20, 0.4, 0.9)
NETWORKS = {
    "mlp": to_network(nets.random_mlp(0, (4, 8, 8, 3)), (4,)),
    "cnn": to_network(nets.random_cnn(0), (1, 6, 6)),
    "resnet": to_network(nets.random_resnet(0), (1, 4, 4)),
    "tanh": bent(Smooth("tanh"), Smooth("tanh")),
    "leaky": bent(LeakyRelu(0.1), LeakyRelu(2.0)),
    "pooled": pooled(),
    "ends in an activation": bent(Relu(), Relu(), last=False),
}


def relaxed_over(network: Network, region: Region) -> Relaxed:
    return layers.by_linear_bounds(network, region, D)


def drawn(network: Network, seed: int, rows: int, sets: int = 4) -> Tensor:
    """The rows of unsafe sets: (sets x rows x outputs)."""
    return torch.randn(sets, rows, network.output_size, dtype=D, generator=nets.generator(seed))


@pytest.mark.parametrize("p", [2, inf])
@pytest.mark.parametrize("rows", few([1, 2], quick=[2]))
@pytest.mark.parametrize("name", few(NETWORKS, ["mlp", "pooled", "tanh"]))
def test_bounds_hold_of_every_input_that_leads_into_the_set(name: str, rows: int, p: float) -> None:
    network = NETWORKS[name]
    centre = torch.rand(1, *network.input_shape, generator=nets.generator(1))
    ball = LpBall(centre, 0.3 if p == inf else 0.6, p, (0.0, 1.0))
    relaxed = relaxed_over(network, ball)
    x = ball.sample(4000, nets.generator(2)).reshape(-1, *network.input_shape).double()
    values = values_on_lines(relaxed.network, {}, x.flatten(1), {})
    A = drawn(network, 3, rows)
    outputs = torch.einsum("sro,no->snr", A, values[-1].flatten(1))
    b = outputs.flatten(0, 1).view(4, -1, rows).quantile(0.2, dim=1)
    conditions = conditional._Conditions.of(relaxed, Unsafe(A, b), ASCENT)
    conditions.narrow()
    conditions.narrow()
    met = 0
    for number in range(4):
        inside = (outputs[number] <= b[number]).all(1)
        met += int(inside.sum())
        assert not (bool(inside.any()) and bool(conditions.closed[number]))
        for bounds, value in zip(conditions.relaxed.bounds, values, strict=True):
            assert bool((value[inside] >= bounds.lower[number] - 1e-9).all())
            assert bool((value[inside] <= bounds.upper[number] + 1e-9).all())
    assert met > 200
    narrower = (
        (after.upper - after.lower).sum() < 4 * (before.upper - before.lower).sum() - 1e-6
        for before, after in zip(relaxed.bounds, conditions.relaxed.bounds, strict=True)
    )
    assert any(narrower) or name == "pooled", "nothing was narrowed"


def boxed(seed: int) -> tuple[Network, Box]:
    network = to_network(nets.random_mlp(seed, (3, 5, 5, 3)), (3,))
    centre = torch.rand(3, generator=nets.generator(seed + 1)).double()
    return network, Box(centre - 0.4, centre + 0.4)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("seed", few(range(12), range(4)))
def test_a_set_that_an_input_leads_to_is_never_refuted_and_many_others_are(seed: int, rows: int) -> None:
    network, box = boxed(seed)
    A = drawn(network, seed, rows, sets=1)[0]
    at = network(box.centre[None].float()).double()[0] @ A.T
    least = exact.least_of_largest(network, box, A, at)
    relaxed = relaxed_over(network, box)
    touched = [at + nextafter(least, inf), at + least + 1e-9 * (1 + abs(least)), at + least + 0.1]
    sets = Unsafe(A.expand(len(touched), -1, -1), torch.stack(touched))
    assert not bool(unreachable(relaxed, sets, ASCENT, 3).any())
    far = Unsafe(A[None], (at + least - 3.0 * (1 + abs(least)))[None])
    assert bool(unreachable(relaxed, far, ASCENT, 3).all())


@pytest.mark.slow
def test_it_refutes_more_than_rows_alone() -> None:
    """One row is raised to its best; what the output must be takes it further."""
    more = 0
    for seed in range(8):
        network, box = boxed(seed)
        A = drawn(network, seed, 1, sets=1)
        relaxed = relaxed_over(network, box)
        alone = raised.lower_rows(relaxed, A, ASCENT)[0]
        truth = exact.least_of_largest(network, box, A[0], torch.zeros(1, dtype=D))
        between = alone + 0.5 * (truth - alone)
        if truth - float(alone) > 1e-3:
            more += int(unreachable(relaxed, Unsafe(A, between[None]), ASCENT, 3).sum())
            more += int(unreachable(relaxed, Unsafe(A, (alone + 1e-4)[None]), ASCENT, 3).sum())
    assert more >= 3


@pytest.mark.parametrize("value", [float("nan"), inf, -inf, 1e300])
def test_numbers_beyond_all_bounds_refute_nothing(value: float) -> None:
    network, box = boxed(0)
    A = torch.full((1, 1, 3), value, dtype=D)
    b = torch.zeros(1, 1, dtype=D)
    assert not bool(unreachable(relaxed_over(network, box), Unsafe(A, b), ASCENT, 1).any())


def test_a_region_beyond_all_bounds_refutes_nothing() -> None:
    network, _ = boxed(0)
    far = torch.tensor([1e290, 0.0, 0.0], dtype=D)
    relaxed = relaxed_over(network, Box(-far, far))
    unsafe = Unsafe(drawn(network, 0, 1), torch.zeros(4, 1, dtype=D))
    assert not bool(unreachable(relaxed, unsafe, ASCENT, 1).any())


def test_constraints_are_counted_before_rows_get_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    network, box = boxed(0)
    A = drawn(network, 0, 400, sets=2)
    unsafe, counts, plain = Unsafe(A, torch.full((2, 400), 9.0, dtype=D)), [], conditional._Conditions._lower

    def counted(here: conditional._Conditions, position: int, coef: Tensor, owner: Tensor, width: Tensor) -> Tensor:
        counts.append(len(owner) * A[0].numel() * A.element_size())
        return plain(here, position, coef, owner, width)

    monkeypatch.setattr(conditional._Conditions, "_lower", counted)
    unreachable(layers.by_linear_bounds(network, box, D, Budget(memory=1 << 18)), unsafe, Ascent(1, 0.4), 1)
    assert 0 < max(counts) <= 1 << 17


def test_subnormal_rows_are_not_lost() -> None:
    """Multipliers of such rows are huge, and what they add up to is not what it seems."""
    network, box = boxed(1)
    A = drawn(network, 1, 1, sets=1)
    least = exact.least_of_largest(network, box, A[0], torch.zeros(1, dtype=D))
    for scale in (2.0**-1060, 2.0**-500, 2.0**500):
        touched = Unsafe(A * scale, torch.full((1, 1), nextafter(least, inf), dtype=D) * scale)
        assert not bool(unreachable(relaxed_over(network, box), touched, ASCENT, 2).any())


# The method.


@cache
def least_of(seed: int) -> tuple[float, float]:
    """The true margins of both disjuncts with right-hand sides 0."""
    network, box = boxed(seed)
    A = drawn(network, seed, 3, sets=1)[0]
    zero = torch.zeros(2, dtype=D)
    return exact.least_of_largest(network, box, A[:1], zero[:1]), exact.least_of_largest(network, box, A[1:], zero)


def posed(seed: int, distance: float) -> tuple[Problem, float]:
    """A problem with two disjuncts, one of two rows, whose margin is known."""
    network, box = boxed(seed)
    A = drawn(network, seed, 3, sets=1)[0]
    parts = [(A[:1], torch.zeros(1, dtype=D)), (A[1:], torch.zeros(2, dtype=D))]
    strict = torch.zeros(2, dtype=torch.bool)
    spec = Spec(
        [Polyhedron(a, b + m - distance, strict[: len(a)]) for (a, b), m in zip(parts, least_of(seed), strict=True)]
    )
    return Problem(network, box, spec), distance


@pytest.mark.parametrize("seed", few(range(8), range(3)))
def test_the_method_proves_what_is_true_only(seed: int) -> None:
    verifier = get_verifier("alpha-crown(output=3)")
    for distance in (-0.1, -1e-9, 0.5, 5.0):
        problem, margin = posed(seed, distance)
        result = verifier.verify(problem)
        plain = get_verifier("alpha-crown").verify(problem)
        assert result.verdict is not Verdict.VERIFIED or margin > 0
        assert plain.verdict is not Verdict.VERIFIED or result.verdict is Verdict.VERIFIED
        if result.verdict is not plain.verdict:
            assert result.margin is None
            assert "output" in result.stats


@pytest.mark.slow
def test_the_method_proves_more() -> None:
    problems = [posed(seed, 0.05)[0] for seed in range(8)]
    plain, more = (get_verifier(name).verify_many(problems) for name in ("alpha-crown", "alpha-crown(output=3)"))
    count = [sum(r.verdict is Verdict.VERIFIED for r in results) for results in (plain, more)]
    assert count[1] > count[0]


@pytest.mark.parametrize("why", [Expired(), MemoryError(), RuntimeError("can't allocate memory")])
def test_without_time_or_memory_the_result_of_before_stands(why: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def expired(*_: object) -> Tensor:
        raise why

    problem, _ = posed(0, 0.01)
    plain = get_verifier("alpha-crown").verify(problem)
    monkeypatch.setattr(conditional, "unreachable", expired)
    result = get_verifier("alpha-crown(output=1)").verify(problem, Budget(60))
    assert (result.verdict, result.margin) == (plain.verdict, plain.margin)
    assert result.reason is (Reason.TIMEOUT if isinstance(why, Expired) else plain.reason)


def test_convolutions_are_sums_of_products_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others, which cuDNN may choose, are not what rounding is charged for."""
    chosen = []

    def seen(*_: object) -> Tensor:
        chosen.append(torch.backends.cudnn.enabled)
        return torch.ones(1, dtype=torch.bool)

    monkeypatch.setattr(conditional, "unreachable", seen)
    assert get_verifier("alpha-crown(output=1)").verify(posed(0, 0.01)[0]).verdict is Verdict.VERIFIED
    assert set(chosen) == {False}
