"""What a search on phases has proved, and how, as it goes: from it trees are written that can be checked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from assay.verify.backends.bab.neurons.compact import Compact
from assay.verify.backends.bab.neurons.exact_leaves import ExactLeaves
from assay.verify.backends.bab.neurons.multipliers import Multipliers
from assay.verify.backends.bab.neurons.nodes import Nodes
from assay.verify.backends.bab.neurons.refined import Leaves
from assay.verify.bounds.optimised.raised import GRAINS
from assay.verify.bounds.optimised.roots import Slopes
from assay.verify.core.network import Network
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
        cls, lower: Tensor, whose: Tensor, index: Tensor, phase: Tensor, own: Multipliers, neuron: Tensor | None = None
    ) -> Rows:
        """Below nodes, ``whose`` by number (rows), of what speaks of the neurons at ``index``, numbers; others are
        stable there, or do not matter. ``lower``: the lower bounds of all of them (unstable x nodes)."""

        def all_(part: Tensor, dtype: torch.dtype, rest: Tensor | None = None) -> Array:
            blank = torch.zeros(len(whose), len(lower), dtype=dtype) if rest is None else rest.to(dtype)
            return blank.index_copy_(1, index, part.T.to(dtype)).numpy()

        slope = all_((own.alpha * GRAINS).round(), torch.uint8, GRAINS * (lower >= 0).T[whose])
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


@dataclass(frozen=True, eq=False)
class Finer:
    """Bounds by trees of their own: what each is of, twice the number of a neuron, and one more for an upper one, and
    what it is, its sign turned there (bounds); of the leaves ``whose`` they are, by number, in order (leaves)."""

    neuron: Array
    bound: Array
    whose: Array
    leaves: Rows


@dataclass(frozen=True, eq=False)
class Found:
    """What was noted of nodes: bounds that were tightened there, their leaves, None where a node holds no point, and
    where they were split. ``whole``: whether there was memory for all of it."""

    tighter: dict[Key, list[Rows]]
    closed: dict[Key, Rows | None]
    halved: dict[Key, int]
    whole: bool


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
    finer: list[Finer] = field(default_factory=list)
    tighter: dict[Key, list[Rows]] = field(default_factory=lambda: defaultdict(list))
    closed: dict[Key, Rows | None] = field(default_factory=dict)
    halved: dict[Key, int] = field(default_factory=dict)
    pending: list[tuple[Tensor, Rows]] = field(default_factory=list)

    def start(self, compact: Compact, disjuncts: Sequence[int], exact: ExactLeaves, finer: list[Finer]) -> None:
        """The search begins, with a tree for each of these disjuncts; ``finer``: what there is of earlier ones, which
        is added to."""
        self.compact, self.disjuncts, self.exact, self.finer = compact, disjuncts, exact, finer
        self.size += sum(part.leaves.size for part in finer)

    def refined(self, lower: Tensor, index: Tensor, neuron: Tensor, bound: Tensor, leaves: Leaves) -> None:
        """See :data:`assay.verify.backends.bab.neurons.refined.Note`."""
        own = replace(leaves.own, weight=leaves.own.weight[:0])
        rows = Rows.of(lower[:, None], torch.zeros_like(leaves.row), index, leaves.phase, own)
        if self._fits(rows):
            self.finer.append(Finer(neuron.numpy(), bound.numpy(), leaves.row.numpy(), rows))

    @property
    def whole(self) -> bool:
        """Whether there was memory for all that was told."""
        return self.size <= self.memory

    @property
    def found(self) -> Found:
        """What was noted of nodes."""
        return Found(dict(self.tighter), self.closed, self.halved, self.whole)

    def join(self, found: Found | None) -> None:
        """Note what was noted elsewhere, of other nodes of the same trees; without it nothing is proved."""
        if found is None or not found.whole:
            self.memory = -1
            return
        rows = [*(row for some in found.tighter.values() for row in some), *filter(None, found.closed.values())]
        if all(self._fits(row) for row in rows):
            for key, some in found.tighter.items():
                self.tighter[key] += some
            self.closed |= found.closed
            self.halved |= found.halved

    def bounded(self, nodes: Nodes, index: Tensor, neuron: Tensor, node: Tensor, own: Multipliers) -> None:
        """See :data:`assay.verify.backends.bab.neurons.tightened.Note`; of the neurons at ``index``."""
        codes = torch.cat([2 * index[neuron], 2 * index[neuron] + 1])
        both = node.repeat(2)
        whose, rows = both.numpy(), Rows.of(nodes.lower, both, index, nodes.phase[index][:, both], own, codes)
        if not self._fits(rows):
            return
        for i, key in enumerate(_keys(nodes)):
            if (mine := whose == i).any():
                self.tighter[key].append(rows.take(mine))

    def leaves(self, nodes: Nodes, index: Tensor, phase: Tensor, tree: Tensor, own: Multipliers) -> None:
        """See :data:`assay.verify.backends.bab.neurons.phases.Closed`; of the neurons at ``index``, below nodes."""
        rows = Rows.of(nodes.lower, tree, index, phase, own)
        if self._fits(rows):
            self.pending.append((tree, rows))

    def _fits(self, rows: Rows) -> bool:
        """Whether there is memory for some more; what there was before is given up where there is none."""
        self.size += rows.size
        if self.size > self.memory:
            self.finer, self.tighter, self.closed, self.pending = [], defaultdict(list), {}, []
        return self.size <= self.memory

    def settled(self, nodes: Nodes, index: Tensor, phase: Tensor, tree: int) -> None:
        """A leaf of the node at ``tree`` that was closed exactly, with these phases of the neurons at ``index`` (kept
        neurons). What its multipliers say of neurons that only their bounds fix is written as splits of these, of which
        the other halves hold no point."""
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
        # Slopes are 1, or the least there are, which are 0 here lest they be rounded to something larger.
        own = Multipliers(*(t.repeat(1, count + 1) for t in (last.alpha.floor(), last.beta, last.weight)))
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
        upper bounds; ``finer``: bounds by trees of their own, in the order of their neurons; ``trees``: by
        disjunct the ``tree`` in preorder, and what proves it, as :mod:`assay.verify.check.checker` reads it.
        """
        if self.compact is None or self.size > self.memory:
            return None
        network = self.problem.network
        at = [i for i, node in enumerate(network.nodes) if isinstance(node.op, (Relu, LeakyRelu))]
        sizes = [network.nodes[i].size for i in at]
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
            written = self.tree(tree, disjunct)
            if written is None:
                return None
            trees[str(disjunct)] = written
        parts = {
            "listed": listed(self.problem.network, self.compact),
            "layers": layers,
            "finer": _finer(self.finer, self.compact) if self.finer else {},
            "trees": trees,
        }
        return {"kind": "bab", "version": 1, "network": network.id, "relus": sizes, **_tensors(parts)}

    def tree(self, tree: int, disjunct: int, splits: Sequence[tuple[int, int]] = ()) -> dict[str, Array] | None:
        """The arrays of a tree, or of what is below a node with these ``splits``, neurons and phases from above; None
        where that is not all there."""
        assert self.compact is not None
        size, mine = self.compact.unstable, (self.problem.spec.disjunct == disjunct).numpy()
        codes: list[Array] = []
        leaves: list[Rows] = []
        paths: list[Paths] = []
        blocks: list[tuple[int, Rows, Paths]] = []
        root = np.zeros(size, np.int8)
        root[[neuron for neuron, _ in splits]] = [phase for _, phase in splits]
        stack: list[tuple[Array, list[int]]] = [(root, [neuron for neuron, _ in splits])]
        while stack:
            phase, path = stack.pop()
            key = (tree, phase.tobytes())
            at = sum(map(len, codes))
            blocks += [(at, rows, Paths.alike(path, len(rows.neuron))) for rows in self.tighter.get(key, ())]
            if key in self.closed:
                rows = self.closed[key]
                below = None if rows is None else preorder(rows.phase, path)
                if rows is None:
                    codes.append(np.array([-2]))
                elif below is None:
                    return None
                else:
                    codes.append(below.codes)
                    paths.append(below.paths)
                    leaves.append(rows.take(below.leaves))
            elif key in self.halved:
                neuron = self.halved[key]
                codes.append(np.array([neuron]))
                for sign in (1, -1):
                    half = phase.copy()
                    half[neuron] = sign
                    stack.append((half, [*path, neuron]))
            else:
                return None
        return _written(np.concatenate(codes), leaves, paths, blocks, mine, size)


