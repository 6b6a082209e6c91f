"""Symbols side by side: those of places of an image that reach no value together share one image, as columns of a
Jacobian that have no row in common are worked out together (Curtis, Powell and Reid 1974, On the estimation of sparse
Jacobian matrices). Behind few convolutions a place reaches a small window, and nothing is multiplied beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from assay.verify.core.network import Node
from assay.verify.core.ops import Add, Conv2d, LeakyRelu, Relu, Scale, Sub

PASSED = (Add, LeakyRelu, Relu, Scale, Sub)  # element by element


@dataclass(frozen=True, eq=False)
class Reach:
    """Along one axis of an image: the ``first`` and the ``last`` of ``size`` places of a node's value that depend on
    each place where symbols begin, (places) each and nowhere falling; none where the last is before the first."""

    first: Tensor
    last: Tensor
    size: int

    @classmethod
    def itself(cls, size: int) -> Reach:
        """Of the node where symbols begin."""
        return cls(torch.arange(size), torch.arange(size), size)

    def through(self, kernel: int, stride: int, padding: int, dilation: int, size: int) -> Reach:
        """Of a convolution, whose value has so many places along this axis."""
        first = -torch.div((kernel - 1) * dilation - padding - self.first, stride, rounding_mode="floor")
        last = torch.div(self.last + padding, stride, rounding_mode="floor")
        return Reach(first.clamp(min=0), last.clamp(max=size - 1), size)

    def joined(self, other: Reach) -> Reach:
        """Of what is made of two values of one shape."""
        return Reach(torch.minimum(self.first, other.first), torch.maximum(self.last, other.last), self.size)

    @cached_property
    def distance(self) -> int:
        """The least at which no two places reach one; as many as there are places, where there is no such."""
        places = len(self.first)
        return next((d for d in range(1, places) if bool((self.last[:-d] < self.first[d:]).all())), places)

    @cached_property
    def inside(self) -> Tensor:
        """Whether each place where symbols begin reaches each of these: (places x size)."""
        here = torch.arange(self.size)
        return (self.first[:, None] <= here) & (here <= self.last[:, None])

    def owners(self, distance: int) -> Tensor:
        """Which of the places that are the same modulo ``distance`` reaches each of these, or -1: (distance x size)."""
        owners = torch.full((distance, self.size), -1)
        place, here = self.inside.nonzero().unbind(1)
        owners[place % distance, here] = place
        return owners


Window = tuple[Reach, Reach]  # along the vertical and the horizontal axis


def reaches(nodes: Sequence[Node], seed: int) -> dict[int, Window]:
    """By position, of the node ``seed``, an image, and of those behind it whose values depend on its places by
    windows."""
    height, width = nodes[seed].shape[1:]
    windows = {seed: (Reach.itself(height), Reach.itself(width))}
    mixed = set[int]()
    for position, node in enumerate(nodes[seed + 1 :], start=seed + 1):
        read = [windows[i] for i in dict.fromkeys(node.inputs) if i in windows]
        if mixed.intersection(node.inputs) or (read and not isinstance(node.op, (Conv2d, *PASSED))):
            mixed.add(position)
        elif read and isinstance(node.op, Conv2d):
            windows[position] = _through(node.op, read[0], node.shape)
        elif read:
            vertical, horizontal = read[0]
            for other in read[1:]:
                vertical, horizontal = vertical.joined(other[0]), horizontal.joined(other[1])
            windows[position] = vertical, horizontal
    return windows


def _through(op: Conv2d, window: Window, shape: tuple[int, ...]) -> Window:
    spans = zip(window, op.weight.shape[2:], op.stride, op.padding, op.dilation, shape[1:], strict=True)
    vertical, horizontal = (reach.through(k, s, p, d, n) for reach, k, s, p, d, n in spans)
    return vertical, horizontal


@dataclass(frozen=True, eq=False)
class Colours:
    """Symbols, one a place at most, at the rows ``y`` and columns ``x`` (symbols) of an image: those whose places are
    the same modulo ``distance`` share one."""

    y: Tensor
    x: Tensor
    distance: tuple[int, int] = (1, 1)

    @property
    def images(self) -> int:
        """How many there are."""
        return self.distance[0] * self.distance[1]

    def within(self, window: Window) -> Colours:
        """The same symbols so far apart that none of an image reaches what another of it does."""
        vertical, horizontal = window
        distance = max(self.distance[0], vertical.distance), max(self.distance[1], horizontal.distance)
        return self if distance == self.distance else replace(self, distance=distance)

    def spread(self, images: Tensor, window: Window, new: Colours) -> Tensor:
        """Images of these as those of ``new``, which lie further apart, of a node with this ``window``: (images x
        shape)."""
        rows = images.view(*self.distance, *images.shape[1:])
        rows = _regrouped(rows, 0, window[0].owners(new.distance[0]), self.distance[0])
        return _regrouped(rows, 1, window[1].owners(new.distance[1]), self.distance[1]).flatten(0, 1)

    def apart(self, images: Tensor, window: Window, some: Tensor) -> Tensor:
        """One image for each of some symbols, by number: (some x shape)."""
        y, x = self.y[some], self.x[some]
        number = y % self.distance[0] * self.distance[1] + x % self.distance[1]
        reached = window[0].inside[y][:, None, :, None] & window[1].inside[x][:, None, None, :]
        return images.index_select(0, number) * reached


def _regrouped(images: Tensor, axis: int, owners: Tensor, distance: int) -> Tensor:
    """Images (vertical x horizontal colours x channels x height x width) with the colours of one axis, places modulo
    ``distance``, as others: each line of pixels is that of the place that owns it."""
    lines = images.movedim((axis, 3 + axis), (0, 1))
    colours, size = owners.shape
    number = owners.clamp(min=0) % distance * size + torch.arange(size)
    chosen = lines.flatten(0, 1).index_select(0, number.flatten()).view(colours, size, *lines.shape[2:])
    chosen = chosen * (owners >= 0)[:, :, None, None, None]
    return chosen.movedim((0, 1), (axis, 3 + axis))


def side_by_side(shape: tuple[int, ...], features: Tensor, enough: int) -> tuple[list[tuple[Colours, Tensor]], Tensor]:
    """Symbols at some features, by number, of an image of this ``shape``: those of which at least
    ``enough`` are at places of their own, with their features, and the features of the others."""
    _, height, width = shape
    place, order = (features % (height * width)).sort(stable=True)
    count = place.bincount()
    count = count[count > 0]
    layer = torch.arange(len(place)) - (count.cumsum(0) - count).repeat_interleave(count)
    full = int((layer.bincount() >= enough).sum())
    parts = []
    for number in range(full):
        here = layer == number
        colours = Colours(place[here] // width, place[here] % width)
        parts.append((colours, features[order[here]]))
    return parts, features[order[layer >= full]]
