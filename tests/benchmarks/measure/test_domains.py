"""Tests of benchmarks.measure.domains: domains are told apart, and their bounds hold and rise."""

from __future__ import annotations

import pytest
import torch

from assay.benchmarks.measure.domains import Split, main
from assay.models import data, zoo
from assay.verify.core.problem import Problem


def test_bounds_of_domains_hold_where_their_phases_do_and_rise_with_steps() -> None:
    card = zoo.card("digits-mlp-pgd")
    test = data.load(card.data).take(1)
    with torch.no_grad():
        problem = Problem.robustness(zoo.load("digits-mlp-pgd"), test.x[0], int(test.y[0]), 0.1)
        split = Split.of(problem, 8)
        plain, raised = split.bounds(0), split.bounds(10)
        x = problem.region.sample(64, torch.Generator().manual_seed(0))
        margins = problem.spec.rows(problem.network(x).flatten(1))[:, 0]
    assert len(split.nodes) == len(plain) == 8
    assert (split.nodes.phase.abs().sum(0) == 3).all()
    assert raised.sum() > plain.sum()
    assert min(plain.min(), raised.min()) <= margins.min() + 1e-5


def test_numbers_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--steps", "many"])
    assert "numbers as --steps" in capsys.readouterr().err
