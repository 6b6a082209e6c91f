"""Training: recipes (what is minimised) and the one loop that runs them reproducibly."""

from __future__ import annotations

from models.training.evaluate import attacked_accuracy, certified_accuracy, clean_accuracy, strictly_right
from models.training.holdout import hold_out
from models.training.isolation import isolated
from models.training.loop import Epoch, Schedule, Training
from models.training.recipe import Recipe, Step
from verify.core import options

__all__ = [
    "TABLE",
    "Epoch",
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
    "strictly_right",
]

TABLE = {
    "standard": "models.training.standard:Standard",
    "pgd": "models.training.pgd:PGD",
    "trades": "models.training.trades:TRADES",
    "ibp": "models.training.ibp:IBP",
    "crown-ibp": "models.training.crown_ibp:CrownIBP",
    "lipschitz-margin": "models.training.lipschitz:LipschitzMargin",
    "linf-margin": "models.training.linf_margin:LinfMargin",
    "gaussian": "models.training.gaussian:Gaussian",
    "smoothadv": "models.training.smoothadv:SmoothAdv",
    "consistency": "models.training.consistency:Consistency",
}


def recipe(text: str) -> Recipe:
    """``pgd(eps=0.1,steps=10)`` as a :class:`Recipe`. Raises :class:`InputError` for unknown names and options.

    >>> recipe("pgd(eps=0.2)").eps
    0.2
    """
    chosen: Recipe = options.load("recipe", text, TABLE)
    return chosen
