"""Tests of verify.solving.stages: every decided verdict is checked, withdrawn where it fails, and stages add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from assay.attacks.common.interface import AttackResult
from assay.attacks.pgd import PGD
from assay.verify.backends.ibp import IBP
from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.network import chain
from assay.verify.core.ops import Scale
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.solving.falsifier import Falsifier
from assay.verify.solving.stages import Stage, check, decide, run

NETWORK = chain((2,), [])
SAFE = Problem(NETWORK, Box(torch.tensor([2.0, 0.0]), torch.tensor([3.0, 1.0])), Spec.robust(0, 2))
UNSAFE = Problem(NETWORK, Box(torch.zeros(2), torch.ones(2)), Spec.robust(0, 2))


def result(
    verdict: Verdict = Verdict.UNKNOWN, margin: float | None = None, x: Tensor | None = None, problem: Problem = SAFE
) -> Result:
    reason = Reason.INCOMPLETE if verdict is Verdict.UNKNOWN else None
    return Result(problem.id, "fake", verdict, reason, margin=margin, counterexample=x, seconds=1.0)


PROVED = result(Verdict.VERIFIED)


@dataclass(frozen=True)
class Scripted:
    """A method that says what it is told, and remembers what it was asked."""

    answers: dict[str, Result]
    label: str = "scripted"
    asked: list[str] = field(default_factory=list)
    name: ClassVar[str] = "scripted"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def supports(self, problem: Problem) -> str | None:
        return None

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        assert budget.deadline is not None, "the stages share one running clock"
        self.asked.append(problem.id)
        return replace(self.answers[problem.id], verifier=self.label)


def test_true_verdicts_stand() -> None:
    verified, falsified, unknown = check(
        [SAFE, UNSAFE, SAFE],
        [result(Verdict.VERIFIED, 1.0), result(Verdict.FALSIFIED, x=torch.tensor([0.0, 1.0])), result(margin=-1.0)],
    )
    assert (verified.verdict, verified.margin) == (Verdict.VERIFIED, 1.0)
    assert falsified.verdict is Verdict.FALSIFIED
    assert falsified.stats["counterexample_margin"] == -1.0
    assert (unknown.verdict, unknown.margin) == (Verdict.UNKNOWN, -1.0)


def test_a_proof_without_a_margin_tells_none_of_an_earlier_stage() -> None:
    first, second = (Scripted({SAFE.id: answer}, name) for name, answer in (("a", result(margin=-1.0)), ("b", PROVED)))
    (seen,) = run([SAFE], [Stage(first), Stage(second)], Budget())
    assert (seen.verdict, seen.margin) == (Verdict.VERIFIED, None)


@pytest.mark.parametrize("margin", [1.0, 1e-9, None])
def test_a_false_proof_is_withdrawn_with_an_alarm(margin: float | None) -> None:
    (seen,) = check([UNSAFE], [result(Verdict.VERIFIED, margin, problem=UNSAFE)])
    assert (seen.verdict, seen.reason, seen.margin) == (Verdict.UNKNOWN, Reason.NUMERICAL, None)
    assert "violates" in seen.stats["alarm"]


def test_a_true_verdict_with_a_false_margin_is_withdrawn_with_an_alarm() -> None:
    (seen,) = check([SAFE], [result(Verdict.VERIFIED, 1.5)])
    assert (seen.verdict, seen.margin) == (Verdict.UNKNOWN, None)
    assert "exceeds" in seen.stats["alarm"]


@pytest.mark.parametrize("x", [torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0])], ids=["outside", "satisfied"])
def test_a_false_counterexample_is_withdrawn_with_an_alarm(x: Tensor) -> None:
    (seen,) = check([UNSAFE], [result(Verdict.FALSIFIED, x=x, problem=UNSAFE)])
    assert (seen.verdict, seen.reason, seen.counterexample) == (Verdict.UNKNOWN, Reason.NUMERICAL, None)
    assert seen.stats["alarm"]


def test_a_point_on_which_the_arithmetics_differ_is_no_alarm() -> None:
    ops = [Scale(torch.tensor(1.0), torch.tensor(sign * 2.0**25)) for sign in (1, -1)]
    network = chain((1,), ops, oracle=lambda x: (x + 2**25) - 2**25)
    problem = Problem(network, Box(torch.zeros(1), torch.ones(1)), Spec.halfspaces([[1.0]], [0.5]))
    (seen,) = check([problem], [result(Verdict.FALSIFIED, x=torch.ones(1), problem=problem)])
    assert (seen.verdict, seen.reason) == (Verdict.UNKNOWN, Reason.NUMERICAL)
    assert "alarm" not in seen.stats


def test_decide_checks_what_a_method_says() -> None:
    liar = Scripted({UNSAFE.id: result(Verdict.VERIFIED, 1.0), SAFE.id: result(Verdict.VERIFIED, 1.0)})
    seen = decide(liar, [UNSAFE, SAFE], Budget())
    assert [r.verdict for r in seen] == [Verdict.UNKNOWN, Verdict.VERIFIED]


def test_decide_refuses_answers_that_are_missing() -> None:
    @dataclass(frozen=True)
    class Short(Scripted):
        def verify_many(self, problems: Sequence[Problem], budget: Budget = UNLIMITED) -> list[Result]:
            return [result(Verdict.VERIFIED, 1.0)]

    with pytest.raises(ValueError, match="zip"):
        run([SAFE, SAFE], [Stage(Short({}))], Budget())


def test_a_stage_sees_only_what_is_open() -> None:
    first = Scripted({SAFE.id: result(Verdict.VERIFIED, 1.0), UNSAFE.id: result(margin=-3.0)}, "first")
    second = Scripted({UNSAFE.id: result(margin=-2.0)}, "second")
    third = Scripted({UNSAFE.id: result(Verdict.FALSIFIED, x=torch.tensor([0.0, 1.0]))}, "third")
    never = Scripted({}, "never")
    safe, unsafe = run([SAFE, UNSAFE], [Stage(first), Stage(second), Stage(third), Stage(never)], Budget())
    assert (first.asked, second.asked, third.asked) == ([SAFE.id, UNSAFE.id], [UNSAFE.id], [UNSAFE.id])
    assert (safe.verdict, safe.verifier, safe.stats["stages"]) == (Verdict.VERIFIED, "first", ["first"])
    assert (unsafe.verdict, unsafe.verifier) == (Verdict.FALSIFIED, "third")
    assert unsafe.stats["stages"] == ["first", "second", "third"]
    assert [step["stage"] for step in unsafe.stats["tried"]] == unsafe.stats["stages"]
    assert unsafe.stats["tried"][-1]["outcome"] == "falsified"
    assert unsafe.seconds == 3.0
    assert unsafe.margin == -2.0


def test_the_largest_margin_of_all_stages_is_kept() -> None:
    first = Scripted({UNSAFE.id: result(margin=-2.0)})
    second = Scripted({UNSAFE.id: result(margin=-3.0)})
    third = Scripted({UNSAFE.id: result()})
    assert run([UNSAFE], [Stage(first), Stage(second), Stage(third)], Budget())[0].margin == -2.0
    assert run([UNSAFE], [Stage(third)], Budget())[0].margin is None


def test_a_withdrawn_verdict_does_not_stand_but_its_alarm_does() -> None:
    liar = Scripted({UNSAFE.id: result(Verdict.VERIFIED, 1.0)}, "liar")
    honest = Scripted({UNSAFE.id: result(margin=-1.5)}, "honest")
    (seen,) = run([UNSAFE], [Stage(liar), Stage(honest)], Budget())
    assert (seen.verdict, seen.margin) == (Verdict.UNKNOWN, -1.5)
    assert "violates" in seen.stats["alarm"]


def test_an_attack_as_a_verifier() -> None:
    stage = Falsifier(PGD(steps=5))
    broken, standing = stage.verify_many([UNSAFE, SAFE], Budget())
    assert (broken.verdict, broken.guarantee) == (Verdict.FALSIFIED, Guarantee.EMPIRICAL)
    assert broken.counterexample is not None
    assert broken.counterexample.shape == (2,)
    assert (standing.verdict, standing.reason, standing.margin) == (Verdict.UNKNOWN, Reason.INCOMPLETE, None)
    assert broken.verifier == repr(PGD(steps=5))


def test_no_time_is_a_timeout_in_every_stage() -> None:
    (seen,) = run([SAFE], [Stage(IBP()), Stage(Falsifier(PGD(steps=5)))], Budget(seconds=0))
    assert (seen.verdict, seen.reason) == (Verdict.UNKNOWN, Reason.TIMEOUT)


def test_no_problems() -> None:
    assert run([], [Stage(IBP())], Budget()) == []


def test_a_targeted_falsifier_finds_what_the_nearest_disjunct_hides() -> None:
    """Unsafe are y <= -1, which the region only comes near, and 3 y >= 4.5, which looks further off from the centre."""
    network = chain((1,), [Scale(torch.tensor(1.0), torch.tensor(0.0))])
    A, b = torch.tensor([[1.0], [-3.0]]), torch.tensor([-1.0, -4.5])
    disjuncts = tuple(Polyhedron(A[i : i + 1], b[i : i + 1], torch.zeros(1, dtype=torch.bool)) for i in range(2))
    problem = Problem(network, Box(torch.tensor([-0.99]), torch.tensor([1.6])), Spec(disjuncts))
    assert Falsifier(PGD(steps=10)).verify(problem, Budget()).verdict is Verdict.UNKNOWN
    assert Falsifier(PGD(steps=10), targeted=True).verify(problem, Budget()).verdict is Verdict.FALSIFIED


def test_a_falsifier_tries_as_many_rounds_as_it_takes_and_no_more() -> None:
    @dataclass(frozen=True)
    class Late:
        """Succeeds with seed 7 only."""

        seeds: list[int] = field(default_factory=list)
        name: ClassVar[str] = "late"

        def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
            self.seeds.append(seed)
            x = torch.tensor([[0.0, 1.0]])
            return AttackResult(x, torch.tensor([seed == 7]), torch.zeros(1), torch.zeros(1), torch.ones(1).long())

    late = Late()
    assert Falsifier(late, rounds=9).verify(UNSAFE, Budget(seed=5)).verdict is Verdict.FALSIFIED  # type: ignore[arg-type]
    assert late.seeds == [5, 6, 7]
    few = Falsifier(Late(), rounds=2).verify(UNSAFE, Budget(seed=5))  # type: ignore[arg-type]
    assert few.reason is Reason.INCOMPLETE
    assert Falsifier(late, rounds=2).verify(UNSAFE, Budget(seconds=0)).reason is Reason.TIMEOUT  # type: ignore[arg-type]
