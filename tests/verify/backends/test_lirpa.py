"""Tests of verify.backends.lirpa: auto_LiRPA's bounds beside ours, and what happens when it fails or is missing."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from math import inf

import pytest
import torch
from torch import Tensor, nn

from assay.verify.backends.lirpa import method
from assay.verify.backends.lirpa.method import LiRPA
from assay.verify.backends.lirpa.module import Layers, convex, unsupported
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import Conv2d, LeakyRelu, Linear, Op, Relu
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.core.result import Reason, Verdict
from assay.verify.core.spec import Spec
from assay.verify.registry import get_bounder, get_verifier
from tests import nets
from tests.breadth import few, seeds
from tests.contract.graphs import eye, members, random_box, random_graph

METHODS = ("IBP", "CROWN-IBP", "CROWN", "alpha-CROWN")
MAKE = [
    (lambda seed: nets.random_mlp(seed, (6, 10, 10, 4)), (6,)),
    (nets.random_cnn, (1, 6, 6)),
    (nets.random_resnet, (1, 4, 4)),
]


def small_network(seed: int) -> tuple[Network, LpBall]:
    """An MLP, a convolutional or a residual network in turn, and a ball of one of three radii."""
    make, shape = MAKE[seed % 3]
    centre = torch.rand(shape, generator=nets.generator(seed))
    return to_network(make(seed), shape), LpBall(centre, (0.01, 0.03, 0.1)[seed // 3 % 3], inf, (0.0, 1.0))


@pytest.mark.parametrize(("ours", "theirs"), [("ibp", "lirpa(method=IBP)"), ("crown", "lirpa")])
@seeds(4, of=22)
def test_ours_and_theirs_on_random_networks(ours: str, theirs: str, seeds: range) -> None:
    """Neither contradicts the other: each contains the sampled range; their mean widths differ by 2% at most."""
    widths = []
    for seed in seeds:
        network, ball = small_network(seed)
        values = network(ball.sample(100, nets.generator(seed)).double())
        pair = [get_bounder(name).bound(network, ball, eye(network), Budget()) for name in (ours, theirs)]
        for bounds in pair:
            assert bool((bounds.lower <= values + 1e-9).all()), f"seed {seed}"
            assert bool((values <= bounds.upper + 1e-9).all()), f"seed {seed}"
        widths.append([float((b.upper - b.lower).mean()) for b in pair])
    mine, peer = torch.tensor(widths).mean(0).tolist()
    assert peer == pytest.approx(mine, rel=0.02)


@pytest.mark.parametrize("name", METHODS)
@seeds(4, of=8)
def test_sampled_points_lie_inside_the_bounds_on_every_wiring(name: str, seeds: range) -> None:
    for seed in seeds:
        network = random_graph(seed, image=seed % 2 == 0)
        lower, upper = random_box(network, seed)
        bounds = LiRPA(method=name, iterations=3).bound(network, Box(lower, upper), eye(network), Budget())  # type: ignore[arg-type]
        values = network(members(lower, upper, 64)).flatten(1)
        slack = 1e-9 * (1 + values.abs().amax())
        assert bool((bounds.lower - slack <= values).all()), f"seed {seed}"
        assert bool((values <= bounds.upper + slack).all()), f"seed {seed}"


def contained(name: str, network: Network, region: Region, points: Tensor, tag: str) -> int:
    """1 if the bounds hold at the points, 0 if auto_LiRPA fails on the network; anything else fails the test."""
    try:
        bounds = LiRPA(method=name, iterations=3).bound(network, region, eye(network), Budget())  # type: ignore[arg-type]
    except UnsupportedError:  # the installed release itself fails: there is no verdict
        return 0
    values = network(points.double()).flatten(1)
    slack = 1e-9 * (1 + values.abs().amax())
    assert bool((bounds.lower - slack <= values).all()), tag
    assert bool((values <= bounds.upper + slack).all()), tag
    return 1


@pytest.mark.parametrize("name", METHODS)
@seeds(3, of=18)
def test_every_operation_with_a_layer_is_bounded_soundly_over_boxes_and_balls(name: str, seeds: range) -> None:
    done = 0
    for seed in seeds:
        network = random_graph(seed, image=seed % 2 == 0, more=True)
        lower, upper = random_box(network, seed)
        done += contained(name, network, Box(lower, upper), members(lower, upper, 64), f"seed {seed}")
        for p in (1, 2) if seed % 4 == 0 else ():
            ball = LpBall((lower + upper) / 2, 0.3, p, None)
            done += contained(name, network, ball, ball.sample(64, nets.generator(seed)), f"seed {seed}, l{p}")
    assert done > len(seeds)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("slope", few([1.0 + 2.0**-52, 1.1, 2.0, 2.0**20, 1e9], quick=[1.1, 2.0**20]))
def test_a_leaky_relu_that_is_steeper_on_the_left_is_concave(name: str, slope: float) -> None:
    """y = leaky(x) is slope * low at the lower end: its bound there is attained but for rounding, and never passed."""
    one = Linear(torch.eye(1), torch.zeros(1))
    network = chain((1,), [one, LeakyRelu(slope), one])
    for low, high in ((-1.0, 3.0), (-3.0, 1.0), (-1.0, -0.5), (0.5, 1.0), (-1e-3, 100.0)):
        box = Box(torch.tensor([low]), torch.tensor([high]))
        bounds = LiRPA(method=name, iterations=3).bound(network, box, eye(network), Budget())  # type: ignore[arg-type]
        least, most = (float(Fraction(v) * (Fraction(slope) if v < 0 else 1)) for v in box_ends(box))
        assert bounds.lower.item() <= least
        assert bounds.upper.item() >= most
        assert bounds.lower.item() == pytest.approx(least, rel=1e-6, abs=1e-6 * slope * max(-low, high))
        unsafe = Problem(network, box, Spec.halfspaces([[1.0]], [least + 1e-3 * slope]))
        assert LiRPA(method=name, iterations=3).verify(unsafe, Budget()).verdict is Verdict.UNKNOWN  # type: ignore[arg-type]


def box_ends(box: Box) -> tuple[float, float]:
    return box.lower.item(), box.upper.item()


def test_turning_concave_activations_about_changes_nothing() -> None:
    for seed in range(40):
        network = random_graph(seed, image=seed % 2 == 0, more=True)
        x = torch.randn(3, *network.input_shape, dtype=torch.float64, generator=nets.generator(seed))
        torch.testing.assert_close(convex(network)(x), network(x), rtol=1e-12, atol=1e-12)
        assert not any(isinstance(n.op, LeakyRelu) and n.op.slope > 1 for n in convex(network).nodes)


@pytest.mark.slow
def test_the_methods_are_ordered_from_loose_to_tight() -> None:
    for seed in range(6):
        network, ball = small_network(seed)
        lower = [LiRPA(method=m, iterations=5).bound(network, ball, eye(network), Budget()).lower for m in METHODS]  # type: ignore[arg-type]
        assert all(bool(a.mean() <= b.mean() + 1e-9) for a, b in pairwise(lower))
        assert lower[0].mean() < lower[-1].mean()


@pytest.mark.slow
@pytest.mark.parametrize("name", few(["CROWN-IBP", "CROWN", "alpha-CROWN"], quick=["alpha-CROWN"]))
@pytest.mark.parametrize("p", [1, 2])
@seeds(1, of=2)
def test_balls_of_other_norms(name: str, p: float, seeds: range) -> None:
    """Sound and better than their boxes, on networks with constants and an input that is read twice too."""
    for seed in seeds:
        for make, shape in [*MAKE, (nets.random_functional, (1, 4, 4))]:
            network = to_network(make(seed), shape)
            ball = LpBall(torch.full(shape, 0.5), 0.05, p, (0.0, 1.0))
            lirpa = LiRPA(method=name, iterations=2)  # type: ignore[arg-type]
            bounds, loose = (lirpa.bound(network, r, eye(network), Budget()) for r in (ball, ball.box()))
            values = network(ball.sample(200, nets.generator(seed)).double())
            assert bool((bounds.lower <= values + 1e-9).all())
            assert bool((values <= bounds.upper + 1e-9).all())
            assert bool((bounds.lower >= loose.lower - 1e-9).all())
            assert bool((bounds.lower > loose.lower + 1e-6).any())


@pytest.mark.slow
@pytest.mark.parametrize("name", few(METHODS, quick=["CROWN"]))
def test_float_traps_are_not_verified_and_a_batch_is_answered_as_one_by_one(name: str) -> None:
    lirpa = LiRPA(method=name, iterations=3)  # type: ignore[arg-type]
    for trap in nets.NEVER_VERIFIED:
        assert lirpa.verify(nets.trap_problem(trap), Budget()).verdict is not Verdict.VERIFIED
    for make, shape in MAKE:
        network = to_network(make(0), shape)
        xs = torch.rand(5, *shape, generator=nets.generator(1))
        problems = Problem.robustness_many(network, xs, network(xs.double()).argmax(1), 0.03)
        together = lirpa.verify_many(problems, Budget())
        for problem, result in zip(problems, together, strict=True):
            alone = lirpa.verify(problem, Budget())
            assert result.margin == pytest.approx(alone.margin, rel=1e-9)
            assert (result.problem_id, result.verdict) == (alone.problem_id, alone.verdict)


def test_the_layers_compute_the_network() -> None:
    for seed in range(60):
        network = random_graph(seed, image=seed % 2 == 0)
        assert not unsupported(network)
        x = torch.randn(3, *network.input_shape, dtype=torch.float64, generator=nets.generator(seed))
        for batched in (False, True):
            torch.testing.assert_close(Layers(network, batched)(x), network(x).flatten(1), rtol=1e-12, atol=1e-12)


def test_dilation_and_groups() -> None:
    rng = nets.generator(0)
    weight = torch.randn(6, 2, 3, 2, dtype=torch.float64, generator=rng)
    conv = Conv2d(weight, torch.randn(6, dtype=torch.float64, generator=rng), (2, 1), (1, 2), (1, 2), groups=2)
    network = chain((4, 7, 6), [conv, Relu()])
    x = torch.randn(2, 4, 7, 6, dtype=torch.float64, generator=rng)
    torch.testing.assert_close(Layers(network)(x), network(x).flatten(1))


def problem() -> Problem:
    network, ball = small_network(0)
    return Problem(network, ball, Spec.robust(int(network(ball.centre[None]).argmax()), 4))


def test_it_leaves_the_process_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    question = problem()
    state, dtype, grad = torch.get_rng_state(), torch.get_default_dtype(), torch.is_grad_enabled()
    LiRPA(method="alpha-CROWN", iterations=2).verify(question, Budget())
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == (dtype, grad)
    assert capsys.readouterr() == ("", "")


def test_a_failure_within_is_unknown_and_touches_no_other_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Problem(
        chain((2,), [Linear(torch.eye(2), torch.zeros(2))]), Box(torch.zeros(2), torch.ones(2)), Spec.robust(0, 2)
    )
    lower = LiRPA._over_box

    def failing(self, peer, network, *rest, **options):  # type: ignore[no-untyped-def]
        if network.input_shape == (2,):
            raise AssertionError("shape mismatch")
        return lower(self, peer, network, *rest, **options)

    monkeypatch.setattr(LiRPA, "_over_box", failing)
    good, bad = LiRPA().verify_many([problem(), odd], Budget())
    assert good.margin is not None
    assert (bad.verdict, bad.reason) == (Verdict.UNKNOWN, Reason.SOLVER)
    assert "AssertionError: shape mismatch" in bad.stats["explanation"]
    with pytest.raises(UnsupportedError, match="shape mismatch"):
        LiRPA().bound(odd.network, odd.region, eye(odd.network), Budget())


@pytest.mark.parametrize("value", [torch.nan, inf])
def test_nan_and_infinite_bounds_are_numerical(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    def odd(self, peer, network, box, objective, *rest, **options):  # type: ignore[no-untyped-def]
        return torch.full(objective.shape[:2], value, dtype=torch.float64), torch.zeros(1)

    monkeypatch.setattr(LiRPA, "_over_box", odd)
    result = LiRPA().verify(problem(), Budget())
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.NUMERICAL)


def test_single_precision_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def single(self, peer, network, box, objective, *rest, **options):  # type: ignore[no-untyped-def]
        return torch.ones(objective.shape[:2], dtype=torch.float32), torch.zeros(1)

    monkeypatch.setattr(LiRPA, "_over_box", single)
    result = LiRPA().verify(problem(), Budget())
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.NUMERICAL)


def test_the_time_ends_within_a_call() -> None:
    network = to_network(nets.random_mlp(0, (50, 300, 300, 300, 10)), (50,))
    hard = Problem.robustness(network, torch.full((50,), 0.5), 0, 0.3)
    result = LiRPA(method="alpha-CROWN", iterations=100_000).verify(hard, Budget(seconds=0.5))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.TIMEOUT)


class Modulus(Op):
    """|x|, which has no layer."""


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method, "available", lambda: False)
    assert str(LiRPA().supports(problem())) == ("auto_LiRPA is not installed: pip install --no-deps auto_LiRPA==0.3")
    result = LiRPA().verify(problem(), Budget())
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED)


@pytest.mark.parametrize("options", ["iterations=0", "group=0", "method=FASTCROWN"])
def test_bad_options(options: str) -> None:
    with pytest.raises(InputError):
        get_verifier(f"lirpa({options})")


@pytest.mark.slow
def test_it_is_imported_on_use_and_says_nothing() -> None:
    code = "import sys, verify; verify.get_verifier('lirpa'); print('auto_LiRPA' in sys.modules); "
    code += "from assay.verify.backends.lirpa.shim import auto_lirpa; auto_lirpa(); print('auto_LiRPA' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False\nTrue\n", "")


def test_networks_without_parameters() -> None:
    network = chain((3,), [Relu()])
    box = Box(-torch.ones(3), 2 * torch.ones(3))
    for name in METHODS:
        bounds = LiRPA(method=name).bound(network, box, eye(network), Budget())  # type: ignore[arg-type]
        assert bool((bounds.lower <= 0).all() & (bounds.upper >= 2 - 1e-9).all())
    assert isinstance(Layers(network), nn.Module)
