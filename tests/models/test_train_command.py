"""``assay train``: the files, the card, the same bits again, and what is refused before any training."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from assay.__main__ import main
from assay.commands.train import train
from assay.models import cards, data
from assay.models.cards import Card
from assay.models.training import Training, clean_accuracy, evaluate
from assay.verify.core.errors import InputError

TINY: dict[str, Any] = {
    "name": "tiny",
    "arch": "mlp(hidden=8)",
    "recipe": "pgd(eps=0.05,steps=1)",
    "epochs": 2,
    "eval_n": 90,
}


@pytest.fixture(autouse=True)
def quick_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    """The card's attack, shortened; and a stderr that is no terminal."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr("assay.commands.train.ATTACK", "pgd(steps=3)")


def test_it_writes_a_network_that_is_what_its_card_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(**TINY, out=tmp_path / "new" / "folder")
    model, card = cards.load(tmp_path / "new" / "folder" / "tiny.safetensors")
    assert clean_accuracy(model, data.load("digits")) == card.clean_accuracy
    assert (card.name, card.data, card.epochs, card.seed, card.samples) == ("tiny", "digits", 2, 0, 360)
    assert (card.eps, card.attack, card.robust_samples) == (0.05, "pgd(steps=3)", 90)
    (at,) = card.robustness
    assert at.eps == 0.05
    assert 0 < at.ibp < at.crown < at.pgd < card.clean_accuracy
    out, err = capsys.readouterr()
    assert f"clean accuracy {card.clean_accuracy:.2%} on 360 test samples" in out
    assert f"eps 0.05: {at.pgd:.2%} under PGD, certified {at.crown:.2%} by crown, {at.ibp:.2%} by ibp" in out
    assert "epoch 1 of 2: loss" in err
    assert "epoch 2 of 2: loss" in err


def test_a_terminal_gets_a_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    train(**TINY, out=tmp_path)
    err = capsys.readouterr().err
    assert "\x1b[" in err
    assert "2/2" in err
    assert "epoch 1 of" not in err


def test_json_is_one_document_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    train(**TINY, out=tmp_path, json_=True)
    out, err = capsys.readouterr()
    assert Card.from_json(out, "stdout") == cards.read(tmp_path / "tiny.json")
    assert "clean accuracy" in err
    assert torch.equal(torch.get_rng_state(), state)


