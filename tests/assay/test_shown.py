"""What people see of results in a console and in a notebook: short, and escaped."""

import torch

from assay.attacks import get_attack
from assay.attacks.common.interface import AttackResult
from assay.benchmarks.harness.compare import compare
from assay.benchmarks.harness.radii.radius_table import compare_radii
from assay.verify.core.result import Reason, Result, Verdict
from tests.benchmarks.harness_fakes import POINTS, Exact, Liar, dataset, identity

EVIL = "<script>alert(1)</script>"


def test_results():
    result = Result("0123456789", EVIL, Verdict.UNKNOWN, Reason.TIMEOUT, margin=-0.25, seconds=1.5)
    line = "Result(verdict unknown (timeout), margin -0.25, by <script>alert(1)</script>, guarantee numerical, "
    assert repr(result) == line + "seconds 1.5, problem 01234567)"
    html = result._repr_html_()
    assert EVIL not in html
    assert "unknown (timeout)" in html
    broken = Result("0", "pgd", Verdict.FALSIFIED, counterexample=torch.zeros(1, 8, 8))
    assert "counterexample of shape (1, 8, 8)" in repr(broken)


def test_attack_results():
    distance = torch.tensor([0.5, 0.25, 0.0])
    found = AttackResult(torch.zeros(3, 2), distance > 0, distance, distance.double(), torch.tensor([1, 2, 3]))
    assert repr(found) == "AttackResult(broken 2 of 3, distances 0.25 to 0.5, queries 2 a sample)"
    assert "2 of 3" in found._repr_html_()
    none = AttackResult(torch.zeros(0, 2), distance[:0] > 0, distance[:0], distance[:0].double(), torch.tensor([]))
    assert repr(none) == "AttackResult(broken 0 of 0, queries 0 a sample)"


def test_comparisons():
    told = compare(identity(), dataset(POINTS), [0.08], [Exact()], [get_attack("fgsm")], name=EVIL)
    assert repr(told).startswith(f"Comparison(model {EVIL}, data points (test), samples 5, eps 0.08 40.0% to 40.0%")
    html = told._repr_html_()
    assert EVIL not in html
    assert html.count("<tr>") == 1 + len(told.rows)
    lies = compare(identity(), dataset(POINTS), [0.08], [Liar()], [get_attack("fgsm")])
    assert repr(lies).startswith("Comparison(SOUNDNESS ALARMS 1")


def test_radii():
    table = compare_radii(identity(), dataset(POINTS), [Exact()], [get_attack("fgsm")], name=EVIL)
    assert "radii of 0.0" in repr(table)
    assert EVIL not in table._repr_html_()
    assert table._repr_html_().count("<tr>") == 1 + len(table.spreads)
