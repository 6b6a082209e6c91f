"""Branch and bound over the phases of ReLUs, each node a linear program (Bunel et al. 2020, arXiv:1909.06588, with the
exact relaxation in place of its bounds): best first, over the trees of all disjuncts at once."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from math import inf
from typing import Any

import numpy as np

from assay.verify.backends.bab.certificate import Tree
from assay.verify.backends.bab.simplex import Objective, Simplex
from assay.verify.backends.bab.splits import ACTIVE, INACTIVE, OPEN, Phases, Splits
from assay.verify.core.budget import Budget, Expired
from assay.verify.programs.program import Status, Vector
from assay.verify.programs.solvers.highs import as_basis

SLACK = 1e-8  # how far a solver's optimum should lie above what is to be proved, relative to 1 and to that
EXACT = 1e-9  # by how much a neuron may differ from its value, relative to its range, in an exact solution
TOGETHER = 64  # leaves that are proved together, and points that are looked at together


@dataclass(eq=False)
class Target:
    """One disjunct: minimise ``cost @ x + offset`` over ``splits``, which is the ``objective`` of ``simplex``.

    ``line``: the cost in terms of the source of the splits; ``floor``: a proved bound of all of the tree.
    """

    number: int
    splits: Splits
    simplex: Simplex
    line: Vector
    cost: Vector
    offset: float
    objective: Objective
    floor: float
    tree: Tree = field(default_factory=Tree)

    def planted(self) -> Target:
        """The same, of which no tree is known."""
        return replace(self, tree=Tree())

    def proved(self, nodes: list[Node]) -> Vector:
        """The bounds that the nodes' duals prove, +inf for an empty one: (nodes)."""
        bounds = np.full(len(nodes), -inf)
        for empty in (False, True):
            some = [i for i, node in enumerate(nodes) if node.empty is empty]
            if not some:
                continue
            phases, duals = (np.stack([getattr(nodes[i], name) for i in some]) for name in ("phases", "duals"))
            if empty:
                nothing = self.splits.proved(phases, duals, np.zeros_like(self.cost), 0.0)
                bounds[some] = np.where(nothing > 0, inf, -inf)
            else:
                bounds[some] = self.splits.proved(phases, duals, self.cost, self.offset)
        return bounds


@dataclass(eq=False)
class Node:
    """A node that is not closed: ``number`` in its target's tree, the ``bound`` and ``duals`` that the solver gave,
    and the ``basis`` for its children. ``neuron``: where to split it, -1 if nowhere. ``empty``: the duals are a ray;
    ``doubted``: they do not prove what the solver claims."""

    target: Target
    number: int
    phases: Phases
    bound: float
    duals: Vector
    basis: Any
    neuron: int = -1
    empty: bool = False
    doubted: bool = False

    @property
    def memory(self) -> int:
        """Bytes, about."""
        return self.phases.nbytes + 2 * self.duals.nbytes + 1000


# The least margin at points (points x columns) that a disjunct's programs gave; an exact one may start a descent.
Look = Callable[[int, Vector, bool], float]


