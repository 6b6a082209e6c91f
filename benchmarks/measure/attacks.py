"""Attacks beside other libraries' on one network: robust accuracy, or median distance, and CPU seconds.

    python -m assay.benchmarks.measure.attacks [--model zoo:fashion-cnn-pgd] [--eps 0.1] [--samples 500]
                                 [--attacks pgd,apgd-ce,apgd-t,fab,square,autoattack] [--json]

One thread, linf, the process's CPU seconds (wall-clock time on a shared machine says little), one call each on the
whole batch; a peer of a row runs right after ours. Peers take part where they are importable: foolbox, torchattacks,
and the reference implementation of AutoAttack (``autoattack``). Whatever an attack gives back is counted by one rule:
the label is not strictly the largest output of the model at a point within eps, up to float32 rounding for the peers.
Minimal-norm attacks (``cw``, ``ddn``, ``fmn``) are measured in l2 by the median distance over the samples that are
right as they are; what was not broken is infinitely far.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from math import inf
from typing import Any

DEFAULT = "pgd,apgd-ce,apgd-t,fab,square,autoattack"
MINIMAL = ("cw", "ddn", "fmn")


@dataclass(frozen=True)
class Measurement:
    """One attack of one library: robust accuracy, or for a minimal-norm attack median distance; CPU seconds."""

    attack: str
    library: str
    accuracy: float | None
    median: float | None
    seconds: float


@dataclass(frozen=True, eq=False)
class Subject:
    """A model with samples (batch x shape), labels and a radius."""

    model: Any
    x: Any
    labels: Any
    eps: float


def subject(name: str, eps: float, samples: int) -> Subject:
    """The first test samples of the data that ``zoo:NAME`` was trained on."""
    from assay.models import data, zoo

    name = name.removeprefix("zoo:")
    test = data.load(zoo.card(name).data, "test").take(samples)
    return Subject(zoo.load(name), test.x, test.y, eps)


def ours(name: str, given: Subject) -> Callable[[], Any]:
    """A call of our attack that gives its points."""
    from assay.attacks import get_attack
    from assay.verify.core.region import LpBall

    attack = get_attack(name)
    # The ball of a minimal-norm attack is only where its success is counted: its search covers the domain.
    region = LpBall(given.x, given.eps, 2 if name in MINIMAL else inf, (0.0, 1.0))
    if name not in MINIMAL:
        return lambda: attack.run(given.model, given.x, given.labels, region).adversarial
    return lambda: attack.run(given.model, given.x, given.labels, region).distance


def measure(names: list[str], given: Subject) -> Iterator[Measurement]:
    """Every attack, ours first, then the peers that are installed."""
    from assay.benchmarks.measure.attack_peers import PEERS

    for name in names:
        calls = {"assay": ours(name, given)}
        for library, table in PEERS.items():
            if name in table and find_spec(library) is not None:
                import_module(library)  # no part of what is measured
                calls[library] = partial(table[name], given)
        for library, call in calls.items():
            begun = time.process_time()
            outcome = call()
            seconds = time.process_time() - begun
            accuracy = median = None
            if name in MINIMAL:
                median = median_distance(given, outcome)
            else:
                accuracy = robust_accuracy(given, outcome, slack=0.0 if library == "assay" else 1e-6)
            yield Measurement(name, library, accuracy, median, seconds)


def wrong(given: Subject, x: Any) -> Any:
    """Whether the label is not strictly the largest output, (batch)."""
    import torch

    from assay.verify.core.spec import strictly_largest

    with torch.no_grad():
        return ~strictly_largest(given.model(x), given.labels)


def robust_accuracy(given: Subject, points: Any, slack: float) -> float:
    """The share of samples that ``points`` (batch x shape) do not break within eps plus ``slack``."""
    far = (points.double() - given.x.double()).flatten(1).abs().amax(1)
    inside = (far <= given.eps + slack) & ((points >= 0) & (points <= 1)).flatten(1).all(1)
    return 1 - float((inside & wrong(given, points) | wrong(given, given.x)).double().mean())


def median_distance(given: Subject, reached: Any) -> float:
    """The median l2 distance of ``reached``, distances (batch) or points (batch x shape), over the right samples."""
    if reached.dim() > 1:
        far = (reached.double() - given.x.double()).flatten(1).norm(dim=1)
        reached = far.masked_fill(~wrong(given, reached), inf)
    return float(reached[~wrong(given, given.x)].sort().values[(int((~wrong(given, given.x)).sum()) - 1) // 2])


def main() -> None:
    """Parse the options, fix the threads, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m assay.benchmarks.measure.attacks", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--model", default="zoo:fashion-cnn-pgd")
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--attacks", default=DEFAULT)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        arguments = [sys.executable, "-m", "assay.benchmarks.measure.attacks", *sys.argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, "OMP_NUM_THREADS": "1"})

    import torch
    from rich.console import Console
    from rich.table import Table

    torch.set_num_threads(1)
    given = subject(options.model, options.eps, options.samples)
    clean = 1 - float(wrong(given, given.x).double().mean())
    table = Table("attack", "library", "robust accuracy", "median l2", "CPU s", "of ours")
    rows, own = [], 0.0
    for row in measure(options.attacks.split(","), given):
        rows.append(asdict(row))
        own = row.seconds if row.library == "assay" else own
        accuracy = "" if row.accuracy is None else f"{row.accuracy:.1%}"
        median = "" if row.median is None else f"{row.median:.4f}"
        print(f"{row.attack}, {row.library}: {accuracy or median} in {row.seconds:.1f} s", file=sys.stderr)
        ratio = "" if row.library == "assay" else f"x {row.seconds / own:.1f}"
        table.add_row(row.attack, row.library, accuracy, median, f"{row.seconds:.2f}", ratio)
    if options.json:
        document = {"model": options.model, "eps": options.eps, "n": options.samples, "clean": clean, "rows": rows}
        print(json.dumps({**document, "torch": torch.__version__}))
    else:
        print(f"{options.model}, linf eps {options.eps}, {options.samples} samples, {clean:.1%} clean")
        Console().print(table)


if __name__ == "__main__":
    main()
