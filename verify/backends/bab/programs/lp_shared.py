"""Open nodes of trees of linear programs, searched by several processes: each takes some, works below them for a while,
and returns the parts of the trees that it made, with the duals that prove their leaves.

A part counts once it is here; until then its node is open, and is given out again if the process is lost.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from assay.verify.backends.bab.account import Account
from assay.verify.backends.bab.frontier import Frontier, Leaves
from assay.verify.backends.bab.programs.certificate import Tree
from assay.verify.backends.bab.programs.lp_tree import Branches, LPTree
from assay.verify.backends.bab.search import Limits, Outcome, search
from assay.verify.backends.bab.shared import SLICE
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InternalError
from assay.verify.core.result import Reason

MOST = 64  # nodes of a share
ROUND = 4  # batches between one look at the clock and the next


class SeenBy(Protocol):
    """Who looks at points: ``seen``: the least margin of each disjunct (disjuncts)."""

    seen: Tensor

    def see(self, point: Tensor) -> None:
        """See a point of the region, as the network takes it."""
        ...

    def found(self) -> Tensor | None:
        """A counterexample, where that is all that was asked for."""
        ...


@dataclass(frozen=True, eq=False)
class Share:
    """What a process is asked: to search below these for so many seconds, one round at least; the least margin that was
    seen of each disjunct so far; all is over after ``seconds``."""

    leaves: Leaves[Branches]
    seen: Tensor
    slice: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Parts:
    """What came of a share: below each of its nodes a tree, and whether what proves it is ``recorded``; the account of
    these trees, and what is left open of them; domains, and programs that were solved; the best point that was seen, in
    the region, and whether it is a counterexample there."""

    trees: list[Tree]
    recorded: bool
    account: Account
    left: Leaves[Branches]
    domains: int
    programs: int
    point: Tensor | None
    witness: bool


def searched(
    tree: LPTree, leaves: Leaves[Branches], limits: Limits, budget: Budget, seconds: float
) -> tuple[Outcome, Account]:
    """What comes of a search below leaves, each the root of a tree of its own, for so many seconds, and the account
    of what is closed."""
    until, places = time.monotonic() + seconds, torch.arange(len(leaves.bound))
    none = torch.zeros_like(places)
    tree.trees, tree.size, tree.bases = [Tree() for _ in places], 0, {}
    leaves = replace(leaves, domains=replace(leaves.domains, tree=places, node=none), depth=none, tree=places)
    account, domains = Account(len(places)), 0
    while True:
        outcome = search(tree, replace(limits, domains=ROUND * limits.batch), budget, leaves, account)
        leaves, domains = outcome.open, domains + outcome.stats["domains"]
        over = outcome.witness is not None or outcome.reason in (Reason.TIMEOUT, Reason.MEMORY)
        if over or not bool(tree.divisible(leaves.domains).any()) or time.monotonic() >= until:
            return replace(outcome, stats={**outcome.stats, "domains": domains}), account


class Shares:
    """Open leaves of a tree with a record that is whole, and what was closed of it, as
    :func:`assay.verify.backends.bab.shared.give_out` gives them out."""

    def __init__(self, tree: LPTree, leaves: Leaves[Branches], account: Account, seen: SeenBy) -> None:
        self.tree, self.account, self.seen = tree, account, seen
        free = tree.divisible(leaves.domains)
        self.frontier, self.stuck, self.domains = Frontier(leaves.take(free)), leaves.take(~free), 0

    @property
    def over(self) -> bool:
        """Whether there is no need to go on."""
        return self.seen.found() is not None

    @property
    def left(self) -> Leaves[Branches]:
        """What is open."""
        return self.frontier.pop(len(self.frontier), "bound").join(self.stuck)

    def __len__(self) -> int:
        return len(self.frontier)

    def pop(self, idle: int) -> Leaves[Branches]:
        """The leaves of the least bounds, for one of so many processes."""
        return self.frontier.pop(min(MOST, -(-len(self) // idle)), "bound")

    def ask(self, given: Leaves[Branches], hungry: bool, seconds: float) -> Share:
        """What is asked of a process."""
        return Share(given, self.seen.seen, SLICE / 4 if hungry else SLICE, seconds)

    def push(self, given: Leaves[Branches]) -> None:
        """Take back what was given out."""
        self.frontier.push(given)

    def take(self, given: Leaves[Branches], parts: Parts) -> bool:
        """Put parts into their trees, and what is left of them back to the open leaves; False where a counterexample
        is none here."""
        left, domains = parts.left, parts.left.domains
        for place, part in enumerate(parts.trees):
            if sorted(domains.node[domains.tree == place].tolist()) != part.open_nodes:
                raise InternalError("what is left of a part of a tree is not what is open there: please report it")
        if not parts.account.completed(left.depth, left.tree):
            raise InternalError("the leaves of a share do not make up its nodes: please report it")
        self.tree.programs, self.domains = self.tree.programs + parts.programs, self.domains + parts.domains
        if parts.point is not None:
            self.seen.see(parts.point)
        self.tree.recorded &= parts.recorded
        places = zip(given.domains.tree.tolist(), given.domains.node.tolist(), parts.trees, strict=True)
        numbers = [self.tree.graft(tree, node, part) for tree, node, part in places]
        node = _numbers(numbers, domains)
        domains = replace(domains, tree=given.domains.tree[left.tree], node=node)
        depth, tree = given.depth[left.tree] + left.depth, given.tree[left.tree]
        back = replace(left, domains=domains, depth=depth, tree=tree)
        self.account.graft(parts.account, given.depth, given.tree)
        free = self.tree.divisible(back.domains)
        self.frontier.push(back.take(free))
        self.stuck = self.stuck.join(back.take(~free))
        return not parts.witness or self.over


def _numbers(numbers: Sequence[Sequence[int]], domains: Branches) -> Tensor:
    """The numbers that nodes of parts have in their trees (nodes)."""
    places = zip(domains.tree.tolist(), domains.node.tolist(), strict=True)
    return torch.tensor([numbers[tree][node] for tree, node in places], dtype=torch.int64)
