"""What runs beside the code of a module and changes its value: hooks, and functions that were put in others' places.

torch.fx records what forward() computes. A hook on a layer, a forward() replaced on an instance, or a function of
torch's that somebody replaced computes something else, and no number of points that are tried finds every difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules import module as hooked
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from assay.verify.core.errors import UnsupportedError
from assay.verify.support.modules import unwrapped

OWN = str(Path(torch.__file__).parent)

# Methods that decide what a call of a module computes; replaced on an instance, the class no longer says it.
RUN = ("forward", "_call_impl", "_wrapped_call_impl", "_slow_forward", "_conv_forward", "_output_padding")

WAY_OUT = (
    "it may change values, and what it does cannot be read: remove it (handle.remove() for a hook), or write what it "
    "does into a module's forward()"
)


def refuse_hooks(module: nn.Module, read: Iterable[Any]) -> None:
    """Raise :class:`UnsupportedError` with all that changes values between ``module`` and what is traced of it.

    ``read``: the classes, functions and method names of torch's that the reader has rules for; these must be torch's
    own. Hooks of weight and spectral normalisation and of pruning only compute weights, and are read; every other
    hook is refused, even one that seems to observe: it may write into what it is shown.
    """
    found = [*_global_hooks(), *_replaced(read)]
    for name, part in module.named_modules():
        where = f"of {name!r}" if name else "of the model itself"
        found += [f"{what} {where}" for what in _on(part)]
    if found:
        raise UnsupportedError(f"the model does not run its layers as they are: {', '.join(found)}; {WAY_OUT}")


def weight_hooks(part: nn.Module) -> list[tuple[int, str, Any]]:
    """The pre-hooks that compute a weight of ``part`` from its parameters: (key, name of the weight, hook)."""
    return [(key, _weight(hook), hook) for key, hook in part._forward_pre_hooks.items() if _weight(hook)]


def _weight(hook: Any) -> str:
    if not isinstance(hook, (WeightNorm, SpectralNorm, BasePruningMethod)) or _foreign(type(hook).__call__):
        return ""
    return str(hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name)


def _on(part: nn.Module) -> Iterator[str]:
    known = {key for key, _, _ in weight_hooks(part)}
    yield from (f"forward hook {_named(hook)}" for hook in part._forward_hooks.values())
    yield from (f"forward pre-hook {_named(h)}" for key, h in part._forward_pre_hooks.items() if key not in known)
    if unwrapped(part) is part:  # a wrapper's own forward is made for the instance
        yield from (f"replaced {name}()" for name in RUN if name in vars(part))
    if _foreign(type(part).__call__):
        yield f"__call__() of class {type(part).__name__}"
    if isinstance(part, fx.GraphModule):  # its class is made of its graph, and from nothing else
        code = getattr(type(part).forward, "__code__", None)
        if not getattr(code, "co_filename", "").startswith("<eval_with_key>"):
            yield "replaced forward() of its class"
        return
    owner = next(kind for kind in type(part).__mro__ if "forward" in vars(kind))
    if owner.__module__.split(".")[0] == "torch" and _foreign(vars(owner)["forward"]):
        yield f"replaced forward() of class {owner.__name__}"


def _global_hooks() -> Iterator[str]:
    kinds: list[tuple[str, Mapping[int, Any]]] = [
        ("forward hook", hooked._global_forward_hooks),
        ("forward pre-hook", hooked._global_forward_pre_hooks),
    ]
    yield from (f"{kind} {_named(hook)} of all modules" for kind, hooks in kinds for hook in hooks.values())


def _replaced(read: Iterable[Any]) -> Iterator[str]:
    """Functions, methods and classes of torch's that are no longer its own."""
    if _foreign(nn.Module.__call__) or _foreign(nn.Module._call_impl):
        yield "replaced __call__() of torch.nn.Module"
    for name, function in vars(F).items():
        if _foreign(function):
            yield f"replaced torch.nn.functional.{name}"
    for key in read:
        if isinstance(key, str):
            if _foreign(getattr(Tensor, key, None)):
                yield f"replaced method {key} of tensors"
        elif isinstance(key, type) and issubclass(key, nn.Module) and _foreign(key.forward):
            yield f"replaced forward() of class {key.__name__}"
        elif _foreign(key) or not isinstance(key, (type, FunctionType, BuiltinFunctionType)):
            yield f"replaced function {_named(key)} of torch"


def _foreign(function: Any) -> bool:
    """Whether a function is written in Python outside of torch; what is compiled is torch's or the language's."""
    return isinstance(function, FunctionType) and not function.__code__.co_filename.startswith(OWN)


def _named(hook: Any) -> str:
    return str(getattr(hook, "__qualname__", type(hook).__qualname__)).rpartition(".<locals>.")[2]
