"""A tree of splits as a proof: which neuron is split where, and the duals that prove each leaf.

What an independent checker needs is in :func:`document`. It shows that the bounds of the operands hold over the
box, that each tree covers it, since both phases of a neuron follow each split, and that the multipliers of each leaf
prove its bound by weak duality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
import torch

from assay.verify.backends.bab.splits import ACTIVE, INACTIVE, OPEN, Phases, Splits
from assay.verify.bounds.relax import relaxes
from assay.verify.core.errors import InternalError
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem
from assay.verify.core.verifier import Bounds
from assay.verify.programs.encode import Encoding
from assay.verify.programs.program import Index, Vector


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

    def paths(self, neurons: int) -> dict[int, Phases]:
        """The phases of every leaf: (neurons)."""
        by_leaf, todo = {}, [(0, np.full(neurons, OPEN, dtype=np.int8))]
        while todo:
            node, phases = todo.pop()
            if self.first[node] < 0:
                by_leaf[node] = phases
                continue
            for child, phase in ((self.first[node], INACTIVE), (self.first[node] + 1, ACTIVE)):
                below = phases.copy()
                below[self.neuron[node]] = phase
                todo.append((child, below))
        return by_leaf

    def arrays(self) -> dict[str, Any]:
        """The tree as tensors."""
        numbers = sorted(self.leaves)
        leaves = [self.leaves[number] for number in numbers]
        sizes = [len(leaf.rows) for leaf in leaves]
        return {
            "neuron": torch.tensor(self.neuron),
            "first": torch.tensor(self.first),
            "leaf": torch.tensor(numbers),
            "bound": torch.tensor([leaf.bound for leaf in leaves], dtype=torch.float64),
            "empty": torch.tensor([leaf.empty for leaf in leaves]),
            "begin": torch.tensor(np.cumsum([0, *sizes])),
            "row": torch.from_numpy(np.concatenate([np.zeros(0, dtype=np.int64), *(leaf.rows for leaf in leaves)])),
            "dual": torch.from_numpy(np.concatenate([np.zeros(0), *(leaf.duals for leaf in leaves)])),
        }

    @classmethod
    def of(cls, arrays: dict[str, Any]) -> Tree:
        """The inverse of :meth:`arrays`."""
        begin, bound, empty = (arrays[name].tolist() for name in ("begin", "bound", "empty"))
        tree = cls(arrays["neuron"].tolist(), arrays["first"].tolist())
        for i, number in enumerate(arrays["leaf"].tolist()):
            part = slice(begin[i], begin[i + 1])
            rows, duals = arrays["row"][part].numpy(), arrays["dual"][part].numpy()
            tree.leaves[number] = Leaf(bound[i], empty[i], rows, duals)
        return tree


def recheck(tree: Tree, splits: Splits, cost: Vector, offset: float) -> dict[int, float]:
    """The bound of each leaf, from its duals and ``cost`` (columns) alone; an empty one's is infinite if proved."""
    bounds = {}
    for number, phases in tree.paths(len(splits)).items():
        leaf = tree.leaves[number]
        duals = np.zeros(len(splits.program.row_lower))
        duals[leaf.rows] = leaf.duals
        if leaf.empty:
            proved = splits.proved(phases[None], duals[None], np.zeros_like(cost), 0.0)[0]
            bounds[number] = inf if proved > 0 else -inf
        else:
            bounds[number] = float(splits.proved(phases[None], duals[None], cost, offset)[0])
    return bounds


def document(problem: Problem, bounds: Sequence[Bounds], encoding: Encoding, trees: dict[int, Tree]) -> dict[str, Any]:
    """The certificate as plain data: numbers, texts and tensors in dicts. ``bounds``: of each node (1 x its shape).

    ``network``, ``region``, ``spec``: hashes of what it speaks of; ``lower``, ``upper``: the box. ``operands``: for
    each activation, by its position in the network, the bounds l, u of its operands that the relaxation is built on; a
    checker proves them anew. ``neurons``: position and feature of each unstable neuron, in the order that trees number
    them. Each has an operand z = a - p with 0 <= a <= u and 0 <= p <= -l, and its chord a - s z <= t, with s and t as
    :func:`assay.verify.programs.encode.chord_above` has them; inactive is a = 0, active is p = 0. ``rows`` says what
    the rows of the program are (:func:`meanings`). ``trees``: by disjunct of the specification, the arrays of
    :meth:`Tree.arrays`: the ``neuron`` (-1 at a leaf) and the ``first`` child of each node; by leaf its number, its
    bound, whether it is empty, and where its multipliers ``row`` and ``dual`` begin. A positive multiplier pushes its
    row up to its lower bound, a negative one down to its upper bound: with the multipliers' sum of rows taken from the
    objective, or from 0 where the leaf is empty, what remains has its least value at a corner of the columns' bounds.
    """
    box, neurons = problem.region.box(), encoding.neurons
    return {
        "kind": "lp-bab",
        "version": 1,
        "network": problem.network.id,
        "region": problem.region.id,
        "spec": problem.spec.id,
        "lower": box.lower.clone(),
        "upper": box.upper.clone(),
        "operands": [
            {"position": position, "lower": of.lower[0].clone(), "upper": of.upper[0].clone()}
            for position, of in _operands(problem.network, bounds)
        ],
        "neurons": {name: torch.from_numpy(getattr(neurons, name)) for name in ("position", "feature")},
        "rows": meanings(encoding),
        "trees": {str(d): tree.arrays() for d, tree in sorted(trees.items())},
    }


def meanings(encoding: Encoding) -> dict[str, Any]:
    """What the rows of the program are, by ``kind``; where it is a neuron's ``position`` and ``feature``, -1 elsewhere.

    ``operand``: a - p - W h = b, or z - W h = b where the neuron is stable; ``chord``: (1 - s) a + s p <= t;
    ``share``: a - p - z = 0 where an operand z that is an input, or another neuron's too, has more than one ReLU, or
    is one's value; ``other``: first the rows of a ball in l1, x - p + n = c and then sum p + n <= eps, or those of a
    polytope. A disjunct of several rows has more rows at the end, one each, t - A y >= -b, and its objective is t.
    """
    splits, neurons, operands = Splits.of(encoding, encoding.draft.program()), encoding.neurons, encoding.operands
    rests = splits.source.rests
    assert rests is not None
    kind, position, feature = (np.full(len(splits.dropped), value) for value in (KINDS.index("other"), -1, -1))
    row = rests.floor[operands.column]
    own = (row >= 0) & (row == rests.ceiling[operands.column])
    for rows, table, name in (
        (row[own], (operands.position[own], operands.feature[own]), "operand"),
        (neurons.chord, (neurons.position, neurons.feature), "chord"),
        (neurons.above[splits.shared], (neurons.position[splits.shared], neurons.feature[splits.shared]), "share"),
    ):
        kind[rows], (position[rows], feature[rows]) = KINDS.index(name), table
    kept = ~splits.dropped
    return {
        "kinds": list(KINDS),
        "kind": torch.from_numpy(kind[kept]),
        "position": torch.from_numpy(position[kept]),
        "feature": torch.from_numpy(feature[kept]),
    }


KINDS = ("operand", "chord", "share", "other")


def _operands(network: Network, bounds: Sequence[Bounds]) -> list[tuple[int, Bounds]]:
    """The operand of each activation: its position, and bounds."""
    return [(p, bounds[node.inputs[0]]) for p, node in enumerate(network.nodes) if relaxes(node.op)]
