"""The laws of PGD: membership, reproducibility, independence of the batch, and queries that stop."""

from __future__ import annotations

from dataclasses import fields
from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from assay.attacks.common.interface import AttackResult
from assay.attacks.fgsm import FGSM
from assay.attacks.pgd import PGD
from assay.verify.core.region import Box, LpBall, Region
from tests.attacks.attack_models import Counting, linear, mlp, samples

NET = mlp(0)
X = samples(1, 32)
LABELS = NET(X).argmax(1)


def regions(x: Tensor, eps: float) -> list[Region]:
    domain = (0.0, 1.0)
    balls: list[Region] = [LpBall(x, eps, p, domain) for p in (inf, 2, 1)]
    return [*balls, Box(x - eps / 2, x + eps)]


def same(a: AttackResult, b: AttackResult) -> bool:
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(AttackResult))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    eps=st.sampled_from([0.0, 1e-8, 0.03, 0.3, 2.0]),
    kind=st.integers(0, 3),
    restarts=st.integers(1, 2),
    random_start=st.booleans(),
    double=st.booleans(),
)
def test_every_point_is_a_member_and_success_is_true(
    seed: int, eps: float, kind: int, restarts: int, random_start: bool, double: bool
) -> None:
    model, x = mlp(seed), samples(seed, 5)
    if double:
        model, x = model.double(), x.double()
    labels = model(x).argmax(1)
    labels[0] = (labels[0] + 1) % 4
    region = regions(x, eps)[kind]
    diversified = PGD(steps=3, restarts=2, diversify=2)
    for attack in (FGSM(), PGD(steps=5, restarts=restarts, random_start=random_start, momentum=0.5), diversified):
        result = attack.run(model, x, labels, region, seed)
        assert result.adversarial.dtype is x.dtype
        assert bool(region.contains(result.adversarial).all())
        y = model(result.adversarial)
        strictly = (y.gather(1, labels[:, None]) > y.scatter(1, labels[:, None], -inf)).all(1)
        sure = y.topk(2).values.diff().abs()[:, 0] > 1e-5  # batches of other sizes may round differently
        assert torch.equal(result.success[sure], ~strictly[sure])
        assert bool(result.success[0])
        assert result.queries[0] == 1
        assert torch.equal(result.adversarial[0], x[0])


@pytest.mark.parametrize("kind", range(4))
def test_seeds_repeat_bit_for_bit_and_matter(kind: int) -> None:
    attack = PGD(steps=5, restarts=2, random_start=True)
    first, again, other = (attack.run(NET, X, LABELS, regions(X, 0.1)[kind], seed) for seed in (3, 3, 4))
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("kind", range(4))
def test_batch_1_equals_batch_n(kind: int) -> None:
    attack = PGD(steps=10, restarts=3, momentum=0.7)
    whole = attack.run(NET, X, LABELS, regions(X, 0.2)[kind], seed=5)
    assert 0 < int(whole.success.sum()) < len(X)
    for i in range(0, len(X), 3):
        one = attack.run(NET, X[i : i + 1], LABELS[i : i + 1], regions(X[i : i + 1], 0.2)[kind], seed=5)
        assert one.success[0] == whole.success[i]
        assert one.queries[0] == whole.queries[i]
        assert torch.allclose(one.adversarial[0], whole.adversarial[i], atol=1e-4)


def test_the_order_of_the_batch_does_not_matter() -> None:
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    attack = PGD(steps=10, restarts=2)
    whole = attack.run(NET, X, LABELS, LpBall(X, 0.2, domain=None))
    shuffled = attack.run(NET, X[order], LABELS[order], LpBall(X[order], 0.2, domain=None))
    assert torch.equal(shuffled.success, whole.success[order])


def test_one_region_serves_the_whole_batch() -> None:
    x = X[:1].expand(4, -1).contiguous()
    labels = torch.arange(4)
    attack = PGD(steps=8, restarts=2)
    for one, batch in (
        (LpBall(X[0], 0.1, 2, domain=None), LpBall(x, 0.1, 2, domain=None)),
        (Box(X[0] - 0.1, X[0] + 0.1), Box(x - 0.1, x + 0.1)),
    ):
        assert same(attack.run(NET, x, labels, one), attack.run(NET, x, labels, batch))


def test_eps_zero_is_the_clean_verdict() -> None:
    labels = LABELS.clone()
    labels[::2] = (labels[::2] + 1) % 4
    wrong = NET(X).argmax(1) != labels
    for p in (inf, 2, 1):
        result = PGD(steps=3, restarts=2, random_start=True).run(NET, X, labels, LpBall(X, 0.0, p, domain=None))
        assert torch.equal(result.success, wrong)
        assert torch.equal(result.adversarial, X)
        assert result.queries[wrong].eq(1).all()


def test_broken_samples_cost_no_more_queries() -> None:
    model = Counting(NET)
    attack = PGD(steps=10, restarts=3)
    result = attack.run(model, X, LABELS, LpBall(X, 0.2, domain=None))
    assert 0 < int(result.success.sum()) < len(X)
    replayed = model.seen - int(result.queries.sum())  # each success by itself
    assert 0 <= replayed <= int(result.success.sum())
    assert result.queries[~result.success].eq(33).all()
    assert result.queries[result.success].max() < 33
    everything = attack.run(Counting(NET), X, LABELS, LpBall(X, 50.0, domain=None))
    assert bool(everything.success.all())
    assert everything.queries.max() < 33


