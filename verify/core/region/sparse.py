"""Regions in which all but a few pixels stay as they are: few of them anywhere (l0), or those of a patch.

A pixel is a position: the last two axes of a sample count them, all of them in samples of fewer than three axes, and
every channel of a pixel may change at once. What changes may take any value of the domain.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import comb
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.core.errors import InputError
from assay.verify.core.network import content_hash
from assay.verify.core.region.ball import Domain
from assay.verify.core.region.box import Box
from assay.verify.support import shown
from assay.verify.support.arrays import as_tensor, own_tensor

# Random sets of pixels are told by the digits of a coordinate below its first twelve.
DIGITS = 4096


class Support(Protocol):
    """Which sets of pixels may change together. Masks are (batch x rows x columns), bool."""

    def __hash__(self) -> int:
        """Of the parameters."""
        ...

    def fits(self, changed: Tensor) -> Tensor:
        """Whether the pixels that ``changed`` may do so together: mask, result (batch)."""
        ...

    def best(self, gain: Tensor) -> Tensor:
        """The set of largest total ``gain``, at least 0 each (batch x rows x columns): mask."""
        ...

    def at(self, u: Tensor) -> Tensor:
        """A set at random, from independent u in [0, 1) (batch x rows x columns): mask."""
        ...

    def size(self, rows: int, columns: int) -> int:
        """The number of pixels of the largest sets."""
        ...

    def count(self, rows: int, columns: int) -> int:
        """The number of the largest sets."""
        ...

    def every(self, rows: int, columns: int) -> Tensor:
        """The largest sets, of which all others are part: (sets x rows x columns), bool."""
        ...


@dataclass(frozen=True)
class FewPixels:
    """Any ``number`` of pixels."""

    number: int

    def __post_init__(self) -> None:
        _whole("a number of pixels", self.number, 0)

    def fits(self, changed: Tensor) -> Tensor:
        """See :class:`Support`."""
        return changed.flatten(1).sum(1) <= self.number

    def best(self, gain: Tensor) -> Tensor:
        """See :class:`Support`."""
        flat = gain.flatten(1)
        order = flat.argsort(dim=1, descending=True, stable=True)[:, : self.number]
        return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, True).view_as(gain)

    def at(self, u: Tensor) -> Tensor:
        """See :class:`Support`."""
        return self.best(u)

    def size(self, rows: int, columns: int) -> int:
        """See :class:`Support`."""
        return min(self.number, rows * columns)

    def count(self, rows: int, columns: int) -> int:
        """See :class:`Support`."""
        return comb(rows * columns, self.size(rows, columns))

    def every(self, rows: int, columns: int) -> Tensor:
        """See :class:`Support`."""
        size = self.size(rows, columns)
        chosen = torch.tensor(list(combinations(range(rows * columns), size)), dtype=torch.int64)
        chosen = chosen.view(self.count(rows, columns), size)
        flat = torch.zeros(len(chosen), rows * columns, dtype=torch.bool).scatter_(1, chosen, True)
        return flat.view(-1, rows, columns)


@dataclass(frozen=True)
class Window:
    """The pixels of one rectangle of this ``height`` and ``width``, wherever it lies in the image."""

    height: int
    width: int

    def __post_init__(self) -> None:
        for side in (self.height, self.width):
            _whole("a side of a patch", side, 1)

    def fits(self, changed: Tensor) -> Tensor:
        """See :class:`Support`."""
        return (_extent(changed.any(2)) <= self.height) & (_extent(changed.any(1)) <= self.width)

    def best(self, gain: Tensor) -> Tensor:
        """See :class:`Support`."""
        total = F.avg_pool2d(gain.double()[:, None], (self.height, self.width), stride=1)[:, 0]
        return self._masks(total.flatten(1).argmax(1), gain.shape[1], gain.shape[2])

    def at(self, u: Tensor) -> Tensor:
        """See :class:`Support`."""
        rows, columns = u.shape[1:]
        first = (u.flatten(1)[:, 0].double() * self.count(rows, columns)).long()
        return self._masks(first, rows, columns)

    def size(self, rows: int, columns: int) -> int:
        """See :class:`Support`."""
        return self.height * self.width

    def count(self, rows: int, columns: int) -> int:
        """See :class:`Support`."""
        return (rows - self.height + 1) * (columns - self.width + 1)

    def every(self, rows: int, columns: int) -> Tensor:
        """See :class:`Support`."""
        return self._masks(torch.arange(self.count(rows, columns)), rows, columns)

    def _masks(self, first: Tensor, rows: int, columns: int) -> Tensor:
        """The windows whose first pixels are number ``first`` (n) among those that can be: (n x rows x columns)."""
        top, left = first // (columns - self.width + 1), first % (columns - self.width + 1)
        return _between(top, self.height, rows)[:, :, None] & _between(left, self.width, columns)[:, None, :]


@dataclass(frozen=True, eq=False, repr=False)
class Sparse:
    """The points that differ from ``centre`` in pixels of one set of ``support`` alone, within the ``domain``.

    ``centre``: one sample, or (batch x shape), within the domain, whose sides are numbers or tensors that broadcast to
    it. Where a value of the centre is no number of a point's dtype the nearest one stands for it. Raises
    :class:`InputError` for an infinite domain and a patch larger than the image.
    """

    centre: Tensor
    support: Support
    domain: Domain = (0.0, 1.0)

    def __post_init__(self) -> None:
        centre = own_tensor(self.centre, "the centre of a region", torch.float64)
        if not bool(centre.isfinite().all()):
            raise InputError("the centre of a region must be finite, got NaN or inf in the input")
        if self.domain is None:
            raise InputError("changed pixels may be anything in the domain: it is needed, got none")
        low, high = (own_tensor(side, "a domain", torch.float64) for side in self.domain)
        if not bool(low.isfinite().all() & high.isfinite().all()):
            raise InputError("changed pixels may be anything in the domain: it must be finite")
        try:
            inside = bool(((low.expand_as(centre) <= centre) & (centre <= high.expand_as(centre))).all())
        except RuntimeError:
            raise InputError(f"expected a domain that broadcasts to the input's {tuple(centre.shape)}") from None
        if not inside:
            raise InputError(
                f"the input has values from {centre.min():g} to {centre.max():g}, outside of the domain: scale it, or "
                "pass the right domain"
            )
        if isinstance(self.support, Window) and (
            centre.dim() < 2 or self.support.height > centre.shape[-2] or self.support.width > centre.shape[-1]
        ):
            size = f"{self.support.height} x {self.support.width}"
            raise InputError(f"a patch of {size} pixels does not fit into an input of shape {tuple(centre.shape)}")
        object.__setattr__(self, "centre", centre)
        object.__setattr__(self, "domain", (low, high))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the centre."""
        return tuple(self.centre.shape)

    def __repr__(self) -> str:
        return shown.line("Sparse", self.facts)

    def _repr_html_(self) -> str:
        return shown.table("Sparse", self.facts)

    @property
    def facts(self) -> dict[str, object]:
        """What people want to see of it."""
        low, high = self._domain
        return {
            "shape": self.shape,
            "changed": self.support,
            "domain": shown.span(low.amin().item(), high.amax().item()),
        }

    @property
    def empty(self) -> bool:
        """Never: the centre is a member."""
        return False

    @cached_property
    def id(self) -> str:
        """Hash of the content."""
        return content_hash("sparse", self.centre, repr(self.support), *self._domain)

    @property
    def _domain(self) -> tuple[Tensor, Tensor]:
        low, high = self.domain
        return as_tensor(low, "a domain", torch.float64), as_tensor(high, "a domain", torch.float64)

    @cached_property
    def anything(self) -> Box:
        """The domain: (shape)."""
        low, high = self._domain
        return Box(low.expand_as(self.centre).contiguous(), high.expand_as(self.centre).contiguous())

    def changed(self, x: Tensor) -> Tensor:
        """Which pixels of x (batch x shape) differ from the centre's: (batch x rows x columns), bool."""
        return channels(x != self.centre.to(x)).any(1)

    def box(self) -> Box:
        """The smallest box around it: all of the domain, in every pixel that may change, which is every one."""
        rows, columns = pixels(self.shape)
        if self.support.size(rows, columns):
            return self.anything
        return Box(self.centre, self.centre).box()

    def boxes(self) -> Box:
        """The boxes whose union it is, one for each of the largest sets of pixels, as one of a batch (sets x shape).

        For a region of one sample; there may be very many: ``support.count`` says how many.
        """
        masks = self._spread(self.support.every(*pixels(self.shape)), self.shape)
        low, high = (torch.where(masks, side, self.centre) for side in (self.anything.lower, self.anything.upper))
        return Box(low, high)

    def contains(self, x: Tensor) -> Tensor:
        """Exact membership of x (batch x shape): (batch)."""
        return self.anything.contains(x) & self.support.fits(self.changed(x))

    def project(self, x: Tensor) -> Tensor:
        """The member near x (batch x shape) that keeps the set of pixels whose changes are the largest, in l2."""
        centre = self.centre.to(x)
        far = self.anything.project(torch.where(x.isnan(), centre, x))
        gain = channels((far.double() - centre.double()).square()).sum(1)
        return torch.where(self._spread(self.support.best(gain), x.shape[1:]), far, centre)

    def steepest(self, grad: Tensor) -> Tensor:
        """The step to the edge of the domain, from the centre, that a linear function gains most from: grad and result
        (batch x shape)."""
        low, high = (side.to(grad) - self.centre.to(grad) for side in (self.anything.lower, self.anything.upper))
        step = torch.where(grad > 0, high, torch.where(grad < 0, low, torch.zeros_like(low)))
        gain = channels(step * grad).sum(1)
        return torch.where(self._spread(self.support.best(gain), grad.shape[1:]), step, torch.zeros_like(step))

    def point(self, u: Tensor) -> Tensor:
        """Values across the domain at pixels that later digits of u choose: u and result (batch x shape)."""
        mask = self.support.at(channels((u * DIGITS).frac())[:, 0])
        return torch.where(self._spread(mask, u.shape[1:]), self.anything.point(u), self.centre.to(u))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n random members of a region of one sample: (n x shape)."""
        return self.point(torch.rand((n, *self.shape), generator=generator))

    def _spread(self, mask: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A mask of pixels (batch x rows x columns) for all channels of samples of this ``shape``."""
        if len(shape) < 3:
            return mask.view(len(mask), *shape)
        return mask.view(len(mask), *[1] * (len(shape) - 2), *mask.shape[1:])


def pixels(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a sample of this shape: its last two axes; a vector is one row.

    >>> pixels((3, 32, 48)), pixels((64,))
    ((32, 48), (1, 64))
    """
    rows, columns = (1, *shape)[-2:]
    return rows, columns


def channels(x: Tensor) -> Tensor:
    """Samples x (batch x shape) by their channels: (batch x channels x rows x columns)."""
    return x.reshape(len(x), -1, *pixels(tuple(x.shape[1:])))


def _extent(line: Tensor) -> Tensor:
    """From the first to the last true place, both counted: (batch x places) to (batch); 0 where there is none."""
    places = torch.arange(line.shape[1], device=line.device)
    first = torch.where(line, places, line.shape[1]).amin(1)
    last = torch.where(line, places, -1).amax(1)
    return (last - first + 1).clamp(min=0)


def _between(first: Tensor, length: int, extent: int) -> Tensor:
    """The places from each ``first`` (n) on, ``length`` of them: (n x extent), bool."""
    places = torch.arange(extent, device=first.device) - first[:, None]
    return (places >= 0) & (places < length)


def _whole(what: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"expected {what} as a whole number of at least {least}, got {value!r}")
