"""Every method on the same images of four networks of the zoo: what it certifies, how tightly, and in which time.

    python -m assay.benchmarks.measure.methods [--methods 'ibp,lp(tighten=all)'] [--balls digits-mlp-pgd:inf:0.05,...]
        [--samples 20][--seconds 60] [--image-seconds 20] [--json]

Prints the table of ``docs/methods.md``: methods in rows, balls in columns. A cell holds

- how many of the first test images are certified, and, after a plus, how many falsified (misclassified ones, too);
- the mean, over all these images, of the margin that the method proves: a lower bound of the least margin within the
  ball, the nearer to the true one the tighter; of methods that answer with such a bound;
- mean seconds an image: CPU seconds of this process, on one thread, and of all that it starts. Images are asked one by
  one, although ``ibp`` and ``crown`` are faster in batches; solvers are loaded before.

A method has ``--seconds`` for the images of a cell together and ``--image-seconds`` for each. Images that it leaves
open, or does not come to, are not certified; where time was the reason, the cell says ``timeout``. ``refused``: the
method does not take such networks or balls; ``too large``: nor networks of this size; ``unsolved``: the solver failed.
Smoothing speaks of another classifier than the network, the smoothed one: its row is marked by a star.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import inf, isfinite

from assay.benchmarks.measure.exact import cpu_seconds
from assay.verify.core.budget import Budget
from assay.verify.core.errors import AssayError, InputError
from assay.verify.core.problem import Problem
from assay.verify.core.result import NETWORK, Reason, Result, Verdict
from assay.verify.core.verifier import Verifier
from assay.verify.registry import get_verifier, list_verifiers
from assay.verify.support.documents import dump
from assay.verify.support.options import convert, split


@dataclass(frozen=True)
class Ball:
    """The region about every image, of one network of the zoo."""

    net: str
    norm: float
    eps: float

    @property
    def title(self) -> str:
        """Its name as the head of a column."""
        return f"`{self.net}` l{self.norm:g} {self.eps:g}".replace("l inf", "linf")


BALLS = (
    Ball("digits-mlp-pgd", inf, 0.05),
    Ball("digits-mlp-pgd", 2, 0.3),
    Ball("digits-cnn-crown-ibp", inf, 0.1),
    Ball("fashion-mlp-lipschitz", inf, 0.02),
    Ball("fashion-mlp-lipschitz", 2, 0.25),
    Ball("fashion-cnn-ibp", inf, 0.1),
)

METHODS = (
    "ibp",
    "crown-ibp",
    "crown",
    "lirpa(method=IBP)",
    "lirpa(method=CROWN)",
    "lirpa(method=alpha-CROWN)",
    "lp",
    "lp(tighten=all)",
    "lipschitz",
    "lipschitz(scope=local)",
    "lipsdp",
    "lipsdp(rows=together)",
    "sdp",
    "milp",
    "milp(optimum=True)",
    "lp-bab",
    "lp-bab(optimum=True)",
    "smt",
    "input-split",
    "smoothing(n=10000)",
    "auto",
    "attack",
)

WORDS = {
    Reason.UNSUPPORTED: "refused",
    Reason.MEMORY: "too large",
    Reason.SOLVER: "unsolved",
    Reason.TIMEOUT: "timeout",
    Reason.NUMERICAL: "numerical",
}


@dataclass(frozen=True)
class Cell:
    """One method on the images of one ball; ``asked``: how many it came to; ``margin``: None where it proves none for
    some image; ``word``: why it leaves images open, where that is another reason than its bounds."""

    method: str
    net: str
    norm: float
    eps: float
    samples: int
    asked: int
    verified: int
    falsified: int
    margin: float | None
    seconds: float
    word: str
    subject: str

    def __str__(self) -> str:
        """As the table shows it."""
        if self.word and not self.verified + self.falsified:
            return self.word
        counts = f"{self.verified} + {self.falsified}" if self.falsified else f"{self.verified}"
        margin = [] if self.margin is None else [f"{self.margin:.3g}"]
        return ", ".join([counts, *margin, _time(self.seconds), *([self.word] if self.word else [])])


def _time(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 0.0995 else f"{1000 * seconds:.2g} ms"


def methods() -> list[str]:
    """The rows: :data:`METHODS`, and whatever else is registered; an attack on another classifier is none."""
    known = {text.partition("(")[0] for text in METHODS}
    return [*METHODS, *(name for name in list_verifiers() if name not in known and not name.endswith("-attack"))]


def problems_of(ball: Ball, samples: int) -> list[Problem]:
    """One problem an image, of a network of its own: nothing is remembered from other methods."""
    from assay.models import data, zoo
    from assay.verify.core.network import to_network

    card = zoo.card(ball.net)
    test = data.load(card.data).take(samples)
    network = to_network(zoo.load(ball.net), card.input_shape)
    return Problem.robustness_many(network, test.x, test.y.tolist(), ball.eps, ball.norm, test.domain)


def measure(method: str, ball: Ball, samples: int, seconds: float, image_seconds: float) -> Cell:
    """One cell."""
    problems = problems_of(ball, samples)
    verifier = get_verifier(method)
    _load(verifier, ball.norm)
    begun, budget, results = cpu_seconds(), Budget(seconds).started(), list[Result]()
    for problem in problems:
        if budget.expired:
            break
        results.append(verifier.verify(problem, Budget(min(image_seconds, max(budget.remaining, 0.0)))))
        if results[-1].reason in (Reason.UNSUPPORTED, Reason.MEMORY):
            break  # so it is with all images
    spent = (cpu_seconds() - begun) / max(len(results), 1)
    count = {verdict: sum(result.verdict is verdict for result in results) for verdict in Verdict}
    proved = [m for m in (result.margin for result in results) if m is not None and isfinite(m)]
    words = [word for reason, word in WORDS.items() if any(result.reason is reason for result in results)]
    if not words and len(results) < len(problems):
        words = [WORDS[Reason.TIMEOUT]]
    return Cell(
        method=method,
        net=ball.net,
        norm=ball.norm,
        eps=ball.eps,
        samples=len(problems),
        asked=len(results),
        verified=count[Verdict.VERIFIED],
        falsified=count[Verdict.FALSIFIED],
        margin=sum(proved) / len(proved) if len(proved) == len(problems) else None,
        seconds=spent,
        word=words[0] if words else "",
        subject=results[0].subject if results else NETWORK,
    )


def _load(verifier: Verifier, norm: float) -> None:
    """What the method needs is imported: a problem of two inputs, whose answer nobody looks at."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)).eval()
    x = torch.zeros(2)
    verifier.verify(Problem.robustness(model, x, int(model(x).argmax()), 0.5, norm, None), Budget(5))


