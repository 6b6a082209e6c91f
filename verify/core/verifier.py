"""The interfaces: what every method of verification offers, and the bounds that many of them are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region
from assay.verify.core.result import Guarantee, Result


@dataclass(frozen=True, eq=False)
class Bounds:
    """``lower <= value <= upper``, element by element; two tensors of one shape."""

    lower: Tensor
    upper: Tensor


@runtime_checkable
class Verifier(Protocol):
    """A method. Its options are the fields of a frozen dataclass; its ``repr`` is the key of its records.

    ``complete``: whether it decides every problem that it supports, given time. ``guarantee``: the best it gives.
    """

    name: ClassVar[str]
    complete: ClassVar[bool]
    guarantee: ClassVar[Guarantee]

    def supports(self, problem: Problem) -> str | None:
        """Why ``problem`` is beyond this method, in one line; None if it is not."""
        ...

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """A verdict within the budget; timeouts and unsupported problems are UNKNOWN results."""
        ...


@runtime_checkable
class BatchVerifier(Verifier, Protocol):
    """A verifier that treats many problems at once faster than one by one, with the same answers."""

    def verify_many(self, problems: Sequence[Problem], budget: Budget = UNLIMITED) -> list[Result]:
        """One result per problem, in order; the budget is for all of them together."""
        ...


@runtime_checkable
class OtherSubject(Verifier, Protocol):
    """A verifier whose results speak of another classifier than the network, one that is made from it."""

    @property
    def subject(self) -> str:
        """That classifier, as the results name it."""
        ...

    def classify(self, network: Network, x: Tensor, seed: int) -> int | None:
        """Its answer at x (shape); None where it abstains."""
        ...


@runtime_checkable
class Bounder(Protocol):
    """A method that bounds linear functions of a network's output."""

    name: ClassVar[str]

    def bound(self, network: Network, region: Region, objective: Tensor, budget: Budget = UNLIMITED) -> Bounds:
        """Bounds of ``objective @ network(x)`` over the region.

        ``region``: of one sample or of a batch; ``objective``: (rows x outputs) or (batch x rows x outputs).
        Result: (batch x rows); batch is 1 for a region of one sample.
        """
        ...
