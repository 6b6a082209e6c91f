"""Neurons that read the same number, or opposite ones, as one: ``relu(-s) = relu(s) - s``, where lines about the two,
each by itself, lose what is known of both. Networks of lattices (Ferlez et al. 2020, arXiv:2004.09628) write
``min(a, b)`` with four neurons, of ``a + b`` and ``a - b`` and of what is opposite: one is left, and ``a + b`` is kept
as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from assay.verify.bounds.memo import per_network
from assay.verify.core.network import Builder, Network
from assay.verify.core.ops import Concat, Linear, Op, Relu
from assay.verify.support import devices

ALIKE = 1e-9  # relative difference of the numbers by which rows are told apart, up to which they are compared
DIGITS = 53  # of a float64


def merged(network: Network) -> Network:
    """The same function, exactly, with such neurons merged; itself where there are none, or weights are trained."""
    return _merged(network) or network


@per_network
def _merged(network: Network) -> Network | None:
    readers: list[list[int]] = [[] for _ in network.nodes]
    for position, node in enumerate(network.nodes):
        for i in node.inputs:
            readers[i].append(position)
    builder, new = Builder(network.input_shape), {0: 0}
    plans = dict[int, _Plan]()
    for position, node in enumerate(network.nodes[1:], start=1):
        (source, *_), op = node.inputs, node.op
        if source in plans and isinstance(op, Linear):
            op = plans[source].read(op)
        if isinstance(op, Relu) and len(node.shape) == 1 and readers[source] == [position]:
            plan = _plan(builder.nodes[new[source]].op, [network.nodes[i].op for i in readers[position]])
            if plan is not None:
                plans[position], new[position] = plan, plan.write(builder, new[source])
                continue
        builder.nodes.append(replace(node, op=op, inputs=tuple(new[i] for i in node.inputs)))
        new[position] = len(builder.nodes) - 1
    if not plans:
        return None
    return builder.build(new[len(network.nodes) - 1], dtype=network.dtype, name=network.name)


@dataclass(frozen=True, eq=False)
class _Plan:
    """What becomes of a layer of ReLUs: each is that of its ``leader``, by number, ``relu(s)``, or where it is
    ``opposite`` that less s (neurons). ``bent``: which leaders are read as ``relu(s)``, ``plain``: as s, by number."""

    leader: Tensor
    opposite: Tensor
    bent: Tensor
    plain: Tensor

    def write(self, builder: Builder, operand: int) -> int:
        """The layer anew, that reads what the Linear node ``operand`` reads; its position."""
        op, (source,) = builder.nodes[operand].op, builder.nodes[operand].inputs
        assert isinstance(op, Linear)
        parts = []
        for neurons in (self.bent, self.plain):
            if len(neurons):
                rows = Linear(op.weight[neurons], op.bias[neurons])
                parts.append(builder.add(rows, source, shape=(len(neurons),)))
                if neurons is self.bent:
                    parts[-1] = builder.add(Relu(), parts[-1], shape=(len(neurons),))
        if len(parts) == 1:
            return parts[0]
        return builder.add(Concat(0), *parts, shape=(len(self.bent) + len(self.plain),))

    def read(self, op: Linear) -> Linear:
        """What reads the layer, anew."""
        bent, plain = _read(op.weight, self.leader, self.opposite)
        return Linear(torch.cat([bent[:, self.bent], plain[:, self.plain]], 1), op.bias)


def _plan(layer: Op, readers: Sequence[Op]) -> _Plan | None:
    """Of the ReLUs of a ``layer`` that ``readers`` read; None where no neurons are merged."""
    weights = [op.weight for op in readers if isinstance(op, Linear)]
    if not weights or len(weights) < len(readers) or not isinstance(layer, Linear):
        return None
    if any(weight.requires_grad or not devices.is_host(weight) for weight in (layer.weight, *weights)):
        return None
    leader, opposite = _leaders(layer)
    own = torch.arange(len(leader))
    for weight in weights if not leader.equal(own) else []:
        inexact = torch.zeros_like(opposite).index_fill_(0, leader[~_summed_exactly(weight, leader)], True)
        leader = torch.where(inexact[leader], own, leader)
    if leader.equal(own):
        return None
    opposite = opposite & (leader != own)
    sums = zip(*(_read(weight, leader, opposite) for weight in weights), strict=True)
    bent, plain = (torch.cat(side).any(0).nonzero().flatten() for side in sums)
    return _Plan(leader, opposite, bent, plain) if len(bent) + len(plain) else None


def _leaders(op: Linear) -> tuple[Tensor, Tensor]:
    """For each neuron the one that stands for it, by number, of which it reads the same value or, where the second is
    True, the opposite one: (neurons) each."""
    weight, bias = op.weight, op.bias
    probe = torch.rand(weight.shape[1] + 1, dtype=weight.dtype, generator=torch.Generator().manual_seed(0))
    told = torch.addmv(bias * probe[-1], weight, probe[:-1])
    size, order = told.abs().sort()
    begins = torch.ones_like(order, dtype=torch.bool)
    begins[1:] = size[1:] - size[:-1] > ALIKE * size[1:]
    leader = torch.empty_like(order).scatter_(0, order, order[begins][begins.cumsum(0) - 1])
    opposite = (told < 0) != (told[leader] < 0)
    some = (leader != torch.arange(len(leader))).nonzero().flatten()
    sign = 1.0 - 2.0 * opposite[some].to(weight)
    same = (weight[some] == sign[:, None] * weight[leader[some]]).all(1) & (bias[some] == sign * bias[leader[some]])
    leader[some[~same]] = some[~same]
    opposite[some[~same]] = False
    return leader, opposite


def _read(weight: Tensor, leader: Tensor, opposite: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (outputs x neurons) that reads neurons as what reads ``relu(s)`` of each, those that lead alone, and
    what reads s: (outputs x neurons) each."""
    bent, plain = torch.zeros_like(weight), torch.zeros_like(weight)
    bent.index_add_(1, leader, weight)
    plain.index_add_(1, leader[opposite], weight[:, opposite], alpha=-1)
    return bent, plain


def _summed_exactly(weight: Tensor, leader: Tensor) -> Tensor:
    """For which neurons no sum of a row's entries over those with the same leader is rounded, in any order:
    (neurons)."""
    total = torch.zeros_like(weight).index_add_(1, leader, weight.abs())
    # All are whole multiples of the last digit of the sum of magnitudes, so that sums of some of them are, too.
    entries = torch.ldexp(weight, DIGITS - torch.frexp(total[:, leader]).exponent)
    return (entries == entries.round()).all(0)
