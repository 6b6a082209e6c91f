"""Operations that only move values around, constants too: told by where the numbers of the elements go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.core.errors import InputError
from assay.verify.core.ops import Concat, Gather, Reshape, Scale
from assay.verify.frontends.composed import reshaped
from assay.verify.frontends.onnx.translation import (
    Call,
    Operand,
    Value,
    aligned,
    broadcast_shape,
    sample_shape,
)
from assay.verify.frontends.refusal import Untranslatable


def rearrange(call: Call, operand: Operand, function: Callable[[Tensor], Tensor], fill: float = 0.0) -> Operand:
    """``function`` of the operand; of one that depends on the input, function of its elements' numbers tells where
    each goes, -1 being ``fill``."""
    if isinstance(operand, Tensor):
        return function(operand)
    moved = function(torch.arange(prod(operand.shape)).reshape(operand.shape))
    shape, index = tuple(moved.shape), moved.flatten()
    if not len(index):
        raise Untranslatable("a value without elements")
    if not torch.equal(index, torch.arange(prod(operand.shape))):
        return call.emit(Gather(index, sample_shape(shape), fill), shape, operand)
    return view(call, operand, shape)


def view(call: Call, value: Value, shape: tuple[int, ...]) -> Value:
    """The same elements in another shape."""
    same = sample_shape(shape) == sample_shape(value.shape)
    return Value(value.position, shape, value.dtype) if same else call.emit(Reshape(sample_shape(shape)), shape, value)


def reshape(call: Call) -> Operand:
    """To a constant shape, where 0 stands for the old length (unless ``allowzero``), -1 for what is left."""
    operand = call.operand()
    shape = call.needed("shape", 1)
    if not call.integer("allowzero", 0):
        shape = tuple(operand.shape[i] if n == 0 else n for i, n in enumerate(shape))
    return rearrange(call, operand, lambda x: x.reshape(shape))


def flatten(call: Call) -> Operand:
    """To two axes, the first of which takes in those before ``axis``."""
    operand, axis = call.operand(), call.integer("axis", 1)
    axis = axis + len(operand.shape) if axis < 0 else axis
    return rearrange(call, operand, lambda x: x.reshape(prod(operand.shape[:axis]), prod(operand.shape[axis:])))


def transpose(call: Call) -> Operand:
    """Axes in the order ``perm``; reversed, if none is given."""
    operand = call.operand()
    order = call.integers("perm") or tuple(reversed(range(len(operand.shape))))
    return rearrange(call, operand, lambda x: x.permute(order))


def squeeze(call: Call) -> Operand:
    """Without the ``axes``, or without all axes of length 1."""
    operand, axes = call.operand(), call.integers("axes", 1)
    if axes is None:
        axes = tuple(i for i, n in enumerate(operand.shape) if n == 1)
    gone = different_axes(axes, len(operand.shape))
    if any(operand.shape[i] != 1 for i in gone):
        raise InputError(f"{call.node.label} drops axes {sorted(gone)} of {list(operand.shape)}: not all of length 1")
    shape = [n for i, n in enumerate(operand.shape) if i not in gone]
    return rearrange(call, operand, lambda x: x.reshape(shape))


def unsqueeze(call: Call) -> Operand:
    """With ``axes`` of length 1, counted in the result."""
    operand, axes = call.operand(), call.needed("axes", 1)
    new = different_axes(axes, len(operand.shape) + len(axes))
    lengths = iter(operand.shape)
    shape = [1 if i in new else next(lengths) for i in range(len(operand.shape) + len(new))]
    return rearrange(call, operand, lambda x: x.reshape(shape))


def identity(call: Call) -> Operand:
    """The operand itself."""
    return call.operand()


def dropout(call: Call) -> Operand:
    """The operand itself: nothing is dropped in inference."""
    call.ignore("ratio", "seed", "is_test")
    if call.has(2) and bool(call.constant(2, "the mode").any()):
        raise Untranslatable("in training mode")
    return call.operand()


def slice_(call: Call) -> Operand:
    """Elements ``start, start + step, ...`` before ``end`` along some axes."""
    operand = call.operand()
    starts, ends = call.needed("starts", 1), call.needed("ends", 2)
    axes = call.integers("axes", 3)
    steps = call.integers("steps", 4)
    order = axes if axes is not None else tuple(range(len(starts)))
    strides = steps if steps is not None else (1,) * len(starts)
    different_axes(order, len(operand.shape))
    picks = [(a, slice(b, e, s)) for a, b, e, s in zip(order, starts, ends, strides, strict=True)]

    def sliced(x: Tensor) -> Tensor:
        for axis, pick in picks:
            x = x.index_select(axis, torch.tensor(range(*pick.indices(x.shape[axis])), dtype=torch.int64))
        return x

    return rearrange(call, operand, sliced)


def split(call: Call) -> list[Operand]:
    """Parts of given or of equal lengths along an axis."""
    operand, axis = call.operand(), call.integer("axis", 0)
    count = call.integer("num_outputs", len(call.node.outputs))
    lengths = call.integers("split", 1)
    total = operand.shape[axis]
    each = -(-total // max(count, 1))
    lengths = lengths or (*[each] * (count - 1), total - each * (count - 1))
    if sum(lengths) != total or min(lengths) < 0:
        raise InputError(f"{call.node.label} splits {total} into {list(lengths)}")

    def part(start: int, length: int) -> Operand:
        return rearrange(call, operand, lambda x: x.narrow(axis, start, length))

    return [part(sum(lengths[:i]), length) for i, length in enumerate(lengths)]


def gather(call: Call) -> Operand:
    """Entries at constant indices along one axis."""
    operand, index, axis = call.operand(), call.constant(1, "the index").long(), call.integer("axis", 0)
    shape = list(operand.shape)
    axis = axis + len(shape) if axis < 0 else axis
    index = torch.where(index < 0, index + shape[axis], index)
    after = [*shape[:axis], *index.shape, *shape[axis + 1 :]]
    call.translation.claim(after)
    return rearrange(call, operand, lambda x: x.index_select(axis, index.flatten()).reshape(after))


def gather_elements(call: Call) -> Operand:
    """Entries at constant indices along one axis, element by element."""
    operand, index, axis = call.operand(), call.constant(1, "the index").long(), call.integer("axis", 0)
    index = torch.where(index < 0, index + operand.shape[axis], index)
    call.translation.claim(index.shape)
    return rearrange(call, operand, lambda x: x.gather(axis, index))


def gather_nd(call: Call) -> Operand:
    """Entries or slices at constant coordinates, which lie on the last axis of the index."""
    operand, index = call.operand(), call.constant(1, "the index").long()
    if call.integer("batch_dims", 0):
        raise Untranslatable("batch by batch")
    depth = index.shape[-1]
    call.translation.claim([*index.shape[:-1], *operand.shape[depth:]])
    return rearrange(call, operand, lambda x: x[tuple(index.unbind(-1))])


def expand(call: Call) -> Operand:
    """Broadcast to a constant shape."""
    operand = call.operand()
    return broadcast(call, operand, broadcast_shape(operand.shape, call.needed("shape", 1)))


def broadcast(call: Call, operand: Operand, shape: tuple[int, ...]) -> Operand:
    """The operand repeated along axes of length 1 and in front."""
    if tuple(operand.shape) == shape:
        return operand
    call.translation.claim(shape)
    return rearrange(call, operand, lambda x: x.expand(shape))


def tile(call: Call) -> Operand:
    """The operand repeated along its axes."""
    operand, repeats = call.operand(), call.needed("repeats", 1)
    call.translation.claim([n * r for n, r in zip(operand.shape, repeats, strict=True)])
    return rearrange(call, operand, lambda x: x.repeat(repeats))


def pad(call: Call) -> Operand:
    """Padding with a constant, by reflection, by replication or going round; negative pads crop."""
    operand, mode = call.operand(), call.text("mode", "constant")
    pads = call.needed("pads", 1)
    value = float(call.constant(2, "the value")) if call.has(2) else call.number("value", 0.0)
    axes = call.integers("axes", 3)
    rank = len(operand.shape)
    order = axes if axes is not None else tuple(range(rank))
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise Untranslatable(f"mode {mode!r}")
    if len(pads) != 2 * len(order):
        raise InputError(f"{call.node.label} has {len(pads)} pads for {len(order)} axes")
    different_axes(order, rank)
    return padded(call, operand, [(a % rank, pads[i], pads[i + len(order)]) for i, a in enumerate(order)], value, mode)


def padded(
    call: Call, operand: Operand, pads: Sequence[tuple[int, int, int]], fill: float = 0.0, mode: str = "constant"
) -> Operand:
    """The operand with so many elements more (axis, before, after), along each axis."""
    longer = list(operand.shape)
    for axis, before, after in pads:
        longer[axis] += before + after
    call.translation.claim(longer)

    def enlarged(x: Tensor) -> Tensor:
        for axis, before, after in pads:
            if not before and not after:
                continue
            n = x.shape[axis]
            place = torch.arange(-before, n + after)
            inside = (place >= 0) & (place < n)
            x = x.index_select(axis, _inside(place, n, mode))
            if mode == "constant":
                outside = (~inside).reshape([-1 if i == axis else 1 for i in range(x.dim())])
                x = x.masked_fill(outside, -1 if isinstance(operand, Value) else fill)
        return x

    return rearrange(call, operand, enlarged, fill)


def _inside(place: Tensor, n: int, mode: str) -> Tensor:
    """The elements of an axis of length ``n`` that stand at ``place``, beyond its ends too."""
    if mode == "reflect":
        return (n - 1) - (place.abs() - (n - 1)).abs()
    return place % n if mode == "wrap" else place.clamp(0, n - 1)


def concat(call: Call) -> Operand:
    """Operands side by side; constants among them become values that are the same everywhere."""
    axis = call.integer("axis", 1)
    operands = [call.operand(i) for i in range(len(call.inputs))]
    return concatenated(call, operands, axis + len(operands[0].shape) if axis < 0 else axis)


def concatenated(call: Call, operands: Sequence[Operand], axis: int) -> Operand:
    """:func:`concat` along an axis, counted from the front."""
    shape = [*operands[0].shape]
    shape[axis] = sum(v.shape[axis] for v in operands)
    call.translation.claim(shape)
    constants = [v for v in operands if isinstance(v, Tensor)]
    if len(constants) == len(operands):
        return torch.cat(constants, axis)
    traced = next(v for v in operands if isinstance(v, Value))
    values = [v if isinstance(v, Value) else everywhere(call, v, traced) for v in operands]
    if len(values) == 1:
        return traced
    if axis and shape[0] == 1:
        return call.emit(Concat(axis - 1), tuple(shape), *values)
    return call.emit(Concat(axis), tuple(shape), *(whole(call, v) for v in values))


def whole(call: Call, value: Value) -> Value:
    """The value with its leading 1, for what goes along that axis."""
    if sample_shape(value.shape) == value.shape:
        return value
    return replace(value, position=call.translation.builder.add(Reshape(value.shape), value.position))


def everywhere(call: Call, constant: Tensor, traced: Value) -> Value:
    """A constant as a node of the network, hung onto ``traced``, which it does not depend on."""
    shape = tuple(constant.shape)
    index = torch.full((prod(shape),), -1)
    nothing = call.emit(Gather(index, sample_shape(shape)), shape, traced)
    return call.emit(Scale(torch.ones((), dtype=torch.float64), aligned(constant, shape)), shape, nothing)


def depth_to_space(call: Call) -> Operand:
    """Channels to pixels of a plane."""
    operand, b, mode = call.operand(), call.integer("blocksize", 0), call.text("mode", "DCR")
    n, c, h, w = operand.shape
    if mode == "CRD":
        return rearrange(call, operand, lambda x: F.pixel_shuffle(x, b))

    def spread(x: Tensor) -> Tensor:
        cells = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return cells.reshape(n, c // b**2, h * b, w * b)

    return rearrange(call, operand, spread)


def space_to_depth(call: Call) -> Operand:
    """Pixels of a plane to channels."""
    operand, b = call.operand(), call.integer("blocksize", 0)
    n, c, h, w = operand.shape

    def gathered(x: Tensor) -> Tensor:
        cells = x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4)
        return cells.reshape(n, c * b**2, h // b, w // b)

    return rearrange(call, operand, gathered)


def different_axes(axes: Sequence[int], rank: int) -> set[int]:
    """Each axis once, counted from the front."""
    different = {a + rank if a < 0 else a for a in axes}
    if len(different) != len(axes) or not all(0 <= a < rank for a in different):
        raise InputError(f"axes {list(axes)} are not different axes of {rank}")
    return different


def scatter_nd(call: Call) -> Operand:
    """Updates at constant coordinates, which lie on the last axis of the index."""
    index = call.constant(1, "the index").long()
    return _scattered(call, lambda x, u: x.index_put(tuple(index.unbind(-1)), u))


def scatter_elements(call: Call) -> Operand:
    """Updates at constant indices along one axis, element by element."""
    index, axis = call.constant(1, "the index").long(), call.integer("axis", 0)
    index = torch.where(index < 0, index + call.operand().shape[axis], index)
    return _scattered(call, lambda x, u: x.scatter(axis, index, u))


def _scattered(call: Call, put: Callable[[Tensor, Tensor], Tensor]) -> Operand:
    """Both operands side by side, from which each element of the result is taken."""
    if call.text("reduction", "none") != "none":
        raise Untranslatable("adding up what is written to one place")
    x, updates = call.operand(0), call.operand(2)
    if isinstance(x, Tensor) and isinstance(updates, Tensor):
        return put(x.clone(), updates)
    call.translation.claim([2, prod(x.shape) + prod(updates.shape)])
    traced = next(v for v in (x, updates) if isinstance(v, Value))
    parts = [v if isinstance(v, Value) else everywhere(call, v, traced) for v in (x, updates)]
    flat = [reshaped(call.append, call.sample(v), (prod(v.shape),)) for v in parts]
    both = call.append(Concat(0), *flat, shape=(flat[0].size + flat[1].size,))
    own, new = torch.arange(flat[0].size), torch.arange(flat[1].size) + flat[0].size
    index = put(own.reshape(x.shape), new.reshape(updates.shape))
    node = call.append(Gather(index.flatten(), sample_shape(tuple(x.shape))), both, shape=sample_shape(tuple(x.shape)))
    return call.value(node, tuple(x.shape), traced.dtype)


def triangle(call: Call) -> Operand:
    """The upper or the lower triangle of matrices; 0 elsewhere."""
    operand, upper = call.operand(), call.integer("upper", 1)
    k = int(call.constant(1, "the diagonal")) if call.has(1) else 0
    keep = torch.ones(tuple(operand.shape[-2:]), dtype=torch.bool)
    keep = keep.triu(k) if upper else keep.tril(k)
    outside = -1 if isinstance(operand, Value) else 0
    return rearrange(call, operand, lambda x: x.masked_fill(~keep, outside))
