"""Tests of votes over erased images: random ones for few pixels, all bands or blocks for patches."""

from __future__ import annotations

from itertools import combinations, product

import pytest
import torch
from torch import Tensor, nn

from assay.attacks.sparse_rs import SparseRS
from assay.verify.backends.smoothing.attack import SmoothingAttack
from assay.verify.backends.smoothing.derandomized import UNSURE, Derandomized, Seen, Votes, least_lead, views
from assay.verify.backends.smoothing.kinds import Kind
from assay.verify.backends.smoothing.method import Smoothing
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.norms import PATCH
from assay.verify.core.problem import Problem
from assay.verify.core.region import FewPixels, Window
from assay.verify.core.region.sparse import Support
from assay.verify.core.result import Guarantee, Reason, Verdict

SIDE = 6


class Bright(nn.Module):
    """Class 0 where the pixels are bright, with a bias for it: 1/4 is darkest, and 0, what is erased, neutral."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        light = (2 * torch.relu(x - 0.25) - x).flatten(1).sum(1) + self.bias
        return torch.stack([light, -light, torch.full_like(light, -100.0)], 1)


def problem(eps: int, norm: float = 0.0, bias: float = 0.0, bright: float = 0.8) -> Problem:
    noise = torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    x = bright + 0.1 * noise
    return Problem.robustness(Bright(bias).eval(), x, 0 if bright > 0.5 else 1, eps, norm)


@pytest.mark.parametrize("noise", ["masking", "ablation"])
def test_few_pixels_are_certified_up_to_the_radius(noise: str) -> None:
    method = Smoothing(noise, n=1000, keep=0.1)  # type: ignore[arg-type]
    radius = method.certify(problem(1), 0, 0).radius
    assert radius >= 2
    result = method.verify(problem(int(radius)), Budget(seed=0))
    assert (result.verdict, result.guarantee) == (Verdict.VERIFIED, Guarantee.STATISTICAL)
    assert result.subject == f"smoothed({noise}, keep 0.1)"
    assert method.verify(problem(int(radius) + 1), Budget(seed=0)).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("test", ["pilot", "staged", "anytime"])
def test_tests_that_stop_early_stop_at_pixels(test: str) -> None:
    method = Smoothing("ablation", n=5000, keep=0.1, test=test)  # type: ignore[arg-type]
    result = method.verify(problem(2))
    assert result.verdict is Verdict.VERIFIED
    assert result.stats["n"] < 5000


@pytest.mark.parametrize("noise", ["masking", "ablation"])
def test_nothing_certified_is_broken_by_the_attack_on_the_vote(noise: str) -> None:
    verdicts = set()
    for bright, eps in product((0.55, 0.8), (1, 16)):
        asked = problem(eps, bright=bright)
        safe = Smoothing(noise, n=300, keep=0.15).verify(asked)  # type: ignore[arg-type]
        broken = SmoothingAttack(noise, n=300, keep=0.15).verify(asked)  # type: ignore[arg-type]
        assert safe.subject == broken.subject
        assert not (safe.verdict is Verdict.VERIFIED and broken.verdict is Verdict.FALSIFIED)
        verdicts |= {safe.verdict, broken.verdict}
        if broken.counterexample is not None:
            assert bool(asked.region.contains(broken.counterexample[None]))
            assert broken.stats["distance"] <= eps
    assert verdicts == {Verdict.VERIFIED, Verdict.FALSIFIED, Verdict.UNKNOWN}


def test_noises_and_regions_that_do_not_go_together() -> None:
    ball = Problem.robustness(Bright(0).eval(), torch.full((1, 6, 6), 0.5), 0, 0.1, 2)
    assert "few changed pixels" in str(Smoothing("ablation").supports(ball))
    assert "masking and ablation" in str(Smoothing("gaussian").supports(problem(1)))
    assert Smoothing("ablation", n=100).verify(ball).reason is Reason.UNSUPPORTED
    assert "derandomized certifies patches" in str(Derandomized().supports(ball))
    for keep in (0.0, 1.0):
        with pytest.raises(InputError, match="keep"):
            Smoothing("masking", keep=keep)
    with pytest.raises(InputError, match="for gaussian"):
        Smoothing("masking", certificate="renyi")
    assert str(Kind("ablation", keep=0.05)) == "ablation, keep 0.05"


def worst_case(votes: Tensor, label: int, seen: Tensor, support: Support) -> int:
    """The least lead by enumeration of all sets of pixels, the voters that see them turned to each rival."""
    least = len(votes)
    for mask in support.every(*seen.shape[1:]):
        reached = (seen & mask).flatten(1).any(1)
        for rival in (k for k in range(3) if k != label):
            turned = torch.where(reached | (votes == UNSURE), rival, votes)
            least = min(least, int((turned == label).sum()) - int((turned == rival).sum()))
    return least


@pytest.mark.parametrize("kind", ["band", "block"])
@pytest.mark.parametrize("support", [Window(1, 1), Window(2, 2), Window(3, 1), *map(FewPixels, range(3))], ids=str)
def test_the_lead_is_that_of_an_enumeration(kind: Seen, support: Support) -> None:
    generator = torch.Generator().manual_seed(1)
    seen = views((1, 4, 5), kind, 2)
    for _ in range(4):
        votes = torch.where(torch.rand(len(seen), generator=generator) < 0.7, 0, 1)
        votes[torch.rand(len(seen), generator=generator) < 0.2] = 2
        votes[torch.rand(len(seen), generator=generator) < 0.1] = UNSURE
        lead, truth = least_lead(votes, 0, 3, seen, support), worst_case(votes, 0, seen, support)
        assert lead == truth if isinstance(support, Window) or support.number < 2 else lead <= truth


def test_the_lead_is_no_worse_than_the_count_of_the_paper() -> None:
    """First minus second exceeds twice the number of bands that a patch meets: patch + width - 1."""
    seen, votes = views((1, 12, 12), "band", 3), torch.zeros(12, dtype=torch.int64)
    votes[5:7] = 1
    first, second, met = 10, 2, 2 + 3 - 1
    assert least_lead(votes, 0, 3, seen, Window(2, 2)) >= first - second - 2 * met
    assert least_lead(torch.zeros(12, dtype=torch.int64), 0, 3, seen, Window(2, 2)) == 12 - 2 * met


@pytest.mark.parametrize("shape", [(7,), (4, 5), (3, 4, 5)])
def test_voters_see_their_part_alone(shape: tuple[int, ...]) -> None:
    seen = views(shape, "band", 2)
    columns = shape[-1]
    assert seen.shape == (columns, *((1, columns) if len(shape) == 1 else (shape[-2], columns)))
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(2)) + 0.1
    met: list[Tensor] = []

    def model(images: Tensor) -> Tensor:
        met.append(images)
        return torch.stack([images.flatten(1).sum(1), torch.zeros(len(images))], 1)

    counts = Votes(model, seen, 2)(x)
    assert counts.sum(1).tolist() == [columns] * 2
    shown = torch.cat(met)
    assert bool(((shown == 0) | (shown == x.repeat_interleave(columns, 0))).all())
    assert bool(((shown != 0).reshape(2 * columns, -1, columns).any(1).sum(1) == 2).all())


@pytest.mark.parametrize("kind", ["band", "block"])
def test_no_certified_patch_is_broken_by_search(kind: Seen) -> None:
    method, verdicts = Derandomized(kind, 2), set()
    for bias, bright, eps in ((0.0, 0.8, 1), (0.0, 0.3, 4), (1.0, 0.8, 2)):
        asked = problem(eps, PATCH, bias, bright)
        result = method.verify(asked)
        votes = method.votes(asked.network)
        assert method.classify(asked.network, asked.region.centre, 0) == asked.label
        x = asked.region.centre.float()[None]
        broken = SparseRS(queries=40).run(votes, x, torch.tensor([asked.label]), asked.region, seed=1).success[0]
        assert not (result.verdict is Verdict.VERIFIED and bool(broken))
        verdicts.add((result.verdict, bool(broken)))
    assert (Verdict.VERIFIED, False) in verdicts
    assert (Verdict.UNKNOWN, True) in verdicts


def test_close_outputs_count_for_nobody() -> None:
    def model(images: Tensor) -> Tensor:
        return torch.stack([torch.ones(len(images)), torch.full((len(images),), 1 + 1e-6)], 1)

    votes = Votes(model, views((1, 4, 4), "block", 2), 2)
    assert votes(torch.rand(1, 1, 4, 4)).sum() == 0
    assert bool((votes.of_each(torch.rand(1, 1, 4, 4)) == UNSURE).all())


def test_options_of_the_vote() -> None:
    for text in ({"width": 0}, {"seen": "ring"}):
        with pytest.raises(InputError):
            Derandomized(**text)  # type: ignore[arg-type]
    assert len(list(combinations(range(3), 2))) == len(views((1, 1, 3), "band", 2))
