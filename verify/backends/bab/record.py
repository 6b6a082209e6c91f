"""What a search on phases has proved, and how, as it goes: from it trees are written that can be checked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.verify.backends.bab.compact import Compact
from assay.verify.backends.bab.exact_leaves import ExactLeaves
from assay.verify.backends.bab.multipliers import Multipliers
from assay.verify.backends.bab.nodes import Nodes
from assay.verify.bounds.raised import GRAINS
from assay.verify.bounds.roots import Slopes
from assay.verify.core.ops import LeakyRelu, Relu
from assay.verify.core.problem import Problem

Array = NDArray[Any]
Key = tuple[int, bytes]  # of a node: its tree, and its phases


@dataclass(frozen=True, eq=False)
class Rows:
    """Some leaves, or rows of bounds of neurons: ``neuron``, 2 * number + 1 for an upper one; slopes in shares of 255,
    the multipliers of all unstable neurons and the weights of the unsafe rows: (rows x ...) each."""

    phase: Array
    neuron: Array
    slope: Array
    multiplier: Array
    weight: Array

    @classmethod
    def of(
        cls, nodes: Nodes, whose: Tensor, index: Tensor, phase: Tensor, own: Multipliers, neuron: Tensor | None = None
    ) -> Rows:
        """Below nodes, ``whose`` by number (rows), of what speaks of the neurons at ``index``, numbers; others are
        stable there."""

        def all_(part: Tensor, dtype: torch.dtype, rest: Tensor | None = None) -> Array:
            blank = torch.zeros(len(whose), len(nodes.phase), dtype=dtype) if rest is None else rest.to(dtype)
            return blank.index_copy_(1, index, part.T.to(dtype)).numpy()

        slope = all_((own.alpha * GRAINS).round(), torch.uint8, GRAINS * (nodes.lower >= 0).T[whose])
        half = own.beta.half().double().equal(own.beta.double())
        beta = all_(own.beta, torch.float16 if half else torch.float64)
        codes = (whose[:0] if neuron is None else neuron).numpy()
        return cls(all_(phase, torch.int8), codes, slope, beta, own.weight.T.numpy())

    @property
    def size(self) -> int:
        """Bytes that they take."""
        return sum(part.nbytes for part in vars(self).values())

    def take(self, rows: Array) -> Rows:
        """Some of them, by number or mask."""
        return Rows(*(part[rows] if len(part) else part for part in vars(self).values()))

    @staticmethod
    def join(parts: Sequence[Rows]) -> Rows:
        """One after the other."""
        return Rows(*(np.concatenate(some) for some in zip(*(vars(p).values() for p in parts), strict=True)))


@dataclass(eq=False)
class Record:
    """The bounds of layers at the root, and by node the bounds that were tightened there, its leaves, and where it was
    split. ``layers``: by position the features and the slopes that prove their bounds. What would take more than
    ``memory`` bytes is not kept, and nothing is proved."""

    problem: Problem
    memory: float = inf
    size: int = 0
    layers: Slopes = field(default_factory=dict)
    compact: Compact | None = None
    disjuncts: Sequence[int] = ()
    exact: ExactLeaves | None = None
    tighter: dict[Key, list[Rows]] = field(default_factory=lambda: defaultdict(list))
    closed: dict[Key, Rows | None] = field(default_factory=dict)
    halved: dict[Key, int] = field(default_factory=dict)
    pending: list[tuple[Tensor, Rows]] = field(default_factory=list)

    def start(self, compact: Compact, disjuncts: Sequence[int], exact: ExactLeaves) -> None:
        """The search begins, with a tree for each of these disjuncts."""
        self.compact, self.disjuncts, self.exact = compact, disjuncts, exact

    def bounded(self, nodes: Nodes, index: Tensor, neuron: Tensor, node: Tensor, own: Multipliers) -> None:
        """See :data:`assay.verify.backends.bab.tightened.Note`; of the neurons at ``index``."""
        codes = torch.cat([2 * index[neuron], 2 * index[neuron] + 1])
        both = node.repeat(2)
        whose, rows = both.numpy(), Rows.of(nodes, both, index, nodes.phase[index][:, both], own, codes)
        if not self._fits(rows):
            return
        for i, key in enumerate(_keys(nodes)):
            if (mine := whose == i).any():
                self.tighter[key].append(rows.take(mine))

    def leaves(self, nodes: Nodes, index: Tensor, phase: Tensor, tree: Tensor, own: Multipliers) -> None:
        """See :data:`assay.verify.backends.bab.phases.Closed`; of the neurons at ``index``, below nodes."""
        rows = Rows.of(nodes, tree, index, phase, own)
        if self._fits(rows):
            self.pending.append((tree, rows))

    def _fits(self, rows: Rows) -> bool:
        """Whether there is memory for some more; what there was before is given up where there is none."""
        self.size += rows.size
        if self.size > self.memory:
            self.tighter, self.closed, self.pending = defaultdict(list), {}, []
        return self.size <= self.memory

    def settled(self, nodes: Nodes, index: Tensor, phase: Tensor, tree: int) -> None:
        """A leaf that was closed exactly. What its multipliers say of neurons that only their bounds fix is written as
        splits of these, of which the other halves hold no point."""
        last = None if self.exact is None else self.exact.last
        assert last is not None
        split = nodes.phase[:, tree].index_copy(0, index, phase)
        implied = (nodes.lower[:, tree] >= 0).to(torch.int8) - (nodes.upper[:, tree] <= 0).to(torch.int8)
        more = ((last.beta[:, 0] != 0) & (split == 0) & (implied != 0)).nonzero().flatten()
        count = len(more)
        whole = split.index_copy(0, more, implied[more])[:, None].repeat(1, count + 1)
        whole[more, torch.arange(count)] *= -1
        whole[more[:, None], torch.arange(count + 1)] *= (
            torch.arange(count)[:, None] <= torch.arange(count + 1)
        ).char()
        own = Multipliers(*(t.repeat(1, count + 1) for t in (last.alpha, last.beta, last.weight)))
        self.leaves(nodes, torch.arange(len(split)), whole, torch.full((count + 1,), tree), own)

    def searched(self, nodes: Nodes, closed: Tensor) -> None:
        """Which nodes (nodes) are closed by the leaves that were told of; those of others prove nothing."""
        if self.pending:
            tree = torch.cat([tree for tree, _ in self.pending]).numpy()
            rows = Rows.join([rows for _, rows in self.pending])
            self.size -= sum(part.size for _, part in self.pending)
            order = np.argsort(tree, kind="stable")
            ends = np.searchsorted(tree[order], np.arange(len(closed) + 1))
            for i, key in enumerate(_keys(nodes)):
                if closed[i]:
                    kept = self.closed[key] = rows.take(order[ends[i] : ends[i + 1]])
                    self.size += kept.size
        self.pending = []

    def empty(self, nodes: Nodes, empty: Tensor) -> None:
        """Which nodes (nodes) hold no point."""
        self.closed |= {key: None for key, none in zip(_keys(nodes), empty.tolist(), strict=True) if none}

    def split(self, nodes: Nodes, neuron: Tensor) -> None:
        """Where nodes are split (nodes)."""
        self.halved |= dict(zip(_keys(nodes), neuron.tolist(), strict=True))

    def document(self) -> dict[str, Any] | None:
        """All of it as plain data; None where the trees are not all there.

        ``relus``: the sizes of the layers of ReLUs, in order; ``listed``: the unstable neurons, numbered through these;
        ``layers``: by the number of a layer the neurons that were bounded and the slopes of their rows, lower and then
        upper bounds; ``trees``: by disjunct the ``tree`` in preorder, and what proves it, as
        :mod:`assay.verify.check.checker` reads it.
        """
        if self.compact is None or self.size > self.memory:
            return None
        network = self.problem.network
        at = [i for i, node in enumerate(network.nodes) if isinstance(node.op, (Relu, LeakyRelu))]
        sizes = [network.nodes[i].size for i in at]
        begin = dict(zip(at, np.cumsum([0, *sizes]).tolist(), strict=False))
        unstable = {layer.position: layer.features[: layer.unstable] for layer in self.compact.layers}
        layers = {}
        for number, position in enumerate(at):
            feature, slopes = self.layers.get(network.nodes[position].inputs[0], (None, {}))
            if feature is not None:
                before = [slopes[i].numpy()[:, unstable[i]] for i in at if i in slopes]
                shares = np.concatenate([np.zeros((2 * len(feature), 0), np.uint8), *before], 1)
                layers[str(number)] = {"neurons": feature.numpy().astype(np.int32), "slopes": shares}
        trees = {}
        for tree, disjunct in enumerate(self.disjuncts):
            written = self._tree(tree, disjunct)
            if written is None:
                return None
            trees[str(disjunct)] = written
        listed = np.concatenate([np.zeros(0, np.int32), *(begin[i] + unstable[i] for i in at if i in unstable)])
        parts = {"listed": listed.astype(np.int32), "layers": layers, "trees": trees}
        return {"kind": "bab", "version": 1, "network": network.id, "relus": sizes, **_tensors(parts)}

    def _tree(self, tree: int, disjunct: int) -> dict[str, Array] | None:
        assert self.compact is not None
        size, mine = self.compact.unstable, (self.problem.spec.disjunct == disjunct).numpy()
        codes: list[int] = []
        paths: list[list[int]] = []
        leaves: list[Rows] = []
        blocks: list[tuple[int, Rows, list[int]]] = []
        stack: list[tuple[Array, list[int]]] = [(np.zeros(size, np.int8), [])]
        while stack:
            phase, path = stack.pop()
            key = (tree, phase.tobytes())
            blocks += [(len(codes), rows, path) for rows in self.tighter.get(key, ())]
            if key in self.closed:
                rows = self.closed[key]
                if rows is None:
                    codes.append(-2)
                    continue
                order = []
                for code, leaf, below in _preorder(rows.phase):
                    codes.append(code)
                    if code == -1:
                        order.append(leaf)
                        paths.append(path + below)
                leaves.append(rows.take(np.array(order)))
            elif key in self.halved:
                codes.append(self.halved[key])
                for sign in (1, -1):
                    half = phase.copy()
                    half[codes[-1]] = sign
                    stack.append((half, [*path, codes[-1]]))
            else:
                return None
        found = Rows.join(leaves) if leaves else None
        return None if -3 in codes else _written(codes, found, paths, blocks, mine, size)


def _keys(nodes: Nodes) -> list[Key]:
    phases = np.ascontiguousarray(nodes.phase.T.numpy())
    return [(tree, phase.tobytes()) for tree, phase in zip(nodes.tree.tolist(), phases, strict=True)]


def _preorder(phase: Array) -> Iterator[tuple[int, int, list[int]]]:
    """Trees with these leaves, phases (leaves x neurons): a split's neuron, or -1, the leaf, and the splits above it.

    Any neuron that all leaves below a node have split can be split there. -3: there is none.
    """
    stack: list[tuple[Array, list[int]]] = [(np.arange(len(phase)), [])]
    while stack:
        some, path = stack.pop()
        if len(some) == 1:
            yield -1, int(some[0]), path
            continue
        here = phase[some]
        choice = np.flatnonzero((here != 0).all(0) & (here > 0).any(0) & (here < 0).any(0))
        if not len(choice):
            yield -3, -1, path
            return
        neuron = int(choice[np.abs(here[:, choice].sum(0, dtype=np.int64)).argmin()])
        yield neuron, -1, path
        stack.append((some[here[:, neuron] > 0], [*path, neuron]))
        stack.append((some[here[:, neuron] < 0], [*path, neuron]))


def _written(
    codes: list[int],
    leaves: Rows | None,
    paths: list[list[int]],
    blocks: list[tuple[int, Rows, list[int]]],
    mine: Array,
    size: int,
) -> dict[str, Array]:
    """The arrays of a tree."""
    bounded = [rows for _, rows, _ in blocks]
    above = [path for _, rows, path in blocks for _ in range(len(rows.neuron))]
    rows = Rows.join(bounded) if bounded else None
    return {
        "tree": np.array(codes, np.int32),
        "slopes": np.zeros((0, size), np.uint8) if leaves is None else leaves.slope,
        "multipliers": _along(leaves, paths),
        "weights": _weights(leaves, mine),
        "tighter/at": np.array([at for at, _, _ in blocks], np.int32),
        "tighter/rows": np.array([len(rows.neuron) for rows in bounded], np.int32),
        "tighter/neurons": np.zeros(0, np.int32) if rows is None else rows.neuron.astype(np.int32),
        "tighter/slopes": np.zeros((0, size), np.uint8) if rows is None else rows.slope,
        "tighter/multipliers": _along(rows, above),
        "tighter/weights": _weights(rows, mine),
    }


def _along(rows: Rows | None, paths: list[list[int]]) -> Array:
    """The multipliers of the splits above each row, in order."""
    if rows is None:
        return np.zeros(0, np.float16)
    who = np.repeat(np.arange(len(paths)), [len(path) for path in paths])
    return np.asarray(rows.multiplier[who, np.array([n for path in paths for n in path], np.int64)])


def _weights(rows: Rows | None, mine: Array) -> Array:
    """The weights of a disjunct's rows, in order."""
    if rows is None:
        return np.zeros(0, np.float16)
    weights = rows.weight[:, mine].ravel()
    half = weights.astype(np.float16)
    return half if (half == weights).all() else weights


def _tensors(value: Any) -> Any:
    """Plain data: arrays as tensors."""
    if isinstance(value, dict):
        return {key: _tensors(item) for key, item in value.items()}
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
