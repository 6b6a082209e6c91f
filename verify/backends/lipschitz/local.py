"""Local bounds: how far rows stray from their values at the centre of a region, from interval Jacobians over it.

Layer by layer, as in Fast-Lip and RecurJac (Weng et al. 2018, arXiv:1804.09699; Zhang et al. 2019, arXiv:1810.11783):
the bounds of an undecided neuron are its interval, and its value at the centre plus or minus the dual norm of its own
interval Jacobian times the radius, whichever is tighter; these decide the slopes of what follows. The rows' own
derivatives are held by zonotopes, which are tighter than intervals.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from assay.verify.backends.lipschitz.jacobian import jacobian
from assay.verify.backends.lipschitz.radii import dual_norm
from assay.verify.backends.lipschitz.reach import Reach
from assay.verify.backends.lipschitz.zonotope import Derivatives, derivatives
from assay.verify.bounds.relaxations.relax import feeds, relaxes, undecided_by_any
from assay.verify.bounds.rigorous import MORE, step
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import TINY, down, gamma, up

ENTRIES = 1 << 24  # of interval Jacobians that are held at once


def strays(network: Network, reach: Reach, rows: Tensor, centre: Sequence[Bounds], budget: Budget) -> Tensor:
    """At least how far each row of the output is over the region from its value at the centre: (rows).

    ``rows``: (rows x outputs), float64; ``centre``: what every node takes there, (1 x shape of the node).
    Raises :class:`assay.verify.core.budget.Expired` when the time is over.
    """
    gradients = derivatives(network, _layers(network, reach, centre, budget), rows, centre)
    return torch.fmin(deviation(gradients.sizes, reach), _within(_dual(gradients, reach.p), reach))


def local_constants(network: Network, reach: Reach, rows: Tensor, centre: Sequence[Bounds], budget: Budget) -> Tensor:
    """Lipschitz constants, between any two points of the region and in the norm of it, of each row: (rows)."""
    return _dual(derivatives(network, _layers(network, reach, centre, budget), rows), reach.p)


def _dual(gradients: Derivatives, p: float) -> Tensor:
    """At least the norm dual to l_p of each row's derivatives: (rows)."""
    return gradients.lengths if p == 2 else dual_norm(gradients.sizes, p)


def deviation(sizes: Tensor, reach: Reach) -> Tensor:
    """The most that functions with derivatives of such ``sizes`` (rows x inputs) change over the region: (rows)."""
    widths = reach.widths.flatten()
    along = torch.where((sizes == 0) | (widths == 0), 0.0, sizes * widths)
    by_axis = along.sum(1) * (1 + 2 * gamma(len(widths) + 2)) + len(widths) * TINY
    return torch.minimum(by_axis, _within(dual_norm(sizes, reach.p), reach))


def _within(slopes: Tensor, reach: Reach) -> Tensor:
    """The most that functions with such Lipschitz constants, in the norm of the region, change over it: (rows)."""
    return slopes * reach.eps * MORE + TINY


def _layers(network: Network, reach: Reach, centre: Sequence[Bounds], budget: Budget) -> list[Bounds]:
    """Bounds of every node over the region, each (1 x shape of the node)."""
    readers = feeds(network)
    bounds = [Bounds(down(reach.centre - reach.widths)[None], up(reach.centre + reach.widths)[None])]
    curved = [False]  # nodes behind an activation
    for position, node in enumerate(network.nodes[1:], start=1):
        budget.check()
        bounds.append(step(node.op, *(bounds[i] for i in node.inputs)))
        curved.append(relaxes(node.op) or any(curved[i] for i in node.inputs))
        if position in readers and (curved[position] or reach.p != torch.inf):
            wanted = undecided_by_any(readers[position], bounds[-1]).flatten().nonzero().flatten()
            if len(wanted):
                bounds[-1] = _tightened(network, reach, bounds, centre, wanted, budget)
    return bounds


def _tightened(
    network: Network, reach: Reach, bounds: list[Bounds], centre: Sequence[Bounds], wanted: Tensor, budget: Budget
) -> Bounds:
    """The last bounds, with those features that are ``wanted`` held near their values at the centre."""
    known, point = bounds[-1], centre[len(bounds) - 1]
    lower, upper = known.lower.flatten().clone(), known.upper.flatten().clone()
    widest = max(node.size for node in network.nodes[: len(bounds)])
    for chunk in torch.split(wanted, max(1, ENTRIES // widest)):
        budget.check()
        rows = torch.zeros(len(chunk), len(lower), dtype=torch.float64)
        rows[torch.arange(len(chunk)), chunk] = 1.0
        far = deviation(jacobian(network, bounds, rows, centre), reach).nan_to_num(nan=torch.inf, posinf=torch.inf)
        lower[chunk] = torch.maximum(lower[chunk], down(point.lower.flatten()[chunk] - far))
        upper[chunk] = torch.minimum(upper[chunk], up(point.upper.flatten()[chunk] + far))
    return Bounds(lower.view_as(known.lower), upper.view_as(known.upper))
