"""Affine operations as matrices between flattened values: dense for Linear, sparse rows for convolutions.

Backward propagation multiplies the transposed matrix with many columns at once. A convolution as a sparse matrix
times a block of columns is several times faster on a processor than transposed convolution, and rows and columns
that cannot matter are cut out of it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property, singledispatch
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.bounds.backward.convolution import is_plain, transpose, transpose_columns
from assay.verify.bounds.memo import per_op, remember
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.ops import Conv2d, ConvTranspose2d, Linear, Op


class Cut(Protocol):
    """A matrix cut down to some of its inputs and outputs, ready to be multiplied."""

    def pull(self, coef: Tensor) -> Tensor:
        """(outputs x rows) to (inputs x rows)."""
        ...


@dataclass(frozen=True, eq=False)
class Dense:
    """``transposed``: (inputs x outputs)."""

    transposed: Tensor

    def cut(self, inputs: Tensor | None, outputs: Tensor | None) -> Dense:
        """Only these ``inputs`` (kept inputs) and ``outputs`` (kept outputs), numbers of features; None keeps all."""
        kept = self.transposed if inputs is None else self.transposed.index_select(0, inputs)
        return Dense(kept if outputs is None else kept.index_select(1, outputs))

    def pull(self, coef: Tensor) -> Tensor:
        """(outputs x rows) to (inputs x rows)."""
        return self.transposed @ coef

    def columns(self, outputs: Tensor, value: Tensor, inputs: Tensor | None) -> Tensor:
        """``value[r]`` times the column of output ``outputs[r]``, at these inputs: (inputs x rows)."""
        return self.cut(inputs, None).transposed.index_select(1, outputs) * value


@dataclass(frozen=True, eq=False)
class Sparse:
    """Entries of a matrix sorted by output: input and output index and value, with the first entry of each output."""

    inputs: Tensor
    outputs: Tensor
    values: Tensor
    starts: Tensor
    shape: tuple[int, int]

    @cached_property
    @torch.inference_mode(False)
    def by_input(self) -> tuple[Tensor, Tensor, Tensor]:
        """Input and output index and value of the entries, sorted by input: (entries) each."""
        order = torch.argsort(self.inputs, stable=True)
        return tuple(t.index_select(0, order) for t in (self.inputs, self.outputs, self.values))  # type: ignore[return-value]

    @cached_property
    @torch.inference_mode(False)
    def whole(self) -> Cut:
        """All of the matrix, ready to be multiplied."""
        return _in_blocks(self) or _ready(*self.by_input, self.shape)

    def cut(self, inputs: Tensor | None, outputs: Tensor | None) -> Cut:
        """Only these ``inputs`` (kept inputs) and ``outputs`` (kept outputs), numbers of features, renumbered; None
        keeps all."""
        if inputs is None and outputs is None:
            return self.whole
        row, column, value = self.by_input
        new_in, new_out = _renumber(inputs, self.shape[0]), _renumber(outputs, self.shape[1])
        row = row if new_in is None else new_in.index_select(0, row)
        column = column if new_out is None else new_out.index_select(0, column)
        keep = torch.nonzero((row >= 0) & (column >= 0)).flatten()
        shape = tuple(
            size if kept is None else len(kept) for size, kept in zip(self.shape, (inputs, outputs), strict=True)
        )
        return _ready(
            row.index_select(0, keep), column.index_select(0, keep), value.index_select(0, keep), (shape[0], shape[1])
        )

    def both_ways(self, inputs: Tensor | None, outputs: Tensor | None, dtype: torch.dtype) -> tuple[Cut, Cut]:
        """As :meth:`cut`, for features in any order, in another precision; and its transpose, (inputs x rows) to
        (outputs x rows)."""
        row, column, value = self.by_input
        starts = torch.cat([row.new_zeros(1), torch.bincount(row, minlength=self.shape[0]).cumsum(0)])
        back = _of_rows(starts, column, value.to(dtype), inputs, outputs, self.shape)
        shape = self.shape[1], self.shape[0]
        return back, _of_rows(self.starts, self.inputs, self.values.to(dtype), outputs, inputs, shape)

    def columns(self, outputs: Tensor, value: Tensor, inputs: Tensor | None) -> Tensor:
        """``value[r]`` times the column of output ``outputs[r]``, at these inputs: (inputs x rows)."""
        row, entry = _entries_of(self.starts, outputs)
        into, worth = self.inputs.index_select(0, entry), self.values.index_select(0, entry)
        worth = worth * value.index_select(0, row)
        new = _renumber(inputs, self.shape[0])
        if new is not None:
            into = new.index_select(0, into)
            keep = torch.nonzero(into >= 0).flatten()
            into, row, worth = (t.index_select(0, keep) for t in (into, row, worth))
        size = self.shape[0] if inputs is None else len(inputs)
        dense = self.values.new_zeros(size * len(outputs))
        return dense.index_add_(0, into * len(outputs) + row, worth).view(size, len(outputs))


def _entries_of(starts: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of ``rows`` of a compressed matrix, one after the other, each entry's row, counted among these, and its number:
    (entries) each."""
    begin = starts[rows]
    length = starts[rows + 1] - begin
    row = torch.arange(len(rows), device=rows.device).repeat_interleave(length)
    first = length.cumsum(0) - length
    return row, torch.arange(len(row), device=rows.device) + (begin - first).index_select(0, row)


