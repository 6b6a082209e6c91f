"""Tests of bounds.backward.differences: differences bounded by functions of the values that they are of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from assay.verify.bounds import layers
from assay.verify.bounds.backward import columns, differences
from assay.verify.bounds.optimised import raised
from assay.verify.bounds.optimised.slopes import Ascent
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.budget import UNLIMITED
from assay.verify.core.network import Network, to_network
from assay.verify.core.ops import Sub
from assay.verify.core.region import Box
from assay.verify.core.verifier import Bounds
from tests.breadth import few
from tests.curved import boxes, points
from tests.nets import generator

D = torch.float64


class Attention(nn.Module):
    """Attention of six tokens, with a layer of ReLUs before it in ``deep`` ones."""

    def __init__(self, deep: bool, seed: int) -> None:
        super().__init__()
        self.deep, rng = deep, generator(seed)
        self.before, self.query, self.key, self.value = (
            nn.Parameter(torch.randn(3, 3, generator=rng, dtype=D)) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch x 6 x 3) to (batch x 18)."""
        x = torch.relu(x @ self.before) if self.deep else x
        scores = (x @ self.query) @ (x @ self.key).transpose(1, 2)
        attended: Tensor = (scores.softmax(-1) @ (x @ self.value)).flatten(1)
        return attended


def network(deep: bool, seed: int) -> tuple[Network, int]:
    """The network, and where the differences of its scores are."""
    made = to_network(Attention(deep, seed).eval(), (6, 3))
    return made, next(i for i, node in enumerate(made.nodes) if isinstance(node.op, Sub))


def bounded(net: Network, low: Tensor, high: Tensor, dtype: torch.dtype = D) -> list[Bounds]:
    with torch.inference_mode():
        return layers.by_linear_bounds(net, Box(low, high), dtype, UNLIMITED).bounds


@pytest.mark.parametrize("seed", few(range(8), range(2)))
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_value_lies_outside(seed: int, deep: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences, "PAYS", 0.1)
    net, _ = network(deep, seed)
    low, high = boxes(net, seed, 0.3)
    bounds = bounded(net, low, high, dtype)
    x = points(low, high, 300, seed)
    for value, here in zip(net.values(x.flatten(0, 1)), bounds, strict=True):
        value = value.view(300, *here.lower.shape)
        assert bool((here.lower <= value).all())
        assert bool((value <= here.upper).all())


@pytest.mark.slow
@pytest.mark.parametrize("radius", [1e-3, 0.1, 1.0])
def test_no_value_of_ten_thousand_lies_outside(radius: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences, "PAYS", 0.1)
    for deep in (False, True):
        net, position = network(deep, 11)
        low, high = boxes(net, 11, radius, count=1)
        here = bounded(net, low, high)[position]
        values = net.values(points(low, high, 10_000).flatten(0, 1))[position]
        assert bool(((here.lower <= values) & (values <= here.upper)).all())


@pytest.mark.parametrize("seed", few(range(6), range(2)))
def test_over_affine_operations_they_are_those_of_rows(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each score's products are lines in an affine function of the input: functions lose nothing."""
    net, position = network(False, seed)
    low, high = boxes(net, seed, 0.3)
    rows = bounded(net, low, high)[position]
    calls = []
    lowest = differences.lowest

    def noted(*given: object) -> Tensor | None:
        least = lowest(*given)  # type: ignore[arg-type]
        calls.append(least)
        return least

    monkeypatch.setattr(differences, "PAYS", 0.1)
    monkeypatch.setattr(differences, "lowest", noted)
    apart = bounded(net, low, high)[position]
    assert any(least is not None for least in calls)
    torch.testing.assert_close(apart.lower, rows.lower, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(apart.upper, rows.upper, rtol=1e-8, atol=1e-8)


def test_rows_of_few_features_are_bounded_as_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows without the features that none of them reads give the same bounds."""
    net, _ = network(True, 3)
    low, high = boxes(net, 3, 0.3)
    whole = bounded(net, low, high)
    monkeypatch.setattr(columns, "LARGE", 0)
    for one, other in zip(whole, bounded(net, low, high), strict=True):
        torch.testing.assert_close(one.lower, other.lower, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(one.upper, other.upper, rtol=1e-9, atol=1e-9)


def test_how_many_differences_there_are() -> None:
    """Six tokens have thirty differences in a row, of six scores: two and a half rows to a function."""
    net, position = network(False, 0)
    made = differences.Differences.of(net, position)
    assert made is not None
    feature = ((made.minuend >= 0) & (made.subtrahend >= 0)).nonzero().flatten()
    assert len(feature) == 6 * 30
    assert not differences.many(net, position, torch.zeros_like(feature), feature)
    assert differences.Differences.of(net, position - 1) is None


def test_far_too_many_differences_are_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    net, position = network(True, 1)
    low, high = boxes(net, 1, 0.2, count=1)

    def raised_bounds() -> Bounds:
        def further(relaxed: Relaxed, at: int, known: Bounds, wanted: Tensor) -> Bounds:
            return raised.tighten(relaxed, at, known, wanted, Ascent(3, 0.4)) if at == position else known

        with torch.inference_mode():
            return layers.by_linear_bounds(net, Box(low, high), D, UNLIMITED, further=further).bounds[position]

    plain, tighter = bounded(net, low, high)[position], raised_bounds()
    assert bool((tighter.lower > plain.lower).any())
    monkeypatch.setattr(differences, "PAYS", 2)
    assert bool((raised_bounds().lower <= plain.lower).all())
