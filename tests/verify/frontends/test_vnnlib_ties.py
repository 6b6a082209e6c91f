"""Comparisons between inputs, and of outputs with inputs: what files of them become, and the answers to them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from assay.verify.core.budget import Budget
from assay.verify.core.network import Network, to_network
from assay.verify.core.region import Box, Polytope
from assay.verify.core.result import Reason, Verdict
from assay.verify.frontends.vnnlib import Property, parse_vnnlib, read_vnnlib, write_vnnlib
from assay.verify.frontends.vnnlib.formula import Row
from assay.verify.frontends.vnnlib.rounding import tie
from assay.verify.registry import get_verifier
from assay.verify.solving.stages import decide
from assay.verify.solving.union import verify
from tests.nets import weighted

DECLARED = "".join(
    f"(declare-const X_{i} Real)(declare-const Y_{i} Real)(assert (>= X_{i} 0))(assert (<= X_{i} 1))" for i in range(2)
)


def read(text: str) -> Property:
    return parse_vnnlib(DECLARED + text)


def identity() -> Network:
    return to_network(weighted([([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])], torch.float32), (2,))


def difference() -> Network:
    """y_0 = |x_0 - x_1|, y_1 = relu(x_1 - x_0)."""
    first = ([[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0])
    return to_network(weighted([first, ([[1.0, 1.0], [0.0, 1.0]], [0.0, 0.0])], torch.float32), (2,))


CASES = [
    ("identity", "(assert (<= (+ X_0 X_1) 1.0))(assert (>= (+ Y_0 Y_1) 0.95))", Verdict.FALSIFIED),
    ("identity", "(assert (<= (+ X_0 X_1) 1.0))(assert (>= (+ Y_0 Y_1) 1.05))", Verdict.VERIFIED),
    ("identity", "(assert (> X_0 X_1))(assert (>= Y_1 Y_0))", Verdict.VERIFIED),
    ("identity", "(assert (>= X_0 X_1))(assert (>= Y_1 Y_0))", Verdict.FALSIFIED),
    ("identity", "(assert (>= Y_0 (+ X_0 0.1)))", Verdict.VERIFIED),
    ("identity", "(assert (>= Y_0 (+ X_0 (* 0.5 X_1))))", Verdict.FALSIFIED),
    ("difference", "(assert (>= X_0 X_1))(assert (>= Y_1 0.1))", Verdict.VERIFIED),
    ("difference", "(assert (or (and (>= X_0 X_1) (>= Y_1 0.1)) (and (<= X_0 X_1) (>= Y_1 0.9))))", Verdict.FALSIFIED),
    ("difference", "(assert (<= Y_0 (- X_0 X_1 0.01)))", Verdict.VERIFIED),
]


@pytest.mark.parametrize(("network", "text", "verdict"), CASES)
def test_answers(network: str, text: str, verdict: Verdict) -> None:
    problems = read(text).problems(identity() if network == "identity" else difference())
    result = verify(get_verifier("auto"), problems, Budget(60))
    assert result.verdict is verdict


def test_each_disjunct_may_have_its_own_comparisons() -> None:
    prop = read("(assert (or (and (>= X_0 X_1) (>= Y_1 0.1)) (and (<= (+ X_0 X_1) 1) (>= Y_1 0.5)) (>= Y_0 2)))")
    regions = [region for region, _ in prop.cases]
    rows = [region.A.tolist() if isinstance(region, Polytope) else None for region in regions]
    assert rows == [[[-1.0, 1.0]], [[1.0, 1.0]], None]
    assert isinstance(regions[2], Box)


def test_disjuncts_with_the_same_comparisons_are_one_problem() -> None:
    prop = read("(assert (<= X_0 X_1))(assert (or (>= Y_0 2) (<= Y_1 -1)))")
    ((region, spec),) = prop.cases
    assert isinstance(region, Polytope)
    assert len(spec.disjuncts) == 2


def test_comparisons_without_a_point_are_left_out_with_a_warning() -> None:
    """Neither the bounds of one direction nor intervals show that there is none."""
    none = "(<= (+ X_0 (* 2 X_1)) 1) (>= (+ (* 2 X_0) X_1) 1.7) (<= (- X_0 (* 0.5 X_1)) 0.5)"
    prop = read(f"(assert (or (and {none} (>= Y_0 1)) (>= Y_0 0.5)))")
    assert len(prop.cases) == 1
    assert any("no point of the box satisfies the comparisons between X_0, X_1" in line for line in prop.warnings)
    prop = read(f"(assert (and {none} (>= Y_0 1)))")
    (result,) = decide(get_verifier("crown"), prop.problems(identity()), Budget())
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.VACUOUS)


@pytest.mark.parametrize(
    "text", ["(assert (< X_0 X_1))(assert (< X_1 X_0))", "(assert (and (< X_0 X_1) (>= X_0 X_1)))"]
)
def test_strict_comparisons_that_contradict_each_other_are_vacuous(text: str) -> None:
    prop = read(text + "(assert (<= Y_0 5))")
    assert any("contradict each other" in line for line in prop.warnings)
    (problem,) = prop.problems(identity())
    assert get_verifier("ibp").verify(problem).reason is Reason.VACUOUS


def test_what_is_written_asks_the_same(tmp_path: Path) -> None:
    prop = read("(assert (<= (+ X_0 (* 0.1 X_1)) 0.7))(assert (>= Y_0 (+ X_1 0.25)))(assert (> X_0 X_1))")
    write_vnnlib(prop, tmp_path / "p.vnnlib")
    back = read_vnnlib(tmp_path / "p.vnnlib")
    assert [(region.id, spec.id) for region, spec in back.cases] == [
        (region.id, spec.id) for region, spec in prop.cases
    ]
    (problem,) = read("(assert (<= (+ X_0 X_1) 0.5))(assert (>= Y_0 0.25))").problems(identity())
    write_vnnlib(problem, tmp_path / "q.vnnlib")
    (again,) = read_vnnlib(tmp_path / "q.vnnlib").problems(identity())
    assert again.id == problem.id


@pytest.mark.parametrize(
    ("coefficients", "limit", "scaled", "exact"),
    [
        (("1", "1"), "0.5", (1.0, 1.0, 0.5), True),
        (("1", "1"), "1.1", (1.25, 1.25, 1.375), True),  # times ten, over a power of two
        (("0.1", "-0.3"), "0", (0.5, -1.5, 0.0), True),
        (("1", "1"), "0.1234567890123456789", (1.0, 1.0, 0.1234567890123456789), False),
        (("0.1234567890123456789", "1"), "1", (0.1234567890123456789, 1.0, 1.0), False),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_numbers_are_exact_where_they_can_be_and_safe_elsewhere(
    coefficients: tuple[str, str], limit: str, scaled: tuple[float, float, float], exact: bool, strict: bool
) -> None:
    terms = tuple((i, Fraction(c)) for i, c in enumerate(coefficients))
    found = tie(Row((), Fraction(limit), strict, terms), [Fraction(2)] * 2)
    assert (*found.coefficients, found.limit) == pytest.approx(scaled, rel=1e-15)
    assert (found.limit == found.inner) == exact
    if exact:
        factor = Fraction(found.coefficients[0]) / terms[0][1]
        assert Fraction(found.limit) == Fraction(limit) * factor
        assert (found.strict, found.closed) == (strict, not strict)
        return
    # At corners of what inputs can be, the outer limit is never short of the true one, and the inner one never beyond.
    for x in ((2, 2), (-2, 2), (2, -2), (-2, -2)):
        true = sum(c * v for (_, c), v in zip(terms, x, strict=True)) - Fraction(limit)
        near = sum(Fraction(c) * v for c, v in zip(found.coefficients, x, strict=True))
        assert near - Fraction(found.limit) <= true
        assert near - Fraction(found.inner) >= true
