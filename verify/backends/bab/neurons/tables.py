"""A compact network in one precision: the matrices that lead from layer to layer, both ways, and where walks along
them put what they find."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from scipy import sparse
from torch import Tensor

from assay.verify.backends.bab.neurons.compact import Affine, Compact, Layer
from assay.verify.backends.bab.neurons.products import Product, Space
from assay.verify.programs.program import Matrix, Vector

NEAR = 5 << 19  # numbers of a walk that stay near while it is repeated: with more, memory takes most of the time


@dataclass(frozen=True, eq=False)
class Map:
    """A matrix (values x operands) and its transpose; the rows of each in two parts, those of unstable neurons and the
    rest. Of ``signs`` operands are less what is given."""

    forward: tuple[Product, Product]
    backward: tuple[Product, Product]
    signs: bool

    @classmethod
    def of(cls, matrix: Matrix, values: int, operands: int, signs: bool, dtype: torch.dtype, space: Space) -> Map:
        """Of a sparse matrix; of its values so many are unstable neurons', and of its operands."""

        def parts(whole: Matrix, count: int) -> tuple[Product, Product]:
            return Product(whole[:count], dtype, space), Product(whole[count:], dtype, space)

        return cls(parts(matrix, values), parts(sparse.csr_array(matrix.T), operands), signs)

    def push(self, x: Tensor, into: tuple[Tensor, Tensor]) -> None:
        """Add the values of ``x`` (operands x domains) to those in ``into`` (values x domains), in parts."""
        for part, values in zip(self.forward, into, strict=True):
            if part.rows:
                part.add(x, values, -1.0 if self.signs else 1.0)

    def pull(self, coef: Tensor, into: tuple[Tensor, Tensor], first: bool) -> None:
        """Coefficients of values (values x domains) as those of operands, in parts, added to ``into`` unless they are
        the ``first``."""
        for part, operands in zip(self.backward, into, strict=True):
            if part.rows:
                (part.put if first else part.add)(coef, operands)


class Room:
    """What a walk of some rows finds: ``seen``, the coefficients at the unstable neurons, what of them is ``positive``,
    the lines ``slope * z + height`` that they take, and ``operand``, z itself: (unstable x rows) each; ``layers``: the
    features of each layer (features x rows); ``at_input``, and a ``spare`` one (varied inputs x rows).

    By the layer: ``pulled``, where coefficients go, those of unstable neurons and the rest, of the input first;
    ``pushed``, where operands go, likewise; ``lines``: what of ``seen``, ``positive``, ``slope``, ``height`` and
    ``layers`` belongs to the unstable neurons.
    """

    def __init__(self, tables: Tables, rows: int, memory: Tensor) -> None:
        compact, counts = tables.compact, tables.unstable
        sizes = [
            *5 * [compact.unstable],
            *2 * [len(compact.varied)],
            *(len(layer.features) for layer in compact.layers),
        ]
        parts = torch.split(memory[: rows * sum(sizes)], [rows * size for size in sizes])
        views = [part.view(size, rows) for part, size in zip(parts, sizes, strict=True)]
        self.seen, self.positive, self.slope, self.height, self.operand, self.at_input, self.spare = views[:7]
        self.layers = views[7:]
        tops = [layer[:count] for layer, count in zip(self.layers, counts, strict=True)]
        rest = [layer[count:] for layer, count in zip(self.layers, counts, strict=True)]
        seen, operand, *lines = map(tables.split, (self.seen, self.operand, self.positive, self.slope, self.height))
        self.pulled = [(self.at_input, self.at_input[:0]), *zip(seen, rest, strict=True)]
        self.pushed = list(zip(operand, rest, strict=True))
        self.lines = list(zip(seen, *lines, tops, strict=True))

    @staticmethod
    def size(compact: Compact) -> int:
        """Numbers that a row takes."""
        return 5 * compact.unstable + 2 * len(compact.varied) + sum(len(layer.features) for layer in compact.layers)


