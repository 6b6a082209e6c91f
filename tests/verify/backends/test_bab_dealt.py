"""First searches below roots, and trees of neurons' bounds, by several processes: what is lost is done here, and what
does not come out even is noticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from assay.verify.backends.bab.neurons import bab, refined, subtrees
from assay.verify.backends.bab.neurons.bab import BaB
from assay.verify.backends.bab.neurons.dealt import First, Rows, Said
from assay.verify.backends.bab.shared import Share
from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.errors import InternalError
from assay.verify.core.problem import Problem
from assay.verify.core.result import Reason, Verdict
from tests import nets
from tests.contract.test_exact_agreement import agrees
from tests.verify.backends.test_bab import made
from tests.verify.backends.test_bab_shared import Here, Lost, accepted
from tests.verify.programs.cases import case

DEALT = BaB(neurons=4, passes=1, first=1, below=20, together=1, steps=1, leaves=2, workers=3, output=False)
KINDS = (First, Rows, Share)


@pytest.fixture(autouse=True)
def _little_after_refining(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that something is left to be shared."""
    monkeypatch.setattr(subtrees, "AFTER", 1)


def deep() -> Problem:
    """Safe, and not by much."""
    network = nets.random_mlp(1, (4, 10, 10, 10, 3))
    centre = torch.full((4,), 0.5)
    return Problem.robustness(network, centre, int(network(centre[None]).argmax()), 0.15)


def as_they_are(number: int, reply: Any) -> Any:
    return reply


def every_third_is_lost(number: int, reply: Any) -> Any:
    if number % 3 == 1:
        raise Lost
    return reply


def all_are_lost(number: int, reply: Any) -> Any:
    raise Lost


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[type]:
    """How often processes were asked what."""
    kinds: Counter[type] = Counter()
    original = Here.submit

    def submit(self: Here, task: Any) -> None:
        kinds[type(task.argument)] += 1
        original(self, task)

    monkeypatch.setattr(Here, "submit", submit)
    return kinds


@pytest.mark.parametrize("fate", [as_they_are, every_third_is_lost, pytest.param(all_are_lost, marks=pytest.mark.slow)])
def test_verdicts_are_the_true_ones_whatever_is_lost(
    fate: Callable[[int, Any], Any], asked: Counter[type], monkeypatch: pytest.MonkeyPatch
) -> None:
    Here(fate).put(monkeypatch)
    assert DEALT.verify(deep()).verdict is Verdict.VERIFIED
    assert all(asked[kind] for kind in KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1016))
def test_verdicts_are_the_exact_ones(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    Here(every_third_is_lost).put(monkeypatch)
    problem, true = case("mlp", seed)
    agrees(DEALT.verify(problem), problem, true)


@pytest.mark.parametrize("fate", [pytest.param(as_they_are, marks=pytest.mark.slow), every_third_is_lost])
def test_what_processes_prove_makes_up_a_certificate_that_is_accepted(
    fate: Callable[[int, Any], Any], asked: Counter[type], monkeypatch: pytest.MonkeyPatch
) -> None:
    Here(fate).put(monkeypatch)
    problem = deep()
    assert accepted(replace(DEALT, proof=True).verify(problem), problem)
    assert all(asked[kind] for kind in KINDS)


def test_processes_that_are_not_there_yet_are_not_waited_for(
    asked: Counter[type], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Here, "ready", lambda self, seconds=0.0: False)
    Here(as_they_are).put(monkeypatch)
    assert DEALT.verify(deep()).verdict is Verdict.VERIFIED
    assert not asked[First]
    assert not asked[Rows]
    assert asked[Share]


def test_what_is_tried_again_has_what_is_left_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[int, list[tuple[float, float]]] = {}
    tags = []
    original = Here.submit

    def submit(self: Here, task: Any) -> None:
        if not isinstance(task.argument, Share):
            tags.append(task.tag)  # so that no other one has its place
            given.setdefault(id(task.tag), []).append((task.seconds, task.argument.seconds))
        original(self, task)

    monkeypatch.setattr(Here, "submit", submit)
    Here(every_third_is_lost).put(monkeypatch)
    assert DEALT.verify(deep(), Budget(600)).verdict is Verdict.VERIFIED
    again = [times for times in given.values() if len(times) > 1]
    assert again
    for times in again:
        assert all(whole == own for whole, own in times)
        assert all(after < before for (before, _), (after, _) in pairwise(times))


def wholly_closed(said: Said) -> Said:
    return replace(said, done=replace(said.done, left=[]))


def closes_another(said: Said) -> Said:
    said.done.account.close(torch.tensor([3]))
    return said


@pytest.mark.parametrize("fault", [wholly_closed, closes_another])
def test_roots_that_do_not_come_out_even_are_noticed(
    fault: Callable[[Said], Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    Here(lambda number, reply: fault(reply) if isinstance(reply, Said) else reply).put(monkeypatch)
    with pytest.raises(InternalError, match="do not make up"):
        DEALT.verify(deep())


@pytest.mark.slow
def test_a_counterexample_that_is_none_here_leaves_the_roots_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(number: int, reply: Any) -> Any:
        return replace(reply, done=replace(reply.done, witness=torch.zeros(4))) if isinstance(reply, Said) else reply

    crew = Here(fault)
    crew.put(monkeypatch)
    assert DEALT.verify(deep()).verdict is Verdict.VERIFIED
    assert crew.begun > 1


def test_a_process_without_time_says_so_and_its_roots_stay_open() -> None:
    problem = deep()
    method = replace(DEALT, workers=1)
    work = bab.Work(method, problem, UNLIMITED)
    relaxed = work.root()
    compact = bab.Compact.of(relaxed)
    ground = bab.Ground(method, problem, relaxed.bounds, compact, (0, 1), 2**30)
    roots = work.trees(relaxed.bounds, compact, (0, 1)).roots()
    said = bab.shared_out(ground, First(roots, 1, method.plan.raced[0], 1.0, 0.0))
    assert said.done.reason is Reason.TIMEOUT
    assert said.done.account.leaves == 0
    assert (
        bab.shared_out(
            ground,
            Rows(
                refined.Layer(1, torch.arange(1), *compact.bounds(), refined.Refining(1, 1, method.plan.raced[0])),
                torch.arange(2),
                0.0,
            ),
        )
        == []
    )


def test_rows_of_a_layer_come_to_what_they_come_to_together() -> None:
    at = made("mlp", 1001)
    how = DEALT.plan.raced[0]
    parts: list[int] = []

    def halves(compact: Any, layer: Any, rows: Any, budget: Any) -> Iterator[refined.Grown]:
        mine = torch.cat(list(rows))
        parts.append(len(mine))
        for some in (mine[1::2], mine[::2]):
            yield from Rows(layer, some, 1.0).grown(compact, budget, False)

    refining = refined.Refining(3, 3, how)
    together = refined.refine(at.compact, *at.compact.bounds(), refining, UNLIMITED)
    apart = refined.refine(at.compact, *at.compact.bounds(), refining, UNLIMITED, grow=halves)
    assert parts
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(together, apart, strict=True))
