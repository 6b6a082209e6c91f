"""A comparison as entries of RobustBench's leaderboard (Croce et al. 2021), as far as a run knows what these say."""

from __future__ import annotations

from math import inf, isclose
from typing import Any

from assay.attacks.autoattack import AutoAttack
from assay.benchmarks.harness.bracket import ALL_ATTACKS, ALL_METHODS, Bracketed, Row
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.norms import norm_name
from assay.verify.core.result import NETWORK
from assay.verify.support.plain import counted

NORMS = {inf: "Linf", 2.0: "L2"}
STANDARD = repr(AutoAttack(patience=inf))  # the leaderboard's figure is that of the whole published budget


def entries(comparison: Bracketed) -> list[dict[str, Any]]:
    """An entry for each eps, rising, under the leaderboard's keys; accuracies are percentages with two decimals.

    ``autoattack_acc`` is None unless ``autoattack(patience=inf)`` ran; ``external`` is there where all attacks together
    broke more, or AutoAttack did not run. Raises :class:`UnsupportedError` for norms without a leaderboard.
    """
    if comparison.norm not in NORMS:
        raise UnsupportedError(f"RobustBench ranks models in linf and l2, this run is in {norm_name(comparison.norm)}")
    clean, *others = [row for row in comparison.rows if row.subject == NETWORK]
    return [
        _entry(comparison, clean, eps, {row.name: row for row in others if row.eps == eps})
        for eps in sorted({row.eps for row in others})
    ]


def _entry(comparison: Bracketed, clean: Row, eps: float, rows: dict[str, Row]) -> dict[str, Any]:
    standard = next((row for row in rows.values() if row.key == STANDARD and not row.refusal), None)
    every, certified = rows[ALL_ATTACKS], rows[ALL_METHODS]
    fewer = not every.refusal and (standard is None or every.count < standard.count)
    proved = "" if certified.refusal else f", at least {_percent(certified)}% certified"
    return {
        "name": comparison.model,
        "dataset": comparison.data.removesuffix(" (test)"),
        "threat_model": NORMS[comparison.norm],
        "eps": _written(eps, comparison.norm),
        "clean_acc": _percent(clean),
        "autoattack_acc": None if standard is None else _percent(standard),
        **({"external": _percent(every)} if fewer else {}),
        "footnote": f"{counted(comparison.n, 'sample')}{proved}",
    }


def _percent(row: Row) -> str:
    return f"{100 * row.accuracy:.2f}"


def _written(eps: float, norm: float) -> str:
    """A radius as the leaderboard writes it: in linf in steps of a pixel's value, where it is whole ones."""
    steps = round(255 * eps)
    return f"{steps}/255" if norm == inf and steps and isclose(255 * eps, steps, rel_tol=1e-9) else f"{eps:g}"
