"""The losses that attacks ascend and when they succeed: for labels and for specifications."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.core.errors import InputError, unknown_name
from assay.verify.core.spec import Spec

SMOOTH = 0.3  # of the mean size of rows: below what differs by so much counts as the same
LossName = Literal["ce", "margin", "dlr"]


class Goal(Protocol):
    """What an attack wants of the outputs of a batch: the loss to ascend, and success."""

    @property
    def signed(self) -> bool:
        """Whether success is a loss of at least 0, so that the loss tells how far away it is."""
        ...

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Loss to ascend (differentiable) and success: y (batch x outputs), both results (batch)."""
        ...

    def take(self, index: Tensor) -> Goal:
        """The goal of the samples at the positions ``index`` (samples) only."""
        ...

    def with_loss(self, loss: LossName) -> Goal:
        """The same success with another loss, where the goal has a choice."""
        ...

    def rivals(self, y: Tensor) -> int:
        """The number of targets (wrong classes, disjuncts) of the sample with most: y (batch x outputs)."""
        ...

    def aim(self, y: Tensor, rank: int) -> Goal:
        """The same success with the loss of one target: the ``rank``-th nearest (from 0) at y (batch x outputs)."""
        ...


def cross_entropy(y: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the labels: y (batch x classes), labels (batch), result (batch)."""
    return F.cross_entropy(y, labels, reduction="none")


def margin(y: Tensor, labels: Tensor) -> Tensor:
    """``max_{j != label} y_j - y_label`` (Carlini and Wagner 2017, arXiv:1608.04644).

    y (batch x classes), labels (batch), result (batch).

    At least 0 exactly where the label is not strictly the largest: the sign of a difference is exact.

    >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]))
    tensor([-1.])
    """
    column = labels[:, None]
    rival = y.scatter(1, column, -inf).max(1).values
    return rival - y.gather(1, column)[:, 0]


def dlr(y: Tensor, labels: Tensor) -> Tensor:
    """The difference of logits ratio (Croce and Hein 2020, arXiv:2003.01690).

    y (batch x classes), labels (batch), result (batch).

    The margin over the difference of the largest and the third largest output, so that shifting and scaling the
    outputs changes nothing. With two classes there is no third: the margin itself.

    >>> dlr(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]))
    tensor([-0.5000])
    """
    gap = margin(y, labels)
    if y.shape[1] < 3:
        return gap
    top = y.topk(3, dim=1).values
    return gap / (top[:, 0] - top[:, 2] + 1e-12)


def smooth_maximum(rows: Tensor, where: Tensor) -> Tensor:
    """At least the largest of the rows that count, and close to it: ``t log sum exp(rows / t)`` with ``t`` a share of
    their mean size; rows, where (batch x rows), result (batch). Where none counts all do, so that gradients are
    numbers."""
    where = where | ~where.any(1, keepdim=True)
    count = where.sum(1, keepdim=True).clamp(min=1)
    scale = ((rows.detach().abs() * where).sum(1, keepdim=True) / count * SMOOTH).clamp(min=1e-30)
    return ((rows / scale).masked_fill(~where, -inf).logsumexp(1, keepdim=True) * scale)[:, 0]


def targeted_dlr(y: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The ratio of one target: ``(y_target - y_label) / (y_1st - (y_3rd + y_4th) / 2)``.

    y (batch x classes), labels and targets (batch), result (batch). With fewer than four classes
    ``y_target - y_label``.
    """
    gap = (y.gather(1, targets[:, None]) - y.gather(1, labels[:, None]))[:, 0]
    if y.shape[1] < 4:
        return gap
    top = y.topk(4, dim=1).values
    return gap / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def check_loss(name: str) -> None:
    """Refuse an unknown loss with an :class:`InputError`."""
    if name not in get_args(LossName):
        raise unknown_name("loss", name, get_args(LossName))


