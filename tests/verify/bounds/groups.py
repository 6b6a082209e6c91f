"""Groups of samples whose layers are bounded, for tests of rows that start anywhere."""

from __future__ import annotations

import torch

from assay.verify.bounds.backward.group import Group
from assay.verify.bounds.layers import batch_box, by_linear_bounds
from assay.verify.core.network import Network
from assay.verify.core.region import Region


def group_of(network: Network, region: Region) -> Group:
    """All layers bounded by linear bounds in float64."""
    group = Group(by_linear_bounds(network, batch_box(region, network.input_shape), torch.float64))
    for position, value in enumerate(group.relaxed.bounds[1:], start=1):
        group.enter(position, value)
    return group
