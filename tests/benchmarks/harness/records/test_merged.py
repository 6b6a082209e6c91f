"""Stores of several drivers as one: nothing is lost, nothing counts twice, and contradictions are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.benchmarks.harness.compare import Comparison, compare
from assay.benchmarks.harness.records.merged import merge
from assay.benchmarks.harness.records.noted import Noted
from assay.benchmarks.harness.records.store import Key, Record, Store
from assay.verify.core.result import Reason, Result, Verdict
from tests.benchmarks.harness_fakes import POINTS, Exact, dataset, identity

X = torch.arange(12, dtype=torch.float32).reshape(3, 4)


def record(problem: str, verdict: Verdict = Verdict.VERIFIED, budget: float = 1.0) -> Record:
    reason = Reason.TIMEOUT if verdict is Verdict.UNKNOWN else None
    point = X[0] if verdict is Verdict.FALSIFIED else None
    return Record(Key(problem, "m()"), Result(problem, "m()", verdict, reason, counterexample=point), budget=budget)


def made(path: Path, command: str, records: list[Record]) -> Path:
    with Store(path) as store:
        store.put([record("of no run")])
        store.begin(command, "zoo:net", "digits")
        store.noted.describe(store.run, 2, f'{{"of": "{command}"}}')
        store.noted.note_samples(store.run, X, [1, 2, 3])
        store.noted.note_asked(store.run, [(i, 0.1, each.key.problem) for i, each in enumerate(records)])
        store.noted.enrol({(command, "net", "prop"): records[0].key.problem})
        store.put(records)
    return path


def merged(path: Path, *others: Path) -> list[Record]:
    contradicted: list[Record] = []
    with Store(path) as store:
        for other in others:
            with Store(other, read_only=True) as read:
                contradicted += merge(store, read)
    return contradicted


def test_what_two_drivers_wrote_is_there_once(tmp_path: Path) -> None:
    one = made(tmp_path / "1", "first", [record("a"), record("b", Verdict.UNKNOWN)])
    two = made(tmp_path / "2", "second", [record("b", Verdict.FALSIFIED), record("c", Verdict.UNKNOWN)])
    for _ in range(2):  # again changes nothing
        assert merged(tmp_path / "all", one, two) == []
        with Store(tmp_path / "all") as store:
            verdicts = {each.key.problem: each.result.verdict.value for each in store.read()[0]}
            assert verdicts == {"a": "verified", "b": "falsified", "c": "unknown", "of no run": "verified"}
            assert store.size == 4
            assert [run["command"] for run in store.runs()] == ["first", "second"]
            assert {number: document for number, (_, document) in store.noted.described().items()} == {
                1: '{"of": "first"}',
                2: '{"of": "second"}',
            }
            assert [store.noted.asked(number) for number in (1, 2)] == [
                [(0, 0.1, "a"), (1, 0.1, "b")],
                [(0, 0.1, "b"), (1, 0.1, "c")],
            ]
            kept = store.noted.samples(2)
            assert [(y, x.tolist()) for y, x in kept.values()] == [(i + 1, X[i].tolist()) for i in range(3)]
            assert len(store.noted.enrolled()) == 2
    with Store(one) as store:
        assert store.size == 3


def test_a_run_that_went_on_is_gone_on_with(tmp_path: Path) -> None:
    one = made(tmp_path / "1", "first", [record("a")])
    merged(tmp_path / "all", one)
    with Store(one) as store:
        store.run = 1
        store.put([record("later")])
    merged(tmp_path / "all", one)
    with Store(tmp_path / "all") as store:
        assert len(store.runs()) == 1
        assert sorted(each.key.problem for some in store.of_run(1) for each in some) == ["a", "later"]


def test_a_decided_row_is_kept_and_a_contradiction_told(tmp_path: Path) -> None:
    one = made(tmp_path / "1", "first", [record("a"), record("b")])
    two = made(tmp_path / "2", "second", [record("a", Verdict.UNKNOWN, 9.0), record("b", Verdict.FALSIFIED)])
    (told,) = merged(tmp_path / "all", one, two)
    assert told == replace(record("b"), result=told.result)
    with Store(tmp_path / "all") as store:
        assert {each.result.verdict for each in store.read()[0]} == {Verdict.VERIFIED}


@pytest.mark.slow
def test_many_rows_are_taken_a_few_at_a_time(tmp_path: Path) -> None:
    one = made(tmp_path / "1", "first", [record(f"p{i}") for i in range(1201)])
    merged(tmp_path / "all", one)
    with Store(tmp_path / "all") as store:
        assert [len(some) for some in store.of_run(1)] == [500, 500, 201]


@pytest.mark.parametrize("after", range(8))
def test_a_merge_that_is_cut_off_is_made_again_and_nothing_counts_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    one = made(tmp_path / "1", "first", [record("a"), record("b")])
    calls: list[str] = []

    def counted(owner: type, name: str) -> Callable[..., Any]:
        original = getattr(owner, name)

        def cut(self: Any, *arguments: Any) -> Any:
            if (self.file if isinstance(self, Store) else self._file).path == tmp_path / "all":
                calls.append(name)
                if len(calls) > after:
                    raise KeyboardInterrupt
            return original(self, *arguments)

        return cut

    with monkeypatch.context() as patch:
        for owner, name in (
            (Noted, "enrol"),
            (Store, "begin"),
            (Noted, "describe"),
            (Noted, "note_samples"),
            (Noted, "note_asked"),
            (Store, "put"),
        ):
            patch.setattr(owner, name, counted(owner, name))
        with suppress(KeyboardInterrupt):
            merged(tmp_path / "all", one)
    merged(tmp_path / "all", one)
    with Store(tmp_path / "all") as store:
        noted = store.noted
        assert (len(store.runs()), store.size, len(noted.samples(1)), len(noted.asked(1))) == (1, 3, 3, 2)
        assert len(noted.described()) == 1


def test_what_several_drivers_did_is_gone_on_with_from_the_whole(tmp_path: Path) -> None:
    def asked(path: str, points: Sequence[Sequence[float]], resume: bool = False) -> Comparison:
        with Store(tmp_path / path) as store:
            return compare(identity(), dataset(points), [0.04, 0.08], [Exact()], [], store=store, resume=resume)

    whole = asked("whole", POINTS)
    asked("1", POINTS[:1])
    asked("2", POINTS[1:2])
    merged(tmp_path / "all", tmp_path / "1", tmp_path / "2")
    again = asked("all", POINTS, resume=True)
    assert (whole.resumed, again.resumed) == (0, 4)
    assert [(row.name, row.eps, row.verified, row.falsified) for row in again.rows] == [
        (row.name, row.eps, row.verified, row.falsified) for row in whole.rows
    ]
