"""Convolution and pooling: windows that slide over one to three axes, with every kind of padding."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import cast

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.ops import Conv2d, ConvTranspose2d, Gather, Max, Op
from assay.verify.frontends import volumes
from assay.verify.frontends.onnx.layers import ZERO, scale
from assay.verify.frontends.onnx.moves import padded, rearrange, view
from assay.verify.frontends.onnx.translation import Call, Value, sample_shape
from assay.verify.frontends.refusal import Untranslatable


@dataclass(frozen=True)
class Frame:
    """Where the windows of a layer lie, per spatial axis. ``plane``: lengths of the input, ``places``: the output's."""

    plane: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    places: tuple[int, ...]

    @classmethod
    def of(cls, call: Call, x: Value, kernel: tuple[int, ...], pooling: bool = False) -> Frame:
        """From the attributes of the node.

        With auto_pad SAME onnxruntime pads a pooling layer as if it had no dilation, and crops where windows leave
        gaps; the standard does neither, but a network is what runs.
        """
        plane = _plane(x)
        strides, dilations, pads = _options(call, kernel, len(plane))
        kind, ceil = _auto_pad(call), bool(call.integer("ceil_mode", 0))
        reach = tuple(d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True))
        if kind.startswith("SAME"):
            width = kernel if pooling else reach
            slack = [(-(-n // s) - 1) * s + w - n for n, s, w in zip(plane, strides, width, strict=True)]
            slack = slack if pooling else [max(n, 0) for n in slack]
            pads = tuple(int((n + (kind == "SAME_LOWER")) / 2) for n in slack)  # towards zero, as in C
            pads += tuple(n - b for n, b in zip(slack, pads, strict=True))
        elif kind == "VALID":
            pads = (0,) * len(pads)
        before, after = pads[: len(plane)], pads[len(plane) :]
        places = []
        for n, b, e, r, s in zip(plane, before, after, reach, strides, strict=True):
            room = n + b + e - r
            count = -(-room // s) + 1 if ceil else room // s + 1
            # A last window that would begin beyond the input is left out.
            places.append(count - 1 if ceil and (count - 1) * s >= n + b else count)
        if min(places) == 0:  # onnxruntime goes on with nothing
            raise Untranslatable("gives a value without elements")
        if min(places) < 0:
            raise InputError(f"{call.node.label}: windows of {list(reach)} do not fit into {list(plane)}")
        for size in (places, kernel, *zip(places, kernel, strict=True)):
            call.translation.claim(size)
        return cls(plane, kernel, strides, dilations, before, after, tuple(places))

    def pad(self, call: Call, x: Value) -> tuple[Value, tuple[int, ...]]:
        """The value that a convolution takes, padded where symmetric padding does not do, and that padding."""
        sizes = list(zip(self.plane, self.before, self.dilations, self.kernel, self.strides, self.places, strict=True))
        if all(b >= 0 and (n + 2 * b - d * (k - 1) - 1) // s + 1 == p for n, b, d, k, s, p in sizes):
            return x, self.before
        # As much behind as the last window reaches beyond the end; negative padding crops.
        after = [(p - 1) * s + d * (k - 1) + 1 - b - n for n, b, d, k, s, p in sizes]
        ends = zip(self.before, after, strict=True)
        wide = padded(call, x, [(axis, b, e) for axis, (b, e) in enumerate(ends, start=2)])
        return cast(Value, wide), (0,) * len(self.plane)

    def covered(self, before: tuple[int, ...], after: tuple[int, ...]) -> Tensor:
        """How many cells of each window lie on the plane with so much around it: (places)."""
        counts = torch.ones((), dtype=torch.float64)
        for axis, (n, b, e) in enumerate(zip(self.plane, before, after, strict=True)):
            cell = self.cells(axis)
            counts = counts[..., None] * ((cell >= -b) & (cell < n + e)).sum(1)
        return counts

    def cells(self, axis: int) -> Tensor:
        """Coordinates of each window's cells along an axis: (places x kernel)."""
        start = torch.arange(self.places[axis])[:, None] * self.strides[axis] - self.before[axis]
        return start + torch.arange(self.kernel[axis]) * self.dilations[axis]


def convolution(call: Call) -> Value:
    """A convolution in one to three dimensions."""
    x, weight = call.traced(), call.constant(1, "the weight").to(torch.float64)
    groups, rank = call.integer("group", 1), len(_plane(x))
    bias = call.constant(2, "the bias") if call.has(2) else torch.zeros(len(weight))
    kernel = call.integers("kernel_shape") or tuple(weight.shape[2:])
    if weight.dim() != rank + 2 or kernel != tuple(weight.shape[2:]):
        raise InputError(f"{call.node.label}: weights {list(weight.shape)} for {list(x.shape)}, kernel {list(kernel)}")
    frame = Frame.of(call, x, kernel)
    if rank == 3:
        return _of_volume(call, x, frame, weight, bias, groups)
    wide, padding = frame.pad(call, x)
    holes = pair(frame.dilations, 1)
    op = Conv2d(flat(weight), bias, pair(frame.strides, 1), pair(padding, 0), holes, groups)
    return on_plane(call, op, wide, (1, len(weight), *frame.places))


def transposed_convolution(call: Call) -> Value:
    """The transpose of a convolution, cropped or lengthened to the size that the file asks for."""
    x, weight = call.traced(), call.constant(1, "the weight").to(torch.float64)
    groups, plane = call.integer("group", 1), _plane(x)
    if len(plane) == 3:
        raise Untranslatable("over three axes")
    kernel = call.integers("kernel_shape") or tuple(weight.shape[2:])
    if weight.dim() != len(plane) + 2 or kernel != tuple(weight.shape[2:]):
        raise InputError(f"{call.node.label}: weights {list(weight.shape)} for {list(x.shape)}, kernel {list(kernel)}")
    strides, dilations, pads = _options(call, kernel, len(plane))
    extra = call.integers("output_padding") or (0,) * len(plane)
    sizes = zip(plane, strides, dilations, kernel, strict=True)
    full = tuple((n - 1) * s + d * (k - 1) + 1 for n, s, d, k in sizes)
    before, places = _cropped(call, tuple(f + e for f, e in zip(full, extra, strict=True)), plane, strides, pads)
    if min(places) < 1 or min(before) < 0:
        raise InputError(f"{call.node.label} would have the size {list(places)}")
    # What is left out on both sides alike, the operation crops itself; then it may be lengthened at the end.
    longer = tuple(p + 2 * b - f for p, b, f in zip(places, before, full, strict=True))
    own = all(0 <= n < max(s, d) for n, s, d in zip(longer, strides, dilations, strict=True)) or not any(longer)
    behind = [max(-((f - b - p) // s), 0) for f, b, p, s in zip(full, before, places, strides, strict=True)]
    if not own:  # zeros after the input lengthen the whole by strides, and the rest is cut off
        x = cast(Value, padded(call, x, [(axis, 0, n) for axis, n in enumerate(behind, start=2)]))
        full = tuple(f + n * s for f, n, s in zip(full, behind, strides, strict=True))
    channels = weight.shape[1] * groups
    bias = call.constant(2, "the bias") if call.has(2) else torch.zeros(channels)
    cut, extra = (before, longer) if own else ((0,) * len(plane), (0,) * len(plane))
    options = pair(strides, 1), pair(cut, 0), pair(extra, 0), pair(dilations, 1)
    op = ConvTranspose2d(flat(weight), bias, *options, groups)
    if own:
        return on_plane(call, op, x, (1, channels, *places))
    whole = on_plane(call, op, x, (1, channels, *full))
    crops = [(axis, -b, b + p - f) for axis, (b, p, f) in enumerate(zip(before, places, full, strict=True), start=2)]
    return cast(Value, padded(call, whole, crops))


def _cropped(
    call: Call, full: tuple[int, ...], plane: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How much of a transposed convolution of lengths ``full`` is left out in front, and the lengths that are left.

    As in onnxruntime: what is asked for beyond the whole is added at the end, and SAME never adds.
    """
    kind, wanted = _auto_pad(call), call.integers("output_shape")
    if wanted is not None and len(wanted) not in (len(plane), len(plane) + 2):
        raise InputError(f"{call.node.label}: output_shape {list(wanted)} does not fit {len(plane)} axes")
    if wanted is not None or kind.startswith("SAME"):
        places = wanted[-len(plane) :] if wanted else tuple(n * s for n, s in zip(plane, strides, strict=True))
        surplus = [max(f - p, 0) for f, p in zip(full, places, strict=True)]
        before = tuple(n // 2 if kind == "SAME_UPPER" else n - n // 2 for n in surplus)
        return before, places if wanted else tuple(map(min, full, places))
    if kind == "VALID":
        return (0,) * len(plane), full
    ends = zip(full, pads[: len(plane)], pads[len(plane) :], strict=True)
    return pads[: len(plane)], tuple(f - b - e for f, b, e in ends)


def max_pool(call: Call) -> Value:
    """Windows gathered, then their maxima. Where a window reaches over the edge, one of its own elements stands in
    for what is outside (-inf), which changes no maximum."""
    call.ignore("storage_order")
    x, frame = call.traced(), Frame.of(call, call.traced(), call.needed("kernel_shape"), pooling=True)
    element = _elements(call, frame)
    windows = (1, x.shape[1], *frame.places, element.shape[1])
    call.translation.claim(windows)
    index = torch.arange(x.shape[1])[:, None] * prod(frame.plane) + element.flatten()
    gathered = call.emit(Gather(index.flatten(), sample_shape(windows)), windows, x)
    return call.emit(Max(), windows[:-1], gathered)


def _elements(call: Call, frame: Frame) -> Tensor:
    """The elements of the plane in each window: (places x kernel), both flattened."""
    element, outside = torch.zeros((1, 1), dtype=torch.int64), torch.zeros((1, 1), dtype=torch.bool)
    for axis, n in enumerate(frame.plane):  # (places x cells), axis by axis
        cell = frame.cells(axis)
        size = (len(element) * len(cell), element.shape[1] * cell.shape[1])
        call.translation.claim(size)
        element = (element[:, None, :, None] * n + cell[None, :, None, :]).reshape(size)
        beyond = (cell < 0) | (cell >= n)
        outside = (outside[:, None, :, None] | beyond[None, :, None, :]).reshape(size)
    if bool(outside.all(1).any()):
        raise Untranslatable("a window that lies in the padding")
    own = element.masked_fill(outside, prod(frame.plane)).amin(1, keepdim=True)
    return torch.where(outside, own, element)


def average_pool(call: Call) -> Value:
    """A convolution of each channel with a constant; where padding does not count, scaled up at the edges."""
    x, frame = call.traced(), Frame.of(call, call.traced(), call.needed("kernel_shape"), pooling=True)
    edge = call.integer("count_include_pad", 0)
    nothing = (0,) * len(frame.plane)
    counted = frame.covered(frame.before, frame.after) if edge else frame.covered(nothing, nothing)
    area, channels = prod(frame.kernel), x.shape[1]
    if bool((counted == 0).any()):
        raise Untranslatable("a window that lies in the padding")
    if len(frame.plane) == 3:
        weight = volumes.shares(channels, frame.kernel, area)
        y = _of_volume(call, x, frame, weight, torch.zeros(channels), channels)
        return y if bool((counted == area).all()) else scale(call, y, area / counted, ZERO)
    wide, padding = frame.pad(call, x)
    weight = volumes.shares(channels, frame.kernel, area)
    op = Conv2d(
        flat(weight),
        torch.zeros(channels),
        pair(frame.strides, 1),
        pair(padding, 0),
        pair(frame.dilations, 1),
        channels,
    )
    y = on_plane(call, op, wide, (1, channels, *frame.places))
    return y if bool((counted == area).all()) else scale(call, y, area / counted, ZERO)


def _of_volume(call: Call, x: Value, frame: Frame, weight: Tensor, bias: Tensor, groups: int) -> Value:
    """A convolution over three axes."""
    windows = volumes.Windows(frame.kernel, frame.strides, frame.dilations, frame.before, frame.places)
    plane = cast(Value, rearrange(call, x, lambda t: windows.arranged(t, -1)))
    y = windows.applied(call.append, call.sample(plane), weight, bias, groups)
    return call.value(y, (1, len(weight), *frame.places), x.dtype)


def on_plane(call: Call, op: Op, x: Value, shape: tuple[int, ...]) -> Value:
    """A two-dimensional operation, on a sequence too: its height is one."""
    if len(x.shape) == 3:
        x = view(call, x, (*x.shape[:2], 1, x.shape[2]))
    return call.emit(op, shape, x)


def flat(weight: Tensor) -> Tensor:
    """The weights of a convolution, in two dimensions."""
    return weight.unsqueeze(2) if weight.dim() == 3 else weight


def pair(values: tuple[int, ...], other: int) -> tuple[int, int]:
    """An option per axis, for two axes; a sequence has ``other`` on the axis it lacks."""
    return (other, values[0]) if len(values) == 1 else (values[0], values[1])


def _plane(x: Value) -> tuple[int, ...]:
    """The lengths of the spatial axes of a value (1 x channels x one to three axes)."""
    if len(x.shape) not in (3, 4, 5) or x.shape[0] != 1:
        raise Untranslatable(f"of a value of shape {list(x.shape)}")
    return x.shape[2:]


def _auto_pad(call: Call) -> str:
    """How the pads are chosen."""
    kind = call.text("auto_pad", "NOTSET")
    if kind not in ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"):
        raise InputError(f"{call.node.label}: unknown auto_pad {kind!r}")
    return kind


def _options(
    call: Call, kernel: tuple[int, ...], rank: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Strides, dilations and pads."""
    strides, dilations = call.integers("strides") or (1,) * rank, call.integers("dilations") or (1,) * rank
    pads = call.integers("pads") or (0,) * (2 * rank)
    lengths = (len(kernel), len(strides), len(dilations), len(pads))
    if lengths != (rank, rank, rank, 2 * rank) or min((*kernel, *strides, *dilations)) < 1 or min(pads) < 0:
        given = f"kernel {list(kernel)}, strides {list(strides)}, dilations {list(dilations)}, pads {list(pads)}"
        raise InputError(f"{call.node.label}: {given} do not fit {rank} axes")
    return strides, dilations, pads
