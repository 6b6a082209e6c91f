"""Entries of RobustBench's leaderboard say what a run knows, and nothing else."""

from dataclasses import replace

import pytest

from assay.attacks import get_attack
from assay.benchmarks.harness.bracket import ALL_ATTACKS, Role
from assay.benchmarks.harness.compare import compare
from assay.benchmarks.report.leaderboard import STANDARD, entries
from assay.verify.core.errors import UnsupportedError
from tests.benchmarks.harness_fakes import POINTS, Exact, dataset, identity

RADII = [8 / 255, 0.08]


@pytest.fixture(scope="module")
def comparison():
    return compare(identity(), dataset(POINTS), RADII, [Exact()], [get_attack("fgsm")], name="net")


def with_autoattack(comparison, spared):
    """The same with a row of AutoAttack at the first eps, in which it breaks fewer samples than are broken."""
    row = next(row for row in comparison.rows if row.name == ALL_ATTACKS and row.eps == RADII[0])
    own = replace(row, role=Role.ATTACK, name="autoattack", key=STANDARD, falsified=row.falsified - spared)
    return replace(comparison, rows=(*comparison.rows, own))


def test_an_entry_has_the_figures_of_the_run(comparison):
    near, far = entries(comparison)
    assert near == {
        "name": "net",
        "dataset": "points",
        "threat_model": "Linf",
        "eps": "8/255",
        "clean_acc": "60.00",
        "autoattack_acc": None,
        "external": "60.00",
        "footnote": "5 samples, at least 60.00% certified",
    }
    assert (far["eps"], far["external"]) == ("0.08", "40.00")


def test_autoattack_of_the_published_budget_has_the_figure(comparison):
    near, far = entries(with_autoattack(comparison, spared=0))
    assert (near["autoattack_acc"], "external" in near) == ("60.00", False)
    assert far["autoattack_acc"] is None
    near, _ = entries(with_autoattack(comparison, spared=1))
    assert (near["autoattack_acc"], near["external"]) == ("80.00", "60.00")


def test_norms_without_a_leaderboard_are_refused(comparison):
    with pytest.raises(UnsupportedError, match="linf and l2, this run is in l1"):
        entries(replace(comparison, norm=1.0))
