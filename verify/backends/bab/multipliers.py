"""Bounds of rows under splits (beta-CROWN: Wang et al. 2021, arXiv:2103.06624): slopes of lower lines and multipliers
of splits, a set of them a row, raised by gradient ascent.

A row's bound is its value at the corner of the cube where it is least, with every activation replaced by the line that
its coefficient takes and every split's operand subtracted with its multiplier. The derivative by a slope is the
coefficient times the operand's value where that corner leads on these lines, that by a multiplier the operand's value
itself: a gradient costs one pass forward. Everything is (features x rows).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from assay.verify.backends.bab.compact import Affine, Compact, Map
from assay.verify.bounds.rounding import DOUBLE
from assay.verify.bounds.slopes import DECAY, SPREAD
from assay.verify.support.floats import down


@dataclass(frozen=True)
class Climbing:
    """How rows are raised: ``steps``; the sizes of the first ones, of a slope, and of a multiplier as a share of its
    ``unit``; and how much smaller each is than the one before."""

    steps: int
    slope: float = 0.1
    multiplier: float = 0.05
    decay: float = 0.98


@dataclass(frozen=True, eq=False)
class Tables:
    """A compact network, and the rows ``A y - b`` of a disjunct of the unsafe set, in one precision."""

    compact: Compact
    output: Affine
    dtype: torch.dtype

    @cached_property
    def maps(self) -> list[dict[int, Map]]:
        """The matrices of each layer, of the output last, by the layer of their operands."""
        parts = [*(layer.operand for layer in self.compact.layers), self.output]
        return [{j: Map.of(m, self.dtype) for j, m in part.matrices.items()} for part in parts]

    @cached_property
    def bias(self) -> list[Tensor]:
        """The constants of each layer's operands, of the output last: (features) each."""
        return [self._tensor(part.bias) for part in [*(layer.operand for layer in self.compact.layers), self.output]]

    @cached_property
    def size(self) -> list[Tensor]:
        """The magnitudes that these have: (features) each."""
        return [self._tensor(part.size) for part in [*(layer.operand for layer in self.compact.layers), self.output]]

    @cached_property
    def stable(self) -> list[Tensor | None]:
        """The slopes of each layer's stable features (features x 1); None where all are 1."""
        return [
            None
            if layer.left == 0.0
            else torch.where(layer.lower[layer.unstable :] >= 0, 1.0, layer.left).to(self.dtype)[:, None]
            for layer in self.compact.layers
        ]

    @cached_property
    def left(self) -> Tensor:
        """The slope below 0 of each unstable neuron: (unstable x 1)."""
        each = [torch.full((layer.unstable, 1), layer.left, dtype=self.dtype) for layer in self.compact.layers]
        return torch.cat([torch.zeros(0, 1, dtype=self.dtype), *each])

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.dtype)


@dataclass(frozen=True, eq=False)
class Splits:
    """What splits and bounds make of the unstable neurons: whether each is ``open``, the ``sign`` of its operand where
    it is not, and the upper line ``slope * z + height``; all (unstable x rows), or x 1 where all rows share it."""

    open: Tensor
    sign: Tensor
    slope: Tensor
    height: Tensor
    fixed: Tensor  # the slope of one that is not open, 0 elsewhere

    @classmethod
    def of(cls, tables: Tables, lower: Tensor, upper: Tensor, phase: Tensor) -> Splits:
        """``lower``, ``upper``: of operands, (unstable x rows or 1); ``phase``: -1, 0 or 1, of their shape too."""
        low, high = lower.clamp(max=0), upper.clamp(min=0)
        share = high / (high - low).clamp(min=torch.finfo(low.dtype).tiny)
        # Any line of slope in [0, 1] lies above with this intercept, whatever rounding made of the slope.
        height = torch.maximum(-low * share, high * (1 - share))
        left = tables.left
        sign = phase.to(tables.dtype)
        fixed = sign.clamp(min=0) - left * sign.clamp(max=0)
        open_ = 1 - sign.abs()
        slope = (left + (1 - left) * share).to(tables.dtype) * open_ + fixed
        return cls(open_, sign, slope, ((1 - left) * height).to(tables.dtype) * open_, fixed)


