"""Auto-PGD: its schedule by hand, linear models, targets, and queries."""

from __future__ import annotations

from math import inf

import pytest
import torch
from torch import Tensor

from assay.attacks import get_attack
from assay.attacks.apgd import APGD, APGDCE, APGDT, Halving, checkpoints
from assay.attacks.common.interface import Attack
from assay.attacks.common.iterates import Iterates
from assay.attacks.pgd import PGD
from assay.verify.core.region import Box, LpBall
from tests.attacks.attack_models import Counting, linear, mlp, samples

NET = mlp(0)
X = samples(1, 32)
LABELS = NET(X).argmax(1)


def test_checkpoints_shrink_to_six_hundredths() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == [1]
    assert checkpoints(10) == [3, 5, 6, 7, 8, 9, 10]


def test_the_step_is_halved_by_either_condition_and_not_twice_in_a_row_by_the_second() -> None:
    """Four samples in ten steps: always rising; rising in too few steps; then stuck at the best loss."""
    start = torch.zeros(3, 1)
    iterates = Iterates.of(start, torch.zeros(3), start)
    rule = Halving(iterates.loss, 10, rho=0.75)
    gains = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, 1.0], [1.0, -1.0, -9.0], [1.0, 2.0, 1.0]])
    reviews = []
    for step, gain in enumerate(gains, 1):
        previous, iterates = iterates, iterates.move(iterates.x, iterates.loss + gain, start)
        reviews.append(rule.review(None, step, previous, iterates).tolist())  # type: ignore[arg-type]
    # Checkpoints after steps 3 and 5: 2 of 3 rises are too few, 1 of 2 as well.
    assert reviews[2] == [False, True, False]
    assert reviews[4] == [False, True, True]
    assert rule.size.tolist() == [2.0, 0.5, 1.0]


@pytest.mark.parametrize("p", [inf, 2, 1])
@pytest.mark.parametrize("attack", [APGDCE(steps=20), APGD(steps=20, loss="dlr"), APGDT(steps=20)])
def test_the_exact_optimum_of_a_linear_model(attack: Attack, p: float) -> None:
    """The dual norms of the margin's slope (2, -1, 0.5): samples break where the radius reaches the boundary."""
    model = linear([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]], [0.0, 0.0])
    x, label = torch.tensor([[0.5, 0.25, 0.5]]), torch.tensor([0])
    far = 1.0 / {inf: 3.5, 2: 5.25**0.5, 1: 2.0}[p]
    for factor, broken in ((0.99, False), (1.01, True)):
        assert attack.run(model, x, label, LpBall(x, far * factor, p, domain=None)).success.tolist() == [broken]


def test_targets_find_what_the_nearest_class_hides() -> None:
    """The nearest class at the clean sample stays where it is; only the other one can be reached."""
    model = linear([[0.0, 0.0], [0.0, 0.0], [4.0, 0.0]], [1.0, 0.9, -3.0])
    x, label = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    region = LpBall(x, 0.5, inf, (0.0, 1.0))
    assert not bool(APGDT(steps=5, targets=1).run(model, x, label, region).success)
    assert bool(APGDT(steps=5, targets=2).run(model, x, label, region).success)


@pytest.mark.parametrize("p", [inf, 2, 1])
def test_it_breaks_no_less_than_plain_pgd(p: float) -> None:
    region = LpBall(X, {inf: 0.12, 2: 0.25, 1: 0.4}[p], p, (0.0, 1.0))
    plain = PGD(steps=40).run(NET, X, LABELS, region).success
    assert 0 < int(plain.sum()) < len(X)
    for attack in (APGDCE(steps=40, restarts=2), APGDT(steps=40)):
        broken = attack.run(NET, X, LABELS, region).success
        assert int(broken.sum()) >= int(plain.sum())


def test_queries_are_what_the_model_has_seen() -> None:
    for p, region in ((inf, LpBall(X, 0.2, domain=None)), (1, LpBall(X, 0.5, 1, (0.0, 1.0)))):
        for attack, most in ((APGDCE(steps=10, restarts=2), 22), (APGDT(steps=10), 34)):
            model = Counting(NET)
            result = attack.run(model, X, LABELS, region)
            replayed = int(result.success.sum())  # replayed in a batch of one
            assert int(result.queries.sum()) <= model.seen <= int(result.queries.sum()) + replayed, p
            assert int(result.queries.max()) <= most


def test_the_domain_binds_and_fixed_coordinates_stay() -> None:
    low, high = X - 0.2, X + 0.2
    low[:, ::2] = high[:, ::2] = X[:, ::2]
    for attack in (APGDCE(steps=10), APGDT(steps=10)):
        result = attack.run(NET, X, LABELS, Box(low, high))
        assert torch.equal(result.adversarial[:, ::2], X[:, ::2])
        assert bool(result.success.any())


def test_two_classes_have_a_loss_too() -> None:
    def two(x: Tensor) -> Tensor:
        return torch.cat([x.sum(1, keepdim=True), 0.9 * 6 * x.mean(1, keepdim=True)], 1)

    labels = torch.zeros(len(X), dtype=torch.int64)
    for attack in (APGD(steps=10, loss="dlr"), APGDT(steps=10)):
        assert bool(attack.run(two, X, labels, LpBall(X, 2.0, domain=None)).success.all())


def test_an_empty_batch_gives_an_empty_result() -> None:
    for name in ("apgd", "apgd-ce", "apgd-t", "fab", "fab-t", "square", "autoattack"):
        for p in (inf, 2.0, 1.0):
            result = get_attack(name).run(NET, X[:0], LABELS[:0], LpBall(X[:0], 0.1, p, domain=None))
            assert result.adversarial.shape == (0, 6), name
            assert result.queries.shape == (0,)
