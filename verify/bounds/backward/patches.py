"""Linear bounds propagated backwards through convolutions on windows of the image, as long as these are small.

A neuron behind a few convolutions depends on a small window of each image before them: its row is kept on that window
only, and a convolution takes it to the window before by one small matrix that all rows share (the patches of Xu et
al. 2020, arXiv:2002.12920, here features by rows).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch

from torch import Tensor
from torch.nn import functional as F

from assay.verify.bounds.backward.forms import AnyForm, Owners, Patches, multiple
from assay.verify.bounds.backward.group import Group
from assay.verify.bounds.backward.matrix import Cut, Dense, Sparse, matrix
from assay.verify.bounds.memo import per_op, remember
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.ops import Add, Conv2d, LeakyRelu, Op, Relu, Smooth, Step, Sub

# Windows are used up to this share of the features that matter in the image.
SMALL = 0.6

Pulled = tuple[Sequence[AnyForm], Tensor | None]


def begins(op: Op, group: Group, position: int) -> bool:
    """Whether rows of single neurons of the node at ``position`` are better kept on windows from there on."""
    return isinstance(op, Conv2d) and _fits(op, (1, 1), group, position)


def fits(op: Op, form: Patches, group: Group, position: int) -> bool:
    """Whether there is a rule for ``op``, and the window stays small."""
    if isinstance(op, Conv2d):
        return _fits(op, form.window, group, position)
    return pull.dispatch(type(op)) is not pull.dispatch(object)


def _fits(op: Conv2d, window: tuple[int, int], group: Group, position: int) -> bool:
    """Whether the window before ``op`` has clearly fewer elements than there are features that matter."""
    (source,) = group.network.nodes[position].inputs
    height, width = before(op, window)
    wanted = group.wanted(source)
    features = group.network.nodes[source].size if wanted is None else len(wanted)
    channels = op.weight.shape[1] * op.groups
    return op.dilation == (1, 1) and channels * height * width < SMALL * features


def before(op: Conv2d, window: tuple[int, int]) -> tuple[int, int]:
    """The window of the input that a window of the output depends on."""
    height, width = ((n - 1) * s + k for n, s, k in zip(window, op.stride, op.weight.shape[2:], strict=True))
    return height, width


@singledispatch
def pull(op: Op, form: Patches, group: Group, position: int, rows: Owners) -> Pulled:
    """As :func:`assay.verify.bounds.linear.pull`, on windows."""
    raise UnsupportedError(f"operation {op.label} has no linear bounds on windows")


@pull.register
def _(op: Conv2d, form: Patches, group: Group, position: int, rows: Owners) -> Pulled:
    form = form if form.clean else _cleaned(form)
    shape = group.network.nodes[group.network.nodes[position].inputs[0]].shape
    offset = form.coef.T.mv(op.bias.repeat_interleave(form.window[0] * form.window[1]))
    return [through(op, form, shape)], offset


def through(op: Conv2d, form: Patches, shape: tuple[int, ...]) -> Patches:
    """Windows of a convolution's value, which are clean, as those of what it reads, of this ``shape``."""
    (sy, sx), (py, px) = op.stride, op.padding
    border = (form.border[0] * sy + py, form.border[1] * sx + px)
    return replace(
        form,
        coef=_window_matrix(op, form.window).pull(form.coef),
        grid=(shape[0], shape[1], shape[2]),
        window=before(op, form.window),
        stride=(form.stride[0] * sy, form.stride[1] * sx),
        shift=(form.shift[0] * sy + py, form.shift[1] * sx + px),
        border=border,
        clean=border == (0, 0),
        support=None,
    )


def _window_matrix(op: Conv2d, window: tuple[int, int]) -> Cut:
    """The matrix from a window of the output to the one of the input; worked out once for each operation."""

    def make() -> Cut:
        valid = matrix(replace(op, padding=(0, 0)), (op.weight.shape[1] * op.groups, *before(op, window)))
        assert not isinstance(valid, Dense)
        return valid.whole if isinstance(valid, Sparse) else valid

    return remember(_window_matrices(op), window, make)


@per_op
def _window_matrices(op: Op) -> dict[tuple[int, int], Cut]:
    return {}


def _cleaned(form: Patches) -> Patches:
    """The form with coefficients 0 where its windows reach beyond the image, into the padding."""
    (_, height, width), (by, bx) = form.grid, form.border
    inside = F.pad(form.coef.new_ones(1, 1, height, width), (bx, bx, by, by)).expand(1, form.grid[0], -1, -1)
    mask = inside.reshape(-1).index_select(0, form.index.flatten()).view_as(form.coef)
    return replace(form, coef=form.coef.mul_(mask), clean=True)


@pull.register(Relu)
@pull.register(LeakyRelu)
@pull.register(Smooth)
@pull.register(Step)
def _(op: Op, form: Patches, group: Group, position: int, rows: Owners) -> Pulled:
    """Positive coefficients take the lower line, negative ones the upper line; beyond the image both are 0."""
    lines = group.whole[position]
    coef, negative = form.coef, form.coef.clamp(max=0)
    offset = (group.gather(lines.intercept_gap, form, rows) * negative).sum(0)
    if lines.intercept is not None:
        offset += (group.gather(lines.intercept, form, rows) * coef).sum(0)
    coef.mul_(group.gather(lines.slope, form, rows)).addcmul_(negative, group.gather(lines.slope_gap, form, rows))
    return [replace(form, coef=coef, clean=True, support=group.support.get(position))], offset


@pull.register
def _(op: Add, form: Patches, group: Group, position: int, rows: Owners) -> Pulled:
    return [form, multiple(form)], None


@pull.register
def _(op: Sub, form: Patches, group: Group, position: int, rows: Owners) -> Pulled:
    return [form, multiple(form, -1.0)], None
