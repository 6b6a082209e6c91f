"""The run of very many instances, on a few: every verdict is there, and right."""

import json

import pytest

from assay.benchmarks.measure import scale
from assay.benchmarks.measure.million import expected, measured, point
from assay.verify.support.executors.inline import here


def test_every_instance_is_stored_once_and_right(tmp_path):
    told = measured(3000, 700, here, tmp_path / "s.sqlite")
    assert (told.instances, told.resumed, told.wrong) == (3000, 3000, 0)


def test_what_is_expected_is_what_the_points_say():
    by_hand = sum(x - y > 0.1 + 1e-9 for x, y in map(point, range(2500)))
    assert expected(2500) == by_hand
    assert expected(1_000_000 + 2500) == expected(1_000_000) + by_hand


@pytest.mark.slow
def test_the_figures_are_told(capsys):
    scale.main(["million", "--instances", "5000", "--workers", "1", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["instances"], told["wrong"]) == (5000, 0)
    assert all(told[name] > 0 for name in ("wall", "driver", "resume", "totals", "verdicts"))
