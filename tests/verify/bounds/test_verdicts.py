"""Tests of verify.bounds.verdicts: nothing but a finite, positive float64 margin is ever "verified"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from assay.verify.bounds.layers import Imprecise
from assay.verify.bounds.verdicts import finest, verify_by_bounds
from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.network import Network, chain
from assay.verify.core.ops import Scale
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.core.spec import Polyhedron, Spec

NAN, INF = float("nan"), float("inf")
BOX = Box(torch.zeros(2), torch.ones(2))
NETWORK = chain((2,), [])


@dataclass(frozen=True)
class Fake:
    """A method that supports what it is told to."""

    why_not: str | None = None
    name: ClassVar[str] = "fake"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def supports(self, problem: Problem) -> str | None:
        return self.why_not

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        raise NotImplementedError


def spec(*disjuncts: tuple[list[list[float]], list[float]]) -> Spec:
    return Spec(
        tuple(
            Polyhedron(
                torch.tensor(A, dtype=torch.float64).reshape(-1, 2),
                torch.tensor(b, dtype=torch.float64),
                torch.zeros(len(b), dtype=torch.bool),
            )
            for A, b in disjuncts
        )
    )


ONE_ROW = spec(([[1.0, 0.0]], [0.0]))


def verdict(
    rows: list[float] | dict[torch.dtype, list[float]],
    question: Spec = ONE_ROW,
    dtype: torch.dtype = torch.float64,
    budget: Budget | None = None,
    fake: Fake | None = None,
) -> Result:
    def bounder(network: Network, region: Region, objective: Tensor, budget: Budget, dtype: torch.dtype) -> Tensor:
        chosen = rows[dtype] if isinstance(rows, dict) else rows
        return torch.tensor([chosen], dtype=dtype).expand(len(objective), -1)

    problem = Problem(NETWORK, BOX, question)
    (result,) = verify_by_bounds(fake or Fake(), [problem], budget or Budget(), bounder, dtype)
    assert result.problem_id == problem.id
    return result


@pytest.mark.parametrize(
    ("margin", "expected"),
    [
        (1e-300, Verdict.VERIFIED),
        (1.0, Verdict.VERIFIED),
        (0.0, Verdict.UNKNOWN),
        (-0.0, Verdict.UNKNOWN),
        (-1.0, Verdict.UNKNOWN),
        (NAN, Verdict.UNKNOWN),
        (INF, Verdict.UNKNOWN),
        (-INF, Verdict.UNKNOWN),
    ],
)
def test_the_verdict_of_a_margin(margin: float, expected: Verdict) -> None:
    result = verdict([margin])
    assert result.verdict is expected
    finite = margin not in (INF, -INF) and margin == margin
    assert result.margin == (margin if finite else None)
    if expected is Verdict.UNKNOWN:
        assert result.reason is (Reason.INCOMPLETE if margin < INF else Reason.NUMERICAL)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([1.0, -1.0, 1.0], True),  # one positive row empties a conjunction
        ([-1.0, -1.0, 1.0], False),
        ([1.0, -1.0, -1.0], False),  # every disjunct has to be empty
        ([1.0, NAN, 1.0], False),
        ([NAN, NAN, 1.0], False),
        ([1.0, 1.0, NAN], False),
        ([1.0, 1.0, INF], False),  # an overflow is no bound
        ([1.0, -INF, 1.0], True),
    ],
)
def test_rows_and_disjuncts(rows: list[float], expected: bool) -> None:
    question = spec(([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]))
    assert (verdict(rows, question).verdict is Verdict.VERIFIED) == expected


def test_the_right_hand_side_counts() -> None:
    assert verdict([1.0], spec(([[1.0, 0.0]], [0.75]))).margin == 0.25
    assert verdict([1.0], spec(([[1.0, 0.0]], [1.0]))).verdict is Verdict.UNKNOWN


def test_a_lower_precision_decides_where_its_bounds_do() -> None:
    result = verdict({torch.float32: [5.0], torch.float64: [-1.0]}, dtype=torch.float32)
    assert (result.verdict, result.margin) == (Verdict.VERIFIED, 5.0)


@pytest.mark.parametrize("first", [-0.5, NAN, INF])
def test_what_a_lower_precision_leaves_open_is_bounded_again(first: float) -> None:
    result = verdict({torch.float32: [first], torch.float64: [1.0]}, dtype=torch.float32)
    assert (result.verdict, result.margin) == (Verdict.VERIFIED, 1.0)


@pytest.mark.parametrize("single", [[NAN, 2.0], [-INF, 2.0], [INF, 2.0], None])
def test_rows_that_float32_has_no_bound_for_are_those_of_float64(single: list[float] | None) -> None:
    asked = []

    def bounder(network: Network, region: Region, objective: Tensor, budget: Budget, dtype: torch.dtype) -> Tensor:
        asked.append(dtype)
        if dtype == torch.float64:
            return torch.tensor([[1.0, 1.0]], dtype=torch.float64)
        if single is None:
            raise Imprecise
        return torch.tensor([single], dtype=torch.float64)

    lower = finest(bounder, NETWORK, BOX, torch.eye(2), Budget(), torch.float32)
    assert lower.tolist() == [[1.0, 2.0 if single else 1.0]]
    assert asked == [torch.float32, torch.float64]


@pytest.mark.parametrize("precise", [NAN, INF])
def test_no_precision_stands_in_for_a_bound_that_is_none(precise: float) -> None:
    result = verdict({torch.float32: [NAN], torch.float64: [precise]}, dtype=torch.float32)
    assert (result.verdict, result.margin) == (Verdict.UNKNOWN, None)


def test_no_disjunct_is_vacuous() -> None:
    result = verdict([1.0], Spec(()))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.VACUOUS)
    assert "empty" in result.stats["explanation"]


def test_an_empty_region_is_vacuous() -> None:
    problem = Problem(NETWORK, Box(torch.ones(2), torch.zeros(2)), ONE_ROW)
    (result,) = verify_by_bounds(Fake(), [problem], Budget(), _never, torch.float64)
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.VACUOUS)


def test_no_output_constraint_is_never_verified() -> None:
    """Every point of the region is a counterexample: there is nothing to prove, and nothing failed numerically."""
    result = verdict([], spec(([], [])))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.INCOMPLETE)


def test_what_is_not_supported_says_why() -> None:
    result = verdict([1.0], fake=Fake("no rule for Strange"))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED)
    assert "Strange" in result.stats["explanation"]


def test_missing_bounds_after_the_deadline_are_a_timeout() -> None:
    assert verdict([NAN], budget=Budget(seconds=0)).reason is Reason.TIMEOUT
    assert verdict([1.0], budget=Budget(seconds=0)).verdict is Verdict.VERIFIED


def test_no_memory() -> None:
    def bounder(network: Network, region: Region, objective: Tensor, budget: Budget, dtype: torch.dtype) -> Tensor:
        raise MemoryError

    (result,) = verify_by_bounds(Fake(), [Problem(NETWORK, BOX, ONE_ROW)], Budget(), bounder, torch.float64)
    assert (result.verdict, result.reason, result.margin) == (Verdict.UNKNOWN, Reason.MEMORY, None)


def test_no_memory_in_the_second_look() -> None:
    def bounder(network: Network, region: Region, objective: Tensor, budget: Budget, dtype: torch.dtype) -> Tensor:
        if dtype == torch.float64:
            raise MemoryError
        return -torch.ones(1, 1)

    (result,) = verify_by_bounds(Fake(), [Problem(NETWORK, BOX, ONE_ROW)], Budget(), bounder, torch.float32)
    assert (result.verdict, result.reason, result.margin) == (Verdict.UNKNOWN, Reason.MEMORY, None)


def test_a_fault_is_not_a_verdict() -> None:
    with pytest.raises(RuntimeError, match="fault"):
        verify_by_bounds(Fake(), [Problem(NETWORK, BOX, ONE_ROW)], Budget(), _never, torch.float64)


def test_different_kinds_of_problems_keep_their_order() -> None:
    """Different networks, norms and specifications in one list: each gets its own margin."""
    other = chain((2,), [Scale(torch.tensor(2.0), torch.tensor(0.0))])
    ball = LpBall(torch.zeros(2), 1.0, 2, domain=None)
    two = spec(([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]))
    problems = [
        Problem(NETWORK, BOX, ONE_ROW),
        Problem(other, BOX, ONE_ROW),
        Problem(NETWORK, ball, ONE_ROW),
        Problem(NETWORK, BOX, two),
        Problem(NETWORK, Box(torch.ones(2), torch.ones(2)), spec(([[1.0, 0.0]], [0.25]))),
    ]

    def bounder(network: Network, region: Region, objective: Tensor, budget: Budget, dtype: torch.dtype) -> Tensor:
        low = network(region.box().lower)
        return (objective @ low[..., None])[..., 0]

    results = verify_by_bounds(Fake(), problems, Budget(), bounder, torch.float64)
    assert [r.problem_id for r in results] == [p.id for p in problems]
    assert [r.margin for r in results] == [0.0, 0.0, -1.0, 0.0, 0.75]


def _never(network: Network, region: Region, objective: Tensor, budget: Budget, dtype: torch.dtype) -> Tensor:
    raise RuntimeError("a fault")
