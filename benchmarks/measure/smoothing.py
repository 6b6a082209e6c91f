"""What smoothing costs: throughput beside the bare forward pass, and draws that tests of a radius take.

    python -m assay.benchmarks.measure.smoothing [--model zoo:fashion-cnn-smooth-0.25] [--data fashion-mnist]
        [--sigma 0.25][--samples 200] [--radii 0.25,0.5,0.75] [--repeats 61] [--simulate 400] [--json]

One thread. Throughput: the process's CPU seconds for blocks of draws (noise, network, counts) beside those of the
network alone on batches of the same size, in turns, medians. Draws: each test decides "radius > r" for the samples, on
their real answers; fixed n makes 100,000 each time. Validity: the same tests on coins whose probability is exactly the
one that r asks for, which they may exceed in a share alpha of the runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, Any, Literal

from assay.benchmarks.measure.turns import in_turns

if TYPE_CHECKING:
    import numpy as np

    from assay.models.data import Dataset
    from assay.verify.backends.smoothing.method import Smoothing
    from assay.verify.core.network import Network

EARLY: tuple[Literal["staged", "anytime"], ...] = ("staged", "anytime")
WRONG = 0.05  # alpha of the simulation: at .001 there would be nothing to see


@dataclass(frozen=True)
class Throughput:
    """CPU microseconds a draw, of the network alone, and of everything."""

    block: int
    bare: float
    all: float

    @property
    def share(self) -> float:
        """Our throughput as a share of the network's."""
        return self.bare / self.all


@dataclass(frozen=True)
class Draws:
    """What one test of one radius took on average, also as a share of fixed n, and how many samples it certified."""

    test: str
    radius: float
    mean: float
    share: float
    certified: int
    samples: int


@dataclass(frozen=True)
class Validity:
    """How often a test said more than the truth, and how often it may, three standard errors included."""

    test: str
    p: float
    overshoots: float
    allowed: float


def throughput(network: Network, data: Dataset, sigma: float, repeats: int) -> Throughput:
    """Draws against forward passes, in turns."""
    import torch

    from assay.verify.backends.smoothing.noises import Gaussian
    from assay.verify.backends.smoothing.sampling import BLOCK, Stream

    model = network.oracle or network
    stream = Stream(model, Gaussian(sigma), data.x[0], network.output_size, 0, "benchmark")
    batch = data.x[0] + sigma * torch.randn(BLOCK, *data.shape)
    blocks = 10

    def bare() -> None:
        with torch.inference_mode():
            for _ in range(blocks):
                model(batch)

    seconds = in_turns(bare, lambda: stream.take(blocks * BLOCK), repeats)
    return Throughput(BLOCK, *(1e6 * spent / (blocks * BLOCK) for spent in seconds))


def draws(network: Network, data: Dataset, method: Smoothing, radii: list[float], samples: int) -> list[Draws]:
    """What the early tests take on the first samples of the data, at each radius."""
    from assay.verify.core.problem import Problem

    picked = data.take(samples)
    problems = Problem.robustness_many(network, picked.x, picked.y, 0.0, 2, picked.domain)
    rows = []
    for radius in radii:
        for test in EARLY:
            tested = [replace(method, test=test).certify(p, 2, seed=0, eps=radius) for p in problems]
            mean = statistics.fmean(one.outcome.n for one in tested)
            certified = sum(one.radius > radius for one in tested)
            rows.append(Draws(test, radius, mean, mean / method.n, certified, samples))
    return rows


def validity(sigma: float, radii: list[float], runs: int) -> list[Validity]:
    """The three tests on coins of exactly the probability that each radius asks for."""
    import numpy as np

    from assay.verify.backends.smoothing import deciding
    from assay.verify.backends.smoothing.ledger import Ledger
    from assay.verify.backends.smoothing.noises import Gaussian
    from assay.verify.backends.smoothing.vote import probability_for

    n, allowed = 10_000, WRONG + 3 * sqrt(WRONG * (1 - WRONG) / runs)
    rows = []
    for radius in radii:
        p = probability_for(Gaussian(sigma), 2, 1, radius)
        tests: dict[str, Callable[[Any, Ledger], deciding.Outcome]] = {
            "fixed": lambda coin, ledger: deciding.fixed(coin, 0, n, ledger),
            "staged": lambda coin, ledger, p=p: deciding.staged(coin, 0, p, deciding.stages_of(n), ledger),  # type: ignore[misc]
            "anytime": lambda coin, ledger, p=p: deciding.watched(coin, 0, p, n, ledger),  # type: ignore[misc]
        }
        for name, test in tests.items():
            random = np.random.default_rng(0)
            over = sum(test(Coin(p, random), Ledger(WRONG)).lower > p for _ in range(runs))
            rows.append(Validity(name, p, over / runs, allowed))
    return rows


@dataclass
class Coin:
    """Answers of a known probability, as a stream of votes."""

    p: float
    random: np.random.Generator
    classes: int = 1

    def take(self, n: int) -> list[int]:
        """Heads, tails."""
        heads = int(self.random.binomial(n, self.p))
        return [heads, n - heads]


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m assay.benchmarks.measure.smoothing", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--model", default="zoo:fashion-cnn-smooth-0.25")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--sigma", type=float, default=0.25)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--radii", default="0.25,0.5,0.75")
    parser.add_argument("--repeats", type=int, default=61)
    parser.add_argument("--simulate", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    import torch

    from assay.models import data as datasets
    from assay.models.resolve import resolve
    from assay.verify.backends.smoothing.method import Smoothing
    from assay.verify.core.network import to_network

    torch.set_num_threads(1)
    data = datasets.load(options.data)
    network = to_network(resolve(options.model).module, data.shape)
    radii = [float(part) for part in options.radii.split(",")]
    speed = throughput(network, data, options.sigma, options.repeats)
    line = f"a draw {speed.all:.1f} us, the bare pass {speed.bare:.1f} us: {speed.share:.3f} of its throughput"
    print(f"{line} (blocks of {speed.block})", file=sys.stderr)
    valid = validity(options.sigma, radii, options.simulate)
    for item in valid:
        print(
            f"{item.test}, p {item.p:.4f}: over in {item.overshoots:.3f}, allowed {item.allowed:.3f}", file=sys.stderr
        )
    taken = draws(network, data, Smoothing(sigma=options.sigma), radii, options.samples) if options.samples else []
    for row in taken:
        print(
            f"{row.test}, radius {row.radius:g}: {row.mean:.0f} draws on average, {row.share:.3f} of fixed n; "
            f"certified {row.certified} of {row.samples}",
            file=sys.stderr,
        )
    if options.json:
        document = {"throughput": {**asdict(speed), "share": speed.share}, "draws": [asdict(row) for row in taken]}
        print(json.dumps({**document, "validity": [asdict(row) for row in valid], "torch": torch.__version__}))


if __name__ == "__main__":
    main()
