"""Tests of benchmarks.harness.radius: brackets hold the true radius, closed where they can be."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from math import inf, nextafter, sqrt
from typing import ClassVar

import pytest
import torch
from torch import nn

from assay.attacks import get_attack
from assay.attacks.common.interface import AttackResult
from assay.benchmarks.harness.radii.radius import Bracket, Radii, radii
from assay.benchmarks.harness.radii.radius_search import distance
from assay.models.data import Dataset
from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.errors import AlarmError, InputError, UnsupportedError
from assay.verify.core.network import to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import LpBall
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.registry import get_verifier
from tests import exact, nets
from tests.breadth import few

PGD = get_attack("pgd(steps=20)")
CROWN = get_verifier("crown")
WEIGHT, BIAS = [0.5, -1.0, 0.25], 0.125


def linear(gap: float = 0.0) -> nn.Module:
    """Class 0 leads by w . x + b - gap."""
    return nets.weighted([([WEIGHT, [0.0, 0.0, 0.0]], [BIAS - gap, 0.0])], torch.float32)


def points(*values: float, label: int = 0) -> Dataset:
    """One sample for each value, which all of its coordinates have."""
    x = torch.tensor(values)[:, None].repeat(1, 3)
    return Dataset("points", "test", x, torch.full((len(values),), label), 2)


def lead(value: float) -> float:
    return sum(WEIGHT) * value + BIAS


@dataclass(frozen=True)
class Fake:
    """Verifies the radii within ``windows``; keeps what it was asked."""

    windows: tuple[tuple[float, float], ...]
    reason: Reason = Reason.INCOMPLETE
    asked: list[tuple[float, float]] = field(default_factory=list)
    name: ClassVar[str] = "fake"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def supports(self, problem: Problem) -> str | None:
        return None

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        assert isinstance(problem.region, LpBall)
        eps = float(problem.region.eps)
        self.asked.append((eps, budget.seconds))
        if any(low <= eps <= high for low, high in self.windows):
            return Result(problem.id, "fake", Verdict.VERIFIED)
        return Result(problem.id, "fake", Verdict.UNKNOWN, self.reason)


@dataclass(frozen=True)
class Blind:
    """An attack that never leaves the clean sample."""

    name: ClassVar[str] = "blind"

    def run(self, model, x, labels, region, seed=0):
        raise NotImplementedError

    def search(self, problems, seed=0):
        x = torch.stack([p.region.centre.float() for p in problems])
        none = torch.zeros(len(x))
        return AttackResult(x, none > 0, none.double(), none.double(), none.long())


def one(answer: Radii) -> Bracket:
    assert len(answer.brackets) == 1
    return answer.brackets[0]


@pytest.mark.parametrize(("norm", "dual"), [(inf, 1.75), (2.0, sqrt(1.3125)), (1.0, 1.0)])
@pytest.mark.parametrize("value", few([0.25, 0.375], quick=[0.25]))
def test_the_radius_of_a_linear_model_is_closed_in_on(norm: float, dual: float, value: float) -> None:
    true = lead(value) / dual  # the domain is far away
    bracket = one(radii(linear(), points(value), [0], CROWN, PGD, norm=norm, tolerance=1e-4))
    assert bracket.certified is not None
    assert bracket.attacked is not None
    assert true - 2e-4 <= bracket.certified <= true + 1e-12
    assert true - 1e-12 <= bracket.attacked <= true + 2e-3


def test_brackets_hold_the_truth() -> None:
    """The exact radius, by enumeration at the ends, of a network with unstable neurons."""
    network = to_network(nets.random_mlp(5, (3, 6, 5, 2)), (3,))
    x = torch.rand(4, 3, generator=nets.generator(1)) * 0.5 + 0.25
    data = Dataset("random", "test", x, network(x.double()).argmax(1), 2)
    for method in ("crown", "milp"):
        for bracket in radii(network, data, range(2), get_verifier(method), PGD, tolerance=1e-3).brackets:
            assert bracket.certified is not None
            assert bracket.attacked is not None
            assert bracket.certified <= bracket.attacked
            sample, label = data.x[bracket.sample], int(data.y[bracket.sample])
            if bracket.certified > 0:
                assert exact.true_margin(Problem.robustness(network, sample, label, bracket.certified)) > 0
            if bracket.attacked < inf:
                assert exact.true_margin(Problem.robustness(network, sample, label, bracket.attacked)) <= 1e-6
            if method == "milp":
                assert bracket.attacked == inf or bracket.attacked - bracket.certified <= 2e-3


def test_a_counterexample_counts_at_its_own_distance() -> None:
    """The first attack goes anywhere in the domain, of which no corner is farther than 3/4."""
    bracket = one(radii(linear(), points(0.25), [0], CROWN, PGD, tolerance=0.99))
    assert bracket.attacked is not None
    assert lead(0.25) / 1.75 < bracket.attacked <= 0.75


def test_a_counterexample_of_the_method_is_an_attack() -> None:
    true = lead(0.25) / 1.75
    bracket = one(radii(linear(), points(0.25), [0], get_verifier("milp"), Blind()))
    assert bracket.certified is not None
    assert bracket.attacked is not None
    assert true - 1e-3 <= bracket.certified <= true <= bracket.attacked <= true + 2e-3


def test_a_misclassified_sample_has_radius_0() -> None:
    method = Fake(((0.0, 1.0),))
    bracket = one(radii(linear(gap=1.0), points(0.25), [0], method, PGD))
    assert (bracket.certified, bracket.attacked, bracket.predicted, bracket.right) == (0.0, 0.0, 1, False)
    assert method.asked == []


def test_a_tie_is_misclassified() -> None:
    bracket = one(radii(linear(gap=lead(0.25)), points(0.25), [0], CROWN, PGD))
    assert (bracket.certified, bracket.attacked, bracket.right) == (0.0, 0.0, False)


def test_proofs_need_not_be_monotone() -> None:
    """Radius 0.0357: a method that proves only some radii below it is taken at its word about these alone."""
    for windows in (((0.0, 0.001),), ((0.017, 0.018), (0.02, 0.021)), ((0.03, 0.0301),), ()):
        method = Fake(windows)
        bracket = one(radii(linear(), points(0.25), [0], method, PGD))
        proven = [eps for eps, _ in method.asked if any(low <= eps <= high for low, high in windows)]
        assert bracket.certified == max(proven, default=0.0)
        assert bracket.reason is Reason.INCOMPLETE


def test_what_verifies_a_broken_sample_raises_an_alarm(tmp_path) -> None:
    brackets = radii(linear(), points(0.25, 0.375), range(2), Fake(((0.0, 1.0),)), PGD, alarm_folder=tmp_path)
    assert [(b.certified, b.attacked) for b in brackets.brackets] == [(None, None)] * 2
    assert len(brackets.alarms) >= 2
    assert all((folder / "case.npz").exists() for folder in brackets.folders)
    assert "verifies sample 0" in brackets.alarms[0].explanation or "fails its check" in brackets.alarms[0].explanation
    with pytest.raises(AlarmError, match="soundness alarm"):
        brackets.raise_alarm()


def test_an_attack_below_what_is_certified_raises_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second opinion is silenced: the bracket itself must notice."""
    monkeypatch.setattr("assay.verify.solving.stages.corroborate", lambda problems, results: [None] * len(problems))
    brackets = radii(linear(), points(0.25), [0], Fake(((0.0, 1.0),)), PGD)
    assert one(brackets).certified is None
    assert len(brackets.alarms) == 1
    assert "verifies sample 0 at eps" in brackets.alarms[0].explanation
    assert "pgd(steps=20) falsifies it at eps" in brackets.alarms[0].explanation


