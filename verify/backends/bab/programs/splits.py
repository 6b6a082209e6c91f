"""A network's relaxation in the form that is split, and bounds of it that are proved from duals.

The operand of an unstable ReLU is the difference of two parts that are not negative, z = a - p, of which a is the
value. The triangle over [l, u] is then one row, the chord, a / u - p / l <= 1, and a split fixes one column at 0: p
where the neuron is active, a where it is not. A jump is split as a neuron is: its columns a and p, which add up to 1,
say on which side of it the operand is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from assay.verify.programs.dual import safe_bounds
from assay.verify.programs.encode import Encoding, UnstableNeurons
from assay.verify.programs.jumps import Jumps
from assay.verify.programs.program import Index, Program, Vector
from assay.verify.programs.start import BASIC, LOWER, Start, start

# One number for each unstable neuron: OPEN, or the phase that a split has put it into.
Phases = NDArray[np.int8]

INACTIVE, OPEN, ACTIVE = -1, 0, 1
CHUNK = 1 << 22  # numbers in the largest array of a batch of proofs


@dataclass(frozen=True, eq=False)
class Splits:
    """A relaxed ``program`` without rests, and the columns ``a`` and ``p`` of its unstable neurons and, after them, of
    its ``jumps`` (splits); their phases are all that nodes of a tree differ by. ``chord``: rows (neurons).

    ``source`` is the program of the encoding's ``neurons`` that it was made from, with rows ``above`` that say
    a - z >= 0. An operand that is no
    other neuron's and no input gives its column to p, and the row is ``dropped`` (rows of the source); for others
    (``shared``) p is a new column, and the row becomes a - z - p = 0.
    """

    program: Program
    source: Program
    neurons: UnstableNeurons
    jumps: Jumps
    a: Index
    p: Index
    chord: Index
    above: Index
    dropped: NDArray[np.bool_]
    shared: NDArray[np.bool_]

    @classmethod
    def of(cls, encoding: Encoding, source: Program) -> Splits:
        """``source``: the encoding's program, of a disjunct or as it is."""
        neurons, (height, width) = encoding.neurons, source.matrix.shape
        inputs = encoding.inputs[encoding.inputs >= 0]
        used = np.bincount(np.concatenate([neurons.z, neurons.a, inputs]), minlength=width)
        shared = used[neurons.z] > 1
        own, others = np.flatnonzero(~shared), np.flatnonzero(shared)
        p = neurons.z.copy()
        p[others] = width + np.arange(len(others))
        # The columns of the source in terms of the new ones: z = a - p.
        one = np.arange(width)
        sign = np.ones(width)
        sign[p[own]] = -1.0
        entries = np.concatenate([sign, np.ones(len(own))])
        places = np.concatenate([one, neurons.z[own]]), np.concatenate([one, neurons.a[own]])
        change = sparse.csr_array((entries, places), shape=(width, width + len(others)))
        minus_p = sparse.csr_array(
            (-np.ones(len(others)), (neurons.above[others], p[others])), shape=(height, width + len(others))
        )
        dropped = np.zeros(height, dtype=bool)
        dropped[neurons.above[own]] = True
        row_upper = source.row_upper.copy()
        row_upper[neurons.above[others]] = 0.0
        lower = np.concatenate([source.lower, np.zeros(len(others))])
        upper = np.concatenate([source.upper, np.zeros(len(others))])
        lower[p], upper[p] = 0.0, -source.lower[neurons.z]
        cost = source.cost @ change
        program = replace(
            source,
            matrix=sparse.csr_array((source.matrix @ change + minus_p)[~dropped]),
            row_lower=source.row_lower[~dropped],
            row_upper=row_upper[~dropped],
            lower=lower,
            upper=upper,
            integer=np.zeros(len(lower), dtype=bool),
            cost=cost,
            rests=None,
        )
        row, jumps = np.cumsum(~dropped) - 1, encoding.jumps
        jumps = replace(jumps, over=row[jumps.over], under=row[jumps.under])
        a, p = np.concatenate([neurons.a, jumps.a]), np.concatenate([p, jumps.p])
        return cls(program, source, neurons, jumps, a, p, row[neurons.chord], neurons.above, dropped, shared)

    def __len__(self) -> int:
        return len(self.a)

    def cost(self, cost: Vector) -> Vector:
        """A cost vector of the source (its columns) as one of the program: (columns)."""
        changed = np.concatenate([cost, np.zeros(int(self.shared.sum()))])
        a, p = (columns[: len(self.neurons)][~self.shared] for columns in (self.a, self.p))
        changed[a] += cost[p]
        changed[p] = -cost[p]
        return changed

    @cached_property
    def width(self) -> Vector:
        """What a and p come to together at most: of a neuron the range of its operand (splits)."""
        range_: Vector = self.program.upper[self.a] + self.program.upper[self.p]
        return range_

    @cached_property
    def intercept(self) -> Vector:
        """The intercept of each unstable neuron's chord: (neurons)."""
        height: Vector = self.program.row_upper[self.chord]
        return height

    def costs(self, duals: Vector) -> Vector:
        """What ``duals`` (rows) say that each relaxation costs: (splits)."""
        chords, jumps, size = np.abs(duals[self.chord]) * self.intercept, self.jumps, np.abs(duals)
        return np.concatenate([chords, size[jumps.over] * jumps.height + size[jumps.under] * jumps.depth])

    def wrong(self, x: Vector) -> Vector:
        """By how much each neuron's value differs from its operand's ReLU at ``x`` (columns), and each jump is between
        its sides: (splits)."""
        difference: Vector = np.minimum(x[self.a], x[self.p])
        return difference

    def phases(self, x: Vector) -> Phases:
        """The phases at a point (columns) that nothing is wrong at: (splits)."""
        return np.where(x[self.a] > x[self.p], ACTIVE, INACTIVE).astype(np.int8)

    def upper(self, phases: Phases) -> Vector:
        """Upper bounds of the columns where neurons are in these phases: (... x neurons) to (... x columns)."""
        upper = np.broadcast_to(self.program.upper, (*phases.shape[:-1], len(self.program.upper))).copy()
        for columns, phase in ((self.a, INACTIVE), (self.p, ACTIVE)):
            upper[..., columns] = np.where(phases == phase, 0.0, upper[..., columns])
        return upper

    def begin(self, cost: Vector) -> Start | None:
        """The basis of CROWN's lines for a cost vector of the source (its columns); None if it tells of none."""
        basis = start(self.source, cost)
        if basis is None:
            return None
        others = int(self.shared.sum())
        columns = np.concatenate([basis.columns, np.full(others, LOWER, dtype=np.int8)])
        rows = basis.rows.copy()
        p = self.p[: len(self.neurons)]
        columns[p] = np.where(rows[self.above] == BASIC, BASIC, LOWER)  # where a is not z, p is not 0
        rows[self.above[self.shared]] = LOWER
        return Start(columns, rows[~self.dropped], basis.duals[~self.dropped])

    def proved(self, phases: Phases, duals: Vector, cost: Vector, offset: float) -> Vector:
        """Lower bounds of ``cost @ x + offset`` at nodes, whatever their duals are worth; -inf where there is none.

        ``phases`` (nodes x neurons), ``duals`` (nodes x rows), ``cost`` (columns); result (nodes). Where the cost is
        zero a positive bound proves that there is no point. These are the cautious bounds of
        :func:`assay.verify.programs.dual.safe_bounds`.
        """
        step = max(1, CHUNK // (len(cost) + 1))
        parts = [
            safe_bounds(self.program, duals[i : i + step], cost, offset, self.upper(phases[i : i + step])).cautious
            for i in range(0, len(phases), step)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)