def test_a_tie_counts_as_broken() -> None:
    model = linear([[1.0, 0.0], [0.0, 0.0]], [0.0, 0.0])  # margin of label 0 is x0
    x = torch.tensor([[0.5, 0.5]])
    result = PGD(steps=4).run(model, x, torch.tensor([0]), LpBall(x, 0.5, domain=None))
    assert result.success.tolist() == [True]
    assert float(model(result.adversarial)[0].detach().diff()) == 0
    assert PGD(steps=4).run(model, x, torch.tensor([0]), LpBall(x, 0.499, domain=None)).success.tolist() == [False]


def test_an_unbroken_sample_returns_the_point_of_largest_loss() -> None:
    visited: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        visited.append(x.detach().clone())
        gap = 1 + torch.cos(40 * x[:, :1]) + 0.1
        return torch.cat([gap, torch.zeros_like(gap)], 1)

    x = torch.tensor([[0.35]])
    result = PGD(steps=15, step_size=0.7, restarts=2, loss="margin").run(
        model, x, torch.tensor([0]), LpBall(x, 0.2, domain=None)
    )
    points = torch.cat(visited)
    best = float((-1.1 - torch.cos(40 * points)).max())
    assert not result.success.any()
    assert float(result.loss) == pytest.approx(best, abs=1e-6)
    assert float(result.loss) > -1.1 - float(torch.cos(40 * points[-1]))  # the last point was not the best
    assert any(torch.equal(point, result.adversarial) for point in visited)


def test_momentum_changes_the_path() -> None:
    region = LpBall(X, 0.3, 2, domain=None)
    plain, heavy = (PGD(steps=5, step_size=0.3, momentum=m).run(NET, X, LABELS, region) for m in (0.0, 1.0))
    assert not torch.equal(plain.adversarial, heavy.adversarial)


def test_one_full_step_of_pgd_is_fgsm() -> None:
    region = LpBall(X, 0.1, inf, (0.0, 1.0))
    assert same(PGD(steps=1).run(NET, X, LABELS, region), FGSM().run(NET, X, LABELS, region))


@pytest.mark.slow
def test_pgd_finds_what_fgsm_finds_and_restarts_never_hurt() -> None:
    for p, eps in ((inf, 0.15), (2, 0.4), (1, 0.6)):
        region = LpBall(X, eps, p, (0.0, 1.0))
        counts = [int(attack.run(NET, X, LABELS, region).success.sum()) for attack in (FGSM(), PGD(), PGD(restarts=4))]
        assert counts[0] <= counts[1] <= counts[2]
        assert counts[2] > 0


@pytest.mark.parametrize("p", [1, 2])
def test_coordinates_at_the_edge_of_the_domain_do_not_use_up_the_step(p: int) -> None:
    """The steepest coordinate is already at its bound; the optimum moves the other one."""
    model = linear([[-9.0, -1.0, 0.0], [0.0, 0.0, 0.0]], [9.5, 0.0])  # margin of label 0 is 9.5 - 9 x0 - x1
    x = torch.tensor([[1.0, 0.0, 0.0]])
    result = PGD(steps=10).run(model, x, torch.tensor([0]), LpBall(x, 0.6, p, (0.0, 1.0)))
    assert result.success.tolist() == [True]


def test_the_model_is_left_as_it_was() -> None:
    model = mlp(3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        PGD(steps=3, restarts=2).run(model, X, LABELS, LpBall(X, 0.1, domain=None))
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    for name, p in model.named_parameters():
        assert p.grad is None
        assert p.requires_grad
        assert torch.equal(p, before[name])
    with torch.inference_mode():
        x, labels = X.clone(), LABELS.clone()
        inside = PGD(steps=3).run(model, x, labels, LpBall(x, 0.1, domain=None))
    assert torch.equal(inside.adversarial, PGD(steps=3).run(model, X, LABELS, LpBall(X, 0.1, domain=None)).adversarial)


def test_the_clean_samples_are_not_written_to() -> None:
    x = X.clone()
    PGD(steps=3).run(NET, x, LABELS, LpBall(x, 0.3, domain=None))
    assert torch.equal(x, X)


@pytest.mark.parametrize("value", [torch.nan, inf])
def test_outputs_that_are_not_finite_break_nothing(value: float) -> None:
    class Cliff(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.cat([1 - x, torch.zeros_like(x)], 1)
            return torch.where(x > 0.6, torch.tensor([[0.0, value]]), y)

    x = torch.tensor([[0.5]])
    result = PGD(steps=5, restarts=2).run(Cliff().eval(), x, torch.tensor([0]), LpBall(x, 0.4, domain=None))
    assert result.success.tolist() == [False]
    assert result.loss.isfinite().all()
    assert float(result.adversarial) <= 0.6


def test_an_empty_batch_gives_an_empty_result() -> None:
    result = PGD(steps=2, restarts=2).run(NET, X[:0], LABELS[:0], LpBall(X[:0], 0.1, domain=None))
    assert result.adversarial.shape == (0, 6)
    assert result.success.shape == result.loss.shape == result.distance.shape == result.queries.shape == (0,)


def test_images_keep_their_shape() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 5)).eval()
    x = torch.rand(7, 1, 6, 6)
    for region in regions(x, 0.3):
        result = PGD(steps=4, restarts=2).run(model, x, model(x).argmax(1), region)
        assert result.adversarial.shape == x.shape
