"""What runs beside a module's code and changes its value, hooks and replaced functions, is read as it runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils import prune, spectral_norm

from assay.verify.core.budget import Budget
from assay.verify.core.errors import InternalError, UnsupportedError
from assay.verify.core.network import to_network
from assay.verify.core.problem import Problem
from assay.verify.core.result import Verdict
from assay.verify.frontends.agreement import agree
from assay.verify.frontends.live import read_live
from assay.verify.registry import get_verifier
from tests import nets
from tests.verify.frontends.test_torch import Forward

SHAPE = (20,)


class Sums(nn.Module):
    """The sum of the inputs plus a half, and the sum: the second is never the larger unless the first is clipped."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(20, 1), nn.Linear(20, 1)
        for part in (self.a, self.b):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(batch x 2)."""
        return torch.cat([self.a(x) + 0.5, self.b(x)], 1)


class Called(nn.Linear):
    """A layer whose call is not its forward."""

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Clipped."""
        y: Tensor = super().__call__(x)
        return y.clamp(max=18)


def clip(module: nn.Module, x: Any, y: Tensor) -> Tensor:
    """Range restriction, as fault tolerance installs it."""
    return y.clamp(max=18)


def write(module: nn.Module, x: Any, y: Tensor) -> None:
    """The same in place."""
    y.clamp_(max=18)


