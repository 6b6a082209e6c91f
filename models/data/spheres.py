"""Adversarial spheres (Gilmer et al. 2018, arXiv:1801.02774): two concentric spheres, whose distance is known.

A classifier that is right on both spheres has a counterexample within the distance to the other sphere, so that no
certified radius may pass it: an oracle for every method, in any dimension, in l2 and linf.
"""

from __future__ import annotations

from math import inf
from pathlib import Path

import torch
from torch import Tensor

from assay.models.data.dataset import Dataset
from assay.verify.core.errors import InputError

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


def distance(x: Tensor, p: float = 2) -> Tensor:
    """How far each point (batch x dimensions) is, in l2 or linf, from the sphere that it is not on: (batch)."""
    far: Tensor = (opposite(x, p) - x.double()).norm(p=p, dim=1)
    return far


def opposite(x: Tensor, p: float = 2) -> Tensor:
    """A nearest point of the other sphere, in l2 or linf, to each point (batch x dimensions): float64.

    In linf all coordinates move by the same, away from 0 or towards it, where those stay that reach it.
    """
    if p not in (2, inf):
        raise InputError(f"distances between spheres are known in l2 and linf, got p = {p}")
    x = x.double()
    length = x.norm(dim=1, keepdim=True)
    goal = torch.where(length < (INNER + OUTER) / 2, OUTER, INNER).to(length)
    if p == 2:
        there: Tensor = x / length * goal
        return there
    size, low, high = x.abs(), torch.full_like(length, -2 * REACH), torch.full_like(length, 2 * REACH)
    for _ in range(80):  # the length grows with the step
        middle = (low + high) / 2
        short = (size + middle).clamp(min=0).norm(dim=1, keepdim=True) < goal
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return torch.where(x < 0, -1.0, 1.0) * (size + high).clamp(min=0)
