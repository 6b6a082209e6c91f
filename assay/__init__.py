"""How robust is a neural network, really? Certificates from below, attacks from above, one bracket.

The public names are imported on first use (PEP 562): ``import assay`` alone costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from assay.lazy import lazily

if TYPE_CHECKING:
    from assay import attacks as attacks
    from assay import benchmarks as benchmarks
    from assay import models as models
    from assay import verify as verify
    from assay.attacks.registry import get_attack as get_attack
    from assay.attacks.registry import list_attacks as list_attacks
    from assay.benchmarks.harness.compare import compare as compare
    from assay.models import data as data
    from assay.models import zoo as zoo
    from assay.verify import Bounds as Bounds
    from assay.verify import Box as Box
    from assay.verify import Budget as Budget
    from assay.verify import Guarantee as Guarantee
    from assay.verify import LpBall as LpBall
    from assay.verify import Network as Network
    from assay.verify import Polytope as Polytope
    from assay.verify import Problem as Problem
    from assay.verify import Reason as Reason
    from assay.verify import Result as Result
    from assay.verify import Spec as Spec
    from assay.verify import Verdict as Verdict
    from assay.verify import certify as certify
    from assay.verify import get_bounder as get_bounder
    from assay.verify import get_verifier as get_verifier
    from assay.verify import list_verifiers as list_verifiers
    from assay.verify import solve as solve
    from assay.verify import to_network as to_network

    __version__: str

_VERIFY = (
    "Bounds Box Budget Guarantee LpBall Network Polytope Problem Reason Result Spec Verdict "
    "certify get_bounder get_verifier list_verifiers solve to_network"
)
_HOME = {
    **dict.fromkeys(_VERIFY.split(), "assay.verify"),
    **{name: f"assay.{name}:" for name in ("attacks", "benchmarks", "models", "verify")},
    "compare": "assay.benchmarks.harness.compare",
    "data": "assay.models.data:",
    "get_attack": "assay.attacks.registry",
    "list_attacks": "assay.attacks.registry",
    "zoo": "assay.models.zoo:",
}

__all__ = ["__version__", *sorted(_HOME)]
_get, __dir__ = lazily(__name__, _HOME)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from assay.benchmarks.harness.origin import version

        return version()
    return _get(name)
