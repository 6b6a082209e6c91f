"""The unsafe set of outputs: an OR of polyhedra, as in VNN-LIB. Verified means that the region reaches none of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from assay.verify.core import requirement
from assay.verify.core.errors import InputError
from assay.verify.core.network import content_hash
from assay.verify.support import shown
from assay.verify.support.arrays import as_tensor, own_tensor
from assay.verify.support.floats import TINY, gamma, signs

TOGETHER = 2**20  # products of which exact sums are made at once


@dataclass(frozen=True, eq=False)
class Polyhedron:
    """One disjunct: ``A y <= b``, or ``<`` in the rows marked strict. A (rows x outputs), b and strict (rows)."""

    A: Tensor
    b: Tensor
    strict: Tensor

    def __post_init__(self) -> None:
        for name, dtype in (("A", torch.float64), ("b", torch.float64), ("strict", torch.bool)):
            value = own_tensor(getattr(self, name), f"{name} of a specification", dtype)
            object.__setattr__(self, name, value)
        if self.A.dim() != 2 or self.b.shape != self.A.shape[:1] or self.strict.shape != self.A.shape[:1]:
            raise InputError(
                "expected A (rows x outputs) with b and strict (rows), got "
                f"{tuple(self.A.shape)}, {tuple(self.b.shape)}, {tuple(self.strict.shape)}"
            )
        if not (self.A.isfinite().all() and self.b.isfinite().all()):
            raise InputError("a specification's coefficients must be finite")


@dataclass(frozen=True, eq=False, repr=False)
class Spec:
    """The unsafe set. A disjunct without rows is all of the output space; no disjunct at all is the empty set."""

    disjuncts: tuple[Polyhedron, ...]

    def __post_init__(self) -> None:
        widths = {d.A.shape[1] for d in self.disjuncts}
        if len(widths) > 1:
            raise InputError(f"the disjuncts speak of different numbers of outputs: {sorted(widths)}")

    @classmethod
    def robust(cls, label: int, classes: int) -> Spec:
        """Unsafe: some other class is at least as large as ``label`` (a tie is not a right answer)."""
        if not 0 <= label < classes:
            raise InputError(f"label {label} is out of range: the model has {classes} classes, 0 to {classes - 1}")
        if classes < 2:
            raise InputError(f"robust classification needs at least 2 classes, the model has {classes}")
        eye = torch.eye(classes, dtype=torch.float64)
        zero, closed = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.bool)
        return cls(tuple(Polyhedron((eye[label] - eye[j])[None], zero, closed) for j in range(classes) if j != label))

    @classmethod
    def binary(cls, label: int) -> Spec:
        """For a network of one output y, which answers 1 where y > 0, 0 where y < 0. Unsafe: the other side, and 0."""
        if label not in (0, 1):
            raise InputError(f"label {label} is out of range: a model of one output has the classes 0 and 1")
        return cls.halfspaces([[1.0 if label else -1.0]], [0.0])

    @classmethod
    def halfspaces(cls, A: Sequence[Sequence[float]], b: Sequence[float]) -> Spec:
        """Unsafe: all of ``A y <= b`` at once (one disjunct, non-strict)."""
        rows, sides = as_tensor(A, "A", torch.float64), as_tensor(b, "b", torch.float64)
        return cls((Polyhedron(rows, sides, torch.zeros_like(sides, dtype=torch.bool)),))

    @classmethod
    def require(cls, text: str, outputs: int) -> Spec:
        """Unsafe: all outputs ``y`` that do not meet a requirement such as ``y[0] < 0.5 and y[1] > y[2]``
        (:mod:`assay.verify.core.requirement`).

        Raises :class:`InputError` for what is no requirement of so many outputs.

        >>> Spec.require("argmax(y) == 0", 3).disjuncts[0].A.tolist()
        [[1.0, -1.0, 0.0]]
        """
        return cls(tuple(_polyhedron(case, outputs) for case in requirement.unsafe(text, outputs)))

    def __repr__(self) -> str:
        return shown.line("Spec", self.facts)

    def _repr_html_(self) -> str:
        return shown.table("Spec", self.facts)

    @property
    def facts(self) -> dict[str, object]:
        """What people want to see of it."""
        rows = sum(len(d.b) for d in self.disjuncts)
        strict = sum(int(d.strict.sum()) for d in self.disjuncts)
        return {"disjuncts": len(self.disjuncts), "rows": rows, **({"strict": strict} if strict else {})}

    @cached_property
    def A(self) -> Tensor:
        """All rows of all disjuncts, one under the other: (rows x outputs)."""
        return torch.cat([d.A for d in self.disjuncts])

    @cached_property
    def b(self) -> Tensor:
        """Right-hand sides of all rows: (rows)."""
        return torch.cat([d.b for d in self.disjuncts])

    @cached_property
    def strict(self) -> Tensor:
        """Strictness of all rows: (rows)."""
        return torch.cat([d.strict for d in self.disjuncts])

    @cached_property
    def disjunct(self) -> Tensor:
        """The disjunct that each row belongs to: (rows)."""
        counts = torch.tensor([d.b.numel() for d in self.disjuncts])
        return torch.arange(len(self.disjuncts)).repeat_interleave(counts)

    @cached_property
    def of_order(self) -> bool:
        """Whether it only compares outputs with each other, so that it is the same of all increasing functions of them.

        Each row is ``c (y_i - y_j) <= 0``, c > 0.
        """
        return all(
            bool(((d.A != 0).sum(1) == 2).all() and (d.A.sum(1) == 0).all() and (d.b == 0).all())
            for d in self.disjuncts
        )

    @cached_property
    def id(self) -> str:
        """Hash of the content."""
        return content_hash("spec", self.disjuncts)

    def margin(self, rows: Tensor) -> Tensor:
        """Min over disjuncts of max over their rows: from ``A y - b`` (... x rows), or bounds of it, to (...).

        Positive means outside of the unsafe set's closure. A disjunct without rows gives -inf; no disjunct +inf.
        """
        shape = rows.shape[:-1]
        if not self.disjuncts:
            return rows.new_full(shape, torch.inf)
        per_disjunct = rows.new_full((*shape, len(self.disjuncts)), -torch.inf)
        index = self.disjunct.to(rows.device).expand_as(rows)
        per_disjunct = per_disjunct.scatter_reduce(-1, index, rows, reduce="amax")
        return per_disjunct.amin(-1)

    def avoided(self, rows: Tensor, unattained: Tensor | None = None) -> Tensor:
        """Whether lower bounds of ``A y - b`` (... x rows) that hold in the reals prove that no output is unsafe: in
        each disjunct one is above 0, or at least 0 in a strict row or one that is never as low as its bound
        (``unattained``, of the same shape). NaN and infinity prove nothing. Result (...)."""
        if not self.disjuncts:
            return torch.zeros(rows.shape[:-1], dtype=torch.bool, device=rows.device)
        strict = self.strict.to(rows.device)
        strict = strict if unattained is None else strict | unattained
        kept = rows.isfinite() & ((rows > 0) | ((rows >= 0) & strict))
        missed = kept.new_zeros((*rows.shape[:-1], len(self.disjuncts)), dtype=torch.uint8)
        index = self.disjunct.to(rows.device).expand_as(kept)
        return missed.scatter_reduce(-1, index, kept.to(torch.uint8), reduce="amax").bool().all(-1)

    def rows(self, y: Tensor) -> Tensor:
        """``A y - b`` in float64: y (batch x outputs), result (batch x rows)."""
        y = y.flatten(1).to(torch.float64)
        if not self.disjuncts:
            return y.new_zeros((len(y), 0))
        return y @ self.A.to(y.device).T - self.b.to(y.device)

    def _signed(self, y: Tensor) -> Tensor:
        """``A y - b`` with the signs that tell whether y is violated: y (batch x outputs) in float64, result (batch x
        rows). What no longer matters, since another row of the disjunct is above 0 for sure, may have another."""
        gap, A, b = self.rows(y), self.A.to(y.device), self.b.to(y.device)
        # One difference of two numbers has the sign that it should.
        simple = ((A == 0) | (A.abs() == 1)).all(1) & ((A != 0).sum(1) + (b != 0) <= 2)
        error = 2 * gamma(A.shape[1] + 4) * (y.abs() @ A.abs().T + b.abs()) + (A.shape[1] + 1) * TINY
        doubtful = ~(gap.abs() > error) & ~simple & y.isfinite().all(1, keepdim=True)
        if bool(doubtful.any()):
            index = self.disjunct.to(y.device).expand_as(gap)
            above = ((gap > error) & ~doubtful).to(torch.uint8)
            missed = above.new_zeros((len(y), len(self.disjuncts))).scatter_reduce(1, index, above, reduce="amax")
            points, rows = (doubtful & ~missed.bool().gather(1, index)).nonzero(as_tuple=True)
            together = max(TOGETHER // A.shape[1], 1)
            for i, j in zip(torch.split(points, together), torch.split(rows, together), strict=True):
                exact = signs(A[j].cpu(), y[i].cpu(), b[j].cpu())
                gap[i, j] = torch.tensor(exact, dtype=gap.dtype, device=gap.device)
        return gap

    def violated(self, y: Tensor) -> Tensor:
        """Whether each output lies in the unsafe set, strictness honoured: y (batch x outputs), result (batch).

        Exact: evaluated in float64, and unrounded where that leaves the sign in doubt. An output that is not finite
        violates nothing.
        """
        if not self.disjuncts:
            return torch.zeros(len(y), dtype=torch.bool, device=y.device)
        gap = self._signed(y.flatten(1).to(torch.float64))
        holds = torch.where(self.strict.to(gap.device), gap < 0, gap <= 0)
        ones = holds.new_ones((len(y), len(self.disjuncts)), dtype=torch.uint8)
        index = self.disjunct.to(gap.device).expand_as(gap)
        inside = ones.scatter_reduce(-1, index, holds.to(torch.uint8), reduce="amin").bool()
        return inside.any(-1) & y.flatten(1).isfinite().all(-1)


def _polyhedron(case: Sequence[requirement.Row], outputs: int) -> Polyhedron:
    A = torch.zeros(len(case), outputs, dtype=torch.float64)
    for line, row in zip(A, case, strict=True):
        for i, factor in row.terms:
            line[i] = float(factor)
    b = torch.tensor([float(-row.constant) for row in case], dtype=torch.float64)
    return Polyhedron(A, b, torch.tensor([row.strict for row in case], dtype=torch.bool))


def strictly_largest(y: Tensor, labels: Tensor) -> Tensor:
    """Whether each label's output is larger than all others: y (batch x classes), labels (batch), result (batch).

    A tie is not a right answer, and neither is NaN.

    >>> strictly_largest(torch.tensor([[1.0, 2.0], [1.0, 1.0], [1.0, torch.nan]]), torch.tensor([1, 0, 0])).tolist()
    [True, False, False]
    """
    column = labels[:, None].to(torch.int64)
    return (y.gather(1, column) > y.scatter(1, column, -torch.inf)).all(1)
