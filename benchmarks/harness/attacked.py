"""What attacks leave standing of a data set: every attack at every radius, each success replayed alone."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from assay.attacks.checks import black_box_ahead, suspicions
from assay.attacks.common.interface import Attack, Model, check_model, forward
from assay.attacks.curves import Curve, curve, unbroken
from assay.benchmarks.harness.bracket import ALL_ATTACKS, UNSUPPORTED, Role, Row
from assay.benchmarks.harness.lost import Lost
from assay.benchmarks.harness.preloaded import SAMPLES
from assay.benchmarks.harness.progress import SILENT, Progress
from assay.benchmarks.harness.records.origin import source_hash, versions
from assay.benchmarks.harness.sources import Held, Source, checked
from assay.models.data import Dataset
from assay.verify.core.binary import check_sign, class_scores
from assay.verify.core.errors import AssayError, InputError, InternalError, UnsupportedError
from assay.verify.core.network import Network, to_network
from assay.verify.core.norms import PATCH, norm_name
from assay.verify.core.spec import strictly_largest
from assay.verify.frontends.whole import runnable
from assay.verify.support.documents import finite
from assay.verify.support.executors import Ended, Hiring, Job, Task, run_parted
from assay.verify.support.executors.inline import here
from assay.verify.support.failures import explained
from assay.verify.support.options import title
from assay.verify.support.plain import counted

CHECKED = 32  # samples that the checks look at


@dataclass(frozen=True, eq=False)
class Found:
    """What one attack found: ``success`` (eps x n), ``adversarial`` (eps x n x shape), ``queries`` (n).

    ``distance`` (n): float64, of the nearest breaking point, inf where none was found. ``alone``: successes that did
    not repeat in a batch of one, and count as standing.
    """

    name: str
    key: str
    success: Tensor
    adversarial: Tensor
    distance: Tensor
    queries: Tensor
    seconds: float
    alone: int = 0

    @property
    def median(self) -> float:
        """The median distance over all samples; inf where fewer than half are broken at any distance."""
        return float(self.distance.quantile(0.5, interpolation="higher")) if len(self.distance) else inf


@dataclass(frozen=True)
class Refused:
    """An attack that cannot treat the region or the model, and why."""

    name: str
    key: str
    why: str


@dataclass(frozen=True, eq=False)
class Attacked:
    """All attacks on one data set. ``right`` (n): whether each clean sample is classified rightly.

    ``refused``: the attacks that could not run; they have rows, which say so. ``lost``: samples that no process
    survived the attack on; they count as standing.
    """

    model: str
    data: Dataset
    norm: float
    seed: int
    radii: tuple[float, ...]
    right: Tensor
    found: tuple[Found, ...]
    warnings: tuple[str, ...]
    refused: tuple[Refused, ...] = ()
    lost: tuple[Lost, ...] = ()

    def rows(self) -> list[Row]:
        """One row for each attack and radius, then those of all attacks together, and of those that could not run."""
        together = torch.stack([each.success for each in self.found]).any(0)
        columns = [(each.name, each.key, each.success, each.seconds) for each in self.found]
        columns.append((ALL_ATTACKS, ALL_ATTACKS, together, sum(each.seconds for each in self.found)))
        n, wrong = len(self.data), int((~self.right).sum())
        rows = [
            Row(Role.ATTACK, name, key, eps, n, 0, int(broken.sum()), wrong, seconds)
            for name, key, success, seconds in columns
            for eps, broken in zip(self.radii, success, strict=True)
        ]
        for one in self.refused:
            reasons, why = {UNSUPPORTED: n - wrong}, {UNSUPPORTED: one.why}
            told = Row(Role.ATTACK, one.name, one.key, 0.0, n, 0, wrong, wrong, reasons=reasons, explanations=why)
            rows += [replace(told, eps=eps) for eps in self.radii]
        return rows


def attack_all(
    model: nn.Module | Network,
    data: Dataset,
    radii: Sequence[float],
    attacks: Sequence[Attack],
    *,
    norm: float = inf,
    seed: int = 0,
    batch: int = 100,
    name: str = "model",
    progress: Progress = SILENT,
    hiring: Hiring = here,
    source: Source | None = None,
) -> Attacked:
    """Run every attack on every sample at all ``radii``, ``batch`` samples at a time, and replay what it found;
    ``hiring``, ``source``: as in :func:`assay.benchmarks.harness.compare.compare`.

    Raises :class:`InputError` for no attacks or radii, two attacks of one name, and what attacks and regions raise,
    :class:`UnsupportedError` where no attack can treat the region.
    """
    names = _names(attacks, radii)
    oracle: Model = model if isinstance(model, nn.Module) else (model.oracle or model)
    check_model(oracle, data.x[:1])
    if _outputs(oracle, data.x[:1]) == 1:
        _check_sign(model, data)
    right = torch.tensor([_right(oracle, x, y) for x, y in zip(data.x, data.y, strict=True)])
    warnings = list(suspicions(model, data.x[:CHECKED], data.y[:CHECKED], data.legal))
    repeats = not any("run to run" in line for line in warnings)
    progress.begin(len(data) * len(attacks), dict.fromkeys(names, len(data)))
    identity = "" if hiring is here else runnable(model, data.shape).id
    ground = Ground(source or Held(model), identity, data, tuple(radii), tuple(attacks), norm, seed, repeats)
    under_way = Run(ground, names, right, progress)
    with hiring(Job(_attack, ground, SAMPLES)) as executor:
        for ended in run_parted(executor, under_way.tasks(batch), partial(_alone, len(data))):
            under_way.take(ended)
    outcomes = sorted(under_way.outcomes, key=lambda each: names.index(each.name))
    told = tuple(under_way.refused[place] for place in sorted(under_way.refused))
    if not outcomes:
        raise UnsupportedError("; ".join(one.why for one in told))
    if line := black_box_ahead({each.name: each.success[-1] for each in outcomes}):
        warnings.append(line)
    warnings += [
        f"{f.name}: {counted(f.alone, 'success')} did not repeat in a batch of one" for f in outcomes if f.alone
    ]
    levels, lost = tuple(sorted(set(radii))), tuple(under_way.lost)
    return Attacked(name, data, norm, seed, levels, right, tuple(outcomes), tuple(warnings), told, lost)


def _names(attacks: Sequence[Attack], radii: Sequence[float]) -> list[str]:
    """What the attacks' rows are called. Raises :class:`InputError` where nothing is asked, or the same twice."""
    if not attacks or not radii:
        raise InputError("expected at least one attack and one radius")
    names = [title(attack) for attack in attacks]
    if repeated := {one for one in names if names.count(one) > 1}:
        raise InputError(f"{', '.join(sorted(repeated))} is given twice")
    return names


