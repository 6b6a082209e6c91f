"""The truth about tiny piecewise-linear networks, in exact rational arithmetic: every activation pattern over a box.

Linear programs are solved in floating point, but nothing they say is believed: a lower bound is what their multipliers
prove by weak duality, worked out in fractions, and an upper bound the network's exact value at a point of the box. The
true optimum lies between the two, which are told apart by next to nothing, or the test that asked fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from highspy import HighsLp, HighsModelStatus, MatrixFormat
from torch import Tensor

from assay.verify.core.network import Network, content_hash
from assay.verify.core.ops import Gather, LeakyRelu, Max, Op, Relu, evaluate
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, Polytope
from assay.verify.programs.solvers.highs import made
from tests.dyadic import Dyadic

# An array of Dyadics. Affine functions of the inputs are its last axis: the constant, then one slope an input.
Exact = np.ndarray[Any, np.dtype[np.object_]]

MOST = 12  # neurons that may be open at once
ZERO, ONE = Dyadic(0), Dyadic(1)


def fractions(values: Tensor) -> np.ndarray[Any, np.dtype[np.object_]]:
    """A tensor's values as Fractions, in its shape."""
    return _listed([Fraction(v) for v in values.double().flatten().tolist()]).reshape(tuple(values.shape))


def dyadics(values: Tensor) -> Exact:
    """A tensor's values, exactly, in its shape."""
    return _listed([Dyadic.of(v) for v in values.double().flatten().tolist()]).reshape(tuple(values.shape))


def _listed(values: list[Any]) -> np.ndarray[Any, np.dtype[np.object_]]:
    return np.array([*values, None], dtype=object)[:-1]


# The network, exactly.


