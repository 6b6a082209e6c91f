"""A cheap, independent test of "verified": the claimed margin must hold at points where the model is simply run.

It is no proof (certificates are); it catches the gross faults, swapped bounds, wrong axes, stale or dropped terms,
that have made other verifiers call a falsifiable property safe.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verify.core.problem import Problem
from verify.core.result import Result

SAMPLES = 32


def corroborate(problem: Problem, result: Result) -> str | None:
    """Why the VERIFIED ``result`` cannot be right, or None: the oracle is run at the centre, at random members and
    at the corner that a gradient step towards violation leads to."""
    network, region, spec = problem.network, problem.region, problem.spec
    points = _witnesses(problem)
    with torch.no_grad():
        outputs = (network.oracle or network)(points.to(network.dtype)).detach().flatten(1)
        real = network(points.double()).flatten(1)
    broken = spec.violated(outputs) & spec.violated(real) & region.contains(points)
    if bool(broken.any()):
        return "a member of the region violates the property"
    if result.margin is None:
        return None
    observed = spec.margin(spec.rows(real))
    slack = 1e-9 * (1 + spec.rows(real).abs().amax())
    if bool((observed < result.margin - slack).any()):
        return f"the claimed margin {result.margin:g} exceeds {observed.min():g}, found at a member of the region"
    return None


def _witnesses(problem: Problem) -> Tensor:
    """The centre, random members, and one full steepest-descent step of the margin from each: exact members."""
    network, region, spec = problem.network, problem.region, problem.spec
    generator = torch.Generator().manual_seed(0)
    start = region.project(region.centre[None].to(network.dtype))
    members = torch.cat([start, region.sample(SAMPLES, generator).to(network.dtype)])
    with torch.enable_grad():
        x = members.detach().clone().requires_grad_()
        rows = spec.rows(network(x).flatten(1))
        (grad,) = torch.autograd.grad(spec.margin(rows).sum(), x)
    corners = region.project(members - 2 * region.steepest(grad))
    return torch.cat([region.project(members), corners])
