"""Values that sum up to one: rows of them keep their values, and bounds that know of the sum hold and are tighter."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

from assay.verify.bounds.backward.shares import sums_to_one, without_common
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network, Node, to_network
from assay.verify.core.ops import InverseSumExp
from assay.verify.core.region import Box
from assay.verify.core.verifier import Bounds
from assay.verify.registry import get_bounder
from tests.breadth import seeds
from tests.nets import generator


def values(seed: int, groups: int, count: int, dtype: torch.dtype) -> tuple[Bounds, Tensor]:
    """Boxes about shares, of two domains, and shares within them: (domains x points x groups x count)."""
    random = generator(seed)
    logits = 2 * torch.randn(2, 1, groups, count, generator=random, dtype=torch.float64)
    moved = 0.5 * torch.rand(2, 40, groups, count, generator=random, dtype=torch.float64)
    points = (logits + moved).softmax(-1)
    low, high = points.amin(1).flatten(1), points.amax(1).flatten(1)
    return Bounds(low.to(dtype), high.to(dtype)), points


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@seeds(3, of=30)
def test_rows_keep_their_values(dtype: torch.dtype, seeds: range) -> None:
    for seed in seeds:
        box, points = values(seed, 3, 5, dtype)
        rows = (10 ** torch.randint(-3, 4, (2, 4, 15), generator=generator(seed))) * torch.randn(
            2, 4, 15, generator=generator(seed)
        ).to(dtype)
        rest, common, error = without_common(rows, box, 5, 10)
        for domain in range(2):
            y = [[Fraction(v) for v in point.flatten().tolist()] for point in points[domain, :3]]
            for share in y:  # shares that sum up to one exactly
                for g in range(0, 15, 5):
                    share[g] = 1 - sum(share[g + 1 : g + 5])
            for k in range(4):
                before, after = ([Fraction(a) for a in r[domain, k].tolist()] for r in (rows, rest))
                for share in y:
                    told = sum(a * v for a, v in zip(after, share, strict=True)) + Fraction(common[domain, k].item())
                    true = sum(a * v for a, v in zip(before, share, strict=True))
                    assert abs(told - true) <= Fraction(error[domain, k].item())


@seeds(3, of=30)
def test_what_is_left_is_bounded_as_by_a_linear_program(seeds: range) -> None:
    for seed in seeds:
        box, _ = values(seed, 2, 6, torch.float64)
        rows = torch.randn(2, 3, 12, generator=generator(seed), dtype=torch.float64)
        rest, common, _ = without_common(rows, box, 6, 10)
        told = torch.where(rest > 0, rest * box.lower[:, None], rest * box.upper[:, None]).sum(-1) + common
        sums = np.kron(np.eye(2), np.ones(6))
        for domain, k in np.ndindex(2, 3):
            ends = list(zip(box.lower[domain].tolist(), box.upper[domain].tolist(), strict=True))
            least = linprog(rows[domain, k].numpy(), A_eq=sums, b_eq=np.ones(2), bounds=ends).fun
            assert told[domain, k].item() == pytest.approx(least, abs=1e-9)


def test_numbers_that_are_none_stay_so() -> None:
    rows = torch.tensor([[[torch.nan, 1.0, 2.0]], [[torch.inf, 1.0, 2.0]]], dtype=torch.float64)
    box = Bounds(torch.zeros(2, 3).double(), torch.ones(2, 3).double())
    rest, common, error = without_common(rows, box, 3, 1)
    assert not bool((rest.sum(-1) + common - error).isfinite().any())
    for low, high in ((0.5, 0.6), (0.0, 0.1), (torch.nan, torch.nan)):  # sums that no shares have
        box = Bounds(torch.full((1, 3), low).double(), torch.full((1, 3), high).double())
        rest, common, _ = without_common(torch.ones(1, 1, 3).double() * 3, box, 3, 1)
        assert rest.tolist() == [[[0.0, 0.0, 0.0]]]
        assert common.tolist() == [[3.0]]


class Mixing(nn.Module):
    """A softmax over each of two halves, a layer, and ReLUs behind it, several times."""

    def __init__(self, seed: int, depth: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(depth))
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            shares = (3 * x.unflatten(1, (2, 4))).softmax(-1).flatten(1)
            x = torch.relu(4 * layer(shares)) - x
        scores: Tensor = self.last(x)
        return scores


def mixing(seed: int, depth: int = 2) -> Network:
    network = to_network(Mixing(seed, depth).eval(), (8,))
    assert sum(sums_to_one(node) for node in network.nodes) == depth
    return network


@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown", "crown(dtype=float32)", "alpha-crown"])
@seeds(1, of=3)
def test_bounds_that_know_of_sums_hold_and_are_tighter(method: str, seeds: range) -> None:
    for seed in seeds:
        network = mixing(seed)
        for eps in (0.01, 0.1, 0.5):
            centre = torch.randn(2, 8, generator=generator(seed), dtype=torch.float64)
            box = Box(centre - eps, centre + eps)
            share = torch.rand(400, 2, 8, generator=generator(seed), dtype=torch.float64)
            share[::2] = share[::2].round()
            points = torch.lerp(box.lower, box.upper, share)
            y = network(points.flatten(0, 1)).view(400, 2, 3)
            found = get_bounder(method).bound(network, box, torch.eye(3).double(), Budget(60))
            assert bool(((found.lower <= y) & (y <= found.upper)).all())
            forgetful = get_bounder(method).bound(unaware(network), box, torch.eye(3).double(), Budget(60))
            width, wider = (float((bounds.upper - bounds.lower).mean()) for bounds in (found, forgetful))
            assert width <= wider if method == "ibp" else width < wider  # intervals know of the last layer alone


def unaware(network: Network) -> Network:
    """The same, of values that may sum up to anything."""
    nodes = (Node(InverseSumExp() if sums_to_one(n) else n.op, n.inputs, n.shape) for n in network.nodes)
    return Network(tuple(nodes), dtype=network.dtype)


def test_what_a_mask_leaves_out_does_not_sum_up() -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mask = torch.tensor([True, False, True, False])
            return x.masked_fill(mask, -torch.inf).softmax(-1)

    network = to_network(Masked().eval(), (4,))
    assert not any(sums_to_one(node) for node in network.nodes)