def test_an_attack_that_fails_leaves_the_upper_end_open() -> None:
    bracket = one(radii(linear(), points(0.25), [0], CROWN, Blind()))
    assert bracket.attacked == inf
    assert bracket.certified == pytest.approx(lead(0.25) / 1.75, abs=1e-3)


def test_all_of_the_domain_may_be_certified() -> None:
    module = nets.weighted([([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [1.0, 0.0])], torch.float32)
    bracket = one(radii(module, points(0.25), [0], CROWN, PGD))
    assert (bracket.certified, bracket.attacked) == (1.0, inf)
    assert bracket.questions[0] == 1


def test_no_question_takes_all_the_time() -> None:
    method = Fake((), Reason.TIMEOUT)
    bracket = one(radii(linear(), points(0.25), [0], method, PGD, budget=Budget(seconds=30.0)))
    assert bracket.reason is Reason.TIMEOUT
    assert len(method.asked) > 3
    assert all(seconds <= 10.0 for _, seconds in method.asked)


def test_no_time_is_an_open_bracket() -> None:
    bracket = one(radii(linear(), points(0.25), [0], CROWN, PGD, budget=Budget(seconds=0.0)))
    assert bracket.certified == 0.0
    assert bracket.attacked == inf
    assert bracket.reason is Reason.TIMEOUT


def test_the_document_is_plain() -> None:
    brackets = radii(linear(), points(0.25, 0.375), range(2), CROWN, Blind(), name="linear")
    document = brackets.to_json()
    assert json.loads(json.dumps(document)) == document
    assert (document["model"], document["method"], document["attack"]) == ("linear", "crown", "blind")
    assert [entry["sample"] for entry in document["samples"]] == [0, 1]
    assert document["samples"][0]["attacked"] == inf


def test_what_cannot_be_asked() -> None:
    with pytest.raises(InputError, match="samples from 0 to 0, not 1"):
        radii(linear(), points(0.25), [1], CROWN, PGD)
    with pytest.raises(InputError, match="tolerance"):
        radii(linear(), points(0.25), [0], CROWN, PGD, tolerance=0.0)
    with pytest.raises(InputError, match="label 5"):
        radii(linear(), Dataset("points", "test", torch.zeros(1, 3), torch.tensor([5]), 6), [0], CROWN, PGD)
    with pytest.raises(UnsupportedError, match="l2"):
        radii(linear(), points(0.25), [0], get_verifier("milp"), PGD, norm=2.0)


@pytest.mark.parametrize("norm", [inf, 2.0, 1.0])
def test_distances_are_never_too_short(norm: float) -> None:
    for seed in range(200):
        x, centre = torch.rand(2, 5, generator=nets.generator(seed))
        far = distance(x, centre, norm)
        assert far == pytest.approx(float((x.double() - centre.double()).norm(p=norm)), rel=1e-15)
        steps = [abs(a - b) for a, b in zip(exact.fractions(x), exact.fractions(centre), strict=True)]
        reach = exact.Fraction(far)
        assert max(steps) <= reach if norm == inf else sum(s ** int(norm) for s in steps) <= reach ** int(norm)
        balls = [LpBall(centre, eps, norm, domain=None) for eps in (far, nextafter(far, inf), 2 * far)]
        assert any(bool(ball.contains(x[None])) for ball in balls[:2])
