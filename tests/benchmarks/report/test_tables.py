"""The table, summary.json and bracket.png of a comparison."""

import io
import json
import struct
from dataclasses import replace
from itertools import pairwise

import pytest
from rich.console import Console

from assay.attacks import get_attack
from assay.benchmarks.harness.compare import compare
from assay.benchmarks.report import bracket_figure, canvas, tables
from tests.benchmarks.harness_fakes import POINTS, Claims, Exact, Liar, Timid, dataset, identity, needle


@pytest.fixture(scope="module")
def comparison():
    return compare(identity(), dataset(POINTS), [0.08, 0.04], [Timid(), Exact()], [get_attack("fgsm")], name="net")


def printed(comparison, width=80):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    tables.show(comparison, console)
    return console.file.getvalue()


def test_accuracies_fall_within_each_eps_from_clean_to_the_weakest_method(comparison):
    rows = tables.ordered([row for row in comparison.rows if row.eps == 0.08])
    assert [row.name for row in rows] == ["fgsm", "all attacks", "all methods", "exact", "timid"]
    accuracies = [comparison.rows[0].accuracy, *(row.accuracy for row in rows)]
    assert accuracies == sorted(accuracies, reverse=True)


def test_the_table_shows_counts_intervals_and_seconds_in_80_columns(comparison):
    lines = printed(comparison).splitlines()
    assert lines[0].strip() == "net on points (test), linf, 5 samples"
    (exact,) = [line.split() for line in lines if "exact" in line and "40.0%" in line]
    assert exact == ["exact", "≥", "40.0%", "5.3\u201385.3", "2", "3", "0", "1.50"]
    assert "2 of 5 samples are misclassified without any attack" in printed(comparison)
    assert "timid at eps 0.04: of the unknown, 3 timeout" in printed(comparison)


@pytest.mark.parametrize("width", [20, 40, 60])
def test_names_and_figures_survive_a_narrow_terminal(comparison, width):
    rows = tuple(replace(r, name="attack(steps=10,restarts=2)") if r.name == "fgsm" else r for r in comparison.rows)
    lines = printed(replace(comparison, rows=rows), width).splitlines()
    grid = [line for line in lines if "%" in line or "accuracy" in line]
    assert "\u2026" not in "".join(lines)
    assert {"accuracy", "verified", "falsified", "unknown"} <= set(grid[0].split())
    for name in ("clean", "exact", "timid", "all methods"):
        assert any(name in line for line in grid)
    names = [line[: grid[0].index("accuracy")].split() for line in lines]
    assert "attack(steps=10,restarts=2)" in "".join(cells[-1] for cells in names if cells)
    assert max(map(len, grid)) <= max(width, 60)


def test_who_could_not_run_is_no_result(comparison):
    unsupported = {"reasons": {"unsupported": 3}, "explanations": {"unsupported": "no \x1b[1msoftmax"}}
    rows = tuple(replace(r, **unsupported) if r.name == "timid" else r for r in comparison.rows)
    shown = printed(replace(comparison, rows=rows))
    assert shown.count("timid: unsupported: no softmax.") == 1
    assert not [line for line in shown.splitlines() if "timid" in line and "%" in line]
    drawn = bracket_figure.plot(replace(comparison, rows=rows)).axes[0]
    assert not [text for text in drawn.texts if text.get_text().startswith("timid")]
    group = tables.ordered([row for row in rows if row.eps == 0.08])
    assert [row.name for row in group][-1] == "timid"


def test_names_cannot_write_to_the_terminal(comparison):
    evil = "\x1b[31mred[/bold][blink]\x1b]0;title\x07\nnext"
    rows = tuple(replace(row, name=evil) if row.name == "exact" else row for row in comparison.rows)
    shown = printed(replace(comparison, model=evil, rows=rows), width=200)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert shown.count("red[/bold][blink] next") == 3


