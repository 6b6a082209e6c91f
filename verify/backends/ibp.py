"""Interval bound propagation (Gowal et al. 2018, arXiv:1810.12715): sound, incomplete, one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from assay.verify.bounds import layers
from assay.verify.bounds.backward.rows import lower_rows
from assay.verify.bounds.groups import lower_bounds
from assay.verify.bounds.verdicts import both_sides, check_dtype, finest, verify_by_bounds, without_bounds
from assay.verify.core.budget import UNLIMITED, Budget, running
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region
from assay.verify.core.result import Guarantee, Result
from assay.verify.core.verifier import Bounds

GROUP = 64


@dataclass(frozen=True)
class IBP:
    """Intervals through every layer; the last affine layer is merged with the specification.

    ``dtype``: precision of the bounds, its rounding charged in full; verdicts that float32 leaves open are drawn in
    float64.
    """

    dtype: Literal["float64", "float32"] = "float64"
    name: ClassVar[str] = "ibp"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        check_dtype(self.dtype)

    def supports(self, problem: Problem) -> str | None:
        """Every operation needs an interval rule."""
        return without_bounds(problem.network)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """VERIFIED if the intervals prove it."""
        return self.verify_many([problem], budget)[0]

    def verify_many(self, problems: Sequence[Problem], budget: Budget = UNLIMITED) -> list[Result]:
        """One result per problem."""
        return verify_by_bounds(self, problems, budget, _rows, getattr(torch, self.dtype))

    def bound(self, network: Network, region: Region, objective: Tensor, budget: Budget = UNLIMITED) -> Bounds:
        """Bounds of ``objective @ network(x)`` over the region: (batch x rows)."""
        return both_sides(_rows, network, region, objective, budget, getattr(torch, self.dtype))

    def lower(self, network: Network, region: Region, objective: Tensor, budget: Budget) -> Tensor:
        """The lower side of :meth:`bound` alone, at half its price: (batch x rows)."""
        return finest(_rows, network, region, objective, running(budget), getattr(torch, self.dtype))


def _rows(network: Network, region: Region, objective: Tensor, budget: Budget, dtype: torch.dtype) -> Tensor:
    def of_group(network: Network, region: Region, objective: Tensor, budget: Budget) -> Tensor:
        return lower_rows(layers.by_intervals(network, region, dtype, budget, lined=False), objective, linear=False)

    return lower_bounds(of_group, network, region, objective, budget, GROUP)
