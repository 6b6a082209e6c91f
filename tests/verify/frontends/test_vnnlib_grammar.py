"""VNN-LIB 1.0: what the grammar takes, what it says of what it does not take, and the caps."""

from __future__ import annotations

import pytest
import torch

from assay.verify.core.errors import AssayError, InputError, ResourceError, UnsupportedError
from assay.verify.core.region import Box
from assay.verify.core.spec import Spec
from assay.verify.frontends.vnnlib import Property, formula, linear, operators, parse_vnnlib, version1

DECLARED = "(declare-const X_0 Real)\n(declare-const X_1 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
BOX = "(assert (and (>= X_0 -1) (<= X_0 1) (>= X_1 -1) (<= X_1 1)))\n"
LINE = 6  # of what the helper below appends


def read(assertions: str) -> Property:
    """The property of two inputs in [-1, 1] and two outputs with more assertions."""
    return parse_vnnlib(DECLARED + BOX + assertions, "p.vnnlib")


def rows(assertions: str) -> list[tuple[list[list[float]], list[float], list[bool]]]:
    """The disjuncts of the one case: A, b, strict."""
    ((_, spec),) = read(assertions).cases
    return [(d.A.tolist(), d.b.tolist(), d.strict.tolist()) for d in spec.disjuncts]


def box(assertions: str) -> list[list[float]]:
    """Lower and upper bounds of the one case."""
    ((bounds, _),) = read(assertions).cases
    return [bounds.lower.tolist(), bounds.upper.tolist()]


@pytest.mark.parametrize(
    ("comparison", "row", "limit", "strict"),
    [
        ("(<= Y_0 2)", [1.0, 0.0], 2.0, False),
        ("(< Y_0 2)", [1.0, 0.0], 2.0, True),
        ("(>= Y_0 2)", [-1.0, 0.0], -2.0, False),
        ("(> Y_0 2)", [-1.0, 0.0], -2.0, True),
        ("(<= 2 Y_0)", [-1.0, 0.0], -2.0, False),
        ("(>= 2 Y_0)", [1.0, 0.0], 2.0, False),
        ("(<= Y_0 Y_1)", [1.0, -1.0], 0.0, False),
        ("(> Y_0 Y_1)", [-1.0, 1.0], 0.0, True),
        ("(<= (+ Y_0 Y_1 1) 3)", [1.0, 1.0], 2.0, False),
        ("(<= (- Y_0) 3)", [-1.0, 0.0], 3.0, False),
        ("(<= (- Y_0 Y_1 1 2) 3)", [1.0, -1.0], 6.0, False),
        ("(<= (* 2 Y_0) (* Y_1 3))", [2.0, -3.0], 0.0, False),
        ("(<= (* 2 -3 Y_0 0.5) 1)", [-3.0, 0.0], 1.0, False),
        ("(<= (+ (* 2 (- Y_0 (+ Y_1 1))) Y_1) (- 4 Y_0))", [3.0, -1.0], 6.0, False),
        ("(<= (+ Y_0 Y_0) 1)", [2.0, 0.0], 1.0, False),
        ("(<= (+ Y_0 (* 0 Y_1)) 1)", [1.0, 0.0], 1.0, False),
        ("(<= Y_0 1.5e2)", [1.0, 0.0], 150.0, False),
        ("(<= Y_0 -.5)", [1.0, 0.0], -0.5, False),
        ("(<= Y_0 +5.)", [1.0, 0.0], 5.0, False),
        ("(<= Y_0 25E-2)", [1.0, 0.0], 0.25, False),
        ("(>= Y_0 -0.0)", [-1.0, 0.0], 0.0, False),
    ],
)
def test_comparisons_of_outputs_become_rows(comparison: str, row: list[float], limit: float, strict: bool) -> None:
    assert rows(f"(assert {comparison})") == [([row], [limit], [strict])]


@pytest.mark.parametrize(
    ("comparison", "lower", "upper"),
    [
        ("(<= X_0 0.5)", -1.0, 0.5),
        ("(>= X_0 0.5)", 0.5, 1.0),
        ("(<= 0.5 X_0)", 0.5, 1.0),
        ("(>= 0.5 X_0)", -1.0, 0.5),
        ("(<= (* -2 X_0) 1)", -0.5, 1.0),
        ("(<= (+ X_0 X_0 1) (- 2 X_0 X_0))", -1.0, 0.25),
        ("(<= X_0 2)", -1.0, 1.0),  # looser than what there is
        ("(= X_0 0.25)", 0.25, 0.25),
        ("(== 0.25 X_0)", 0.25, 0.25),
        ("(<= (- X_0 X_1) (- 0.5 X_1))", -1.0, 0.5),
    ],
)
def test_comparisons_of_one_input_become_bounds(comparison: str, lower: float, upper: float) -> None:
    assert box(f"(assert {comparison})") == [[lower, -1.0], [upper, 1.0]]