def _of_rows(
    starts: Tensor, columns: Tensor, values: Tensor, rows: Tensor | None, kept: Tensor | None, shape: tuple[int, int]
) -> Cut:
    """These rows of a compressed matrix (rows x columns), and of their columns those that are kept; None is all."""
    every = torch.arange(shape[0], device=starts.device) if rows is None else rows
    row, entry = _entries_of(starts, every)
    column, value = columns.index_select(0, entry), values.index_select(0, entry)
    new = _renumber(kept, shape[1])
    if new is not None:
        column = new.index_select(0, column)
        inside = torch.nonzero(column >= 0).flatten()
        row, column, value = (t.index_select(0, inside) for t in (row, column, value))
    return _ready(row, column, value, (len(every), shape[1] if kept is None else len(kept)))


@dataclass(frozen=True, eq=False)
class Compressed:
    """A sparse matrix ready for multiplication: (inputs x outputs), compressed rows."""

    matrix: Tensor

    def pull(self, coef: Tensor) -> Tensor:
        """(outputs x rows) to (inputs x rows)."""
        if 0 in self.matrix.shape:
            return coef.new_zeros(self.matrix.shape[0], coef.shape[1])
        product = coef.new_empty(self.matrix.shape[0], coef.shape[1])
        # With beta = 0 the product is written at once; the plain product would fill with zeros and copy first.
        return torch.addmm(product, self.matrix, coef, beta=0, out=product)


def _ready(inputs: Tensor, outputs: Tensor, values: Tensor, shape: tuple[int, int]) -> Cut:
    """From entries sorted by input, in the form that is multiplied fastest.

    The indices are 32 bits wide, which is what the library multiplies with.
    """
    if len(values) >= FULL * shape[0] * shape[1]:
        full = values.new_zeros(shape[0] * shape[1])
        return Dense(full.index_copy_(0, inputs * shape[1] + outputs, values).view(shape))
    counts = torch.bincount(inputs, minlength=shape[0])
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return Compressed(torch.sparse_csr_tensor(starts.int(), outputs.int(), values, shape, check_invariants=False))


