"""What callers hand over as numbers, as tensors: arrays and lists are taken, and what is none is refused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from assay.verify.core.errors import InputError


def as_tensor(value: Any, what: str, dtype: torch.dtype | None = None) -> Tensor:
    """``value`` detached, in ``dtype`` if one is given; an array or nested lists are copied. ``what``: its name.

    Raises :class:`InputError` for what holds no real numbers, or lists of several lengths.
    """
    python = isinstance(value, (int, float, list, tuple))  # has no precision of its own
    try:
        tensor = value.detach() if isinstance(value, Tensor) else torch.tensor(value, dtype=dtype if python else None)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"expected {what}: a tensor or numbers, got {type(value).__name__} ({reason})") from error
    if tensor.is_complex():
        raise InputError(f"expected {what}: real numbers, got {tensor.dtype}")
    return tensor.to(tensor.dtype if dtype is None else dtype)


def own_tensor(value: Any, what: str, dtype: torch.dtype) -> Tensor:
    """:func:`as_tensor`, as a copy: what is kept of it stays the same when the caller's changes. Outside of inference
    mode: every caller can use it."""
    with torch.inference_mode(False):
        return as_tensor(value, what, dtype).clone()


def as_labels(value: Any, samples: int) -> Tensor:
    """``value`` as one class for each of so many samples, integers from 0 on: (samples).

    Raises :class:`InputError` for anything else.
    """
    labels = as_tensor(value, "labels")
    if tuple(labels.shape) != (samples,):
        raise InputError(f"expected one label per sample, shape ({samples},), got {tuple(labels.shape)}")
    if samples and (labels.is_floating_point() or labels.dtype is torch.bool):
        raise InputError(f"expected integer labels, got {labels.dtype}")
    if samples and int(labels.min()) < 0:
        raise InputError(f"label {int(labels.min())} is out of range: labels start at 0")
    return labels
