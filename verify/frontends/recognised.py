"""Products that are one curve, as files and models often write it out: bounds of the curve are tighter.

``x * sigmoid(x)``, ``x * (1 + erf(x / sqrt(2)))``, ``x * tanh(softplus(x))`` and their like, scaled as they may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from assay.verify.core.network import Builder, Network, Node
from assay.verify.core.ops import Add, Concat, Gather, Op, Product, Relu, Reshape, Scale, Smooth
from assay.verify.frontends.lines import Line, line
from assay.verify.frontends.norms import joined
from assay.verify.frontends.signs import kept_positive


def recognised(network: Network) -> Network:
    """The same function with curves in the place of such products."""
    if not any(isinstance(node.op, (Product, Smooth)) for node in network.nodes):
        return network
    builder, new = Builder(network.input_shape), {0: 0}
    for position, node in enumerate(network.nodes[1:], start=1):
        curved = _curve(network.nodes, node)
        if curved is None:
            builder.nodes.append(replace(node, inputs=tuple(new[i] for i in node.inputs)))
        else:
            at = new[curved.root]
            for op in curved.operations():
                builder.nodes.append(Node(op, (at,), node.shape))
                at = len(builder.nodes) - 1
        new[position] = len(builder.nodes) - 1
    last = new[len(network.nodes) - 1]
    made = builder.build(last, oracle=network.oracle, dtype=network.dtype, name=network.name)
    return kept_positive(joined(replace(made, readout=network.readout)))


@dataclass(frozen=True)
class Curved:
    """``outer * curve(inner * x)`` of the value x at ``root``."""

    root: int
    curve: str
    inner: float = 1.0
    outer: float = 1.0
    parameter: float = 0.0

    def operations(self) -> list[Op]:
        """Its operations, one after the other."""
        curve = Smooth(self.curve, self.parameter)
        return [*_times(self.inner), curve, *_times(self.outer)]


def _times(factor: float) -> list[Op]:
    return [] if factor == 1 else [Scale(torch.tensor(factor, dtype=torch.float64), torch.tensor(0.0).double())]


def _curve(nodes: Sequence[Node], node: Node) -> Curved | None:
    if isinstance(node.op, Smooth) and node.op.curve == "reciprocal":
        inner = nodes[node.inputs[0]]
        root = isinstance(inner.op, Smooth) and inner.op.curve == "sqrt"
        return Curved(inner.inputs[0], "power", parameter=-0.5) if root else None
    sides = _sides(nodes, node)
    if sides is None:
        return None
    for value, gate in (sides, sides[::-1]):
        x, share = line(nodes, value), line(nodes, gate)
        rule = GATES.get(_name(nodes[share.root].op))
        if x.shift == 0 and rule is not None and (made := rule(nodes, x, share)) is not None:
            return made
    return None


def _name(op: Op) -> str:
    return op.curve if isinstance(op, Smooth) else ""


def _sides(nodes: Sequence[Node], node: Node) -> tuple[int, int] | None:
    """The two values that a Product multiplies element by element."""
    if not isinstance(node.op, Product):
        return None
    pairs = nodes[node.inputs[0]]
    if not isinstance(pairs.op, Gather) or not isinstance(nodes[pairs.inputs[0]].op, Concat):
        return None
    parts = nodes[pairs.inputs[0]].inputs
    places = torch.arange(node.size)
    wanted = torch.stack([places, places + node.size], -1).flatten()
    if len(parts) != 2 or not torch.equal(pairs.op.index, wanted):
        return None
    first, second = (nodes[part].inputs[0] if isinstance(nodes[part].op, Reshape) else part for part in parts)
    same = nodes[first].shape == nodes[second].shape == node.shape
    return (first, second) if same else None


def _of_tanh(nodes: Sequence[Node], x: Line, share: Line) -> Curved | None:
    (operand,) = nodes[share.root].inputs
    inner = line(nodes, operand)
    if _name(nodes[inner.root].op) == "softplus" and (inner.factor, inner.shift, share.shift) == (1, 0, 0):
        plus = line(nodes, nodes[inner.root].inputs[0])
        if plus == Line(x.root, 1.0, 0.0):
            return Curved(x.root, "mish", outer=x.factor * share.factor)
    if share.shift != share.factor or inner.shift != 0:
        return None
    if inner.root == x.root and inner.factor > 0:  # x (1 + tanh(k x)) = silu(2 k x) / k
        return Curved(x.root, "silu", 2 * inner.factor, x.factor * share.factor / inner.factor)
    if isinstance(nodes[inner.root].op, Add) and _close(inner.factor, math.sqrt(2 / math.pi)):
        parts = [line(nodes, part) for part in nodes[inner.root].inputs]
        cubes = [p for p in parts if _cubed(nodes, p.root) == x.root and p.shift == 0 and _close(p.factor, 0.044715)]
        if len(cubes) == 1 and Line(x.root, 1.0, 0.0) in parts:
            return Curved(x.root, "gelu_tanh", outer=2 * x.factor * share.factor)
    return None


def _cubed(nodes: Sequence[Node], position: int) -> int | None:
    """The value that this one is the third power of."""
    node = nodes[position]
    if isinstance(node.op, Smooth) and (node.op.curve, node.op.parameter) == ("power", 3.0):
        return node.inputs[0]
    made = _curve(nodes, node)
    return made.root if made is not None and made == Curved(made.root, "power", parameter=3.0) else None


def _close(a: float, b: float) -> bool:
    """Whether two numbers are one in float32."""
    return abs(a - b) <= 1e-7 * abs(b)


def _of_square(nodes: Sequence[Node], x: Line, share: Line) -> Curved | None:
    if share.shift != 0 or nodes[share.root].inputs != (x.root,):
        return None
    return Curved(x.root, "power", outer=x.factor * share.factor, parameter=3.0)


def _of_erf(nodes: Sequence[Node], x: Line, share: Line) -> Curved | None:
    inner = line(nodes, nodes[share.root].inputs[0])
    if inner.root != x.root or inner.shift != 0 or share.shift != share.factor or inner.factor <= 0:
        return None  # x (1 + erf(k x)) = sqrt(2) gelu(sqrt(2) k x) / k
    scale = math.sqrt(2) * inner.factor
    return Curved(x.root, "gelu", scale, 2 * x.factor * share.factor / scale)


def _of_reciprocal(nodes: Sequence[Node], x: Line, share: Line) -> Curved | None:
    inner = line(nodes, nodes[share.root].inputs[0])
    size = nodes[inner.root]
    if share.shift != 0 or (inner.factor, inner.shift) != (1, 1) or not isinstance(size.op, Add):
        return None
    sides = [nodes[part] for part in size.inputs]
    if not all(isinstance(side.op, Relu) for side in sides):
        return None
    lines = sorted((line(nodes, side.inputs[0]) for side in sides), key=lambda one: one.factor)
    if lines != [Line(x.root, -1.0, 0.0), Line(x.root, 1.0, 0.0)]:
        return None
    return Curved(x.root, "softsign", outer=x.factor * share.factor)


GATES: dict[str, Callable[[Sequence[Node], Line, Line], Curved | None]] = {
    "tanh": _of_tanh,
    "erf": _of_erf,
    "reciprocal": _of_reciprocal,
    "square": _of_square,
}
