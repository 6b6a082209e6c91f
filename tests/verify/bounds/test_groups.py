"""Tests of verify.bounds.groups: memory, time and non-finite samples, group by group."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from assay.verify.backends.crown import CROWN
from assay.verify.bounds.groups import HALVINGS, lower_bounds
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, chain
from assay.verify.core.ops import Linear, Relu
from assay.verify.core.region import Box, Region

NETWORK = chain((1,), [])
ONE = torch.ones(1, 1, dtype=torch.float64)


def boxes(n: int) -> Box:
    low = torch.arange(n, dtype=torch.float64)[:, None]
    return Box(low, low + 0.5)


class Recorder:
    """A group bounder that gives each sample's own lower bound, and remembers the sizes of its groups."""

    def __init__(self, fits: int = 1000, error: type[Exception] = MemoryError, text: str = "") -> None:
        self.sizes: list[int] = []
        self.fits, self.error, self.text = fits, error, text

    def __call__(self, network: Network, region: Region, objective: Tensor, budget: Budget) -> Tensor:
        self.sizes.append(len(objective))
        if len(objective) > self.fits:
            raise self.error(self.text)
        lower = region.box().lower
        return lower.clone()


def test_groups_are_put_together_in_order() -> None:
    bounder = Recorder()
    lowest = lower_bounds(bounder, NETWORK, boxes(7), ONE, Budget(), 3)
    assert bounder.sizes == [3, 3, 1]
    assert lowest.flatten().tolist() == list(range(7))


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError, RuntimeError])
def test_a_group_that_does_not_fit_is_halved(error: type[Exception]) -> None:
    bounder = Recorder(fits=2, error=error, text="DefaultCPUAllocator: can't allocate memory: you tried to ...")
    lowest = lower_bounds(bounder, NETWORK, boxes(8), ONE, Budget(), 8)
    assert bounder.sizes == [8, 4, 2, 2, 4, 2, 2]
    assert lowest.flatten().tolist() == list(range(8))


def test_after_three_halvings_there_is_no_memory() -> None:
    bounder = Recorder(fits=1)
    with pytest.raises(MemoryError):
        lower_bounds(bounder, NETWORK, boxes(16), ONE, Budget(), 16)
    assert bounder.sizes == [16, 8, 4, 2]
    assert len(bounder.sizes) == HALVINGS + 1


def test_one_sample_cannot_be_halved() -> None:
    with pytest.raises(MemoryError):
        lower_bounds(Recorder(fits=0), NETWORK, boxes(1), ONE, Budget(), 8)


def test_other_errors_are_not_swallowed() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        lower_bounds(Recorder(0, RuntimeError, "shapes do not match"), NETWORK, boxes(4), ONE, Budget(), 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_sample_that_is_not_finite_does_not_harm_its_neighbours(value: float) -> None:
    sizes = []

    def bounder(network: Network, region: Region, objective: Tensor, budget: Budget) -> Tensor:
        sizes.append(len(objective))
        lower = region.box().lower.clone()
        if bool((lower == 2).any()):
            lower[:] = value
        return lower

    lowest = lower_bounds(bounder, NETWORK, boxes(4), ONE, Budget(), 4).flatten()
    assert sizes == [4, 1, 1, 1, 1]
    assert lowest[[0, 1, 3]].tolist() == [0.0, 1.0, 3.0]
    assert not bool(lowest[2].isfinite())


def test_what_time_does_not_reach_is_nan() -> None:
    calls = []

    def bounder(network: Network, region: Region, objective: Tensor, budget: Budget) -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise Expired
        return region.box().lower.clone()

    lowest = lower_bounds(bounder, NETWORK, boxes(6), ONE, Budget(), 2).flatten()
    assert len(calls) == 2
    assert lowest[:2].tolist() == [0.0, 1.0]
    assert bool(lowest[2:].isnan().all())


def test_no_time_no_work() -> None:
    bounder = Recorder()
    assert bool(lower_bounds(bounder, NETWORK, boxes(2), ONE, Budget(seconds=0).started(), 2).isnan().all())
    assert bounder.sizes == []


@pytest.mark.parametrize("shape", [(1, 2), (3, 1, 1), (2, 1, 2)])
def test_objectives_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="expected an objective"):
        lower_bounds(Recorder(), NETWORK, boxes(2), torch.ones(shape, dtype=torch.float64), Budget(), 2)


def test_bounds_leave_nothing_behind_that_gradients_cannot_pass() -> None:
    """Casts and matrices are kept for later: also for callers who differentiate through them."""
    network = chain((3,), [Linear(torch.eye(3), torch.zeros(3)), Relu(), Linear(torch.ones(2, 3), torch.zeros(2))])
    box = Box(-torch.ones(1, 3), torch.ones(1, 3))
    bounds = CROWN(dtype="float32").bound(network, box, torch.eye(2)[None], Budget())
    assert not bounds.lower.is_inference()
    x = torch.rand(1, 3, requires_grad=True)
    network(box.project(x)).sum().backward()
    assert x.grad is not None
