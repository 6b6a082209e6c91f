"""The exact account of a binary tree: which share of it is closed. An empty queue alone is no proof."""

from __future__ import annotations

from collections import Counter

from torch import Tensor


class Account:
    """A leaf at depth d is 2**-d of the tree; the shares of the closed leaves are added in whole numbers."""

    def __init__(self) -> None:
        self._closed: Counter[int] = Counter()

    def close(self, depth: Tensor) -> None:
        """Note closed leaves by their depth: (leaves)."""
        self._closed.update(depth.tolist())

    @property
    def leaves(self) -> int:
        """How many leaves have been closed."""
        return self._closed.total()

    @property
    def deepest(self) -> int:
        """The depth of the deepest closed leaf."""
        return max(self._closed, default=0)

    @property
    def complete(self) -> bool:
        """Whether the closed leaves make up the whole tree, no more and no less."""
        deepest = self.deepest
        return sum(number << (deepest - depth) for depth, number in self._closed.items()) == 1 << deepest
