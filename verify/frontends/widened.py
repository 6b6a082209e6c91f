"""A model in float64: run in its own precision, with the numbers that depend on the input in float64 beside.

Nothing of the model is copied, and it runs the operations that it does: its constants are what it makes of them in its
own precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from assay.verify.core.network import Oracle
from assay.verify.frontends.dispatch import Operations, bound, name_of, tensors_in, writes
from assay.verify.frontends.memory import Memory
from assay.verify.frontends.recording import plain_kernels
from assay.verify.frontends.translations.pooling import interpolation

NUMBERS = ("number", "Optional[number]")  # their types in torch's schemas
INTERPOLATIONS = ("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d")
COMPARISONS = ("gt", "ge", "lt", "le")
FLOATING = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class Widened:
    """``model``, which runs in ``dtype``, as a function in float64."""

    model: Oracle
    dtype: torch.dtype

    def __call__(self, x: Tensor) -> Tensor:
        """(batch x shape) to (batch x outputs), float64; ``x`` has exact values in ``dtype``."""
        beside = Memory(torch.float64, copied=True)
        with torch.inference_mode(False), torch.no_grad():
            given = x.to(self.dtype, copy=True)
            beside.put(given, x)
            with plain_kernels(), Operations(Beside(beside).run):
                output = self.model(given)
            wide = beside.of(output)
        return output.double() if wide is None else wide.clone()


class Beside:
    """Executes each operation of which an operand has a value beside it in float64, too."""

    def __init__(self, beside: Memory) -> None:
        self.beside = beside

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run it."""
        tensors = tensors_in(args, kwargs)
        if not any(self.beside.of(tensor) is not None for tensor in tensors):
            return func(*args, **kwargs)
        for tensor in writes(func, args, kwargs):
            self.beside.begin(tensor)
        if name_of(func) in INTERPOLATIONS:
            wide: Any = self._between(func, bound(func, args, kwargs))
        else:
            wide_args, wide_kwargs = tree_map(self._wide, _filled(func, args, kwargs, tensors[0].dtype))
            wide = func(*wide_args, **wide_kwargs)
        result = func(*args, **kwargs)
        for own, other in zip(tensors_in(result), tensors_in(wide), strict=True):
            if self.beside.of(own) is None:
                self.beside.put(own, other)
        return result

    def _between(self, func: Any, given: dict[str, Any]) -> Tensor:
        """Interpolation with the weights that the model's own precision has."""
        x = self._wide(given["self"])
        *rows, columns = interpolation(func, given, given["self"].dtype)
        wide: Tensor = x @ columns.T
        return rows[0] @ wide if rows else wide

    def _wide(self, leaf: Any) -> Any:
        if isinstance(leaf, torch.dtype):
            return torch.float64 if leaf in FLOATING else leaf
        if not isinstance(leaf, Tensor):
            return leaf
        wide = self.beside.of(leaf)
        if wide is not None:  # of whole numbers and truth values, too: they follow from others
            return wide if leaf.is_floating_point() else wide.to(leaf.dtype)
        return leaf.detach().double() if leaf.is_floating_point() else leaf


def _filled(func: Any, args: Any, kwargs: Any, dtype: torch.dtype) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, with numbers that are filled in for others, or compared with, as ``dtype`` holds them: they are
    stored, not used."""
    given = list(args)
    stored = "other" if name_of(func) in COMPARISONS else "value"
    for i, argument in enumerate(func._schema.arguments):
        if argument.name == stored and str(argument.type) in NUMBERS:
            if i < len(given):
                given[i] = _rounded(given[i], dtype)
            elif argument.name in kwargs:
                kwargs = {**kwargs, argument.name: _rounded(kwargs[argument.name], dtype)}
    return tuple(given), kwargs


def _rounded(value: Any, dtype: torch.dtype) -> Any:
    return float(torch.tensor(value, dtype=dtype)) if isinstance(value, float) and dtype in FLOATING else value
