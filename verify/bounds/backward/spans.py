"""Products of two values and softmax crossed in one step, with the affine operations about them that only move values
about or sum them up: what goes in and what comes out is small, and what lies between never is written down.

A score of attention is a sum of products of gathered pairs; a softmax is made of all differences of its scores. Rows of
one sample go through such a span as by one sparse matrix for positive coefficients, of the slopes of the lower planes,
and another for negative ones, of the upper planes. Sums have no more terms than those of the single steps, so that what
these are charged for rounding is enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.verify.bounds.backward.matrix import Cut, sorted_by_output
from assay.verify.bounds.memo import per_network
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.core.network import Network, Node
from assay.verify.core.ops import Gather, InverseSumExp, Linear, Product, Sub

SPANNED = (Product, InverseSumExp)


@dataclass(frozen=True, eq=False)
class Span:
    """From the node at ``source`` through the ``activation`` to sums of its values, each times ``weight`` (features),
    of which every one in turn sums up ``summed``: operands are the features ``plus`` of the source, less those at
    ``minus`` (features * operands); -1 stands for 0."""

    activation: int
    source: int
    plus: Tensor
    minus: Tensor | None
    weight: Tensor
    summed: int


@per_network
def spans(network: Network) -> dict[int, Span]:
    """Those of a network, by the position of the node that they end with."""
    nodes = network.nodes
    readers: dict[int, list[int]] = {}
    for position, node in enumerate(nodes):
        for i in node.inputs:
            readers.setdefault(i, []).append(position)
    found: dict[int, Span] = {}
    for position, node in enumerate(nodes):
        gathered = _gathered(nodes, node.inputs[0]) if isinstance(node.op, SPANNED) else None
        if gathered is None:
            continue
        source, plus, minus = gathered
        last = readers.get(position, [])
        above = nodes[last[0]].op if len(last) == 1 else None
        one = torch.ones(node.size, dtype=torch.float64)
        if isinstance(above, Linear) and len(above.weight) == 1 and not above.weight.requires_grad:
            count = above.weight.shape[1]
            weight = above.weight[0].repeat(node.size // count)
            found[last[0]] = Span(position, source, plus, minus, weight, count)
        else:
            found[position] = Span(position, source, plus, minus, one, 1)
    return found


def _gathered(nodes: tuple[Node, ...], operand: int) -> tuple[int, Tensor, Tensor | None] | None:
    """Which node an operand gathers values, or differences of values, of, and which; None if it does anything else."""
    node = nodes[operand]
    if isinstance(node.op, Gather) and node.op.fill == 0:
        return node.inputs[0], node.op.index, None
    if not isinstance(node.op, Sub):
        return None
    first, second = (nodes[i] for i in node.inputs)
    one, other = first.op, second.op
    if first.inputs != second.inputs or not (isinstance(one, Gather) and isinstance(other, Gather)):
        return None
    return None if one.fill or other.fill else (first.inputs[0], one.index, other.index)


@dataclass(frozen=True, eq=False)
class Across:
    """How rows of one sample get across a span.

    ``slopes``: matrices whose sum takes rows, the positive parts of their coefficients and then the negative ones
    (2 * ends x rows), to those of the source. ``constants``: what these gain: (2 * ends).
    """

    slopes: list[Cut]
    constants: Tensor

    @classmethod
    def of(cls, span: Span, lines: Lines, size: int) -> Across:
        """By the ``lines`` of its activation (features x operands, and features), from a source of a ``size``."""
        weight = span.weight.to(lines.slope)
        falls = weight < 0  # these take the other plane
        under = torch.zeros_like(lines.intercept_gap) if lines.intercept is None else lines.intercept
        both = torch.stack([under, under + lines.intercept_gap])
        planes = torch.stack([lines.slope, lines.slope + lines.slope_gap])
        both, planes = (weight.view(-1, *[1] * (t.dim() - 2)) * _turned(t, falls) for t in (both, planes))
        constants = both.view(2, -1, span.summed).sum(-1).flatten()
        operands = planes.shape[-1]
        plus = span.plus.view(-1, operands)
        if span.minus is None:  # of each operand by itself
            parts = [(plus[:, i], planes[:, :, i]) for i in range(operands)]
        else:
            into = torch.cat([plus, span.minus.view(-1, operands)], -1)
            parts = [(into.flatten(), torch.cat([planes, -planes], -1).flatten(1))]
        end = torch.arange(len(constants) // 2, device=weight.device)
        return cls([_matrix(into, end, slopes, size) for into, slopes in parts], constants)

    def pull(self, coef: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the span's end as rows of its source, (source x rows), and what they gain: (rows)."""
        signed = coef.new_empty(2, *coef.shape)
        torch.clamp(coef, min=0, out=signed[0])
        torch.clamp(coef, max=0, out=signed[1])
        parts = signed.flatten(0, 1)
        first, *others = (slopes.pull(parts) for slopes in self.slopes)
        for other in others:
            first += other
        return first, parts.T.mv(self.constants)


def _turned(both: Tensor, exchanged: Tensor) -> Tensor:
    """Of two sides (2 x features [x operands]) each other's where they are ``exchanged`` (features)."""
    return torch.where(exchanged.view(-1, *[1] * (both.dim() - 2)), both.flip(0), both)


def _matrix(into: Tensor, end: Tensor, slopes: Tensor, size: int) -> Cut:
    """The matrix with ``slopes`` (2 x entries), of positive and of negative parts, to the features ``into`` (entries)
    of the source, of which there are ``size``, from every one of the ends in turn."""
    ends, inside = len(end), into >= 0  # the others are 0
    end = end.repeat_interleave(len(into) // ends)[inside]
    index = torch.stack([end.repeat(2), into[inside].repeat(2)])
    index[0, len(end) :] += ends
    entries = torch.sparse_coo_tensor(index, slopes[:, inside].flatten(), (2 * ends, size), check_invariants=False)
    entries = entries.coalesce()
    end, into = entries.indices()
    return sorted_by_output(into, end, entries.values(), (size, 2 * ends)).whole
