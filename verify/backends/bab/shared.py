"""Nodes of trees searched by several processes: each takes a share of those that are open, works on it for a while, and
returns what it closed, what proves that, and what is left.

The roots go first, in equal shares, each with the search that needs no tightening; then the nodes that came last, the
deepest as a rule, as many as are searched together, since a hard subtree that is begun late is what all others wait for
in the end.

What a process closes counts once it has said so; until then its share stays here, and is given out again if it dies. So
nothing is lost with a process, and nothing is closed that the account of leaves does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from torch import Tensor

from assay.verify.backends.bab.account import Account
from assay.verify.backends.bab.climbing import Climbing
from assay.verify.backends.bab.nodes import Nodes
from assay.verify.backends.bab.record import Found
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InternalError
from assay.verify.core.result import Reason
from assay.verify.support.executors import Executor, Fate, Task

SLICE = 0.5  # seconds that a process works on a share, where nobody waits for nodes
LOSSES = 4  # shares that may be lost, but for those with their machine, before all is done here


@dataclass(frozen=True, eq=False)
class Done:
    """What came of a share: the leaves that were closed, the least margin in them, what was counted, a counterexample
    or a reason to stop, if there is one, the nodes that are ``left`` open, and what proves the closed ones, where that
    is ``found`` and asked for."""

    account: Account
    margin: float
    stats: dict[str, Any]
    witness: Tensor | None
    reason: Reason | None
    left: list[Nodes]
    found: Found | None = None


@dataclass(frozen=True, eq=False)
class Share:
    """What a process is asked: to search below these nodes in the way that was found best, for one round at least, and
    no longer than ``slice`` seconds if nothing takes longer; ``roots``: that nothing was tried at them yet. All is over
    after so many ``seconds``."""

    nodes: list[Nodes]
    how: Climbing
    roots: bool
    slice: float
    seconds: float


class Trees(Protocol):
    """What is searched, and how far that is."""

    account: Account
    how: Climbing

    @property
    def over(self) -> bool:
        """Whether there is no need to go on, or no use."""
        ...

    def take(self, done: Done) -> bool:
        """Note what came of a share; False where its counterexample is none here, and nothing is noted."""
        ...

    def check(self) -> None:
        """Raises :class:`assay.verify.core.budget.Expired` when the time is over."""
        ...


def share(trees: Trees, roots: Sequence[Nodes], executor: Executor, budget: Budget, most: int) -> list[Nodes]:
    """Search below roots with the processes of an executor, ``most`` nodes a share; the nodes that are left to be
    searched here, where processes fail."""
    running: set[Task] = set()
    stack, fresh = list[Nodes](), list(roots)
    losses, alone = 0, False
    try:
        while (fresh or stack or running) and not (trees.over or alone or losses > LOSSES):
            trees.check()
            while (fresh or stack) and (idle := executor.capacity - len(running)) > 0:
                pile, at_most = (fresh, inf) if fresh else (stack, most)
                count = int(min(at_most, -(-len(pile) // idle)))
                given = pile[-count:]
                del pile[-count:]
                left = max(0.0, budget.remaining)
                hungry = not (fresh or stack) and len(running) + 1 < executor.capacity
                task = Task(Share(given, trees.how, pile is fresh, 0.0 if hungry else SLICE, left), left, given)
                executor.submit(task)
                running.add(task)
            for ended in executor.ended(max(0.0, budget.remaining)):
                running.discard(ended.task)
                given = ended.task.tag
                if ended.fate is not Fate.REPLIED:
                    losses += ended.fate is not Fate.GONE
                    stack += given
                    continue
                done: Done = ended.reply
                _check(given, done)
                if trees.take(done):
                    stack += done.left
                else:  # what is a counterexample there and none here is looked into here
                    stack += given
                    alone = True
    finally:
        for task in running:
            executor.cancel(task)
    return [*fresh, *stack, *(nodes for task in running for nodes in task.tag)]


def _check(given: list[Nodes], done: Done) -> None:
    """What was closed and what is left make up what was given, or the process is wrong; after a reason to stop nodes
    may be missing, which are open."""
    if done.witness is not None or done.reason is not None:
        return
    account = Account(done.account.trees)
    account.join(done.account)
    for nodes in done.left:
        account.close(nodes.depth, nodes.tree)
    before = Account(done.account.trees)
    for nodes in given:
        before.close(nodes.depth, nodes.tree)
    if account.shares != before.shares:
        raise InternalError("the leaves of a share do not make up its nodes: please report it")
