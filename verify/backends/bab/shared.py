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
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol, TypeVar

from torch import Tensor

from assay.verify.backends.bab.account import Account
from assay.verify.backends.bab.neurons.climbing import Climbing
from assay.verify.backends.bab.neurons.nodes import Nodes
from assay.verify.backends.bab.neurons.record import Found
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InternalError
from assay.verify.core.result import Reason
from assay.verify.support.executors import Executor, Fate, Task

SLICE = 0.5  # seconds that a process works on a share, where nobody waits for nodes
LOSSES = 4  # shares that may be lost, but for those with their machine, before all is done here
G = TypeVar("G")


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


class Pool(Protocol[G]):
    """What is open, of which some is ``given`` out at a time; its length: how much there is."""

    @property
    def over(self) -> bool:
        """Whether there is no need to go on, or no use."""
        ...

    def __len__(self) -> int: ...

    def pop(self, idle: int) -> G:
        """Take out what one of so many idle processes gets."""
        ...

    def ask(self, given: G, hungry: bool, seconds: float) -> Any:
        """What a process is asked, which has so many seconds at most; ``hungry``: others wait for what it finds."""
        ...

    def take(self, given: G, reply: Any) -> bool:
        """Note the reply, and what is left open; False where the rest is better done here."""
        ...

    def push(self, given: G) -> None:
        """Take back what was not done."""
        ...


def give_out(pool: Pool[G], executor: Executor, budget: Budget) -> None:
    """Have the processes of an executor work until nothing is open, nothing is to be done, or too many are lost: what
    is in the pool then is to be done here.

    Raises :class:`assay.verify.core.budget.Expired` when the time is over.
    """
    running: set[Task] = set()
    losses = 0
    try:
        while (len(pool) or running) and not pool.over and losses <= LOSSES:
            budget.check()
            while len(pool) and (idle := executor.capacity - len(running)) > 0:
                given, left = pool.pop(idle), max(0.0, budget.remaining)
                hungry = not len(pool) and len(running) + 1 < executor.capacity
                task = Task(pool.ask(given, hungry, left), left, given)
                executor.submit(task)
                running.add(task)
            for ended in executor.ended(max(0.0, budget.remaining)):
                running.discard(ended.task)
                if ended.fate is not Fate.REPLIED:
                    losses += ended.fate is not Fate.GONE
                    pool.push(ended.task.tag)
                elif not pool.take(ended.task.tag, ended.reply):
                    return
    finally:
        for task in running:
            executor.cancel(task)
            pool.push(task.tag)


@dataclass(eq=False)
class Stack:
    """Nodes of trees: ``fresh`` ones, at which nothing was tried yet, and others, the last ones on top, ``most`` of
    which are a share."""

    trees: Trees
    fresh: list[Nodes]
    most: int
    nodes: list[Nodes] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """See :class:`Pool`."""
        return self.trees.over

    def __len__(self) -> int:
        return len(self.fresh) + len(self.nodes)

    def pop(self, idle: int) -> Given:
        """See :class:`Pool`."""
        pile, most = (self.fresh, inf) if self.fresh else (self.nodes, self.most)
        count = int(min(most, -(-len(pile) // idle)))
        given = Given(pile[-count:], pile is self.fresh)
        del pile[-count:]
        return given

    def ask(self, given: Given, hungry: bool, seconds: float) -> Share:
        """See :class:`Pool`."""
        return Share(given.nodes, self.trees.how, given.fresh, 0.0 if hungry else SLICE, seconds)

    def take(self, given: Given, reply: Done) -> bool:
        """See :class:`Pool`; what is a counterexample there and none here is looked into here."""
        _check(given.nodes, reply)
        taken = self.trees.take(reply)
        self.nodes += reply.left if taken else given.nodes
        return taken

    def push(self, given: Given) -> None:
        """See :class:`Pool`."""
        self.nodes += given.nodes


@dataclass(frozen=True, eq=False)
class Given:
    """Nodes that a process has, and whether nothing was tried at them yet."""

    nodes: list[Nodes]
    fresh: bool


def share(trees: Trees, roots: Sequence[Nodes], executor: Executor, budget: Budget, most: int) -> list[Nodes]:
    """Search below roots with the processes of an executor, ``most`` nodes a share; the nodes that are left to be
    searched here, where processes fail."""
    stack = Stack(trees, list(roots), most)
    give_out(stack, executor, budget)
    return [*stack.fresh, *stack.nodes]


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
