"""A run seen from beside: while it goes on and at its end, as it tells itself, and the store is only read."""

from dataclasses import dataclass, field
from math import inf
from typing import ClassVar

import pytest

from assay.attacks import get_attack
from assay.benchmarks.harness import watching
from assay.benchmarks.harness.compare import compare
from assay.benchmarks.harness.progress import Silent
from assay.benchmarks.harness.radii.radius_table import compare_radii
from assay.benchmarks.harness.records.store import Store
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from tests.benchmarks.harness_fakes import POINTS, Exact, Timid, dataset, identity

FGSM = get_attack("fgsm")


@dataclass
class Looking(Silent):
    """Looks at the store in the midst of the run."""

    path: str
    seen: list = field(default_factory=list)
    found: list = field(default_factory=list)
    name: ClassVar[str] = "looking"

    def advance(self, amount):
        with Store(self.path, read_only=True) as store:
            self.seen.append(watching.look(store))

    def so_far(self, found):
        self.found.append(found)


def compared(path, **options):
    with Store(path) as store:
        store.begin("assay compare", "net", "points")
        return compare(identity(), dataset(POINTS), [0.04, 0.08], [Timid(), Exact()], [FGSM], store=store, **options)


def look(path, run=None):
    with Store(path, read_only=True) as store:
        return watching.look(store, run)


def test_the_end_is_what_the_run_says(tmp_path):
    comparison = compared(tmp_path / "s")
    sight = look(tmp_path / "s")
    assert (sight.ended, sight.done, sight.total, sight.left, sight.n, sight.run) == (True, 18, 18, 0, 5, 1)
    assert (sight.command, sight.model, sight.counts["unknown"]) == ("assay compare", "net", 11)
    assert [(r.name, r.eps, r.verified, r.falsified) for r in sight.rows] == [
        (r.name, r.eps, r.verified, r.falsified) for r in comparison.rows
    ]


def test_runs_of_other_seeds_are_not_counted(tmp_path):
    for seed in (0, 1):
        compared(tmp_path / "s", budget=Budget(seed=seed))
    for run in (1, 2):
        sight = look(tmp_path / "s", run)
        assert (sight.done, sight.total) == (18, 18)


def test_a_run_under_way_is_seen_by_halves(tmp_path):
    """Jaws over fewer samples, or with less said of them, never lie inside of those at the end."""
    looking = Looking(tmp_path / "s")
    comparison = compared(tmp_path / "s", progress=looking, batch=2)
    done = [sight.done for sight in looking.seen]
    assert done == sorted(done)
    assert done[-1] == 18
    assert not any(sight.ended for sight in looking.seen)
    assert all(sight.left < inf for sight in looking.seen)
    ends = [row for row in comparison.rows if row.name in ("all attacks", "all methods")]
    for row in (row for sight in looking.seen for row in sight.rows):
        for end in ends:
            if (row.name, row.eps) == (end.name, end.eps):
                assert row.verified <= end.verified
                assert row.falsified <= end.falsified
    assert looking.found[-1] == "66.7% to 66.7% at eps 0.08 of 3".join(["100.0% to 100.0% at eps 0.04, ", ""])


def test_a_search_for_radii_is_seen_too(tmp_path):
    looking = Looking(tmp_path / "s")
    with Store(tmp_path / "s") as store:
        store.begin("assay compare --radius", "net", "points")
        table = compare_radii(identity(), dataset(POINTS), [Exact()], [FGSM], store=store, progress=looking)
    sight = look(tmp_path / "s")
    assert (sight.ended, sight.done, sight.total, sight.n) == (True, 6, 6, 5)
    right = [line.certified for line in table.lines if line.predicted == line.label]
    assert next(s for s in sight.spreads if s.name == "exact").mean == pytest.approx(sum(right) / 5)
    assert "in the mean of 5" in looking.found[-1]
    assert looking.seen[-1].done <= 6


def test_what_there_is_not(tmp_path):
    with Store(tmp_path / "s"):
        pass
    with pytest.raises(InputError, match="no run 0: it has none"):
        look(tmp_path / "s")
    with Store(tmp_path / "s") as store:
        store.begin("assay bench", "auto", "folder")
    sight = look(tmp_path / "s")
    assert (sight.done, sight.total, sight.ended) == (0, 0, False)
    with pytest.raises(InputError, match="its runs are 1 to 1"):
        look(tmp_path / "s", 2)


def test_the_store_is_only_read(tmp_path):
    compared(tmp_path / "s")
    with Store(tmp_path / "s", read_only=True) as store, pytest.raises(InputError, match="readonly"):
        store.begin("assay", "net", "points")
    with pytest.raises(InputError, match="cannot"), Store(tmp_path / "none", read_only=True):
        pass
    assert not (tmp_path / "none").exists()
