"""Tests of robust means and covariances, of Tukey's depth, and of the detectors that use them."""

from __future__ import annotations

from math import pi

import pytest
import torch
from torch import Tensor

from assay.models.poisoning.filtering import moments, robust_mean, robust_moments
from assay.models.poisoning.signatures import Detector, Filtered, Spectral, suspects
from assay.models.poisoning.tukey import tukey_depth, tukey_median
from assay.verify.core.errors import InputError


def drawn(n: int, size: int, seed: int) -> Tensor:
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def contaminated(n: int, size: int, share: float, shift: float, seed: int) -> tuple[Tensor, Tensor]:
    """Normal points, the first ``share`` of them shifted along all axes, and which."""
    x = drawn(n, size, seed)
    foreign = torch.arange(n) < share * n
    x[foreign] = 0.3 * x[foreign] + shift
    return x, foreign


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [2, 10])
def test_filtered_means_are_near_where_plain_ones_are_not(size: int, seed: int) -> None:
    x, _ = contaminated(600, size, 0.1, 4.0, seed)
    plain, filtered = x.mean(0).norm(), robust_mean(x, 0.1).mean.norm()
    assert float(plain) > 0.35 * size**0.5
    assert float(filtered) < 0.12 * size**0.5


@pytest.mark.parametrize("seed", range(3))
def test_filtered_covariances_are_near_where_plain_ones_are_not(seed: int) -> None:
    x, foreign = contaminated(800, 5, 0.1, 3.0, seed)
    stretch = torch.diag(torch.tensor([5.0, 1.0, 0.2, 1.0, 1.0], dtype=torch.float64))
    true = stretch @ stretch
    robust = robust_moments(x @ stretch, 0.1)
    _, plain = moments(x @ stretch)

    def error(covariance: Tensor) -> float:
        white = torch.linalg.inv(stretch) @ covariance @ torch.linalg.inv(stretch)
        return float(torch.linalg.matrix_norm(white - torch.eye(5, dtype=torch.float64), ord=2))

    assert error(true) < 1e-9
    assert error(plain) > 2.0
    assert error(robust.covariance) < 0.4
    assert int((foreign & ~robust.kept).sum()) >= 76


def test_clean_data_lose_hardly_any_points() -> None:
    for size in (2, 8):
        assert int((~robust_mean(drawn(500, size, 5), 0.1).kept).sum()) <= 5
        assert int((~robust_moments(drawn(500, size, 5), 0.1).kept).sum()) <= 25


def test_nothing_to_fear_means_nothing_removed() -> None:
    x, _ = contaminated(50, 3, 0.2, 9.0, 0)
    assert bool(robust_moments(x, 0.0).kept.all())
    assert torch.allclose(robust_mean(x, 0.0).mean, x.mean(0))
    for wrong in (-0.1, 0.5):
        with pytest.raises(InputError):
            robust_mean(x, wrong)


def depth_by_directions(points: Tensor, query: Tensor, directions: Tensor) -> int:
    side = (points - query) @ directions.T
    return int((side >= 0).sum(0).min())


@pytest.mark.parametrize("size", [1, 2, 3])
def test_depth_is_that_of_very_many_directions(size: int) -> None:
    x, queries = drawn(14, size, 0), torch.cat([drawn(5, size, 1), drawn(14, size, 0)[:4]])
    directions = drawn(200_000 if size == 3 else 2000, size, 2)
    found = [depth_by_directions(x, query, directions) for query in queries]
    assert tukey_depth(x, queries).tolist() == found


def test_depths_of_a_regular_polygon() -> None:
    """Its centre lies in every half-plane with about half of the corners; a corner in one with itself alone."""
    angle = torch.arange(9, dtype=torch.float64) * 2 * pi / 9
    corners = torch.stack([angle.cos(), angle.sin()], 1)
    assert tukey_depth(corners, torch.zeros(1, 2)).item() == 4
    assert tukey_depth(corners, corners).tolist() == [1] * 9
    assert tukey_depth(corners, torch.tensor([[5.0, 0.0]])).item() == 0


def test_the_filtered_mean_is_as_good_as_tukeys_median() -> None:
    for seed in range(3):
        x, _ = contaminated(60, 2, 0.15, 6.0, seed)
        deep, filtered, plain = tukey_median(x).norm(), robust_mean(x, 0.15).mean.norm(), x.mean(0).norm()
        assert float(plain) > 1.0
        assert float(deep) < 0.8
        assert float(filtered) < 0.8
    with pytest.raises(InputError):
        tukey_depth(drawn(5, 4, 0), drawn(1, 4, 0))


@pytest.mark.parametrize("detector", [Spectral(), Filtered(values=4)])
def test_detectors_find_a_cluster(detector: Detector) -> None:
    features, foreign = contaminated(300, 12, 0.08, 3.0, 1)
    labels = torch.zeros(300, dtype=torch.int64)
    out = suspects(detector, features, labels, 0.08)
    assert int(out.sum()) == 36
    assert int((out & foreign).sum()) >= 22


def test_whitening_finds_what_hides_beside_a_long_axis() -> None:
    """Foreign points along a short axis: the longest one, which the plain signature looks along, tells nothing."""
    x = drawn(400, 6, 3) * torch.tensor([20.0, 1, 1, 1, 1, 1], dtype=torch.float64)
    foreign = torch.arange(400) < 32
    x[foreign, 3] = 6 + 0.3 * x[foreign, 3]
    labels = torch.zeros(400, dtype=torch.int64)
    hits = {d.name: int((suspects(d, x, labels, 0.08) & foreign).sum()) for d in (Spectral(), Filtered(values=6))}
    assert hits["filtered"] >= 30
    assert hits["spectral"] < 12


def test_small_classes_and_flat_features_are_left_in_peace() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
    assert not bool(suspects(Spectral(), drawn(8, 2, 0), labels, 0.2)[:3].any())
    assert int(suspects(Filtered(), torch.ones(8, 2), labels, 0.2).sum()) == 2
    assert not bool(suspects(Spectral(), drawn(8, 2, 0), labels, 0.0).any())
    with pytest.raises(InputError):
        suspects(Spectral(), drawn(8, 2, 0), labels, 0.7)
    with pytest.raises(InputError):
        Filtered(values=0)
