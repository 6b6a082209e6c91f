"""Rows of a group of samples, ragged, as many to each as it has neurons that are undecided, on their way down a chain:
activations bend them, layers take them back, and at the input boxes are what they reach.

Rows stand beside one another (features x rows). Behind dense layers, neurons that are inactive for all samples of the
group are left out, of rows and of weights alike, before anything is multiplied. Rows of a convolution's neurons are
kept on windows of the image (:mod:`assay.verify.bounds.backward.patches`) as long as these are small. What an
activation does to a row, its lines, what rounding takes and the constant of what it reads, is one table, so that
affine operations leave nothing to be added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from assay.verify.bounds.backward import layered, patches
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
    pad,
    windows,
)
from assay.verify.bounds.backward.layered import Chain
from assay.verify.bounds.backward.matrix import Cut
from assay.verify.bounds.backward.patches import before
from assay.verify.bounds.backward.walk import propagate_backwards
from assay.verify.core.budget import Budget
from assay.verify.core.ops import Add, Conv2d, Reshape
from assay.verify.core.verifier import Bounds

COPIES = 12  # of a block of coefficients that live at once, with what is done to them
MANY = 1 << 20  # coefficients of the rows that are on their way together, in the widest layer
BLOCK = 5 << 17  # bytes of the rows that are at the input together: they stay in cache
ENOUGH = 64  # rows that are on their way together in any case, where memory allows
CUTTING, KEPT = 128, 0.75  # rows from which on an image's matrices are cut, if no more of its features are kept


@dataclass(frozen=True, eq=False)
class Level:
    """Activations that rows meet.

    ``table``: what is done to coefficients of each (4 x samples x kept): the slope of the lower line, how much steeper
    the upper one is, what all coefficients gain and what negative ones gain besides. ``kept``: features, those that may
    be active for any sample; all where it is None. ``value``: their intervals (samples x kept). ``image``: whether it
    is one that is read, of which all features are kept.
    """

    table: Tensor
    image: bool
    kept: Tensor | None
    value: Bounds

    @cached_property
    def cut(self) -> Level:
        """The same of those features alone that may be active for any sample, as far as it pays."""
        possible = (~(self.value.upper <= 0)).any(0).nonzero().flatten()
        if not self.image or possible.shape[0] > KEPT * self.table.shape[2]:
            return self
        return replace(self, table=self.table.index_select(2, possible), kept=possible)

    def bend(self, form: AnyForm, size: int, owners: Owners) -> tuple[Form, Tensor]:
        """Rows of the activations as those of what they read, and what these gain: (rows)."""
        rows = on_support(form, self.kept, size)
        negative = rows.clamp(max=0)
        if self.image:
            slope, steeper, all_, negatives = self.table[:, owners.samples]
            gain = dot(all_, rows, owners) + dot(negatives, negative, owners)
            slope, steeper = owners.over(slope.T), owners.over(steeper.T)
        else:
            slope, steeper, all_, negatives = (side.T for side in self._of_rows(owners))
            gain = summed((rows * all_).addcmul_(negative, negatives))
        return Form((rows * slope).addcmul_(negative, steeper), self.kept), gain

    def _of_rows(self, owners: Owners) -> Tensor:
        """The table of each row's sample: (4 x rows, or 1 for all, x kept)."""
        here = self.table[:, owners.samples]
        return here if here.shape[1] == 1 else here.index_select(1, owners.sample)

    def bend_windows(self, rows: Patches, owners: Owners) -> tuple[Patches, Tensor]:
        """The same on windows of all of an image; beyond it there is nothing."""
        table = self.table[:, owners.samples]
        slope, steeper, all_, negatives = owners.at(pad(table.flatten(0, 1).T, rows).view(4, -1), rows)
        negative = rows.coef.clamp(max=0)
        gain = summed((rows.coef * all_).addcmul_(negative, negatives))
        coef = (rows.coef * slope).addcmul_(negative, steeper)
        return replace(rows, coef=coef, clean=True, support=None), gain


def dot(values: Tensor, rows: Tensor, owners: Owners) -> Tensor:
    """Each row's coefficients (features x rows) times its sample's values (samples present x features), summed up in
    blocks: (rows)."""
    size = values.shape[1]
    if size <= 2 * layered.SUMMED:
        return of_owners(values @ rows, owners)
    rest, size = size % layered.SUMMED, size - size % layered.SUMMED
    blocks = values[:, :size].view(values.shape[0], -1, layered.SUMMED).transpose(0, 1)
    total = torch.bmm(blocks, rows[:size].view(-1, layered.SUMMED, rows.shape[1])).sum(0)
    return of_owners(total + values[:, size:] @ rows[size:] if rest else total, owners)


