"""Losses against hand-computed numbers, and the goal of a specification against the specification itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.attacks.common.losses import LossName, Misclassify, Violate, cross_entropy, dlr, margin, targeted_dlr
from assay.verify.core.errors import InputError
from assay.verify.core.spec import Polyhedron, Spec

Y = torch.tensor([[1.0, 3.0, 2.0], [0.0, 5.0, 5.0]])


def test_margin_and_cross_entropy_by_hand() -> None:
    assert margin(Y, torch.tensor([1, 1])).tolist() == [-1.0, 0.0]
    assert margin(Y, torch.tensor([0, 2])).tolist() == [2.0, 0.0]
    expected = torch.tensor([3 + torch.exp(torch.tensor([-2.0, 0, -1])).sum().log() - 3])
    assert torch.allclose(cross_entropy(Y[:1], torch.tensor([1])), expected)


def test_a_tie_is_a_success_for_both_losses() -> None:
    for loss in ("ce", "margin"):
        _, success = Misclassify.of(torch.tensor([1, 1]), loss)(Y)  # type: ignore[arg-type]
        assert success.tolist() == [False, True]


def test_labels_need_an_output() -> None:
    with pytest.raises(InputError, match="label 3 is out of range: the model has 3 classes"):
        Misclassify.of(torch.tensor([0, 3]), "ce")(Y)
    with pytest.raises(InputError, match="at least 2 classes"):
        Misclassify.of(torch.tensor([0]), "ce")(Y[:1, :1])


def polyhedron(A: list[list[float]], b: list[float], strict: list[bool]) -> Polyhedron:
    rows = torch.tensor(A, dtype=torch.float64).reshape(len(b), 2)
    return Polyhedron(rows, torch.tensor(b, dtype=torch.float64), torch.tensor(strict, dtype=torch.bool))


def test_the_loss_of_a_specification_by_hand() -> None:
    both = polyhedron([[1, 0], [0, 1]], [0, 0], [False, False])  # y0 <= 0 and y1 <= 0
    far = polyhedron([[1, 1]], [-10], [False])
    goal = Violate.of([Spec((both, far))] * 4)
    y = torch.tensor([[3.0, 2.0], [3.0, -2.0], [-1.0, -2.0], [0.0, 0.0]], requires_grad=True)
    loss, success = goal(y)
    assert loss.detach().tolist() == [-5.0, -3.0, 1.0, 0.0]
    assert success.tolist() == [False, False, True, True]
    (grad,) = torch.autograd.grad(loss.sum(), y)
    assert grad[:3].tolist() == [[-1, -1], [-1, 0], [-1, 0]]  # all positive rows; once inside, the largest


def test_the_rows_of_a_conjunction_count_together_in_their_own_scale() -> None:
    """The smooth loss is at most minus the largest row, and has a part for rows that are met as well."""
    both = Spec((polyhedron([[1, 0], [0, 1]], [0, 0], [False, False]),))
    y = torch.tensor([[3.0, -1.0], [-1.0, -2.0]], requires_grad=True)
    loss, success = Violate.of([both, both], loss="ce")(y)
    scale = 0.3 * 2.0
    assert loss[0].item() == pytest.approx(-scale * float(torch.tensor([3 / scale, -1 / scale]).logsumexp(0)))
    assert loss[1].item() == 1.0
    assert success.tolist() == [False, True]
    (grad,) = torch.autograd.grad(loss.sum(), y)
    assert grad[0, 0] < grad[0, 1] < 0
    thousand, _ = Violate.of([both, both], loss="ce")(1000 * y)
    assert torch.allclose(thousand, 1000 * loss)


def test_strict_rows_exclude_the_boundary() -> None:
    goal = Violate.of([Spec((polyhedron([[1, 0]], [0], [strict]),)) for strict in (False, True)])
    assert goal(torch.zeros(2, 2))[1].tolist() == [True, False]


def test_no_rows_is_everything_and_no_disjunct_is_nothing() -> None:
    everything, nothing = Spec((polyhedron([], [], []),)), Spec(())
    half = Spec.halfspaces([[1.0, 0.0]], [0.0])
    for specs in ([everything, nothing, half], [nothing], [everything]):
        loss, success = Violate.of(specs)(torch.ones(len(specs), 2, requires_grad=True))
        assert success.tolist() == [spec is everything for spec in specs]
        assert loss.tolist() == [{id(everything): torch.inf, id(nothing): -torch.inf}.get(id(s), -1.0) for s in specs]


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    small = st.integers(-2, 2)
    disjuncts = []
    for _ in range(draw(st.integers(0, 3))):
        rows = draw(st.integers(0, 3))
        A = [[draw(small), draw(small)] for _ in range(rows)]
        disjuncts.append(polyhedron(A, [draw(small) for _ in range(rows)], [draw(st.booleans()) for _ in range(rows)]))
    return Spec(tuple(disjuncts))


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(specs(), min_size=1, max_size=4), st.lists(st.integers(-3, 3), min_size=8, max_size=8))
@pytest.mark.parametrize("name", ["margin", "ce"])
def test_success_is_the_violation_of_each_specification(name: LossName, batch: list[Spec], values: list[int]) -> None:
    y = torch.tensor(values, dtype=torch.float32).view(4, 2)[: len(batch)].requires_grad_()
    loss, success = Violate.of(batch, loss=name)(y)
    assert success.tolist() == [bool(spec.violated(y[i : i + 1])) for i, spec in enumerate(batch)]
    (grad,) = torch.autograd.grad(loss.sum(), y)
    assert grad.isfinite().all()
    loss, y = loss.detach(), y.detach()
    for i, spec in enumerate(batch):
        gap = float(spec.margin(spec.rows(y[i : i + 1]))) if spec.disjuncts else torch.inf
        assert (float(loss[i]) < 0) == (gap > 0)  # negative exactly outside of the closure
        if all(len(d.b) == 1 for d in spec.disjuncts):
            assert float(loss[i]) == pytest.approx(-gap)


def test_take_selects_samples() -> None:
    batch = [Spec.robust(label, 5) for label in (3, 0, 4, 0)]
    y = torch.randn(4, 5)
    goal, index = Violate.of(batch), torch.tensor([2, 0])
    for part, whole in zip(goal.take(index)(y[index]), goal(y), strict=True):
        assert torch.equal(part, whole[index])


def test_difference_of_logits_ratio_by_hand() -> None:
    y = torch.tensor([[4.0, 3.0, 1.0, 0.0], [4.0, 3.0, 1.0, 0.0]])
    assert torch.allclose(dlr(y, torch.tensor([0, 1])), torch.tensor([-1 / 3, 1 / 3]))
    assert torch.allclose(dlr(10 * y - 5, torch.tensor([0, 1])), torch.tensor([-1 / 3, 1 / 3]))
    towards = targeted_dlr(y, torch.tensor([0, 0]), torch.tensor([1, 3]))
    assert torch.allclose(towards, torch.tensor([-1 / 3.5, -4 / 3.5]))


def test_with_few_classes_the_ratio_falls_back_to_the_difference() -> None:
    y = torch.tensor([[3.0, 1.0, 2.0]])
    label, target = torch.tensor([0]), torch.tensor([1])
    assert dlr(y[:, :2], label).tolist() == [-2.0]
    assert targeted_dlr(y, label, target).tolist() == [-2.0]


@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
def test_aiming_changes_the_loss_and_not_the_success(loss: LossName) -> None:
    y = torch.tensor([[4.0, 3.0, 1.0, 0.0], [1.0, 3.0, 5.0, 0.0]])
    goal = Misclassify.of(torch.tensor([0, 0]), loss)
    assert goal.rivals(y) == 3
    second = goal.aim(y, 1)
    assert second.signed
    assert second.targets is not None
    assert second.targets.tolist() == [2, 1]
    assert second(y)[1].tolist() == goal(y)[1].tolist() == [False, True]
    assert bool((second(y)[0] < goal.aim(y, 0)(y)[0]).all())
    assert second.with_loss("margin").targets is None


def test_aiming_at_one_disjunct_of_a_specification() -> None:
    near, far = polyhedron([[1, 0]], [0], [False]), polyhedron([[0, 1]], [-5], [False])
    goal = Violate.of([Spec((near, far)), Spec((far,))])
    y = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    assert goal.rivals(y) == 2
    assert goal.aim(y, 0)(y)[0].tolist() == [-1.0, -6.0]
    assert goal.aim(y, 1)(y)[0].tolist() == [-6.0, -6.0]  # the second has one disjunct only
    hit = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert goal.aim(y, 1)(hit)[1].tolist() == [True, False]
    assert goal.aim(y, 1).with_loss("ce")(y)[0].tolist() == [-1.0, -6.0]
