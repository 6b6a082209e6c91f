"""Bounds of neurons over the whole box by raised lines, layer by layer, each in the network before it, cut down to what
can matter there. Over convolutions that takes a part of the time of rows that go through all of their features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor

from assay.verify.backends.bab.neurons.climbing import Climbing, ascend
from assay.verify.backends.bab.neurons.compact import Compact, narrow
from assay.verify.backends.bab.neurons.multipliers import Kinks, Multipliers, backward
from assay.verify.backends.bab.neurons.phases import rounded
from assay.verify.backends.bab.neurons.products import FULL
from assay.verify.backends.bab.neurons.tables import Room, Tables
from assay.verify.bounds import layers
from assay.verify.bounds.optimised.raised import GRAINS
from assay.verify.bounds.optimised.roots import SHARE, Slopes
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.verifier import Bounds
from assay.verify.support.kept import Kept

LINES = Climbing(steps=20, slope=0.2, decay=0.9)
# Products of all steps from which on there are few large ones, which take a third of the time and leave all but some
# hundredths of what is gained; those of a dense matrix count as so much of one.
DEAR, HURRIED, DENSE = 1 << 32, Climbing(steps=5, slope=0.6, decay=0.7), 1 / 8
TOGETHER = 256  # rows at a time, or fewer, so that they take a part of the memory
COPIES, PART = 16, 4  # of their numbers that live at once; one part in so many
ENOUGH = 64  # rows of the same places of an image, which are raised apart from others


@dataclass(eq=False)
class Root:
    """What is known of a network over a ``box`` (1 x input shape): once its layers are bounded, what raising these
    bounds has come to. It is kept for whoever asks again with more time.
    """

    network: Network
    box: Box
    relaxed: Relaxed | None = None
    raising: Raising | None = None

    @classmethod
    def of(cls, problem: Problem) -> Root:
        """The one that is kept of a problem, or a new one."""
        if problem not in ROOTS.of:
            box = layers.batch_box(problem.region.box(), problem.network.input_shape).box()
            ROOTS.of[problem] = cls(problem.network, box)
        return ROOTS.of[problem]

    def bounded(self, budget: Budget, share: float, proof: bool = False) -> tuple[Relaxed, Compact, Slopes | None]:
        """The network over the box with raised bounds of its unstable neurons, for which a ``share`` of the time may be
        used, what can matter of it, and for a ``proof`` what proves these, if there is memory for it. Raises
        :class:`assay.verify.core.budget.Expired` when the time is over."""
        part, raising = budget.part(share), self.begun(budget, proof)
        raising.run(part)
        tightened = _tightened(raising.relaxed, self.box, raising, budget)
        return tightened, raising.rest, raising.slopes if proof else None

    def begun(self, budget: Budget, proof: bool = False) -> Raising:
        """What raising has come to, which may be nothing yet. Raises :class:`assay.verify.core.budget.Expired`, too."""
        if self.relaxed is None:
            self.relaxed = layers.by_linear_bounds(self.network, self.box, torch.float64, budget)
        if self.raising is None or not self.raising.serves(proof, budget.memory):
            self.raising = Raising(Compact.of(self.relaxed), self.relaxed, proof)
        return self.raising


ROOTS = Kept[Problem, Root]()


@dataclass(eq=False)
class Raising:
    """Bounds ``lower`` and ``upper`` of the operands of the unstable neurons of a ``compact`` network (unstable each),
    float64, which are tightened in the layers that are not ``done``: so many are. ``relaxed``: the network that it is
    of; ``hurried``: how rows are raised where that is dear. For a ``proof`` the ``slopes`` of the lines are shares of
    255, and are kept; None where they were too large for ``memory``, in bytes."""

    compact: Compact
    relaxed: Relaxed
    proof: bool = False
    hurried: Climbing = HURRIED
    lower: Tensor = field(init=False)
    upper: Tensor = field(init=False)
    done: int = 0
    slopes: Slopes | None = None
    size: int = 0
    memory: int = 0

    def __post_init__(self) -> None:
        self.lower, self.upper = (t.clone() for t in self.compact.bounds())
        self.slopes = {} if self.proof else None

    def serves(self, proof: bool, memory: int) -> bool:
        """Whether it has what is asked for, which may be slopes that were too large before."""
        return not proof or self.slopes is not None or (self.proof and memory <= self.memory)

    @property
    def complete(self) -> bool:
        """Whether all layers are done."""
        return self.done == len(self.compact.layers)

    @property
    def rest(self) -> Compact:
        """What can matter within these bounds."""
        return self.compact.cut(self.lower, self.upper, torch.zeros(len(self.lower), dtype=torch.bool))[0]

    def run(self, budget: Budget) -> None:
        """Tighten what is left, layer by layer. Where the time is over, what has been found stays."""
        while not self.complete and not budget.expired:
            if self._layer(self.done, budget):
                self.done += 1

    def _layer(self, number: int, budget: Budget) -> bool:
        """The bounds of a layer, those on the side that is nearer to 0 first, which may settle a neuron; False where
        the time is over before."""
        layer, begin = self.compact.layers[number], self.compact.starts[number]
        if set(layer.operand.matrices) <= {0}:
            return True  # over the box alone these are exact
        here = slice(begin, begin + layer.unstable)
        lower, upper = self.lower[here], self.upper[here]  # views
        wanted = ((lower < 0) & (upper > 0)).nonzero().flatten()
        if not len(wanted):
            return True
        before, index = self.compact.before(number, wanted, self.lower, self.upper)
        nearer = -lower[wanted] < upper[wanted]
        how = self.hurried if _is_dear(before) else LINES
        kept, noted = (lower.clone(), upper.clone()), self._room(number, before, index, budget)
        for group in _places(
            torch.from_numpy(layer.features)[wanted], self.relaxed.network.nodes[layer.position].shape
        ):
            part, reached = before.reached(group)
            at = index[reached]
            rows = _Rows(part, self.lower[at, None], self.upper[at, None], how, self.proof)
            for below in (nearer[group], ~nearer[group]):
                left = ((lower[wanted[group]] < 0) & (upper[wanted[group]] > 0)).nonzero().flatten()
                for some in torch.split(left, rows.together(budget)):
                    if budget.expired:
                        if noted is not None:  # half of a layer's slopes prove nothing
                            lower[:], upper[:] = kept
                        return False
                    least, alpha = rows.least(some, below[some])
                    side, which = below[some], group[some]
                    narrow(lower, upper, wanted[which], side, least)
                    if noted is not None:
                        row = torch.where(side, which, len(wanted) + which)
                        noted[row[:, None], reached] = _shares(alpha)
        if noted is not None:
            self._note(number, wanted, index, noted)
        return True

    def _room(self, number: int, before: Compact, index: Tensor, budget: Budget) -> Tensor | None:
        """Slopes of the rows of a layer, lower bounds and then upper ones, before any is raised, of the neurons
        ``before`` it, by number: (rows x unstable). None where there are none to be kept, or not the memory for them
        any more."""
        if self.slopes is None:
            return None
        nodes = self.relaxed.network.nodes
        rows = 2 * len(before.output.bias)
        size = rows * sum(nodes[layer.position].size for layer in self.compact.layers[:number])
        if self.size + size > budget.memory // SHARE:
            self.slopes, self.memory = None, budget.memory
            return None
        left = Tables(before, before.output, torch.float32).left
        return _shares(_start(self.lower[index, None], self.upper[index, None], left)).repeat(rows, 1)

    def _note(self, number: int, wanted: Tensor, index: Tensor, noted: Tensor) -> None:
        """Keep the slopes of the rows of a layer (rows x unstable), of which ``index`` tells the numbers."""
        assert self.slopes is not None
        compact, nodes = self.compact, self.relaxed.network.nodes
        slopes: dict[int, Tensor] = {}
        for layer, begin in zip(compact.layers[:number], compact.starts, strict=False):
            here = ((index >= begin) & (index < begin + layer.unstable)).nonzero().flatten()
            feature = torch.from_numpy(layer.features)[index[here] - begin]
            all_ = torch.zeros(len(noted), nodes[layer.position].size, dtype=torch.uint8)
            slopes[layer.position] = all_.index_copy(1, feature, noted[:, here])
        layer = compact.layers[number]
        self.slopes[nodes[layer.position].inputs[0]] = torch.from_numpy(layer.features)[wanted], slopes
        self.size += sum(shares.nbytes for shares in slopes.values())


def _is_dear(compact: Compact) -> bool:
    """Whether raising all rows of the output takes long."""
    parts = (*(layer.operand for layer in compact.layers), compact.output)
    matrices = [matrix for part in parts for matrix in part.matrices.values()]
    entries: float = sum(m.nnz * (DENSE if m.nnz >= FULL * m.shape[0] * m.shape[1] else 1) for m in matrices)
    walks = 4 * LINES.steps * len(compact.output.bias)  # of both sides, each way
    return walks * entries > DEAR


def _places(features: Tensor, shape: Sequence[int]) -> list[Tensor]:
    """Features of a node of this ``shape``, in parts, by number: in an image those of the same few places, which read
    the same window of the image before."""
    if len(shape) != 3 or len(features) <= ENOUGH:
        return [torch.arange(len(features))]
    side = max(1, round((ENOUGH * shape[1] * shape[2] / len(features)) ** 0.5))  # of a square of so many places
    place = features % (shape[1] * shape[2])
    tile = torch.div(place, shape[2] * side, rounding_mode="floor") * shape[2] + place % shape[2] // side
    order = tile.argsort(stable=True)
    return list(torch.split(order, tile[order].unique_consecutive(return_counts=True)[1].tolist()))


def _start(lower: Tensor, upper: Tensor, left: Tensor | None) -> Tensor:
    """Slopes before they are raised, of neurons within bounds, with the slopes below 0 where there are any: (unstable x
    1) each."""
    start = (upper > -lower).float()
    return start if left is None else left + (1 - left) * start


def _shares(alpha: Tensor) -> Tensor:
    """Slopes (unstable x rows) as they are kept: (rows x unstable)."""
    return (alpha.T * GRAINS).round().to(torch.uint8)


@dataclass(eq=False)
class _Rows:
    """Rows of the output of a ``compact`` network, and their opposites, over bounds ``lower`` and ``upper`` (unstable x
    1), raised as ``how`` says. For a ``proof`` slopes are shares of 255."""

    compact: Compact
    lower: Tensor
    upper: Tensor
    how: Climbing
    proof: bool

    def __post_init__(self) -> None:
        self.single, self.double = (
            Tables(self.compact, self.compact.output, dtype) for dtype in (torch.float32, torch.float64)
        )

    def together(self, budget: Budget) -> int:
        """How many at a time."""
        each = 8 * COPIES * max(1, Room.size(self.compact))
        return max(1, min(TOGETHER, budget.memory // (PART * each)))

    def least(self, rows: Tensor, below: Tensor) -> tuple[Tensor, Tensor]:
        """Lower bounds of some rows, or of their opposites where not ``below``, every rounding charged: (rows), and the
        slopes that give them: (unstable x rows)."""
        count, owner = len(rows), torch.zeros(len(rows), dtype=torch.int64)
        weight = torch.zeros(len(self.compact.output.bias), count)
        weight[rows, torch.arange(count)] = 2.0 * below - 1.0
        alpha = _start(self.lower, self.upper, self.single.left).repeat(1, count)
        own = Multipliers(alpha, torch.zeros_like(alpha), weight)
        phase = torch.zeros(alpha.shape, dtype=torch.int8)
        kinks = Kinks.of(self.single, self.lower, self.upper, phase, owner)
        ascend(self.single, kinks, own, self.how, unit=torch.zeros_like(self.lower, dtype=torch.float32))
        kinks = Kinks.of(self.double, self.lower, self.upper, phase, owner)
        own = rounded(own) if self.proof else own.to(torch.float64)
        least = backward(self.double, kinks, own, charged=True).bound
        return least.nan_to_num(nan=-inf, posinf=-inf, neginf=-inf), own.alpha


def _tightened(relaxed: Relaxed, box: Box, raising: Raising, budget: Budget) -> Relaxed:
    """The network over what raising has come to, intervals between the layers included."""
    network, bounds = relaxed.network, list(relaxed.bounds)
    for layer, begin in zip(raising.compact.layers, raising.compact.starts, strict=False):
        here, (operand,) = slice(begin, begin + layer.unstable), network.nodes[layer.position].inputs
        at, old = torch.from_numpy(layer.features[: layer.unstable]), bounds[operand]
        sides = ((old.lower, raising.lower[here]), (old.upper, raising.upper[here]))
        bounds[operand] = Bounds(*(t.flatten().index_copy(0, at, new).view_as(t) for t, new in sides))
    none = {i: torch.zeros(1, node.size, dtype=torch.bool) for i, node in enumerate(network.nodes)}
    return layers.by_linear_bounds(network, box, torch.float64, budget, asked=none, before=bounds)
