"""Linear enclosures: every pixel over a cell of parameters between two parallel planes, which are fitted to it and then
moved apart until nothing can lie outside (DeepG: Balunovic et al. 2019, with slopes by intervals)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from assay.verify.core.network import Builder, Network
from assay.verify.core.ops import Add, Gather, Linear, Relu, Reshape, Scale
from assay.verify.core.region import Box
from assay.verify.perturbations.kinds import Perturbation

UNIT = 2.0**-53
VALUES = 1 << 19  # values of pixels at parts of a cell, at most, at once
FEWEST, MOST = 4, 48  # parts of a cell by each parameter that is not linear
OF_BOXES = 8  # at most, where there are no planes to be fitted


@dataclass(frozen=True, eq=False)
class Enclosure:
    """``pixel = middle + slope t + reach e``, before it is cut to the domain, for some t in [-1, 1] by each parameter,
    the share of the cell's half width, and an e in [-1, 1] of the pixel's own: slope (parameters x values), middle and
    reach (values), of an image of that ``shape``. Images rounded to the model's type lie ``beyond`` the domain by so
    much at most."""

    slope: Tensor
    middle: Tensor
    reach: Tensor
    shape: tuple[int, ...]
    domain: tuple[float, float]
    beyond: float

    @property
    def box(self) -> Box:
        """What t and e lie in, side by side."""
        one = torch.ones(len(self.slope) + len(self.reach), dtype=torch.float64)
        return Box(-one, one)

    def before(self, network: Network) -> Network:
        """The network of t and e: the image that they stand for, cut to the domain, and then ``network``."""
        count, size = self.slope.shape
        builder = Builder((count + size,))
        t = builder.add(Gather(torch.arange(count), (count,)), 0)
        e = builder.add(Gather(torch.arange(count, count + size), (size,)), 0)
        plane = builder.add(Linear(self.slope.T.contiguous(), self.middle), t)
        last = builder.add(Add(), plane, builder.add(Scale(self.reach, torch.zeros_like(self.reach)), e))
        low, high = self.domain
        most = self.slope.abs().sum(0) + self.reach
        if bool((self.middle - most < low).any() | (self.middle + most > high).any()):
            # min(max(z, low), high) = high - relu(high - low - relu(z - low))
            for factor, shift in ((1.0, -low), (-1.0, high - low)):
                last = builder.add(Scale(_double(factor), _double(shift)), last)
                last = builder.add(Relu(), last)
            last = builder.add(Scale(_double(-1.0), _double(high)), last)
            # What is cut and then rounded may leave the domain. With the same e: what e makes of it rises with e, from
            # less than the least to more than the most that is asked for.
            room = torch.full_like(self.reach, 4 * self.beyond)
            last = builder.add(Add(), last, builder.add(Scale(room, torch.zeros_like(room)), e))
        last = builder.add(Reshape(self.shape), last)
        whole = builder.build(builder.embed(network, last), dtype=torch.float64, name=network.name)
        return whole if network.held is None else replace(whole, held=self.before(network.held))


def enclose(perturbation: Perturbation, image: Tensor, low: Tensor, high: Tensor, dtype: torch.dtype) -> Enclosure:
    """All that the perturbation makes of the image (channels x height x width) with parameters between ``low`` and
    ``high`` (parameters), as real numbers or rounded to ``dtype``, enclosed.

    The cell is cut into parts. What a pixel deviates from the plane at the middle of a part, and how far it can go
    within it, by intervals of its slopes, bounds it there (mean value form); the planes hold all parts.
    """
    at, half = _parted(perturbation, image, low, high, MOST)
    centre, width = low + (high - low) / 2, (high - low) / 2
    share = (at - centre) / width.where(width > 0, torch.ones_like(width))  # of the half width, from -1 to 1
    values = perturbation.over(image, at, at)
    mean = values.low + (values.high - values.low) / 2
    square = share.square().sum(0)
    fitted = share.T @ mean.clamp(*_far(perturbation))
    slope = torch.where(square[:, None] > 0, fitted / square[:, None], 0.0)
    spans = perturbation.over(image, torch.maximum(at - half, low), torch.minimum(at + half, high))
    slope_at = slope / width.where(width > 0, torch.full_like(width, inf))[:, None]  # by the parameters themselves
    steep = torch.maximum((spans.up - slope_at[:, None]).abs(), (spans.down - slope_at[:, None]).abs())
    wander = (steep * half[:, None, None]).sum(0)
    plane = share @ slope
    highest = (values.high - plane + wander).amax(0)
    lowest = (values.low - plane - wander).amin(0)
    middle = lowest + (highest - lowest) / 2
    most = torch.maximum(values.high.abs(), values.low.abs()).amax() + slope.abs().sum(0).amax()
    rounded = _rounded(perturbation, dtype)
    reach = (highest - lowest) / 2 * (1 + 1e-9) + _charge(perturbation, image, most) + rounded
    return Enclosure(slope, middle, reach, tuple(image.shape), perturbation.domain, rounded)


def boxes(
    perturbation: Perturbation, image: Tensor, low: Tensor, high: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """All that the perturbation makes of the image (channels x height x width) with parameters between ``low`` and
    ``high`` (parameters), cut to the domain and rounded to ``dtype``, between two images for each of some parts of the
    cell: (parts x values) each."""
    at, half = _parted(perturbation, image, low, high, OF_BOXES)
    values = perturbation.over(image, at, at)
    spans = perturbation.over(image, torch.maximum(at - half, low), torch.minimum(at + half, high))
    wander = (torch.maximum(spans.up, -spans.down) * half[:, None, None]).sum(0) * (1 + 1e-9)
    most = torch.maximum(values.high.abs(), values.low.abs()).amax()
    charge = _charge(perturbation, image, most)
    least = torch.maximum(spans.low, values.low - wander) - charge
    largest = torch.minimum(spans.high, values.high + wander) + charge
    rounded = _rounded(perturbation, dtype)
    return least.clamp(*perturbation.domain) - rounded, largest.clamp(*perturbation.domain) + rounded


def _parted(perturbation: Perturbation, image: Tensor, low: Tensor, high: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The middles (parts x parameters) of the parts that the cell is cut into, and their half widths (parameters)."""
    parts = _parts(perturbation, image.numel(), low, high, most)
    half = torch.stack([_half(*ends) for ends in zip(low, high, parts, strict=True)])
    middles = [_middles(*ends) for ends in zip(low, high, parts, strict=True)]
    return torch.stack(torch.meshgrid(*middles, indexing="ij"), -1).flatten(0, -2), half


