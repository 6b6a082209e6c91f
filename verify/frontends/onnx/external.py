"""Data of a model that lies in files beside its own, inside of its folder: moved into it, or hashed with it."""

from __future__ import annotations

import hashlib
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from assay.verify.core.errors import InputError, ResourceError, UnsupportedError
from assay.verify.frontends.onnx.graph import parse
from assay.verify.frontends.onnx.tensors import DTYPES, check_shape
from assay.verify.frontends.source import LFS_POINTER, MAX_FILE, read_bytes, refuse_stand_in

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto


def self_contained(model: ModelProto, content: bytes, folder: Path | None) -> bytes:
    """``content``, the file that ``model`` was parsed from, with external data in ``folder`` moved into both."""
    outside = _outside(model)
    if not outside:
        return content
    size = len(content)
    for proto in outside:
        size += _size(proto)
        if size > MAX_FILE:
            raise ResourceError(f"the model and its external data need {size} bytes; at most {MAX_FILE} are read")
        proto.raw_data = _data(proto, folder)
        proto.ClearField("external_data")
        proto.data_location = proto.DEFAULT
    packed: bytes = model.SerializeToString()
    return packed


def fingerprint(path: Path) -> str:
    """SHA-256 of the model file ``path``, unpacked, and of the data beside it that it takes in.

    Raises :class:`InputError`, :class:`UnsupportedError` and :class:`ResourceError` for what cannot be read.
    """
    content = read_bytes(path)
    digest = hashlib.sha256(content)
    if b"location" in content:  # the word that leads to data elsewhere: other files need not be parsed
        for proto in _outside(parse(content, str(path))):
            digest.update(_data(proto, path.parent))
    return digest.hexdigest()


def _outside(model: ModelProto) -> list[TensorProto]:
    return [proto for proto in model.graph.initializer if proto.data_location == proto.EXTERNAL]


def _size(proto: TensorProto) -> int:
    """How many bytes the tensor takes."""
    if proto.data_type not in DTYPES:
        raise UnsupportedError(f"tensor {proto.name!r} has data of type {proto.data_type}, which is not read")
    return prod(check_shape(tuple(proto.dims), f"tensor {proto.name!r}")) * DTYPES[proto.data_type].itemsize


def _data(proto: TensorProto, folder: Path | None) -> bytes:
    """The data of a tensor that lies in a file in ``folder``, the model's."""
    entries = {entry.key: entry.value for entry in proto.external_data}
    if folder is None or "location" not in entries:
        raise InputError(f"tensor {proto.name!r} lies outside of the model's file, at no place that can be read")
    size = _size(proto)
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or size)
    except ValueError as error:
        raise InputError(f"tensor {proto.name!r} has an offset or a length that is no number") from error
    if length != size:
        raise InputError(f"tensor {proto.name!r}: expected {size} bytes of external data, got {length}")
    return _read(folder, entries["location"], offset, length, proto.name)


def _read(folder: Path, location: str, offset: int, length: int, name: str) -> bytes:
    """``length`` bytes at ``offset`` of the file ``location``, which must be a regular file inside of ``folder``.

    Raises :class:`InputError` for a location that is absolute, holds ``..``, or leads out of the folder through a
    link, and where the file is missing or too short. ``name``: the tensor's, for messages.
    """
    relative = Path(location)
    if not location or "\0" in location or relative.is_absolute() or ".." in relative.parts:
        raise InputError(f"tensor {name!r} lies in {location!r}: expected a file inside of the model's folder")
    try:
        home, path = folder.resolve(strict=True), (folder / relative).resolve(strict=True)
        if not path.is_relative_to(home) or not path.is_file():
            raise InputError(f"tensor {name!r} lies in {location!r}, which is no regular file in the model's folder")
        size = path.stat().st_size
        if size:
            with path.open("rb") as file:
                refuse_stand_in(file.read(len(LFS_POINTER)), f"{location!r}, where tensor {name!r} lies,")
        if offset < 0 or length < 0 or offset + length > size:
            raise InputError(f"tensor {name!r} needs bytes {offset} to {offset + length} of {location!r}, of {size}")
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read(length)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"tensor {name!r} cannot be read from {location!r}: {error}") from error
    if len(content) != length:
        raise InputError(f"tensor {name!r}: {location!r} ends too early")
    return content
