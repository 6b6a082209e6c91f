"""What a cluster would be limited by: the simulation against what is known by hand."""

import json

import pytest

from assay.benchmarks.measure import scale
from assay.benchmarks.measure.scale import Costs, simulated

FAST = Costs(1.0, 1e-3, 1e-3, 1e-5, 100.0)


def test_few_cores_are_busy_all_the_time():
    plan = simulated(4, 1e6, 0.01, 1.0, FAST)
    assert plan.cores == pytest.approx(1.0, abs=0.05)
    assert plan.pace == pytest.approx(400, rel=0.05)
    assert plan.hours == pytest.approx(1e6 / plan.pace / 3600)
    assert plan.network == pytest.approx(100 * plan.pace)


def test_many_cores_wait_for_the_one_who_serves_them():
    plan = simulated(2000, 1e8, 0.01, 1.0, FAST)
    assert plan.driver == pytest.approx(1.0)
    assert plan.pace == pytest.approx(100 / (1e-3 + 100e-5), rel=0.06)
    assert plan.cores == pytest.approx(0.25, abs=0.02)


def test_drivers_share_cores_and_instances():
    alone, shared = simulated(500, 1e8, 0.01, 1.0, FAST), simulated(2000, 1e8, 0.01, 1.0, FAST, 4)
    assert shared.pace == pytest.approx(4 * alone.pace)
    assert shared.hours == pytest.approx(alone.hours / 4)
    assert (shared.cores, shared.driver, shared.network) == (alone.cores, alone.driver, alone.network)


@pytest.mark.slow
def test_the_costs_here_are_measured_and_told(capsys):
    scale.main(["--tasks", "3", "--nodes", "2", "--cores", "2", "--task", "1", "--drivers", "1", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert all(value > 0 for value in told["costs"].values())
    assert told["cores"] == 4
    assert [plan["task"] for plan in told["plans"]] == [1.0]


@pytest.mark.slow
def test_a_row_costs_what_is_told(capsys):
    options = ["--tasks", "3", "--nodes", "1000", "--task", "1", "--drivers", "1", "--json"]
    scale.main([*options, "--row", "0.001"])
    told = json.loads(capsys.readouterr().out)
    assert told["costs"]["row"] == 0.001
    assert told["plans"][0]["pace"] == pytest.approx(1000, rel=0.1)
