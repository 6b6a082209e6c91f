"""``assay radius``: how far a sample may move before the model errs, between a proof and a counterexample."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay import options
from assay.checks import at_least_one, positive
from assay.comparing import limits
from assay.notes import lost
from assay.verify.core.errors import InputError
from assay.verify.core.norms import norm_name, parse_norm
from assay.verify.support.signals import interruptible

if TYPE_CHECKING:
    from rich.console import Console

    from assay.benchmarks.harness.radii.radius import Bracket, Radii


def radius(
    model: options.Model,
    weights: options.Weights = None,
    data: options.Data = "digits",
    data_dir: options.DataDir = None,
    domain: options.Domain = None,
    eps_scale: options.EpsScale = None,
    index: options.Index = None,
    n: options.HowMany = None,
    method: options.Method = "crown",
    attack: options.OneAttack = "pgd",
    norm: options.Norm = "inf",
    tolerance: options.Tolerance = 1e-3,
    timeout: options.SampleTimeout = inf,
    seed: options.Seed = 0,
    threads: options.Threads = 1,
    device: options.Device = "cpu",
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    out: options.AlarmFolder = Path("out"),
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> int:
    """Find the largest eps that is certified and the smallest that is attacked, by bisection."""
    order = parse_norm(norm)
    positions = _positions(index, n)
    positive("--tolerance", tolerance, "the data's units")
    hiring = options.hiring(workers, cluster, device)
    budget = limits(n, 1, timeout, seed, threads, workers, device)

    from assay.attacks import get_attack
    from assay.benchmarks.harness.progress import watch
    from assay.benchmarks.harness.radii.radius import radii
    from assay.benchmarks.harness.sources import Named

    verifier, attacker = options.method(method), get_attack(attack)
    samples = options.samples(data, data_dir, domain, n, eps_scale)
    module = options.fitting(model, weights, samples)
    with interruptible(), watch(unit="bound", quiet=quiet) as progress:
        outcome = radii(
            module,
            samples,
            positions,
            verifier,
            attacker,
            norm=order,
            tolerance=tolerance,
            budget=budget,
            name=model,
            alarm_folder=out / "alarms",
            progress=progress,
            hiring=hiring,
            source=Named(model, weights),
        )
    _tell(outcome, options.told(samples), json_)
    outcome.raise_alarm()
    return lost(outcome.lost)


def _positions(index: int | None, n: int | None) -> Sequence[int]:
    """Of the samples that are asked about."""
    if index is not None and n is not None:
        raise InputError("expected --index or --n, not both")
    if index is not None and index < 0:
        raise InputError(f"--index must be at least 0, got {index}")
    at_least_one("--n", n)
    return [index or 0] if n is None else range(n)


def _tell(outcome: Radii, where: dict[str, Any], as_json: bool) -> None:
    """The brackets as a table, or as a document."""
    from rich.console import Console

    from assay.verify.support.documents import dump

    if as_json:
        print(dump(outcome.to_json() | where))
    else:
        show(outcome, Console())


def show(radii: Radii, console: Console) -> None:
    """Print the brackets, what is certified rounded down and what is attacked rounded up."""
    from rich.text import Text

    from assay.benchmarks.report import layout
    from assay.benchmarks.report.digits import above, below
    from assay.verify.support.plain import plain

    head = f"{plain(radii.model)} on {plain(radii.data)}, {norm_name(radii.norm)}, within {radii.tolerance:g}"
    names = (
        layout.name(f"certified by {plain(radii.method)}"),
        layout.name(f"attacked by {plain(radii.attack)}"),
    )
    grid = layout.grid(*map(layout.figure, ("sample", "label")), *names, layout.figure("seconds"), "", title=head)
    for one in radii.brackets:
        ends = (
            ("", "") if one.certified is None or one.attacked is None else (below(one.certified), above(one.attacked))
        )
        grid.add_row(str(one.sample), str(one.label), *ends, f"{one.seconds:.1f}", remark(one))
    layout.show(grid, console, ("label", "seconds"))
    for alarm in radii.alarms:
        console.print(Text(f"SOUNDNESS ALARM: {plain(alarm.explanation)}", "bold red"))


def remark(one: Bracket) -> str:
    """What the figures alone do not say."""
    if one.certified is None:
        return "SOUNDNESS ALARM"
    if not one.right:
        return f"misclassified as {one.predicted}: radius 0"
    expected = one.reason is None or one.reason == "incomplete"
    return "" if expected else f"no further: {one.reason}"
