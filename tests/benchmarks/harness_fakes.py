"""A model whose robustness is known by hand, and honest, timid and lying participants to judge it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from assay.attacks.common.interface import AttackResult
from assay.models.data import Dataset
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.result import Guarantee, Reason, Result, Verdict

NEEDLE = (0.6125, 0.3875)


def two_class(weight, bias=(0.0, 0.0)):
    """A linear model on two inputs."""
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return nn.Sequential(layer).eval()


def identity():
    """Class 0 wins iff x0 > x1: the linf radius of a sample of class 0 is (x0 - x1) / 2."""
    return two_class([[1.0, 0.0], [0.0, 1.0]])


def needle():
    """Class 0 everywhere but within 5e-5 of NEEDLE (l1), with no slope that leads there."""
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 2)).eval()
    a, b = NEEDLE
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        model[0].bias.copy_(torch.tensor([-a, a, -b, b]))
        model[2].weight.fill_(-1e4)
        model[2].bias.fill_(1.0)
        model[4].weight.copy_(torch.tensor([[0.0], [1.0]]))
        model[4].bias.copy_(torch.tensor([0.5, 0.0]))
    return model


def dataset(points, labels=None):
    """Points of the unit square with their labels (0 unless given)."""
    labels = [0] * len(points) if labels is None else labels
    return Dataset("points", "test", torch.tensor(points), torch.tensor(labels), classes=2)


# Radii 0.05, 0.1 and 0.2; a tie, which is wrong; and one that is simply wrong.
POINTS = [[0.5, 0.4], [0.5, 0.3], [0.7, 0.3], [0.5, 0.5], [0.2, 0.6]]


class _Facts:
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def supports(self, problem):
        return None


@dataclass(frozen=True)
class Exact(_Facts):
    """The truth about :func:`identity`, one problem at a time."""

    option: int = 1
    name: ClassVar[str] = "exact"
    complete: ClassVar[bool] = True

    def verify(self, problem, budget):
        x, radius = problem.region.centre, float(problem.region.eps)
        margin = float(x[0] - x[1]) - 2 * radius
        if margin > 0:
            return Result(problem.id, repr(self), Verdict.VERIFIED, margin=margin, seconds=0.5)
        step = torch.tensor([-1.0, 1.0]) * radius
        point = problem.region.project((x + step).float()[None])[0]
        return Result(problem.id, repr(self), Verdict.FALSIFIED, counterexample=point, seconds=0.5)


@dataclass(frozen=True)
class Timid(_Facts):
    """Decides nothing, in batches."""

    name: ClassVar[str] = "timid"

    def verify(self, problem, budget):
        return self.verify_many([problem], budget)[0]

    def verify_many(self, problems, budget):
        return [Result(p.id, repr(self), Verdict.UNKNOWN, Reason.TIMEOUT) for p in problems]


@dataclass(frozen=True)
class Liar(_Facts):
    """Verifies everything up to a radius."""

    up_to: float = 1.0
    name: ClassVar[str] = "liar"

    def verify(self, problem, budget):
        if float(problem.region.eps) > self.up_to:
            return Result(problem.id, repr(self), Verdict.UNKNOWN, Reason.INCOMPLETE)
        return Result(problem.id, repr(self), Verdict.VERIFIED)


@dataclass(frozen=True)
class Broken(_Facts):
    """Raises what it is told to."""

    error: str = "bug"
    name: ClassVar[str] = "broken"

    def verify(self, problem, budget):
        if self.error == "memory":
            raise MemoryError
        raise UnsupportedError("no softmax") if self.error == "unsupported" else ZeroDivisionError("x / 0")


@dataclass(frozen=True)
class Claims:
    """An attack that says it broke every sample, with one and the same point."""

    point: tuple[float, float] = NEEDLE
    name: ClassVar[str] = "claims"

    def run(self, model, x, labels, region, seed=0):
        raise NotImplementedError

    def search(self, problems, seed=0):
        n = len(problems)
        points = torch.tensor([self.point] * n)
        zero = torch.zeros(n)
        return AttackResult(points, torch.ones(n, dtype=torch.bool), zero, zero.double(), zero.long())
