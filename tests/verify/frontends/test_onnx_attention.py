"""Attention of one operation and rotary embeddings in ONNX files, against onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.ops import InverseSumExp
from assay.verify.frontends.onnx import read_onnx
from tests.verify.frontends.onnx_files import check, ints, model, numbers, one, save

NODE = helper.make_node
OPSET = 23


def attention(shapes: list[tuple[int, ...]], mask: Any = None, **options: Any) -> tuple[onnx.ModelProto, int]:
    """q, k and v are parts of x, in shapes of their own; how long x is."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    constants: dict[str, Any] = {"sizes": ints(*sizes)}
    nodes = [NODE("Split", ["x", "sizes"], ["a", "b", "c"], axis=1)]
    for flat, name, shape in zip("abc", "qkv", shapes, strict=True):
        nodes.append(NODE("Reshape", [flat, f"{name}s"], [name]))
        constants[f"{name}s"] = ints(*shape)
    if mask is not None:
        constants["mask"] = mask
    nodes.append(NODE("Attention", ["q", "k", "v", *(["mask"] if mask is not None else [])], ["y"], **options))
    return model(nodes, (1, sum(sizes)), constants, OPSET), sum(sizes)


HEADS, FLAT = [(1, 2, 3, 4)] * 3, [(1, 3, 8)] * 3
SEEN = np.array([[True, False, True], [False, True, True], [True, True, False]])
CASES: dict[str, tuple[list[tuple[int, ...]], Any, dict[str, Any]]] = {
    "heads": (HEADS, None, {}),
    "flat heads": (FLAT, None, {"q_num_heads": 2, "kv_num_heads": 2}),
    "shared keys": ([(1, 4, 3, 2), (1, 2, 5, 2), (1, 2, 5, 3)], None, {}),
    "shared keys, flat": ([(1, 3, 8), (1, 3, 4), (1, 3, 6)], None, {"q_num_heads": 4, "kv_num_heads": 2}),
    "a scale": (HEADS, None, {"scale": 0.3}),
    "causal": (HEADS, None, {"is_causal": 1}),
    "capped": (HEADS, None, {"softcap": 1.5}),
    "capped, with a mask that adds": (HEADS, numbers(4, 3, 3), {"softcap": 0.7}),
    "capped, with a mask": (HEADS, SEEN, {"softcap": 0.7}),
    "causal, with a mask": (HEADS, np.tri(3, dtype=bool) | SEEN, {"is_causal": 1}),
    "a mask": (HEADS, SEEN, {}),
    "a mask that adds": (HEADS, numbers(3, 1, 2, 3, 3), {}),
    "a mask of minus infinity": (HEADS, np.where(SEEN, np.float32(0.2), -np.float32(np.inf)), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_attention(name: str, tmp_path: Path) -> None:
    shapes, mask, options = CASES[name]
    proto, size = attention(shapes, mask, **options)
    network = check(tmp_path, proto, (1, size))
    assert any(isinstance(node.op, InverseSumExp) for node in network.nodes)


def test_what_is_not_read_of_attention(tmp_path: Path) -> None:
    proto, _ = attention(HEADS, np.zeros((3, 3), dtype=bool))
    with pytest.raises(UnsupportedError, match="leaves nothing in some row"):
        read_onnx(save(tmp_path, proto))
    proto, _ = attention([(1, 3, 4, 2), (1, 2, 4, 2), (1, 2, 4, 2)])
    with pytest.raises(InputError, match="3 heads, and 2 of keys"):
        read_onnx(save(tmp_path, proto))


@pytest.mark.parametrize("pairs", [0, 1])
@pytest.mark.parametrize("size", [0, 4])
def test_rotary_embeddings(pairs: int, size: int, tmp_path: Path) -> None:
    """Of all features of a head or the first few, halves or neighbours turned; and of heads side by side."""
    angles = numbers(1, 1, 3, (size or 6) // 2)
    tables = np.cos(angles), np.sin(angles)
    options = {"interleaved": pairs, "rotary_embedding_dim": size, "num_heads": 2}
    check(tmp_path, one("RotaryEmbedding", (1, 2, 3, 6), *tables, opset=OPSET, **options), (1, 2, 3, 6))
    check(tmp_path, one("RotaryEmbedding", (1, 3, 12), *tables, opset=OPSET, **options), (1, 3, 12))


def test_rotary_embeddings_of_positions(tmp_path: Path) -> None:
    angles = numbers(1, 7, 3)
    tables = np.cos(angles), np.sin(angles), np.array([[4, 0, 6]], dtype=np.int64)
    check(tmp_path, one("RotaryEmbedding", (1, 2, 3, 6), *tables, opset=OPSET, num_heads=2), (1, 2, 3, 6))


VOLUME = (1, 2, 4, 5, 6)
VOLUMES: dict[str, onnx.ModelProto] = {
    "Conv": one("Conv", VOLUME, numbers(0, 3, 2, 2, 3, 2), numbers(1, 3), strides=[1, 2, 1], pads=[1, 0, 2, 0, 1, 1]),
    "Conv, grouped": one("Conv", VOLUME, numbers(0, 4, 1, 2, 2, 1), group=2, dilations=[2, 1, 1]),
    "Conv, same": one("Conv", VOLUME, numbers(0, 2, 2, 3, 2, 2), auto_pad="SAME_UPPER", strides=[2, 2, 3]),
    "MaxPool": one("MaxPool", VOLUME, kernel_shape=[2, 3, 2], strides=[2, 1, 2], pads=[1, 1, 0, 0, 1, 1]),
    "AveragePool": one("AveragePool", VOLUME, kernel_shape=[2, 2, 3], strides=[1, 2, 1], pads=[1, 0, 1, 0, 1, 1]),
    "GlobalAveragePool": one("GlobalAveragePool", VOLUME),
}


@pytest.mark.parametrize("name", VOLUMES)
def test_volumes(name: str, tmp_path: Path) -> None:
    check(tmp_path, VOLUMES[name], VOLUME)


def test_transposed_convolutions_of_volumes_are_refused(tmp_path: Path) -> None:
    proto = one("ConvTranspose", VOLUME, numbers(0, 2, 3, 2, 2, 2))
    with pytest.raises(UnsupportedError, match="over three axes"):
        read_onnx(save(tmp_path, proto))