def test_the_command_of_the_card_makes_the_same_files_bit_for_bit(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    more: dict[str, Any] = {"validation": 50, "eval_eps": "0.05,0.02", "precision": "float16"}
    train(**TINY, seed=5, shift=1, weight_decay=1e-4, schedule="step", **more, out=first)
    app = typer.Typer()
    app.command()(train)
    words = shlex.split(cards.read(first / "tiny.json").command)
    assert words[:2] == ["assay", "train"]
    result = CliRunner().invoke(app, [*words[2:], "--out", str(second)])
    assert result.exit_code == 0, result.output
    for name in ("tiny.safetensors", "tiny.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_what_is_stored_rounded_is_what_is_measured(tmp_path: Path) -> None:
    for precision in ("float32", "float16"):
        train(**TINY, precision=precision, out=tmp_path / precision)
    (whole, _), (half, card) = (cards.load(tmp_path / each / "tiny.safetensors") for each in ("float32", "float16"))
    weights, rounded = (next(model.parameters()) for model in (whole, half))
    assert torch.equal(rounded, weights.half().float())
    assert not torch.equal(rounded, weights)
    assert clean_accuracy(half, data.load("digits")) == card.clean_accuracy


def test_a_training_goes_on_from_a_stored_network_bit_for_bit(tmp_path: Path) -> None:
    train(**TINY, out=tmp_path)
    stored = str(tmp_path / "tiny.safetensors")
    first, _ = cards.load(Path(stored))
    more: dict[str, Any] = {**TINY, "recipe": "mtl-ibp(eps=0.05)", "start": stored}
    train(**more, lr=1e-9, out=tmp_path / "still")
    train(**more, average=0.5, l1=1e-5, out=tmp_path / "on")
    same, _ = cards.load(tmp_path / "still" / "tiny.safetensors")
    for a, b in zip(first.parameters(), same.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    words = shlex.split(cards.read(tmp_path / "on" / "tiny.json").command)
    assert words[words.index("--start") + 1] == stored
    app = typer.Typer()
    app.command()(train)
    assert CliRunner().invoke(app, [*words[2:], "--out", str(tmp_path / "again")]).exit_code == 0
    for name in ("tiny.safetensors", "tiny.json"):
        assert (tmp_path / "on" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_no_card_is_written_where_the_attack_breaks_what_is_certified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate, "proven", lambda model, dataset, eps, linear: dataset.y >= 0)
    asked = ["train", "--name", "wrong", "--arch", "mlp(hidden=8)", "--recipe", "standard", "--epochs", "1"]
    assert main([*asked, "--eval-eps", "0.3", "--eval-n", "20", "--quiet", "--out", str(tmp_path)]) == 70
    assert "soundness alarm: test sample" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_standard_training_is_attacked_at_a_radius_all_the_same(tmp_path: Path) -> None:
    train(name="plain", arch="mlp(hidden=8)", recipe="standard", epochs=1, out=tmp_path)
    card = cards.read(tmp_path / "plain.json")
    assert card.eps == 0.0
    assert [at.eps for at in card.robustness] == [0.1]


def test_early_numbers_come_from_what_is_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(**{**TINY, "recipe": "ibp(eps=0.02,fast=true)"}, validation=300, out=tmp_path)
    err = read_err(capsys)
    assert "on 300 validation samples: natural error, and verified error by ibp at eps 0.02" in err
    assert re.search(r"epoch 2 of 2: loss \d.*, error \d.*%, verified error \d.*%, about", err)
    assert cards.read(tmp_path / "tiny.json").selected_on == "300 samples held out of the training split"
    train(**TINY, out=tmp_path)
    assert "on 500 training samples" in read_err(capsys)
    card = cards.read(tmp_path / "tiny.json")
    assert (card.selected_on, card.robust_samples, card.samples) == ("nothing held out", 90, 360)


def read_err(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../up"}, "expected a name of letters, digits, dots and dashes, got '../up'"),
        ({"name": ""}, "expected a name"),
        ({"arch": "mpl"}, "unknown architecture"),
        ({"precision": "int8"}, "--precision: expected one of float32, float16, got 'int8'"),
        ({"recipe": "pdg"}, "unknown recipe"),
        ({"data": "digit"}, "unknown data set"),
        ({"data": "fashion-mnist", "data_dir": Path("/nowhere")}, "there is no folder '/nowhere'"),
        ({"epochs": 0}, "epochs >= 1"),
        ({"schedule": "linear"}, "--schedule: expected one of cosine, step, got 'linear'"),
        ({"eval_eps": "nan"}, "--eval-eps: expected finite numbers >= 0, got nan"),
        ({"eval_eps": "0.1,-1"}, "--eval-eps: expected finite numbers >= 0, got -1"),
        ({"eval_eps": "0.1,x"}, "--eval-eps: expected numbers with commas between them, got 'x'"),
        ({"eval_n": 0}, "--eval-n >= 1"),
        ({"l1": -1.0}, "l1 >= 0 and 0 <= average < 1, got -1.0 and 0.0"),
        ({"average": 1.0}, "l1 >= 0 and 0 <= average < 1, got 0.0 and 1.0"),
        ({"search": 3}, "--search chooses on samples that are held out"),
        ({"search": -1, "validation": 100}, "--search chooses"),
        ({"start": "zoo:digits"}, "unknown zoo model 'digits'"),
        ({"start": "nowhere.safetensors"}, "nowhere.safetensors"),
        ({"start": "zoo:digits-cnn-pgd"}, r"--start zoo:digits-cnn-pgd is .*CNN.*, and what is asked for .*MLP"),
        ({"validation": -1}, "--validation >= 0"),
        ({"validation": 1437}, "hold out from 1 to 1436 samples"),
        ({"arch": "cnn(channels=2-2-2-2)"}, "too many for images"),
    ],
)
def test_bad_options_are_refused_and_leave_no_files(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(**{**TINY, **change}, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        pytest.fail("the training started")

    monkeypatch.setattr(Training, "run", never)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file' is a file: expected a folder"):
        train(**TINY, out=tmp_path / "file")
    with pytest.raises(InputError, match=r"cannot write to the folder .*inside.*Not a directory"):
        train(**TINY, out=tmp_path / "file" / "inside")


def test_an_interrupted_training_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(**TINY, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_document_is_plain_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(**TINY, out=tmp_path, json_=True)
    assert json.loads(capsys.readouterr().out)["input_shape"] == [1, 8, 8]


def test_a_network_for_smoothing_has_its_certified_accuracy_in_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    noisy = {**TINY, "recipe": "gaussian(sigma=0.2)", "epochs": 6}
    train(**noisy, smooth_n=12, smooth_draws=200, quiet=True)
    _, card = cards.load(tmp_path / "tiny.safetensors")
    (told,) = card.smoothed
    assert (told.subject, told.n, told.samples) == ("smoothed(gaussian, 0.2)", 200, 12)
    assert told.radii == (0.0, 0.1, 0.2, 0.3, 0.4)
    assert 1 >= told.certified[0] >= told.certified[1] > 0
    assert "--smooth-n 12 --smooth-draws 200" in card.command
    assert f"{told.certified[1]:.2%} beyond 0.1" in capsys.readouterr().out
    assert main([*shlex.split(told.command)[1:], "--quiet", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["curve"]
    assert [point["accuracy"] for point in measured] == list(told.certified)
    train(**TINY, quiet=True, out=tmp_path / "plain")
    assert not cards.load(tmp_path / "plain" / "tiny.safetensors")[1].smoothed
