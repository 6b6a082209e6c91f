"""Linear bounds that gradients pass through, for training: backwards from the margins over given layer bounds
(CROWN-IBP: Zhang et al. 2020, arXiv:1906.06316).

Unlike ``assay.verify.bounds.linear``, which is made for speed without gradients, coefficients keep the natural layout
(batch x rows x shape of the node) and nothing is overwritten. Both give the same bounds; verdicts use the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.bounds.relax import relax, relaxes
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.ops import Add, Conv2d, LeakyRelu, Linear, Op, Relu, Reshape, Scale, Sub
from assay.verify.core.verifier import Bounds

# Coefficients for each operand (batch x rows x its shape), and what is added to the bound (batch x rows).
Pulled = tuple[Sequence[Tensor], Tensor | None]


def lower_rows(network: Network, bounds: Sequence[Bounds], objective: Tensor, linear: bool) -> Tensor:
    """Lower bounds of ``objective @ output`` over a batch of boxes: (batch x rows), differentiable in everything.

    ``bounds``: of every node, (batch x shape), as :func:`assay.verify.bounds.interval.propagate_box` gives them;
    ``objective``: (batch x rows x outputs). With ``linear`` the rows go back to the input through the relaxed
    activations; without, they end at the last activations, whose intervals they take: the last affine layer merged
    with the objective (Gowal et al. 2018, arXiv:1810.12715).
    """
    last = len(network.nodes) - 1
    total = objective.new_zeros(objective.shape[:2])
    pending = {last: objective.reshape(*objective.shape[:2], *network.nodes[last].shape)}
    for position in range(last, 0, -1):
        if position not in pending:
            continue
        coef, node = pending.pop(position), network.nodes[position]
        if relaxes(node.op) and not linear:
            total = total + _least(coef, bounds[position])
            continue
        parts, offset = pull(node.op, coef, [bounds[i] for i in node.inputs])
        if offset is not None:
            total = total + offset
        for source, part in zip(node.inputs, parts, strict=True):
            pending[source] = pending[source] + part if source in pending else part
    return total + _least(pending[0], bounds[0]) if 0 in pending else total


@singledispatch
def pull(op: Op, coef: Tensor, operands: Sequence[Bounds]) -> Pulled:
    """A lower bound of ``coef`` times the value of ``op``, as a linear function of its operands, which lie in
    ``operands``: coef (batch x rows x shape of the node)."""
    raise UnsupportedError(f"operation {op.label} has no differentiable linear bounds")


@pull.register
def _(op: Linear, coef: Tensor, operands: Sequence[Bounds]) -> Pulled:
    return [coef @ op.weight], _dot(coef, op.bias)


@pull.register
def _(op: Conv2d, coef: Tensor, operands: Sequence[Bounds]) -> Pulled:
    size, out = operands[0].lower.shape[2:], coef.shape[-2:]
    spans = zip(size, out, op.stride, op.padding, op.dilation, op.weight.shape[2:], strict=True)
    # Rows and columns that the convolution left over, its stride being no divisor, have coefficient 0.
    rest = [n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, s, p, d, k in spans]
    options = (op.stride, op.padding, rest, op.groups, op.dilation)
    pulled = F.conv_transpose2d(coef.flatten(0, 1), op.weight, None, *options)
    return [pulled.reshape(*coef.shape[:2], *pulled.shape[1:])], _dot(coef, op.bias[:, None, None])


@pull.register
def _(op: Scale, coef: Tensor, operands: Sequence[Bounds]) -> Pulled:
    return [coef * op.factor], _dot(coef, op.shift)


@pull.register(Relu)
@pull.register(LeakyRelu)
def _(op: Op, coef: Tensor, operands: Sequence[Bounds]) -> Pulled:
    lines = relax(op, operands[0])
    negative = coef.clamp(max=0)
    offset = _dot(negative, lines.intercept_gap[:, None])
    if lines.intercept is not None:
        offset = offset + _dot(coef, lines.intercept[:, None])
    return [coef * lines.slope[:, None] + negative * lines.slope_gap[:, None]], offset


@pull.register
def _(op: Reshape, coef: Tensor, operands: Sequence[Bounds]) -> Pulled:
    return [coef.reshape(*coef.shape[:2], *operands[0].lower.shape[1:])], None


@pull.register
def _(op: Add, coef: Tensor, operands: Sequence[Bounds]) -> Pulled:
    return [coef, coef], None


@pull.register
def _(op: Sub, coef: Tensor, operands: Sequence[Bounds]) -> Pulled:
    return [coef, -coef], None


def unsupported(network: Network) -> list[str]:
    """The operations of ``network`` that have no rule here."""
    default = pull.dispatch(object)
    return sorted({n.op.label for n in network.nodes[1:] if pull.dispatch(type(n.op)) is default})


def _dot(coef: Tensor, values: Tensor) -> Tensor:
    """Coefficients times values, which broadcast against them, summed over the node: (batch x rows)."""
    return (coef * values).flatten(2).sum(2)


def _least(coef: Tensor, box: Bounds) -> Tensor:
    """The least value of each row's linear function over its sample's box: (batch x rows)."""
    centre, radius = (box.lower + box.upper) / 2, (box.upper - box.lower) / 2
    flat = coef.flatten(2)
    return torch.einsum("brn,bn->br", flat, centre.flatten(1)) - torch.einsum(
        "brn,bn->br", flat.abs(), radius.flatten(1)
    )
