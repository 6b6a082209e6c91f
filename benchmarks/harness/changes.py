"""Two runs side by side: what is known of each sample in one and in the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from assay.benchmarks.harness.records.recorded import Recorded, Sample
from assay.verify.core.errors import InputError
from assay.verify.core.result import Verdict

WORDS = {Verdict.VERIFIED: "certified", Verdict.FALSIFIED: "broken", Verdict.UNKNOWN: "open"}
WRONG = "misclassified"
ORDER = (WRONG, "broken", "open", "certified")  # from worse to better


@dataclass(frozen=True)
class Change:
    """A sample of which something else is known at ``eps`` now; ``by``: who says so now."""

    sample: int
    eps: float
    before: str
    after: str
    by: tuple[str, ...]

    @property
    def better(self) -> bool:
        """Whether the change speaks for the model."""
        return ORDER.index(self.after) > ORDER.index(self.before)


@dataclass(frozen=True)
class Changes:
    """The changes by eps and sample; ``n``: samples, ``radii``: those of both runs, and as they were ``written``;
    ``contradictions``: one line for each sample of one and the same network that is certified in one run and broken in
    the other."""

    n: int
    radii: tuple[float, ...]
    written: tuple[str, ...]
    changes: tuple[Change, ...]
    contradictions: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        changes = [{**vars(each), "by": list(each.by)} for each in self.changes]
        told = {"n": self.n, "radii": list(self.radii), "changes": changes}
        return {**told, "contradictions": list(self.contradictions)}


def between(before: Recorded, after: Recorded) -> Changes:
    """What changed from one run to the other, on the samples and radii that both have.

    Raises :class:`InputError` where they cannot be compared: another norm, other samples, or no radius in common.
    """
    if before.threat != after.threat:
        raise InputError(f"the runs differ in the norm: {before.threat} and {after.threat}")
    radii = tuple(sorted(set(before.about.radii) & set(after.about.radii)))
    if not radii:
        raise InputError("the runs have no radius in common")
    old = {sample.index: sample for sample in before.samples}
    pairs = [(old[sample.index], sample) for sample in after.samples if sample.index in old]
    for one, other in pairs:
        if one.label != other.label or (one.x is not None and other.x is not None and not torch.equal(one.x, other.x)):
            raise InputError(f"sample {one.index} is another one in each run: expected runs on the same data")
    changes = tuple(change for eps in radii for pair in pairs for change in _changed(*pair, eps))
    written = tuple(map(after.about.label, radii))
    return Changes(len(pairs), radii, written, changes, tuple(_contradictions(before, after, pairs)))


def _changed(one: Sample, other: Sample, eps: float) -> Iterator[Change]:
    before, after = _word(one, eps), _word(other, eps)
    if before != after:
        by = {"certified": other.certifiers, "broken": other.breakers}.get(after, [])
        yield Change(one.index, eps, before, after, tuple(by))


def _word(sample: Sample, eps: float) -> str:
    return WRONG if sample.right is False else WORDS[sample.verdict(eps)]


def _contradictions(before: Recorded, after: Recorded, pairs: list[tuple[Sample, Sample]]) -> Iterator[str]:
    """Of one network no ball is both certified and broken, whoever looks; of two networks that is no contradiction."""
    if not before.about.network or before.about.network != after.about.network:
        return
    for one, other in pairs:
        for proof, point in ((one, other), (other, one)):
            if point.broken < proof.certified * (1 - 1e-6):
                yield (
                    f"sample {one.index}: certified within {proof.certified:g} by {', '.join(proof.certifiers)} in one "
                    f"run, broken at {point.broken:.6g} by {', '.join(point.breakers) or 'itself'} in the other"
                )
