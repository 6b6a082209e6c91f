"""The audit of a log of certified radii: which (n, alpha, sigma) made it, and which rows cannot come from them.

A radius by Clopper-Pearson is that of p_k for one of the n + 1 possible counts k, sigma Phi^-1(p_k) for Gaussian noise:
the log lies on a lattice, as fine as n and as far as alpha and sigma let it reach. Each row is known to the digits
printed. What is not stated is recovered for Gaussian noise in l2; other noises are checked against what is.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from assay.verify.backends.smoothing.confidence import clopper_pearson_lower, least_successes
from assay.verify.backends.smoothing.kinds import Kind
from assay.verify.backends.smoothing.noises import Noise
from assay.verify.backends.smoothing.noises.erasing import pixels
from assay.verify.core.errors import InputError
from assay.verify.support.plain import counted

Array = NDArray[np.float64]

# What is tried where nothing is stated.
DRAWS = tuple(m * 10**k for k in range(2, 7) for m in (1, 2, 5))
ALPHAS = (0.1, 0.05, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0001)
SIGMAS = (0.05, 0.1, 0.12, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 1.0, 1.25, 1.5, 2.0)


@dataclass(frozen=True)
class Entry:
    """A row of a log: where it stands, its answer (-1: abstained), its radius and half a unit of its last digit."""

    line: int
    prediction: int
    radius: float
    tolerance: float


@dataclass(frozen=True)
class Law:
    """How a probability becomes a radius: under the noise of what ``kind``, in which norm (0: pixels), of samples of a
    ``shape``."""

    kind: Kind
    norm: float
    shape: tuple[int, ...]

    @cached_property
    def _noise(self) -> Noise:
        return self.kind.of(torch.zeros(self.shape))

    def radius(self, p: float) -> float:
        """The certified radius of p; 0 unless it is above 1/2."""
        sample = torch.zeros(self.shape)
        return self._noise.radius(p, self.norm, (pixels(sample) if self.norm == 0 else sample.shape).numel())


@dataclass(frozen=True)
class Setting:
    """What a log may have been made with; ``law``: the radius, that of Gaussian noise in l2 if not given."""

    n: int
    alpha: float
    sigma: float
    law: Law | None = None

    def __str__(self) -> str:
        amount = f"sigma = {self.sigma:g}" if self.law is None else str(self.law.kind)
        return f"n = {self.n}, alpha = {self.alpha:g}, {amount}"

    def radius(self, successes: int) -> float:
        """The radius of so many successes."""
        from scipy.special import ndtri

        p = clopper_pearson_lower(successes, self.n, self.alpha)
        return self.sigma * float(ndtri(p)) if self.law is None else self.law.radius(p)


@dataclass(frozen=True)
class Fault:
    """A row that cannot come from a setting, and why."""

    entry: Entry
    why: str


@dataclass(frozen=True)
class Fit:
    """A setting with the rows that it cannot explain; ``chance``: log of the chance that the others fit by accident."""

    setting: Setting
    faults: tuple[Fault, ...]
    chance: float


def read(path: Path) -> list[Entry]:
    """The rows of a log with a header that names ``radius`` and, maybe, ``predict`` or ``prediction``: comma or tab.

    Raises :class:`InputError` naming the line that cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the log {path}: {error}") from None
    if not lines:
        raise InputError(f"{path} is empty: expected a header with the column radius")
    table = csv.reader(lines, delimiter="\t" if "\t" in lines[0] else ",")
    header = [name.strip().lower() for name in next(table)]
    if "radius" not in header:
        raise InputError(f"{path}:1: expected a header with the column radius, got {lines[0][:80]!r}")
    answer = next((header.index(name) for name in ("prediction", "predict") if name in header), None)
    return [
        _entry(cells, header.index("radius"), answer, number, path)
        for number, cells in enumerate(table, 2)
        if any(cell.strip() for cell in cells)
    ]


def _entry(cells: list[str], radius: int, answer: int | None, line: int, path: Path) -> Entry:
    try:
        value = Decimal(cells[radius].strip())
        prediction = 0 if answer is None else int(float(cells[answer]))
        if not value.is_finite() or value < 0:
            raise ValueError
    except (IndexError, ValueError, InvalidOperation):
        raise InputError(f"{path}:{line}: expected a radius of at least 0, got {','.join(cells)[:80]!r}") from None
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    # A double has 15 to 17 digits: beyond 12 the arithmetic, not the print, limits what is known.
    tolerance = max(0.5 * 10.0**exponent, 1e-9 * float(value))
    return Entry(line, prediction, float(value), tolerance)


