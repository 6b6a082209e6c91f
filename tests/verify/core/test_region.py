"""Regions: exact membership, projections that are members, boxes that miss nothing, the steepest step, stacking."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import inf, nan, nextafter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.region import Box, LpBall, Polytope, Region, declared, kind, stack, take
from assay.verify.support import floats
from tests.nets import balls, boxes, generator, regions, seeds

NORMS = (1, 2, inf)
DTYPES = (torch.float32, torch.float64)
SHAPE = (2, 3)


def fractions(x: Tensor) -> list[Fraction]:
    return [Fraction(value) for value in x.double().flatten().tolist()]


def length(step: list[Fraction], p: float) -> Fraction:
    """The norm of ``step``, squared for p = 2."""
    if p == inf:
        return max(map(abs, step))
    return sum((abs(v) for v in step), Fraction(0)) if p == 1 else sum((v * v for v in step), Fraction(0))


def inside(region: Region, x: Tensor) -> bool:
    """Membership of one point in rational arithmetic."""
    if isinstance(region, Box):
        triples = zip(fractions(region.lower), fractions(x), fractions(region.upper), strict=True)
        return all(low <= v <= high for low, v, high in triples)
    assert isinstance(region, LpBall)
    step = [a - b for a, b in zip(fractions(x), fractions(region.centre), strict=True)]
    radius = Fraction(float(region.eps))
    low, high = region.domain or (-inf, inf)
    return length(step, region.p) <= (radius**2 if region.p == 2 else radius) and all(
        float(low) <= v <= float(high) for v in fractions(x)
    )


def nudged(x: Tensor, steps: Tensor) -> Tensor:
    """Each value moved by that many representable numbers."""
    array = x.numpy().copy()
    for _ in range(int(steps.abs().max())):
        array = np.where(steps.numpy() > 0, np.nextafter(array, np.full_like(array, inf)), array)
        array = np.where(steps.numpy() < 0, np.nextafter(array, np.full_like(array, -inf)), array)
        steps = steps - steps.sign()
    return torch.from_numpy(array)


def on_the_boundary(ball: LpBall, seed: int) -> Tensor:
    """Points whose distance from the centre is eps up to a few units in the last place: (16 x shape), float32."""
    rng = generator(seed)
    direction = torch.randn((16, *ball.shape), generator=rng, dtype=torch.float64)
    direction[:4] = torch.sign(direction[:4])
    direction[4:8] *= torch.rand((4, *ball.shape), generator=rng) < 0.3
    norm = direction.flatten(1).norm(p=ball.p, dim=1).clamp(min=1e-30).view(-1, *[1] * len(ball.shape))
    points = (ball.centre + float(ball.eps) * direction / norm).float()
    return nudged(points, torch.randint(-2, 3, points.shape, generator=rng))


@given(balls(SHAPE), seeds)
def test_membership_of_a_ball_is_exact(ball: LpBall, seed: int) -> None:
    points = on_the_boundary(ball, seed)
    assert ball.contains(points).tolist() == [inside(ball, x) for x in points]


@pytest.mark.parametrize("p", NORMS)
@settings(max_examples=20)
@given(seed=seeds, ulps=st.integers(-2, 2))
def test_membership_is_exact_where_float64_cannot_tell_the_norm_from_eps(p: float, seed: int, ulps: int) -> None:
    rng = generator(seed)
    centre, points = torch.rand(5, generator=rng), torch.rand((8, 5), generator=rng)
    for x in points:
        eps = float((x.double() - centre.double()).norm(p=p))
        for _ in range(abs(ulps)):
            eps = nextafter(eps, inf if ulps > 0 else 0)
        ball = LpBall(centre, eps, p, domain=None)
        assert ball.contains(x[None]).item() == inside(ball, x)


@given(boxes(SHAPE), seeds, st.sampled_from(DTYPES))
def test_membership_of_a_box_is_exact(box: Box, seed: int, dtype: torch.dtype) -> None:
    rng = generator(seed)
    side = torch.rand((16, *SHAPE), generator=rng)
    points = torch.where(side < 0.5, box.lower, box.upper).to(dtype)
    points = nudged(points, torch.randint(-1, 2, points.shape, generator=rng))
    lower, _ = box.allowed(dtype)
    lone = box.moved(dtype)
    expected = [
        all(
            v == only if alone else low <= v <= high
            for low, v, high, only, alone in zip(
                fractions(box.lower), fractions(x), fractions(box.upper), fractions(lower), lone.flatten(), strict=True
            )
        )
        for x in points
    ]
    assert box.contains(points).tolist() == expected


def test_the_ball_is_closed() -> None:
    for p in NORMS:
        ball = LpBall(torch.tensor([0.5, 0.5]), 0.25, p, (0.0, 1.0))
        points = torch.tensor([[0.75, 0.5], [0.5, 0.25], [nextafter(0.75, 1) + 2**-24, 0.5], [0.75, 0.75]])
        assert ball.contains(points).tolist() == [True, True, False, p == inf]
    assert LpBall(torch.zeros(2), 5.0, 2, domain=None).contains(torch.tensor([[3.0, 4.0], [3.0, -4.0]])).all()


def test_nan_and_infinity_are_members_of_nothing() -> None:
    points = torch.tensor([[nan, 0.0], [inf, 0.0], [-inf, 0.0], [0.0, 0.0]])
    for p in NORMS:
        assert LpBall(torch.zeros(2), 1.0, p, domain=None).contains(points).tolist() == [False, False, False, True]
    assert Box(-torch.ones(2), torch.ones(2)).contains(points).tolist() == [False, False, False, True]


@given(regions(SHAPE), seeds, st.sampled_from(DTYPES), st.sampled_from([0.01, 1.0, 100.0, 1e20]))
def test_projection_gives_members_and_is_idempotent(
    region: Region, seed: int, dtype: torch.dtype, scale: float
) -> None:
    assume(declared(region).has_members(dtype))
    noise = torch.randn((8, *SHAPE), generator=generator(seed), dtype=torch.float64)
    x = (region.centre + scale * noise).to(dtype)
    members = region.project(x)
    assert members.dtype == dtype
    assert region.contains(members).all()
    assert torch.equal(region.project(members), members)


@pytest.mark.parametrize("p", NORMS)
@settings(max_examples=20)
@given(seed=seeds)
def test_projection_in_float64_gives_members_in_rational_arithmetic(p: float, seed: int) -> None:
    rng = generator(seed)
    ball = LpBall(torch.rand(5, generator=rng), float(torch.rand(1, generator=rng)), p, (0.0, 1.0))
    x = torch.randn((8, 5), generator=rng, dtype=torch.float64)
    assert all(inside(ball, member) for member in ball.project(x))


@pytest.mark.parametrize("p", NORMS)
@settings(max_examples=20)
@given(seed=seeds)
def test_projection_reaches_the_boundary(p: float, seed: int) -> None:
    rng = generator(seed)
    ball = LpBall(torch.rand(5, generator=rng), 0.25, p, domain=None)
    step = ball.project(ball.centre.float() + 10 * torch.randn((8, 5), generator=rng)).double() - ball.centre
    assert (step.norm(p=p, dim=1) > 0.25 * (1 - 1e-5)).all()


@given(balls(SHAPE, norms=[inf]), seeds)
def test_projection_leaves_members_of_an_linf_ball_alone(ball: LpBall, seed: int) -> None:
    members = ball.sample(8, generator(seed))
    assert torch.equal(ball.project(members), members)


@pytest.mark.parametrize(
    ("p", "point", "nearest"),
    [
        (1, (1.0, 0.5), (0.75, 0.25)),
        (1, (-0.125, 1.0), (-0.0625, 0.9375)),
        (1, (0.9, 0.9), (0.5, 0.5)),
        (2, (0.9, 0.9), (0.5**0.5, 0.5**0.5)),
        (2, (1.0, -0.75), (0.8, -0.6)),
        (2, (0.25, -0.25), (0.25, -0.25)),
    ],
)
def test_projection_from_within_the_bounding_box_is_euclidean(
    p: float, point: tuple[float, float], nearest: tuple[float, float]
) -> None:
    ball = LpBall(torch.zeros(2), 1.0, p, domain=None)
    assert torch.allclose(ball.project(torch.tensor([point])), torch.tensor([nearest]), atol=1e-6)


@pytest.mark.parametrize(
    "region",
    [*(LpBall(torch.zeros(2), 1.0, p, domain=None) for p in NORMS), Box(torch.zeros(2), torch.ones(2))],
    ids=["l1", "l2", "linf", "box"],
)
def test_projection_of_nan_is_a_member(region: Region) -> None:
    assert region.contains(region.project(torch.tensor([[nan, 0.5], [inf, -inf], [nan, nan]]))).all()


@given(regions(SHAPE), seeds, st.sampled_from(DTYPES))
def test_the_box_covers_every_member(region: Region, seed: int, dtype: torch.dtype) -> None:
    rng = generator(seed)
    corners = (torch.randint(-1, 2, (16, *SHAPE), generator=rng) * 1e3).to(dtype)
    members = torch.cat([region.sample(8, rng).to(dtype), region.project(corners)])
    box = region.box()
    for x in members[region.contains(members)]:
        assert inside(box, x)


@given(balls(SHAPE))
def test_the_box_of_a_ball_covers_it_in_rational_arithmetic(ball: LpBall) -> None:
    box, radius = ball.box(), Fraction(float(ball.eps))
    low, high = ball.domain or (-(10.0**9), 10.0**9)
    for c, below, above in zip(fractions(ball.centre), fractions(box.lower), fractions(box.upper), strict=True):
        assert below <= max(c - radius, Fraction(float(low)))
        assert above >= min(c + radius, Fraction(float(high)))
        assert float(above - below) <= 2 * float(ball.eps) * (1 + 1e-12) + 1e-15


@pytest.mark.parametrize(
    ("lower", "upper"),
    [(0.1 + 2e-9, 0.1 + 3e-9), (1e9 + 10, 1e9 + 20), (0.1, nextafter(0.1, 1)), (1e300, 2e300), (1e-60, 2e-60)],
)
def test_where_no_float32_lies_between_two_bounds_there_is_no_member(lower: float, upper: float) -> None:
    box = Box(*torch.tensor([[lower, 0.25], [upper, 0.5]], dtype=torch.float64))
    assert not box.has_members(torch.float32)
    assert box.has_members(torch.float64)
    nearest = torch.tensor([[lower, 0.25], [upper, 0.25]], dtype=torch.float64).float()
    points = torch.cat([nearest, nudged(nearest, torch.ones(2, 2)), nudged(nearest, -torch.ones(2, 2))])
    for tried in (points, box.project(points), box.sample(8, generator(0))):
        assert not box.contains(tried).any()
    assert box.box() is box
    for p in NORMS:
        ball = LpBall(torch.tensor([lower, 0.25], dtype=torch.float64), lower * 1e-17, p, None)
        assert not ball.contains(ball.project(points)).any()
        assert ball.contains(ball.centre[None])


def test_one_value_that_is_no_float32_stands_for_the_nearest_alone() -> None:
    lower, upper = torch.tensor([[0.1, 0.25], [0.1, 0.5]], dtype=torch.float64)
    box = Box(lower, upper)
    nearest = torch.tensor(0.1, dtype=torch.float64).float()
    assert nearest.double() > upper[0]
    assert box.moved(torch.float32).tolist() == [True, False]
    assert not box.moved(torch.float64).any()
    low, high = box.allowed(torch.float32)
    assert low[0] == high[0] == nearest
    assert (low[1].item(), high[1].item()) == (0.25, 0.5)
    assert box.contains(torch.stack([low, high])).all()
    assert not box.contains(nudged(low, torch.tensor([1, 0]))[None])
    assert not box.contains(nudged(low, torch.tensor([-1, 0]))[None])
    wide = box.box()
    assert wide.lower[0] <= nearest <= wide.upper[0]
    assert wide.lower[0] <= lower[0]
    assert wide.upper[0] >= upper[0]
    assert (wide.lower[1].item(), wide.upper[1].item()) == (0.25, 0.5)
    assert torch.equal(torch.stack(box.allowed(torch.float64)), torch.stack([box.lower, box.upper]))


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("eps", [0.0, 1e-12])
def test_about_a_point_that_no_float32_can_state_only_that_point_in_linf_has_a_member_in_float32(
    p: float, eps: float
) -> None:
    ball = LpBall(torch.tensor([0.1, 0.7], dtype=torch.float64), eps, p, (0.0, 1.0))
    nearest = ball.centre.float()
    alone = p == inf and eps == 0
    assert ball.contains(ball.project(torch.rand(4, 2))).all() == alone
    assert ball.contains(nearest[None]).item() == alone
    assert inside(ball.box(), nearest) == (eps == 0)
    assert ball.contains(ball.centre[None])
    assert ball.contains(ball.project(torch.rand(4, 2, dtype=torch.float64))).all()


@pytest.mark.parametrize("p", NORMS)
def test_eps_zero_is_the_centre_alone(p: float) -> None:
    centre = torch.rand(5, generator=generator(0))
    ball = LpBall(centre, 0.0, p, (0.0, 1.0))
    assert torch.equal(ball.project(torch.rand(3, 5)), centre.expand(3, 5))
    assert torch.equal(ball.sample(3), centre.expand(3, 5))
    assert ball.contains(centre[None])
    assert not ball.contains(nudged(centre, torch.tensor([0, 0, 1, 0, 0]))[None])
    assert torch.equal(ball.box().lower, ball.box().upper)
    assert not ball.empty


@pytest.mark.parametrize("p", NORMS)
def test_eps_beyond_the_domain_is_clipped_to_it(p: float) -> None:
    ball = LpBall(torch.full((3,), 0.5), 10.0, p, (0.0, 1.0))
    assert torch.equal(ball.box().lower, torch.zeros(3, dtype=torch.float64))
    assert torch.equal(ball.box().upper, torch.ones(3, dtype=torch.float64))
    points = torch.tensor([[0.0, 1.0, 0.5], [-0.0, 1.0, 1.0], [0.5, 0.5, nextafter(1, 2) + 2**-23]])
    assert ball.contains(points).tolist() == [True, True, False]
    assert torch.equal(ball.project(torch.tensor([[-9.0, 9.0, 0.25]])), torch.tensor([[0.0, 1.0, 0.25]]))


def test_the_domain_may_differ_from_element_to_element() -> None:
    domain = (torch.tensor([0.0, -1.0]), torch.tensor([0.25, 1.0]))
    ball = LpBall(torch.tensor([0.25, 0.0]), 0.5, inf, domain)
    assert ball.box().lower.tolist() == [0.0, -0.5]
    assert ball.box().upper.tolist() == [0.25, 0.5]


@pytest.mark.parametrize("eps", [-1e-9, nan, inf, -inf])
def test_an_impossible_eps_is_refused(eps: float) -> None:
    with pytest.raises(InputError, match="eps must be a finite number >= 0"):
        LpBall(torch.zeros(2), eps, domain=None)
    with pytest.raises(InputError, match="eps must be a finite number >= 0"):
        LpBall(torch.zeros(2, 2), torch.tensor([0.1, eps]), domain=None)


@pytest.mark.parametrize("value", [-0.01, 1.01, nan, inf])
def test_a_centre_outside_of_the_domain_is_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"outside of the domain|must be finite"):
        LpBall(torch.tensor([0.5, value]), 0.1, inf, (0.0, 1.0))


@pytest.mark.parametrize("domain", [1.0, (0.0,), "01", (0.0, None), (0.0, 0.5, 1.0)])
def test_a_domain_is_a_pair_of_numbers(domain: Any) -> None:
    with pytest.raises(InputError, match="expected a domain"):
        LpBall(torch.zeros(2), 0.1, inf, domain)


def test_arrays_and_lists_bound_regions_without_a_loss() -> None:
    """In float64, as they are; a later change of the array's numbers changes nothing."""
    lower: Any = np.array([0.1, 0.2])
    upper: Any = [0.3, 0.4]
    box, ball = Box(lower, upper), LpBall(lower, upper[0], domain=None)
    lower[:] = 5.0
    assert (box.lower.tolist(), box.upper.tolist(), ball.centre.tolist()) == ([0.1, 0.2], [0.3, 0.4], [0.1, 0.2])
    with pytest.raises(InputError, match="the centre of a ball: a tensor or numbers, got ndarray"):
        LpBall(np.array(["a"]), 0.1, domain=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="upper bound: a tensor or numbers, got list"):
        Box(lower, [[1.0], [1.0, 2.0]])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="lower bound: real numbers"):
        Box(lower + 1j, lower)


