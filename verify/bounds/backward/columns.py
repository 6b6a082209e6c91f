"""Columns: ragged rows, as many for each sample as there are neurons worth bounding, kept features by rows and cut
down to the features that can matter. For the bounds of layers on processors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds.backward import affine, patches, shares
from assay.verify.bounds.backward.forms import (
    AnyForm,
    Form,
    Owners,
    Patches,
    Units,
    add,
    dense,
    multiple,
    on_support,
    windows,
)
from assay.verify.bounds.backward.group import Group, by_feature
from assay.verify.bounds.backward.matrix import Sparse, constant
from assay.verify.bounds.backward.rows import Backward
from assay.verify.bounds.backward.walk import propagate_backwards
from assay.verify.bounds.memo import per_op
from assay.verify.bounds.relaxations.lines import Lines
from assay.verify.core.ops import (
    Add,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Gather,
    InverseSumExp,
    LeakyRelu,
    Linear,
    Max,
    Normalised,
    Op,
    Product,
    Relu,
    Reshape,
    Scale,
    Smooth,
    Step,
    Sub,
)
from assay.verify.core.region.rounding import round_up
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import length

# For fewer rows than this, cutting a sparse matrix down costs more than multiplying with all of it.
FEW = 32

# Operations that take rows of any features, and from how many coefficients on those of features without any are left
# out, if no larger share of the features has some.
PASSED, LARGE, THIN = (Add, Gather, Reshape, Scale, Sub), 1 << 18, 0.5

# Forms of an operation's operands, and the constant that it leaves (rows) or None.
Pulled = tuple[Sequence[AnyForm], Tensor | None]


@dataclass(frozen=True, eq=False)
class ColumnRules:
    """Rules for rows of a group of samples, each owned by one of them; they are overwritten on the way.

    ``entrance``: of the group, if the rows come through it; otherwise 0. Below it they have their values at the centre.
    """

    group: Group
    owners: Owners
    entrance: int

    @classmethod
    def of(cls, group: Group, position: int, owners: Owners) -> ColumnRules:
        """For rows that begin at a node, or at several of which it is the first."""
        return cls(group, owners, group.entrance if position >= group.entrance else 0)

    def pull(self, position: int, rows: AnyForm) -> Pulled:
        """See :class:`assay.verify.bounds.backward.walk.Rules`."""
        group, op = self.group, self.group.network.nodes[position].op
        group.relaxed.budget.check()
        if shares.sums_to_one(group.network.nodes[position]):
            rows, common = self._without_common(rows, position)
            parts, constant = self._across(op, rows, position)
            return parts, common if constant is None else constant + common
        return self._across(op, rows, position)

    def _across(self, op: Op, rows: AnyForm, position: int) -> Pulled:
        group = self.group
        if position in group.spans:
            return self._span(rows, position)
        if position > self.entrance:
            return self._pull(op, rows, position)
        constant = group.worth_at_centre(rows, self.owners) if position == self.entrance else None
        return self._pull(op, rows, position)[0], constant

    def _span(self, form: AnyForm, position: int) -> Pulled:
        node = self.group.network.nodes[position]
        given = dense(form, node.size)
        coef, gained = self.group.across(position).pull(given)
        if isinstance(node.op, Linear):
            gained = gained + given.T.mv(constant(node.op, node.shape))
        return [Form(coef)], gained

    def _without_common(self, form: AnyForm, position: int) -> tuple[Form, Tensor]:
        """Rows less what their coefficients have in common, and what that comes to: (rows)."""
        group, owners = self.group, self.owners
        node, relaxed = group.network.nodes[position], group.relaxed
        values = shares.between(relaxed.lines[position], relaxed.operand(position))
        values = Bounds(*(owners.spread(by_feature(side)).T for side in (values.lower, values.upper)))
        rows = dense(form, node.size).T[:, None]
        rest, common, error = shares.without_common(rows, values, node.shape[-1], len(group.network.nodes))
        return Form(rest[:, 0].T.contiguous()), (common - error)[:, 0]

    def _pull(self, op: Op, form: AnyForm, position: int) -> Pulled:
        """By the rule for windows of images as long as they are small, otherwise by the one for all features."""
        if isinstance(form, Form) and form.passing and not isinstance(op, PASSED):
            form = Form(dense(form, self.group.network.nodes[position].size))
        if isinstance(form, Units) and patches.begins(op, self.group, position):
            form = windows(form, self.group.network.nodes[position].shape)
        if isinstance(form, Patches):
            if patches.fits(op, form, self.group, position):
                return patches.pull(op, form, self.group, position, self.owners)
            form = form.form()
        return pull(op, form, self.group, position, self.owners)

    def add(self, position: int, a: AnyForm, b: AnyForm) -> AnyForm:
        """See :class:`assay.verify.bounds.backward.walk.Rules`."""
        return add(a, b, self.group.network.nodes[position].size)


def lower_bound(group: Group, position: int, form: AnyForm, owners: Owners, total: Tensor | None = None) -> Tensor:
    """Lower bounds of ``form``, which is used up, of the value of the node at ``position``, and of the constants
    ``total`` (rows) beside it, if there are any: (rows).

    Every activation below must have been relaxed. Raises :class:`Expired` when the time of the group's budget is over.
    """
    total = owners.zeros() if total is None else total
    return _over_region(ColumnRules.of(group, position, owners), {position: form}, total)


def functions(group: Group, position: int, form: AnyForm, owners: Owners, total: Tensor) -> tuple[Tensor, Tensor]:
    """Linear functions of the input below ``form``, which is used up, of the value of the node at ``position``, and the
    constants ``total`` (rows): their values at the centre of the box (rows), and their slopes (inputs x rows).

    Raises :class:`Expired` as above."""
    rules = ColumnRules.of(group, position, owners)
    resting, total = propagate_backwards(group.nodes, rules, {position: form}, total)
    size = group.network.nodes[0].size
    if 0 not in resting:
        return total, total.new_zeros(size, len(total))
    slopes = dense(resting[0], size)
    return (total if rules.entrance > 0 else total + owners.dot(group.centre, slopes)), slopes


def over_region(group: Group, backward: Backward) -> Tensor:
    """Regular rows of a group that is relaxed as a whole, taken on as columns: (samples x rows)."""
    samples, count = backward.shape
    owners = group.owners(torch.arange(samples, device=backward.total.device).repeat_interleave(count))
    nodes = group.network.nodes
    # Copies: forms are used up, and a row may be the caller's own.
    forms: dict[int, AnyForm] = {
        i: Form(part.dense(nodes[i].size).T.clone(memory_format=torch.contiguous_format))
        for i, part in backward.rows.items()
    }
    rules = ColumnRules.of(group, min(forms, default=0), owners)
    return _over_region(rules, forms, backward.total).view(samples, count)


def _over_region(rules: ColumnRules, forms: dict[int, AnyForm], total: Tensor) -> Tensor:
    group, owners = rules.group, rules.owners
    resting, total = propagate_backwards(group.nodes, rules, forms, total)
    return total + _at_input(group, resting[0], owners, rules.entrance > 0) if 0 in resting else total


def down_to(
    group: Group, position: int, form: AnyForm, owners: Owners, total: Tensor, stop: int
) -> tuple[AnyForm, Tensor]:
    """``form``, which is used up, of the value of the node at ``position`` as rows of the node ``stop``, through which
    all paths lead to the input, and the constants (rows). Raises :class:`Expired` as above."""
    rules = ColumnRules.of(group, position, owners)
    resting, total = propagate_backwards(group.nodes, rules, {position: form}, total, until=lambda here: here == stop)
    return resting[stop], total


def _at_input(group: Group, form: AnyForm, owners: Owners, centred: bool) -> Tensor:
    """The least value over the region, less the value at the centre where that is ``centred`` already: (rows)."""
    if isinstance(form, Patches) and group.relaxed.ball is None:
        radius = (group.gather(group.radius, form, owners) * form.coef.abs()).sum(0)
        return -radius if centred else (group.gather(group.centre, form, owners) * form.coef).sum(0) - radius
    coef = dense(form, group.network.nodes[0].size)
    return -owners.dot(group.radius, coef.abs_()) if centred else minimum(group, coef, owners)


def over_box(group: Group, position: int, form: AnyForm, owners: Owners) -> Tensor:
    """The least value of ``form`` over what is known of the node at ``position``, which must not be Units, less what
    rounding takes of that: (rows)."""
    centre, radius = group.known(position)
    if isinstance(form, Patches):
        magnitude = (group.gather(radius, form, owners).mul_(form.coef.abs())).sum(0)
        return (group.gather(centre, form, owners).mul_(form.coef)).sum(0) - magnitude
    assert isinstance(form, Form)
    if form.support is not None:
        centre, radius = centre.index_select(0, form.support), radius.index_select(0, form.support)
    return owners.dot(centre, form.coef) - owners.dot(radius, form.coef.abs())


def minimum(group: Group, coef: Tensor, owners: Owners) -> Tensor:
    """The least value of each row's linear function over its sample's region: coef (inputs x rows), result (rows).

    Over a box it is exact; over a ball clipped to a box the better of the box and the dual norm.
    """
    ball = group.relaxed.ball
    if ball is None:
        return box_minimum(coef, group.centre, group.radius, owners)
    middle = ball.centre.flatten(1).T.to(coef)
    eps = round_up(torch.as_tensor(ball.eps, dtype=torch.float64), coef.dtype).to(coef)
    eps = eps.expand(group.relaxed.samples)[owners.samples]
    dual = length(coef, 2 if ball.p == 2 else inf, dim=0)
    over_ball = owners.dot(middle, coef) - eps[owners.sample] * dual
    return torch.maximum(over_ball, box_minimum(coef, group.centre, group.radius, owners))


def box_minimum(coef: Tensor, centre: Tensor, radius: Tensor, owners: Owners) -> Tensor:
    """The least value of each row over its sample's box (features x samples); ``coef`` is used up."""
    middle = owners.dot(centre, coef)
    return middle - owners.dot(radius, coef.abs_())


