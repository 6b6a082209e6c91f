"""Iterates: the best point is kept, and samples restart from it without momentum."""

from __future__ import annotations

import torch

from assay.attacks.common.iterates import Iterates


def test_the_best_point_is_kept_and_restarted_from() -> None:
    points = [torch.full((2, 1), value) for value in (0.0, 1.0, 2.0)]
    losses = [torch.tensor(values) for values in ([0.0, 0.0], [1.0, -1.0], [0.5, 3.0])]
    iterates = Iterates.of(points[0], losses[0], -points[0])
    for x, loss in zip(points[1:], losses[1:], strict=True):
        iterates = iterates.move(x, loss, -x)
    assert iterates.x.tolist() == [[2.0], [2.0]]
    assert iterates.previous.tolist() == [[1.0], [1.0]]
    assert iterates.best.tolist() == [[1.0], [2.0]]
    assert iterates.best_loss.tolist() == [1.0, 3.0]
    assert iterates.best_grad.tolist() == [[-1.0], [-2.0]]
    assert iterates.restart_from_best(torch.tensor([False, False])) is iterates
    restarted = iterates.restart_from_best(torch.tensor([True, False]))
    assert restarted.x.tolist() == [[1.0], [2.0]]
    assert restarted.previous.tolist() == [[1.0], [1.0]]
    assert restarted.loss.tolist() == [1.0, 3.0]
    assert restarted.grad.tolist() == [[-1.0], [-2.0]]
    assert restarted.take(torch.tensor([1])).best.tolist() == [[2.0]]
