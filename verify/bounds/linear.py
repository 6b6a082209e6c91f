"""Linear bounds propagated backwards (CROWN: Zhang et al. 2018, arXiv:1811.00866) over a small group of samples.

A form is a linear function of one node's value for each of many rows; rows belong to samples and are as many as
there are neurons worth bounding, ragged over the samples. Forms are kept features by rows, only for the features
that can matter: a neuron that is inactive for every sample of the group has coefficient 0 and is left out. A form
belongs to whoever receives it, who may overwrite its coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from math import inf

import torch
from torch import Tensor

from verify.bounds.matrix import Cut, Matrix, Sparse, constant, matrix
from verify.bounds.relax import Lines, relax, relaxes
from verify.core.errors import UnsupportedError
from verify.core.network import Network
from verify.core.ops import (
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
from verify.core.region import LpBall, Region
from verify.core.verifier import Bounds


@dataclass(frozen=True, eq=False)
class Form:
    """Coefficients (features x rows); row ``i`` of them belongs to feature ``support[i]``, or to ``i`` itself."""

    coef: Tensor
    support: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Units:
    """Rows with one coefficient each: row r is ``value[r]`` at feature ``feature[r]``."""

    feature: Tensor
    value: Tensor


AnyForm = Form | Units

# For fewer rows than this, cutting a sparse matrix down costs more than multiplying with all of it.
FEW = 128

Pulled = tuple[Sequence[AnyForm], Tensor | None]


@dataclass(frozen=True, eq=False)
class Rows:
    """Which samples the rows belong to: ``sample`` (rows) counted from the first of the group's ``samples`` present,
    and the same as a 0/1 matrix (samples present x rows).

    Multiplying by that matrix spreads per-sample columns over rows: a matrix product is several times faster than
    gathering columns, and exact, since the columns are finite. Rows of one sample need neither.
    """

    sample: Tensor
    samples: slice
    one_hot: Tensor

    @classmethod
    def of(cls, sample: Tensor, dtype: torch.dtype) -> Rows:
        """Rows that belong to these samples of the group."""
        first, last = (int(sample.min()), int(sample.max())) if len(sample) else (0, 0)
        local = sample - first
        one_hot = torch.zeros(last - first + 1, len(sample), dtype=dtype, device=sample.device)
        one_hot.scatter_(0, local[None], 1)
        return cls(local, slice(first, last + 1), one_hot)

    def spread(self, columns: Tensor) -> Tensor:
        """(features x samples) to (features x rows), or to one column that broadcasts."""
        here = columns[:, self.samples]
        return here if here.shape[1] == 1 else here @ self.one_hot

    def dot(self, columns: Tensor, coef: Tensor) -> Tensor:
        """Each row's coefficients times its sample's column, summed: (rows)."""
        here = columns[:, self.samples]
        return here[:, 0] @ coef if here.shape[1] == 1 else ((here.T @ coef) * self.one_hot).sum(0)


@dataclass(eq=False)
class Group:
    """A group of samples under propagation: the region, its box, and the relaxation of each activation so far.

    ``lower``, ``upper``: the box (input features x samples), in the dtype of the propagation. Relaxing an activation
    also fixes which of its features can matter (``support``); matrices are cut down to these once for the group.
    ``entrance``: the first layer, if all paths from the input lead through it and the region is a box; the centre's
    share of every bound is then read off that layer's value at the centre (``at_centre``, features x samples), and
    only the radius has to be taken down to the input.
    """

    network: Network
    region: Region
    lower: Tensor
    upper: Tensor
    lines: dict[int, Lines] = field(default_factory=dict)
    support: dict[int, Tensor | None] = field(default_factory=dict)
    entrance: int = 0
    at_centre: Tensor | None = None
    cuts: dict[tuple[int, int], Cut] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.radius = self.upper / 2 - self.lower / 2
        ball = isinstance(self.region, LpBall) and self.region.p != inf
        self.entrance = 0 if ball else _entrance(self.network)
        if self.entrance:
            value = (self.lower / 2 + self.upper / 2).T.reshape(-1, *self.network.input_shape)
            values = [value]
            for node in self.network.nodes[1 : self.entrance + 1]:
                values.append(evaluate(node.op, *(values[i] for i in node.inputs)))
            self.at_centre = values[-1].flatten(1).T.contiguous()

    @property
    def samples(self) -> int:
        """Number of samples in the group."""
        return self.lower.shape[1]

    def relax(self, position: int, z: Bounds) -> None:
        """Relax the activation at ``position``, whose operand lies within ``z`` (features x samples)."""
        node = self.network.nodes[position]
        if isinstance(node.op, Max):
            operands = (node.size, -1, self.samples)
            z = Bounds(z.lower.reshape(operands), z.upper.reshape(operands))
        lines = relax(node.op, z)
        if isinstance(node.op, Relu):
            possible = ~(z.upper <= 0).all(1)  # a NaN is possible: it must be met, and decide nothing
            few = int(possible.sum()) < 0.9 * len(possible)
            self.support[position] = possible.nonzero().flatten() if few else None
        kept = self.support.get(position)
        self.lines[position] = lines if kept is None else lines.take(kept)

    def wanted(self, position: int) -> Tensor | None:
        """The features of a node that can be other than zero: those of the activation that it is, or passes on."""
        node = self.network.nodes[position]
        if isinstance(node.op, Reshape):
            return self.wanted(node.inputs[0])
        return self.support.get(position)

    def cut(self, position: int, support: Tensor | None) -> Cut:
        """The matrix of the affine node at ``position``, for forms on ``support``, at what its input needs."""
        key = (position, id(support))  # supports live as long as the group
        if key not in self.cuts:
            (source,) = self.network.nodes[position].inputs
            self.cuts[key] = self.matrix(position).cut(self.wanted(source), support)
        return self.cuts[key]

    def matrix(self, position: int) -> Matrix:
        """All of the matrix of the affine node at ``position``."""
        node = self.network.nodes[position]
        return matrix(node.op, self.network.nodes[node.inputs[0]].shape)


def lower_bound(
    group: Group, position: int, form: AnyForm, rows: Rows, intervals: Sequence[Bounds] | None = None
) -> Tensor:
    """Lower bounds of ``form``, which is used up, of the value of the node at ``position``: (rows).

    Every activation below must have been relaxed; or ``intervals``, bounds of every node (features x samples), are
    given, and the propagation ends at the first activations it meets.
    """
    total: Tensor = rows.one_hot.new_zeros(len(rows.sample))
    pending: dict[int, AnyForm] = {position: form}
    centred = False
    for current in range(position, 0, -1):
        if current not in pending:
            continue
        arrived = pending.pop(current)
        node = group.network.nodes[current]
        if relaxes(node.op) and intervals is not None:
            total = total + _over_box(_dense(arrived, node.size), intervals[current], rows)
            continue
        if current == group.entrance:
            total, centred = total + _at_centre(group, arrived, rows), True
        parts, offset = pull(node.op, arrived, group, current, rows)
        if offset is not None and not centred:
            total = total + offset
        for source, part in zip(node.inputs, parts, strict=True):
            pending[source] = _sum(pending[source], part, group, source) if source in pending else part
    if 0 in pending:
        coef = _dense(pending[0], group.network.nodes[0].size)
        total = total + (-rows.dot(group.radius, coef.abs_()) if centred else minimum(group, coef, rows))
    return total


def _at_centre(group: Group, form: AnyForm, rows: Rows) -> Tensor:
    """What a form of the entrance's value is worth at the centre of the box: (rows)."""
    assert group.at_centre is not None
    here = group.at_centre[:, rows.samples]
    if isinstance(form, Units):
        return here[form.feature, rows.sample] * form.value
    return rows.dot(group.at_centre if form.support is None else group.at_centre[form.support], form.coef)


