"""Every operation of torch that is executed, whoever calls it, handed to one function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Operations(TorchDispatchMode):
    """While it lasts, ``run(operation, args, kwargs)`` stands in for every operation; composite ones come in parts."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip it, torch imports its compiler, which takes longer than all that is done here

    def __init__(self, run: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.run = run

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run it; what is asked here of tensors is not asked by the model."""
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
                with self:
                    parts = func.decompose(*args, **kwargs)
                if parts is not NotImplemented:
                    return parts
            return self.run(func, tuple(args), kwargs)


def tensors_in(*given: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and dictionaries."""
    return [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]


def name_of(operation: Any) -> str:
    """The name of an operation, without its overload."""
    return str(operation._schema.name).partition("::")[2]


def bound(operation: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """An operation's arguments by name, with its defaults."""
    arguments = operation._schema.arguments
    given: dict[str, Any] = {a.name: a.default_value for a in arguments if a.has_default_value()}
    given.update(zip((a.name for a in arguments), args, strict=False))
    given.update(kwargs)
    return given


def writes(operation: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The arguments that an operation writes to."""
    written: list[Tensor] = []
    for i, argument in enumerate(operation._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            written += tensors_in(args[i] if i < len(args) else kwargs.get(argument.name))
    return written
