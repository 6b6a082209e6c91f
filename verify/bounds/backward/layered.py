"""Which networks are chains, dense layers, convolutions and sums with ReLUs between them, and what their layers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, prod

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.bounds.backward.forms import Form, Patches, Units
from assay.verify.bounds.backward.matrix import Cut, matrix
from assay.verify.bounds.memo import per_network
from assay.verify.bounds.rounding import DOUBLE, FEW, SINGLE, STEPS, Precision
from assay.verify.core.network import Network, Node
from assay.verify.core.ops import Add, Conv2d, Linear, Op, Relu, Reshape
from assay.verify.core.roundings import terms
from assay.verify.support.floats import gamma

SUMMED = 128  # products in each block of a sum over features
SMALL = 0.4  # of an image's features a window has less


@dataclass(frozen=True, eq=False)
class Layer:
    """An affine operation in the precision of the bounds, from ``shape``: the magnitude ``steep`` of its weight, its
    ``bias`` and that's ``size`` (outputs); ``wide``, of magnitudes, is lost in an interval."""

    op: Linear | Conv2d
    shape: tuple[int, ...]
    grid: tuple[int, ...]
    steep: Tensor
    bias: Tensor
    size: Tensor
    wide: float

    def products(self, values: Tensor, weight: Tensor) -> Tensor:
        """The operation's sums without its bias, by a ``weight`` that is its own or of its magnitudes, of some inputs
        if it is dense: (n x inputs) to (n x outputs)."""
        if isinstance(self.op, Linear):
            return F.linear(values, weight)
        op = self.op
        return F.conv2d(values.view(-1, *self.shape), weight, None, op.stride, op.padding).flatten(1)

    def back(self, below: Tensor | None, kept: Tensor | None) -> Cut:
        """A convolution's matrix that takes rows of features that are ``kept`` back to those kept ``below``; None is
        all."""
        return matrix(self.op, self.shape).cut(below, kept)

    def rows(self, neurons: Units, weight: Tensor, kept: Tensor | None) -> Form | Patches:
        """Multiples of neurons as rows of what is read, of which a dense layer's ``weight`` reads what is ``kept``."""
        if isinstance(self.op, Linear):
            return Form((weight.index_select(0, neurons.feature) * neurons.value[:, None]).T, kept)
        op, (height, width) = self.op, self.grid[1:]
        channel = neurons.feature // (height * width)
        place = (neurons.feature - channel * (height * width)).int()
        y = torch.div(place, width, rounding_mode="floor")
        coef = op.weight.flatten(1).T.index_select(1, channel) * neurons.value
        assert len(self.shape) == 3
        window = (op.weight.shape[2], op.weight.shape[3])
        rows = Patches(coef, self.shape, window, (y, place - y * width), op.stride, op.padding, op.padding)
        return rows if small(self, window) else Form(rows.dense())


@dataclass(frozen=True, eq=False)
class Chain:
    """A network by the positions of its nodes, without reshapings: what each ``reads``; activations that ``dense``
    layers alone read; which nodes are ``bent`` by activations; the ``layers`` and the first of them, the ``entrance``,
    with its weight and bias in float64.

    Of magnitudes are lost: ``back``, in coefficients of a row that goes back through a layer; ``summed``, in a sum over
    features; ``at_input``, in one over all inputs; ``few``, wherever but few operations are made.
    """

    nodes: Sequence[Node]
    reads: dict[int, tuple[int, ...]]
    dense: frozenset[int]
    bent: frozenset[int]
    layers: dict[int, Layer]
    entrance: int
    double: tuple[Tensor, Tensor]
    precision: Precision
    back: float
    summed: float
    at_input: float
    few: float

    @property
    def dear(self) -> bool:
        """Whether rows go through convolutions."""
        return any(isinstance(layer.op, Conv2d) for layer in self.layers.values())

    @property
    def sums(self) -> bool:
        """Whether rows meet where paths do."""
        return any(isinstance(self.nodes[position].op, Add) for position in self.reads)

    def is_image(self, position: int) -> bool:
        """Whether a layer or a sum has an image's value."""
        return len(self.nodes[position].shape) == 3


