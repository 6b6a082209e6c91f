"""Noises: how to draw each, and how far a class of known probability stays the majority's."""

from __future__ import annotations

from assay.verify.backends.smoothing.noises.cubic import ExpInf, PowInf
from assay.verify.backends.smoothing.noises.erasing import Ablation, Masking
from assay.verify.backends.smoothing.noises.noise import Noise, Sampled, with_mean_l1, with_rms
from assay.verify.backends.smoothing.noises.product import Expp, Gaussian, Laplace, Pareto, Uniform
from assay.verify.backends.smoothing.noises.round import Exp1, Exp2, Pow2, UniformBall

__all__ = [
    "Ablation",
    "Exp1",
    "Exp2",
    "ExpInf",
    "Expp",
    "Gaussian",
    "Laplace",
    "Masking",
    "Noise",
    "Pareto",
    "Pow2",
    "PowInf",
    "Sampled",
    "Uniform",
    "UniformBall",
    "with_mean_l1",
    "with_rms",
]
