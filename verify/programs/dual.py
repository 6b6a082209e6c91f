"""Lower bounds of linear programs that are safe whatever their duals are worth (Neumaier, Shcherbina 2004,
doi:10.1007/s10107-003-0433-3), and how far a solver's tolerances can carry.

For any multipliers of the rows, ``cost @ x`` is the rows' share plus a residual that the columns' bounds limit: a
solver that errs makes the bound worse and never wrong. All of it is computed in float64, with every rounding error
charged (Higham 2002, chapter 3) and the last sum rounded down.
"""

from __future__ import annotations

from math import inf, isfinite, nextafter

import numpy as np
import torch

from assay.verify.programs.program import Ball, Program, Vector
from assay.verify.support.floats import TINY, UNIT, gamma, length

LOOSE = 1 + 2.0**-20  # more than the rounding of any sum of error terms here

Pair = tuple[Vector, Vector]


def safe_bound(
    program: Program,
    duals: Vector,
    cost: Vector | None = None,
    offset: float = 0.0,
    box: Pair | None = None,
    sides: Pair | None = None,
) -> float:
    """A lower bound of ``cost @ x + offset`` over the program without integrality; -inf where there is none.

    ``duals`` (rows): any numbers; those not finite, or for a side without a bound, count as 0. ``cost`` and ``offset``
    stand in for the program's own where ``cost`` is given; ``box`` (lower and upper bounds of the columns) and
    ``sides`` (of the rows) for its bounds. With ``cost`` zero and a ray for ``duals`` a positive bound proves that the
    program has no point.
    """
    cost, offset = (program.cost, program.offset) if cost is None else (cost, offset)
    lower, upper = box or (program.lower, program.upper)
    duals, side = _clipped(duals, *(sides or (program.row_lower, program.row_upper)))
    with np.errstate(all="ignore"):  # what overflows ends as -inf below
        residual, doubt = _residual(program, cost, duals)
        reach = np.maximum(np.abs(lower), np.abs(upper))
        least = np.minimum(residual * lower, residual * upper)
        rows = duals * side
        error = float(doubt @ reach)
        if program.ball is not None:
            least[program.ball.columns], least_on_ball, slack = _over_ball(program.ball, residual, lower, upper)
            least = np.append(least, least_on_ball)
            error += slack
        terms = len(rows) + len(least) + 4
        total = float(rows.sum() + least.sum()) + offset
        error += gamma(terms) * float(np.abs(rows).sum() + np.abs(least).sum() + abs(offset)) + terms * TINY
        bound = total - error * LOOSE
    return nextafter(nextafter(bound, -inf), -inf) if isfinite(bound) else -inf


def sensitivity(program: Program, duals: Vector, cost: Vector | None = None) -> float:
    """What the optimum can move by, to first order, when every row and bound errs by one part of its size.

    The size of a row is its largest term, that of a column its largest absolute value. ``duals``: (rows).
    """
    cost = program.cost if cost is None else cost
    duals, _ = _clipped(duals, program.row_lower, program.row_upper)
    with np.errstate(all="ignore"):
        residual, _ = _residual(program, cost, duals)
        moved = float(np.abs(duals) @ program.row_reach + np.abs(residual) @ program.reach)
    return moved if isfinite(moved) else inf


def _clipped(duals: Vector, row_lower: Vector, row_upper: Vector) -> Pair:
    """Duals (rows), 0 where not finite or the side has no bound, and the sides: the lower bound for a positive one."""
    duals = np.where(np.isfinite(duals), duals, 0.0)
    side = np.where(duals > 0, row_lower, row_upper)
    used = (duals != 0) & np.isfinite(side)
    return np.where(used, duals, 0.0), np.where(used, side, 0.0)


def _residual(program: Program, cost: Vector, duals: Vector) -> Pair:
    """``cost - transposed @ duals`` and a bound of its error: both (columns)."""
    terms = int(np.diff(program.transposed.indptr).max(initial=0)) + 2
    size = program.magnitudes @ np.abs(duals) + np.abs(cost)
    return cost - program.transposed @ duals, (gamma(terms) * size + terms * TINY) * LOOSE


def _over_ball(ball: Ball, residual: Vector, lower: Vector, upper: Vector) -> tuple[Vector, float, float]:
    """Terms, and one more, that sum up to a lower bound of ``residual @ x`` over the ball within the box; their error.

    The residual is split: one part is taken over the ball and the other over the box, as the multiplier of the ball's
    constraint, found by bisection, says.
    """
    d, low, high, centre = residual[ball.columns], lower[ball.columns], upper[ball.columns], ball.centre
    on_ball = d
    small, large = 0.0, _length(d) / max(ball.radius, TINY)
    for _ in range(60):
        middle = (small + large) / 2
        step = np.clip(-d / max(2 * middle, TINY), low - centre, high - centre)
        if _length(step) > ball.radius:
            small = middle
        else:
            large, on_ball = middle, np.where((step > low - centre) & (step < high - centre), d, -2 * middle * step)
    on_box = d - on_ball
    terms = np.minimum(on_box * low, on_box * high) + on_ball * centre
    norm = _length(on_ball) * (1 + gamma(len(d) + 8))  # the rounding of the products with it, too
    reach = np.maximum(np.maximum(np.abs(low), np.abs(high)), np.abs(centre))
    rounding = 4 * UNIT * float((np.abs(d) + np.abs(on_ball)) @ reach) * LOOSE
    return terms, -ball.radius * norm, rounding


def _length(values: Vector) -> float:
    """The norm in l2, of numbers of any scale."""
    return float(length(torch.from_numpy(np.ascontiguousarray(values)), 2))
