"""Tensors of an ONNX file: checked against their declared size before anything is allocated, never rounded."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from assay.verify.core.errors import InputError, ResourceError, UnsupportedError

if TYPE_CHECKING:
    from onnx import TensorProto

MAX_ELEMENTS = 2**28  # of one tensor; in float64 that is 2 GiB

# TensorProto.DataType to torch.
DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
NARROW = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.bool)  # kept in int32_data, value by value
HALF = (torch.float16, torch.bfloat16)  # kept there too, by their bits


def to_tensor(proto: TensorProto) -> Tensor:
    """The tensor in its own dtype, from data in the file itself.

    Raises :class:`InputError` for damaged tensors, :class:`UnsupportedError` for other types of
    data (strings, complex numbers, 8-bit floats), :class:`ResourceError` beyond the cap.
    """
    if proto.data_type not in DTYPES:
        raise UnsupportedError(f"tensor {proto.name!r} has data of type {proto.data_type}, which is not read")
    dtype, shape = DTYPES[proto.data_type], check_shape(tuple(proto.dims), f"tensor {proto.name!r}")
    count = prod(shape)
    if proto.data_location == proto.EXTERNAL:
        raise InputError(f"tensor {proto.name!r} lies outside of the file, which only initialisers may")
    if proto.HasField("raw_data"):
        tensor = _from_bytes(proto.raw_data, dtype, count, proto.name)
    else:
        tensor = _from_numbers(proto, dtype, count)
    return tensor.reshape(shape)


def check_shape(shape: tuple[int, ...], what: str) -> tuple[int, ...]:
    """``shape`` itself, once it proves to be one that fits into memory."""
    if any(n < 0 for n in shape):
        raise InputError(f"{what} has the shape {list(shape)}")
    if prod(shape) > MAX_ELEMENTS:
        raise ResourceError(f"{what} has the shape {list(shape)}: at most {MAX_ELEMENTS} elements are read")
    return shape


def _from_bytes(data: bytes, dtype: torch.dtype, count: int, name: str) -> Tensor:
    if len(data) != count * dtype.itemsize:
        raise InputError(f"tensor {name!r}: expected {count * dtype.itemsize} bytes of data, got {len(data)}")
    if not count:
        return torch.empty(0, dtype=dtype)
    if dtype is torch.bool:
        return torch.frombuffer(bytearray(data), dtype=torch.uint8) != 0
    return torch.frombuffer(bytearray(data), dtype=dtype)


def _from_numbers(proto: TensorProto, dtype: torch.dtype, count: int) -> Tensor:
    if dtype is torch.float32:
        numbers: list[float] | list[int] = list(proto.float_data)
    elif dtype is torch.float64:
        numbers = list(proto.double_data)
    else:
        numbers = list(proto.int64_data if dtype is torch.int64 else proto.int32_data)
    if len(numbers) != count:
        raise InputError(f"tensor {proto.name!r}: expected {count} numbers, got {len(numbers)}")
    if dtype in HALF:
        return torch.tensor(numbers, dtype=torch.int32).to(torch.int16).view(dtype)
    if dtype not in NARROW:
        return torch.tensor(numbers, dtype=dtype)
    tensor = torch.tensor(numbers, dtype=torch.int32)
    if not torch.equal(tensor.to(dtype).to(torch.int32), tensor):
        raise InputError(f"tensor {proto.name!r} holds a number that does not fit its type")
    return tensor.to(dtype)
