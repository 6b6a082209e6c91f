"""Curves: never rising, members at every radius, and no less broken than in single runs."""

from __future__ import annotations

from math import inf

import pytest
import torch

from assay.attacks import curve, get_attack
from assay.verify.core.errors import InputError
from assay.verify.core.region import LpBall
from tests.attacks.attack_models import Counting, mlp, samples

NET = mlp(0)
X = samples(1, 24)
LABELS = NET(X).argmax(1)
LABELS[0] = (LABELS[0] + 1) % 4
RADII = [0.2, 0.0, 0.05, 0.1, 0.05]


@pytest.mark.parametrize(("name", "norm"), [("pgd(steps=10)", inf), ("fgsm", 2), ("fmn", inf), ("ddn", 2), ("fmn", 1)])
def test_curves_fall_from_the_clean_accuracy(name: str, norm: float) -> None:
    attack = get_attack(name)
    result = curve(attack, NET, X, LABELS, RADII, norm, seed=2)
    assert result.epsilons == (0.0, 0.05, 0.1, 0.2)
    assert result.accuracy[0] == pytest.approx(23 / 24)
    assert result.accuracy == sorted(result.accuracy, reverse=True)
    assert result.accuracy[-1] < result.accuracy[0]
    for eps, success, points in zip(result.epsilons, result.success, result.adversarial, strict=True):
        assert bool(LpBall(X, eps, norm, (0.0, 1.0)).contains(points).all())
        wrong = (NET(points).argmax(1) != LABELS) | ~success
        assert bool(wrong.all())
        assert torch.equal(success, result.distance <= eps)
    last = attack.run(NET, X, LABELS, LpBall(X, 0.2, norm, (0.0, 1.0)), seed=2)
    assert not bool((last.success & ~result.success[-1]).any())


def test_a_minimal_attack_runs_once() -> None:
    model = Counting(NET)
    once = curve(get_attack("ddn"), model, X, LABELS, [0.4], 2)
    seen = model.seen
    model.seen = 0
    curve(get_attack("ddn"), model, X, LABELS, [0.1, 0.2, 0.3, 0.4], 2)
    assert model.seen == seen
    assert int(once.queries.sum()) <= seen + len(X)


def test_broken_samples_are_not_attacked_again() -> None:
    model = Counting(NET)
    result = curve(get_attack("pgd(steps=5)"), model, X, LABELS, [50.0, 60.0])
    assert result.accuracy == [0, 0]
    assert model.seen <= int(result.queries.sum()) + len(X)  # each success is replayed by itself


@pytest.mark.parametrize(("radii", "n", "message"), [([], 3, "at least one radius"), ([0.1], 0, "at least one sample")])
def test_nothing_to_do_is_refused(radii: list[float], n: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        curve(get_attack("fgsm"), NET, X[:n], LABELS[:n], radii)
