"""Cards: the round trip, and every way in which a card and its weights can fail to fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.models import architectures, cards
from assay.models.cards import Card, Certified, Robustness, Smoothed
from assay.verify.core.errors import InputError, ResourceError

SMOOTHED = {
    "subject": "smoothed(gaussian, 0.1)",
    "n": 1000,
    "alpha": 0.001,
    "samples": 90,
    "radii": [0, 0.1],
    "certified": [0.75, 0.5],
    "command": "assay smooth",
}


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, Card, torch.nn.Module]:
    """A small network with its card, on disk."""
    model = architectures.parse("mlp(hidden=4)").build((1, 8, 8), 10).eval()
    weights = cards.encode(model)
    card = Card(
        name="small",
        architecture="mlp(hidden=4)",
        input_shape=(1, 8, 8),
        classes=10,
        data="digits",
        recipe="standard",
        eps=0.0,
        epochs=3,
        seed=1,
        command="assay train --name small",
        selected_on="nothing held out",
        samples=360,
        clean_accuracy=1 / 3,
        robust_samples=300,
        robustness=(Robustness(0.05, 0.2, 0.0, 0.125), Robustness(0.1, 0.1, 0.0, 0.0)),
        attack="pgd(steps=5)",
        sha256=cards.sha256(weights),
        version="0.1.0",
    )
    path, _ = cards.save(tmp_path, card, weights)
    return path, card, model


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the card beside the weights."""
    beside = path.with_suffix(".json")
    data = json.loads(beside.read_text())
    change(data)
    beside.write_text(json.dumps(data))


def test_network_and_card_come_back_as_they_were(stored: tuple[Path, Card, torch.nn.Module]) -> None:
    path, card, model = stored
    again, same = cards.load(path)
    assert same == card
    assert not any(part.training for part in again.modules())
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(again(x), model(x))


def test_a_card_survives_json(stored: tuple[Path, Card, torch.nn.Module]) -> None:
    _, card, _ = stored
    assert Card.from_json(card.to_json(), "card") == card
    smoothed = Smoothed("smoothed(gaussian, 0.1)", 1000, 0.001, 90, (0.0, 0.1), (0.75, 0.5), "assay smooth")
    assert Card.from_json(replace(card, smoothed=(smoothed,)).to_json(), "card").smoothed == (smoothed,)
    certified = Certified("bab", 0.1, 90, 0.75, 0.5, "assay compare")
    assert Card.from_json(replace(card, certified=(certified,)).to_json(), "card").certified == (certified,)


def test_cards_from_before_smoothing_are_read(stored: tuple[Path, Card, torch.nn.Module]) -> None:
    path, card, _ = stored
    edit(path, lambda data: data.pop("smoothed"))
    assert cards.load(path)[1] == card


def test_the_same_weights_are_the_same_bytes(stored: tuple[Path, Card, torch.nn.Module]) -> None:
    path, _, model = stored
    assert cards.encode(model) == path.read_bytes()


def test_saving_leaves_nothing_else_behind(stored: tuple[Path, Card, torch.nn.Module]) -> None:
    path, card, model = stored
    cards.save(path.parent, card, cards.encode(model))
    assert sorted(p.name for p in path.parent.iterdir()) == ["small.json", "small.safetensors"]


