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
    from assay.attacks.apgd import APGD as APGD
    from assay.attacks.apgd import APGDCE as APGDCE
    from assay.attacks.apgd import APGDT as APGDT
    from assay.attacks.autoattack import AutoAttack as AutoAttack
    from assay.attacks.baselines import Grid as Grid
    from assay.attacks.baselines import Random as Random
    from assay.attacks.cw import CW as CW
    from assay.attacks.cw_l0 import CWL0 as CWL0
    from assay.attacks.ddn import DDN as DDN
    from assay.attacks.deepfool import DeepFool as DeepFool
    from assay.attacks.ead import EAD as EAD
    from assay.attacks.fab import FAB as FAB
    from assay.attacks.fab import FABT as FABT
    from assay.attacks.fgsm import FGSM as FGSM
    from assay.attacks.fmn import FMN as FMN
    from assay.attacks.hopskipjump import HopSkipJump as HopSkipJump
    from assay.attacks.mifgsm import MIFGSM as MIFGSM
    from assay.attacks.pgd import PGD as PGD
    from assay.attacks.pgd_eot import PGDEOT as PGDEOT
    from assay.attacks.registry import get_attack as get_attack
    from assay.attacks.registry import list_attacks as list_attacks
    from assay.attacks.sparse_rs import SparseRS as SparseRS
    from assay.attacks.square import Square as Square
    from assay.benchmarks.harness.compare import compare as compare
    from assay.benchmarks.harness.radii.radius_table import compare_radii as compare_radii
    from assay.models import data as data
    from assay.models import zoo as zoo
    from assay.verify import Bounds as Bounds
    from assay.verify import Box as Box
    from assay.verify import Budget as Budget
    from assay.verify import Guarantee as Guarantee
    from assay.verify import Intersection as Intersection
    from assay.verify import LpBall as LpBall
    from assay.verify import Network as Network
    from assay.verify import Polytope as Polytope
    from assay.verify import Problem as Problem
    from assay.verify import Reason as Reason
    from assay.verify import Result as Result
    from assay.verify import Sparse as Sparse
    from assay.verify import Spec as Spec
    from assay.verify import Verdict as Verdict
    from assay.verify import certify as certify
    from assay.verify import get_bounder as get_bounder
    from assay.verify import get_verifier as get_verifier
    from assay.verify import list_verifiers as list_verifiers
    from assay.verify import solve as solve
    from assay.verify import to_network as to_network
    from assay.verify.backends.alpha_crown import AlphaCROWN as AlphaCROWN
    from assay.verify.backends.bab.inputs.input_split import InputSplit as InputSplit
    from assay.verify.backends.bab.neurons.bab import BaB as BaB
    from assay.verify.backends.bab.programs.lp_bab import LPBaB as LPBaB
    from assay.verify.backends.crown import CROWN as CROWN
    from assay.verify.backends.crown_ibp import CROWNIBP as CROWNIBP
    from assay.verify.backends.ibp import IBP as IBP
    from assay.verify.backends.lipschitz.method import Lipschitz as Lipschitz
    from assay.verify.backends.lipschitz.sdp.method import SDP as SDP
    from assay.verify.backends.lipschitz.sdp.method import LipSDP as LipSDP
    from assay.verify.backends.lirpa.method import LiRPA as LiRPA
    from assay.verify.backends.lp import LP as LP
    from assay.verify.backends.milp import MILP as MILP
    from assay.verify.backends.smoothing.attack import SmoothingAttack as SmoothingAttack
    from assay.verify.backends.smoothing.derandomized import Derandomized as Derandomized
    from assay.verify.backends.smoothing.layer import LayerSmoothing as LayerSmoothing
    from assay.verify.backends.smoothing.layer_attack import LayerSmoothingAttack as LayerSmoothingAttack
    from assay.verify.backends.smoothing.method import Smoothing as Smoothing
    from assay.verify.backends.smt.method import SMT as SMT
    from assay.verify.solving.auto import Auto as Auto
    from assay.verify.solving.cells import Cells as Cells
    from assay.verify.solving.falsifier import AttackVerifier as AttackVerifier
    from assay.verify.solving.pieces import Pieces as Pieces
    from assay.verify.solving.votes_attack import DerandomizedAttack as DerandomizedAttack

    __version__: str

