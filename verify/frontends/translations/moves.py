"""What only moves values around, told by where torch sends the origins of the elements."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from assay.verify.core.ops import Concat
from assay.verify.frontends import composed
from assay.verify.frontends.composed import Value
from assay.verify.frontends.labels import WHOLE
from assay.verify.frontends.refusal import Untranslatable
from assay.verify.frontends.translation import Operand, Step


def moved(step: Step) -> list[Tensor]:
    """Origins moved as the operation moves numbers; those of the constants that it fills in are 0."""
    if step.given.get("accumulate") or step.given.get("reduce"):
        raise Untranslatable("adds up what is written to one place")
    schema: Any = step.call.function._schema  # type: ignore[attr-defined]
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for argument in schema.arguments:
        given = step.given[argument.name]
        if str(argument.type) in ("number", "Optional[number]") and given is not None:
            given = 0
        given = tree_map(_origins, given)
        if argument.kwarg_only:
            kwargs[argument.name] = None if argument.name == "dtype" else given
        else:
            args.append(given)
    moved_origins = step.call.function(*args, **kwargs)
    return [leaf for leaf in tree_leaves(moved_origins) if isinstance(leaf, Tensor)]


def unrelated(step: Step) -> Tensor:
    """A constant, of which only the shape is that of a value."""
    return torch.zeros(step.shape, dtype=torch.float64)


def _origins(leaf: Any) -> Any:
    if not isinstance(leaf, Operand):
        return leaf
    if leaf.number.is_floating_point():
        return leaf.origins.clone()
    if leaf.traced:
        raise Untranslatable("to places that depend on the input")
    return leaf.number


def concat(step: Step) -> Value | list[Tensor]:
    """Values side by side."""
    parts: list[Operand] = step["tensors"]
    axis, rank = int(step["dim"]), len(step.shape)
    axis = axis % rank - 1
    if axis < 0 or step.shape[0] != 1 or not all(part.traced and part.number.dim() == rank for part in parts):
        return moved(step)
    values = [step.translation.node(part.origins, part.number) for part in parts]
    return step.emit(Concat(axis), *values, shape=step.shape[1:])


def copied(step: Step) -> Tensor:
    """``b`` in the place of ``a``."""
    source: Operand = step["src"]
    target: Operand = step["self"]
    if source.number.dtype != target.number.dtype:
        least = step.translation.sample.dtype
        if (
            not torch.empty((), dtype=target.number.dtype).is_floating_point()
            or target.number.dtype.itemsize < least.itemsize
        ):
            raise Untranslatable(f"casts to {target.number.dtype}")
    return source.origins.expand(target.number.shape)


def cast(step: Step) -> Tensor:
    """A copy in another precision, which keeps every number as it is, or as whole numbers; a truth value is 0 or 1."""
    x: Operand = step["self"]
    before, after = x.number.dtype, step.results[0].dtype
    least = step.translation.sample.dtype.itemsize
    wide = after in (torch.float32, torch.float64) and after.itemsize >= least
    if before.is_floating_point and after in WHOLE:
        y = composed.truncated(step.emit, step.value("self"))
        return step.origins(y, step.shape)
    if not wide and not (not before.is_floating_point and after in WHOLE):  # as long as the type holds them
        raise Untranslatable(f"casts to {after}")
    return x.origins
