"""The networks of the zoo: 10,000 pairs each against the sound constants, and radii against exact distances."""

from __future__ import annotations

from math import inf

import pytest
import torch

from assay.attacks import get_attack
from assay.models import zoo
from assay.models.data import load
from assay.verify.backends.lipschitz.local import local_constants
from assay.verify.backends.lipschitz.product import constants, row_slopes
from assay.verify.backends.lipschitz.reach import Reach
from assay.verify.bounds import rigorous
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network, to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.result import Result, Verdict
from assay.verify.registry import get_verifier
from tests import nets
from tests.breadth import few

NAMES = (
    "digits-mlp-standard",
    "digits-mlp-pgd",
    "digits-mlp-ibp",
    "digits-cnn-pgd",
    "digits-cnn-crown-ibp",
    "fashion-mlp-lipschitz",
)


QUICK = ("digits-mlp-pgd", "digits-cnn-pgd", "fashion-mlp-lipschitz")  # dense, convolutional, of other data


def read(name: str) -> Network:
    return to_network(zoo.load(name), zoo.card(name).input_shape)


@pytest.mark.parametrize("name", few(NAMES, quick=QUICK))
def test_sampled_slopes_never_exceed_the_sound_constants(name: str) -> None:
    """Pairs from a thousandth of the domain apart to all of it, along random and along axis-parallel steps."""
    network, pairs = read(name), 10_000
    rng = nets.generator(0)
    x, step = torch.rand(2, pairs, *network.input_shape, dtype=torch.float64, generator=rng)
    step = 2 * step - 1
    step[::2] = step[::2].sign()  # corners of linf balls, which linf slopes are largest along
    step *= torch.logspace(-3, 0, pairs, dtype=torch.float64).view(-1, *[1] * (x.dim() - 1))
    with torch.no_grad():
        ends = ((network(part.float().double()) for part in side.split(500)) for side in (x + step, x))
        rise = torch.cat([(a - b).flatten(1) for a, b in zip(*ends, strict=True)])
    moved = ((x + step).float().double() - x.float().double()).flatten(1)
    for p in (1, 2, inf):
        constant = constants(network.to(torch.float64), p, Budget())[-1]
        slopes = rise.norm(p=p, dim=1) / moved.norm(p=p, dim=1)
        assert slopes.max().item() <= constant.upper * (1 + 1e-9)


@pytest.mark.parametrize("sample", few([0, 2, 3], quick=[0]))
def test_certified_radii_are_below_the_exact_distances(sample: int) -> None:
    """An exact method finds nothing within the certified radius in linf, and something farther out."""
    data, network = load("digits"), read("digits-mlp-pgd")

    def asked(method: str, eps: float) -> Result:
        x, label = data.x[sample], int(data.y[sample])
        return get_verifier(method).verify(Problem.robustness(network, x, label, eps), Budget(seconds=60))

    certified = [asked(name, 0.001).stats["radius"] for name in ("lipschitz", "lipschitz(scope=local,steps=8)")]
    assert 0 < certified[0] <= certified[1]
    assert asked("milp", certified[1]).verdict is Verdict.VERIFIED
    assert asked("milp", 0.4).verdict is Verdict.FALSIFIED


@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize("name", few(["digits-mlp-standard", *QUICK], quick=["digits-cnn-pgd"]))
def test_sampled_slopes_never_exceed_the_local_constants(name: str, p: float) -> None:
    """Pairs within one ball, close and far, of the row that separates the two largest outputs."""
    network, x = read(name).to(torch.float64), load(zoo.card(name).data).x[0].double()
    first, second = network(x[None])[0].topk(2).indices.tolist()
    row = torch.zeros(1, network.output_size, dtype=torch.float64)
    row[0, first], row[0, second] = 1.0, -1.0
    ball = LpBall(x, {1: 0.5, 2: 0.1, inf: 0.02}[p], p, None)
    values = rigorous.intervals(network, Box(x[None], x[None]))
    upper = local_constants(network, Reach.of(ball), row, values, Budget()).item()
    one, other = (ball.sample(10_000, nets.generator(seed)).double() for seed in (0, 1))
    share = torch.logspace(-3, 0, 10_000, dtype=torch.float64).view(-1, *[1] * x.dim())
    other = one + share * (other - one)  # balls are convex
    with torch.no_grad():
        rise = ((network(one) - network(other)) @ row[0]).abs()
    assert (rise / (one - other).flatten(1).norm(p=p, dim=1)).max().item() <= upper * (1 + 1e-6)
    everywhere = row_slopes(network, row, p, constants(network, p, Budget())).upper.item()
    assert upper <= everywhere * (1 + 1e-9) or p != 2


@pytest.mark.parametrize("name", few(QUICK, quick=["digits-mlp-pgd"]))
@pytest.mark.parametrize("p", [2, inf])
def test_certified_radii_are_below_the_distances_that_attacks_find(name: str, p: float) -> None:
    test, network = load(zoo.card(name).data).take(4), read(name)
    reach = {2: 4.0, inf: 1.0}[p]
    attacked = get_attack("fmn(steps=60)").run(network, test.x, test.y, LpBall(test.x, reach, p, domain=None))
    assert int(attacked.success.sum()) >= 3
    for problem, far in zip(Problem.robustness_many(network, test.x, test.y, 0.02, p), attacked.distance, strict=True):
        for method in ("lipschitz", "lipschitz(scope=local,steps=2)"):
            assert get_verifier(method).verify(problem, Budget()).stats["radius"] <= far.item() * (1 + 1e-5)
