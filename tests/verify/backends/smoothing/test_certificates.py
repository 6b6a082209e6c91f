"""Tests of the certificates: known values, their order, exact distances, Monte Carlo over worst sets, coverage."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri

from assay.verify.backends.smoothing.certificates import (
    cohen,
    ellipsoid,
    gradient_bound,
    higher_order,
    pixeldp_gaussian,
    pixeldp_laplace,
    renyi,
    sensitivity,
    two_class,
)
from assay.verify.backends.smoothing.double import dsrs, exceeds, generalised_gaussian, suggested_quantile
from assay.verify.backends.smoothing.noises import Exp2
from assay.verify.core.errors import InputError
from tests.breadth import few, slow

TRIPLES = [(0.99, 0.01, 0.5), (0.9, 0.1, 1.0), (0.8, 0.15, 1.0)]


@pytest.mark.parametrize(
    ("p", "sigma", "expected"),
    [(0.99, 0.5, 1.163174), (0.9, 0.25, 0.320388), (0.999, 1, 3.090232), (0.8, 0.5, 0.420811)],
)
def test_known_radii(p: float, sigma: float, expected: float) -> None:
    assert cohen(p, sigma) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("p", "rival", "sigma", "expected"),
    [(0.8, 0.15, 0.5, 0.469514), (0.6, 0.3, 0.25, 0.097218), (0.45, 0.2, 1, 0.35798)],
)
def test_known_radii_against_a_rival(p: float, rival: float, sigma: float, expected: float) -> None:
    assert two_class(p, rival, sigma) == pytest.approx(expected, abs=1e-6)


def test_known_radii_by_privacy_and_divergence() -> None:
    assert [pixeldp_laplace(p, rival, 1) for p, rival, _ in TRIPLES] == pytest.approx([2.29756, 1.098612, 0.836988])
    assert [pixeldp_gaussian(*t) for t in TRIPLES] == pytest.approx([0.277433, 0.390267, 0.287831], abs=2e-6)
    assert [renyi(*t) for t in TRIPLES] == pytest.approx([0.954005, 1.03193, 0.77922], abs=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("p", few([0.55, 0.9, 0.9999], quick=[0.9]))
@pytest.mark.parametrize("rival", few([0.01, 0.5, 1.0], quick=[0.5]))
def test_the_order_of_the_certificates(p: float, rival: float) -> None:
    rival *= 1 - p
    sigma = 0.5
    weakest, weak, strong = (f(p, rival, sigma) for f in (pixeldp_gaussian, renyi, two_class))
    assert 0 < weakest <= weak + 1e-6
    assert weak <= strong + 1e-6
    assert cohen(p, sigma) <= strong + 1e-6  # with the one rival's bound at most 1 - p
    assert cohen(p, sigma) <= dsrs(generalised_gaussian(sigma, 60, 0), 0.5, p, 0.0, 1.0, 60) + 1e-6
    assert cohen(p, sigma) <= higher_order(p, 0.1, sigma) + 1e-6


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5])
def test_half_and_less_abstains(p: float) -> None:
    assert cohen(p, 1) == higher_order(p, 0.0, 1) == 0
    assert dsrs(generalised_gaussian(0.5, 20, 5), 0.5, p, 0.0, 1.0, 20) == 0
    for bound in (two_class, pixeldp_gaussian, renyi, pixeldp_laplace):
        assert bound(p, 0.5, 1.0) == 0


def test_certainty_is_refused() -> None:
    for call in (
        lambda: cohen(1.0, 1),
        lambda: two_class(1.0, 0.1, 1),
        lambda: renyi(1.0, 0.1, 1),
        lambda: pixeldp_gaussian(1.0, 0.1, 1),
        lambda: dsrs(generalised_gaussian(0.5, 20, 5), 0.5, 1.0, 0.0, 1.0, 20),
    ):
        with pytest.raises(InputError, match="p < 1"):
            call()


# Sensitivities.


@pytest.mark.parametrize("norm", [1.0, 2.0, inf])
@pytest.mark.parametrize("noise_norm", [1.0, 2.0])
def test_sensitivities_bound_what_a_map_can_do(norm: float, noise_norm: float) -> None:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    v = torch.randn(20_000, 5, generator=generator, dtype=torch.float64)
    v = torch.cat([v, v.sign(), torch.eye(5, dtype=torch.float64)])
    v = v / torch.linalg.vector_norm(v, ord=norm, dim=1, keepdim=True)
    seen = float(torch.linalg.vector_norm(v @ w.T, ord=noise_norm, dim=1).max())
    bound = sensitivity(w, norm, noise_norm)
    assert seen <= bound * (1 + 1e-9)
    if norm == 1 or (norm, noise_norm) == (2, 2):
        assert seen >= 0.97 * bound
    for other in (1, 2):  # rounded up
        assert 1 <= sensitivity(torch.eye(4), 1, other) <= 1 + 1e-9


def test_sensitivity_divides_the_radius() -> None:
    assert pixeldp_laplace(0.9, 0.1, 1, 2) == pixeldp_laplace(0.9, 0.1, 1) / 2
    assert pixeldp_gaussian(0.9, 0.1, 1, 2) == pytest.approx(pixeldp_gaussian(0.9, 0.1, 1) / 2)


# Higher order.


@pytest.mark.parametrize(
    ("p", "slope", "expected"),
    [
        (0.8, 0, 1.268034),
        (0.8, 0.139981, 1.011838),
        (0.9, 0, 1.643591),
        (0.9, 0.087749, 1.429172),
        (0.99, 0, 2.575829),
        (0.99, 0.013326, 2.428915),
    ],
)
def test_known_radii_of_higher_order(p: float, slope: float, expected: float) -> None:
    assert higher_order(p, slope, 1.0) == pytest.approx(expected, abs=2e-6)
    assert higher_order(p, slope / 0.5, 0.5) == pytest.approx(expected / 2, abs=2e-6)


def test_a_steep_gradient_leaves_the_plain_radius() -> None:
    for p in (0.6, 0.9):
        steepest = float(np.exp(-(ndtri(p) ** 2) / 2) / sqrt(2 * np.pi))
        assert higher_order(p, steepest, 1.0) == cohen(p, 1.0)
        assert higher_order(p, steepest * 0.999, 1.0) >= cohen(p, 1.0)


@pytest.mark.parametrize(("a", "b"), [(-1.6, 1.0), (-2.5, 1.2), (-1.2, 1.2)])
def test_slabs_are_the_worst_case_of_higher_order(a: float, b: float) -> None:
    """For the slab a < z < b the gradient and the distance at which it loses its majority are known."""
    p = float(ndtr(b) - ndtr(a))
    gradient = abs(float(np.exp(-b * b / 2) - np.exp(-a * a / 2)) / sqrt(2 * np.pi))
    shift = higher_order(p, gradient, 1.0)
    assert ndtr(b - shift) - ndtr(a - shift) == pytest.approx(0.5, abs=1e-6)


def test_the_gradient_bound_covers() -> None:
    """The indicator of a half-space has a gradient in closed form; the estimate is of 40 coordinates."""
    size, n, sigma, alpha, margin, runs = 40, 400, 0.5, 0.2, 0.3, 400
    truth = float(np.exp(-((margin / sigma) ** 2) / 2) / sqrt(2 * np.pi)) / sigma
    generator = torch.Generator().manual_seed(0)
    below = 0
    for _ in range(runs):
        noise = sigma * torch.randn(2, n, size, generator=generator)
        signs = torch.where(noise[..., 0] < margin, 0.5, -0.5)
        first, second = (signs[..., None] * noise).mean(1) / sigma**2
        below += gradient_bound(first, second, n, sigma, alpha) < truth
    assert below / runs <= alpha + 3 * sqrt(alpha * (1 - alpha) / runs)
    tight = torch.zeros(size)
    tight[0] = truth
    assert gradient_bound(tight, tight, 10**8, sigma, alpha) == pytest.approx(truth, rel=0.02)


# Double sampling.


def kept_by_the_worst_set(noise: Exp2, size: int, quantile: float, p: float, q: float, shift: float) -> float:
    """The same linear program as the certificate's, solved by sorting likelihood ratios of samples."""
    random = np.random.default_rng(0)
    n = 1_000_000
    r = noise.scale * np.sqrt(random.standard_gamma(noise.shape(size), n))
    cos = 2 * random.beta((size - 1) / 2, (size - 1) / 2, n) - 1
    moved = r**2 + shift**2 - 2 * r * shift * cos
    ratio = np.exp(-noise.j / 2 * np.log(moved / r**2) - (moved - r**2) / noise.scale**2)
    inside = r < np.quantile(r, quantile)
    within = np.sort(ratio[inside])[: int(q * quantile * n)].sum()
    beyond = np.sort(ratio[~inside])[: int((p - q * quantile) * n)].sum()
    return float(within + beyond) / n


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantile", "p", "q", "published"), [(0.5, 0.9, 0.99, 0.77579), slow(0.8, 0.99, 0.999, 1.36723)]
)
def test_double_sampling_on_images(quantile: float, p: float, q: float, published: float) -> None:
    """Within a percent of a published implementation, whose quadrature errs upwards, and right by samples."""
    noise = generalised_gaussian(0.5, 784, 380)
    radius = dsrs(noise, quantile, p, q, q, 784)
    assert radius == pytest.approx(published, rel=1e-2)
    assert radius > noise.radius(p, 2, 784)
    assert 0.5 - 5e-3 < kept_by_the_worst_set(noise, 784, quantile, p, q, radius) < 0.512