_VERIFY = (
    "Bounds Box Budget Guarantee Intersection LpBall Network Polytope Problem Reason Result Sparse Spec Verdict "
    "certify get_bounder get_verifier list_verifiers solve to_network"
)
_HOME = {
    **dict.fromkeys(_VERIFY.split(), "assay.verify"),
    **{name: f"assay.{name}:" for name in ("attacks", "benchmarks", "models", "verify")},
    "compare": "assay.benchmarks.harness.compare",
    "compare_radii": "assay.benchmarks.harness.radii.radius_table",
    "data": "assay.models.data:",
    "get_attack": "assay.attacks.registry",
    "list_attacks": "assay.attacks.registry",
    "zoo": "assay.models.zoo:",
}
# Every method and attack as a class, whose fields are its options: assay.CROWN(dtype="float32") is what
# assay.get_verifier("crown(dtype=float32)") gives.
_CLASSES = {
    "assay.attacks.apgd": "APGD APGDCE APGDT",
    "assay.attacks.autoattack": "AutoAttack",
    "assay.attacks.baselines": "Grid Random",
    "assay.attacks.cw": "CW",
    "assay.attacks.cw_l0": "CWL0",
    "assay.attacks.ddn": "DDN",
    "assay.attacks.deepfool": "DeepFool",
    "assay.attacks.ead": "EAD",
    "assay.attacks.fab": "FAB FABT",
    "assay.attacks.fgsm": "FGSM",
    "assay.attacks.fmn": "FMN",
    "assay.attacks.hopskipjump": "HopSkipJump",
    "assay.attacks.mifgsm": "MIFGSM",
    "assay.attacks.pgd": "PGD",
    "assay.attacks.pgd_eot": "PGDEOT",
    "assay.attacks.sparse_rs": "SparseRS",
    "assay.attacks.square": "Square",
    "assay.verify.backends.alpha_crown": "AlphaCROWN",
    "assay.verify.backends.bab.neurons.bab": "BaB",
    "assay.verify.backends.bab.inputs.input_split": "InputSplit",
    "assay.verify.backends.bab.programs.lp_bab": "LPBaB",
    "assay.verify.backends.crown": "CROWN",
    "assay.verify.backends.crown_ibp": "CROWNIBP",
    "assay.verify.backends.ibp": "IBP",
    "assay.verify.backends.lipschitz.method": "Lipschitz",
    "assay.verify.backends.lipschitz.sdp.method": "LipSDP SDP",
    "assay.verify.backends.lirpa.method": "LiRPA",
    "assay.verify.backends.lp": "LP",
    "assay.verify.backends.milp": "MILP",
    "assay.verify.backends.smoothing.attack": "SmoothingAttack",
    "assay.verify.backends.smoothing.derandomized": "Derandomized",
    "assay.verify.backends.smoothing.layer": "LayerSmoothing",
    "assay.verify.backends.smoothing.layer_attack": "LayerSmoothingAttack",
    "assay.verify.backends.smoothing.method": "Smoothing",
    "assay.verify.backends.smt.method": "SMT",
    "assay.verify.solving.auto": "Auto",
    "assay.verify.solving.cells": "Cells",
    "assay.verify.solving.falsifier": "AttackVerifier",
    "assay.verify.solving.pieces": "Pieces",
    "assay.verify.solving.votes_attack": "DerandomizedAttack",
}
_HOME |= {name: module for module, names in _CLASSES.items() for name in names.split()}

__all__ = ["__version__", *sorted(_HOME)]
_get, __dir__ = lazily(__name__, _HOME)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from assay.benchmarks.harness.records.origin import version

        return version()
    return _get(name)
