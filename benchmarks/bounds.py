"""Linear bounds beside auto_LiRPA's on the same networks, inputs and objectives: tightness and seconds a call.

    python -m benchmarks.bounds [--nets mlp,conv] [--batches 1,16,128] [--repeats 5] [--json]

One thread, float32 on both sides, calls in turns, medians. The peer bounds the margins from below, ours from both
sides. The allocator of both is told to keep its memory (page faults would otherwise be most of the peer's time).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


@dataclass(frozen=True)
class Measurement:
    """One network and batch size: median seconds a call and mean of the margins' lower bounds, ours and theirs."""

    net: str
    batch: int
    seconds: float
    peer_seconds: float
    ratio: float
    margin: float
    peer_margin: float


def networks() -> dict[str, tuple[Any, tuple[int, ...], float, tuple[float, float] | None]]:
    """Name to module, input shape, radius and domain; weights from a fixed seed (He et al. 2015)."""
    import torch
    from torch import nn

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
    for module in (*mlp, *conv):
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return {
        "mlp 784-256x4-10": (mlp.eval(), (1, 28, 28), 0.02, (0.0, 1.0)),
        "conv 3x32x32": (conv.eval(), (3, 32, 32), 0.01, (0.0, 1.0)),
    }


def measure(names: list[str], batches: list[int], repeats: int) -> Iterator[Measurement]:
    """Ours and the peer's in turns, after one warming call of each."""
    import torch

    from benchmarks.peers import lirpa_crown
    from verify.core.budget import Budget
    from verify.core.network import to_network
    from verify.core.region import LpBall
    from verify.core.spec import Spec
    from verify.registry import get_bounder

    crown = get_bounder("crown(dtype=float32)")
    for name, (module, shape, eps, domain) in networks().items():
        if not any(wanted in name for wanted in names):
            continue
        network = to_network(module, shape)
        for batch in batches:
            x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))
            labels = module(x).argmax(1).tolist()
            objective = torch.stack([Spec.robust(label, network.output_size).A for label in labels]).float()
            ball = LpBall(x, eps, domain=domain)
            theirs = lirpa_crown(module, ball, objective)

            def ours(ball: LpBall = ball, objective: Any = objective, network: Any = network) -> Any:
                return crown.bound(network, ball, objective, Budget()).lower

            mine, peer = _in_turns(ours, theirs, repeats)
            yield Measurement(name, batch, mine, peer, peer / mine, ours().mean().item(), theirs().mean().item())


def _in_turns(a: Callable[[], Any], b: Callable[[], Any], repeats: int) -> tuple[float, float]:
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for call, spent in zip((a, b), seconds, strict=True):
            begun = time.perf_counter()
            call()
            if turn:
                spent.append(time.perf_counter() - begun)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def main() -> None:
    """Parse the options, fix threads and allocator, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bounds", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--nets", default="mlp,conv")
    parser.add_argument("--batches", default="1,16,128")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if any(os.environ.get(key) != value for key, value in MALLOC.items()):
        arguments = [sys.executable, "-m", "benchmarks.bounds", *sys.argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, **MALLOC, "OMP_NUM_THREADS": "1"})

    import torch
    from rich.console import Console
    from rich.table import Table

    from benchmarks.peers import lirpa_version

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