def listed(network: Network, compact: Compact) -> Array:
    """The unstable neurons, numbered through the layers of ReLUs."""
    at = [i for i, node in enumerate(network.nodes) if isinstance(node.op, (Relu, LeakyRelu))]
    begin = dict(zip(at, np.cumsum([0, *(network.nodes[i].size for i in at)]).tolist(), strict=False))
    unstable = {layer.position: layer.features[: layer.unstable] for layer in compact.layers}
    numbers = [begin[i] + unstable[i] for i in at if i in unstable]
    return np.concatenate([np.zeros(0, np.int32), *numbers]).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Paths:
    """The splits above some rows: how many there are of each (rows), and all their neurons, row by row, from above."""

    counts: Array
    neurons: Array

    @classmethod
    def alike(cls, path: Sequence[int], rows: int) -> Paths:
        """So many rows below the same splits."""
        return cls(np.full(rows, len(path)), np.tile(np.array(path, np.int64), rows))

    @classmethod
    def join(cls, parts: Sequence[Paths]) -> Paths:
        """One after the other."""
        empty = np.zeros(0, np.int64)
        return cls(
            *(np.concatenate([empty, *some]) for some in ([p.counts for p in parts], [p.neurons for p in parts]))
        )


@dataclass(frozen=True, eq=False)
class Preorder:
    """A tree in preorder: of each node its split's neuron, or -1 for a leaf; the leaves, by number, in order, and their
    paths."""

    codes: Array
    leaves: Array
    paths: Paths


