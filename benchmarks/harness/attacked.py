"""What attacks leave standing of a data set: every attack at every radius, each success replayed alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from assay.attacks.checks import black_box_ahead, suspicions
from assay.attacks.common.interface import Attack, Model
from assay.attacks.common.minimal_norm import MinimalAttack
from assay.attacks.curves import curve
from assay.benchmarks.harness.bracket import ALL_ATTACKS, Role, Row
from assay.benchmarks.harness.origin import source_hash, versions
from assay.benchmarks.harness.participants import title
from assay.benchmarks.harness.progress import SILENT, Progress
from assay.models.data import Dataset
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network
from assay.verify.core.norms import norm_name
from assay.verify.core.region import LpBall
from assay.verify.core.spec import strictly_largest
from assay.verify.support.documents import finite
from assay.verify.support.plain import plain

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


@dataclass(frozen=True, eq=False)
class Attacked:
    """All attacks on one data set. ``right`` (n): whether each clean sample is classified rightly."""

    model: str
    data: Dataset
    norm: float
    seed: int
    radii: tuple[float, ...]
    right: Tensor
    found: tuple[Found, ...]
    warnings: tuple[str, ...]

    def rows(self) -> list[Row]:
        """One row for each attack and radius, then those of all attacks together."""
        together = torch.stack([found.success for found in self.found]).any(0)
        columns = [(found.name, found.key, found.success, found.seconds) for found in self.found]
        columns.append((ALL_ATTACKS, ALL_ATTACKS, together, sum(found.seconds for found in self.found)))
        wrong = int((~self.right).sum())
        return [
            Row(Role.ATTACK, name, key, eps, len(self.data), 0, int(broken.sum()), wrong, seconds)
            for name, key, success, seconds in columns
            for eps, broken in zip(self.radii, success, strict=True)
        ]


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
) -> Attacked:
    """Run every attack on every sample at all ``radii``, ``batch`` samples at a time, and replay what it found.

    Raises :class:`InputError` for no attacks or radii, two attacks of one name, and what attacks and regions raise.
    """
    if not attacks or not radii:
        raise InputError("expected at least one attack and one radius")
    names = [title(attack) for attack in attacks]
    if repeated := {one for one in names if names.count(one) > 1}:
        raise InputError(f"{', '.join(sorted(repeated))} is given twice")
    oracle: Model = model if isinstance(model, nn.Module) else (model.oracle or model)
    for attack in attacks:
        if isinstance(attack, MinimalAttack):  # refuses norms that are not its own: better now than after the others
            attack.run(model, data.x[:0], data.y[:0], LpBall(data.x[:0], radii[0], norm, data.domain), seed)
    right = torch.tensor([_right(oracle, x, y) for x, y in zip(data.x, data.y, strict=True)])
    warnings = list(suspicions(model, data.x[:CHECKED], data.y[:CHECKED], data.domain))
    repeats = not any("run to run" in line for line in warnings)
    progress.begin(len(data) * len(attacks))
    found = []
    for attack, own in zip(attacks, names, strict=True):
        progress.running(own)
        parts, began = [], time.monotonic()
        for start in range(0, len(data), batch):
            rows = slice(start, start + batch)
            parts.append(curve(attack, model, data.x[rows], data.y[rows], radii, norm, data.domain, seed))
            progress.advance(len(data.x[rows]))
        seconds = time.monotonic() - began
        success = torch.cat([part.success for part in parts], 1)
        points = torch.cat([part.adversarial for part in parts], 1)
        kept = _replayed(oracle, points, data.y, success) if repeats else success
        distance, queries = (torch.cat([getattr(part, key) for part in parts]) for key in ("distance", "queries"))
        lost = int((success & ~kept).any(0).sum())
        found.append(Found(own, repr(attack), kept | ~right, points, distance, queries, seconds, lost))
    if line := black_box_ahead({each.name: each.success[-1] for each in found}):
        warnings.append(line)
    warnings += [f"{f.name}: {f.alone} successes did not repeat in a batch of one" for f in found if f.alone]
    return Attacked(name, data, norm, seed, tuple(sorted(set(radii))), right, tuple(found), tuple(warnings))


def document(attacked: Attacked, command: Sequence[str] = ()) -> dict[str, Any]:
    """Everything but the points as plain data; numbers that are not finite are strings."""
    by_name = {found.name: found for found in attacked.found}
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
            "norm": attacked.norm,
            "n": len(attacked.data),
            "seed": attacked.seed,
            "clean_accuracy": float(attacked.right.double().mean()),
            "rows": rows,
            "warnings": list(attacked.warnings),
            "command": list(command),
            "versions": versions(),
            "source": source_hash(),
        }
    )
    return plain_data


def arrays(attacked: Attacked) -> dict[str, Tensor]:
    """What there is to save: x, y, epsilons, and of every attack its points, successes and distances."""
    named = {"x": attacked.data.x, "y": attacked.data.y, "epsilons": torch.tensor(attacked.radii, dtype=torch.float64)}
    for found in attacked.found:
        for part in ("adversarial", "success", "distance", "queries"):
            named[f"{found.name}/{part}"] = getattr(found, part)
    return named


def show(attacked: Attacked, console: Console) -> None:
    """Print one line for each attack: robust accuracy at every radius, median distance, queries, seconds."""
    data, norm = attacked.data, norm_name(attacked.norm)
    head = f"{plain(attacked.model)} on {plain(data.name)} ({data.split}), {norm}, {len(data)} samples"
    grid = Table(title=Text(head, "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("robust accuracy", overflow="fold")
    for eps in attacked.radii:
        grid.add_column(f"eps {eps:g}", justify="right", no_wrap=True)
    for column in ("distance", "queries", "seconds"):
        grid.add_column(column, justify="right", no_wrap=True)
    clean = f"{float(attacked.right.double().mean()):.1%}"
    grid.add_row("clean", *[clean] * len(attacked.radii), "", "", "", end_section=True)
    rows, by_name = attacked.rows(), {found.name: found for found in attacked.found}
    for name in dict.fromkeys(row.name for row in rows):
        cells = [f"\u2264 {row.accuracy:.1%}" for row in rows if row.name == name]
        seconds = next(row.seconds for row in rows if row.name == name)
        own = by_name.get(name)
        median = f"{own.median:.4g}" if own and isfinite(own.median) else "" if own is None else "\u2013"
        queries = f"{float(own.queries.double().mean()):.0f}" if own else ""
        style = "" if own else "bold"
        grid.add_row(Text(plain(name)), *cells, median, queries, f"{seconds:.2f}", style=style)
    console.print(grid)
    said = "distance: the median over all samples of the nearest breaking point found; queries: the mean"
    console.print(Text(said, "dim"))
    for line in attacked.warnings:
        console.print(Text(f"warning: {plain(line)}", "yellow"))


def _right(oracle: Model, x: Tensor, label: Tensor) -> bool:
    """Whether the label's output is strictly the largest, the sample run alone; NaN is wrong."""
    with torch.no_grad():
        y = oracle(x[None]).flatten(1)[0]
    if len(y) < 2:
        raise InputError(f"expected a model of at least 2 classes, got {len(y)} outputs")
    if not 0 <= int(label) < len(y):
        raise InputError(f"label {int(label)} is out of range: the model has {len(y)} classes, 0 to {len(y) - 1}")
    return bool(strictly_largest(y[None], torch.as_tensor(label)[None]))


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