@dataclass(eq=False)
class Run:
    """Attacks under way: what came of each so far, by its place; ``parts``: of attacks that are not through, by the
    first sample of each share."""

    ground: Ground
    names: Sequence[str]
    right: Tensor
    progress: Progress
    parts: dict[int, dict[int, Part]] = field(default_factory=lambda: defaultdict(dict))
    outcomes: list[Found] = field(default_factory=list)
    refused: dict[int, Refused] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)

    def tasks(self, batch: int) -> Iterator[Task]:
        """All samples, ``batch`` of them at a time, by one attack after another, but for those that are refused."""
        for place, name in enumerate(self.names):
            for start in range(0, len(self.ground.data), batch):
                if place not in self.refused:
                    self.progress.running(name)
                    share = Share(place, start, batch)
                    yield Task(share, tag=share)

    def take(self, ended: Ended) -> None:
        """What became of a share. Raises what its attack did, but for the region or the model being beyond it."""
        share: Share = ended.task.tag
        name, size = self.names[share.attack], len(share.of(self.ground.data.x))
        if isinstance(ended.error, UnsupportedError):
            self._refuse(share.attack, str(ended.error))
            return
        what = f"{name} on samples {share.start} to {share.start + size - 1}"
        if ended.lost:
            self.lost.append(Lost.of(ended, what))
            whole = unbroken(share.of(self.ground.data.x), self.ground.radii)
            part = Part(whole, whole.success, ended.seconds)
        else:
            part = ended.value(what)
        self.parts[share.attack][share.start] = part
        self.progress.running(name)
        self.progress.advance(size)
        if self._done(share.attack) == len(self.ground.data):
            self._end(share.attack)

    def _done(self, place: int) -> int:
        """Samples that the attack is through with."""
        return sum(len(part.curve.queries) for part in self.parts[place].values())

    def _refuse(self, place: int, why: str) -> None:
        if place not in self.refused:
            self.progress.advance(len(self.ground.data) - self._done(place))
        self.refused[place] = Refused(self.names[place], repr(self.ground.attacks[place]), why)

    def _end(self, place: int) -> None:
        """What the attack found in all samples, and what all attacks so far leave standing."""
        parts, radii = self.parts.pop(place), self.ground.radii
        self.outcomes.append(_found(self.names[place], repr(self.ground.attacks[place]), parts, self.right))
        standing = 1 - torch.stack([each.success for each in self.outcomes]).any(0).double().mean(1)
        left = zip(sorted(set(radii)), standing.tolist(), strict=True)
        self.progress.so_far(", ".join(f"{share:.1%} standing at eps {eps:g}" for eps, share in left))


