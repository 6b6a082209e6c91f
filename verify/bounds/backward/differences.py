"""Differences of the values of one node, of which a softmax is made, by linear functions below these values and below
their opposites: ``n`` values have ``n (n - 1)`` differences, and ``2 n`` such functions.

Where nothing but affine operations lies between the last activations that rows meet and the input, that is as tight as
rows of the differences themselves; behind more it may be less so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.verify.bounds.backward.columns import functions
from assay.verify.bounds.backward.forms import Units
from assay.verify.bounds.backward.group import Group
from assay.verify.bounds.backward.waists import Sides
from assay.verify.bounds.rounding import FEW
from assay.verify.core.network import Network
from assay.verify.core.ops import Gather, Sub
from assay.verify.support.floats import gamma

PAYS = 4  # times as many rows as there would be functions, at least


@dataclass(frozen=True, eq=False)
class Differences:
    """Features of a node that are differences of the features ``minuend`` and ``subtrahend`` of the node at ``source``,
    on a line of its last axis, or of a constant where these are -1: (features) each."""

    source: int
    minuend: Tensor
    subtrahend: Tensor

    @classmethod
    def of(cls, network: Network, position: int) -> Differences | None:
        """Those of the node at ``position``, if it is made of nothing else."""
        nodes = network.nodes
        if not isinstance(nodes[position].op, Sub):
            return None
        first, second = (nodes[i] for i in nodes[position].inputs)
        a, b = first.op, second.op
        if not (isinstance(a, Gather) and isinstance(b, Gather)) or first.inputs != second.inputs:
            return None
        (source,) = first.inputs
        count = nodes[source].shape[-1]
        inside = (a.index < 0) | (b.index < 0) | (a.index // count == b.index // count)
        return cls(source, a.index, b.index) if bool(inside.all()) else None


def many(network: Network, position: int, sample: Tensor, feature: Tensor) -> bool:
    """Whether these features of samples (neurons) are differences, and far more than what they are of."""
    made = Differences.of(network, position)
    if made is None:
        return False
    size = network.nodes[made.source].size
    ends = torch.cat([sample * size + index.to(feature.device)[feature] for index in (made.minuend, made.subtrahend)])
    return 2 * len(torch.unique(ends)) * PAYS <= len(feature)


def lowest(group: Group, position: int, sides: Sides, most: int) -> Tensor | None:
    """Lower bounds of differences, or of their opposites where they are bounded from above: (rows); None where rows of
    their own are as cheap, or may be much tighter. ``most``: functions that are worked out together.

    Raises :class:`assay.verify.core.budget.Expired` when the time is over.
    """
    relaxed, rounding = group.relaxed, group.relaxed.rounding
    made = Differences.of(group.network, position)
    if made is None or rounding is None or relaxed.ball is not None or relaxed.constraints is not None:
        return None
    size = group.network.nodes[made.source].size
    ends = made.minuend[sides.feature], made.subtrahend[sides.feature]
    if bool((torch.minimum(*ends) < 0).any()):
        return None
    more, less = (sides.sample * size + end for end in ends)
    more, less = torch.where(sides.above, less, more), torch.where(sides.above, more, less)
    # Rows of values, then of opposites, each once, in the order of their samples.
    wanted, place = torch.unique(torch.cat([2 * more, 2 * less + 1]), return_inverse=True)
    if len(wanted) * PAYS > len(more):
        return None
    value = torch.div(wanted, 2, rounding_mode="floor")
    sample = torch.div(value, size, rounding_mode="floor")
    sign = (1 - 2 * (wanted % 2)).to(sides.lost)
    lost = relaxed.lost(made.source).flatten()[value] + rounding.precision.dust
    at_centre, count = torch.empty_like(sign), group.network.nodes[made.source].shape[-1]
    # How far each function goes, and its opposite where it is one of opposites: of values, and of these, line by line.
    lines, line = torch.unique(torch.div(value, count, rounding_mode="floor"), return_inverse=True)
    slot = (wanted % 2 * len(lines) + line) * count + value % count
    tables = sign.new_zeros(2 * len(lines) * count, len(group.radius))
    for begin in range(0, len(sign), most):
        part = slice(begin, begin + most)
        owners = group.owners(sample[part])
        form = Units(value[part] - sample[part] * size, sign[part])
        at_centre[part], below = functions(group, made.source, form, owners, -lost[part])
        reach = below * group.radius[:, sample[part]] * sign[part]
        tables.index_copy_(0, slot[part], reach.T.contiguous())
    values, opposites = tables.view(2, len(lines), count, -1)
    apart = torch.cdist(values, opposites, p=1)
    one, other = place.chunk(2)
    least = at_centre[one] + at_centre[other] - apart[line[one], more % count, less % count]
    # What these sums lose, of terms no larger than those of both functions.
    magnitude = at_centre.abs() + torch.linalg.vector_norm(tables[slot], 1, dim=1)
    share = 4 * gamma(len(group.radius) + FEW, rounding.precision.unit)
    charged: Tensor = least - share * (magnitude[one] + magnitude[other]) - sides.lost
    return charged
