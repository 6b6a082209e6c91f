"""Two lines between which an activation lies, for many activations at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Lines:
    """``slope * z + intercept <= activation(z) <= (slope + slope_gap) * z + intercept + intercept_gap`` over the
    interval of z: all of the shape of z's bounds.

    ``slope`` and ``intercept`` are the lower line's, the gaps are the upper line's minus these; ``intercept`` is None
    where it is 0 throughout. Some activations have several operands z a value: ``slope`` and
    ``slope_gap`` have one more axis than the rest, the last one, and their products with z are summed over it.
    """

    slope: Tensor
    slope_gap: Tensor
    intercept_gap: Tensor
    intercept: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Lines:
        """``change`` made to each tensor, whose shape it may change."""
        intercept = None if self.intercept is None else change(self.intercept)
        return Lines(change(self.slope), change(self.slope_gap), change(self.intercept_gap), intercept)

    def apart(self, by: Tensor) -> Lines:
        """The lower line lowered by so much, the upper one raised: ``by`` of the shape of the intercepts."""
        lower = -by if self.intercept is None else self.intercept - by
        return Lines(self.slope, self.slope_gap, self.intercept_gap + 2 * by, lower)

    def take(self, index: Tensor, axis: int = 0) -> Lines:
        """The lines at ``index`` (kept lines), numbers along an axis."""
        return self.map(lambda t: t.index_select(axis, index))

    def put(self, index: Tensor, lines: Lines, axis: int = 0) -> Lines:
        """These lines with others at ``index``, numbers, of an axis: they are written into."""
        for mine, theirs in zip(self._tensors(), lines._tensors(), strict=True):
            mine.index_copy_(axis, index, theirs)
        return self

    def _tensors(self) -> list[Tensor]:
        some = [self.slope, self.slope_gap, self.intercept_gap]
        return some if self.intercept is None else [*some, self.intercept]
