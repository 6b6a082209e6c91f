"""The search for a counterexample beside the proof: points are tried, and the best improved by gradient descent."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from assay.verify.core.problem import Problem

STARTS = 64  # points that are improved by gradient descent
STEPS = 10  # that each of them makes
FIRST, SHRINK = 0.5, 0.4  # length of a step in radii of the box, and how much shorter it gets when it leads upwards
TRIALS = 4  # points that are taken to the oracle at a time


def probe(problem: Problem, points: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor | None]:
    """The margin at points (n x inputs) of boxes ``lower``, ``upper`` (n x inputs), and a counterexample if there is
    one among them or where the best of them lead.

    Points are rounded into the region first; the margin is the network's in float64.
    """
    members, margin = _members(problem, points)
    witness = _confirmed(problem, members, margin)
    if witness is None and len(points):
        best = margin.topk(min(STARTS, len(margin)), largest=False).indices
        lower, upper = lower[best], upper[best]
        witness = _confirmed(problem, *_members(problem, _descent(problem, points[best], lower, upper)))
    return margin, witness


def _members(problem: Problem, points: Tensor) -> tuple[Tensor, Tensor]:
    """Members of the region near the points, and their margins."""
    network = problem.network
    members = problem.region.project(points.view(-1, *network.input_shape).to(network.dtype))
    return members, _margin(problem, members.double())


def _margin(problem: Problem, x: Tensor) -> Tensor:
    return problem.spec.margin(problem.spec.rows(problem.network(x).flatten(1)))


def _descent(problem: Problem, points: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Steps against the sign of the margin's gradient, each within its box; one that does not help is taken back, and
    the next is shorter: the result is the best point met."""
    step = FIRST * (upper / 2 - lower / 2)
    best = points.new_full((len(points),), inf)
    place, direction = points, torch.zeros_like(points)
    for _ in range(STEPS):
        with torch.enable_grad():
            x = points.detach().requires_grad_()
            margin = _margin(problem, x.view(-1, *problem.network.input_shape))
            (gradient,) = torch.autograd.grad(margin.sum(), x)
        better = (margin < best)[:, None]
        best = torch.minimum(best, margin.detach())
        place, direction = torch.where(better, points, place), torch.where(better, gradient.sign(), direction)
        step = torch.where(better, step, SHRINK * step)
        points = torch.clamp(place - step * direction, lower, upper)
    return place


def _confirmed(problem: Problem, members: Tensor, margin: Tensor) -> Tensor | None:
    """The first of the worst members that is a counterexample by the rules of replay: in the region exactly, unsafe
    on the network in float64, and on the oracle, run alone in its own dtype."""
    network, spec = problem.network, problem.spec
    worst = (margin <= 0).nonzero().flatten()
    for i in worst[margin[worst].argsort(stable=True)[:TRIALS]].tolist():
        one = members[i : i + 1]
        shown = (network.oracle or network)(one.clone()).detach().flatten(1)
        real = network(one.double()).flatten(1)
        if bool((problem.region.contains(one) & spec.violated(shown) & spec.violated(real)).all()):
            return one[0]
    return None
