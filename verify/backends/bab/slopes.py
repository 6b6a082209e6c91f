"""Lower slopes of ReLUs raised by gradient ascent, one objective a box (Xu et al. 2021, arXiv:2011.13824).

Only the lines that the objective itself takes are moved; the bounds of the layers stay. The bound's derivative by
a slope is the objective's coefficient there, if positive, times the value that arrives there when the point of the
box at which the bound is taken passes through the network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from assay.verify.backends.bab.adjoint import Part
from assay.verify.backends.bab.forms import Forms
from assay.verify.backends.bab.relaxed import Relaxed, propagate_backwards
from assay.verify.bounds.relax import Lines, relaxes
from assay.verify.core.ops import Max, Op, Relu, evaluate
from assay.verify.core.verifier import Bounds

DECAY = 0.9  # of the gradient's running mean
SPREAD = 0.99  # of its running square


@dataclass(frozen=True, eq=False)
class Raised:
    """The best bound of each row (rows), with its form, and for each activation, by position, what its relaxation
    may cost the row (rows x features)."""

    bound: Tensor
    form: Forms
    loss: dict[int, Tensor]


def raise_slopes(relaxed: Relaxed, objective: Tensor, constant: Tensor, steps: int, rate: float) -> Raised:
    """Lower bounds of ``objective @ output + constant``: objective (rows x outputs), constant (rows), a box a row."""
    last = len(relaxed.prepared.network.nodes) - 1
    free = {i: _Slopes(lines, relaxed.operands[i]) for i, lines in relaxed.lines.items() if _movable(relaxed, i)}
    trial = replace(relaxed, lines=dict(relaxed.lines))
    best: Raised | None = None
    for step in range(1, steps + 2):
        seen: dict[int, Tensor] = {}
        form = propagate_backwards(trial, {last: Part(objective)}, constant, seen=seen)
        bound = form.minimum(relaxed.lower, relaxed.upper)
        best = Raised(bound, form, {}) if best is None else _better(best, form, bound)
        if step > steps or not free:
            break
        values = _through(trial, form.corner(relaxed.lower, relaxed.upper), seen)
        for position, slopes in free.items():
            operand = values[relaxed.prepared.network.nodes[position].inputs[0]].flatten(1)
            trial.lines[position] = slopes.ascend(seen[position].clamp(min=0) * operand, step, rate)
    assert best is not None
    return replace(best, loss={i: seen[i].abs() * _gap(relaxed, i) for i in relaxed.lines if i in seen})


class _Slopes:
    """The lower slopes of one layer of ReLUs, and the running moments of their gradient (Adam)."""

    def __init__(self, lines: Lines, z: Bounds) -> None:
        self.lines, self.upper = lines, lines.slope + lines.slope_gap
        self.open = ((z.lower < 0) & (z.upper > 0)).to(lines.slope)
        self.mean, self.square = torch.zeros_like(lines.slope), torch.zeros_like(lines.slope)
        self.least = 0.0

    def ascend(self, gradient: Tensor, step: int, rate: float) -> Lines:
        gradient = gradient * self.open
        self.mean.mul_(DECAY).add_(gradient, alpha=1 - DECAY)
        self.square.mul_(SPREAD).addcmul_(gradient, gradient, value=1 - SPREAD)
        scale = ((1 - SPREAD**step) ** 0.5) / (1 - DECAY**step)
        move = self.mean / self.square.sqrt().add_(1e-30)
        slope = (self.lines.slope + rate * scale * move).clamp_(self.least, 1.0)
        self.lines = replace(self.lines, slope=slope, slope_gap=self.upper - slope)
        return self.lines


def _movable(relaxed: Relaxed, position: int) -> bool:
    """Whether any line through 0 of a slope in [0, 1] lies below: of ReLUs alone."""
    op = relaxed.prepared.network.nodes[position].op
    return isinstance(op, Relu)


def _better(best: Raised, form: Forms, bound: Tensor) -> Raised:
    better = (bound > best.bound) | best.bound.isnan()
    coef = torch.where(better[:, None], form.coef, best.form.coef)
    constant = torch.where(better, form.constant, best.form.constant)
    return Raised(torch.where(better, bound, best.bound), Forms(coef, constant), {})


def _through(relaxed: Relaxed, point: Tensor, seen: dict[int, Tensor]) -> list[Tensor]:
    """The value of every node at a point of each box, every activation replaced by the line that its coefficient
    takes."""
    network = relaxed.prepared.network
    values = [point.view(-1, *network.input_shape)]
    for position, node in enumerate(network.nodes[1:], start=1):
        operands = [values[i] for i in node.inputs]
        if relaxes(node.op):
            value = _on_line(node.op, relaxed.lines[position], seen[position] < 0, operands[0].flatten(1))
            values.append(value.view(-1, *node.shape))
        else:
            values.append(evaluate(node.op, *operands))
    return values


def _on_line(op: Op, lines: Lines, above: Tensor, z: Tensor) -> Tensor:
    """The lower line's value at ``z`` (boxes x features), or the upper line's where ``above``."""
    pick = above.to(z)
    if isinstance(op, Max):
        z = z.view(*pick.shape, -1)
        low, extra = (lines.slope * z).sum(-1), (lines.slope_gap * z).sum(-1)
    else:
        low, extra = lines.slope * z, lines.slope_gap * z
    value = torch.addcmul(low, pick, extra + lines.intercept_gap)
    return value if lines.intercept is None else value + lines.intercept


def _gap(relaxed: Relaxed, position: int) -> Tensor:
    """The distance between an activation's two lines in the middle of its operand's bounds: (boxes x features)."""
    lines, z = relaxed.lines[position], relaxed.operands[position]
    middle = z.lower / 2 + z.upper / 2
    if isinstance(relaxed.prepared.network.nodes[position].op, Max):
        return (lines.slope_gap * middle.view(lines.slope_gap.shape)).sum(-1) + lines.intercept_gap
    return torch.addcmul(lines.intercept_gap, lines.slope_gap, middle)
