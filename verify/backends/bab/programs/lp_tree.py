"""Phases of ReLUs as the domains of a search in which each is a linear program (Bunel et al. 2020, arXiv:1909.06588,
with the exact relaxation in place of its bounds): how they are solved, proved and halved.

What a solver says proves nothing: a leaf is closed by its duals, or by those of the node above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.verify.backends.bab.domains import join
from assay.verify.backends.bab.programs.certificate import Tree
from assay.verify.backends.bab.programs.simplex import Objective, Simplex
from assay.verify.backends.bab.programs.splits import ACTIVE, INACTIVE, OPEN, Phases, Splits
from assay.verify.backends.bab.search import Bounded
from assay.verify.core.budget import Budget, Expired
from assay.verify.programs.program import Status, Vector
from assay.verify.programs.solvers.highs import as_basis

SLACK = 1e-8  # how far a solver's optimum should lie above what is to be proved, relative to 1 and to that
EXACT = 1e-9  # by how much a neuron may differ from its value, relative to its range, in an exact solution
NOTHING = float(np.finfo(np.float64).max)  # the bound of a node without points
TOGETHER = 64  # nodes of which the proofs are looked at together
LARGE = 1 << 23  # places in the matrices of these
EACH = 1000  # bytes of a leaf, about, beside what proves it


@dataclass(frozen=True, eq=False)
class Target:
    """One disjunct, by its number: minimise ``cost @ x + offset`` over ``splits``, which is the ``objective`` of
    ``simplex``; ``line``: the cost in terms of the source of the splits."""

    number: int
    splits: Splits
    simplex: Simplex
    line: Vector
    cost: Vector
    offset: float
    objective: Objective

    def proved(self, phases: Phases, duals: Vector, empty: NDArray[np.bool_]) -> Vector:
        """The bounds that ``duals`` (nodes x rows) prove in nodes of these ``phases`` (nodes x neurons), -inf where
        they prove none; of those that are ``empty`` (nodes) they are to prove that there is no point: (nodes)."""
        bounds = np.full(len(empty), -inf)
        for none, cost, offset in ((False, self.cost, self.offset), (True, np.zeros_like(self.cost), 0.0)):
            some = np.flatnonzero(empty == none)
            if len(some):
                bound = self.splits.proved(phases[some], duals[some], cost, offset)
                bounds[some] = np.where(bound > 0, NOTHING, -inf) if none else bound
        return bounds


@dataclass(frozen=True, eq=False)
class Branches:
    """``phase`` (nodes x neurons), int8; the place of its ``target``; the ``tree`` of the record that it is in, and its
    number ``node`` there; a proved ``bound``, the ``duals`` that prove it (nodes x most rows of a program), and whether
    these say that it is ``empty``: of the node above until it is solved; ``neuron``: where to split it after that, -1
    if nowhere: (nodes)."""

    phase: Tensor
    target: Tensor
    tree: Tensor
    node: Tensor
    bound: Tensor
    duals: Tensor
    empty: Tensor
    neuron: Tensor


@dataclass(frozen=True, eq=False)
class Node:
    """One of the branches, by itself; ``place``: its tree and its number there."""

    target: Target
    place: tuple[int, int]
    phases: Phases
    bound: float
    duals: Vector
    empty: bool


@dataclass(frozen=True, eq=False)
class Solved:
    """What a solver says of a node: ``duals`` (rows), or a ray if it is ``empty``, and a ``basis`` for its halves.
    ``neuron``: where to split it, -1 if nowhere; ``over``: it lies above what it has to, so that there was no need to
    look for one; ``x``: the point (columns), where it is not the network's."""

    duals: Vector
    basis: Any
    empty: bool = False
    neuron: int = -1
    over: bool = False
    x: Vector | None = None


class Watch(Protocol):
    """Who looks at points of programs, and so knows what is left to be proved."""

    def limit(self) -> float:
        """What the bound of a leaf has to pass; it may fall as points are seen."""
        ...

    def found(self) -> Tensor | None:
        """A counterexample, where that is all that was asked for."""
        ...

    def look(self, at: Sequence[tuple[int, Vector]], roots: bool) -> None:
        """See points (columns) that the programs of disjuncts, by number, gave; and, where they are those of
        ``roots``, what descents from there lead to."""
        ...

    def exact(self, disjunct: int, x: Vector, phases: Phases) -> float:
        """The disjunct's margin at a point (columns) where the network is what the program says, but for jumps at
        which it is; its ``phases`` there (splits)."""
        ...


