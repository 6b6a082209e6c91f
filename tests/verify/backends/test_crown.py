"""Tests of verify.backends.crown: closed forms, group sizes, tightness against the truth."""

from __future__ import annotations

import pytest
import torch

from assay.verify.backends.crown import CROWN
from assay.verify.backends.crown_ibp import CROWNIBP
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import chain, to_network
from assay.verify.core.ops import Linear, Relu
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.result import Reason
from assay.verify.core.spec import Spec
from tests import exact, nets
from tests.contract.graphs import eye

D = torch.float64


def test_closed_form() -> None:
    """y = relu(x) - 0.5 x on [-1, 3]: between x - 0.5 x, which is -0.5 at -1, and 0.75 (x + 1) - 0.5 x = 1.5 at 3."""
    network = chain(
        (1,),
        [
            Linear(torch.tensor([[1.0], [0.5], [-0.25]], dtype=D), torch.zeros(3, dtype=D)),
            Relu(),
            Linear(torch.tensor([[1.0, -1.0, 2.0]], dtype=D), torch.zeros(1, dtype=D)),
        ],
    )
    bounds = CROWN().bound(network, Box(torch.tensor([-1.0]), torch.tensor([3.0])), eye(network), Budget())
    true = exact.minimum(network, Box(torch.tensor([-1.0]), torch.tensor([3.0])), torch.ones(1))
    assert true == pytest.approx(0.0, abs=1e-9)
    # h0 >= z, -h1 >= -0.75 (0.5 x + 0.5), h2 >= 0: 0.625 x - 0.375, least at -1.
    assert bounds.lower.item() == pytest.approx(-1.0)


@pytest.mark.parametrize("group", [1, 2, 5, 100])
def test_the_size_of_a_group_changes_nothing(group: int) -> None:
    network = to_network(nets.random_cnn(0), (1, 6, 6))
    xs = torch.rand(7, 1, 6, 6, generator=nets.generator(1))
    region = LpBall(xs, 0.05, float("inf"), (0.0, 1.0))
    bounds = CROWN(group=group).bound(network, region, eye(network), Budget())
    alone = CROWN(group=1).bound(network, region, eye(network), Budget())
    torch.testing.assert_close(bounds.lower, alone.lower, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(bounds.upper, alone.upper, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_bounds_are_mostly_tight_on_small_regions() -> None:
    """Where few neurons are unstable the linear bounds are the truth itself."""
    tight = 0
    for seed in range(20):
        network = to_network(nets.random_mlp(seed, (3, 6, 6, 3)), (3,))
        box = LpBall(torch.rand(3, generator=nets.generator(seed)), 0.01, domain=None).box()
        lower = CROWN().bound(network, box, eye(network), Budget()).lower[0]
        true = [exact.minimum(network, box, row) for row in eye(network)]
        assert all(low <= least + 1e-9 for low, least in zip(lower.tolist(), true, strict=True))
        tight += sum(low > least - 1e-9 for low, least in zip(lower.tolist(), true, strict=True))
    assert tight >= 45


@pytest.mark.parametrize("p", [1, 2])
def test_balls_of_other_norms_are_better_than_their_boxes(p: float) -> None:
    network = to_network(nets.random_mlp(1, (6, 10, 10, 3)), (6,))
    ball = LpBall(torch.full((6,), 0.5), 0.2, p, domain=None)
    tight = CROWN().bound(network, ball, eye(network), Budget())
    loose = CROWN().bound(network, ball.box(), eye(network), Budget())
    assert bool((tight.lower > loose.lower).all())
    inside = network(ball.sample(500).double())
    assert bool((tight.lower[0] <= inside.amin(0)).all())
    assert bool((tight.upper[0] >= inside.amax(0)).all())


def test_a_mixed_list_of_balls_is_answered_as_one_by_one() -> None:
    """Domains and radii differ within one list; l2 balls stay l2 balls."""
    network = to_network(nets.random_mlp(1, (6, 10, 3)), (6,))
    centre = torch.full((6,), 0.5)
    domains = [(0.0, 1.0), None, (torch.zeros(6), torch.ones(6)), (0.0, 0.9)]
    problems = [Problem(network, LpBall(centre, 0.2, 2, domain), Spec.robust(0, 3)) for domain in domains]
    together = [r.margin for r in CROWN().verify_many(problems, Budget())]
    alone = [CROWN().verify(p, Budget()).margin for p in problems]
    assert together == pytest.approx(alone, rel=1e-9)


def test_an_objective_may_be_an_array() -> None:
    network = to_network(nets.random_mlp(0), (4,))
    box = Box(torch.zeros(4), torch.ones(4))
    rows = torch.eye(3, dtype=torch.float64)
    expected = CROWN().bound(network, box, rows, Budget())
    for objective in (rows.numpy(), rows.tolist()):
        assert torch.equal(CROWN().bound(network, box, objective, Budget()).lower, expected.lower)
    with pytest.raises(InputError, match="an objective"):
        CROWN().bound(network, box, "first", Budget())  # type: ignore[arg-type]


def test_layers_that_the_time_does_not_suffice_for_are_told_beside_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question for the time takes a second."""
    network = to_network(nets.random_mlp(0, (4, 20, 20, 20, 3)), (4,))
    problem = Problem(network, LpBall(torch.full((4,), 0.5), 0.5, domain=None), Spec.robust(0, 3))
    least, most = CROWNIBP().verify(problem).margin, CROWN().verify(problem).margin
    assert least is not None
    assert most is not None
    assert least < most
    told = set[tuple[int, ...]]()
    for seconds in range(20, 120, 5):
        asked: list[int] = []

        def now(asked: list[int] = asked) -> float:
            asked.append(1)
            return float(len(asked))

        with monkeypatch.context() as patch:
            patch.setattr("assay.verify.core.budget.time.monotonic", now)
            patch.setattr("assay.verify.bounds.backward.chain.lower_rows", lambda *_: None)  # which is all or nothing
            result = CROWN().verify(problem, Budget(seconds))
        if result.margin is not None and "unrefined" in result.stats:
            assert result.reason is Reason.TIMEOUT
            assert least - 1e-9 <= result.margin <= most + 1e-9
            told.add(tuple(result.stats["unrefined"]))
    assert told