@dataclass(frozen=True, eq=False)
class Convolved:
    """A convolution too large to be written out: transposed convolution of all outputs, then a choice of inputs."""

    op: Conv2d
    input_shape: tuple[int, ...]
    inputs: Tensor | None = None
    outputs: Tensor | None = None

    def cut(self, inputs: Tensor | None, outputs: Tensor | None) -> Convolved:
        """Only these ``inputs`` (kept inputs) and ``outputs`` (kept outputs), numbers of features; None keeps all."""
        return replace(self, inputs=inputs, outputs=outputs)

    def pull(self, coef: Tensor) -> Tensor:
        """(outputs x rows) to (inputs x rows)."""
        op, space = self.op, _conv_output(self.op, self.input_shape[1:])
        if self.outputs is not None:
            full = coef.new_zeros(op.weight.shape[0] * space[0] * space[1], coef.shape[1])
            coef = full.index_copy(0, self.outputs, coef)
        if is_plain(op) and coef.dtype == torch.float64:  # in float32 the library's convolution is faster
            flat = transpose_columns(op, coef.view(-1, *space, coef.shape[1])).flatten(0, 2)
        else:
            images = coef.T.reshape(-1, op.weight.shape[0], *space)
            flat = transpose(op, images, self.input_shape).flatten(1).T
        return flat if self.inputs is None else flat.index_select(0, self.inputs)

    def columns(self, outputs: Tensor, value: Tensor, inputs: Tensor | None) -> Tensor:
        """``value[r]`` times the column of output ``outputs[r]``, at these inputs: (inputs x rows)."""
        space = _conv_output(self.op, self.input_shape[1:])
        seed = value.new_zeros(self.op.weight.shape[0] * space[0] * space[1], len(outputs))
        seed[outputs, torch.arange(len(outputs), device=outputs.device)] = value
        return self.cut(inputs, None).pull(seed)


@dataclass(frozen=True, eq=False)
class Repeated:
    """A dense matrix on the last axis of several, one copy of it for each of ``copies`` positions: multiplied as such,
    then a choice of inputs."""

    weight: Tensor
    copies: int
    inputs: Tensor | None = None
    outputs: Tensor | None = None

    def cut(self, inputs: Tensor | None, outputs: Tensor | None) -> Repeated:
        """Only these ``inputs`` (kept inputs) and ``outputs`` (kept outputs), numbers of features; None keeps all."""
        return replace(self, inputs=inputs, outputs=outputs)

    def pull(self, coef: Tensor) -> Tensor:
        """(outputs x rows) to (inputs x rows)."""
        if self.outputs is not None:
            full = coef.new_zeros(self.copies * self.weight.shape[0], coef.shape[1])
            coef = full.index_copy_(0, self.outputs, coef)
        flat = torch.matmul(self.weight.T, coef.view(self.copies, -1, coef.shape[1])).flatten(0, 1)
        return flat if self.inputs is None else flat.index_select(0, self.inputs)

    def columns(self, outputs: Tensor, value: Tensor, inputs: Tensor | None) -> Tensor:
        """``value[r]`` times the column of output ``outputs[r]``, at these inputs: (inputs x rows)."""
        size, each = self.weight.shape
        full = value.new_zeros(self.copies, each, len(outputs))
        row = torch.arange(len(outputs), device=outputs.device)
        copy = torch.div(outputs, size, rounding_mode="floor")
        full[copy, :, row] = self.weight[outputs - copy * size] * value[:, None]
        flat = full.flatten(0, 1)
        return flat if inputs is None else flat.index_select(0, inputs)


@dataclass(frozen=True, eq=False)
class Blocks:
    """Dense ``blocks`` of one size, (blocks x inputs x outputs), each of the next of ``inputs`` (blocks * inputs), of
    which there are ``size``, and of ``outputs`` (blocks * outputs)."""

    blocks: Tensor
    inputs: Tensor
    outputs: Tensor
    size: int

    @cached_property
    @torch.inference_mode(False)
    def places(self) -> Tensor | None:
        """Where each input is among ``inputs``, if all of them are: (inputs)."""
        return self.inputs.argsort() if len(self.inputs) == self.size else None

    def pull(self, coef: Tensor) -> Tensor:
        """(outputs x rows) to (inputs x rows)."""
        count, each, _ = self.blocks.shape
        read = coef.index_select(0, self.outputs).view(count, -1, coef.shape[1])
        product = torch.bmm(self.blocks, read).view(count * each, -1)
        if self.places is not None:
            return product.index_select(0, self.places)
        return coef.new_zeros(self.size, coef.shape[1]).index_copy_(0, self.inputs, product)


