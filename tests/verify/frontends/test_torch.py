"""Tests of verify.frontends.torch: what is read equals the module; what cannot be read is refused, never guessed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn
from torch.nn import functional as F

from assay.verify.core.budget import Budget
from assay.verify.core.errors import AssayError, InputError, UnsupportedError
from assay.verify.core.network import Network, to_network
from assay.verify.core.ops import Conv2d, Linear, Relu, Reshape, Scale
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Result, Verdict
from assay.verify.core.spec import Spec
from assay.verify.frontends.live import read_live
from assay.verify.registry import get_bounder, get_verifier
from assay.verify.solving.stages import check
from tests import nets

VECTOR, IMAGE = (6,), (2, 4, 4)


class Forward(nn.Module):
    """A module whose forward is the given function of itself and x."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def assert_equal(module: nn.Module, shape: tuple[int, ...]) -> Network:
    network = to_network(module.eval(), shape)
    x = 3 * torch.randn(7, *shape, dtype=torch.float64, generator=nets.generator(5))
    double = copy.deepcopy(module).double()
    true = double(x.clone()).detach()
    torch.testing.assert_close(to_network(double, shape)(x), true, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(network(x), true, rtol=1e-5, atol=1e-5)  # constants are computed as the model does
    assert network.output_size == true[0].numel()
    return network


def fc(seed: int = 0, inputs: int = 6, outputs: int = 6) -> nn.Module:
    return nets.randomised(nn.Linear(inputs, outputs), seed)


def bn(module: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    return module if not module.affine else nets.randomised(module, 3)


C = torch.linspace(-1, 2, 6)
P = torch.linspace(0.5, 2, 2)[:, None, None]

VECTOR_FORMS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "module": lambda m, x: m.fc(x),
    "F.linear": lambda m, x: F.linear(x, m.fc.weight, m.fc.bias),
    "F.linear-without-bias": lambda m, x: F.linear(x, m.fc.weight),
    "F.linear-keywords": lambda m, x: F.linear(x, bias=m.fc.bias, weight=m.fc.weight),
    "F.linear-all-keywords": lambda m, x: F.linear(input=x, bias=m.fc.bias, weight=m.fc.weight),
    "F.relu": lambda m, x: F.relu(m.fc(x)),
    "F.relu-keyword": lambda m, x: F.relu(input=m.fc(x)),
    "F.relu-in-place": lambda m, x: F.relu(m.fc(x), inplace=True),
    "torch.relu": lambda m, x: torch.relu(m.fc(x)),
    "relu": lambda m, x: m.fc(x).relu(),
    "relu_": lambda m, x: m.fc(x).relu_(),
    "clamp": lambda m, x: m.fc(x).clamp(min=0),
    "clamp-position": lambda m, x: torch.clamp(m.fc(x), 0.0),
    "clamp_min": lambda m, x: m.fc(x).clamp_min(0),
    "add": lambda m, x: x + m.fc(x),
    "torch.add": lambda m, x: torch.add(x, m.fc(x)),
    ".add": lambda m, x: x.add(m.fc(x)),
    "iadd": lambda m, x: _iadd(m.fc(x), x),
    "sub": lambda m, x: x - m.fc(x),
    "torch.sub": lambda m, x: torch.sub(x, m.fc(x)),
    "torch.sub-keywords": lambda m, x: torch.sub(other=m.fc(x), input=x),
    "itself": lambda m, x: x + x - m.fc(x) - m.fc(x),
    "constant": lambda m, x: x + m.c,
    "constant-left": lambda m, x: m.c - x,
    "number-left": lambda m, x: 1 - x,
    "number": lambda m, x: (x - 0.5) / 0.25 * 2 + 1,
    "number-times": lambda m, x: 3 * x,
    "divide": lambda m, x: x / m.c,
    "torch.div": lambda m, x: torch.div(x, 2),
    "multiply": lambda m, x: torch.mul(m.c, x),
    "minus": lambda m, x: -m.fc(x),
    "constant-arithmetic": lambda m, x: x * (m.c * 2 + 1).exp(),
    "constant-with-batch": lambda m, x: x + m.c[None],
    "view": lambda m, x: m.fc(x).view(-1, 6),
    "size": lambda m, x: m.fc(x.view(x.size(0), -1)),
    "shape": lambda m, x: m.fc(x.reshape(x.shape[0], 6)),
    "view-and-back": lambda m, x: x.view(-1, 2, 3).flatten(1) + m.fc(x),
    "unsqueeze": lambda m, x: m.fc(x.unsqueeze(1)).squeeze(1),
    "view_as": lambda m, x: m.fc(x).view_as(x),
    "unflatten": lambda m, x: x.unflatten(1, (2, 3)).flatten(1),  # type: ignore[no-untyped-call]
    "contiguous": lambda m, x: m.fc(x).contiguous().clone(),
    "shared": lambda m, x: m.fc(torch.relu(m.fc(x))),
    "add-scaled": lambda m, x: torch.add(x, m.fc(x), alpha=2),
    "add-broadcast": lambda m, x: x + m.fc(x)[:, :1],
    "dropout-off": lambda m, x: F.dropout(m.fc(x), training=m.training),
}


def _iadd(a: Tensor, b: Tensor) -> Tensor:
    a += b
    return a


@pytest.mark.parametrize("form", VECTOR_FORMS)
def test_forms_on_vectors(form: str) -> None:
    assert_equal(Forward(VECTOR_FORMS[form], fc=fc(), c=C), VECTOR)


def test_a_scalar_within_is_a_vector_of_one() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.fc(x)
        return m.head(F.relu(h[:, 0] - h[:, 1]).unsqueeze(1))

    model = Forward(forward, fc=fc(), head=nn.Linear(1, 2))
    assert_equal(model, VECTOR)
    network = to_network(model, VECTOR)
    assert all(node.shape for node in network.nodes)
    rows = get_bounder("crown").bound(network, Box(torch.zeros(VECTOR), torch.ones(VECTOR)), torch.eye(2), Budget())
    assert bool((rows.lower < rows.upper).all())


def test_an_output_of_one_number_is_a_vector_of_one() -> None:
    model = Forward(lambda m, x: m.fc(x)[:, 0], fc=fc()).eval()
    network = to_network(model, VECTOR)
    x = torch.rand(5, *VECTOR)
    assert network.oracle is not None
    assert torch.equal(network.oracle(x)[:, 0], model(x))
    spec = Spec.halfspaces([[1.0]], [model(x[:1]).item() - 0.1])
    problem = Problem(network, Box(x[0] - 1e-3, x[0] + 1e-3), spec)
    for name in ("crown", "milp", "smt", "auto"):
        assert get_verifier(name).verify(problem, Budget()).verdict is Verdict.VERIFIED


IMAGE_FORMS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "module": lambda m, x: m.conv(x),
    "F.conv2d": lambda m, x: F.conv2d(x, m.conv.weight, m.conv.bias, 2, 1),
    "F.conv2d-keywords": lambda m, x: F.conv2d(x, m.conv.weight, padding=(1, 0), stride=(1, 2)),
    "F.conv2d-same": lambda m, x: F.conv2d(x, m.conv.weight, padding="same"),
    "F.conv2d-valid": lambda m, x: F.conv2d(x, m.conv.weight, padding="valid", dilation=1),
    "torch.conv2d": lambda m, x: torch.conv2d(x, m.conv.weight, m.conv.bias),
    "channel-constant": lambda m, x: (x - m.p) / m.p,
    "torch.flatten": lambda m, x: torch.flatten(m.conv(x), 1),
    "torch.flatten-keywords": lambda m, x: torch.flatten(input=m.conv(x), start_dim=1),
    "flatten-two": lambda m, x: m.conv(x).flatten(2),
    "residual": lambda m, x: torch.relu(m.conv(x)) + x,
    "linear-last-axis": lambda m, x: m.last(x),
    "batch-of-a-shape": lambda m, x: m.conv(x).view(x.shape[0], -1),
}


