"""Counterexamples replayed on the original model, alone, with exact membership of the region."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.core.errors import InputError
from verify.core.problem import Problem


@dataclass(frozen=True)
class Replay:
    """Whether the point is a counterexample; if not, why; and its margin on the original model."""

    confirmed: bool
    explanation: str
    margin: float


def replay(problem: Problem, x: Tensor) -> Replay:
    """Run ``x`` (one sample's shape) through the oracle in its dtype, batch of one, and through the network in float64.

    A counterexample lies in the region exactly, has finite outputs, and violates the specification, strictness
    honoured, both on the oracle and in (nearly) real arithmetic: a point on which the two differ decides nothing.
    """
    network = problem.network
    if tuple(x.shape) != network.input_shape:
        raise InputError(f"expected a counterexample of shape {network.input_shape}, got {tuple(x.shape)}")
    batch = x.detach().to(network.dtype)[None]
    if not torch.equal(batch[0].double(), x.detach().double()):
        return Replay(False, f"the point has no exact value in the model's {network.dtype}", float("nan"))
    if not bool(problem.region.contains(batch)):
        return Replay(False, "the point lies outside of the region", float("nan"))
    with torch.no_grad():
        on_oracle = (network.oracle or network)(batch).detach().flatten(1)
        in_real = network(batch.double()).flatten(1)
    margin = float(problem.spec.margin(problem.spec.rows(on_oracle)))
    if not bool(on_oracle.isfinite().all()):
        return Replay(False, "the model's output there is not finite", margin)
    if not bool(problem.spec.violated(on_oracle)):
        return Replay(False, f"the model satisfies the property there (margin {margin:g})", margin)
    if not bool(problem.spec.violated(in_real)):
        return Replay(False, "the model violates the property there in its own arithmetic, but not in float64", margin)
    return Replay(True, "", margin)
