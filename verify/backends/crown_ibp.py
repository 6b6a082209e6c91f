"""CROWN-IBP (Zhang et al. 2020, arXiv:1906.06316): linear bounds of the output over intervals of the layers."""

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
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region
from assay.verify.core.result import Guarantee, Result
from assay.verify.core.verifier import Bounds


@dataclass(frozen=True)
class CROWNIBP:
    """One backward propagation for the specification; the activations are relaxed on interval bounds.

    ``dtype``: precision of the bounds, its rounding charged in full; verdicts that float32 leaves open are drawn in
    float64.
    ``group``: samples that are propagated together.
    """

    dtype: Literal["float64", "float32"] = "float64"
    group: int = 16
    name: ClassVar[str] = "crown-ibp"
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
        return verify_by_bounds(self, problems, budget, self._rows, getattr(torch, self.dtype))

    def bound(self, network: Network, region: Region, objective: Tensor, budget: Budget = UNLIMITED) -> Bounds:
        """Bounds of ``objective @ network(x)`` over the region: (batch x rows)."""
        return both_sides(self._rows, network, region, objective, budget, getattr(torch, self.dtype))

    def lower(self, network: Network, region: Region, objective: Tensor, budget: Budget) -> Tensor:
        """The lower side of :meth:`bound` alone, at half its price: (batch x rows)."""
        return finest(self._rows, network, region, objective, running(budget), getattr(torch, self.dtype))

    def _rows(self, network: Network, region: Region, objective: Tensor, budget: Budget, dtype: torch.dtype) -> Tensor:
        @torch.inference_mode()
        def of_group(network: Network, region: Region, objective: Tensor, budget: Budget) -> Tensor:
            single = dtype == torch.float32  # what rows lose there is worth an interval more
            return lower_rows(layers.by_intervals(network, region, dtype, budget, single), objective, linear=True)

        return lower_bounds(of_group, network, region, objective, budget, self.group)
