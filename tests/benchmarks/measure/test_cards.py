"""Tests of benchmarks.measure.cards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.benchmarks.measure.cards import main
from assay.commands.train import train
from assay.models import cards, zoo

TINY: dict[str, Any] = {"arch": "mlp(hidden=4)", "recipe": "standard", "epochs": 1, "eval_n": 20, "quiet": True}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of one network, which its card's command makes, and one whose weights have moved by a last bit since."""
    monkeypatch.setattr("assay.commands.train.ATTACK", "fgsm")
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    for name in ("kept", "moved"):
        train(name=name, out=tmp_path, **TINY)
    model, card = cards.load(tmp_path / "moved.safetensors")
    with torch.no_grad():
        weight = next(model.parameters())
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(torch.inf))
    weights = cards.encode(model)
    cards.save(tmp_path, replace(card, sha256=cards.sha256(weights)), weights)
    return tmp_path


def test_cards_whose_commands_give_other_weights_are_told(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--names", "kept", "--out", str(small / "again")]) == 0
    assert "the same, bit for bit" in capsys.readouterr().out
    assert (small / "again" / "kept.safetensors").read_bytes() == (small / "kept.safetensors").read_bytes()
    assert main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("moved") and "other weights" in line for line in lines)
    assert lines[-1] == "1 of 2 came out otherwise"
