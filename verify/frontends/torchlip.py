"""Layers of deel-torchlip as operations of ours, where what they run says less than what they are.

Nothing is imported here: where the package was not, no model has its layers. What a layer is said to be in Lipschitz
terms counts for nothing, only what it computes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from assay.verify.core.ops import Add, Concat, Conv2d, Linear, Op, Relu, Reshape, Scale
from assay.verify.frontends.composed import Value
from assay.verify.frontends.refusal import Untranslatable
from assay.verify.frontends.translation import Handler, Step


def group_sort(step: Step) -> Value:
    """Each group of channels in ascending order, by rounds of comparisons of disjoint pairs.

    A round is ``x - W^T relu(W x)`` with rows ``e_i - e_j`` in W: of a pair (a, b), min(a, b) = a - relu(a - b) and
    max(a, b) = b + relu(a - b). One activation a pair, where minima and maxima apart would take two.
    """
    module: Any = step.call.function
    channels = step["self"].number.shape[1]
    size = min(module.group_size or channels, channels)
    sorted_ = _steps(step, [(w, -w.T) for w in (_differences(p, size, channels) for p in comparisons(size))])
    return _times(step, module._coefficient_lip, sorted_)


def householder(step: Step) -> Value:
    """``x - 2 v relu(v x)`` with a unit vector v for each pair of channels: mirrored where v x > 0 (Singla, Singla and
    Feizi 2022, arXiv:2108.04062)."""
    module: Any = step.call.function
    half = module.theta.detach().double() / 2
    weight = 2**0.5 * torch.cat([torch.diag(half.sin()), torch.diag(-half.cos())], 1)
    return _steps(step, [(weight, -weight.T)])


def leaky(step: Step) -> Value:
    """``x + (1 - a) relu(-x)`` with a slope a for each channel."""
    module: Any = step.call.function
    bound, channels = module._coefficient_lip, step["self"].number.shape[1]
    change = 1 - module.weight.detach().double().clamp(-bound, bound).expand(channels)
    root = change.abs().sqrt()
    return _steps(step, [(torch.diag(-root), torch.diag(change.sign() * root))])


def _steps(step: Step, weights: Sequence[tuple[Tensor, Tensor]]) -> Value:
    """``x + back relu(W x)`` for one (W, back) after the other, at each place of a sample: (channels),
    (channels x length) or (channels x height x width)."""
    x = step.value("self")
    channels, *places = step["self"].number.shape[1:]
    if len(places) > 2:
        raise Untranslatable
    if len(places) == 1:
        x = step.emit(Reshape((channels, 1, places[0])), x)
    for weight, back in weights:
        part = step.emit(Relu(), step.emit(_at_each_place(weight, places), x))
        x = step.emit(Add(), x, step.emit(_at_each_place(back, places), part))
    if len(places) == 1:
        x = step.emit(Reshape((channels, *places)), x)
    return x


def batch_centering(step: Step) -> Value:
    """In eval mode: one factor for all, a shift for each channel."""
    module: Any = step.call.function
    if module.training:
        raise Untranslatable
    factor = module.get_scaling(training=False).detach().double()
    shift = -factor * module._get_mean(training=False).detach().double()
    if module.bias is not None:
        shift = shift + module.bias.detach().double()
    ones = [1] * (step["self"].number.dim() - 2)
    return step.emit(Scale(factor, shift.view(-1, *ones)), step.value("self"))


def layer_centering(step: Step) -> Value:
    """Each channel of an image less its mean."""
    module: Any = step.call.function
    x = step.value("self")
    if step["self"].number.dim() != 4 or sorted(d % 4 for d in module.dim) != [2, 3]:
        raise Untranslatable
    channels, height, width = x.shape
    size = height * width
    weight = torch.eye(size, dtype=torch.float64) - 1 / size
    flat = step.emit(Reshape((channels, size)), x)
    centred = step.emit(Linear(weight, weight.new_zeros(size)), flat)
    shift = weight.new_zeros(channels) if module.bias is None else module.bias.detach().double()
    image = step.emit(Reshape((channels, height, width)), centred)
    return step.emit(Scale(_number(1), shift.view(-1, 1, 1)), image)


def _differences(pairs: list[tuple[int, int]], size: int, channels: int) -> Tensor:
    """The matrix (differences x channels) of ``x[i] - x[j]`` for the pairs (i, j) of each group."""
    starts = torch.arange(0, channels, size)[:, None]
    low, high = ((starts + torch.tensor([pair[end] for pair in pairs])).flatten() for end in (0, 1))
    eye = torch.eye(channels, dtype=torch.float64)
    return eye[low] - eye[high]


def _at_each_place(weight: Tensor, places: Sequence[int]) -> Op:
    """``weight`` (outputs x channels) for a sample (channels) or (channels x height x width)."""
    bias = weight.new_zeros(len(weight))
    return Conv2d(weight[:, :, None, None], bias) if places else Linear(weight, bias)


def comparisons(size: int) -> list[list[tuple[int, int]]]:
    """Rounds of disjoint pairs that sort ``size`` values when each pair is put in order: Batcher's merge exchange
    (Knuth, The Art of Computer Programming, 5.2.2, algorithm M).

    >>> comparisons(3)
    [[(0, 2)], [(0, 1)], [(1, 2)]]
    """
    rounds = []
    top = 1 << max((size - 1).bit_length() - 1, 0)
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while True:
            rounds.append([(i, i + d) for i in range(size - d) if i & p == r])
            if q == p:
                break
            q, r, d = q // 2, p, q - p
        p //= 2
    return [pairs for pairs in rounds if pairs]


def max_min(step: Step) -> Value:
    """``relu(x)`` and ``relu(-x)`` side by side."""
    module: Any = step.call.function
    x = step.value("self")
    axis = (1 if module._dim is None else module._dim) % step["self"].number.dim()
    if axis == 0:
        raise Untranslatable
    opposite = step.emit(Scale(_number(-1), _number(0)), x)
    halves = [step.emit(Relu(), part) for part in (x, opposite)]
    return _times(step, module._coefficient_lip, step.emit(Concat(axis - 1), *halves))


def _times(step: Step, factor: float, x: Value) -> Value:
    return x if factor == 1 else step.emit(Scale(_number(factor), _number(0)), x)


def _number(value: float) -> Tensor:
    return torch.tensor(float(value), dtype=torch.float64)


def table() -> dict[Any, Handler]:
    """Module type to its handler; empty where the package was never imported."""
    package = sys.modules.get("deel.torchlip")
    if package is None:
        return {}
    sorts: list[Any] = [package.GroupSort, package.GroupSort2, package.FullSort]
    centrings: list[Any] = [package.BatchCentering, package.BatchLipNorm]
    return {
        **dict.fromkeys(sorts, group_sort),
        **dict.fromkeys(centrings, batch_centering),
        package.LayerCentering: layer_centering,
        package.MaxMin: max_min,
        package.HouseHolder: householder,
        package.LPReLU: leaky,
    }
