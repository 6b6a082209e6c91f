"""Boxes, and which of their points a dtype can represent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import inf

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.network import content_hash
from assay.verify.core.region.rounding import round_down, round_up
from assay.verify.support import shown
from assay.verify.support.arrays import own_tensor


@dataclass(frozen=True, eq=False, repr=False)
class Box:
    """``lower <= x <= upper``, element by element: one sample's shape, or (batch x shape); kept in float64.

    Where the true bounds are strict, or no float64 numbers, ``lower`` and ``upper`` are rounded outward, and
    ``inner`` is the box of the float64 members, rounded inward: only its points are witnesses. Where no value of a
    dtype lies between the bounds, there is no witness in it, with one exception: bounds that are one value
    (:attr:`single`) stand for the nearest one of the dtype, at which the model is then run.
    """

    lower: Tensor
    upper: Tensor
    inner: Box | None = None

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            value = own_tensor(getattr(self, name), f"a box's {name} bound", torch.float64)
            if value.isnan().any():
                raise InputError(f"a box's {name} bound holds NaN")
            object.__setattr__(self, name, value)
        if self.lower.shape != self.upper.shape:
            raise InputError(f"a box's bounds differ in shape: {tuple(self.lower.shape)}, {tuple(self.upper.shape)}")
        if self.inner is not None and self.inner.shape != self.shape:
            raise InputError(f"a box and its inner box differ in shape: {self.shape}, {self.inner.shape}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the bounds."""
        return tuple(self.lower.shape)

    def __repr__(self) -> str:
        return shown.line("Box", self.facts)

    def _repr_html_(self) -> str:
        return shown.table("Box", self.facts)

    @property
    def facts(self) -> dict[str, object]:
        """What people want to see of it."""
        if not self.lower.numel():
            return {"shape": self.shape}
        width = self.upper - self.lower
        low, high = self.lower.amin().item(), self.upper.amax().item()
        return {
            "shape": self.shape,
            "within": shown.span(low, high),
            "widths": shown.span(width.amin().item(), width.amax().item()),
        }

    @property
    def empty(self) -> bool:
        """Whether the bounds contradict each other somewhere."""
        return bool((self.lower > self.upper).any())

    @property
    def centre(self) -> Tensor:
        """The midpoint (shape of the bounds); of an interval without an end its point next to 0."""
        width = self.upper - self.lower
        middle = torch.where(width.isfinite(), self.lower + width / 2, self.lower / 2 + self.upper / 2)
        return torch.where(middle.isfinite(), middle, torch.zeros_like(middle).clamp(self.lower, self.upper))

    @cached_property
    def id(self) -> str:
        """Hash of the content."""
        inner = () if self.inner is None else (self.inner.lower, self.inner.upper)
        return content_hash("box", self.lower, self.upper, *inner)

    def map(self, view: Callable[[Tensor], Tensor]) -> Box:
        """The box with ``view``, which selects or reshapes, applied to all of its bounds."""
        return Box(view(self.lower), view(self.upper), None if self.inner is None else self.inner.map(view))

    @cached_property
    def single(self) -> Tensor:
        """Where the bounds are one value, or lie between two neighbouring numbers of float64: bool, of their shape."""
        if self.inner is None:
            return self.lower == self.upper
        between = (self.inner.lower == self.upper) & (self.inner.upper == self.lower)
        return between & (self.upper <= self.lower.nextafter(self.lower.new_tensor(inf)))

    def moved(self, dtype: torch.dtype) -> Tensor:
        """Where the bounds are one value that ``dtype`` does not hold, so that the nearest one stands for it: bool, of
        their shape."""
        lower, _ = self.allowed(dtype)
        return self.single & ((lower.double() != self.lower) | (self.lower != self.upper))

    def has_members(self, dtype: torch.dtype) -> bool:
        """Whether some point of ``dtype`` is a member (of each sample, where the box is of a batch)."""
        lower, upper = self.allowed(dtype)
        return bool((lower <= upper).all())

    def box(self) -> Box:
        """Itself, widened where one value is no float32: proofs cover the nearest one, too."""
        if not bool(self.single.any()):
            return self
        moved = self.moved(torch.float32)
        if not bool(moved.any()):
            return self
        nearest = self.allowed(torch.float32)[0].double()
        lower = torch.where(moved, torch.minimum(self.lower, nearest), self.lower)
        upper = torch.where(moved, torch.maximum(self.upper, nearest), self.upper)
        return Box(lower, upper, self.inner and self.inner._with(moved, nearest))

    def _with(self, moved: Tensor, values: Tensor) -> Box:
        """The box with both bounds at ``values`` where they are ``moved``."""
        return Box(torch.where(moved, values, self.lower), torch.where(moved, values, self.upper))

    def allowed(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of ``dtype`` in each interval, the smallest above the largest where there is
        none; for one value the nearest. Both of the bounds' shape."""
        if dtype not in self._allowed:
            with torch.inference_mode(False):  # kept, so that it must serve callers who need gradients too
                self._allowed[dtype] = self._members(dtype)
        return self._allowed[dtype]

    @cached_property
    def _allowed(self) -> dict[torch.dtype, tuple[Tensor, Tensor]]:
        return {}

    def _members(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        inner = self if self.inner is None else self.inner
        lower, upper = round_up(inner.lower, dtype), round_down(inner.upper, dtype)
        nearest = self.centre.to(dtype)
        none = (lower > upper) & self.single & nearest.isfinite()
        return torch.where(none, nearest, lower), torch.where(none, nearest, upper)

    def outward(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The bounds in another dtype, of their own shape, rounded away from the box."""
        return round_down(self.lower, dtype), round_up(self.upper, dtype)

    def contains(self, x: Tensor) -> Tensor:
        """Whether each x (batch x shape) lies between the bounds, compared exactly in the dtype of x: (batch)."""
        lower, upper = self.allowed(x.dtype)
        return ((lower.to(x.device) <= x) & (x <= upper.to(x.device))).flatten(1).all(-1)

    def project(self, x: Tensor) -> Tensor:
        """Clamp x (batch x shape); NaN becomes the lower bound. Next to the box where no value of the dtype is a
        member."""
        lower, upper = self.allowed(x.dtype)
        lower, upper = lower.to(x.device), upper.to(x.device)
        return torch.where(x.isnan(), lower, torch.minimum(torch.maximum(x, lower), upper))

    def steepest(self, grad: Tensor) -> Tensor:
        """Half the width along the sign of the gradient: (batch x shape)."""
        return grad.sign() * ((self.upper - self.lower) / 2).to(grad)

    def point(self, u: Tensor) -> Tensor:
        """Linear from the lower to the upper bound: u and result (batch x shape)."""
        return self.project((self.lower + u.double().to(self.centre.device) * (self.upper - self.lower)).to(u))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n uniform members: (n x shape)."""
        return self.point(torch.rand((n, *self.shape), generator=generator))
