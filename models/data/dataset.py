"""A labelled data set in memory: samples in their domain, labels, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from assay.verify.core.errors import InputError, check_type
from assay.verify.core.region import Domain


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set: x (n x shape) float32 within ``domain``, y (n) int64 from 0 to ``classes`` - 1.

    ``origin`` records the files that it came from and what was done to their numbers; ``rest`` says where the samples
    are that a part of the split lacks. Where channels or features differ, ``limits`` are the lowest and highest legal
    value of each, within ``domain``, and ``eps_scale`` says how many units of each a radius of 1 is: tensors that
    broadcast to a sample.
    """

    name: str
    split: str
    x: Tensor
    y: Tensor
    classes: int
    domain: tuple[float, float] = (0.0, 1.0)
    origin: str = ""
    rest: str = ""
    limits: tuple[Tensor, Tensor] | None = None
    eps_scale: Tensor | None = None

    def __post_init__(self) -> None:
        for side, value in (("x", self.x), ("y", self.y)):
            check_type(value, Tensor, f"{side} as a tensor", "torch.as_tensor(array) makes one")
        if self.x.dtype != torch.float32 or self.y.dtype != torch.int64:
            raise InputError(f"{self.name}: expected x in float32 and y in int64, got {self.x.dtype}, {self.y.dtype}")
        shapes = f"{tuple(self.x.shape)} and {tuple(self.y.shape)}"
        if self.x.dim() < 2 or self.y.dim() != 1 or len(self.x) != len(self.y) or not self.x.numel():
            raise InputError(f"{self.name}: expected x (n x shape) and y (n) with n > 0, got {shapes}")
        low, high = self.domain
        lowest, highest = self.x.aminmax()  # NaN if there is one, which fails both comparisons
        if not (low <= float(lowest) and float(highest) <= high):
            raise InputError(f"{self.name}: expected values from {low:g} to {high:g}, got others or NaN")
        if self.limits is not None and (outside := self._outside(*self.limits)) is not None:
            raise InputError(f"{self.name}: expected values within the domain of each feature, got {outside}")
        if not bool(((self.y >= 0) & (self.y < self.classes)).all()):
            raise InputError(
                f"{self.name}: expected labels from 0 to {self.classes - 1}, got {self.y.min()} to {self.y.max()}"
            )

    def __repr__(self) -> str:
        shape = tuple(self.x.shape[1:])
        return f"Dataset({self.name} ({self.split}), samples {len(self)}, shape {shape}, classes {self.classes})"

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.x.shape[1:])

    @property
    def legal(self) -> Domain:
        """The lowest and highest legal value, or those of each channel or feature (broadcast to the shape)."""
        return self.domain if self.limits is None else self.limits

    def radius(self, eps: float) -> float | Tensor:
        """``eps`` of a region of one sample: a number, or one for each channel or feature (broadcasts to it)."""
        return eps if self.eps_scale is None else eps * self.eps_scale.double()

    def _outside(self, low: Tensor, high: Tensor) -> str | None:
        """A value that is not within its feature's limits, and where it is; None if all are."""
        bad = ((self.x < low) | (self.x > high)).nonzero()
        if not len(bad):
            return None
        at = tuple(bad[0].tolist())
        ends = (side.expand(self.shape)[at[1:]].item() for side in (low, high))
        legal = " to ".join(f"{end:g}" for end in ends)
        return f"{self.x[at].item():g} in sample {at[0]} at {at[1:]}, where {legal} is legal"

    def indices(self, n: int | None, step: int = 1) -> range:
        """Of every ``step``-th sample the first n, or all. Raises :class:`InputError` unless there are as many."""
        every = range(0, len(self), step)
        if n is not None and not 1 <= n <= len(every):
            which = "samples" if step == 1 else f"samples ({len(self)}, every {step}th)"
            rest = f"; {self.rest}" if self.rest else ""
            raise InputError(
                f"expected from 1 to {len(every)} {which} of {self.name} ({self.split}), got n = {n}{rest}"
            )
        return every[:n]

    def take(self, n: int) -> Dataset:
        """The first n samples. Raises :class:`InputError` unless 1 <= n <= len."""
        end = self.indices(n).stop
        return replace(self, x=self.x[:end], y=self.y[:end])
