"""The report on a comparison, for people: alarms, both jaws, what tightness costs, radii, and every sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, isfinite
from typing import Any

import torch

from assay.benchmarks.harness.bracket import ALL_ATTACKS, ALL_METHODS, CLEAN, CONFIDENCE, Role, Row
from assay.benchmarks.harness.radii.radius_table import recorded_lines, spreads
from assay.benchmarks.harness.records.described import Description
from assay.benchmarks.harness.records.recorded import Recorded, Sample, at_levels
from assay.benchmarks.report import bracket_figure, page, price_figure, radii_figure
from assay.benchmarks.report.digits import above, below
from assay.benchmarks.report.tables import ordered
from assay.benchmarks.report.thumbnails import Album
from assay.verify.core.result import NETWORK, Verdict
from assay.verify.perturbations import Perturbation
from assay.verify.support.plain import counted

STRIPS = 500  # samples that are shown one by one
Label = Callable[[float], str]
STANDING = {Verdict.VERIFIED: "certified", Verdict.FALSIFIED: "broken", Verdict.UNKNOWN: "open"}


def render(recorded: Recorded) -> str:
    """The page, in HTML."""
    bracketed = at_levels(recorded)
    about, rows = bracketed.about, bracketed.rows
    own = [row for row in rows if row.subject == NETWORK]
    shown = _shown(recorded)
    facts: dict[str, Any] = {
        "run": recorded,
        "about": about,
        "norm": about.threat,
        "n": counted(about.n, "sample"),
        "clean": own[0] if own and about.machine else None,
        "levels": [{"eps": about.label(eps), **_level(own, eps)} for eps in about.radii],
        "bracket": _bracket(bracketed),
        "price": _price(recorded),
        "radii": page.figure(
            lambda size: radii_figure.plot(recorded, size, heading=False),
            "radii",
            "The radius of each sample, sorted: what is certified, and what breaks it. The samples below have the "
            "figures.",
        ),
        "spreads": _spreads(recorded),
        "smoothed": _smoothed(rows, about.label),
        "strips": shown,
        "left_out": about.n - len(shown),
        "pictures": sum(bool(each["pictures"]) for each in shown),
        "remarks": any(_row(row, about.label)["note"] for row in rows),
        "table": [_row(row, about.label) for row in _in_order(own)],
        "confidence": f"{CONFIDENCE:.0%}",
        "settings": _settings(recorded),
    }
    return page.render("comparison.html", facts)


def _in_order(rows: Sequence[Row]) -> list[Row]:
    """Clean first, then eps by eps, in each as the table in a terminal has them."""
    radii = sorted({row.eps for row in rows if row.name != CLEAN})
    clean = [row for row in rows if row.name == CLEAN]
    return clean + [row for eps in radii for row in ordered([r for r in rows if r.eps == eps and r.name != CLEAN])]


def _level(rows: Sequence[Row], eps: float) -> dict[str, Any]:
    """Both jaws at one eps; a jaw in which nobody could run is at its end."""
    by = {row.name: row for row in rows if row.eps == eps}
    upper, lower = by[ALL_ATTACKS], by[ALL_METHODS]
    low = 0.0 if lower.refusal else lower.accuracy
    high = (lower.n - upper.misclassified) / upper.n if upper.refusal else upper.accuracy
    return {
        "low": low,
        "high": high,
        "certified": lower.count if not lower.refusal else 0,
        "standing": upper.count if not upper.refusal else upper.n - upper.misclassified,
        "open": max(round((high - low) * upper.n), 0),
        "crossed": low > high,
        "interval_low": lower.interval,
        "interval_high": upper.interval,
    }


def _bracket(recorded: Recorded) -> Any:
    if not recorded.about.radii:  # a search that found nothing
        return None
    return page.figure(
        lambda size: bracket_figure.plot(recorded, size, heading=False),
        "bracket",
        "Accuracy against the radius: what attacks leave standing above, what methods certify below. "
        "The table of all rows has the figures.",
    )


def _price(recorded: Recorded) -> Any:
    if not price_figure.priced(recorded):
        return None
    return page.figure(
        lambda size: price_figure.plot(recorded, size, heading=False),
        "price",
        "Certified accuracy of each method against its seconds for a sample. The table of all rows has the figures.",
    )


def _spreads(recorded: Recorded) -> list[dict[str, Any]]:
    """Of a search for radii: mean, quantiles and tightness of every participant."""
    if recorded.about.tolerance is None:
        return []
    rows = []
    for spread in spreads(recorded.about.seats, recorded_lines(recorded)):
        sign, digits = ("\u2264", above) if spread.role is Role.ATTACK else ("\u2265", below)
        values = [(value, f"{sign} {digits(value)}") for value in (spread.mean, *spread.tenths)]
        rows.append({"spread": spread, "values": values, "jaw": spread.name in (ALL_ATTACKS, ALL_METHODS)})
    return rows


def _reaches(sample: Sample, about: Description) -> list[str]:
    """Of a search for radii: how far each participant came."""
    if about.tolerance is None:
        return []
    found = []
    for seat in about.seats:
        said = [each for each in sample.said if each.seat == seat]
        proved = [s.eps for s in said if s.record.result.verdict is Verdict.VERIFIED]
        broken = [s.reach for s in said if s.record.result.verdict is Verdict.FALSIFIED]
        if seat.role is Role.METHOD and proved:
            found.append(f"{seat.name} \u2265 {below(max(proved))}")
        elif seat.role is Role.ATTACK and broken:
            found.append(f"{seat.name} \u2264 {above(min(broken))}")
    return found


def _smoothed(rows: Sequence[Row], label: Label) -> list[dict[str, Any]]:
    """By subject, what was said of classifiers that are not the network itself."""
    subjects = dict.fromkeys(row.subject for row in rows if row.subject != NETWORK)
    return [
        {"subject": subject, "rows": [_row(row, label) for row in _in_order([r for r in rows if r.subject == subject])]}
        for subject in subjects
    ]


def _row(row: Row, label: Label) -> dict[str, Any]:
    side = "clean" if row.name == CLEAN else "attack" if row.role.value == "attack" else "method"
    odd = [f"{count} {reason}" for reason, count in row.reasons.items() if reason != "incomplete"]
    return {
        "eps": row.eps,
        "label": label(row.eps),
        "name": row.name,
        "side": side,
        "jaw": row.name in (ALL_ATTACKS, ALL_METHODS),
        "subject": row.subject,
        "sign": {"clean": "", "attack": "\u2264", "method": "\u2265"}[side],
        "accuracy": None if row.refusal else row.accuracy,
        "interval": row.interval,
        "verified": row.verified if side == "method" else None,
        "falsified": row.falsified,
        "unknown": row.unknown if side == "method" else None,
        "seconds": row.seconds,
        "note": row.refusal or ", ".join(odd),
    }


def _shown(recorded: Recorded) -> list[dict[str, Any]]:
    """The samples that are shown one by one, the most telling first; pictures in that order."""
    domain = recorded.about.domain
    low, high = (float(torch.as_tensor(end).min()) for end in domain) if domain else (0.0, 1.0)
    high = float(torch.as_tensor(domain[1]).max()) if domain else high
    album = Album(low, high)
    ranked = sorted(recorded.samples, key=_telling)
    disputed = sum(bool(sample.disputes) for sample in ranked)
    chosen = ranked[: max(STRIPS, disputed)]
    radii = recorded.about.radii
    reach = 1.1 * max([*radii, *(s.broken for s in chosen if isfinite(s.broken))], default=1.0) or 1.0
    return [{"rank": rank, **_strip(sample, recorded.about, reach, album)} for rank, sample in enumerate(chosen)]


def _telling(sample: Sample) -> tuple[int, float]:
    """What is worth a look comes first: disputes, what is broken, the nearest first, what is open, what is certified,
    and last what is misclassified by itself."""
    if sample.disputes:
        return 0, 0.0
    if sample.right is False:
        return 4, 0.0
    if isfinite(sample.broken):
        return 1, sample.broken
    return 2, sample.certified


def _strip(sample: Sample, about: Description, reach: float, album: Album) -> dict[str, Any]:
    radii, label = about.radii, about.label
    point = sample.nearest.record.result.counterexample if sample.nearest is not None else None
    if about.perturbation and point is not None and sample.x is not None:  # parameters, and not an image
        change = Perturbation.parse(about.perturbation, (album.low, album.high))
        point = change.images(sample.x, point[None].double())[0].to(sample.x)
    pictures = [] if sample.x is None else album.strip(sample.x, point)
    standing = [(label(eps), STANDING[sample.verdict(eps)]) for eps in radii]
    states = [f"{word}@{eps}" for eps, word in standing]
    states += ["disputed"] if sample.disputes else []
    states += ["misclassified"] if sample.right is False else []
    known = sample.nearest is not None and sample.nearest.distance is not None
    return {
        "index": sample.index,
        "label": sample.label,
        "pictures": list(zip(("image", "adversarial", "difference"), pictures, strict=False)),
        "misclassified": sample.right is False,
        "certified": below(sample.certified) if sample.certified else "",
        "certified_value": sample.certified,
        "certifiers": sample.certifiers,
        "broken": above(sample.broken) if isfinite(sample.broken) else "",
        "broken_value": sample.broken if isfinite(sample.broken) else 1e300,
        "measured": known,
        "nearest_by": sample.nearest.seat.name if sample.nearest is not None else "",
        "breakers": sample.breakers,
        "reaches": _reaches(sample, about),
        "disputes": sample.disputes,
        "standing": standing,
        "states": " ".join(states),
        "low": f"{100 * sample.certified / reach:.2f}",
        "high": f"{100 * min(sample.broken, reach) / reach:.2f}" if sample.broken < inf else "100",
        "closed_above": sample.broken < inf,
    }


def _settings(recorded: Recorded) -> list[tuple[str, str]]:
    """Name and value of what a reader needs to repeat the run, as far as it is known."""
    about = recorded.about
    listed = [
        ("started", recorded.started),
        ("seconds of the whole run", "" if about.seconds is None else f"{about.seconds:.1f}"),
        ("radii found within", "" if about.tolerance is None else f"{about.tolerance:g}, or 2% of them"),
        ("seed", str(about.seed)),
        ("device", about.device),
        ("threads", str(about.threads or "")),
        ("seconds for each sample and method", "no limit" if about.budget == inf else f"{about.budget:g}"),
        ("legal inputs", _ends(about.domain)),
        ("scale of eps", "" if about.eps_scale is None else str(about.eps_scale)[:200]),
        ("data from", about.origin),
        ("network (SHA-256)", about.network),
        ("sources of assay (SHA-256)", about.source),
        *about.versions.items(),
        *((name, str(value)) for name, value in about.machine.items()),
    ]
    return [(name, value) for name, value in listed if value]


def _ends(domain: Sequence[Any]) -> str:
    if all(isinstance(end, (int, float)) for end in domain):
        return " to ".join(f"{end:g}" for end in domain)
    return "of each channel or feature its own"
