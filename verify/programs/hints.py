"""What duals of the triangle relaxation say of its ReLUs: slopes of lines below, and multipliers of splits.

Of a ReLU a = max(z, 0) the rows of its triangle pass on to z what comes to a, times the slope of the line above it
where that is negative, and of some line below it where it is not (Wong, Kolter 2018, arXiv:1711.00851). Which line that
is, is all that duals decide, and how much a split takes off. :mod:`assay.verify.check.checker` reads nothing else, and
believes none of it: duals that are wrong, or that say more than lines can, make its bounds weak.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from assay.verify.bounds.relaxations.relax import relaxes
from assay.verify.core.ops import LeakyRelu, Relu
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall

if TYPE_CHECKING:  # what writes proofs of easy answers loads no programs
    from assay.verify.programs.encode import UnstableNeurons
    from assay.verify.programs.program import Index, Matrix, Vector

Array = NDArray[Any]


def recordable(problem: Problem) -> bool:
    """Whether proofs of a problem can be written: about a box or a ball, by ReLUs alone."""
    relu = all(isinstance(n.op, (Relu, LeakyRelu)) or not relaxes(n.op) for n in problem.network.nodes[1:])
    return relu and isinstance(problem.region, (Box, LpBall))


@dataclass(frozen=True, eq=False)
class Passed:
    """What comes to the values of neurons, ``above``, and what is passed on to their operands, ``below``:
    (vectors x neurons) each."""

    above: Vector
    below: Vector

    @classmethod
    def of(cls, neurons: UnstableNeurons, matrix: Matrix, duals: Vector, cost: Vector) -> Passed:
        """By ``duals`` (vectors x rows) of a program with the encoding's rows, ``matrix`` (rows x columns), that
        minimises ``cost`` (columns, or vectors x columns)."""
        rest = cost[..., neurons.a] - (matrix[:, neurons.a].T @ duals.T).T
        return cls.by_rows(rest, duals[:, neurons.above], duals[:, neurons.chord], slopes_above(neurons, matrix))

    @classmethod
    def by_rows(cls, rest: Vector, floor: Vector, chord: Vector, slope: Vector) -> Passed:
        """``rest``: the reduced costs of a; ``floor`` and ``chord``: the multipliers of a >= z and of a - s z <= t, all
        (vectors x neurons); ``slope``: s (neurons)."""
        return cls(rest + floor + chord, floor + slope * chord)

    def slopes(self) -> Vector:
        """Of the lines below neurons that are not split: (vectors x neurons)."""
        share = np.divide(self.below, self.above, out=np.zeros_like(self.below), where=self.above > 0)
        slopes: Vector = np.clip(np.nan_to_num(share), 0.0, 1.0)
        return slopes


def slopes_above(neurons: UnstableNeurons, matrix: Matrix) -> Vector:
    """The slope of the line above each neuron: (neurons)."""
    if not len(neurons):
        return np.zeros(0)
    slopes: Vector = -np.asarray(matrix[neurons.chord, neurons.z]).ravel()
    return slopes


def leaky(problem: Problem, neurons: UnstableNeurons) -> Vector:
    """The slope of each neuron's operation below 0: (neurons)."""
    by_node = np.array([n.op.slope if isinstance(n.op, LeakyRelu) else 0.0 for n in problem.network.nodes])
    slopes: Vector = by_node[neurons.position]
    return slopes


def single(value: Vector) -> Array:
    """In float32, the nearest that there is."""
    most = float(np.finfo(np.float32).max)
    return np.clip(np.nan_to_num(value), -most, most).astype(np.float32)


def differences(slopes: Array) -> Array:
    """Slopes of leaves as a tree has them: bytes as the differences to the leaf before (leaves x neurons)."""
    return np.diff(slopes, axis=0, prepend=np.uint8(0)) if slopes.dtype == np.uint8 else slopes


def summed(slopes: Array) -> Array:
    """What :func:`differences` was made of."""
    return np.add.accumulate(slopes, dtype=np.uint8) if slopes.dtype == np.uint8 else slopes


def tree(codes: Array, slopes: Array, multipliers: Array, weights: Array) -> dict[str, Array]:
    """A tree as the checker reads it, in which no bounds are tightened."""
    none = np.zeros(0, np.int32)
    return {
        "tree": codes.astype(np.int32),
        "slopes": slopes,
        "multipliers": multipliers,
        "weights": weights,
        "tighter/at": none,
        "tighter/rows": none,
        "tighter/neurons": none,
        "tighter/slopes": np.zeros((0, slopes.shape[1]), np.uint8),
        "tighter/multipliers": np.zeros(0, np.float16),
        "tighter/weights": np.zeros(0, np.float16),
    }


@dataclass(frozen=True, eq=False)
class Layer:
    """Bounds of the operands of the activation at a ``position``: the ``features``, and the ``slopes`` that prove all
    lower ones, and then all upper ones (rows x neurons before it)."""

    position: int
    features: Index
    slopes: Array


def document(
    problem: Problem,
    kind: str,
    neurons: UnstableNeurons,
    trees: Mapping[int, Mapping[str, Array]],
    layers: Mapping[int, Layer],
) -> dict[str, Any]:
    """A certificate as plain data, in the words of :meth:`assay.verify.backends.bab.neurons.record.Record.document`:
    ``trees`` by disjunct, ``layers`` by position."""
    nodes = problem.network.nodes
    at = [i for i, node in enumerate(nodes) if isinstance(node.op, (Relu, LeakyRelu))]
    begin = np.zeros(len(nodes), np.int64)
    begin[at] = np.cumsum([0, *(nodes[i].size for i in at)])[:-1]
    return {
        "kind": kind,
        "version": 1,
        "network": problem.network.id,
        "relus": [nodes[i].size for i in at],
        "listed": _tensor((begin[neurons.position] + neurons.feature).astype(np.int32)),
        "finer": {},
        "layers": {
            str(number): {
                "neurons": _tensor(layers[position].features.astype(np.int32)),
                "slopes": _tensor(layers[position].slopes),
            }
            for number, position in enumerate(at)
            if position in layers
        },
        "trees": {str(d): {name: _tensor(array) for name, array in of.items()} for d, of in sorted(trees.items())},
    }


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