@dataclass(eq=False)
class Multipliers:
    """What is raised: ``alpha``, the lower lines' slopes, ``beta``, the splits' multipliers (unstable x rows), and
    ``weight``, those of the unsafe rows (unsafe rows x rows)."""

    alpha: Tensor
    beta: Tensor
    weight: Tensor

    def to(self, dtype: torch.dtype) -> Multipliers:
        """In another precision."""
        return Multipliers(self.alpha.to(dtype), self.beta.to(dtype), self.weight.to(dtype))

    def take(self, rows: Tensor) -> Multipliers:
        """Those of some rows, by number."""
        return Multipliers(*(t.index_select(1, rows) for t in (self.alpha, self.beta, self.weight)))


@dataclass(frozen=True, eq=False)
class Units:
    """Rows that begin at operands of one layer, counted from 1: ``sign`` times that of ``feature``, (rows) each."""

    layer: int
    feature: Tensor
    sign: Tensor


@dataclass(frozen=True, eq=False)
class Walk:
    """Rows at the input: their ``bound`` (rows), the coefficients ``at_input`` (varied inputs x rows), and those
    ``seen`` at the unstable neurons (unstable x rows). ``lost``: what rounding may have taken (rows), if asked for."""

    bound: Tensor
    at_input: Tensor
    seen: Tensor
    lost: Tensor | None


def backward(
    tables: Tables, splits: Splits, own: Multipliers, units: Units | None = None, charged: bool = False
) -> Walk:
    """Lower bounds of ``weight @ (A y - b)``, and of the units besides."""
    compact, layers = tables.compact, tables.compact.layers
    rows = own.alpha.shape[1]
    pending: dict[int, Tensor] = {}
    seen = own.alpha.new_zeros(own.alpha.shape)
    total = own.alpha.new_zeros(rows)
    lost = own.alpha.new_zeros(rows)

    def enter(number: int, coef: Tensor) -> None:
        """Rows of the operands of a layer, or of the output, as rows of what comes before."""
        nonlocal total, lost
        total = total.addmv_(coef.T, tables.bias[number])
        if charged:
            lost = lost.addmv_(coef.abs().T, tables.size[number])
        for j, matrix in tables.maps[number].items():
            pending[j] = matrix.pull(coef, pending.get(j))

    if bool(own.weight.any()) or units is None:
        enter(len(layers), own.weight)
    starts = compact.starts
    for k in range(len(layers), 0, -1):
        layer, here = layers[k - 1], slice(starts[k - 1], starts[k])
        coef = pending.pop(k, None)
        begins = units is not None and units.layer == k
        if coef is None:
            if not begins:
                continue
            coef = own.alpha.new_zeros(len(layer.features), rows)
        elif layer.unstable or tables.stable[k - 1] is not None:
            top = coef[: layer.unstable]
            seen[here] = top
            negative = top.clamp(max=0)
            total += (negative * splits.height[here]).sum(0)
            if charged:
                size = tables.size[k - 1][: layer.unstable, None]
                lost += (top.abs() * (2 * size + splits.height[here])).sum(0) + (own.beta[here] * size).sum(0)
            passed = (top - negative).mul_(own.alpha[here])
            passed.addcmul_(negative, splits.slope[here].expand_as(negative))
            passed.addcmul_(own.beta[here], splits.sign[here].expand_as(negative), value=-1)
            top.copy_(passed)
            slope = tables.stable[k - 1]
            if slope is not None:
                coef[layer.unstable :] *= slope
        if begins:
            assert units is not None
            coef[units.feature, torch.arange(rows)] += units.sign
        enter(k - 1, coef)
    at_input = pending.get(0)
    if at_input is None:
        at_input = own.alpha.new_zeros(len(compact.varied), rows)
    bound = total - at_input.abs().sum(0)
    if charged:
        lost = compact.share * lost + DOUBLE.dust
        bound = down(bound - lost)
    return Walk(bound, at_input, seen, lost if charged else None)