@pytest.mark.parametrize("p", [0, 3, -1, nan])
def test_an_unknown_norm_is_refused(p: float) -> None:
    with pytest.raises(InputError, match=r"norm must be the number 1, 2 or math\.inf"):
        LpBall(torch.zeros(2), 0.1, p, domain=None)


def test_boxes_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match="differ in shape"):
        Box(torch.zeros(2), torch.ones(3))
    with pytest.raises(InputError, match="NaN"):
        Box(torch.tensor([0.0, nan]), torch.ones(2))


def test_a_box_with_crossed_bounds_is_empty() -> None:
    box = Box(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.5]))
    assert box.empty
    assert not box.contains(torch.tensor([[0.5, 0.75], [0.5, 1.0], [0.5, 0.5]])).any()
    assert not Box(torch.zeros(2), torch.zeros(2)).empty


@given(regions(SHAPE), seeds)
def test_points_and_samples_are_members(region: Region, seed: int) -> None:
    assume(declared(region).has_members(torch.float32))
    rng = generator(seed)
    samples = region.sample(8, rng)
    assert (samples.shape, samples.dtype) == ((8, *SHAPE), torch.float32)
    assert region.contains(samples).all()
    for dtype in DTYPES:
        u = torch.rand((8, *SHAPE), generator=rng, dtype=dtype)
        u[0], u[1], u[2] = 0, 1, 0.5
        points = region.point(u)
        assert points.dtype == dtype
        assert region.contains(points).all()


