"""Tests of verify.frontends.recording: what runs is read, whoever calls it; what is no graph is refused."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.models.resolve import resolve
from assay.verify.core.errors import AssayError, InputError, UnsupportedError
from assay.verify.core.network import to_network
from assay.verify.frontends.torch import read_module
from tests.verify.frontends.test_torch import Forward

SHAPE = (3, 4, 4)


def head() -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(48, 3)


def asserted(fact: Any, x: Tensor) -> Tensor:
    assert fact, "wrong shape"
    return x


READ: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "dim": lambda m, x: m.l(x.flatten(1)) if x.dim() > 3 else m.l(x),
    "shape-asserted": lambda m, x: m.l(asserted(x.shape[1:] == (3, 4, 4), x).flatten(1)),
    "inner-shape": lambda m, x: asserted(m.l(x.flatten(1)).shape[-1] == 3, m.l(x.flatten(1))),
    "loop": lambda m, x: m.l(torch.cat([x[:, i].flatten(1) * (i + 1) for i in range(x.shape[1])], 1)),
    "parts": lambda m, x: m.l(torch.cat([part.flatten(1) for part in x.unbind(1)], 1)),
    "len-of-shape": lambda m, x: m.l(x.flatten(len(x.shape) - 3)),
    "root-of-size": lambda m, x: m.l(x.flatten(1)) / math.sqrt(x.shape[1]),
    "dtype": lambda m, x: m.l((x if x.dtype == torch.float32 else x.float()).flatten(1)),
    "dtype-asserted": lambda m, x: m.l(asserted(x.dtype == torch.float32, x).flatten(1)),
    "float": lambda m, x: m.l(x.float().flatten(1)),
    "to-float": lambda m, x: m.l(x.to(torch.float32).flatten(1)).type(torch.float32),
    "double-and-back": lambda m, x: m.l(x.double().float().flatten(1)),
    "weight-cast": lambda m, x: F.linear(x.flatten(1), m.l.weight.float()),
    "permute-contiguous-view": lambda m, x: m.l(x.permute(0, 2, 3, 1).contiguous().view(x.size(0), -1)),
    "shuffle": lambda m, x: m.l(x.view(-1, 3, 2, 8).transpose(1, 2).contiguous().view(x.size(0), 3, 4, 4).flatten(1)),
    "channels-last": lambda m, x: m.l(x.to(memory_format=torch.channels_last).flatten(1)),
    "part-overwritten": lambda m, x: _overwritten_part(m.l(x.flatten(1))),
    "unregistered": lambda m, x: nn.ReLU()(m.l(x.flatten(1))),
    "in-place-on-a-reshape": lambda m, x: F.relu_(m.l(x.flatten(1)).view(-1, 3)),
}


@pytest.mark.parametrize("form", READ)
def test_facts_about_shapes_and_casts_are_read(form: str) -> None:
    model = Forward(READ[form], l=head()).eval()
    network = to_network(model, SHAPE)
    x = 3 * torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(network(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.l(x.flatten(1)).clamp(max=0.1) if x.dtype == torch.float32 else m.l(x.flatten(1)),
        lambda m, x: m.l(x.flatten(1)).clamp(max=0.1 if m.l(x.flatten(1)).dtype == torch.float32 else 0.2),
        lambda m, x: m.l(x.flatten(1)).to(x.dtype) * (x.dtype == torch.float32),
    ],
    ids=["branch", "inner", "factor"],
)
def test_a_model_that_looks_at_its_precision_is_read_as_it_runs(
    function: Callable[[Any, Tensor], Tensor], dtype: torch.dtype
) -> None:
    model = Forward(function, l=head()).to(dtype).eval()
    network = to_network(model, SHAPE)
    x = 3 * torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.no_grad():
        torch.testing.assert_close(network(x), model(x))


class Optional(nn.Module):
    """A linear model with arguments that need not be given."""

    def __init__(self) -> None:
        super().__init__()
        self.l = head()

    def forward(self, x: Tensor, mask: Tensor | None = None, *, scale: float = 2.0, flat: bool = True) -> Tensor:
        """With the defaults, twice the linear layer."""
        if mask is not None:
            x = x * mask
        y: Tensor = self.l(x.flatten(1) if flat else x)
        return y * scale


def test_what_need_not_be_given_keeps_its_default() -> None:
    model = Optional().eval()
    x = torch.rand(5, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(to_network(model, SHAPE)(x), model(x))


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
@pytest.mark.parametrize("nested", [False, True])
def test_wrappers_are_read_through(wrap: Callable[[nn.Module], Any], nested: bool) -> None:
    model = nn.Sequential(nn.Flatten(), head())
    wrapped = nn.Sequential(wrap(model), nn.ReLU()) if nested else wrap(model)
    network = to_network(wrapped.eval(), SHAPE)
    x = torch.rand(5, *SHAPE)
    expected = model(x).relu() if nested else model(x)
    torch.testing.assert_close(network(x), expected.detach())
    assert network.oracle is wrapped


def _set(x: Tensor) -> Tensor:
    x[:, 0] = 0.0
    return x


def _state(m: Any, x: Tensor) -> Tensor:
    m.calls = getattr(m, "calls", 0) + 1
    return x * m.calls


def _overwritten_part(x: Tensor) -> Tensor:
    y = x + 100  # positive wherever the import looks
    y[:, :2].relu_()
    return y


def _autocast(m: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y: Tensor = m.l(x.flatten(1))
    return y.float()


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Any], list[str]]] = {
    "data": (lambda m, x: x if x.sum() > 0 else -x, ["branches on data", "bool"]),
    "count": (lambda m, x: x if x.nonzero().shape[0] > 1 else -x, ["nonzero"]),
    "batch-size": (lambda m, x: x if x.shape[0] > 1 else -x, ["size of the batch"]),
    "batch-loop": (lambda m, x: torch.stack([m.l(one.flatten()) for one in x]), ["size of the batch"]),
    "setitem": (lambda m, x: _set(m.l(x.flatten(1)).tan()), ["tan (test_recording.py:"]),
    "half": (lambda m, x: m.l(x.half().float().flatten(1)), ["half", "casts to torch.float16"]),
    "to-bfloat16": (lambda m, x: m.l(x.to(torch.bfloat16).float().flatten(1)), ["casts to torch.bfloat16"]),
    "autocast": (_autocast, ["autocast"]),
    "state": (_state, ["keeps a state"]),
    "random": (lambda m, x: m.l(x.flatten(1)) + torch.rand(3), ["draws at random"]),
    "own-buffer": (lambda m, x: m.l(x.flatten(1)) + m.b.add_(1), ["keeps a state"]),
    "item": (lambda m, x: m.l(x.flatten(1)) * x.sum().item(), ["branches on data", "item"]),
    "numpy": (lambda m, x: torch.from_numpy(x.detach().numpy()).flatten(1), ["leaves torch", "numpy"]),
    "likeness": (lambda m, x: m.l(x.flatten(1)) + torch.randn_like(x)[:, 0, 0, :3], ["draws at random: randn_like"]),
    "dropout": (lambda m, x: m.l(F.dropout(x.flatten(1))), ["draws at random", "dropout"]),
    "mean-of-the-batch": (lambda m, x: m.l(x.flatten(1)) - m.l(x.flatten(1)).mean(0), ["depends on the batch", "mean"]),
    "first-of-the-batch": (lambda m, x: m.l(x.flatten(1)) - m.l(x[:1].flatten(1)), ["depends on the batch"]),
    "whether-the-other-is-huge": (lambda m, x: m.l(x.flatten(1) * (x.flatten(1).flip(0) > 1e9)), ["on the batch"]),
    "whether-the-other-is-small": (lambda m, x: m.l(x.flatten(1) * (x.flatten(1).flip(0) > -9.0)), ["on the batch"]),
    "indices": (
        lambda m, x: m.l(x.flatten(1)).gather(1, m.l(x.flatten(1)).argmax(1, keepdim=True)),
        ["gather", "places that"],
    ),
    "which-is-largest": (
        lambda m, x: m.l(x.flatten(1)).gather(1, m.l(x.flatten(1)).max(1, True)[1]),
        ["max", "result 1"],
    ),
    "sorted": (lambda m, x: m.l(x.flatten(1)).sort(1)[0], ["sort"]),
    "integers": (lambda m, x: m.l(x.flatten(1)).long(), ["floating-point", "int64"]),
    "dict": (lambda m, x: {"a": x, "b": x}, ["one tensor", "dict of a, b"]),
    "empty-dict": (lambda m, x: {}, ["one tensor", "nothing"]),
    "none": (lambda m, x: None, ["one tensor", "NoneType"]),
    "failing": (lambda m, x: 1 / 0, ["ZeroDivisionError"]),
    "asserting": (lambda m, x: asserted(x.shape[1] == 7, x), ["AssertionError", "wrong shape"]),
    "two-inputs": (lambda m, x: F.bilinear(x), ["TypeError"]),
    "fourier": (lambda m, x: torch.fft.fft(x).real, ["fft"]),
}


@pytest.mark.parametrize("form", REFUSED)
def test_all_else_is_refused_with_its_reason(form: str) -> None:
    function, words = REFUSED[form]
    with pytest.raises((InputError, UnsupportedError)) as caught:
        to_network(Forward(function, l=head(), b=torch.zeros(3)).eval(), SHAPE)
    assert all(word in str(caught.value) for word in words), caught.value


class Attention(nn.Module):
    """What returns a tuple with nothing in it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Of patches with themselves."""
        y: Tensor = self.attention(x.flatten(2), x.flatten(2), x.flatten(2), need_weights=False)[0]
        return y.flatten(1)


class Recurrent(nn.Module):
    """The last state over the rows of an image."""

    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.inner = kind(16, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(batch x 5)."""
        states, _ = self.inner(x.flatten(2))
        last: Tensor = states[:, -1]
        return last