@dataclass(frozen=True)
class Share:
    """What one task attacks: with attack number ``attack``, ``count`` samples from ``start`` on."""

    attack: int
    start: int
    count: int

    def of(self, values: Tensor) -> Tensor:
        """Those of the samples' values."""
        return values[self.start : self.start + self.count]


@dataclass(frozen=True, eq=False)
class Part:
    """What came of a share: the curve of the attack, its successes that were kept (eps x n), and the seconds."""

    curve: Curve
    kept: Tensor
    seconds: float


@dataclass(frozen=True, eq=False)
class Ground:
    """What all tasks have in common; ``identity``: of the model as a network, where it is looked for again;
    ``repeats``: whether the model says the same each time, so that successes are replayed."""

    source: Source
    identity: str
    data: Dataset
    radii: tuple[float, ...]
    attacks: tuple[Attack, ...]
    norm: float
    seed: int
    repeats: bool

    @cached_property
    def model(self) -> nn.Module | Network:
        """The model. Raises :class:`InputError` where another one is found under the same name."""
        model = self.source.load()
        if self.identity:
            checked(runnable(model, self.data.shape), self.identity)
        return model


def _alone(n: int, ended: Ended) -> list[Task]:
    """Each sample of a share that was lost, of ``n`` samples in all."""
    share: Share = ended.task.tag
    each = range(share.start, min(share.start + share.count, n))
    singles = [Share(share.attack, start, 1) for start in each] if len(each) > 1 else []
    return [Task(single, tag=single) for single in singles]


def _attack(ground: Ground, share: Share) -> Part:
    """Attack some samples, and replay what broke them."""
    begun, data = time.monotonic(), ground.data
    model, x, y = ground.model, share.of(data.x), share.of(data.y)
    how = ground.radii, ground.norm, data.legal, ground.seed, data.eps_scale
    whole = curve(ground.attacks[share.attack], model, x, y, *how)
    oracle: Model = model if isinstance(model, nn.Module) else (model.oracle or model)
    kept = _replayed(oracle, whole.adversarial, y, whole.success) if ground.repeats else whole.success
    return Part(whole, kept, time.monotonic() - begun)


