"""Poisoned samples told by the directions in which they stretch their class: spectral signatures, plain and robust."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from assay.models.poisoning.filtering import robust_moments
from assay.verify.core.errors import InputError

MARGIN = 1.5  # as many samples again by half as are feared are taken out


class Detector(Protocol):
    """Says how suspicious each sample of a class is."""

    name: ClassVar[str]

    def scores(self, features: Tensor, share: float) -> Tensor:
        """Features of one class (n x values), of which about ``share`` are feared to be foreign: (n), float64."""
        ...


@dataclass(frozen=True)
class Spectral:
    """The square along the top singular vector of the centred features (Tran, Li and Madry 2018, arXiv:1811.00636)."""

    name: ClassVar[str] = "spectral"

    def scores(self, features: Tensor, share: float) -> Tensor:
        """See :class:`Detector`."""
        centred = features.double() - features.double().mean(0)
        scores: Tensor = (centred @ torch.linalg.svd(centred, full_matrices=False).Vh[0]).square()
        return scores


@dataclass(frozen=True)
class Filtered:
    """The same on features that a robust covariance has whitened, all stretched directions weighed at once (SPECTRE:
    Hayase et al. 2021, arXiv:2104.11315).

    ``values``: principal ones that are kept; ``alpha``: how much more the most stretched direction counts than others.
    """

    values: int = 10
    alpha: float = 4.0
    name: ClassVar[str] = "filtered"

    def __post_init__(self) -> None:
        if self.values < 1 or not self.alpha > 0:
            raise InputError(f"filtered: expected values >= 1 and alpha > 0, got {self.values} and {self.alpha}")

    def scores(self, features: Tensor, share: float) -> Tensor:
        """See :class:`Detector`."""
        centred = features.double() - features.double().mean(0)
        top = torch.linalg.svd(centred, full_matrices=False)
        rank = int((top.S / top.S[0] > 1e-9).sum()) if float(top.S[0]) > 0 else 0
        if rank == 0:
            return centred.new_zeros(len(centred))
        # With as many values as samples every one of them is an outlier in a direction of its own.
        few = centred @ top.Vh[: min(self.values, rank, max(1, len(centred) // 4))].T
        white = robust_moments(few, share).whiten(few)
        stretched = white.T @ white / len(white)
        values, vectors = torch.linalg.eigh(stretched)
        excess = (values - 1) / max(float(values[-1]) - 1, 1e-12)
        weight = (self.alpha * (excess - excess.max())).exp()
        scores: Tensor = ((white @ vectors).square() * weight).sum(1) / weight.sum()
        return scores


def suspects(detector: Detector, features: Tensor, labels: Tensor, share: float) -> Tensor:
    """The samples to take out: of every class those of the highest scores, ``MARGIN`` times as many as are feared.

    ``features`` (n x values), ``labels`` (n), ``share``: of a class that may be foreign; result (n), bool. Classes of
    fewer than four samples are left alone.
    """
    if not 0 <= share < 0.5:
        raise InputError(f"the share of foreign samples must be at least 0 and below 1/2, got {share}")
    out = torch.zeros(len(labels), dtype=torch.bool)
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero()[:, 0]
        count = min(len(members) - 1, ceil(MARGIN * share * len(members)))
        if len(members) < 4 or count < 1:
            continue
        out[members[detector.scores(features[members], share).topk(count).indices]] = True
    return out