@singledispatch
def pull(op: Op, form: AnyForm, group: Group, position: int, rows: Owners) -> Pulled:
    """``form`` of the value of ``op`` as forms of its operands, and the constant that it leaves (rows) or None.

    Affine operations without a rule here go back as regular rows.
    """
    nodes = group.network.nodes
    node = nodes[position]
    coef = dense(form, node.size).T.contiguous()
    parts, constant = affine.pull(op, affine.Part(coef), [nodes[i].shape for i in node.inputs], node.shape)
    return [Form(p.dense(nodes[i].size).T.contiguous()) for i, p in zip(node.inputs, parts, strict=True)], constant


@pull.register(Relu)
@pull.register(LeakyRelu)
@pull.register(Smooth)
@pull.register(Step)
def _(op: Op, form: AnyForm, group: Group, position: int, rows: Owners) -> Pulled:
    """Positive coefficients take the lower line, negative ones the upper line."""
    lines, support = group.lines[position], group.support.get(position)
    coef = on_support(form, support, group.network.nodes[position].size)
    negative = coef.clamp(max=0)
    offset = _intercepts(lines, coef, negative, rows)
    coef.mul_(rows.spread(lines.slope)).addcmul_(negative, rows.spread(lines.slope_gap))
    return [Form(coef, support)], offset