@per_network
def chain_of(network: Network) -> Chain | None:
    """The network, whose tensors are of the precision of the bounds; None where it holds anything else."""
    nodes, kinds = network.nodes, (Linear, Conv2d)
    behind = [0]  # what reshapings reshape
    for position, node in enumerate(nodes[1:], start=1):
        behind.append(behind[node.inputs[0]] if isinstance(node.op, Reshape) else position)
    reads = {
        position: tuple(behind[i] for i in node.inputs)
        for position, node in enumerate(nodes)
        if position and behind[position] == position
    }
    first, last = min(reads, default=0), len(nodes) - 1
    bends = {position for position in reads if isinstance(nodes[position].op, Relu)}
    for position, sources in reads.items():
        op = nodes[position].op
        of_layers = all(i and i not in bends for i in sources)
        fits = (
            sources == (0,) if position == first else set(sources) <= bends if isinstance(op, kinds)
            else of_layers if isinstance(op, Relu) else isinstance(op, Add) and 0 not in sources
        )  # fmt: skip
        if not fits or (position == first and not isinstance(op, kinds)):
            return None
    if not bends or not isinstance(nodes[-1].op, Linear) or any(last in sources for sources in reads.values()):
        return None
    weight = nodes[-1].op.weight
    kind = SINGLE if weight.dtype == torch.float32 else DOUBLE
    layers = {}
    for position in reads:
        node, shape = nodes[position], nodes[nodes[position].inputs[0]].shape
        if isinstance(node.op, kinds):
            layer = _layer(node.op, shape, node.shape, kind)
            if layer is None:
                return None
            layers[position] = layer
    apart = frozenset(i for i in bends if all(isinstance(nodes[p].op, Linear) for p in reads if i in reads[p]))
    widest = max(node.size for node in nodes)
    steps = FEW + sum(STEPS + kind.conversions + len(node.inputs) for node in nodes)
    most = max(widest, *(terms(layer.op) for layer in layers.values()))
    own = gamma(most + steps, kind.unit)  # of the losses themselves
    summed = max(nodes[-1].size, min(widest, max(2 * SUMMED, SUMMED + 2 + widest // SUMMED)))
    counts = max(_readers(layer.op) for layer in layers.values()), summed, nodes[0].size, 0
    shares = (gamma(count + steps, kind.unit) * (1 + 16 * own) if own < 1 / 16 else inf for count in counts)
    double, bent = (
        (layers[first].op.weight.double(), layers[first].bias.double()),
        frozenset(i for position in bends for i in reads[position]),
    )
    return Chain(nodes, reads, apart, bent, layers, first, double, kind, *shares)


def _layer(op: Op, shape: tuple[int, ...], grid: tuple[int, ...], kind: Precision) -> Layer | None:
    """None for what is neither a dense layer nor a convolution of all channels."""
    if not isinstance(op, (Linear, Conv2d)) or op.weight.requires_grad or op.bias.requires_grad:
        return None
    if isinstance(op, Linear) and len(grid) > 1:
        return None  # one weight for each place of an axis
    if isinstance(op, Conv2d) and (op.groups > 1 or op.dilation != (1, 1)):
        return None
    bias = op.bias if isinstance(op, Linear) else op.bias.view(-1, 1, 1).expand(grid).flatten()
    return Layer(op, shape, grid, op.weight.abs(), bias, bias.abs(), 2 * gamma(terms(op) + FEW, kind.unit))


def _readers(op: Linear | Conv2d) -> int:
    """How many products are summed into one coefficient of an input, at most."""
    if isinstance(op, Linear):
        return len(op.weight)
    taps = (-(-k // s) for k, s in zip(op.weight.shape[2:], op.stride, strict=True))
    return len(op.weight) * prod(taps)


def small(layer: Layer, window: tuple[int, int]) -> bool:
    """Whether a window of what a convolution reads has so few elements that rows are kept on it."""
    return layer.shape[0] * prod(window) < SMALL * prod(layer.shape)
