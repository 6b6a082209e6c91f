"""Zonotopes carried forwards through a network (DeepZ: Singh et al. 2018, Fast and effective robustness certification):
bounds of all neurons of all layers, for one pass of as many images as there are inputs and unstable neurons.

A node's value is ``centre + symbols @ coefficients + e``: symbols between -1 and 1, one for each input and each
unstable neuron, and ``|e| <= rest``, which takes what rounding loses and the neurons for which there is no room. Rows
that go backwards cost a pass each, so that this is for deep networks on small regions, where intervals settle no neuron
of tens of thousands and there are few unstable ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from math import inf, prod

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.bounds import rounding
from assay.verify.bounds.backward.affine import homogeneous
from assay.verify.bounds.interval import radius_map
from assay.verify.bounds.memo import per_op
from assay.verify.bounds.relaxations.relax import relax
from assay.verify.bounds.relaxed import Relaxed, middle_and_radius
from assay.verify.core.network import Network
from assay.verify.core.ops import Add, Conv2d, LeakyRelu, Op, Relu, Sub, evaluate
from assay.verify.core.roundings import magnitude, terms
from assay.verify.core.verifier import Bounds
from assay.verify.support import devices
from assay.verify.support.floats import gamma

BLOCK = 1 << 22  # coefficients of the symbols that are kept together, at a node
CACHED = 1 << 20  # numbers that an operation multiplies at a time, about
FEW_PLACES = 64  # up to which the library's convolution, image by image, is slower than one product of all
FEW = 32  # more roundings than what is done beside an operation's own sums takes
DEAR = 1 << 31  # products of rows that take half a second or so: for less it is not worth while
FASTER = 3.0  # so many products forwards, of images, take as long as one of rows backwards, of windows

linear_map, magnitude_map = per_op(homogeneous), per_op(magnitude)


@dataclass(frozen=True, eq=False)
class Line:
    """``value - slope * operand`` lies between ``low`` and ``high``: (1 x shape) each."""

    slope: Tensor
    low: Tensor
    high: Tensor


def chord(op: Relu | LeakyRelu, z: Bounds) -> Line:
    """About an activation over ``z`` (1 x shape): its chord, and what is between them, which turns at 0 alone: at the
    ends, and there. What rounding does to these is the caller's to charge."""
    lines = relax(op, z)
    slope = lines.slope + lines.slope_gap if isinstance(op, Relu) or op.slope <= 1 else lines.slope
    ends = [evaluate(op, side) - slope * side for side in (z.lower, z.upper)]
    off = torch.stack([*ends, torch.where((z.lower < 0) & (z.upper > 0), 0.0, ends[0])])
    return Line(slope, off.amin(0), off.amax(0))


Images = dict[int, Tensor]  # coefficients of some symbols (symbols x shape) by position; without an entry they are 0


