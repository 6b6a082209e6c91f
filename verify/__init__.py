"""Robustness verification of neural networks: every family of methods behind one interface.

The public names are imported on first use (PEP 562): ``import assay.verify`` alone costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay.lazy import lazily

if TYPE_CHECKING:
    from assay.verify.core.budget import Budget as Budget
    from assay.verify.core.network import Network as Network
    from assay.verify.core.network import to_network as to_network
    from assay.verify.core.problem import Problem as Problem
    from assay.verify.core.region import Box as Box
    from assay.verify.core.region import Intersection as Intersection
    from assay.verify.core.region import LpBall as LpBall
    from assay.verify.core.region import Polytope as Polytope
    from assay.verify.core.region import Sparse as Sparse
    from assay.verify.core.result import Guarantee as Guarantee
    from assay.verify.core.result import Reason as Reason
    from assay.verify.core.result import Result as Result
    from assay.verify.core.result import Verdict as Verdict
    from assay.verify.core.spec import Spec as Spec
    from assay.verify.core.verifier import Bounds as Bounds
    from assay.verify.registry import get_bounder as get_bounder
    from assay.verify.registry import get_verifier as get_verifier
    from assay.verify.registry import list_verifiers as list_verifiers
    from assay.verify.solving.auto import solve as solve
    from assay.verify.solving.proofs import certify as certify

_HOME = {
    "Problem": "assay.verify.core.problem",
    "Network": "assay.verify.core.network",
    "to_network": "assay.verify.core.network",
    "Box": "assay.verify.core.region",
    "Intersection": "assay.verify.core.region",
    "LpBall": "assay.verify.core.region",
    "Sparse": "assay.verify.core.region",
    "Polytope": "assay.verify.core.region",
    "Spec": "assay.verify.core.spec",
    "Budget": "assay.verify.core.budget",
    "Bounds": "assay.verify.core.verifier",
    "Result": "assay.verify.core.result",
    "Verdict": "assay.verify.core.result",
    "Reason": "assay.verify.core.result",
    "Guarantee": "assay.verify.core.result",
    "get_verifier": "assay.verify.registry",
    "get_bounder": "assay.verify.registry",
    "list_verifiers": "assay.verify.registry",
    "solve": "assay.verify.solving.auto",
    "certify": "assay.verify.solving.proofs",
}

__all__ = sorted(_HOME)
__getattr__, __dir__ = lazily(__name__, _HOME)

if __name__ != "assay.verify":  # imported by its bare name, beside the folder
    from assay.checkout import same_modules

    same_modules(__name__)