def test_an_equality_of_outputs_is_two_rows_and_an_inequality_two_disjuncts() -> None:
    assert rows("(assert (= Y_0 1))") == [([[1.0, 0.0], [-1.0, 0.0]], [1.0, -1.0], [False, False])]
    assert rows("(assert (!= Y_0 1))") == [([[1.0, 0.0]], [1.0], [True]), ([[-1.0, 0.0]], [-1.0], [True])]


@pytest.mark.parametrize(
    "true", ["(<= 0 1)", "(<= (* (* 0 Y_0) Y_1) 1)", "(<= 1 1)", "(< (- X_0 X_0) (* 2 3))", "(!= 1 2)", "(= 1 1.0)"]
)
def test_comparisons_of_constants_that_hold_say_nothing(true: str) -> None:
    assert rows(f"(assert {true})(assert (<= Y_0 1))") == [([[1.0, 0.0]], [1.0], [False])]


@pytest.mark.parametrize("false", ["(<= 1 0)", "(< 1 1)", "(> (- Y_0 Y_0) 0)", "(!= 1 1)", "(= 1 2)"])
def test_comparisons_of_constants_that_fail_leave_their_disjunct_out(false: str) -> None:
    assert rows(f"(assert (or {false} (<= Y_0 1)))") == [([[1.0, 0.0]], [1.0], [False])]


def test_robust_classification_is_the_same_as_built_by_hand() -> None:
    text = "".join(f"(declare-const Y_{i} Real)" for i in range(10))
    text += "(declare-const X_0 Real)(assert (>= X_0 0))(assert (<= X_0 1))(assert (or "
    text += "".join(f"(and (>= Y_{j} Y_4))" for j in range(10) if j != 4) + "))"
    ((_, spec),) = parse_vnnlib(text).cases
    assert spec.id == Spec.robust(4, 10).id


@pytest.mark.parametrize(
    "spelling",
    [
        "(assert (<= Y_0 1))",
        "  ( assert\n( <=\tY_0 ; a comment (with (parentheses\n 1 ) ;another\r\n)",
        "(assert(<=Y_0 1))".replace("<=", "<= "),
        "(assert (or (<= Y_0 1)))",
        "(assert (and (and (<= Y_0 1))))",
        "(assert (<= Y_0 1)) ; the last line has no end",
    ],
)
def test_space_comments_and_single_clauses_change_nothing(spelling: str) -> None:
    assert rows(spelling) == [([[1.0, 0.0]], [1.0], [False])]


def test_a_header_of_version_1_may_stand_in_front() -> None:
    text = "; a comment\n(vnnlib-version <1.0>)\n" + DECLARED + BOX
    assert parse_vnnlib(text).inputs == 2


