"""Operations whose Lipschitz constant together is smaller than what their rules say one by one: sorts and halves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.verify.backends.lipschitz.norms import Norm, operator_norm
from assay.verify.backends.lipschitz.outward import plus, times, total, up
from assay.verify.core.network import Network, Node
from assay.verify.core.ops import Add, Concat, Conv2d, LeakyRelu, Linear, Op, Relu, Scale, Smooth
from assay.verify.core.ranges import slopes_everywhere


@dataclass(frozen=True)
class Block:
    """A function of the node at ``source`` alone, with the sound Lipschitz constant ``upper``."""

    source: int
    upper: float

    def after(self, constants: Sequence[Norm]) -> Norm:
        """The constant as a function of the input, given those of all nodes before."""
        before = constants[self.source]
        return Norm(self.upper * before.estimate, times(self.upper, before.upper), "block")


def block(network: Network, node: Node, p: float) -> Block | None:
    """The block that ends in ``node``, an operation of two operands, in l_p; None if that is none of the known ones."""
    if isinstance(node.op, Concat) and len(node.inputs) == 2:
        return _halves(network, *node.inputs)
    if isinstance(node.op, Add):
        a, b = node.inputs
        return _step(network, a, b, p) or _step(network, b, a, p)
    return None


def _halves(network: Network, a: int, b: int) -> Block | None:
    """``relu(x)`` beside ``relu(-x)``: at each x one of them is 0, and together they are 1-Lipschitz."""
    if not all(isinstance(network.nodes[i].op, Relu) for i in (a, b)):
        return None
    (one,), (other,) = network.nodes[a].inputs, network.nodes[b].inputs
    if _opposite(network.nodes[other], one):
        return Block(one, 1.0)
    return Block(other, 1.0) if _opposite(network.nodes[one], other) else None


def _opposite(node: Node, source: int) -> bool:
    op = node.op
    if not isinstance(op, Scale) or node.inputs != (source,):
        return False
    return bool((op.factor == -1).all()) and not bool(op.shift.any())


def _step(network: Network, source: int, change: int, p: float) -> Block | None:
    """``x - W^T s(W x + b) + c`` with x the node at ``source`` and ``0 <= s' <= 1``: one step down a convex function
    (Meunier et al. 2022, arXiv:2110.12690). The maximum and the minimum of two numbers are such a step.

    Between any two points it acts as ``I - W^T D W`` with a diagonal D in [0, 1]: symmetric, with eigenvalues from
    ``1 - ||W||^2`` to 1. In l1 and linf, which agree since it is symmetric, row sums are convex in D; where no two
    rows of W share an entry they depend on one entry of D each, and are largest at 0 or 1.
    """
    last = network.nodes[change]
    middle = network.nodes[last.inputs[0]] if len(last.inputs) == 1 else last
    if not _gradual(middle.op) or (first := network.nodes[middle.inputs[0]]).inputs != (source,):
        return None
    weight, back = _matrix(first.op), _matrix(last.op)
    if weight is None or back is None or type(first.op) is not type(last.op) or not torch.equal(back, -weight.T):
        return None
    if p == 2:
        length = operator_norm(first.op, network.nodes[source].shape, 2).upper
        return Block(source, max(1.0, up(times(length, length) - 1)))
    size = weight.abs()
    if bool(((size > 0).sum(0) > 1).any()):
        return None
    one, others = size.amax(0), (size * (total(size, 1)[:, None] - size)).amax(0)
    sums = (1 - one * one).abs() + others
    return Block(source, max(1.0, plus(sums.max().item() * (1 + 1e-12), 1e-300)))


def _gradual(op: Op) -> bool:
    """Whether slopes lie in [0, 1]."""
    if isinstance(op, Smooth):
        least, most = slopes_everywhere(op.of)
        return least >= 0 and most <= 1
    return isinstance(op, Relu) or (isinstance(op, LeakyRelu) and 0 <= op.slope <= 1)


def _matrix(op: Op) -> Tensor | None:
    """The weight of an operation that is one matrix at every place (outputs x inputs), on the processor."""
    if isinstance(op, Linear):
        return op.weight.to("cpu", torch.float64)
    if not isinstance(op, Conv2d) or (op.groups, op.stride, op.padding) != (1, (1, 1), (0, 0)):
        return None
    return op.weight.flatten(1).to("cpu", torch.float64) if op.weight[0, 0].numel() == 1 else None