@pull.register(Max)
@pull.register(Normalised)
@pull.register(Product)
@pull.register(InverseSumExp)
def _(op: Op, form: AnyForm, group: Group, position: int, rows: Owners) -> Pulled:
    """As the other activations, with a line for each operand."""
    lines, form = group.lines[position], _thin(form, group.network.nodes[position].size)
    coef, some = form.coef, form.support
    lines = lines if some is None else lines.take(some)
    negative = coef.clamp(max=0)
    offset = _intercepts(lines, coef, negative, rows)
    count = lines.slope.shape[1]
    spread = (rows.spread(t.flatten(0, 1)) for t in (lines.slope, lines.slope_gap))
    slope, slope_gap = (t.view(len(coef), count, t.shape[1]) for t in spread)
    passed = (coef[:, None] * slope).addcmul_(negative[:, None], slope_gap).flatten(0, 1)
    if some is None:
        return [Form(passed)], offset
    operands = (count * some[:, None] + torch.arange(count, device=some.device)).flatten()
    return [Form(passed, operands, passing=True)], offset


def _thin(form: AnyForm, size: int) -> Form:
    """The form of a node of ``size`` values on the features that have any coefficient, where these are few: rows of one
    token's neurons read one row of each attention alone."""
    if isinstance(form, Form) and form.support is not None:
        return form
    coef = dense(form, size)
    if coef.numel() < LARGE:
        return Form(coef)
    some = (torch.linalg.vector_norm(coef, 1, dim=1) != 0).nonzero().flatten()
    return Form(coef.index_select(0, some), some, passing=True) if len(some) <= THIN * size else Form(coef)


