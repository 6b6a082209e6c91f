"""``assay perturb``: shares and samples, kept as they come, and what is refused."""

from __future__ import annotations

import json

import pytest

from assay.__main__ import main
from assay.verify.core.result import Result

ASKED = ["perturb", "--model", "zoo:digits-cnn-pgd", "--perturbation", "rotation(2)+brightness(0.05)", "--quiet"]


def test_samples_are_bracketed_and_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*ASKED, "--n", "3", "-o", "kept.jsonl", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    shares = {name: share["count"] for name, share in document["shares"].items()}
    assert 3 >= shares["clean"] >= shares["left standing"] >= shares["certified"] > 0
    kept = (tmp_path / "kept.jsonl").read_text()
    assert len(kept.splitlines()) == shares["clean"]
    (tmp_path / "kept.jsonl").write_text(kept[:-20])  # as if it was cut off
    assert main([*ASKED, "--n", "3", "-o", "kept.jsonl", "--resume", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["shares"] == document["shares"]
    lines = (tmp_path / "kept.jsonl").read_text().splitlines()
    assert len([Result.from_json(line) for line in lines]) == shares["clean"]
    assert main([*ASKED, "--n", "3", "-o", "kept.jsonl"]) == 40
    assert "--resume goes on with it" in capsys.readouterr().err
    assert main([*ASKED, "--n", "1"]) == 0
    assert "certified" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--perturbation", "turn(3)"], "unknown perturbation 'turn'"),
        (["--resume"], "--out"),
        (["--n", "0"], "--n"),
        (["--method", "pgd"], "is an attack"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, more, words):
    monkeypatch.chdir(tmp_path)
    assert main([*ASKED, *more]) == 40
    assert words in capsys.readouterr().err
