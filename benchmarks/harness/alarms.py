"""Soundness alarms: one method verifies what another falsifies, or a verdict that fails its check."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assay.verify.core.errors import AlarmError, AssayError
from assay.verify.core.problem import Problem
from assay.verify.core.result import Result, Verdict
from assay.verify.support.files import writable_folder, write_atomic


@dataclass(frozen=True, eq=False)
class Case:
    """What participant ``name`` said of ``sample`` at ``eps``, with the problem it was asked."""

    name: str
    sample: int
    eps: float
    problem: Problem
    result: Result


@dataclass(frozen=True, eq=False)
class Alarm:
    """The claims that the problem is verified, and the counterexamples against them (none after a failed check)."""

    claims: tuple[Case, ...]
    against: tuple[Case, ...]
    explanation: str

    @property
    def problem(self) -> Problem:
        """The problem that was wrongly verified, or wrongly falsified."""
        return self.claims[0].problem

    def to_json(self) -> dict[str, Any]:
        """Plain data for the summary of a run."""
        return {
            "problem": self.problem.id,
            "sample": self.claims[0].sample,
            "label": self.problem.label,
            "eps": self.claims[0].eps,
            "verified": [case.name for case in self.claims],
            "falsified": [case.name for case in self.against],
            "explanation": self.explanation,
        }


def find(cases: Sequence[Case]) -> list[Alarm]:
    """The alarms among the checked results on one model and norm, whatever the samples and the eps.

    A verdict at one eps speaks of every smaller region too, so a claim at eps is contradicted by a counterexample
    at any smaller one. The counterexamples were replayed both on the model in its own arithmetic and in float64:
    they contradict a claim about either.
    """
    alarms = []
    broken = _groups(cases, Verdict.FALSIFIED)
    for (sample, eps, subject), claims in _groups(cases, Verdict.VERIFIED).items():
        against = [
            case
            for (other, radius, whose), alike in broken.items()
            if other == sample and radius <= eps and whose == subject
            for case in alike
        ]
        if against:
            explanation = (
                f"{_names(claims)} verifies sample {sample} at eps {eps:g}, "
                f"{_names(against)} falsifies it at eps {against[0].eps:g}"
            )
            alarms.append(Alarm(tuple(claims), tuple(against), explanation))
    for case in cases:
        if "alarm" in case.result.stats:
            where = f"sample {case.sample} at eps {case.eps:g}"
            fault = f"{case.name} gave a verdict on {where} that fails its check: {case.result.stats['alarm']}"
            alarms.append(Alarm((case,), (), fault))
    return alarms


def save_all(alarms: Sequence[Alarm], folder: Path | None) -> list[Path]:
    """Write the cases, if there is a folder; where they went, up to the first that could not be written: an alarm must
    not hide behind a disk that is full."""
    homes: list[Path] = []
    if folder is not None:
        with suppress(AssayError, OSError):
            homes.extend(save(alarm, folder) for alarm in alarms)
    return homes


def told(alarms: Sequence[Alarm], folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The alarms as plain data, each with the folder that it was saved in, if any."""
    entries = [alarm.to_json() for alarm in alarms]
    for entry, folder in zip(entries, folders, strict=False):
        entry["folder"] = str(folder)
    return entries


def raise_first(alarms: Sequence[Alarm], folders: Sequence[Path]) -> None:
    """Raise :class:`AlarmError` if there was an alarm; ``folders``: where they were saved, in their order."""
    if alarms:
        where = f" (saved in {folders[0]})" if folders else ""
        more = f"; {len(alarms) - 1} more" if len(alarms) > 1 else ""
        raise AlarmError(f"soundness alarm: {alarms[0].explanation}{where}{more}")


def save(alarm: Alarm, folder: Path) -> Path:
    """Write the case to ``folder/<problem id>/``: case.npz (no pickle) and alarm.json; returns that folder."""
    home = writable_folder(folder / alarm.problem.id)
    region = alarm.problem.region
    arrays = {"x": region.centre.numpy(), "label": np.array(-1 if alarm.problem.label is None else alarm.problem.label)}
    points = [case.result.counterexample for case in alarm.against if case.result.counterexample is not None]
    if points:
        arrays["counterexample"] = points[0].detach().cpu().numpy()
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomic(home / "case.npz", buffer.getvalue())
    results = {
        side: [{"name": case.name, "eps": case.eps, "result": json.loads(case.result.to_json())} for case in cases]
        for side, cases in (("claims", alarm.claims), ("against", alarm.against))
    }
    document = {**alarm.to_json(), "norm": str(getattr(region, "p", "")), **results}
    write_atomic(home / "alarm.json", (json.dumps(document, indent=1) + "\n").encode())
    return home


def _groups(cases: Sequence[Case], verdict: Verdict) -> dict[tuple[int, float, str], list[Case]]:
    """Cases of one verdict by sample, eps and subject, in order of eps."""
    groups: dict[tuple[int, float, str], list[Case]] = {}
    for case in sorted(cases, key=lambda case: case.eps):
        if case.result.verdict is verdict:
            groups.setdefault((case.sample, case.eps, case.result.subject), []).append(case)
    return groups


def _names(cases: Sequence[Case]) -> str:
    return " and ".join(dict.fromkeys(case.name for case in cases))
