"""Radii in one table: they hold the truth for everybody, are shared, and are read back as they were found."""

import json
from math import inf

import pytest
import torch

from assay.attacks import get_attack
from assay.benchmarks.harness.radii.radius_table import compare_radii, recorded_lines, spreads
from assay.benchmarks.harness.records import recorded
from assay.benchmarks.harness.records.store import Store
from assay.models.data import Dataset
from assay.verify.core.budget import Budget
from assay.verify.core.errors import AlarmError, InputError, UnsupportedError
from assay.verify.registry import get_verifier
from tests.benchmarks.harness_fakes import (
    NEEDLE,
    POINTS,
    Broken,
    Claims,
    Exact,
    Liar,
    Timid,
    dataset,
    identity,
    needle,
    two_class,
)

TRUTH = [0.05, 0.1, 0.2, 0.0, 0.0]  # of POINTS
FGSM = get_attack("fgsm")


BOTH = (Timid(), Exact())


def table(methods=BOTH, attacks=(FGSM,), points=POINTS, model=identity, share=0.0, **options):
    return compare_radii(model(), dataset(points), list(methods), list(attacks), share=share, **options)


def test_every_radius_holds_the_truth():
    found = table(methods=(get_verifier("ibp"), get_verifier("crown"), Exact()), attacks=(FGSM, get_attack("pgd")))
    for line, truth in zip(found.lines, TRUTH, strict=True):
        assert line.certified <= truth <= line.attacked + 1e-7
        assert not line.disputed
        if truth:
            radii = {name: reach.radius for name, reach in line.reaches.items()}
            assert list(radii) == ["fgsm", "pgd", "ibp", "crown", "exact"]
            assert all(truth - 1e-7 <= radii[name] <= truth + 2e-3 for name in ("fgsm", "pgd"))
            assert all(truth - 2e-3 <= radii[name] <= truth for name in ("ibp", "crown", "exact"))


def test_what_one_finds_narrows_the_search_of_the_next():
    (second,) = [s for s in table((Exact(), get_verifier("crown")), tolerance=1e-4).spreads if s.name == "crown"]
    assert second.asked <= 3 * 3  # of the three samples that are classified rightly


def test_spreads_are_the_means_and_quantiles_of_the_lines():
    found = table(tolerance=1e-5)
    by = {spread.name: spread for spread in found.spreads}
    assert list(by) == ["fgsm", "all attacks", "all methods", "timid", "exact"]
    assert by["exact"].mean == pytest.approx(0.07, abs=1e-4)
    assert by["exact"].tenths == pytest.approx((0, 0.05, 0.1), abs=1e-4)
    assert by["fgsm"].tenths == pytest.approx((0, 0.05, 0.2), abs=1e-4)
    assert by["exact"].tightness == pytest.approx(1, abs=1e-3)
    assert (by["timid"].mean, by["timid"].tightness) == (0, 0)


def test_an_attack_that_finds_nothing_has_no_distance():
    found = table((Liar(up_to=0.01),), points=[[0.5, 0.4]], model=lambda: two_class([[0.0, 0.0]] * 2, (1.0, 0.0)))
    (line,) = found.lines
    assert line.attacked == inf
    (attack, _, _, method) = found.spreads
    assert (attack.infinite, attack.mean, attack.tightness) == (1, inf, None)
    assert 0.009 <= method.mean <= 0.01


def test_who_cannot_take_part_is_told_and_the_others_go_on():
    found = table(methods=(Broken("unsupported"), Exact()))
    assert found.refused == {"broken(error=unsupported)": "no softmax"}
    assert [spread.name for spread in found.spreads][-1] == "exact"
    assert found.lines[0].certified > 0


def test_a_contradiction_is_an_alarm(tmp_path):
    found = table((Liar(),), (Claims(),), [[NEEDLE[0] - 0.01, NEEDLE[1]]], needle, alarm_folder=tmp_path)
    assert found.lines[0].disputed
    assert found.lines[0].to_json()["certified"] is None
    assert found.spreads[0].n == 0
    with pytest.raises(AlarmError):
        found.raise_alarm()
    assert (found.folders[0] / "case.npz").exists()


def run(path, resume=False, methods=BOTH, **options):
    with Store(path) as store:
        store.begin("assay compare --radius", "net", "points")
        return table(methods, name="net", store=store, resume=resume, **options)


def test_what_is_read_back_is_what_was_found(tmp_path):
    found = run(tmp_path / "s")
    with Store(tmp_path / "s") as store:
        read = recorded.read(store)
    assert read.about.tolerance == 1e-3
    assert not read.unknown
    for line, again in zip(found.lines, recorded_lines(read), strict=True):
        assert (again.sample, again.label, again.certified) == (line.sample, line.label, line.certified)
        assert again.attacked == pytest.approx(line.attacked, abs=1e-12)
        assert list(again.reaches) == list(line.reaches)
        assert [r.radius for r in again.reaches.values()] == pytest.approx([r.radius for r in line.reaches.values()])
    told = spreads(read.about.seats, recorded_lines(read))
    assert [s.tenths for s in told] == [pytest.approx(s.tenths) for s in found.spreads]
    levels = recorded.at_levels(read)
    assert len(levels.about.radii) > 2
    assert [row.name for row in levels.rows].count("exact") == len(levels.about.radii)
    for row in levels.rows:  # what follows from the radii for each eps
        if row.name == "exact":
            assert row.verified == sum(line.certified >= row.eps for line in found.lines)
        elif row.name == "all attacks":
            assert row.falsified == sum(line.attacked <= row.eps for line in found.lines)


def test_a_run_is_taken_up_where_it_ended(tmp_path):
    first = run(tmp_path / "s", budget=Budget(100))
    again = run(tmp_path / "s", resume=True, budget=Budget(100))
    assert again.resumed == sum(reach.asked for line in first.lines for reach in line.reaches.values())
    assert [line.to_json() for line in again.lines] == [line.to_json() for line in first.lines]


def test_batches_change_nothing():
    def told(found):
        return [line.to_json() for line in found.lines]

    assert told(table(batch=1)) == told(table(batch=50))


def test_plain_data_and_bad_input():
    found = table()
    document = found.to_json()
    assert json.loads(json.dumps(document)) == document
    with pytest.raises(InputError, match="tolerance"):
        table(tolerance=0.0)
    with pytest.raises(InputError, match="batch"):
        table(batch=0)
    bad = Dataset("points", "test", torch.tensor([[0.5, 0.4]]), torch.tensor([3]), 4)
    with pytest.raises(InputError, match="label 3"):
        compare_radii(identity(), bad, [Exact()], [FGSM])
    with pytest.raises(UnsupportedError, match="assay smooth"):
        table(methods=(get_verifier("smoothing(n=100)"),))