Matrix = Dense | Sparse | Convolved | Repeated

# Dense blocks of no fewer entries than these are multiplied faster as such.
DENSE_BLOCK = 64

# With at least this share of entries other than zero a matrix is multiplied faster as a dense one.
FULL = 0.25

# Above this many entries (some 80 MB with indices) a convolution is not written out as a sparse matrix.
LARGEST = 2_000_000


@singledispatch
def _entries(op: Op, shape: tuple[int, ...]) -> Matrix:
    raise UnsupportedError(f"operation {op.label} has no matrix")


@_entries.register
def _(op: Linear, shape: tuple[int, ...]) -> Matrix:
    if len(shape) == 1:
        return Dense(op.weight.T.contiguous())
    # On the last axis of several: one copy of the weight for each position on the other axes.
    outputs, inputs = op.weight.shape
    copies = torch.arange(torch.Size(shape[:-1]).numel(), device=op.weight.device)[:, None, None]
    out = copies * outputs + torch.arange(outputs, device=op.weight.device)[:, None]
    into = copies * inputs + torch.arange(inputs, device=op.weight.device)
    size = (len(copies) * inputs, len(copies) * outputs)
    full = (len(copies), outputs, inputs)
    return sorted_by_output(
        into.expand(full).flatten(), out.expand(full).flatten(), op.weight.expand(full).flatten(), size
    )


@_entries.register
def _(op: Conv2d, shape: tuple[int, ...]) -> Matrix:
    """Unfold the numbers of the input's elements instead of their values: it tells which element meets which weight."""
    channels, height, width = shape
    out_channels, per_group, *kernel = op.weight.shape
    space = _conv_output(op, shape[1:])
    if op.weight.numel() * space[0] * space[1] > LARGEST:
        return Convolved(op, shape)
    size = channels * height * width
    number = torch.arange(1, size + 1, dtype=torch.float64, device=op.weight.device).view(1, *shape)
    patches = F.unfold(number, tuple(kernel), op.dilation, op.padding, op.stride)[0].long() - 1
    places = patches.shape[1]
    patches = patches.view(op.groups, per_group * kernel[0] * kernel[1], places)
    group = torch.arange(out_channels, device=op.weight.device) // (out_channels // op.groups)
    into = patches[group].transpose(1, 2)  # (out channels x places x kernel elements)
    place = torch.arange(out_channels * places, device=op.weight.device).view(out_channels, places, 1)
    value = op.weight.reshape(out_channels, 1, -1).expand_as(into)
    inside = into >= 0
    return sorted_by_output(into[inside], place.expand_as(into)[inside], value[inside], (size, out_channels * places))