def clip_input(module: nn.Module, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same before the layer."""
    return (x[0].clamp(max=0.9),)


def replaced(model: Sums) -> None:
    inner = model.a.forward
    model.a.forward = lambda x: inner(x).clamp(max=18)  # type: ignore[method-assign]


def called(model: Sums) -> None:
    other = Called(20, 1)
    other.to(model.a.weight.dtype).load_state_dict(model.a.state_dict())
    model.a = other.eval()


CHANGES: dict[str, Callable[[Sums], Any]] = {
    "hook": lambda m: m.a.register_forward_hook(clip),
    "hook-of-the-root": lambda m: m.register_forward_hook(clip),
    "pre-hook": lambda m: m.b.register_forward_pre_hook(clip_input),
    "pre-hook-of-the-root": lambda m: m.register_forward_pre_hook(clip_input),
    "two": lambda m: [part.register_forward_hook(clip) for part in (m.a, m.b)],
    "observer": lambda m: m.a.register_forward_hook(lambda *_: None),
    "writer": lambda m: m.a.register_forward_hook(write),
    "replaced-forward": replaced,
    "call": called,
}


def assert_as_it_runs(model: nn.Module, label: int = 0) -> None:
    """Network and module agree all over the box, and exact and incomplete methods decide as its corner does."""
    network = to_network(model, SHAPE)
    x = torch.cat([torch.ones(1, 20), torch.rand(50, 20), 4 * torch.randn(50, 20)]).to(network.dtype)
    with torch.no_grad():
        expected = model(x.clone())
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)
    problem = Problem.robustness(model, torch.full((20,), 0.6), label, 0.4)
    right = bool(expected[0, label] > expected[0, 1 - label])
    for name in ("ibp", "crown", "milp"):
        verdict = get_verifier(name).verify(problem, Budget(30)).verdict
        assert verdict is not (Verdict.FALSIFIED if right else Verdict.VERIFIED)
    assert verdict is (Verdict.VERIFIED if right else Verdict.FALSIFIED)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_values_is_read(change: str, dtype: torch.dtype) -> None:
    model = Sums().to(dtype).eval()
    CHANGES[change](model)
    assert_as_it_runs(model)


@pytest.mark.parametrize("change", ["hook", "hook-of-the-root", "two", "replaced-forward", "call"])
def test_what_changes_values_is_read_live(change: str) -> None:
    model, x = Sums().eval(), torch.rand(5, 20) * 2
    CHANGES[change](model)
    network, output = read_live(model, x)
    torch.testing.assert_close(network(x), output)


@pytest.mark.parametrize("register", [register_module_forward_hook, register_module_forward_pre_hook])
def test_hooks_of_all_modules_are_read(register: Any) -> None:
    def double(module: nn.Module, x: Any, y: Any = None) -> Any:
        changed = 2 * (y if y is not None else x[0])
        return changed if isinstance(module, nn.Linear) else None

    handle = register(double)
    try:
        assert_as_it_runs(Sums().eval())
    finally:
        handle.remove()
    assert_as_it_runs(Sums().eval())


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (F, "relu"),
        (F, "linear"),
        (F, "batch_norm"),
        (torch, "relu"),
        (Tensor, "relu"),
        (nn.Linear, "forward"),
        (nn.ReLU, "__call__"),
        (nn.Module, "_call_impl"),
    ],
)
def test_replaced_functions_of_torch_are_read_or_refused(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = getattr(owner, name)

    def other(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs).clamp(max=0.1)

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.layers(x).relu() + torch.relu(x[:, :3])

    layers = nn.Sequential(nets.randomised(nn.Linear(20, 3), 0), nn.BatchNorm1d(3), nn.ReLU())
    model = Forward(forward, layers=layers).eval()
    x = torch.rand(9, 20)
    plain = model(x)
    monkeypatch.setattr(owner, name, other)
    assert not torch.equal(model(x), plain)
    if (owner, name) in ((F, "relu"), (F, "batch_norm"), (Tensor, "relu")):  # functions that call themselves by name
        with pytest.raises(UnsupportedError, match="functions of torch are overridden"):
            to_network(model, SHAPE)
    else:
        torch.testing.assert_close(to_network(model, SHAPE)(x), model(x).detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.a.register_forward_hook(clip),
        lambda m: m.b.register_forward_hook(lambda _, x, y: y + (y > 19.9)),
        lambda m: m.a.register_forward_hook(lambda _, x, y: torch.where(y < 0.3, y + 1, y)),
        lambda m: m.a.register_forward_pre_hook(lambda _, x: (x[0].clamp(min=-40),)),
        replaced,
    ],
    ids=["clipped", "at-the-largest", "at-the-smallest", "far-out", "replaced"],
)
def test_the_import_check_finds_a_difference_by_itself(change: Callable[[Sums], Any], dtype: torch.dtype) -> None:
    """Had it not been read: random points alone lie near the middle of the layer's range."""
    model = Sums().to(dtype).eval()
    network = to_network(model, SHAPE)
    change(model)
    with pytest.raises(InternalError):
        agree(network)


@pytest.mark.parametrize("shift", [lambda y: y + (y > 19.9), lambda y: torch.where(y < 0.3, y + 1, y)])
def test_hooks_that_jump_are_read(shift: Callable[[Tensor], Tensor]) -> None:
    model = Sums().eval()
    model.b.register_forward_hook(lambda _, x, y: shift(y))
    x = torch.cat([torch.ones(1, 20), torch.rand(50, 20)])
    for network in (to_network(model, SHAPE), read_live(model, x)[0]):
        torch.testing.assert_close(network(x), model(x))


def old_weight_norm(part: nn.Linear) -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(part)


def pruned(part: nn.Linear) -> nn.Module:
    prune.l1_unstructured(part, "weight", 0.5)  # type: ignore[no-untyped-call]
    return part


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("make", [old_weight_norm, spectral_norm, pruned])
def test_hooks_that_compute_weights_are_read(make: Callable[[nn.Linear], nn.Module], dtype: torch.dtype) -> None:
    """To the last bit the weights that the model's own forward uses, and the model stays as it is."""
    torch.manual_seed(0)
    model = nn.Sequential(make(nn.Linear(20, 6)), nn.ReLU(), nn.Linear(6, 3)).to(dtype).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    network = to_network(model, SHAPE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    x = torch.rand(5, *SHAPE)
    with torch.no_grad():
        own = model.float() if dtype is torch.float16 else model
        expected = own(x.to(network.dtype))
    assert torch.equal(network.nodes[1].op.weight, own[0].weight.detach().double())  # type: ignore[attr-defined]
    torch.testing.assert_close(network(x.to(network.dtype)), expected)


class Clipping(Tensor):
    """A weight whose products are clipped."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What torch computes, clipped where it is a layer."""
        y = super().__torch_function__(func, types, args, kwargs or {})
        return y.as_subclass(Tensor).clamp(max=18) if func is F.linear else y


def test_weights_with_operations_of_their_own_are_read() -> None:
    model = Sums().eval()
    model.a.weight = nn.Parameter(torch.ones(1, 20).as_subclass(Clipping))
    assert float(model(torch.ones(1, 20)).detach().amax()) == 20
    assert_as_it_runs(model)


def test_parametrised_layers_of_ones_own_are_no_replacements() -> None:
    class Own(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    model = nn.Sequential(nn.utils.parametrizations.weight_norm(Own(20, 2))).eval()
    x = torch.rand(3, *SHAPE)
    torch.testing.assert_close(to_network(model, SHAPE)(x), model(x).detach())


def test_hooks_of_backward_passes_change_no_value() -> None:
    model = Sums().eval()
    expected = to_network(copy.deepcopy(model), SHAPE)
    model.a.register_full_backward_hook(lambda *_: None)
    model.register_full_backward_hook(lambda *_: None)
    assert to_network(model, SHAPE).id == expected.id


def test_a_recorded_module_is_read_as_its_class_runs_it() -> None:
    recorded = torch.fx.symbolic_trace(Sums().eval())
    assert_as_it_runs(copy.deepcopy(recorded))
    own = type(recorded).forward
    type(recorded).forward = lambda self, x: own(self, x).clamp(max=18)  # type: ignore[method-assign]
    assert_as_it_runs(recorded)
