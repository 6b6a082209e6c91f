"""Linear bounds beside auto_LiRPA's on the same networks, inputs and objectives: tightness and seconds a call.

    python -m assay.benchmarks.measure.bounds [--nets mlp,conv,zoo:fashion-cnn-ibp@0.1,net.onnx@0.02]
        [--batches 1,16,128] [--repeats 5] [--json]

One thread, float32 on both sides, calls in turns, medians of the process's CPU seconds (wall-clock time on a shared
machine says little). Both bound the margins of the predicted class from below. The allocator of both is told to keep
its memory (page faults would otherwise be most of the peer's time). ``zoo:NAME@EPS`` takes a trained network on the
test images it was made for; ``FILE.onnx@EPS`` a network file on random inputs between 0 and 1, the box reaching beyond
unless ``@EPS@clip``; ``mlp`` and ``conv`` have random weights and inputs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from assay.benchmarks.measure.turns import in_turns

MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


@dataclass(frozen=True)
class Measurement:
    """One network and batch size: median CPU seconds a call and mean lower bound of the margins, ours and theirs."""

    net: str
    batch: int
    seconds: float
    peer_seconds: float
    ratio: float
    margin: float
    peer_margin: float


@dataclass(frozen=True, eq=False)
class Subject:
    """A module with inputs (samples x shape), a radius and a domain."""

    name: str
    module: Any
    x: Any
    eps: float
    domain: tuple[float, float] | None


def subject(text: str, samples: int) -> Subject:
    """``mlp`` or ``conv`` with torch's initial weights and random inputs from fixed seeds, ``zoo:NAME@EPS``, or
    ``FILE.onnx@EPS``."""
    import torch
    from torch import nn

    from assay.models import data, zoo
    from assay.verify.backends.lirpa.module import Layers
    from assay.verify.core.errors import InputError
    from assay.verify.core.network import to_network

    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in ((784, 256), (256, 256), (256, 256), (256, 256), (256, 10)):
        layers += [nn.Linear(before, after), nn.ReLU()]
    mlp = nn.Sequential(*layers[:-1])
    conv = nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )
    known = {
        "mlp": ("mlp 784-256x4-10", mlp.eval(), (1, 28, 28), 0.02),
        "conv": ("conv 3x32x32", conv.eval(), (3, 32, 32), 0.01),
    }
    if text in known:
        name, module, shape, eps = known[text]
        x = torch.rand(samples, *shape, generator=torch.Generator().manual_seed(0))
        return Subject(name, module, x, eps, (0.0, 1.0))
    name, _, radius = text.removeprefix("zoo:").partition("@")
    radius, _, clip = radius.partition("@")
    if not radius or clip not in ("", "clip"):
        raise InputError(f"expected mlp, conv, zoo:NAME@EPS or FILE.onnx@EPS, got {text!r}")
    if not text.startswith("zoo:"):
        network = to_network(Path(name))
        x = torch.rand(samples, *network.input_shape, generator=torch.Generator().manual_seed(0))
        return Subject(Path(name).stem, Layers(network).float(), x, float(radius), (0.0, 1.0) if clip else None)
    test = data.load(zoo.card(name).data, "test").take(samples)
    return Subject(text, zoo.load(name), test.x, float(radius), test.domain)


def measure(names: list[str], batches: list[int], repeats: int) -> Iterator[Measurement]:
    """Ours and the peer's in turns, after one warming call of each."""
    import torch

    from assay.benchmarks.measure.peers import lirpa_crown
    from assay.verify.backends.crown import CROWN
    from assay.verify.core.budget import Budget
    from assay.verify.core.network import to_network
    from assay.verify.core.region import Box, LpBall
    from assay.verify.core.spec import Spec

    crown = CROWN(dtype="float32")
    for name in names:
        for batch in batches:
            given = subject(name, batch)
            network = to_network(given.module, tuple(given.x.shape[1:]))
            labels = given.module(given.x).argmax(1).tolist()
            objective = torch.stack([Spec.robust(label, network.output_size).A for label in labels]).float()
            exact = LpBall(given.x, given.eps, domain=given.domain).box()
            box = Box(exact.lower.float(), exact.upper.float())  # both bound the same box of float32 numbers
            theirs = lirpa_crown(given.module, box, objective)

            def ours(box: Box = box, objective: Any = objective, network: Any = network) -> Any:
                return crown.lower(network, box, objective, Budget())

            mine, peer = in_turns(ours, theirs, repeats)
            yield Measurement(given.name, batch, mine, peer, peer / mine, ours().mean().item(), theirs().mean().item())


def main() -> None:
    """Parse the options, fix threads and allocator, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m assay.benchmarks.measure.bounds", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--nets", default="mlp,conv")
    parser.add_argument("--batches", default="1,16,128")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if any(os.environ.get(key) != value for key, value in MALLOC.items()):
        arguments = [sys.executable, "-m", "assay.benchmarks.measure.bounds", *sys.argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, **MALLOC, "OMP_NUM_THREADS": "1"})

    import torch
    from rich.console import Console
    from rich.table import Table

    from assay.benchmarks.measure.peers import lirpa_version

    torch.set_num_threads(1)
    peer = f"auto_LiRPA {lirpa_version()}"
    table = Table("network", "batch", "ours s", f"{peer} s", "times faster", "our mean margin", "theirs")
    rows = []
    for row in measure(options.nets.split(","), [int(b) for b in options.batches.split(",")], options.repeats):
        rows.append(asdict(row))
        print(f"{row.net}, batch {row.batch}: {row.ratio:.1f} times faster", file=sys.stderr)
        cells = f"{row.seconds:.4f}", f"{row.peer_seconds:.4f}", f"{row.ratio:.1f}", f"{row.margin:.4f}"
        table.add_row(row.net, str(row.batch), *cells, f"{row.peer_margin:.4f}")
    if options.json:
        print(json.dumps({"peer": peer, "torch": torch.__version__, "rows": rows}))
    else:
        Console().print(table)


if __name__ == "__main__":
    main()
