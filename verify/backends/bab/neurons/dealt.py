"""What is done about roots before their trees are searched, by several processes: first searches below them, of which
each takes some roots, and the trees of a layer's bounds, of which each takes some rows.

What a process fails at is done here, or left open: it costs time, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Protocol

import torch
from torch import Tensor

from assay.verify.backends.bab.neurons.climbing import Climbing
from assay.verify.backends.bab.neurons.compact import Compact
from assay.verify.backends.bab.neurons.nodes import Nodes
from assay.verify.backends.bab.neurons.refined import Grown, Layer, Passes, grown
from assay.verify.backends.bab.shared import Done
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.errors import InternalError
from assay.verify.core.result import Reason
from assay.verify.support.executors import Executor, Fate, Task, run


class Roots(Protocol):
    """Trees whose roots are searched below. ``budget``: of the whole; ``how``: domains are raised; ``rates``: how fast
    the trees got smaller in each way (ways); ``passes``: by which bounds are refined; ``over``: whether there is no
    need to go on."""

    budget: Budget
    how: Climbing
    rates: list[float]
    passes: Passes

    @property
    def over(self) -> bool: ...

    def raced(self, nodes: Nodes, rest: bool) -> Nodes:
        """See how domains are best raised; the nodes that are left."""
        ...

    def shallow(self, nodes: Nodes, domains: int) -> tuple[Nodes, float]:
        """Search below each node for so many domains; the nodes that are left, and the worst bound of one before."""
        ...

    def done(self, left: list[Nodes], reason: Reason | None = None) -> Done:
        """What came of the nodes of which these are left."""
        ...

    def take(self, done: Done) -> bool:
        """Note what came of nodes elsewhere; False where its counterexample is none here, and nothing is noted."""
        ...


@dataclass(frozen=True, eq=False)
class First:
    """What a process is asked: to search below these roots, for so many ``domains`` each, or to see how domains are
    best raised there, where there is no number; ``short``: how far their rows were short of zero, if bounds were
    refined. All is over after so many ``seconds``."""

    nodes: Nodes
    domains: int | None
    how: Climbing
    short: float
    seconds: float = 0.0

    def said(self, trees: Roots) -> Said:
        """What comes of it, in the process that is asked."""
        trees.how, trees.passes.short = self.how, self.short
        try:
            if self.domains is None:
                left, worst = trees.raced(self.nodes, rest=False), inf
            else:
                left, worst = trees.shallow(self.nodes, self.domains)
        except Expired:
            return Said(trees.done([], Reason.TIMEOUT), [], -inf)
        return Said(trees.done([left]), trees.rates, worst)


@dataclass(frozen=True, eq=False)
class Said:
    """What came of first searches: how fast trees got smaller in each way (ways), and the ``worst`` bound of a root
    before."""

    done: Done
    rates: list[float]
    worst: float


@dataclass(frozen=True, eq=False)
class Rows:
    """What a process is asked: the trees of some ``rows`` of a layer. All is over after so many ``seconds``."""

    layer: Layer
    rows: Tensor
    seconds: float = 0.0

    def grown(self, compact: Compact, budget: Budget, proof: bool) -> list[Grown]:
        """The trees, in the process that is asked, with their leaves for a ``proof``; none where the time is over."""
        done = list(grown(compact, self.layer, [self.rows], budget))
        return done if proof else [replace(each, leaves=None) for each in done]


def raced(trees: Roots, nodes: Nodes, ways: Sequence[Climbing], executor: Executor) -> Nodes:
    """The nodes that are left where each process sees how domains are best raised below some; what all of them find
    best is gone on with."""
    left, said = _searched(trees, nodes, None, executor)
    rates = [sum(each) for each in zip(*(one.rates for one in said if one.rates), strict=True)]
    if any(rates):
        trees.how = ways[rates.index(max(rates))]
    return left


def shallow(trees: Roots, nodes: Nodes, domains: int, executor: Executor) -> tuple[Nodes, float]:
    """The nodes that are left where each process searches below some, for so many domains each, and the worst bound of
    one before."""
    left, said = _searched(trees, nodes, domains, executor)
    return left, min((one.worst for one in said), default=-inf)


def _searched(trees: Roots, nodes: Nodes, domains: int | None, executor: Executor) -> tuple[Nodes, list[Said]]:
    """The nodes that are left, and what processes say."""
    count, timed = min(len(nodes), executor.capacity), partial(_timed, trees.budget)
    shares = [nodes.take(torch.arange(first, len(nodes), count)) for first in range(count)]
    tasks = [timed(Task(First(share, domains, trees.how, trees.passes.short), tag=share)) for share in shares]
    open_, said = torch.zeros(0, dtype=torch.int64), list[Said]()
    for ended in run(executor, tasks, timed):
        given: Nodes = ended.task.tag
        left = given.tree
        if ended.fate is Fate.REPLIED:
            _check(given, ended.reply.done)
            if trees.take(ended.reply.done):  # what is a counterexample there and none here is looked into here
                left = torch.cat([left[:0], *(some.tree for some in ended.reply.done.left)])
                said.append(ended.reply)
        open_ = torch.cat([open_, left])
        if trees.over:
            break
    return nodes.take(torch.isin(nodes.tree, open_).nonzero().flatten()), said


def _check(given: Nodes, done: Done) -> None:
    """Roots that are not left are closed, wholly, and no others are, or the process is wrong; after a reason to stop
    roots may be missing, which are open."""
    if done.witness is not None or done.reason is not None:
        return
    closed = set(given.tree.tolist()).difference(*(some.tree.tolist() for some in done.left))
    if any(share != (tree in closed) for tree, share in enumerate(done.account.shares)):
        raise InternalError("the leaves of a share do not make up its roots: please report it")


def growing(executor: Executor) -> Callable[[Compact, Layer, Sequence[Tensor], Budget], Iterator[Grown]]:
    """What has trees grow (see :data:`assay.verify.backends.bab.neurons.refined.Grow`) by an executor, once it is
    ready."""

    def grow(compact: Compact, layer: Layer, parts: Sequence[Tensor], budget: Budget) -> Iterator[Grown]:
        failed = list(parts)
        if executor.ready():
            each = executor.capacity
            count = each * -(-len(parts) // each)
            rows = torch.cat(list(parts))
            dealt = [rows[first::count] for first in range(min(count, len(rows)))]
            failed = []
            for ended in run(executor, _in_time(layer, dealt, budget), partial(_timed, budget)):
                if ended.fate is Fate.REPLIED:
                    yield from ended.reply
                else:
                    failed.append(ended.task.tag)
        yield from grown(compact, layer, failed, budget)

    return grow


def _in_time(layer: Layer, dealt: Sequence[Tensor], budget: Budget) -> Iterator[Task]:
    """A task for each of these rows, with the time that is left when it begins; none once that is over."""
    for rows in dealt:
        if budget.remaining <= 0:
            return
        yield _timed(budget, Task(Rows(layer, rows), tag=rows))


def _timed(budget: Budget, task: Task) -> Task:
    """The task, with all of the time that is left."""
    left = max(0.0, budget.remaining)
    return replace(task, argument=replace(task.argument, seconds=left), seconds=left)
