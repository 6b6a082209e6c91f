"""Robustness against semantic perturbations: an image is attacked by parameters, and certified cell by cell of these.

Each cell's images lie in a linear enclosure (:mod:`assay.verify.perturbations`), which becomes a layer in front of the
network: any method bounds it. What is not proved is halved, until the cells cover all parameters (Balunovic et al.
2019, "Certifying Geometric Robustness of Neural Networks").
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf

import torch
from torch import Tensor

from assay.verify.core.budget import UNLIMITED, Budget, running
from assay.verify.core.errors import InputError, check_type
from assay.verify.core.network import Network, content_hash
from assay.verify.core.problem import Problem
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.core.spec import Spec, strictly_largest
from assay.verify.core.verifier import Verifier
from assay.verify.perturbations import Perturbation, enclose
from assay.verify.solving import stages

ROUNDS, TOGETHER = 4, 64  # rounds of the attack, and images in each
SMALLEST = 2.0**-30  # of the whole, by each parameter: smaller cells are not halved


@dataclass(frozen=True, eq=False)
class Perturbed:
    """Whether a network keeps its ``label`` whatever happens to the ``image`` (channels x height x width)."""

    network: Network
    image: Tensor
    label: int
    perturbation: Perturbation

    def __post_init__(self) -> None:
        check_type(self.network, Network, "a Network", "to_network(model, shape_of_one_sample) makes one")
        check_type(self.perturbation, Perturbation, "a Perturbation", "Perturbation.parse('rotation(10)') makes one")
        if self.image.dim() != 3 or tuple(self.image.shape) != self.network.input_shape:
            raise InputError(
                "expected an image (channels x height x width) of the shape that the network takes, "
                f"{self.network.input_shape}, got {tuple(self.image.shape)}"
            )
        low, high = self.perturbation.domain
        if not bool(((self.image >= low) & (self.image <= high)).all()):
            raise InputError(f"expected an image with values from {low:g} to {high:g}, the domain of the perturbation")
        Spec.robust(self.label, self.network.output_size)

    @property
    def id(self) -> str:
        """Hash of the content."""
        return content_hash("perturbed", self.network.id, self.image, self.label, self.perturbation)

    def answers(self, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the model itself makes of the images at parameters (count x parameters): the images in its dtype (count
        x image), by how much the label is the largest output (count), and whether it strictly is (count)."""
        images = self.perturbation.images(self.image, at).to(self.network.dtype)
        with torch.no_grad():
            y = (self.network.oracle or self.network)(images).flatten(1).to(torch.float64)
        label = torch.full((len(at),), self.label)
        rival = y.scatter(1, label[:, None], -inf).amax(1)
        return images, y[:, self.label] - rival, strictly_largest(y, label)


@dataclass(frozen=True, eq=False)
class Found:
    """Parameters (parameters) whose image is misclassified, and the image."""

    parameters: Tensor
    image: Tensor


def attack(question: Perturbed, seed: int = 0, budget: Budget = UNLIMITED) -> Found | None:
    """Parameters that break the label: the ends and a grid, then draws around the worst so far, ever closer; None if
    none were found. What it finds is an image that the model itself misclassifies."""
    budget = running(budget)
    low, high = question.perturbation.low, question.perturbation.high
    rng = torch.Generator().manual_seed(seed)
    at = _grid(low, high)
    best, least = (low + high) / 2, inf
    for round_ in range(ROUNDS + 1):
        for some in torch.split(at, TOGETHER):
            if budget.expired:
                return None
            images, margins, right = question.answers(some)
            if not bool(right.all()):
                first = int((~right).nonzero()[0])
                return Found(some[first], images[first])
            worst = int(margins.argmin())
            if float(margins[worst]) < least:
                best, least = some[worst], float(margins[worst])
        near = (high - low) * 2.0**-round_ * (torch.rand(TOGETHER, len(low), dtype=torch.float64, generator=rng) - 0.5)
        at = torch.minimum(torch.maximum(best + near, low), high)
    return None


def _grid(low: Tensor, high: Tensor) -> Tensor:
    """Parameters at equal steps from end to end, some hundred in all: (count x parameters)."""
    each = max(2, int(128 ** (1 / len(low))))
    sides = [
        torch.linspace(float(a), float(b), each if b > a else 1, dtype=torch.float64)
        for a, b in zip(low, high, strict=True)
    ]
    return torch.stack(torch.meshgrid(*sides, indexing="ij"), -1).flatten(0, -2)


def verify(
    question: Perturbed,
    verifier: Verifier,
    budget: Budget = UNLIMITED,
    heard: Callable[[float], None] = lambda closed: None,
) -> Result:
    """Attack the image, then prove it cell by cell with the ``verifier``; ``heard``: hears which share of the cells is
    proved.

    FALSIFIED: ``stats["parameters"]`` by name, and the image as counterexample. VERIFIED: for every value of the
    parameters, as real numbers, and for the images rounded to the model's dtype as well; the margin is the least of all
    cells'. ``stats["cells"]`` counts what was bounded.
    """
    began, budget = time.monotonic(), running(budget)

    answer = partial(Result, question.id, repr(verifier))

    def falsified(by: Found, cells: int) -> Result:
        named = dict(zip(question.perturbation.names, by.parameters.tolist(), strict=True))
        stats, spent = {"parameters": named, "cells": cells}, time.monotonic() - began
        return answer(Verdict.FALSIFIED, counterexample=by.image, seconds=spent, stats=stats)

    if (found := attack(question, budget.seed, budget)) is not None:
        return falsified(found, 0)
    spec = Spec.robust(question.label, question.network.output_size)
    low, high = question.perturbation.low, question.perturbation.high
    whole, open_, closed, cells, least = high - low, [(low, high)], 0.0, 0, inf
    reason, why = Reason.TIMEOUT, ""
    while open_ and not budget.expired:
        at = open_.pop()
        cells += 1
        enclosure = enclose(question.perturbation, question.image, *at, question.network.dtype)
        problem = Problem(enclosure.before(question.network), enclosure.box, spec)
        said = stages.decide(verifier, [problem], budget)[0]
        if said.verdict is Verdict.VERIFIED:
            closed += _share(*at, whole)
            least = min(least, inf if said.margin is None else said.margin)
            heard(closed)
            continue
        if said.reason is Reason.UNSUPPORTED:
            reason, why = Reason.UNSUPPORTED, str(said.stats.get("explanation", ""))
            open_.append(at)
            break
        if said.counterexample is not None:  # it is one of the enclosure's: its parameters may be one of the image
            share = said.counterexample[: len(low)].to(torch.float64).clamp(-1, 1)
            here = torch.minimum(torch.maximum(at[0] + (share + 1) / 2 * (at[1] - at[0]), at[0]), at[1])
            images, _, right = question.answers(here[None])
            if not bool(right.all()):
                return falsified(Found(here, images[0]), cells)
        halves = _halved(*at, enclosure.slope.abs().sum(1), whole)
        open_ += halves or [at]
        if not halves:
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
