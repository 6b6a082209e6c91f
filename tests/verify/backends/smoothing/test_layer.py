"""Tests of noise behind the first layers: sensitivities, and radii of networks whose border is known."""

from __future__ import annotations

from itertools import product
from math import inf

import pytest
import torch
from torch import Tensor, nn

from assay.benchmarks.harness.compare import compare
from assay.models.data import Dataset
from assay.verify.backends.smoothing.certificates import sensitivity
from assay.verify.backends.smoothing.layer import At, LayerSmoothing, Parted
from assay.verify.backends.smoothing.layer_attack import LayerSmoothingAttack
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import to_network
from assay.verify.core.problem import Problem
from assay.verify.core.result import Guarantee, Reason, Verdict
from tests import nets


def two_layers(seed: int = 0) -> nn.Sequential:
    return nets.random_mlp(seed, (5, 12, 3)).eval()


class Cut(nn.Module):
    """Class 0 up to a distance of 0.3 along a direction, behind a rotation that is stretched by 2: the vote's border
    under noise behind it is where the network's is, at 0.6 there."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.last = nn.Linear(8, 2, bias=False)
        with torch.no_grad():
            rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0))).Q
            self.first.weight.copy_(2 * rotation)
            self.first.bias.zero_()
            side = torch.zeros(2, 8)
            side[1, 0], side[1, 4] = 1.0, -1.0  # the first value, as relu(v) - relu(-v)
            self.last.weight.copy_(side)
            self.last.bias = nn.Parameter(torch.tensor([0.6, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x)
        return self.last(torch.relu(torch.cat([z, -z], 1)))


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_the_beginning_and_the_rest_are_the_network(noise: At) -> None:
    image = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4), nn.ReLU(), nn.Linear(4, 2)
    ).eval()
    for model, shape in ((two_layers(), (5,)), (image, (2, 5, 5))):
        network = to_network(model, shape)
        parted = Parted.of(network)
        assert parted is not None
        x = torch.rand(7, *shape, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(parted.after(parted.before(x)), model(x), atol=1e-6)
        W = parted.matrix()
        step = torch.randn(7, *shape, generator=torch.Generator().manual_seed(2))
        moved = parted.before(x + step) - parted.before(x)
        assert torch.allclose(moved.flatten(1).double(), step.flatten(1).double() @ W.T, atol=1e-5)
        for norm in (1.0, 2.0, inf):
            most = sensitivity(W, norm, {"gaussian": 2, "laplace": 1}[noise])
            lengths = torch.linalg.vector_norm(moved.flatten(1), {"gaussian": 2, "laplace": 1}[noise], dim=1)
            assert bool((lengths <= most * torch.linalg.vector_norm(step.flatten(1), norm, dim=1) * 1.00001).all())


def test_radii_are_just_below_the_distance_of_a_known_border() -> None:
    problem = Problem.robustness(Cut().eval(), torch.zeros(4), 0, 0.25, 2, (-1, 1))
    result = LayerSmoothing(sigma=0.5, n=20_000).verify(problem, Budget(seed=1))
    assert (result.verdict, result.guarantee) == (Verdict.VERIFIED, Guarantee.STATISTICAL)
    assert 0.27 < result.stats["radius"] < 0.3
    assert result.stats["sensitivity"] == pytest.approx(2.0, rel=1e-6)
    assert result.subject == "smoothed(layer gaussian, 0.5)"
    weaker = LayerSmoothing(sigma=0.5, n=20_000, certificate="pixeldp").verify(problem, Budget(seed=1))
    assert 0 < weaker.stats["radius"] < result.stats["radius"]
    beyond = Problem.robustness(Cut().eval(), torch.zeros(4), 0, 0.31, 2, (-1, 1))
    assert LayerSmoothing(sigma=0.5, n=5000).verify(beyond).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(("noise", "norm"), [("gaussian", 2), ("laplace", 1), ("laplace", inf), ("gaussian", 1)])
def test_no_certified_answer_changes_within_its_radius(noise: At, norm: float) -> None:
    """The vote itself, at members of the ball that lead away fastest and at random ones."""
    model = two_layers(3)
    x = torch.rand(5, generator=torch.Generator().manual_seed(4))
    label = int(model(x[None]).argmax())
    problem = Problem.robustness(model, x, label, 1e-3, norm, (-9, 9))
    method = LayerSmoothing(noise, 0.2, n=2000)
    radius = method.verify(problem).stats["radius"]
    assert radius > 0
    parted = Parted.of(problem.network)
    assert parted is not None
    W = parted.matrix()
    steps = [torch.linalg.svd(W).Vh[0].float(), *torch.randn(1, 5, generator=torch.Generator().manual_seed(5))]
    for step, side in product(steps, (-1, 1)):
        moved = x + side * 0.999 * radius * step / torch.linalg.vector_norm(step, norm)
        assert method.classify(problem.network, moved, 0) in (label, None)


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_the_attack_breaks_the_vote_beyond_its_border_and_not_before(noise: At) -> None:
    attack = LayerSmoothingAttack(noise, 0.5, n=2000, steps=5)
    near, far = (
        attack.verify(Problem.robustness(Cut().eval(), torch.zeros(4), 0, eps, 2, (-1, 1)), Budget(seed=1))
        for eps in (0.29, 0.35)
    )
    assert (near.verdict, near.reason) == (Verdict.UNKNOWN, Reason.INCOMPLETE)
    assert (far.verdict, far.subject) == (Verdict.FALSIFIED, LayerSmoothing(noise, 0.5).subject)
    assert far.counterexample is not None
    assert 0.3 < far.counterexample.norm() <= 0.35
    assert LayerSmoothing(noise, 0.5).classify(to_network(Cut().eval(), (4,)), far.counterexample, 7) == 1


def test_a_radius_that_is_too_large_is_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = Dataset("points", "test", torch.full((1, 4), 0.5), torch.tensor([0]), 2)
    model = Cut().eval()
    with torch.no_grad():  # the border is 0.3 from the point
        model.first.bias.copy_(-model.first.weight @ samples.x[0])
    both = [LayerSmoothing(sigma=0.5, n=500), LayerSmoothingAttack(sigma=0.5, n=500, steps=3)]
    assert not compare(model, samples, [0.2, 0.35], both, [], norm=2).alarms
    monkeypatch.setattr(LayerSmoothing, "_sensitivity", lambda *asked: 0.5)
    (alarm,) = compare(model, samples, [0.2, 0.35], both, [], norm=2).alarms
    assert "layer-smoothing" in alarm.explanation


def test_what_it_cannot_treat() -> None:
    x = torch.rand(5)
    curved = nn.Sequential(nn.ReLU(), nn.Linear(5, 3)).eval()
    assert "does not begin" in str(LayerSmoothing().supports(Problem.robustness(curved, x, 0, 0.1, 2)))
    linear = Problem.robustness(nn.Linear(5, 3).eval(), x, 0, 0.1, 2)
    assert LayerSmoothing().verify(linear).reason is Reason.UNSUPPORTED
    pixels = Problem.robustness(two_layers(), x, 0, 1, 0)
    assert LayerSmoothing().verify(pixels).reason is Reason.UNSUPPORTED
    assert "does not begin" in str(LayerSmoothingAttack().supports(Problem.robustness(curved, x, 0, 0.1, 2)))
    for wrong in ({"noise": "uniform"}, {"sigma": 0.0}, {"steps": 0}, {"copies": 0}):
        with pytest.raises(InputError):
            LayerSmoothingAttack(**wrong)  # type: ignore[arg-type]
    for wrong in ({"noise": "uniform"}, {"certificate": "dsrs"}, {"sigma": 0.0}):
        with pytest.raises(InputError):
            LayerSmoothing(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        LayerSmoothing().classify(to_network(curved, (5,)), x, 0)
