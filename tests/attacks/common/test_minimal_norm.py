"""The laws of minimal-norm attacks: true distances, exact members, and independence of the batch."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from math import inf

import pytest
import torch
from torch import Tensor, nn

from assay.attacks import get_attack
from assay.attacks.common.interface import AttackResult
from assay.attacks.common.minimal_norm import MinimalAttack
from assay.attacks.registry import ATTACKS
from assay.verify.check.replay import replay
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.spec import Spec
from tests.attacks.attack_models import linear, mlp, network, samples
from tests.breadth import few, slow

NET = mlp(0)
X = samples(1, 10)
LABELS = NET(X).argmax(1)


# With fewer steps than by default, so that the tests are quick.
QUICK = {
    "cw": "cw(steps=25)",
    "ddn": "ddn(loss=margin)",
    "fab": "fab(steps=20,restarts=2)",
    "fab-t": "fab-t(steps=20)",
    "hopskipjump": "hopskipjump(steps=15)",
}


def minimal(name: str) -> MinimalAttack:
    attack = get_attack(QUICK.get(name, name))
    assert isinstance(attack, MinimalAttack)
    return attack


CASES = [
    (name, p) for name in ATTACKS if isinstance(attack := get_attack(name), MinimalAttack) for p in attack.minimises
]
# Of each attack one norm, in turn; the others are slow.
OFTEN = [case for i, case in enumerate(CASES) if case[0] != CASES[i - 1][0]]
every_case = pytest.mark.parametrize(("name", "p"), [case if case in OFTEN else slow(*case) for case in CASES])


@cache
def result_of(name: str, p: float, eps: float) -> AttackResult:
    return minimal(name).run(NET, X, LABELS, LpBall(X, eps, p, (0.0, 1.0)), seed=1)


def distance(a: Tensor, b: Tensor, p: float) -> Tensor:
    return torch.linalg.vector_norm((a.double() - b.double()).flatten(1), ord=p, dim=1)


@every_case
def test_success_is_a_member_that_breaks_the_model_alone(name: str, p: float) -> None:
    eps = {1.0: 0.4, 2.0: 0.3, inf: 0.15}[p]
    result = result_of(name, p, eps)
    assert 0 < int(result.success.sum()) < len(X)
    problems = Problem.robustness_many(NET, X, LABELS, eps, p)
    for problem, point, success in zip(problems, result.adversarial, result.success.tolist(), strict=True):
        assert bool(problem.region.contains(point[None]))
        assert replay(problem, point).confirmed or not success
    assert torch.equal(result.success, result.distance <= eps)
    own = distance(result.adversarial, X, p)
    assert torch.equal(result.distance[result.success], own[result.success])


@every_case
def test_distances_do_not_depend_on_the_region(name: str, p: float) -> None:
    near, far = result_of(name, p, 1e-3), result_of(name, p, 6.0)
    assert torch.equal(near.distance, far.distance)
    assert float(far.success.double().mean()) > 0.9
    assert int(near.success.sum()) == 0


@every_case
@pytest.mark.parametrize("i", few([0, 7], quick=[7]))
def test_batch_1_equals_batch_n_and_seeds_repeat(name: str, p: float, i: int) -> None:
    whole = result_of(name, p, 0.3)
    region = LpBall(X, 0.3, p, (0.0, 1.0))
    again = minimal(name).run(NET, X, LABELS, region, seed=1)
    for field in fields(AttackResult):
        assert torch.equal(getattr(whole, field.name), getattr(again, field.name))
    one = minimal(name).run(NET, X[i : i + 1], LABELS[i : i + 1], LpBall(X[i], 0.3, p, (0.0, 1.0)), seed=1)
    assert one.success[0] == whole.success[i]
    assert abs(int(one.queries[0] - whole.queries[i])) <= 4  # replays of points at the boundary
    assert torch.allclose(one.distance[0], whole.distance[i], rtol=1e-3)


@every_case
def test_the_nearest_point_of_a_linear_model(name: str, p: float) -> None:
    """The margin of label 0 is 2 x0 - x1 + 0.5 x2, the distance to its zero that over the dual norm."""
    model = linear([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]], [0.0, 0.0])
    x = torch.tensor([[0.5, 0.25, 0.5], [0.75, 0.5, 0.25]])
    slope = {inf: 3.5, 2.0: 5.25**0.5, 1.0: 2.0}[p]
    margins = torch.tensor([1.0, 1.125], dtype=torch.float64)
    result = minimal(name).run(model, x, torch.tensor([0, 0]), LpBall(x, 1.0, p, (0.0, 1.0)))
    assert bool((result.distance >= margins / slope * (1 - 1e-6)).all())
    assert bool((result.distance <= margins / slope * 1.05).all())


@every_case
def test_the_domain_binds(name: str, p: float) -> None:
    """Coordinate 0 is already at its bound; only coordinate 1 can go on, and has to go 0.5."""
    model = linear([[-9.0, -1.0], [0.0, 0.0]], [9.75, 0.0])
    x = torch.tensor([[1.0, 0.25]])
    result = minimal(name).run(model, x, torch.tensor([0]), LpBall(x, 0.6, p, (0.0, 1.0)))
    assert result.success.tolist() == [True]
    assert 0.5 <= float(result.distance) <= 0.53
    assert bool(((result.adversarial >= 0) & (result.adversarial <= 1)).all())


@every_case
def test_without_a_domain_and_on_one_shared_region(name: str, p: float) -> None:
    if name == "hopskipjump":
        with pytest.raises(UnsupportedError, match="needs a region with a domain"):
            minimal(name).run(NET, X[:1], LABELS[:1], LpBall(X[0], 5.0, p, domain=None))
        return
    result = minimal(name).run(NET, X[:1], LABELS[:1], LpBall(X[0], 5.0, p, domain=None))
    assert result.success.tolist() == [True]


@every_case
def test_misclassified_samples_and_radius_0(name: str, p: float) -> None:
    labels = LABELS.clone()
    labels[:3] = (labels[:3] + 1) % 4
    result = minimal(name).run(NET, X[:6], labels[:6], LpBall(X[:6], 0.0, p, (0.0, 1.0)))
    assert result.success.tolist() == [True] * 3 + [False] * 3
    assert result.distance[:3].tolist() == [0, 0, 0]
    assert bool((result.distance[3:] > 0).all())
    assert torch.equal(result.adversarial, X[:6])


@every_case
def test_an_unbreakable_model_stands_at_infinite_distance(name: str, p: float) -> None:
    model = linear([[0.1, 0.0], [0.0, 0.1]], [1.0, 0.0])
    x = torch.full((2, 2), 0.5)
    result = minimal(name).run(model, x, torch.tensor([0, 0]), LpBall(x, 0.5, p, (0.0, 1.0)))
    assert result.success.tolist() == [False, False]
    assert result.distance.tolist() == [inf, inf]


@every_case
def test_search_agrees_with_run(name: str, p: float) -> None:
    problems = Problem.robustness_many(network(NET, 6), X[:6], LABELS[:6], 0.3, p)
    searched = minimal(name).search(problems, seed=1)
    assert torch.allclose(searched.distance, result_of(name, p, 0.3).distance[:6], rtol=0.1)


@every_case
def test_boxes_and_other_norms_are_refused(name: str, p: float) -> None:
    attack = minimal(name)
    if name in ("fab", "fab-t"):
        pytest.skip("takes boxes too")
    spec = Spec.robust(0, 4)
    with pytest.raises(UnsupportedError, match=f"{name} needs a region that is a ball of"):
        attack.search([Problem(network(NET, 6), Box(torch.zeros(6), torch.ones(6)), spec)])
    for other in {1.0, 2.0, inf} - set(attack.minimises):
        with pytest.raises(UnsupportedError, match=f"{name} needs"):
            attack.run(NET, X, LABELS, LpBall(X, 0.1, other, domain=None))


@every_case
def test_images_and_empty_batches(name: str, p: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 5)).eval()
    x = torch.rand(3, 1, 6, 6)
    labels = model(x).argmax(1)
    result = minimal(name).run(model, x, labels, LpBall(x, 9.0, p, (0.0, 1.0)))
    assert result.adversarial.shape == x.shape
    assert bool(result.success.any())
    empty = minimal(name).run(model, x[:0], labels[:0], LpBall(x[:0], 1.0, p, domain=None))
    assert empty.distance.shape == empty.success.shape == (0,)