def test_rows_of_another_subject_are_short_and_explained_below(comparison):
    """Two methods that would be called the same keep their options; the network's rows stay as they are."""
    subject = "smoothed(gaussian, 0.25)"
    long = ("smoothing(n=2000,test=anytime)", "smoothing-attack(n=1000)")
    (exact,) = (row for row in comparison.rows if (row.name, row.eps) == ("exact", 0.08))
    more = [replace(exact, name=name, subject=subject) for name in long]
    other = replace(exact, name="smoothing(certificate=soft)", subject="smoothed(gaussian, 0.25, scores)")
    shown = printed(replace(comparison, rows=(*comparison.rows, *more, other)))
    lines = [line.strip() for line in shown.splitlines()]
    for label in ("smoothing * ", "smoothing-attack * ", "smoothing ** "):
        assert sum(line.startswith(label) for line in lines) == 1
    text = " ".join(shown.split())
    assert f"* speaks of {subject}, not of the network: {', '.join(long)}." in text
    assert "** speaks of smoothed(gaussian, 0.25, scores)" in text
    twice = [replace(exact, name=f"smoothing(n={n})", subject=subject) for n in (100, 200)]
    both = printed(replace(comparison, rows=(*comparison.rows, *twice)), width=120)
    assert "smoothing(n=100) *" in both
    assert "smoothing(n=200) *" in both
    assert "*" not in printed(comparison)


def test_the_summary_is_what_the_contract_says(comparison):
    document = json.loads(tables.dump(tables.summary(comparison, ["assay", "compare"])))
    assert (document["model"], document["data"], document["norm"]) == ("net", "points (test)", "inf")
    assert document["alarms"] == []
    assert document["command"] == ["assay", "compare"]
    assert {"assay", "python", "torch"} <= document["versions"].keys()
    assert len(document["rows"]) == 1 + 2 * 5
    keys = {"subject", "eps", "n", "verified", "falsified", "unknown", "accuracy", "low", "high", "seconds"}
    for row in document["rows"]:
        assert keys <= row.keys()
        assert ("method" in row) != ("attack" in row)
        assert row["verified"] + row["falsified"] + row["unknown"] == row["n"] == 5
        assert row["low"] <= row["accuracy"] <= row["high"]


def test_alarms_stand_in_summary_and_table(tmp_path):
    comparison = compare(needle(), dataset([[0.6, 0.4]]), [0.05], [Liar()], [Claims()], alarm_folder=tmp_path)
    (alarm,) = tables.summary(comparison)["alarms"]
    assert (alarm["sample"], alarm["eps"], alarm["verified"], alarm["falsified"]) == (0, 0.05, ["liar"], ["claims"])
    assert alarm["folder"] == str(tmp_path / alarm["problem"])
    assert "SOUNDNESS ALARM: liar verifies sample 0" in printed(comparison)


def test_the_summary_is_replaced_whole_or_not_at_all(tmp_path, comparison, monkeypatch):
    path = tmp_path / "summary.json"
    tables.write_summary({"old": 1}, path)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        tables.write_summary(tables.summary(comparison), path)
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def png_size(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", content[16:24])


@pytest.mark.parametrize("eps", [[0.04, 0.08], [0.1], [0.0]], ids=["two", "one", "zero"])
def test_the_picture_is_drawn(tmp_path, eps):
    comparison = compare(identity(), dataset(POINTS), eps, [Exact(), Timid()], [get_attack("fgsm")], name="$a_$ net")
    bracket_figure.draw(comparison, tmp_path / "bracket.png")
    width, height = png_size(tmp_path / "bracket.png")
    assert width > 1000
    assert height > 600


def test_the_picture_holds_both_jaws(comparison):
    axes = bracket_figure.plot(comparison).axes[0]
    lines = {tuple(line.get_ydata()) for line in axes.lines}
    assert {(0.6, 0.6, 0.4), (0.6, 0.0, 0.0)} <= lines
    texts = {text.get_text() for text in axes.texts}
    assert {"clean  60.0%", "fgsm  40.0%", "exact  40.0%", "timid  0.0%"} <= texts


@pytest.mark.parametrize("heights", [[0.5] * 5, [0.1, 0.9, 0.11, 0.12], [0.0, 0.02, 0.04, 0.06, 1.0], []])
def test_labels_stay_apart_and_in_order(heights):
    places = canvas.spread(heights, 0.05)
    pairs = sorted(zip(heights, places, strict=True))
    assert all(b - a >= 0.05 - 1e-9 for (_, a), (_, b) in pairwise(pairs))
    assert sum(places) == pytest.approx(sum(heights))


def test_norms_have_names(comparison):
    assert "l2, 5 samples" in printed(replace(comparison, norm=2.0))
