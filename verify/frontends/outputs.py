"""The one tensor of numbers that a model answers with: of several, the one that stands for its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.network import Oracle

NAMES = ("logits", "out", "output")  # in dictionaries, what models call their answer


@dataclass(frozen=True)
class Answer:
    """A model with several outputs, as one that gives the output at ``key`` alone."""

    model: Oracle
    key: str | int

    def __call__(self, x: Tensor) -> Tensor:
        """(batch x shape) to (batch x outputs)."""
        outputs: Any = self.model(x)
        answer: Tensor = outputs[self.key]
        return answer


@dataclass(frozen=True)
class Column:
    """A model with one number for each sample, as a model with an output of length one."""

    model: Oracle

    def __call__(self, x: Tensor) -> Tensor:
        """(batch x shape) to (batch x 1)."""
        return self.model(x)[:, None]


def answered(model: Oracle, output: Any, count: int) -> Oracle:
    """``model``, which gave ``output`` for a batch of ``count``, as a function to one tensor (batch x outputs).

    Raises :class:`InputError` where it does not say which tensor that is.
    """
    if isinstance(output, dict):
        tensors = [key for key, value in output.items() if isinstance(value, Tensor)]
        named = [key for key in NAMES if key in tensors] or (tensors if len(tensors) == 1 else [])
        if not named:
            listed = ", ".join(map(str, output)) or "nothing"
            expected = "one tensor, or a dict with one called logits or out"
            raise InputError(f"expected the model to return {expected}, got a dict of {listed}")
        model, output = Answer(model, named[0]), output[named[0]]
    elif isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        model, output = Answer(model, 0), output[0]
    if not isinstance(output, Tensor) or output.dim() < 1 or output.shape[0] != count:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"expected the model to return one tensor with a batch dimension, got {got}")
    if not (output.is_floating_point() or (output.dtype in (torch.int32, torch.int64) and output.numel() == count)):
        raise InputError(f"expected the model to return floating-point numbers, or a label, got {output.dtype}")
    return Column(model) if output.dim() == 1 else model
