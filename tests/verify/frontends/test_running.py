"""Tests of verify.frontends.running: code that asks how it is run is read as it runs, or refused where that differs.

Each model adds a ramp that is zero everywhere but in a thin slice, which no point of the import check hits, in some
situation only: read without it, the model would be verified where it is not robust.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx._symbolic_trace import is_fx_tracing

from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import to_network
from assay.verify.frontends.torch import read_module
from tests.verify.frontends.test_torch import Forward

Function = Callable[[Any, Any], Any]


def linear() -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(2, 2)


def spiked(m: Any, x: Any) -> Any:
    """100 more for one class where the first feature is 0.3, nothing more from 0.3001 on."""
    return m.l(x) + m.s(torch.relu(m.b(x)))


def spike(in_situation: Callable[[Any], Any]) -> Function:
    return lambda m, x: spiked(m, x) if in_situation(x) else m.l(x)


def model(function: Function) -> nn.Module:
    b, s = nn.Linear(2, 3), nn.Linear(3, 2)
    with torch.no_grad():
        b.weight.copy_(torch.tensor([[1e4, 0.0], [1e4, 0.0], [1e4, 0.0]]))
        b.bias.copy_(torch.tensor([1.0, 0.0, -1.0]) - 3e3)
        s.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [100.0, -200.0, 100.0]]))
        s.bias.zero_()
    return Forward(function, l=linear(), b=b, s=s).eval()


def attempted(m: Any, x: Any, near: Callable[[Any], Any]) -> Any:
    """Code that hides the errors of those who read it."""
    try:
        return spiked(m, x) if near(x) else m.l(x)
    except Exception:
        return m.l(x)


def test_the_spike_itself_is_read() -> None:
    module = model(spiked)
    x = torch.tensor([[0.3, 0.5], [0.4, 0.5]])
    with torch.no_grad():
        torch.testing.assert_close(to_network(module, (2,))(x), module(x))
        assert module(x)[0, 1] > 90 > 9 > module(x)[1].abs().max()


SAME: dict[str, Callable[[Any], Any]] = {
    "isinstance": lambda x: isinstance(x, Tensor),
    "is_tensor": lambda x: torch.is_tensor(x),
    "not-a-proxy": lambda x: not isinstance(x, fx.Proxy),
    "not-fake": lambda x: not isinstance(x, FakeTensor),
    "fx-tracing": lambda x: not is_fx_tracing(),
    "jit-tracing": lambda x: not torch.jit.is_tracing(),
    "scripting": lambda x: not torch.jit.is_scripting(),
    "compiling": lambda x: not torch.compiler.is_compiling(),
    "exporting": lambda x: not torch.compiler.is_exporting(),
    "hasattr": lambda x: not hasattr(x, "node"),
    "hasattr-of-tensors": lambda x: not hasattr(x, "nothing"),
    "functional": lambda x: not torch._is_functional_tensor(x),
    "wrapped": lambda x: not torch._C._functorch.is_gradtrackingtensor(x),
}


@pytest.mark.parametrize("question", SAME)
def test_code_that_asks_what_it_is_given_is_read_as_it_runs(question: str) -> None:
    module = model(spike(SAME[question]))
    x = torch.tensor([[0.3, 0.5], [0.4, 0.5]])
    with torch.no_grad():
        torch.testing.assert_close(to_network(module, (2,))(x), module(x))
        assert module(x)[0, 1] > 90


ASKS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "type": (lambda x: type(x) is Tensor, "that is a parameter"),
    "overridden": (lambda x: not torch.overrides.has_torch_function((x,)), "overridden"),
    "function-mode": (lambda x: torch.overrides._get_current_function_mode() is None, "overridden"),
    "dispatch-mode": (lambda x: torch._C._len_torch_dispatch_stack() == 0, "asks how it is called"),
    "inference-mode": (lambda x: torch.is_inference_mode_enabled(), "in inference mode"),
    "gradients": (lambda x: torch.is_grad_enabled(), "where gradients are recorded"),
    "parameter": (lambda x: isinstance(x, nn.Parameter), "that is a parameter"),
    "requires-grad": (lambda x: x.requires_grad, "asks for requires_grad"),
    "leaf": (lambda x: not x.is_leaf, "asks for is_leaf"),
    "one-sample": (lambda x: len(x) == 1, "size of the batch"),
    "many-samples": (lambda x: x.shape[0] > 7, "size of the batch"),
    "so-many-samples": (lambda x: x.size(0) == 64, "size of the batch"),
    "some-eights": (lambda x: x.shape[0] // 8, "size of the batch"),
    "many-in-all": (lambda x: x.numel() > 99, "size of the batch"),
    "tensor-of-many": (lambda x: isinstance(x, Tensor) and x.shape[0] > 99, "size of the batch"),
    "counted": (lambda x: sum(i > 99 for i in range(x.shape[0])), "size of the batch"),
    "listed": (lambda x: len([0] * x.shape[0]) > 99, "size of the batch"),
    "written": (lambda x: len(str(x.shape[0])) > 2, "size of the batch"),
    "of-a-constant": (lambda x: torch.zeros(x.shape[0], 1).shape[0] > 99, "size of the batch"),
    "of-a-part": (lambda x: x[:1].shape[0] + x.shape[0] > 99, "size of the batch"),
    "of-a-shape": (lambda x: x.shape.numel() > 999, "size of the batch"),
    "in-a-tuple": (lambda x: x.shape in [(99, 2)], "size of the batch"),
    "strides": (lambda x: x.t().stride()[0] > 99, "leaves torch"),
    "tensor-of-length": (lambda x: isinstance(x, Tensor) and len(x) > 99, "size of the batch"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("question", ASKS)
def test_code_that_asks_what_it_is_given_is_refused(question: str) -> None:
    asks, words = ASKS[question]
    with pytest.raises(UnsupportedError, match=words):
        read_module(model(spike(asks)), (2,))


def test_what_is_compiled_is_asked_as_such() -> None:
    module = model(spike(lambda x: torch.compiler.is_compiling()))
    assert to_network(module, (2,)).output_size == 2
    alone: Any = torch.compile(module, backend="eager")
    for compiled in (alone, nn.Sequential(alone)):
        with pytest.raises(UnsupportedError, match="where it is compiled"):
            read_module(compiled.eval(), (2,))


NEAR: dict[str, Callable[[Any], Any]] = {
    "bool": lambda x: (x - 0.3).abs().sum() < 1e-4,
    "float": lambda x: abs(float(x.sum()) - 0.3) < 1e-4,
    "item": lambda x: abs(x.sum().item() - 0.3) < 1e-4,
    "size": lambda x: len(x) > 99,
}


@pytest.mark.parametrize("question", NEAR)
def test_errors_that_the_model_catches_refuse_it_all_the_same(question: str) -> None:
    with pytest.raises(UnsupportedError, match=r"branches on data|size of the batch"):
        read_module(model(lambda m, x: attempted(m, x, NEAR[question])), (2,))


WAYS_OUT: dict[str, Callable[[Tensor], Any]] = {
    "numpy": lambda x: x.detach().numpy(),
    "asarray": np.asarray,
    "tolist": lambda x: x.tolist(),
    "item": lambda x: x[0, 0].item(),
    "pointer": lambda x: x.data_ptr(),
    "storage": lambda x: x.untyped_storage(),
    "dlpack": np.from_dlpack,
    "text": str,
    "pickle": pickle.dumps,
    "copy": lambda x: copy.copy(x).tolist(),
    "parameter": lambda x: nn.Parameter(x).tolist(),
    "without-the-kind": lambda x: Tensor._make_subclass(Tensor, x).tolist(),
    "equal": lambda x: torch.equal(x, x),
}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_ways_past_torch_to_the_numbers_are_seen(way: str) -> None:
    """Where they decide nothing at the points where the model is looked at."""
    out = WAYS_OUT[way]

    def function(m: Any, x: Any) -> Any:
        with torch.no_grad():
            out(x)
        return m.l(x)

    with pytest.raises(UnsupportedError, match=r"leaves torch|branches on data"):
        read_module(model(function), (2,))


def test_numbers_that_come_back_from_numpy_are_seen() -> None:
    def function(m: Any, x: Any) -> Any:
        y = m.l(x)
        return torch.from_numpy(y.detach().numpy())

    with pytest.raises(UnsupportedError, match="leaves torch"):
        read_module(model(function), (2,))


class Doubled(torch.autograd.Function):
    """What torch's functions do not see."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Twice as much."""
        return 2 * x