def _found(name: str, key: str, parts: Mapping[int, Part], right: Tensor) -> Found:
    """What one attack found in all samples."""
    ordered = [part for _, part in sorted(parts.items())]
    success, adversarial = (
        torch.cat([getattr(part.curve, what) for part in ordered], 1) for what in ("success", "adversarial")
    )
    distance, queries = (torch.cat([getattr(part.curve, what) for part in ordered]) for what in ("distance", "queries"))
    kept = torch.cat([part.kept for part in ordered], 1)
    lost = int((success & ~kept).any(0).sum())
    seconds = sum(part.seconds for part in ordered)
    return Found(name, key, kept | ~right, adversarial, distance, queries, seconds, lost)


def document(attacked: Attacked, command: Sequence[str] = ()) -> dict[str, Any]:
    """Everything but the points as plain data; numbers that are not finite are strings."""
    by_name = {each.name: each for each in attacked.found}
    rows = []
    for row in attacked.rows():
        entry = row.to_json()
        if row.name in by_name:
            own = by_name[row.name]
            entry |= {"median_distance": own.median, "mean_queries": float(own.queries.double().mean())}
        rows.append(entry)
    plain_data: dict[str, Any] = finite(
        {
            "model": attacked.model,
            "data": f"{attacked.data.name} ({attacked.data.split})",
            "norm": attacked.norm if attacked.norm != PATCH else norm_name(PATCH),
            "n": len(attacked.data),
            "seed": attacked.seed,
            "clean_accuracy": float(attacked.right.double().mean()),
            "rows": rows,
            "warnings": list(attacked.warnings),
            "lost": [asdict(each) for each in attacked.lost],
            "command": list(command),
            "versions": versions(),
            "source": source_hash(),
        }
    )
    return plain_data


def arrays(attacked: Attacked) -> dict[str, Tensor]:
    """What there is to save: x, y, epsilons, and of every attack its points, successes and distances."""
    named = {"x": attacked.data.x, "y": attacked.data.y, "epsilons": torch.tensor(attacked.radii, dtype=torch.float64)}
    for each in attacked.found:
        for part in ("adversarial", "success", "distance", "queries"):
            named[f"{each.name}/{part}"] = getattr(each, part)
    return named


def _right(oracle: Model, x: Tensor, label: Tensor) -> bool:
    """Whether the label's output is strictly the largest, the sample run alone; NaN is wrong."""
    with torch.no_grad():
        y = class_scores(forward(oracle, x[None]))[0]
    if not 0 <= int(label) < len(y):
        raise InputError(f"label {int(label)} is out of range: the model has {len(y)} classes, 0 to {len(y) - 1}")
    return bool(strictly_largest(y[None], torch.as_tensor(label)[None]))


def _check_sign(model: nn.Module | Network, data: Dataset) -> None:
    """Refuse a model of one output whose classes are not divided by 0, as far as it can be read."""
    try:
        network = to_network(model, data.shape)
    except AssayError:
        return  # attacks run what they cannot read
    check_sign(network)


def _outputs(oracle: Model, x: Tensor) -> int:
    """How many outputs a sample has: x (1 x shape). Raises :class:`InputError` where the model does not run on it."""
    try:
        with torch.no_grad():
            return oracle(x).flatten(1).shape[1]
    except Exception as error:  # whatever the user's code raises
        if isinstance(failure := explained(error), InternalError):
            why = f"the model does not run on inputs of shape {tuple(x.shape[1:])}: {type(error).__name__}: {error}"
            raise InputError(f"{why} (do the data fit it?)") from error
        raise failure from error


def _replayed(oracle: Model, points: Tensor, labels: Tensor, success: Tensor) -> Tensor:
    """``success`` (eps x n) where the point alone is misclassified too; points that several radii share run once."""
    kept = success.clone()
    for i in range(len(labels)):
        before: Tensor | None = None
        for level in success[:, i].nonzero()[:, 0].tolist():
            point = points[level, i]
            if before is None or not torch.equal(point, before):
                broken = not _right(oracle, point, labels[i])
            before = point
            kept[level, i] = broken
    return kept
