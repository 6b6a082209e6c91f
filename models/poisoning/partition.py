"""Deep Partition Aggregation (Levine and Feizi 2021, arXiv:2006.14768): a vote that few training samples cannot turn.

The training data are cut into parts by a hash of each sample's values, so that a sample that is added, removed or
relabelled changes one part, and one that is altered two at most. Each part trains a classifier of its own; what the
votes say holds until so many parts have changed that the lead is gone. Nothing is random, and nothing is drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from assay.models.data import Dataset
from assay.models.poisoning.learners import Learner, Scores
from assay.verify.core.errors import InputError

ABSTAINED = -1


@dataclass(frozen=True, eq=False)
class Ensemble:
    """One trained classifier a part, None where the part is empty."""

    members: Sequence[Scores | None]
    classes: int

    def votes(self, x: Tensor) -> Tensor:
        """How many members give each class: (batch x shape) to (batch x classes), int64; ties and NaN for nobody."""
        counts = torch.zeros(len(x), self.classes, dtype=torch.int64)
        for member in self.members:
            if member is None:
                continue
            with torch.no_grad():
                value, answer = member(x).topk(2, dim=1)
            sure = value[:, 0] > value[:, 1]
            counts += torch.nn.functional.one_hot(answer[:, 0], self.classes) * sure[:, None]
        return counts

    def certify(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The answers, ``ABSTAINED`` where no class has strictly the most votes, and how many training samples may be
        added, removed or relabelled without changing each: both (batch), int64; -1 where it abstained."""
        return certified(self.votes(x))


def certified(votes: Tensor) -> tuple[Tensor, Tensor]:
    """Answers and radii, both (batch), from counts (batch x classes): a changed part can take a vote from the first
    class and give one to another, which must leave the first strictly ahead.

    >>> [part.tolist() for part in certified(torch.tensor([[5, 2, 0], [3, 3, 1], [4, 0, 3]]))]
    [[0, -1, 0], [1, -1, 0]]
    """
    most, answer = votes.topk(2, dim=1)
    lead = most[:, 0] - most[:, 1]
    radius = torch.div(lead - 1, 2, rounding_mode="floor")
    return torch.where(lead > 0, answer[:, 0], ABSTAINED), torch.where(lead > 0, radius, -1)


def part_of(x: Tensor, parts: int) -> Tensor:
    """The part of each sample x (n x shape), by its values alone, labels left out: (n), int64."""
    rows = x.detach().to("cpu", torch.float64).flatten(1).numpy()
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    return torch.tensor([int.from_bytes(digest, "little") % parts for digest in digests], dtype=torch.int64)


def train(data: Dataset, parts: int, learner: Learner, heard: Callable[[int], None] | None = None) -> Ensemble:
    """The ensemble of ``parts`` classifiers. ``heard``: told after each, how many there are.

    Raises :class:`InputError` for fewer than one part.
    """
    if parts < 1:
        raise InputError(f"expected at least 1 part, got {parts}")
    own = part_of(data.x, parts)
    members: list[Scores | None] = []
    for part in range(parts):
        index = (own == part).nonzero()[:, 0]
        members.append(learner.fit(in_order(data, index)) if len(index) else None)
        if heard is not None:
            heard(part + 1)
    return Ensemble(members, data.classes)


def in_order(data: Dataset, index: Tensor) -> Dataset:
    """The samples at ``index`` in an order that depends on them alone: by their values, then labels."""
    rows = data.x[index].flatten(1).double().numpy()
    labels = data.y[index].tolist()
    keys = [(row.tobytes(), label) for row, label in zip(rows, labels, strict=True)]
    ordered = index[torch.tensor(sorted(range(len(keys)), key=keys.__getitem__), dtype=torch.int64)]
    return replace(data, x=data.x[ordered], y=data.y[ordered])