def test_declarations_come_in_any_order() -> None:
    text = "(declare-const Y_0 Real)(declare-const X_1 Real)( declare-const ; here\n X_0 Real )"
    prop = parse_vnnlib(text + BOX)
    assert (prop.inputs, prop.outputs) == (2, 1)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("(assert (<= Y_0 1)", 19, "ends too early"),
        ("(assert (<= Y_0 1)))", 20, "expected '('"),
        ("(assert (<= Y_0 1)) Y_0", 21, "expected '('"),
        ("(assert (<= Y_0 1) (<= Y_1 1))", 20, "expected ')'"),
        ("(assert", 8, "ends too early"),
        ("(", 2, "ends too early"),
        ("()", 2, "unknown command ')'"),
        ("(assert ())", 10, "unknown operator ')'"),
        ("(assert )", 9, "expected a formula"),
        ("(assert Y_0)", 9, "expected a comparison"),
        ("(assert (+ Y_0 1))", 9, "expected a comparison"),
        ("(assert (<= Y_0))", 9, "<= compares 2 terms, got 1"),
        ("(assert (!= 0 Y_0 1))", 9, "!= compares 2 terms, got 3"),
        ("(assert (distinct Y_0))", 9, "at least 2 terms, got 1"),
        ("(assert (=> (<= Y_0 1)))", 9, "at least 2 comparisons, got 1"),
        ("(assert (not (<= Y_0 1) (<= Y_1 1)))", 9, "1 formula, got 2"),
        ("(assert (not Y_0))", 9, "not joins comparisons"),
        ("(assert (= (<= Y_0 1) Y_1))", 9, "= joins comparisons"),
        ("(assert (<= true 1))", 9, "<= applies to terms"),
        ("(assert (<= (/ Y_0 0) 1))", 13, "division by zero"),
        ("(assert (<= (/ Y_0) 1))", 13, "divides by at least 1"),
        ("(check-sat)(assert (<= Y_0 1))", 12, "after (check-sat)"),
        ("(exit)(get-model)(assert (<= (+ Y_0 Y_1) 1))", 18, "after (exit)"),
        ("(set-info :source |a bar is left open)", 19, "unexpected character"),
        ("(set-logic QF_LRA", 18, "ends too early"),
        ("(push 1)", 2, "unknown command 'push'"),
        ("(assert (<=))", 9, "nothing to apply to"),
        ("(assert (and))", 9, "nothing to apply to"),
        ("(assert (or (and)))", 13, "nothing to apply to"),
        ("(assert (<= (*) Y_0))", 13, "nothing to apply to"),
        ("(assert (and Y_0))", 9, "and joins comparisons"),
        ("(assert (<= (<= Y_0 1) 1))", 9, "<= applies to terms"),
        ("(assert (<= (+ (and (<= Y_0 1)) 1) 1))", 13, "+ applies to terms"),
        ("(assert (=< Y_0 1))", 10, "unknown operator '=<'"),
        ("(assert (AND (<= Y_0 1)))", 10, "unknown operator 'AND'"),
        ("(assrt (<= Y_0 1))", 2, "did you mean 'assert'"),
        ("(assert (<= Y_2 1))", 13, "Y_2 is not declared"),
        ("(assert (<= (+ Y_2 1) 1))", 16, "got 'Y_2'"),
        ("(assert (<= X_2 1))", 13, "X_2 is not declared"),
        ("(assert (<= Z_0 1))", 13, "got 'Z_0'"),
        ("(assert (<= Y_00 1))", 13, "got 'Y_00'"),
        ("(assert (<= y_0 1))", 13, "got 'y_0'"),
        ("(assert (<= Y_-1 1))", 13, "got 'Y_-1'"),
        ("(assert (<= Y_99999999999999999999 1))", 13, "got 'Y_99999999999999999999'"),
        ("(assert (<= Y_0 1e400))", 17, "1e400 is outside of the range of float64"),
        ("(assert (<= Y_0 -1e309))", 17, "outside of the range"),
        ("(assert (<= Y_0 1.8e308))", 17, "outside of the range"),
        ("(assert (<= Y_0 1e99999999999999999999))", 17, "outside of the range"),
        ("(assert (<= Y_0 1e-99999999999999999999))", 17, "outside of the range"),
        ("(assert (<= Y_0 1e-5000))", 17, "outside of the range"),
        ("(assert (<= Y_0 NaN))", 17, "got 'NaN'"),
        ("(assert (<= Y_0 nan))", 17, "got 'nan'"),
        ("(assert (<= Y_0 inf))", 17, "got 'inf'"),
        ("(assert (<= Y_0 -Infinity))", 17, "got '-Infinity'"),
        ("(assert (<= Y_0 1_000))", 17, "got '1_000'"),
        ("(assert (<= Y_0 0x10))", 17, "got '0x10'"),
        ("(assert (<= Y_0 1.2.3))", 17, "got '1.2.3'"),
        ("(assert (<= Y_0 ٣))", 17, "got '٣'"),
        ("(assert (<= Y_0 --1))", 17, "got '--1'"),
        ("(assert (<= Y_0 1/2))", 17, "got '1/2'"),
        ("(assert (<= Y_0 |1|))", 17, "unexpected character '|'"),
        ('(assert (<= Y_0 "1"))', 17, "unexpected character '\"'"),
        ("(assert (<= Y_0 \x00))", 17, "got '\\x00'"),
        ("(declare-const X_0 Real)", 16, "X_0 is declared twice"),
        ("(declare-const Y_2 Int)", 20, "expected the sort Real, got 'Int'"),
        ("(declare-const Z Real)", 16, "expected a variable X_i or Y_i, got 'Z'"),
        ("(declare-const X_02 Real)", 16, "expected a variable X_i or Y_i, got 'X_02'"),
        ("(declare-const Y_2)", 19, "expected the sort Real, got ')'"),
        ("(assert (<= Y_0 (* 1e200 1e200)))", 9, "outside of the range"),
        ("(assert (<= (* 1e-300 X_0) 1e300))", 9, "outside of the range"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, column: int, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text)
    assert str(caught.value).startswith(f"p.vnnlib:{LINE}:{column}: "), str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("(assert (ite (<= Y_0 1) (<= Y_1 1) (<= Y_1 0)))", 10, "ite is not supported"),
        ("(assert (<= (* Y_1 (+ Y_0 (* 36028797018963969 Y_1))) 1))", 13, "do not fit into float64"),
    ],
)
def test_what_is_not_supported_is_told_with_its_place(text: str, column: int, message: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        read(text)
    assert str(caught.value).startswith(f"p.vnnlib:{LINE}:{column}: "), str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "X_0 is not declared"),
        ("; nothing", "X_0 is not declared"),
        ("(declare-const X_0 Real)", "Y_0 is not declared"),
        ("(declare-const Y_0 Real)", "X_0 is not declared"),
        ("(declare-const Y_0 Real)(declare-const X_0 Real)(declare-const X_2 Real)", "X_1 is not declared"),
        ("(declare-const Y_0 Real)(declare-const X_999999999 Real)", "X_0 is not declared"),
        ("(assert (<= X_0 1))(declare-const X_0 Real)", "X_0 is not declared"),
        (DECLARED + "(assert (and (<= X_0 1) (>= X_0 0) (<= X_1 1)))", "input X_1 has no lower bound"),
        (DECLARED + "(assert (and (<= X_0 1) (>= X_0 0) (>= X_1 1)))", "input X_1 has no upper bound"),
        (DECLARED, "input X_0 has no lower bound"),
        (DECLARED + "(assert (<= 1 0))", "input X_0 has no lower bound"),
        (DECLARED + "(assert (or (and (<= X_0 1) (>= X_0 0)) (<= Y_0 1)))", "input X_1 has no lower bound"),
    ],
)
def test_what_is_missing_is_told(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_vnnlib(text, "p.vnnlib")


@pytest.mark.parametrize("version", ["0.1", "3.0", "10.0"])
def test_other_versions_are_not_supported(version: str) -> None:
    with pytest.raises(UnsupportedError, match=f"VNN-LIB {version[0]}"):
        parse_vnnlib(f"(vnnlib-version <{version}>)\n" + DECLARED + BOX)


def test_headers_of_smt_lib_say_nothing() -> None:
    plain = "(assert (<= Y_0 1))"
    header = """(set-logic QF_LRA) (set-info :source |two ) lines "of
    anything|) (set-info :license "a (quoted "" text") (set-option :produce-models true)"""
    footer = '(check-sat) (get-value (X_0 (f (Y_0)))) (get-model) (echo "done)") (exit)'
    assert rows(f"{header}{plain}{footer}") == rows(plain)
    functions = DECLARED.replace("declare-const X_0", "declare-fun X_0 ()")
    assert functions != DECLARED
    prop = parse_vnnlib(functions + BOX + plain)
    assert prop.inputs == 2


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("(not (<= Y_0 1))", "(> Y_0 1)"),
        ("(not (> Y_0 1))", "(<= Y_0 1)"),
        ("(not (= Y_0 1))", "(or (> Y_0 1) (< Y_0 1))"),
        ("(not (not (< Y_0 1)))", "(< Y_0 1)"),
        ("(not (and (<= Y_0 1) (< Y_1 2)))", "(or (> Y_0 1) (>= Y_1 2))"),
        ("(not (or (<= Y_0 1) (< Y_1 2)))", "(and (> Y_0 1) (>= Y_1 2))"),
        ("(=> (<= X_0 0.5) (>= Y_0 2))", "(or (> X_0 0.5) (>= Y_0 2))"),
        ("(=> (<= Y_0 1) (<= Y_1 2) (< Y_0 3))", "(or (> Y_0 1) (> Y_1 2) (< Y_0 3))"),
        ("(xor (<= Y_0 1) (< Y_1 2))", "(or (and (<= Y_0 1) (>= Y_1 2)) (and (> Y_0 1) (< Y_1 2)))"),
        ("(= (<= Y_0 1) (< Y_1 2))", "(or (and (<= Y_0 1) (< Y_1 2)) (and (> Y_0 1) (>= Y_1 2)))"),
        ("(<= 0 Y_0 Y_1)", "(and (<= 0 Y_0) (<= Y_0 Y_1))"),
        ("(distinct Y_0 0)", "(or (< Y_0 0) (> Y_0 0))"),
        ("(<= (/ Y_0 2 2) 1)", "(<= (* 0.25 Y_0) 1)"),
        ("(or false (<= Y_0 1))", "(<= Y_0 1)"),
        ("(and true (<= Y_0 1))", "(<= Y_0 1)"),
    ],
)
def test_connectives_of_smt_lib(text: str, same: str) -> None:
    prop, expected = read(f"(assert {text})"), read(f"(assert {same})")
    assert sorted(map(content, prop.cases)) == sorted(map(content, expected.cases))


