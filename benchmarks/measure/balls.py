"""Balls in l2: what linear bounds prove with sectors about the centre and without, beside local Lipschitz constants.

    python -m assay.benchmarks.measure.balls [--methods 'crown,alpha-crown'] [--balls digits-mlp-pgd:2:0.3,...]
        [--samples 20] [--seconds 60] [--image-seconds 20] [--json]

A row a ball, a column a method; cells as in :mod:`assay.benchmarks.measure.methods`: images verified (after a plus
those that an attack broke, misclassified ones among them), the mean of the proved lower bound of the margin, and mean
CPU seconds an image, one image at a time on one thread. Networks of the zoo; the first test images. The column of
``attack`` is what is there to be verified at most: all images but those.
"""

from __future__ import annotations

from collections.abc import Sequence

from assay.benchmarks.measure.methods import Ball, Cell, measured

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
    done = measured("balls", (__doc__ or "").split("\n")[0], METHODS, BALLS, argv)
    done.tell(markdown(done.cells, done.methods, done.balls))


if __name__ == "__main__":
    main()
