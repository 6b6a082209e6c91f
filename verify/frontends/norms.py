"""Values over the root of a mean of their squares, as models write layer and RMS normalisation out: bounds of the whole
are tighter than those of a product."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from assay.verify.core.network import Builder, Network, Node, content_hash
from assay.verify.core.ops import Concat, Gather, Linear, Op, Product, Reshape, Smooth
from assay.verify.frontends import composed
from assay.verify.frontends.composed import Value
from assay.verify.frontends.lines import line


@dataclass(frozen=True, eq=False)
class Norm:
    """``x / sqrt(factor * (sum x^2 + shift))`` of rows: positions of x and of its squares, where their elements lie
    there (rows x count), and which of these each element of the value is (elements)."""

    x: tuple[int, Tensor]
    squares: tuple[int, Tensor]
    factor: float
    shift: float
    place: Tensor


def joined(network: Network) -> Network:
    """The same function with one operation in the place of such products."""
    nodes = network.nodes
    if not {"sqrt", "power"} & {node.op.curve for node in nodes if isinstance(node.op, Smooth)}:
        return network
    first = _first_alike(nodes)
    found = {i: norm for i, node in enumerate(nodes) if (norm := _norm(nodes, node, first)) is not None}
    if not found:
        return network
    builder, new = Builder(network.input_shape), {0: 0}

    def emit(op: Op, *values: Value, shape: tuple[int, ...]) -> Value:
        builder.nodes.append(Node(op, tuple(value.position for value in values), shape))
        return Value(len(builder.nodes) - 1, shape)

    def picked(position: int, index: Tensor, shape: tuple[int, ...], of: Value | None = None) -> Value:
        value = Value(new[position], nodes[position].shape) if of is None else of
        if torch.equal(index.flatten(), torch.arange(value.size)):
            return composed.reshaped(emit, value, shape)
        return composed.picked(emit, value, index, shape)

    for position, node in enumerate(nodes[1:], start=1):
        if position not in found:
            builder.nodes.append(replace(node, inputs=tuple(new[i] for i in node.inputs)))
        else:
            norm = found[position]
            x, squares = (picked(i, index, tuple(index.shape)) for i, index in (norm.x, norm.squares))
            y = composed.over_root(emit, x, squares, norm.shift)
            y = composed.scaled(emit, y, (norm.factor * x.shape[-1]) ** -0.5)
            picked(position, norm.place, node.shape, y)
        new[position] = len(builder.nodes) - 1
    made = builder.build(new[len(nodes) - 1], oracle=network.oracle, dtype=network.dtype, name=network.name)
    return replace(made, readout=network.readout)


def _inverse_root(nodes: tuple[Node, ...], value: tuple[int, Tensor]) -> tuple[int, Tensor] | None:
    """What elements are one over the root of, and their indices there."""
    position, index = value
    op = nodes[position].op
    if not isinstance(op, Smooth):
        return None
    if (op.curve, op.parameter) == ("power", -0.5):
        return nodes[position].inputs[0], index
    inner, index = _origin(nodes, nodes[position].inputs[0], index)
    root = nodes[inner].op
    whole = op.curve == "reciprocal" and isinstance(root, Smooth) and root.curve == "sqrt"
    return (nodes[inner].inputs[0], index) if whole else None


def _first_alike(nodes: tuple[Node, ...]) -> list[int]:
    """The first node that computes the same as each: models write a difference out as often as they read it."""
    seen: dict[str, int] = {}
    first: list[int] = []
    for position, node in enumerate(nodes):
        key = content_hash(node.op, tuple(first[i] for i in node.inputs), node.shape)
        first.append(seen.setdefault(key, position))
    return first


def _norm(nodes: tuple[Node, ...], node: Node, first: list[int]) -> Norm | None:
    if not isinstance(node.op, Product):
        return None
    pairs = torch.arange(2 * node.size).view(-1, 2)
    sides = [_origin(nodes, node.inputs[0], side) for side in pairs.unbind(1)]
    for x, share in (sides, sides[::-1]):
        if (inside := _inverse_root(nodes, share)) is None:
            continue
        size = line(nodes, inside[0])
        last, row = _origin(nodes, size.root, inside[1])
        total = nodes[last]
        if not isinstance(total.op, Linear) or len(weight := total.op.weight) != 1:
            continue
        count = weight.shape[1]
        squares = _origin(nodes, total.inputs[0], torch.arange(total.size * count))
        power = nodes[squares[0]].op
        if not (isinstance(power, Smooth) and power.curve == "square"):
            continue
        if not 1 < count <= composed.DENSE or bool((weight != weight[0, 0]).any()):
            continue
        factor, shift = size.factor * float(weight[0, 0]), size.shift + size.factor * float(total.op.bias)
        root = _origin(nodes, nodes[squares[0]].inputs[0], squares[1])
        own = root[1].view(-1, count)[row] == x[1][:, None]
        if first[root[0]] == first[x[0]] and bool(own.any(1).all()) and factor > 0 and shift > 0:
            place = row * count + own.int().argmax(1)
            rows = root[1].view(-1, count)
            return Norm((root[0], rows), (squares[0], squares[1].view(-1, count)), factor, shift / factor, place)
    return None


def _origin(nodes: tuple[Node, ...], position: int, index: Tensor) -> tuple[int, Tensor]:
    """The value from which elements, by their flat indices, were only moved, and their indices there."""
    while True:
        node = nodes[position]
        if isinstance(node.op, Gather):
            moved = node.op.index[index]
            if bool((moved < 0).any()):
                return position, index
            position, index = node.inputs[0], moved
        elif isinstance(node.op, Reshape):
            position = node.inputs[0]
        elif isinstance(node.op, Concat):
            shapes = [nodes[i].shape for i in node.inputs]
            part = torch.cat([torch.full(s, k) for k, s in enumerate(shapes)], node.op.axis).flatten()[index]
            if bool((part != part[0]).any()):
                return position, index
            place = [torch.arange(nodes[i].size).view(s) for i, s in zip(node.inputs, shapes, strict=True)]
            position, index = node.inputs[int(part[0])], torch.cat(place, node.op.axis).flatten()[index]
        else:
            return position, index