def _intercepts(lines: Lines, coef: Tensor, negative: Tensor, rows: Owners) -> Tensor:
    """What the lines' constants add to each row: (rows)."""
    offset = rows.dot(lines.intercept_gap, negative)
    return offset if lines.intercept is None else offset + rows.dot(lines.intercept, coef)


@pull.register(Linear)
@pull.register(Conv2d)
@pull.register(ConvTranspose2d)
def _(op: Linear | Conv2d | ConvTranspose2d, form: AnyForm, group: Group, position: int, rows: Owners) -> Pulled:
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
def _(op: Scale, form: AnyForm, group: Group, position: int, rows: Owners) -> Pulled:
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
def _(op: Reshape, form: AnyForm, group: Group, position: int, rows: Owners) -> Pulled:
    return [form], None


@pull.register
def _(op: Gather, form: AnyForm, group: Group, position: int, rows: Owners) -> Pulled:
    """Each coefficient goes back to where its value came from."""
    (source,) = group.network.nodes[position].inputs
    if isinstance(form, Units) and not op.fill:
        into = op.index[form.feature]
        return [Units(into.clamp(min=0), form.value * (into >= 0))], None
    size, places, offset = group.network.nodes[source].size, back(op), None
    if isinstance(form, Form) and form.support is not None:
        coef, into = form.coef, op.index.index_select(0, form.support)
    else:
        coef, into = dense(form, len(op.index)), op.index
        if places is not None and len(places) == size:
            return [Form(coef.index_select(0, places))], None
    if op.fills:
        inside = into >= 0
        offset = op.fill * ((~inside).to(coef) @ coef) if op.fill else None
        into, coef = into[inside], coef[inside]
    return [Form(coef.new_zeros(size, coef.shape[1]).index_add_(0, into, coef))], offset


@per_op
def back(op: Op) -> Tensor | None:
    """Where the values of a Gather that puts as many into another order, each once, come from: (values); else None."""
    assert isinstance(op, Gather)
    order = op.index.argsort()
    once = torch.equal(op.index[order], torch.arange(len(order), device=order.device))
    return order if once else None


@pull.register
def _(op: Concat, form: AnyForm, group: Group, position: int, rows: Owners) -> Pulled:
    """Each operand's part."""
    nodes = group.network.nodes
    node = nodes[position]
    coef = dense(form, node.size).view(*node.shape, -1)
    parts = torch.split(coef, [nodes[i].shape[op.axis] for i in node.inputs], op.axis)
    return [Form(part.reshape(-1, coef.shape[-1])) for part in parts], None


@pull.register
def _(op: Add, form: AnyForm, group: Group, position: int, rows: Owners) -> Pulled:
    return [form, multiple(form)], None


@pull.register
def _(op: Sub, form: AnyForm, group: Group, position: int, rows: Owners) -> Pulled:
    return [form, multiple(form, -1.0)], None