def test_samples_repeat_with_their_generator_and_differ_from_each_other() -> None:
    ball = LpBall(torch.full((5,), 0.5), 0.25, domain=None)
    assert torch.equal(ball.sample(4, generator(1)), ball.sample(4, generator(1)))
    assert len({tuple(x) for x in ball.sample(50, generator(1)).tolist()}) == 50
    spread = ball.sample(2000, generator(1)).double() - ball.centre
    assert spread.amin() < -0.24
    assert spread.amax() > 0.24


def test_the_cubes_corners_are_the_boxs_corners() -> None:
    box = Box(torch.tensor([0.0, -1.0]), torch.tensor([0.5, 3.0]))
    corners = box.point(torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.25]]))
    assert corners.tolist() == [[0.0, -1.0], [0.5, 3.0], [0.25, 0.0]]


@pytest.mark.parametrize("p", NORMS)
@settings(max_examples=20)
@given(seed=seeds)
def test_the_steepest_step_gains_most_of_all_steps_of_one_radius(p: float, seed: int) -> None:
    rng = generator(seed)
    ball = LpBall(torch.zeros(SHAPE), 0.5, p, domain=None)
    grad = torch.randn((1, *SHAPE), generator=rng, dtype=torch.float64)
    step = ball.steepest(grad)
    assert torch.allclose(step.flatten(1).norm(p=p, dim=1), torch.tensor(0.5, dtype=torch.float64))
    others = torch.randn((200, *SHAPE), generator=rng, dtype=torch.float64)
    others[:50] = (others[:50] + 10 * grad).sign() if p == inf else grad + 0.1 * others[:50]
    others *= 0.5 / others.flatten(1).norm(p=p, dim=1).view(-1, 1, 1)
    assert (step * grad).sum() >= (others * grad).flatten(1).sum(1).max() - 1e-12


