"""Nodes of trees searched by several processes: each takes a share of those that are open, works on it for a while, and
returns what it closed and what is left.

What a process closes counts once it has said so; until then its share stays here, and is given out again if it dies. So
nothing is lost with a process, and nothing is closed that the account of leaves does not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from assay.verify.backends.bab.account import Account
from assay.verify.backends.bab.nodes import Nodes
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InternalError
from assay.verify.core.result import Reason
from assay.verify.support.executors import Executor, Fate, Task

SLICE = 1.0  # seconds that a process works on a share
LOSSES = 4  # shares that may be lost, but for those with their machine, before all is done here


@dataclass(frozen=True, eq=False)
class Done:
    """What came of a share: the leaves that were closed, the least margin in them, what was counted, a counterexample
    or a reason to stop, if there is one, and the nodes that are ``left`` open."""

    account: Account
    margin: float
    stats: dict[str, Any]
    witness: Tensor | None
    reason: Reason | None
    left: list[Nodes]


class Trees(Protocol):
    """What is searched, and how far that is."""

    account: Account
    witness: Tensor | None
    reason: Reason | None

    def work(self, stack: list[Nodes], seconds: float) -> list[Nodes]:
        """Search below nodes here; those that are left open when the ``seconds`` are over."""
        ...

    def take(self, done: Done) -> bool:
        """Note what came of a share; False where its counterexample is none here, and nothing is noted."""
        ...

    def check(self) -> None:
        """Raises :class:`assay.verify.core.budget.Expired` when the time is over."""
        ...


def share(trees: Trees, stack: list[Nodes], executor: Executor, budget: Budget) -> list[Nodes]:
    """Search below nodes with the processes of an executor; the nodes that are left to be searched here, where
    processes fail."""
    running: set[Task] = set()
    losses = 0
    try:
        while (stack or running) and trees.witness is None and trees.reason is None and losses <= LOSSES:
            trees.check()
            if not running and len(stack) < executor.capacity:
                stack = trees.work(stack, 0.0)  # one round, which makes more of them
                continue
            while stack and len(running) < executor.capacity:
                half, stack = stack[::-2], stack[-2::-2][::-1]  # what is taken is a fair share of the deep ones
                left = budget.remaining
                task = Task((half[::-1], left), left, half)
                executor.submit(task)
                running.add(task)
            for ended in executor.ended(max(0.0, budget.remaining)):
                running.discard(ended.task)
                given: list[Nodes] = ended.task.tag
                if ended.fate is not Fate.REPLIED:
                    losses += ended.fate is not Fate.GONE
                    stack = stack + given
                    continue
                done: Done = ended.reply
                _check(given, done)
                stack = stack + done.left
                if not trees.take(done):  # what is a counterexample there and none here is looked into here
                    return [*stack, *given]
    finally:
        for task in running:
            executor.cancel(task)
    return [*stack, *(nodes for task in running for nodes in task.tag)]


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
