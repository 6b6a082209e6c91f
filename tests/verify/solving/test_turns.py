"""Who is asked when, and for how long, by an injected clock; and what an open answer is put down to."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import pytest
import torch

from assay.verify.core.budget import Budget
from assay.verify.core.network import chain, to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.core.spec import Spec
from assay.verify.solving import auto, stages, union
from assay.verify.solving.auto import Auto
from assay.verify.solving.stages import Stage, run
from tests import nets
from tests.verify.solving.clock import Clock, Searcher, Worker

OPEN = Problem(chain((2,), []), Box(torch.zeros(2), torch.ones(2)), Spec.robust(0, 2))


class Measured(Worker):
    """A worker that is known by its label, as methods are by their repr; it says that it took a second."""

    def __repr__(self) -> str:
        return self.label


def test_a_stage_gets_its_share_of_what_is_left_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock.installed(monkeypatch)
    first, second, third, last = (Worker(clock, 100.0, label) for label in "abcd")
    plan = [Stage(first, 0.25), Stage(second, 0.5, most=6.0), Stage(third, 0.5), Stage(last)]
    (result,) = run([OPEN], plan, Budget(40.0))
    assert [worker.asked for worker in (first, second, third, last)] == [[10.0], [6.0], [12.0], [12.0]]
    assert clock.now == 40.0
    assert result.reason is Reason.TIMEOUT
    assert result.stats["stages"] == ["a", "b", "c", "d"]


def test_what_a_stage_leaves_is_there_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock.installed(monkeypatch)
    quick, last = Worker(clock, 1.0, "quick"), Worker(clock, 100.0, "last")
    run([OPEN], [Stage(quick, 0.5), Stage(last)], Budget(40.0))
    assert (quick.asked, last.asked) == ([20.0], [39.0])


def test_only_who_ran_out_of_time_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock.installed(monkeypatch)
    slow, done = Worker(clock, 15.0, "slow"), Worker(clock, 1.0, "done")
    (result,) = run([OPEN], [Stage(slow, 0.1), Stage(done), Stage(slow), Stage(done), Stage(slow)], Budget(100.0))
    assert (slow.asked, done.asked) == ([10.0, 89.0], [90.0])
    assert result.reason is Reason.INCOMPLETE


def test_whoever_does_not_support_a_problem_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock.installed(monkeypatch)
    other, able = Worker(clock, 1.0, "other", beyond="no rule for Sin"), Worker(clock, 1.0, "able")
    (result,) = run([OPEN], [Stage(other), Stage(able)], Budget(40.0))
    assert (other.asked, result.stats["stages"], result.reason) == ([], ["able"], Reason.INCOMPLETE)


@pytest.mark.parametrize("attacked", [True, False])
def test_where_nobody_can_prove_anything_the_answer_says_why(attacked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock.installed(monkeypatch)
    plan = [Stage(Worker(clock, 1.0, "proof", beyond="no rule for Sin")), Stage(Worker(clock, 1.0, "b", beyond="too"))]
    (result,) = run([OPEN], [*plan, *[Stage(Searcher(clock, 100.0))] * attacked], Budget(40.0))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED)
    assert result.stats["explanation"] == "no rule for Sin"


def test_without_a_limit_of_time_whoever_would_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock.installed(monkeypatch)
    endless, long, able = Worker(clock, inf, "endless"), Worker(clock, inf, "long"), Worker(clock, 1.0, "able")
    (result,) = run(
        [OPEN], [Stage(endless, unlimited=0.0), Stage(long, unlimited=9.0), Stage(able, most=5.0)], Budget()
    )
    assert (endless.asked, long.asked, able.asked) == ([], [9.0], [5.0])
    assert result.reason is Reason.TIMEOUT


@pytest.mark.parametrize(("seconds", "asked"), [(9.0, []), (10.0, [5.0])])
def test_a_search_without_the_time_for_a_beginning_is_not_begun(
    seconds: float, asked: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock.installed(monkeypatch)
    bounds, search, other = Measured(clock, 0.0, "bounds"), Worker(clock, 1.0, "search"), Worker(clock, 1.0, "other")
    plan = [Stage(bounds), Stage(search, 0.5, price=(5, bounds)), Stage(other)]
    (result,) = run([OPEN], plan, Budget(seconds))
    assert search.asked == asked
    assert result.stats["stages"] == ["bounds", *["search"] * len(asked), "other"]


def test_no_stage_begins_once_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock.installed(monkeypatch)
    first, second = Worker(clock, 50.0, "first"), Worker(clock, 1.0, "second")
    assert run([OPEN], [Stage(first), Stage(second)], Budget(40.0))[0].reason is Reason.TIMEOUT
    assert second.asked == []


@pytest.mark.parametrize(
    ("proofs", "attack", "reason"),
    [
        ([Reason.INCOMPLETE, Reason.INCOMPLETE], 1.0, Reason.INCOMPLETE),
        ([Reason.NUMERICAL, Reason.INCOMPLETE], 1.0, Reason.NUMERICAL),
        ([Reason.NUMERICAL, Reason.MEMORY], 1.0, Reason.MEMORY),
        ([Reason.INCOMPLETE], 100.0, Reason.TIMEOUT),
        ([Reason.NUMERICAL], 100.0, Reason.NUMERICAL),
    ],
)
def test_an_open_answer_has_the_reason_that_says_most(
    proofs: list[Reason], attack: float, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock.installed(monkeypatch)
    plan = [Stage(Worker(clock, 1.0, f"p{i}", reason=each)) for i, each in enumerate(proofs)]
    assert run([OPEN], [*plan, Stage(Searcher(clock, attack))], Budget(40.0))[0].reason is reason


def test_one_by_one_the_time_is_shared_out_but_for_a_union(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock.installed(monkeypatch)
    alone, together = Worker(clock, 100.0, "alone"), Worker(clock, 100.0, "together")
    stages.decide(alone, [OPEN, OPEN, OPEN], Budget(30.0))
    assert alone.asked == [10.0, 10.0, 10.0]
    results = stages.decide(together, [OPEN, OPEN, OPEN], Budget(30.0), union=True)
    assert together.asked == [30.0]
    assert {each.reason for each in results} == {Reason.TIMEOUT}


@pytest.mark.slow
def test_the_answer_so_far_is_told_after_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, heard = Clock.installed(monkeypatch), list[Sequence[Result]]()
    plan = [Stage(Worker(clock, 1.0, "a")), Stage(Worker(clock, 100.0, "b"))]
    run([OPEN, OPEN], plan, Budget(40.0), report=heard.append)
    assert [[len(each.stats["stages"]) for each in results] for results in heard] == [[1, 1], [2, 2]]
    told = list[Result]()
    union.verify(Auto(rounds=1), [nets.trap_problem("N4")], Budget(), told.append)
    assert len(told) == len(told[-1].stats["stages"]) > 2


def easy(eps: float) -> Problem:
    """PGD breaks it at 0.2, FGSM from its centre does not; linear bounds prove it at 0.001."""
    network = to_network(nets.random_mlp(3, (4, 10, 10, 3)), (4,))
    x = torch.rand(4, generator=nets.generator(2))
    return Problem.robustness(network, x, int(network(x[None].double()).argmax()), eps)


def test_a_slow_bound_does_not_starve_the_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on large networks: linear bounds take all the time that they get, and a counterexample is easy to find."""
    clock = Clock.installed(monkeypatch)
    slow = Worker(clock, inf, "slow")
    monkeypatch.setattr(auto, "CROWN", lambda: slow)
    monkeypatch.setattr(auto, "FGSM", lambda: auto.PGD(steps=1, step_size=1e-9))
    result = Auto().verify(easy(0.9), Budget(40.0))
    assert result.verdict is Verdict.FALSIFIED
    assert sum(slow.asked) == 1.0


@pytest.mark.parametrize("eps", [0.9, 1e-3])
def test_each_verdict_is_checked_once(eps: float, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = list[Verdict]()
    check = stages.check

    def counting(problems: Sequence[Problem], results: Sequence[Result]) -> list[Result]:
        checked.extend(result.verdict for result in results if result.reason is None)
        return check(problems, results)

    monkeypatch.setattr(stages, "check", counting)
    answer = union.verify(Auto(), [easy(eps)], Budget())
    assert checked == [answer.verdict]
    assert answer.reason is None


def test_nobody_is_exempt_from_the_check() -> None:
    """A method of stages is taken apart, and each of them checked: it cannot vouch for itself."""

    class Liar(Worker):
        def verify(self, problem: Problem, budget: Budget) -> Result:
            return Result(problem.id, "liar", Verdict.VERIFIED, margin=1.0)

        def stages(self) -> list[Stage]:
            return [Stage(Liar(self.clock, 0.0))]

    assert stages.decide(Liar(Clock(), 0.0), [OPEN], Budget())[0].reason is Reason.NUMERICAL
