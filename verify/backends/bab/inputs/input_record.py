"""What a search on boxes has proved, and how: from it a tree of halved boxes is written that can be checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from torch import Tensor

from assay.verify.bounds.optimised.raised import GRAINS
from assay.verify.core.ops import LeakyRelu, Relu
from assay.verify.core.problem import Problem


@dataclass(frozen=True, eq=False)
class Halved:
    """Boxes that were halved along an input each: their numbers, and those of their two halves (boxes)."""

    node: Tensor
    axis: Tensor
    first: Tensor
    second: Tensor


@dataclass(frozen=True, eq=False)
class Closed:
    """Pairs of a box and a disjunct that raised slopes closed: numbers (pairs), slopes of all ReLUs in shares of 255
    (pairs x neurons), and the weights of the disjunct's rows (pairs x most rows of one)."""

    node: Tensor
    disjunct: Tensor
    slope: Tensor
    weight: Tensor


@dataclass(eq=False)
class InputRecord:
    """The tree of boxes, numbered as they come to be. What would take more than ``memory`` bytes is not kept, and
    nothing is proved."""

    problem: Problem
    memory: float = inf
    count: int = 1
    size: int = 0
    events: list[Halved | Closed] = field(default_factory=list)

    @property
    def relus(self) -> list[int]:
        """Their positions."""
        nodes = self.problem.network.nodes
        return [i for i, node in enumerate(nodes) if isinstance(node.op, (Relu, LeakyRelu))]

    def halved(self, node: Tensor, axis: Tensor) -> Tensor:
        """Boxes are halved along an input each (boxes): the numbers of the first halves of all, then of the second
        ones."""
        halves = torch.arange(self.count, self.count + 2 * len(node))
        self.count += len(halves)
        self._keep(Halved(node, axis, *halves.chunk(2)))
        return halves

    def closed(self, node: Tensor, disjunct: Tensor, slopes: Mapping[int, Tensor], weight: Tensor) -> None:
        """Pairs are closed by lines of these slopes, by the position of the ReLU (pairs x features), and these weights
        of the disjunct's rows, of which the first is repeated where there are fewer (pairs x most rows of one)."""
        rows = torch.tensor([max(1, len(d.b)) for d in self.problem.spec.disjuncts])[disjunct]
        own = torch.arange(weight.shape[1]) < rows[:, None]
        mine = weight * own
        mine[:, 0] += (weight * ~own).sum(1)
        slope = torch.cat([slopes[i] for i in self.relus], 1)
        self._keep(Closed(node, disjunct, (slope * GRAINS).round().to(torch.uint8), mine.half()))

    def _keep(self, event: Halved | Closed) -> None:
        self.size += sum(part.nbytes for part in vars(event).values())
        if self.size > self.memory:
            self.events.clear()
        else:
            self.events.append(event)

    def document(self) -> dict[str, Any] | None:
        """All of it as plain data, once the tree is closed; None where it was not kept.

        ``relus``: the sizes of the layers of ReLUs, in order; ``tree``: in preorder the input that is halved, or -1: a
        leaf; ``hints`` (leaves x disjuncts): which of the ``slopes`` (rows x neurons) and ``weights`` (rows x most
        rows of a disjunct) prove it there, or -1: none are needed.
        """
        if self.size > self.memory:
            return None
        nodes, spec = self.problem.network.nodes, self.problem.spec
        sizes = [nodes[i].size for i in self.relus]
        axis = torch.full((self.count,), -1)
        halves = torch.zeros(self.count, 2, dtype=torch.int64)
        hints = torch.full((self.count, len(spec.disjuncts)), -1)
        kept: list[Closed] = []
        rows = 0
        for event in self.events:
            if isinstance(event, Halved):
                axis[event.node] = event.axis
                halves[event.node] = torch.stack([event.first, event.second], 1)
            else:
                hints[event.node, event.disjunct] = torch.arange(rows, rows + len(event.node))
                rows, kept = rows + len(event.node), [*kept, event]
        order, axes, below, stack = [], axis.tolist(), halves.tolist(), [0]
        while stack:
            box = stack.pop()
            order.append(box)
            stack += below[box][::-1] if axes[box] >= 0 else []
        tree = axis[order]
        most = max(len(d.b) for d in spec.disjuncts)
        blank = Closed(tree[:0], tree[:0], torch.zeros(0, sum(sizes), dtype=torch.uint8), torch.zeros(0, most).half())
        return {
            "kind": "input-split",
            "version": 1,
            "network": self.problem.network.id,
            "relus": sizes,
            "tree": tree.to(torch.int32),
            "hints": hints[order][tree < 0],
            "slopes": torch.cat([part.slope for part in (blank, *kept)]),
            "weights": torch.cat([part.weight for part in (blank, *kept)]),
        }
