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

from assay.verify.backends.bab.certificate import Tree
from assay.verify.backends.bab.domains import count, join
from assay.verify.backends.bab.search import Bounded
from assay.verify.backends.bab.simplex import Objective, Simplex
from assay.verify.backends.bab.splits import ACTIVE, INACTIVE, OPEN, Phases, Splits
from assay.verify.core.budget import Budget, Expired
from assay.verify.programs.program import Status, Vector
from assay.verify.programs.solvers.highs import as_basis

SLACK = 1e-8  # how far a solver's optimum should lie above what is to be proved, relative to 1 and to that
EXACT = 1e-9  # by how much a neuron may differ from its value, relative to its range, in an exact solution
NOTHING = float(np.finfo(np.float64).max)  # the bound of a node without points
TOGETHER = 16  # nodes of which the proofs are looked at together
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

    def exact(self, disjunct: int, x: Vector) -> float:
        """The disjunct's margin at a point (columns) where the network is what the program says."""
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
        height, width = self.targets[0].splits.program.matrix.shape
        return max(2, min(TOGETHER, LARGE // max(1, height * width)) // 2 * 2)

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
        solved: dict[int, Solved] = {}
        for i in range(count(branches)):
            if self.watch.found() is not None:  # the others stay as they are
                break
            solved[i] = self._begun(branches, i, budget)
        self._look(branches, solved)
        left, limit = self._proved(branches, solved), self.watch.limit()
        # What a solver claims and its duals do not prove is solved to the end, and split if that proves no more.
        doubted = {
            i: self._ended(left, i, one.basis, budget)
            for i, one in solved.items()
            if one.over and not left.bound[i].item() > limit
        }
        left, solved = self._proved(left, doubted), solved | doubted
        for i, one in solved.items():
            place = _place(left, i)
            if left.bound[i].item() > limit:
                self.bases.pop(place, None)
                self._close(place, left.bound[i].item(), bool(left.empty[i]), left.duals[i])
            else:
                self.bases[place] = one.basis
        return Bounded(left.bound, torch.zeros_like(left.bound), left, witness=self.watch.found(), limit=limit)

    def divisible(self, branches: Branches) -> Tensor:
        """Which nodes have a neuron to split: (nodes)."""
        return branches.neuron >= 0

    def halve(self, branches: Branches) -> Branches:
        """The neuron inactive, then active."""
        first = []
        for i, neuron in enumerate(branches.neuron.tolist()):
            tree, node = _place(branches, i)
            first.append(self.trees[tree].split(node, neuron))
            basis = self.bases.pop((tree, node), None)
            self.bases |= {(tree, first[i]): basis, (tree, first[i] + 1): basis}
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

    def _begun(self, branches: Branches, i: int, budget: Budget) -> Solved:
        """A node as far as it has to be solved: not at all if the duals of the node above prove it, or, of a root,
        those of CROWN's lines."""
        target, limit, basis = self._target(branches, i), self.watch.limit(), self.bases.get(_place(branches, i))
        if branches.bound[i].item() > limit:
            duals = branches.duals[i, : len(target.simplex.nothing)].numpy()
            return Solved(duals, basis, bool(branches.empty[i]), over=True)
        if not bool(branches.phase[i].any()) and (begin := target.splits.begin(target.line)) is not None:
            bound = target.proved(branches.phase[i : i + 1].numpy(), begin.duals[None], np.zeros(1, dtype=np.bool_))
            if bound[0] > limit:
                return Solved(begin.duals, basis, over=True)
            basis = as_basis(begin)
        return self._solved(branches, i, basis, budget, limit + SLACK * (1 + abs(limit)))

    def _ended(self, branches: Branches, i: int, basis: Any, budget: Budget) -> Solved:
        """A node solved to its end, which is split after that in any case."""
        one = self._solved(branches, i, basis, budget, inf)
        return one if one.neuron >= 0 else replace(one, neuron=_any(branches.phase[i].numpy()))

    def _solved(self, branches: Branches, i: int, basis: Any, budget: Budget, aim: float) -> Solved:
        """A node after its linear program is solved from ``basis`` as far as the ``aim``, the optimum that is worth
        proving."""
        target, phases = self._target(branches, i), branches.phase[i].numpy()
        simplex = target.simplex
        budget.check()
        simplex.aim(target.objective)
        simplex.within(phases)
        status = simplex.solve(basis, aim, budget.remaining)
        self.programs += 1
        if status is Status.TIMEOUT:
            raise Expired
        if status is Status.INFEASIBLE and (ray := simplex.ray()) is not None:
            return Solved(ray, basis, empty=True, over=True)
        if status not in (Status.OPTIMAL, Status.CUTOFF):
            return Solved(simplex.nothing, basis, neuron=_any(phases))
        if status is Status.CUTOFF or simplex.value > aim:
            return Solved(simplex.duals(), basis, over=True)
        x, duals = simplex.solution()
        return self._branched(target, phases, x, Solved(duals, simplex.basis))

    def _branched(self, target: Target, phases: Phases, x: Vector, solved: Solved) -> Solved:
        """With the neuron to split: where the chord costs most, dual times intercept, among those that ``x`` is wrong
        at; none where no split helps, since the network itself has this margin at ``x``."""
        splits = target.splits
        wrong = splits.wrong(x)
        unsure = (phases == OPEN) & (wrong > EXACT * splits.width)
        if not unsure.any():
            helps = self.watch.exact(target.number, x) > self.watch.limit()
            return replace(solved, neuron=_any(phases)) if helps else solved
        score = np.where(unsure, np.abs(solved.duals[splits.chord]) * splits.intercept, -1.0)
        best = int(score.argmax())
        best = best if score[best] > 0 else int(np.where(unsure, wrong, -1.0).argmax())
        return replace(solved, neuron=best, x=x)

    def _look(self, branches: Branches, solved: Mapping[int, Solved]) -> None:
        for roots in (True, False):
            at = [
                (self._target(branches, i).number, one.x)
                for i, one in solved.items()
                if one.x is not None and bool(branches.phase[i].any()) is not roots
            ]
            if at:
                self.watch.look(at, roots)

    def _proved(self, branches: Branches, solved: Mapping[int, Solved]) -> Branches:
        """The nodes with what the duals of those that are ``solved`` prove, where that is more, and where to split."""
        bound, duals, empty, neuron = (
            getattr(branches, name).clone() for name in ("bound", "duals", "empty", "neuron")
        )
        for place, target in enumerate(self.targets):
            mine = [i for i in solved if int(branches.target[i]) == place]
            if not mine:
                continue
            own, none = np.stack([solved[i].duals for i in mine]), np.array([solved[i].empty for i in mine])
            proved = target.proved(branches.phase[mine].numpy(), own, none)
            for i, more, y in zip(mine, proved.tolist(), own, strict=True):
                neuron[i] = solved[i].neuron
                if more > bound[i]:
                    bound[i], empty[i] = more, solved[i].empty
                    duals[i, : len(y)] = torch.from_numpy(y)
        return replace(branches, bound=bound, duals=duals, empty=empty, neuron=neuron)

    def _target(self, branches: Branches, i: int) -> Target:
        return self.targets[int(branches.target[i])]


def _place(branches: Branches, i: int) -> tuple[int, int]:
    """The tree and the number of a node."""
    return int(branches.tree[i]), int(branches.node[i])


def _any(phases: Phases) -> int:
    """An unstable neuron whose phase is open; -1 if none is."""
    return int((phases == OPEN).argmax()) if (phases == OPEN).any() else -1
