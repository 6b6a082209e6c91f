"""Lipschitz constants side by side, certified radii against true distances, and a Lipschitz-margin network.

    python -m assay.benchmarks.measure.lipschitz [--part constants|spheres|accuracy] [--nets NAME,...] [--json]

One thread, CPU seconds. ``constants``: for each network of the zoo, of the difference of the two largest logits at its
first test image: the largest gradient found by search in a ball, the local bound over the same ball (the product, if
that is less), LipSDP where the network is small, and the product of sound norms; beside it the product of exact norms
of the layers, by sparse singular value decomposition of the unrolled operators. ``spheres``: mean certified radius, in
l2 and in linf, of every method on concentric spheres, where the true distance is known (smoothing is left out: it
speaks of another classifier). ``accuracy``: certified and attacked accuracy of the Lipschitz-margin networks.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import inf, nan
from typing import Any

import torch
from torch import Tensor

from assay.benchmarks.measure.exact import cpu_seconds
from assay.models import architectures, data, training, zoo
from assay.models.data import Dataset, spheres
from assay.verify.backends.lipschitz.local import local_constants
from assay.verify.backends.lipschitz.product import constants, row_slopes
from assay.verify.backends.lipschitz.reach import Reach
from assay.verify.backends.lipschitz.sdp import lipsdp
from assay.verify.backends.lipschitz.sdp.unrolled import neurons, refusal, unrolled
from assay.verify.bounds import rigorous
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network, to_network
from assay.verify.core.ops import Conv2d, Linear, evaluate
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.result import Verdict
from assay.verify.registry import get_verifier
from assay.verify.support.documents import dump

RADIUS = 0.1  # in l2, of the balls that local constants speak of
SMALL = 200  # inputs and neurons, up to which LipSDP is solved
NETS = ("digits-mlp-standard", "digits-mlp-pgd", "digits-mlp-ibp", "digits-cnn-pgd", "digits-cnn-crown-ibp")
LARGE = ("fashion-mlp-standard", "fashion-mlp-lipschitz", "fashion-cnn-pgd", "fashion-cnn-ibp")


@dataclass(frozen=True)
class Constants:
    """One network: constants in l2 of one row, from below and from above, and seconds; NaN where not computed.

    ``network`` is the sound constant of all outputs together, ``exact`` the product of the layers' exact norms.
    """

    net: str
    gradient: float
    local: float
    lipsdp: float
    product: float
    network: float
    exact: float
    ratio: float
    seconds_local: float
    seconds_lipsdp: float
    seconds_product: float
    ordered: bool


def measure(name: str) -> Constants:
    """All constants of a network of the zoo."""
    card = zoo.card(name)
    network = to_network(zoo.load(name), card.input_shape).to(torch.float64)
    x = data.load(card.data).x[0].double()
    first, second = network(x[None])[0].topk(2).indices.tolist()
    row = torch.zeros(1, network.output_size, dtype=torch.float64)
    row[0, first], row[0, second] = 1.0, -1.0
    ball = LpBall(x, RADIUS, 2, None)
    centre = rigorous.intervals(network, Box(x[None], x[None]))
    budget = Budget().started()
    known, seconds_product = _timed(lambda: constants(network, 2, budget))
    product = row_slopes(network, row, 2, known).upper.item()
    local, seconds_local = _timed(lambda: local_constants(network, Reach.of(ball), row, centre, budget).item())
    local = min(local, product)  # what holds everywhere holds in the ball
    sdp, seconds_sdp = nan, nan
    if not refusal(network) and network.nodes[0].size + neurons(network) <= SMALL:
        sdp, seconds_sdp = _timed(lambda: lipsdp.constant(unrolled(network), row.numpy(), "SCS", budget))
    gradient, exact = steepest(network, ball, row), exact_product(network)
    above = [local, sdp, product] if sdp == sdp else [local, product]
    ordered = gradient <= local and all(a <= b * (1 + 1e-4) for a, b in pairwise(above))
    upper = known[-1].upper
    ratio, spent = upper / exact, [round(s, 3) for s in (seconds_local, seconds_sdp, seconds_product)]
    return Constants(name, gradient, local, sdp, product, upper, exact, ratio, spent[0], spent[1], spent[2], ordered)


def steepest(network: Network, ball: LpBall, row: Tensor, samples: int = 256, rounds: int = 20) -> float:
    """The largest gradient norm of a row that a search finds in a ball: random members, then steps about the best."""
    rng = torch.Generator().manual_seed(0)
    best, at = 0.0, ball.centre
    x = ball.sample(samples, rng).double()
    for turn in range(rounds):
        size = _gradients(network, x, row).flatten(1).norm(dim=1)
        top = int(size.argmax())
        if size[top] > best:
            best, at = size[top].item(), x[top]
        noise = torch.randn((32, *ball.shape), dtype=torch.float64, generator=rng)
        x = ball.project(at + noise / noise.flatten(1).norm(dim=1).amax() * RADIUS * 0.8**turn)
    return best


def _gradients(network: Network, x: Tensor, row: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad((network(x).flatten(1) @ row[0]).sum(), x)
    return gradient


def exact_product(network: Network) -> float:
    """The product of the exact 2-norms of the layers; NaN for a network with branches."""
    if any(node.inputs != (i,) for i, node in enumerate(network.nodes[1:])):
        return nan
    total = 1.0
    for before, node in zip(network.nodes, network.nodes[1:], strict=False):
        if isinstance(node.op, Linear | Conv2d):
            total *= _exact_norm(node.op, before.shape)
    return total


def _exact_norm(op: Linear | Conv2d, shape: tuple[int, ...]) -> float:
    """By sparse singular value decomposition of the operation written out, input by input."""
    from scipy.sparse import csr_array, vstack
    from scipy.sparse.linalg import svds

    if isinstance(op, Linear):
        return float(torch.linalg.matrix_norm(op.weight, 2))
    bias = evaluate(op, torch.zeros(1, *shape, dtype=torch.float64))
    basis = torch.eye(torch.Size(shape).numel(), dtype=torch.float64).view(-1, *shape)
    columns = [csr_array((evaluate(op, part) - bias).flatten(1).numpy()) for part in torch.split(basis, 256)]
    values = svds(vstack(columns), k=1, return_singular_vectors=False, tol=1e-10, random_state=0)
    return float(values[0])


# Spheres.


SPHERES = (
    "lipschitz",
    "lipschitz(scope=local)",
    "lipsdp",
    "lipsdp(rows=together)",
    "sdp",
    "ibp",
    "crown-ibp",
    "crown",
    "alpha-crown",
    "lirpa(method=alpha-CROWN)",
    "lp",
    "lp(tighten=all)",
    "milp",
    "lp-bab",
    "bab",
    "smt",
    "input-split",
)


@dataclass(frozen=True)
class Radii:
    """Mean and largest certified radius of a method on spheres of some dimensions, in a norm, as shares of the true
    distance to the other sphere; ``wrong``: radii that pass it; NaN where the method refuses such balls."""

    method: str
    norm: float
    dimensions: int
    samples: int
    mean: float
    largest: float
    wrong: int
    seconds: float


def on_spheres(dimensions: int, norm: float, methods: Sequence[str], samples: int = 8, steps: int = 7) -> list[Radii]:
    """A network is trained on the spheres; each sample that it gets right, at the nearest point of the other sphere
    too, is certified by every method at the largest radius that bisection finds."""
    model = training_on(spheres.sample(4000, dimensions, "train"))
    test = spheres.sample(samples, dimensions, "test", seed=1)
    network = to_network(model, test.shape)
    there, here = network(spheres.opposite(test.x, norm)), network(test.x.double())
    right = (here.argmax(1) == test.y) & (there.argmax(1) != test.y)
    x, y, true = test.x[right], test.y[right].tolist(), spheres.distance(test.x[right], norm)
    rows = []
    for method in methods:
        begun, radii = cpu_seconds(), torch.full_like(true, nan)
        if get_verifier(method).supports(Problem.robustness(network, x[0], y[0], 0.1, norm, None)) is None:
            radii = torch.tensor(
                [largest(method, network, a, b, float(d), steps, norm) for a, b, d in zip(x, y, true, strict=True)]
            ).double()
        spent, share = (cpu_seconds() - begun) / len(x), radii / true
        wrong = int((share > 1).sum())
        mean, top = share.mean().item(), share.max().item()
        rows.append(Radii(method, norm, dimensions, len(x), mean, top, wrong, round(spent, 4)))
        print(rows[-1], file=sys.stderr)
    return rows


def training_on(dataset: Dataset) -> torch.nn.Module:
    """A network with two hidden layers, trained for l2 margins."""
    plan = training.Training(training.recipe("lipschitz-margin(radius=0.05)"), epochs=20, batch=64, lr=5e-3)
    with training.isolated(0):
        model = architectures.parse("mlp(hidden=24-24)").build(dataset.shape, dataset.classes)
    for _ in plan.run(model, dataset):
        pass
    return model


def largest(
    method: str, network: Network, x: Tensor, label: int, most: float, steps: int, norm: float = 2, seconds: float = 3
) -> float:
    """The largest radius, up to a little above ``most``, at which a method verifies a sample within some seconds, by
    bisection."""
    low, high = 0.0, 1.25 * most
    verifier = get_verifier(method)
    for _ in range(steps):
        middle = (low + high) / 2
        problem = Problem.robustness(network, x, label, middle, norm, None)
        verified = verifier.verify(problem, Budget(seconds)).verdict is Verdict.VERIFIED
        low, high = (middle, high) if verified else (low, middle)
    return low


# Accuracy.


@dataclass(frozen=True)
class Accuracy:
    """Of one network on test images: clean, certified within a ball in l2, and left standing by an attack."""

    net: str
    samples: int
    eps: float
    clean: float
    certified: float
    attacked: float
    seconds: float


def accuracy(name: str, eps: float, samples: int = 500) -> Accuracy:
    """Certified by ``lipschitz``, attacked by PGD."""
    from assay.attacks import get_attack

    card = zoo.card(name)
    test = data.load(card.data).take(samples)
    network = to_network(zoo.load(name), card.input_shape)
    problems = Problem.robustness_many(network, test.x, test.y, eps, 2)
    begun = time.process_time()
    results = get_verifier("lipschitz").verify_many(problems, Budget())  # type: ignore[attr-defined]
    spent = time.process_time() - begun
    certified = sum(r.verdict is Verdict.VERIFIED for r in results) / samples
    broken = get_attack("pgd(steps=50,restarts=2,loss=margin)").search(problems).success
    clean = training.clean_accuracy(zoo.load(name), test)
    left = int((~broken & training.strictly_right(network(test.x.double()), test.y)).sum()) / samples
    return Accuracy(name, samples, eps, clean, certified, left, round(spent, 2))


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.process_time()
    return work(), time.process_time() - begun


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m assay.benchmarks.measure.lipschitz", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--part", choices=("constants", "spheres", "accuracy"))
    parser.add_argument("--nets", default=",".join((*NETS, *LARGE)))
    parser.add_argument("--methods", default="", help="on spheres, in place of all")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    from assay.verify.support.options import split

    known, methods = set(zoo.names()), split(options.methods) or SPHERES
    parts: dict[str, Callable[[], list[Any]]] = {
        "constants": lambda: [measure(name) for name in options.nets.split(",") if name in known],
        "spheres": lambda: [row for d in (2, 8) for p in (2, inf) for row in on_spheres(d, p, methods)],
        "accuracy": lambda: [accuracy(n, eps) for n in sorted(known) if "lipschitz" in n for eps in (0.25, 0.5)],
    }
    tables = {name: [asdict(row) for row in work()] for name, work in parts.items() if options.part in (None, name)}
    if options.json:
        print(dump(tables))
    else:
        _show(tables)


def _show(tables: dict[str, list[dict[str, Any]]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.width = max(console.width, 160)  # elsewhere than on a terminal it would be 80
    for title, rows in tables.items():
        table = Table(*(rows[0] if rows else ()), title=title)
        for row in rows:
            table.add_row(*(f"{v:.5g}" if isinstance(v, float) else str(v) for v in row.values()))
        console.print(table)


if __name__ == "__main__":
    main()
