"""The laws that every registered attack obeys."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from math import inf

import pytest
import torch

from assay.attacks import get_attack
from assay.attacks.common.interface import Attack, AttackResult, draws
from assay.attacks.registry import ATTACKS
from assay.verify.check.replay import replay
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, Intersection, LpBall, Region, around
from tests.attacks.attack_models import linear, mlp, network, samples
from tests.breadth import few

NET = mlp(0)
X = samples(1, 8)
LABELS = NET(X).argmax(1)
EPS = {1.0: 0.4, 2.0: 0.3, inf: 0.15, 0.0: 2.0}

# With fewer queries than by default, so that the tests are quick.
QUICK = {
    "apgd": "apgd(steps=20)",
    "apgd-ce": "apgd-ce(steps=20)",
    "ddn": "ddn(steps=40)",
    "deepfool": "deepfool(steps=20)",
    "fmn": "fmn(steps=40)",
    "pgd": "pgd(steps=20)",
    "random": "random(points=50)",
    "apgd-t": "apgd-t(steps=20)",
    "autoattack": "autoattack(steps=10,queries=50)",
    "cw": "cw(steps=20)",
    "fab": "fab(steps=20,restarts=2)",
    "fab-t": "fab-t(steps=20)",
    "cw-l0": "cw-l0(rounds=10,steps=10)",
    "ead": "ead(steps=20)",
    "grid": "grid(points=128)",
    "hopskipjump": "hopskipjump(steps=4,probes=20)",
    "pgd-eot": "pgd-eot(draws=2,steps=10)",
    "sparse-rs": "sparse-rs(queries=100)",
    "square": "square(queries=100)",
}
# One of each kind; the others are slow.
OFTEN = ["apgd", "deepfool", "fgsm", "fmn", "hopskipjump", "mi-fgsm", "pgd", "sparse-rs"]
every_attack = pytest.mark.parametrize("name", few(ATTACKS, quick=OFTEN))


@cache
def quick(name: str) -> Attack:
    try:
        return get_attack(QUICK.get(name, name))
    except Exception:
        return get_attack(name)


def regions(x: torch.Tensor, eps: dict[float, float]) -> list[Region]:
    balls: list[Region] = [around(x, eps[p], p) for p in (inf, 2.0, 1.0, 0.0)]
    both = Intersection.of(x, {inf: eps[inf], 2.0: eps[2.0]})
    return [*balls, both, Box((x - eps[inf]).clamp(min=0), (x + eps[inf]).clamp(max=1))]


def attempts(
    name: str, x: torch.Tensor, labels: torch.Tensor, eps: dict[float, float]
) -> list[tuple[Region, AttackResult]]:
    """What the attack finds in every kind of region that it supports, x and the model left alone."""
    attempted, before = [], x.clone()
    for region in regions(x, eps):
        try:
            attempted.append((region, quick(name).run(NET, x, labels, region, seed=3)))
        except UnsupportedError:
            continue
    assert attempted
    assert torch.equal(x, before)
    assert all(p.grad is None for p in NET.parameters())
    return attempted


@cache
def results(name: str) -> list[tuple[Region, AttackResult]]:
    return attempts(name, X, LABELS, EPS)


@every_attack
def test_an_attack_that_says_it_draws_nothing_finds_the_same_with_another_seed(name: str) -> None:
    attack = quick(name)
    if draws(attack):
        return
    for region, result in results(name):
        again = attack.run(NET, X, LABELS, region, seed=4)
        for part in fields(AttackResult):
            assert torch.equal(getattr(again, part.name), getattr(result, part.name)), part.name


@pytest.mark.parametrize(
    ("text", "random"),
    [
        ("fgsm", False),
        ("cw", False),
        ("pgd", False),
        ("pgd(restarts=2)", True),
        ("pgd(random_start=true)", True),
        ("apgd", False),
        ("apgd-t(restarts=2)", True),
        ("fab", False),
        ("square", True),
        ("pgd-eot", True),
        ("autoattack", True),
    ],
)
def test_which_attacks_draw_at_random(text: str, random: bool) -> None:
    assert draws(get_attack(text)) is random


@every_attack
def test_points_are_members_and_successes_replay(name: str) -> None:
    broken = 0
    for region, result in results(name):
        assert bool(region.contains(result.adversarial).all())
        assert result.adversarial.dtype is X.dtype
        broken += int(result.success.sum())
        for i in result.success.nonzero()[:, 0].tolist():
            with torch.no_grad():
                y = NET(result.adversarial[i : i + 1])[0]
            label = int(LABELS[i])
            assert float(y[label]) <= float(y[torch.arange(4) != label].max())
    assert broken > 0


@every_attack
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    if not draws(quick(name)):
        return  # every seed does
    for (_, first), (_, again) in zip(results(name), attempts(name, X, LABELS, EPS), strict=True):
        for field in fields(AttackResult):
            assert torch.equal(getattr(first, field.name), getattr(again, field.name)), field.name


@every_attack
@pytest.mark.parametrize("i", few([0, 5], quick=[5]))
def test_batch_1_gives_the_verdicts_of_batch_n(name: str, i: int) -> None:
    alone = attempts(name, X[i : i + 1], LABELS[i : i + 1], EPS)
    for (_, whole), (_, one) in zip(results(name), alone, strict=True):
        assert one.success[0] == whole.success[i]


@every_attack
def test_a_radius_of_zero_gives_the_clean_accuracy(name: str) -> None:
    x, labels = X[:4], LABELS[:4].clone()
    labels[::3] = (labels[::3] + 1) % 4
    for _, result in attempts(name, x, labels, dict.fromkeys(EPS, 0.0)):
        assert torch.equal(result.success, labels != LABELS[:4])
        assert torch.equal(result.adversarial, x)
        assert bool((result.distance[result.success] == 0).all())


@every_attack
def test_no_certified_sample_is_broken(name: str) -> None:
    """The margin of label 0 is at least 1 - 4 eps over the ball of radius eps."""
    model = linear([[2.0, -2.0], [0.0, 0.0], [0.0, 0.0]], [1.0, 0.0, 0.0])
    x = torch.full((3, 2), 0.5)
    for region in (LpBall(x, 0.249, p, (0.0, 1.0)) for p in (inf, 2, 1)):
        try:
            result = quick(name).run(model, x, torch.zeros(3, dtype=torch.int64), region)
        except UnsupportedError:
            continue
        assert not bool(result.success.any())
    near = linear([[0.4, -0.4], [0.0, 0.0], [0.0, 0.0]], [1.0, 0.0, 0.0])  # one pixel is worth 0.2
    try:
        result = quick(name).run(near, x, torch.zeros(3, dtype=torch.int64), around(x, 1, 0))
    except UnsupportedError:
        return
    assert not bool(result.success.any())


@every_attack
def test_specifications_are_attacked_and_what_is_found_is_a_counterexample(name: str) -> None:
    broken = 0
    for p, eps in EPS.items():
        problems = Problem.robustness_many(network(NET, 6), X, LABELS, eps, p)
        try:
            result = quick(name).search(problems, seed=1)
        except UnsupportedError:
            continue
        for problem, point, success in zip(problems, result.adversarial, result.success.tolist(), strict=True):
            assert bool(problem.region.contains(point[None]))
            assert not success or not replay(problem, point).alarm
        broken += int(result.success.sum())
    assert broken > 0
