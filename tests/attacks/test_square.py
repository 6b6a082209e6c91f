"""Square attack: its schedule and moves by hand, and that it needs no gradient."""

from __future__ import annotations

from math import inf

import pytest
import torch
from torch import Tensor

from assay.attacks.common.losses import Misclassify
from assay.attacks.common.task import Task
from assay.attacks.square import Canvas, Corners, Square, area_at, bump, two_bumps
from assay.verify.core.region import Box, LpBall
from tests.attacks.attack_models import Counting, linear, mlp, samples

NET = mlp(0)
X = samples(1, 32)
LABELS = NET(X).argmax(1)


def test_squares_shrink_at_the_published_queries() -> None:
    ends = [query for query in range(1, 10000) if area_at(query, 10000, 0.8) < area_at(query - 1, 10000, 0.8)]
    assert ends == [11, 51, 201, 1001, 2001, 4001, 6001, 8001]
    assert area_at(9999, 10000, 0.8) == 0.8 / 256


def test_bumps_by_hand() -> None:
    one, two = 1 / 4, 1 / 4 + 1
    assert bump(3, 3).tolist() == [[one, one, one], [one, two, one], [one, one, one]]
    assert two_bumps(2, 2).tolist() == [[*bump(2, 1)[0].tolist(), -float(bump(2, 1)[0])], [1.25, -1.25]]
    assert two_bumps(1, 1).tolist() == [[1.0]]


@pytest.mark.parametrize("shape", [(6,), (5, 4), (2, 5, 4)])
def test_a_proposal_moves_one_window_to_the_bounds_of_the_box(shape: tuple[int, ...]) -> None:
    x = torch.full((50, *shape), 0.5)
    job = Task.of(
        lambda x: x.flatten(1),
        x,
        LpBall(x, 0.25, domain=None),
        Misclassify.of(torch.zeros(50, dtype=torch.int64), "ce"),
    )
    moves = Corners(job)
    size = Canvas.of(x).side(0.2)
    u = torch.rand(50, moves.draws, generator=torch.Generator().manual_seed(0))
    image = Canvas.of(x).view(moves.propose(job, x, u, size))
    moved = image != 0.5
    assert set(image[moved].tolist()) == {0.25, 0.75}
    channels = Canvas.of(x).channels
    assert (moved.flatten(1).sum(1) == size[0] * size[1] * channels).all()
    assert moved.any(0).all()  # every place is reached
    if len(shape) > 1:  # one bound for a whole window of a channel; a vector's coordinates draw for themselves
        shift = image - 0.5
        assert torch.equal(shift.sum((2, 3)).abs(), shift.abs().sum((2, 3)))


@pytest.mark.parametrize(("p", "eps"), [(inf, 0.15), (2, 0.3), (1, 0.5)])
def test_it_finds_what_it_looks_for_without_a_gradient(p: float, eps: float) -> None:
    @torch.no_grad()
    def closed(x: Tensor) -> Tensor:
        return NET(x)

    region = LpBall(X, eps, p, (0.0, 1.0))
    few, many = (Square(queries=n).run(closed, X, LABELS, region) for n in (5, 300))
    assert int(few.success.sum()) <= int(many.success.sum()) < len(X)
    assert int(many.success.sum()) > 0
    assert bool(region.contains(many.adversarial).all())
    assert int(many.queries.max()) == 301


def test_the_exact_optimum_of_a_linear_model_is_a_corner() -> None:
    model = linear([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]], [0.0, 0.0])
    x = torch.tensor([[0.5, 0.25, 0.5]])
    for factor, broken in ((0.999, False), (1.001, True)):
        result = Square(queries=60).run(model, x, torch.tensor([0]), LpBall(x, factor / 3.5, domain=None))
        assert result.success.tolist() == [broken]


def test_broken_samples_cost_no_more_queries() -> None:
    model = Counting(NET)
    result = Square(queries=50).run(model, X, LABELS, LpBall(X, 0.1, domain=None))
    assert 0 < int(result.success.sum()) < len(X)
    assert model.seen == int(result.queries.sum()) + int(result.success.sum())  # each replayed by itself
    assert result.queries[~result.success].eq(51).all()


def test_fixed_coordinates_stay() -> None:
    low, high = X - 0.2, X + 0.2
    low[:, ::2] = high[:, ::2] = X[:, ::2]
    result = Square(queries=50).run(NET, X, LABELS, Box(low, high))
    assert torch.equal(result.adversarial[:, ::2], X[:, ::2])
    assert bool(result.success.any())
