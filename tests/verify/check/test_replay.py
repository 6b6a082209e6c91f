"""Tests of verify.check.replay: a point counts only inside, exactly represented, and violating in both arithmetics."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from assay.verify.check.replay import replay
from assay.verify.core.errors import InputError
from assay.verify.core.network import chain
from assay.verify.core.ops import Scale
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.spec import Polyhedron, Spec
from tests import nets

IDENTITY = chain((2,), [], oracle=nn.Identity())
UNIT = Box(torch.zeros(2), torch.ones(2))
TIE = Spec.robust(0, 2)
ABSORBING = chain(
    (1,), [Scale(torch.tensor(1.0), torch.tensor(s * 2.0**25)) for s in (1, -1)], oracle=lambda x: (x + 2**25) - 2**25
)


def x(*values: float) -> Tensor:
    return torch.tensor(values)


def test_a_counterexample_is_confirmed_with_its_margin() -> None:
    seen = replay(Problem(IDENTITY, UNIT, TIE), x(0.25, 0.75))
    assert (seen.confirmed, seen.explanation, seen.margin) == (True, "", -0.5)


def test_a_tie_is_a_counterexample_of_robustness() -> None:
    assert replay(Problem(IDENTITY, UNIT, TIE), x(0.5, 0.5)).confirmed


def test_strictness_is_honoured() -> None:
    rows = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    strict = Spec((Polyhedron(rows, torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.bool)),))
    assert not replay(Problem(IDENTITY, UNIT, strict), x(0.5, 0.5)).confirmed
    assert replay(Problem(IDENTITY, UNIT, strict), x(0.5, 0.75)).confirmed


def test_a_satisfied_property_is_none() -> None:
    seen = replay(Problem(IDENTITY, UNIT, TIE), x(0.75, 0.25))
    assert not seen.confirmed
    assert "satisfies" in seen.explanation


@pytest.mark.parametrize("p", [1, 2, float("inf")])
def test_a_point_outside_by_one_unit_in_the_last_place_is_none(p: float) -> None:
    problem = Problem(IDENTITY, LpBall(x(0.5, 0.5), 0.25, p, domain=None), TIE)
    edge = x(0.5, 0.75)
    assert replay(problem, edge).confirmed
    outside = replay(problem, torch.stack([edge[0], torch.nextafter(edge[1], x(1.0)[0])]))
    assert not outside.confirmed
    assert "outside" in outside.explanation


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_points_that_are_not_finite_are_none(value: float) -> None:
    region = Box(torch.full((2,), -float("inf")), torch.full((2,), float("inf")))
    assert not replay(Problem(IDENTITY, region, TIE), x(0.0, value)).confirmed


def test_a_point_without_an_exact_value_in_the_models_dtype_is_none() -> None:
    seen = replay(Problem(IDENTITY, UNIT, TIE), torch.tensor([0.1, 0.2], dtype=torch.float64))
    assert not seen.confirmed
    assert "float32" in seen.explanation


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_outputs_that_are_not_finite_violate_nothing(value: float) -> None:
    network = replace(IDENTITY, oracle=lambda batch: torch.full_like(batch, value))
    seen = replay(Problem(network, UNIT, TIE), x(0.25, 0.75))
    assert not seen.confirmed
    assert "finite" in seen.explanation


def test_what_overflows_in_float64_too_is_none() -> None:
    """The oracle invents an answer where the network has none."""
    network = chain((2,), [Scale(torch.tensor(1e308), torch.tensor(0.0))] * 2, oracle=nn.Identity())
    assert not replay(Problem(network, UNIT, TIE), x(0.25, 0.75)).confirmed


def test_a_violation_in_float32_only_is_not_confirmed() -> None:
    """y = (x + 2**25) - 2**25 is x in the reals and 0 in float32."""
    seen = replay(Problem(ABSORBING, Box(torch.zeros(1), torch.ones(1)), Spec.halfspaces([[1.0]], [0.5])), x(1.0))
    assert seen.margin < 0
    assert not seen.confirmed
    assert "float64" in seen.explanation


def test_a_violation_in_float64_only_is_not_confirmed() -> None:
    """N1: y = x in the reals, 0 in float32."""
    seen = replay(nets.trap_problem("N1"), x(1.0))
    assert not seen.confirmed
    assert "satisfies" in seen.explanation


def test_the_oracle_sees_one_sample_in_its_own_dtype() -> None:
    calls: list[Tensor] = []

    def oracle(batch: Tensor) -> Tensor:
        calls.append(batch)
        return batch

    replay(Problem(replace(IDENTITY, oracle=oracle), UNIT, TIE), x(0.25, 0.75))
    assert [(tuple(c.shape), c.dtype) for c in calls] == [((1, 2), torch.float32)]


def test_a_network_without_an_oracle_is_its_own() -> None:
    assert replay(Problem(replace(IDENTITY, oracle=None), UNIT, TIE), x(0.25, 0.75)).confirmed


def test_a_wrong_shape_is_the_callers_mistake() -> None:
    with pytest.raises(InputError, match=r"expected a counterexample of shape \(2,\)"):
        replay(Problem(IDENTITY, UNIT, TIE), x(0.25))
