"""The report on a run over instances, for people: contradictions, the cactus plot, peers, and every instance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay.benchmarks.harness.suite import Row
from assay.benchmarks.report import cactus_figure, page
from assay.benchmarks.report.competition import beside
from assay.benchmarks.report.instances_run import Run
from assay.verify.core.result import Result
from assay.verify.support.plain import counted

# Of a result's stats, those that are told elsewhere on the page.
TOLD = frozenset({"tried", "stages", "explanation", "parts", "alarm", "exit_code"})
# Of a stage, what has its own place; the rest is what a search tells of its tree.
STEP = frozenset({"stage", "outcome", "margin", "seconds"})


def render(run: Run) -> str:
    """The page, in HTML."""
    outcome = run.outcome
    groups = beside(outcome, run.peers)
    facts: dict[str, Any] = {
        "run": run,
        "benchmarks": ", ".join(dict.fromkeys(row.instance.benchmark for row in outcome.rows)),
        "n": counted(len(outcome.rows), "instance"),
        "solved": sum(row.word in ("sat", "unsat") and not row.contradicts for row in outcome.rows),
        "alarms": [*outcome.contradictions, *_alarms(run)],
        "peers": bool(run.peers.standings),
        "expected": any(row.expected for row in outcome.rows),
        "cactus": page.figure(
            lambda size: cactus_figure.plot(outcome, run.peers, size, heading=False),
            "cactus",
            "How many instances are solved within so many seconds each. The tables have the figures.",
        ),
        "groups": [(own.benchmark, own.n, group, own) for own, group in groups],
        "rows": [_row(row, result) for row, result in zip(outcome.rows, run.results, strict=True)],
        "words": list(dict.fromkeys(row.word.value for row in outcome.rows)),
        "settings": [(name, value) for name, value in run.settings if value],
    }
    return page.render("instances.html", facts)


def _alarms(run: Run) -> list[str]:
    pairs = zip(run.outcome.rows, run.results, strict=True)
    return [f"{' '.join(row.instance.name)}: {r.stats['alarm']}" for row, r in pairs if r and "alarm" in r.stats]


def _row(row: Row, result: Result | None) -> dict[str, Any]:
    stats: Mapping[str, Any] = {} if result is None else result.stats
    parts = [part for part in stats.get("parts", ()) if isinstance(part, Mapping)]
    return {
        "benchmark": row.instance.benchmark,
        "onnx": row.instance.onnx,
        "vnnlib": row.instance.vnnlib,
        "word": row.word.value,
        "expected": row.expected or "",
        "contradicts": row.contradicts,
        "seconds": row.seconds,
        "limit": row.instance.seconds,
        "reason": row.reason,
        "margin": None if result is None else result.margin,
        "courses": [_course(stats)] if not parts else [_course(part.get("stats", part)) for part in parts],
        "facts": [(k, v) for k, v in stats.items() if k not in TOLD and isinstance(v, (int, float, str, bool))],
    }


def _course(stats: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each stage did, in order, and how far its tree came."""
    return [
        {
            "stage": str(step.get("stage", "")).partition("(")[0],
            "options": str(step.get("stage", "")),
            "outcome": str(step.get("outcome", "")),
            "margin": step.get("margin"),
            "seconds": float(step.get("seconds") or 0.0),
            "progress": [(k, v) for k, v in step.items() if k not in STEP and isinstance(v, int | float | str)],
        }
        for step in stats.get("tried", ())
        if isinstance(step, Mapping)
    ]
