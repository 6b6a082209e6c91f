"""Networks with live weights: the module's own values, statistics and gradients, anew at every call."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from assay.models import architectures
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.ops import evaluate
from assay.verify.frontends.live import read_live

TEXTS = [
    "mlp(hidden=8-8,mean=0.3,std=0.5)",
    "mlp(hidden=8-8,batchnorm=true)",
    "cnn(channels=3-4,hidden=5)",
    "cnn(channels=3-4,hidden=5,batchnorm=true)",
    "resnet(channels=3-4)",
]


def built(text: str) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return architectures.parse(text).build((1, 8, 8), 10), torch.rand(6, 1, 8, 8)


def values(network: Network, x: Tensor) -> Tensor:
    """The output at x, operation by operation, with nothing copied."""
    found = [x]
    for node in network.nodes[1:]:
        found.append(evaluate(node.op, *(found[i] for i in node.inputs)))
    return found[-1]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("text", TEXTS)
def test_values_and_gradients_are_those_of_the_module(text: str, train: bool) -> None:
    model, x = built(text)
    model.train(train)
    network, output = read_live(model, x)
    assert network.dtype is torch.float32
    assert torch.equal(output, model(x))
    ours = values(network, x)
    torch.testing.assert_close(ours, output, rtol=1e-4, atol=1e-5)
    weights = list(model.parameters())
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    expected = torch.autograd.grad((output * weight).sum(), weights, retain_graph=True)
    got = torch.autograd.grad((ours * weight).sum(), weights)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * (1 + b.abs().max().item()))


def test_weights_are_read_anew() -> None:
    model, x = built(TEXTS[0])
    first, _ = read_live(model, x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    second, output = read_live(model, x)
    assert not torch.equal(values(second, x), values(first, x) / 2)
    torch.testing.assert_close(values(second, x), output)
    assert [type(n.op) for n in first.nodes] == [type(n.op) for n in second.nodes]


def test_running_statistics_move_once() -> None:
    (model, x), (other, _) = built(TEXTS[3]), built(TEXTS[3])
    read_live(model.train(), x)
    other.train()(x)
    for a, b in zip(model.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)


def test_each_mode_has_its_own_translation() -> None:
    model, x = built(TEXTS[1])
    _, training = read_live(model.train(), x)
    _, resting = read_live(model.eval(), x)
    assert not torch.equal(training, resting)
    assert torch.equal(resting, model(x))


class Attention(nn.Module):
    """Of tokens of two features with themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(2, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(batch x tokens x 2) to the same."""
        y: Tensor = self.inner(x, x, x, need_weights=False)[0]
        return y


def test_dropout_has_no_bounds_in_train_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2)).train()
    x = torch.rand(3, 4)
    with pytest.raises(UnsupportedError, match="Dropout"):
        read_live(model, x)
    network, output = read_live(model.eval(), x)
    torch.testing.assert_close(values(network, x), output)


def test_without_gradients_nothing_is_recorded() -> None:
    model, x = built(TEXTS[3])
    with torch.no_grad():
        _, output = read_live(model, x)
    assert not output.requires_grad


@pytest.mark.parametrize(
    "layer",
    [
        nn.Sequential(nn.GELU(), nn.LayerNorm(4)),
        nn.Sequential(nn.SiLU(), nn.Softplus(), nn.Softmax(1)),
        nn.Sequential(nn.Unflatten(1, (2, 2)), Attention(), nn.Flatten()),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_todays_layers_keep_their_weights(layer: nn.Module, training: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 4), layer, nn.Linear(4, 2)).train(training)
    x = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    network, output = read_live(model, x)
    ours = values(network, x)
    torch.testing.assert_close(ours, output)
    gradients = [torch.autograd.grad(y.square().sum(), list(model.parameters())) for y in (ours, output)]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_what_has_no_translation_is_named() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cumprod(x, 1)

    with pytest.raises(UnsupportedError, match="cumprod"):
        read_live(Odd(), torch.rand(2, 3))
