"""Expectation over transformation: gradients of the mean loss, success by most of the draws."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assay.attacks.common.losses import Misclassify
from assay.attacks.pgd import PGD
from assay.attacks.pgd_eot import PGDEOT, Mean
from assay.verify.core.region import LpBall
from tests.attacks.attack_models import mlp, samples

NET = mlp(0)
X = samples(1, 24)
LABELS = NET(X).argmax(1)


class Noisy(nn.Module):
    """A plain network behind much noise."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp(0)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x + 0.2 * torch.randn_like(x))
        return out


def test_on_a_model_without_noise_it_is_pgd() -> None:
    region = LpBall(X, 0.1, domain=None)
    result, plain = PGDEOT(draws=3, steps=8).run(NET, X, LABELS, region), PGD(steps=8).run(NET, X, LABELS, region)
    assert torch.equal(result.success, plain.success)
    assert torch.allclose(result.adversarial, plain.adversarial, atol=1e-5)
    assert torch.equal(result.queries, 3 * plain.queries)


def test_what_it_breaks_is_wrong_in_most_of_many_runs() -> None:
    noisy = Noisy()
    with torch.no_grad():
        torch.manual_seed(5)
        votes = torch.stack([noisy(X).argmax(1) for _ in range(200)])
    sure = (votes == votes.mode(0).values).double().mean(0) > 0.8
    x, labels = X[sure], votes.mode(0).values[sure]
    result = PGDEOT(draws=24, steps=15).run(noisy, x, labels, LpBall(x, 0.25, domain=None), seed=1)
    assert int(result.success.sum()) > 0
    with torch.no_grad():
        wrong = torch.stack([noisy(result.adversarial).argmax(1) != labels for _ in range(200)]).double().mean(0)
    assert float(wrong[result.success].min()) > 0.35
    assert float(wrong[result.success].mean()) > 0.55


def test_seeds_repeat_and_leave_the_users_generator_alone() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    runs = [PGDEOT(draws=2, steps=4).run(Noisy(), X, LABELS, LpBall(X, 0.1, domain=None), seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(runs[0].adversarial, runs[1].adversarial)
    assert not torch.equal(runs[0].adversarial, runs[2].adversarial)


def test_the_mean_by_hand() -> None:
    goal = Mean(Misclassify.of(torch.tensor([0]), "margin"), 3)
    loss, success = goal(torch.tensor([[2.0, 0.0, 0.0, 1.0, 0.0, 3.0]]))  # margins -2, 1, 3
    assert float(loss) == torch.tensor(2 / 3)
    assert success.tolist() == [True]
    assert goal(torch.tensor([[2.0, 0.0, 2.0, 1.0, 0.0, 9.0]]))[1].tolist() == [False]
