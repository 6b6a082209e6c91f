"""Clean accuracy, with ties counted as wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.data import Dataset


def strictly_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the label's logit is strictly the largest: logits (batch x classes), labels (batch), result (batch).

    >>> strictly_right(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([0, 0])).tolist()
    [True, False]
    """
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return (own > others).all(1) & logits.isfinite().all(1)


@torch.no_grad()
def clean_accuracy(model: nn.Module, dataset: Dataset, batch: int = 1000) -> float:
    """Share of the samples that ``model``, in eval mode, classifies rightly."""
    pairs = zip(torch.split(dataset.x, batch), torch.split(dataset.y, batch), strict=True)
    return sum(int(strictly_right(model(x), y).sum()) for x, y in pairs) / len(dataset)
