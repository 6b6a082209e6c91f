"""Alpha-CROWN (Xu et al. 2021, arXiv:2011.13824): CROWN with the lines about activations raised for each bound."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from assay.verify.bounds import layers
from assay.verify.bounds.backward import chain
from assay.verify.bounds.balls import raised_sectors, sectors
from assay.verify.bounds.balls.sectors import Sectors
from assay.verify.bounds.groups import lower_bounds, out_of_memory, product_sums
from assay.verify.bounds.mirrored import merged
from assay.verify.bounds.needed import needed
from assay.verify.bounds.optimised import conditional, raised, roots
from assay.verify.bounds.optimised.slopes import Ascent
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.bounds.verdicts import both_sides, cut_short, decided, verify_by_bounds, without_bounds
from assay.verify.core.budget import UNLIMITED, Budget, Expired, running
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region
from assay.verify.core.region.rounding import directed_sum
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.core.spec import Polyhedron
from assay.verify.core.verifier import Bounds

SETS = 64  # disjuncts that are looked at together


@dataclass(frozen=True)
class AlphaCROWN:
    """Lines raised by gradient ascent for each row of the specification, and with ``inner`` for each bound of an
    unstable neuron, layer by layer. Never worse than CROWN, and slower.

    Movable are the lower slopes of ReLU and LeakyReLU, the mean below a maximum, and the points at which tangents
    touch tanh. ``steps``: of the ascent, at most: a row stops where it hardly rises any more; ``rate``, ``decay``: size
    of the first one, and each one's share of the one before; ``output``: so many times what is still open is bounded
    again where the output is unsafe, in each disjunct apart, which proves that it never is, or nothing
    (:mod:`assay.verify.bounds.optimised.conditional`); ``group``: samples that are bounded together; ``sectors``:
    over balls in l2, bound layers and rows about the values at the centre too, raise the sectors of the rows as well,
    and take the best; ``proof``: keep what proves bounds of neurons, for a search that comes next. What proves is
    float64; lines are drafted in float32, so that bounds of a sample alone and in a batch agree to some six digits,
    unless the last of them decides where a row stops.
    """

    steps: int = 20
    inner: bool = True
    output: int = 0
    rate: float = 0.4
    decay: float = 0.9
    group: int = 16
    sectors: bool = True
    proof: bool = False
    name: ClassVar[str] = "alpha-crown"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        for option, least in (("steps", 0), ("output", 0), ("group", 1), ("rate", 0), ("decay", 0)):
            value = getattr(self, option)
            if not least <= value < inf:
                raise InputError(f"{option} of alpha-crown must be a number of at least {least}, got {value}")

    def supports(self, problem: Problem) -> str | None:
        """Every operation needs an interval rule and a backward rule."""
        return without_bounds(problem.network)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """VERIFIED if the linear bounds prove it."""
        return self.verify_many([problem], budget)[0]

    def verify_many(self, problems: Sequence[Problem], budget: Budget = UNLIMITED) -> list[Result]:
        """One result per problem."""
        budget = running(budget)
        cut: set[int] = set()
        results = verify_by_bounds(self, problems, budget, partial(self._rows, cut=cut), torch.float64)
        results = cut_short(results, cut)
        if not self.output:
            return results
        return [
            self._by_its_output(problem, result, budget) if result.reason is Reason.INCOMPLETE else result
            for problem, result in zip(problems, results, strict=True)
        ]

    def _by_its_output(self, problem: Problem, result: Result, budget: Budget) -> Result:
        """The result, or VERIFIED where no disjunct of the unsafe set can be reached."""
        begun = time.monotonic()
        spec = problem.spec
        try:
            with torch.inference_mode(), product_sums():
                relaxed = self._tightened(problem.network, problem.region, spec.A[None], torch.float64, budget)
                rows = raised.lower_rows(relaxed, spec.A[None], self._ascent)
                margins = directed_sum(rows.cpu(), -spec.b[None], up=False)[0]
                proved = decided(margins)
                open_ = [i for i, d in enumerate(spec.disjuncts) if not bool(proved[spec.disjunct == i].any())]
                sets = [spec.disjuncts[i] for i in open_]
                safe = all(
                    bool(conditional.unreachable(relaxed, unsafe, self._ascent, self.output).all())
                    for unsafe in _by_size(sets)
                )
        except Expired:
            return replace(result, reason=Reason.TIMEOUT)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            return result
        seconds = result.seconds + time.monotonic() - begun
        if not safe:
            return replace(result, seconds=seconds)
        stats = {**result.stats, "output": "no input leads into the unsafe set: it was bounded on the way there"}
        return replace(result, verdict=Verdict.VERIFIED, reason=None, margin=None, seconds=seconds, stats=stats)

    def bound(self, network: Network, region: Region, objective: Tensor, budget: Budget = UNLIMITED) -> Bounds:
        """Bounds of ``objective @ network(x)`` over the region: (batch x rows)."""
        return both_sides(self._rows, network, region, objective, budget, torch.float64)

    def lower(self, network: Network, region: Region, objective: Tensor, budget: Budget) -> Tensor:
        """The lower side of :meth:`bound` alone, at half its price: (batch x rows)."""
        return self._rows(network, region, objective, running(budget), torch.float64)

    def _rows(
        self,
        network: Network,
        region: Region,
        objective: Tensor,
        budget: Budget,
        dtype: torch.dtype,
        cut: set[int] | None = None,
    ) -> Tensor:
        """Lower bounds (batch x rows); ``cut`` gets the positions of nodes for which the time did not suffice."""
        fewer = merged(network)
        rows = self._rows_of(fewer, region, objective, budget, dtype, cut)
        if not self.proof or fewer is network:
            return rows
        # A search is handed what is kept of the network as it is.
        return torch.fmax(rows, self._rows_of(network, region, objective, budget, dtype, cut))

    def _rows_of(
        self,
        network: Network,
        region: Region,
        objective: Tensor,
        budget: Budget,
        dtype: torch.dtype,
        cut: set[int] | None,
    ) -> Tensor:
        """See :meth:`_rows`; of the network as it is."""

        def raise_rows(about: Sectors, objective: Tensor) -> Tensor:
            along = raised.lower_rows(about.relaxed, objective, self._ascent)
            return torch.fmax(along, raised_sectors.lower_rows(about, objective, self._ascent))

        @torch.inference_mode()
        def of_group(network: Network, region: Region, objective: Tensor, budget: Budget) -> Tensor:
            # The rows of crown themselves: what is raised is never below them.
            read = needed(network, objective)
            chained = None if read else chain.lower_rows(network, region, objective, dtype, budget)
            if chained is not None and self.inner:
                return further(network, region, objective, budget, chained)
            plain, lower = layers.rows_by_linear_bounds(
                network, region, objective, dtype, budget, crowd=layers.MOST_ROWS, asked=read
            )
            if chained is not None:
                lower = torch.fmax(lower, chained)
            if cut is not None:
                cut.update(plain.unrefined)
            if plain.unrefined:  # no time is left for more
                return lower
            at_once = sectors.samples_at_once(plain) if self.sectors and sectors.sectored(network, region) else 0
            if not (self.inner or at_once):
                return torch.maximum(lower, raised.lower_rows(plain, objective, self._ascent))
            if at_once:
                question = (network, region, objective, budget, at_once)
                best = sectors.lower_rows(*question, None if self.inner else raise_rows)
                if self.inner:
                    best = torch.fmax(best, sectors.lower_rows(*question, raise_rows, self._further))
                return torch.fmax(lower, best.to(lower))
            if any(node.op.several for node in network.nodes[1:]):  # of which layers may take all of the time
                lower = torch.maximum(lower, raised.lower_rows(plain, objective, self._ascent))
            return further(network, region, objective, budget, lower)

        def further(network: Network, region: Region, objective: Tensor, budget: Budget, lower: Tensor) -> Tensor:
            try:
                tight = self._tightened(network, region, objective, dtype, budget)
                return torch.maximum(lower, raised.lower_rows(tight, objective, self._ascent))
            except Expired:
                return lower  # what is proved by then stands

        return lower_bounds(of_group, network, region, objective, budget, self.group)

    @property
    def _ascent(self) -> Ascent:
        return Ascent(self.steps, self.rate, self.decay)

    def _further(self, relaxed: Relaxed, position: int, known: Bounds, wanted: Tensor) -> Bounds:
        """See :data:`assay.verify.bounds.layers.Tighten`."""
        return raised.tighten(relaxed, position, known, wanted, self._ascent)

    def _tightened(
        self, network: Network, region: Region, objective: Tensor, dtype: torch.dtype, budget: Budget
    ) -> Relaxed:
        """The network with raised bounds of its unstable neurons, where these are to be raised."""
        further = self._further if self.inner else None
        asked = needed(network, objective)
        host = torch.device(budget.device).type == "cpu"
        if self.inner and host and not asked and roots.kept(network, region):
            return roots.tightened(network, region.box(), self._ascent, budget, self.proof)[0]
        return layers.by_linear_bounds(network, region, dtype, budget, further=further, asked=asked)


def _by_size(sets: Sequence[Polyhedron]) -> Iterator[conditional.Unsafe]:
    """Polyhedrons with as many rows each together."""
    by_size: dict[int, list[Polyhedron]] = {}
    for disjunct in sets:
        by_size.setdefault(len(disjunct.b), []).append(disjunct)
    for some in by_size.values():
        for begin in range(0, len(some), SETS):
            part = some[begin : begin + SETS]
            yield conditional.Unsafe(torch.stack([d.A for d in part]), torch.stack([d.b for d in part]))
