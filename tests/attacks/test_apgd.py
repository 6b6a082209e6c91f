"""Auto-PGD: its schedule by hand, the exact l1 projection, and the laws that every attack obeys."""

from __future__ import annotations

from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from assay.attacks import get_attack
from assay.attacks.apgd import APGD, APGDCE, APGDT, Halving, checkpoints
from assay.attacks.common.interface import Attack
from assay.attacks.common.iterates import Trail
from assay.attacks.common.l1_steps import onto_l1_in_box
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
    trail = Trail.of(start, torch.zeros(3), start)
    pace = Halving(trail.loss, 10, rho=0.75)
    gains = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, 1.0], [1.0, -1.0, -9.0], [1.0, 2.0, 1.0]])
    reviews = []
    for step, gain in enumerate(gains, 1):
        before, trail = trail, trail.move(trail.x, trail.loss + gain, start)
        reviews.append(pace.review(None, step, before, trail).tolist())  # type: ignore[arg-type]
    # Checkpoints after steps 3 and 5: 2 of 3 rises are too few, 1 of 2 as well.
    assert reviews[2] == [False, True, False]
    assert reviews[4] == [False, True, True]
    assert pace.size.tolist() == [2.0, 0.5, 1.0]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 4), st.booleans())
def test_the_projection_onto_ball_and_box_is_the_nearest_point(seed: int, radius: float, rooms: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    step = torch.randn(3, 5, generator=generator, dtype=torch.float64) * 2
    low, high = (torch.rand(3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    low, high = (-low * (low > 0.2), high * (high > 0.2)) if rooms else (torch.full_like(low, -inf), high + inf)
    z = onto_l1_in_box(step, torch.tensor(radius, dtype=torch.float64), low, high)
    assert bool(((low <= z) & (z <= high)).all())
    assert bool((z.abs().sum(1) <= radius + 1e-9).all())
    # The variational inequality of projections: no feasible direction makes an acute angle with the residue.
    for _ in range(20):
        other = torch.rand(3, 5, generator=generator, dtype=torch.float64) * 2 - 1
        other = other.clamp(min=-1, max=1).maximum(low).minimum(high)
        other = other * (radius / other.abs().sum(1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
        assert bool((((step - z) * (other - z)).sum(1) <= 1e-9).all())


@pytest.mark.parametrize("p", [inf, 2, 1])
@pytest.mark.parametrize("attack", [APGDCE(steps=20), APGD(steps=20, loss="dlr"), APGDT(steps=20)])
def test_the_exact_optimum_of_a_linear_model(attack: Attack, p: float) -> None:
    """The dual norms of the margin's slope (2, -1, 0.5): a sample falls exactly where the radius reaches the plane."""
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
        found = attack.run(NET, X, LABELS, region).success
        assert int(found.sum()) >= int(plain.sum())


def test_queries_are_what_the_model_has_seen() -> None:
    for p, region in ((inf, LpBall(X, 0.2, domain=None)), (1, LpBall(X, 0.5, 1, (0.0, 1.0)))):
        for attack, most in ((APGDCE(steps=10, restarts=2), 22), (APGDT(steps=10), 34)):
            model = Counting(NET)
            found = attack.run(model, X, LABELS, region)
            alone = int(found.success.sum())  # replayed in a batch of one
            assert int(found.queries.sum()) <= model.seen <= int(found.queries.sum()) + alone, p
            assert int(found.queries.max()) <= most


def test_the_domain_binds_and_fixed_coordinates_stay() -> None:
    low, high = X - 0.2, X + 0.2
    low[:, ::2] = high[:, ::2] = X[:, ::2]
    for attack in (APGDCE(steps=10), APGDT(steps=10)):
        found = attack.run(NET, X, LABELS, Box(low, high))
        assert torch.equal(found.adversarial[:, ::2], X[:, ::2])
        assert bool(found.success.any())


def test_two_classes_have_a_loss_too() -> None:
    def two(x: Tensor) -> Tensor:
        return torch.cat([x.sum(1, keepdim=True), 0.9 * 6 * x.mean(1, keepdim=True)], 1)

    labels = torch.zeros(len(X), dtype=torch.int64)
    for attack in (APGD(steps=10, loss="dlr"), APGDT(steps=10)):
        assert bool(attack.run(two, X, labels, LpBall(X, 2.0, domain=None)).success.all())


def test_an_empty_batch_gives_an_empty_result() -> None:
    for name in ("apgd", "apgd-ce", "apgd-t", "fab", "fab-t", "square", "autoattack"):
        for p in (inf, 2.0, 1.0):
            found = get_attack(name).run(NET, X[:0], LABELS[:0], LpBall(X[:0], 0.1, p, domain=None))
            assert found.adversarial.shape == (0, 6), name
            assert found.queries.shape == (0,)
