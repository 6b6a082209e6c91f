"""Tests of verify.frontends.agreement: a network passes beside its own model only, up to that model's rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from assay.verify.core.errors import InternalError, UnsupportedError
from assay.verify.core.network import Network, to_network
from assay.verify.frontends import agreement
from assay.verify.frontends.onnx.write import write_onnx
from tests import nets

Change = Callable[[Tensor, Tensor], Tensor]


def beside(change: Change) -> Network:
    """A network with an oracle that gives change(x, y) instead of y."""
    network = to_network(nets.random_mlp(0), (4,))
    oracle = network.oracle
    assert oracle is not None
    return replace(network, oracle=lambda x: change(x, oracle(x)))


def test_the_model_itself_agrees() -> None:
    network = beside(lambda x, y: y)
    agreement.agree(network)
    agreement.agree_on(network, 1e6 * torch.randn(20, 4, generator=nets.generator(0)))


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: y + 1e-3,
        lambda x, y: y.flip(1),
        lambda x, y: torch.where((x == 0).all(1, keepdim=True), y + 1e-3, y),
        lambda x, y: torch.where((x < 0).any(1, keepdim=True), y + 1e-3, y),
    ],
    ids=["everywhere", "outputs-swapped", "at-zero", "outside-of-the-cube"],
)
@pytest.mark.parametrize("values", [1, 2**25])
def test_a_difference_is_found(change: Change, values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few points fit into memory at once."""
    monkeypatch.setattr(agreement, "VALUES", values)
    with pytest.raises(InternalError, match="differs from the model in its own arithmetic"):
        agreement.agree(beside(change))


def test_a_difference_in_float64_is_found() -> None:
    network = to_network(nets.random_mlp(0), (4,))
    agreement.agree(network, network)
    with pytest.raises(InternalError, match="in float64"):
        agreement.agree(network, lambda x: network(x) + 1e-6)


def test_at_points_of_ones_own() -> None:
    network = beside(lambda x, y: torch.where((x > 1e4).any(1, keepdim=True), y + 9, y))
    agreement.agree(network)
    with pytest.raises(InternalError):
        agreement.agree_on(network, torch.full((1, 4), 10001.0, dtype=torch.float64))


@pytest.mark.parametrize(
    "change",
    [lambda x, y: y[:1], lambda x, y: y if len(x) > 1 else y[0], lambda x, y: y[:, :2]],
    ids=["one-row", "no-batch", "an-output-less"],
)
def test_other_shapes_are_found(change: Change) -> None:
    with pytest.raises((InternalError, UnsupportedError)):
        agreement.agree(beside(change))


def test_samples_that_interact_are_found_however_few_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "VALUES", 1)
    with pytest.raises(UnsupportedError, match="depends on the batch"):
        agreement.agree(beside(lambda x, y: y + len(y) - 1))


def test_samples_that_interact_are_found_where_the_first_has_no_bound() -> None:
    """The error of a root of 0 has no bound: that point says nothing of the batch."""
    network = to_network(Deviations().eval(), (3, 2))
    oracle = network.oracle
    assert oracle is not None
    mixing = replace(network, oracle=lambda x: oracle(x) * (1 + 0.01 * len(x)))
    points = torch.cat([torch.ones(1, 3, 2), torch.rand(3, 3, 2, generator=nets.generator(0))])
    assert network.rounding_error(points, torch.float32)[0].isfinite().all(1).tolist() == [False, True, True, True]
    with pytest.raises(UnsupportedError, match="depends on the batch"):
        agreement.agree_on(mixing, points)


def test_an_oracle_that_overwrites_its_input_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="in place"):
        agreement.agree(beside(lambda x, y: (x.zero_(), y)[1]))


def test_what_folding_cancels_counts_as_the_models_rounding() -> None:
    """x + B - B: float32 forgets x, and folded there is nothing left to round."""
    for name in ("N1", "N2", "N4"):
        network = to_network(nets.trap(name), (1,))
        assert network.literal is not None
        agreement.agree_on(network, torch.linspace(0, 1, 50)[:, None])


