"""Training: recipes (what is minimised) and the one loop that runs them reproducibly."""

from __future__ import annotations

from assay.models.training.evaluate import attacked_accuracy, certified_accuracy, clean_accuracy, strictly_right
from assay.models.training.holdout import hold_out
from assay.models.training.isolation import isolated
from assay.models.training.loop import Epoch, Schedule, Training
from assay.models.training.recipe import Recipe, Step
from assay.models.training.rounding import Precision, round_weights
from assay.verify.support import options

__all__ = [
    "TABLE",
    "Epoch",
    "Precision",
    "Recipe",
    "Schedule",
    "Step",
    "Training",
    "attacked_accuracy",
    "certified_accuracy",
    "clean_accuracy",
    "hold_out",
    "isolated",
    "recipe",
    "round_weights",
    "strictly_right",
]

TABLE = {
    "standard": "assay.models.training.standard:Standard",
    "pgd": "assay.models.training.pgd:PGD",
    "trades": "assay.models.training.trades:TRADES",
    "ibp": "assay.models.training.ibp:IBP",
    "crown-ibp": "assay.models.training.crown_ibp:CrownIBP",
    "sabr": "assay.models.training.expressive:SABR",
    "mtl-ibp": "assay.models.training.expressive:MTLIBP",
    "cc-ibp": "assay.models.training.expressive:CCIBP",
    "exp-ibp": "assay.models.training.expressive:EXPIBP",
    "taps": "assay.models.training.taps:TAPS",
    "staps": "assay.models.training.taps:STAPS",
    "lipschitz-margin": "assay.models.training.lipschitz:LipschitzMargin",
    "linf-margin": "assay.models.training.linf_margin:LinfMargin",
    "gaussian": "assay.models.training.gaussian:Gaussian",
    "erasing": "assay.models.training.erasing:Erasing",
    "smoothadv": "assay.models.training.smoothadv:SmoothAdv",
    "consistency": "assay.models.training.consistency:Consistency",
}


def recipe(text: str) -> Recipe:
    """``pgd(eps=0.1,steps=10)`` as a :class:`Recipe`. Raises :class:`InputError` for unknown names and options.

    >>> recipe("pgd(eps=0.2)").eps
    0.2
    """
    chosen: Recipe = options.load("recipe", text, TABLE)
    return chosen
