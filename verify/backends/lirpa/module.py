"""A network as the nn.Module that auto_LiRPA reads: plain layers in float64, in forms that all its releases get right.

Releases differ in what they can propagate. These forms avoid what release 0.3 has wrong or lacks: the dilation
and groups of a convolution are spelled out in its kernel, a Linear on an axis of an image becomes one on all of it,
``a - b`` becomes ``a + (-b)``. All releases take a LeakyReLU for convex, which it is not where its slope is above 1:
it is turned about (:func:`convex`). The registered rules are the list of what is supported.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from math import prod

import torch
from torch import Tensor, nn

from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Builder, Network, Node
from assay.verify.core.ops import Add, Concat, Conv2d, Input, LeakyRelu, Linear, Op, Relu, Reshape, Scale, Sub

Shape = tuple[int, ...]


@singledispatch
def layer(op: Op, shape: Shape) -> nn.Module:
    """The layer that computes ``op`` on operands of which the first has ``shape``, without the batch dimension."""
    raise UnsupportedError(f"operation {op.label} is not given to auto_LiRPA")


def unsupported(network: Network) -> list[str]:
    """Operations of the network that have no rule here."""
    known = layer.registry.keys() - {object, Op}
    return sorted({node.op.label for node in network.nodes if type(node.op) not in {*known, Input}})


def convex(network: Network) -> Network:
    """The same function without a slope above 1: a LeakyReLU of slope s at z is ``-s`` times one of slope 1 / s at -z.

    1 / s is rounded once, which is less than what is charged for the scaling by -s that follows.
    """
    if not any(_is_concave(node.op) for node in network.nodes):
        return network
    builder, moved = Builder(network.input_shape), [0]
    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for node in network.nodes[1:]:
        op, inputs = node.op, [moved[i] for i in node.inputs]
        if isinstance(op, LeakyRelu) and _is_concave(op):
            turned = builder.add(LeakyRelu(1 / op.slope), builder.add(Scale(-one, zero), *inputs))
            op, inputs = Scale(-op.slope * one, zero), [turned]
        moved.append(builder.add(op, *inputs))
    return builder.build(moved[-1], dtype=network.dtype)


def _is_concave(op: Op) -> bool:
    return isinstance(op, LeakyRelu) and op.slope > 1


class Layers(nn.Module):
    """``network`` as layers: (batch x input shape) to (batch x outputs).

    ``batched``: constants get a leading dimension of 1, which release 0.3 needs and newer ones warn of.
    """

    def __init__(self, network: Network, batched: bool = False) -> None:
        super().__init__()
        nodes = network.nodes
        self.sources = [node.inputs for node in nodes[1:]]
        self.layers = nn.ModuleList(
            nn.Identity() if _repeats(node, nodes) else layer(node.op, nodes[node.inputs[0]].shape)
            for node in nodes[1:]
        )
        self.output: nn.Module = View((network.output_size,))
        if not any(True for _ in self.layers.parameters()):  # auto_LiRPA takes the dtype from the first parameter
            size = network.output_size
            last = linear(torch.eye(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64))
            self.output = nn.Sequential(self.output, last)
        for part in self.layers:
            if isinstance(part, Affine) and batched:
                part.factor, part.shift = part.factor[None], part.shift[None]
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """The output at x: (batch x shape) to (batch x outputs)."""
        values = [x]
        for sources, part in zip(self.sources, self.layers, strict=True):
            values.append(part(*(values[i] for i in sources)))
        scores: Tensor = self.output(values[-1])
        return scores


def _repeats(node: Node, nodes: Sequence[Node]) -> bool:
    """Whether a ReLU follows a ReLU, which changes nothing and makes release 0.3 fail."""
    return isinstance(node.op, Relu) and isinstance(nodes[node.inputs[0]].op, Relu)


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A Linear layer with ``weight`` (outputs x inputs) and ``bias`` (outputs); none is drawn at random first."""
    part = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    part.weight, part.bias = nn.Parameter(weight), nn.Parameter(bias)
    return part


