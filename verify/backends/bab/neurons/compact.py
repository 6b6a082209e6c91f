"""A relaxed network cut down to the features that can matter, as matrices that lead from activation to activation.

An input that cannot vary, and a ReLU that is inactive on all of the region, are left out; the box becomes the unit
cube. Between activations everything is affine, and is multiplied out. Values are columns: (features x domains).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from assay.verify.bounds.relaxations.relax import relaxes
from assay.verify.bounds.relaxed import Relaxed, middle_and_radius
from assay.verify.bounds.rounding import DOUBLE, largest
from assay.verify.core.network import Network
from assay.verify.core.ops import LeakyRelu, Op, Relu, evaluate
from assay.verify.core.roundings import magnitude, terms
from assay.verify.core.verifier import Bounds
from assay.verify.programs.expressions import Expression, as_array, express, is_affine, of_columns
from assay.verify.programs.program import Index, Matrix, Vector
from assay.verify.support.floats import down, gamma

STEPS = 8  # roundings that each node of a network can add to a sum, beside those of its products
FEW = 64  # more than all others that a bound takes
GRAIN = DOUBLE.dust / (4 * gamma(FEW))  # a magnitude of which rounding is at least what products lose that underflow


@dataclass(frozen=True, eq=False)
class Affine:
    """Values ``sum of matrix_j @ a_j + bias``: ``matrices`` by the layer j of the operands, layer 0 being the inputs;
    bias (values). ``size``: what the terms of each value come to without their signs (values)."""

    matrices: dict[int, Matrix]
    bias: Vector
    size: Vector

    def of_features(self, index: Index) -> Affine:
        """The values at ``index`` alone, numbers."""
        matrices = {j: sparse.csr_array(m[index]) for j, m in self.matrices.items()}
        return Affine(matrices, self.bias[index], self.size[index])

    def reading(self, columns: Sequence[Index]) -> Affine:
        """The same, of these features of each layer, numbers, which are all that is read; and of all inputs."""
        matrices = {j: sparse.csr_array(m[:, columns[j - 1]]) if j else m for j, m in self.matrices.items()}
        return replace(self, matrices=matrices)

    def weighed(self, A: Vector, b: Vector) -> Affine:
        """``A @ values - b``: A (rows x values), b (rows)."""
        matrices = {j: sparse.csr_array(sparse.csr_array(A) @ m) for j, m in self.matrices.items()}
        return Affine(matrices, A @ self.bias - b, np.abs(A) @ self.size + np.abs(b))

    def half(self, number: int, side: float) -> Affine:
        """The values over a half of the cube as those over a cube, the middle of that input being at ``side``. Halving
        is exact; the constants round once."""
        if 0 not in self.matrices:
            return self
        matrix = self.matrices[0]
        scale = np.ones((1, matrix.shape[1]))
        scale[0, number] = abs(side)
        moved = self.bias + side * matrix[:, [number]].toarray()[:, 0]
        return replace(self, matrices={**self.matrices, 0: sparse.csr_array(matrix.multiply(scale))}, bias=moved)


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of activations max(z, left * z): the ``position`` of the operation and the ``features`` that are kept,
    of which the first ``unstable`` can be on both sides of the kink. ``operand``: z; ``lower``, ``upper``: of z, at the
    root (features)."""

    position: int
    features: Index
    unstable: int
    left: float
    operand: Affine
    lower: Tensor
    upper: Tensor

    def reached(self, rows: Index, columns: Sequence[Index]) -> Layer:
        """These of its features, in order, numbers; of the layers before it these are left, see :meth:`reading`."""
        operand = self.operand.of_features(rows).reading(columns)
        index = torch.from_numpy(rows)
        unstable = int((rows < self.unstable).sum())
        return Layer(
            self.position, self.features[rows], unstable, self.left, operand, self.lower[index], self.upper[index]
        )

    def half(self, number: int, side: float, share: float) -> Layer:
        """Over a half of the cube. Operands of inputs alone are bounded anew, a ``share`` of their size being lost."""
        operand = self.operand.half(number, side)
        if set(operand.matrices) != {0}:
            return replace(self, operand=operand)
        reach = np.abs(operand.matrices[0]).sum(1)
        reach += share * (operand.size + np.abs(operand.bias) + reach) + DOUBLE.dust
        middle, reach = torch.from_numpy(operand.bias), torch.from_numpy(reach)
        lower, upper = self.lower.clone(), self.upper.clone()
        every = torch.arange(len(lower)).repeat(2)
        below = torch.arange(len(every)) < len(lower)
        narrow(lower, upper, every, below, torch.cat([down(middle - reach), down(-middle - reach)]))
        return replace(self, operand=operand, lower=lower, upper=upper)


