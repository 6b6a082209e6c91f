"""Specifications: ties, strictness, an OR of ANDs against plain Python, empty sets, outputs that are not finite."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nan

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.support import floats

OUTPUTS = 3
small = st.integers(-2, 2)


@st.composite
def polyhedra(draw: st.DrawFn) -> Polyhedron:
    """Small integer coefficients, so that outputs often lie on a face; 0 to 3 rows."""
    rows = draw(st.integers(0, 3))
    A = torch.tensor(draw(st.lists(small, min_size=rows * OUTPUTS, max_size=rows * OUTPUTS)), dtype=torch.float64)
    b = torch.tensor(draw(st.lists(small, min_size=rows, max_size=rows)), dtype=torch.float64)
    strict = torch.tensor(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)), dtype=torch.bool)
    return Polyhedron(A.reshape(rows, OUTPUTS), b, strict)


specs = st.lists(polyhedra(), min_size=1, max_size=4).map(lambda disjuncts: Spec(tuple(disjuncts)))
outputs = st.lists(
    st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]), min_size=OUTPUTS, max_size=OUTPUTS),
    min_size=1,
    max_size=5,
)


def gaps(disjunct: Polyhedron, y: list[float]) -> list[Fraction]:
    """A y - b, row by row, exactly."""
    return [
        sum((Fraction(a) * Fraction(v) for a, v in zip(row, y, strict=True)), -Fraction(b))
        for row, b in zip(disjunct.A.tolist(), disjunct.b.tolist(), strict=True)
    ]


def unsafe(spec: Spec, y: list[float], closure: bool = False) -> bool:
    """Membership of the unsafe set, by definition."""
    return any(
        all(
            gap <= 0 if closure or not strict else gap < 0
            for gap, strict in zip(gaps(disjunct, y), disjunct.strict.tolist(), strict=True)
        )
        for disjunct in spec.disjuncts
    )


@given(specs, outputs)
def test_violated_is_an_or_of_ands(spec: Spec, ys: list[list[float]]) -> None:
    assert spec.violated(torch.tensor(ys)).tolist() == [unsafe(spec, y) for y in ys]


@given(specs, outputs)
def test_the_margin_is_the_min_over_disjuncts_of_the_max_over_rows(spec: Spec, ys: list[list[float]]) -> None:
    y = torch.tensor(ys)
    expected = [min(float(max(gaps(d, point), default=-inf)) for d in spec.disjuncts) for point in ys]
    assert spec.margin(spec.rows(y)).tolist() == expected


@given(specs, outputs)
def test_the_sign_of_the_margin_agrees_with_violated(spec: Spec, ys: list[list[float]]) -> None:
    y = torch.tensor(ys)
    margin, violated = spec.margin(spec.rows(y)), spec.violated(y)
    assert (margin <= 0).tolist() == [unsafe(spec, point, closure=True) for point in ys]
    assert not (violated & (margin > 0)).any()
    assert violated[margin < 0].all()
    if not spec.strict.any():
        assert torch.equal(violated, margin <= 0)


@given(specs, outputs)
def test_flat_rows_belong_to_their_disjuncts(spec: Spec, ys: list[list[float]]) -> None:
    assert spec.disjunct.tolist() == [i for i, d in enumerate(spec.disjuncts) for _ in range(len(d.b))]
    y = torch.tensor(ys, dtype=torch.float64)
    assert torch.equal(spec.rows(y), torch.cat([y @ d.A.T - d.b for d in spec.disjuncts], dim=1))
    assert spec.A.shape == (len(spec.b), OUTPUTS)
    assert spec.strict.shape == spec.b.shape


def test_a_tie_is_not_a_right_answer() -> None:
    y = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.5, 1.0 + 2**-23], [1.0, 1.0 - 2**-24, 0.0], [2.0, 9.0, 0.0]])
    assert Spec.robust(0, 3).violated(y).tolist() == [True, True, False, True]
    margin = Spec.robust(0, 3).margin(Spec.robust(0, 3).rows(y))
    assert margin.tolist() == [0.0, -(2**-23), 2**-24, -7.0]


@given(st.integers(0, OUTPUTS - 1), outputs)
def test_robust_means_that_the_label_is_strictly_the_largest(label: int, ys: list[list[float]]) -> None:
    expected = [any(v >= y[label] for j, v in enumerate(y) if j != label) for y in ys]
    assert Spec.robust(label, OUTPUTS).violated(torch.tensor(ys)).tolist() == expected


def test_strict_rows_leave_their_face_out() -> None:
    y = torch.tensor([[0.5], [0.5 - 2**-25], [0.75]])
    one, half = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    for strict, expected in ((False, [True, True, False]), (True, [False, True, False])):
        spec = Spec((Polyhedron(one, half, torch.tensor([strict])),))
        assert spec.violated(y).tolist() == expected
        assert spec.margin(spec.rows(y)).tolist() == [0.0, -(2**-25), 0.25]


def test_arrays_and_lists_make_a_specification() -> None:
    rows, sides = np.array([[1.0, 0.1]]), np.array([0.1])
    for A, b, strict in ((rows, sides, np.array([True])), (rows.tolist(), [0.1], [True])):
        one = Polyhedron(A, b, strict)  # type: ignore[arg-type]
        assert Spec((one,)).id == Spec((Polyhedron(*map(torch.tensor, (rows, sides, [True]))),)).id
    assert Spec.halfspaces(rows, sides).b.tolist() == [0.1]  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected b of a specification"):
        Polyhedron(rows, "0", strict)  # type: ignore[arg-type]


def test_halfspaces_are_one_closed_disjunct() -> None:
    spec = Spec.halfspaces([[1.0, 0.0], [0.0, -1.0]], [1.0, 0.0])
    assert len(spec.disjuncts) == 1
    assert spec.violated(torch.tensor([[1.0, 0.0], [1.0, -1.0], [2.0, 1.0]])).tolist() == [True, False, False]


def everything() -> Polyhedron:
    A, b = torch.zeros((0, OUTPUTS), dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    return Polyhedron(A, b, torch.zeros(0, dtype=torch.bool))


@pytest.mark.parametrize("others", [(), Spec.halfspaces([[0.0, 0.0, 0.0]], [-1.0]).disjuncts])
@pytest.mark.parametrize("first", [True, False])
def test_a_disjunct_without_rows_is_all_of_the_output_space(others: tuple[Polyhedron, ...], first: bool) -> None:
    spec = Spec((everything(), *others) if first else (*others, everything()))
    y = torch.randn(4, OUTPUTS, generator=torch.Generator().manual_seed(0))
    assert spec.violated(y).all()
    assert (spec.margin(spec.rows(y)) == -inf).all()


def test_no_disjunct_is_the_empty_set() -> None:
    spec, y = Spec(()), torch.zeros(4, OUTPUTS)
    assert not spec.violated(y).any()
    assert (spec.margin(torch.zeros(4, 0)) == inf).all()
    assert spec.rows(y).shape == (4, 0)


@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_outputs_that_are_not_finite_violate_nothing(bad: float) -> None:
    y = torch.tensor([[bad, 0.0, 1.0], [0.0, bad, 1.0], [0.0, 0.0, 1.0]])
    for spec in (Spec.robust(0, 3), Spec.halfspaces([[0.0, 0.0, 0.0]], [1.0]), Spec((everything(),))):
        assert spec.violated(y).tolist() == [False, False, True]


def test_coefficients_may_come_in_any_dtype() -> None:
    def spec(dtype: torch.dtype) -> Spec:
        A, b = torch.tensor([[1, -1, 0]], dtype=dtype), torch.tensor([2], dtype=dtype)
        return Spec((Polyhedron(A, b, torch.zeros(1, dtype=torch.bool)),))

    y = torch.tensor([[1.0, 2.0, 0.0], [5.0, 2.0, 0.0]])
    for dtype in (torch.float32, torch.int64):
        assert spec(dtype).violated(y).tolist() == [True, False]
        assert spec(dtype).id == spec(torch.float64).id


def test_bounds_of_rows_of_any_batch_shape_have_a_margin() -> None:
    spec = Spec.robust(1, 3)
    rows = torch.tensor([[[1.0, 2.0], [-1.0, 5.0]], [[0.0, 3.0], [4.0, 4.0]]])
    assert spec.margin(rows).tolist() == [[1.0, -1.0], [0.0, 4.0]]
    assert spec.margin(rows.double()).dtype == torch.float64


def test_outputs_of_any_shape_are_flattened() -> None:
    y = torch.tensor([[[1.0], [0.0], [2.0]]])
    assert Spec.robust(0, 3).violated(y).tolist() == [True]
    assert Spec.robust(2, 3).violated(y).tolist() == [False]


@pytest.mark.parametrize("label", [-1, 3, 100])
def test_a_label_out_of_range_is_refused(label: int) -> None:
    with pytest.raises(InputError, match=r"out of range: the model has 3 classes, 0 to 2"):
        Spec.robust(label, 3)


def test_one_class_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2 classes"):
        Spec.robust(0, 1)


@pytest.mark.parametrize(
    ("A", "b", "strict"),
    [
        (torch.zeros(2), torch.zeros(2), torch.zeros(2, dtype=torch.bool)),
        (torch.zeros(2, 3), torch.zeros(3), torch.zeros(2, dtype=torch.bool)),
        (torch.zeros(2, 3), torch.zeros(2), torch.zeros(1, dtype=torch.bool)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(A: torch.Tensor, b: torch.Tensor, strict: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"expected A \(rows x outputs\)"):
        Polyhedron(A, b, strict)


def test_coefficients_that_are_not_finite_are_refused() -> None:
    for A, b in (([[nan]], [0.0]), ([[1.0]], [inf])):
        with pytest.raises(InputError, match="must be finite"):
            Spec.halfspaces(A, b)


def test_disjuncts_of_different_widths_are_refused() -> None:
    with pytest.raises(InputError, match="different numbers of outputs"):
        Spec((*Spec.robust(0, 2).disjuncts, *Spec.robust(0, 3).disjuncts))


def test_the_id_is_the_content() -> None:
    def closed(strict: bool) -> Spec:
        return Spec((Polyhedron(torch.ones(1, 1), torch.ones(1), torch.tensor([strict])),))

    assert Spec.robust(0, 3).id == Spec.robust(0, 3).id
    ids = {s.id for s in (Spec.robust(0, 3), Spec.robust(1, 3), Spec.robust(0, 4), closed(True), closed(False))}
    assert len(ids) == 5


@pytest.mark.parametrize("strict", [False, True])
def test_violation_is_exact_where_sums_cancel(strict: bool) -> None:
    """1 + 1e-20 - 1 is above 0, and 0.1 + 0.2 above 0.3 in float64 and below it in the reals of these numbers."""
    rows = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, -1.0], [1e-200, 0.0, 0.0]], dtype=torch.float64)
    outputs = torch.tensor(
        [
            [1.0, 1e-20, -1.0],
            [1.0, -1e-20, -1.0],
            [1.0, 0.0, -1.0],
            [0.1, 0.2, 0.3],
            [1e-200, 1.0, 1.0],
            [0.0, 0.0, 0.0],
        ],
        dtype=torch.float64,
    )
    for row in rows:
        spec = Spec((Polyhedron(row[None], torch.zeros(1), torch.tensor([strict])),))
        exact = [sum(Fraction(a) * Fraction(v) for a, v in zip(row.tolist(), y, strict=True)) for y in outputs.tolist()]
        expected = [value < 0 or (value == 0 and not strict) for value in exact]
        assert spec.violated(outputs).tolist() == expected
    assert not Spec((Polyhedron(rows[:1], torch.zeros(1), torch.zeros(1).bool()),)).violated(outputs * torch.nan).any()


def test_lower_bounds_that_prove_that_nothing_unsafe_is_met() -> None:
    """Two disjuncts: a strict and a closed row; a closed row alone."""
    first = Polyhedron(torch.eye(2), torch.zeros(2), torch.tensor([True, False]))
    spec = Spec((first, Polyhedron(torch.ones(1, 2), torch.zeros(1), torch.tensor([False]))))
    bounds = [
        [0.0, -1.0, 1.0],
        [-1.0, 0.0, 1.0],
        [0.0, 0.0, 0.0],
        [1.0, -1.0, 1.0],
        [torch.nan, 1.0, 1.0],
        [torch.inf] * 3,
    ]
    assert spec.avoided(torch.tensor(bounds)).tolist() == [True, False, False, True, True, False]
    assert not Spec((Polyhedron(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0).bool()),)).avoided(torch.zeros(0))
    assert not Spec(()).avoided(torch.zeros(0))


def test_only_what_no_other_row_settles_is_summed_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Tensor] = []

    def counted(x: Tensor, y: Tensor, b: Tensor) -> list[int]:
        asked.append(y)
        return floats.signs(x, y, b)

    monkeypatch.setattr("assay.verify.core.spec.signs", counted)
    rows = torch.tensor([[0.1, 0.2, -0.3], [0.0, 0.0, 1.0]], dtype=torch.float64)
    spec = Spec((Polyhedron(rows, torch.zeros(2), torch.zeros(2).bool()),))
    outputs = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]], dtype=torch.float64)
    total = sum((Fraction(v) for v in rows[0].tolist()), Fraction(0))
    assert spec.violated(outputs).tolist() == [False, -total <= 0]
    assert torch.cat(asked).tolist() == outputs[1:].tolist()