def out_of_bounds() -> nn.Module:
    """So close to the largest float32 that no error in it has a bound, at any input; in float64 each has."""
    first, second = nn.Linear(4, 3), nn.Linear(3, 2)
    with torch.no_grad():
        first.bias.fill_(2e38)
        second.weight.mul_(1e-38)
    return nn.Sequential(first, second).eval()


def test_what_cannot_be_compared_in_its_own_arithmetic_is_compared_in_float64() -> None:
    network = to_network(out_of_bounds(), (4,))
    assert not bool(network.rounding_error(agreement.random_points(network), torch.float32)[0].isfinite().any())
    agreement.agree(network, network)
    with pytest.raises(InternalError, match="in float64"):
        agreement.agree(network, lambda x: network(x) + 1e-3)


def test_what_has_a_bound_nowhere_agrees_to_half_of_the_digits_or_is_refused(tmp_path: Path) -> None:
    network = to_network(out_of_bounds(), (4,))
    agreement.agree(network)
    write_onnx(network, tmp_path / "net.onnx")
    with pytest.raises(UnsupportedError, match="cannot be checked: the rounding errors of 2 of 2 outputs"):
        agreement.agree(replace(network, oracle=lambda x: network(x.double()).float() * 1.01))


@pytest.mark.parametrize("width", [1, 2])
def test_deviations_that_are_zero(width: int) -> None:
    """The error of a root of 0 has no bound, in any precision."""
    network = to_network(Deviations().eval(), (3, width))
    x = torch.rand(5, 3, width, generator=nets.generator(0))
    torch.testing.assert_close(network(x.double()).float(), Deviations()(x))


class Deviations(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x / (1 + x.std(-1, keepdim=True, correction=0))).flatten(1)


def test_one_output_that_can_be_compared_nowhere_is_refused() -> None:
    """However well the others agree."""
    network = beside(lambda x, y: torch.cat([y[:, :2], y[:, 2:] / 0], 1))
    with pytest.raises(UnsupportedError, match="1 of 3 outputs"):
        agreement.agree(network)


def cancelling(seed: int, kind: str) -> nn.Module:
    """Outputs are differences of numbers that are equal, or differ by less than they are rounded by."""
    first, last = nn.Linear(16, 64), nn.Linear(64, 4)
    random = nets.generator(seed)
    half, apart = torch.randn(32, 17, generator=random), torch.randn(32, 17, generator=random)
    twins = torch.cat([half, half + (1e-7 * apart if kind == "nearly" else 0.0)])
    rows = 1e3 * torch.randn(4, 32, generator=random)
    with torch.no_grad():
        first.weight.copy_(twins[:, :16])
        first.bias.copy_(twins[:, 16])
        last.weight.copy_(torch.cat([rows, -rows], 1))
        last.bias.zero_()
    return nn.Sequential(first, nn.Identity() if kind == "affine" else nn.ReLU(), last).eval()


@pytest.mark.parametrize("kind", ["exactly", "nearly", "affine"])
@pytest.mark.parametrize("seed", range(3))
def test_where_nothing_but_rounding_is_left_of_outputs_no_model_is_refused_for_it(kind: str, seed: int) -> None:
    module = cancelling(seed, kind)
    network = to_network(module, (16,))
    x = torch.rand(5, 16, dtype=torch.float64, generator=nets.generator(seed))
    assert float(network(x).abs().max()) < 1e-1


@pytest.mark.parametrize("seed", range(3))
def test_there_too_a_sample_that_is_mixed_into_another_is_found(seed: int) -> None:
    module = cancelling(seed, "exactly")

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.module(x) + 1e-6 * x.sum(0)[:4]

    with pytest.raises(UnsupportedError, match="depends on the batch"):
        to_network(Mixing().eval(), (16,))