def preorder(phase: Array, path: Sequence[int], begins: Array | None = None) -> Preorder | None:
    """A tree that has these leaves, phases (leaves x neurons), below the splits of a ``path``, or trees whose leaves
    begin at these; None if there is none.

    Any neuron that all leaves below a node have split can be split there; that which halves them best is. All nodes of
    a depth are split at once: what is below a node lies together, the leaves below its inactive half first.
    """
    count, columns = phase.shape
    # Of sums of these both the number of splits and the sum of their signs can be read.
    unit = 2 * count + 1
    splits = sparse.csr_array(phase).astype(np.int64)
    splits.data += unit
    begins = np.zeros(1, np.int64) if begins is None else begins
    leaves, ends = np.arange(count), np.append(begins, count)[1:]
    nodes: list[tuple[Array, Array, Array]] = []  # where each begins, its depth, and its code
    steps = [(np.arange(count), np.full(count, depth - len(path)), np.full(count, n)) for depth, n in enumerate(path)]
    for depth in range(columns + 1):
        alone = ends - begins == 1
        nodes.append((begins[alone], np.full(alone.sum(), depth), np.full(alone.sum(), -1)))
        begins, ends = begins[~alone], ends[~alone]
        if not len(begins):
            break
        sizes = ends - begins
        first = np.cumsum(sizes) - sizes
        node, place = np.repeat(np.arange(len(sizes)), sizes), np.arange(sizes.sum()) + np.repeat(begins - first, sizes)
        below = (np.ones(len(place), np.int64), leaves[place], np.append(first, len(place)))
        sums = sparse.csr_array(below, shape=(len(sizes), count)) @ splits
        if (np.diff(sums.indptr) == 0).any():
            return None
        size = np.repeat(sizes, np.diff(sums.indptr))
        split = (sums.data + count) // unit
        skew = np.abs(sums.data - split * unit)
        skew[(split < size) | (skew == size)] = count
        worst, choice = np.divmod(np.minimum.reduceat(skew * columns + sums.indices, sums.indptr[:-1]), columns)
        if (worst == count).any():
            return None
        active = phase[leaves[place], choice[node]] > 0
        leaves[place] = leaves[place[np.lexsort((active, node))]]
        nodes.append((begins, np.full(len(begins), depth), choice))
        steps.append((place, np.full(len(place), depth), choice[node]))
        middle = ends - np.add.reduceat(active, first, dtype=np.int64)
        begins, ends = np.concatenate([begins, middle]), np.concatenate([middle, ends])
    begin, deep, codes = (np.concatenate(some) for some in zip(*nodes, strict=True))
    whose, level, neurons = (np.concatenate([leaves[:0], *(step[i] for step in steps)]) for i in range(3))
    paths = Paths(np.bincount(whose, minlength=count), neurons[np.lexsort((level, whose))])
    return Preorder(codes[np.lexsort((deep, begin))], leaves, paths)