@pytest.mark.parametrize("form", IMAGE_FORMS)
def test_forms_on_images(form: str) -> None:
    conv = nets.randomised(nn.Conv2d(2, 2, 3, padding=1), 1)
    assert_equal(Forward(IMAGE_FORMS[form], conv=conv, p=P, last=fc(2, 4, 3)), IMAGE)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"stride": (1, 2), "padding": (2, 0)},
        {"dilation": 2, "padding": 2},
        {"groups": 2},
        {"bias": False},
        {"padding": "same"},
        {"padding": "valid"},
    ],
    ids=str,
)
def test_convolution_modules(options: dict[str, Any]) -> None:
    assert_equal(nets.randomised(nn.Conv2d(2, 4, 3, **{"padding": 1, **options}), 0), IMAGE)


@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalisation_is_folded(affine: bool) -> None:
    dense = nn.Sequential(fc(), bn(nn.BatchNorm1d(6, affine=affine)), nn.ReLU(), fc(1, 6, 2))
    assert [type(n.op) for n in assert_equal(dense, VECTOR).nodes[1:]] == [Linear, Relu, Linear]
    conv = nets.randomised(nn.Conv2d(2, 3, 3), 0)
    image = nn.Sequential(conv, bn(nn.BatchNorm2d(3, affine=affine)), nn.ReLU())
    assert [type(n.op) for n in assert_equal(image, IMAGE).nodes[1:]] == [Conv2d, Relu]