@_entries.register
def _(op: ConvTranspose2d, shape: tuple[int, ...]) -> Matrix:
    """The entries of the convolution that it transposes, inputs and outputs exchanged."""
    size = [
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(
            shape[1:], op.stride, op.padding, op.dilation, op.weight.shape[2:], op.output_padding, strict=True
        )
    ]
    convolution = Conv2d(op.weight, op.bias, op.stride, op.padding, op.dilation, op.groups)
    forward = _entries(convolution, (op.weight.shape[1] * op.groups, *size))
    if not isinstance(forward, Sparse):
        raise MemoryError("a transposed convolution this large")
    # An output padding of a stride or more makes room for places that the operand does not have: these are left out.
    height, width = _conv_output(convolution, tuple(size))
    row, column = forward.outputs // width % height, forward.outputs % width
    place = (forward.outputs // (height * width) * shape[1] + row) * shape[2] + column
    kept = torch.argsort(forward.inputs, stable=True)
    kept = kept[(row < shape[1])[kept] & (column < shape[2])[kept]]
    features = (torch.Size(shape).numel(), forward.shape[0])
    return sorted_by_output(place[kept], forward.inputs[kept], forward.values[kept], features)


def matrix(op: Op, shape: tuple[int, ...]) -> Matrix:
    """The matrix of ``op`` on inputs of ``shape``; worked out once for each operation."""
    return remember(_matrices(op), shape, lambda: _entries(op, shape))


@per_op
def _matrices(op: Op) -> dict[tuple[int, ...], Matrix]:
    return {}


def constant(op: Linear | Conv2d | ConvTranspose2d, shape: tuple[int, ...]) -> Tensor:
    """The bias of every output of ``op`` whose output has ``shape``: (outputs); worked out once."""
    bias = op.bias if isinstance(op, Linear) else op.bias.view(-1, 1, 1)
    return remember(_constants(op), shape, lambda: bias.expand(shape).flatten())


@per_op
def _constants(op: Op) -> dict[tuple[int, ...], Tensor]:
    return {}


def _conv_output(op: Conv2d, size: tuple[int, ...]) -> list[int]:
    """Height and width of a convolution's output."""
    options = zip(size, op.padding, op.dilation, op.weight.shape[2:], op.stride, strict=True)
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in options]


def _renumber(kept: Tensor | None, size: int) -> Tensor | None:
    """Old index to new index, -1 for what is dropped."""
    if kept is None:
        return None
    new = torch.full((size,), -1, dtype=torch.long, device=kept.device)
    new[kept] = torch.arange(len(kept), device=kept.device)
    return new


def sorted_by_output(inputs: Tensor, outputs: Tensor, values: Tensor, shape: tuple[int, int]) -> Sparse:
    """The matrix (inputs x outputs) of entries that are in the order of their outputs: (entries) each."""
    counts = torch.bincount(outputs, minlength=shape[1])
    return Sparse(inputs, outputs, values, torch.cat([counts.new_zeros(1), counts.cumsum(0)]), shape)


def _in_blocks(sparse: Sparse) -> Blocks | None:
    """The matrix as dense blocks of one size, if it has nothing else, and each entry at a place of its own."""
    inputs, outputs, shape = sparse.inputs, sparse.outputs, sparse.shape
    readers, read = (torch.bincount(t, minlength=n) for t, n in zip((inputs, outputs), shape, strict=True))
    width, length = int(read.max()) if len(inputs) else 0, int(readers.max()) if len(inputs) else 0
    if width * length < DENSE_BLOCK or not all(bool(((n == 0) | (n == n.max())).all()) for n in (readers, read)):
        return None
    # Blocks have the number of their first input; in one that is full, all inputs have the same readers.
    of_output = inputs.new_full((shape[1],), shape[0]).scatter_reduce(0, outputs, inputs, "amin")
    of_input = inputs.new_full((shape[0],), shape[0]).scatter_reduce(0, inputs, of_output[outputs], "amin")
    number, inverse, wide = torch.unique(of_input[readers > 0], return_inverse=True, return_counts=True)
    if len(number) * width * length != len(inputs) or not bool((wide == width).all()):
        return None
    if not torch.equal(of_input[inputs], of_output[outputs]):
        return None
    used, using = (n.nonzero().flatten() for n in (readers, read))
    ordered = used[inverse.argsort(stable=True)], using[of_output[using].argsort(stable=True)]
    row, column = (torch.empty(n, dtype=torch.long, device=inputs.device) for n in shape)
    for place, order in ((row, ordered[0]), (column, ordered[1])):
        place[order] = torch.arange(len(order), device=inputs.device)
    dense = torch.full_like(sparse.values, torch.nan)
    dense[row[inputs] * length + column[outputs] % length] = sparse.values
    return None if bool(dense.isnan().any()) else Blocks(dense.view(len(number), width, length), *ordered, shape[0])
