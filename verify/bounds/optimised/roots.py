"""Bounds of a network's neurons over one box by raised lines, as far as they are worked out: kept for who asks next,
which is another method, or the same one with more time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from assay.verify.bounds import layers
from assay.verify.bounds.optimised import raised
from assay.verify.bounds.optimised.raised import GRAINS
from assay.verify.bounds.optimised.slopes import Ascent
from assay.verify.bounds.relaxations.relax import relaxes
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.network import Network
from assay.verify.core.ops import LeakyRelu, Relu
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.core.verifier import Bounds

# By the position of a node the features whose bounds were raised, and by that of an activation before it the slopes of
# its lower lines in shares of 255, for the lower bounds of all these features and then the upper ones.
Slopes = dict[int, tuple[Tensor, dict[int, Tensor]]]

SHARE = 8  # one part in so many of the memory may hold slopes
KEPT = 4  # roots of a network at most


@dataclass(eq=False)
class Root:
    """The ``bounds`` of the first nodes over a ``box`` (1 x input shape), by an ``ascent`` for each neuron;
    ``relaxed``: the network, once all of it is bounded. ``proof``: whether ``slopes`` that prove the bounds are asked
    for, which are None where they were too large for ``memory``, in bytes."""

    box: Box
    ascent: Ascent
    proof: bool
    bounds: list[Bounds] = field(default_factory=list)
    slopes: Slopes | None = None
    relaxed: Relaxed | None = None
    size: int = 0
    memory: int = 0

    def __post_init__(self) -> None:
        self.slopes = {} if self.proof else None

    def serves(self, box: Box, ascent: Ascent, proof: bool, memory: int) -> bool:
        """Whether it is what :func:`tightened` is asked for, which may hold slopes that were too large before."""
        same = self.box.lower.equal(box.lower) and self.box.upper.equal(box.upper) and self.ascent == ascent
        return same and self.proof >= proof and (not proof or self.slopes is not None or memory <= self.memory)

    def further(self, relaxed: Relaxed, position: int, known: Bounds, wanted: Tensor) -> Bounds:
        """See :data:`assay.verify.bounds.layers.Tighten`."""
        if self.slopes is None:
            return raised.tighten(relaxed, position, known, wanted, self.ascent)
        size = 2 * int(wanted.sum()) * sum(relaxed.network.nodes[i].size for i in relaxed.lines)
        # They are numbers of float64 before they are bytes.
        if self.size + 8 * size > relaxed.budget.memory // SHARE:
            self.slopes, self.memory = None, relaxed.budget.memory
        self.size += size
        return raised.tighten(relaxed, position, known, wanted, self.ascent, None if self.slopes is None else self.note)

    def note(self, position: int, feature: Tensor, slopes: dict[int, Tensor]) -> None:
        """See :data:`assay.verify.bounds.optimised.raised.Note`."""
        assert self.slopes is not None
        self.slopes[position] = feature, {i: (t * GRAINS).round().to(torch.uint8) for i, t in slopes.items()}


ROOTS: WeakKeyDictionary[Network, list[Root]] = WeakKeyDictionary()  # the last ones of each network


def kept(network: Network, region: Region) -> bool:
    """Whether :func:`tightened` bounds the network over a region of a batch: one box, and lines whose slopes alone are
    moved."""
    box = isinstance(region, Box) or (isinstance(region, LpBall) and region.p == inf)
    kinks = all(isinstance(n.op, (Relu, LeakyRelu)) for n in network.nodes if relaxes(n.op))
    return box and region.shape[0] == 1 and kinks


def finished(
    network: Network, box: Box, ascent: Ascent, proof: bool, memory: int
) -> tuple[Relaxed, Slopes | None] | None:
    """What :func:`tightened` would say of a ``box`` (1 x input shape), with so much memory, if it has all of it
    already."""
    served = [root for root in ROOTS.get(network, ()) if root.serves(box, ascent, proof, memory)]
    return next(((root.relaxed, root.slopes) for root in served if root.relaxed is not None), None)


def tightened(
    network: Network, box: Box, ascent: Ascent, budget: Budget, proof: bool, share: float = 1.0
) -> tuple[Relaxed, Slopes | None]:
    """The network over a ``box`` (1 x input shape) with raised bounds of its unstable neurons, layer by layer, and for
    a ``proof`` what proves these, if there is memory for it. It goes on where the last call for the same box was cut
    short. A ``share`` of the time may be used; where that is not all of it, layers that are not reached by then have
    bounds by lines that are not raised.

    Raises :class:`assay.verify.core.budget.Expired` when the time is over.
    """
    roots = ROOTS.setdefault(network, [])
    root = next((root for root in roots if root.serves(box, ascent, proof, budget.memory)), None)
    if root is None:
        root = Root(box, ascent, proof)
        roots[:] = [*roots[1 - KEPT :], root]
    if root.relaxed is None:
        part = budget.part(share) if share < 1 else budget
        # Whoever comes next may differentiate what it makes of these bounds.
        with torch.inference_mode(False), torch.no_grad():
            try:
                root.relaxed = layers.by_linear_bounds(
                    network, box, torch.float64, part.on_cpu(), further=root.further, found=root.bounds
                )
            except Expired:
                if share == 1:
                    raise
                found = list(root.bounds)
                rest = layers.by_linear_bounds(network, box, torch.float64, budget.on_cpu(), found=found)
                return replace(rest, budget=budget), root.slopes
    return replace(root.relaxed, budget=budget), root.slopes
