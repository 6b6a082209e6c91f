"""A batch of domains: a frozen dataclass of tensors whose first axis counts the domains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

D = TypeVar("D", bound=Any)


def columns(batch: Any) -> dict[str, Tensor]:
    """The tensors of a batch by name: (domains x ...) each."""
    return {field.name: getattr(batch, field.name) for field in fields(batch)}


def count(batch: Any) -> int:
    """The number of domains."""
    return len(next(iter(columns(batch).values())))


def take(batch: D, index: Tensor) -> D:
    """The domains at ``index``, positions or a mask (domains)."""
    where = index.nonzero().flatten() if index.dtype == torch.bool else index
    taken: D = replace(batch, **{name: column.index_select(0, where) for name, column in columns(batch).items()})
    return taken


def join(batches: Sequence[D]) -> D:
    """Batches one after the other."""
    parts = [columns(batch) for batch in batches]
    joined: D = replace(batches[0], **{name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    return joined
