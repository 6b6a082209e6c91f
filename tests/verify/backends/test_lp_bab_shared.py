"""``lp-bab`` by several processes: enumeration's answers, certificates of joined parts, and shares that are lost."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from assay.verify.backends.bab.programs import lp_bab, lp_shared, lp_tree
from assay.verify.backends.bab.programs.certificate import Tree
from assay.verify.backends.bab.programs.lp_bab import LPBaB
from assay.verify.backends.bab.programs.lp_shared import Parts
from assay.verify.core.errors import InternalError
from assay.verify.core.problem import Problem
from assay.verify.core.result import Result, Verdict
from assay.verify.support.executors import Ended, Fate, Job, Task
from tests.verify.backends.test_lp_bab import agrees, hard, lowered, proved
from tests.verify.programs.cases import cases


class Lost(Exception):
    """The process is gone."""


@dataclass(eq=False)
class Here:
    """An executor without processes, the last task first. ``fate``: what becomes of the parts of each share, by
    number."""

    fate: Callable[[int, Parts], Parts]
    begun: int = 0
    capacity: int = 2
    job: Job | None = None
    ground: object = None
    waiting: list[tuple[int, Task]] = field(default_factory=list)

    def submit(self, task: Task) -> None:
        self.waiting.append((self.begun, task))
        self.begun += 1

    def ended(self, seconds: float) -> list[Ended]:
        number, task = self.waiting.pop()
        parts = pickle.loads(pickle.dumps(self.job.function(self.ground, pickle.loads(pickle.dumps(task.argument)))))
        try:
            return [Ended(task, Fate.REPLIED, 0.0, self.fate(number, parts))]
        except Lost:
            return [Ended(task, Fate.DIED, 0.0, detail="killed")]

    def cancel(self, task: Task) -> None:
        pass

    def close(self) -> None:
        pass


def kept(number: int, parts: Parts) -> Parts:
    return parts


def lost_now_and_then(number: int, parts: Parts) -> Parts:
    if number % 3 == 1:
        raise Lost
    return parts


def crew(patch: pytest.MonkeyPatch, fate: Callable[[int, Parts], Parts]) -> list[Here]:
    """Every executor from now on, in place of the processes; two nodes at a time, so that there are many shares."""
    hires: list[Here] = []

    @contextmanager
    def hired(job: Job) -> Iterator[Here]:
        hires.append(Here(fate, job=job, ground=pickle.loads(pickle.dumps(job.ground))))
        yield hires[-1]

    patch.setattr(lp_shared, "SLICE", 0.0)
    patch.setattr(lp_shared, "ROUND", 1)
    patch.setattr(lp_tree, "TOGETHER", 2)
    patch.setattr(lp_bab, "NODES", 1)
    patch.setattr(lp_bab, "warm", lambda preload: None)
    patch.setattr(lp_bab, "chosen", lambda workers, cluster: hired)
    return hires


def accepted(result: Result, problem: Problem) -> bool:
    """Whether the checker accepts the trees, which are whole, after a round trip through JSON."""
    certificate = Result.from_json(result.to_json()).certificate
    assert certificate is not None
    return bool(proved(problem, certificate)["claim"] == "unsat")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "residual"])
def test_answers_are_enumerations_also_where_shares_are_lost(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hires = crew(monkeypatch, lost_now_and_then)
    for problem, true in cases(kind, range(24)):
        agrees(LPBaB(workers=2, steps=0).verify(problem), problem, true)
        result = LPBaB(optimum=True, steps=0, workers=2).verify(problem)
        agrees(result, problem, true)
        assert result.margin == pytest.approx(true, abs=1e-6)
    assert sum(hire.begun for hire in hires) > 3


@pytest.mark.parametrize("fate", [kept, lost_now_and_then])
def test_parts_make_up_trees_whose_duals_prove_them(
    fate: Callable[[int, Parts], Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    hires = crew(monkeypatch, fate)
    result = LPBaB(workers=2).verify(hard())
    assert result.verdict is Verdict.VERIFIED
    assert hires[0].begun > 3
    assert accepted(result, hard())
    best = LPBaB(optimum=True, workers=2).verify(hard())
    alone = LPBaB(optimum=True).verify(hard())
    assert best.stats["optimum"] == pytest.approx(alone.stats["optimum"], abs=1e-9)
    assert accepted(best, lowered(hard(), 1e-5 - alone.stats["optimum"]))


def without_what_is_left(number: int, parts: Parts) -> Parts:
    return replace(parts, left=parts.left.take(torch.arange(0)))


def without_a_leaf(number: int, parts: Parts) -> Parts:
    for tree in parts.trees:
        tree.leaves.clear()
    return parts


@pytest.mark.parametrize("fault", [without_what_is_left, without_a_leaf])
def test_parts_that_do_not_come_out_even_are_noticed(
    fault: Callable[[int, Parts], Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    crew(monkeypatch, fault)
    with pytest.raises(InternalError, match="not what is open there"):
        LPBaB(workers=2).verify(hard())


def test_where_all_processes_die_the_work_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    hires = crew(monkeypatch, lambda number, parts: lost_now_and_then(1, parts))
    result = LPBaB(workers=2).verify(hard())
    assert result.verdict is Verdict.VERIFIED
    assert 0 < hires[0].begun < 10
    assert accepted(result, hard())


def test_a_tree_is_put_where_a_node_is_open_and_nowhere_else() -> None:
    tree, part, leaf = Tree(), Tree(), Tree()
    first = tree.split(0, 3)
    below = part.split(part.split(0, 5), 6)
    part.close(below, 1.0, False, np.ones(1))
    leaf.close(0, 2.0, False, np.ones(1))
    numbers = tree.graft(first + 1, part)
    assert numbers == [first + 1, 3, 4, 5, 6]
    assert (tree.neuron, tree.first) == ([3, -1, 5, 6, -1, -1, -1], [1, -1, 3, 5, -1, -1, -1])
    assert list(tree.leaves) == [numbers[below]]
    assert tree.graft(first, leaf) == [first]
    assert tree.open_nodes == [4, 6]
    for node in (0, first, numbers[below]):
        with pytest.raises(InternalError, match="where there is one"):
            tree.graft(node, leaf)


@pytest.mark.slow
def test_processes_of_this_machine_agree_with_one() -> None:
    result = LPBaB(workers=2).verify(hard())
    assert result.verdict is Verdict.VERIFIED
    assert accepted(result, hard())
