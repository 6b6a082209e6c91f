"""Counterexamples replayed on the original model, alone, with exact membership of the region."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.problem import Problem
from assay.verify.core.result import Reason, Result, Verdict


@dataclass(frozen=True)
class Replay:
    """Whether the point is a counterexample; if not, why; and its margin on the original model.

    ``alarm``: the claim was false by more than rounding can explain.
    """

    confirmed: bool
    explanation: str
    margin: float
    alarm: bool = False


def replay(problem: Problem, x: Tensor) -> Replay:
    """Run ``x`` (one sample's shape) through the oracle in its dtype, batch of one, and through the network in float64.

    A counterexample lies in the region exactly, has finite outputs, and violates the specification, strictness
    honoured, both on the oracle and in (nearly) real arithmetic: a point on which the two differ decides nothing.
    """
    network, spec = problem.network, problem.spec
    if tuple(x.shape) != network.input_shape:
        raise InputError(f"expected a counterexample of shape {network.input_shape}, got {tuple(x.shape)}")
    batch = x.detach().to(network.dtype)[None]
    if not torch.equal(batch[0].double(), x.detach().double()):
        return Replay(False, f"the point has no exact value in the model's {network.dtype}", float("nan"), alarm=True)
    if not bool(problem.region.contains(batch)):
        return Replay(False, "the point lies outside of the region", float("nan"), alarm=True)
    with torch.no_grad():
        on_oracle = (network.oracle or network)(batch.clone()).detach().flatten(1)
        in_real = network(batch.double()).flatten(1)
    margin = float(spec.margin(spec.rows(on_oracle)))
    if not bool(on_oracle.isfinite().all()):
        return Replay(False, "the model's output there is not finite", margin)
    if not bool(spec.violated(on_oracle)):
        alarm = _clear(problem, batch)
        return Replay(False, f"the model satisfies the property there (margin {margin:g})", margin, alarm)
    if not bool(spec.violated(in_real)):
        return Replay(False, "the model violates the property there in its own arithmetic, but not in float64", margin)
    return Replay(True, "", margin)


def replayed(problem: Problem, result: Result) -> Result:
    """A falsified result as it is, with its margin on the model; withdrawn, with the reason, if replay fails."""
    assert result.counterexample is not None
    seen = replay(problem, result.counterexample)
    if seen.confirmed:
        return replace(result, stats={**result.stats, "counterexample_margin": seen.margin})
    return withdrawn(result, {"alarm" if seen.alarm else "explanation": seen.explanation})


def withdrawn(result: Result, why: dict[str, Any]) -> Result:
    """UNKNOWN(numerical) in place of a verdict that does not stand."""
    return replace(
        result,
        verdict=Verdict.UNKNOWN,
        reason=Reason.NUMERICAL,
        margin=None,
        counterexample=None,
        stats={**result.stats, **why},
    )


def _clear(problem: Problem, batch: Tensor) -> bool:
    """Whether the property holds at the point by more than the rounding errors of the model's arithmetic."""
    spec, network = problem.spec, problem.network
    with torch.no_grad():
        rows = spec.rows(network(batch.double()).flatten(1))
        error, _ = (network.literal or network).rounding_error(batch, network.dtype)
    return bool(spec.margin(rows - error.flatten(1) @ spec.A.abs().T) > 0)