def of_owners(values: Tensor, owners: Owners) -> Tensor:
    """Of values for each sample present and row, those of the rows' samples: (samples present x rows) to (rows)."""
    return values[0] if values.shape[0] == 1 else torch.gather(values, 0, owners.sample[None])[0]


def summed(values: Tensor) -> Tensor:
    """Sums of columns, in blocks: (n x rows) to (rows)."""
    size = values.shape[0] // layered.SUMMED * layered.SUMMED
    if values.shape[0] <= 2 * layered.SUMMED:
        return values.sum(0)
    return values[size:].sum(0) + values[:size].view(-1, layered.SUMMED, values.shape[1]).sum(1).sum(0)


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rules for rows of a group of samples, as :mod:`assay.verify.bounds.backward.walk` asks for them, down to the
    entrance. ``many``: whether there are so many that matrices are cut."""

    below: Below
    owners: Owners
    many: bool

    def pull(self, position: int, rows: AnyForm) -> tuple[Sequence[AnyForm], Tensor | None]:
        """See :class:`assay.verify.bounds.backward.walk.Rules`."""
        below, node = self.below, self.below.chain.nodes[position]
        if position in below.levels:
            level = below.levels[position]
            if isinstance(rows, Units):
                rows = windows(rows, node.shape) if len(node.shape) == 3 else Form(dense(rows, node.size))
            if isinstance(rows, Patches):
                windowed, gain = level.bend_windows(rows, self.owners)
                return [windowed], gain
            level = level.cut if self.many else level
            bent, gain = level.bend(rows, node.size, self.owners)
            return [bent], gain
        if isinstance(node.op, Reshape):
            shape = below.chain.nodes[node.inputs[0]].shape
            return [Form(rows.dense()) if isinstance(rows, Patches) and shape != rows.grid else rows], None
        if isinstance(node.op, Add):
            return [rows, multiple(rows)], None
        return [below.back(position, rows, self.many)], None

    def add(self, position: int, a: AnyForm, b: AnyForm) -> AnyForm:
        """See :class:`assay.verify.bounds.backward.walk.Rules`."""
        return add(a, b, self.below.chain.nodes[position].size)


@dataclass(frozen=True, eq=False)
class Below:
    """What rows of a group of samples meet on their way to the input, over boxes of this ``radius`` (samples x inputs)
    about the centres that the entrance's constant is the value at: ``levels`` by their positions, and each layer's
    weight (of a dense one, of the inputs that are kept). ``odd``: numbers that are all at least 0 if nothing is out of
    the ordinary."""

    chain: Chain
    radius: Tensor
    budget: Budget
    levels: dict[int, Level] = field(default_factory=dict)
    weights: dict[int, Tensor] = field(default_factory=dict)
    odd: list[Tensor] = field(default_factory=list)
    cuts: dict[tuple[int, int, int], Tensor | Cut] = field(default_factory=dict)

    def down(self, position: int, rows: AnyForm, total: Tensor, sample: Tensor) -> Tensor:
        """Lower bounds of ``rows`` of the value of the node at ``position`` and of ``total`` (rows), for the samples
        that they belong to (rows), of which neighbours have the same or the next: (rows)."""
        widest = max(1, *(level.table.shape[2] for level in self.levels.values()))
        memory = self.budget.memory // (COPIES * total.element_size() * widest)
        most = max(1, int(min(max(ENOUGH, MANY // widest), memory)))
        many, pieces = total.shape[0] >= CUTTING, self._pieces(sample, most)
        if len(pieces) == 1:
            return self._down(position, rows, total, sample, pieces[0][1], many)
        return torch.cat(
            [self._down(position, _piece(rows, p), total[p], sample[p], owners, many) for p, owners in pieces]
        )

    def _pieces(self, sample: Tensor, most: int) -> list[tuple[slice, Owners]]:
        """Rows of samples (rows) in pieces of so many, and whose these are."""
        count, kind = sample.shape[0], self.radius.dtype
        pieces = [slice(begin, min(begin + most, count)) for begin in range(0, max(count, 1), most)]
        if self.radius.shape[0] == 1 or not count:
            return [(piece, Owners(sample[piece], slice(0, 1), kind)) for piece in pieces]
        ends = sample[[end for piece in pieces for end in (piece.start, piece.stop - 1)]].tolist()
        present = [slice(first, last + 1) for first, last in zip(ends[::2], ends[1::2], strict=True)]
        return [
            (piece, Owners(sample[piece] - some.start, some, kind)) for piece, some in zip(pieces, present, strict=True)
        ]

    def _down(self, position: int, rows: AnyForm, total: Tensor, sample: Tensor, owners: Owners, many: bool) -> Tensor:
        self.budget.check()
        entrance = self.chain.entrance
        resting, total = propagate_backwards(
            self.chain.nodes, Ragged(self, owners, many), {position: rows}, total, until=lambda here: here == entrance
        )
        rows = resting[entrance]
        if isinstance(rows, Units) or (isinstance(rows, Patches) and self.remains(entrance, rows)):
            rows = self.back(entrance, rows, many)
            if isinstance(rows, Patches):
                (there,) = owners.at(pad(self.radius[owners.samples].T, rows).view(1, -1), rows)
                return total - summed(there.mul_(rows.coef.abs()))
            return total - of_owners(self.radius[owners.samples] @ rows.coef.abs(), owners)
        return total - self._reach(rows.form() if isinstance(rows, Patches) else rows, sample)

    def _reach(self, rows: Form, sample: Tensor) -> Tensor:
        """How far rows of the entrance's value go from that at the centre: (rows)."""
        most = max(1, BLOCK // (self.radius.shape[1] * rows.coef.element_size()))
        reach = []
        for piece, owners in self._pieces(sample, most):
            coef = self._times(self.chain.entrance, replace(rows, coef=rows.coef[:, piece]), None).abs_()
            reach.append(of_owners(self.radius[owners.samples] @ coef, owners))
        return reach[0] if len(reach) == 1 else torch.cat(reach)

    def back(self, position: int, rows: AnyForm, many: bool) -> Form | Patches:
        """Rows of a layer's value as those of what it reads, on windows as long as these are small."""
        layer, (source,) = self.chain.layers[position], self.chain.reads[position]
        if isinstance(rows, Units):
            return layer.rows(rows, self.weights[position], self.levels[source].kept if source else None)
        if isinstance(rows, Patches):
            if self.remains(position, rows):
                assert isinstance(layer.op, Conv2d)
                return patches.through(layer.op, rows, layer.shape)
            rows = rows.form()
        kept = None
        if source:
            kept = (self.levels[source].cut if many else self.levels[source]).kept
        return Form(self._times(position, rows, kept), kept)

    def remains(self, position: int, rows: Patches) -> bool:
        """Whether windows of a layer's value remain small as it is read."""
        layer = self.chain.layers[position]
        return isinstance(layer.op, Conv2d) and layered.small(layer, before(layer.op, rows.window))

    def _times(self, position: int, rows: Form, kept: Tensor | None) -> Tensor:
        """Rows times a layer's matrix: (features of what it reads that are kept x rows). They stand beside one another
        in memory where a sparse matrix is next, or below."""
        (source,) = self.chain.reads[position]
        beside, some = source > 0 and self.levels[source].image, rows.support
        key = position, id(some), id(kept)  # supports live as long as the levels
        if key not in self.cuts:
            layer, weight = self.chain.layers[position], self.weights[position]
            if isinstance(layer.op, Conv2d):
                self.cuts[key] = layer.back(kept, some)
            else:
                weight = weight if some is None else weight.index_select(0, some)
                self.cuts[key] = weight.index_select(1, kept) if beside and kept is not None else weight
        cut = self.cuts[key]
        if not isinstance(cut, Tensor):
            return cut.pull(rows.coef)
        return cut.T @ rows.coef if beside else (rows.coef.T @ cut).T


def _piece(rows: AnyForm, piece: slice) -> AnyForm:
    """Some of the rows."""
    if isinstance(rows, Units):
        return Units(rows.feature[piece], rows.value[piece])
    if isinstance(rows, Form):
        return replace(rows, coef=rows.coef[:, piece])
    (y, x), coef = rows.origin, rows.coef[:, piece].contiguous()
    return replace(rows, coef=coef, origin=(y[piece], x[piece]))
