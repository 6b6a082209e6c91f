"""A classifier that ends in a softmax: its robustness is that of its logits, and nothing else is said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.verify.check.replay import replay
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InternalError, UnsupportedError
from assay.verify.core.network import to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Verdict
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.frontends import agreement
from assay.verify.frontends.onnx import write_onnx
from assay.verify.registry import get_verifier
from tests import nets
from tests.breadth import seeds
from tests.verify.frontends.test_torch import Forward

ENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.Softmax(1),
    "module-of-logarithms": nn.LogSoftmax(-1),
    "F": lambda y: F.softmax(y, dim=1),
    "F-of-logarithms": lambda y: F.log_softmax(y, -1),
    "torch": lambda y: torch.softmax(y, 1),
    "method": lambda y: y.softmax(dim=-1),
    "method-of-logarithms": lambda y: y.log_softmax(1),
}


def ending(end: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Any, nn.Module]:
    """A classifier with the end, and without."""
    plain = nets.random_mlp(seed).to(dtype)
    if isinstance(end, nn.Module):
        return nn.Sequential(plain, end).eval(), plain
    return Forward(lambda m, x: end(m.plain(x)), plain=plain).eval(), plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("end", ENDS)
@seeds(1, of=3)
def test_robustness_is_that_of_the_logits(end: str, dtype: torch.dtype, seeds: range) -> None:
    seen = set()
    for seed in seeds:
        model, plain = ending(ENDS[end], dtype, seed)
        x = torch.rand(4, dtype=dtype, generator=nets.generator(seed))
        label = int(plain(x[None]).argmax())
        for eps in (0.01, 0.5):
            ours, theirs = (Problem.robustness(m, x, label, eps) for m in (model, plain))
            assert ours.network.oracle is model
            assert ours.id != theirs.id
            for name in ("crown", "milp"):
                result, expected = (get_verifier(name).verify(problem, Budget()) for problem in (ours, theirs))
                assert (result.verdict, result.margin) == (expected.verdict, expected.margin)
                if result.counterexample is not None:
                    assert replay(ours, result.counterexample).confirmed
                    assert int(model(result.counterexample[None]).argmax()) != label
                seen.add(result.verdict)
    assert seen >= {Verdict.VERIFIED, Verdict.FALSIFIED}


def test_ties_of_the_oracle_alone_are_no_counterexamples() -> None:
    """Logits 80 and 60 below the largest are both nothing to float32, and so is their difference."""
    layer = nn.Linear(1, 3)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([200.0, 20.0, 10.0]))
    model = nn.Sequential(layer, nn.Softmax(1)).eval()
    assert model(torch.zeros(1, 1))[0, 1] == model(torch.zeros(1, 1))[0, 2] == 0
    network = to_network(model, (1,))
    second = Spec((Polyhedron([[0.0, 1.0, -1.0]], [0.0], [False]),))  # type: ignore[arg-type]
    problem = Problem(network, Box(torch.zeros(1), torch.ones(1)), second)
    told = replay(problem, torch.zeros(1))
    assert not told.confirmed
    assert not told.alarm
    assert get_verifier("crown").verify(problem, Budget()).verdict is Verdict.VERIFIED


@pytest.mark.parametrize(
    ("A", "b", "fine"),
    [
        ([[1.0, -1.0, 0.0]], [0.0], True),
        ([[2.0, 0.0, -2.0], [0.0, 1.0, -1.0]], [0.0, 0.0], True),
        ([[1.0, -1.0, 0.0]], [0.1], False),
        ([[1.0, 0.0, 0.0]], [0.0], False),
        ([[2.0, -1.0, -1.0]], [0.0], False),
        ([[2.0, -1.0, 0.0]], [0.0], False),
    ],
)
@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid(), nn.Tanh(), nn.ELU(), nn.Softplus()])
def test_only_for_properties_of_the_order_it_is_left_out(
    end: nn.Module, A: list[list[float]], b: list[float], fine: bool
) -> None:
    model = nn.Sequential(nn.Linear(2, 3), end).eval()
    box, spec = Box(torch.zeros(2), torch.ones(2)), Spec.halfspaces(A, b)
    assert spec.of_order is fine
    network = Problem(to_network(model, (2,)), box, spec).network
    assert network.readout == (NAMES[type(end)] if fine else "")
    x = torch.rand(5, 2)
    torch.testing.assert_close(end(network(x)) if fine else network(x), model(x).detach())
    if fine:
        assert Problem(network, box, spec).network is network
        assert Problem(network, box, Spec.halfspaces([[1.0, 0.0, 0.0]], [0.5])).network.readout == ""


NAMES = {nn.Softmax: "softmax", nn.LogSoftmax: "log_softmax", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh", nn.ELU: "elu"}
NAMES[nn.Softplus] = "softplus"


@pytest.mark.parametrize("end", [nn.ReLU(), nn.SiLU(), nn.Hardtanh(), nn.Sequential(nn.ReLU(), nn.Hardswish())])
def test_what_does_not_increase_strictly_stays(end: nn.Module) -> None:
    network = to_network(nn.Sequential(nn.Linear(2, 3), end).eval(), (2,))
    assert network.ordered is network


def test_logarithms_stay_as_they_are_not_defined_everywhere() -> None:
    network = to_network(Forward(lambda m, x: m.a(x).log(), a=nn.Linear(2, 3)).eval(), (2,))
    assert network.ordered is network


def test_several_are_left_out_at_once() -> None:
    model = Forward(lambda m, x: torch.softmax(3 * torch.tanh(m.a(x)) + 1, 1), a=nn.Linear(2, 3)).eval()
    ordered = to_network(model, (2,)).ordered
    assert ordered.readout == "tanh, softmax"
    torch.testing.assert_close(ordered(x := torch.rand(4, 2)), model.a(x).detach())  # type: ignore[operator]


def test_the_probability_of_a_class_is_bounded() -> None:
    """A property of the values of a softmax: proved below what is reached, and refuted above."""
    model, _ = ending(nn.Softmax(1))
    box = Box(torch.full((4,), 0.4), torch.full((4,), 0.42))
    points = box.point(torch.rand(200, 4, generator=nets.generator(0)))
    low = float(model(points)[:, 0].min())
    for threshold, verdict in ((low - 0.05, Verdict.VERIFIED), (low + 0.05, Verdict.UNKNOWN)):
        problem = Problem(to_network(model, (4,)), box, Spec.halfspaces([[1.0, 0.0, 0.0]], [threshold]))
        assert get_verifier("crown").verify(problem, Budget()).verdict is verdict


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda m, x: torch.softmax(m.a(x), 0), "the model depends on the batch|over the classes"),
        (lambda m, x: m.a(torch.softmax(m.a(x), 0)), "the model depends on the batch"),
    ],
    ids=["over-the-batch", "inside-over-the-batch"],
)
def test_over_the_batch_it_is_refused(function: Callable[[Any, Tensor], Tensor], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        to_network(Forward(function, a=nn.Linear(4, 4)).eval(), (4,))


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.a(torch.softmax(m.a(x), 1)),
        lambda m, x: torch.softmax(m.a(x).view(-1, 2, 2), 1),
        lambda m, x: 1 - torch.softmax(m.a(x), 1),
        lambda m, x: torch.softmax(m.a(x), 1).flip(1),
        lambda m, x: torch.softmax(m.a(x), 1)[:, :2],
        lambda m, x: torch.softmax(m.a(x), 1).clamp(max=0.5),
        lambda m, x: torch.cat([torch.softmax(m.a(x), 1)] * 2, 1),
        lambda m, x: torch.log_softmax(m.a(x), 1).exp(),
    ],
)
def test_elsewhere_it_is_computed(function: Callable[[Any, Tensor], Tensor]) -> None:
    model = Forward(function, a=nn.Linear(4, 4)).eval()
    network = to_network(model, (4,))
    assert not network.readout
    x = torch.randn(6, 4, generator=nets.generator(0))
    torch.testing.assert_close(network(x), model(x).detach())


def test_the_smallest_first() -> None:
    plain = nets.random_mlp(0)
    network = to_network(Forward(lambda m, x: F.softmin(m.plain(x), 1), plain=plain).eval(), (4,))
    x = torch.rand(5, 4)
    assert network.readout == "softmax"
    torch.testing.assert_close(network(x), -plain(x).detach())


@pytest.mark.parametrize("end", ["module", "module-of-logarithms"])
def test_the_import_check_compares_what_the_oracle_gives(end: str) -> None:
    model, _ = ending(ENDS[end])
    network = to_network(model, (4,))
    agreement.agree_on(network, 30 * torch.randn(20, 4, generator=nets.generator(0)))
    for change in (lambda y: y.flip(1), lambda y: y + 1e-3, lambda y: y * 1.001):
        with pytest.raises(InternalError):
            agreement.agree(replace(network, oracle=lambda x, change=change: change(model(x))))


def test_it_is_written_to_files(tmp_path: Path) -> None:
    model, _ = ending(ENDS["F"])
    copy = write_onnx(to_network(model, (4,)), tmp_path / "net.onnx")
    assert not copy.readout
    torch.testing.assert_close(copy(x := torch.rand(5, 4)), model(x).detach())
