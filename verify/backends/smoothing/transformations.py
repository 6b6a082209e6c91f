"""Smoothed classifiers under perturbations of few parameters (TSS: Li et al. 2021, arXiv:2002.12398).

Under noise of the parameter itself, which is for perturbations that resolve themselves, one vote at the image tells
how far the parameter may go. Under noise of the pixels any perturbation is certified: its parameters are cut into
cells, and the vote at the image in the middle of each must hold as far in l2 as any image of the cell lies from that,
which slopes of the interpolation bound. The draws tell nothing of how many cells there are: a pilot and the image do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor

from assay.verify.backends.smoothing import confidence
from assay.verify.backends.smoothing.kinds import Kind
from assay.verify.backends.smoothing.noises.parameters import OfParameter
from assay.verify.backends.smoothing.question import Certified, Question
from assay.verify.core.norms import PERTURBATION
from assay.verify.perturbations import Perturbed
from assay.verify.perturbations.enclosures import boxes

MOST = 300  # cells
AIM = 0.6  # of the radius that the pilot promises, how far the images of a cell may lie from its middle
DOUBT = 0.05  # of what the pilot promises; it is only a guess

Certify = Callable[[Question], Certified]


@dataclass(frozen=True)
class Held:
    """Whether the vote keeps the label for all parameters, or why not, and how much was drawn for it: ``cells`` votes
    of ``n`` draws in all, the least ``radius`` of which leaves so much ``room`` beyond what it must cover."""

    safe: bool
    expired: bool
    prediction: int | None
    cells: int
    n: int
    radius: float
    room: float


def beyond(problem: Perturbed, kind: Kind) -> str | None:
    """Why the noise is not for the perturbation, in one line; None if it is."""
    change = problem.perturbation
    if kind.erases:
        return f"{kind.name} noise certifies few changed pixels, no perturbation"
    if not kind.of_parameter:
        return None
    parts = change.parts
    if len(parts) != 1 or parts[0].kind != kind.name:
        return f"{kind.name} noise is for {kind.name} alone, got {change}: gaussian noise is for every perturbation"
    if kind.name == "contrast" and not parts[0].low > 0:
        return "contrast noise is for factors above 0"
    over = change.over(problem.image, change.low[None], change.high[None])
    low, high = change.domain
    if kind.name != "gamma" and not (float(over.low.min()) >= low and float(over.high.max()) <= high):
        return f"values are cut to the domain, which {kind.name} noise does not undo: gaussian noise is for that"
    return None


def held(problem: Perturbed, question: Question, certify: Certify) -> Held:
    """What votes tell of the perturbation; the question is about the image as nothing happens to it."""
    if isinstance(question.noise, OfParameter):
        (part,) = problem.perturbation.parts
        far = question.noise.distance(part.low, part.high)
        return _of([certify(replace(question, norm=PERTURBATION, eps=far))], [far], problem.label, 1)
    middle = (problem.perturbation.low + problem.perturbation.high) / 2
    pilot = replace(question, x=problem.images(middle[None])[0]).draw("the pilot of the cells", question.n0)
    votes = pilot.counts[problem.label or 0]
    p = confidence.clopper_pearson_lower(votes, pilot.n, DOUBT)
    aim = AIM * question.noise.radius(p, 2.0, question.size) if p > 0.5 else 0.0
    cells = _cells(problem, aim) if aim > 0 else None
    if cells is None:
        return Held(False, False, None, 0, pilot.n, 0.0, 0.0)
    alpha, said, reach = question.alpha / len(cells), list[Certified](), list[float]()
    for cell in cells:
        asked = replace(question, x=problem.images(cell.middle[None])[0], norm=2.0, eps=cell.reach, alpha=alpha)
        said.append(certify(asked))
        reach.append(cell.reach)
        if not _covers(said[-1], cell.reach, problem.label):
            break
    return _of(said, reach, problem.label, len(cells))


def _of(said: list[Certified], reach: list[float], label: int | None, count: int) -> Held:
    """The votes of cells together, of which there are ``count``; those that were not asked are not safe."""
    safe = len(said) == count and all(_covers(one, far, label) for one, far in zip(said, reach, strict=True))
    rooms = [one.radius - far for one, far in zip(said, reach, strict=True)]
    expired = any(one.outcome.expired for one in said)
    n, radius = sum(one.outcome.n for one in said), min(one.radius for one in said)
    return Held(safe, expired and not safe, said[-1].prediction, count, n, radius, min(rooms))


def _covers(said: Certified, reach: float, label: int | None) -> bool:
    return said.prediction == label and isfinite(said.radius) and said.radius > reach


@dataclass(frozen=True, eq=False)
class Cell:
    """Parameters between two ends (parameters), and how far in l2 an image of any of them, as the model is given it,
    can lie from that of its middle."""

    low: Tensor
    high: Tensor
    reach: float

    @property
    def middle(self) -> Tensor:
        """The parameters (parameters) that are voted on."""
        return self.low + (self.high - self.low) / 2


def _cells(problem: Perturbed, aim: float, most: int = MOST) -> list[Cell] | None:
    """Cells that cover all parameters, each of a reach of no more than ``aim``; None for more than ``most`` of them."""
    found: list[Cell] = []
    open_ = [_cell(problem, problem.perturbation.low, problem.perturbation.high)]
    while open_:
        cell = open_.pop()
        if cell.reach <= aim:
            found.append(cell)
            continue
        if len(found) + len(open_) + 2 > most or not bool((cell.high > cell.low).any()):
            return None
        halves = [_halves(problem, cell, k) for k in range(len(cell.low))]
        open_ += halves[min(range(len(halves)), key=lambda k: halves[k][0].reach)]
    return found


def _halves(problem: Perturbed, cell: Cell, k: int) -> list[Cell]:
    """The cell cut by its parameter number k; twice itself where that rests."""
    below, above = cell.high.clone(), cell.low.clone()
    if not bool(cell.high[k] > cell.low[k]):
        return [cell, cell]
    below[k] = above[k] = cell.middle[k]
    return [_cell(problem, cell.low, below), _cell(problem, above, cell.high)]


def _cell(problem: Perturbed, low: Tensor, high: Tensor) -> Cell:
    cell = Cell(low, high, torch.inf)
    centre = problem.images(cell.middle[None])[0].to(torch.float64).flatten()
    least, most = boxes(problem.perturbation, problem.image, low, high, problem.behind.dtype)
    far = torch.maximum(most - centre, centre - least).square().sum(1).sqrt()
    return replace(cell, reach=float(far.max()) * (1 + 1e-12))
