"""The tables that come along are whole and name their sources, and what is no table is refused by what is wrong."""

from __future__ import annotations

import re
from math import inf

import pytest

from assay.benchmarks import tables
from assay.benchmarks.tables.published import parse
from assay.models import architectures, zoo
from assay.models.training import Training, recipe
from assay.verify.core.errors import InputError
from assay.verify.registry import get_verifier
from assay.verify.support.options import split

HEAD = 'title = "T"\ndata = "digits"\nnorm = "inf"\nprotocol = "p"\nmethods = "ibp"\nattacks = "fgsm"\n'
ROW = '[[figure]]\nwho = "A"\nsource = "B"\neps = 0.1\ncertified = 50\n'


@pytest.mark.parametrize("name", tables.names())
def test_every_table_is_whole(name: str) -> None:
    table = tables.read(name)
    assert table.radii == sorted(table.radii)
    for figure in table.figures:
        assert re.search(r"arXiv:\d{4}\.\d{5}$|^zoo:[\w.-]+, its card$", figure.source), "where it is published"
        assert figure.certified is None or figure.clean is None or figure.certified <= figure.clean
        for text in split(figure.methods or table.methods):
            get_verifier(text)
        for data, model in figure.models.items():
            assert zoo.card(model.removeprefix("zoo:")).data == data


@pytest.mark.parametrize("name", tables.names())
def test_what_a_table_trains_is_trained_for_the_radius_of_its_figure(name: str) -> None:
    for figure in tables.read(name).figures:
        if figure.train:
            options = {key: value for key, value in figure.train.items() if key not in ("arch", "recipe")}
            plan = Training(recipe(figure.train["recipe"]), **options)
            assert plan.recipe.eps == figure.eps
            assert plan.recipe.name in figure.who.lower()
            architectures.parse(figure.train["arch"])


def test_figures_of_this_project_are_those_of_its_cards() -> None:
    for figure in tables.read("fashion-linf").figures:
        if figure.source.startswith("zoo:"):
            card = zoo.card(figure.source.removeprefix("zoo:").removesuffix(", its card"))
            at = next(each for each in card.robustness if each.eps == figure.eps)
            assert figure.clean is None or figure.clean == pytest.approx(100 * card.clean_accuracy)
            assert figure.certified is None or figure.certified == pytest.approx(100 * max(at.ibp, at.crown))


def test_a_table_is_read() -> None:
    table = parse("t", HEAD + ROW + ROW.replace("0.1", "8e-3"))
    assert (table.norm, table.radii, table.at_hand()) == (inf, [0.008, 0.1], [])
    assert (table.figures[0].certified, table.figures[0].clean) == (50.0, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title = ", "table t: not TOML"),
        (HEAD, r"at least one \[\[figure\]\]"),
        (HEAD.replace('norm = "inf"', 'norm = "7"') + ROW, "unknown norm '7'"),
        (HEAD.replace('data = "digits"\n', "") + ROW, "table t: expected data, which is missing"),
        (HEAD + ROW.replace('source = "B"\n', ""), "table t, figure 1: expected source, which is missing"),
        (HEAD + ROW + "clear = 3\n", "table t, figure 1: unknown key clear"),
        (HEAD + ROW.replace("50", "101"), "expected certified in percent, from 0 to 100, got 101.0"),
        (HEAD + ROW.replace("50", '"50"'), "certified is of another type: '50'"),
        (HEAD + ROW.replace("0.1", "0"), "expected eps > 0"),
    ],
)
def test_what_is_no_table_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse("t", text)


def test_an_unknown_table_has_its_neighbour_named() -> None:
    with pytest.raises(InputError, match="did you mean 'mnist-linf'"):
        tables.read("mnist-lif")
