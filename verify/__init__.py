"""Robustness verification of neural networks: every family of methods behind one interface.

The public names are imported on first use (PEP 562): ``import verify`` alone costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verify.auto import solve as solve
    from verify.core.budget import Budget as Budget
    from verify.core.network import Network as Network
    from verify.core.network import to_network as to_network
    from verify.core.problem import Problem as Problem
    from verify.core.region import Box as Box
    from verify.core.region import LpBall as LpBall
    from verify.core.result import Guarantee as Guarantee
    from verify.core.result import Reason as Reason
    from verify.core.result import Result as Result
    from verify.core.result import Verdict as Verdict
    from verify.core.spec import Spec as Spec
    from verify.core.verifier import Bounds as Bounds
    from verify.registry import get_bounder as get_bounder
    from verify.registry import get_verifier as get_verifier
    from verify.registry import list_verifiers as list_verifiers

_HOME = {
    "Problem": "verify.core.problem",
    "Network": "verify.core.network",
    "to_network": "verify.core.network",
    "Box": "verify.core.region",
    "LpBall": "verify.core.region",
    "Spec": "verify.core.spec",
    "Budget": "verify.core.budget",
    "Bounds": "verify.core.verifier",
    "Result": "verify.core.result",
    "Verdict": "verify.core.result",
    "Reason": "verify.core.result",
    "Guarantee": "verify.core.result",
    "get_verifier": "verify.registry",
    "get_bounder": "verify.registry",
    "list_verifiers": "verify.registry",
    "solve": "verify.auto",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'verify' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
