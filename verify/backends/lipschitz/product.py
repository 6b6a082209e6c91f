"""Global Lipschitz constants: the norms of the operations multiplied along the graph (Szegedy et al. 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from math import inf

import torch
from torch import Tensor

from assay.verify.backends.lipschitz.blocks import block
from assay.verify.backends.lipschitz.norms import Norm, norm, operator_norm
from assay.verify.backends.lipschitz.outward import frobenius, plus, times, total
from assay.verify.backends.lipschitz.radii import dual_norm
from assay.verify.core.budget import Budget
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.ops import Add, Concat, Linear, Op, Reshape, Smooth, Sub
from assay.verify.core.ranges import slopes_everywhere
from assay.verify.support.floats import gamma

ONE = Norm(1.0, 1.0, "exact")


def constants(network: Network, p: float, budget: Budget) -> list[Norm]:
    """Lipschitz constants in l_p, p in {1, 2, inf}, of every node as a function of the input.

    ``estimate`` is what power iteration says of the layers, multiplied in the same way: no bound of anything.
    Raises :class:`UnsupportedError` for an operation without a rule, :class:`assay.verify.core.budget.Expired` when the
    time is over.
    """
    by_node = [ONE]
    for node in network.nodes[1:]:
        budget.check()
        parts = [by_node[i] for i in node.inputs]
        if len(parts) == 1 and not isinstance(node.op, Concat):
            alone = operator_norm(node.op, network.nodes[node.inputs[0]].shape, p)
            product = alone.estimate * parts[0].estimate
            by_node.append(Norm(product, times(alone.upper, parts[0].upper), "product"))
        else:
            whole = block(network, node, p)
            by_node.append(together(node.op, parts, p) if whole is None else whole.after(by_node))
    return by_node


@singledispatch
def together(op: Op, parts: Sequence[Norm], p: float) -> Norm:
    """The constant of an operation of several operands, given those of the operands."""
    raise UnsupportedError(f"operation {op.label} has no Lipschitz rule")


@together.register(Add)
@together.register(Sub)
def _(op: Op, parts: Sequence[Norm], p: float) -> Norm:
    """Constants add: L (1 + L_f) for a residual branch f."""
    a, b = parts
    return Norm(a.estimate + b.estimate, plus(a.upper, b.upper), "sum")


@together.register
def _(op: Concat, parts: Sequence[Norm], p: float) -> Norm:
    """The l_p norm of the constants."""
    estimates = torch.tensor([part.estimate for part in parts], dtype=torch.float64)
    uppers = torch.tensor([part.upper for part in parts], dtype=torch.float64)
    upper = {1: total(uppers, 0).item(), 2: frobenius(uppers), inf: uppers.amax().item()}[p]
    return Norm(estimates.norm(p=p).item(), upper, "concatenation")


def without_rule(network: Network) -> str | None:
    """Which operations have no Lipschitz rule, in one line; None if all have."""
    tables = (norm, together)
    missing = {
        node.op.label
        for node in network.nodes[1:]
        if all(rule.dispatch(type(node.op)) is rule.dispatch(object) for rule in tables) or _endless(node.op)
    }
    return f"no Lipschitz rule for {', '.join(sorted(missing))}" if missing else None


def _endless(op: Op) -> bool:
    return isinstance(op, Smooth) and inf in slopes_everywhere(op.of)


@dataclass(frozen=True, eq=False)
class Slopes:
    """Lipschitz constants of linear functions of the output: ``upper`` (rows), sound; ``estimate`` (rows)."""

    estimate: Tensor
    upper: Tensor


def row_slopes(network: Network, objective: Tensor, p: float, known: Sequence[Norm]) -> Slopes:
    """Constants in l_p of each row of ``objective @ network(x)``: objective (rows x outputs), float64.

    The dual norm of the row times the output's constant; or, where the last layer is fully connected, the dual norm
    of the row times its weight, times the constant of what comes before (pairwise margins in place of sqrt 2).
    """
    best = [times(length, known[-1].upper) for length in dual_norm(objective, p).tolist()]
    guess = objective.norm(p=_dual(p), dim=1) * known[-1].estimate
    last = _last_layer(network)
    if last is not None:
        position, weight = last
        merged, error = merge(objective, weight)
        lengths = (dual_norm(merged, p) + dual_norm(error, p)).tolist()
        best = [min(a, times(b, known[position].upper)) for a, b in zip(best, lengths, strict=True)]
        guess = torch.minimum(guess, merged.norm(p=_dual(p), dim=1) * known[position].estimate)
    return Slopes(guess, torch.tensor(best, dtype=torch.float64))


def merge(objective: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """``objective @ weight`` and what rounding may have changed of it, both (rows x inputs)."""
    return objective @ weight, 2 * gamma(weight.shape[0] + 4) * (objective.abs() @ weight.abs())


def _dual(p: float) -> float:
    return {1: inf, 2: 2.0, inf: 1.0}[p]


def _last_layer(network: Network) -> tuple[int, Tensor] | None:
    """The operand and the weight of the fully connected layer that the network ends with, if it does."""
    position = len(network.nodes) - 1
    while isinstance(network.nodes[position].op, Reshape):
        (position,) = network.nodes[position].inputs
    op = network.nodes[position].op
    if not isinstance(op, Linear) or len(network.nodes[position].shape) != 1:
        return None
    return network.nodes[position].inputs[0], op.weight.to("cpu", torch.float64)
