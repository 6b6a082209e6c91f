"""Bounds of rows under splits (beta-CROWN: Wang et al. 2021, arXiv:2103.06624): slopes of lower lines and multipliers
of splits, a set of them a row, raised by gradient ascent.

A row's bound is its value at the corner of the cube where it is least, with every activation replaced by the line that
its coefficient takes and every split's operand subtracted with its multiplier. The derivative by a slope is the
coefficient times the operand's value where that corner leads on these lines, that by a multiplier the operand's value
itself: a gradient costs one pass forward. Everything is (features x rows), so that layers are slices; nothing is
broadcast on the way, which would take ten times as long.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from assay.verify.backends.bab.compact import FEW, Affine, Compact, Layer, Map
from assay.verify.bounds.rounding import DOUBLE
from assay.verify.bounds.slopes import DECAY, SPREAD
from assay.verify.programs.program import Vector
from assay.verify.support.floats import down, gamma

TINY = 1e-30  # a gradient's square at least


@dataclass(frozen=True)
class Climbing:
    """How rows are raised: ``steps``; the sizes of the first ones, of a slope and of a multiplier; and how much smaller
    each is than the one before."""

    steps: int
    slope: float = 0.1
    multiplier: float = 0.5
    decay: float = 0.98


@dataclass(frozen=True, eq=False)
class Tables:
    """A compact network, and the rows ``A y - b`` of the unsafe set, its ``output``, in one precision."""

    compact: Compact
    output: Affine
    dtype: torch.dtype

    @cached_property
    def maps(self) -> list[dict[int, Map]]:
        """The matrices of each layer, of the output last, by the layer of their operands."""
        return [{j: Map.of(m, self.dtype) for j, m in part.matrices.items()} for part in self._parts]

    @cached_property
    def bias(self) -> list[Tensor]:
        """The constants of each layer's operands, of the output last: (features x 1) each."""
        return [self._column(part.bias) for part in self._parts]

    @cached_property
    def size(self) -> list[Tensor]:
        """The magnitudes that these have: (features x 1) each."""
        return [self._column(part.size) for part in self._parts]

    @cached_property
    def stable(self) -> list[Tensor | None]:
        """The slopes of each layer's stable features (features x 1); None where all are 1."""
        return [None if layer.left == 0.0 else self._slopes(layer) for layer in self.compact.layers]

    @cached_property
    def left(self) -> Tensor | None:
        """The slope below 0 of each unstable neuron (unstable x 1); None where all are 0."""
        if all(layer.left == 0.0 for layer in self.compact.layers):
            return None
        return torch.cat(
            [torch.full((layer.unstable, 1), layer.left, dtype=self.dtype) for layer in self.compact.layers]
        )

    def _slopes(self, layer: Layer) -> Tensor:
        active = (layer.lower[layer.unstable :, None] >= 0).to(self.dtype)
        return active + (1 - active) * layer.left

    @property
    def _parts(self) -> list[Affine]:
        return [*(layer.operand for layer in self.compact.layers), self.output]

    def _column(self, values: Vector) -> Tensor:
        return torch.from_numpy(values).to(self.dtype)[:, None]