def _entrance(network: Network) -> int:
    """The first Linear or convolution, if nothing else reads the input or what lies between; otherwise 0."""
    readers: list[list[int]] = [[] for _ in network.nodes]
    for position, node in enumerate(network.nodes):
        for i in node.inputs:
            readers[i].append(position)
    here = 0
    while len(readers[here]) == 1:
        here = readers[here][0]
        if isinstance(network.nodes[here].op, (Linear, Conv2d)):
            return here
        if not isinstance(network.nodes[here].op, (Reshape, Scale)):
            return 0
    return 0


def minimum(group: Group, coef: Tensor, rows: Rows) -> Tensor:
    """The least value of each row's linear function over its sample's region: coef (inputs x rows), result (rows).

    Over a box it is exact; over a ball clipped to a box the better of the box and the dual norm.
    """
    ball = group.region if isinstance(group.region, LpBall) and group.region.p != inf else None
    over_ball = None
    if ball is not None:
        middle = ball.centre.reshape(group.samples, -1).T.to(coef)
        eps = torch.as_tensor(ball.eps, dtype=torch.float64).expand(group.samples).to(coef)[rows.samples]
        dual = coef.norm(p=2 if ball.p == 2 else inf, dim=0)
        over_ball = rows.dot(middle, coef) - eps[rows.sample] * dual
    over_box = _over_box(coef, Bounds(group.lower, group.upper), rows)
    return over_box if over_ball is None else torch.maximum(over_box, over_ball)


