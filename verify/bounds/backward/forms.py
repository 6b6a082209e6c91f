"""Linear functions of one node's value, many rows at a time, in the shapes that backward propagation meets.

Rows belong to samples and are as many as there are neurons worth bounding, ragged over the samples. Coefficients are
kept features by rows. A form belongs to whoever receives it, who may overwrite its coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Form:
    """Coefficients (features x rows); row ``i`` of them belongs to feature ``support[i]``, or to ``i`` itself.

    ``passing``: the support is that of these rows alone, and no matrix is cut down to it.
    """

    coef: Tensor
    support: Tensor | None = None
    passing: bool = False


@dataclass(frozen=True, eq=False)
class Units:
    """Rows with one coefficient each: row r is ``value[r]`` at feature ``feature[r]``."""

    feature: Tensor
    value: Tensor


@dataclass(frozen=True, eq=False)
class Patches:
    """Rows that see a window each of an image of shape ``grid`` (channels, height, width): what a neuron after a few
    convolutions depends on. Row r's window begins at ``origin * stride - shift`` and may reach beyond the image by
    ``border`` elements on each side.

    ``coef``: (channels * window height * window width x rows). ``origin``: row and column number, each (rows) in int32;
    forms with one origin and stride lie at a fixed distance. ``clean``: coefficients outside of the image are 0.
    ``support``: features of the image that contain all coefficients other than 0, if they are known to be few.
    """

    coef: Tensor
    grid: tuple[int, int, int]
    window: tuple[int, int]
    origin: tuple[Tensor, Tensor]
    stride: tuple[int, int]
    shift: tuple[int, int]
    border: tuple[int, int]
    clean: bool = True
    support: Tensor | None = None

    @cached_property
    def index(self) -> Tensor:
        """Where each coefficient belongs in the image padded by ``border``: (coefficients x rows), int32."""
        (y, x), (sy, sx), (py, px), (by, bx) = self.origin, self.stride, self.shift, self.border
        width = self.grid[2] + 2 * bx
        begin = y * (sy * width) + x * sx + ((by - py) * width + bx - px)
        return _window(self.grid[0], *self.window, *self.padded).unsqueeze(1) + begin

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of the image with its border."""
        return self.grid[1] + 2 * self.border[0], self.grid[2] + 2 * self.border[1]

    def dense(self) -> Tensor:
        """All coefficients of the image: (features x rows)."""
        (channels, height, width), (by, bx) = self.grid, self.border
        rows = self.coef.shape[1]
        full = self.coef.new_zeros(channels * self.padded[0] * self.padded[1], rows).scatter_(
            0, self.index.long(), self.coef
        )
        image = full.view(channels, *self.padded, rows)[:, by : by + height, bx : bx + width]
        return image.reshape(-1, rows)

    def form(self) -> Form:
        """The same rows without windows: (features, or those of ``support`` x rows)."""
        full = self.dense()
        return Form(full if self.support is None else full.index_select(0, self.support), self.support)


AnyForm = Form | Units | Patches


@lru_cache(maxsize=256)
def _window(channels: int, height: int, width: int, of_height: int, of_width: int) -> Tensor:
    """Places of a window's elements, counted from its first, in an image with these sides: (elements)."""
    c, i, j = (torch.arange(n, dtype=torch.int32) for n in (channels, height, width))
    return ((c[:, None, None] * of_height + i[:, None]) * of_width + j).flatten()


def pad(columns: Tensor, form: Patches) -> Tensor:
    """Per-sample values of an image (features x samples) with zeros on the form's border: (samples, padded image)."""
    images = columns.T.reshape(-1, *form.grid)
    (by, bx) = form.border
    return F.pad(images, (bx, bx, by, by)).flatten(1)


def dense(form: AnyForm, size: int) -> Tensor:
    """All coefficients of a node of ``size`` values: (size x rows)."""
    if isinstance(form, Patches):
        return form.dense()
    if isinstance(form, Units):
        full = form.value.new_zeros(size, len(form.value))
        return full.scatter_(0, form.feature[None], form.value[None])
    if form.support is None:
        return form.coef
    return form.coef.new_zeros(size, form.coef.shape[1]).index_copy_(0, form.support, form.coef)


def on_support(form: AnyForm, support: Tensor | None, size: int) -> Tensor:
    """The coefficients (support x rows) of the features in ``support``, which are all that matter; None is all."""
    if isinstance(form, Form) and form.support is support:
        return form.coef
    full = dense(form, size)
    return full if support is None else full.index_select(0, support)


def multiple(form: AnyForm, factor: float = 1.0) -> AnyForm:
    """``factor`` times the form, in memory of its own."""
    if isinstance(form, Units):
        return Units(form.feature, form.value * factor)
    return replace(form, coef=form.coef * factor)


def chosen(form: AnyForm, rows: Tensor) -> AnyForm:
    """The rows at the positions ``rows`` (kept rows)."""
    if isinstance(form, Units):
        return Units(form.feature.index_select(0, rows), form.value.index_select(0, rows))
    coef = form.coef.index_select(1, rows)
    if isinstance(form, Form):
        return replace(form, coef=coef)
    y, x = form.origin
    return replace(form, coef=coef, origin=(y.index_select(0, rows), x.index_select(0, rows)))