def test_a_failed_save_leaves_the_old_files(
    stored: tuple[Path, Card, torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, card, model = stored
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResourceError, match=r"cannot write .*small.safetensors: No space left"):
        cards.save(path.parent, card, cards.encode(model))
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 2


def test_loading_leaves_the_global_generator_alone(stored: tuple[Path, Card, torch.nn.Module]) -> None:
    state = torch.get_rng_state()
    cards.load(stored[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_tampered_weights_are_refused(stored: tuple[Path, Card, torch.nn.Module]) -> None:
    path, card, _ = stored
    weights = bytearray(path.read_bytes())
    weights[-1] ^= 1
    path.write_bytes(weights)
    with pytest.raises(InputError, match=rf"small\.safetensors: expected sha256 {card.sha256[:16]}"):
        cards.load(path)


def test_weights_of_another_card_are_not_saved(stored: tuple[Path, Card, torch.nn.Module], tmp_path: Path) -> None:
    _, card, _ = stored
    with pytest.raises(InputError, match="other weights"):
        cards.save(tmp_path, card, b"other")


@pytest.mark.parametrize("key", [f.name for f in fields(Card) if f.default is MISSING])
def test_a_missing_key_is_named(stored: tuple[Path, Card, torch.nn.Module], key: str) -> None:
    path, _, _ = stored
    edit(path, lambda data: data.pop(key))
    with pytest.raises(InputError, match=rf"small\.json: the card lacks {key}$"):
        cards.load(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("surprise", 1, "does not know: surprise"),
        ("classes", "ten", "classes: expected int, got 'ten'"),
        ("classes", True, "classes: expected int, got True"),
        ("eps", "0.1", "eps: expected float, got '0.1'"),
        ("input_shape", [1, -8, 8], "input_shape: expected a list of positive whole numbers"),
        ("input_shape", 64, "input_shape: expected a list"),
        ("name", None, "name: expected str, got None"),
        ("robustness", 0.1, "robustness: expected a list, got 0.1"),
        ("robustness", [0.1], r"robustness: expected a robustness \(a JSON object\), got float"),
        ("robustness", [{"eps": 0.1, "pgd": 0.5, "ibp": 0.0}], "robustness: the card lacks crown"),
        ("robustness", [{"eps": 0.1, "pgd": "a", "ibp": 0.0, "crown": 0}], "robustness: pgd: expected float, got 'a'"),
        ("smoothed", {}, "smoothed: expected a list"),
        ("smoothed", [{}], "smoothed: the card lacks alpha, certified, command, n, radii, samples, subject"),
        ("smoothed", [{**SMOOTHED, "radii": 0.25}], "smoothed: radii: expected a list, got 0.25"),
        ("smoothed", [{**SMOOTHED, "certified": ["all"]}], "smoothed: certified: expected float, got 'all'"),
    ],
)
def test_a_wrong_value_is_named(
    stored: tuple[Path, Card, torch.nn.Module], key: str, value: object, message: str
) -> None:
    path, _, _ = stored
    edit(path, lambda data: data.update({key: value}))
    with pytest.raises(InputError, match=rf"small\.json.*{message}"):
        cards.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"name": ', r"small\.json:1:10: the card is not JSON"),
        (b"[]", r"small\.json: expected a card \(a JSON object\), got list"),
        (b"\xff\xfe", r"small\.json: the card is not UTF-8"),
    ],
)
def test_a_damaged_card_is_refused(stored: tuple[Path, Card, torch.nn.Module], content: bytes, message: str) -> None:
    path, _, _ = stored
    path.with_suffix(".json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        cards.load(path)


def test_weights_without_a_card_are_refused(stored: tuple[Path, Card, torch.nn.Module]) -> None:
    path, _, _ = stored
    path.with_suffix(".json").unlink()
    with pytest.raises(InputError, match=r"has no card: expected .*small\.json"):
        cards.load(path)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the weights .*none\.safetensors: No such file"):
        cards.load(tmp_path / "none.safetensors")


def test_weights_that_do_not_fit_the_architecture_are_refused(stored: tuple[Path, Card, torch.nn.Module]) -> None:
    path, _, _ = stored
    edit(path, lambda data: data.update(architecture="mlp(hidden=5)"))
    with pytest.raises(InputError, match=r"does not fit its card's architecture mlp\(hidden=5\): .*size mismatch"):
        cards.load(path)


def test_a_file_that_is_no_safetensors_file_is_refused(stored: tuple[Path, Card, torch.nn.Module]) -> None:
    path, card, _ = stored
    cards.save(path.parent, replace(card, sha256=cards.sha256(b"junk")), b"junk")
    with pytest.raises(InputError, match=r"is not a \.safetensors file"):
        cards.load(path)