def table(rows: Sequence[str], balls: Sequence[Ball], samples: int, seconds: float, image: float) -> Iterator[Cell]:
    """Cell by cell, row by row; a method that is not installed is refused everywhere."""
    for method in rows:
        for ball in balls:
            try:
                yield measure(method, ball, samples, seconds, image)
            except AssayError as error:
                print(f"{method}: {error}", file=sys.stderr)
                yield Cell(method, ball.net, ball.norm, ball.eps, samples, 0, 0, 0, None, 0.0, "error", NETWORK)


def markdown(cells: Sequence[Cell], balls: Sequence[Ball]) -> str:
    """The cells as a table: methods in rows, balls in columns."""
    lines = [f"| method | {' | '.join(ball.title for ball in balls)} |", f"|-|{'-|' * len(balls)}"]
    for begin in range(0, len(cells), len(balls)):
        row = cells[begin : begin + len(balls)]
        star = "" if all(cell.subject == NETWORK for cell in row) else " \\*"
        lines.append(f"| `{row[0].method}`{star} | {' | '.join(map(str, row))} |")
    return "\n".join(lines)


def read_balls(text: str) -> list[Ball]:
    """NET:NORM:EPS, separated by commas. Raises :class:`InputError` for anything else."""
    return [_ball(part) for part in text.split(",")]


def _ball(text: str) -> Ball:
    try:
        net, norm, eps = text.strip().split(":")
    except ValueError:
        raise InputError(f"expected a ball as NET:NORM:EPS, got {text!r}") from None
    return Ball(net, convert(norm, float, "the norm of a ball"), convert(eps, float, "the radius of a ball"))


@dataclass(frozen=True)
class Measured:
    """What a command measured: cells of methods and balls, method by method, of so many images each, and the CPU
    seconds that all took; ``as_json`` if they are to be printed so."""

    methods: Sequence[str]
    balls: Sequence[Ball]
    cells: list[Cell]
    samples: int
    seconds: int
    as_json: bool

    def tell(self, table: str) -> None:
        """Print the cells as JSON, or as this table."""
        if self.as_json:
            print(dump({"cells": [asdict(cell) for cell in self.cells], "seconds": self.seconds}))
        else:
            print(f"{table}\n\n{self.samples} images, {self.seconds} CPU seconds in all.")


def measured(name: str, about: str, rows: Sequence[str], balls: Sequence[Ball], argv: Sequence[str] | None) -> Measured:
    """Parse the options of the command ``name`` and measure; ``rows`` and ``balls``: what it measures by itself."""
    parser = argparse.ArgumentParser(prog=f"python -m assay.benchmarks.measure.{name}", description=about)
    parser.add_argument("--methods", default="", help=f"in place of its {len(rows)}")
    parser.add_argument("--balls", default="", help=f"NET:NORM:EPS, separated by commas, in place of its {len(balls)}")
    parser.add_argument("--samples", type=int, default=20, help="test images, from the first")
    parser.add_argument("--seconds", type=float, default=60.0, help="wall-clock limit of a cell")
    parser.add_argument("--image-seconds", type=float, default=20.0, help="wall-clock limit of an image")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(argv)
    if options.samples < 1 or not options.seconds > 0 or not options.image_seconds > 0:
        parser.error("expected --samples >= 1, --seconds > 0 and --image-seconds > 0")
    try:
        balls = read_balls(options.balls) if options.balls else balls
    except InputError as error:
        parser.error(str(error))
    import torch

    torch.set_num_threads(1)
    cells, begun = list[Cell](), cpu_seconds()
    rows = split(options.methods) or rows
    for cell in table(rows, balls, options.samples, options.seconds, options.image_seconds):
        cells.append(cell)
        print(f"{cell.method} on {cell.net} l{cell.norm:g} {cell.eps:g}: {cell}", file=sys.stderr, flush=True)
    return Measured(rows, balls, cells, options.samples, round(cpu_seconds() - begun), options.json)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the options, measure, print."""
    done = measured("methods", (__doc__ or "").split("\n")[0], methods(), BALLS, argv)
    done.tell(markdown(done.cells, done.balls))


if __name__ == "__main__":
    main()
