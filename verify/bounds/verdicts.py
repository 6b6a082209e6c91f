"""From lower bounds of a specification's rows to results: the one place where bounds become verdicts."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from math import inf, isfinite, isnan
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from assay.verify.bounds import interval, rigorous, touching
from assay.verify.bounds.layers import Imprecise
from assay.verify.bounds.relaxations.relax import relaxes
from assay.verify.core.budget import Budget, Expired, running
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, check_network
from assay.verify.core.problem import Problem, check_problem
from assay.verify.core.region import Box, Intersection, Region, Sparse, check_region, kind, stack
from assay.verify.core.region.rounding import directed_sum
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.core.verifier import Bounds, Verifier
from assay.verify.support.arrays import as_tensor

TOUCH = 1e-6  # a margin this far below 0, relative to 1 and the right-hand sides, may be 0
FEW = 512  # whole numbers that linear bounds are asked about
LONGEST = 2.0  # seconds that they may take

# Lower bounds of objective @ network(x) over a region of a batch in a dtype: (batch x rows).
RowBounder = Callable[[Network, Region, Tensor, Budget, torch.dtype], Tensor]


def check_dtype(dtype: str) -> None:
    """Raise :class:`InputError` for a precision other than float64 and float32."""
    if dtype not in ("float64", "float32"):
        raise InputError(f"dtype must be float64 or float32, got {dtype!r}")


def both_sides(
    bounder: RowBounder, network: Network, region: Region, objective: Tensor, budget: Budget, dtype: torch.dtype
) -> Bounds:
    """Bounds from a bounder of one side: a row's upper bound is its opposite's lower one, negated: (batch x rows)."""
    check_network(network)
    check_region(region)
    objective = as_tensor(objective, "an objective", torch.float64)
    if objective.dim() not in (2, 3):
        raise InputError(f"expected an objective of rows x {network.output_size}, got shape {tuple(objective.shape)}")
    rows = torch.cat([objective, -objective], dim=-2)
    lower, upper = finest(bounder, network, region, rows, running(budget), dtype).chunk(2, dim=-1)
    return Bounds(lower, -upper)


def finest(
    bounder: RowBounder, network: Network, region: Region, objective: Tensor, budget: Budget, dtype: torch.dtype
) -> Tensor:
    """Lower bounds in ``dtype``, and in float64 what float32 has none for, or is of no use for: (batch x rows)."""
    try:
        lower = bounder(network, region, objective, budget, dtype)
    except Imprecise:
        return bounder(network, region, objective, budget, torch.float64)
    if dtype == torch.float64 or bool(lower.isfinite().all()):
        return lower
    return torch.where(lower.isfinite(), lower, bounder(network, region, objective, budget, torch.float64))


def without_bounds(network: Network) -> str | None:
    """Which operations have no rules for intervals and linear bounds, in one line; None if all have."""
    linear = {n.op.label for n in network.nodes[1:] if not (n.op.affine or relaxes(n.op))}
    missing = sorted({*interval.unsupported(network), *linear})
    return f"no bounds for {', '.join(missing)}" if missing else None


def overflowing(problem: Problem) -> str | None:
    """Why whole numbers of the model may wrap around in the region, where the network's do not; None if they cannot."""
    network, box = problem.network.held, problem.region.box()
    if network is None:
        return None
    lower, upper = (side.reshape(1, *network.input_shape) for side in (box.lower, box.upper))
    box = Box(lower, upper)
    share = rigorous.intervals(network, box)[-1]
    low, high = (side.flatten() for side in (share.lower, share.upper))
    unsure = torch.cat([~(low > -1), ~(high < 1)]).nonzero().flatten()
    if len(unsure) and (len(unsure) > FEW or not _stay(network, box, unsure)):
        return "whole numbers that may be more than their type holds"
    return None


