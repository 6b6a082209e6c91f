"""A data set with a planted backdoor: what detectors find of it, what is left after removal, and what a vote certifies.

What the vote certifies is tried on the way: every answer is compared with that of the vote on clean data wherever no
more parts differ than it is certified for. One that differs is an alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from assay.benchmarks.harness.progress import SILENT, Progress
from assay.models.data import Dataset
from assay.models.poisoning import partition
from assay.models.poisoning.backdoor import Backdoor
from assay.models.poisoning.influence import Influence
from assay.models.poisoning.learners import Learner, Perceptron
from assay.models.poisoning.partition import Ensemble
from assay.models.poisoning.signatures import MARGIN, Detector, suspects
from assay.verify.core.errors import AlarmError, InputError


@dataclass(frozen=True)
class Quality:
    """Of a classifier: its ``accuracy`` on clean test samples, and the share of the source class's test samples that
    the trigger turns into the target (``success``)."""

    accuracy: float
    success: float


@dataclass(frozen=True)
class Found:
    """What a detector took out: ``removed`` samples, ``hits`` of them poisoned, and a network trained on the rest."""

    name: str
    removed: int
    hits: int
    after: Quality


@dataclass(frozen=True)
class Voted:
    """What a vote of ``parts`` classifiers is worth: its quality on poisoned data, how many of the test samples are
    right and certified at each number of changed training samples, and of how many test samples an answer was compared
    with that on clean data."""

    parts: int
    learner: str
    quality: Quality
    median: float
    curve: tuple[tuple[int, float], ...]
    compared: int


@dataclass(frozen=True)
class Poisoned:
    """The whole: ``before``, of a network trained on the poisoned data."""

    data: str
    n: int
    test: int
    backdoor: Backdoor
    seed: int
    before: Quality
    found: tuple[Found, ...]
    voted: Voted


def poison(
    training: Dataset,
    test: Dataset,
    backdoor: Backdoor,
    detectors: Sequence[Detector],
    share: float | None,
    network: Perceptron,
    parts: int,
    learner: Learner,
    radii: Sequence[int],
    seed: int = 0,
    progress: Progress = SILENT,
) -> Poisoned:
    """Plant, train, detect, remove, train again, vote. ``share``: of a class that detectors fear to be foreign; the
    true share where it is None.

    Raises :class:`AlarmError` where a certified answer is not that of the vote on clean data.
    """
    if training.shape != test.shape or training.classes != test.classes:
        raise InputError("expected training and test data of one shape and with the same classes")
    poisoned, marked = backdoor.plant(training, seed)
    progress.begin(2 + len(detectors) + 2 * parts)
    judge = _judge(test, backdoor)
    model = network.network(poisoned)
    before = judge(model)
    progress.advance(1)
    if share is None:
        share = min(0.33, backdoor.count / max(1, int((poisoned.y == backdoor.target).sum())))
    features = _features(model, poisoned.x)
    found = []
    for detector in detectors:
        out = suspects(detector, features, poisoned.y, share)
        found.append(_without(detector.name, out, marked, poisoned, network, judge))
        progress.advance(1)
    found.append(_without("influence", _explained(model, poisoned, test, backdoor), marked, poisoned, network, judge))
    progress.advance(1)
    voted = _vote(training, poisoned, test, parts, learner, radii, judge, lambda _: progress.advance(1))
    about = f"{training.name} ({training.split})"
    return Poisoned(about, len(training), len(test), backdoor, seed, before, tuple(found), voted)


def document(outcome: Poisoned) -> dict[str, Any]:
    """Everything as plain data."""
    return {
        "data": outcome.data,
        "n": outcome.n,
        "test": outcome.test,
        "seed": outcome.seed,
        "backdoor": vars(outcome.backdoor),
        "before": vars(outcome.before),
        "detectors": [
            {**vars(one), "after": vars(one.after), "poisoned": outcome.backdoor.count} for one in outcome.found
        ],
        "partition": {
            **vars(outcome.voted),
            "quality": vars(outcome.voted.quality),
            "curve": [{"samples": count, "accuracy": accuracy} for count, accuracy in outcome.voted.curve],
        },
    }


def check(clean: Ensemble, other: Ensemble, changed: int, x: Tensor) -> int:
    """On how many of the test samples x (batch x shape) an answer certified for ``changed`` parts was compared with
    that of the vote on data of which so many parts differ. Raises :class:`AlarmError` where one is another."""
    answer, radius = clean.certify(x)
    others, _ = other.certify(x)
    certain = radius >= changed
    if bool((others[certain] != answer[certain]).any()):
        first = int((certain & (others != answer)).nonzero()[0])
        raise AlarmError(
            f"the vote on test sample {first} is certified for {int(radius[first])} changed training samples, and "
            f"changes with {changed} of them: please report it"
        )
    return int(certain.sum())


def _vote(
    training: Dataset,
    poisoned: Dataset,
    test: Dataset,
    parts: int,
    learner: Learner,
    radii: Sequence[int],
    judge: Callable[[Callable[[Tensor], Tensor]], Quality],
    heard: Callable[[int], None],
) -> Voted:
    clean, other = partition.train(training, parts, learner, heard), partition.train(poisoned, parts, learner, heard)
    own = partition.part_of(training.x, parts), partition.part_of(poisoned.x, parts)
    compared = 0
    # The two votes with one changed part after another: so many parts differ, whatever is in them.
    differ = (training.x != poisoned.x).flatten(1).any(1) | (training.y != poisoned.y)
    touched = sorted(set(torch.cat([part[differ] for part in own]).tolist()))
    for changed in range(1, len(touched) + 1):
        new = set(touched[:changed])
        mixed = [other.members[i] if i in new else clean.members[i] for i in range(parts)]
        compared += check(clean, Ensemble(mixed, training.classes), changed, test.x)
    answer, radius = other.certify(test.x)
    right = answer == test.y
    curve = tuple((count, float((right & (radius >= count)).double().mean())) for count in sorted(set(radii)))
    median = float(torch.where(right, radius, -1).double().median())
    return Voted(parts, repr(learner), judge(lambda x: other.votes(x).double()), median, curve, compared)


def _judge(test: Dataset, backdoor: Backdoor) -> Callable[[Callable[[Tensor], Tensor]], Quality]:
    """What says of a classifier how good it is, and how well the backdoor works; a tie is no answer."""
    triggered = backdoor.trigger(test.x[test.y == backdoor.source], test.domain[1])

    def answers(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        with torch.no_grad():
            value, answer = model(x).topk(2, dim=1)
        return torch.where(value[:, 0] > value[:, 1], answer[:, 0], -1)

    def judge(model: Callable[[Tensor], Tensor]) -> Quality:
        turned = (answers(model, triggered) == backdoor.target).double()
        return Quality(
            float((answers(model, test.x) == test.y).double().mean()), float(turned.mean()) if len(turned) else 0.0
        )

    return judge


def _without(
    name: str,
    out: Tensor,
    marked: Tensor,
    poisoned: Dataset,
    network: Perceptron,
    judge: Callable[[Callable[[Tensor], Tensor]], Quality],
) -> Found:
    kept = replace(poisoned, x=poisoned.x[~out], y=poisoned.y[~out])
    return Found(name, int(out.sum()), int((out & marked).sum()), judge(network.network(kept)))


def _explained(model: nn.Sequential, poisoned: Dataset, test: Dataset, backdoor: Backdoor) -> Tensor:
    """The samples that have most to do with the target's score where the trigger was seen, which whoever asks must
    know: as many as detectors would take out of one class. By the last layer, whose loss is convex."""
    triggered = backdoor.trigger(test.x[test.y == backdoor.source], test.domain[1])
    labels = torch.full((len(triggered),), backdoor.target)
    out = torch.zeros(len(poisoned), dtype=torch.bool)
    if backdoor.count and len(triggered):
        seen, asked = (_features(model, x) for x in (poisoned.x, triggered))
        influence = Influence().of(model[-1], seen, poisoned.y, asked, labels)
        out[influence.topk(min(len(out) - 1, ceil(MARGIN * backdoor.count))).indices] = True
    return out


def _features(model: nn.Sequential, x: Tensor) -> Tensor:
    """What the last layer sees: (n x features)."""
    with torch.no_grad():
        features: Tensor = model[:-1](x).flatten(1)
        return features
