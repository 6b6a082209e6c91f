"""No exception leaves ``verify`` on numbers at the ends of float64: the answer is a result, and never a wrong proof."""

from __future__ import annotations

import warnings
from dataclasses import replace
from math import inf, isfinite
from typing import Any

import pytest
import torch
from torch import Tensor

from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, chain
from assay.verify.core.ops import Linear, Relu
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.core.verifier import BatchVerifier, Bounder
from assay.verify.registry import get_verifier, list_verifiers
from tests.breadth import few


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def network(scale: float, dtype: torch.dtype) -> Network:
    first = Linear(vector(1.0, -1.0, 0.5, 1.0).view(2, 2) * scale, vector(0.1, -0.2))
    last = Linear(vector(1.0, 1.0, 0.0, -1.0).view(2, 2), vector(1.0, 0.0))
    return replace(chain((2,), [first, Relu(), last]), dtype=dtype)


SINGLE = vector(1 / 997, 2 / 997)
REGIONS: dict[str, Region] = {
    "zero width": Box(SINGLE.float(), SINGLE.float()),
    "one value that is no float32": Box(SINGLE, SINGLE),
    "no float32": Box(vector(1e9 + 10, 0.0), vector(1e9 + 20, 1.0)),
    "unbounded": Box(vector(-inf, -inf), vector(inf, inf)),
    "half bounded": Box(vector(0.0, -inf), vector(inf, 1.0)),
    "huge": Box(vector(-1e308, -1e308), vector(1e308, 1e308)),
    "tiny": Box(vector(0.0, 0.0), vector(1e-310, 1e-320)),
    "empty": Box(vector(1.0, 0.0), vector(0.0, 1.0)),
    **{
        f"l{p} {eps:g}": LpBall(vector(0.0, 0.0), eps, p, None)
        for p in (1, 2, inf)
        for eps in (0.0, 1e-320, 1e-170, 1e155, 1.7e308)
    },
}
OFTEN = [name for name in REGIONS if name[0] != "l" or name.endswith((" 1e-320", " 1.7e+308"))]
SPECS = {
    "robust": Spec.robust(0, 2),
    "touched": Spec((Polyhedron(vector(1.0, 0.0)[None], vector(1.0), torch.ones(1, dtype=torch.bool)),)),
}
NAMES = [*list_verifiers(), "milp(solver=pulp:cbc)", "milp(solver=pulp:highs)", "milp(solver=scip)"]


def answer(name: str, scale: float, dtype: torch.dtype, region: Region, spec: Spec) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that are no float32
        problem = Problem(network(scale, dtype), region, spec, 0)
    return get_verifier(name).verify(problem, Budget(0.1 if name in ("auto", "input-split") else 1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", few(REGIONS, quick=OFTEN))
def test_every_method_answers(name: str, where: str) -> None:
    """y0 = 1 + relu(a) + relu(b), y1 = -relu(b): class 0 is always the larger, y0 is 1 at least."""
    for scale, dtype, spec in ((1.0, torch.float32, "robust"), (1e155, torch.float64, "touched")):
        result = answer(name, scale, dtype, REGIONS[where], SPECS[spec])
        assert result.verdict is not Verdict.FALSIFIED, (scale, spec)
        there = SPECS[spec].margin(SPECS[spec].rows(network(scale, dtype)(REGIONS[where].centre[None]))).item()
        assert result.margin is None or where == "empty" or not isfinite(there) or result.margin <= there + 1e-9
        assert where != "empty" or result.reason is Reason.VACUOUS


@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_overflows_is_not_verified(name: str) -> None:
    """Values of 1e300 times 1e300: what is true in the reals no float64 tells."""
    wrong = Spec.halfspaces([[-1.0, 0.0]], [-3.0])  # y0 >= 3 is reached
    for where in ("huge", "l2 1e+155", "linf 1.7e+308"):
        assert answer(name, 1e300, torch.float64, REGIONS[where], wrong).verdict is not Verdict.VERIFIED


@pytest.mark.parametrize("name", list_verifiers())
def test_what_is_no_problem_and_no_budget_is_named(name: str) -> None:
    problem = Problem(network(1.0, torch.float32), LpBall(vector(0.25, 0.5), 0.01), SPECS["robust"], 0)
    verifier: Any = get_verifier(name)
    calls = [verifier.verify]
    if isinstance(verifier, BatchVerifier):
        calls.append(lambda problem, *budget: verifier.verify_many([problem], *budget))
    for call in calls:
        with pytest.raises(InputError, match="expected a Budget, got 10: Budget"):
            call(problem, 10)
        with pytest.raises(InputError, match=r"expected a Problem, got Linear: Problem\.robustness"):
            call(torch.nn.Linear(2, 2))
    if isinstance(verifier, Bounder):
        rows = torch.eye(2, dtype=torch.float64)
        with pytest.raises(InputError, match="expected a Network, got Linear: to_network"):
            verifier.bound(torch.nn.Linear(2, 2), problem.region, rows)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="expected a region, LpBall, Box or Polytope, got float"):
            verifier.bound(problem.network, 0.1, rows)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="expected a Budget, got 10"):
            verifier.bound(problem.network, problem.region, rows, 10)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list_verifiers())
def test_every_method_works_without_a_budget(name: str) -> None:
    problem = Problem(network(1.0, torch.float32), LpBall(vector(0.25, 0.5), 0.01), SPECS["robust"], 0)
    verifier = get_verifier(name)
    result = verifier.verify(problem)
    assert result.problem_id == problem.id
    if isinstance(verifier, BatchVerifier):
        assert verifier.verify_many([problem])[0].verdict is result.verdict
    if isinstance(verifier, Bounder):
        assert verifier.bound(problem.network, problem.region, torch.eye(2, dtype=torch.float64)).lower.shape == (1, 2)
