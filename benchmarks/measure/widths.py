"""Bounds of single operations beside auto_LiRPA's: how wide they are on the same random boxes, and whether any sampled
point lies outside.

    python -m assay.benchmarks.measure.widths [--operations softmax,gelu,...] [--boxes 1000] [--seed 0] [--json FILE]

Each operation is bounded on boxes of four widths (the same number each) as it is, and followed by a random matrix of
eight rows, which shows how the values of one box depend on each other. Figures are mean widths; ``seen`` is that of
fifty points of each box. ``cut``: how many of the points lie outside, which must be none. Seconds are CPU seconds of
one call on all boxes. The peer is the auto_LiRPA that PYTHONPATH leads to; what it does not take says so.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from itertools import product
from math import inf
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.benchmarks.measure.peers import LIRPA, lirpa_version
from assay.verify.backends.lirpa.shim import auto_lirpa
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network, to_network
from assay.verify.core.region import Box
from assay.verify.registry import get_bounder
from assay.verify.support.documents import dump

VALUES, POINTS, ROWS = 8, 50, 8
WIDTHS = (0.05, 0.2, 0.5, 2.0)
SLACK = 1e-9
METHODS = ("ibp", "crown", "alpha-crown")

# Of values (batch x 8).
OPERATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(-1),
    "gelu": F.gelu,
    "gelu-tanh": lambda x: F.gelu(x, approximate="tanh"),
    "layer-norm": lambda x: F.layer_norm(x, (VALUES,)),
    "product": lambda x: x[:, :4] * x[:, 4:],
    "matrix-product": lambda x: (x[:, :4].reshape(-1, 2, 2) @ x[:, 4:].reshape(-1, 2, 2)).flatten(1),
}


class Followed(nn.Module):
    """An operation, and a matrix (rows x values)."""

    def __init__(self, function: Callable[[Tensor], Tensor], weight: Tensor) -> None:
        super().__init__()
        self.function = function
        self.last = nn.Linear(weight.shape[1], len(weight), bias=False)
        self.last.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch x 8) to (batch x rows)."""
        values: Tensor = self.last(self.function(x))
        return values


@dataclass(frozen=True)
class Row:
    """One operation, alone or ``mixed`` by a matrix, one method, one side: its mean width, or an ``error``."""

    operation: str
    mixed: bool
    method: str
    side: str
    width: float | None
    seen: float
    cut: int | None
    seconds: float | None
    error: str = ""