@dataclass(frozen=True, eq=False)
class Misclassify:
    """Some class at least as large as the label. ``labels`` (batch); ``highest``: the largest of them.

    With ``targets`` (batch) the loss is that of these classes alone, targeted DLR for ``dlr``, otherwise the
    difference to the label's output; any class is a success still.
    """

    labels: Tensor
    loss: LossName
    highest: int
    targets: Tensor | None = None

    @classmethod
    def of(cls, labels: Tensor, loss: LossName) -> Misclassify:
        """The goal for ``labels`` (batch), any integer dtype."""
        return cls(labels.to(torch.int64), loss, int(labels.max()) if len(labels) else 0)

    @property
    def signed(self) -> bool:
        """Differences of outputs are, cross-entropy is not."""
        return self.loss != "ce" or self.targets is not None

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and success, both (batch): y (batch x classes). Raises :class:`InputError` for a label out of range."""
        classes = y.shape[1]
        if classes < 2:
            raise InputError(f"robust classification needs at least 2 classes, the model has {classes}")
        if self.highest >= classes:
            raise InputError(
                f"label {self.highest} is out of range: the model has {classes} classes, 0 to {classes - 1}"
            )
        gap = margin(y, self.labels)
        return self._loss(y, gap), gap.detach() >= 0

    def _loss(self, y: Tensor, gap: Tensor) -> Tensor:
        if self.targets is not None:
            if self.loss == "dlr":
                return targeted_dlr(y, self.labels, self.targets)
            return (y.gather(1, self.targets[:, None]) - y.gather(1, self.labels[:, None]))[:, 0]
        if self.loss == "margin":
            return gap
        return (cross_entropy if self.loss == "ce" else dlr)(y, self.labels)

    def take(self, index: Tensor) -> Misclassify:
        """The goal of the samples at the positions ``index`` (samples)."""
        targets = None if self.targets is None else self.targets[index]
        return Misclassify(self.labels[index], self.loss, self.highest, targets)

    def with_loss(self, loss: LossName) -> Misclassify:
        """The goal with another loss, of all classes again."""
        return replace(self, loss=loss, targets=None)

    def rivals(self, y: Tensor) -> int:
        """All classes but the label: y (batch x classes)."""
        return y.shape[1] - 1

    def aim(self, y: Tensor, rank: int) -> Misclassify:
        """The loss of the class that is ``rank``-th largest (from 0) at y (batch x classes), the label left out."""
        others = y.detach().scatter(1, self.labels[:, None], -inf)
        return replace(self, targets=others.sort(dim=1, descending=True, stable=True).indices[:, rank])


@dataclass(frozen=True, eq=False)
class Violate:
    """An output in the unsafe set of each sample's specification, strictness honoured; computed in float64.

    The rows of all disjuncts, ``coefficient . y[column] - b``, hold the non-zero entries only, so that a thousand
    classes cost two entries per row; shorter specifications are padded. ``column``, ``coefficient``
    (batch x rows x entries); ``b``, ``strict``, ``disjunct`` (batch x rows); ``real`` (batch x disjuncts) tells
    disjuncts from padding, ``aimed`` (the same) those that the loss speaks of. A padded row belongs to the disjunct one
    past the last, which is cut off. ``loss``: with ``ce`` the rows of a disjunct that is not met count together.
    """

    column: Tensor
    coefficient: Tensor
    b: Tensor
    strict: Tensor
    disjunct: Tensor
    real: Tensor
    aimed: Tensor
    loss: LossName = field(default="margin", kw_only=True)

    @classmethod
    def of(cls, specs: Sequence[Spec], device: torch.device | str = "cpu", loss: LossName = "margin") -> Violate:
        """The goal for one specification per sample; specifications that are one object are read once."""
        unique = list({id(spec): spec for spec in specs}.values())
        place = {id(spec): position for position, spec in enumerate(unique)}
        width = max((len(s.disjuncts) for s in unique), default=0)
        rows = max((sum(len(d.b) for d in s.disjuncts) for s in unique), default=0)
        entries = max((int((d.A != 0).sum(1).max()) for s in unique for d in s.disjuncts if len(d.b)), default=0)
        column = torch.zeros(len(unique), rows, entries, dtype=torch.int64)
        coefficient = torch.zeros(len(unique), rows, entries, dtype=torch.float64)
        b = torch.zeros(len(unique), rows, dtype=torch.float64)
        strict = torch.zeros(len(unique), rows, dtype=torch.bool)
        disjunct = torch.full((len(unique), rows), width)
        real = torch.zeros(len(unique), width, dtype=torch.bool)
        for i, spec in enumerate(unique):
            if not spec.disjuncts:
                continue
            n = len(spec.b)
            # A stable sort by "is zero" brings each row's non-zero entries to the front, in the order of the outputs.
            order = (spec.A == 0).to(torch.uint8).argsort(dim=1, stable=True)[:, :entries]
            column[i, :n, : order.shape[1]] = order
            coefficient[i, :n, : order.shape[1]] = spec.A.to(torch.float64).gather(1, order)
            b[i, :n], strict[i, :n], disjunct[i, :n] = spec.b, spec.strict, spec.disjunct
            real[i, : len(spec.disjuncts)] = True
        index = torch.tensor([place[id(spec)] for spec in specs], dtype=torch.int64)
        return cls(*(t[index].to(device) for t in (column, coefficient, b, strict, disjunct, real, real)), loss=loss)

    @property
    def signed(self) -> bool:
        """True; only where strict rows are met with equality is a loss of 0 no success."""
        return True

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the distance to violation of the closest disjunct, and success, both (batch): y (batch x outputs).

        The distance of a disjunct is the sum of its positive rows; where none is positive, its largest row. For a
        single row per disjunct the loss is minus the specification's margin. With ``ce`` the distance is a smooth
        maximum of its rows, the met ones among them, so that they stay met: what the cross-entropy of a target class
        is to the others, in their own scale.
        """
        rows = self._rows(y)
        with torch.no_grad():
            shape = (len(y), self.real.shape[1] + 1)
            worst, gap = self._gaps(rows)
            outside = torch.where(self.strict, rows >= 0, rows > 0)
            misses = rows.new_zeros(shape).scatter_add(1, self.disjunct, outside.to(rows))[:, :-1]
            success = ((misses == 0) & self.real).any(1)
            gap = gap.masked_fill(~self.aimed, inf)
            # One column of +inf, so that the empty unsafe set too has a closest disjunct: one without rows.
            gap, closest = F.pad(gap, (0, 1), value=inf).min(1)
            own = self.disjunct == closest[:, None]
            top = F.pad(worst, (0, 1), value=-inf).gather(1, closest[:, None])
            weight = own & torch.where(top > 0, rows > 0, rows == top)
        loss = -(rows * weight).sum(1)
        if self.loss == "ce":
            loss = torch.where((top > 0)[:, 0], -smooth_maximum(rows, own), loss)
        return torch.where(gap.isfinite(), loss, -gap), success

    def take(self, index: Tensor) -> Violate:
        """The goal of the samples at the positions ``index`` (samples)."""
        parts = (self.column, self.coefficient, self.b, self.strict, self.disjunct, self.real, self.aimed)
        return Violate(*(part[index] for part in parts), loss=self.loss)

    def with_loss(self, loss: LossName) -> Violate:
        """The goal with another loss, of all disjuncts again; ``dlr`` has no meaning for rows, and is ``margin``."""
        return replace(self, aimed=self.real, loss=loss)

    def rivals(self, y: Tensor) -> int:
        """The disjuncts of the specification with most: y (batch x outputs)."""
        return self.real.shape[1]

    def aim(self, y: Tensor, rank: int) -> Violate:
        """The loss of the ``rank``-th nearest disjunct at y (batch x outputs), of the farthest if there are fewer."""
        gap = self._gaps(self._rows(y.detach()))[1].masked_fill(~self.real, inf)
        last = (self.real.sum(1) - 1).clamp(min=0, max=rank)
        chosen = gap.sort(dim=1, stable=True).indices.gather(1, last[:, None])
        return replace(self, aimed=torch.zeros_like(self.real).scatter(1, chosen, True) & self.real)

    def _rows(self, y: Tensor) -> Tensor:
        """``A y - b`` row by row, (batch x rows)."""
        entry = y.to(torch.float64).gather(1, self.column.flatten(1)).view_as(self.coefficient)
        return (entry * self.coefficient).sum(2) - self.b

    def _gaps(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The largest row of each disjunct, and the distance to it: both (batch x disjuncts)."""
        shape = (len(rows), self.real.shape[1] + 1)
        worst = rows.new_full(shape, -inf).scatter_reduce(1, self.disjunct, rows, "amax")[:, :-1]
        excess = rows.new_zeros(shape).scatter_add(1, self.disjunct, rows.clamp(min=0))[:, :-1]
        return worst, torch.where(worst > 0, excess, worst)
