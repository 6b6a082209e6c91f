"""What is worked out once for an operation, or a network, is kept for as long as that lives."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from assay.verify.core.network import Network
from assay.verify.core.ops import Op

K = TypeVar("K")
T = TypeVar("T")


def per_op(function: Callable[[Op], T]) -> Callable[[Op], T]:
    """``function`` with its value remembered for each operation.

    Operations never change, except those that hold live weights under training: these are worked out anew.
    """
    memory: WeakKeyDictionary[Op, T] = WeakKeyDictionary()

    def remembered(op: Op) -> T:
        if any(isinstance(v, Tensor) and v.requires_grad for v in vars(op).values()):
            return function(op)
        return remember(memory, op, lambda: function(op))

    return remembered


def per_network(function: Callable[[Network], T]) -> Callable[[Network], T]:
    """``function`` with its value remembered for each network, for as long as it lives."""
    memory: WeakKeyDictionary[Network, T] = WeakKeyDictionary()
    return lambda network: remember(memory, network, lambda: function(network))


def remember(memory: MutableMapping[K, T], key: K, make: Callable[[], T]) -> T:
    """``memory[key]``, made if it is not there, outside of inference mode: every caller can use it."""
    if key not in memory:
        with torch.inference_mode(False):
            memory[key] = make()
    return memory[key]
