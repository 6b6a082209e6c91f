"""Lower bounds of linear programs that are safe whatever their duals are worth (Neumaier, Shcherbina 2004,
doi:10.1007/s10107-003-0433-3), and how far a solver's tolerances can carry.

For any multipliers of the rows, ``cost @ x`` is the rows' share plus a residual that the columns' bounds limit: a
solver that errs makes the bound worse and never wrong. All of it is computed in float64, with every rounding error
charged (Higham 2002, chapter 3) and the last sum rounded down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from assay.verify.programs.program import Ball, Program, Vector
from assay.verify.support.floats import TINY, UNIT, gamma, length

LOOSE = 1 + 2.0**-20  # more than the rounding of any sum of error terms here
CAUTION = 8.0  # how many times over the rounding of a program's own numbers is charged


@dataclass(frozen=True, eq=False)
class Safe:
    """What some vectors of duals prove of one program, each (vectors).

    ``bound``: a lower bound of the objective over the program as it is written; -inf where there is none.
    ``sensitivity``: what the optimum can move by, to first order, when every row and bound errs by one part of its
    size, which is its largest term for a row, its largest absolute value for a column. ``cautious``: the bound less
    what the rounding of the program's own numbers, the bounds of neurons above all, can be worth.
    """

    bound: Vector
    sensitivity: Vector
    cautious: Vector


def safe_bounds(
    program: Program, duals: Vector, cost: Vector | None = None, offset: float = 0.0, upper: Vector | None = None
) -> Safe:
    """Lower bounds of ``cost @ x + offset`` over the program without integrality, one for each vector of duals.

    ``duals`` (vectors x rows): any numbers; those not finite, or for a side without a bound, count as 0. ``cost``
    (columns) and ``offset`` stand in for the program's own where ``cost`` is given; ``upper`` (vectors x columns), at
    most the program's own, for its upper bounds. With ``cost`` zero and a ray for duals a positive bound proves that
    there is no point.
    """
    cost, offset = (program.cost, program.offset) if cost is None else (cost, offset)
    upper = program.upper if upper is None else upper
    with np.errstate(all="ignore"):  # what overflows ends as -inf
        duals = np.where(np.isfinite(duals), duals, 0.0)
        side = np.where(duals > 0, program.row_lower, program.row_upper)
        duals, side = (np.where(np.isfinite(side), v, 0.0) for v in (duals, side))
        size, terms = np.abs(duals), program.longest + 2
        residual = cost - (program.transposed @ duals.T).T
        doubt = (gamma(terms) * ((program.magnitudes @ size.T).T + np.abs(cost)) + terms * TINY) * LOOSE
        least, rows = np.minimum(residual * program.lower, residual * upper), duals * side
        error = doubt @ program.reach
        if program.ball is not None:
            least, slack = _over_ball(program.ball, residual, program.lower, upper, least)
            error = error + slack
        count = rows.shape[1] + least.shape[1] + 4
        total = rows.sum(1) + least.sum(1) + offset
        error += gamma(count) * (np.abs(rows).sum(1) + np.abs(least).sum(1) + abs(offset)) + count * TINY
        sensitivity = size @ program.row_reach + np.abs(residual) @ program.reach
        moved = CAUTION * (program.widest + 2) * UNIT * (sensitivity + abs(offset))
        bound, cautious = (_below(total - part * LOOSE) for part in (error, error + moved))
    return Safe(bound, np.where(np.isfinite(sensitivity), sensitivity, np.inf), cautious)


def _below(values: Vector) -> Vector:
    """Numbers below these, whatever the last subtraction rounded; -inf for what is not finite."""
    down = np.nextafter(np.nextafter(values, -np.inf), -np.inf)
    below: Vector = np.where(np.isfinite(values), down, -np.inf)
    return below


def _over_ball(ball: Ball, residual: Vector, lower: Vector, upper: Vector, least: Vector) -> tuple[Vector, Vector]:
    """The terms ``least`` (vectors x columns) with those of the ball's columns replaced, and one more: they sum up to a
    lower bound of ``residual @ x`` over the ball within the box. Beside them their error (vectors).

    The residual is split: one part is taken over the ball and the other over the box, as the multiplier of the ball's
    constraint, found by bisection, says.
    """
    d, (low, high), centre = residual[:, ball.columns], (b[..., ball.columns] for b in (lower, upper)), ball.centre
    on_ball, small = d, np.zeros((len(d), 1))
    large = _length(d) / max(ball.radius, TINY)
    for _ in range(60):
        middle = (small + large) / 2
        step = np.clip(-d / np.maximum(2 * middle, TINY), low - centre, high - centre)
        outside = _length(step) > ball.radius
        inner = np.where((step > low - centre) & (step < high - centre), d, -2 * middle * step)
        on_ball = np.where(outside, on_ball, inner)
        small, large = np.where(outside, middle, small), np.where(outside, large, middle)
    on_box = d - on_ball
    least = least.copy()
    least[:, ball.columns] = np.minimum(on_box * low, on_box * high) + on_ball * centre
    norm = _length(on_ball) * (1 + gamma(d.shape[1] + 8))  # the rounding of the products with it, too
    reach = np.maximum(np.maximum(np.abs(low), np.abs(high)), np.abs(centre))
    rounding = 4 * UNIT * ((np.abs(d) + np.abs(on_ball)) * reach).sum(1) * LOOSE
    return np.hstack([least, -ball.radius * norm]), rounding


def _length(values: Vector) -> Vector:
    """The norms in l2, of numbers of any scale: (n x k) to (n x 1)."""
    norms: Vector = length(torch.from_numpy(np.ascontiguousarray(values)), 2, keepdim=True).numpy()
    return norms
