"""The truth about tiny piecewise-linear networks: every activation pattern over a box, one linear program each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from verify.core.network import Network
from verify.core.ops import Relu, evaluate
from verify.core.problem import Problem
from verify.core.region import Box


@dataclass(frozen=True)
class Piece:
    """On the inputs with ``signs @ x <= limits`` the network is ``slope @ x + offset`` (outputs x inputs)."""

    slope: Tensor
    offset: Tensor
    signs: Tensor
    limits: Tensor


def pieces(network: Network, box: Box) -> Iterator[Piece]:
    """The affine pieces that cover the box (one sample); some may be empty. At most 12 neurons may be open at once."""
    size = network.nodes[0].size
    low, high = box.lower.flatten(), box.upper.flatten()
    identity = torch.cat([torch.eye(size, dtype=torch.float64), torch.zeros(1, size, dtype=torch.float64)])

    def walk(values: list[Tensor], signs: list[Tensor], limits: list[Tensor]) -> Iterator[Piece]:
        position = len(values)
        if position == len(network.nodes):
            last = values[-1].flatten(1)
            none = torch.zeros(0, size, dtype=torch.float64)
            yield Piece(
                last[:-1].T,
                last[-1],
                torch.stack(signs) if signs else none,
                torch.stack(limits) if limits else none[:, 0],
            )
            return
        node = network.nodes[position]
        operands = [values[i] for i in node.inputs]
        if not isinstance(node.op, Relu):
            constant = evaluate(node.op, *(torch.zeros_like(v[:1]) for v in operands))
            moved = evaluate(node.op, *operands)
            yield from walk([*values, torch.cat([moved[:-1] - constant, moved[-1:]])], signs, limits)
            return
        z = operands[0].flatten(1)
        slope, offset = z[:-1].T, z[-1]
        least = offset + slope.clamp(min=0) @ low + slope.clamp(max=0) @ high
        most = offset + slope.clamp(min=0) @ high + slope.clamp(max=0) @ low
        open_ = ((least < 0) & (most > 0)).nonzero().flatten().tolist()
        assert len(open_) <= 12, "too many activation patterns for enumeration"
        for pattern in product((0.0, 1.0), repeat=len(open_)):
            active = (least >= 0).double()
            active[open_] = torch.tensor(pattern, dtype=torch.float64)
            side = [1 - 2 * p for p in pattern]  # inactive: z <= 0; active: -z <= 0
            yield from walk(
                [*values, (z * active).view_as(operands[0])],
                [*signs, *(s * slope[i] for s, i in zip(side, open_, strict=True))],
                [*limits, *(-s * offset[i] for s, i in zip(side, open_, strict=True))],
            )

    return walk([identity.view(size + 1, *network.input_shape)], [], [])


def least_of_largest(network: Network, box: Box, rows: Tensor, b: Tensor) -> float:
    """The true minimum over the box of max_i (rows_i @ network(x) - b_i): rows (k x outputs), b (k), float64."""
    low, high = box.lower.flatten(), box.upper.flatten()
    u = torch.rand(256, len(low), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u[::2] = u[::2].round()
    points = torch.minimum(torch.maximum(low + u * (high - low), low), high)
    seen = network(points.view(-1, *network.input_shape)).flatten(1) @ rows.T - b
    best = float(seen.amax(1).min())
    for piece in pieces(network, box):
        slope, offset = rows @ piece.slope, rows @ piece.offset - b
        over_box = offset + slope.clamp(min=0) @ low + slope.clamp(max=0) @ high
        if float(over_box.max()) >= best:
            continue
        if not len(piece.limits) and len(b) == 1:
            best = float(over_box)
            continue
        best = min(best, _epigraph(slope, offset, piece, low, high))
    return best


def _epigraph(slope: Tensor, offset: Tensor, piece: Piece, low: Tensor, high: Tensor) -> float:
    """min t with slope @ x + offset <= t inside of the piece; infinity where the piece is empty."""
    size = len(low)
    above = np.hstack([slope.numpy(), -np.ones((len(slope), 1))])
    inside = np.hstack([piece.signs.numpy(), np.zeros((len(piece.limits), 1))])
    found = linprog(
        np.eye(size + 1)[-1],
        A_ub=np.vstack([above, inside]),
        b_ub=np.concatenate([-offset.numpy(), piece.limits.numpy()]),
        bounds=[*zip(low.tolist(), high.tolist(), strict=True), (None, None)],
        method="highs",
    )
    if found.status == 2:
        return float("inf")
    assert found.status == 0, found.message
    return float(found.fun)


def minimum(network: Network, box: Box, objective: Tensor) -> float:
    """The true minimum over the box of objective @ network(x): objective (outputs)."""
    return least_of_largest(network, box, objective[None].double(), torch.zeros(1, dtype=torch.float64))


def true_margin(problem: Problem) -> float:
    """The true margin of a problem over its region's box: min over disjuncts of max over rows of A y - b."""
    box = problem.region.box()
    return min(least_of_largest(problem.network, box, d.A, d.b) for d in problem.spec.disjuncts)
