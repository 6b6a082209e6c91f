"""The zoo: every network is what its card says."""

from __future__ import annotations

import shlex
from itertools import pairwise

import pytest
import torch

from assay.benchmarks.harness import smoothed
from assay.models import data, zoo
from assay.models.training import attacked_accuracy, certified_accuracy, clean_accuracy, isolated
from assay.verify.backends.smoothing.method import Smoothing
from assay.verify.core.errors import InputError
from tests.breadth import few


def test_the_zoo_has_its_networks() -> None:
    assert {"digits-cnn-pgd", "digits-mlp-pgd"} <= set(zoo.names())
    assert {path.stem for path in zoo.FOLDER.glob("*.safetensors")} == set(zoo.names())


def test_the_zoo_is_small() -> None:
    assert sum(path.stat().st_size for path in zoo.FOLDER.iterdir() if path.is_file()) < 5e6


@pytest.mark.parametrize("name", few(zoo.names(), quick=["digits-mlp-pgd", "digits-cnn-pgd", "fashion-mlp-crown-ibp"]))
def test_the_recorded_accuracies_are_reproduced(name: str) -> None:
    card, model = zoo.card(name), zoo.load(name)
    test = data.load(card.data)
    with isolated(card.seed):
        few, at = test.take(card.robust_samples), card.robustness[-1]
        assert certified_accuracy(model, few, at.eps, linear=False) == at.ibp
        clean = clean_accuracy(model, test)
    if len(test) == card.samples:
        # Other processors round otherwise, which may turn a sample in thousands.
        assert clean == pytest.approx(card.clean_accuracy, abs=2.5e-4)
    else:  # of the part that comes along
        deviation = (card.clean_accuracy * (1 - card.clean_accuracy) / len(test)) ** 0.5
        assert clean == pytest.approx(card.clean_accuracy, abs=3 * deviation)


def test_the_recorded_accuracies_under_attack_and_by_linear_bounds_are_reproduced() -> None:
    card, model = zoo.card("digits-mlp-pgd"), zoo.load("digits-mlp-pgd")
    few, at = data.load(card.data).take(card.robust_samples), card.robustness[0]
    with isolated(card.seed):
        assert attacked_accuracy(model, few, at.eps, card.attack, card.seed) == at.pgd
        assert certified_accuracy(model, few, at.eps, linear=True) == at.crown


@pytest.mark.parametrize("name", zoo.names())
def test_every_network_runs_and_its_card_is_plausible(name: str) -> None:
    card, model = zoo.card(name), zoo.load(name)  # loading compares the weights with the card's checksum
    assert card.name == name
    assert not any(part.training for part in model.modules())
    assert model(torch.zeros(2, *card.input_shape)).shape == (2, card.classes)
    assert (0.75 if card.data == "fashion-mnist" else 0.9) <= card.clean_accuracy < 1
    radii = [at.eps for at in card.robustness]
    assert radii == sorted(set(radii))
    assert card.eps in (0.0, *radii)
    for at in card.robustness:
        assert at.eps > 0
        assert 0 <= at.ibp <= at.crown <= at.pgd <= 1
    for small, large in pairwise(card.robustness):
        assert large.pgd <= small.pgd
        assert large.ibp <= small.ibp


@pytest.mark.parametrize("name", zoo.names())
def test_the_command_of_the_card_names_what_the_card_says(name: str) -> None:
    card = zoo.card(name)
    words = shlex.split(card.command)
    assert words[:2] == ["assay", "train"]
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options["--name"] == name
    assert options["--arch"] == card.architecture
    assert options["--data"] == card.data
    assert options["--recipe"] == card.recipe
    assert (int(options["--epochs"]), int(options["--seed"])) == (card.epochs, card.seed)
    assert [float(eps) for eps in options["--eval-eps"].split(",")] == [at.eps for at in card.robustness]
    held = int(options["--validation"])
    assert card.selected_on == (f"{held} samples held out of the training split" if held else "nothing held out")


@pytest.mark.parametrize("name", [name for name in zoo.names() if "-smooth-" in name])
def test_certified_accuracies_of_the_smoothed_networks_are_recorded(name: str) -> None:
    """With the command that measures them; a few of its samples are certified here."""
    card = zoo.card(name)
    (recorded,) = card.smoothed
    words = shlex.split(recorded.command)
    options = dict(zip(words[2::2], words[3::2], strict=True))
    sigma = float(options["--sigma"])
    assert (options["--model"], options["--data"]) == (f"zoo:{name}", card.data)
    assert recorded.subject == f"smoothed(gaussian, {sigma:g})"
    assert f"sigma={sigma:g}" in card.recipe
    assert (recorded.n, recorded.samples) == (int(options["--draws"]), int(options["--n"]))
    assert recorded.radii == tuple(float(radius) for radius in options["--radii"].split(","))
    assert list(recorded.certified) == sorted(recorded.certified, reverse=True)
    assert 0 < recorded.certified[-1] <= recorded.certified[0] < 1

    test = data.load(card.data)
    few = test.indices(None, int(options["--skip"]))[:40]
    rows = list(smoothed.certify(zoo.load(name), test, Smoothing(sigma=sigma, n=200, n0=50), 2.0, 0, few))
    (near,) = smoothed.curve(rows, [0.25])
    assert near.low <= recorded.certified[recorded.radii.index(0.25)] <= near.high


@pytest.mark.parametrize("name", [name for name in zoo.names() if zoo.card(name).certified])
def test_certificates_of_a_complete_method_are_between_bounds_and_attack(name: str) -> None:
    """With the command that finds them; clean accuracy is measured here."""
    card = zoo.card(name)
    first, *rest = card.certified
    for recorded in card.certified:
        words = shlex.split(recorded.command)
        assert words[:2] == ["assay", "compare"]
        options = dict(zip(words[2::2], words[3::2], strict=True))
        assert (options["--model"], options["--data"]) == (f"zoo:{name}", card.data)
        assert recorded.method in options["--methods"].split(",")
        assert recorded.eps == float(options["--eps"])
        assert recorded.samples == int(options.get("--n", card.samples))
    assert first.samples == card.robust_samples
    (at,) = (at for at in card.robustness if at.eps == first.eps)
    assert max(at.ibp, at.crown) <= first.certified <= at.pgd <= first.clean
    assert clean_accuracy(zoo.load(name), data.load(card.data).take(first.samples)) == first.clean
    for recorded in rest:  # on all of the test split
        assert (recorded.samples, recorded.clean) == (card.samples, pytest.approx(card.clean_accuracy, abs=2.5e-4))
        deviation = (first.certified * (1 - first.certified) / first.samples) ** 0.5
        assert recorded.certified == pytest.approx(first.certified, abs=3 * deviation)


def test_loading_twice_gives_two_independent_networks() -> None:
    first, second = zoo.load("digits-mlp-pgd"), zoo.load("digits-mlp-pgd")
    with torch.no_grad():
        next(first.parameters()).zero_()
    assert next(second.parameters()).abs().sum() > 0


@pytest.mark.parametrize("access", [zoo.load, zoo.card])
def test_unknown_names_are_refused(access: object) -> None:
    assert callable(access)
    with pytest.raises(InputError, match=r"unknown zoo model 'digits-mlp'; did you mean 'digits-mlp-pgd'\? \(known: "):
        access("digits-mlp")