def _keys(nodes: Nodes) -> list[Key]:
    phases = np.ascontiguousarray(nodes.phase.T.numpy())
    return [(tree, phase.tobytes()) for tree, phase in zip(nodes.tree.tolist(), phases, strict=True)]


def _written(
    codes: Array,
    leaves: list[Rows],
    paths: list[Paths],
    blocks: list[tuple[int, Rows, Paths]],
    mine: Array,
    size: int,
) -> dict[str, Array]:
    """The arrays of a tree."""
    closed, bounded = (Rows.join(rows) if rows else None for rows in (leaves, [rows for _, rows, _ in blocks]))
    return {
        "tree": codes.astype(np.int32),
        "slopes": np.zeros((0, size), np.uint8) if closed is None else closed.slope,
        "multipliers": _along(closed, Paths.join(paths)),
        "weights": _weights(closed, mine),
        "tighter/at": np.array([at for at, _, _ in blocks], np.int32),
        "tighter/rows": np.array([len(rows.neuron) for _, rows, _ in blocks], np.int32),
        "tighter/neurons": np.zeros(0, np.int32) if bounded is None else bounded.neuron.astype(np.int32),
        "tighter/slopes": np.zeros((0, size), np.uint8) if bounded is None else bounded.slope,
        "tighter/multipliers": _along(bounded, Paths.join([above for _, _, above in blocks])),
        "tighter/weights": _weights(bounded, mine),
    }


def _finer(all_: Sequence[Finer], compact: Compact) -> dict[str, Array]:
    """The best of the bounds that there are of each side of a neuron. ``neurons``: what they are of; ``rows``: how many
    there are of each layer; ``tree``: their trees in preorder."""
    neuron, bound = (np.concatenate([getattr(part, name) for part in all_]) for name in ("neuron", "bound"))
    begins = np.cumsum([0, *(len(part.neuron) for part in all_)])
    order = np.lexsort((bound, neuron))
    order = order[np.append(neuron[order][1:] != neuron[order][:-1], True)]  # the last one of each
    place = np.full(len(neuron), -1)
    place[order] = np.arange(len(order))
    whose = place[np.concatenate([begin + part.whose for begin, part in zip(begins, all_, strict=False)])]
    kept = np.argsort(whose, kind="stable")
    kept = kept[np.searchsorted(whose[kept], 0) :]
    rows = Rows.join([part.leaves for part in all_]).take(kept)
    below = preorder(rows.phase, (), np.searchsorted(whose[kept], np.arange(len(order))))
    assert below is not None
    rows = rows.take(below.leaves)
    layers = np.searchsorted(compact.starts, neuron[order] // 2, side="right")
    return {
        "neurons": neuron[order].astype(np.int32),
        "rows": np.unique(layers, return_counts=True)[1].astype(np.int32),
        "tree": below.codes.astype(np.int32),
        "slopes": rows.slope,
        "multipliers": _along(rows, below.paths),
    }


def _along(rows: Rows | None, paths: Paths) -> Array:
    """The multipliers of the splits above each row, in order."""
    if rows is None:
        return np.zeros(0, np.float16)
    return np.asarray(rows.multiplier[np.repeat(np.arange(len(paths.counts)), paths.counts), paths.neurons])


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
