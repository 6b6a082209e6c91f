"""Tests of the noises: published and computed values, likelihood ratios of samples, half-spaces, moments, refusals."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import exp, expm1, inf, lgamma, log, pi, sqrt

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import betainc, ndtr, ndtri, spence
from scipy.stats import binom, gamma
from torch import Tensor

from assay.verify.backends.smoothing.noises import (
    Ablation,
    Exp1,
    Exp2,
    ExpInf,
    Expp,
    Gaussian,
    Laplace,
    Masking,
    Noise,
    Pareto,
    Pow2,
    PowInf,
    Uniform,
    UniformBall,
    levels,
    with_mean_l1,
    with_rms,
)
from assay.verify.backends.smoothing.noises.noise import Scaled, growth_integral
from assay.verify.core.errors import InputError
from tests.breadth import few

PS = (0.6, 0.9, 0.99)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Values computed independently of this code, at scale 1, for p = .6, .9, .99.
VALUES: list[tuple[Noise, float, int, tuple[float, float, float]]] = [
    (Uniform(1), 1, 784, (0.2, 0.8, 0.98)),
    (Uniform(1), inf, 784, (0.000269, 0.001303, 0.001717)),
    (Uniform(1), 2, 784, (0.007143, 0.028571, 0.035)),
    (Gaussian(1), 2, 784, (0.253347, 1.281552, 2.326348)),
    (Gaussian(1), 1, 784, (0.253347, 1.281552, 2.326348)),
    (Gaussian(1), inf, 784, (0.009048, 0.045770, 0.083084)),
    (Laplace(1), 1, 784, (0.223144, 1.609438, 3.912023)),
    (Laplace(1), inf, 784, (0.009049, 0.045777, 0.083109)),
    (Laplace(1), inf, 4, (0.133333, 0.668124, 1.257452)),
    (Pareto(1, 3), 1, 784, (0.070281, 0.448919, 1.032410)),
    (UniformBall(1), 2, 784, (0.008973, 0.037442, 0.047038)),
    (Exp2(1, 1), 2, 784, (7.091506, 35.878276, 65.154497)),
    (Exp2(1, 2), 2, 784, (0.179143, 0.906194, 1.644976)),
    (Exp1(1, 1), 1, 784, (0.223144, 1.609438, 3.912023)),
    (Exp1(1, 2), 1, 784, (0.005609, 0.039820, 0.095250)),
    (ExpInf(1, 1), inf, 784, (0.223144, 1.609438, 3.912023)),
    (ExpInf(1, 10), inf, 784, (0.000432, 0.002931, 0.006698)),
    (ExpInf(1, 1), 1, 784, (156.8, 627.2, 768.32)),
    (Expp(1, 2), 1, 784, (0.179143, 0.906194, 1.644976)),
    (Expp(1, 0.5), 1, 784, (0.409050, 1.949983, 2.882968)),
    (PowInf(1, 10), 1, 784, (15.68, 62.72, 76.832)),
    (PowInf(1, 10), inf, 784, (0.021194, 0.128511, 0.264406)),
]


@pytest.mark.parametrize(("noise", "norm", "size", "expected"), VALUES, ids=str)
def test_known_radii(noise: Noise, norm: float, size: int, expected: tuple[float, ...]) -> None:
    radii = [noise.radius(p, norm, size) for p in PS]
    assert radii == pytest.approx(expected, rel=2e-6, abs=6e-7)


@pytest.mark.parametrize(
    ("keep", "p", "expected"), [(0.01, 0.99, 66), (0.05, 0.95, 11), (0.05, 0.9, 9), (0.1, 0.8, 3), (0.5, 0.75, 0)]
)
def test_known_numbers_of_pixels_under_masking(keep: float, p: float, expected: int) -> None:
    radius = int(Masking(keep).radius(p, 0))
    assert radius == expected
    assert p - (1 - (1 - keep) ** radius) > 0.5
    assert p - (1 - (1 - keep) ** (radius + 1)) <= 0.5


@pytest.mark.parametrize(
    ("size", "kept", "p", "expected"),
    [
        (784, 45, 0.99, 11),
        (784, 45, 0.9, 8),
        (784, 20, 0.99, 25),
        (784, 5, 0.99, 98),
        (3072, 75, 0.9, 20),
        (64, 8, 0.95, 4),
    ],
)
def test_known_numbers_of_pixels_under_ablation(size: int, kept: int, p: float, expected: int) -> None:
    assert Ablation(kept).radius(p, 0, size) == expected


# Likelihood ratios of samples: what the worst set of probability p keeps after a shift, by Monte Carlo.

SIZE, DRAWS = 5, 150_000
UNIT = {1.0: lambda x: x.abs().sum(1), 2.0: lambda x: x.norm(dim=1), inf: lambda x: x.abs().amax(1)}


def product(log_density: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: log_density(x.abs()).sum(1)


def radial(norm: float, log_density: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: log_density(UNIT[norm](x))


def within(limit: float) -> Callable[[Tensor], Tensor]:
    return lambda r: torch.where(r <= limit, 0.0, -inf).double()


# Noise, log density up to a constant, and the norms in which the radius is the largest possible.
DENSITIES: list[tuple[Noise, Callable[[Tensor], Tensor], tuple[float, ...]]] = [
    (Gaussian(0.7), product(lambda r: -((r / 0.7) ** 2) / 2), (1, 2)),
    (Laplace(0.7), product(lambda r: -r / 0.7), (1,)),
    (Uniform(0.7), product(within(0.7)), (1, inf)),
    (Pareto(0.7, 3), product(lambda r: -4 * (1 + r / 0.7).log()), ()),
    (Expp(0.7, 0.5), product(lambda r: -((r / 0.7) ** 0.5)), ()),
    (Expp(0.7, 3.0), product(lambda r: -((r / 0.7) ** 3)), (1,)),
    (UniformBall(0.7), radial(2, within(0.7)), (2,)),
    (Exp1(0.7, 1), radial(1, lambda r: -r / 0.7), ()),
    (Exp1(0.7, 3), radial(1, lambda r: -((r / 0.7) ** 3)), ()),
    (Exp1(0.7, 0.5), radial(1, lambda r: -((r / 0.7) ** 0.5)), ()),
    (Exp2(0.7, 1), radial(2, lambda r: -r / 0.7), ()),
    (Exp2(0.7, 3), radial(2, lambda r: -((r / 0.7) ** 3)), (2,)),
    (Exp2(0.7, 2, 2), radial(2, lambda r: -((r / 0.7) ** 2) - 2 * r.log()), (2,)),
    (Exp2(0.7, 1, 1), radial(2, lambda r: -r / 0.7 - r.log()), (2,)),
    (Pow2(0.7, 4), radial(2, lambda r: -(SIZE + 4) * (1 + r / 0.7).log()), (2,)),
    (ExpInf(0.7, 1), radial(inf, lambda r: -r / 0.7), (inf,)),
    (ExpInf(0.7, 4), radial(inf, lambda r: -((r / 0.7) ** 4)), ()),
    (ExpInf(0.7, 0.5), radial(inf, lambda r: -((r / 0.7) ** 0.5)), ()),
    (ExpInf(0.7, 1, 2), radial(inf, lambda r: -r / 0.7 - 2 * r.log()), ()),
    (PowInf(0.7, 5), radial(inf, lambda r: -(SIZE + 5) * (1 + r / 0.7).log()), ()),
]


def shifts(norm: float) -> list[Tensor]:
    """Directions of length 1 in the norm: along an axis, along a diagonal, and a mixed one."""
    made = [torch.eye(SIZE)[0], torch.ones(SIZE), torch.tensor([1.0, 2.0, -1.0, 0.0, 0.5])]
    return [direction.double() / UNIT[norm](direction[None].double()) for direction in made]


def kept(ratio: Tensor, p: float) -> float:
    """What the set of the p DRAWS smallest likelihood ratios is worth after the shift."""
    return float(ratio.sort().values[: round(p * len(ratio))].sum()) / len(ratio)


@pytest.mark.parametrize(("noise", "log_density", "tight"), DENSITIES, ids=[str(case[0]) for case in DENSITIES])
@pytest.mark.parametrize("p", few([0.7, 0.9], quick=[0.9]))
def test_no_set_loses_its_majority_within_the_radius(
    noise: Noise, log_density: Callable[[Tensor], Tensor], tight: tuple[float, ...], p: float
) -> None:
    x = noise.sample(torch.zeros(SIZE, dtype=torch.float64), DRAWS, generator())
    own = log_density(x)
    for norm in (1.0, 2.0, inf):
        radius = noise.radius(p, norm, SIZE)
        assert 0 < radius < inf
        worst = min(kept((log_density(x - radius * step) - own).exp(), p) for step in shifts(norm))
        assert worst >= 0.5 - 0.01, norm
        if norm in tight:
            assert worst <= 0.5 + 0.01, norm


@pytest.mark.parametrize("margin", [0.01, 0.3, 1.0])
def test_half_spaces_give_the_exact_distance(margin: float) -> None:
    """A half-space at distance ``margin`` along an axis has p in closed form; the radius is the margin itself."""
    scale = 1.3
    assert Gaussian(scale).radius(float(ndtr(margin / scale)), 2) == pytest.approx(margin, rel=1e-9)
    assert Uniform(scale).radius(0.5 + margin / (2 * scale), 1) == pytest.approx(margin, rel=1e-12)
    assert Laplace(scale).radius(1 - exp(-margin / scale) / 2, 1) == pytest.approx(margin, rel=1e-12)


def test_linear_classifiers_give_the_exact_distance() -> None:
    w = torch.randn(20, generator=generator(), dtype=torch.float64)
    margin, sigma = 0.8, 0.4
    p = float(ndtr(margin / (sigma * float(w.norm()))))
    assert Gaussian(sigma).radius(p, 2) == pytest.approx(margin / float(w.norm()), rel=1e-9)


# Closed forms against direct integration.


@pytest.mark.parametrize("p", few([0.55, 0.9, 0.9999], quick=[0.9]))
@pytest.mark.parametrize("size", [1, 4, 101])
def test_laplace_in_linf_is_the_integral_over_the_binomial(p: float, size: int) -> None:
    def phi(q: float) -> float:
        """Mean of 2 B - size over its upper q-quantile."""
        rank = int(binom.isf(q, size, 0.5))
        above = sum((2 * k - size) * binom.pmf(k, size, 0.5) for k in range(rank + 1, size + 1))
        return float(above + (q - binom.sf(rank, size, 0.5)) * (2 * rank - size))

    jumps = [float(q) for q in binom.sf(np.arange(size + 1), size, 0.5) if 1 - p < q < 0.5]
    ends = [1 - p, *sorted(jumps), 0.5]
    total = sum(quad(lambda q: 1 / phi(q), a, b)[0] for a, b in pairwise(ends))
    assert Laplace(2.0).radius(p, inf, size) == pytest.approx(2 * total, rel=1e-6)


@pytest.mark.parametrize("p", [0.55, 0.9, 0.9999])
@pytest.mark.parametrize("a", [1.5, 3.0, 20.0])
def test_pareto_is_the_integral_over_its_worst_bands(p: float, a: float) -> None:
    def phi(q: float) -> float:
        return a / 2 * (1 - (1 - 2 * q) ** (1 + 1 / a))

    assert Pareto(2.0, a).radius(p, 1) == pytest.approx(2 * growth_integral(phi, p), rel=1e-8)


@pytest.mark.parametrize("p", [0.501, 0.6, 0.99, 0.99999])
def test_heavy_tails_by_the_dilogarithm(p: float) -> None:
    c = gamma(2).ppf(2 * (1 - p))
    assert Expp(1, 0.5).radius(p, 1) == pytest.approx(2 * (-c * log(-expm1(-c)) + spence(1 - exp(-c))), rel=1e-9)


@pytest.mark.parametrize("p", few([0.55, 0.8, 0.99, 0.9999], quick=[0.8, 0.9999]))
@pytest.mark.parametrize("size", [3, 4, 11, 12, 784])
def test_level_sets_of_gaussian_noise_are_half_spaces(p: float, size: int) -> None:
    whole = levels.power_exponential(size, 2, 0)
    radius = levels.radius(whole, p, levels.typical_shift(size, 2, 0))
    exact = float(ndtri(p)) / sqrt(2)
    assert exact * (1 - 2e-2) < radius <= exact * (1 + 1e-9)


@pytest.mark.parametrize(
    ("size", "k", "j"), [(3, 1, 0), (5, 2, 2), (7, 0.5, 1), (12, 3, 0), (784, 2, 760), (784, 1, 0), (50, 4, 10)]
)
def test_sums_over_levels_agree_with_adaptive_quadrature(size: int, k: float, j: float) -> None:
    whole = levels.power_exponential(size, k, j)
    shift = 0.7 * levels.typical_shift(size, k, j)
    law, half = gamma((size - j) / k), (size - 1) / 2
    for log_mu in (-0.5, 0.3):

        def integrand(t: float, log_mu: float = log_mu) -> float:
            r = np.array([t ** (1 / k)])
            z = ((r + shift) ** 2 - whole.level(r, log_mu) ** 2) / (4 * r * shift)
            return float(law.pdf(t) * betainc(half, half, np.clip(z, 0, 1))[0])

        cuts = law.ppf([0.001, 0.1, 0.5, 0.9, 0.999])
        ends = [float(law.ppf(1e-14)), *cuts, float(law.isf(1e-14))]
        exact = sum(quad(integrand, a, b, epsabs=1e-12, limit=500)[0] for a, b in pairwise(ends))
        assert whole.kept(shift, log_mu) == pytest.approx(exact, abs=whole.slack / 4)


def test_spherical_radii_exceed_the_differential_method() -> None:
    """The level sets are the best bound; (size - 1) atanh(...) is the weaker one by integration of rates."""
    for p in PS:
        whole = levels.power_exponential(784, 1, 0)
        assert Exp2(1, 1).radius(p, 2, 784) <= levels.radius(whole, p, 1.0) <= 1.001 * Exp2(1, 1).radius(p, 2, 784)


def test_plain_radii_of_the_generalised_gaussian() -> None:
    """Published method at d = 784, sigma = .5, 760 / 2 = 380: .62171 and 1.13092 with quadrature errors of 1e-3."""
    noise = with_rms(Exp2(1, 2, 760), 0.5, 784)
    assert noise.radius(0.9, 2, 784) == pytest.approx(0.62171, abs=1e-3)
    assert noise.radius(0.99, 2, 784) == pytest.approx(1.13092, abs=1e-3)


# Samples.

SCALED: list[Scaled] = [noise for noise, _, _ in DENSITIES]  # type: ignore[misc]


@pytest.mark.parametrize("noise", SCALED, ids=str)
def test_moments_are_those_of_samples(noise: Scaled) -> None:
    x = noise.sample(torch.zeros(SIZE, dtype=torch.float64), DRAWS, generator(1))
    heavy = isinstance(noise, (Pareto, Pow2, PowInf))
    if not heavy:
        assert float(x.square().mean().sqrt()) == pytest.approx(noise.rms(SIZE), rel=0.02)
    assert float(x.abs().mean()) == pytest.approx(noise.mean_l1(SIZE), rel=0.02)
    assert float(x.mean()) == pytest.approx(0, abs=0.02 * noise.mean_l1(SIZE))


@pytest.mark.parametrize("noise", SCALED, ids=str)
def test_scales_by_name(noise: Scaled) -> None:
    assert with_mean_l1(noise, 0.3, SIZE).mean_l1(SIZE) == pytest.approx(0.3)
    assert with_rms(noise, 0.3, SIZE).rms(SIZE) == pytest.approx(0.3)


def test_scales_of_the_literature() -> None:
    assert with_rms(Laplace(), 1.0, 9).scale == pytest.approx(1 / sqrt(2))
    assert with_rms(Uniform(), 1.0, 9).scale == pytest.approx(sqrt(3))
    assert with_rms(Pareto(a=4), 1.0, 9).scale == pytest.approx(sqrt(3))
    assert with_rms(Gaussian(), 0.4, 9) == Gaussian(0.4)
    assert with_mean_l1(Gaussian(), 1.0, 9).sigma == pytest.approx(sqrt(pi / 2))
    d = 30
    assert UniformBall(1).mean_l1(d) == pytest.approx(d / (d + 1) * exp(lgamma(d / 2) - lgamma((d + 1) / 2)) / sqrt(pi))


@pytest.mark.parametrize("noise", [*SCALED, Masking(0.3), Ablation(4)], ids=str)
def test_samples_repeat_and_fill_the_buffer(noise: Noise) -> None:
    x = torch.rand(2, 3, 4, generator=generator())
    first = noise.sample(x, 7, generator(5))
    buffer = torch.full((7, 2, 3, 4), torch.nan)
    again = noise.sample(x, 7, generator(5), out=buffer)
    assert again.data_ptr() == buffer.data_ptr()
    assert torch.equal(first, again)
    assert first.dtype == x.dtype
    assert first.shape == (7, 2, 3, 4)
    assert not torch.equal(first, noise.sample(x, 7, generator(6)))


def test_pixels_are_erased_whole() -> None:
    x = torch.rand(3, 8, 8, generator=generator()) + 0.1
    for noise, share in ((Masking(0.3), 0.3), (Ablation(16), 0.25)):
        drawn = noise.sample(x, 2000, generator())
        seen = drawn != 0
        assert torch.equal(seen, seen[:, :1].expand_as(seen))
        assert torch.equal(drawn[seen], x.expand_as(drawn)[seen])
        assert float(seen.double().mean()) == pytest.approx(share, abs=0.01)
        if isinstance(noise, Ablation):
            assert bool((seen[:, 0].sum((1, 2)) == 16).all())


@pytest.mark.parametrize("noise", [Masking(0.1), Ablation(8)], ids=str)
@pytest.mark.parametrize("changed", [1, 3, 9])
def test_changed_pixels_are_seen_as_often_as_the_radius_assumes(noise: Masking | Ablation, changed: int) -> None:
    """Counted on samples: at the largest p that does not certify ``changed`` pixels, they are seen with p - 1/2."""
    seen = noise.sample(torch.ones(8, 8), 40_000, generator()).flatten(1)[:, :changed].any(1).double().mean()
    low, high = 0.5, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if noise.radius(middle, 0, 64) >= changed else (middle, high)
    expected = low - 0.5 if high < 1 else 0.5
    assert float(seen) >= 0.5 if high == 1 else float(seen) == pytest.approx(expected, abs=0.01)


# Refusals.

ALL: list[tuple[Noise, float]] = [*((noise, 2.0) for noise in SCALED), (Masking(), 0.0), (Ablation(), 0.0)]


@pytest.mark.parametrize(("noise", "norm"), ALL, ids=str)
def test_half_and_less_abstains_and_certainty_is_refused(noise: Noise, norm: float) -> None:
    assert [noise.radius(p, norm, 64) for p in (0.0, 0.3, 0.5)] == [0.0, 0.0, 0.0]
    assert noise.radius(0.9999, norm, 64) < inf
    for p in (1.0, 1.5, -0.1, float("nan")):
        with pytest.raises(InputError, match="probability"):
            noise.radius(p, norm, 64)


@pytest.mark.parametrize(("noise", "norm"), ALL, ids=str)
def test_the_radius_grows_with_p(noise: Noise, norm: float) -> None:
    radii = [noise.radius(p, norm, 64) for p in (0.51, 0.6, 0.7, 0.9, 0.99, 0.9999)]
    assert radii == sorted(radii)


def test_norms_that_are_not_covered_are_refused() -> None:
    for noise, norm in ((Gaussian(), 0), (Gaussian(), 3), (Masking(), 2), (Ablation(), inf)):
        with pytest.raises(InputError, match="certifies"):
            noise.radius(0.9, norm, 10)


def test_the_size_is_asked_for_where_it_matters() -> None:
    assert Gaussian(1).radius(0.9, 2) == Gaussian(1).radius(0.9, 2, 100)
    with pytest.raises(InputError, match="pass size"):
        Gaussian(1).radius(0.9, inf)
    with pytest.raises(InputError, match="pass size"):
        Ablation(4).radius(0.9, 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gaussian(0),
        lambda: Laplace(-1),
        lambda: Uniform(inf),
        lambda: Pareto(1, 0),
        lambda: Expp(1, 0),
        lambda: Exp2(1, 1, -1),
        lambda: Masking(0),
        lambda: Masking(1),
        lambda: Ablation(0),
    ],
)
def test_impossible_parameters_are_refused(make: Callable[[], Noise]) -> None:
    with pytest.raises(InputError):
        make()
