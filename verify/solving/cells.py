"""Semantic perturbations cell by cell of their parameters: the images of each lie in a linear enclosure, which becomes
a layer in front of the network that any method bounds. What is not proved is halved, until the cells cover all
parameters (Balunovic et al. 2019, "Certifying Geometric Robustness of Neural Networks"; Mohapatra et al. 2020,
arXiv:1912.09533)."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from assay.verify.check.replay import replay
from assay.verify.core.budget import UNLIMITED, Budget, running
from assay.verify.core.errors import InputError
from assay.verify.core.problem import Problem, check_problem
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.perturbations import Perturbed, enclose
from assay.verify.registry import get_verifier
from assay.verify.solving import stages
from assay.verify.solving.falsifier import AttackVerifier

SMALLEST = 2.0**-30  # of the whole, by each parameter: smaller cells are not halved
FIRST = AttackVerifier("grid(points=128)+random(points=64)")  # who is asked before anything is bounded


@dataclass(frozen=True)
class Cells:
    """Attacks a perturbation's parameters, then asks ``method`` about the images of each cell of them: verified for
    every value of the parameters, as real numbers, and for the images rounded to the model's type as well.

    Problems without a perturbation are left to the method; more than ``most`` cells are not bounded.
    """

    method: str = "crown"
    most: int = 1000
    name: ClassVar[str] = "cells"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        if not isinstance(self.most, int) or self.most < 1:
            raise InputError(f"most of cells must be a whole number of at least 1, got {self.most}")
        get_verifier(self.method)

    def supports(self, problem: Problem) -> str | None:
        """Perturbations; of others, those of the method."""
        return None if isinstance(problem, Perturbed) else get_verifier(self.method).supports(problem)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """FALSIFIED: the parameters as counterexample, and by name in ``stats["parameters"]``. VERIFIED: the margin is
        the least of all cells'. ``stats["cells"]`` counts what was bounded."""
        check_problem(problem)
        budget, began = running(budget), time.monotonic()
        verifier = get_verifier(self.method)
        if not isinstance(problem, Perturbed):
            return replace(verifier.verify(problem, budget), verifier=repr(self))
        answer = partial(Result, problem.id, repr(self))
        if not problem.spec.disjuncts:
            return answer(Verdict.UNKNOWN, Reason.VACUOUS, stats={"explanation": "the unsafe set is empty"})

        def falsified(at: Tensor, cells: int) -> Result:
            stats, spent = {"parameters": problem.named(at), "cells": cells}, time.monotonic() - began
            return answer(Verdict.FALSIFIED, counterexample=at, seconds=spent, stats=stats)

        attacked = FIRST.verify(problem, budget)
        if attacked.counterexample is not None:
            return falsified(attacked.counterexample, 0)
        low, high = problem.perturbation.low, problem.perturbation.high
        whole, open_, closed, cells, least = high - low, [(low, high)], 0.0, 0, inf
        reason, why = Reason.TIMEOUT, ""
        while open_ and not budget.expired:
            at = open_.pop()
            cells += 1
            enclosure = enclose(problem.perturbation, problem.image, *at, problem.behind.dtype)
            images = Problem(enclosure.before(problem.behind), enclosure.box, problem.spec)
            said = stages.decide(verifier, [images], budget)[0]
            if said.verdict is Verdict.VERIFIED:
                closed += _share(*at, whole)
                least = min(least, inf if said.margin is None else said.margin)
                continue
            if said.reason is Reason.UNSUPPORTED:
                reason, why = Reason.UNSUPPORTED, str(said.stats.get("explanation", ""))
                open_.append(at)
                break
            if said.counterexample is not None:  # it is one of the enclosure's: its parameters may be one of the image
                share = said.counterexample[: len(low)].to(torch.float64).clamp(-1, 1)
                here = torch.minimum(torch.maximum(at[0] + (share + 1) / 2 * (at[1] - at[0]), at[0]), at[1])
                if replay(problem, here).confirmed:
                    return falsified(here, cells)
            halves = _halved(*at, enclosure.slope.abs().sum(1), whole)
            open_ += halves or [at]
            if not halves or cells >= self.most:
                reason = Reason.INCOMPLETE
                break
        stats = {"cells": cells, "closed": closed, **({"explanation": why} if why else {})}
        spent = time.monotonic() - began
        if open_:
            return answer(Verdict.UNKNOWN, reason, seconds=spent, stats=stats)
        return answer(Verdict.VERIFIED, margin=None if least == inf else least, seconds=spent, stats=stats)


def _share(low: Tensor, high: Tensor, whole: Tensor) -> float:
    """Of the whole, the share of a cell."""
    return float(((high - low) / whole)[whole > 0].prod())


def _halved(low: Tensor, high: Tensor, moved: Tensor, whole: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Two halves by the parameter that moves the pixels most; none where the cell is as small as can be."""
    can = (high - low > SMALLEST * whole) & (high > low)
    if not bool(can.any()):
        return []
    k = int(moved.masked_fill(~can, -1.0).argmax())
    middle = (low[k] + high[k]) / 2
    below, above = high.clone(), low.clone()
    below[k], above[k] = middle, middle
    return [(above, high), (low, below)]