def check(entries: Sequence[Entry], setting: Setting) -> Fit:
    """The rows that ``setting`` cannot have made."""
    least = least_successes(setting.n, 0.5, setting.alpha)
    certified = [entry for entry in entries if entry.prediction >= 0 and entry.radius > entry.tolerance]
    faults = {
        id(entry): Fault(entry, f"abstained, but has the radius {entry.radius:g}")
        for entry in entries
        if entry.prediction < 0 and entry.radius > entry.tolerance
    }
    if least > setting.n:
        why = f"{counted(setting.n, 'draw')} can certify nothing at alpha {setting.alpha:g}"
        faults |= {id(entry): Fault(entry, f"radius {entry.radius:g}: {why}") for entry in certified}
        return Fit(setting, tuple(faults[id(e)] for e in entries if id(e) in faults), 0.0)
    counts, radii = _nearest(np.array([entry.radius for entry in certified]), setting, least)
    slack = np.array([entry.tolerance for entry in certified])
    distance = np.abs(radii - np.array([entry.radius for entry in certified])).min(0, initial=np.inf)
    gap = np.maximum(radii[-1] - radii[0], 1e-300) / np.maximum(counts[-1] - counts[0], 1)
    for i in np.flatnonzero(distance > slack).tolist():
        faults[id(certified[i])] = Fault(certified[i], _why(certified[i], counts[:, i], radii[:, i], setting))
    fitting = distance <= slack
    chance = float(np.log(np.minimum(1.0, 2 * slack[fitting] / gap[fitting])).sum())
    return Fit(setting, tuple(faults[id(e)] for e in entries if id(e) in faults), chance)


def _nearest(radii: Array, setting: Setting, least: int) -> tuple[Array, Array]:
    """The five counts (5 x rows) whose radii lie around each of ``radii``, rising, and their radii."""
    from scipy.special import bdtrik, betaincinv, ndtr, ndtri

    if setting.law is not None:
        return _searched(radii, setting, least)

    # The count, between whole numbers, whose Clopper-Pearson bound is the probability of the radius.
    count = bdtrik(1 - setting.alpha, setting.n, ndtr(radii / setting.sigma)) + 1
    middle = np.clip(np.nan_to_num(np.rint(count), nan=setting.n), least, setting.n)
    counts = np.clip(middle + np.arange(-2, 3)[:, None], least, setting.n)
    return counts, setting.sigma * ndtri(betaincinv(counts, setting.n - counts + 1, setting.alpha))


def _searched(radii: Array, setting: Setting, least: int) -> tuple[Array, Array]:
    """The same for any noise, whose radius grows with the count: by bisection, each count's radius worked out once."""
    known: dict[int, float] = {}

    def radius(count: int) -> float:
        if count not in known:
            known[count] = setting.radius(count)
        return known[count]

    middle = []
    for wanted in radii.tolist():
        low, high = least, setting.n
        while high - low > 1:
            between = (low + high) // 2
            low, high = (between, high) if radius(between) < wanted else (low, between)
        middle.append(high)
    counts = np.clip(np.array(middle, dtype=np.int64) + np.arange(-2, 3)[:, None], least, setting.n)
    return counts.astype(np.float64), np.array([[radius(int(k)) for k in row] for row in counts]).reshape(counts.shape)


def _why(entry: Entry, counts: Array, radii: Array, setting: Setting) -> str:
    if entry.radius > radii[-1]:
        return f"radius {entry.radius:g} is above {radii[-1]:g}, that of {counted(setting.n, 'success')} of {setting.n}"
    order = sorted(set(zip(np.abs(radii - entry.radius).tolist(), counts.tolist(), radii.tolist(), strict=True)))[:2]
    near = " and ".join(
        f"{radius:.9g} ({counted(int(k), 'success')})" for _, k, radius in sorted(order, key=lambda near: near[1])
    )
    return f"radius {entry.radius:.9g} is none of the possible ones: nearest are {near}"


def recover(entries: Sequence[Entry]) -> list[Fit]:
    """The settings that leave the fewest rows unexplained, the least accidental fit first; at most five."""
    fits = []
    positive = [entry for entry in entries if entry.radius > entry.tolerance]
    if not positive:
        return []
    far = max(positive, key=lambda entry: entry.radius)
    for n in DRAWS:
        for alpha in ALPHAS:
            if least_successes(n, 0.5, alpha) > n:
                continue
            reach = Setting(n, alpha, 1.0).radius(n)
            sigmas = {s for s in SIGMAS if s * reach >= far.radius - far.tolerance}
            # Where the longest radius is that of n successes it tells sigma, which is a round number.
            exact = float(f"{far.radius / reach:.3g}")
            if abs(exact * reach - far.radius) <= far.tolerance:
                sigmas.add(exact)
            fits += [check(entries, Setting(n, alpha, sigma)) for sigma in sorted(sigmas)]
    fits.sort(key=lambda fit: (len(fit.faults), fit.chance))
    return [fit for fit in fits if len(fit.faults) == len(fits[0].faults)][:5] if fits else []
