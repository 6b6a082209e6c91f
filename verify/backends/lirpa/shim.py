"""The import of auto_LiRPA: newer releases as they are, release 0.3 with stand-ins for what torch and numpy dropped.

Release 0.3 is the one in the package index; it asks for torch < 1.13 and so is installed with ``--no-deps``. What
it uses of older releases is three names, which are put back while it is imported, and a method of modules as it was.
"""

from __future__ import annotations

import sys
import types
import warnings
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy
import torch

from assay.verify.core.errors import InputError

INSTALL = "pip install --no-deps auto_LiRPA==0.3"


def available() -> bool:
    """Whether auto_LiRPA is installed; nothing is imported."""
    return find_spec("auto_LiRPA") is not None


@cache
def auto_lirpa() -> Any:
    """The module ``auto_LiRPA``; raises :class:`InputError` with the command that installs it where it is missing."""
    if not available():
        raise InputError(f"auto_LiRPA is not installed: {INSTALL}")
    with warnings.catch_warnings(record=True):  # not "ignore": auto_LiRPA sets filters of its own on import
        with suppress(ImportError):
            import auto_LiRPA

            return auto_LiRPA
        for name in [name for name in sys.modules if name.split(".")[0] == "auto_LiRPA"]:
            del sys.modules[name]
        _restore_names()
        import auto_LiRPA

        _take_remove_duplicate(auto_LiRPA.BoundedModule)
        return auto_LiRPA


def _restore_names() -> None:
    sets: Any = types.ModuleType("numpy.lib.arraysetops")
    sets.isin = numpy.isin
    sys.modules.setdefault("numpy.lib.arraysetops", sets)

    helper: Any = import_module("torch.onnx.symbolic_helper")  # not the attribute of torch.onnx of that name
    if not hasattr(helper, "_set_opset_version"):
        helper._set_opset_version = lambda version: None
    node: Any = torch._C.Node
    if not hasattr(node, "__getitem__"):
        node.__getitem__ = _attribute


def _take_remove_duplicate(bounded: Any) -> None:
    """``_named_members`` of modules has one more argument today; release 0.3 always removes duplicates."""
    members = bounded._named_members

    def named_members(
        self: Any, get_members_fn: Any, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Any:
        return members(self, get_members_fn, prefix, recurse)

    bounded._named_members = named_members


def _attribute(node: Any, key: str) -> Any:
    """The attribute ``key`` of a node of a traced graph, by its kind, as torch.onnx once offered it."""
    return getattr(node, node.kindOf(key))(key)
