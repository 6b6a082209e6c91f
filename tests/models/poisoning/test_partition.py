"""Tests of the vote over parts: nothing that it certifies is changed by that many changed samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from assay.models.data import Dataset
from assay.models.poisoning.learners import Learner, Perceptron, Ridge
from assay.models.poisoning.partition import ABSTAINED, certified, in_order, part_of, train
from assay.verify.core.errors import InputError


def blobs(n: int, seed: int) -> Dataset:
    """Three classes about three corners of [0, 1]^2, with some overlap."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    centres = torch.tensor([[0.2, 0.2], [0.8, 0.3], [0.5, 0.8]])
    x = (centres[y] + 0.12 * torch.randn(n, 2, generator=generator)).clamp(0, 1)
    return Dataset("blobs", "train", x, y, 3)


DATA, TEST = blobs(120, 0), blobs(60, 1)


def altered(data: Dataset, changes: int, kind: str, seed: int) -> Dataset:
    """``changes`` samples added with wrong labels, removed, or relabelled."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(data), generator=generator)[:changes]
    if kind == "remove":
        kept = torch.ones(len(data), dtype=torch.bool)
        kept[index] = False
        return replace(data, x=data.x[kept], y=data.y[kept])
    if kind == "relabel":
        y = data.y.clone()
        y[index] = (y[index] + 1) % 3
        return replace(data, y=y)
    far = torch.rand(changes, 2, generator=generator)
    return replace(data, x=torch.cat([data.x, far]), y=torch.cat([data.y, torch.zeros(changes, dtype=torch.int64)]))


@pytest.mark.parametrize("kind", ["add", "remove", "relabel"])
@pytest.mark.parametrize("changes", [1, 2, 4])
def test_certified_answers_survive_that_many_changes(kind: str, changes: int) -> None:
    answer, radius = train(DATA, 20, Ridge(0.1)).certify(TEST.x)
    certain = radius >= changes
    assert int(certain.sum()) > 10
    for seed in range(5):
        again, _ = train(altered(DATA, changes, kind, seed), 20, Ridge(0.1)).certify(TEST.x)
        assert torch.equal(again[certain], answer[certain])


def test_the_radius_is_the_largest_that_counting_allows() -> None:
    generator = torch.Generator().manual_seed(0)
    votes = torch.randint(0, 9, (200, 4), generator=generator)
    answer, radius = certified(votes)
    for row, label, certain in zip(votes, answer.tolist(), radius.tolist(), strict=True):
        best = row.topk(2).values
        if label == ABSTAINED:
            assert best[0] == best[1]
            continue
        rivals = [k for k in range(4) if k != label]

        def survives(changes: int, row: Tensor = row, label: int = label, rivals: list[int] = rivals) -> bool:
            return all(row[label] - changes > row[k] + changes for k in rivals)

        assert survives(certain)
        assert not survives(certain + 1)


@pytest.mark.parametrize("learner", [Ridge(), Perceptron(hidden=4, epochs=1)])
def test_the_order_of_the_data_means_nothing(learner: Learner) -> None:
    order = torch.randperm(len(DATA), generator=torch.Generator().manual_seed(3))
    shuffled = replace(DATA, x=DATA.x[order], y=DATA.y[order])
    assert torch.equal(train(DATA, 3, learner).votes(TEST.x), train(shuffled, 3, learner).votes(TEST.x))


def test_a_sample_belongs_to_a_part_by_its_values_alone() -> None:
    own = part_of(DATA.x, 7)
    order = torch.randperm(len(DATA), generator=torch.Generator().manual_seed(3))
    assert torch.equal(part_of(DATA.x[order], 7), own[order])
    assert set(own.tolist()) == set(range(7))
    part = in_order(DATA, torch.tensor([5, 3, 9]))
    assert sorted(map(tuple, part.x.tolist())) == sorted(map(tuple, DATA.x[[3, 5, 9]].tolist()))


def test_more_parts_than_samples_leave_some_without_a_vote() -> None:
    few = replace(DATA, x=DATA.x[:5], y=DATA.y[:5])
    votes = train(few, 40, Ridge()).votes(TEST.x)
    assert int(votes.sum(1).max()) <= 5
    with pytest.raises(InputError):
        train(few, 0, Ridge())


def test_ridge_is_least_squares() -> None:
    """Its gradient is 0: (X'X + penalty) W = X'Y, against a solver of another kind."""
    x = torch.cat([DATA.x.double(), torch.ones(len(DATA), 1, dtype=torch.float64)], 1)
    y = torch.nn.functional.one_hot(DATA.y, 3).double()
    rows = torch.cat([x, 0.3**0.5 * torch.eye(3, dtype=torch.float64)])
    expected = torch.linalg.lstsq(rows, torch.cat([y, torch.zeros(3, 3, dtype=torch.float64)])).solution
    assert torch.allclose(Ridge(0.3).fit(DATA)(DATA.x), x @ expected, atol=1e-9)
    with pytest.raises(InputError):
        Ridge(0.0)
