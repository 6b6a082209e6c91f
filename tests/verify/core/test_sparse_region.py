"""Tests of regions of few changed pixels, patches, and intersections of balls."""

from __future__ import annotations

from itertools import product
from math import comb, inf

import pytest
import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.norms import PATCH, covers, norm_name, parse_norm
from assay.verify.core.region import FewPixels, Intersection, LpBall, Sparse, Window, around, kind, stack, take
from assay.verify.core.region.sparse import Support, channels, pixels

SHAPE = (2, 4, 5)
SUPPORTS = [FewPixels(0), FewPixels(1), FewPixels(3), FewPixels(99), Window(1, 1), Window(2, 3), Window(4, 5)]
every_support = pytest.mark.parametrize("support", SUPPORTS, ids=str)


def images(seed: int, n: int = 1, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.rand((n, *shape), generator=torch.Generator().manual_seed(seed))


def allowed(mask: Tensor, support: Support) -> bool:
    """Whether these pixels may change (rows x columns): by trying every window, or counting."""
    if isinstance(support, FewPixels):
        return int(mask.sum()) <= support.number
    assert isinstance(support, Window)
    rows, columns = mask.shape
    for top, left in product(range(rows - support.height + 1), range(columns - support.width + 1)):
        rest = mask.clone()
        rest[top : top + support.height, left : left + support.width] = False
        if not bool(rest.any()):
            return True
    return False


@every_support
def test_membership_is_that_of_an_enumeration(support: Support) -> None:
    x = images(0)[0]
    region = Sparse(x, support)
    generator = torch.Generator().manual_seed(1)
    for count in (0, 1, 2, 3, 4, 6):
        mask = torch.zeros(20, dtype=torch.bool)
        mask[torch.randperm(20, generator=generator)[:count]] = True
        mask = mask.view(4, 5)
        changed = torch.where(mask, (x + 0.5) % 1, x)
        assert bool(region.contains(changed[None])) == allowed(mask, support)
        window = torch.zeros(4, 5, dtype=torch.bool)
        window[1:3, 1 : 1 + count] = True
        changed = torch.where(window, (x + 0.5) % 1, x)
        assert bool(region.contains(changed[None])) == allowed(window, support)


@every_support
def test_projections_points_and_samples_are_members(support: Support) -> None:
    region = Sparse(images(0)[0], support)
    far = torch.randn(50, *SHAPE, generator=torch.Generator().manual_seed(2))
    far[0] = torch.nan
    drawn = region.sample(50, torch.Generator().manual_seed(3))
    assert bool(region.contains(region.project(far)).all())
    assert bool(region.contains(drawn).all())
    assert torch.equal(region.project(drawn), drawn)
    rows, columns = pixels(SHAPE)
    assert int(region.changed(drawn).flatten(1).sum(1).max()) == support.size(rows, columns)


@every_support
def test_projection_keeps_the_largest_changes(support: Support) -> None:
    """No other allowed set of pixels is nearer, by enumeration."""
    x, far = images(0)[0], images(4)
    region = Sparse(x, support)
    near = (region.project(far) - far).square().sum()
    gain = channels((far - x).square()).sum(1)[0]
    if support.count(4, 5) > 2000:
        return
    kept = (support.every(4, 5) * gain).flatten(1).sum(1).max()
    assert float(near) == pytest.approx(float(gain.sum() - kept), abs=1e-5)


@pytest.mark.parametrize("support", [FewPixels(0), FewPixels(2), Window(2, 3), Window(4, 5)], ids=str)
def test_the_boxes_are_the_region(support: Support) -> None:
    region = Sparse(images(0)[0], support)
    boxes = region.boxes()
    assert len(boxes.lower) == support.count(4, 5)
    members = boxes.point(images(5, len(boxes.lower)))
    assert bool(region.contains(members).all())
    for point in region.sample(30, torch.Generator().manual_seed(6)):
        assert bool(boxes.contains(point.expand_as(boxes.lower)).any())


def test_how_many_sets_there_are() -> None:
    assert FewPixels(2).count(4, 5) == comb(20, 2)
    assert Window(2, 3).count(4, 5) == 9


@every_support
def test_the_steepest_step_is_the_best_of_all_boxes(support: Support) -> None:
    x, grad = images(0)[0], torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(7))
    if support.count(4, 5) > 2000:
        return
    region = Sparse(x, support)
    step = region.steepest(grad)
    assert bool(region.contains((x + step).clamp(0, 1)))
    boxes = region.boxes()
    gains = torch.where(grad > 0, boxes.upper - x, boxes.lower - x) * grad
    assert float((step * grad).sum()) == pytest.approx(float(gains.flatten(1).sum(1).max()), abs=1e-5)


