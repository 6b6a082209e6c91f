"""Alpha-CROWN (Xu et al. 2021, arXiv:2011.13824): CROWN with the lines about activations raised for each bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from assay.verify.bounds import layers, raised, raised_sectors, rows, sectors
from assay.verify.bounds.groups import lower_bounds
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.bounds.sectors import Sectors
from assay.verify.bounds.slopes import Ascent
from assay.verify.bounds.verdicts import both_sides, verify_by_bounds, without_bounds
from assay.verify.core.budget import UNLIMITED, Budget, Expired
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region
from assay.verify.core.result import Guarantee, Result
from assay.verify.core.verifier import Bounds


@dataclass(frozen=True)
class AlphaCROWN:
    """Lines raised by gradient ascent for each row of the specification, and with ``inner`` for each bound of an
    unstable neuron, layer by layer. Never worse than CROWN, and slower.

    Movable are the lower slopes of ReLU and LeakyReLU, the mean below a maximum, and the points at which tangents
    touch tanh. ``steps``: of the ascent; ``rate``, ``decay``: size of the first one, and each one's share of the one
    before; ``group``: samples that are bounded together; ``sectors``: over balls in l2, bound layers and rows about the
    values at the centre too, raise the sectors of the rows as well, and take the best. What proves is float64; lines
    are drafted in float32, so that bounds of a sample alone and in a batch agree to some six digits.
    """

    steps: int = 20
    inner: bool = True
    rate: float = 0.3
    decay: float = 0.95
    group: int = 16
    sectors: bool = True
    name: ClassVar[str] = "alpha-crown"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        for option, least in (("steps", 0), ("group", 1), ("rate", 0), ("decay", 0)):
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
        return verify_by_bounds(self, problems, budget, self._rows, torch.float64)

    def bound(self, network: Network, region: Region, objective: Tensor, budget: Budget = UNLIMITED) -> Bounds:
        """Bounds of ``objective @ network(x)`` over the region: (batch x rows)."""
        return both_sides(self._rows, network, region, objective, budget, torch.float64)

    def lower(self, network: Network, region: Region, objective: Tensor, budget: Budget) -> Tensor:
        """The lower side of :meth:`bound` alone, at half its price: (batch x rows)."""
        return self._rows(network, region, objective, budget.started(), torch.float64)

    def _rows(self, network: Network, region: Region, objective: Tensor, budget: Budget, dtype: torch.dtype) -> Tensor:
        ascent = Ascent(self.steps, self.rate, self.decay)

        def further(relaxed: Relaxed, position: int, known: Bounds, wanted: Tensor) -> Bounds:
            return raised.tighten(relaxed, position, known, wanted, ascent)

        def raise_rows(about: Sectors, objective: Tensor) -> Tensor:
            along = raised.lower_rows(about.relaxed, objective, ascent)
            return torch.fmax(along, raised_sectors.lower_rows(about, objective, ascent))

        @torch.inference_mode()
        def of_group(network: Network, region: Region, objective: Tensor, budget: Budget) -> Tensor:
            plain = layers.by_linear_bounds(network, region, dtype, budget, crowd=layers.MOST_ROWS)
            at_once = sectors.samples_at_once(plain) if self.sectors and sectors.sectored(network, region) else 0
            if not (self.inner or at_once):
                return raised.lower_rows(plain, objective, ascent)
            lower = rows.lower_rows(plain, objective, linear=True)
            if at_once:
                question = (network, region, objective, budget, at_once)
                lower = torch.fmax(lower, sectors.lower_rows(*question, None if self.inner else raise_rows))
                return torch.fmax(lower, sectors.lower_rows(*question, raise_rows, further)) if self.inner else lower
            try:
                tight = layers.by_linear_bounds(network, region, dtype, budget, further=further)
                return torch.maximum(lower, raised.lower_rows(tight, objective, ascent))
            except Expired:
                return lower  # what is proved by then stands

        return lower_bounds(of_group, network, region, objective, budget, self.group)
