"""Lipschitz-margin training: its constants are the layers' own, and what it gains."""

from __future__ import annotations

from math import inf

import pytest
import torch
from torch import Tensor, nn

from assay.models import architectures, data, training
from assay.models.data import Dataset, spheres
from assay.models.training import Step
from assay.models.training.lipschitz import LipschitzMargin, raises, spectral_norm
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import to_network
from assay.verify.core.ops import Conv2d, Linear, evaluate
from assay.verify.core.problem import Problem
from assay.verify.core.result import Verdict
from assay.verify.frontends.live import read_live
from assay.verify.registry import get_verifier
from tests import nets


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data.load("digits", "train").take(640)


def fresh(text: str = "mlp(hidden=24)") -> nn.Module:
    with training.isolated(0):
        return architectures.parse(text).build((1, 8, 8), 10)


def at(progress: float) -> Step:
    return Step(progress, torch.Generator().manual_seed(0), (0.0, 1.0))


def norm(op: Linear | Conv2d, shape: tuple[int, ...]) -> float:
    basis = torch.eye(torch.Size(shape).numel()).view(-1, *shape)
    return torch.linalg.matrix_norm((evaluate(op, basis) - evaluate(op, 0 * basis)).flatten(1).double(), 2).item()


@pytest.mark.parametrize(("kind", "shape", "options"), [(Linear, (5,), ()), (Conv2d, (2, 7, 7), ((2, 2), (1, 1)))])
def test_the_estimate_comes_close_from_below_and_goes_on(
    kind: type[Linear | Conv2d], shape: tuple[int, ...], options: tuple[object, ...]
) -> None:
    rng = nets.generator(0)
    weight = torch.randn((7, 5) if kind is Linear else (4, 2, 3, 3), generator=rng)
    op = kind(weight, torch.randn(len(weight), generator=rng), *options)
    true = norm(op, shape)
    for _ in range(60):
        estimate = spectral_norm(op, shape, 2).item()
        assert estimate <= true * (1 + 1e-5)
    assert estimate == pytest.approx(true, rel=1e-3)


def test_the_raises_are_the_pairwise_constants(digits: Dataset) -> None:
    model = fresh()
    for _ in range(40):
        network, _ = read_live(model, digits.x[:4])
        raised = raises(network, digits.y[:4], 5)
    problems = Problem.robustness_many(model.eval(), digits.x[:4], digits.y[:4], 0.1, 2)
    constants = [get_verifier("lipschitz(norm=2)").verify(p, Budget()) for p in problems]
    body = to_network(model, (1, 8, 8))
    first, last = (n.op for n in body.nodes if isinstance(n.op, Linear))
    top = torch.linalg.matrix_norm(first.weight, 2)
    for i, label in enumerate(digits.y[:4].tolist()):
        expected = top * (last.weight[label] - last.weight).norm(dim=1)
        torch.testing.assert_close(raised[i].double(), expected, rtol=1e-3, atol=1e-6)
    assert all(isinstance(r.stats["constant"], float) for r in constants)


def test_gradients_reach_every_weight(digits: Dataset) -> None:
    model = fresh("cnn(channels=4,hidden=8)")
    LipschitzMargin(radius=1.0).loss(model, digits.x[:16], digits.y[:16], at(0.9)).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_before_the_ramp_the_loss_is_cross_entropy(digits: Dataset) -> None:
    model = fresh()
    loss = LipschitzMargin(begin=0.1).loss(model, digits.x, digits.y, at(0.05))
    plain = torch.nn.functional.cross_entropy(model(digits.x), digits.y)
    torch.testing.assert_close(loss, plain)


def certified(model: nn.Module, dataset: Dataset, eps: float) -> float:
    problems = Problem.robustness_many(model.eval(), dataset.x, dataset.y, eps, 2)
    verifier = get_verifier("lipschitz")
    return sum(verifier.verify(p, Budget()).verdict is Verdict.VERIFIED for p in problems) / len(problems)


@pytest.mark.slow  # two networks are trained
def test_it_certifies_far_more_than_standard_training(digits: Dataset) -> None:
    shares = []
    for text in ("standard", "lipschitz-margin(radius=0.5)"):
        model = fresh()
        list(training.Training(training.recipe(text), epochs=12, batch=32, lr=1e-2).run(model, digits))
        shares.append(certified(model, data.load("digits").take(60), 0.4))
    assert shares[1] > shares[0] + 0.3


@pytest.mark.slow
def test_layers_are_kept_within_a_norm(digits: Dataset) -> None:
    model = fresh()
    recipe = training.recipe("lipschitz-margin(radius=0.1,cap=1.0,steps=5)")
    list(training.Training(recipe, epochs=4, batch=32, lr=1e-2).run(model, digits))
    for part in model.modules():
        if isinstance(part, nn.Linear):
            assert torch.linalg.matrix_norm(part.weight, 2).item() < 1.3  # one step of Adam after the last scaling


def test_bad_options_are_refused() -> None:
    for text in ("lipschitz-margin(radius=-1)", "lipschitz-margin(cap=-1)", "lipschitz-margin(steps=0)"):
        with pytest.raises(InputError, match="lipschitz-margin"):
            training.recipe(text)


# Spheres.


def test_spheres_lie_where_they_should() -> None:
    for dataset in (data.load("spheres", "train"), data.load("spheres"), spheres.sample(10, 500)):
        size: Tensor = dataset.x.double().norm(dim=1)
        radius = torch.where(dataset.y == 0, spheres.INNER, spheres.OUTER).double()
        torch.testing.assert_close(size, radius, rtol=1e-6, atol=0)
        torch.testing.assert_close(spheres.distance(dataset.x), torch.full_like(size, 0.3), rtol=0, atol=1e-5)
        there = spheres.opposite(dataset.x)
        torch.testing.assert_close((there - dataset.x.double()).norm(dim=1), spheres.distance(dataset.x))
    assert not torch.equal(data.load("spheres", "train").x[:500], data.load("spheres").x)


@pytest.mark.parametrize("dimensions", [2, 8])
def test_distances_in_linf_are_those_of_the_nearest_points(dimensions: int) -> None:
    """The nearest point lies on the other sphere; no corner of a smaller box reaches it."""
    test = spheres.sample(40, dimensions)
    x, far = test.x.double(), spheres.distance(test.x, inf)
    there = spheres.opposite(test.x, inf)
    goal = torch.where(test.y == 0, spheres.OUTER, spheres.INNER).double()
    torch.testing.assert_close(there.norm(dim=1), goal)
    assert bool((far < spheres.distance(test.x)).all())
    for share, reached in ((0.999, False), (1.001, True)):
        step = (share * far)[:, None]
        longest, least = (x.abs() + step).norm(dim=1), (x.abs() - step).clamp(min=0).norm(dim=1)
        assert bool((torch.where(test.y == 0, longest >= goal, least <= goal) == reached).all())
    with pytest.raises(InputError, match="l2 and linf"):
        spheres.distance(test.x, 1)
