"""Ways to raise domains, compared on copies of the same trees; what the best one leaves open is gone on with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf, log
from typing import Any

import torch
from torch import Tensor

from assay.verify.backends.bab.account import Account
from assay.verify.backends.bab.frontier import Leaves
from assay.verify.backends.bab.neurons.climbing import Climbing
from assay.verify.backends.bab.search import Outcome

SHARE = 40  # a way takes one in so many of the domains that come first in each turn
TURNS = 4  # at most; after each the better half of the ways goes on, as soon as anything is closed
LEAST = 1e-12  # of what is left open
SLICES = 8  # in which the domains come that the best way is given; after each it is seen whether they are worth it
LAST = 1e-5  # share of a tree that is its last leaf, about
HOPE = 0.5  # of what another way takes: the last leaves of a tree take longer than those before say


@dataclass(eq=False)
class Race:
    """So many ``trees`` in each of the ``ways``: the copy of a tree has the number way * trees + tree. ``open``: leaves
    of all copies, of the roots at first; ``spent``: domains of each copy (copies); ``chosen``: the way that is gone on
    with, by number, once it is."""

    ways: Sequence[Climbing]
    trees: int
    open: Leaves[Any]
    account: Account = field(init=False)
    spent: Tensor = field(init=False)
    chosen: int | None = None

    def __post_init__(self) -> None:
        self.account = Account(len(self.ways) * self.trees)
        self.spent = torch.zeros(len(self.ways), self.trees, dtype=torch.int64)

    def heats(self, first: int, rest: bool = True, other: float = inf) -> Iterator[tuple[int, int]]:
        """What is to be searched next, while anything is open: in which way, by number, and how many domains; at last,
        if the ``rest`` is asked for, ``first`` ones in the best way; or fewer, where by what these close it would take
        much of what the ``other`` way to close trees does, which takes as long as so many."""
        left = list(range(len(self.ways)))
        for _ in range(TURNS):
            for way in left if len(left) > 1 else ():
                if not self.closed.all():
                    yield way, max(1, first // SHARE)
            if any(rates := self.rates):
                left = sorted(left, key=rates.__getitem__, reverse=True)[: (len(left) + 1) // 2]
        if not rest or self.closed.all():
            return
        # What comes first closes most: the rate of a way that goes on gets less, and says nothing of the others.
        self.chosen = self.best
        for number in range(SLICES):
            before = self._left
            yield self.chosen, max(1, first // SLICES)
            if self.closed.all():
                return
            if number and self._to_come(before) > HOPE * other:
                return

    @property
    def _left(self) -> tuple[Tensor, Tensor]:
        """The share of each tree that is open in the chosen way, and the domains of each there: (trees) each."""
        assert self.chosen is not None
        shares = torch.tensor([float(share) for share in self.account.shares]).view(self.spent.shape)
        return 1 - shares[self.chosen], self.spent[self.chosen].clone()

    def _to_come(self, before: tuple[Tensor, Tensor]) -> float:
        """How many domains it takes to close all trees that had some since, if what is left of each goes on to fall by
        the same share for each domain as it did."""
        (old, begun), (new, now) = before, self._left
        some = ~self.closed & (now > begun)
        old, new, domains = old[some].clamp(min=LAST), new[some].clamp(min=LAST), (now - begun)[some]
        fallen = torch.log(old / new) / domains
        return float((torch.log(2 * new / LAST) / fallen).sum())

    def take(self, way: int) -> Leaves[Any]:
        """Take out the leaves of a way's copies; those of trees that are closed in another way are dropped."""
        self.open = self.open.take(~self.closed[self.open.tree % self.trees])
        mine = self.open.tree // self.trees == way
        taken, self.open = self.open.take(mine), self.open.take(~mine)
        return taken

    def note(self, outcome: Outcome) -> None:
        """Take back what is left of these, and count what was done."""
        self.open = self.open.join(outcome.open)
        self.spent += outcome.spent.view(self.spent.shape)

    @property
    def best(self) -> int:
        """The way that was chosen, or in which the open parts of trees got smaller fastest for what was done."""
        return self.rates.index(max(self.rates)) if self.chosen is None else self.chosen

    @property
    def rates(self) -> list[float]:
        """How fast these got smaller in each way."""
        shares = torch.tensor([float(share) for share in self.account.shares]).view(self.spent.shape)
        rates = [0.0] * len(self.ways)
        for number, (how, spent) in enumerate(zip(self.ways, self.spent, strict=True)):
            if spent.any():
                rest = 1 - shares[number, spent > 0].mean().item()
                rates[number] = -log(max(rest, LEAST)) / (spent.sum().item() * (how.steps + 1))
        return rates

    @property
    def closed(self) -> Tensor:
        """Which trees are closed in some way: (trees)."""
        return self._copies.any(0)

    @property
    def first_closed(self) -> Tensor:
        """One closed copy of each of these: (copies)."""
        return (self._copies & (self._copies.cumsum(0) == 1)).flatten()

    @property
    def _copies(self) -> Tensor:
        return torch.tensor(self.account.closed).view(self.spent.shape)
