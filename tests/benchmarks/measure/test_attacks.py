"""The side-by-side measurement of attacks: how points and distances are counted, and a run of the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from math import inf

import pytest
import torch

from assay.benchmarks.measure.attack_peers import PEERS
from assay.benchmarks.measure.attacks import DEFAULT, MINIMAL, Subject, median_distance, robust_accuracy
from tests.attacks.attack_models import linear

# Label 0 is right where x0 > x1.
MODEL = linear([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
GIVEN = Subject(MODEL, torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.2, 0.3]]), torch.tensor([0, 0, 0]), 0.125)


def test_only_points_within_the_radius_and_the_domain_count() -> None:
    assert robust_accuracy(GIVEN, GIVEN.x, slack=0.0) == pytest.approx(2 / 3)  # the third is wrong as it is
    step = torch.tensor([[-0.125, 0.125]])
    assert robust_accuracy(GIVEN, GIVEN.x + step, slack=1e-6) == pytest.approx(1 / 3)
    assert robust_accuracy(GIVEN, GIVEN.x + 1.01 * step, slack=1e-6) == pytest.approx(2 / 3)
    outside = GIVEN.x + step
    outside[0, 1] = 1.5
    assert robust_accuracy(GIVEN, outside, slack=1.0) == pytest.approx(2 / 3)


def test_the_median_is_over_the_samples_that_are_right() -> None:
    assert median_distance(GIVEN, torch.tensor([0.25, 0.75, 0.0])) == 0.25
    assert median_distance(GIVEN, torch.tensor([inf, 0.75, 0.0])) == 0.75
    points = torch.tensor([[0.6, 0.6], [0.9, 0.1], [0.2, 0.3]])  # the second is not broken
    assert median_distance(GIVEN, points) == pytest.approx(0.2)


def test_every_peer_stands_beside_an_attack_of_ours() -> None:
    assert {name for table in PEERS.values() for name in table} <= {*DEFAULT.split(","), *MINIMAL}


@pytest.mark.slow
def test_the_command_measures_with_peers_and_without() -> None:
    arguments = ["--model", "zoo:digits-mlp-pgd", "--samples", "20", "--attacks", "fgsm,ddn", "--json"]
    run = subprocess.run(
        [sys.executable, "-m", "assay.benchmarks.measure.attacks", *arguments],
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    document = json.loads(run.stdout)
    assert document["n"] == 20
    first, second = (row for row in document["rows"] if row["library"] == "assay")
    assert 0 < first["accuracy"] <= document["clean"]
    assert second["median"] > 0
