"""Which neurons the rows of a specification depend on: those that only feed other outputs need no bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from assay.verify.bounds.backward import affine
from assay.verify.bounds.backward.affine import Part
from assay.verify.bounds.backward.walk import propagate_backwards
from assay.verify.bounds.interval import radius_map
from assay.verify.core.network import Network, Node

MANY = 64  # outputs, below which nothing is gained


@dataclass(frozen=True, eq=False)
class Reads:
    """Rules for what is read of a node: 1 where any output that counts depends on a feature, otherwise 0: (1 x
    features). ``seen`` gets it, by position."""

    nodes: Sequence[Node]
    seen: dict[int, Tensor] = field(default_factory=dict)

    def pull(self, position: int, rows: Tensor) -> tuple[Sequence[Tensor], None]:
        """See :class:`assay.verify.bounds.backward.walk.Rules`."""
        self.seen[position] = rows > 0
        node = self.nodes[position]
        op, shapes = node.op, [self.nodes[i].shape for i in node.inputs]
        if op.several:
            return [rows.repeat_interleave(self.nodes[node.inputs[0]].size // node.size, 1)], None
        if not op.affine:
            return [rows], None
        parts, _ = affine.pull(radius_map(op), Part(rows), shapes, node.shape)
        sizes = [self.nodes[i].size for i in node.inputs]
        # Sums of magnitudes: other than 0 where anything is read. What overflows to NaN is read, too.
        return [(p.dense(size) != 0).to(rows) for p, size in zip(parts, sizes, strict=True)], None

    def add(self, position: int, a: Tensor, b: Tensor) -> Tensor:
        """See :class:`assay.verify.bounds.backward.walk.Rules`."""
        return torch.maximum(a, b)


def needed(network: Network, objective: Tensor) -> Mapping[int, Tensor]:
    """Features of each node, by position, on which ``objective @ output`` can depend: (1 x features) each. Without an
    entry for a node all of its features count; where most outputs are read there is none at all.

    ``objective``: (samples x rows x outputs), of all samples of a batch together.
    """
    read = (objective != 0).flatten(0, -2).any(0)
    if network.output_size < MANY or 2 * int(read.sum()) > network.output_size:
        return {}
    nodes = network.to(objective.dtype, objective.device).nodes
    rules, rows = Reads(nodes), read[None].to(objective)
    propagate_backwards(nodes, rules, {len(nodes) - 1: rows}, rows.new_zeros(1))
    return rules.seen
