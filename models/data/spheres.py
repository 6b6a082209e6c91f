"""Adversarial spheres (Gilmer et al. 2018, arXiv:1801.02774): two concentric spheres, whose distance is known.

A classifier that is right on both spheres has a counterexample within the distance to the other sphere, so that no
certified radius in l2 may pass it: an oracle for every method, in any dimension.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from models.data.dataset import Dataset

INNER, OUTER = 1.0, 1.3
DIMENSIONS = 8
SAMPLES = {"train": 4000, "test": 500}
REACH = 1.5  # the domain is [-1.5, 1.5]


def load(split: str, folder: Path | None = None) -> Dataset:
    """Points in 8 dimensions, half on either sphere in turns: label 0 is the inner one, label 1 the outer one.

    They are drawn anew from a fixed seed: ``folder`` is not looked at.
    """
    return sample(SAMPLES[split], DIMENSIONS, split, seed=0 if split == "train" else 1)


def sample(n: int, dimensions: int, split: str = "test", seed: int = 0) -> Dataset:
    """``n`` points of both spheres in any number of dimensions, float32: on their sphere up to rounding."""
    rng = torch.Generator().manual_seed(seed)
    directions = torch.randn(n, dimensions, dtype=torch.float64, generator=rng)
    labels = torch.arange(n) % 2
    radii = torch.where(labels == 0, INNER, OUTER)[:, None]
    x = (radii * directions / directions.norm(dim=1, keepdim=True)).float()
    return Dataset("spheres", split, x, labels, 2, (-REACH, REACH), f"concentric spheres of radius {INNER} and {OUTER}")


def distance(x: Tensor) -> Tensor:
    """How far each point (batch x dimensions) is, in l2, from the sphere that it is not on: (batch)."""
    size = x.double().norm(dim=1)
    return torch.where(size < (INNER + OUTER) / 2, OUTER - size, size - INNER)


def opposite(x: Tensor) -> Tensor:
    """The nearest point of the other sphere to each point (batch x dimensions), float64."""
    size = x.double().norm(dim=1, keepdim=True)
    there: Tensor = x.double() / size * torch.where(size < (INNER + OUTER) / 2, OUTER, INNER)
    return there
