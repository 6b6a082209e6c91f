"""Methods and attacks as the command takes them, from what results name them by."""

from __future__ import annotations

import ast
from importlib import import_module
from typing import Any

from assay.attacks import registry as attacks
from assay.verify import registry as methods
from assay.verify.support.options import title


def spelled(key: str) -> str:
    """A result's ``verifier``, which is a repr, as ``--method`` or ``--attacks`` takes it; others' as they stand.

    >>> spelled("CROWN(dtype='float32', group=32, sectors=True)"), spelled("FGSM(loss='ce')"), spelled("somebody else")
    ('crown(dtype=float32)', 'fgsm', 'somebody else')
    """
    try:
        call = ast.parse(key, mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args):
            return key
        module, _, name = _place(call.func.id).partition(":")
        options = {str(given.arg): _value(given.value) for given in call.keywords}
        made = getattr(import_module(module), name)(**options)
        return title(made) if repr(made) == key else key  # a third party's class may have the name of one of ours
    except Exception:  # the repr of whatever a third party made
        return key


def _place(name: str) -> str:
    """Where the class of this name is: ours, or a third party's, for which all that is installed is looked through."""
    ours = {place.partition(":")[2]: place for place in (methods.VERIFIERS | attacks.ATTACKS).values()}
    if name in ours:
        return ours[name]
    return {place.partition(":")[2]: place for place in (methods.table() | attacks.table()).values()}[name]


def _value(node: ast.expr) -> Any:
    """An option's value; inf and nan are written as names."""
    return float(node.id) if isinstance(node, ast.Name) else ast.literal_eval(node)