def _over_box(coef: Tensor, box: Bounds, rows: Rows) -> Tensor:
    """The least value over boxes (features x samples); ``coef`` is used up."""
    centre, radius = box.lower / 2 + box.upper / 2, box.upper / 2 - box.lower / 2
    middle = rows.dot(centre, coef)
    return middle - rows.dot(radius, coef.abs_())


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
    coef = _on_support(form, support, group.network.nodes[position].size)
    negative = coef.clamp(max=0)
    offset = _intercepts(lines, coef, negative, rows)
    coef.mul_(rows.spread(lines.slope)).addcmul_(negative, rows.spread(lines.rise))
    return [Form(coef, support)], offset


@pull.register
def _(op: Max, form: AnyForm, group: Group, position: int, rows: Rows) -> Pulled:
    """As the other activations, with a line for each operand."""
    lines = group.lines[position]
    coef = _dense(form, group.network.nodes[position].size)
    negative = coef.clamp(max=0)
    offset = _intercepts(lines, coef, negative, rows)
    count = lines.slope.shape[1]
    slope, rise = (rows.spread(t.flatten(0, 1)).view(len(coef), count, -1) for t in (lines.slope, lines.rise))
    return [Form((coef[:, None] * slope).addcmul_(negative[:, None], rise).flatten(0, 1))], offset


def _intercepts(lines: Lines, coef: Tensor, negative: Tensor, rows: Rows) -> Tensor:
    """What the lines' constants add to each row: (rows)."""
    offset = rows.dot(lines.lift, negative)
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
    offset = (bias if form.support is None else bias[form.support]) @ form.coef
    whole = group.matrix(position)
    if isinstance(whole, Sparse) and form.coef.shape[1] < FEW and (position, id(form.support)) not in group.cuts:
        return [Form(whole.whole.pull(_dense(form, node.size)))], offset
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
        coef = _dense(form, group.network.nodes[position].size)
        offset = fill * (outside @ coef)
        form = Form(coef)
    parts: list[AnyForm] = []
    for source, i in zip(sources, group.network.nodes[position].inputs, strict=True):
        if isinstance(form, Units):
            here = source[form.feature]
            parts.append(Units(here.clamp(min=0), form.value * (here >= 0)))
        else:
            coef, here = _dense(form, len(source)), source >= 0
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
    return [form, _copy(form)], None


@pull.register
def _(op: Sub, form: AnyForm, group: Group, position: int, rows: Rows) -> Pulled:
    return [form, _copy(form, -1.0)], None


def unsupported(network: Network) -> list[str]:
    """The operations of ``network`` that have no rule here."""
    default = pull.dispatch(object)
    return sorted({n.op.label for n in network.nodes[1:] if pull.dispatch(type(n.op)) is default})


def _copy(form: AnyForm, factor: float = 1.0) -> AnyForm:
    """``factor`` times the form, in memory of its own."""
    if isinstance(form, Units):
        return Units(form.feature, form.value * factor)
    return Form(form.coef * factor, form.support)


def _sum(a: AnyForm, b: AnyForm, group: Group, position: int) -> AnyForm:
    size = group.network.nodes[position].size
    if isinstance(a, Form) and isinstance(b, Form) and a.support is b.support:
        return Form(a.coef.add_(b.coef), a.support)
    return Form(_dense(a, size).add_(_dense(b, size)))


def _dense(form: AnyForm, size: int) -> Tensor:
    """All coefficients: (size x rows)."""
    if isinstance(form, Form) and form.support is None:
        return form.coef
    if isinstance(form, Form):
        assert form.support is not None
        return form.coef.new_zeros(size, form.coef.shape[1]).index_copy_(0, form.support, form.coef)
    dense = form.value.new_zeros(size, len(form.value))
    dense[form.feature, torch.arange(len(form.value), device=form.value.device)] = form.value
    return dense


def _on_support(form: AnyForm, support: Tensor | None, size: int) -> Tensor:
    """The coefficients of the features in ``support``; the others meet a zero and are dropped."""
    if isinstance(form, Form) and form.support is support:
        return form.coef
    full = _dense(form, size)
    return full if support is None else full.index_select(0, support)
