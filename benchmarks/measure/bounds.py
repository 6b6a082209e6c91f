"""Bounds beside auto_LiRPA's on the same networks, boxes and margins: CPU seconds, peak memory, and tightness.

    python -m assay.benchmarks.measure.bounds [--nets digits-mlp-pgd,resnet18,...] [--onnx FILE.onnx[@EPS[@clip]]]
        [--batches 1,16] [--methods ibp,crown-ibp,crown,alpha-crown] [--dtypes float32,float64]
        [--repeat 5] [--seconds 60] [--only ours] [--json FILE]

Each measurement has a process of its own with one thread. Both sides bound the margins of the predicted classes
from below, over linf balls; both allocators are told to keep their memory (page faults would otherwise be most of the
peer's time). Seconds are CPU seconds (wall-clock time on a shared machine says little): the median of ``--repeat``
calls after the first; the first is apart, with all that it prepares, the peer's graph too. A star marks seconds of the
first call, where others would have passed ``--seconds``. Peak memory is that of the process, of which Python and torch
take some 250 MB; the network is read from a file, since making one may take more. Ratios are ours to theirs: below 1 is
less. Margins are means of the lower bounds: the larger the tighter, and "worse" says that ours are not. ``float32``
is the precision of our methods that have that option; the others are measured as they are. In float64 ours are charged
for rounding, which the peer's are not: on deep networks with wide intervals that can make them "worse" by a little.

NETS are names of the zoo, of which ``zoo`` is all, or of ``bounds_nets.MADE``, with ``@EPS`` if the radius is to be
another than their own. The peer is the auto_LiRPA that is imported, and left out where there is none; a newer release
than the package index has takes part if PYTHONPATH leads to it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from assay.models import zoo
from assay.verify.support.documents import dump

NETS = "digits-mlp-pgd,digits-cnn-crown-ibp,fashion-mlp-standard,fashion-cnn-pgd,mlp-256x4,resnet10-w8"
METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown")
DTYPES = ("float32", "float64")
EQUAL = 1e-5  # a difference of mean margins that is none, of 1 or of their size
GRACE = 60  # seconds beyond its own after which a process is killed
ALONE = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


@dataclass(frozen=True)
class Row:
    """One network, batch, method and precision: each side as ``bounds_once`` describes it, or with an ``error``."""

    net: str
    batch: int
    method: str
    dtype: str
    ours: dict[str, Any]
    peer: dict[str, Any] | None
    time_ratio: float | None
    memory_ratio: float | None
    margins: str


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m assay.benchmarks.measure.bounds", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--nets", default="", help=f"unless --onnx is given: {NETS}")
    parser.add_argument("--onnx", action="append", default=[], metavar="FILE", help="FILE.onnx[.gz][@EPS[@clip]]")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--repeat", type=int, default=5, help="calls after the first")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU seconds of a measurement's calls, about")
    parser.add_argument("--only", choices=["ours"], help="leave the peer out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one JSON document, too")
    options = parser.parse_args(argv)
    methods, dtypes = options.methods.split(","), options.dtypes.split(",")
    nets = named(options.nets) + options.onnx or NETS.split(",")
    if not (set(methods) <= set(METHODS) and set(dtypes) <= set(DTYPES)):
        parser.error(f"expected methods among {', '.join(METHODS)}, and dtypes among {', '.join(DTYPES)}")
    if not all(text.isdecimal() and int(text) for text in options.batches.split(",")):
        parser.error(f"expected numbers of at least 1 as batches, got {options.batches!r}")
    if options.repeat < 0 or not options.seconds > 0:
        parser.error("expected --repeat >= 0 and --seconds > 0")
    peer = {} if options.only else run(["release"], options.seconds)
    if "error" in peer:
        print(f"ours is measured alone: {peer['error']}", file=sys.stderr)
    sides = ["ours", "peer"] if "what" in peer else ["ours"]
    rows = list[Row]()
    for net in nets:
        for batch in options.batches.split(","):
            for row in measure(net, batch, methods, dtypes, sides, options.repeat, options.seconds):
                if not rows:
                    print(f"{'seconds (first), peak MB, mean margin':46}{'ours':38}", end="")
                    print(f"{peer['what']:38}ours / theirs" if "what" in peer else "", flush=True)
                rows.append(row)
                show(row)
    if options.json:
        load = [round(value, 2) for value in os.getloadavg()]
        document = {"peer": peer.get("what"), "load": load, "rows": [asdict(row) for row in rows]}
        options.json.write_text(dump(document) + "\n")


def named(nets: str) -> list[str]:
    """The networks of a list with commas."""
    each = [zoo.names() if name == "zoo" else [name] for name in nets.split(",") if name]
    return [name for names in each for name in names]


def measure(
    net: str, batch: str, methods: Sequence[str], dtypes: Sequence[str], sides: Sequence[str], repeat: int, limit: float
) -> Iterator[Row]:
    """The rows of one network and batch size."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "subject.pt"))
        made = run(["make", net, batch, file], limit)
        if "error" in made:
            raise SystemExit(f"{net}: {made['error']}")
        for method in methods:
            for dtype in dtypes:
                figures = [run([side, file, method, dtype, str(repeat), str(limit)], limit) for side in sides]
                yield beside(net, int(batch), method, dtype, figures[0], figures[1] if len(figures) > 1 else None)


def run(arguments: list[str], seconds: float) -> dict[str, Any]:
    """What a process of its own measures, or why it does not: ``error``."""
    command = [sys.executable, "-m", "assay.benchmarks.measure.bounds_once", *arguments]
    try:
        done = subprocess.run(
            command, env={**os.environ, **ALONE}, capture_output=True, text=True, timeout=seconds + GRACE
        )
    except subprocess.TimeoutExpired:
        return {"error": f"more than {seconds:g} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    return figures


def beside(net: str, batch: int, method: str, dtype: str, ours: dict[str, Any], peer: dict[str, Any] | None) -> Row:
    """Both sides with their ratios, where both were measured."""
    if peer is None or "error" in ours or "error" in peer:
        return Row(net, batch, method, dtype, ours, peer, None, None, "")
    seconds, memory = ours["seconds"] / peer["seconds"], ours["peak"] / peer["peak"]
    more = (ours["margin"] - peer["margin"]) / max(1.0, abs(peer["margin"]))
    margins = "equal" if abs(more) <= EQUAL else "better" if more > 0 else "worse"
    return Row(net, batch, method, dtype, ours, peer, seconds, memory, margins)


def show(row: Row) -> None:
    """One line."""
    print(f"{Path(row.net).name[:20]:21}{row.batch:<4}{row.method:12}{row.dtype:9}{_side(row.ours):38}", end="")
    print("" if row.peer is None else f"{_side(row.peer):38}", end="")
    if row.time_ratio is not None and row.memory_ratio is not None:
        print(f"{row.time_ratio:.2f} s, {row.memory_ratio:.2f} MB, {row.margins}", end="")
    print(flush=True)


def _side(figures: dict[str, Any]) -> str:
    if "error" in figures:
        return str(figures["error"])[:36]
    star = "" if figures["calls"] else "*"
    return f"{figures['seconds']:.4f}{star} ({figures['first']:.3f}) {figures['peak']:.0f} {figures['margin']:.5g}"


if __name__ == "__main__":
    main()