def content(case: tuple[Box, Spec]) -> tuple[str, list[str]]:
    """A case, whatever the order of its disjuncts and their rows."""
    box, spec = case
    rows_ = [zip(p.A.tolist(), p.b.tolist(), p.strict.tolist(), strict=True) for p in spec.disjuncts]
    return box.id, sorted(str(sorted(some)) for some in rows_)


def nested(depth: int, operator: str = "and", leaf: str = "(<= Y_0 1)") -> str:
    return f"(assert {f'({operator} ' * depth}{leaf}{')' * depth})"


def test_depth_is_capped() -> None:
    assert rows(nested(operators.MAX_DEPTH - 1)) == [([[1.0, 0.0]], [1.0], [False])]
    for depth in (operators.MAX_DEPTH + 1, 100_000):
        with pytest.raises(ResourceError, match=r"p.vnnlib:6:\d+: more than 200 nested parentheses"):
            read(nested(depth))
    with pytest.raises(ResourceError, match="nested"):
        read(f"(assert (<= {'(- ' * 1000}Y_0")


def test_the_number_of_tokens_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version1, "MAX_TOKENS", 30)
    with pytest.raises(ResourceError, match=r"p.vnnlib:6:.*more than 30 tokens"):
        read(f"(assert (<= (+ {'Y_0 ' * 30}) 1))")


