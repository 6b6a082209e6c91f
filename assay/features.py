"""Numbers for each channel or feature of an input, as they are written on the command line or in a file of numpy's."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.written import Written


def fitting(name: str, values: Tensor, shape: Sequence[int]) -> Tensor:
    """``values`` as a tensor that broadcasts to an input of this ``shape``; ``name``: of the option.

    One axis holds a value for each channel (the first axis of the input) or for each feature; several are those of the
    input, each as long or 1. Raises :class:`InputError` for all else.
    """
    if values.dim() == 1 and len(values) == shape[0]:
        return values.view(-1, *[1] * (len(shape) - 1))
    if values.dim() == 1 and len(values) == prod(shape):
        return values.view(*shape)
    if values.dim() == len(shape) > 1 and all(n in (1, m) for n, m in zip(values.shape, shape, strict=True)):
        return values
    got = f"{len(values)}" if values.dim() == 1 else f"an array of shape {tuple(values.shape)}"
    counts = f"{shape[0]} values" if len(shape) == 1 else f"{shape[0]} values (channels) or {prod(shape)} (features)"
    raise InputError(f"{name}: expected {counts}, or an array that broadcasts to {tuple(shape)}, got {got}")


def scale(text: str, shape: Sequence[int], name: str = "--eps-scale") -> Tensor:
    """The factors of ``--eps-scale``, ``1,0.2,8/255`` or ``file.npy``, which broadcast to an input: float64; ``name``:
    of the option that gives them."""
    values = array(name, text) if text.endswith(".npy") else _numbers(name, text)
    if not bool((values.isfinite() & (values >= 0)).all()):
        raise InputError(f"{name}: expected finite numbers >= 0, got {text}")
    return fitting(name, values, shape)


def limits(text: str) -> tuple[Tensor, Tensor]:
    """The ends of ``--domain``: those of ``LO,HI``, (), or ``LO:HI,LO:HI``, (values), or of ``file.npy``, whose first
    axis is the two of them. Raises :class:`InputError` unless they are finite and each lower one is below its upper."""
    name = "--domain"
    if text.endswith(".npy"):
        both = array(name, text)
        if both.dim() < 2 or len(both) != 2:
            raise InputError(
                f"{name}: expected an array of shape (2, ...), lower and upper ends, got {tuple(both.shape)}"
            )
    elif ":" in text:
        pairs = [part.split(":") for part in text.split(",")]
        if any(len(pair) != 2 for pair in pairs):
            raise InputError(f"{name}: expected LO:HI for each channel or feature, such as -1:1,0:2, got {text!r}")
        both = torch.stack([_numbers(name, ",".join(ends)) for ends in zip(*pairs, strict=True)])
    else:
        both = _numbers(name, text, "two numbers with a comma between them, such as -1,1", 2)
    low, high = both
    if not bool((both.isfinite().all(0) & (low < high)).all()):
        raise InputError(f"{name}: expected two finite numbers, the lower one first, got {text}")
    return low, high


def array(name: str, text: str) -> Tensor:
    """The numbers in a file of numpy's, float64. Raises :class:`InputError` for what is none."""
    try:
        values = np.load(Path(text).expanduser(), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        why = getattr(error, "strerror", None) or "no array of numbers"
        raise InputError(f"{name}: cannot read {text!r}: {why}") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu" or not values.size or not values.ndim:
        raise InputError(f"{name}: expected an array of numbers in {text!r}")
    return torch.from_numpy(values.astype(np.float64))


def _numbers(name: str, text: str, what: str = "numbers with commas between them", count: int | None = None) -> Tensor:
    """The numbers of ``1,0.2,8/255``: (count). ``what`` is expected, ``count`` of them if it is given."""
    try:
        values = [float(Written(part.strip())) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or count not in (None, len(values)):
        raise InputError(f"{name}: expected {what}, got {text!r}")
    return torch.tensor(values, dtype=torch.float64)