@dataclass(frozen=True, eq=False)
class Tables:
    """A compact network, and the rows ``A y - b`` of the unsafe set, its ``output``, in one precision."""

    compact: Compact
    output: Affine
    dtype: torch.dtype
    _memory: list[Tensor] = field(default_factory=list, repr=False)
    _rooms: dict[int, Room] = field(default_factory=dict, repr=False)
    _space: Space = field(default_factory=Space, repr=False)

    @cached_property
    def maps(self) -> list[dict[int, Map]]:
        """The matrices of each layer, of the output last, by the layer of their operands; where that is the input they
        take signs of coefficients there for the corner that is least, which is opposite."""
        counts = [len(self.compact.varied), *(layer.unstable for layer in self.compact.layers), 0]
        return [
            {j: Map.of(m, counts[k], counts[j], j == 0, self.dtype, self._space) for j, m in part.matrices.items()}
            for k, part in enumerate(self.parts, start=1)
        ]

    @cached_property
    def bias(self) -> list[Tensor]:
        """The constants of each layer's operands, of the output last: (features x 1) each."""
        return [self._column(part.bias) for part in self.parts]

    @cached_property
    def at_zero(self) -> Tensor:
        """The constants of the unstable neurons' operands: (unstable x 1)."""
        parts = [bias[:count] for bias, count in zip(self.bias, self.unstable, strict=False)]
        return torch.cat([*parts, torch.zeros(0, 1, dtype=self.dtype)])

    @cached_property
    def size(self) -> list[Tensor]:
        """The magnitudes that these have: (features x 1) each."""
        return [self._column(part.size) for part in self.parts]

    @cached_property
    def at_kinks(self) -> Tensor:
        """The magnitudes of the unstable neurons' operands: (unstable)."""
        parts = [size[:count, 0] for size, count in zip(self.size, self.unstable, strict=False)]
        return torch.cat([*parts, torch.zeros(0, dtype=self.dtype)])

    @cached_property
    def stable(self) -> list[Tensor | None]:
        """The slopes of each layer's stable features (features x 1); None where all are 1."""
        return [None if layer.left == 0.0 else self._slopes(layer) for layer in self.compact.layers]

    @cached_property
    def left(self) -> Tensor | None:
        """The slope below 0 of each unstable neuron (unstable x 1); None where all are 0."""
        if all(layer.left == 0.0 for layer in self.compact.layers):
            return None
        return torch.cat(
            [torch.full((layer.unstable, 1), layer.left, dtype=self.dtype) for layer in self.compact.layers]
        )

    @cached_property
    def unstable(self) -> list[int]:
        """How many neurons of each layer are unstable."""
        return [layer.unstable for layer in self.compact.layers]

    def split(self, values: Tensor) -> tuple[Tensor, ...]:
        """Those of each layer's unstable neurons: values (unstable x rows)."""
        return torch.split(values, self.unstable)

    @property
    def near(self) -> int:
        """How many rows at a time are fastest."""
        return max(1, NEAR // max(1, Room.size(self.compact)))

    def room(self, rows: int) -> Room:
        """Room for a walk of so many rows. What was found in another one is gone: they share their memory."""
        if rows not in self._rooms:
            needed = rows * Room.size(self.compact)
            if not self._memory or len(self._memory[0]) < needed:
                self._memory[:] = [torch.empty(needed, dtype=self.dtype)]
                self._rooms.clear()
            self._rooms[rows] = Room(self, rows, self._memory[0])
        return self._rooms[rows]

    def _slopes(self, layer: Layer) -> Tensor:
        active = (layer.lower[layer.unstable :, None] >= 0).to(self.dtype)
        return active + (1 - active) * layer.left

    @property
    def parts(self) -> list[Affine]:
        """The operands of each layer, of the output last."""
        return [*(layer.operand for layer in self.compact.layers), self.output]

    def _column(self, values: Vector) -> Tensor:
        return torch.from_numpy(values).to(self.dtype)[:, None]
