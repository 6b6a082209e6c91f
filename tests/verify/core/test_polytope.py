"""Polytopes as regions: exact membership, points, the box around them, and whether there is any point at all."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nextafter

import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.region import Box, LpBall, Polytope, kind, stack, take
from assay.verify.core.region.halfspaces import tightened
from assay.verify.core.region.room import excludes, room
from assay.verify.core.spec import Polyhedron
from tests.breadth import seeds
from tests.nets import generator
from tests.polytopes import random_polytope, unit_box


def satisfies(polytope: Polytope, x: Tensor) -> bool:
    """Membership of one point, in fractions."""
    rows = polytope.inner or polytope.rows
    point = [Fraction(v) for v in x.double().flatten().tolist()]
    ends = zip(polytope.within.lower.flatten().tolist(), polytope.within.upper.flatten().tolist(), strict=True)
    inside = all(Fraction(low) <= v <= Fraction(high) for v, (low, high) in zip(point, ends, strict=True))
    for row, b, strict in zip(rows.A.tolist(), rows.b.tolist(), rows.strict.tolist(), strict=True):
        value = sum(Fraction(a) * v for a, v in zip(row, point, strict=True))
        inside = inside and (value < Fraction(b) if strict else value <= Fraction(b))
    return inside


def extreme(polytope: Polytope, cost: Tensor) -> float:
    """The least value of a linear function over the polytope, inf where a linear program finds no point."""
    bounds = list(zip(polytope.within.lower.flatten().tolist(), polytope.within.upper.flatten().tolist(), strict=True))
    found = linprog(cost.tolist(), polytope.A.numpy(), polytope.b.numpy(), bounds=bounds)
    return float(found.fun) if found.status == 0 else inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@seeds(6, of=18)
def test_membership_is_exact(dtype: torch.dtype, seeds: range) -> None:
    """At random points and at those that projection puts within an ulp of a side, and their neighbours."""
    for seed in seeds:
        polytope = random_polytope(*unit_box(3), seed)
        x = torch.rand(10, 3, generator=generator(seed), dtype=torch.float64).to(dtype)
        near = polytope.project(x)
        up = near.nextafter(torch.full_like(near, inf))
        points = torch.cat([x, near, up, near.nextafter(torch.full_like(near, -inf))])
        assert polytope.contains(points).tolist() == [satisfies(polytope, point) for point in points], seed


def test_no_rounding_lets_a_point_in_or_keeps_one_out() -> None:
    """x0 + x1 <= 0.3 (the float64 number): 0.1 + 0.2 is above it in the reals by less than float64 can tell."""
    box = Box(torch.zeros(2), torch.ones(2))
    polytope = Polytope(box, [[1.0, 1.0]], [0.3])
    point = torch.tensor([[0.1, 0.2]], dtype=torch.float64)
    assert Fraction(0.1) + Fraction(0.2) > Fraction(0.3)
    assert not bool(polytope.contains(point))
    exact = Polytope(box, [[1.0, 1.0]], [0.75])
    assert bool(exact.contains(torch.tensor([[0.25, 0.5]])))
    assert not bool(exact.contains(torch.tensor([[0.25, nextafter(0.5, 1)]], dtype=torch.float64)))


def test_strict_rows_leave_their_side_out() -> None:
    box = Box(torch.zeros(2), torch.ones(2))
    x = torch.tensor([[0.5, 0.5], [0.5, 0.25]])
    assert Polytope(box, [[-1.0, 1.0]], [0.0]).contains(x).tolist() == [True, True]
    assert Polytope(box, [[-1.0, 1.0]], [0.0], [True]).contains(x).tolist() == [False, True]


def test_witnesses_keep_to_the_inner_limits_and_proofs_to_the_outer_ones() -> None:
    inner = Polyhedron(torch.ones(1, 2), torch.tensor([0.25]), torch.zeros(1, dtype=torch.bool))
    polytope = Polytope(Box(torch.zeros(2), torch.ones(2)), [[1.0, 1.0]], [0.5], inner=inner)
    assert polytope.contains(torch.tensor([[0.1, 0.1], [0.2, 0.2]])).tolist() == [True, False]
    assert polytope.box().upper.tolist() == pytest.approx([0.5, 0.5])
    assert bool(polytope.contains(polytope.sample(50)).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@seeds(6, of=18)
def test_projected_and_random_points_are_members_within_the_box(dtype: torch.dtype, seeds: range) -> None:
    for seed in seeds:
        polytope = random_polytope(*unit_box(4), seed, rows=1 + seed % 4, room=0.02)
        wild = 3 * torch.randn(50, 4, generator=generator(seed), dtype=torch.float64).to(dtype)
        wild[0], wild[1] = torch.nan, inf
        members = torch.cat(
            [polytope.project(wild), polytope.point(torch.rand(50, 4, generator=generator(1)).to(dtype))]
        )
        assert members.dtype is dtype
        assert bool(polytope.contains(members).all()), seed
        box = polytope.box()
        assert bool(((box.lower <= members) & (members <= box.upper)).all())
        own = polytope.project(members)
        assert torch.equal(own, members)


def test_projection_is_near_where_one_row_is_in_the_way() -> None:
    polytope = Polytope(Box(torch.zeros(2), torch.ones(2)), [[1.0, 1.0]], [1.0])
    torch.testing.assert_close(polytope.project(torch.tensor([[0.9, 0.7]])), torch.tensor([[0.6, 0.4]]))


def test_equalities_are_met_where_numbers_allow_it() -> None:
    polytope = Polytope(Box(torch.zeros(2), torch.ones(2)), [[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0])
    assert not polytope.empty
    assert bool(polytope.contains(polytope.sample(100, generator(0))).all())


@seeds(6, of=18)
def test_the_box_is_around_the_polytope_and_as_tight_as_intervals_make_it(seeds: range) -> None:
    for seed in seeds:
        polytope = random_polytope(*unit_box(3), seed, room=0.05)
        box, eye = polytope.box(), torch.eye(3, dtype=torch.float64)
        for i in range(3):
            assert box.lower[i] <= extreme(polytope, eye[i]) + 1e-9
            assert box.upper[i] >= -extreme(polytope, -eye[i]) - 1e-9
    one = Polytope(Box(torch.zeros(3), torch.ones(3)), [[1.0, 2.0, -1.0]], [-0.5])
    # x0 <= -0.5 - 2 x1 + x2 <= 0.5, x1 <= 0.25, x2 >= 0.5
    torch.testing.assert_close(one.box().upper, torch.tensor([0.5, 0.25, 1.0], dtype=torch.float64))
    torch.testing.assert_close(one.box().lower, torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64))


@seeds(12, of=30)
def test_tightening_never_cuts_a_point_off(seeds: range) -> None:
    """Rows that pass exactly through the point, at all scales."""
    for seed in seeds:
        g = generator(seed)
        scale = 10.0 ** torch.randint(-8, 9, (4,), generator=g)
        x = torch.randn(4, generator=g, dtype=torch.float64) * scale
        A = torch.randn(3, 4, generator=g, dtype=torch.float64)
        exact = [sum(Fraction(a) * Fraction(v) for a, v in zip(row, x.tolist(), strict=True)) for row in A.tolist()]
        limits = [float(v) if Fraction(float(v)) >= v else nextafter(float(v), inf) for v in exact]
        b = torch.tensor(limits, dtype=torch.float64)
        lower, upper = (x - scale)[None], (x + scale)[None]
        for _ in range(5):
            lower, upper = tightened(A, b, lower, upper)
            assert bool(((lower <= x) & (x <= upper)).all()), seed


@seeds(12, of=48)
def test_emptiness_is_what_linear_programs_say_and_proved(seeds: range) -> None:
    found = 0
    for seed in seeds:
        g = generator(seed)
        size, count = 2 + seed % 4, 2 + seed % 5
        A = torch.randn(count, size, generator=g, dtype=torch.float64)
        b = torch.randn(count, generator=g, dtype=torch.float64) * 0.4 - 0.1
        polytope = Polytope(Box(*unit_box(size)), A, b)
        empty = extreme(polytope, torch.zeros(size)) == inf
        assert polytope.empty == empty, seed
        found += empty
        if not empty and polytope._rooms[0] is not None:
            slack = (polytope.b - polytope.A @ polytope.centre).min()
            assert slack >= -1e-12
    assert found > len(seeds) // 5


def test_what_only_strictness_empties_is_empty() -> None:
    box = Box(torch.zeros(2), torch.ones(2))
    rows = [[1.0, -1.0], [-1.0, 1.0]]
    assert not Polytope(box, rows, [0.0, 0.0]).empty
    assert Polytope(box, rows, [0.0, 0.0], [True, False]).empty
    assert Polytope(box, [[1.0, 1.0]], [0.0], [True]).empty


def test_multipliers_below_zero_prove_nothing() -> None:
    rows = ([[1.0]], [-1.0], [False], [0.0], [1.0])
    assert excludes([Fraction(1)], *rows)
    assert not excludes([Fraction(-1)], *rows)
    assert not excludes([Fraction(1)], [[1.0]], [0.0], [False], [0.0], [1.0])
    assert excludes([Fraction(1)], [[1.0]], [0.0], [True], [0.0], [1.0])


@pytest.mark.parametrize(("rows", "size"), [(3, 5), (12, 40), (5, 200)])
def test_room_is_the_most_that_there_is(rows: int, size: int) -> None:
    """Its point has it, and its multipliers prove that no point has more."""
    g = generator(rows)
    A = torch.randn(rows, size, generator=g, dtype=torch.float64)
    b = A @ torch.rand(size, generator=g, dtype=torch.float64) + 0.01
    weights = A.abs().sum(1)
    found = room(A, b, torch.zeros(size, dtype=torch.float64), torch.ones(size, dtype=torch.float64), weights)
    assert found is not None
    slack = ((b - A @ torch.tensor(found.point, dtype=torch.float64)) / weights).min().item()
    duals = torch.tensor([float(y) for y in found.duals], dtype=torch.float64)
    assert bool((duals >= 0).all())
    proved = (duals @ b - (duals @ A).clamp(max=0).sum()) / (duals @ weights)
    assert slack == pytest.approx(proved.item(), abs=1e-7)


@pytest.mark.parametrize("size", [3, 60])
@pytest.mark.parametrize("scale", [1e-300, 1e150, 1e306])
def test_numbers_of_any_scale_make_no_claims_that_are_not_true(size: int, scale: float) -> None:
    g = generator(size)
    A = torch.randn(30, size, generator=g, dtype=torch.float64) * scale
    x = torch.rand(size, generator=g, dtype=torch.float64)
    polytope = Polytope(Box(torch.zeros(size), torch.ones(size)), A, A @ x + A.abs().sum(1) / 64)
    assert not polytope.empty
    assert bool(((polytope.box().lower <= x) & (x <= polytope.box().upper)).all())
    assert polytope.project(x[None]).shape == (1, size)


def test_polytopes_with_the_same_rows_make_a_batch() -> None:
    first = random_polytope(*unit_box(3), 1)
    second = Polytope(Box(torch.zeros(3), torch.full((3,), 0.9)), first.A, first.b)
    other = random_polytope(*unit_box(3), 2)
    assert kind(first) == kind(second) != kind(other)
    batch = stack([first, second])
    assert batch.shape == (2, 3)
    torch.testing.assert_close(batch.centre, torch.stack([first.centre, second.centre]))
    last = take(batch, torch.tensor([1]))
    assert torch.equal(last.box().upper[0], second.box().upper)
    with pytest.raises(InputError, match="polytopes with the same rows"):
        stack([first, other])
    with pytest.raises(InputError, match="make a batch"):
        stack([first, LpBall(torch.full((3,), 0.5), 0.1)])


def test_ids_tell_content_apart() -> None:
    box = Box(torch.zeros(2), torch.ones(2))
    first = Polytope(box, [[1.0, 1.0]], [1.0])
    assert first.id == Polytope(box, [[1.0, 1.0]], [1.0]).id
    others = [Polytope(box, [[1.0, 1.0]], [1.5]), Polytope(box, [[1.0, 2.0]], [1.0])]
    others += [Polytope(box, [[1.0, 1.0]], [1.0], [True]), Polytope(Box(box.lower, 2 * box.upper), [[1.0, 1.0]], [1.0])]
    assert len({first.id, box.id, *(other.id for other in others)}) == 6


@pytest.mark.parametrize(
    ("A", "b", "strict", "message"),
    [
        ([[1.0, 1.0, 1.0]], [1.0], None, "speak of 3 inputs, the box has 2"),
        ([[1.0, 1.0]], [1.0, 2.0], None, "expected A"),
        ([1.0, 1.0], [1.0], None, "expected A"),
        ([[1.0, inf]], [1.0], None, "must be finite"),
        ([[1.0, 1.0]], [1.0], [True, False], "expected A"),
    ],
)
def test_what_does_not_fit_is_refused(A: object, b: object, strict: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Polytope(Box(torch.zeros(2), torch.ones(2)), A, b, strict)  # type: ignore[arg-type]


def test_an_unbounded_box_is_refused() -> None:
    with pytest.raises(InputError, match="must be finite"):
        Polytope(Box(torch.zeros(2), torch.tensor([1.0, inf])), [[1.0, 1.0]], [1.0])
