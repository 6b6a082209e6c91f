"""Nodes of trees over the phases of unstable neurons, each with bounds of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PER_NEURON = ("phase", "lower", "upper", "alpha", "beta")


@dataclass(frozen=True, eq=False)
class Nodes:
    """``phase``, int8, and what is known of the operands, ``lower``, ``upper``, float64; slopes ``alpha`` and
    multipliers ``beta``, float32: all (unstable x nodes); ``weight`` (unsafe rows x nodes); the number of the ``tree``
    and the ``depth`` of each (nodes)."""

    phase: Tensor
    lower: Tensor
    upper: Tensor
    alpha: Tensor
    beta: Tensor
    weight: Tensor
    tree: Tensor
    depth: Tensor

    def __len__(self) -> int:
        return len(self.tree)

    def take(self, index: Tensor) -> Nodes:
        """The nodes at the positions ``index`` (kept nodes)."""
        columns = {name: getattr(self, name).index_select(1, index) for name in (*PER_NEURON, "weight")}
        return Nodes(**columns, tree=self.tree[index], depth=self.depth[index])

    def of_neurons(self, index: Tensor) -> Nodes:
        """What they say of the unstable neurons at the positions ``index`` (neurons)."""
        return replace(self, **{name: getattr(self, name).index_select(0, index) for name in PER_NEURON})

    def put(self, index: Tensor, part: Nodes) -> Nodes:
        """With what ``part``, of the same nodes, says of the unstable neurons at the positions ``index`` (neurons)."""
        columns = {name: getattr(self, name).index_copy(0, index, getattr(part, name)) for name in PER_NEURON}
        return replace(self, weight=part.weight, **columns)

    def split(self, neuron: Tensor) -> Nodes:
        """Both halves of each node at its ``neuron`` (nodes): the inactive ones of all, then the active ones."""
        return Nodes.join([self._half(neuron, phase) for phase in (-1, 1)])

    def _half(self, neuron: Tensor, phase: int) -> Nodes:
        at = neuron[None]
        alpha, beta = self.alpha.scatter(0, at, float(phase > 0)), self.beta.scatter(0, at, 0.0)
        return replace(self, phase=self.phase.scatter(0, at, phase), alpha=alpha, beta=beta, depth=self.depth + 1)

    @classmethod
    def join(cls, parts: Sequence[Nodes]) -> Nodes:
        """Nodes one after the other."""
        columns = {name: torch.cat([getattr(part, name) for part in parts], 1) for name in (*PER_NEURON, "weight")}
        return cls(**columns, tree=torch.cat([p.tree for p in parts]), depth=torch.cat([p.depth for p in parts]))
