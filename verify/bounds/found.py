"""Linear bounds of layers over one box are worked out once: methods that are asked one after the other go on where the
last one, whose time may have been over, has come to."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.network import Network
from assay.verify.core.region import Box, LpBall
from assay.verify.core.verifier import Bounds
from assay.verify.support.kept import Kept

LAST = 2  # boxes of a network
SHARE = 64  # bounds are kept in one part in so many of the memory

FOUND = Kept[Network, list[list[Bounds]]]()  # by boxes, those of the input first, which tell


def found(network: Network, relaxed: Relaxed) -> list[Bounds]:
    """Bounds of the first nodes of a ``network``, each (1 x shape of the node), over the region over which it is
    ``relaxed``, of which only the input is bounded yet: what is appended is there for whoever asks next. Nothing is
    kept over regions that are more than one box, in float32, elsewhere than on the host, of weights that are trained,
    and of what takes more than its part of the memory."""
    box, region = relaxed.bounds[0], relaxed.region
    plain = region is None or isinstance(region, Box) or (isinstance(region, LpBall) and region.p == inf)
    here = box.lower.dtype == torch.float64 and box.lower.device.type == "cpu" and relaxed.samples == 1
    size = 2 * 8 * sum(node.size for node in network.nodes)
    if not (plain and here) or SHARE * size > relaxed.budget.memory or _trained(network):
        return list(relaxed.bounds)
    boxes = FOUND.of.setdefault(network, [])
    number = next((i for i, bounds in enumerate(boxes) if _same(bounds[0], box)), None)
    bounds = [box] if number is None else boxes.pop(number)
    boxes[:] = [bounds, *boxes[: LAST - 1]]
    if not torch.is_inference_mode_enabled():
        bounds[:] = [_ordinary(each) for each in bounds]
    return bounds


def complete(network: Network, box: Bounds) -> bool:
    """Whether bounds of all nodes over a ``box`` (1 x input shape each) are there already."""
    return any(len(bounds) == len(network.nodes) and _same(bounds[0], box) for bounds in FOUND.of.get(network, []))


def _same(one: Bounds, other: Bounds) -> bool:
    return one.lower.equal(other.lower) and one.upper.equal(other.upper)


def _ordinary(bounds: Bounds) -> Bounds:
    """Bounds that gradients can pass and that can be changed, which those from inference mode cannot."""
    lower, upper = (t.clone() if t.is_inference() else t for t in (bounds.lower, bounds.upper))
    return Bounds(lower, upper)


def _trained(network: Network) -> bool:
    return any(isinstance(v, Tensor) and v.requires_grad for node in network.nodes[1:] for v in vars(node.op).values())