def _charge(perturbation: Perturbation, image: Tensor, most: Tensor) -> Tensor:
    """What rounding takes from values of up to ``most``. Coordinates are off by some 32 roundings of the largest on the
    way for each part, and by as much times a pixel's difference the values; nothing else is rounded by more."""
    size = (2 * sum(image.shape[-2:]) + 1) * perturbation.stretch
    return 64 * (len(perturbation.parts) + 1) * UNIT * size * (1 + most)


def _rounded(perturbation: Perturbation, dtype: torch.dtype) -> float:
    """How far an image moves that is rounded to ``dtype``."""
    return torch.finfo(dtype).eps / 2 * max(map(abs, perturbation.domain))


def _double(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _far(perturbation: Perturbation) -> tuple[float, float]:
    """Planes are fitted to pixels cut to the domain and as much again on either side."""
    low, high = perturbation.domain
    return 2 * low - high, 2 * high - low


def _parts(perturbation: Perturbation, values: int, low: Tensor, high: Tensor, most: int) -> list[int]:
    """Into how many parts the cell is cut by each parameter: two where pixels are linear in it, one where it rests."""
    rests = (low == high).tolist()
    linear = [straight or still for straight, still in zip(perturbation.linear, rests, strict=True)]
    curved = linear.count(False)
    room = VALUES // max(values, 1) // 2 ** linear.count(True)
    each = min(max(int(room ** (1 / max(curved, 1))), FEWEST), most)
    return [1 if still else 2 if straight else each for straight, still in zip(linear, rests, strict=True)]


def _middles(low: Tensor, high: Tensor, count: int) -> Tensor:
    return low + (high - low) * ((torch.arange(count, dtype=torch.float64) + 0.5) / count)


def _half(low: Tensor, high: Tensor, count: int) -> Tensor:
    """How far a part reaches from its middle, roundings included."""
    return (high - low) / (2 * count) * (1 + 1e-12) + 8 * UNIT * torch.maximum(low.abs(), high.abs()) * (high > low)
