"""Linear bounds over balls in l2: one row a ball, one column a method, and what the table is to show."""

from __future__ import annotations

import json

import pytest

from assay.benchmarks.measure import balls
from assay.benchmarks.measure.balls import BALLS, METHODS, main
from assay.models import zoo
from assay.verify.registry import get_verifier

ONE = ["--balls", "digits-mlp-pgd:2:0.3", "--samples", "3"]


def test_the_nets_are_in_the_zoo_and_the_methods_are_methods() -> None:
    assert {ball.net for ball in BALLS} <= set(zoo.names())
    assert all(ball.norm == 2 for ball in BALLS)
    for method in METHODS:
        get_verifier(method)


@pytest.mark.slow
def test_sectors_prove_more(capsys: pytest.CaptureFixture[str]) -> None:
    main([*ONE, "--methods", "crown(sectors=False),crown,alpha-crown", "--json"])
    cells = json.loads(capsys.readouterr().out)["cells"]
    plain, crown, alpha = (cell["margin"] for cell in cells)
    assert plain + 0.1 < crown <= alpha
    assert all(cell["verified"] <= 3 and cell["eps"] == 0.3 for cell in cells)


def test_the_table_has_a_row_a_ball_and_a_column_a_method(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--balls", "digits-mlp-pgd:2:0.1,digits-mlp-pgd:2:0.2", "--samples", "1", "--methods", "ibp,crown"])
    head, rule, *rows, _, spent = capsys.readouterr().out.strip().splitlines()
    assert spent.startswith("1 images, ")
    assert head == "| ball | `ibp` | `crown` |"
    assert rule == "|-|-|-|"
    assert [row.split(" | ")[0] for row in rows] == ["| `digits-mlp-pgd` l2 0.1", "| `digits-mlp-pgd` l2 0.2"]


@pytest.mark.parametrize("wrong", [["--balls", "digits"], ["--samples", "0"], ["--seconds", "0"]])
def test_what_cannot_be_asked(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        balls.main(wrong)
