"""Tests of the verifier: radii below every true distance, honest numbers, refusals."""

from __future__ import annotations

from math import inf, isfinite

import pytest
import torch

from assay.attacks import get_attack
from assay.verify.backends.lipschitz.method import Lipschitz
from assay.verify.backends.lipschitz.reach import Reach, conversion
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import Linear, Relu
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.result import Reason, Verdict
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.registry import get_verifier
from tests import exact, nets
from tests.breadth import few, seeds

D = torch.float64
EXAMPLE = chain(
    (2,),
    [
        Linear(torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 1.0]], dtype=D), torch.zeros(3, dtype=D)),
        Relu(),
        Linear(torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]], dtype=D), torch.zeros(2, dtype=D)),
    ],
)
METHODS = ["lipschitz", "lipschitz(scope=local)", "lipschitz(scope=local,steps=4)"]


def verify(text: str, problem: Problem) -> tuple[Verdict, float]:
    result = get_verifier(text).verify(problem, Budget())
    return result.verdict, result.stats["radius"]


@pytest.mark.parametrize(("p", "radius"), [(2, 0.376962), (inf, 0.2), (1, 1 / 3)])
def test_the_worked_example(p: float, radius: float) -> None:
    x = torch.ones(2)
    for eps, verdict in ((radius - 1e-4, Verdict.VERIFIED), (radius + 1e-4, Verdict.UNKNOWN)):
        problem = Problem.robustness(EXAMPLE, x, 0, eps, p, None)
        result = verify(f"lipschitz(norm={p})", problem)
        assert result == (verdict, pytest.approx(radius, abs=1e-5))
        assert verify("lipschitz(scope=local)", problem)[0] is Verdict.VERIFIED


def test_both_numbers_are_shown_and_the_sound_one_decides() -> None:
    result = Lipschitz().verify(Problem.robustness(EXAMPLE, torch.ones(2), 0, 0.1, 2, None), Budget())
    estimate, constant = result.stats["estimate"], result.stats["constant"]
    assert estimate == pytest.approx(7.836861, abs=1e-5)
    assert estimate <= constant <= estimate * (1 + 1e-5)
    assert result.margin is not None
    assert result.margin <= 4 - 0.1 * 10.611161


