"""How good a network is: clean accuracy, and bounds of robust accuracy from both sides. Ties count as wrong."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn

from assay.attacks import get_attack
from assay.models.data import Dataset
from assay.models.training.certified import differences
from assay.verify.bounds import layers
from assay.verify.bounds.backward.rows import lower_rows
from assay.verify.bounds.groups import lower_bounds
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network, to_network
from assay.verify.core.region import LpBall, Region
from assay.verify.core.spec import strictly_largest


def strictly_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the label's logit is strictly the largest and all logits are finite: logits (batch x classes), labels
    (batch), result (batch).

    >>> strictly_right(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([0, 0])).tolist()
    [True, False]
    """
    return strictly_largest(logits, labels) & logits.isfinite().all(1)


@torch.no_grad()
def clean_accuracy(model: nn.Module, dataset: Dataset, batch: int = 1000) -> float:
    """Share of the samples that ``model``, in eval mode, classifies rightly."""
    pairs = zip(torch.split(dataset.x, batch), torch.split(dataset.y, batch), strict=True)
    return sum(int(strictly_right(model(x), y).sum()) for x, y in pairs) / len(dataset)


def attacked_accuracy(model: nn.Module, dataset: Dataset, eps: float, attack: str, seed: int) -> float:
    """Share of the samples classified rightly that an attack, ``pgd(steps=50)``, within linf ``eps`` leaves so."""
    return _share(attacked(model, dataset, eps, attack, seed).standing)


def certified_accuracy(model: nn.Module, dataset: Dataset, eps: float, linear: bool) -> float:
    """Share of the samples whose margin over the linf ball of radius ``eps`` is proven positive, in float64:
    by linear bounds of every layer (CROWN), or by intervals with the last layer merged."""
    return _share(proven(model, dataset, eps, linear))


@dataclass(frozen=True, eq=False)
class Attacked:
    """What an attack within linf ``eps`` left of a data set: which samples are ``standing`` (samples), and the
    ``points`` that it tried in the end (samples x shape)."""

    eps: float
    standing: Tensor
    points: Tensor


def attacked(model: nn.Module, dataset: Dataset, eps: float, attack: str, seed: int) -> Attacked:
    """Which samples are classified rightly, and left so by the attack within linf ``eps``."""
    region = LpBall(dataset.x, eps, inf, dataset.domain)
    found = get_attack(attack).run(model, dataset.x, dataset.y, region, seed=seed)
    with torch.no_grad():
        right = strictly_right(model(dataset.x), dataset.y)
    return Attacked(eps, right & ~found.success, found.adversarial)


def proven(model: nn.Module, dataset: Dataset, eps: float, linear: bool) -> Tensor:
    """Which samples :func:`certified_accuracy` counts: (samples), bool."""

    def of_group(network: Network, region: Region, objective: Tensor, budget: Budget) -> Tensor:
        bounder = layers.by_linear_bounds if linear else layers.by_intervals
        return lower_rows(bounder(network, region, torch.float64, budget), objective, linear)

    network = to_network(model, dataset.shape)
    objective = differences(dataset.y, torch.empty(len(dataset), dataset.classes, dtype=torch.float64))
    region = LpBall(dataset.x, eps, inf, dataset.domain)
    lower = lower_bounds(of_group, network, region, objective, Budget().started(), size=8 if linear else 64)
    return ((lower > 0) & lower.isfinite()).scatter(1, dataset.y[:, None], True).all(1)


def _share(chosen: Tensor) -> float:
    return int(chosen.sum()) / len(chosen)
