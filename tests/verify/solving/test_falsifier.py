"""Attacks asked as methods: what they break is falsified, what they cannot treat is unsupported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from assay.attacks.common.interface import AttackResult, Model
from assay.attacks.fgsm import FGSM
from assay.attacks.registry import get_attack
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import chain, to_network
from assay.verify.core.ops import Linear
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, Region
from assay.verify.core.result import Reason, Verdict
from assay.verify.core.spec import Spec
from assay.verify.registry import get_verifier
from assay.verify.solving import falsifier as module
from assay.verify.solving import stages, union
from assay.verify.solving.falsifier import AttackVerifier, Falsifier
from tests.attacks.attack_models import mlp, network, samples
from tests.verify.solving.clock import Clock

NET = mlp(0)
X = samples(1, 12)
LABELS = NET(X).argmax(1)


def test_options_come_as_text() -> None:
    method = get_verifier("attack(attack=pgd(steps=7,restarts=2),rounds=2)")
    assert method == AttackVerifier("pgd(steps=7,restarts=2)", 2)
    with pytest.raises(InputError, match="did you mean 'pgd'"):
        get_verifier("attack(attack=pdg)")


@pytest.mark.parametrize("attack", ["pgd", "fmn", "cw(steps=20)"])
def test_falsified_or_unknown_never_verified(attack: str) -> None:
    problems = Problem.robustness_many(network(NET, 6), X, LABELS, 0.1)
    results = stages.decide(AttackVerifier(attack), problems, Budget())
    verdicts = {result.verdict for result in results}
    assert verdicts == {Verdict.FALSIFIED, Verdict.UNKNOWN}
    assert {result.reason for result in results} == {None, Reason.INCOMPLETE}
    assert all(result.verifier == repr(AttackVerifier(attack)) for result in results)


def test_attacks_take_turns() -> None:
    """One that never succeeds does not keep the others from trying, however many rounds there are."""
    problems = Problem.robustness_many(network(NET, 6), X, LABELS, 0.3)
    (result,) = AttackVerifier("random(points=1)+pgd", 10**9).verify_many(problems[:1], Budget(20))
    assert result.verdict is Verdict.FALSIFIED
    (none,) = AttackVerifier("random(points=1)", 10**9).verify_many(
        [Problem.robustness(network(NET, 6), X[0], int(LABELS[0]), 0.0)], Budget(0.2)
    )
    assert none.reason is Reason.TIMEOUT


def test_what_it_finds_is_replayed() -> None:
    """Two probabilities that are one float32 are no counterexample where the logits differ."""
    linear = torch.nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0], [0.0]]))
    net = to_network(torch.nn.Sequential(linear, torch.nn.Softmax(1)).eval(), (1,))
    problem = Problem(net, Box(torch.tensor([1e-9]), torch.tensor([2e-9])), Spec.robust(0, 2))
    assert Falsifier(FGSM()).verify(problem, Budget()).verdict is Verdict.FALSIFIED
    for result in (AttackVerifier("fgsm").verify(problem), *stages.decide(AttackVerifier("fgsm"), [problem], Budget())):
        assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.NUMERICAL)
        assert "but not in float64" in result.stats["explanation"]
        assert result.counterexample is None


@dataclass(frozen=True)
class Counting:
    """FGSM that logs the seeds that it is given, and says that it is ``random``, or not."""

    log: list[int]
    random: bool
    name: ClassVar[str] = "counting"

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        raise AssertionError

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        self.log.append(seed)
        return FGSM().search(problems)


def test_what_draws_nothing_is_not_tried_again() -> None:
    """Neither by itself nor in turn with others, however many rounds there are."""
    robust = Problem.robustness(network(NET, 6), X[0], int(LABELS[0]), 0.0)
    for random, seeds in ((False, [5]), (True, [5, 6, 7])):
        attack = Counting([], random)
        assert Falsifier(attack, rounds=3).verify(robust, Budget(seed=5)).reason is Reason.INCOMPLETE
        assert attack.log == seeds
    assert AttackVerifier("fgsm+pgd", 10**9).verify(robust, Budget(20)).reason is Reason.INCOMPLETE


def test_only_what_draws_has_further_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed, random = Counting([], False), Counting([], True)
    monkeypatch.setattr(module, "get_attack", {"fixed": fixed, "random": random}.__getitem__)
    robust = Problem.robustness(network(NET, 6), X[0], int(LABELS[0]), 0.0)
    AttackVerifier("fixed+random", 3).verify(robust, Budget(seed=5))
    assert (fixed.log, random.log) == ([5], [5, 6, 7])


@pytest.mark.parametrize("rounds", [0, -1, 1.5])
def test_there_is_a_round_at_least(rounds: Any) -> None:
    with pytest.raises(InputError, match="rounds of attack must be a whole number of at least 1"):
        AttackVerifier("fgsm", rounds)


def test_what_the_attack_cannot_treat_is_unsupported_and_the_rest_is_not() -> None:
    net = network(NET, 6)
    box = Problem(net, Box(torch.zeros(6), torch.ones(6)), Spec.robust(0, 4))
    ball = Problem.robustness(net, X[0], int(LABELS[0]), 3.0, 2)
    results = AttackVerifier("ddn").verify_many([box, ball], Budget())
    assert [result.reason for result in results] == [Reason.UNSUPPORTED, None]
    assert "ddn needs a region that is a ball of l2, got a box" in results[0].stats["explanation"]
    assert union.verify(AttackVerifier("ddn"), [box, ball], Budget()).verdict is Verdict.FALSIFIED


class Dear(torch.nn.Module):
    """A linear model each run of which takes a second of the clock; ``sizes``: of the batches."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.sizes, self.training = clock, list[int](), False

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += 1.0
        self.sizes.append(len(x))
        return torch.stack([x.sum(1), 0 * x.sum(1)], 1)