def forward(tables: Tables, splits: Splits, own: Multipliers, walk: Walk) -> tuple[Tensor, Tensor]:
    """The operands of the unstable neurons (unstable x rows) and ``A y - b`` (unsafe rows x rows), where the corner at
    which rows are least leads on the lines that they take."""
    compact = tables.compact
    rows, starts = walk.at_input.shape[1], compact.starts
    values = [walk.at_input.sign().neg_()]
    operands = torch.empty_like(walk.seen)
    # The upper line where the coefficient is negative.
    above = (walk.seen < 0).to(tables.dtype)
    slope = torch.addcmul(own.alpha, above, splits.slope - own.alpha)
    height = above.mul_(splits.height)
    for k, layer in enumerate(compact.layers, start=1):
        z = tables.bias[k - 1][:, None].expand(-1, rows).clone()
        for j, matrix in tables.maps[k - 1].items():
            matrix.push(values[j], z)
        here, top = slice(starts[k - 1], starts[k]), z[: layer.unstable]
        operands[here] = top
        top.mul_(slope[here]).add_(height[here])
        stable = tables.stable[k - 1]
        if stable is not None:
            z[layer.unstable :] *= stable
        values.append(z)
    y = tables.bias[-1][:, None].expand(-1, rows).clone()
    for j, matrix in tables.maps[-1].items():
        matrix.push(values[j], y)
    return operands, y


def climb(
    tables: Tables,
    splits: Splits,
    own: Multipliers,
    how: Climbing,
    unit: Tensor | None,
    enough: float,
    free: Tensor | None = None,
    units: Units | None = None,
) -> Walk:
    """Raise ``own``, in place; the last walk. A row stays where its bound passes ``enough``.

    ``unit``: the size of the splits' multipliers (unstable x rows, or 1), that of the coefficients at first where it is
    None; ``free``: that of the weights of the unsafe
    rows, 0 where they stay (unsafe rows x rows); None where all do. Without ``units`` the weights are those of a mean.
    """
    moments = [torch.zeros_like(t) for t in (own.alpha, own.alpha, own.beta, own.beta, own.weight, own.weight)]
    split = bool(splits.sign.any())
    for step in range(1, how.steps + 2):
        walk = backward(tables, splits, own, units)
        if step > how.steps:
            return walk
        going = (~(walk.bound > enough)).to(tables.dtype)
        if units is None and not bool(going.any()):
            return walk
        unit = typical(tables, walk) if unit is None else unit
        z, y = forward(tables, splits, own, walk)
        size = how.decay ** (step - 1) * (1 - SPREAD**step) ** 0.5 / (1 - DECAY**step)
        if free is not None:
            moved = _step(y * free, moments[4:], how.slope * size).mul_(free).mul_(going)
            own.weight.add_(moved).clamp_(min=0)
            if units is None:
                own.weight.div_(own.weight.sum(0).clamp(min=torch.finfo(tables.dtype).tiny))
        if split:
            moved = _step((z * splits.sign).neg_(), moments[2:4], how.multiplier * size)
            own.beta.addcmul_(moved.mul_(going), unit).clamp_(min=0)
        gradient = walk.seen.clamp(min=0).mul_(z).mul_(splits.open)
        own.alpha.add_(_step(gradient, moments[:2], how.slope * size).mul_(going))
        torch.maximum(own.alpha.clamp_(max=1), tables.left, out=own.alpha)
    raise AssertionError("a climb ends within its steps")


def typical(tables: Tables, walk: Walk) -> Tensor:
    """The mean size of coefficients at the unstable neurons of each layer: (unstable x 1)."""
    sizes = [layer.unstable for layer in tables.compact.layers]
    means = [part.abs().mean().nan_to_num(nan=0.0).expand(len(part), 1) for part in walk.seen.split(sizes)]
    return torch.cat(means) if means else walk.seen.new_zeros(0, 1)


def _step(gradient: Tensor, moments: Sequence[Tensor], size: float) -> Tensor:
    """One step upward of Kingma and Ba 2015 (arXiv:1412.6980)."""
    mean, square = moments
    mean.mul_(DECAY).add_(gradient, alpha=1 - DECAY)
    square.mul_(SPREAD).addcmul_(gradient, gradient, value=1 - SPREAD)
    return (mean * size).div_(square.sqrt().add_(1e-30))