@dataclass(eq=False)
class LPTree:
    """Trees of splits, one for each target at first. ``trees``: the record of them, with what proves their leaves if
    that is ``recorded``, which is given up where it takes more than ``memory`` bytes; ``size``: those that it takes;
    ``programs``: so many were solved; ``bases``: what nodes that are not solved yet begin from, by their tree and
    number."""

    targets: Sequence[Target]
    watch: Watch
    trees: list[Tree]
    memory: float = inf
    recorded: bool = True
    size: int = 0
    programs: int = 0
    bases: dict[tuple[int, int], Any] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        """How many nodes come between one proof and the next: an even number, since halves are solved in turn."""
        program = self.targets[0].splits.program
        size = len(program.row_lower) * len(program.lower)
        return max(2, min(TOGETHER, LARGE // max(1, size)) // 2 * 2)

    def root(self) -> Branches:
        """See :class:`assay.verify.backends.bab.search.Tree`."""
        number = torch.arange(len(self.targets))
        rows = max(len(target.simplex.nothing) for target in self.targets)
        return Branches(
            torch.full((len(number), len(self.targets[0].splits)), OPEN, dtype=torch.int8),
            number,
            number,
            torch.zeros_like(number),
            torch.full((len(number),), -inf, dtype=torch.float64),
            torch.zeros(len(number), rows, dtype=torch.float64),
            torch.zeros(len(number), dtype=torch.bool),
            torch.zeros_like(number),
        )

    def bound(self, branches: Branches, budget: Budget) -> Bounded[Branches]:
        """See :class:`assay.verify.backends.bab.search.Tree`. What proves more counts, a node's own duals or those of
        the node above.

        Raises :class:`MemoryError` where there is none for trees, whatever proves them.
        """
        self._spare()
        nodes, solved = self._nodes(branches), dict[int, Solved]()
        for i, node in enumerate(nodes):
            if self.watch.found() is not None:  # the others stay as they are
                break
            solved[i] = self._begun(node, budget)
        self._look(nodes, solved)
        left, limit = self._proved(branches, nodes, solved), self.watch.limit()
        # What a solver claims and its duals do not prove is solved to the end, and split if that proves no more.
        closed = (left.bound > limit).tolist()
        if doubted := {i: one.basis for i, one in solved.items() if one.over and not closed[i]}:
            again = {i: self._ended(nodes[i], basis, budget) for i, basis in doubted.items()}
            left, solved = self._proved(left, nodes, again), solved | again
            closed = (left.bound > limit).tolist()
        bound, empty = left.bound.tolist(), left.empty.tolist()
        for i, one in solved.items():
            if closed[i]:
                self._close(nodes[i].place, bound[i], empty[i], left.duals[i])
            else:
                self.bases[nodes[i].place] = one.basis
        return Bounded(left.bound, torch.zeros_like(left.bound), left, witness=self.watch.found(), limit=limit)

    def divisible(self, branches: Branches) -> Tensor:
        """Which nodes have a neuron to split: (nodes)."""
        return branches.neuron >= 0

    def halve(self, branches: Branches) -> Branches:
        """The neuron inactive, then active."""
        first = []
        columns = branches.tree.tolist(), branches.node.tolist(), branches.neuron.tolist()
        for tree, node, neuron in zip(*columns, strict=True):
            below, basis = self.trees[tree].split(node, neuron), self.bases.pop((tree, node), None)
            self.bases |= {(tree, below): basis, (tree, below + 1): basis}
            first.append(below)
        at, halves = branches.neuron[:, None], list[Branches]()
        for side, phase in enumerate((INACTIVE, ACTIVE)):
            node = torch.tensor(first, dtype=torch.int64) + side
            halves.append(replace(branches, phase=branches.phase.scatter(1, at, phase), node=node))
        return join(halves)

    def graft(self, tree: int, node: int, part: Tree) -> list[int]:
        """Put a part that was made elsewhere where a node is open: the numbers that its nodes have here."""
        self.bases.pop((tree, node), None)
        self.size += sum(EACH + 2 * leaf.duals.nbytes for leaf in part.leaves.values())
        return self.trees[tree].graft(node, part)

    def _close(self, place: tuple[int, int], bound: float, empty: bool, duals: Tensor) -> None:
        self.bases.pop(place, None)
        tree, node = place
        proof = duals[: duals.shape[0] if self.recorded else 0].numpy()
        self.trees[tree].close(node, bound, empty, proof)
        self.size += EACH + 2 * self.trees[tree].leaves[node].duals.nbytes

    def _spare(self) -> None:
        """Give up what proves the leaves where that is too much."""
        if self.size > self.memory and self.recorded:
            self.recorded = False
            for tree in self.trees:
                tree.leaves = {
                    number: replace(leaf, rows=leaf.rows[:0], duals=leaf.duals[:0])
                    for number, leaf in tree.leaves.items()
                }
            self.size = EACH * sum(len(tree.leaves) for tree in self.trees)
        if self.size > self.memory:
            raise MemoryError

    def _nodes(self, branches: Branches) -> list[Node]:
        """The nodes one by one."""
        columns = (branches.tree, branches.node, branches.bound, branches.empty)
        phases, duals = branches.phase.numpy(), branches.duals.numpy()
        targets = [self.targets[place] for place in branches.target.tolist()]
        rest = zip(*(column.tolist() for column in columns), strict=True)
        return [
            Node(target, (tree, node), row, bound, y, empty)
            for target, (tree, node, bound, empty), row, y in zip(targets, rest, phases, duals, strict=True)
        ]

    def _begun(self, node: Node, budget: Budget) -> Solved:
        """A node as far as it has to be solved: not at all if the duals of the node above prove it, or, of a root,
        those of CROWN's lines."""
        target, limit, basis = node.target, self.watch.limit(), self.bases.get(node.place)
        if node.bound > limit:
            return Solved(node.duals[: len(target.simplex.nothing)], basis, node.empty, over=True)
        if not node.phases.any() and (begin := target.splits.begin(target.line)) is not None:
            (bound,) = target.proved(node.phases[None], begin.duals[None], np.zeros(1, dtype=np.bool_))
            if bound > limit:
                return Solved(begin.duals, basis, over=True)
            basis = as_basis(begin)
        return self._solved(node, basis, budget, limit + SLACK * (1 + abs(limit)))

    def _ended(self, node: Node, basis: Any, budget: Budget) -> Solved:
        """A node solved to its end, which is split after that in any case."""
        one = self._solved(node, basis, budget, inf)
        return one if one.neuron >= 0 else replace(one, neuron=_any(node.phases))

    def _solved(self, node: Node, basis: Any, budget: Budget, aim: float) -> Solved:
        """A node after its linear program is solved from ``basis`` as far as the ``aim``, the optimum that is worth
        proving."""
        target, simplex = node.target, node.target.simplex
        budget.check()
        simplex.aim(target.objective)
        simplex.within(node.phases)
        status = simplex.solve(basis, aim, budget.remaining)
        self.programs += 1
        if status is Status.TIMEOUT:
            raise Expired
        if status is Status.INFEASIBLE and (ray := simplex.ray()) is not None:
            return Solved(ray, basis, empty=True, over=True)
        if status not in (Status.OPTIMAL, Status.CUTOFF):
            return Solved(simplex.nothing, basis, neuron=_any(node.phases))
        if status is Status.CUTOFF or simplex.value > aim:
            return Solved(simplex.duals(), basis, over=True)
        x, duals = simplex.solution()
        return self._branched(node, x, Solved(duals, simplex.basis))

    def _branched(self, node: Node, x: Vector, solved: Solved) -> Solved:
        """With the neuron to split: where the relaxation costs most among those that ``x`` is wrong at; none where no
        split helps, since the network itself has this margin at ``x``, or next to it on a side of a jump."""
        target, splits, phases = node.target, node.target.splits, node.phases
        wrong = splits.wrong(x)
        unsure = (phases == OPEN) & (wrong > EXACT * splits.width)
        if not unsure.any():
            helps = self.watch.exact(target.number, x, splits.phases(x)) > self.watch.limit()
            return replace(solved, neuron=_any(phases)) if helps else solved
        score = np.where(unsure, splits.costs(solved.duals), -1.0)
        best = int(score.argmax())
        best = best if score[best] > 0 else int(np.where(unsure, wrong, -1.0).argmax())
        return replace(solved, neuron=best, x=x)

    def _look(self, nodes: Sequence[Node], solved: Mapping[int, Solved]) -> None:
        at = [(nodes[i], one.x) for i, one in solved.items() if one.x is not None]
        for roots in (True, False):
            some = [(node.target.number, x) for node, x in at if bool(node.phases.any()) is not roots]
            if some:
                self.watch.look(some, roots)

    def _proved(self, branches: Branches, nodes: Sequence[Node], solved: Mapping[int, Solved]) -> Branches:
        """The nodes with what the duals of those that are ``solved`` prove, where that is more, and where to split."""
        bound, duals, empty, neuron = (
            column.numpy().copy() for column in (branches.bound, branches.duals, branches.empty, branches.neuron)
        )
        groups: dict[int, list[int]] = {}
        for i, one in solved.items():
            groups.setdefault(nodes[i].target.number, []).append(i)
            neuron[i] = one.neuron
        for mine in groups.values():
            own, none = np.stack([solved[i].duals for i in mine]), np.array([solved[i].empty for i in mine])
            proved = nodes[mine[0]].target.proved(np.stack([nodes[i].phases for i in mine]), own, none)
            better = proved > bound[mine]
            where = np.array(mine)[better]
            bound[where], empty[where] = proved[better], none[better]
            duals[where, : own.shape[1]] = own[better]
        told = zip(("bound", "duals", "empty", "neuron"), (bound, duals, empty, neuron), strict=True)
        return replace(branches, **{name: torch.from_numpy(column) for name, column in told})


def _any(phases: Phases) -> int:
    """An unstable neuron whose phase is open; -1 if none is."""
    return int((phases == OPEN).argmax()) if (phases == OPEN).any() else -1
