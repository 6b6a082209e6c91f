"""Tests of verify.bounds.found: what one method found of a box, the next one has, and nobody else."""

from __future__ import annotations

import pytest
import torch

from assay.verify.backends.crown import CROWN
from assay.verify.bounds import layers
from assay.verify.bounds.found import FOUND, complete
from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.network import Network, to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import LpBall, Region
from tests import nets

CENTRE = torch.linspace(-1.0, 1.0, 6, dtype=torch.float64)[None]


def made() -> Network:
    return to_network(nets.random_mlp(0, (6, 12, 12, 3)), (6,))


def ball(eps: float = 0.2, p: float = float("inf")) -> LpBall:
    return LpBall(CENTRE, eps, p, None)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The nodes whose neurons linear bounds are worked out of."""
    nodes: list[int] = []
    columns = layers._by_columns
    monkeypatch.setattr(layers, "_by_columns", lambda group, at, *rest: nodes.append(at) or columns(group, at, *rest))
    return nodes


def equal(one: layers.Relaxed, other: layers.Relaxed) -> bool:
    pairs = zip(one.bounds, other.bounds, strict=True)
    return all(a.lower.equal(b.lower) and a.upper.equal(b.upper) for a, b in pairs)


def test_what_one_call_found_the_next_one_has(asked: list[int]) -> None:
    network = made()
    first = layers.by_linear_bounds(network, ball(), torch.float64)
    worked = list(asked)
    again = layers.by_linear_bounds(network, ball().box(), torch.float64)
    assert worked
    assert asked == worked, "the same box"
    assert equal(first, again)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_call_goes_on_where_another_one_was_cut_off(count: int) -> None:
    network, other = made(), made()
    whole = layers.by_linear_bounds(other, ball(), torch.float64)
    layers.by_linear_bounds(network, ball(), torch.float64)
    del FOUND.of[network][0][count:]
    assert equal(layers.by_linear_bounds(network, ball(), torch.float64), whole)
    assert len(FOUND.of[network][0]) == len(network.nodes)


@pytest.mark.parametrize("region", [ball(0.1), ball(0.2, 2.0), LpBall(CENTRE.repeat(2, 1), 0.2, domain=None)])
def test_other_regions_have_bounds_of_their_own(region: Region) -> None:
    network = made()
    layers.by_linear_bounds(network, ball(), torch.float64)
    assert equal(
        layers.by_linear_bounds(network, region, torch.float64), layers.by_linear_bounds(made(), region, torch.float64)
    )


def test_bounds_of_weights_that_are_trained_are_not_kept() -> None:
    network = made()
    for node in network.nodes[1:]:
        if hasattr(node.op, "weight"):
            node.op.weight.requires_grad_()
    with torch.no_grad():
        layers.by_linear_bounds(network, ball(), torch.float64)
    assert network not in FOUND.of


def test_bounds_beyond_a_part_of_the_memory_are_not_kept() -> None:
    network = made()
    layers.by_linear_bounds(network, ball(), torch.float64, Budget(memory=1 << 12))
    assert network not in FOUND.of


def test_only_the_last_boxes_are_kept() -> None:
    network = made()
    for eps in (0.1, 0.2, 0.3, 0.1):
        layers.by_linear_bounds(network, ball(eps), torch.float64)
    assert [float(each[0].upper[0, -1]) for each in FOUND.of[network]] == [1.1, 1.3]


def test_bounds_from_inference_mode_can_be_used_in_ordinary_mode() -> None:
    network = made()
    with torch.inference_mode():
        layers.by_linear_bounds(network, ball(), torch.float64)
    relaxed = layers.by_linear_bounds(network, ball(), torch.float64)
    assert not any(t.is_inference() for b in relaxed.bounds for t in (b.lower, b.upper))


def test_a_method_says_the_same_of_a_network_that_was_asked_of_before() -> None:
    network = to_network(nets.random_cnn(0, (1, 4, 4), (2,)), (1, 4, 4))
    problem = Problem.robustness(network, torch.zeros(1, 4, 4), 0, 0.1)
    layers.by_linear_bounds(network, layers.batch_box(problem.region, (1, 4, 4)), torch.float64)
    fresh = Problem.robustness(to_network(nets.random_cnn(0, (1, 4, 4), (2,)), (1, 4, 4)), torch.zeros(1, 4, 4), 0, 0.1)
    assert CROWN().verify(problem, UNLIMITED).margin == CROWN().verify(fresh, UNLIMITED).margin


def test_whether_all_nodes_are_bounded() -> None:
    network, box = made(), layers.by_intervals(made(), ball(), torch.float64).bounds[0]
    assert not complete(network, box)
    layers.by_linear_bounds(network, ball(), torch.float64)
    assert complete(network, box)
    assert not complete(network, layers.by_intervals(network, ball(0.1), torch.float64).bounds[0])
    del FOUND.of[network][0][-1]
    assert not complete(network, box)
