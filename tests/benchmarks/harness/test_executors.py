"""The same comparison wherever it runs, and another model under the same name refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from assay.attacks import get_attack
from assay.benchmarks.harness.asking import Asked, Ground
from assay.benchmarks.harness.attacked import Share, attack_all
from assay.benchmarks.harness.compare import Comparison, compare
from assay.benchmarks.harness.radii.radius_table import compare_radii
from assay.benchmarks.harness.records.store import Store
from assay.benchmarks.harness.smoothed import certify
from assay.benchmarks.harness.sources import Held, Named
from assay.models.data import load
from assay.models.zoo import load as zoo
from assay.verify import get_verifier
from assay.verify.backends.smoothing.method import Smoothing
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.result import Reason, Verdict
from assay.verify.support import devices
from assay.verify.support.executors import Ended, Fate, Job
from assay.verify.support.executors.inline import here
from assay.verify.support.executors.processes import side_by_side
from tests import commands

NAME = "digits-mlp-pgd"
METHODS = ["ibp", "lp", "smoothing(n=50,n0=10)"]


def bracket(folder: Path, hiring=here, source=None, resume=False) -> tuple[Comparison, dict]:
    """A comparison of everything that is asked in a way of its own, and what its store holds."""
    attacks = [get_attack("fgsm"), get_attack("pgd(steps=3,random_start=true)")]
    methods = [get_verifier(text) for text in METHODS]
    with Store(folder) as store:
        done = compare(
            zoo(NAME),
            load("digits").take(5),
            [0.03, 0.06],
            methods,
            attacks,
            budget=Budget(seed=3),
            batch=3,
            store=store,
            hiring=hiring,
            source=source,
            resume=resume,
        )
        records, _ = store.read()
    return done, {(r.key, r.sample, r.eps): replace(r.result, seconds=0.0, stats={}).to_json() for r in records}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield bracket(tmp_path_factory.mktemp("alone") / "s.sqlite")
    torch.set_num_threads(threads)


@pytest.mark.parametrize("source", [None, pytest.param(Named(f"zoo:{NAME}"), marks=pytest.mark.slow)])
def test_processes_say_what_this_one_says(tmp_path, source, alone):
    one, kept = alone
    shared, both = bracket(tmp_path / "shared.sqlite", side_by_side(2), source)
    assert both == kept
    assert [replace(row, seconds=0.0) for row in shared.rows] == [replace(row, seconds=0.0) for row in one.rows]


@dataclass(frozen=True)
class Changed:
    """A file that was changed after the run began."""

    folder: Path

    def load(self):
        model = zoo(NAME)
        with torch.no_grad():
            next(model.parameters()).mul_(1.001)
        return model


def test_on_an_accelerator_buffers_take_half_of_what_is_free_there(monkeypatch):
    data = load("digits").take(2)
    ground = Ground(Held(zoo(NAME)), "", data, inf, Budget(seconds=3), ())
    assert ground.limits is ground.budget
    monkeypatch.setattr(devices, "free", lambda device: 10**12 + len(device))
    monkeypatch.setattr("assay.verify.core.budget._check_device", lambda device: None)
    there = replace(ground, budget=Budget(seconds=3, device="cuda"))
    assert there.limits == Budget(seconds=3, device="cuda", memory=(10**12 + 4) // 2)


def test_another_model_under_the_same_name_is_refused(tmp_path):
    with pytest.raises(InputError, match="not the one that the run began with"):
        bracket(tmp_path / "s.sqlite", side_by_side(1), Changed(tmp_path))


def test_weights_that_change_on_the_way_are_refused(tmp_path):
    factory, weights = tmp_path / "net.py", tmp_path / "w.safetensors"
    factory.write_text(
        "import torch\ndef net(): return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()\n"
    )
    named = Named(f"{factory}:net", weights)
    torch.manual_seed(0)
    for seed in range(2):
        save_file({"1.weight": torch.rand(10, 64) + seed, "1.bias": torch.zeros(10)}, weights)
        if seed == 0:
            model = named.load()
    data, ask = load("digits").take(4), [get_verifier("ibp")]
    with pytest.raises(InputError, match="not the one that the run began with"):
        compare(model, data, [0.01], ask, [], hiring=side_by_side(1), source=named)
    assert compare(model, data, [0.01], ask, [], hiring=side_by_side(1), source=Held(model)).rows


def test_what_nobody_else_can_import_is_named(tmp_path):
    class Local(torch.nn.Linear):
        pass

    model = torch.nn.Sequential(torch.nn.Flatten(), Local(64, 10)).eval()
    with pytest.raises(InputError, match="cannot be sent to other processes"):
        compare(model, load("digits").take(2), [0.01], [get_verifier("ibp")], [], hiring=side_by_side(1))


@pytest.mark.slow
def test_smoothing_by_processes_says_what_this_one_says():
    model, data, method = zoo(NAME), load("digits").take(6), Smoothing("gaussian", 0.1, 100, 10)
    alone, shared = (
        {row.index: replace(row, seconds=0.0) for row in certify(model, data, method, 2.0, 5, range(6), hiring=hiring)}
        for hiring in (here, side_by_side(2))
    )
    assert shared == alone


@pytest.mark.parametrize("resume", [False, True])
def test_radii_by_processes_are_those_of_this_one(tmp_path, resume):
    data, methods, attacks = load("digits").take(4), [get_verifier("ibp")], [get_attack("fgsm")]
    tables = []
    for name, hiring in (("alone", here), ("shared", side_by_side(2))):
        if resume:
            name = "alone"
        with Store(tmp_path / name) as store:
            how = {"tolerance": 0.01, "batch": 2, "store": store, "resume": resume, "budget": Budget(seed=1)}
            tables.append(compare_radii(zoo(NAME), data, methods, attacks, hiring=hiring, **how))
            kept = {(r.key, r.sample, r.eps): r.result.verdict for r in store.read()[0]}
            tables[-1] = tables[-1], kept, store.noted.asked(store.run)
    (one, kept, asked), (other, both, too) = tables
    assert both == kept
    assert too == asked
    assert [(line.certified, line.attacked) for line in other.lines] == [(a.certified, a.attacked) for a in one.lines]
    assert other.resumed == (len(kept) if resume else 0)


@pytest.mark.slow
def test_attacks_by_processes_find_what_this_one_finds():
    attacks = [get_attack("fgsm"), get_attack("square(queries=20)")]
    model, data = zoo(NAME), load("digits").take(6)
    one, two = (
        attack_all(model, data, [0.05, 0.1], attacks, batch=4, seed=2, hiring=hiring)
        for hiring in (here, side_by_side(2))
    )
    assert [each.name for each in two.found] == [each.name for each in one.found]
    for mine, others in zip(one.found, two.found, strict=True):
        for part in ("success", "adversarial", "distance", "queries"):
            assert torch.equal(getattr(mine, part), getattr(others, part))


@dataclass(eq=False)
class Losing:
    """An executor in which tasks meet this fate if the samples that they are about are said to."""

    job: Job
    fate: Fate
    loses: Callable[[list[int]], bool]
    capacity: int = 2
    asked: list = field(default_factory=list)
    waiting: list = field(default_factory=list)

    def submit(self, task):
        self.waiting.append(task)

    def ended(self, seconds=inf):
        task = self.waiting.pop(0)
        self.asked.append(samples_of(task.argument))
        if self.loses(self.asked[-1]):
            return [Ended(task, self.fate, 1.0, detail="killed by SIGSEGV")]
        return [Ended(task, Fate.REPLIED, 1e-9, self.job.function(self.job.ground, task.argument))]


def samples_of(argument):
    """Whatever a task of these runs asks."""
    match argument:
        case Asked(samples=samples):
            return list(samples)
        case Share(start=start, count=count):
            return list(range(start, start + count))
        case (samples, _):
            return list(samples)
        case index:
            return [index]


def losing(fate, loses):
    """How to hire one, and those who are hired."""
    hired = []

    @contextmanager
    def hiring(job):
        hired.append(Losing(job, fate, loses))
        yield hired[-1]

    return hiring, hired


def on_two(samples):
    return 2 in samples


def test_a_sample_that_kills_each_process_is_an_open_row_and_the_comparison_goes_on(tmp_path):
    hiring, hired = losing(Fate.DIED, on_two)
    data, ask = load("digits").take(6), [get_verifier("ibp")]
    runs = []
    for how, resume in ((hiring, False), (here, True)):
        with Store(tmp_path / "s.sqlite") as store:
            runs.append(compare(zoo(NAME), data, [0.01], ask, [], store=store, resume=resume, hiring=how))
            verdicts = {record.sample: record.result.verdict for record in store.read()[0]}
            assert verdicts[2] is (Verdict.VERIFIED if resume else Verdict.UNKNOWN)
    broken, again = runs
    assert [(one.exit_code, one.why) for one in broken.lost] == [
        (70, "a process ended in the midst of ibp on sample 2 at eps 0.01: killed by SIGSEGV")
    ]
    (row,) = [row for row in broken.rows if row.name == "ibp"]
    assert (row.verified, row.reasons) == (4, {"solver": 1})
    assert row.explanations == {"solver": "killed by SIGSEGV"}
    assert (again.resumed, again.lost) == (4, ())
    assert len(hired[0].asked) == 2 + 2 + 4  # twice together, then each alone and the one that dies twice


def test_a_sample_that_kills_each_process_stands_and_the_attacks_go_on():
    hiring, _ = losing(Fate.DIED, on_two)
    data, attacks = load("digits").take(6), [get_attack("fgsm"), get_attack("pgd(steps=2)")]
    alone, broken = (attack_all(zoo(NAME), data, [0.5], attacks, batch=4, hiring=how) for how in (here, hiring))
    others = [0, 1, 3, 4, 5]
    for mine, theirs in zip(alone.found, broken.found, strict=True):
        assert torch.equal(mine.success[:, others], theirs.success[:, others])
        assert torch.equal(mine.adversarial[:, others], theirs.adversarial[:, others])
        assert mine.success[0, 2]
        assert not theirs.success[0, 2]
        assert torch.equal(theirs.adversarial[0, 2], data.x[2])
        assert theirs.distance[2] == inf
    assert sorted(one.what for one in broken.lost) == ["fgsm on samples 2 to 2", "pgd(steps=2) on samples 2 to 2"]


def test_a_sample_that_kills_each_process_has_no_radius_and_the_search_goes_on():
    hiring, _ = losing(Fate.DIED, on_two)
    data, methods, attacks = load("digits").take(4), [get_verifier("ibp")], [get_attack("fgsm")]
    tables = [compare_radii(zoo(NAME), data, methods, attacks, batch=1, hiring=how) for how in (here, hiring)]
    alone, broken = ([(line.certified, line.attacked) for line in table.lines] for table in tables)
    assert broken == [*alone[:2], (0.0, inf), alone[3]]
    assert alone[2] != (0.0, inf)
    assert tables[1].lines[2].reaches["ibp"].reason is Reason.SOLVER
    assert [one.exit_code for one in tables[1].lost] == [70]


def test_a_sample_that_kills_each_process_is_not_certified_and_smoothing_goes_on():
    hiring, _ = losing(Fate.MEMORY, on_two)
    method = Smoothing("gaussian", 0.1, 100, 10)
    rows = {
        row.index: row for row in certify(zoo(NAME), load("digits").take(4), method, 2.0, 0, range(4), hiring=hiring)
    }
    assert {index for index, row in rows.items() if row.lost is None} == {0, 1, 3}
    assert (rows[2].prediction, rows[2].radius, rows[2].lost.exit_code) == (-1, 0.0, 60)


def test_one_question_that_overruns_its_time_costs_no_other_one_its_answer(tmp_path):
    hiring, hired = losing(Fate.TIMEOUT, lambda samples: len(samples) > 1 or 2 in samples)
    data, ask = load("digits").take(6), [get_verifier("lp")]
    with Store(tmp_path / "s.sqlite") as store:
        compare(zoo(NAME), data, [0.01], ask, [], budget=Budget(10), store=store, hiring=hiring)
        verdicts = {record.sample: record.result.verdict for record in store.read()[0]}
    assert verdicts == {i: Verdict.UNKNOWN if i == 2 else Verdict.VERIFIED for i in (0, 2, 3, 4, 5)}
    assert any(len(samples) > 1 for samples in hired[0].asked)


def killed(path):
    """A run whose process ends in the midst of it, as if killed: nothing is closed."""
    put = Store.put

    def last(self, records):
        put(self, records)
        if len(self.read()[0]) > 6:
            os._exit(9)
        return []

    Store.put = last
    bracket(path, side_by_side(2))


@pytest.mark.slow
def test_a_run_whose_first_process_is_killed_goes_on_where_it_was(tmp_path, alone):
    path = tmp_path / "s.sqlite"
    process = commands.forked(tmp_path, killed, [path])
    _, err = process.communicate(timeout=300)
    assert process.returncode == 9, err
    one, kept = alone
    with Store(path) as store:
        left = {(r.key, r.sample, r.eps) for r in store.read()[0]}
    assert 6 < len(left) < len(kept)
    resumed, both = bracket(path, resume=True)
    assert both == kept
    assert resumed.resumed == len(left)
    assert [replace(row, seconds=0.0) for row in resumed.rows] == [replace(row, seconds=0.0) for row in one.rows]
