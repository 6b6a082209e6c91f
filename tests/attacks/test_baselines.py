"""Random points and grids: where they look, how often, and what they refuse."""

from __future__ import annotations

from math import inf

import pytest
import torch

from assay.attacks.baselines import Grid, Random
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.spec import Spec
from tests.attacks.attack_models import Counting, linear, mlp, network, samples

# Label 0 is wrong only where x0 + x1 >= 1.9: a corner of the unit square.
CORNER = linear([[-1.0, -1.0], [0.0, 0.0]], [1.9, 0.0])
X = torch.full((2, 2), 0.5)
LABELS = torch.zeros(2, dtype=torch.int64)


def test_a_grid_has_the_corners() -> None:
    result = Grid(points=4).run(CORNER, X, LABELS, LpBall(X, 0.5, domain=None))
    assert result.success.tolist() == [True, True]
    assert result.adversarial.tolist() == [[1, 1], [1, 1]]


def test_a_grid_sees_every_cell_and_the_free_inputs_only() -> None:
    inside = linear([[0.0, -8.0], [0.0, 0.0]], [4.0, 0.0])  # wrong from x1 = 0.5
    box = Box(torch.tensor([0.3, 0.0]), torch.tensor([0.3, 0.7]))
    problem = Problem(network(inside, 2), box, Spec.robust(0, 2))
    result = Grid(points=8).search([problem])
    assert result.success.tolist() == [True]
    assert result.adversarial[0].tolist() == pytest.approx([0.3, 0.5])


def test_a_grid_of_too_many_inputs_is_unsupported() -> None:
    x = samples(0, 2, 6)
    with pytest.raises(UnsupportedError, match="at least 2\\^6 points for 6 free inputs, and has 63"):
        Grid(points=63).run(mlp(0), x, mlp(0)(x).argmax(1), LpBall(x, 0.01, domain=None))


def test_random_points_find_a_half_and_stop() -> None:
    half = linear([[-1.0, 0.0], [0.0, 0.0]], [0.55, 0.0])
    model = Counting(half)
    result = Random(points=64).run(model, X, LABELS, LpBall(X, 0.5, domain=None), seed=3)
    assert result.success.tolist() == [True, True]
    assert int(result.queries.max()) < 20
    never = Random(points=16).run(linear([[0.0, 0.0], [0.0, 0.0]], [1.0, 0.0]), X, LABELS, LpBall(X, 0.5, domain=None))
    assert never.queries.tolist() == [17, 17]


@pytest.mark.parametrize("p", [inf, 2, 1])
def test_more_points_break_as_many_or_more(p: float) -> None:
    net, x = mlp(0), samples(1, 32)
    labels = net(x).argmax(1)
    counts = [
        int(Random(points=n).run(net, x, labels, LpBall(x, 0.3, p, domain=None)).success.sum()) for n in (4, 32, 128)
    ]
    assert counts == sorted(counts)
    assert counts[-1] > 0
