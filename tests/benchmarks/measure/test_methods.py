"""The table of all methods: every one has a row, cells say what was proved and why not more."""

from __future__ import annotations

import json
import re
from math import inf, isfinite
from pathlib import Path

import pytest

from assay.benchmarks.measure import methods
from assay.benchmarks.measure.methods import BALLS, Ball, Cell, main, markdown, measure
from assay.models import zoo
from assay.verify.core.result import NETWORK
from assay.verify.registry import list_verifiers

PGD = Ball("digits-mlp-pgd", inf, 0.05)
DOCS = Path(__file__).parents[3] / "docs" / "methods.md"


def test_every_method_has_a_row_and_the_nets_are_in_the_zoo() -> None:
    rows = {text.partition("(")[0] for text in methods.methods()}
    assert rows == {name for name in list_verifiers() if not name.endswith("-attack")}
    assert {ball.net for ball in BALLS} <= set(zoo.names())
    assert len({ball.net for ball in BALLS}) == 4


def test_the_page_shows_all_rows_and_columns() -> None:
    page = DOCS.read_text(encoding="utf-8")
    for text in methods.METHODS:
        assert re.search(rf"^\| `{re.escape(text)}`( \\\*)? \|( [^|]+ \|){{{len(BALLS)}}}$", page, re.MULTILINE), text
    for ball in BALLS:
        assert ball.title in page


@pytest.mark.parametrize("method", ["crown", "milp", "lipschitz"])
def test_a_cell_is_what_the_method_says_of_each_image(method: str) -> None:
    cell = measure(method, PGD, samples=3, seconds=30, image_seconds=10)
    assert (cell.samples, cell.asked, cell.subject) == (3, 3, NETWORK)
    assert cell.verified + cell.falsified <= 3
    assert (cell.falsified == 0) or method == "milp"
    assert cell.margin is not None
    assert isfinite(cell.margin)
    assert cell.word == ""
    assert cell.seconds > 0


@pytest.mark.slow
def test_tighter_methods_have_larger_margins() -> None:
    margins = [measure(text, PGD, 3, 30, 10).margin for text in ("ibp", "crown-ibp", "crown", "milp(optimum=True)")]
    assert margins == sorted(margins, key=lambda margin: margin or -inf)


@pytest.mark.parametrize(
    ("method", "ball", "word"),
    [
        ("milp", Ball("digits-mlp-pgd", 2, 0.3), "refused"),
        ("input-split", PGD, "refused"),
        ("sdp", Ball("digits-cnn-pgd", inf, 0.1), "too large"),
    ],
)
def test_what_a_method_does_not_take_is_said_in_a_word(method: str, ball: Ball, word: str) -> None:
    cell = measure(method, ball, 2, 30, 10)
    assert (str(cell), cell.asked, cell.margin) == (word, 1, None)


def test_time_that_is_over_is_said_in_a_word() -> None:
    cell = measure("lp(tighten=all)", Ball("fashion-cnn-ibp", inf, 0.1), 3, 1e-6, 1e-6)
    assert str(cell) == "timeout"
    assert cell.asked < 3


def test_smoothing_is_marked() -> None:
    cell = measure("smoothing(n=1000)", PGD, 2, 30, 10)
    assert cell.subject != NETWORK
    assert "`smoothing(n=1000)` \\* |" in markdown([cell], [PGD])


def test_cells_as_text() -> None:
    def cell(verified: int, falsified: int, margin: float | None, seconds: float, word: str = "") -> str:
        return str(Cell("m", "n", inf, 0.1, 20, 20, verified, falsified, margin, seconds, word, NETWORK))

    assert cell(17, 0, -2.3456, 0.0012) == "17, -2.35, 1.2 ms"
    assert cell(17, 3, None, 1.25) == "17 + 3, 1.2 s"
    assert cell(4, 0, None, 7.0, "timeout") == "4, 7 s, timeout"
    assert cell(0, 0, None, 0.0, "refused") == "refused"


def test_the_command_prints_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--methods", "ibp,lipschitz(norm=2)", "--balls", "digits-mlp-pgd:inf:0.05", "--samples", "2", "--json"])
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [(c["method"], c["norm"], c["eps"], c["samples"]) for c in cells] == [
        ("ibp", "inf", 0.05, 2),
        ("lipschitz(norm=2)", "inf", 0.05, 2),
    ]


@pytest.mark.parametrize(
    "arguments", [["--samples", "0"], ["--balls", "x"], ["--balls", "x:inf:far"], ["--seconds", "0"]]
)
def test_other_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
