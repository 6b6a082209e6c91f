"""From formulas to boxes and unsafe sets: distribution, what is empty, outward rounding, exact members."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nextafter

import numpy as np
import pytest
import torch

from assay.verify.check.replay import replay
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError, ResourceError
from assay.verify.core.network import to_network
from assay.verify.core.result import Reason, Verdict
from assay.verify.frontends.vnnlib import Property, cases, parse_vnnlib, version1
from assay.verify.frontends.vnnlib.formula import Row
from assay.verify.frontends.vnnlib.rounding import half_space, neighbours
from assay.verify.registry import get_verifier, list_verifiers
from tests.nets import random_mlp

DECLARED = "".join(f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1", "Y_2"))
BOX = "(assert (and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1)))"

Case = tuple[list[float], list[float], list[list[list[float]]]]


def read(assertions: str, box: str = BOX) -> Property:
    return parse_vnnlib(DECLARED + box + assertions)


def summary(prop: Property) -> list[Case]:
    """Each case: lower and upper bounds, and the disjuncts as rows [coefficients..., limit]."""
    return [
        (
            box.lower.tolist(),
            box.upper.tolist(),
            [torch.cat([d.A, d.b[:, None]], dim=1).tolist() for d in spec.disjuncts],
        )
        for box, spec in prop.cases
    ]


Y0, Y1, Y2 = [1.0, 0.0, 0.0, 5.0], [0.0, 1.0, 0.0, 5.0], [0.0, 0.0, 1.0, 5.0]  # Y_i <= 5


@pytest.mark.parametrize(
    ("assertions", "expected"),
    [
        ("", [([0, 0], [1, 1], [[]])]),
        ("(assert (<= Y_0 5))(assert (<= Y_1 5))", [([0, 0], [1, 1], [[Y0, Y1]])]),
        ("(assert (or (<= Y_0 5) (<= Y_1 5)))", [([0, 0], [1, 1], [[Y0], [Y1]])]),
        # what stands before or beside an or is not lost
        (
            "(assert (<= Y_2 5))(assert (or (<= Y_0 5) (<= Y_1 5)))",
            [([0, 0], [1, 1], [[Y2, Y0], [Y2, Y1]])],
        ),
        (
            "(assert (and (<= X_1 0.5) (or (<= Y_0 5) (<= Y_1 5)) (<= Y_2 5)))",
            [([0, 0], [1, 0.5], [[Y2, Y0], [Y2, Y1]])],
        ),
        # an or over input boxes is several cases, and bounds do not leak from one to the other
        (
            "(assert (or (<= X_0 0.25) (>= X_1 0.75)))(assert (<= Y_0 5))",
            [([0, 0], [0.25, 1], [[Y0]]), ([0, 0.75], [1, 1], [[Y0]])],
        ),
        # inputs and outputs in one or
        (
            "(assert (or (and (<= X_0 0.25) (<= Y_0 5)) (and (<= X_0 0.5) (<= Y_1 5))))",
            [([0, 0], [0.25, 1], [[Y0]]), ([0, 0], [0.5, 1], [[Y1]])],
        ),
        # the same box is one case, however it is said
        (
            "(assert (or (and (<= X_0 0.5) (<= Y_0 5)) (and (<= Y_1 5) (<= (* 2 X_0) 1) (<= X_1 7))))",
            [([0, 0], [0.5, 1], [[Y0], [Y1]])],
        ),
        # an or of inputs and an or of outputs in assertions of their own: every combination
        (
            "(assert (or (<= X_0 0.25) (>= X_0 0.75)))(assert (or (<= Y_0 5) (<= Y_1 5)))",
            [([0, 0], [0.25, 1], [[Y0], [Y1]]), ([0.75, 0], [1, 1], [[Y0], [Y1]])],
        ),
        # nested three deep
        (
            "(assert (or (<= Y_0 5) (and (<= Y_1 5) (or (<= X_0 0.5) (<= Y_2 5)))))",
            [([0, 0], [1, 1], [[Y0], [Y1, Y2]]), ([0, 0], [0.5, 1], [[Y1]])],
        ),
        # one disjunct that says nothing of the outputs is all of their space
        ("(assert (or (<= Y_0 5) (>= X_0 0)))", [([0, 0], [1, 1], [[]])]),
        # repetitions
        ("(assert (or (<= Y_0 5) (<= Y_0 5)))(assert (<= Y_1 5))(assert (<= Y_1 5))", [([0, 0], [1, 1], [[Y1, Y0]])]),
    ],
)
def test_or_and_and_are_distributed(assertions: str, expected: list[Case]) -> None:
    prop = read(assertions)
    assert summary(prop) == expected
    assert not prop.warnings


def test_bounds_may_all_stand_within_an_or() -> None:
    prop = read(
        "(assert (or (and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1)) (and (>= X_0 2) (<= X_0 3) (<= X_1 2))))"
        "(assert (>= X_1 0))",
        box="",
    )
    assert summary(prop) == [([0, 0], [1, 1], [[]]), ([2, 0], [3, 2], [[]])]


def test_a_strict_comparison_from_below_is_a_lower_bound() -> None:
    ((box, _),) = read("(assert (> X_0 0.5))").cases
    assert (box.lower.tolist(), box.upper.tolist()) == ([0.5, 0.0], [1.0, 1.0])


@pytest.mark.parametrize(
    ("assertions", "left", "warning"),
    [
        (
            "(assert (or (>= X_0 2) (<= Y_0 5)))",
            [([0, 0], [1, 1], [[Y0]])],
            "1 disjunct of 2 left out, being empty; the first: the interval [2.0, 1.0] of input X_0 is empty",
        ),
        (
            "(assert (or (> X_0 1) (< X_1 0) (<= Y_0 5)))",
            [([0, 0], [1, 1], [[Y0]])],
            "2 disjuncts of 3 left out, being empty; the first: the interval (1.0, 1.0] of input X_0 is empty",
        ),
        (
            "(assert (or (and (<= Y_1 1) (>= Y_1 2)) (<= Y_0 5)))",
            [([0, 0], [1, 1], [[Y0]])],
            "1 disjunct of 2 left out, being empty; the first: the bounds of Y_1 contradict each other",
        ),
        (
            "(assert (or (and (< Y_1 Y_2) (<= (* 2 Y_2) (* 2 Y_1))) (<= Y_0 5)))",
            [([0, 0], [1, 1], [[Y0]])],
            "1 disjunct of 2 left out, being empty; the first: the bounds of Y_1, Y_2 contradict each other",
        ),
    ],
)
def test_an_empty_disjunct_is_left_out_with_a_warning(assertions: str, left: list[Case], warning: str) -> None:
    prop = read(assertions)
    assert summary(prop) == left
    assert prop.warnings == (warning,)


VACUOUS = [
    "(assert (>= X_0 2))",
    "(assert (> X_0 1))",
    "(assert (and (<= X_0 0.1) (>= X_0 0.1000000000000000000001)))",  # apart by less than a float64 can tell
    "(assert (or (>= X_0 2) (< X_1 0)))",
    "(assert (<= 1 0))",
    "(assert (or (<= 1 0) (>= X_0 2)))",
    "(assert (<= Y_0 1))(assert (>= Y_0 2))",
    "(assert (< (+ Y_0 Y_1) 1))(assert (<= 1 (+ Y_1 Y_0)))",
    "(assert (>= X_0 2))(assert (or (<= Y_0 1) (<= Y_1 1)))",
]


@pytest.mark.parametrize("assertions", VACUOUS)
@pytest.mark.parametrize("method", ["ibp", "auto"])
def test_contradictions_are_vacuous_and_never_verified(assertions: str, method: str) -> None:
    prop = read(assertions + "(assert (>= Y_2 1000))")
    (problem,) = prop.problems(to_network(random_mlp(0, (2, 4, 3)), (2,)))
    result = get_verifier(method).verify(problem, Budget(10))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.VACUOUS)
    assert len(prop.warnings) == 1
    assert prop.warnings[0].startswith("there is no counterexample by definition: ")


def test_without_output_constraints_every_point_is_a_counterexample() -> None:
    network = to_network(random_mlp(0, (2, 4, 3)), (2,))
    (problem,) = read("").problems(network)
    assert replay(problem, torch.tensor([0.5, 0.5])).confirmed
    for method in list_verifiers():
        verifier = get_verifier(method)
        if verifier.supports(problem) is None:
            assert verifier.verify(problem, Budget(10)).verdict is not Verdict.VERIFIED
    assert get_verifier("auto").verify(problem, Budget(10)).verdict is Verdict.FALSIFIED


@pytest.mark.parametrize(
    "text", ["0.1", "-0.1", "0.3", "1e-400", "-1e-400", "4.9e-324", "1e308", "123456789.123456789"]
)
def test_bounds_are_rounded_outward_and_their_members_inward(text: str) -> None:
    exact = Fraction(text)
    below, above = neighbours(exact)
    assert Fraction(below) < exact < Fraction(above)
    assert above == nextafter(below, inf)
    ((box, _),) = read(f"(assert (= X_0 {text}))", "(assert (= X_1 0))").cases
    assert (box.lower[0].item(), box.upper[0].item()) == (below, above)
    assert box.inner is not None
    assert (box.inner.lower[0].item(), box.inner.upper[0].item()) == (above, below)  # no float64 is a member


@pytest.mark.parametrize("text", ["0.5", "-3", "0", "0.1000000000000000055511151231257827021181583404541015625"])
def test_float64_bounds_stay_as_they_are(text: str) -> None:
    ((box, _),) = read(f"(assert (<= X_0 {text}))(assert (>= X_0 -5))", "(assert (= X_1 0))").cases
    assert box.upper[0].item() == float(text)
    assert box.inner is None


def members(assertions: str, values: list[float], dtype: torch.dtype) -> list[bool]:
    """Whether (value, 0) lies in the region of the one case."""
    ((box, _),) = read(assertions, "(assert (= X_1 0))").cases
    points = torch.tensor([[value, 0.0] for value in values], dtype=dtype)
    return [bool(inside) for inside in box.contains(points)]


def test_a_float32_number_at_the_rounded_bound_is_no_member_of_the_exact_one() -> None:
    single = float(np.float32(0.3))  # 0.300000011920928955078125
    just_below = "0.30000001192092895507812"  # rounds to the same float64
    assert float(just_below) == single
    previous = float(np.nextafter(np.float32(0.3), np.float32(0)))
    box = f"(assert (<= X_0 {just_below}))(assert (>= X_0 0))"
    assert members(box, [previous, single], torch.float32) == [True, False]
    assert members(box, [nextafter(single, 0), single], torch.float64) == [True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strict_bounds_leave_their_ends_out(dtype: torch.dtype) -> None:
    ends = torch.tensor([0.25, 0.75], dtype=dtype)
    low, high = ends.tolist()
    inward = [torch.nextafter(ends[0], ends[1]).item(), torch.nextafter(ends[1], ends[0]).item()]
    assert members("(assert (> X_0 0.25))(assert (< X_0 0.75))", [low, *inward, high], dtype) == [
        False,
        True,
        True,
        False,
    ]
    assert members("(assert (>= X_0 0.25))(assert (<= X_0 0.75))", [low, *inward, high], dtype) == [True] * 4


def test_a_witness_of_a_strict_bound_is_replayed_strictly() -> None:
    network = to_network(random_mlp(0, (2, 4, 3)), (2,))
    (problem,) = read("(assert (> X_0 0.25))").problems(network)
    assert not replay(problem, torch.tensor([0.25, 0.5])).confirmed
    assert replay(problem, torch.tensor([0.25 + 2**-25, 0.5])).confirmed
    assert problem.region.box().lower[0].item() == 0.25  # the proof covers the closure


def test_where_no_float32_number_fits_the_nearest_is_allowed_and_the_proof_covers_it() -> None:
    network = to_network(random_mlp(0, (2, 4, 3)), (2,))
    with pytest.warns(UserWarning, match="input 0 is the value 0.1, which is no float32"):
        (problem,) = read("(assert (= X_0 0.1))", "(assert (= X_1 0))").problems(network)
    nearest = torch.tensor([0.1, 0.0])
    assert replay(problem, nearest).confirmed
    box = problem.region.box()
    assert Fraction(box.lower[0].item()) < Fraction(1, 10) < Fraction(box.upper[0].item())
    assert box.lower[0] <= nearest[0].double() <= box.upper[0]


def rows_of(assertion: str) -> tuple[list[list[float]], list[float], list[bool]]:
    ((_, spec),) = read(assertion).cases
    (part,) = spec.disjuncts
    return part.A.tolist(), part.b.tolist(), part.strict.tolist()


def test_a_limit_that_is_no_float64_is_rounded_up_and_its_row_made_strict() -> None:
    below, above = neighbours(Fraction("0.3"))
    assert rows_of("(assert (<= Y_0 0.3))") == ([[1, 0, 0]], [above], [True])
    assert rows_of("(assert (< Y_0 0.3))") == ([[1, 0, 0]], [above], [True])
    assert rows_of("(assert (>= Y_0 0.3))") == ([[-1, 0, 0]], [-below], [True])
    ((_, spec),) = read("(assert (<= Y_0 0.3))").cases
    outputs = torch.tensor([[below, 0, 0], [above, 0, 0]], dtype=torch.float64)
    assert spec.violated(outputs).tolist() == [True, False]


def test_coefficients_that_are_no_float64_are_scaled_to_exact_ones() -> None:
    assert rows_of("(assert (<= (+ (* 0.1 Y_0) (* 0.3 Y_1)) 0.5))") == ([[0.5, 1.5, 0]], [2.5], [False])
    assert rows_of("(assert (<= (* 0.12345678901234567 (- Y_0 Y_1)) 0))") == ([[1, -1, 0]], [0], [False])
    assert rows_of("(assert (<= (* 1e-320 Y_0) 1e-320))") == ([[1, 0, 0]], [1], [False])
    assert not read("(assert (<= (+ (* 0.1 Y_0) (* 0.3 Y_1)) 0.5))").warnings


def test_coefficients_that_no_scale_makes_exact_are_rounded_with_a_warning() -> None:
    prop = read("(assert (<= (+ (* 0.12345678901234567 Y_0) (* 0.1 Y_1)) 0))")
    assert prop.warnings == ("coefficients were rounded to the nearest float64 in 1 comparison of outputs",)
    ((_, spec),) = prop.cases
    assert spec.A.tolist() == [[0.12345678901234567, 0.1, 0.0]]


@pytest.mark.parametrize("coefficients", [("0.1", "0.3"), ("0.7", "-1.1"), ("1e-5", "3e-7"), ("1.7", "0.5")])
@pytest.mark.parametrize("limit", ["0", "0.3", "-7", "1e-9"])
def test_a_scaled_row_is_the_same_half_space_rounded_outward(coefficients: tuple[str, str], limit: str) -> None:
    a, c = (Fraction(text) for text in coefficients)
    row = Row(((0, a), (1, c)), Fraction(limit), strict=False)
    space = half_space(row)
    assert space.positions == (0, 1)
    scaled = [Fraction(value) for value in space.coefficients]
    assert space.exact
    assert scaled[0] * c == scaled[1] * a
    factor = scaled[0] / a
    assert factor > 0
    assert Fraction(nextafter(space.limit, -inf)) < row.limit * factor <= Fraction(space.limit)
    assert space.strict == (row.limit * factor != Fraction(space.limit))


def test_numbers_too_far_apart_for_float64_are_refused() -> None:
    with pytest.raises(InputError, match="outside of the range of float64"):
        read("(assert (<= (* 1e-320 Y_0) 1e300))")


@pytest.mark.parametrize(("name", "message"), [("MAX_NUMBERS", "2 boxes"), ("MAX_COEFFICIENTS", "comparisons of 3")])
def test_sizes_are_capped(monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    text = "(assert (or (and (<= X_0 0.5) (<= Y_0 1)) (<= Y_1 1)))"
    assert len(read(text).cases) == 2
    monkeypatch.setattr(cases, name, 3)
    with pytest.raises(ResourceError, match=message):
        read(text)


def test_problems_have_the_networks_shape_and_share_the_network() -> None:
    network = to_network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 3)).eval(), (1, 2, 1))
    prop = read("(assert (or (<= X_0 0.25) (> X_1 0.75)))")
    problems = prop.problems(network)
    assert [problem.region.shape for problem in problems] == [(1, 2, 1)] * 2
    assert all(problem.network is network for problem in problems)
    assert problems[1].region.box().lower.flatten().tolist() == [0.0, 0.75]
    assert not replay(problems[1], torch.tensor([[[0.5], [0.75]]])).confirmed  # strictness is kept


@pytest.mark.parametrize("sizes", [(3, 4, 3), (2, 4, 2)])
def test_a_network_of_other_sizes_is_refused(sizes: tuple[int, ...]) -> None:
    network = to_network(random_mlp(0, sizes), sizes[:1])
    with pytest.raises(InputError, match=rf"2 inputs and 3 outputs; the network takes {sizes[0]}.* gives {sizes[-1]}"):
        read("").problems(network)


@pytest.mark.parametrize("known", [0, 3, 10_000])
def test_bounds_that_boxes_have_in_common(known: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read once by its text says the same each time, and so do texts that differ in a sign or a blank."""
    monkeypatch.setattr(version1, "MAX_KNOWN", known)
    fixed = "(>= X_0 0.25) (<= X_0 0.25) (<= Y_0 5)"
    boxes = [f"(and {fixed} (>= X_1 {low}) (<= X_1  {low + 1}))" for low in (0, -1, 0.25)]
    prop = read(f"(assert (or {' '.join(boxes)}))", box="")
    expected = [([0.25, low], [0.25, low + 1], [[Y0]]) for low in (0.0, -1.0, 0.25)]
    assert sorted(summary(prop)) == sorted(expected)
