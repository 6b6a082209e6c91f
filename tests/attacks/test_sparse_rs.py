"""Tests of Sparse-RS, where enumeration knows what can be broken."""

from __future__ import annotations

from itertools import combinations, product

import pytest
import torch
from torch import Tensor

from assay.attacks.curves import curve
from assay.attacks.sparse_rs import SparseRS
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.norms import PATCH
from assay.verify.core.region import LpBall, Sparse, Window, around

SIDE = 4


def score(x: Tensor) -> Tensor:
    """Class 1 by the pixels of a fixed pattern, with a product of two neighbours: not linear."""
    flat = x.flatten(1)
    weight = torch.sin(torch.arange(16.0) * 2.3)
    value = flat @ weight + 2 * flat[:, 5] * flat[:, 6] - 0.6
    return torch.stack([torch.zeros(len(x)), value], 1)


X = torch.rand(12, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).round()
LABELS = score(X).argmax(1)


def breakable(x: Tensor, label: int, sets: list[list[int]]) -> bool:
    """Whether some corner of some set of pixels breaks the sample: the score is monotone or a product in each."""
    for chosen in sets:
        corners = torch.tensor(list(product((0.0, 1.0), repeat=len(chosen))))
        points = x.flatten().repeat(len(corners), 1)
        points[:, chosen] = corners
        y = score(points)
        if bool((y[:, label] <= y[:, 1 - label]).any()):
            return True
    return False


def test_few_pixels_are_found_where_they_exist() -> None:
    for number in (1, 2):
        result = SparseRS(queries=80).run(score, X, LABELS, around(X, number, 0), seed=1)
        sets = [list(each) for each in combinations(range(16), number)]
        truth = [breakable(x, int(label), sets) for x, label in zip(X, LABELS, strict=True)]
        assert result.success.tolist() == truth
        assert 0 < sum(truth) < len(truth)
        assert bool((result.distance <= number).all())


def test_patches_are_found_where_they_exist() -> None:
    region = around(X, 2, PATCH)
    result = SparseRS(queries=80).run(score, X, LABELS, region, seed=1)
    sets = [[r * 4 + c, r * 4 + c + 1, r * 4 + c + 4, r * 4 + c + 5] for r in range(3) for c in range(3)]
    truth = [breakable(x, int(label), sets) for x, label in zip(X, LABELS, strict=True)]
    assert result.success.tolist() == truth
    assert bool(region.contains(result.adversarial).all())


def test_more_pixels_break_more() -> None:
    found = curve(SparseRS(queries=40), score, X, LABELS, [0, 1, 2, 16], norm=0)
    assert found.accuracy == sorted(found.accuracy, reverse=True)
    assert found.accuracy[0] == 1.0
    assert found.accuracy[-1] < found.accuracy[1]


@pytest.mark.parametrize("window", [Window(1, 3), Window(4, 4), Window(3, 2)])
def test_channels_and_oblong_patches(window: Window) -> None:
    x = torch.rand(5, 3, 4, 5, generator=torch.Generator().manual_seed(3))

    def colourful(points: Tensor) -> Tensor:
        return torch.stack([points.flatten(1).sum(1), 30 + (points[:, 0] * points[:, 2]).flatten(1).sum(1)], 1)

    region = Sparse(x, window)
    result = SparseRS(queries=60).run(colourful, x, torch.ones(5, dtype=torch.int64), region, seed=2)
    assert bool(region.contains(result.adversarial).all())
    assert bool((result.adversarial != x).flatten(1).any(1).all())


def test_other_regions_and_options_are_refused() -> None:
    with pytest.raises(UnsupportedError):
        SparseRS().run(score, X, LABELS, LpBall(X, 0.1))
    for wrong in ({"queries": 0}, {"share": 1.5}, {"patience": 0.5}):
        with pytest.raises(InputError):
            SparseRS(**wrong)  # type: ignore[arg-type]
