"""``assay perturb`` and ``compare --perturbation``: one bracket, one store, and what is refused."""

from __future__ import annotations

import json

import pytest

from assay.__main__ import main
from assay.verify.core.result import Result, Verdict
from assay.verify.solving.cells import Cells

ASKED = ["--model", "zoo:digits-cnn-pgd", "--perturbation", "rotation(2)+brightness(0.05)", "--quiet"]


def test_samples_are_bracketed_and_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    attacks = ["--attacks", "grid(points=16),fgsm", "--n", "3"]
    assert main(["perturb", *ASKED, *attacks, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["perturbation"] == "rotation(-2,2)+brightness(-0.05,0.05)"
    assert "norm" not in document
    counts = {row.get("method", row.get("attack")): row for row in document["rows"]}
    clean, cells = counts["clean"], counts["cells"]
    assert 3 >= clean["n"] - clean["falsified"] >= 3 - counts["all attacks"]["falsified"] >= cells["verified"] > 0
    # The same questions by the other command, out of the same store, and a page of them.
    again = ["compare", *ASKED, *attacks, "--methods", "crown", "--resume", "--json", "--report", "page.html"]
    assert main([*again, "--require", "cells@1 >= 0.1"]) == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out)["rows"]
    assert [(row["verified"], row["seconds"]) for row in rows] == [
        (row["verified"], row["seconds"]) for row in document["rows"]
    ]
    asked = clean["n"] - clean["falsified"]
    assert f"{3 * asked} verdicts taken" in captured.err
    assert "rotation(-2,2)+brightness(-0.05,0.05)" in (tmp_path / "page.html").read_text()
    assert main([*again, "--baseline", "out/results.sqlite"]) == 0
    assert main([*again[:-2], "--perturbation", "rotation(1)", "--baseline", "out/results.sqlite"]) == 40
    assert "in rotation(-2,2)+brightness(-0.05,0.05), not digits (test) in rotation(-1,1)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--perturbation", "turn(3)"], "unknown perturbation 'turn'"),
        (["--n", "0"], "--n"),
        (["--methods", "pgd"], "is an attack"),
        (["--radius"], "--radius speaks of balls"),
        (["--evidence", "folder"], "--evidence speaks of balls"),
        (["--norm", "2"], "--norm speaks of balls"),
        (["--eps-scale", "0.5"], "no scale of eps"),
        (["--perturbation", "rotation(3,5)", "--eps", "0.5"], "do not lie within each other"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, more, words):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *ASKED, "--n", "1", *more]) in (40, 50)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("command", [["perturb"], ["compare", "--methods", "crown"]])
def test_what_is_certified_and_broken_ends_with_70(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Cells, "verify", lambda self, asked, budget: Result(asked.id, repr(self), Verdict.VERIFIED))
    wide = ["--model", "zoo:digits-cnn-pgd", "--perturbation", "rotation(60)", "--attacks", "grid(points=16)"]
    assert main([*command, *wide, "--n", "3", "--quiet"]) == 70
    out, err = capsys.readouterr()
    assert "cells" in out
    assert "soundness alarm: cells" in err