@dataclass(eq=False)
class Zonotopes:
    """The zonotope of one sample, as far as it was carried through the network that ``relaxed`` bounds: ``chunks`` of
    symbols, with their coefficients at the nodes that are still read; ``centre`` and ``rest`` of all nodes, (1 x shape)
    each; ``size``: the sum of the coefficients' magnitudes."""

    relaxed: Relaxed
    position: int = 0
    chunks: list[Images] = field(default_factory=list)
    centre: list[Tensor] = field(default_factory=list)
    rest: list[Tensor] = field(default_factory=list)
    size: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, relaxed: Relaxed) -> Zonotopes | None:
        """At the input's box; None where there are several samples, no host, or nothing to be bounded before there are
        operations without a rule."""
        box = relaxed.bounds[0]
        if len(box.lower) > 1 or not devices.is_host(box.lower) or relaxed.rounding is None:
            return None
        middle, radius = middle_and_radius(box)
        here = cls(relaxed)
        size = middle.abs() + radius
        here.centre, here.size = [middle], [radius]
        here.rest = [here._share(0) * size + relaxed.rounding.precision.dust]
        return here if here.end > 2 or here.end == len(relaxed.network.nodes) else None

    @cached_property
    def end(self) -> int:
        """The first node that it cannot be carried to, since the operation there has no rule."""
        nodes = self.relaxed.network.nodes
        kinds = (Relu, LeakyRelu)
        return next((i for i, n in enumerate(nodes) if i and not (n.op.affine or isinstance(n.op, kinds))), len(nodes))

    @property
    def symbols(self) -> int:
        """How many there are, or will be when it leaves the input."""
        if not self.position:
            return int((self.size[0] > 0).sum())
        return sum(len(next(iter(images.values()))) for images in self.chunks if images)

    def pays(self, position: int, rows: int) -> bool:
        """Whether it costs clearly less to carry it to the node at ``position`` than as many ``rows`` on their way
        down, and there is room for it."""
        if (
            position >= self.end
            or rows * self._products[position] <= DEAR
            or bool((self.rest[-1] >= self.size[-1]).all())
        ):
            return False
        ahead = self._products[position] - self._products[self.position]
        work = rows * products_of_a_row(self.relaxed.network, position)
        return work > DEAR and self.symbols * ahead <= FASTER * work and self.symbols <= self._room(position)

    @cached_property
    def _products(self) -> list[int]:
        """How many products an image takes from the input to each node."""
        return list(accumulate(max(1, terms(node.op)) * node.size for node in self.relaxed.network.nodes))

    def _room(self, position: int) -> int:
        """For how many symbols there is memory at the nodes that are still read when it is at ``position``."""
        nodes = self.relaxed.network.nodes
        live = sum(nodes[i].size for i in self._live(position))
        return self.relaxed.budget.memory // (live * self.centre[0].element_size())

    def _live(self, position: int) -> set[int]:
        """Nodes up to ``position`` that are read from beyond it, and itself."""
        nodes = self.relaxed.network.nodes
        return {position} | {i for node in nodes[position + 1 :] for i in node.inputs if i <= position}

    def bounds(self, position: int) -> Bounds:
        """Of the node at ``position``, all before which are bounded, where the zonotope is carried to; infinite where
        there are none: (1 x shape). Raises :class:`Expired` when the time is over; it is of no use then."""
        self._carry(position)
        precision, centre = self._precision, self.centre[position]
        radius = self.size[position] * (1 + 2 * gamma(self.symbols + FEW, precision.unit)) + self.rest[position]
        slack = 8 * precision.unit * (centre.abs() + radius) + precision.dust
        lower, upper = centre - radius - slack, centre + radius + slack
        is_known = lower.isfinite() & upper.isfinite()
        return Bounds(torch.where(is_known, lower, -inf), torch.where(is_known, upper, inf))

    @property
    def _precision(self) -> rounding.Precision:
        assert self.relaxed.rounding is not None
        return self.relaxed.rounding.precision

    def _share(self, count: int) -> float:
        """What sums of so many terms lose at most, relative to their size, and what is done with it after; four times
        that, so that bounds of losses may be rounded themselves."""
        return 4 * gamma(count + FEW, self._precision.unit)

    def _carry(self, position: int) -> None:
        nodes, begin = self.relaxed.network.nodes, self.position + 1
        if not self.position:
            inputs = self.size[0].flatten().nonzero().flatten()
            self.chunks = [{0: _images(self.size[0], some)} for some in torch.split(inputs, self._chunk)]
        lines: dict[int, Line] = {}
        for i in range(begin, position + 1):
            self.size.append(self.centre[0].new_zeros(1, *nodes[i].shape))
            op = nodes[i].op
            if isinstance(op, (Relu, LeakyRelu)):
                lines[i] = chord(op, self.relaxed.bounds[nodes[i].inputs[0]])
        live = self._live(position)
        room = self._room(position) - self.symbols
        boxed = {}
        for k, images in enumerate(self.chunks):
            self.chunks[k] = self._through(images, begin, position, lines, live)
        for i, line in lines.items():
            z, half = self.relaxed.bounds[nodes[i].inputs[0]], (line.high - line.low) / 2
            fresh = ((z.lower < 0) & (z.upper > 0)).flatten().nonzero().flatten()
            if len(fresh) > room:
                fresh = half.flatten().topk(max(room, 0)).indices
            room -= len(fresh)
            boxed[i] = half.flatten().index_fill(0, fresh, 0.0).view_as(half)
            for some in torch.split(fresh, self._chunk):
                seed = _images(half, some)
                self.size[i] += seed.sum(0)
                self.chunks.append(self._through({i: seed}, i + 1, position, lines, live))
        for i in range(begin, position + 1):
            self._note(i, lines.get(i), boxed.get(i))
        self.position = position

    def _through(self, images: Images, begin: int, position: int, lines: dict[int, Line], live: set[int]) -> Images:
        """Symbols' images through the nodes from ``begin`` to ``position``, at those of them that are ``live``."""
        nodes = self.relaxed.network.nodes
        images = dict(images)
        for i in range(begin, position + 1):
            self.relaxed.budget.check()
            parts = [images.get(k) for k in nodes[i].inputs]
            for k in set(nodes[i].inputs):
                if k not in live and not any(k in node.inputs for node in nodes[i + 1 : position + 1]):
                    images.pop(k, None)
            some = next((p for p in parts if p is not None), None)
            if some is None:
                continue
            made = some * lines[i].slope if i in lines else self._affine(i, parts, len(some))
            self.size[i] += made.abs().sum(0)
            images[i] = made
        return {k: t for k, t in images.items() if k in live}

    def _affine(self, position: int, parts: Sequence[Tensor | None], symbols: int) -> Tensor:
        nodes = self.relaxed.network.nodes
        node = nodes[position]
        if isinstance(node.op, (Add, Sub)) and None in parts:
            a, b = parts
            assert (a is None) != (b is None)
            if a is not None:
                return a
            assert b is not None
            return b if isinstance(node.op, Add) else -b
        like = self.centre[0]
        full = [
            like.new_zeros(symbols, *nodes[k].shape) if part is None else part
            for k, part in zip(node.inputs, parts, strict=True)
        ]
        op, count = linear_map(node.op), self._at_once(node.shape, node.op)
        blocks = zip(*(torch.split(part, count) for part in full), strict=True)
        if isinstance(op, Conv2d) and op.groups == 1 and prod(node.shape[1:]) <= FEW_PLACES:
            return torch.cat([_convolved(op, images, node.shape) for (images,) in blocks])
        return torch.cat([evaluate(op, *some) for some in blocks])

    @property
    def _chunk(self) -> int:
        """Symbols that are kept together."""
        return max(1, BLOCK // max(node.size for node in self.relaxed.network.nodes))

    def _at_once(self, shape: tuple[int, ...], op: Op) -> int:
        """Images that an operation makes at a time."""
        spread = op.weight[0].numel() * prod(shape[1:]) if isinstance(op, Conv2d) else 0
        return max(1, CACHED // max(spread, prod(shape), 1))

    def _note(self, position: int, line: Line | None, boxed: Tensor | None) -> None:
        """Centre and rest of a node, whose size is known."""
        node, dust = self.relaxed.network.nodes[position], self._precision.dust
        sizes = [self.centre[i].abs() + self.size[i] + self.rest[i] for i in node.inputs]
        if line is None:
            share = self._share(terms(node.op))
            self.centre.append(evaluate(node.op, *(self.centre[i] for i in node.inputs)))
            rest = evaluate(radius_map(node.op), *(self.rest[i] for i in node.inputs))
            self.rest.append(rest + share * evaluate(magnitude_map(node.op), *sizes) + dust)
            return
        assert boxed is not None
        (source,) = node.inputs
        z, slope = self.relaxed.bounds[source], line.slope.abs()
        self.centre.append(line.slope * self.centre[source] + (line.low + line.high) / 2)
        ends = rounding.largest(z)
        height = line.low.abs() + line.high.abs() + slope * (sizes[0] + ends)
        height = height + torch.where((line.low == 0) & (line.high == 0), 0.0, ends)
        self.rest.append(slope * self.rest[source] + boxed + self._share(terms(node.op)) * height + dust)


def _convolved(op: Conv2d, images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A convolution without its constant as one product for all images, (images x shape): the sums are the same."""
    read = F.unfold(images, tuple(op.weight.shape[2:]), op.dilation, op.padding, op.stride)
    made = op.weight.flatten(1) @ read.transpose(0, 1).reshape(read.shape[1], -1)
    return made.view(shape[0], len(images), *shape[1:]).transpose(0, 1)


def _images(values: Tensor, features: Tensor) -> Tensor:
    """One image for each of some features, by number, which is 0 elsewhere: (features x shape), values (1 x shape)."""
    images = values.new_zeros(len(features), values.numel())
    images[torch.arange(len(features)), features] = values.flatten()[features]
    return images.view(-1, *values.shape[1:])


def products_of_a_row(network: Network, position: int) -> float:
    """How many products a row of one neuron takes from the node at ``position`` to the input, about: of images it reads
    the window that it depends on."""
    nodes = network.nodes
    windows: dict[int, tuple[float, float]] = {position: (1, 1)}
    total = 0.0
    for i in range(position, 0, -1):
        if i not in windows:
            continue
        node, (height, width) = nodes[i], windows[i]
        is_image = len(node.shape) == 3
        share = min(1.0, height / node.shape[1]) * min(1.0, width / node.shape[2]) if is_image else 1.0
        total += share * terms(node.op) * node.size
        for k in node.inputs:
            reach = (inf, inf)
            if isinstance(node.op, Conv2d) and is_image:
                (sy, sx), (ky, kx) = node.op.stride, node.op.weight.shape[2:]
                reach = ((height - 1) * sy + ky, (width - 1) * sx + kx)
            elif nodes[k].shape == node.shape:
                reach = (height, width)
            old = windows.get(k, (0, 0))
            windows[k] = (max(old[0], reach[0]), max(old[1], reach[1]))
    return total
