"""Two runs over instances side by side: whose answer changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from assay.benchmarks.harness.instances import Name
from assay.benchmarks.harness.suite import DECIDED, Row
from assay.benchmarks.report.instances_run import Run
from assay.verify.core.errors import InputError


@dataclass(frozen=True)
class Turn:
    """An instance that is answered otherwise now; seconds in one run and in the other."""

    name: Name
    before: str
    after: str
    seconds: tuple[float, float]

    @property
    def better(self) -> bool:
        """Whether it is decided now and was not."""
        return self.after in DECIDED and self.before not in DECIDED


@dataclass(frozen=True)
class Turns:
    """The changes among the ``n`` instances of both runs; ``contradictions``: one line for each of which one run says
    sat and the other unsat, from the same files."""

    n: int
    changes: tuple[Turn, ...]
    contradictions: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        changes = [
            {"benchmark": c.name[0], "onnx": c.name[1], "vnnlib": c.name[2], **vars(c), "seconds": list(c.seconds)}
            for c in self.changes
        ]
        for change in changes:
            del change["name"]
        return {"n": self.n, "changes": changes, "contradictions": list(self.contradictions)}


def between(before: Run, after: Run) -> Turns:
    """What changed, instance by instance. Raises :class:`InputError` where the runs have no instance in common."""
    old = dict(zip((row.instance.name for row in before.outcome.rows), _pairs(before), strict=True))
    turns, lines, n = [], [], 0
    for row, problem in _pairs(after):
        if row.instance.name not in old:
            continue
        n += 1
        was, former = old[row.instance.name]
        if was.word != row.word:
            turns.append(Turn(row.instance.name, was.word.value, row.word.value, (was.seconds, row.seconds)))
            if {was.word, row.word} == set(DECIDED) and problem and problem == former:
                name = " ".join(row.instance.name)
                lines.append(f"{name}: {was.word.value} in one run, {row.word.value} in the other, from the same files")
    if not n:
        raise InputError("the runs have no instance in common")
    return Turns(n, tuple(turns), tuple(lines))


def _pairs(run: Run) -> Sequence[tuple[Row, str]]:
    """Each row with the content hash of its files, empty where that is not known."""
    return [
        (row, "" if result is None else result.problem_id)
        for row, result in zip(run.outcome.rows, run.results, strict=True)
    ]