@dataclass(eq=False)
class Search:
    """The trees of some targets. ``limit()``: the bound that a leaf has to pass; it may fall as points are seen.

    ``done()``: whether there is no need to go on. ``stuck``: nodes that can be neither proved nor split.
    """

    look: Look
    limit: Callable[[], float]
    done: Callable[[], bool]
    budget: Budget
    heap: list[tuple[float, int, Node]] = field(default_factory=list)
    pending: list[Node] = field(default_factory=list)
    stuck: list[Node] = field(default_factory=list)
    points: list[tuple[Target, Vector]] = field(default_factory=list)
    nodes: int = 0
    memory: int = 0
    _order: count[int] = field(default_factory=count)

    def root(self, target: Target) -> None:
        """Begin the tree of a target: its root is closed by CROWN's duals if they prove it, or else solved."""
        phases = np.full(len(target.splits), OPEN, dtype=np.int8)
        begin = target.splits.begin(target.line)
        if begin is not None:
            node = Node(target, 0, phases, inf, begin.duals, None)
            bound = float(target.proved([node])[0])
            target.floor = max(target.floor, bound)
            if bound > self.limit():
                self._close(node, bound)
                return
        self._commit(self._solved(target, 0, phases, -inf, begin and as_basis(begin)))

    def run(self, seconds: float = inf, open_: float = inf) -> None:
        """Split until every tree is closed or :meth:`done`, for so many seconds, or until so many nodes are open at
        once; raises :class:`Expired` when the time of all is over."""
        until = time.monotonic() + seconds
        while not self.done() and len(self.heap) < open_:
            if not self.heap:
                self._settle()
                if not self.heap:
                    return
                continue
            self.budget.check()
            (node,) = self.pop(1)
            try:
                self._expand(node)
            except Expired:
                self.push(node)
                raise
            if time.monotonic() >= until:
                self._settle()
                return

    def pop(self, count: int) -> list[Node]:
        """Take so many of the open nodes, those with the least bounds."""
        nodes = [heapq.heappop(self.heap)[2] for _ in range(count)]
        self.memory -= sum(node.memory for node in nodes)
        return nodes

    def open_nodes(self) -> Iterator[list[Node]]:
        """All nodes that are not closed, by target in small groups, those with the least bounds first."""
        nodes = sorted([node for _, _, node in self.heap] + self.pending + self.stuck, key=lambda node: node.bound)
        for i in range(0, len(nodes), TOGETHER):
            yield from _by_target(nodes[i : i + TOGETHER])

    def _expand(self, node: Node) -> None:
        if node.doubted:
            self._again(node)
            return
        if node.bound > self._aim():
            self.pending.append(node)
            return
        below = []
        for phase in (INACTIVE, ACTIVE):
            phases = node.phases.copy()
            phases[node.neuron] = phase
            below.append(self._solved(node.target, -1, phases, node.bound, node.basis))
        first = node.target.tree.split(node.number, node.neuron)
        for child, number in zip(below, (first, first + 1), strict=True):
            child.number = number
            self._commit(child)
        if len(self.pending) >= TOGETHER:
            self._prove()
        if len(self.points) >= TOGETHER:
            self._look()
        if self.memory > self.budget.memory // 2:
            raise MemoryError

    def _again(self, node: Node) -> None:
        """Solve a doubted node to its end; if that proves no more, it has to be split."""
        fresh = self._solved(node.target, node.number, node.phases, -inf, node.basis, inf)
        bound = float(node.target.proved([fresh])[0])
        if bound > self.limit():
            self._close(fresh, bound)
            return
        fresh.bound, fresh.neuron = -inf, fresh.neuron if fresh.neuron >= 0 else _any(fresh.phases)
        self._commit(fresh)

    def _solved(
        self, target: Target, number: int, phases: Phases, floor: float, basis: Any, cutoff: float | None = None
    ) -> Node:
        """The node with these phases, after its linear program is solved from ``basis`` as far as the cutoff."""
        simplex = target.simplex
        simplex.aim(target.objective)
        simplex.within(phases)
        aim = self._aim()
        status = simplex.solve(basis, aim if cutoff is None else cutoff, self.budget.remaining)
        self.nodes += 1
        if status is Status.TIMEOUT:
            raise Expired
        if status is Status.INFEASIBLE and (ray := simplex.ray()) is not None:
            return Node(target, number, phases, inf, ray, basis, empty=True)
        if status not in (Status.OPTIMAL, Status.CUTOFF):
            return Node(target, number, phases, floor, simplex.nothing, basis, _any(phases))
        value = inf if status is Status.CUTOFF else max(simplex.value, floor)
        if value > aim:
            return Node(target, number, phases, value, simplex.duals(), basis)
        x, duals = simplex.solution()
        node = Node(target, number, phases, value, duals, simplex.basis)
        node.neuron = self._branching(node, x)
        return node

    def _branching(self, node: Node, x: Vector) -> int:
        """Where to split: where the chord costs most, dual times intercept, among the neurons that ``x`` is wrong at.

        -1 where no split helps: the network itself has this margin at ``x``.
        """
        target, splits = node.target, node.target.splits
        wrong = splits.wrong(x)
        unsure = (node.phases == OPEN) & (wrong > EXACT * splits.width)
        if not unsure.any():
            return _any(node.phases) if self.look(target.number, x[None], True) > self.limit() else -1
        self.points.append((target, x))
        score = np.where(unsure, np.abs(node.duals[splits.chord]) * splits.intercept, -1.0)
        best = int(score.argmax())
        return best if score[best] > 0 else int(np.where(unsure, wrong, -1.0).argmax())

    def _commit(self, node: Node) -> None:
        """Put a solved node where it belongs."""
        if node.bound > self._aim():
            self.pending.append(node)
        elif node.neuron < 0:
            self.stuck.append(node)
        else:
            self.push(node)

    def push(self, node: Node) -> None:
        """An open node that is to be split."""
        heapq.heappush(self.heap, (node.bound, next(self._order), node))
        self.memory += node.memory

    def _settle(self) -> None:
        """Prove and look at all that waits."""
        self._look()
        again, self.stuck = self.stuck, []
        for node in again:  # the limit may have fallen
            self._commit(node)
        self._prove()

    def _look(self) -> None:
        points, self.points = self.points, []
        for target in {id(target): target for target, _ in points}.values():
            self.look(target.number, np.stack([x for t, x in points if t is target]), False)

    def _prove(self) -> None:
        """Close the nodes whose duals prove enough; the others are doubted."""
        pending, self.pending = self.pending, []
        for nodes in _by_target(pending):
            for node, bound in zip(nodes, nodes[0].target.proved(nodes).tolist(), strict=True):
                if bound > self.limit():
                    self._close(node, bound)
                else:
                    node.bound, node.doubted = -inf, True
                    self.push(node)

    def _close(self, node: Node, bound: float) -> None:
        node.target.tree.close(node.number, bound, node.empty, node.duals)
        self.memory += 2 * node.duals.nbytes

    def _aim(self) -> float:
        """What a solver's optimum has to pass to be worth proving."""
        limit = self.limit()
        return limit + SLACK * (1 + abs(limit))


def _any(phases: Phases) -> int:
    """An unstable neuron whose phase is open; -1 if none is."""
    return int((phases == OPEN).argmax()) if (phases == OPEN).any() else -1


def _by_target(nodes: Iterable[Node]) -> list[list[Node]]:
    groups: dict[int, list[Node]] = {}
    for node in nodes:
        groups.setdefault(node.target.number, []).append(node)
    return list(groups.values())
