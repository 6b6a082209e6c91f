"""``bab`` by several processes: shares that are lost, and shares that do not come out even."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import inf

import pytest
import torch

from assay.verify.backends.bab import shared
from assay.verify.backends.bab.account import Account
from assay.verify.backends.bab.neurons import bab
from assay.verify.backends.bab.neurons.bab import BaB
from assay.verify.backends.bab.shared import Done, Share
from assay.verify.core.errors import InternalError
from assay.verify.core.problem import Problem
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.solving import parts
from assay.verify.solving.parts import Files
from assay.verify.support.executors import Ended, Fate, Job, Task, processes
from tests import nets
from tests.contract.test_exact_agreement import agrees
from tests.verify.programs.cases import case

NODES = BaB(
    neurons=4, passes=1, first=1, below=1, together=1, steps=1, race=False, leaves=0, tried=1, workers=3, output=False
)


class Lost(Exception):
    """The process is gone."""


@dataclass(eq=False)
class Here:
    """An executor without processes, the last task first. ``fate``: what becomes of what each share, by number, comes
    to."""

    fate: Callable[[int, Done], Done]
    begun: int = 0
    most: int = 0
    capacity: int = 3
    job: Job | None = None
    waiting: list[tuple[int, Task]] = field(default_factory=list)

    def ready(self, seconds: float = 0.0) -> bool:
        return True

    def submit(self, task: Task) -> None:
        self.waiting.append((self.begun, task))
        self.begun += 1

    def ended(self, seconds: float = inf) -> list[Ended]:
        self.most = max(self.most, len(self.waiting))
        number, task = self.waiting.pop()
        ground, argument = pickle.loads(pickle.dumps((self.job.ground, task.argument)))
        try:
            done = self.fate(number, pickle.loads(pickle.dumps(self.job.function(ground, argument))))
        except Lost:
            return [Ended(task, Fate.DIED, 0.0, detail="killed")]
        return [Ended(task, Fate.REPLIED, 0.0, done)]

    def cancel(self, task: Task) -> None:
        pass

    def close(self) -> None:
        pass

    def put(self, patch: pytest.MonkeyPatch) -> None:
        """In place of the processes."""

        @contextmanager
        def hired(job: Job) -> Iterator[Here]:
            patch.setattr(shared, "SLICE", 0.0)
            self.job = job
            yield self

        patch.setattr(bab, "chosen", lambda workers, cluster: hired)


def dies_now_and_then(number: int, done: Done) -> Done:
    if number % 3 == 1:
        raise Lost
    return done


def narrow(eps: float) -> Problem:
    """Safe, and not by much."""
    return Problem.robustness(nets.random_mlp(4, (6, 16, 16, 3)), torch.full((6,), 0.5), 0, eps)


@pytest.mark.parametrize("fate", [lambda number, done: done, dies_now_and_then])
def test_verdicts_are_the_true_ones_also_where_shares_are_lost(
    fate: Callable[[int, Done], Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = Here(fate)
    crew.put(monkeypatch)
    assert NODES.verify(narrow(0.2)).verdict is Verdict.VERIFIED
    assert crew.begun > 3
    assert crew.most > 1
    problem, true = case("mlp", 1015)
    agrees(NODES.verify(problem), problem, true)


@pytest.mark.slow
def test_where_all_processes_die_the_work_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Here(lambda number, done: dies_now_and_then(1, done))
    crew.put(monkeypatch)
    assert NODES.verify(narrow(0.2)).verdict is Verdict.VERIFIED
    assert 0 < crew.begun < 10


def test_a_reason_to_stop_is_not_forgotten_for_what_comes_in_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def fate(number: int, done: Done) -> Done:
        return replace(done, reason=Reason.NUMERICAL, left=[]) if number == stopped else done

    class AllAtOnce(Here):
        def ended(self, seconds: float = inf) -> list[Ended]:
            return [ended for _ in range(len(self.waiting)) for ended in Here.ended(self, seconds)]

    stopped = 2  # the halves of the root are 1 and 2, of which the last one is the first to be taken
    crew = AllAtOnce(fate)
    crew.put(monkeypatch)
    result = NODES.verify(narrow(0.2))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.NUMERICAL)
    assert crew.begun == 3


def without_a_node(done: Done) -> Done:
    return replace(done, left=done.left[1:])


def without_a_leaf(done: Done) -> Done:
    return replace(done, account=Account(done.account.trees))


def with_another(done: Done) -> Done:
    done.account.close(torch.tensor([3]))
    return done


@pytest.mark.parametrize("fault", [without_a_node, without_a_leaf, with_another])
def test_shares_that_do_not_come_out_even_are_noticed(
    fault: Callable[[Done], Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bab.Work, "look", lambda self, points: None)
    crew = Here(lambda number, done: fault(done))
    crew.put(monkeypatch)
    with pytest.raises(InternalError, match="do not make up"):
        NODES.verify(narrow(0.2))


@pytest.mark.slow
def test_a_process_that_is_killed_takes_nothing_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    original = processes.Processes.submit

    def submit(self: processes.Processes, task: Task) -> None:
        original(self, task)
        if len(killed) < 2:
            killed.append(next(w.process.pid for w in self.workers if w.task is task))
            os.kill(killed[-1], signal.SIGKILL)

    monkeypatch.setattr(processes.Processes, "submit", submit)
    assert replace(NODES, workers=2).verify(narrow(0.225)).verdict is Verdict.VERIFIED
    assert len(killed) == 2


def accepted(result: Result, problem: Problem) -> bool:
    files = Files.of_problem(problem)
    assert result.certificate is not None
    part = parts.of_record(files, 0, problem.spec, result.certificate)
    assert part is not None
    return files.certificate("tree", "real", [part]).check()["claim"] == "unsat"


@pytest.mark.parametrize("fate", [lambda number, done: done, dies_now_and_then])
def test_what_processes_prove_of_their_shares_makes_up_a_tree_that_is_accepted(
    fate: Callable[[int, Done], Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = Here(fate)
    crew.put(monkeypatch)
    problem = narrow(0.2)
    result = replace(NODES, proof=True).verify(problem)
    assert crew.begun > 3
    assert result.stats["closed"] == 1.0
    assert accepted(result, problem)


def without_a_fragment(done: Done) -> Done:
    return replace(done, found=None)


def without_a_proof(done: Done) -> Done:
    assert done.found is not None
    return replace(done, found=replace(done.found, closed={}))


def not_whole(done: Done) -> Done:
    assert done.found is not None
    return replace(done, found=replace(done.found, whole=False))


@pytest.mark.parametrize("fault", [without_a_fragment, without_a_proof, not_whole])
def test_without_all_that_proves_it_there_is_no_certificate(
    fault: Callable[[Done], Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = Here(lambda number, done: fault(done) if number >= 2 else done)
    crew.put(monkeypatch)
    result = replace(NODES, proof=True).verify(narrow(0.2))
    assert result.verdict is Verdict.VERIFIED
    assert result.certificate is None


def test_a_counterexample_that_is_none_here_costs_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bab.Work, "look", lambda self, points: None)
    crew = Here(lambda number, done: replace(done, witness=torch.zeros(6)) if number == 1 else done)
    crew.put(monkeypatch)
    result = NODES.verify(narrow(0.2))
    assert (result.verdict, result.stats["closed"]) == (Verdict.VERIFIED, 1.0)
    assert crew.begun > 1


class Enough(Exception):
    """There is nothing more to see."""


def test_roots_go_in_equal_shares_and_then_the_deepest_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Share] = []
    original = Here.submit

    def submit(self: Here, task: Task) -> None:
        asked.append(task.argument)
        if len(asked) == 5:
            raise Enough
        original(self, task)

    monkeypatch.setattr(Here, "submit", submit)
    monkeypatch.setattr(bab.Work, "look", lambda self, points: None)
    Here(lambda number, done: done).put(monkeypatch)
    problem = Problem.robustness(nets.random_mlp(4, (6, 16, 16, 6)), torch.full((6,), 0.5), 0, 0.4)
    with pytest.raises(Enough):
        replace(NODES, together=2, race=False).verify(problem)
    assert [(share.roots, len(share.nodes)) for share in asked[:3]] == [(True, 2), (True, 1), (True, 1)]
    assert not any(share.roots for share in asked[3:])
    assert all(0 < len(share.nodes) <= 2 for share in asked[3:])