def _stay(network: Network, box: Box, unsure: Tensor) -> bool:
    """Whether linear bounds keep shares, or from as many on their opposites, above -1, those that are ``unsure``."""
    count = network.output_size
    objective = torch.zeros(1, len(unsure), count, dtype=torch.float64)
    objective[0, torch.arange(len(unsure)), unsure % count] = torch.where(unsure < count, 1.0, -1.0).double()
    try:
        return bool((rigorous.linear_bounds(network, box, objective, Budget(LONGEST))[1] > -1).all())
    except Expired:
        return False


def unanswerable(verifier: Verifier, problem: Problem) -> Result | None:
    """The result for a problem that is empty, or beyond the verifier; None for one to be worked on.

    Raises :class:`InputError` for what is no problem.
    """
    check_problem(problem)
    why = verifier.supports(problem)
    if why is None and verifier.guarantee is not Guarantee.EMPIRICAL:  # what an attack finds the model itself confirms
        why = _shapeless(verifier, problem.region) or overflowing(problem)
    reason = _no_question(problem) or (Reason.UNSUPPORTED if why else None)
    if reason is None:
        return None
    stats = {"explanation": why or _vacuity(problem)}
    return Result(problem.id, repr(verifier), Verdict.UNKNOWN, reason, stats=stats)


def _shapeless(verifier: Verifier, region: Region) -> str | None:
    """Why the verifier has no use for a region's box, or None: what is found in it need not be a member."""
    if isinstance(region, Sparse):
        return "few changed pixels are anywhere, and no box: pieces(method=...) treats every set of them by itself"
    if isinstance(region, Intersection) and verifier.complete:
        return "an intersection of balls, not a box"
    return None


def decided(margin: Tensor) -> Tensor:
    """Which lower bounds of margins prove safety, of any shape: ``isfinite(margin) and margin > 0``, nothing else."""
    return margin.isfinite() & (margin > 0)


def verify_by_bounds(
    verifier: Verifier, problems: Sequence[Problem], budget: Budget, bounder: RowBounder, dtype: torch.dtype
) -> list[Result]:
    """One result per problem. What is alike is bounded as one batch; what a lower precision, with its rounding charged,
    leaves undecided is bounded again in float64."""
    budget = running(budget)
    results: dict[int, Result] = {}
    batches: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, problem in enumerate(problems):
        declined = unanswerable(verifier, problem)
        if declined is not None:
            results[i] = declined
        else:
            batches[_kind(problem)].append(i)
    for members in batches.values():
        begun = time.monotonic()
        batch = [problems[i] for i in members]
        margins, reason = _margins(batch, budget, bounder, dtype)
        if dtype != torch.float64 and reason is None:
            left = [k for k, margin in enumerate(margins) if not (isfinite(margin) and margin > 0)]
            if left and not budget.expired:
                precise, reason = _margins([batch[k] for k in left], budget, bounder, torch.float64)
                for k, margin in zip(left, precise, strict=True):
                    margins[k] = margin if isnan(margins[k]) else max(margin, margins[k])
        seconds = (time.monotonic() - begun) / len(batch)
        for i, margin in zip(members, margins, strict=True):
            results[i] = _result(verifier, problems[i], margin, seconds, budget, reason)
    return [results[i] for i in range(len(problems))]


def _margins(
    problems: Sequence[Problem], budget: Budget, bounder: RowBounder, dtype: torch.dtype
) -> tuple[list[float], Reason | None]:
    """Lower bounds of the margins of problems of one kind; MEMORY where there was not enough of it."""
    network, specs = problems[0].network, [p.spec for p in problems]
    objective = torch.stack([spec.A for spec in specs])
    try:
        lower = bounder(network, stack([p.region for p in problems]), objective, budget, dtype)
    except Imprecise:
        return [float("nan")] * len(problems), None
    except MemoryError:
        return [float("nan")] * len(problems), Reason.MEMORY
    lower = directed_sum(lower.double(), -torch.stack([spec.b for spec in specs]), up=False)
    # amax and amin keep NaN, so that a row without a bound decides nothing; +inf is an overflow, no bound either.
    lower = lower.masked_fill(lower == inf, torch.nan)
    return specs[0].margin(lower).tolist(), None


