"""The networks of the zoo: 10,000 pairs each against the sound constants, and radii against exact distances."""

from __future__ import annotations

from math import inf

import pytest
import torch

from models import zoo
from models.data import load
from tests import nets
from verify.backends.lipschitz.product import constants
from verify.core.budget import Budget
from verify.core.network import Network, to_network
from verify.core.problem import Problem
from verify.core.result import Result, Verdict
from verify.registry import get_verifier

NAMES = (
    "digits-mlp-standard",
    "digits-mlp-pgd",
    "digits-mlp-ibp",
    "digits-cnn-pgd",
    "digits-cnn-crown-ibp",
    "fashion-mlp-lipschitz",
)


def read(name: str) -> Network:
    return to_network(zoo.load(name), zoo.card(name).input_shape)


@pytest.mark.parametrize("name", NAMES)
def test_sampled_slopes_never_exceed_the_sound_constants(name: str) -> None:
    """Pairs from a thousandth of the domain apart to all of it, along random and along axis-parallel steps."""
    network, pairs = read(name), 10_000
    rng = nets.generator(0)
    x, step = torch.rand(2, pairs, *network.input_shape, dtype=torch.float64, generator=rng)
    step = 2 * step - 1
    step[::2] = step[::2].sign()  # corners of linf balls, which linf slopes are largest along
    step *= torch.logspace(-3, 0, pairs, dtype=torch.float64).view(-1, *[1] * (x.dim() - 1))
    with torch.no_grad():
        rise = (network((x + step).float().double()) - network(x.float().double())).flatten(1)
    moved = ((x + step).float().double() - x.float().double()).flatten(1)
    for p in (1, 2, inf):
        found = constants(network.to(torch.float64), p, Budget())[-1]
        slopes = rise.norm(p=p, dim=1) / moved.norm(p=p, dim=1)
        assert slopes.max().item() <= found.upper * (1 + 1e-9)


@pytest.mark.parametrize("sample", [0, 2, 3])
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
