"""Linear bounds propagated backwards through a network (CROWN: Zhang et al. 2018, arXiv:1811.00866)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds import patches, rounding
from assay.verify.bounds.forms import AnyForm, Form, Patches, Rows, Units, add, dense, multiple, on_support, windows
from assay.verify.bounds.group import Group, box_minimum, by_feature, middle_and_radius
from assay.verify.bounds.matrix import Sparse, constant
from assay.verify.bounds.relax import Lines, relaxes
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.ops import (
    Add,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Gather,
    LeakyRelu,
    Linear,
    Max,
    Op,
    Relu,
    Reshape,
    Scale,
    Sub,
    Tanh,
    evaluate,
)
from assay.verify.core.region import LpBall
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import length

# For fewer rows than this, cutting a sparse matrix down costs more than multiplying with all of it.
FEW = 32

# Forms of an operation's operands, and the constant that it leaves (rows) or None.
Pulled = tuple[Sequence[AnyForm], Tensor | None]


@dataclass(eq=False)
class BackwardPropagation:
    """Rows propagated backwards from one node: ``pending``, the forms of the nodes reached, by position, and ``total``,
    the constants so far (rows). ``centred``: the constants hold the forms' values at the box's centre already.
    ``charged``: rounding is charged at the start and at each activation; otherwise it is left to the caller.

    Every activation that is met must have been relaxed. Raises :class:`Expired` when the group's time is over.
    """

    group: Group
    rows: Rows
    pending: dict[int, AnyForm]
    total: Tensor = field(init=False)
    centred: bool = False
    charged: bool = False

    def __post_init__(self) -> None:
        self.total = self.rows.zeros()
        if self.charged:
            for position, form in self.pending.items():
                if not relaxes(self.group.network.nodes[position].op):
                    self._charge(position, form)

    def pause(self) -> None:
        """Propagate to the first activation."""
        while self._front > 0 and not relaxes(self.group.network.nodes[self._front].op):
            self._step(self._front)

    def minimum(self) -> Tensor:
        """Propagate to the input; the least value over the region: (rows)."""
        while self._front > 0:
            self._step(self._front)
        return self.total + self._at_input()

    def minimum_over(self, intervals: Sequence[Bounds]) -> Tensor:
        """Propagate to the first activation on each path; the least value over their ``intervals`` (samples x shape of
        each node): (rows)."""
        while self._front > 0:
            current = self._front
            node = self.group.network.nodes[current]
            if relaxes(node.op):
                here = by_feature(intervals[current])
                centre, radius = middle_and_radius(here)
                if self.charged and self.group.rounding is not None:
                    radius = radius + self.group.rounding.share(current) * rounding.largest(here)
                    self.total = self.total - rounding.DUST
                coef = dense(self.pending.pop(current), node.size)
                self.total = self.total + box_minimum(coef, centre, radius, self.rows)
            else:
                self._step(current)
        return self.total + self._at_input()

    def copy(self) -> BackwardPropagation:
        """The same state in memory of its own."""
        twin = BackwardPropagation(self.group, self.rows, {i: multiple(form) for i, form in self.pending.items()})
        twin.total, twin.centred, twin.charged = self.total, self.centred, self.charged
        return twin

    @property
    def _front(self) -> int:
        """The last node in topological order that a form has reached; 0 if that is the input, or none is left."""
        return max(self.pending, default=0)

    def _step(self, current: int) -> None:
        self.group.budget.check()
        form, node = self.pending.pop(current), self.group.network.nodes[current]
        if self.charged and relaxes(node.op):
            self._charge(current, form)
        if current == self.group.entrance:
            self.total, self.centred = self.total + self.group.worth_at_centre(form, self.rows), True
        parts, offset = self._pull(node.op, form, current)
        if offset is not None and not self.centred:
            self.total = self.total + offset
        for source, part in zip(node.inputs, parts, strict=True):
            known = self.pending.get(source)
            self.pending[source] = part if known is None else add(known, part, self.group.network.nodes[source].size)

    def _charge(self, position: int, form: AnyForm) -> None:
        self.total = self.total - self.group.loss(position, form, self.rows) - rounding.DUST

    def _pull(self, op: Op, form: AnyForm, current: int) -> Pulled:
        """By the rule for windows of images as long as they are small, otherwise by the one for all features."""
        if isinstance(form, Units) and patches.begins(op, self.group, current):
            form = windows(form, self.group.network.nodes[current].shape)
        if isinstance(form, Patches):
            if patches.fits(op, form, self.group, current):
                return patches.pull(op, form, self.group, current, self.rows)
            form = form.form()
        return pull(op, form, self.group, current, self.rows)

    def _at_input(self) -> Tensor:
        form, group = self.pending.pop(0, None), self.group
        if form is None:
            return self.rows.zeros()
        if isinstance(form, Patches) and _over_box_only(group):
            radius = (group.gather(group.radius, form, self.rows) * form.coef.abs()).sum(0)
            return (
                -radius if self.centred else (group.gather(group.centre, form, self.rows) * form.coef).sum(0) - radius
            )
        coef = dense(form, group.network.nodes[0].size)
        return -self.rows.dot(group.radius, coef.abs_()) if self.centred else minimum(group, coef, self.rows)


def lower_bound(group: Group, position: int, form: AnyForm, rows: Rows) -> Tensor:
    """Lower bounds of ``form``, which is used up, of the value of the node at ``position``: (rows).

    Every activation below must have been relaxed.
    """
    return BackwardPropagation(group, rows, {position: form}).minimum()


def minimum(group: Group, coef: Tensor, rows: Rows) -> Tensor:
    """The least value of each row's linear function over its sample's region: coef (inputs x rows), result (rows).

    Over a box it is exact; over a ball clipped to a box the better of the box and the dual norm.
    """
    if _over_box_only(group):
        return box_minimum(coef, group.centre, group.radius, rows)
    ball = group.region
    assert isinstance(ball, LpBall)
    middle = ball.centre.reshape(group.samples, -1).T.to(coef)
    eps = torch.as_tensor(ball.eps, dtype=torch.float64).expand(group.samples).to(coef)[rows.samples]
    dual = length(coef, 2 if ball.p == 2 else inf, dim=0)
    over_ball = rows.dot(middle, coef) - eps[rows.sample] * dual
    return torch.maximum(over_ball, box_minimum(coef, group.centre, group.radius, rows))


def _over_box_only(group: Group) -> bool:
    return not isinstance(group.region, LpBall) or group.region.p == inf


@singledispatch
def pull(op: Op, form: AnyForm, group: Group, position: int, rows: Rows) -> Pulled:
    """``form`` of the value of ``op`` as forms of its operands, and the constant that it leaves (rows) or None."""
    raise UnsupportedError(f"operation {op.label} has no linear bounds")


@pull.register(Relu)
@pull.register(LeakyRelu)
@pull.register(Tanh)
def _(op: Op, form: AnyForm, group: Group, position: int, rows: Rows) -> Pulled:
    """Positive coefficients take the lower line, negative ones the upper line."""
    lines, support = group.lines[position], group.support.get(position)
    coef = on_support(form, support, group.network.nodes[position].size)
    negative = coef.clamp(max=0)
    offset = _intercepts(lines, coef, negative, rows)
    coef.mul_(rows.spread(lines.slope)).addcmul_(negative, rows.spread(lines.slope_gap))
    return [Form(coef, support)], offset


@pull.register
def _(op: Max, form: AnyForm, group: Group, position: int, rows: Rows) -> Pulled:
    """As the other activations, with a line for each operand."""
    lines = group.lines[position]
    coef = dense(form, group.network.nodes[position].size)
    negative = coef.clamp(max=0)
    offset = _intercepts(lines, coef, negative, rows)
    count = lines.slope.shape[1]
    slope, slope_gap = (rows.spread(t.flatten(0, 1)).view(len(coef), count, -1) for t in (lines.slope, lines.slope_gap))
    return [Form((coef[:, None] * slope).addcmul_(negative[:, None], slope_gap).flatten(0, 1))], offset


def _intercepts(lines: Lines, coef: Tensor, negative: Tensor, rows: Rows) -> Tensor:
    """What the lines' constants add to each row: (rows)."""
    offset = rows.dot(lines.intercept_gap, negative)
    return offset if lines.intercept is None else offset + rows.dot(lines.intercept, coef)


