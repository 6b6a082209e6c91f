"""One measurement of bounds, in a process of its own, for :mod:`assay.benchmarks.measure.bounds`.

    python -m assay.benchmarks.measure.bounds_once make NET BATCH FILE
    python -m assay.benchmarks.measure.bounds_once ours|peer FILE METHOD DTYPE REPEAT SECONDS
    python -m assay.benchmarks.measure.bounds_once release

The first form keeps the network and its boxes in a file, since making them may take more memory than bounding them.
The second prints a :class:`Once` as JSON, in the last line, and the third the peer's release.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from assay.benchmarks.measure.bounds_nets import Subject, subject
from assay.benchmarks.measure.peers import lirpa_bounds, lirpa_version
from assay.verify.core.budget import Budget
from assay.verify.registry import get_verifier
from assay.verify.support.options import title

PEER = "auto_LiRPA {}"


@dataclass(frozen=True)
class Once:
    """What one process measured: CPU seconds of the first call, and the median of ``calls`` further ones, which is the
    first call's where there is none; the process's peak memory before and after, in MB; the mean lower bound."""

    what: str
    first: float
    seconds: float
    calls: int
    before: float
    peak: float
    margin: float


def measure(side: str, given: Subject, method: str, dtype: str, repeat: int, seconds: float) -> Once:
    """At most ``repeat`` calls after the first, in about so many CPU ``seconds`` together."""
    what, ready = (ours if side == "ours" else peer)(given, method, dtype)
    before = peak()
    begun = time.process_time()
    call = ready()
    lower = call()
    first = time.process_time() - begun
    spent: list[float] = []
    while len(spent) < repeat and first + sum(spent) + max([first, *spent][-1:]) < seconds:
        begun = time.process_time()
        lower = call()
        spent.append(time.process_time() - begun)
    middle = median(spent) if spent else first
    return Once(what, first, middle, len(spent), before, peak(), lower.double().mean().item())


def ours(given: Subject, method: str, dtype: str) -> tuple[str, Callable[[], Callable[[], Tensor]]]:
    """The method's name with its options, and what prepares a call: nothing. ``dtype`` counts where it is an option."""
    verifier: Any = get_verifier(method)
    if "dtype" in {field.name for field in fields(verifier)}:
        verifier = get_verifier(f"{method}(dtype={dtype})")

    def call() -> Tensor:
        lower: Tensor = verifier.lower(given.network, given.box, given.objective, Budget())
        return lower

    return title(verifier), lambda: call


def peer(given: Subject, method: str, dtype: str) -> tuple[str, Callable[[], Callable[[], Tensor]]]:
    """The peer's name and release, and what builds its graph."""
    precision: torch.dtype = getattr(torch, dtype)
    torch.set_default_dtype(precision)  # what it makes by itself is of that
    return PEER.format(lirpa_version()), lirpa_bounds(given.network, given.box, given.objective, method, precision)


def peak() -> float:
    """The most memory that this process had until now, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main(argv: Sequence[str] | None = None) -> None:
    """Make or measure."""
    torch.set_num_threads(1)
    match list(sys.argv[1:] if argv is None else argv):
        case ["make", net, batch, file]:
            torch.save(subject(net, int(batch)), file)
        case ["ours" | "peer" as side, file, method, dtype, repeat, seconds]:
            with redirect_stdout(sys.stderr):  # the peer prints
                given = torch.load(Path(file), weights_only=False)  # of our own making
                once = measure(side, given, method, dtype, int(repeat), float(seconds))
            print(json.dumps(asdict(once)))
        case ["release"]:
            print(json.dumps({"what": PEER.format(lirpa_version())}))
        case other:
            raise SystemExit(f"expected make, a measurement or release, got {other}")


if __name__ == "__main__":
    main()