def test_batch_normalisation_that_cannot_be_folded_stays() -> None:
    first = nn.Sequential(bn(nn.BatchNorm2d(2)), nets.randomised(nn.Conv2d(2, 3, 3, padding=1), 0), nn.Flatten())
    assert [type(n.op) for n in assert_equal(first, IMAGE).nodes[1:]] == [Scale, Conv2d, Reshape]
    after = nn.Sequential(nets.randomised(nn.Conv2d(2, 3, 3), 0), nn.ReLU(), bn(nn.BatchNorm2d(3)))
    assert_equal(after, IMAGE)
    axis = nn.Sequential(nn.Unflatten(1, (2, 3)), bn(nn.BatchNorm1d(2)), fc(0, 3, 2))
    assert_equal(axis, VECTOR)


def test_modules_without_effect() -> None:
    parts = [fc(), nn.Dropout(0.9), nn.Identity(), nn.ReLU(inplace=True), nn.Unflatten(1, (2, 3)), nn.Flatten()]
    assert [type(n.op) for n in assert_equal(nn.Sequential(*parts), VECTOR).nodes[1:]] == [Linear, Relu]


@pytest.mark.parametrize("module", [nn.Flatten(), nn.ReLU(), nn.Identity()])
def test_models_without_weights(module: nn.Module) -> None:
    assert to_network(module.eval(), IMAGE).dtype is torch.float32


@given(nets.networks())
def test_random_networks(made: tuple[nn.Module, tuple[int, ...]]) -> None:
    assert_equal(*made)


def test_nothing_of_the_module_changes() -> None:
    module = nets.random_resnet(0)
    before = copy.deepcopy(module.state_dict())
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    to_network(module, (1, 4, 4))
    assert not module.training
    assert all(p.requires_grad and p.grad is None and p.dtype is torch.float32 for p in module.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), module.state_dict().values(), strict=True))