def cut_short(results: Sequence[Result], layers: Collection[int]) -> list[Result]:
    """The results, where for the linear bounds of these ``layers``, positions of nodes, the time did not suffice: what
    is open would perhaps be decided in more."""
    if not layers:
        return list(results)
    told = {"unrefined": sorted(layers)}
    return [
        replace(result, reason=Reason.TIMEOUT, stats={**result.stats, **told})
        if result.reason in (Reason.INCOMPLETE, Reason.NUMERICAL, Reason.TIMEOUT)
        else result
        for result in results
    ]


def _result(
    verifier: Verifier, problem: Problem, margin: float, seconds: float, budget: Budget, reason: Reason | None
) -> Result:
    if reason is None:
        # A bound that is there may be one that more time would have raised.
        incomplete = Reason.INCOMPLETE if margin < inf else Reason.NUMERICAL
        reason = Reason.TIMEOUT if budget.expired else incomplete
    return concluded(verifier, problem, margin, reason, seconds)


def concluded(
    verifier: Verifier,
    problem: Problem,
    margin: float,
    reason: Reason,
    seconds: float,
    counterexample: Tensor | None = None,
    stats: Mapping[str, Any] = MappingProxyType({}),
    certificate: dict[str, Any] | None = None,
) -> Result:
    """The result for a lower bound of the margin, NaN or infinite if there is none, or a ``counterexample`` (shape).

    ``reason``: why the problem is open if the margin does not decide it; ``certificate``: what proves it if it does.
    Where that is next to 0 and rows are strict, the unsafe set may be touched without being entered: rows are then
    bounded without rounding.
    """
    safe = isfinite(margin) and margin > 0
    if not safe and counterexample is None and problem.is_strict and _is_near(problem, margin, reason):
        exact = touched(problem)
        if exact is not None:
            safe, margin = True, exact
            stats = {**stats, "touched": "strict rows hold with equality at most: proved without rounding"}
    verdict = Verdict.FALSIFIED if counterexample is not None else Verdict.VERIFIED if safe else Verdict.UNKNOWN
    return Result(
        problem.id,
        repr(verifier),
        verdict,
        reason if verdict is Verdict.UNKNOWN else None,
        guarantee=verifier.guarantee,
        margin=margin if isfinite(margin) else None,
        counterexample=counterexample,
        certificate=certificate if verdict is Verdict.VERIFIED else None,
        seconds=seconds,
        stats=dict(stats),
    )


def touched(problem: Problem, most: int = touching.MOST) -> float | None:
    """The margin of a strict unsafe set that is touched at most, as bounds without rounding prove in up to ``most``
    products; None where they do not."""
    exact = touching.lower_rows(problem, most) if problem.is_strict else None
    if exact is None or not bool(problem.spec.avoided(exact.rows, exact.unattained)):
        return None
    return problem.spec.margin(exact.rows).item()


def _is_near(problem: Problem, margin: float, reason: Reason) -> bool:
    """Whether rounding, or a solver's tolerance, may be all that keeps a bound of the margin from 0."""
    if not isfinite(margin):
        return reason in (Reason.NUMERICAL, Reason.INCOMPLETE)
    return margin > -TOUCH * (1 + float(problem.spec.b.abs().amax()))


def _no_question(problem: Problem) -> Reason | None:
    return Reason.VACUOUS if problem.region.empty or not problem.spec.disjuncts else None


def _vacuity(problem: Problem) -> str:
    return "the region is empty" if problem.region.empty else "the unsafe set is empty"


def _kind(problem: Problem) -> tuple[object, ...]:
    """Problems of one kind share network, kind of region and the shape of their specification."""
    spec = problem.spec
    return (id(problem.network), kind(problem.region), tuple(spec.disjunct.tolist()), len(spec.disjuncts))
