"""Zonotopes carried forwards through a network (DeepZ: Singh et al. 2018, Fast and effective robustness certification):
bounds of all neurons of all layers, for one pass of as many images as there are inputs and unstable neurons.

A node's value is ``centre + symbols @ coefficients + e``: symbols between -1 and 1, one for each input and each
unstable neuron, and ``|e| <= rest``, which takes what rounding loses and the neurons for which there is no room. Rows
that go backwards cost a pass each, so that this is for deep networks on small regions, where intervals settle no neuron
of tens of thousands and there are few unstable ones. Symbols share images as long as they reach small windows
(:mod:`assay.verify.bounds.colours`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from math import inf, isfinite

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.bounds import rounding
from assay.verify.bounds.backward.affine import homogeneous
from assay.verify.bounds.colours import Colours, Window, reaches, side_by_side
from assay.verify.bounds.interval import radius_map
from assay.verify.bounds.lengths import SLACK, length, stretch
from assay.verify.bounds.memo import per_op, remember
from assay.verify.bounds.relaxations.relax import relax
from assay.verify.bounds.relaxed import Relaxed, middle_and_radius
from assay.verify.core.network import Network, Node
from assay.verify.core.ops import Add, Conv2d, LeakyRelu, Op, Relu, Sub, evaluate
from assay.verify.core.roundings import magnitude, terms
from assay.verify.core.verifier import Bounds
from assay.verify.support import devices
from assay.verify.support.floats import gamma

BLOCK = 1 << 22  # coefficients of the symbols that are kept together, at a node
CACHED = 1 << 19  # numbers that an operation reads, or makes, at a time, about
FEW = 32  # more roundings than what is done beside an operation's own sums takes
DEAR = 1 << 31  # products of rows that take half a second or so: for less it is not worth while
FASTER = 3.0  # so many products forwards, of images, take as long as one of rows backwards, of windows
BESIDE = 32  # symbols at places of their own, at least, that are kept side by side

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


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some ``symbols``, so many, that begin at the node ``seed``, with the images of their coefficients by position
    (images x shape), without an entry 0: one for each of them, or fewer where they have ``colours``."""

    seed: int
    symbols: int
    images: dict[int, Tensor]
    colours: Colours | None = None

    def count(self, window: Window | None) -> int:
        """How many images there will be at a node that symbols reach by this window, or at one that they reach all
        of."""
        if self.colours is None or window is None:
            return self.symbols
        return min(self.symbols, self.colours.within(window).images)


