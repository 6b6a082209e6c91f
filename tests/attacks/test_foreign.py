"""Other libraries' attacks behind our interface: members, replayed, seeded. Skipped where a library is not here."""

from __future__ import annotations

from importlib.util import find_spec
from math import inf

import pytest
import torch

from assay.attacks import get_attack
from assay.attacks.common.interface import Attack
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.spec import Spec
from tests.attacks.attack_models import mlp, network, samples

NET = mlp(0)
X = samples(1, 16)
LABELS = NET(X).argmax(1)

CASES = [
    ("foolbox:LinfPGD(steps=10)", inf),
    ("foolbox:L2DeepFoolAttack", 2),
    ("torchattacks:PGD(steps=10)", inf),
    ("torchattacks:DeepFool(steps=10)", 2),
    ("art:ProjectedGradientDescent(max_iter=10)", inf),
]
every_case = pytest.mark.parametrize(("text", "p"), CASES)


def attack(text: str) -> Attack:
    library = text.partition(":")[0]
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    return get_attack(text)


@every_case
def test_points_are_members_that_break_the_model(text: str, p: float) -> None:
    method = attack(text)
    region = LpBall(X, {inf: 0.15, 2: 0.4}[p], p, (0.0, 1.0))
    result = method.run(NET, X, LABELS, region, seed=1)
    assert 0 < int(result.success.sum()) < len(X)
    assert bool(region.contains(result.adversarial).all())
    assert bool((NET(result.adversarial).argmax(1) != LABELS)[result.success].all())
    again = method.run(NET, X, LABELS, region, seed=1)
    assert torch.equal(again.adversarial, result.adversarial)
    assert method.name == text
    assert int(result.queries.min()) > 1


@every_case
def test_radius_zero_and_misclassified_samples(text: str, p: float) -> None:
    labels = LABELS.clone()
    labels[:2] = (labels[:2] + 1) % 4
    result = attack(text).run(NET, X, labels, LpBall(X, 0.0, p, (0.0, 1.0)))
    assert result.success.tolist() == [True] * 2 + [False] * 14
    assert torch.equal(result.adversarial, X)


@every_case
def test_search_takes_problems_with_labels_only(text: str, p: float) -> None:
    method = attack(text)
    result = method.search(Problem.robustness_many(network(NET, 6), X, LABELS, {inf: 0.15, 2: 0.4}[p], p), seed=1)
    assert 0 < int(result.success.sum()) < len(X)
    box = Box(torch.zeros(6), torch.ones(6))
    with pytest.raises(UnsupportedError, match="attacks labels, not specifications"):
        method.search([Problem(network(NET, 6), box, Spec.robust(0, 4))])
    with pytest.raises(UnsupportedError, match="a ball within a domain"):
        method.run(NET, X, LABELS, LpBall(X, 0.1, p, domain=None))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foolbax:LinfPGD", "unknown library of attacks 'foolbax'; did you mean 'foolbox'"),
        ("foolbox:LinfPDG", "did you mean 'LinfPGD'|foolbox is not installed; pip install foolbox"),
        ("foolbox:LinfPGD(steps)", "expected option=value|is not installed"),
        ("foolbox:LinfPGD(steps=3", "expected attack as library:Class"),
    ],
)
def test_bad_names_say_what_is_known(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        get_attack(text)


def test_options_that_the_library_refuses() -> None:
    with pytest.raises(InputError, match=r"refuses its options.*stepz"):
        attack("foolbox:LinfPGD(stepz=3)").run(NET, X, LABELS, LpBall(X, 0.1, inf, (0.0, 1.0)))