@pull.register(Linear)
@pull.register(Conv2d)
@pull.register(ConvTranspose2d)
def _(op: Linear | Conv2d | ConvTranspose2d, form: AnyForm, group: Group, position: int, rows: Rows) -> Pulled:
    node = group.network.nodes[position]
    bias, wanted = constant(op, node.shape), group.wanted(node.inputs[0])
    if isinstance(form, Units):
        coef = group.matrix(position).columns(form.feature, form.value, wanted)
        return [Form(coef, wanted)], bias[form.feature] * form.value
    assert isinstance(form, Form)
    offset = form.coef.T.mv(bias if form.support is None else bias.index_select(0, form.support))
    whole = group.matrix(position)
    if isinstance(whole, Sparse) and form.coef.shape[1] < FEW and not group.has_cut(position, form.support):
        return [Form(whole.whole.pull(dense(form, node.size)))], offset
    return [Form(group.cut(position, form.support).pull(form.coef), wanted)], offset


@pull.register
def _(op: Scale, form: AnyForm, group: Group, position: int, rows: Rows) -> Pulled:
    shape = group.network.nodes[position].shape
    factor, shift = op.factor.expand(shape).flatten(), op.shift.expand(shape).flatten()
    if isinstance(form, Units):
        value = form.value * factor[form.feature]
        return [Units(form.feature, value)], shift[form.feature] * form.value
    if form.support is not None:
        factor, shift = factor[form.support], shift[form.support]
    offset = shift @ form.coef
    return [Form(form.coef.mul_(factor[:, None]), form.support)], offset


