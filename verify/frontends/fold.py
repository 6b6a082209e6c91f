"""Constant scalings folded into the layer before them, in float64: batch normalisation costs no bound anything."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from assay.verify.core.network import Builder, Network, Node
from assay.verify.core.ops import Add, Conv2d, Linear, Op, Scale, Sub, map_tensors


def fold(network: Network, dtype: torch.dtype | None = None) -> Network:
    """The same function with every ``Scale`` merged into the Linear, Conv2d or Scale whose only reader it is, and
    nothing added that is a value less itself.

    ``dtype``: of its weights; without, they keep theirs.
    """
    readers = [0] * len(network.nodes)
    for node in network.nodes:
        for i in node.inputs:
            readers[i] += 1
    builder = Builder(network.input_shape)
    new = {0: 0}
    for position, node in enumerate(network.nodes[1:], start=1):
        (source, *others) = node.inputs
        if isinstance(node.op, Add) and _nothing(network.nodes[others[0]]):
            new[position] = new[source]
            continue
        before = builder.nodes[new[source]]
        op = node.op if dtype is None else map_tensors(node.op, dtype)  # first, so that nothing is rounded to less
        merged = _merge(before.op, op, before.shape) if not others and readers[source] == 1 else None
        if merged is None:
            builder.nodes.append(replace(node, op=op, inputs=tuple(new[i] for i in node.inputs)))
        else:
            builder.nodes.append(replace(node, op=merged, inputs=before.inputs))
        new[position] = len(builder.nodes) - 1
    return builder.build(new[len(network.nodes) - 1], oracle=network.oracle, dtype=network.dtype, name=network.name)


def _nothing(node: Node) -> bool:
    """Whether it is 0, and stands for the roundings of what cancels there only."""
    return isinstance(node.op, Sub) and node.inputs[0] == node.inputs[1]


def _merge(first: Op, second: Op, shape: tuple[int, ...]) -> Op | None:
    """``second`` after ``first`` as one operation, where both are constant and that is exact up to one rounding."""
    if not isinstance(second, Scale):
        return None
    if isinstance(first, Scale):
        return Scale(first.factor * second.factor, first.shift * second.factor + second.shift)
    if isinstance(first, Linear):
        factor, shift = _per_unit(second.factor, shape, -1), _per_unit(second.shift, shape, -1)
        if factor is not None and shift is not None:
            return Linear(_scaled(first.weight, factor), first.bias * factor + shift)
    if isinstance(first, Conv2d):
        factor, shift = _per_unit(second.factor, shape, 0), _per_unit(second.shift, shape, 0)
        if factor is not None and shift is not None:
            return replace(first, weight=_scaled(first.weight, factor), bias=first.bias * factor + shift)
    return None


def _scaled(weight: Tensor, factor: Tensor) -> Tensor:
    """``weight`` with each output's part times its factor; itself, where that changes nothing."""
    if not factor.requires_grad and bool((factor == 1).all()):
        return weight
    return weight * factor.reshape(-1, *[1] * (weight.dim() - 1))


def _per_unit(value: Tensor, shape: tuple[int, ...], axis: int) -> Tensor | None:
    """``value`` as one number per index of ``axis`` of a sample, or None where it varies along another axis."""
    full = torch.broadcast_to(value, shape).movedim(axis, 0).reshape(shape[axis], -1)
    return full[:, 0].clone() if bool((full == full[:, :1]).all()) else None
