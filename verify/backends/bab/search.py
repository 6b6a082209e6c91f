"""The loop: take the leaves with the worst bounds, bound them, close what is safe, halve the rest.

It knows domains as rows of tensors only; a tree bounds and halves them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf
from typing import Any, Generic, Literal, Protocol

import torch
from torch import Tensor

from assay.verify.backends.bab.account import Account
from assay.verify.backends.bab.domains import D
from assay.verify.backends.bab.frontier import Frontier, Leaves
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.errors import InternalError
from assay.verify.core.result import Reason

WORST = 8  # one in so many leaves of a batch is there for its bound


@dataclass(frozen=True, eq=False)
class Bounded(Generic[D]):
    """What bounding a batch of domains gave.

    ``lower`` (domains), float64: a lower bound of the margin on each domain, NaN where there is none; ``seen``: the
    least margin seen at a point of each, which tells where a counterexample is likely. ``domains``: the same ones, in
    order, with what is kept for their children; they may have shrunk, and on all that was cut off the margin
    is at least ``cleared``. ``witness``: a counterexample, without a batch dimension. ``limit``: what the bound of a
    leaf has to pass.
    """

    lower: Tensor
    seen: Tensor
    domains: D
    cleared: float = inf
    witness: Tensor | None = None
    limit: float = 0.0


class Tree(Protocol[D]):
    """How the domains of one problem are bounded and halved."""

    def root(self) -> D:
        """What the problem speaks of: one domain, or several, each the root of a tree of its own."""
        ...

    def bound(self, domains: D, budget: Budget) -> Bounded[D]:
        """Bounds of a batch; raises :class:`assay.verify.core.budget.Expired` when the time is over."""
        ...

    def divisible(self, domains: D) -> Tensor:
        """Which domains can be halved: (domains)."""
        ...

    def halve(self, domains: D) -> D:
        """Two parts of each domain that together are all of it: the first ones of all, then the second ones."""
        ...


@dataclass(frozen=True)
class Limits:
    """``batch``: domains that are bounded together; ``fill``: with fewer open leaves than this they are halved again
    at once; ``memory``: bytes of open leaves above which the deepest ones are taken first; ``domains``: after so many
    the search stops; ``order``: which leaves come first, as a rule the ``likely`` ones; ``aside``: a leaf that can
    neither be closed nor halved does not end it, where there are but so many leaves in all."""

    batch: int
    fill: int
    memory: int
    domains: float = inf
    order: Literal["likely", "worst", "deep", "shallow"] = "likely"
    aside: bool = False


@dataclass(frozen=True, eq=False)
class Outcome:
    """How a search ended. ``margin``: a lower bound over all roots, ``settled``: over the leaves that are closed;
    ``closed``: whether every leaf of each tree is, ``measure``: which share of all trees; ``spent``: domains of each
    tree (trees); ``open``: the leaves that are left."""

    margin: float
    settled: float
    closed: list[bool]
    measure: float
    witness: Tensor | None
    reason: Reason | None
    stats: dict[str, Any]
    spent: Tensor
    open: Leaves[Any]

    @property
    def complete(self) -> bool:
        """Whether every leaf is closed."""
        return all(self.closed)


def search(
    tree: Tree[D], limits: Limits, budget: Budget, leaves: Leaves[D] | None = None, account: Account | None = None
) -> Outcome:
    """Search until a counterexample is found, every leaf is closed, or a leaf can neither be closed nor halved: from
    the roots on, or from ``leaves`` on that an earlier search left open, with the ``account`` of what it closed; those
    of some trees are all there or none."""
    if leaves is None:
        leaves = Leaves.roots(tree.root())
    if account is None:
        account = Account(len(leaves.bound))
    frontier, spent = Frontier(leaves), torch.zeros(account.trees, dtype=torch.int64)
    searched = torch.bincount(leaves.tree).nonzero().flatten().tolist()
    settled, domains, rounds = inf, 0, 0
    stuck = list[Leaves[D]]()
    witness: Tensor | None = None
    reason: Reason | None = None
    while len(frontier) and witness is None and reason is None and domains < limits.domains:
        leaves = _next(frontier, limits, min(limits.batch, limits.domains - domains))
        try:
            budget.check()
            bounded = tree.bound(leaves.domains, budget)
        except (Expired, MemoryError) as stop:
            frontier.push(leaves)
            reason = Reason.TIMEOUT if isinstance(stop, Expired) else Reason.MEMORY
            break
        rounds, domains = rounds + 1, domains + len(leaves.bound)
        spent += torch.bincount(leaves.tree, minlength=len(spent))
        # fmax: a domain without a bound of its own has that of its parent.
        lower, witness = torch.fmax(bounded.lower, leaves.bound), bounded.witness
        closed = lower.isfinite() & (lower > bounded.limit)
        account.close(leaves.depth[closed], leaves.tree[closed])
        settled = min(settled, bounded.cleared, *lower[closed].sort().values[:1].tolist())
        open_ = Leaves(bounded.domains, lower, bounded.seen, leaves.depth, leaves.tree).take(~closed)
        divisible = tree.divisible(open_.domains)
        if witness is None and not bool(divisible.all()):
            stuck.append(open_.take(~divisible))
            open_ = open_.take(divisible)
            reason = None if limits.aside else Reason.NUMERICAL
        more = witness is None and reason is None and len(open_.bound) > 0
        frontier.push(_halved(tree, open_, limits.fill - len(frontier)) if more else open_)
    if stuck:
        reason = reason or Reason.NUMERICAL if witness is None else None
        for leaves in stuck:
            frontier.push(leaves)
    closed_trees = account.closed
    if not len(frontier) and not all(closed_trees[number] for number in searched):
        raise InternalError(f"{account.leaves} closed leaves do not make up the tree: please report it")
    stats = {
        "domains": domains,
        "rounds": rounds,
        "leaves": account.leaves,
        "open": len(frontier),
        "depth": account.deepest,
        "closed": account.measure,
        "worst": frontier.lowest if len(frontier) else None,
        "batch": limits.batch,
    }
    margin, left = min(settled, frontier.lowest), frontier.pop(len(frontier), "bound")
    return Outcome(margin, settled, closed_trees, account.measure, witness, reason, stats, spent, left)


def _next(frontier: Frontier[D], limits: Limits, most: float) -> Leaves[D]:
    """The next leaves, up to so many. Most are where a counterexample is likeliest, the rest holds the worst bounds, so
    that the margin of an unfinished search improves; if memory is short the deepest leaves come first, the fewer the
    shorter it is, which keeps the tree narrow."""
    short = frontier.memory > limits.memory
    deep = limits.order == "deep" or short
    most = max(1.0, most * limits.memory / frontier.memory) if short else most
    if deep or limits.order == "shallow":
        return frontier.pop(ceil(most), "depth", largest=deep)
    if limits.order == "worst":
        return frontier.pop(ceil(most), "bound")
    worst = frontier.pop(ceil(most) // WORST, "bound")
    return worst.join(frontier.pop(ceil(most) - len(worst.bound), "seen"))


def _halved(tree: Tree[D], leaves: Leaves[D], room: int) -> Leaves[D]:
    """The leaves in halves, and these again while they are few enough for ``room``."""
    while True:
        leaves = leaves.halved(tree.halve(leaves.domains))
        if 2 * len(leaves.bound) > room or not bool(tree.divisible(leaves.domains).all()):
            return leaves
