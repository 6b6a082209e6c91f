"""What each method makes of a network before it is asked: whether it can read it, and what it will cost, counted."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from assay.verify.core.ops import Conv2d, ConvTranspose2d, Linear
from assay.verify.core.problem import Problem
from assay.verify.core.spec import Spec
from assay.verify.registry import VERIFIERS, get_verifier
from assay.verify.support.plain import counted

if TYPE_CHECKING:
    from assay.verify.core.network import Network, Node
    from assay.verify.core.region import Region


def outlook(network: Network, region: Region, unstable: Mapping[int, int]) -> list[dict[str, Any]]:
    """For each method by name: why it cannot read the network within such a region (None if it can), and what one
    sample will cost where that can be counted. ``unstable``: by the position of each activation, its unstable neurons.
    """
    spec = Spec.binary(0) if network.output_size == 1 else Spec.robust(0, network.output_size)
    problem = Problem(network, region, spec, label=0)
    costs = expected(network, unstable) if unstable else {}
    return [
        {"method": name, "why_not": get_verifier(name).supports(problem), "cost": costs.get(name)}
        for name in sorted(VERIFIERS)
    ]


def expected(network: Network, unstable: Mapping[int, int]) -> dict[str, str]:
    """By method, the cost of one sample: passes through the whole network, or the size of what is solved.

    A pass counts multiplications of affine layers. Linear bounds take one row for each unstable neuron back through
    what is before it, and one for each output.
    """
    from assay.attacks.pgd import PGD
    from assay.verify.backends.smoothing.attack import SmoothingAttack
    from assay.verify.backends.smoothing.layer import LayerSmoothing
    from assay.verify.backends.smoothing.method import Smoothing

    ascent, votes, behind, search = PGD(), Smoothing(), LayerSmoothing(), SmoothingAttack()
    before, total = [], 0
    for node in network.nodes:
        total += multiplications(node, network)
        before.append(total)
    rows = sum(count * before[position] for position, count in unstable.items()) / max(total, 1)
    free, outputs = sum(unstable.values()), network.output_size
    back = rows + outputs
    values = sum(prod(node.shape) for node in network.nodes)
    inputs = network.nodes[0].size
    activations = sum(network.nodes[position].size for position in unstable)
    layers = counted(sum(multiplications(node, network) > 0 for node in network.nodes), "layer")
    neurons = counted(free, "unstable neuron")
    split = f"one bound of each half; {neurons} to split, in the worst case all of them"
    return {
        "ibp": "2 passes",
        "crown-ibp": f"about {outputs + 2} passes",
        "crown": f"about {back:.0f} passes",
        "alpha-crown": f"about {back:.0f} passes, and a few for each step",
        "lp": f"programs of {values} variables, {counted(outputs, 'row')}",
        "milp": f"an integer program of {counted(free, 'binary variable')}",
        "smt": f"{neurons} by cases",
        "bab": split,
        "lp-bab": split,
        "input-split": f"halves of a box of {counted(inputs, 'input')}",
        "lirpa": f"about {back:.0f} passes by its default, CROWN",
        "lipschitz": f"singular values of {layers}, once for all samples",
        "lipsdp": f"a semidefinite program of {inputs + activations} rows, once for all samples",
        "sdp": f"semidefinite programs of {inputs + activations + 1} rows, {outputs - 1 or 1} of them",
        "attack": f"{2 * ascent.steps * ascent.restarts} passes",
        "auto": "attacks, bounds and a search in turn, until one decides",
        "smoothing": f"{votes.n0 + votes.n} passes",
        "layer-smoothing": f"{behind.n0 + behind.n} passes, but for the leading affine layers",
        "layer-smoothing-attack": f"{2 * search.steps * search.copies + search.n0 + search.n} passes",
        "derandomized": "a pass for each band or block that is kept",
        "pieces": "as much as its method for each set of pixels",
        "derandomized-attack": "passes forwards and back for each place of a patch, or choice of pixels, that is tried",
        "cells": "as much as its method for each part of the ranges of a perturbation's parameters",
        "smoothing-attack": f"{2 * search.steps * search.copies + search.n0 + search.n} passes",
    }


def multiplications(node: Node, network: Network) -> int:
    """Of one sample, where the operation has weights."""
    match node.op:
        case Linear():
            return node.op.weight.numel()
        case Conv2d():
            return node.op.weight.numel() * prod(node.shape[-2:])
        case ConvTranspose2d():
            return node.op.weight.numel() * prod(network.nodes[node.inputs[0]].shape[-2:])
    return 0
