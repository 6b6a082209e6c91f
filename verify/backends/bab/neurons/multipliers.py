"""Bounds of rows under splits (beta-CROWN: Wang et al. 2021, arXiv:2103.06624): slopes of lower lines and multipliers
of splits, a set of them a row.

A row's bound is its value at the corner of the cube where it is least, with every activation replaced by the line that
its coefficient takes and every split's operand subtracted with its multiplier. Everything is (features x rows), so that
layers are slices; nothing is broadcast on the way, which would take ten times as long.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from assay.verify.backends.bab.neurons.compact import FEW
from assay.verify.backends.bab.neurons.tables import Room, Tables
from assay.verify.bounds.rounding import DOUBLE
from assay.verify.support.floats import down, gamma


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
        """Those of the rows at the positions ``rows`` (kept rows)."""
        return Multipliers(*(t.index_select(1, rows) for t in (self.alpha, self.beta, self.weight)))


@dataclass(frozen=True, eq=False)
class Units:
    """Rows that begin at operands of one layer, counted from 1: ``sign`` times that of ``feature``, (rows) each."""

    layer: int
    feature: Tensor
    sign: Tensor


@dataclass(frozen=True, eq=False)
class Given:
    """What a walk is given. By how much lower lines' slopes exceed those of the upper ones is in ``rest``; what
    multipliers of splits add to coefficients is in ``added``, 0 at neurons that are open: (unstable x rows)."""

    tables: Tables
    kinks: Kinks
    rest: Tensor
    added: Tensor

    @cached_property
    def split(self) -> bool:
        """Whether any neuron is split: rows that begin at a neuron then depend on later layers, too."""
        return bool(self.kinks.sign.any())

    @cached_property
    def lines(self) -> list[tuple[Tensor, ...]]:
        """Of each layer upper slopes, ``rest`` and ``added``: (its unstable neurons x rows)."""
        return list(zip(*map(self.tables.split, (self.kinks.slope, self.rest, self.added)), strict=True))


@dataclass(frozen=True, eq=False)
class Walk:
    """Rows at the input: their ``bound`` (rows), and what was found on the way in ``room``, until the next walk."""

    bound: Tensor
    room: Room

    @property
    def at_input(self) -> Tensor:
        """Coefficients there: (varied inputs x rows)."""
        return self.room.at_input

    @property
    def seen(self) -> Tensor:
        """Coefficients at the unstable neurons: (unstable x rows)."""
        return self.room.seen


def backward(tables: Tables, kinks: Kinks, own: Multipliers, units: Units | None = None, charged: bool = False) -> Walk:
    """Lower bounds of ``weight @ (A y - b)``, and of the units besides; ``charged``: less what rounding takes."""
    alpha = own.alpha
    if charged and tables.left is not None:
        alpha = torch.maximum(alpha, tables.left)  # what is least in float32 may be too little in float64
    room = lead(Given(tables, kinks, alpha - kinks.slope, -own.beta * kinks.sign), own.weight, units)
    bound = torch.mul(room.seen, room.height, out=room.operand).sum(0)
    for coef, bias in zip((*room.layers, own.weight), tables.bias, strict=True):
        bound.addmv_(coef.T, bias[:, 0])
    bound -= torch.abs(room.at_input, out=room.spare).sum(0)
    return Walk(_charged(tables, kinks, own, room, bound) if charged else bound, room)


def _charged(tables: Tables, kinks: Kinks, own: Multipliers, room: Room, bound: Tensor) -> Tensor:
    """Bounds less what rounding takes; magnitudes take the place of the values that they are of."""
    lost = torch.zeros_like(bound)
    for coef, size in zip((*(layer.abs_() for layer in room.layers), own.weight.abs()), tables.size, strict=True):
        lost.addmv_(coef.T, size[:, 0])
    sizes = tables.at_kinks
    lost.addmv_(own.beta.T, sizes)
    lost += torch.abs(room.seen, out=room.operand).mul_(kinks.height + 2 * sizes[:, None]).sum(0)
    share = tables.compact.share + 4 * gamma(len(tables.output.bias) + FEW)
    return down(bound - (share * lost + DOUBLE.dust))


def lead(given: Given, weight: Tensor, units: Units | None = None) -> Room:
    """Take rows of the unsafe set, in a mean by ``weight`` (unsafe rows x rows), and units back to the input."""
    tables, room = given.tables, given.tables.room(weight.shape[1])
    filled = [False] * len(room.pulled)

    def enter(number: int, coef: Tensor) -> None:
        """Rows of the operands of a layer, or of the output, as rows of what comes before."""
        for j, matrix in tables.maps[number].items():
            matrix.pull(coef, room.pulled[j], not filled[j])
            filled[j] = True

    if units is None or given.split or bool(weight.any()):
        enter(len(room.layers), weight)
    for k in range(len(room.layers), 0, -1):
        coef, (seen, positive, _, _, top) = room.layers[k - 1], room.lines[k - 1]
        upper, rest, added = given.lines[k - 1]
        begins = units is not None and units.layer == k
        if not filled[k]:
            seen.zero_()
            coef.zero_()
        torch.clamp(seen, min=0, out=positive)
        if filled[k]:
            torch.addcmul(added, upper, seen, out=top).addcmul_(rest, positive)
            stable = tables.stable[k - 1]
            if stable is not None:
                coef[len(top) :] *= stable
        if units is not None and begins:
            coef[units.feature, torch.arange(coef.shape[1])] += units.sign
        if begins or filled[k]:
            enter(k - 1, coef)
    if not filled[0]:
        room.at_input.zero_()
    lower = torch.ge(room.seen, 0, out=room.slope)
    torch.addcmul(given.kinks.height, given.kinks.height, lower, value=-1, out=room.height)
    torch.addcmul(given.kinks.slope, given.rest, lower, out=room.slope)
    return room


def forward(tables: Tables, room: Room, output: bool = True) -> Tensor | None:
    """Where the corner at which rows are least leads on the lines that they take: the unstable neurons' operands into
    ``room``, and ``A y - b`` (unsafe rows x rows), if that is asked for. The coefficients at the input are used up."""
    values = [room.at_input.sign_(), *room.layers]
    room.operand.copy_(tables.at_zero)
    for k, into in enumerate(room.pushed):
        (_, _, slope, height, top), (z, rest) = room.lines[k], into
        if rest.shape[0]:
            rest.copy_(tables.bias[k][z.shape[0] :])
        for j, matrix in tables.maps[k].items():
            matrix.push(values[j], into)
        torch.addcmul(height, z, slope, out=top)
        stable = tables.stable[k]
        if stable is not None:
            rest *= stable
    if not output:
        return None
    y = tables.bias[-1].repeat(1, room.at_input.shape[1])
    for j, matrix in tables.maps[-1].items():
        matrix.push(values[j], (y[:0], y))
    return y