@dataclass(eq=False)
class Zonotopes:
    """The zonotope of one sample, as far as it was carried through the network that ``relaxed`` bounds: ``chunks`` of
    symbols, with their coefficients at the nodes that are still read; ``centre`` and ``rest`` of all nodes, (1 x shape)
    each; ``size``: the sum of the coefficients' magnitudes; ``length``: of a node's ``e``, which is at most so long."""

    relaxed: Relaxed
    position: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    centre: list[Tensor] = field(default_factory=list)
    rest: list[Tensor] = field(default_factory=list)
    size: list[Tensor] = field(default_factory=list)
    length: list[float] = field(default_factory=list)
    reached: dict[int, dict[int, Window]] = field(default_factory=dict)

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
        here.length = [length(here.rest[0])]
        return here if here.end > 2 or here.end == len(relaxed.network.nodes) else None

    @cached_property
    def end(self) -> int:
        """The first node that it cannot be carried to, since the operation there has no rule."""
        nodes = self.relaxed.network.nodes
        kinds = (Relu, LeakyRelu)
        return next((i for i, n in enumerate(nodes) if i and not (n.op.affine or isinstance(n.op, kinds))), len(nodes))

    def pays(self, position: int, rows: int) -> bool:
        """Whether it costs clearly less to carry it to the node at ``position`` than as many ``rows`` on their way
        down, and there is room for it."""
        if (
            position >= self.end
            or rows * self._products[position] <= DEAR
            or bool((self.rest[-1] >= self.size[-1]).all())
        ):
            return False
        work = rows * products_of_a_row(self.relaxed.network, position)
        return work > DEAR and self._work(position) <= FASTER * work and self._images(position) <= self._room(position)

    def _work(self, position: int) -> int:
        """How many products it takes to carry it to the node at ``position``."""
        self._begin()
        nodes, products = self.relaxed.network.nodes, self._products
        work = 0
        for i in range(self.position + 1, position + 1):
            work += self._images(i) * (products[i] - products[i - 1])
            if isinstance(nodes[i].op, (Relu, LeakyRelu)):
                work += int(self._unstable(i).sum()) * (products[position] - products[i])
        return work

    def _images(self, position: int) -> int:
        """How many images the symbols that are there take at a node."""
        return sum(c.count(self._windows(c.seed).get(position) if c.colours else None) for c in self.chunks)

    def _unstable(self, position: int) -> Tensor:
        """Which neurons of an activation are: (1 x shape)."""
        z = self.relaxed.bounds[self.relaxed.network.nodes[position].inputs[0]]
        return (z.lower < 0) & (z.upper > 0)

    def _windows(self, seed: int) -> dict[int, Window]:
        """See :func:`assay.verify.bounds.colours.reaches`."""
        return remember(self.reached, seed, lambda: reaches(self.relaxed.network.nodes, seed))

    @cached_property
    def _products(self) -> list[int]:
        """How many products an image takes from the input to each node."""
        return list(accumulate(max(1, terms(node.op)) * node.size for node in self.relaxed.network.nodes))

    def _room(self, position: int) -> int:
        """For how many images there is memory at the nodes that are still read when it is at ``position``."""
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
        symbols = sum(chunk.symbols for chunk in self.chunks)
        radius = self.size[position] * (1 + 2 * gamma(symbols + FEW, precision.unit)) + self.rest[position]
        slack = 8 * precision.unit * (centre.abs() + radius) + precision.dust
        lower, upper = centre - radius - slack, centre + radius + slack
        is_known = lower.isfinite() & upper.isfinite()
        return Bounds(torch.where(is_known, lower, -inf), torch.where(is_known, upper, inf))

    def unsure(self) -> Tensor:
        """The share of each radius at the node where it is that is not the input's own, but what lines, and rounding,
        take on the way: (1 x shape)."""
        position = self.position
        own = (c.images[position] for c in self.chunks if c.seed == 0 and position in c.images)
        radius = self.size[position] + self.rest[position]
        return 1 - sum((_magnitude(t) for t in own), torch.zeros_like(radius)) / radius

    @property
    def _precision(self) -> rounding.Precision:
        assert self.relaxed.rounding is not None
        return self.relaxed.rounding.precision

    def _share(self, count: int) -> float:
        """What sums of so many terms lose at most, relative to their size, and what is done with it after; four times
        that, so that bounds of losses may be rounded themselves."""
        return 4 * gamma(count + FEW, self._precision.unit)

    def _begin(self) -> None:
        """Symbols of the input."""
        if not self.position and not self.chunks:
            self.chunks = self._seeded(0, self.size[0], self.size[0].flatten().nonzero().flatten())

    def _seeded(self, position: int, values: Tensor, features: Tensor) -> list[Chunk]:
        """A symbol for each of some features of a node, by number, with its coefficient among ``values`` (1 x
        shape)."""
        shape, chunks = self.relaxed.network.nodes[position].shape, list[Chunk]()
        if len(shape) == 3:
            beside, features = side_by_side(shape, features, BESIDE)
            for colours, some in beside:
                image = torch.zeros_like(values).flatten().index_copy_(0, some, values.flatten()[some])
                chunks.append(Chunk(position, len(some), {position: image.view_as(values)}, colours))
        for some in torch.split(features, self._chunk) if len(features) else []:
            chunks.append(Chunk(position, len(some), {position: _images(values, some)}))
        return chunks

    def _carry(self, position: int) -> None:
        nodes, begin = self.relaxed.network.nodes, self.position + 1
        self._begin()
        lines: dict[int, Line] = {}
        for i in range(begin, position + 1):
            self.size.append(self.centre[0].new_zeros(1, *nodes[i].shape))
            op = nodes[i].op
            if isinstance(op, (Relu, LeakyRelu)):
                lines[i] = chord(op, self.relaxed.bounds[nodes[i].inputs[0]])
        live = self._live(position)
        room = self._room(position) - self._images(position)
        boxed = {}
        carried = list[Chunk]()
        while self.chunks:  # of which one at a time is there twice
            carried += self._through(self.chunks.pop(), begin, position, lines, live)
        self.chunks = carried
        for i, line in lines.items():
            half = (line.high - line.low) / 2
            fresh = self._unstable(i).flatten().nonzero().flatten()
            if len(fresh) > room:
                fresh = half.flatten().topk(max(room, 0)).indices
            room -= len(fresh)
            boxed[i] = half.flatten().index_fill(0, fresh, 0.0).view_as(half)
            for seeded in self._seeded(i, half, fresh):
                self.size[i] += seeded.images[i].sum(0)
                self.chunks += self._through(seeded, i + 1, position, lines, live)
        for i, line in lines.items():
            self.size[i] += line.slope.abs() * self.size[nodes[i].inputs[0]]
        for i in range(begin, position + 1):
            self._note(i, lines.get(i), boxed.get(i))
        self.position = position

    def _through(self, chunk: Chunk, begin: int, position: int, lines: dict[int, Line], live: set[int]) -> list[Chunk]:
        """Symbols' images through the nodes from ``begin`` to ``position``, at those of them that are ``live``: more
        chunks than one where symbols do not stay side by side."""
        nodes = self.relaxed.network.nodes
        images, colours = dict(chunk.images), chunk.colours
        for i in range(begin, position + 1):
            self.relaxed.budget.check()
            if not any(k in images for k in nodes[i].inputs):
                continue
            if colours is not None:
                windows = self._windows(chunk.seed)
                if chunk.count(windows.get(i)) == chunk.symbols:
                    apart = self._apart(replace(chunk, images=images, colours=colours))
                    return [c for part in apart for c in self._through(part, i, position, lines, live)]
                new = colours.within(windows[i])
                if new is not colours:
                    images = {k: colours.spread(t, windows[k], new) for k, t in images.items()}
                    colours = new
            parts = [images.get(k) for k in nodes[i].inputs]
            for k in set(nodes[i].inputs):
                if k not in live and not any(k in node.inputs for node in nodes[i + 1 : position + 1]):
                    images.pop(k, None)
            made = self._made(i, parts, lines.get(i))
            if i not in lines:
                self.size[i] += _magnitude(made)
            images[i] = made
        return [replace(chunk, images={k: t for k, t in images.items() if k in live}, colours=colours)]

    def _apart(self, chunk: Chunk) -> Iterator[Chunk]:
        """The chunk in pieces whose symbols have an image each."""
        assert chunk.colours is not None
        windows = self._windows(chunk.seed)
        for some in torch.split(torch.arange(chunk.symbols), self._chunk):
            images = {k: chunk.colours.apart(t, windows[k], some) for k, t in chunk.images.items()}
            yield Chunk(chunk.seed, len(some), images)

    def _made(self, position: int, parts: Sequence[Tensor | None], line: Line | None) -> Tensor:
        some = next(p for p in parts if p is not None)
        return self._affine(position, parts, len(some)) if line is None else some * line.slope

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
        op, count = linear_map(node.op), max(1, CACHED // max(nodes[i].size for i in (position, *node.inputs)))
        blocks = zip(*(torch.split(part, count) for part in full), strict=True)
        if isinstance(op, Conv2d) and op.groups == 1 and like.dtype == torch.float64:
            return torch.cat([_convolved(op, images, node.shape) for (images,) in blocks])
        return torch.cat([evaluate(op, *some) for some in blocks])

    @property
    def _chunk(self) -> int:
        """Symbols that are kept together."""
        return max(1, BLOCK // max(node.size for node in self.relaxed.network.nodes))

    def _note(self, position: int, line: Line | None, boxed: Tensor | None) -> None:
        """Centre and rest of a node, whose size is known."""
        node, dust = self.relaxed.network.nodes[position], self._precision.dust
        sizes = [self.centre[i].abs() + self.size[i] + self.rest[i] for i in node.inputs]
        if line is None:
            share = self._share(terms(node.op))
            self.centre.append(evaluate(node.op, *(self.centre[i] for i in node.inputs)))
            fresh = share * evaluate(magnitude_map(node.op), *sizes) + dust
            rest = evaluate(radius_map(node.op), *(self.rest[i] for i in node.inputs)) + fresh
            self._note_rest(node, rest, fresh)
            return
        assert boxed is not None
        (source,) = node.inputs
        z, slope = self.relaxed.bounds[source], line.slope.abs()
        self.centre.append(line.slope * self.centre[source] + (line.low + line.high) / 2)
        ends = rounding.largest(z)
        height = line.low.abs() + line.high.abs() + slope * (sizes[0] + ends)
        height = height + torch.where((line.low == 0) & (line.high == 0), 0.0, ends)
        fresh = boxed + self._share(terms(node.op)) * height + dust
        self.rest.append(slope * self.rest[source] + fresh)
        passed = float(slope.amax()) * self.length[source] + length(fresh)
        self.length.append(min(length(self.rest[-1]), passed * SLACK))

    def _note_rest(self, node: Node, rest: Tensor, fresh: Tensor) -> None:
        """The rest of a node that is no activation, of which ``fresh`` begins there (1 x shape), and its length."""
        read = self.relaxed.network.nodes[node.inputs[0]].shape
        below, known = [self.length[i] for i in node.inputs], stretch(node.op, read)
        if known is not None and isfinite(below[0]):
            rest = torch.minimum(rest, known.each * below[0] + fresh)
            passed = known.whole * below[0] + length(fresh)
        else:
            passed = sum(below) + length(fresh) if isinstance(node.op, (Add, Sub)) else inf
        self.rest.append(rest)
        self.length.append(min(length(rest), passed * SLACK))


def _magnitude(images: Tensor) -> Tensor:
    """The sum of the magnitudes of some images: (images x shape) to (shape)."""
    total = torch.zeros_like(images[0])
    for part in torch.split(images, max(1, CACHED // total.numel())):
        total += part.abs().sum(0)
    return total


def _convolved(op: Conv2d, images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A convolution of all channels without its constant, (images x shape): one product of all images for each element
    of the kernel."""
    (down, across), (dy, dx), (top, left), (_, height, width) = op.stride, op.dilation, op.padding, shape
    read = F.pad(images.transpose(0, 1), (left, left, top, top))
    made = images.new_zeros(shape[0], len(images) * height * width)
    for y, row in enumerate(_taps(op)):
        for x, tap in enumerate(row):
            rows = slice(y * dy, y * dy + down * (height - 1) + 1, down)
            columns = slice(x * dx, x * dx + across * (width - 1) + 1, across)
            made.addmm_(tap, read[:, :, rows, columns].reshape(len(read), -1))
    return made.view(shape[0], len(images), height, width).transpose(0, 1)


@per_op
def _taps(op: Op) -> Tensor:
    """The kernel, element by element: (height x width x outputs x inputs)."""
    assert isinstance(op, Conv2d)
    return op.weight.permute(2, 3, 0, 1).contiguous()


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
