"""Semantic perturbations: what happens to an image when it is turned, moved, scaled, brightened, as a function of few
parameters; linear enclosures of all the pixels over cells of these; and questions about them."""

from __future__ import annotations

from assay.verify.perturbations.enclosures import Enclosure, enclose
from assay.verify.perturbations.kinds import KINDS, Part, Perturbation
from assay.verify.perturbations.question import Perturbed

__all__ = ["KINDS", "Enclosure", "Part", "Perturbation", "Perturbed", "enclose"]