def test_the_steepest_step_of_a_box_is_half_its_width() -> None:
    box = Box(torch.tensor([0.0, -1.0, 0.0]), torch.tensor([0.5, 3.0, 1.0]))
    assert box.steepest(torch.tensor([[1e-9, -7.0, 0.0]])).tolist() == [[0.25, -2.0, 0.0]]


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("scale", [2.0**-120, 2.0**-80, 2.0**80, 2.0**120], ids=["-120", "-80", "80", "120"])
def test_the_steepest_step_does_not_depend_on_the_size_of_the_gradient(p: float, scale: float) -> None:
    ball = LpBall(torch.zeros(4), 0.5, p, domain=None)
    grad = torch.tensor([[1.0, -2.0, 3.0, 0.5]])
    assert torch.allclose(ball.steepest(grad * scale), ball.steepest(grad))


@pytest.mark.parametrize("p", NORMS)
def test_a_gradient_of_zero_gives_no_step(p: float) -> None:
    assert not LpBall(torch.zeros(4), 0.5, p, domain=None).steepest(torch.zeros(2, 4)).any()


def check_equal_to_one_by_one(batch: Region, parts: list[Region], seed: int) -> None:
    rng = generator(seed)
    for dtype in DTYPES:
        x = torch.randn((len(parts), *SHAPE), generator=rng, dtype=dtype) * 0.3 + 0.5
        u = torch.rand((len(parts), *SHAPE), generator=rng, dtype=dtype)
        for name, argument in (("project", x), ("steepest", x), ("point", u)):
            together = getattr(batch, name)(argument)
            alone = torch.cat([getattr(r, name)(argument[i : i + 1]) for i, r in enumerate(parts)])
            assert torch.equal(together, alone), name
        points = torch.where(u < 0.5, x, batch.project(x))
        alone = torch.cat([r.contains(points[i : i + 1]) for i, r in enumerate(parts)])
        assert torch.equal(batch.contains(points), alone)
    assert torch.equal(batch.box().lower, torch.stack([r.box().lower for r in parts]))
    assert torch.equal(batch.box().upper, torch.stack([r.box().upper for r in parts]))


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("domain", [None, (0.0, 1.0)])
@settings(max_examples=10)
@given(seed=seeds)
def test_a_stack_of_balls_equals_the_balls(p: float, domain: tuple[float, float] | None, seed: int) -> None:
    rng = generator(seed)
    eps = torch.rand(3, generator=rng).tolist()
    parts: list[Region] = [LpBall(torch.rand(SHAPE, generator=rng), e, p, domain) for e in eps]
    batch = stack(parts)
    assert isinstance(batch, LpBall)
    assert batch.shape == (3, *SHAPE)
    check_equal_to_one_by_one(batch, parts, seed)


