"""The zoo: every network is what its card says."""

from __future__ import annotations

from math import inf

import pytest
import torch

from attacks import get_attack
from models import data, zoo
from models.training import clean_accuracy, isolated, strictly_right
from verify.core.errors import InputError
from verify.core.region import LpBall


def test_the_zoo_has_its_networks() -> None:
    assert {"digits-cnn-pgd", "digits-mlp-pgd"} <= set(zoo.names())
    assert {path.stem for path in zoo.FOLDER.glob("*.safetensors")} == set(zoo.names())


@pytest.mark.parametrize("name", zoo.names())
def test_the_recorded_accuracies_are_reproduced(name: str) -> None:
    card, model = zoo.card(name), zoo.load(name)
    test = data.load(card.data)
    assert card.name == name
    assert card.samples == len(test)
    assert not any(part.training for part in model.modules())
    with isolated(card.seed):
        assert clean_accuracy(model, test) == card.clean_accuracy
        region = LpBall(test.x, card.pgd_eps, inf, test.domain)
        attacked = get_attack(card.pgd_attack).run(model, test.x, test.y, region, seed=card.seed)
        robust = strictly_right(model(test.x), test.y) & ~attacked.success
    assert int(robust.sum()) / len(test) == card.pgd_accuracy


@pytest.mark.parametrize("name", zoo.names())
def test_clean_accuracy_is_decent_and_above_robust_accuracy(name: str) -> None:
    card = zoo.card(name)
    assert 0.95 <= card.clean_accuracy < 1
    assert 0.5 < card.pgd_accuracy < card.clean_accuracy


@pytest.mark.parametrize("name", zoo.names())
def test_the_command_of_the_card_names_what_the_card_says(name: str) -> None:
    card = zoo.card(name)
    assert card.command.startswith(f"assay train --name {name} --arch '{card.architecture}' --data {card.data}")
    assert f"--epochs {card.epochs} " in card.command
    assert f"--seed {card.seed} " in card.command
    assert card.recipe in card.command


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