def test_the_network_is_a_copy_of_the_weights() -> None:
    module = nn.Linear(3, 2).double().eval()
    network = to_network(module, (3,))
    before = network(torch.ones(1, 3, dtype=torch.float64))
    with torch.no_grad():
        module.weight.zero_()
    assert torch.equal(network(torch.ones(1, 3, dtype=torch.float64)), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    module = nets.random_mlp(0).to(dtype)
    network = to_network(module, (4,))
    assert network.dtype is torch.float32
    assert network.oracle is not None
    x = torch.rand(3, 4)
    torch.testing.assert_close(network.oracle(x), copy.deepcopy(module).float()(x))
    assert next(module.parameters()).dtype is dtype


def test_double_precision_is_kept() -> None:
    assert to_network(nets.random_mlp(0).double(), (4,)).dtype is torch.float64


# What is refused: by whom, and in which words.


def refused(module: nn.Module, shape: tuple[int, ...], kind: type[AssayError], *words: str, code: int) -> None:
    with pytest.raises(kind) as caught:
        to_network(module, shape)
    assert caught.value.exit_code == code
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_unsupported_operations_are_listed_at_once() -> None:
    body = [nn.Linear(6, 6), nn.Hardshrink(), nn.Linear(6, 6), nn.Threshold(0.1, 3.0), nn.Linear(6, 6)]

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.body(x).tan().sort(1)[0]

    module = Forward(forward, body=nn.Sequential(*body)).eval()
    refused(module, VECTOR, UnsupportedError, "Hardshrink", "Threshold", "tan", "sort", "rewrite", code=50)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("sum", lambda m, x: m.fc(x) * x.split(3, dim=1)[0].sum()),
        ("max", lambda m, x: m.fc(x) - x.max(dim=1).values.max()),
        ("topk", lambda m, x: m.fc(x) + x.topk(1).values.sum()),
        ("pow", lambda m, x: x.abs() ** x),
        ("div", lambda m, x: torch.div(x, 2, rounding_mode="floor")),
        ("tan", lambda m, x: x.tan()),
        ("bitwise_and", lambda m, x: (x.int() & 3).float()),
        ("index_put", lambda m, x: x.clone().index_put_((x > 0.5,), torch.zeros(()))),
        ("eq", lambda m, x: x * (x == 0.5)),
        ("softplus", lambda m, x: F.softplus(x, threshold=1.0)),
        ("clamp", lambda m, x: x.clamp(min=m.fc(x))),
        ("size of the batch", lambda m, x: F.linear(m.fc(x), x.view(-1, 6))),
        ("to", lambda m, x: m.fc(x).to(torch.complex64).real),
        ("dropout", lambda m, x: F.dropout(m.fc(x), 1e-9)),
        ("flip", lambda m, x: x.flip(0)),
    ],
)
def test_what_has_no_translation_is_named(name: str, function: Callable[[Any, Tensor], Tensor]) -> None:
    refused(Forward(function, fc=fc()).eval(), VECTOR, UnsupportedError, name, code=50)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_convolutions_pad_in_every_mode(mode: str) -> None:
    assert_equal(nets.randomised(nn.Conv2d(2, 2, 3, padding=(1, 2), padding_mode=mode), 0), IMAGE)


def test_statistics_of_the_batch_are_refused() -> None:
    mixing = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, track_running_stats=False)).eval()
    refused(mixing, VECTOR, InputError, "depends on the batch", "1 normalises", code=40)


def test_branches_are_refused() -> None:
    module = Forward(lambda m, x: x if x.sum() > 0 else -x).eval()
    refused(module, VECTOR, UnsupportedError, "branches on data", code=50)


def test_train_mode_is_refused_and_named() -> None:
    module = nets.random_resnet(0)
    module.get_submodule("body.1").train()
    refused(module, (1, 4, 4), InputError, "body.1", "eval()", code=40)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    module = nets.random_mlp(0)
    module.get_parameter("2.weight").data[0, 0] = value
    refused(module, (4,), InputError, "2.weight", code=40)


def test_buffers_that_are_not_finite_are_named() -> None:
    module = nets.random_resnet(0)
    module.get_buffer("stem.1.running_var")[0] = float("nan")
    refused(module, (1, 4, 4), InputError, "stem.1.running_var", code=40)


@pytest.mark.parametrize(
    ("module", "shape"), [(nn.Linear(6, 2), (5,)), (nn.Conv2d(1, 2, 3), (28, 28)), (nn.Linear(6, 2), ())]
)
def test_a_wrong_shape_is_refused(module: nn.Module, shape: tuple[int, ...]) -> None:
    refused(module.eval(), shape, InputError, str(shape), code=40)


def test_a_module_needs_a_shape() -> None:
    with pytest.raises(InputError, match="input_shape"):
        to_network(nn.ReLU().eval())


