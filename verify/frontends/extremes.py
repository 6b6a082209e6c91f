"""Points that drive the neurons of a network to their extremes and to where they switch, few of them, at a cost that
is bounded: where a model does something that was not read of it, random points rarely show it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from assay.verify.core.network import Network
from assay.verify.core.ops import LeakyRelu, Relu, evaluate
from assay.verify.core.roundings import terms

PRODUCTS = 2**25  # that evaluating the network at all of the points may take
NUMBERS = 2**22  # that are kept for them at once
MOST = 128  # neurons that are looked at
SCALES = (1.0, -8.0, 64.0, -512.0, -1.0, 8.0, -64.0, 512.0)  # how far beyond the unit cube, in turns


def extremes(network: Network) -> Tensor:
    """Corners of the unit cube and of larger ones, and points where neurons are zero: (points x input shape), float64.

    For a sample of all neurons, evenly spread: the corner of the cube in which the neuron would be largest if every
    ReLU passed half of its input on, the opposite corner, one of a larger cube, and the point between the first two
    where the neuron changes sign if it is linear there.
    """
    neurons = _chosen(network, MOST)
    direction = _signs(network, neurons)
    high, low = (1 + direction) / 2, (1 - direction) / 2
    with torch.no_grad():
        top, bottom = _values(network, high, neurons), _values(network, low, neurons)
    share = (top / (top - bottom)).nan_to_num(0.5, 0.5, 0.5).clamp(0, 1).view(-1, *[1] * len(network.input_shape))
    scales = torch.tensor(SCALES, dtype=torch.float64).view(-1, *[1] * len(network.input_shape))
    far = direction * scales.repeat(len(neurons), *[1] * len(network.input_shape))[: len(neurons)]
    even = scales[: len(neurons)].expand(-1, *network.input_shape)
    return torch.cat([even, high, low, far, high + share * (low - high)])


def corners(network: Network, most: int) -> Tensor:
    """For at most ``most`` neurons, the corners of the unit cube that drive them up and down: (points x input shape).

    In a box, its corners on the same sides.
    """
    direction = _signs(network, _chosen(network, most))
    return torch.cat([1 + direction, 1 - direction]) / 2


def _chosen(network: Network, most: int) -> list[tuple[int, int]]:
    """(position, index) of outputs, and of neurons of all that is computed, not only moved; evenly spread."""
    last = len(network.nodes) - 1
    computed = [(p, node.size) for p, node in enumerate(network.nodes[:-1]) if terms(node.op)]
    products = sum(terms(node.op) * node.size for node in network.nodes)
    numbers = sum(node.size for node in network.nodes)
    inner = sum(size for _, size in computed)
    count = max(1, min(most, PRODUCTS // (4 * max(products, 1)), NUMBERS // max(numbers, 1)))
    outputs = [(last, int(i)) for i in _spread(network.output_size, count)]
    starts = torch.tensor([0, *(size for _, size in computed)]).cumsum(0)
    places = _spread(inner, count - len(outputs))
    at = torch.searchsorted(starts, places, right=True) - 1
    return outputs + [(computed[k][0], i) for k, i in zip(at.tolist(), (places - starts[at]).tolist(), strict=True)]


def _spread(size: int, count: int) -> Tensor:
    """At most ``count`` of the numbers below ``size``, evenly spread."""
    count = min(count, size)
    return torch.arange(count) * size // max(count, 1)


def _signs(network: Network, neurons: list[tuple[int, int]]) -> Tensor:
    """Signs of the derivatives of each neuron by the input, with ReLUs that pass half: (neurons x input shape)."""
    half = LeakyRelu(0.5)
    soft = replace(network, nodes=tuple(replace(n, op=half) if isinstance(n.op, Relu) else n for n in network.nodes))
    x = torch.full((len(neurons), *network.input_shape), 0.5, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(_values(soft, x, neurons).sum(), x)
    return gradient.nan_to_num().sign()


def _values(network: Network, x: Tensor, neurons: list[tuple[int, int]]) -> Tensor:
    """The value of the i-th neuron at the i-th point: (neurons)."""
    values = [x]
    for node in network.nodes[1:]:
        values.append(evaluate(node.op, *(values[i] for i in node.inputs)))
    places: dict[int, list[int]] = {}
    for i, (position, _) in enumerate(neurons):
        places.setdefault(position, []).append(i)
    neuron_values = x.new_zeros(len(neurons))
    for position, rows in places.items():
        columns = torch.tensor([neurons[i][1] for i in rows])
        neuron_values = neuron_values.index_put((torch.tensor(rows),), values[position].flatten(1)[rows, columns])
    return neuron_values