@dataclass(frozen=True, eq=False)
class Range:
    """A box, exactly: lower and upper bounds of the inputs."""

    lower: Exact
    upper: Exact

    @classmethod
    def of(cls, box: Box) -> Range:
        return cls(dyadics(box.lower.flatten()), dyadics(box.upper.flatten()))

    @cached_property
    def samples(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Some points, in floating point: (points x inputs)."""
        low, high = self.lower.astype(float), self.upper.astype(float)
        return low + np.random.default_rng(0).random((256, len(low))) * (high - low)

    def least(self, f: Exact) -> Exact:
        """The least values of affine functions (... x 1 + inputs): (...)."""
        slope = f[..., 1:]
        ends = np.where(slope > 0, self.lower, self.upper)
        least: Exact = f[..., 0] + (slope * ends).sum(-1)
        return least

    def greatest(self, f: Exact) -> Exact:
        greatest: Exact = -self.least(-f)
        return greatest


@dataclass(frozen=True, eq=False)
class Piece:
    """Where all of ``conditions`` (k x 1 + inputs) are at most 0, the network's output is ``output`` (outputs x 1 +
    inputs)."""

    output: Exact
    conditions: Exact


@lru_cache(maxsize=256)
def _linear_part(op: Op, shape: tuple[int, ...]) -> tuple[Exact, Exact]:
    """Matrix (outputs x inputs) and constant (outputs) of an affine operation, read off from its value at unit vectors.

    A sum with one product in it is exact.
    """
    names = [f.name for f in fields(op) if f.name in ("bias", "shift")]
    homogeneous = replace(op, **{name: torch.zeros_like(getattr(op, name)) for name in names})
    if isinstance(op, Gather):
        homogeneous = replace(op, fill=0.0)
    size = torch.Size(shape).numel()
    columns = evaluate(homogeneous, torch.eye(size, dtype=torch.float64).view(size, *shape)).flatten(1)
    return dyadics(columns.T), dyadics(evaluate(op, torch.zeros(1, *shape, dtype=torch.float64)).flatten())


def _affine(op: Op, node_shape: tuple[int, ...], operands: Sequence[Exact]) -> Exact:
    """The value of an operation that chooses nothing, of functions (shape of a sample x 1 + inputs)."""
    if len(operands) > 1:
        # Add, Sub and Concat treat each coefficient by itself: find out what they do to the operands' numbers.
        columns = []
        for k in range(len(operands)):
            parts = [torch.zeros(1, *o.shape[:-1], dtype=torch.float64) for o in operands]
            numbers = torch.arange(1.0, 1 + parts[k].numel(), dtype=torch.float64)
            parts[k] = numbers.view_as(parts[k])
            columns.append(evaluate(op, *parts).flatten().long())
        total: Any = 0
        for places, operand in zip(columns, operands, strict=True):
            flat = np.concatenate([np.full((1, operand.shape[-1]), ZERO), operand.reshape(-1, operand.shape[-1])])
            total = total + flat[places.abs().numpy()] * places.sign().numpy()[:, None]
        result: Exact = total
        return result.reshape(*node_shape, -1)
    (x,) = operands
    matrix, constant = _linear_part(op, x.shape[:-1])
    flat = x.reshape(-1, x.shape[-1])
    moved = np.stack([_combined(row, flat) for row in matrix]) if len(matrix) else flat[:0]
    moved[:, 0] = moved[:, 0] + constant
    return moved.reshape(*node_shape, -1)


def _combined(row: Exact, values: Exact) -> Exact:
    used = np.flatnonzero(row)
    combined: Exact = row[used] @ values[used] if len(used) else np.full(values.shape[1], ZERO)
    return combined


def pieces(network: Network, box: Box) -> Iterator[Piece]:
    """The affine pieces of the network (one sample) that cover the box; what is certainly empty is left out."""
    size, region = network.nodes[0].size, Range.of(box)
    start = np.full((size, 1 + size), ZERO)
    for i, (low, high) in enumerate(zip(region.lower, region.upper, strict=True)):
        # An input without width is a constant.
        start[i, 0 if low == high else 1 + i] = low if low == high else ONE

    def walk(values: list[Exact], conditions: list[Exact]) -> Iterator[Piece]:
        position = len(values)
        if position == len(network.nodes):
            yield Piece(values[-1].reshape(-1, size + 1), _stacked(conditions, size))
            return
        node = network.nodes[position]
        operands = [values[i] for i in node.inputs]
        if not isinstance(node.op, (Relu, LeakyRelu, Max)):
            yield from walk([*values, _affine(node.op, node.shape, operands)], conditions)
            return
        for chosen, more in _choices(node.op, operands[0], region, conditions):
            yield from walk([*values, chosen.reshape(*node.shape, -1)], more)

    yield from walk([start.reshape(*network.input_shape, -1)], [])


_covers: dict[str, list[Piece]] = {}


def cover(network: Network, box: Box) -> list[Piece]:
    """All of :func:`pieces`; the last ones are kept for the next question about the same box."""
    key = network.id + box.id
    if key not in _covers:
        if len(_covers) > 8:
            _covers.clear()
        _covers[key] = list(pieces(network, box))
    return _covers[key]


def _stacked(conditions: list[Exact], size: int) -> Exact:
    return np.stack(conditions) if conditions else np.empty((0, size + 1), dtype=object)


def _choices(
    op: Relu | LeakyRelu | Max, z: Exact, region: Range, conditions: list[Exact]
) -> Iterator[tuple[Exact, list[Exact]]]:
    """What an activation's value can be over the box, with the conditions under which it is that: depth first, neuron
    by neuron, leaving out what no point of the box satisfies."""
    if isinstance(op, Max):
        options = z.reshape(-1, *z.shape[-2:])
    else:
        slope = Dyadic.of(op.slope) if isinstance(op, LeakyRelu) else ZERO
        flat = z.reshape(-1, z.shape[-1])
        # max(z, slope * z), or min where the slope is above 1.
        options = np.stack([flat, slope * flat], 1) * (1 if slope <= 1 else -1)
    sign = -1 if isinstance(op, LeakyRelu) and op.slope > 1 else 1

    def decide(chosen: list[Exact], conditions: list[Exact]) -> Iterator[tuple[Exact, list[Exact]]]:
        if len(chosen) == len(options):
            yield np.stack(chosen), conditions
            return
        mine = options[len(chosen)]
        able = _able(mine, region)
        for i in able:
            more = [mine[j] - mine[i] for j in able if j != i]
            if not more or not _empty(conditions, more, region):
                yield from decide([*chosen, sign * mine[i]], [*conditions, *more])

    assert sum(len(_able(mine, region)) > 1 for mine in options) <= MOST, "too many activation patterns for enumeration"
    return decide([], conditions)


def _able(options: Exact, region: Range) -> list[int]:
    """Which of the functions can be the largest somewhere in the box; one that never passes another one is left out."""
    surest = int(np.argmax(region.least(options)))
    best = region.least(options[surest])
    return [i for i, high in enumerate(region.greatest(options)) if high > best or i == surest]


# Linear programs whose answers are proven.


@cache
def _highs() -> Any:
    tolerances = ("primal_feasibility_tolerance", "dual_feasibility_tolerance")
    return made({"output_flag": False, **dict.fromkeys(tolerances, 1e-10)})


def _program(rows: Exact, conditions: Exact, region: Range) -> tuple[Exact | None, Exact, Exact]:
    """min t with rows <= t and conditions <= 0 over the box, in floating point: the point, and the multipliers of rows
    and conditions, as fractions; no point, and multipliers of 0, where the solver finds none."""
    size, count = rows.shape[1] - 1, len(rows) + len(conditions)
    above = np.hstack([rows[:, 1:], -np.ones((len(rows), 1))])
    inside = np.hstack([conditions[:, 1:], np.zeros((len(conditions), 1))])
    lp = HighsLp()
    lp.num_row_, lp.num_col_ = count, size + 1
    lp.col_cost_ = np.eye(size + 1)[-1]
    lp.col_lower_ = np.append(region.lower.astype(float), -np.inf)
    lp.col_upper_ = np.append(region.upper.astype(float), np.inf)
    lp.row_lower_ = np.full(count, -np.inf)
    lp.row_upper_ = -np.concatenate([rows[:, 0], conditions[:, 0]]).astype(float)
    matrix = lp.a_matrix_
    matrix.format_, matrix.num_row_, matrix.num_col_ = MatrixFormat.kRowwise, count, size + 1
    matrix.start_ = np.arange(0, count * (size + 1) + 1, size + 1)
    matrix.index_ = np.tile(np.arange(size + 1), count)
    matrix.value_ = np.vstack([above, inside]).astype(float).flatten()
    highs = _highs()
    highs.passModel(lp)
    highs.run()
    if highs.getModelStatus() != HighsModelStatus.kOptimal:
        return None, np.full(len(rows), ZERO), np.full(len(conditions), ZERO)
    solution = highs.getSolution()
    multipliers = _listed([Dyadic.of(max(-m, 0.0)) for m in solution.row_dual])
    point = _listed([Dyadic.of(v) for v in solution.col_value[:-1]])
    inner = np.minimum(np.maximum(point, region.lower), region.upper)
    return inner, multipliers[: len(rows)], multipliers[len(rows) :]


def _proven(rows: Exact, conditions: Exact, weights: Exact, multipliers: Exact, region: Range) -> Fraction:
    """Weak duality: where the conditions are at most 0, some row is at least this. No weight is < 0, and one is > 0."""
    combined = weights @ rows
    if len(conditions):
        combined = combined + multipliers @ conditions
    least: Any = region.least(combined)
    total: Any = sum(weights, ZERO)
    proven: Fraction = least.fraction / total.fraction
    return proven


def _empty(known: list[Exact], more: list[Exact], region: Range) -> bool:
    """Whether it is proven that no point of the box satisfies all conditions, the known ones and more."""
    if any(region.least(np.stack(more)) > 0):
        return True
    rows = np.stack([*known, *more])
    if bool((region.samples @ rows[:, 1:].T.astype(float) <= -rows[:, 0].astype(float)).all(1).any()):
        return False
    none = rows[:0]
    point, weights, _ = _program(rows, none, region)
    return point is not None and any(weights) and _proven(rows, none, weights, none[:, 0], region) > 0


# What the tests ask.


def value(network: Network, x: Tensor) -> list[Fraction]:
    """The output at one sample (input shape), exactly."""
    return values(network, x)[-1]


def values(network: Network, x: Tensor) -> list[list[Fraction]]:
    """The value of every node at one sample, exactly, flattened."""
    return [[v.fraction for v in node.flatten()] for node in _nodes(network, dyadics(x.flatten()))]


def _nodes(network: Network, x: Exact) -> list[Exact]:
    """The value of every node, (shape of a sample x 1) each, at x (inputs)."""
    nodes = [x.reshape(*network.input_shape, 1)]
    for node in network.nodes[1:]:
        operands = [nodes[i] for i in node.inputs]
        if isinstance(node.op, Max):
            nodes.append(operands[0].max(-2))
        elif isinstance(node.op, (Relu, LeakyRelu)):
            slope = Dyadic.of(node.op.slope) if isinstance(node.op, LeakyRelu) else ZERO
            nodes.append(np.where(operands[0] > 0, operands[0], slope * operands[0]))
        else:
            nodes.append(_affine(node.op, node.shape, operands))
    return nodes


def bracket(network: Network, box: Box | Polytope, rows: Tensor, b: Tensor) -> tuple[Fraction, Fraction]:
    """Two numbers with the true minimum over the box, or a polytope with room in it, of max_i (rows_i @ network(x) -
    b_i) between them.

    rows (k x outputs), b (k), float64.
    """
    if isinstance(box, Polytope):
        return _within(network, box, rows, b)
    region, exact_rows, exact_b = Range.of(box), dyadics(rows), dyadics(b)

    def at(point: Exact) -> Fraction:
        highest: Fraction = max(exact_rows @ _nodes(network, point)[-1].flatten() - exact_b).fraction
        return highest

    corners = torch.rand(8, len(region.lower), generator=torch.Generator().manual_seed(0)).round() > 0
    upper = min(at(np.where(corner.numpy(), region.upper, region.lower)) for corner in corners)
    lower = upper
    for piece in cover(network, box):
        functions = exact_rows @ piece.output
        functions[:, 0] = functions[:, 0] - exact_b
        if max(region.least(functions)).fraction >= upper:
            continue
        point, weights, multipliers = _program(functions, piece.conditions, region)
        if point is not None:
            upper = min(upper, at(point))
        if not any(weights):
            weights = _listed([ONE, *[ZERO] * (len(rows) - 1)])
        lower = min(lower, _proven(functions, piece.conditions, weights, multipliers, region))
    return min(lower, upper), upper


def _within(network: Network, polytope: Polytope, rows: Tensor, b: Tensor) -> tuple[Fraction, Fraction]:
    """:func:`bracket` over a polytope, whose constraints are more conditions of each piece."""
    region, exact_rows, exact_b = Range.of(polytope.within), dyadics(rows), dyadics(b)
    constraints = np.hstack([-dyadics(polytope.b)[:, None], dyadics(polytope.A)])
    inside = dyadics(polytope.centre.flatten())
    assert all(constraints[:, 1:] @ inside + constraints[:, 0] < 0), "the polytope has no room in it"
    share = Dyadic.of(2.0**-28)

    def at(point: Exact) -> Fraction:
        """The value at a point a little further inside, which satisfies the constraints exactly."""
        x = point + (inside - point) * share
        assert all(constraints[:, 1:] @ x + constraints[:, 0] <= 0)
        highest: Fraction = max(exact_rows @ _nodes(network, x)[-1].flatten() - exact_b).fraction
        return highest

    upper = at(inside)
    lower = upper
    for piece in cover(network, polytope.within):
        if _empty(list(piece.conditions), list(constraints), region):
            continue
        functions = exact_rows @ piece.output
        functions[:, 0] = functions[:, 0] - exact_b
        conditions = np.vstack([piece.conditions, constraints])
        point, weights, multipliers = _program(functions, conditions, region)
        if point is not None:
            upper = min(upper, at(point))
        if not any(weights):
            weights = _listed([ONE, *[ZERO] * (len(rows) - 1)])
        lower = min(lower, _proven(functions, conditions, weights, multipliers, region))
    return min(lower, upper), upper


_known: dict[str, tuple[Fraction, Fraction]] = {}


def least_of_largest(network: Network, box: Box | Polytope, rows: Tensor, b: Tensor) -> float:
    """The true minimum over the box of max_i (rows_i @ network(x) - b_i), within 1e-9 of its size, or 1e-6
    over a polytope."""
    key = content_hash(network.id, box.id, rows, b)
    if key not in _known:
        _known[key] = bracket(network, box, rows, b)
    lower, upper = _known[key]
    accuracy = 1e-6 if isinstance(box, Polytope) else 1e-9  # the points are moved inside
    assert upper - lower <= accuracy * (1 + abs(upper)), f"the truth is only known to lie in [{lower:g}, {upper:g}]"
    return float(upper)


def minimum(network: Network, box: Box, objective: Tensor) -> float:
    """The true minimum over the box of objective @ network(x): objective (outputs)."""
    return least_of_largest(network, box, objective[None].double(), torch.zeros(1, dtype=torch.float64))


def true_margin(problem: Problem) -> float:
    """The true margin of a problem over its region's box, or polytope: min over disjuncts of max over rows of A y -
    b."""
    region = problem.region
    box = region if isinstance(region, Polytope) else region.box()
    return min(least_of_largest(problem.network, box, d.A, d.b) for d in problem.spec.disjuncts)
