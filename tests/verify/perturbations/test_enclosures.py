"""Every image that a perturbation makes lies in its enclosure, and enclosures shrink with their cells."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise, product
from math import floor
from typing import Any

import pytest
import torch
from torch import Tensor

from assay.verify.core.network import chain, to_network
from assay.verify.core.ops import Reshape
from assay.verify.perturbations import Enclosure, Part, Perturbation, enclose, enclosures
from assay.verify.perturbations.ranges import Range
from tests.breadth import slow
from tests.nets import generator, random_cnn

TEXTS = [
    "rotation(4)",
    "rotation(100,260)",
    "translation(0.7)",
    "scaling(0.1)",
    "shear(0.2)",
    "blur(1)",
    "gamma(1)",
    "contrast(0.5)",
    "brightness(0.6)",
    "gamma(0.4)+contrast(0.2)+brightness(0.1)",
    "blur(0.5)+rotation(3)",
    "rotation(5)+brightness(0.1)",
    "shear(0.1)+scaling(0.05)+contrast(0.2)",
    "translation(3,3)+brightness(0.2)",
]


def drawn(seed: int, channels: int = 1) -> Tensor:
    """An image that is black here and there, and has its border at the values of its inside."""
    rng = generator(seed)
    x = torch.rand(channels, 5, 6, dtype=torch.float64, generator=rng)
    return x * (torch.rand(x.shape, generator=rng) > 0.3)


def cell(p: Perturbation, seed: int) -> tuple[Tensor, Tensor]:
    """A part of the parameters, at times all of them."""
    a, b = torch.rand(2, len(p.low), dtype=torch.float64, generator=generator(seed)).sort(0).values
    return (p.low, p.high) if seed % 3 == 0 else (p.low + a * (p.high - p.low), p.low + b * (p.high - p.low))


def within(e: Enclosure, p: Perturbation, x: Tensor, low: Tensor, high: Tensor, count: int, seed: int) -> Tensor:
    """Whether images of drawn parameters, and those of the ends, lie in the enclosure: (count x values)."""
    share = 2 * torch.rand(count, len(low), dtype=torch.float64, generator=generator(seed)) - 1
    share[0], share[1] = -1.0, 1.0
    at = torch.minimum(torch.maximum((low + high) / 2 + share * (high - low) / 2, low), high)
    images = p.images(x, at).to(torch.float32).to(torch.float64).flatten(1)
    plane = e.middle + share @ e.slope
    ends = ((plane + sign * e.reach).clamp(*p.domain) for sign in (-1, 1))
    least, most = ends
    return (least <= images) & (images <= most)


@pytest.mark.parametrize("count", [100, slow(10_000)])
@pytest.mark.parametrize("text", TEXTS)
def test_every_image_lies_inside(text: str, count: int) -> None:
    p = Perturbation.parse(text)
    for seed in range(3):
        x, (low, high) = drawn(seed, 1 + seed % 2), cell(p, seed)
        e = enclose(p, x, low, high, torch.float32)
        assert bool(within(e, p, x, low, high, count, seed).all())


def steps(r: Range) -> Range:
    """Slopes as they are in the middle."""
    middle = (r.down + r.up) / 2
    return Range(r.low, r.high, middle, middle)


def test_slopes_that_are_too_narrow_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    p, over = Perturbation.parse("rotation(10)"), Perturbation.over
    monkeypatch.setattr(Perturbation, "over", lambda self, *at: steps(over(self, *at)))
    monkeypatch.setattr(enclosures, "MOST", 4)
    x = drawn(3)
    e = enclose(p, x, p.low, p.high, torch.float32)
    assert not bool(within(e, p, x, p.low, p.high, 2000, 0).all())


def test_smaller_cells_are_closer_and_linear_changes_are_exact() -> None:
    x = drawn(1)
    reaches = []
    for degrees in (8, 4, 2, 1):
        p = Perturbation.parse(f"rotation({degrees})")
        reaches.append(float(enclose(p, x, p.low, p.high, torch.float32).reach.mean()))
    assert all(b < 0.6 * a for a, b in pairwise(reaches))
    p = Perturbation.parse("brightness(0.1)+contrast(1,1)+blur(0.5)")
    assert float(enclose(p, x, p.low, p.high, torch.float32).reach.max()) < 1e-6


def test_slopes_are_those_of_differences() -> None:
    p, x = Perturbation.parse("blur(0.5)+rotation(20)+scaling(0.2)+shear(0.2)+contrast(0.3)+brightness(0.1)"), drawn(2)
    rng = generator(0)
    at = p.low + (p.high - p.low) * torch.rand(40, len(p.low), dtype=torch.float64, generator=rng)
    for k in range(len(p.low)):
        step = torch.zeros(len(p.low), dtype=torch.float64)
        step[k] = 1e-4
        over = p.over(x, at - step, at + step)
        ends = [p.over(x, here, here).low for here in (at - step, at + step)]
        slope = (ends[1] - ends[0]) / 2e-4
        assert bool(((over.down[k] - 1e-8 <= slope) & (slope <= over.up[k] + 1e-8)).all())


@pytest.mark.parametrize("text", ["rotation(3)", "brightness(0.9)", "blur(0.5)+contrast(0.2)"])
def test_the_layer_in_front_makes_the_images(text: str) -> None:
    p, x = Perturbation.parse(text), torch.rand(1, 8, 8, dtype=torch.float64, generator=generator(5))
    network = to_network(random_cnn(0), (1, 8, 8))
    e = enclose(p, x, p.low, p.high, torch.float32)
    whole = e.before(network)
    share = 2 * torch.rand(50, len(p.low), dtype=torch.float64, generator=generator(1)) - 1
    at = (p.low + p.high) / 2 + share * (p.high - p.low) / 2
    images = p.images(x, at)
    own = ((images.flatten(1) - e.middle - share @ e.slope) / e.reach).clamp(-1, 1)
    inputs = torch.cat([share, own], 1)
    assert torch.allclose(whole(inputs), network(images), atol=1e-5)


@pytest.mark.parametrize("domain", [(-0.4242, 2.8215), (0.001, 255.3), (0.2, 0.9)])
def test_the_cut_leaves_room_for_what_rounding_makes_of_the_ends(domain: tuple[float, float]) -> None:
    low, high = domain
    p = Perturbation.parse(f"brightness({low - high},{high - low})", domain)
    x = torch.tensor([[[low, high, (low + high) / 2]]], dtype=torch.float64)
    e = enclose(p, x, p.low, p.high, torch.float32)
    whole = e.before(chain((1, 1, 3), [Reshape((3,))]))
    share = torch.linspace(-1, 1, 21, dtype=torch.float64)[:, None]
    images = p.images(x, share * (high - low)).flatten(1)
    least, most = (whole(torch.cat([share, sign * torch.ones(21, 3, dtype=torch.float64)], 1)) for sign in (-1, 1))
    for made in (images, images.to(torch.float32).to(torch.float64)):
        assert bool(((least <= made) & (made <= most)).all())


def exactly(x: Tensor, down: Fraction, right: Fraction, share: Fraction, factor: Fraction) -> list[Fraction]:
    """The image sheared, then scaled, then moved, in exact arithmetic: its values."""
    height, width = x.shape[-2:]
    middle = Fraction(height - 1, 2), Fraction(width - 1, 2)
    found = []
    for i, j in product(range(height), range(width)):
        v, u = (i - middle[0] - down) / factor, (j - middle[1] - right) / factor
        v, u = v + middle[0], u - share * v + middle[1]
        near = [
            (a, b, (1 - abs(v - a)) * (1 - abs(u - b)))
            for a, b in product((floor(v), floor(v) + 1), (floor(u), floor(u) + 1))
            if 0 <= a < height and 0 <= b < width
        ]
        found.append(sum((weight * Fraction(float(x[0, a, b])) for a, b, weight in near), Fraction(0)))
    return found


@pytest.mark.parametrize(
    "at", [(1.0, 0.25, 0.01), (3.0, 1.0, 0.1), (9.0, 1.0, 0.5), (-9.0, 0.5, 0.3), (0.5, 19.0, 7.0)]
)
@pytest.mark.parametrize("wide", [0.0, 1e-3])
def test_exact_images_lie_inside(at: tuple[float, float, float], wide: float) -> None:
    share, factor, far = at
    p = Perturbation(
        (
            Part("shear", share - wide, share),
            Part("scaling", factor, factor + wide),
            Part("translation", far - wide, far),
        )
    )
    x = drawn(4)
    low, high = p.low, p.high
    e = enclose(p, x, low, high, torch.float64)
    for corner in product(*zip(low.tolist(), high.tolist(), strict=True)):
        skew, scale, down, right = map(Fraction, corner)
        values = exactly(x, down, right, skew, scale)
        assert any(values), "some of the image is seen"
        ends = (torch.tensor(corner, dtype=torch.float64) - low) / (high - low).clamp(min=1e-300) * 2 - 1
        plane = e.middle + ends @ e.slope
        for value, middle, reach in zip(values, plane.tolist(), e.reach.tolist(), strict=True):
            assert abs(value - Fraction(middle)) <= Fraction(reach)


def test_values_that_are_not_numbers_prove_nothing() -> None:
    p, x = Perturbation.parse("rotation(3)"), drawn(0)
    x[0, 0, 0] = torch.nan
    e: Any = enclose(p, x, p.low, p.high, torch.float32)
    assert not bool(e.reach.isfinite().all())
