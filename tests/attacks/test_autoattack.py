"""AutoAttack: its components, its bookkeeping, and a randomised model."""

from __future__ import annotations

from math import inf

import pytest
import torch
from torch import Tensor

from assay.attacks import get_attack
from assay.attacks.apgd import APGDCE
from assay.attacks.autoattack import AutoAttack
from assay.verify.core.errors import InputError
from assay.verify.core.region import LpBall
from tests.attacks.attack_models import Counting, mlp, samples

NET = mlp(0)
X = samples(1, 32)
LABELS = NET(X).argmax(1)


@pytest.mark.parametrize(
    ("version", "names"),
    [
        ("standard", ["apgd-ce", "apgd-t", "fab-t", "square"]),
        ("plus", ["apgd-ce", "apgd", "fab", "square", "apgd-t", "fab-t"]),
        ("rand", ["apgd-ce", "apgd"]),
    ],
)
def test_the_published_components(version: str, names: list[str]) -> None:
    attack = get_attack(f"autoattack(version={version})")
    assert isinstance(attack, AutoAttack)
    assert [component.name for component in attack.components(inf)] == names  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="unknown version of autoattack 'full'"):
        AutoAttack(version="full")  # type: ignore[arg-type]


@pytest.mark.parametrize(("p", "eps"), [(inf, 0.12), (2, 0.25), (1, 0.4)])
def test_it_breaks_what_its_first_attack_breaks_and_more_cannot_be_less(p: float, eps: float) -> None:
    region = LpBall(X, eps, p, (0.0, 1.0))
    attack = AutoAttack(steps=20, queries=100)
    result, first = attack.run(NET, X, LABELS, region), APGDCE(steps=20, restarts=1).run(NET, X, LABELS, region)
    assert 0 < int(first.success.sum()) < len(X)
    assert bool((result.success | ~first.success).all())
    y = NET(result.adversarial).detach()
    margin = y.scatter(1, LABELS[:, None], -inf).amax(1) - y.gather(1, LABELS[:, None])[:, 0]
    assert torch.allclose(result.loss, margin.double(), atol=1e-5)


def test_each_attack_sees_only_what_still_stands() -> None:
    model = Counting(NET)
    result = AutoAttack(steps=10, queries=50).run(model, X, LABELS, LpBall(X, 0.1, domain=None))
    assert 0 < int(result.success.sum()) < len(X)
    assert int(result.queries[result.success].max()) < int(result.queries[~result.success].max())
    assert model.seen <= int(result.queries.sum()) + 10 * len(X)  # targets are ranked, successes replayed alone


def test_a_randomised_model() -> None:
    def noisy(x: Tensor) -> Tensor:
        return NET(x + 0.01 * torch.randn_like(x))

    attack = AutoAttack("rand", steps=5, draws=4)
    first, again = (attack.run(noisy, X, LABELS, LpBall(X, 0.3, domain=None), seed=1) for _ in range(2))
    assert torch.equal(first.adversarial, again.adversarial)
    assert bool(first.success.any())
    assert bool((first.queries % 4 == 0).all())
