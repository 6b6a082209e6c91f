"""A matrix times columns, in the way that takes least: as a dense matrix, compressed, or block by block: rows that read
the same operands, as all channels of one place of an image do, are a dense matrix of these operands."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from assay.verify.programs.program import Index, Matrix

FULL = 0.25  # with at least this share of entries other than zero a matrix is multiplied faster as a dense one
FEWEST = 64  # columns for which blocks are thought of
STARTING = 3.5e-6  # seconds that a block takes beside its arithmetic
COMPRESSED, DENSE, COPIED = 7e-11, 2.2e-11, 1.5e-10  # seconds that an entry of a matrix takes, a number that is copied


class Space:
    """Memory that is used again: what is fresh takes as long as the arithmetic."""

    def __init__(self) -> None:
        self._parts: dict[str, Tensor] = {}

    def of(self, name: str, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """Memory of this name (rows x columns); what it held is gone."""
        size, part = rows * columns, self._parts.get(name)
        if part is None or len(part) < size or part.dtype != dtype:
            part = self._parts[name] = torch.empty(size, dtype=dtype)
        return part[:size].view(rows, columns)


@dataclass(frozen=True, eq=False)
class Block:
    """Rows that read the same operands: ``entries`` (rows x operands), and the numbers of these operands, ``reads``;
    ``begin``, ``end``: of the rows, among those of all blocks."""

    entries: Tensor
    reads: Tensor
    begin: int
    end: int


@dataclass(frozen=True, eq=False)
class Blocks:
    """A matrix in blocks; ``order``: which of its rows those of all blocks are, one after the other."""

    parts: tuple[Block, ...]
    order: Tensor

    @classmethod
    def of(cls, matrix: Matrix, groups: list[Index], dtype: torch.dtype) -> Blocks:
        """Of the rows in these groups, by number; those of one group read the same operands."""
        parts, begin = [], 0
        for rows in groups:
            at = _entries(matrix, rows)
            entries, reads = torch.from_numpy(matrix.data[at]).to(dtype), torch.from_numpy(matrix.indices[at[0]])
            parts.append(Block(entries, reads.long(), begin, begin + len(rows)))
            begin += len(rows)
        return cls(tuple(parts), torch.from_numpy(np.concatenate(groups)))

    def times(self, x: Tensor, space: Space) -> Tensor:
        """The rows of all blocks times ``x`` (operands x columns), in ``space``: (rows x columns)."""
        values = space.of("values", len(self.order), x.shape[1], x.dtype)
        for part in self.parts:
            read = space.of("read", len(part.reads), x.shape[1], x.dtype)
            torch.index_select(x, 0, part.reads, out=read)
            torch.mm(part.entries, read, out=values[part.begin : part.end])
        return values


@dataclass(frozen=True, eq=False)
class Product:
    """A ``matrix`` (rows x operands) as a factor in one precision."""

    matrix: Matrix
    dtype: torch.dtype
    space: Space = field(repr=False)

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def put(self, x: Tensor, into: Tensor) -> None:
        """The product with ``x`` (operands x columns) into (rows x columns)."""
        blocks = self.blocks(x.shape[1])
        if blocks is not None:
            into.index_copy_(0, blocks.order, blocks.times(x, self.space))
            if len(blocks.order) < len(into):
                into.index_fill_(0, self._grouped[1], 0.0)
        elif self.factor.layout == torch.strided:
            torch.mm(self.factor, x, out=into)
        else:
            torch.addmm(into, self.factor, x, beta=0.0, out=into)

    def add(self, x: Tensor, into: Tensor, sign: float = 1.0) -> None:
        """The same times a ``sign``, added to what is there."""
        blocks = self.blocks(x.shape[1])
        if blocks is not None:
            into.index_add_(0, blocks.order, blocks.times(x, self.space), alpha=sign)
        else:
            torch.addmm(into, self.factor, x, alpha=sign, out=into)

    @cached_property
    def factor(self) -> Tensor:
        """The matrix, dense or compressed."""
        matrix = self.matrix
        if self._full:
            return torch.from_numpy(matrix.toarray()).to(self.dtype)
        starts, columns = (torch.from_numpy(index.astype(np.int32)) for index in (matrix.indptr, matrix.indices))
        values = torch.from_numpy(matrix.data).to(self.dtype)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse")
            return torch.sparse_csr_tensor(starts, columns, values, matrix.shape, check_invariants=False)

    @property
    def _full(self) -> bool:
        rows, operands = self.matrix.shape
        return bool(self.matrix.nnz >= FULL * rows * operands) or 0 in self.matrix.shape

    def blocks(self, columns: int) -> Blocks | None:
        """The matrix in blocks where these are the faster way for so many columns."""
        return self._as_blocks if columns >= FEWEST and columns >= self._least else None

    @cached_property
    def _least(self) -> float:
        """From how many columns on blocks take less."""
        if self._full:
            return np.inf
        groups, lengths = self._grouped[0], np.diff(self.matrix.indptr)
        copied = sum(int(lengths[rows[0]]) for rows in groups) + 2 * len(self)
        saved = self.matrix.nnz * (COMPRESSED - DENSE) - copied * COPIED
        return len(groups) * STARTING / saved if saved > 0 else np.inf

    @cached_property
    def _as_blocks(self) -> Blocks:
        return Blocks.of(self.matrix, self._grouped[0], self.dtype)

    @cached_property
    def _grouped(self) -> tuple[list[Index], Tensor]:
        """The rows by what they read, and those that read nothing."""
        matrix = self.matrix
        matrix.sort_indices()  # in place, of what is this product's alone
        lengths = np.diff(matrix.indptr)
        some = np.flatnonzero(lengths)
        none = torch.from_numpy(np.flatnonzero(lengths == 0))
        if not len(some):
            return [], none
        # Rows of one key, which is a sum over what they read, are one group where they do read the same.
        marks = np.random.default_rng(0).integers(1, 2**62, matrix.shape[1], dtype=np.int64)
        keys = np.add.reduceat(marks[matrix.indices], matrix.indptr[some])
        order = np.lexsort((keys, lengths[some]))
        changes = np.flatnonzero(np.diff(keys[order]) | np.diff(lengths[some][order])) + 1
        return [group for part in np.split(some[order], changes) for group in _same(matrix, part)], none


def _same(matrix: Matrix, rows: Index) -> list[Index]:
    """Rows of as many entries in groups that read the same: one, as a rule."""
    reads = matrix.indices[_entries(matrix, rows)]
    return [rows] if (reads == reads[0]).all() else [row[None] for row in rows]


def _entries(matrix: Matrix, rows: Index) -> Index:
    """Where the entries of rows are that have as many each: (rows x entries)."""
    starts: Index = matrix.indptr[rows]
    return starts[:, None] + np.arange(matrix.indptr[rows[0] + 1] - starts[0])
