"""Points that may be counterexamples: improved by a few steps of descent, and tried by the rules of replay."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.problem import Problem
from assay.verify.core.region import Polytope

TRIALS = 4  # points that are taken to the oracle


def by_disjunct(problem: Problem, points: Tensor) -> Tensor:
    """The margin of each disjunct in float64 at each point (n x input shape), infinite next to a polytope: (n x
    disjuncts)."""
    spec = problem.spec
    rows = spec.rows(problem.network(points.double()).flatten(1))
    least = rows.new_full((len(rows), len(spec.disjuncts)), -torch.inf)
    margins = least.scatter_reduce(1, spec.disjunct.expand_as(rows), rows, reduce="amax")
    if isinstance(problem.region, Polytope):
        margins = margins.masked_fill(~problem.region.contains(points)[:, None], torch.inf)
    return margins


def descend(
    problem: Problem, disjunct: Tensor, points: Tensor, steps: int, first: float = 0.5, budget: Budget = UNLIMITED
) -> Tensor:
    """Each point (n x input shape) moved to where its ``disjunct`` (n) is violated most on the way.

    Steps lead along the steepest descent within the region, from ``first`` of its radius down to nearly 0, for as long
    as there is time.
    """
    region, spec, network = problem.region, problem.spec, problem.network
    if not len(spec.b):
        return points  # every point is as good as any
    outside = spec.disjunct != disjunct[:, None]
    best, least, x = points.clone(), points.new_full((len(points),), torch.inf), points
    with torch.enable_grad():
        for step in range(steps + 1):
            x = x.detach().clone().requires_grad_()
            rows = spec.rows(network(x).flatten(1)).masked_fill(outside, -torch.inf)
            value = rows.amax(1)
            better = value.detach() < least
            least = torch.where(better, value.detach(), least)
            best[better] = x.detach()[better]
            if budget.expired:
                break
            if step < steps:
                (grad,) = torch.autograd.grad(value.sum(), x)
                x = region.project(x.detach() - first * (1 - step / steps) ** 2 * region.steepest(grad))
    return best


def confirmed(problem: Problem, points: Tensor) -> Tensor | None:
    """The first, of the points (n x input shape) that violate most, which is a counterexample; None if none is.

    Points are rounded into the region. A counterexample violates the specification on the oracle, run alone in its
    own dtype, and on the network in float64.
    """
    network, spec = problem.network, problem.spec
    points = problem.region.project(points.to(network.dtype))
    output = network(points.double()).flatten(1)
    violated = (spec.violated(output) & problem.region.contains(points)).nonzero().flatten()
    order = spec.margin(spec.rows(output[violated])).argsort(stable=True)[:TRIALS]
    point: Tensor
    for point in points[violated[order]]:
        shown = (network.oracle or network)(point[None].clone()).detach().flatten(1)
        if bool(spec.violated(shown)):
            return point
    return None