def test_a_channel_more_is_no_pixel_more() -> None:
    x = images(0)[0]
    changed = x.clone()
    changed[:, 2, 2] = 1 - x[:, 2, 2]
    assert bool(Sparse(x, FewPixels(1)).contains(changed[None]))


def test_values_beyond_the_domain_are_no_members() -> None:
    x = images(0)[0]
    x[0, 0, 0] = 1.5
    assert not bool(Sparse(images(0)[0], FewPixels(99)).contains(x[None]))
    with pytest.raises(InputError, match="outside of the domain"):
        Sparse(x, FewPixels(1))


@every_support
def test_a_batch_is_its_samples(support: Support) -> None:
    x, far = images(8, 3), images(9, 3)
    alone = [Sparse(each, support) for each in x]
    batch = stack(alone)
    assert kind(alone[0]) == kind(alone[1])
    assert torch.equal(batch.project(far), torch.cat([r.project(f[None]) for r, f in zip(alone, far, strict=True)]))
    assert take(batch, torch.tensor([2])).id == Sparse(x[2:], support).id
    assert len({region.id for region in alone}) == 3


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4)])
def test_samples_of_any_shape(shape: tuple[int, ...]) -> None:
    x = images(0, 1, shape)[0]
    region = Sparse(x, FewPixels(2))
    far = region.project(1 - images(0, 4, shape))
    assert bool(region.contains(far).all())
    assert region.changed(far).flatten(1).sum(1).tolist() == [2] * 4


def test_what_cannot_be_is_refused() -> None:
    x = images(0)[0]
    for bad in (-1, 1.5, True):
        with pytest.raises(InputError):
            FewPixels(bad)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        Window(0, 2)
    with pytest.raises(InputError, match="does not fit"):
        Sparse(x, Window(5, 5))
    with pytest.raises(InputError):
        Sparse(x, FewPixels(1), (0.0, inf))
    with pytest.raises(InputError, match="whole"):
        around(x, 0.5, 0)
    with pytest.raises(InputError, match="domain"):
        around(x, 1, 0, None)


def test_regions_by_their_measure() -> None:
    x = images(0)[0]
    for norm, support in ((0.0, FewPixels(3)), (PATCH, Window(3, 3))):
        region = around(x, 3, norm)
        assert isinstance(region, Sparse)
        assert region.support == support
        assert around(x, 0, norm).box().single.all()
        assert parse_norm(norm_name(norm), pixels=True) == norm
    assert isinstance(around(x, 0.1, 2), LpBall)
    with pytest.raises(InputError):
        parse_norm("l0")
    assert covers(2, 2, 0)
    assert not covers(2, 2, 1)


BALLS = {inf: 0.2, 2.0: 0.5, 1.0: 1.2}


@pytest.mark.parametrize("norms", [(inf, 2.0), (inf, 1.0), (1.0, 2.0), (inf, 1.0, 2.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_members_of_an_intersection_are_members_of_every_ball(norms: tuple[float, ...], dtype: torch.dtype) -> None:
    x = images(0)[0]
    region = Intersection.of(x, {norm: BALLS[norm] for norm in norms})
    far = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(2)).to(dtype)
    near = region.project(far)
    balls = [LpBall(x, BALLS[norm], norm) for norm in norms]
    for point in (near, region.sample(8, torch.Generator().manual_seed(3))):
        inside = torch.stack([ball.contains(point) for ball in balls])
        assert bool(inside.all())
        assert torch.equal(region.contains(point), inside.all(0))
    assert torch.equal(region.project(near), near)
    box = region.box()
    assert all(bool((ball.box().lower <= box.lower).all()) for ball in balls)
    step = region.steepest(far)
    assert bool(region.contains(region.project((x + step).to(dtype))).all())
    slack = 1 + 1e-6
    lengths = [step.flatten(1).abs().amax(1), step.flatten(1).norm(dim=1), step.flatten(1).abs().sum(1)]
    for norm, length in zip((inf, 2.0, 1.0), lengths, strict=True):
        assert norm not in norms or bool((length <= BALLS[norm] * slack).all())


def test_intersections_in_batches() -> None:
    x = images(1, 3)
    alone = [Intersection.of(each, BALLS) for each in x]
    far = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(2))
    batch = stack(alone)
    together = batch.project(far)
    assert torch.equal(together, torch.cat([r.project(f[None]) for r, f in zip(alone, far, strict=True)]))
    assert bool(take(batch, torch.tensor([1])).contains(together[1:2]).all())
    with pytest.raises(InputError):
        Intersection((LpBall(x[0], 0.1), LpBall(x[1], 0.1, 2)))
    with pytest.raises(InputError):
        Intersection((LpBall(x[0], 0.1), LpBall(x[0], 0.2)))