class View(nn.Module):
    """Reshaping of all dimensions but the batch."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """(batch x ...) to (batch x shape)."""
        return x.reshape(-1, *self.shape)


class Affine(nn.Module):
    """Scale and shift of each value; ``factor`` and ``shift`` have the shape of one sample."""

    factor: Tensor
    shift: Tensor

    def __init__(self, factor: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor.clone())
        self.register_buffer("shift", shift.clone())

    def forward(self, x: Tensor) -> Tensor:
        """(batch x shape) to itself."""
        scaled: Tensor = x * self.factor + self.shift
        return scaled


class Sum(nn.Module):
    """``a + b``, or ``a + (-b)``."""

    def __init__(self, negative: bool = False) -> None:
        super().__init__()
        self.negative = negative

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two operands of one shape."""
        return a + torch.neg(b) if self.negative else a + b


class Beside(nn.Module):
    """Operands side by side along ``axis``, the batch dimension counted."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *parts: Tensor) -> Tensor:
        """Any number of operands, (batch x shape) each."""
        return torch.cat(parts, self.axis)


@layer.register
def _(op: Linear, shape: Shape) -> nn.Module:
    if len(shape) == 1:
        return linear(op.weight, op.bias)
    count = prod(shape[:-1])
    whole = linear(torch.kron(torch.eye(count, dtype=op.weight.dtype), op.weight), op.bias.repeat(count))
    return nn.Sequential(View((prod(shape),)), whole, View((*shape[:-1], len(op.weight))))


@layer.register
def _(op: Conv2d, shape: Shape) -> nn.Module:
    kernel = spelled_out(op.weight, op.dilation, op.groups)
    outputs, inputs, height, width = kernel.shape
    part = nn.Conv2d(inputs, outputs, (height, width), op.stride, op.padding, device="meta")
    part.weight, part.bias = nn.Parameter(kernel), nn.Parameter(op.bias)
    return part


@layer.register
def _(op: Scale, shape: Shape) -> nn.Module:
    return Affine(op.factor.expand(shape), op.shift.expand(shape))


@layer.register
def _(op: Relu, shape: Shape) -> nn.Module:
    return nn.ReLU()


@layer.register
def _(op: LeakyRelu, shape: Shape) -> nn.Module:
    if _is_concave(op):
        raise UnsupportedError(f"a LeakyReLU of slope {op.slope:g} is not given to auto_LiRPA as it is")
    return nn.LeakyReLU(op.slope)


@layer.register
def _(op: Add, shape: Shape) -> nn.Module:
    return Sum()


@layer.register
def _(op: Sub, shape: Shape) -> nn.Module:
    return Sum(negative=True)


@layer.register
def _(op: Reshape, shape: Shape) -> nn.Module:
    return View(op.shape)


@layer.register
def _(op: Concat, shape: Shape) -> nn.Module:
    return Beside(op.axis % len(shape) + 1)


def spelled_out(weight: Tensor, dilation: Sequence[int], groups: int) -> Tensor:
    """The kernel of the same convolution without dilation and groups: zeros between, and where a group sees nothing.

    ``weight`` (outputs x inputs of a group x height x width); result (outputs x inputs x height x width), dilated.

    >>> spelled_out(torch.ones(2, 1, 1, 2), (1, 2), 2)[:, :, 0].tolist()
    [[[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [1.0, 0.0, 1.0]]]
    """
    outputs, inputs, height, width = weight.shape
    full = weight.new_zeros(outputs, inputs * groups, (height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1)
    each = outputs // groups
    for group in range(groups):
        rows = slice(group * each, (group + 1) * each)
        columns = slice(group * inputs, (group + 1) * inputs)
        full[rows, columns, :: dilation[0], :: dilation[1]] = weight[rows]
    return full
