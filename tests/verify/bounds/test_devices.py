"""Bounds on each device: true, the CPU's, and without letting the host wait."""

from __future__ import annotations

from math import inf

import pytest
import torch

from assay.verify.bounds import rounding
from assay.verify.bounds.optimised.raised import in_float32
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network
from assay.verify.core.ops import Linear, Relu
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Verdict
from assay.verify.core.verifier import Bounds
from assay.verify.registry import get_verifier
from tests.breadth import few
from tests.devices import WHERE, Waits, placed
from tests.verify.bounds.optimised.test_raised import ALL, ball_about, bent, objective, outputs, points

METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown(steps=4)")
SINGLE = ("ibp(dtype=float32)", "crown-ibp(dtype=float32)", "crown(dtype=float32)")

KINDS = ("mlp", "resnet", "sigmoid", "steep", "pooled", "ends in tanh", "gelu", "attention", "layer norm", "steps")

everywhere = pytest.mark.parametrize("where", WHERE)


def subnormal_check(*arguments: object) -> rounding.Precision:
    """What the precision is where nothing can be asked of a device."""
    return rounding.DOUBLE if arguments[0] == torch.float64 else rounding.SINGLE


@pytest.fixture(autouse=True)
def _no_numbers_elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "elsewhere" in request.node.name:
        monkeypatch.setattr(rounding, "precision", subnormal_check)


@everywhere
@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize("method", METHODS + SINGLE)
@pytest.mark.parametrize("name", few(KINDS, ["resnet", "pooled", "attention", "layer norm"]))
def test_bounds_are_true_and_those_of_the_cpu(
    name: str, method: str, p: float, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, verifier = ALL[name], get_verifier(method)
    ball, A = ball_about(network, p), objective(network, 3)
    region = ball.box() if p == inf else ball
    on_cpu = verifier.bound(network, region, A)
    with placed(where, monkeypatch, strict=p == inf) as device:
        bounds = verifier.bound(network, region, A, Budget(device=device))
    assert bounds.lower.device.type == "cpu"
    x = points(ball, 3)
    assert bool((bounds.lower <= outputs(network.to(torch.float64), x, A) + 1e-9).all())
    assert bool((-bounds.upper <= outputs(network.to(torch.float64), x, -A) + 1e-9).all())
    close = 1e-3 if method in SINGLE else 1e-6
    torch.testing.assert_close(bounds.lower, on_cpu.lower, rtol=close, atol=close)
    torch.testing.assert_close(bounds.upper, on_cpu.upper, rtol=close, atol=close)


@pytest.mark.parametrize(("method", "each", "more"), [("ibp", 0, 12), ("crown-ibp", 0, 12), ("crown", 1, 12)])
def test_the_host_waits_once_a_layer_at_most(
    method: str, each: int, more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``more``: what the region and the result take, however deep the network is."""

    def deep(layers: int) -> Network:
        return bent(*[Relu()] * layers)

    counts = []
    for layers in (3, 9):
        network = deep(layers)
        ball, A, verifier = ball_about(network, inf), torch.eye(3, dtype=torch.float64), get_verifier(method)
        box = ball.box()
        verifier.bound(network, box, A)  # what is worked out once
        with placed("elsewhere", monkeypatch), Waits() as waits:
            verifier.bound(network, box, A, Budget())
        counts.append(waits.count)
    assert counts[1] - counts[0] <= each * 6
    assert counts[0] <= more + 3 * each


@everywhere
@pytest.mark.parametrize("method", [*METHODS, "alpha-crown(output=1)"])
def test_verdicts_are_drawn_there(method: str, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = ALL["mlp"]
    x = torch.rand(4, generator=torch.Generator().manual_seed(0))
    label = int(network(x[None]).argmax())
    near, far = (Problem.robustness(network, x, label, eps, inf, None) for eps in (1e-4, 50.0))
    with placed(where, monkeypatch, strict=False) as device:
        results = [get_verifier(method).verify(problem, Budget(device=device)) for problem in (near, far)]
    assert [r.verdict for r in results] == [Verdict.VERIFIED, Verdict.UNKNOWN]


@everywhere
def test_a_box_far_from_everything_has_no_bounds(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = ALL["mlp"]
    box = Box(torch.full((1, 4), -1e290, dtype=torch.float64), torch.full((1, 4), 1e290, dtype=torch.float64))
    rows = torch.eye(3, dtype=torch.float64)
    with placed(where, monkeypatch) as device:
        for method in METHODS:
            bounds = get_verifier(method).bound(network, box, rows, Budget(device=device))
            assert not bool((bounds.lower > -inf).any())


@pytest.mark.parametrize("name", ["NVIDIA_TF32_OVERRIDE", "CUBLAS_EMULATE_DOUBLE_PRECISION"])
def test_shortened_products_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    dtype = torch.float32 if name.startswith("NVIDIA") else torch.float64
    with pytest.raises(InputError, match=name):
        rounding._check_products_on_cuda() if dtype == torch.float32 else rounding._check_emulation("cuda")


def test_lines_are_drafted_where_the_network_is() -> None:
    network = bent(Relu(), Relu()).to(torch.float64, "meta")
    known = [torch.zeros(2, *node.shape, dtype=torch.float64, device="meta") for node in network.nodes]
    draft = in_float32(Relaxed.over(network, [Bounds(t, t) for t in known]))
    weights = [node.op.weight for node in draft.network.nodes if isinstance(node.op, Linear)]
    assert {(w.dtype, w.device.type) for w in weights} == {(torch.float32, "meta")}
