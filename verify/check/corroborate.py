"""A cheap, independent test of "verified": the claimed margin must hold at points where the model is simply run.

It is no proof (certificates are); it catches the gross faults, swapped bounds, wrong axes, stale or dropped terms,
that have made other verifiers call a falsifiable property safe.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor

from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, Region, kind, stack, take
from assay.verify.core.result import Result

MEMBERS = 32  # random members of the region, each with the corner that a gradient step from it leads to
TOGETHER = 64  # problems whose points are run as one batch


def corroborate(problems: Sequence[Problem], results: Sequence[Result]) -> list[str | None]:
    """Why each VERIFIED result cannot be right, or None: one line per problem.

    The oracle is run at the centre of the region, at random members and at the corners towards violation.
    """
    faults: list[str | None] = [None] * len(problems)
    alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, problem in enumerate(problems):
        alike[(id(problem.network), *kind(problem.region))].append(i)
    for members in alike.values():
        for begin in range(0, len(members), TOGETHER):
            part = members[begin : begin + TOGETHER]
            examined = _examine([problems[i] for i in part], [results[i].margin for i in part])
            for i, fault in zip(part, examined, strict=True):
                faults[i] = fault
    return faults


def _examine(problems: Sequence[Problem], margins: Sequence[float | None]) -> list[str | None]:
    """The faults of problems that share a network and a kind of region."""
    network = problems[0].network
    count = 1 + (MEMBERS if any(_several(problem) for problem in problems) else 0)
    everyone = torch.arange(len(problems)).repeat_interleave(count)
    region = take(stack([p.region for p in problems]), everyone)
    points = _members(problems, region, count)
    points = torch.cat([points, _corners(problems, region, points)])
    inside = torch.cat([region.contains(half) for half in points.chunk(2)])
    with torch.no_grad():
        shown = (network.oracle or network)(points).detach().flatten(1)
        real = network(points.double()).flatten(1)
    each = torch.cat([everyone, everyone])
    return [
        _fault(problem, margin, shown[each == i], real[each == i], inside[each == i])
        for i, (problem, margin) in enumerate(zip(problems, margins, strict=True))
    ]


def _several(problem: Problem) -> bool:
    """Whether a region may hold more than one point of the model's type."""
    if not isinstance(problem.region, Box):
        return True
    lower, upper = problem.region.allowed(problem.network.dtype)
    return bool((lower < upper).any())


def _fault(problem: Problem, margin: float | None, shown: Tensor, real: Tensor, inside: Tensor) -> str | None:
    """What outputs of the oracle and of the network in float64 say against the claim."""
    spec = problem.spec
    if bool((spec.violated(shown) & spec.violated(real) & inside).any()):
        return "a member of the region violates the property"
    if margin is None:
        return None
    if not (isfinite(margin) and (margin > 0 or (margin == 0 and problem.is_strict))):
        return f"a margin of {margin:g} proves nothing"
    if not bool(real[inside].isfinite().all()):
        return "the network's output is not finite at a member of the region"
    rows = spec.rows(real)
    observed = spec.margin(rows)[inside]
    slack = 1e-9 * (1 + rows.abs().amax())
    if bool((observed < margin - slack).any()):
        return f"the claimed margin {margin:g} exceeds {observed.min():g}, found at a member of the region"
    return None


def _members(problems: Sequence[Problem], region: Region, count: int) -> Tensor:
    """The centre of each region and random members, problem by problem, the same ones each time."""
    network = problems[0].network
    generator = torch.Generator().manual_seed(0)
    cube = torch.rand((count, *network.input_shape), generator=generator).to(network.dtype)
    cube[0] = 0.5
    return region.point(cube.repeat(len(problems), *[1] * len(network.input_shape)))


def _corners(problems: Sequence[Problem], region: Region, points: Tensor) -> Tensor:
    """Where two radii of steepest descent of the margin lead from each point: (batch x input shape)."""
    with torch.enable_grad():
        x = points.detach().clone().requires_grad_()
        outputs = problems[0].network(x).flatten(1).chunk(len(problems))
        margins = [p.spec.margin(p.spec.rows(y)).sum() for p, y in zip(problems, outputs, strict=True)]
        (grad,) = torch.autograd.grad(torch.stack(margins).sum(), x)
    return region.project(points - 2 * region.steepest(grad))