@dataclass(frozen=True, eq=False)
class Kinks:
    """What splits and bounds make of the unstable neurons, all (unstable x rows): 1 where one is ``open``, else its
    ``sign``, -1 or 1, and the slope that it has then, ``fixed``; the upper line ``slope * z + height``."""

    open: Tensor
    sign: Tensor
    fixed: Tensor
    slope: Tensor
    height: Tensor

    @classmethod
    def of(cls, tables: Tables, lower: Tensor, upper: Tensor, phase: Tensor, owner: Tensor) -> Kinks:
        """``lower``, ``upper``: of operands, float64 (unstable x owners); ``phase``: -1, 0 or 1 (unstable x rows);
        ``owner``: whose bounds a row has (rows)."""
        low, high = lower.to(tables.dtype).clamp_(max=0), upper.to(tables.dtype).clamp_(min=0)
        share = high / (high - low).clamp(min=torch.finfo(low.dtype).tiny)
        # Any line of slope in [0, 1] lies above with this intercept, whatever rounding made of the slope.
        height = torch.maximum(-low * share, high * (1 - share))
        if tables.left is not None:
            share, height = tables.left + (1 - tables.left) * share, (1 - tables.left) * height
        sign = phase.to(tables.dtype)
        fixed = sign.clamp(min=0)
        if tables.left is not None:
            fixed = fixed - tables.left * sign.clamp(max=0)
        open_ = 1 - sign.abs()
        slope = share.index_select(1, owner).mul_(open_).add_(fixed)
        return cls(open_, sign, fixed, slope, height.index_select(1, owner).mul_(open_))


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
    ``seen`` at the unstable neurons, and the lines ``slope * z + height`` that they take (unstable x rows)."""

    bound: Tensor
    at_input: Tensor
    seen: Tensor
    slope: Tensor
    height: Tensor


def backward(tables: Tables, kinks: Kinks, own: Multipliers, units: Units | None = None, charged: bool = False) -> Walk:
    """Lower bounds of ``weight @ (A y - b)``, and of the units besides; ``charged``: less what rounding takes."""
    compact, layers, starts = tables.compact, tables.compact.layers, tables.compact.starts
    rows = own.alpha.shape[1]
    pending: dict[int, Tensor] = {}
    total, lost = own.alpha.new_zeros(rows), own.alpha.new_zeros(rows)
    seen = torch.zeros_like(own.alpha)
    alpha = own.alpha
    if charged and tables.left is not None:
        alpha = torch.maximum(alpha, tables.left)  # what is least in float32 may be too little in float64
    above, slope = torch.zeros_like(alpha), kinks.slope - alpha
    height = torch.zeros_like(own.alpha)

    def enter(number: int, coef: Tensor) -> None:
        """Rows of the operands of a layer, or of the output, as rows of what comes before."""
        total.addmv_(coef.T, tables.bias[number][:, 0])
        if charged:
            lost.addmv_(coef.abs().T, tables.size[number][:, 0])
        for j, matrix in tables.maps[number].items():
            pending[j] = matrix.pull(coef, pending.get(j))

    if units is None or bool(own.weight.any()):
        enter(len(layers), own.weight)
    for k in range(len(layers), 0, -1):
        layer, here = layers[k - 1], slice(starts[k - 1], starts[k])
        coef, begins = pending.pop(k, None), units is not None and units.layer == k
        if coef is not None:
            top = coef[: layer.unstable]
            seen[here] = top
            torch.lt(top, 0, out=above[here])
            slope[here].mul_(above[here]).add_(alpha[here])
            torch.mul(above[here], kinks.height[here], out=height[here])
            total += (top * height[here]).sum(0)
            if charged:
                size = tables.size[k - 1][: layer.unstable]
                lost += (top.abs() * (2 * size + kinks.height[here]) + own.beta[here] * size).sum(0)
            top.mul_(slope[here]).addcmul_(own.beta[here], kinks.sign[here], value=-1)
            stable = tables.stable[k - 1]
            if stable is not None:
                coef[layer.unstable :] *= stable
        else:
            slope[here] = alpha[here]
            if not begins:
                continue
            coef = own.alpha.new_zeros(len(layer.features), rows)
        if begins:
            assert units is not None
            coef[units.feature, torch.arange(rows)] += units.sign
        enter(k - 1, coef)
    at_input = pending.get(0)
    if at_input is None:
        at_input = own.alpha.new_zeros(len(compact.varied), rows)
    bound = total - at_input.abs().sum(0)
    if charged:
        share = compact.share + 4 * gamma(len(tables.output.bias) + FEW)
        bound = down(bound - (share * lost + DOUBLE.dust))
    return Walk(bound, at_input, seen, slope, height)


def forward(tables: Tables, walk: Walk) -> tuple[Tensor, Tensor]:
    """The operands of the unstable neurons (unstable x rows) and ``A y - b`` (unsafe rows x rows), where the corner at
    which rows are least leads on the lines that they take."""
    compact, starts = tables.compact, tables.compact.starts
    one = walk.at_input.new_ones(1, walk.at_input.shape[1])
    values = [walk.at_input.sign().neg_()]
    operands = torch.empty_like(walk.seen)
    for k, layer in enumerate(compact.layers, start=1):
        z = tables.bias[k - 1] @ one
        for j, matrix in tables.maps[k - 1].items():
            matrix.push(values[j], z)
        here, top = slice(starts[k - 1], starts[k]), z[: layer.unstable]
        operands[here] = top
        torch.addcmul(walk.height[here], top, walk.slope[here], out=top)
        stable = tables.stable[k - 1]
        if stable is not None:
            z[layer.unstable :] *= stable
        values.append(z)
    y = tables.bias[-1] @ one
    for j, matrix in tables.maps[-1].items():
        matrix.push(values[j], y)
    return operands, y


def climb(
    tables: Tables,
    kinks: Kinks,
    own: Multipliers,
    how: Climbing,
    unit: Tensor | None,
    free: Tensor | None = None,
    units: Units | None = None,
) -> Walk:
    """Raise ``own``, in place; the last walk.

    ``unit``: the size of the splits' multipliers (unstable x rows), that of the coefficients at first where it is
    None; ``free``: that of the weights of the unsafe rows, 0 where they stay (unsafe rows x rows); None where all do.
    Without ``units`` the weights are those of a mean.
    """
    inner, outer = (Moments.at_rest(t) for t in (own.alpha, own.weight))
    closed = 1 - kinks.open
    for step in range(1, how.steps + 1):
        walk = backward(tables, kinks, own, units)
        if step == 1:
            unit = typical(tables, walk).expand_as(closed) if unit is None else unit
            size = closed * unit
        z, y = forward(tables, walk)
        rate = how.decay ** (step - 1) * (1 - SPREAD**step) ** 0.5 / (1 - DECAY**step)
        if free is not None:
            own.weight.addcmul_(outer.toward(y * free), free, value=how.slope * rate).clamp_(min=0)
            if units is None:
                own.weight.div_(own.weight.sum(0).clamp(min=torch.finfo(tables.dtype).tiny))
        # A neuron that is open has a slope that moves, one that is split a multiplier.
        pull = walk.seen.clamp(min=0).mul_(kinks.open).sub_(kinks.sign).mul_(z)
        toward = inner.toward(pull)
        own.alpha.addcmul_(toward, kinks.open, value=how.slope * rate).clamp_(0.0, 1.0)
        if tables.left is not None:
            torch.maximum(own.alpha, tables.left, out=own.alpha)
        own.beta.addcmul_(toward, size, value=how.multiplier * rate).clamp_(min=0)
    return backward(tables, kinks, own, units)


def typical(tables: Tables, walk: Walk) -> Tensor:
    """The mean size of coefficients at the unstable neurons of each layer: (unstable x 1)."""
    sizes = [layer.unstable for layer in tables.compact.layers]
    means = [part.abs().mean().nan_to_num(nan=0.0).expand(len(part), 1) for part in torch.split(walk.seen, sizes)]
    return torch.cat(means) if means else walk.seen.new_zeros(0, 1)


@dataclass(frozen=True, eq=False)
class Moments:
    """The running means of a gradient and of its square (Kingma and Ba 2015, arXiv:1412.6980)."""

    mean: Tensor
    square: Tensor

    @classmethod
    def at_rest(cls, moved: Tensor) -> Moments:
        """Of a tensor that has not been moved."""
        return cls(torch.zeros_like(moved), torch.full_like(moved, TINY))

    def toward(self, gradient: Tensor) -> Tensor:
        """Where to go next; the gradient is used up."""
        self.mean.mul_(DECAY).add_(gradient, alpha=1 - DECAY)
        self.square.mul_(SPREAD).addcmul_(gradient, gradient, value=1 - SPREAD)
        return torch.div(self.mean, torch.sqrt(self.square, out=gradient), out=gradient)