@pytest.mark.slow
def test_loose_bounds_of_q_cost_radius() -> None:
    noise = generalised_gaussian(0.5, 100, 40)
    plain = noise.radius(0.9, 2, 100)
    radii = [dsrs(noise, 0.5, 0.9, q, 1.0, 100) for q in (0.0, 0.97, 0.999)]
    assert radii == sorted(radii)
    assert radii[0] == plain
    assert radii[-1] > plain
    assert dsrs(noise, 0.5, 0.9, 0.0, 0.85, 100) > plain  # knowing that q is small tells something too


def test_quantiles_are_those_of_the_noise() -> None:
    noise = generalised_gaussian(0.5, 30, 10)
    x = torch.zeros(30, dtype=torch.float64)
    wide = noise.sample(x, 100_000, torch.Generator().manual_seed(0)).norm(dim=1)
    assert float(wide.square().mean()) / 30 == pytest.approx(0.25, rel=0.02)
    assert 0 < suggested_quantile(0.6) < suggested_quantile(0.9999) < 1


@pytest.mark.slow
@pytest.mark.parametrize(("p", "q"), [(0.8, 0.95), (0.9, 0.99), (0.97, 0.9)])
def test_one_evaluation_tells_whether_a_radius_is_exceeded(p: float, q: float) -> None:
    noise = generalised_gaussian(0.5, 30, 10)
    radius = dsrs(noise, 0.5, p, q, 1.0, 30)
    assert exceeds(noise, 0.5, p, q, 30, 0.999 * radius) or radius == noise.radius(p, 2, 30)
    assert not exceeds(noise, 0.5, p, q, 30, 1.001 * radius)
    assert not exceeds(noise, 0.5, 0.5, q, 30, 1e-9)


def test_ellipsoids_scale_each_axis() -> None:
    axes = ellipsoid(0.9, torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64))
    assert axes.tolist() == pytest.approx([0.25631, 0.640776, 1.281552], abs=1e-6)