@dataclass(frozen=True, eq=False)
class Compact:
    """``layers``, counted from 1, over the unit cube of so many ``inputs``; ``output``: of the network, all of it.

    ``varied``: which features of the input these are; ``centre``, ``radius``: of all inputs (inputs). ``share``: bound
    on the relative error of any sum of products in a bound; with the magnitudes of what is summed, that is its error.
    """

    layers: tuple[Layer, ...]
    output: Affine
    varied: Index
    centre: Tensor
    radius: Tensor
    share: float

    @classmethod
    def of(cls, relaxed: Relaxed) -> Compact:
        """From a network relaxed over the box of one sample, in float64. Raises MemoryError for convolutions that are
        too large to be written out."""
        network = relaxed.network
        box = Bounds(relaxed.bounds[0].lower.flatten(), relaxed.bounds[0].upper.flatten())
        centre, radius = middle_and_radius(box)
        varied = np.flatnonzero(as_array(radius) > 0)
        cube = sparse.csr_array(
            (as_array(radius)[varied], (varied, np.arange(len(varied)))), shape=(len(centre), len(varied))
        )
        values, sizes = [Expression(cube, as_array(centre))], [largest(relaxed.bounds[0])]
        layers: list[Layer] = []
        begins = [0, len(varied)]  # where the columns of each layer begin
        for position, node in enumerate(network.nodes[1:], start=1):
            operands = [values[i] for i in node.inputs]
            if not relaxes(node.op):
                shapes = [network.nodes[i].shape for i in node.inputs]
                values.append(express(node.op, node.shape, shapes, *operands))
                # What underflows here may be worth a lot once it has been multiplied with what follows.
                sizes.append(evaluate(magnitude(node.op), *(sizes[i] for i in node.inputs)) + GRAIN)
                continue
            z = relaxed.operand(position)
            lower, upper = z.lower[0], z.upper[0]
            features, unstable, left = _kept(node.op, lower, upper)
            size = _counted(sizes[node.inputs[0]])
            operand = _affine(operands[0].take(features), size[features], begins)
            index = torch.from_numpy(features)
            layers.append(Layer(position, features, unstable, left, operand, lower[index], upper[index]))
            columns = np.full(node.size, -1, dtype=np.int64)
            columns[features] = begins[-1] + np.arange(len(features))
            begins.append(begins[-1] + len(features))
            values.append(of_columns(columns, np.zeros(node.size)))
            sizes.append(largest(relaxed.bounds[position]))
        output = _affine(values[-1], _counted(sizes[-1]), begins)
        longest = sum(terms(node.op) + STEPS + len(node.inputs) for node in network.nodes[1:])
        longest += begins[-1] + network.output_size + FEW
        return cls(tuple(layers), output, varied, centre, radius, 4 * gamma(longest))

    @property
    def unstable(self) -> int:
        """How many neurons are unstable in all."""
        return sum(layer.unstable for layer in self.layers)

    @property
    def starts(self) -> list[int]:
        """Where the unstable neurons of each layer begin among those of all; at the end, how many there are."""
        return [0, *np.cumsum([layer.unstable for layer in self.layers]).tolist()]

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds of the operands of the unstable neurons at the root: (unstable) each."""
        lower, upper = (
            torch.cat([getattr(layer, side)[: layer.unstable] for layer in self.layers])
            if self.layers
            else torch.zeros(0, dtype=torch.float64)
            for side in ("lower", "upper")
        )
        return lower, upper

    def point(self, corner: Tensor) -> Tensor:
        """Corners of the unit cube (varied inputs x domains) as inputs: (domains x inputs)."""
        point = self.centre.expand(corner.shape[1], -1).clone()
        index = torch.from_numpy(self.varied)
        point[:, index] += corner.T.to(point) * self.radius[index]
        return point

    def before(self, number: int, wanted: Tensor, lower: Tensor, upper: Tensor) -> tuple[Compact, Tensor]:
        """What can matter of the network before a layer, by number, to the operands that are ``wanted`` of it, numbers:
        these are its output. And which of the unstable neurons, within these bounds (unstable each), are left."""
        begin, operand = self.starts[number], self.layers[number].operand
        part = replace(self, layers=self.layers[:number], output=operand.of_features(wanted.numpy()))
        return part.cut(lower[:begin], upper[:begin], torch.zeros(begin, dtype=torch.bool))

    def reached(self, wanted: Tensor) -> tuple[Compact, Tensor]:
        """What these values of the output depend on, by number, which are all of it then; and which of the unstable
        neurons are left, by number. Of an image a few places of the next one read a window."""
        output = self.output.of_features(wanted.numpy())
        read = [np.zeros(len(layer.features), dtype=bool) for layer in self.layers]
        columns: list[Index] = []
        for values in (output, *(layer.operand for layer in self.layers[::-1])):
            rows = columns[0] if columns else slice(None)
            for j, matrix in values.matrices.items():
                if j:
                    read[j - 1][matrix[rows].indices] = True
            if len(columns) < len(self.layers):
                columns.insert(0, read[len(self.layers) - 1 - len(columns)].nonzero()[0])
        if all(features.all() for features in read):
            return replace(self, output=output), torch.arange(self.unstable)
        layers = tuple(layer.reached(rows, columns) for layer, rows in zip(self.layers, columns, strict=True))
        begins = zip(self.layers, self.starts, columns, strict=False)
        index = [torch.from_numpy(begin + rows[rows < layer.unstable]) for layer, begin, rows in begins]
        part = replace(self, layers=layers, output=output.reading(columns))
        return part, torch.cat([*index, torch.zeros(0, dtype=torch.int64)])

    def halves(self, number: int) -> tuple[Compact, Compact]:
        """Over both halves of the cube along one of the varied inputs, by number."""
        return self._half(number, -0.5), self._half(number, 0.5)

    def _half(self, number: int, side: float) -> Compact:
        share, at = self.share + 4 * gamma(1), int(self.varied[number])
        centre, radius = self.centre.clone(), self.radius.clone()
        centre[at] += side * radius[at]
        radius[at] *= abs(side)
        layers = tuple(layer.half(number, side, share) for layer in self.layers)
        output = self.output.half(number, side)
        return replace(self, layers=layers, output=output, centre=centre, radius=radius, share=share)

    def cut(self, lower: Tensor, upper: Tensor, kept: Tensor) -> tuple[Compact, Tensor]:
        """What is left where the unstable neurons' operands are within tighter bounds (unstable each), and which of the
        unstable ones (before) are so still (numbers). Those that are ``kept`` (unstable) stay in any case."""
        layers: list[Layer] = []
        columns: list[Index] = [np.arange(len(self.varied))]
        index: list[Tensor] = []
        for layer, begin in zip(self.layers, self.starts, strict=False):
            here = slice(begin, begin + layer.unstable)
            low, high, held = lower[here], upper[here], kept[here]
            open_ = ~((low >= 0) | (high <= 0)) | held  # what has no bounds is unstable
            active = ~open_ & ((low >= 0) if layer.left == 0.0 else torch.ones_like(open_))
            first, second = (t.nonzero().flatten() for t in (open_, active))
            rest = torch.arange(layer.unstable, len(layer.features))
            order = torch.cat([first, second, rest])
            new_lower, new_upper = (
                torch.cat([t[here], old[layer.unstable :]])[order]
                for t, old in ((lower, layer.lower), (upper, layer.upper))
            )
            matrices = {j: sparse.csr_array(m[order.numpy()][:, columns[j]]) for j, m in layer.operand.matrices.items()}
            operand = Affine(matrices, layer.operand.bias[order.numpy()], layer.operand.size[order.numpy()])
            layers.append(
                replace(
                    layer,
                    features=layer.features[order.numpy()],
                    unstable=len(first),
                    operand=operand,
                    lower=new_lower,
                    upper=new_upper,
                )
            )
            columns.append(order.numpy())
            index.append(begin + first)
        out = {j: sparse.csr_array(m[:, columns[j]]) for j, m in self.output.matrices.items()}
        left = torch.cat(index) if index else torch.zeros(0, dtype=torch.int64)
        return replace(self, layers=tuple(layers), output=replace(self.output, matrices=out)), left


def narrow(lower: Tensor, upper: Tensor, at: Tensor, below: Tensor, least: Tensor) -> None:
    """Take into ``lower`` and ``upper`` (operands each) lower bounds ``least`` of operands ``at`` these numbers, or of
    their opposites where not ``below`` (bounds each). One that crosses what is known, which is a fault's or rounding's
    doing, is not taken."""
    first, second, low, high = at[below], at[~below], least[below], -least[~below]
    lower[first] = torch.where(low <= upper[first], torch.fmax(lower[first], low), lower[first])
    upper[second] = torch.where(high >= lower[second], torch.fmin(upper[second], high), upper[second])


def unsplit(network: Network) -> str | None:
    """Which operations keep a network from being written so, in one line; None if none does."""
    bad = sorted({n.op.label for n in network.nodes[1:] if not (is_affine(n.op) or _is_kink(n.op))})
    return f"no splits for {', '.join(bad)}" if bad else None


def _is_kink(op: Op) -> bool:
    return isinstance(op, Relu) or (isinstance(op, LeakyRelu) and 0 <= op.slope <= 1)


def _kept(op: Op, lower: Tensor, upper: Tensor) -> tuple[Index, int, float]:
    """The features that can matter, unstable ones first, how many these are, and the slope on the left."""
    left = op.slope if isinstance(op, LeakyRelu) else 0.0
    stable = lower >= 0 if left == 0.0 else (lower >= 0) | (upper <= 0)
    unknown = ~((lower >= 0) | (upper <= 0))  # what has no bounds is unstable
    first, rest = (t.nonzero().flatten().numpy() for t in (unknown, stable))
    return np.concatenate([first, rest]), len(first), left


def _counted(size: Tensor) -> Vector:
    """Magnitudes (1 x shape), flattened; NaN, which decides nothing, beyond what can be counted."""
    return as_array(torch.where(size < DOUBLE.beyond, size, torch.nan).flatten())


def _affine(values: Expression, size: Vector, begins: Sequence[int]) -> Affine:
    """Expressions of all columns so far, by the layers that the columns belong to."""
    matrix = sparse.csc_array(values.over(begins[-1]).matrix)
    parts = {j: sparse.csr_array(matrix[:, begins[j] : begins[j + 1]]) for j in range(len(begins) - 1)}
    return Affine({j: part for j, part in parts.items() if part.nnz}, values.constant, size)
