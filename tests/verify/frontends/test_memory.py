"""Tests of verify.frontends.memory: what stands beside numbers follows views and writing in place."""

from __future__ import annotations

import torch

from assay.verify.frontends.memory import Memory, geometry, place


def beside(x: torch.Tensor) -> Memory:
    memory = Memory(torch.float64)
    memory.put(x, torch.arange(1.0, x.numel() + 1, dtype=torch.float64).view(x.shape))
    return memory


def test_views_see_what_stands_beside_their_own_numbers() -> None:
    x = torch.rand(2, 3, 4)
    memory = beside(x)
    numbers = memory.of(x)
    assert numbers is not None
    for view in (
        lambda t: t[:, 1],
        lambda t: t.transpose(0, 2),
        lambda t: t.view(6, 4)[::2],
        lambda t: t.unfold(1, 2, 1),
    ):
        found = memory.of(view(x))
        assert found is not None
        assert torch.equal(found, view(numbers))


def test_writing_through_a_view_is_seen_by_all() -> None:
    x = torch.rand(3, 4)
    memory = beside(x)
    memory.put(x.t()[1:3], torch.full((2, 3), -7.0, dtype=torch.float64))
    found = memory.of(x)
    assert found is not None
    assert found[:, 1:3].eq(-7).all()
    assert found[:, 0].tolist() == [1.0, 5.0, 9.0]


def test_a_part_begins_its_whole_memory() -> None:
    x = torch.rand(2, 3)
    zeros, copies = Memory(torch.float64), Memory(torch.float64, copied=True)
    for memory in (zeros, copies):
        memory.put(x[1], torch.ones(3, dtype=torch.float64))
    first, second = zeros.of(x), copies.of(x)
    assert first is not None
    assert second is not None
    assert first.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert torch.equal(second[0], x[0].double())


def test_strangers_and_other_dtypes_have_nothing_beside_them() -> None:
    x = torch.rand(2, 3)
    memory = beside(x)
    assert memory.of(x.clone()) is None
    assert memory.of(x.view(torch.int32)) is None
    memory.put(torch.empty(0), torch.empty(0))
    assert place(torch.empty(0)) == 0


def test_geometry_tells_views_apart() -> None:
    x = torch.rand(2, 2)
    assert geometry(x) == geometry(x.view(2, 2)) == geometry(x.detach())
    assert len({geometry(x), geometry(x.t()), geometry(x[0]), geometry(x[1]), geometry(x.clone())}) == 5