@pytest.mark.parametrize("kind", ["Y", "X"])
def test_the_number_of_disjuncts_is_capped_before_they_are_made(kind: str) -> None:
    clause = f"(or (<= {kind}_0 0) (<= {kind}_1 0))"
    for text in (f"(assert {clause})" * 40, f"(assert (and {clause * 40}))", f"(assert {clause})" * 5_000):
        with pytest.raises(ResourceError, match=r"p.vnnlib:.*more than 250000 disjuncts"):
            read(text)


def test_the_number_of_comparisons_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formula, "MAX_COMPARISONS", 50)
    clause = "(or (<= Y_0 0) (<= Y_1 0))"
    with pytest.raises(ResourceError, match="more than 50 comparisons"):
        read(f"(assert {clause})" * 5)
    with pytest.raises(ResourceError, match="more than 50 comparisons"):
        read(f"(assert (or {'(<= Y_0 0)' * 51}))")


def test_the_length_of_numbers_is_capped() -> None:
    with pytest.raises(ResourceError, match=r"p.vnnlib:6:17: a number of 2002 characters"):
        read(f"(assert (<= Y_0 0.{'1' * linear.MAX_DIGITS}))")
    with pytest.raises(ResourceError, match="a product of numbers of more than"):
        read(f"(assert (<= (* Y_0 {'1e300 1e-300 ' * 100}) 1))")


@pytest.mark.parametrize(
    "text",
    [
        "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= X_0 1" + " " * 200_000,
        "(assert (<= X_0 " + "1" * 200_000,
        "; " + "x" * 200_000 + "\n" + ";\n" * 100_000 + "(",
        "(" * 200_000,
        ")" * 200_000,
        "(assert (<= X_0 " + "1." * 100_000,
    ],
)
def test_no_text_takes_more_than_linear_time(text: str) -> None:
    with pytest.raises(AssayError):
        parse_vnnlib(text)


def test_long_tokens_are_cut_in_messages() -> None:
    with pytest.raises(InputError) as caught:
        read(f"(assert (<= Y_0 {'a' * 10_000}))")
    assert len(str(caught.value)) < 200
    with pytest.raises(InputError) as caught:
        read(f"({'a' * 1_000_000})")
    assert len(str(caught.value)) < 200


def test_the_boxes_are_flat_float64() -> None:
    ((box, spec),) = read("(assert (<= Y_0 1))").cases
    assert box.lower.dtype == torch.float64
    assert box.shape == (2,)
    assert spec.A.shape == (1, 2)
