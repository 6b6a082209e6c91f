"""TorchScript, which runs unseen by Python: scripts that branch on sizes are refused, others read as they run."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from assay.verify.core.errors import UnsupportedError
from assay.verify.support.failures import line

# How many axes a value has is part of the model; what else is asked for may hang on who calls it.
HARMLESS = ("aten::len", "aten::dim", "prim::Constant")


def refuse_branching_scripts(module: nn.Module) -> None:
    """Raise :class:`UnsupportedError` for scripts among the parts of ``module`` that branch, once they are simplified.

    Branches on numbers are found where they are run; those on sizes leave no trace.
    """
    inner: set[int] = set()
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule) and id(part) not in inner:
            inner.update(id(child) for child in part.modules())
            if asked := _asked(part):
                raise UnsupportedError(
                    f"the model is TorchScript ({name or 'itself'}) that branches on what {asked} gives: pass the "
                    "nn.Module that it was made from, or export it to ONNX"
                )


def _asked(script: torch.jit.ScriptModule) -> str:
    """What the branches of a script hang on; "" if on nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is said to be old
            graph: Any = torch.jit.freeze(script).inlined_graph
    except Exception as error:
        raise UnsupportedError(f"the model's TorchScript cannot be simplified ({line(error)})") from error
    return next((source for source in map(_source, _conditions(graph)) if source), "")


def _conditions(block: Any) -> list[Any]:
    """What decides how often, or whether, the parts of a block run."""
    conditions: list[Any] = []
    for node in block.nodes():
        if node.kind() in ("prim::If", "prim::Loop"):
            conditions += list(node.inputs())[:2]
        for inside in node.blocks():
            conditions += _conditions(inside)
    return conditions


def _source(value: Any) -> str:
    """The operation that a condition hangs on, if it is none of the harmless ones."""
    node = value.node()
    kind = str(node.kind())
    if kind in HARMLESS:
        return ""
    if kind in ("prim::Param", "prim::Loop") or (kind.startswith("aten::") and kind not in COMPARISONS):
        return kind
    return next((source for source in map(_source, node.inputs()) if source), "")


COMPARISONS = {f"aten::{name}" for name in ("gt", "lt", "ge", "le", "eq", "ne", "__not__", "__and__", "__or__", "add")}
