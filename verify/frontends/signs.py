"""Values that are sums of what is never below 0, where a root is taken of them: bounds that rounding puts below 0 would
have none of the root."""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch

from assay.verify.core.network import Builder, Network, Node
from assay.verify.core.ops import (
    Add,
    Concat,
    Conv2d,
    Gather,
    InverseSumExp,
    LeakyRelu,
    Linear,
    Max,
    Op,
    Product,
    Relu,
    Reshape,
    Scale,
    Smooth,
)


def kept_positive(network: Network) -> Network:
    """The same function with ``max(x, 0)`` in the place of x, which is never below 0, wherever it is the operand of a
    curve that ends there with a finite value."""
    rooted = {node.inputs[0] for node in network.nodes if isinstance(node.op, Smooth) and _ends(node.op)}
    rooted = {i for i in rooted if not isinstance(network.nodes[i].op, Relu)}
    if not rooted:
        return network
    positive: list[bool] = []
    for node in network.nodes:
        positive.append(never_negative(node.op, all(positive[i] for i in node.inputs)))
    builder, new = Builder(network.input_shape), {0: 0}
    for position, node in enumerate(network.nodes[1:], start=1):
        builder.nodes.append(replace(node, inputs=tuple(new[i] for i in node.inputs)))
        if position in rooted and positive[position]:
            builder.nodes.append(Node(Relu(), (len(builder.nodes) - 1,), node.shape))
        new[position] = len(builder.nodes) - 1
    made = builder.build(new[len(network.nodes) - 1], oracle=network.oracle, dtype=network.dtype, name=network.name)
    return replace(made, readout=network.readout)


def _ends(op: Smooth) -> bool:
    return op.of.domain[0] == 0 and op.curve in ("sqrt", "power") and op.parameter >= 0


@singledispatch
def never_negative(op: Op, positive: bool) -> bool:
    """Whether no value of ``op`` is below 0, where its operands are ``positive``: none of them ever is."""
    return False


@never_negative.register(Relu)
@never_negative.register(InverseSumExp)
def _(op: Op, positive: bool) -> bool:
    return True


@never_negative.register(Add)
@never_negative.register(Concat)
@never_negative.register(LeakyRelu)
@never_negative.register(Max)
@never_negative.register(Product)
@never_negative.register(Reshape)
def _(op: Op, positive: bool) -> bool:
    return positive


@never_negative.register
def _(op: Smooth, positive: bool) -> bool:
    return op.of.image[0] >= 0


@never_negative.register
def _(op: Gather, positive: bool) -> bool:
    return positive and (op.fill >= 0 or not op.fills)


@never_negative.register(Linear)
@never_negative.register(Conv2d)
def _(op: Linear | Conv2d, positive: bool) -> bool:
    return positive and bool((op.weight >= 0).all() and (op.bias >= 0).all())


@never_negative.register
def _(op: Scale, positive: bool) -> bool:
    return positive and bool((op.factor >= 0).all() and (op.shift >= 0).all())
