"""Balls in l2: what linear bounds prove with sectors about the centre and without, beside local Lipschitz constants.

    python -m assay.benchmarks.measure.balls [--methods 'crown,alpha-crown'] [--balls digits-mlp-pgd:2:0.3,...]
        [--samples 20] [--seconds 60] [--image-seconds 20] [--json]

A row a ball, a column a method; cells as in :mod:`assay.benchmarks.measure.methods`: images verified (after a plus
those that an attack broke, misclassified ones among them), the mean of the proved lower bound of the margin, and mean
CPU seconds an image, one image at a time on one thread. Networks of the zoo; the first test images. The column of
``attack`` is what is there to be verified at most: all images but those.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict

from assay.benchmarks.measure.methods import Ball, Cell, read_balls, table
from assay.verify.core.errors import InputError
from assay.verify.support.documents import dump
from assay.verify.support.options import split

METHODS = (
    "attack",
    "crown(sectors=False)",
    "crown",
    "alpha-crown(sectors=False)",
    "alpha-crown",
    "lipschitz(scope=local)",
)

BALLS = (
    Ball("digits-mlp-standard", 2, 0.2),
    Ball("digits-mlp-standard", 2, 0.4),
    Ball("digits-mlp-pgd", 2, 0.3),
    Ball("digits-mlp-pgd", 2, 0.6),
    Ball("digits-cnn-pgd", 2, 0.3),
    Ball("digits-cnn-pgd", 2, 0.4),
    Ball("fashion-mlp-standard", 2, 0.25),
    Ball("fashion-mlp-lipschitz", 2, 0.5),
)


def markdown(cells: Sequence[Cell], methods: Sequence[str], balls: Sequence[Ball]) -> str:
    """The cells, method by method, as a table: balls in rows, methods in columns."""
    lines = [f"| ball | {' | '.join(f'`{method}`' for method in methods)} |", f"|-|{'-|' * len(methods)}"]
    for i, ball in enumerate(balls):
        lines.append(f"| {ball.title} | {' | '.join(map(str, cells[i :: len(balls)]))} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m assay.benchmarks.measure.balls", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--methods", default="", help="in place of the six")
    parser.add_argument("--balls", default="", help="NET:NORM:EPS, separated by commas, in place of those in l2")
    parser.add_argument("--samples", type=int, default=20, help="test images, from the first")
    parser.add_argument("--seconds", type=float, default=60.0, help="wall-clock limit of a cell")
    parser.add_argument("--image-seconds", type=float, default=20.0, help="wall-clock limit of an image")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(argv)
    if options.samples < 1 or not options.seconds > 0 or not options.image_seconds > 0:
        parser.error("expected --samples >= 1, --seconds > 0 and --image-seconds > 0")
    try:
        balls = read_balls(options.balls) if options.balls else list(BALLS)
    except InputError as error:
        parser.error(str(error))
    import torch

    torch.set_num_threads(1)
    methods, cells = split(options.methods) or list(METHODS), list[Cell]()
    for cell in table(methods, balls, options.samples, options.seconds, options.image_seconds):
        cells.append(cell)
        print(f"{cell.method} on {cell.net} l{cell.norm:g} {cell.eps:g}: {cell}", file=sys.stderr, flush=True)
    print(dump([asdict(cell) for cell in cells]) if options.json else markdown(cells, methods, balls))


if __name__ == "__main__":
    main()
