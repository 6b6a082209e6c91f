"""A matrix times columns, in the way that takes least: as a dense matrix, compressed, or block by block: rows that read
the same operands, as all channels of one place of an image do, are a dense matrix of these operands."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from math import inf

import numpy as np
import torch
from torch import Tensor

from assay.verify.programs.program import Index, Matrix

FULL = 0.25  # with at least this share of entries other than zero a matrix is multiplied faster as a dense one
LITTLE = 16_000_000  # products of numbers that are done before blocks are thought of
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
    def of(cls, matrix: Matrix, groups: Groups, dtype: torch.dtype) -> Blocks:
        """Of a matrix whose rows are in these groups."""
        parts = []
        for begin, end in pairwise([*groups.begins.tolist(), len(groups.order)]):
            rows = groups.order[begin:end]
            at = matrix.indptr[rows][:, None] + np.arange(matrix.indptr[rows[0] + 1] - matrix.indptr[rows[0]])
            entries, reads = torch.from_numpy(matrix.data[at]).to(dtype), torch.from_numpy(matrix.indices[at[0]])
            parts.append(Block(entries, reads.long(), begin, end))
        return cls(tuple(parts), torch.from_numpy(groups.order))

    def times(self, x: Tensor, space: Space) -> Tensor:
        """The rows of all blocks times ``x`` (operands x columns), in ``space``: (rows x columns)."""
        values = space.of("values", len(self.order), x.shape[1], x.dtype)
        for part in self.parts:
            read = space.of("read", len(part.reads), x.shape[1], x.dtype)
            torch.index_select(x, 0, part.reads, out=read)
            torch.mm(part.entries, read, out=values[part.begin : part.end])
        return values


@dataclass(frozen=True, eq=False)
class Groups:
    """Rows that read the same operands, group after group: ``order``, all rows that read any, by number, and where in
    it groups begin, ``begins``; ``reads``: how many operands those of each group read (groups)."""

    order: Index
    begins: Index
    reads: Index

    @classmethod
    def of(cls, matrix: Matrix) -> Groups:
        """Of a matrix whose rows have their entries in order."""
        lengths = np.diff(matrix.indptr)
        some = np.flatnonzero(lengths)
        if not len(some):
            return cls(some, some, some)
        # A sum of marks over what rows read brings those together that read the same; then they are compared.
        marks = np.random.default_rng(0).integers(1, 2**62, matrix.shape[1], dtype=np.int64)
        keys = np.add.reduceat(marks[matrix.indices], matrix.indptr[some])
        order = some[np.lexsort((keys, lengths[some]))]
        sizes, starts = lengths[order], matrix.indptr[order]
        later = np.flatnonzero(sizes[1:] == sizes[:-1]) + 1
        first = np.ones(len(order), dtype=bool)
        if len(later):
            ends = np.cumsum(sizes[later])
            within = np.arange(ends[-1]) - np.repeat(ends - sizes[later], sizes[later])
            mine, before = (matrix.indices[np.repeat(starts[at], sizes[later]) + within] for at in (later, later - 1))
            first[later] = np.logical_or.reduceat(mine != before, ends - sizes[later])
        begins = np.flatnonzero(first)
        return cls(order, begins, sizes[begins])


@dataclass(frozen=True, eq=False)
class Product:
    """A ``matrix`` (rows x operands) as a factor in one precision."""

    matrix: Matrix
    dtype: torch.dtype
    space: Space = field(repr=False)

    def put(self, x: Tensor, into: Tensor) -> None:
        """The product with ``x`` (operands x columns) into (rows x columns)."""
        blocks = self.blocks(x.shape[1])
        if blocks is not None:
            if len(blocks.order) < len(into):
                into.zero_()
            into.index_copy_(0, blocks.order, blocks.times(x, self.space))
        elif self.full:
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

    def blocks(self, columns: int) -> Blocks | None:
        """The matrix in blocks where these are the faster way for so many columns."""
        if self.full or columns * self.matrix.nnz < LITTLE or columns < self._least:
            return None
        return self._as_blocks

    @cached_property
    def rows(self) -> int:
        """How many there are."""
        return int(self.matrix.shape[0])

    @cached_property
    def full(self) -> bool:
        """Whether it is multiplied as a dense matrix."""
        rows, operands = self.matrix.shape
        return bool(self.matrix.nnz >= FULL * rows * operands)

    @cached_property
    def factor(self) -> Tensor:
        """The matrix, dense or compressed."""
        matrix = self.matrix
        if self.full:
            return torch.from_numpy(matrix.toarray()).to(self.dtype)
        starts, columns = (torch.from_numpy(index.astype(np.int32)) for index in (matrix.indptr, matrix.indices))
        values = torch.from_numpy(matrix.data).to(self.dtype)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse")
            return torch.sparse_csr_tensor(starts, columns, values, matrix.shape, check_invariants=False)

    @cached_property
    def _least(self) -> float:
        """From how many columns on blocks take less."""
        groups = self._groups
        copied = int(groups.reads.sum()) + 2 * self.rows
        saved = self.matrix.nnz * (COMPRESSED - DENSE) - copied * COPIED
        return len(groups.begins) * STARTING / saved if saved > 0 else inf

    @cached_property
    def _as_blocks(self) -> Blocks:
        return Blocks.of(self.matrix, self._groups, self.dtype)

    @cached_property
    def _groups(self) -> Groups:
        self.matrix.sort_indices()  # in place, of what is this product's alone
        return Groups.of(self.matrix)