def boxes(count: int, seed: int) -> tuple[Box, Tensor]:
    """Random boxes (count x 8) of several widths, and points of each (points x count x 8), half of them corners."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(count, VALUES, generator=generator, dtype=torch.float64)
    width = torch.tensor(WIDTHS, dtype=torch.float64).repeat(-(-count // len(WIDTHS)))[:count, None]
    radius = width / 2 * torch.rand(count, VALUES, generator=generator, dtype=torch.float64)
    box = Box(centre - radius, centre + radius)
    share = torch.rand(POINTS, count, VALUES, generator=generator, dtype=torch.float64)
    share[::2] = share[::2].round()
    return box, torch.minimum(torch.lerp(box.lower, box.upper, share), box.upper)


def measure(name: str, mixed: bool, count: int, seed: int, peer: bool) -> list[Row]:
    """Both sides on one operation."""
    function = OPERATIONS[name]
    box, points = boxes(count, seed)
    size = function(box.lower).shape[1]
    generator = torch.Generator().manual_seed(seed + 1)
    weight = torch.randn(ROWS, size, generator=generator, dtype=torch.float64) if mixed else torch.eye(size).double()
    module = Followed(function, weight).eval()
    values = module(points.flatten(0, 1)).view(POINTS, count, -1)
    seen = float((values.amax(0) - values.amin(0)).mean())
    network = to_network(module, (VALUES,))
    rows = []
    for method in METHODS:
        sides: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {"ours": lambda m=method: ours(network, box, m)}  # type: ignore[misc]
        if peer:
            sides["peer"] = lambda m=method: theirs(module, box, m)  # type: ignore[misc]
        for side, call in sides.items():
            begun = time.process_time()
            try:
                lower, upper = call()
            except Exception as error:  # whatever the peer has not thought of
                if side == "ours":
                    raise
                told = f"{type(error).__name__} {str(error).partition(chr(10))[0]}".strip()
                rows.append(Row(name, mixed, method, side, None, seen, None, None, told))
                continue
            seconds = time.process_time() - begun
            slack = SLACK * (1 + values.abs())
            cut = int(((values < lower - slack) | (values > upper + slack)).any(-1).sum())
            rows.append(Row(name, mixed, method, side, float((upper - lower).mean()), seen, cut, seconds))
    return rows


def ours(network: Network, box: Box, method: str) -> tuple[Tensor, Tensor]:
    """Our bounds of all outputs."""
    bounds = get_bounder(method).bound(network, box, torch.eye(network.output_size, dtype=torch.float64), Budget())
    return bounds.lower, bounds.upper


def theirs(module: nn.Module, box: Box, method: str) -> tuple[Tensor, Tensor]:
    """auto_LiRPA's, with 20 iterations of alpha-CROWN as ours has."""
    lirpa = auto_lirpa()
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):  # it prints
        warnings.simplefilter("ignore")
        options = {"optimize_bound_args": {"iteration": 20}}
        bounded = lirpa.BoundedModule(module, box.centre, bound_opts=options, device="cpu")
        region = lirpa.PerturbationLpNorm(norm=inf, x_L=box.lower, x_U=box.upper)
        lower, upper = bounded.compute_bounds(x=(lirpa.BoundedTensor(box.centre, region),), method=LIRPA[method])
    return lower.detach(), upper.detach()


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each operation and method; 1 if any sampled point lies outside of our bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", default=",".join(OPERATIONS))
    parser.add_argument("--boxes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["ours"], help="leave the peer out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one JSON document, too")
    options = parser.parse_args(argv)
    names = options.operations.split(",")
    if unknown := [name for name in names if name not in OPERATIONS]:
        parser.error(f"expected operations among {', '.join(OPERATIONS)}, got {', '.join(unknown)}")
    if options.boxes < 1:
        parser.error("expected --boxes of at least 1")
    torch.set_num_threads(1)
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # what the peer makes by itself is of that
    try:
        rows = []
        print(f"{'mean width':32}{'seen':>8}{'ours':>10}{'peer':>10}{'ratio':>8}{'cut':>6}{'seconds':>16}", flush=True)
        for name, mixed in product(names, (False, True)):
            made = measure(name, mixed, options.boxes, options.seed, options.only is None)
            show(made)
            rows += made
    finally:
        torch.set_default_dtype(kept)
    if options.json:
        version = lirpa_version() if options.only is None else None
        options.json.write_text(dump({"peer": version, "rows": [asdict(row) for row in rows]}) + "\n")
    return int(any(row.cut for row in rows if row.side == "ours"))


def show(rows: Sequence[Row]) -> None:
    """A line for each method."""
    for mine, peer in paired(rows):
        label = f"{mine.operation}{', mixed' if mine.mixed else ''}, {mine.method}"
        beside, spent, told = f"{'':18}", f"{mine.seconds:.2f}", peer.error if peer else ""
        if peer is not None and peer.width is not None and mine.width is not None:
            beside = f"{peer.width:10.4g}{mine.width / peer.width:8.3f}"
            spent += f" / {peer.seconds:.2f}"
        line = f"{label:32}{mine.seen:8.4g}{mine.width:10.4g}{beside}{mine.cut:6}{spent:>16} {told}"
        print(line.rstrip(), flush=True)


def paired(rows: Sequence[Row]) -> list[tuple[Row, Row | None]]:
    """Ours, each with the peer's row of the same measurement."""
    others = {(r.operation, r.mixed, r.method): r for r in rows if r.side == "peer"}
    return [(r, others.get((r.operation, r.mixed, r.method))) for r in rows if r.side == "ours"]


if __name__ == "__main__":
    raise SystemExit(main())
