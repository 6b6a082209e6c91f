"""Random formulas: the parsed cases have the formula's members exactly, in both versions and after writing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.verify.core.errors import AssayError, UnsupportedError
from assay.verify.core.region import Polytope
from assay.verify.frontends.vnnlib import parse_vnnlib, read_vnnlib, write_vnnlib
from assay.verify.frontends.vnnlib.write import encode
from tests.breadth import slow
from tests.verify.frontends.vnnlib_formulas import (
    Numbers,
    Statement,
    assertions,
    assertions_of_version1,
    assertions_with_links,
    assertions_with_products,
    assertions_with_ties,
    content,
    covered,
    points,
    single_points,
    version1,
    version2,
    witnessed,
)


@pytest.mark.parametrize("examples", [40, slow(120)])
def test_members_are_those_of_the_formula(examples: int) -> None:
    @settings(max_examples=examples)
    @given(assertions, points)
    def check(asserted: list[Statement], some: list[tuple[Numbers, Numbers]]) -> None:
        agrees(asserted, some)

    check()


def agrees(asserted: list[Statement], some: list[tuple[Numbers, Numbers]]) -> None:
    """Points are counterexamples by the text if they are by its meaning."""
    prop = parse_vnnlib(version1(asserted))
    for x, y in some:
        expected = all(part.holds(x, y) for part in asserted)
        assert witnessed(prop, x, y) == expected
        assert covered(prop, x, y) or not expected


@pytest.mark.parametrize("examples", [25, slow(60)])
def test_members_where_connectives_are_nested(examples: int) -> None:
    @settings(max_examples=examples)
    @given(assertions_of_version1, points)
    def check(asserted: list[Statement], some: list[tuple[Numbers, Numbers]]) -> None:
        agrees(asserted, some)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("examples", [40, slow(120)])
def test_members_where_inputs_are_tied(examples: int) -> None:
    """Exactly where numbers can be told exactly; elsewhere no member is none, and none is left out of the proof."""

    @settings(max_examples=examples)
    @given(assertions_with_ties, points)
    def check(asserted: list[Statement], some: list[tuple[Numbers, Numbers]]) -> None:
        prop = parse_vnnlib(version1(asserted))
        exact = not any(isinstance(region, Polytope) and region.inner is not None for region, _ in prop.cases)
        for x, y in some:
            expected = all(part.holds(x, y) for part in asserted)
            assert covered(prop, x, y) or not expected
            found = witnessed(prop, x, y)
            assert found == expected if exact else expected or not found

    check()


@pytest.mark.slow
@pytest.mark.parametrize("examples", [40, slow(120)])
def test_members_where_outputs_are_compared_with_inputs(examples: int) -> None:
    @settings(max_examples=examples)
    @given(assertions_with_links, single_points)
    def check(asserted: list[Statement], some: list[tuple[Numbers, Numbers]]) -> None:
        prop = parse_vnnlib(version1(asserted))
        for x, y in some:
            expected = all(part.holds(x, y) for part in asserted)
            assert covered(prop, x, y) or not expected
            assert expected or not witnessed(prop, x, y)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("examples", [40, slow(200)])
def test_members_where_terms_are_multiplied(examples: int) -> None:
    """What is told of a product holds of its exact value."""

    @settings(max_examples=examples)
    @given(assertions_with_products, single_points)
    def check(asserted: list[Statement], some: list[tuple[Numbers, Numbers]]) -> None:
        try:
            prop = parse_vnnlib(version1(asserted))
        except UnsupportedError as why:
            if "do not fit into float64" in str(why):  # decimals of many digits are refused where they are multiplied
                return
            raise
        again = parse_vnnlib(encode(prop).decode())
        for x, y in some:
            expected = all(part.holds(x, y) for part in asserted)
            assert covered(prop, x, y) or not expected
            assert expected or not witnessed(prop, x, y)
            assert witnessed(again, x, y) == witnessed(prop, x, y)

    check()


@given(assertions)
def test_cases_are_told_apart_by_their_boxes(asserted: list[Statement]) -> None:
    prop = parse_vnnlib(version1(asserted))
    assert prop.cases
    assert len({box.id for box, _ in prop.cases}) == len(prop.cases)
    vacuous = [box.empty or not spec.disjuncts for box, spec in prop.cases]
    assert not any(vacuous) or (vacuous == [True] and prop.warnings)


@pytest.mark.parametrize("examples", [20, slow(50)])
@pytest.mark.parametrize(
    "strategy", [assertions, assertions_with_ties, assertions_with_links, assertions_with_products]
)
def test_version_2_says_the_same(strategy: st.SearchStrategy[list[Statement]], examples: int) -> None:
    @settings(max_examples=examples)
    @given(strategy)
    def check(asserted: list[Statement]) -> None:
        pytest.importorskip("vnnlib")
        assert content(parse_vnnlib(version2(asserted))) == content(parse_vnnlib(version1(asserted)))

    check()


@pytest.mark.parametrize("examples", [20, slow(50)])
def test_what_is_written_reads_back_the_same(tmp_path_factory: pytest.TempPathFactory, examples: int) -> None:
    @settings(max_examples=examples)
    @given(assertions)
    def check(asserted: list[Statement]) -> None:
        path = tmp_path_factory.mktemp("written") / "p.vnnlib"
        prop = parse_vnnlib(version1(asserted))
        write_vnnlib(prop, path)
        assert content(read_vnnlib(path)) == content(prop)

    check()


@pytest.mark.parametrize("examples", [20, slow(50)])
def test_what_is_written_of_ties_has_the_same_members(tmp_path_factory: pytest.TempPathFactory, examples: int) -> None:
    @settings(max_examples=examples)
    @given(assertions_with_ties, points)
    def check(asserted: list[Statement], some: list[tuple[Numbers, Numbers]]) -> None:
        path = tmp_path_factory.mktemp("written") / "p.vnnlib"
        prop = parse_vnnlib(version1(asserted))
        write_vnnlib(prop, path)
        back = read_vnnlib(path)
        for x, y in some:
            assert covered(back, x, y) or not covered(prop, x, y)
            assert witnessed(back, x, y) or not witnessed(prop, x, y)

    check()


PIECES = (
    *"()<>=-+*;.e_XY019 \n\"'|\\\x00\x85é[],",
    *("(and ", "(or ", "(assert ", "(declare-const ", "X_0", "Y_1", "1e400", "NaN", "(* X_0 X_0)", "<2.0>", "1e-999"),
    *("(vnnlib-version <2.0>)", "(declare-network ", "X[0]", "Y[9]", "X[-1]", "real", "(-", "9" * 30, "(" * 300),
)


def mutated(text: str, rng: random.Random) -> str:
    """``text`` with a few pieces put in, taken out, doubled or moved."""
    for _ in range(rng.randint(1, 4)):
        at, to = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        to = min(to, at + rng.choice((1, 3, 20, 1000)))
        text = rng.choice(
            (
                text[:at] + rng.choice(PIECES) + text[at:],
                text[:at] + text[to:],
                text[:to] + text[at:],
                text[:at] + rng.choice(PIECES) + text[to:],
                text[to:] + text[:to],
                text[:to],
            )
        )
    return text


def complains(text: str) -> str | None:
    """What is said of a text that cannot be read; None if it can."""
    try:
        parse_vnnlib(text, "damaged.vnnlib")
    except AssayError as error:
        return str(error)
    return None


@pytest.mark.parametrize("examples", [40, slow(120)])
def test_damaged_texts_end_in_errors_of_ours(examples: int) -> None:
    @settings(max_examples=examples)
    @given(assertions, st.booleans(), st.integers(0, 2**32))
    def check(asserted: list[Statement], newer: bool, seed: int) -> None:
        if newer:
            pytest.importorskip("vnnlib")
        text = mutated((version2 if newer else version1)(asserted), random.Random(seed))
        complaint = complains(text)
        assert complaint is None or complaint.startswith("damaged.vnnlib:")

    check()


def test_bytes_that_are_no_text_end_in_errors_of_ours(tmp_path: Path) -> None:
    rng = random.Random(0)
    path = tmp_path / "p.vnnlib"
    for _ in range(100):
        path.write_bytes(rng.randbytes(rng.randrange(400)))
        with pytest.raises(AssayError, match=r"p\.vnnlib"):
            read_vnnlib(path)
