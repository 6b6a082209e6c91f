"""What is worked out once for an operation is kept for as long as the operation lives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor

from verify.core.ops import Op

T = TypeVar("T")


def per_op(function: Callable[[Op], T]) -> Callable[[Op], T]:
    """``function`` with its value remembered for each operation.

    Operations never change, except those that hold live weights under training: these are worked out anew.
    """
    memory: WeakKeyDictionary[Op, T] = WeakKeyDictionary()

    def remembered(op: Op) -> T:
        if any(isinstance(v, Tensor) and v.requires_grad for v in (getattr(op, f.name) for f in fields(op))):
            return function(op)
        if op not in memory:
            memory[op] = function(op)
        return memory[op]

    return remembered