@settings(max_examples=20)
@given(st.lists(boxes(SHAPE), min_size=1, max_size=3), seeds)
def test_a_stack_of_boxes_equals_the_boxes(parts: list[Region], seed: int) -> None:
    batch = stack(parts)
    assert isinstance(batch, Box)
    assert batch.shape == (len(parts), *SHAPE)
    check_equal_to_one_by_one(batch, parts, seed)


def test_only_regions_of_one_kind_stack() -> None:
    def ball(p: float = 2, high: float | None = 1.0) -> LpBall:
        domain = None if high is None else (torch.zeros(3), torch.full((3,), high))
        return LpBall(torch.full((3,), 0.5), 0.1, p, domain)

    assert isinstance(stack([ball(), ball()]), LpBall)
    for other in (ball(p=1), ball(high=2.0), ball(high=None), ball().box()):
        assert kind(other) != kind(ball())
        with pytest.raises(InputError, match="only boxes, balls of one norm and one domain"):
            stack([ball(), other])
    with pytest.raises(InputError):
        stack([])


@pytest.mark.parametrize("p", NORMS)
def test_taking_samples_of_a_stack_gives_the_stack_of_them(p: float) -> None:
    rng = generator(3)
    parts = [LpBall(torch.rand(SHAPE, generator=rng), 0.1 * (i + 1), p, (0.0, 1.0)) for i in range(4)]
    some = take(stack(parts), torch.tensor([2, 0]))
    assert some.id == stack([parts[2], parts[0]]).id
    boxed = take(stack([r.box() for r in parts]), torch.tensor([2, 0]))
    assert boxed.id == stack([parts[2].box(), parts[0].box()]).id


