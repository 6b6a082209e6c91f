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


@pytest.mark.slow
def test_a_card_is_held_to_the_bits_that_its_command_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("assay.commands.train.ATTACK", "fgsm")
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    train(name="tiny", out=tmp_path, **TINY)
    assert main(["--out", str(tmp_path / "again")]) == 0
    assert "the same, bit for bit" in capsys.readouterr().out
    assert (tmp_path / "again" / "tiny.safetensors").read_bytes() == (tmp_path / "tiny.safetensors").read_bytes()

    model, card = cards.load(tmp_path / "tiny.safetensors")
    with torch.no_grad():  # a last bit of one weight
        weight = next(model.parameters())
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(torch.inf))
    weights = cards.encode(model)
    cards.save(tmp_path, replace(card, sha256=cards.sha256(weights)), weights)
    assert main(["--names", "tiny"]) == 1
    first, last = capsys.readouterr().out.splitlines()[-2:]
    assert first.startswith("tiny")
    assert "other weights" in first
    assert last == "1 of 1 came out otherwise"