def test_an_output_that_ignores_the_input_is_refused() -> None:
    module = Forward(lambda m, x: m.c.repeat(2, 1), c=C).eval()
    refused(module, VECTOR, InputError, "depend", code=40)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x.view(1, -1),
        lambda m, x: m.fc(x).view(2, -1),
        lambda m, x: m.fc(x) * x.size(0),
        lambda m, x: m.fc(x).flatten(),
        lambda m, x: m.fc(x).sum(0, keepdim=True).expand(x.shape[0], -1),
        lambda m, x: m.fc(x).mean(0) + x,
        lambda m, x: m.fc(x.unsqueeze(1)).squeeze(),
    ],
    ids=["one-row", "two-rows", "times-batch", "flat", "summed", "mean", "squeeze-of-a-batch-of-one"],
)
def test_what_depends_on_the_batch_is_refused(function: Callable[[Any, Tensor], Tensor]) -> None:
    """Refused in one line of ours: not read wrongly, and no error of torch's passes through."""
    with pytest.raises(AssayError):
        to_network(Forward(function, fc=fc()).eval(), VECTOR)


def test_a_value_overwritten_in_place_and_read_again_is_not_misread() -> None:
    """h is positive on every point that the import looks at, and yet relu_ changes what is read of it later."""

    def forward(m: Any, x: Tensor) -> Tensor:
        h = x + 100
        return F.relu_(h) + h

    module = Forward(forward).eval()
    try:
        network = to_network(module, (1,))
    except AssayError:
        return
    x = torch.tensor([[-150.0]])
    assert torch.equal(network(x.double()), module(x.clone()).double())


@pytest.mark.parametrize(
    "function",
    [lambda m, x: m.fc(_iadd(x, m.c)), lambda m, x: m.fc(F.relu_(x)), lambda m, x: m.fc(x.view(-1, 6).sub_(0.5))],
    ids=["iadd", "relu_", "view-sub_"],
)
def test_a_model_that_overwrites_its_input(function: Callable[[Any, Tensor], Tensor]) -> None:
    """Either it is refused, or reading and checking it leave the caller's points alone."""
    module = Forward(function, fc=fc(), c=C).eval()
    try:
        network = to_network(module, VECTOR)
    except AssayError:
        return
    x = torch.full((6,), -0.25)
    label = int(network(x.double()[None]).argmin())
    problem = Problem.robustness(network, x, label, 0.0, domain=None)
    (found,) = check([problem], [Result(problem.id, "test", Verdict.FALSIFIED, counterexample=x)])
    assert found.verdict is Verdict.FALSIFIED
    assert torch.equal(x, torch.full((6,), -0.25))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["spectral_norm", "weight_norm", "orthogonal"])
def test_parametrised_weights_are_read_as_evaluated(kind: str, dtype: torch.dtype) -> None:
    """The weights that the model's own forward uses, to the last bit, and the model stays as it is."""
    parametrised = getattr(nn.utils.parametrizations, kind)
    module = nn.Sequential(parametrised(fc()), nn.ReLU(), parametrised(fc(1)), fc(2)).to(dtype).eval()
    before = copy.deepcopy(module.state_dict())
    network = to_network(module, VECTOR)
    assert [type(n.op) for n in network.nodes[1:]] == [Linear, Relu, Linear, Linear]
    used = (module.float() if dtype is torch.float16 else module)[0].weight
    assert torch.equal(network.nodes[1].op.weight, used.double())  # type: ignore[attr-defined]
    assert all(
        torch.equal(a.to(b.dtype), b) for a, b in zip(module.state_dict().values(), before.values(), strict=True)
    )


def test_live_parametrised_weights_follow_their_parameters() -> None:
    module = nn.Sequential(nn.utils.parametrizations.weight_norm(fc()), nn.ReLU()).eval()
    x = torch.rand(3, 6)
    for _ in range(2):
        network, output = read_live(module, x)
        torch.testing.assert_close(network(x), module(x))
        torch.testing.assert_close(output, module(x))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(-1.5)
