"""Layers with attributes drawn at random: each is what onnxruntime makes of it, or refused for a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest

from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.frontends.onnx import read_onnx
from tests.breadth import seeds
from tests.verify.frontends.onnx_files import check, ints, numbers, one, save

Layer = tuple[onnx.ModelProto, list[int]]


def sliding(draw: Random, rank: int, plane: list[int], kernel: list[int], dilated: bool = True) -> dict[str, Any]:
    """Strides, dilations and one kind of padding."""
    options: dict[str, Any] = {"strides": [draw.randint(1, 3) for _ in range(rank)]}
    if dilated and draw.random() < 0.6:
        options["dilations"] = [draw.randint(1, 2) for _ in range(rank)]
    kind = draw.choice(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
    if kind != "NOTSET":
        options["auto_pad"] = kind
    elif draw.random() < 0.7:
        options["pads"] = [draw.randint(0, k - 1) for k in [*kernel, *kernel]]
    return options


def convolution(draw: Random) -> Layer:
    rank, group = draw.choice([1, 2]), draw.choice([1, 1, 2])
    plane, kernel = [draw.randint(2, 8) for _ in range(rank)], [draw.randint(1, 3) for _ in range(rank)]
    weight = numbers(draw.randint(0, 99), 2 * group, draw.randint(1, 2), *kernel)
    shape = [1, weight.shape[1] * group, *plane]
    bias = [numbers(3, 2 * group)] if draw.random() < 0.5 else []
    return one("Conv", shape, weight, *bias, group=group, **sliding(draw, rank, plane, kernel)), shape


def transposed_convolution(draw: Random) -> Layer:
    rank, group = draw.choice([1, 2]), draw.choice([1, 1, 2])
    plane, kernel = [draw.randint(1, 5) for _ in range(rank)], [draw.randint(1, 3) for _ in range(rank)]
    weight = numbers(draw.randint(0, 99), 2 * group, draw.randint(1, 2), *kernel)
    options = sliding(draw, rank, plane, kernel)
    if draw.random() < 0.3:
        options["output_padding"] = [draw.randint(0, s - 1) for s in options["strides"]]
    if draw.random() < 0.3:
        options.pop("pads", None)
        options["output_shape"] = [n * s + draw.randint(-1, 2) for n, s in zip(plane, options["strides"], strict=True)]
    bias = [numbers(3, weight.shape[1] * group)] if draw.random() < 0.5 else []
    shape = [1, 2 * group, *plane]
    return one("ConvTranspose", shape, weight, *bias, group=group, **options), shape


def pooling(draw: Random) -> Layer:
    rank, op = draw.choice([1, 2]), draw.choice(["MaxPool", "AveragePool"])
    plane, kernel = [draw.randint(2, 8) for _ in range(rank)], [draw.randint(1, 3) for _ in range(rank)]
    options = sliding(draw, rank, plane, kernel)
    if op == "AveragePool" and draw.random() < 0.5:
        options["count_include_pad"] = 1
    if draw.random() < 0.4:
        options["ceil_mode"] = 1
    shape = [1, 2, *plane]
    return one(op, shape, kernel_shape=kernel, opset=19, **options), shape


def padding(draw: Random) -> Layer:
    shape = [1, *(draw.randint(2, 4) for _ in range(draw.randint(1, 3)))]
    mode = draw.choice(["constant", "reflect", "edge", "wrap"])
    least = -1 if mode == "constant" else 0
    ends = [0 if i % len(shape) == 0 else draw.randint(least, 3) for i in range(2 * len(shape))]
    constants = [ints(*ends), np.float32(0.5)] if mode == "constant" else [ints(*ends)]
    return one("Pad", shape, *constants, mode=mode, opset=19), shape


def resizing(draw: Random) -> Layer:
    rank, mode = draw.choice([1, 2]), draw.choice(["nearest", "linear"])
    plane = [draw.randint(1, 5) for _ in range(rank)]
    kind = draw.choice(["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric"])
    options: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": kind}
    if mode == "nearest":
        options["nearest_mode"] = draw.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    front = [1, 2]
    if draw.random() < 0.3:
        front, options["axes"] = [], list(range(2, 2 + rank))
    if draw.random() < 0.5:
        scales = [*front, *(draw.choice([0.5, 1, 1.5, 2, 3, 2.25]) for _ in plane)]
        constants: list[Any] = [None, np.array(scales, dtype=np.float32)]
    else:
        constants = [None, None, ints(*front, *(draw.randint(1, 8) for _ in plane))]
    shape = [1, 2, *plane]
    return one("Resize", shape, *constants, opset=19, **options), shape


def upsampling(draw: Random) -> Layer:
    shape = [1, 2, draw.randint(1, 4), draw.randint(1, 4)]
    if draw.random() < 0.5:
        scales = [1.0, 1.0, draw.choice([1.0, 1.5, 2.0]), draw.choice([1.0, 3.0])]
        return one("Upsample", shape, np.array(scales, dtype=np.float32), opset=9), shape
    scales = [1.0, 1.0, draw.choice([0.4, 1.5, 2.0]), draw.choice([1.0, 0.7])]
    return one("Resize", shape, np.array(scales, dtype=np.float32), opset=10), shape


def reduction(draw: Random) -> Layer:
    shape = [1, *(draw.randint(1, 4) for _ in range(draw.randint(1, 3)))]
    op = draw.choice(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1"])
    axes = draw.sample(range(1, len(shape)), draw.randint(1, len(shape) - 1))
    axes = [a - len(shape) if draw.random() < 0.3 else a for a in axes]
    keep = {"keepdims": draw.randint(0, 1)}
    if op == "ReduceSum":
        return one(op, shape, ints(*axes), **keep), shape
    return one(op, shape, axes=axes, **keep), shape


def slicing(draw: Random) -> Layer:
    shape = [1, *(draw.randint(2, 6) for _ in range(draw.randint(1, 3)))]
    axes = draw.sample(range(1, len(shape)), draw.randint(1, len(shape) - 1))
    steps = [draw.choice([-2, -1, 1, 2]) for _ in axes]
    starts = [draw.choice([0, 1, -1, -9]) if step > 0 else draw.choice([-1, 9]) for step in steps]
    ends = [draw.choice([2, -1, 2**31]) if step > 0 else draw.choice([0, -(2**31)]) for step in steps]
    return one("Slice", shape, ints(*starts), ints(*ends), ints(*axes), ints(*steps)), shape


def picking(draw: Random) -> Layer:
    shape = [1, *(draw.randint(2, 4) for _ in range(draw.randint(1, 2)))]
    axis = draw.randint(1, len(shape) - 1)
    count = draw.randint(1, 5)
    n = shape[axis]
    index = [draw.randint(-n, n - 1) for _ in range(count)]
    if draw.random() < 0.5:
        return one("Gather", shape, np.array(draw.choice([index, [index], index[0]])), axis=axis), shape
    lengths = [count if a == axis else length for a, length in enumerate(shape)]
    places = np.random.default_rng(draw.randint(0, 99)).integers(-n, n, lengths)
    return one("GatherElements", shape, places, axis=axis), shape


LAYERS: list[Callable[[Random], Layer]] = [
    *(convolution, transposed_convolution, pooling, padding, resizing, upsampling, reduction, slicing, picking),
]


@pytest.mark.parametrize("layer", LAYERS)
@seeds(4, of=18)
def test_layers_of_any_attributes(layer: Callable[[Random], Layer], tmp_path: Path, seeds: range) -> None:
    read = 0
    for seed in seeds:
        proto, shape = layer(Random(seed))
        try:
            read_onnx(save(tmp_path, proto))
        except (InputError, UnsupportedError):
            continue
        check(tmp_path, proto, shape, seed)
        read += 1
    assert read >= len(seeds) // 3
