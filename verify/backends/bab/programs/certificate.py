"""A tree of splits as a proof: which neuron is split where, and the duals that prove each leaf.

:func:`written` tells it as :mod:`assay.verify.check.checker` reads it: of the duals of a leaf there remain slopes of
lines below neurons that are not split there, and multipliers of those that are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np

from assay.verify.backends.bab.programs.splits import ACTIVE, CHUNK, INACTIVE, OPEN, Splits
from assay.verify.core.errors import InternalError
from assay.verify.programs import hints
from assay.verify.programs.hints import Array
from assay.verify.programs.program import Index, Vector
from assay.verify.support.floats import TINY

Path = tuple[tuple[int, int], ...]  # neurons and phases, from above


@dataclass(frozen=True, eq=False)
class Leaf:
    """A closed node: its proved ``bound``, and the multipliers that prove it: those of ``rows``, all others are 0.

    An ``empty`` one holds no point of the network: its bound is infinite, and its multipliers prove a positive bound
    of zero.
    """

    bound: float
    empty: bool
    rows: Index
    duals: Vector


@dataclass(eq=False)
class Tree:
    """The splits for one disjunct. Node 0 is the root; a split node's children are ``first[node]``, where its neuron
    is inactive, and ``first[node] + 1``, where it is active."""

    neuron: list[int] = field(default_factory=lambda: [-1])
    first: list[int] = field(default_factory=lambda: [-1])
    leaves: dict[int, Leaf] = field(default_factory=dict)

    def split(self, node: int, neuron: int) -> int:
        """Split an open node at this unstable neuron; the number of its first child."""
        self.neuron[node], self.first[node] = neuron, len(self.neuron)
        self.neuron += [-1, -1]
        self.first += [-1, -1]
        return self.first[node]

    def close(self, node: int, bound: float, empty: bool, duals: Vector) -> None:
        """Note the ``bound`` of a node without children, and the ``duals`` (rows) that prove it."""
        rows = np.flatnonzero(duals)
        self.leaves[node] = Leaf(bound, empty, rows, duals[rows])

    def graft(self, node: int, part: Tree) -> list[int]:
        """Put a tree where an open node is; the numbers that its nodes have here, the root's being the node's."""
        if self.first[node] >= 0 or node in self.leaves:
            raise InternalError("a tree is put where there is one: please report it")
        shift = len(self.neuron) - 1
        numbers = [node, *range(len(self.neuron), shift + len(part.neuron))]
        first = [child + shift if child >= 0 else -1 for child in part.first]
        self.neuron[node], self.first[node] = part.neuron[0], first[0]
        self.neuron += part.neuron[1:]
        self.first += first[1:]
        self.leaves |= {numbers[number]: leaf for number, leaf in part.leaves.items()}
        return numbers

    @property
    def open_nodes(self) -> list[int]:
        """The nodes that have no children and are not proved."""
        return [node for node, first in enumerate(self.first) if first < 0 and node not in self.leaves]

    @property
    def complete(self) -> bool:
        """Whether every node without children is proved."""
        return not self.open_nodes

    @property
    def bound(self) -> float:
        """The least bound of a leaf; infinite where all are empty."""
        return min((leaf.bound for leaf in self.leaves.values()), default=inf)

    def preorder(self) -> tuple[list[int], dict[int, Path]]:
        """Of each node in preorder its neuron, -1 for a leaf; and the paths of the leaves, by number, in order."""
        codes: list[int] = []
        paths: dict[int, Path] = {}
        todo: list[tuple[int, Path]] = [(0, ())]
        while todo:
            node, path = todo.pop()
            neuron, first = self.neuron[node], self.first[node]
            codes.append(neuron if first >= 0 else -1)
            if first < 0:
                paths[node] = path
            else:
                todo += [(first + 1, (*path, (neuron, ACTIVE))), (first, (*path, (neuron, INACTIVE)))]
        return codes, paths


def written(tree: Tree, splits: Splits, cost: Vector, rows: int, left: Vector) -> dict[str, Array]:
    """A complete tree for a disjunct of so many ``rows``, which minimises ``cost`` (columns): see
    :func:`assay.verify.programs.hints.tree`. ``left``: the slope of each neuron's operation below 0 (neurons)."""
    codes, paths = tree.preorder()
    step = max(1, CHUNK // (len(splits.program.row_lower) + len(cost) + 1))
    leaves, each = [tree.leaves[number] for number in paths], list(paths.values())
    slopes, multipliers, weights = [], [np.zeros(0, np.float32)], []
    for begin in range(0, len(leaves), step):
        slope, push, weight = _of_leaves(leaves[begin : begin + step], each[begin : begin + step], splits, cost, rows)
        slopes.append(hints.single(left + (1 - left) * slope))
        multipliers.append(hints.single(push))
        weights.append(hints.single(weight.ravel()))
    return hints.tree(np.array(codes), np.concatenate(slopes), np.concatenate(multipliers), np.concatenate(weights))


def _of_leaves(
    leaves: Sequence[Leaf], paths: Sequence[Path], splits: Splits, cost: Vector, rows: int
) -> tuple[Vector, Vector, Vector]:
    """Slopes (leaves x neurons), the multipliers of the splits above each leaf, one after the other, and weights of
    the disjunct's rows (leaves x rows)."""
    duals = np.zeros((len(leaves), len(splits.program.row_lower)))
    phases = np.full((len(leaves), len(splits)), OPEN, dtype=np.int8)
    for i, (leaf, path) in enumerate(zip(leaves, paths, strict=True)):
        # A ray is as long as it happens to be.
        duals[i, leaf.rows] = leaf.duals / (max(np.abs(leaf.duals).max(initial=0.0), TINY) if leaf.empty else 1.0)
        phases[i, [neuron for neuron, _ in path]] = [phase for _, phase in path]
    some = ~np.array([leaf.empty for leaf in leaves])[:, None]
    transposed = splits.program.transposed
    of_a, of_p = (some * cost[columns] - (transposed[columns] @ duals.T).T for columns in (splits.a, splits.p))
    slope = hints.slopes_above(splits.neurons, splits.source.matrix)
    passed = hints.Passed.by_rows(of_a, of_p, duals[:, splits.chord], slope)
    slopes = np.where(phases == OPEN, passed.slopes(), (phases == ACTIVE).astype(np.float64))
    multipliers = np.where(phases == ACTIVE, passed.above - passed.below, passed.below)
    order = [neuron for path in paths for neuron, _ in path]
    each = np.repeat(np.arange(len(paths)), [len(path) for path in paths])
    weights = np.maximum(duals[:, -rows:], 0.0) if rows > 1 else some.astype(np.float64)
    return slopes, np.maximum(multipliers[each, order], 0.0), weights
