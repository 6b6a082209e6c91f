"""Open nodes of trees of linear programs, searched by several processes: each takes some, works below them for a while,
and returns the parts of the trees that it made, with the duals that prove their leaves.

A part counts once it is here; until then its node is open, and is given out again if the process is lost.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Protocol

from torch import Tensor

from assay.verify.backends.bab.certificate import Tree
from assay.verify.backends.bab.lp_tree import Node, Search, Target
from assay.verify.backends.bab.shared import LOSSES, SLICE
from assay.verify.backends.bab.splits import Phases
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.errors import InternalError
from assay.verify.programs.program import Vector
from assay.verify.support.executors import Executor, Fate, Task

MOST = 64  # nodes of a share


class SeenBy(Protocol):
    """Who looks at points: ``seen``: the least margin of each disjunct (disjuncts)."""

    seen: Tensor

    def look(self, point: Tensor) -> None:
        """See a point of the region, as the network takes it."""
        ...


@dataclass(frozen=True, eq=False)
class Branch:
    """A node that travels, as :class:`assay.verify.backends.bab.lp_tree.Node` has it, without its program and basis:
    ``number`` in the tree of its ``disjunct``, or in a part of that; ``stuck``: it can be neither proved nor split."""

    disjunct: int
    number: int
    phases: Phases
    bound: float
    duals: Vector
    neuron: int
    doubted: bool
    stuck: bool = False

    @classmethod
    def of(cls, node: Node, stuck: bool = False) -> Branch:
        """One that is thought to be closed, and not proved, is doubted."""
        doubted = node.doubted or (node.neuron < 0 and not stuck)
        bound = -inf if doubted else node.bound
        return cls(node.target.number, node.number, node.phases, bound, node.duals, node.neuron, doubted, stuck)

    def node(self, target: Target, number: int) -> Node:
        """The node in a tree."""
        return Node(target, number, self.phases, self.bound, self.duals, None, self.neuron, doubted=self.doubted)


@dataclass(frozen=True, eq=False)
class Share:
    """What a process is asked: to search below these for so many seconds; the least margin that was seen of each
    disjunct so far; all is over after ``seconds``."""

    branches: list[Branch]
    seen: Tensor
    slice: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Parts:
    """What came of a share: below each branch a tree, and what is left open there; programs that were solved, and the
    best point that was seen, in the region, and whether it is a counterexample there."""

    trees: list[tuple[Tree, list[Branch]]]
    nodes: int
    point: Tensor | None
    witness: bool


def searched(search: Search, targets: dict[int, Target], share: Share) -> list[tuple[Tree, list[Branch]]]:
    """The trees below branches, in the process that they were given to; ``targets``: by disjunct."""
    places = []
    for branch in share.branches:
        target = targets[branch.disjunct].planted()
        places.append((target, list[Branch]()))
        search.push(branch.node(target, 0))
    left = {id(target): branches for target, branches in places}
    with suppress(Expired):  # what is proved is returned all the same
        search.run(share.slice)
    stuck = set(map(id, search.stuck))
    for nodes in search.open_nodes():
        for node in nodes:
            left[id(node.target)].append(Branch.of(node, id(node) in stuck))
    return [(target.tree, branches) for target, branches in places]


def share(search: Search, seen: SeenBy, executor: Executor, budget: Budget) -> None:
    """Search with the processes of an executor until nothing is open, or they fail, or :meth:`Search.done`."""
    running: set[Task] = set()
    losses = 0
    try:
        while (search.heap or running) and not search.done() and losses <= LOSSES:
            budget.check()
            while search.heap and (idle := executor.capacity - len(running)) > 0:
                given = search.pop(min(MOST, -(-len(search.heap) // idle)))
                hungry = not search.heap and len(running) + 1 < executor.capacity
                left = max(0.0, budget.remaining)
                asked = Share([Branch.of(node) for node in given], seen.seen, SLICE / 4 if hungry else SLICE, left)
                task = Task(asked, left, given)
                executor.submit(task)
                running.add(task)
            for ended in executor.ended(max(0.0, budget.remaining)):
                running.discard(ended.task)
                if ended.fate is Fate.REPLIED:
                    _take(search, seen, budget, ended.task.tag, ended.reply)
                    if ended.reply.witness and not search.done():  # it is none here: that is looked into here
                        return
                else:
                    losses += ended.fate is not Fate.GONE
                    for node in ended.task.tag:
                        search.push(node)
    finally:
        for task in running:
            executor.cancel(task)
            for node in task.tag:
                search.push(node)


def _take(search: Search, seen: SeenBy, budget: Budget, given: list[Node], parts: Parts) -> None:
    """Put parts into their trees, and what is left of them back to the open nodes."""
    search.nodes += parts.nodes
    if parts.point is not None:
        seen.look(parts.point)
    for node, (tree, left) in zip(given, parts.trees, strict=True):
        if sorted(branch.number for branch in left) != tree.open_nodes:
            raise InternalError("what is left of a part of a tree is not what is open there: please report it")
        numbers = node.target.tree.graft(node.number, tree)
        search.memory += sum(2 * leaf.duals.nbytes for leaf in tree.leaves.values())
        for branch in left:
            back = branch.node(node.target, numbers[branch.number])
            if branch.stuck:
                search.stuck.append(back)
            else:
                search.push(back)
    if search.memory > budget.memory // 2:
        raise MemoryError