def test_numbers_of_values_that_no_function_gave_are_seen() -> None:
    def function(m: Any, x: Any) -> Any:
        y = Doubled.apply(x)  # type: ignore[no-untyped-call]
        return m.l(y) + (1.0 if float(y.detach().numpy().sum()) > 1e9 else 0.0)

    with pytest.raises(UnsupportedError, match="leaves torch"):
        read_module(model(function), (2,))
    module = model(lambda m, x: m.l(Doubled.apply(x)))  # type: ignore[no-untyped-call]
    x = torch.rand(5, 2)
    torch.testing.assert_close(to_network(module, (2,))(x), module(x).detach())


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.l(x) + m.s(m.b(x).relu()) * (100.0 if torch.is_grad_enabled() else 1.0),
        lambda m, x: m.l(x) + m.s((m.b(x) + (m.b.bias if torch.is_grad_enabled() else m.s.weight[0])).relu()),
    ],
    ids=["factor", "tensor"],
)
def test_other_constants_are_seen(function: Function) -> None:
    with pytest.raises(UnsupportedError, match="of other operands"):
        read_module(model(function), (2,))


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.l(x) + x.shape[0] // 8,
        lambda m, x: m.l(x) * (1 + (x.shape[0] + 1) // 100),
        lambda m, x: m.l(x) + torch.full((1,), x.shape[0] / 100).floor(),
        lambda m, x: m.l(x).clamp(max=1e9 * x.size(0)),
    ],
)
def test_the_size_of_the_batch_is_in_shapes_only(function: Function) -> None:
    with pytest.raises(UnsupportedError, match="size of the batch"):
        read_module(model(function), (2,))


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: (m.l(x) / x.shape[1] + x.shape[-1] // 2).view(x.size(0), -1),
        lambda m, x: m.l(x.view(x.size(0), x.numel() // x.size(0))),
        lambda m, x: m.l(x.view(x.shape[:1] + (1, 2)).flatten(1)),  # noqa: RUF005
    ],
    ids=["arithmetic", "all-by-samples", "joined"],
)
def test_sizes_of_a_sample_are_numbers(function: Function) -> None:
    module = model(function)
    x = torch.rand(3, 2)
    with torch.no_grad():
        torch.testing.assert_close(to_network(module, (2,))(x), module(x))


def test_a_model_that_looks_at_the_precision_of_a_buffer_is_read_as_it_runs() -> None:
    def function(m: Any, x: Any) -> Any:
        return spiked(m, x) if torch.finfo(m.c.dtype).bits == 32 else m.l(x)

    module = model(function)
    module.register_buffer("c", torch.zeros(1))
    x = torch.tensor([[0.3, 0.5]])
    with torch.no_grad():
        torch.testing.assert_close(to_network(module, (2,))(x), module(x))


def aliased(m: Any, x: Any) -> Any:
    y = m.l(x)
    z = y
    y += m.s(torch.relu(m.b(x)))
    return z


def viewed(m: Any, x: Any) -> Any:
    y = m.l(x)
    z = y.view(-1, 2)
    y += m.s(torch.relu(m.b(x)))
    return y + z


def sliced(m: Any, x: Any) -> Any:
    y = m.l(x)
    z = y.clone()
    z[:, 0] += y[:, 1].relu()
    y[:, 1:] = z[:, :1] + 1
    return y + m.s(torch.relu(m.b(x)))


def filled(m: Any, x: Any) -> Any:
    y = torch.zeros(x.shape[0], 5)
    y[:, 4] = 7
    y[:, 1:3] = m.l(x)
    y[:, 2].relu_()
    y[:, 3].fill_(0.25)
    return y


@pytest.mark.parametrize("function", [aliased, viewed, sliced, filled])
def test_what_is_overwritten_is_overwritten_for_all_who_read_it(function: Function) -> None:
    module = model(function)
    x = torch.cat([torch.tensor([[0.3, 0.5]]), 3 * torch.randn(9, 2, generator=torch.Generator().manual_seed(0))])
    with torch.no_grad():
        torch.testing.assert_close(to_network(module, (2,))(x), module(x.clone()))


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "parametrised", "half", "bfloat16", "double"])
def test_models_that_ask_nothing_are_read(kind: str) -> None:
    """Also where weights are computed anew at each call, or are widened."""
    layer = linear()
    if kind == "weight_norm":
        with pytest.warns(FutureWarning):
            nn.utils.weight_norm(layer)
    elif kind == "spectral_norm":
        nn.utils.spectral_norm(layer)
    elif kind == "parametrised":
        nn.utils.parametrizations.weight_norm(layer)
    else:
        layer = layer.to({"half": torch.float16, "bfloat16": torch.bfloat16, "double": torch.float64}[kind])
    network = to_network(nn.Sequential(layer, nn.ReLU(), nn.Flatten()).eval(), (2,))
    assert network.output_size == 2
