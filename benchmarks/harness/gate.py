"""What a model must reach, in figures of the bracket, or against an earlier run: the gate of a build.

Counts are compared as fractions, never as rounded shares: 150 of 200 is at least 0.75.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from assay.attacks.common.interface import Attack
from assay.benchmarks.harness import bracket
from assay.benchmarks.harness.bracket import ALL_ATTACKS, ALL_METHODS, CLEAN, CONFIDENCE, Bracketed, Row
from assay.benchmarks.harness.participants import participants_of
from assay.benchmarks.harness.records.recorded import Recorded
from assay.verify.core.errors import InputError, RequirementError
from assay.verify.core.result import NETWORK
from assay.verify.core.verifier import Verifier

# The figures by the names that requirements call them.
JAWS = {"certified": ALL_METHODS, "empirical": ALL_ATTACKS}
COMPARISONS: dict[str, Callable[[Fraction, Fraction], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
FORM = re.compile(r"\s*(?P<what>.+?)\s*(?P<sign>>=|<=|>|<)\s*(?P<value>[^<>=]+?)\s*(?P<percent>%?)\s*")
EXAMPLE = "'certified@0.1 >= 0.75', 'empirical@8/255 <= 0.9', 'clean >= 95%' or 'crown@0.1 >= 0.5'"


@dataclass(frozen=True)
class Requirement:
    """``name`` of a row, at ``eps`` (None for clean accuracy), held against ``value`` by ``sign``."""

    text: str
    name: str
    eps: float | None
    sign: str
    value: Fraction

    @classmethod
    def read(cls, text: str) -> Requirement:
        """``certified@0.1 >= 0.75`` and the like: certified, empirical, clean, or the name of a method or attack.

        Raises :class:`InputError` for what is none.

        >>> read = Requirement.read("certified@8/255 >= 75%")
        >>> read.name, read.eps == 8 / 255, read.sign, read.value
        ('all methods', True, '>=', Fraction(3, 4))
        """
        found = FORM.fullmatch(text)
        if found is None:
            raise InputError(f"--require: expected {EXAMPLE}, got {text!r}")
        name, at, radius = found["what"].rpartition("@")
        name = (name if at else radius).strip()
        value = _number(text, found["value"]) / (100 if found["percent"] else 1)
        if not 0 <= value <= 1:
            raise InputError(f"--require: expected a share from 0 to 1, or from 0% to 100%, got {text!r}")
        if bool(at) == (name == CLEAN):
            form = f"{CLEAN} without an eps" if name == CLEAN else f"an eps, as in {name}@0.1"
            raise InputError(f"--require: expected {form}, got {text!r}")
        eps = float(_number(text, radius)) if at else None
        return cls(text.strip(), JAWS.get(name, name), eps, found["sign"], value)

    def row(self, rows: Sequence[Row]) -> Row:
        """The row that it speaks of. Raises :class:`InputError` where there is none."""
        own = [row for row in rows if row.name == self.name and (self.eps is None or row.eps == self.eps)]
        if not own:
            radii = ", ".join(f"{eps:g}" for eps in sorted({row.eps for row in rows if row.name != CLEAN}))
            names = ", ".join(dict.fromkeys([CLEAN, *JAWS, *(r.name for r in rows if r.name not in JAWS.values())]))
            raise InputError(f"--require {self.text!r}: there are the rows {names} at the radii {radii}")
        return next((row for row in own if row.subject == NETWORK), own[0])

    def check(self, rows: Sequence[Row]) -> Finding:
        """Whether the rows meet it; a row of somebody who could not run meets nothing."""
        row = self.row(rows)
        if row.refusal:
            return Finding(self.text, False, row.refusal)
        met = COMPARISONS[self.sign](Fraction(row.count, row.n), self.value)
        return Finding(self.text, met, f"{row.accuracy:.1%}, {row.count} of {row.n}")


@dataclass(frozen=True)
class Finding:
    """What was asked for, whether it holds, and the figure."""

    text: str
    met: bool
    figure: str

    def __str__(self) -> str:
        return f"{self.text}: {'met' if self.met else 'NOT MET'} ({self.figure})"


def foreseen(
    asked: Sequence[Requirement], methods: Sequence[Verifier], attacks: Sequence[Attack], radii: Sequence[float]
) -> None:
    """Refuse, before any work, what a comparison of these would have no row for."""
    everybody = participants_of(methods, attacks)
    wrong = {NETWORK: 0, **{each.subject: 0 for each in everybody}}
    rows = list(bracket.rows(everybody, sorted(set(radii)), 1, wrong, []))
    for each in asked:
        each.row(rows)


def raise_unmet(found: Sequence[Finding]) -> None:
    """Raise :class:`RequirementError` if anything was not met; to be called once everything is written."""
    if unmet := [each for each in found if not each.met]:
        more = f"; {len(unmet) - 1} more" if len(unmet) > 1 else ""
        raise RequirementError(f"{unmet[0]}{more}")


def baseline(recorded: Recorded, data: str, threat: str, radii: Sequence[float]) -> Recorded:
    """The run, if it can be a baseline for these radii under the ``threat``, a norm or a perturbation by name.

    Raises :class:`InputError` for why not.
    """
    about = recorded.about
    why = ""
    if about.seconds is None:
        why = "its run did not come to its end, or does not say what it was about"
    elif recorded.alarms:
        why = f"it has a soundness alarm: {recorded.alarms[0]}"
    elif (about.data, about.threat) != (data, threat):
        why = f"it is about {about.data} in {about.threat}, not {data} in {threat}"
    elif not set(about.radii) & set(radii):
        why = f"it has the radii {', '.join(f'{eps:g}' for eps in about.radii)}, none of these"
    if why:
        raise InputError(f"--baseline: expected a finished run to compare with: {why}")
    return recorded


def against(comparison: Bracketed, earlier: Recorded) -> list[Finding]:
    """Clean accuracy and both jaws beside those of the earlier run: each is met unless it fell below the exact 95%
    interval of the earlier one, so that chance alone is no reason to stop a build."""
    findings = []
    for row in (row for row in comparison.rows if row.name in (CLEAN, *JAWS.values()) and row.subject == NETWORK):
        for old in earlier.rows:
            if (old.name, old.eps, old.subject) != (row.name, row.eps, row.subject) or old.refusal:
                continue
            low = old.interval[0]
            what = row.name if row.name == CLEAN else f"{row.name} at eps {row.eps:g}"
            text = f"{what} no worse than the baseline"
            figure = f"{row.accuracy:.1%}, was {old.accuracy:.1%}, {CONFIDENCE:.0%} interval from {low:.1%}"
            findings.append(Finding(text, not row.refusal and row.accuracy >= low, row.refusal or figure))
    return findings


def _number(text: str, number: str) -> Fraction:
    try:
        above, _, below = number.strip().rstrip("%").partition("/")
        return Fraction(above) / Fraction(below or 1)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"--require: expected {EXAMPLE}, got {text!r}") from None