def dear(clock: Clock, low: float, high: float) -> tuple[Dear, Problem]:
    """Is the sum of two numbers positive? Each run of the model takes a second."""
    network = chain(
        (2,), [Linear(torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.zeros(2))], oracle=(model := Dear(clock))
    )
    return model, Problem(network, Box(torch.full((2,), low), torch.full((2,), high)), Spec.robust(0, 2))


@pytest.mark.parametrize("attack", ["pgd(steps=1000,restarts=100)", "fgsm", "apgd", "square", "random"])
def test_an_attack_does_not_run_the_model_once_the_time_is_over(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock.installed(monkeypatch)
    model, problem = dear(clock, 1.0, 2.0)
    (result,) = Falsifier(get_attack(attack), rounds=100).verify_many([problem], Budget(20.0))
    assert result.verdict is Verdict.UNKNOWN
    assert len(model.sizes) <= 20
    assert result.reason is (Reason.INCOMPLETE if attack == "fgsm" else Reason.TIMEOUT)


def test_what_was_found_by_the_end_of_the_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two problems falls at once, the second one stands to the end."""
    clock = Clock.installed(monkeypatch)
    _, easy = dear(clock, -1.0, 1.5)
    hard = Problem(easy.network, Box(torch.ones(2), torch.full((2,), 2.0)), easy.spec)
    first, second = Falsifier(get_attack("pgd(restarts=100)"), rounds=100).verify_many([easy, hard], Budget(200.0))
    assert (first.verdict, second.reason) == (Verdict.FALSIFIED, Reason.TIMEOUT)


def test_many_disjuncts_are_attacked_as_many_at_once_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock.installed(monkeypatch)
    model, problem = dear(clock, 1.0, 2.0)
    monkeypatch.setattr(module, "TOGETHER", 8)  # two inputs and two outputs: two at once
    many = replace(problem, spec=Spec(problem.spec.disjuncts * 7))
    Falsifier(FGSM(), targeted=True).verify(many, Budget())
    assert max(model.sizes) == 2
    model.sizes.clear()
    Falsifier(FGSM(), targeted=True).verify(many, Budget(1.5))
    assert len(model.sizes) == 2


@pytest.mark.parametrize("kind", ["sign", "floor", "round"])
def test_jumps_have_gradients_to_follow(kind: str) -> None:
    """A network that is constant in pieces, whose own derivative is 0, as a module and as a network."""
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(12, 8, generator=generator)

    class Jumping(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            steps = getattr(torch, kind)(3 * (x @ weight.T))
            return torch.stack([steps.mean(1) + 0.5, 0 * x[:, 0]], 1)

    x = torch.full((8,), 0.5) + 0.1 * weight.mean(0)
    module = Jumping().eval()
    assert float(module(x[None])[0, 0]) > 0
    problem = Problem.robustness(module, x, 0, 0.9, domain=None)
    result = Falsifier(get_attack("pgd(steps=20,restarts=1)")).verify(problem, Budget(20))
    assert result.verdict is Verdict.FALSIFIED
    values = problem.network(x[None].double().requires_grad_())
    assert torch.equal(values.detach(), problem.network(x[None].double()))
