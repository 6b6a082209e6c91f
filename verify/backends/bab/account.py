"""The exact account of binary trees: which share of each is closed. An empty queue alone is no proof."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import nextafter

import torch
from torch import Tensor


class Account:
    """A leaf at depth d is 2**-d of its tree; the shares of the closed leaves are added exactly."""

    def __init__(self, trees: int = 1) -> None:
        self._closed: list[Counter[int]] = [Counter() for _ in range(trees)]

    def close(self, depth: Tensor, tree: Tensor | None = None) -> None:
        """Note closed leaves by their depth and the number of their tree: (leaves) each."""
        tree = torch.zeros_like(depth) if tree is None else tree
        kinds, counts = torch.unique(torch.stack([tree, depth]), dim=1, return_counts=True)
        for number, deep, leaves in zip(*kinds.tolist(), counts.tolist(), strict=True):
            self._closed[number][deep] += leaves

    def join(self, other: Account) -> None:
        """Note the leaves that were closed elsewhere, of the same trees."""
        for mine, theirs in zip(self._closed, other._closed, strict=True):
            mine.update(theirs)

    def graft(self, parts: Account, depth: Tensor, tree: Tensor) -> None:
        """Note the leaves of trees that stand where these have leaves, at such a depth of such a tree: (parts)."""
        for part, at, number in zip(parts._closed, depth.tolist(), tree.tolist(), strict=True):
            for below, leaves in part.items():
                self._closed[number][at + below] += leaves

    def completed(self, depth: Tensor, tree: Tensor) -> bool:
        """Whether it is complete but for leaves of these depths and trees, and with them: (leaves) each."""
        whole = Account(self.trees)
        whole.join(self)
        whole.close(depth, tree)
        return whole.complete

    @property
    def trees(self) -> int:
        """How many trees there are."""
        return len(self._closed)

    @property
    def shares(self) -> list[Fraction]:
        """The share of each tree that is closed."""
        return [_share(closed) for closed in self._closed]

    @property
    def leaves(self) -> int:
        """How many leaves have been closed."""
        return sum(closed.total() for closed in self._closed)

    @property
    def deepest(self) -> int:
        """The depth of the deepest closed leaf."""
        return max((max(closed, default=0) for closed in self._closed), default=0)

    @property
    def measure(self) -> float:
        """The share of all trees that is closed, about: 1 only where that is all."""
        share = float(sum(self.shares) / max(1, self.trees))
        return share if self.complete else min(share, nextafter(1.0, 0.0))

    @property
    def closed(self) -> list[bool]:
        """Whether the closed leaves of each tree make up all of it, no more and no less."""
        return [share == 1 for share in self.shares]

    @property
    def complete(self) -> bool:
        """Whether that is so of every tree."""
        return all(self.closed)


def _share(closed: Counter[int]) -> Fraction:
    """Of a tree with so many closed leaves at each depth, counted in the smallest of them."""
    deepest = max(closed, default=0)
    return Fraction(sum(n << (deepest - depth) for depth, n in closed.items()), 1 << deepest)
