"""What attacks and verifiers ask of a set of inputs."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.region.box import Box


class Region(Protocol):
    """What attacks and verifiers ask of a set of inputs."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the region's tensors: one sample's, or a batch's."""
        ...

    @property
    def empty(self) -> bool:
        """Whether there is no point at all (in some sample, where the region is of a batch)."""
        ...

    @property
    def centre(self) -> Tensor:
        """The middle of the region: (shape), float64."""
        ...

    @property
    def id(self) -> str:
        """Hash of the content."""
        ...

    def box(self) -> Box:
        """The smallest box of float64 bounds that a proof has to cover."""
        ...

    def contains(self, x: Tensor) -> Tensor:
        """Exact membership, tolerance 0: x (batch x shape), result (batch)."""
        ...

    def project(self, x: Tensor) -> Tensor:
        """A member near x, in the dtype of x: (batch x shape)."""
        ...

    def steepest(self, grad: Tensor) -> Tensor:
        """The step of one radius that a linear function with gradient ``grad`` gains most from: (batch x shape)."""
        ...

    def point(self, u: Tensor) -> Tensor:
        """The member at coordinates u of the unit cube (batch x shape), in the dtype of u."""
        ...

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n random members of a region of one sample: (n x shape), float32."""
        ...


def check_region(value: object) -> None:
    """Raise :class:`InputError` for what is no region, such as a radius."""
    if not callable(getattr(value, "contains", None)):
        raise InputError(f"expected a region, LpBall, Box or Polytope, got {type(value).__name__}")