class Sized(nn.Module):
    """A script that asks for the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.l = head()

    def forward(self, x: Tensor) -> Tensor:
        """Another bias for many samples."""
        y = self.l(x.flatten(1))
        if x.size(0) > 99:
            y = y + 1
        return y


def script(model: nn.Module) -> nn.Module:
    with pytest.warns(DeprecationWarning, match="script"):
        return torch.jit.script(model.eval())  # type: ignore[no-any-return]


def convolutional() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.Flatten()),
        nn.Linear(16, 3),
    ).eval()


def traced(model: nn.Module) -> nn.Module:
    with pytest.warns(DeprecationWarning, match="trace"):
        return torch.jit.trace(model.eval(), torch.rand(1, *SHAPE))  # type: ignore[no-any-return]


WRAPPED: dict[str, Callable[[nn.Module], Any]] = {
    "scripted": script,
    "part-scripted": lambda m: nn.Sequential(script(m), nn.ReLU()).eval(),
    "jit-traced": traced,
    "fx": torch.fx.symbolic_trace,
    "exported": lambda m: torch.export.export(m, (torch.rand(1, *SHAPE),)),
    "exported-module": lambda m: torch.export.export(m, (torch.rand(1, *SHAPE),)).module(),
    "exported-for-batches": lambda m: torch.export.export(
        m, (torch.rand(2, *SHAPE),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    ),
    "decomposed": lambda m: torch.export.export(m, (torch.rand(1, *SHAPE),)).run_decompositions(),
}


@pytest.mark.filterwarnings("ignore:.*LeafSpec")  # of torch's own decompositions
@pytest.mark.parametrize("form", WRAPPED)
def test_other_forms_of_a_module_are_read(form: str) -> None:
    model = convolutional()
    network = to_network(WRAPPED[form](model), SHAPE)
    x = 3 * torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1))
    expected = model(x).detach()
    if form == "part-scripted":
        expected = expected.relu()
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)
    assert network.oracle is not None
    torch.testing.assert_close(network.oracle(x), expected, rtol=1e-4, atol=1e-5)


def test_an_exported_program_says_what_it_takes() -> None:
    program = torch.export.export(convolutional(), (torch.rand(1, *SHAPE),))
    assert to_network(program).input_shape == SHAPE


@pytest.mark.parametrize("make", [dict, lambda **x: tuple(x.values()), lambda **x: list(x.values())])
def test_the_answer_of_several_outputs_is_read(make: Any) -> None:
    layer = head()
    model = Forward(lambda m, x: make(logits=m.l(x.flatten(1)), features=x), l=layer).eval()
    x = torch.rand(5, *SHAPE)
    network = to_network(model, SHAPE)
    torch.testing.assert_close(network(x), layer(x.flatten(1)).detach())
    assert network.oracle is not None
    torch.testing.assert_close(network.oracle(x), layer(x.flatten(1)))


def quantised(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantisation is said to be old
        return torch.ao.quantization.quantize_dynamic(model.eval(), {nn.Linear})  # type: ignore[no-any-return]


def batch_norm_of_the_batch() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten())


MODULES: dict[str, tuple[Callable[[], nn.Module], int, list[str]]] = {
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), 40, ["1.weight", "run a batch through"]),
    "batch-statistics": (batch_norm_of_the_batch, 40, ["depends on the batch", "1 normalises"]),
    "script-that-branches": (lambda: script(Sized()), 50, ["TorchScript (itself)", "aten::size"]),
    "exported-for-two": (
        lambda: torch.export.export(nn.Sequential(nn.Flatten(), head()), (torch.rand(2, *SHAPE),)).module(),
        50,
        ["batches of exactly 2", "dynamic"],
    ),
    "quantised": (lambda: quantised(nn.Sequential(nn.Flatten(), head())), 50, ["linear_dynamic", "Linear 1"]),
    "meta": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 3, device="meta")), 40, ["1.weight", "meta"]),
    "in-place-first": (lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Flatten()), 50, ["in place"]),
    "root": (nn.Hardshrink, 50, ["unsupported operations: hardshrink (Hardshrink). assay reads"]),
    "two-inputs": (lambda: nn.Bilinear(4, 4, 2), 40, ["input2"]),
    "no-forward": (nn.Module, 40, ["forward"]),
    "complex": (lambda: nn.Linear(4, 2, dtype=torch.complex64), 40, ["dtype"]),
    "slope-below-zero": (lambda: nn.LeakyReLU(-0.5), 50, ["slope of -0.5"]),
}


@pytest.mark.parametrize("make", [Attention, *(partial(Recurrent, kind) for kind in (nn.LSTM, nn.GRU, nn.RNN))])
def test_layers_of_many_steps_are_read(make: Callable[[], nn.Module]) -> None:
    model = make().eval()
    network = to_network(model, SHAPE)
    x = 2 * torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(network(x), model(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_modules_that_are_not_read_are_named(name: str) -> None:
    make, code, words = MODULES[name]
    model = make()
    for part in model.modules():  # exported programs have an eval() that raises
        part.training = False
    with pytest.raises(AssayError) as caught:
        read_module(model, SHAPE)
    assert caught.value.exit_code == code, caught.value
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [to_network, lambda path: resolve(str(path))])
def test_files_of_torch_export_are_refused_with_the_reason(read: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(convolutional(), (torch.rand(1, *SHAPE),)), path)
    with pytest.raises(InputError, match="can run code when they are loaded"):
        read(path)