def add(a: AnyForm, b: AnyForm, size: int) -> AnyForm:
    """The sum of two forms of one node; both are used up."""
    if isinstance(a, Form) and isinstance(b, Form) and a.support is b.support:
        return replace(a, coef=a.coef.add_(b.coef))
    if isinstance(a, Patches) and isinstance(b, Units):
        b = windows(b, a.grid)
    if isinstance(b, Patches) and isinstance(a, Units):
        a = windows(a, b.grid)
    if isinstance(a, Patches) and isinstance(b, Patches) and _aligned(a, b):
        return _overlaid(a, b)
    return Form(dense(a, size).add_(dense(b, size)))


def windows(form: Units, grid: tuple[int, ...]) -> Patches:
    """Single neurons of an image as windows of one element, where they are: coefficients (channels x rows)."""
    channels, height, width = grid
    feature = form.feature.int()
    channel = torch.div(feature, height * width, rounding_mode="floor")
    place = feature - channel * (height * width)
    y = torch.div(place, width, rounding_mode="floor")
    coef = form.value.new_zeros(channels, len(form.value)).scatter_(0, channel[None].long(), form.value[None])
    return Patches(coef, (channels, height, width), (1, 1), (y, place - y * width), (1, 1), (0, 0), (0, 0))


def _aligned(a: Patches, b: Patches) -> bool:
    """Whether the windows of each row lie at the same distance from each other."""
    return a.stride == b.stride and all(torch.equal(p, q) for p, q in zip(a.origin, b.origin, strict=True))


def _overlaid(a: Patches, b: Patches) -> Patches:
    """The sum of two windows at a fixed distance: the smallest window that holds both."""
    (y, x), (v, w) = a.shift, b.shift
    shift = (max(y, v), max(x, w))
    window = (
        max(a.window[0] - y, b.window[0] - v) + shift[0],
        max(a.window[1] - x, b.window[1] - w) + shift[1],
    )
    border = (max(a.border[0], b.border[0]), max(a.border[1], b.border[1]))
    total = None
    for part in (a, b):
        top, left = shift[0] - part.shift[0], shift[1] - part.shift[1]
        margins = (0, 0, left, window[1] - left - part.window[1], top, window[0] - top - part.window[0])
        image = F.pad(part.coef.view(part.grid[0], *part.window, -1), margins)
        total = image if total is None else total.add_(image)
    assert total is not None
    coef = total.view(-1, total.shape[-1])
    support = a.support if a.support is b.support else None
    clean = a.clean and b.clean
    return replace(a, coef=coef, window=window, shift=shift, border=border, clean=clean, support=support)


@dataclass(frozen=True, eq=False)
class Owners:
    """Which samples the rows belong to: ``sample`` (rows) counted from the first of the group's ``samples`` present.

    Per-sample columns are spread over rows by a product with a 0/1 matrix, which is several times faster than
    gathering columns, and exact, since the columns are finite. Rows of one sample need neither.
    """

    sample: Tensor
    samples: slice
    dtype: torch.dtype

    @classmethod
    def of(cls, sample: Tensor, dtype: torch.dtype, samples: int | None = None) -> Owners:
        """Rows that belong to ``sample`` (rows) of the group's ``samples`` (their number, where it is known)."""
        if samples == 1:
            return cls(sample, slice(0, 1), dtype)
        first, last = (int(sample.min()), int(sample.max())) if len(sample) else (0, 0)
        return cls(sample - first if first else sample, slice(first, last + 1), dtype)

    @cached_property
    def one_hot(self) -> Tensor:
        """The samples as a 0/1 matrix: (samples present x rows)."""
        present = self.samples.stop - self.samples.start
        matrix = torch.zeros(present, len(self.sample), dtype=self.dtype, device=self.sample.device)
        return matrix.scatter_(0, self.sample[None], 1)

    def zeros(self) -> Tensor:
        """0 for each row: (rows)."""
        return torch.zeros(len(self.sample), dtype=self.dtype, device=self.sample.device)

    def present(self, columns: Tensor) -> Tensor:
        """The columns of the samples that are present: (features x samples) to (features x samples present)."""
        return columns if columns.shape[1] == 1 else columns[:, self.samples]

    def spread(self, columns: Tensor) -> Tensor:
        """(features x samples) to (features x rows), or to one column that broadcasts."""
        return self.over(self.present(columns))

    def over(self, present: Tensor) -> Tensor:
        """The same of columns of the samples that are present."""
        return present if present.shape[1] == 1 else present @ self.one_hot

    def dot(self, columns: Tensor, coef: Tensor) -> Tensor:
        """Each row's coefficients times its sample's column, summed: (rows)."""
        here = self.present(columns)
        return coef.T.mv(here[:, 0]) if here.shape[1] == 1 else ((here.T @ coef) * self.one_hot).sum(0)

    def gather(self, padded: Tensor, form: Patches) -> Tensor:
        """Each coefficient's element of its sample's padded image (samples x elements): (coefficients x rows)."""
        return self.at(padded[self.samples].reshape(1, -1), form)[0]

    def at(self, present: Tensor, form: Patches) -> list[Tensor]:
        """The same of each of several (n x samples present * elements)."""
        one = self.samples.stop - self.samples.start == 1
        each = form.grid[0] * form.padded[0] * form.padded[1]
        index = (form.index if one else form.index + (self.sample * each).int()).flatten()
        return [values.index_select(0, index).view_as(form.coef) for values in present]