def test_the_id_is_the_content() -> None:
    def ball(value: float = 0.5, eps: float = 0.1, p: float = inf, high: float = 1.0) -> str:
        return LpBall(torch.tensor([value, 0.5]), eps, p, (0.0, high)).id

    assert ball() == ball()
    ids = {ball(), ball(value=0.25), ball(eps=nextafter(0.1, 1)), ball(p=2), ball(high=2.0)}
    ids |= {LpBall(torch.tensor([0.5, 0.5]), 0.1, domain=None).id, Box(torch.zeros(2), torch.ones(2)).id}
    assert len(ids) == 7
    assert Box(torch.zeros(2), torch.ones(2)).id == Box(torch.zeros(2), torch.ones(2, dtype=torch.float64)).id


def within(lower: float, upper: float, least: float, most: float) -> Box:
    """[lower, upper] x [0, 1], of which only least to most are members."""
    outer = torch.tensor([[lower, 0.0], [upper, 1.0]], dtype=torch.float64)
    inner = torch.tensor([[least, 0.0], [most, 1.0]], dtype=torch.float64)
    return Box(outer[0], outer[1], Box(inner[0], inner[1]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_only_points_of_the_inner_box_are_members_while_proofs_cover_the_outer_one(dtype: torch.dtype) -> None:
    box = within(0.25, 0.75, nextafter(0.25, 1), nextafter(0.75, 0))  # 0.25 < x < 0.75
    ends = torch.tensor([0.25, 0.75], dtype=dtype)
    inside = torch.nextafter(ends, ends.flip(0))
    points = torch.stack([torch.cat([ends, inside]), torch.zeros(4, dtype=dtype)], dim=1)
    assert box.contains(points).tolist() == [False, False, True, True]
    assert torch.equal(box.project(points)[:, 0], torch.cat([inside, inside]))
    assert box.contains(box.point(torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=dtype))).all()
    assert box.box() is box
    assert (box.lower[0], box.upper[0]) == (0.25, 0.75)


def test_a_decimal_that_is_no_float64_stands_for_the_nearest_float32() -> None:
    tenth = 0.1  # between this float64 number and the next, as the decimal 0.10000000000000001 is
    box = within(tenth, nextafter(tenth, 1), nextafter(tenth, 1), tenth)
    nearest = torch.tensor([[0.1, 0.5]])
    assert box.contains(nearest).all()
    assert not box.contains(torch.nextafter(nearest, torch.full_like(nearest, inf))).any()
    covered = box.box()
    assert covered.lower[0] <= tenth < nearest[0, 0].double() <= covered.upper[0]


def test_an_inner_box_stays_with_the_box() -> None:
    box, plain = within(0.25, 0.75, 0.5, 0.5), Box(torch.tensor([0.25, 0.0]), torch.tensor([0.75, 1.0]))
    assert box.id != plain.id
    assert box.id == within(0.25, 0.75, 0.5, 0.5).id != within(0.25, 0.75, 0.5, 0.75).id
    both = stack([plain, box])
    points = torch.tensor([[0.25, 0.5], [0.25, 0.5]])
    assert both.contains(points).tolist() == [True, False]
    assert take(both, torch.tensor([1])).id == stack([box]).id
    shaped = box.map(lambda bound: bound.reshape(2, 1))
    assert shaped.shape == (2, 1)
    assert not shaped.contains(points[:1].reshape(1, 2, 1)).any()
    assert box.map(lambda bound: bound.flip(0)).inner is not None
    with pytest.raises(InputError, match="inner box differ in shape"):
        Box(torch.zeros(2), torch.ones(2), Box(torch.zeros(1), torch.ones(1)))


SCALES = (1e-310, 1e-250, 1e-170, 1e-155, 1.0, 1e150, 1e155, 1e200, 1e307)


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("scale", SCALES)
def test_membership_and_projection_are_exact_at_every_scale(p: float, scale: float) -> None:
    """The square of a step, or of a radius, is often no number of float64."""
    rng = generator(0)
    ball = LpBall(torch.zeros(3, dtype=torch.float64), scale, p, None)
    steps = torch.tensor([[1.0, 1.0, 0.0], [0.6, 0.8, 0.0], [0.5, 0.5, 0.5], [1.0, 0.0, 0.0], [0.6, 0.8, 1e-7]])
    points = torch.cat([steps.double(), torch.randn((16, 3), generator=rng, dtype=torch.float64)]) * scale
    assert ball.contains(points).tolist() == [inside(ball, x) for x in points]
    for tried in (
        ball.project(5 * points),
        ball.project(points),
        ball.point(torch.rand((8, 3), generator=rng).double()),
    ):
        assert all(inside(ball, x) for x in tried)
    reached = ball.project(5 * points[:4]).double() / scale
    assert (torch.linalg.vector_norm(reached, ord=p, dim=1) > 0.99).all() or scale < 1e-300
    far = ball.steepest(points) / scale
    assert torch.allclose(torch.linalg.vector_norm(far[:4], ord=p, dim=1)[3], torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("scale", SCALES)
def test_lengths_are_right_at_every_scale(scale: float) -> None:
    values = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-1.0, 0.0]], dtype=torch.float64) * scale
    expected = torch.tensor([5.0, 0.0, 1.0], dtype=torch.float64) * scale
    assert torch.allclose(floats.length(values, 2), expected, rtol=1e-12, atol=1e-322)
    assert torch.allclose(floats.length(values.T, 2, dim=0), expected, rtol=1e-12, atol=1e-322)
    assert floats.length(values[:, :0], 2, keepdim=True).tolist() == [[0.0]] * 3
    assert floats.length(torch.tensor([[nan, 1.0]]), 2).isnan().all()
    assert floats.length(torch.tensor([[inf, 1.0]]), 2).isinf().all()


def test_what_a_region_was_made_of_may_change_afterwards() -> None:
    x, width = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    made: list[Region] = [
        Box(x, width),
        LpBall(x, width, inf, (x, width)),
        LpBall(x[None], width[:1], 2, (x[None], width[None])),
        Polytope(Box(x, width), width[None], width[:1]),
    ]
    told = [(region.id, region.box().upper.clone()) for region in made]
    x += 7
    width += 9
    again = [replace(region) for region in made]  # nothing that was worked out is kept
    assert [region.id for region in again] == [name for name, _ in told]
    for region, (_, upper) in zip(again, told, strict=True):
        assert torch.equal(region.box().upper, upper)
