"""Tests of verify.frontends.hooks: what runs beside the layers is refused by name; what only makes weights is read."""

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

from assay.verify.core.errors import InternalError, UnsupportedError
from assay.verify.core.network import to_network
from assay.verify.frontends import torch as frontend
from assay.verify.frontends.torch import read_live

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


def clip_input(module: nn.Module, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same before the layer."""
    return (x[0].clamp(max=0.9),)


def replaced(model: Sums) -> None:
    inner = model.a.forward
    model.a.forward = lambda x: inner(x).clamp(max=18)  # type: ignore[method-assign]


def called(model: Sums) -> None:
    other = Called(20, 1)
    other.load_state_dict(model.a.state_dict())
    model.a = other.eval()


CHANGES: dict[str, tuple[Callable[[Sums], Any], list[str]]] = {
    "hook": (lambda m: m.a.register_forward_hook(clip), ["forward hook clip of 'a'"]),
    "hook-of-the-root": (lambda m: m.register_forward_hook(clip), ["forward hook clip of the model itself"]),
    "pre-hook": (lambda m: m.b.register_forward_pre_hook(clip_input), ["forward pre-hook clip_input of 'b'"]),
    "two": (
        lambda m: [part.register_forward_hook(clip) for part in (m.a, m.b)],
        ["forward hook clip of 'a'", "forward hook clip of 'b'"],
    ),
    "observer": (lambda m: m.a.register_forward_hook(lambda *_: None), ["forward hook <lambda> of 'a'"]),
    "replaced-forward": (replaced, ["replaced forward() of 'a'"]),
    "call": (called, ["__call__() of class Called of 'a'"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_values_is_refused_by_name(change: str) -> None:
    model = Sums().eval()
    alter, words = CHANGES[change]
    alter(model)
    for read in (lambda: to_network(model, SHAPE), lambda: read_live(model, torch.rand(2, *SHAPE))):
        with pytest.raises(UnsupportedError) as caught:
            read()
        assert all(word in str(caught.value) for word in [*words, "remove"])


@pytest.mark.parametrize("register", [register_module_forward_hook, register_module_forward_pre_hook])
def test_hooks_of_all_modules_are_refused(register: Any) -> None:
    handle = register(lambda *_: None)
    try:
        with pytest.raises(UnsupportedError, match="of all modules"):
            to_network(Sums().eval(), SHAPE)
    finally:
        handle.remove()
    to_network(Sums().eval(), SHAPE)


@pytest.mark.parametrize(
    ("owner", "name", "words"),
    [
        (F, "relu", "torch.nn.functional.relu"),
        (F, "linear", "linear"),
        (F, "batch_norm", "torch.nn.functional.batch_norm"),
        (torch, "relu", "of torch"),
        (Tensor, "relu", "method relu of tensors"),
        (nn.Linear, "forward", r"forward\(\) of class Linear"),
        (nn.ReLU, "__call__", r"__call__\(\) of class ReLU"),
        (nn.Module, "_call_impl", r"__call__\(\) of torch.nn.Module"),
    ],
)
def test_functions_in_the_place_of_torchs_are_refused(
    owner: Any, name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = getattr(owner, name)

    def other(*args: Any) -> Any:
        return inner(*args)

    monkeypatch.setattr(owner, name, other)
    with pytest.raises(UnsupportedError, match=words):
        to_network(nn.Sequential(nn.Linear(20, 3), nn.ReLU()).eval(), SHAPE)


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
def test_the_import_check_finds_them_by_itself(
    change: Callable[[Sums], Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody looked for hooks: random points alone lie near the middle of the layer's range."""
    monkeypatch.setattr(frontend, "refuse_hooks", lambda *_: None)
    model = Sums().to(dtype).eval()
    change(model)
    with pytest.raises((InternalError, UnsupportedError)):
        to_network(model, SHAPE)


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


def test_weights_with_operations_of_their_own_are_refused() -> None:
    model = Sums().eval()
    model.a.weight = nn.Parameter(torch.ones(1, 20).as_subclass(Clipping))
    assert float(model(torch.ones(1, 20)).detach().amax()) == 20
    with pytest.raises(UnsupportedError, match=r"'a.weight' of the model is a Clipping"):
        to_network(model, SHAPE)


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


def test_a_recorded_module_is_read_unless_its_class_was_changed() -> None:
    recorded = torch.fx.symbolic_trace(Sums().eval())
    assert to_network(copy.deepcopy(recorded), SHAPE).output_size == 2
    own = type(recorded).forward
    type(recorded).forward = lambda self, x: own(self, x).clamp(max=18)  # type: ignore[method-assign]
    with pytest.raises(UnsupportedError, match=r"replaced forward\(\) of its class of the model itself"):
        to_network(recorded, SHAPE)
