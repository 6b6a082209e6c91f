"""Options chosen on samples held out: what a trial is, that a killed search goes on and chooses the same."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from assay.commands.train import train
from assay.models import architectures, cards, data, training
from assay.models.training import Training, attacked_accuracy, certified_accuracy, hold_out
from assay.models.training import search as searching
from assay.models.training.search import KNOBS, Search, Trial, _whole_lines, best
from assay.verify.core.errors import InputError, UnsupportedError

PLAN = Training(training.recipe("sabr(eps=0.03)"), epochs=1, batch=32, lr=1e-2, seed=3)


def searched(journal: Path, trials: int, plan: Training = PLAN) -> Search:
    def build() -> nn.Module:
        return architectures.parse("mlp(hidden=8,batchnorm=true)").build((1, 8, 8), 10)

    learn, held = hold_out(data.load("digits", "train").take(160), 60)
    return Search(plan, build, learn, held, trials, journal, "tiny")


def test_every_knob_is_an_option_of_its_recipe_that_takes_both_ends() -> None:
    assert training.TABLE.keys() >= KNOBS.keys()
    for name, knobs in KNOBS.items():
        recipe = training.recipe(name)
        for knob in knobs:
            assert knob.name in {f.name for f in fields(recipe)}  # type: ignore[arg-type]
            assert knob.low < knob.high
            for value in (knob.low, knob.high):
                assert getattr(replace(recipe, **{knob.name: value}), knob.name) == value  # type: ignore[type-var]


def test_a_search_needs_trainings_and_a_radius(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 1 training to search, got 0"):
        searched(tmp_path / "journal", 0)
    with pytest.raises(InputError, match="standard trains for no linf radius"):
        searched(tmp_path / "journal", 1, Training(training.recipe("standard")))


def test_without_optuna_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"optuna: pip install 'assay\[search\]'"):
        next(searched(tmp_path / "journal", 1).run())


def test_knobs_are_turned_and_nothing_else(tmp_path: Path) -> None:
    turned = searched(tmp_path / "journal", 1).turned({"tau": 0.123456, "lr": 0.00123456})
    assert turned == replace(PLAN, recipe=training.recipe("sabr(eps=0.03,tau=0.1235)"), lr=0.001235)


def test_what_diverges_scores_nothing(tmp_path: Path) -> None:
    assert searched(tmp_path / "journal", 1).measured(replace(PLAN, lr=1e30)) == 0.0


def test_networks_of_attacks_are_measured_by_one(tmp_path: Path) -> None:
    search = searched(tmp_path / "journal", 1, replace(PLAN, recipe=training.recipe("pgd(eps=0.03,steps=1)")))
    with training.isolated(PLAN.seed):
        model = search.build()
        list(search.plan.run(model, search.learn))
        under_attack = attacked_accuracy(model, search.held, 0.03, "pgd(steps=20)", PLAN.seed)
        assert under_attack > certified_accuracy(model, search.held, 0.03, linear=True)
    assert search.measured(search.plan) == under_attack


def test_the_best_is_the_first_of_the_highest() -> None:
    ended = [Trial(number, replace(PLAN, seed=number), score) for number, score in enumerate([0.2, 0.7, 0.7, 0.1])]
    assert best(ended) == ended[1]


def test_a_trial_says_how_its_score_comes_about(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    search = searched(tmp_path / "journal", 2)
    for trial in search.run():
        with training.isolated(trial.plan.seed):
            model = search.build()
            list(trial.plan.run(model, search.learn))
            assert trial.score == certified_accuracy(model, search.held, 0.03, linear=True)


def test_a_search_that_is_killed_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    whole = list(searched(tmp_path / "whole", 4).run())
    assert [trial.number for trial in whole] == [0, 1, 2, 3]
    assert len({str(trial.plan) for trial in whole}) == 4

    first = list(searched(tmp_path / "parts", 2).run())
    measured = Search.measured

    def killed(search: Search, plan: Training) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(Search, "measured", killed)
    with pytest.raises(KeyboardInterrupt):
        list(searched(tmp_path / "parts", 4).run())
    calls: list[Training] = []

    def counted(search: Search, plan: Training) -> float:
        calls.append(plan)
        return measured(search, plan)

    monkeypatch.setattr(Search, "measured", counted)
    assert list(searched(tmp_path / "parts", 4).run()) == whole
    assert (first, len(calls)) == (whole[:2], 2)
    # Another plan in the same file is another search.
    other = replace(PLAN, epochs=2)
    assert next(searched(tmp_path / "parts", 1, other).run()).plan.epochs == 2
    assert len(calls) == 3


def test_the_command_trains_by_what_it_chose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna")
    asked: dict[str, Any] = {"recipe": "sabr(eps=0.03)", "epochs": 1, "validation": 40, "eval_n": 20}
    train(name="found", arch="mlp(hidden=8,batchnorm=true)", **asked, search=2, quiet=True, out=tmp_path)
    err = capsys.readouterr().err
    assert "1 of 2: " in err
    assert "of what is held out, by sabr(eps=0.03," in err
    words = shlex.split(cards.read(tmp_path / "found.json").command)
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert "--search" not in options
    lines = [line for line in err.splitlines() if f"by {options['--recipe']} --lr {float(options['--lr']):g}" in line]
    shares = [line.split("%")[0].split()[-1] for line in err.splitlines() if "held out" in line]
    assert f"{max(map(float, shares)):.2f}%" in lines[0]
    with pytest.raises(InputError, match="--validation says how many"):
        train(name="found", **{**asked, "validation": 0}, search=2, out=tmp_path)


def test_a_line_that_was_being_written_is_cut_off(tmp_path: Path) -> None:
    journal = tmp_path / "net.search.jsonl"
    _whole_lines(journal)
    for text, kept in (("", ""), ("{1}\n{2}\n", "{1}\n{2}\n"), ("{1}\n{2", "{1}\n"), ("{1", "")):
        journal.write_text(text)
        _whole_lines(journal)
        assert journal.read_text() == kept
