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
def test_only_properties_of_the_order_are_taken(A: list[list[float]], b: list[float], fine: bool) -> None:
    network = to_network(nn.Sequential(nn.Linear(2, 3), nn.Softmax(1)).eval(), (2,))
    box, spec = Box(torch.zeros(2), torch.ones(2)), Spec.halfspaces(A, b)
    assert spec.of_order is fine
    if fine:
        Problem(network, box, spec)
        return
    with pytest.raises(UnsupportedError, match="only the order of the outputs"):
        Problem(network, box, spec)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda m, x: m.a(torch.softmax(m.a(x), 1)), "last layer only"),
        (lambda m, x: torch.softmax(m.a(x), 0), "the model depends on the batch|over the classes"),
        (lambda m, x: torch.softmax(m.a(x).view(-1, 2, 2), 1), "over the classes"),
        (lambda m, x: 1 - torch.softmax(m.a(x), 1), "last layer only"),
    ],
    ids=["inside", "over-the-batch", "over-a-part", "mirrored"],
)
def test_elsewhere_it_is_refused(function: Callable[[Any, Tensor], Tensor], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        to_network(Forward(function, a=nn.Linear(4, 4)).eval(), (4,))


def test_the_smallest_first() -> None:
    plain = nets.random_mlp(0)
    network = to_network(Forward(lambda m, x: F.softmin(m.plain(x), 1), plain=plain).eval(), (4,))
    x = torch.rand(5, 4)
    assert network.readout == "softmax"
    torch.testing.assert_close(network(x), -plain(x).detach())


@pytest.mark.parametrize(
    "after", [lambda y: y.flip(1), lambda y: y[:, :2], lambda y: y.clamp(max=0.5), lambda y: torch.cat([y, y], 1)]
)
def test_nothing_comes_after_it(after: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(UnsupportedError, match=r"last layer only|does not depend"):
        to_network(Forward(lambda m, x: after(torch.softmax(m.a(x), 1)), a=nn.Linear(4, 4)).eval(), (4,))


@pytest.mark.parametrize("end", ["module", "module-of-logarithms"])
def test_the_import_check_compares_what_the_oracle_gives(end: str) -> None:
    model, _ = ending(ENDS[end])
    network = to_network(model, (4,))
    agreement.agree_on(network, 30 * torch.randn(20, 4, generator=nets.generator(0)))
    for change in (lambda y: y.flip(1), lambda y: y + 1e-3, lambda y: y * 1.001):
        with pytest.raises(InternalError):
            agreement.agree(replace(network, oracle=lambda x, change=change: change(model(x))))


def test_it_is_not_written_to_files(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="last layer, a softmax"):
        write_onnx(to_network(ending(ENDS["F"])[0], (4,)), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
