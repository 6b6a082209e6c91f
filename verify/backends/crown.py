"""CROWN (Zhang et al. 2018, arXiv:1811.00866): linear bounds propagated backwards, each layer's bounds tightened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from assay.verify.bounds import layers
from assay.verify.bounds.backward import chain
from assay.verify.bounds.balls import sectors
from assay.verify.bounds.groups import lower_bounds
from assay.verify.bounds.mirrored import merged
from assay.verify.bounds.needed import needed
from assay.verify.bounds.verdicts import both_sides, check_dtype, cut_short, finest, verify_by_bounds, without_bounds
from assay.verify.core.budget import UNLIMITED, Budget, running
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region
from assay.verify.core.result import Guarantee, Result
from assay.verify.core.verifier import Bounds


@dataclass(frozen=True)
class CROWN:
    """Linear bounds of every unstable neuron, layer by layer, intersected with intervals; adaptive lower slopes.

    ``dtype``: precision of the bounds, its rounding charged in full; verdicts that float32 leaves open are drawn in
    float64.
    ``group``: samples that are propagated together. ``sectors``: over balls in l2, bound layers and rows about the
    values at the centre too, in float64, and take the better: much tighter there, and slower.
    """

    dtype: Literal["float64", "float32"] = "float64"
    group: int = 32
    sectors: bool = True
    name: ClassVar[str] = "crown"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        if self.group < 1:
            raise InputError(f"group must be at least 1, got {self.group}")

    def supports(self, problem: Problem) -> str | None:
        """Every operation needs an interval rule and a backward rule."""
        return without_bounds(problem.network)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """VERIFIED if the linear bounds prove it."""
        return self.verify_many([problem], budget)[0]

    def verify_many(self, problems: Sequence[Problem], budget: Budget = UNLIMITED) -> list[Result]:
        """One result per problem."""
        cut: set[int] = set()
        results = verify_by_bounds(self, problems, budget, partial(self._rows, cut=cut), getattr(torch, self.dtype))
        return cut_short(results, cut)

    def bound(self, network: Network, region: Region, objective: Tensor, budget: Budget = UNLIMITED) -> Bounds:
        """Bounds of ``objective @ network(x)`` over the region: (batch x rows)."""
        return both_sides(self._rows, network, region, objective, budget, getattr(torch, self.dtype))

    def lower(self, network: Network, region: Region, objective: Tensor, budget: Budget) -> Tensor:
        """The lower side of :meth:`bound` alone, at half its price: (batch x rows)."""
        return finest(self._rows, network, region, objective, running(budget), getattr(torch, self.dtype))

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
        network = merged(network)

        @torch.inference_mode()
        def chained(network: Network, region: Region, objective: Tensor, budget: Budget) -> Tensor | None:
            return None if needed(network, objective) else chain.lower_rows(network, region, objective, dtype, budget)

        @torch.inference_mode()
        def of_group(network: Network, region: Region, objective: Tensor, budget: Budget) -> Tensor:
            ragged = chained(network, region, objective, budget)
            if ragged is not None:
                return ragged
            read = needed(network, objective)
            relaxed, lower = layers.rows_by_linear_bounds(
                network, region, objective, dtype, budget, crowd=layers.MOST_ROWS, asked=read
            )
            if cut is not None:
                cut.update(relaxed.unrefined)
            if not (self.sectors and dtype == torch.float64 and sectors.sectored(network, region)):
                return lower
            at_once = sectors.samples_at_once(relaxed)
            if not at_once:
                return lower
            return torch.fmax(lower, sectors.lower_rows(network, region, objective, budget, at_once).to(lower))

        most = chain.samples_together(network, dtype)
        return lower_bounds(of_group, network, region, objective, budget, self.group, chained, most)