def test_an_estimate_that_is_too_low_certifies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Power iteration that sees half of every norm: the bound stays above the truth."""
    from assay.verify.backends.lipschitz import norms, spectral

    monkeypatch.setattr(norms, "power_iteration", lambda *args: 0.5 * spectral.power_iteration(*args))
    network = to_network(nets.random_cnn(7), (1, 6, 6))
    result = Lipschitz().verify(Problem.robustness(network, torch.rand(1, 6, 6), 0, 0.1, 2), Budget())
    fresh = Lipschitz().verify(
        Problem.robustness(to_network(nets.random_cnn(7), (1, 6, 6)), torch.rand(1, 6, 6), 0, 0.1, 2), Budget()
    )
    monkeypatch.undo()
    true = Lipschitz().verify(
        Problem.robustness(to_network(nets.random_cnn(7), (1, 6, 6)), torch.rand(1, 6, 6), 0, 0.1, 2), Budget()
    )
    assert result.stats["estimate"] < 0.3 * true.stats["estimate"]
    assert result.stats["constant"] >= true.stats["estimate"]
    assert fresh.stats["constant"] >= true.stats["estimate"]


def distance(network: Network, x: torch.Tensor, label: int) -> float:
    """The largest linf radius at which the margin is still positive, from above, by bisection on the exact margin."""
    low, high = 0.0, 1.0
    for _ in range(8):
        middle = (low + high) / 2
        true = exact.true_margin(Problem.robustness(network, x, label, middle, inf, None))
        low, high = (middle, high) if true > 0 else (low, middle)
    return high


@pytest.mark.parametrize("seed", few(range(5), quick=range(2)))
def test_radii_are_below_the_exact_distance(seed: int) -> None:
    network = to_network(nets.random_mlp(seed, (2, 4, 3, 2)), (2,))
    x = torch.rand(2, generator=nets.generator(seed))
    label = int(network(x[None].double()).argmax())
    true = distance(network, x, label)
    problem = Problem.robustness(network, x, label, 0.5 * true, inf, None)
    radii = [verify(text, problem)[1] for text in METHODS]
    assert 0 < radii[0] <= radii[1] <= radii[2] <= true
    assert verify("lipschitz(norm=2)", problem)[1] <= true


@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize("method", METHODS)
@seeds(1, of=3)
def test_no_attack_breaks_a_certified_ball(p: float, method: str, seeds: range) -> None:
    for seed, module in enumerate([nets.random_mlp(0, (4, 20, 20, 3)), nets.random_cnn(1), nets.random_resnet(2)]):
        shape = ((4,), (1, 6, 6), (1, 4, 4))[seed]
        network = to_network(module, shape)
        xs = torch.rand(3, *shape, generator=nets.generator(seed))[list(seeds)]
        labels = network(xs.double()).argmax(1)
        for x, label in zip(xs, labels.tolist(), strict=True):
            _, radius = verify(method, Problem.robustness(network, x, label, 0.1, p))
            problem = Problem.robustness(network, x, label, radius * 0.999999, p)
            assert verify("lipschitz(scope=local)" if "local" in method else method, problem)[0] is Verdict.VERIFIED
            assert not bool(get_attack("pgd(steps=20)").search([problem]).success)


def test_a_box_and_a_conjunction() -> None:
    """Unsafe only where both rows hold: one of the two is safe by itself."""
    rows = Polyhedron(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([100.0, -0.5]), torch.zeros(2).bool())
    box = Box(torch.tensor([0.9, 0.9]), torch.tensor([1.1, 1.1]))
    assert verify("lipschitz(scope=local)", Problem(EXAMPLE, box, Spec((rows,))))[0] is Verdict.VERIFIED
    none = Polyhedron(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([100.0, 100.0]), torch.zeros(2).bool())
    result = verify("lipschitz(scope=local)", Problem(EXAMPLE, box, Spec((none,))))
    assert result == (Verdict.UNKNOWN, 0.0)


@pytest.mark.parametrize("clipped", [False, True])
def test_the_radius_speaks_of_the_whole_ball(clipped: bool) -> None:
    """10 - x - 100 y about (0, 0): 10 / 101 is the distance in linf, though the region is a box far wider than high,
    or a ball that the domain cuts off."""
    network = chain((2,), [Linear(torch.tensor([[-1.0, -100.0]], dtype=D), torch.full((1,), 10.0, dtype=D))])
    spec = Spec.halfspaces([[1.0]], [0.0])
    half = torch.tensor([1.0, 0.001])
    region = LpBall(torch.zeros(2), 0.9, inf, (-half, half)) if clipped else Box(-half, half)
    for text in METHODS:
        verdict, radius = verify(text, Problem(network, region, spec))
        assert radius == pytest.approx(10 / 101, rel=0.3)
        assert radius <= 10 / 101
        assert verdict is Verdict.VERIFIED or "local" not in text


@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize("q", [1, 2, inf])
def test_a_region_is_measured_in_every_norm(p: float, q: float) -> None:
    ball = LpBall(torch.zeros(6, dtype=D), 0.5, p, None)
    corners = {1: torch.eye(6)[0], 2: torch.ones(6) / 6**0.5, inf: torch.ones(6)}
    worst = max((0.5 * v / v.norm(p=p)).norm(p=q).item() for v in corners.values())
    assert worst * (1 - 1e-6) <= Reach.of(ball).within(q) <= worst * (1 + 1e-6)
    assert conversion(6, p, q) * 0.5 == pytest.approx(worst)


def test_constants_in_another_norm_than_the_regions() -> None:
    x = torch.ones(2)
    for p in (1, 2, inf):
        own = verify("lipschitz", Problem.robustness(EXAMPLE, x, 0, 0.01, p, None))[1]
        for q in (1, 2, inf):
            verdict, radius = verify(f"lipschitz(norm={q})", Problem.robustness(EXAMPLE, x, 0, 0.01, p, None))
            assert verdict is Verdict.VERIFIED
            assert 0 < radius <= own or q not in (p, 2)
            assert radius > 0


def test_a_misclassified_sample_has_no_radius() -> None:
    for text in METHODS:
        assert verify(text, Problem.robustness(EXAMPLE, torch.ones(2), 1, 0.01, 2, None)) == (Verdict.UNKNOWN, 0.0)


def test_weights_that_overflow_decide_nothing() -> None:
    big = Linear(torch.full((1, 1), 1e308, dtype=D), torch.ones(1, dtype=D))
    network = chain((1,), [big, Relu(), big])
    for text in METHODS:
        result = get_verifier(text).verify(
            Problem(network, LpBall(torch.ones(1), 0.5, 2, None), Spec.halfspaces([[1.0]], [0.0])), Budget()
        )
        assert result.verdict is Verdict.UNKNOWN
        assert result.reason is Reason.NUMERICAL


def test_options_are_checked() -> None:
    for bad in ("lipschitz(norm=3)", "lipschitz(scope=far)", "lipschitz(steps=-1)", "lipschitz(scop=local)"):
        with pytest.raises(InputError, match="lipschitz"):
            get_verifier(bad)
    assert isfinite(get_verifier("lipschitz(norm=inf)").norm) is False  # type: ignore[attr-defined]