@pull.register
def _(op: Reshape, form: AnyForm, group: Group, position: int, rows: Rows) -> Pulled:
    return [form], None


@pull.register(Gather)
@pull.register(Concat)
def _(op: Op, form: AnyForm, group: Group, position: int, rows: Rows) -> Pulled:
    """Each coefficient goes back to where its value came from."""
    sources, fill = _origins(op, [group.network.nodes[i].shape for i in group.network.nodes[position].inputs])
    offset = None
    if fill != 0:
        outside = torch.stack([source < 0 for source in sources]).all(0).to(rows.one_hot)
        coef = dense(form, group.network.nodes[position].size)
        offset = fill * (outside @ coef)
        form = Form(coef)
    parts: list[AnyForm] = []
    for source, i in zip(sources, group.network.nodes[position].inputs, strict=True):
        if isinstance(form, Units):
            here = source[form.feature]
            parts.append(Units(here.clamp(min=0), form.value * (here >= 0)))
        else:
            coef, here = dense(form, len(source)), source >= 0
            size = group.network.nodes[i].size
            parts.append(Form(coef.new_zeros(size, coef.shape[1]).index_add_(0, source[here], coef[here])))
    return parts, offset


def _origins(op: Op, shapes: Sequence[tuple[int, ...]]) -> tuple[list[Tensor], float]:
    """For each operand, which of its elements each output element is a copy of (-1: none); and the fill value."""
    if isinstance(op, Gather):
        return [op.index], op.fill
    numbered = [torch.arange(torch.Size(shape).numel(), dtype=torch.float64).reshape(1, *shape) for shape in shapes]
    absent = [torch.full_like(number, -1) for number in numbered]
    return [
        evaluate(op, *(numbered[k] if k == j else absent[k] for k in range(len(shapes)))).flatten().long()
        for j in range(len(shapes))
    ], 0.0


@pull.register
def _(op: Add, form: AnyForm, group: Group, position: int, rows: Rows) -> Pulled:
    return [form, multiple(form)], None


@pull.register
def _(op: Sub, form: AnyForm, group: Group, position: int, rows: Rows) -> Pulled:
    return [form, multiple(form, -1.0)], None


def unsupported(network: Network) -> list[str]:
    """The operations of ``network`` that have no rule here."""
    default = pull.dispatch(object)
    return sorted({n.op.label for n in network.nodes[1:] if pull.dispatch(type(n.op)) is default})
