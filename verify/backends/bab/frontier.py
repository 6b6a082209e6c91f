"""The open leaves of a search tree, the one with the worst bound first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Generic, Literal

import torch
from torch import Tensor

from assay.verify.backends.bab.domains import D, columns, count, join, take

Key = Literal["bound", "seen", "depth"]
KEYS: tuple[Key, ...] = ("bound", "seen", "depth")
COLUMNS = (*KEYS, "tree")


@dataclass(frozen=True, eq=False)
class Leaves(Generic[D]):
    """Domains, with a lower bound of the margin on each, the least margin seen, its depth and the number of its tree:
    (leaves)."""

    domains: D
    bound: Tensor
    seen: Tensor
    depth: Tensor
    tree: Tensor

    @classmethod
    def roots(cls, domains: D) -> Leaves[D]:
        """The one leaf of each tree before anything is known of it."""
        far = torch.full((count(domains),), inf, dtype=torch.float64)
        tree = torch.arange(len(far))
        return cls(domains, -far, far, torch.zeros_like(tree), tree)

    def halved(self, halves: D) -> Leaves[D]:
        """The leaves in halves: the first ones of all, then the second ones."""
        return Leaves(halves, self.bound.repeat(2), self.seen.repeat(2), self.depth.repeat(2) + 1, self.tree.repeat(2))

    def take(self, index: Tensor) -> Leaves[D]:
        """The leaves at ``index``, positions or a mask (leaves)."""
        return Leaves(take(self.domains, index), *(getattr(self, name)[index] for name in COLUMNS))

    def join(self, other: Leaves[D]) -> Leaves[D]:
        """These leaves and others after them."""
        domains = join([self.domains, other.domains])
        rest = (torch.cat([getattr(self, name), getattr(other, name)]) for name in COLUMNS)
        return Leaves(domains, *rest)


class Frontier(Generic[D]):
    """A pool of leaves in tensors that grow by doubling; what is taken out is replaced by what stands last."""

    def __init__(self, leaves: Leaves[D]) -> None:
        self._shape = leaves
        self._pool = [column.clone() for column in _flat(leaves)]
        self._size = len(leaves.bound)

    def __len__(self) -> int:
        return self._size

    @property
    def lowest(self) -> float:
        """The smallest bound of an open leaf; infinity where there is none."""
        return float(self._pool[0][: self._size].min()) if self._size else inf

    @property
    def memory(self) -> int:
        """Bytes that the leaves take."""
        return sum(column[:1].nbytes for column in self._pool) * self._size

    def push(self, leaves: Leaves[D]) -> None:
        """Add leaves."""
        end = self._size + len(leaves.bound)
        for i, (column, new) in enumerate(zip(self._pool, _flat(leaves), strict=True)):
            if end > len(column):
                grown = column.new_empty((2 * end, *column.shape[1:]))
                grown[: self._size] = column[: self._size]
                self._pool[i] = column = grown
            column[self._size : end] = new
        self._size = end

    def pop(self, most: int, key: Key, largest: bool = False) -> Leaves[D]:
        """Take out up to ``most`` leaves: those of which the ``key`` is least, or ``largest``."""
        column = self._pool[KEYS.index(key)][: self._size]
        taken = torch.arange(self._size) if self._size <= most else column.topk(most, largest=largest).indices
        popped = [column.index_select(0, taken) for column in self._pool]
        self._size -= len(taken)
        # What stands beyond the new end moves into the holes before it.
        hole = torch.zeros(self._size + len(taken), dtype=torch.bool)
        hole[taken] = True
        left, right = hole[: self._size].nonzero().flatten(), (~hole[self._size :]).nonzero().flatten() + self._size
        for column in self._pool:
            column[left] = column[right]
        return self._like(popped)

    def _like(self, flat: list[Tensor]) -> Leaves[D]:
        names = columns(self._shape.domains)
        domains: D = replace(self._shape.domains, **dict(zip(names, flat[len(COLUMNS) :], strict=True)))
        return Leaves(domains, *flat[: len(COLUMNS)])


def _flat(leaves: Leaves[D]) -> list[Tensor]:
    return [*(getattr(leaves, name) for name in COLUMNS), *columns(leaves.domains).values()]
