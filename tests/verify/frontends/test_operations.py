"""Every operation that is read from torch: translated, and bounded soundly on boxes and balls of every size."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.verify.core.budget import Budget
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import to_network
from assay.verify.core.region import LpBall
from assay.verify.registry import get_bounder
from tests.breadth import few
from tests.nets import generator

ROWS, SAMPLES, POINTS = 4, 6, 84  # with five regions, 10,080 cases an operation and method


class Forward(nn.Module):
    """A forward function with the modules that it calls."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        """The function's value."""
        return self.function(self, x)


def headed(*layers: nn.Module) -> nn.Module:
    """The layers, flattened, and a linear head of three outputs."""
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3))


def slices(m: Any, x: Tensor) -> Tensor:
    """Concatenation, slicing and transposition."""
    both = torch.cat([F.relu(m.c(x)), x[:, :, 1:-1, 1:-1]], 1)
    head: Tensor = m.l(both.permute(0, 2, 3, 1)[:, ::2].flatten(1))
    return head


def padding(m: Any, x: Tensor) -> Tensor:
    """Constant padding before a convolution, reflection after an activation."""
    h = F.pad(F.relu(m.c(F.pad(x, (1, 0, 0, 2), value=0.3))), (1, 1), mode="constant")
    head: Tensor = m.l(F.pad(h, (1, 1, 1, 1), mode="reflect").flatten(1))
    return head


def clips(m: Any, x: Tensor) -> Tensor:
    """Every form of clamping."""
    h = F.relu6(m.a(x) * 20).clamp(1, 3).clamp(min=1.5).clamp(max=2)
    head: Tensor = m.l(h + F.hardtanh(m.a(x)))
    return head


def products(m: Any, x: Tensor) -> Tensor:
    """Products with constants from either side, alike and different for each channel."""
    one, many = torch.linspace(-1, 2, 20).view(5, 4), torch.linspace(1, -2, 24).view(2, 4, 3)
    h = torch.einsum("bchw,cwo->bcho", F.relu(torch.einsum("ih,bchw->bciw", one, x)), many)
    more = torch.baddbmm(h[:, 0], h[:, 1], many[:1, :3].expand(x.shape[0], 3, 3), beta=0.5, alpha=2)
    head: Tensor = m.l((h + more[:, None]).flatten(1))
    return head


def written(m: Any, x: Tensor) -> Tensor:
    """Values overwritten in place, through views of them."""
    h = m.a(x)
    y = torch.zeros(x.shape[0], 8)
    y[:, 1:7] = h
    y[:, 2:5].relu_()
    y.view(-1, 2, 4)[:, 1] += y[:, :4]
    y[:, 7] = 0.3
    head: Tensor = m.b(y)
    return head


def extremes(m: Any, x: Tensor) -> Tensor:
    """Maxima and minima of two values, of one and a constant, over an axis, and magnitudes."""
    h, g = m.a(x), m.a(1 - x)
    both = torch.maximum(h, g) - torch.minimum(g, torch.tensor(0.2)) + h.abs()
    head: Tensor = m.b(both + both.view(-1, 2, 3).amax(1).repeat(1, 2) - both.min(1, keepdim=True)[0])
    return head


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d": (
        lambda: headed(nn.Conv1d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Conv1d(3, 2, 2), nn.ReLU()),
        (2, 9),
    ),
    "conv2d": (
        lambda: headed(nn.Conv2d(2, 4, 3, 2, 1, groups=2), nn.ReLU(), nn.Conv2d(4, 2, 2, dilation=2), nn.ReLU()),
        (2, 7, 7),
    ),
    "conv2d-same": (lambda: headed(nn.Conv2d(1, 2, 2, padding="same"), nn.ReLU(), nn.Conv2d(2, 2, 3)), (1, 5, 5)),
    "conv-transpose": (
        lambda: headed(
            nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 2, 2, dilation=2),
            nn.ReLU(),
        ),
        (2, 3, 3),
    ),
    "leaky-relu": (
        lambda: nn.Sequential(
            nn.Linear(4, 6), nn.LeakyReLU(0.1), nn.Linear(6, 6), nn.LeakyReLU(2.0), nn.Linear(6, 6), nn.LeakyReLU(1.0)
        ),
        (4,),
    ),
    "sigmoid": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 6), nn.Sigmoid()), (4,)),
    "tanh": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)), (4,)),
    "tanh-saturated": (
        lambda: Forward(lambda m, x: m.b(torch.tanh(m.a(x * 40 - 20))), a=nn.Linear(4, 6), b=nn.Linear(6, 3)),
        (4,),
    ),
    "conv3d": (
        lambda: headed(
            nn.Conv3d(2, 2, (2, 3, 1), stride=(1, 2, 1), padding=(1, 0, 0), dilation=(2, 1, 1), groups=2), nn.ReLU()
        ),
        (2, 3, 5, 2),
    ),
    "pools-3d": (
        lambda: headed(
            nn.AvgPool3d(2, stride=1), nn.ReLU(), nn.MaxPool3d((1, 2, 2), padding=(0, 1, 0)), nn.AdaptiveAvgPool3d(2)
        ),
        (1, 3, 4, 5),
    ),
    "bilinear": (
        lambda: Forward(
            lambda m, x: m.b(m.a(x)[:, :3], F.relu(m.a(x)[:, 3:])), a=nn.Linear(4, 5), b=nn.Bilinear(3, 2, 3)
        ),
        (4,),
    ),
    "max-pool": (lambda: headed(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)), (1, 6, 6)),
    "max-pool-overlapping": (
        lambda: headed(nn.Conv2d(1, 3, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 2, 2), nn.ReLU()),
        (1, 6, 6),
    ),
    "max-pool-ceil": (lambda: headed(nn.MaxPool2d(2, 2, 1, dilation=2, ceil_mode=True)), (2, 7, 7)),
    "max-pool-1d": (lambda: headed(nn.Conv1d(2, 3, 3, padding="same"), nn.ReLU(), nn.MaxPool1d(2)), (2, 9)),
    "avg-pool": (
        lambda: headed(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AvgPool2d(2, 1, 1, count_include_pad=False), nn.ReLU()),
        (1, 6, 6),
    ),
    "avg-pool-1d": (lambda: headed(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.AvgPool1d(2, 1, 1), nn.ReLU()), (2, 9)),
    "adaptive-avg-pool": (lambda: headed(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d((3, 2))), (1, 6, 7)),
    "mean": (
        lambda: Forward(lambda m, x: m.l(F.relu(m.c(x)).mean([2, 3])), c=nn.Conv2d(1, 3, 3), l=nn.Linear(3, 3)),
        (1, 6, 7),
    ),
    "pad": (lambda: Forward(padding, c=nn.Conv2d(1, 2, 3), l=nn.LazyLinear(3)), (1, 5, 5)),
    "cat-slice-permute": (lambda: Forward(slices, c=nn.Conv2d(1, 3, 3), l=nn.LazyLinear(3)), (1, 6, 6)),
    "chunk-split": (
        lambda: Forward(lambda m, x: m.l(x.chunk(2, 1)[0].relu() - x.split(2, 1)[1]), l=nn.Linear(2, 3)),
        (4,),
    ),
    "clamp": (lambda: Forward(clips, a=nn.Linear(4, 6), l=nn.Linear(6, 3)), (4,)),
    "dropout": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.9), nn.ReLU(), nn.Linear(6, 3)), (4,)),
    "products": (lambda: Forward(products, l=nn.LazyLinear(3)), (2, 4, 4)),
    "written-in-place": (lambda: Forward(written, a=nn.Linear(4, 6), b=nn.Linear(8, 3)), (4,)),
    "extremes": (lambda: Forward(extremes, a=nn.Linear(4, 6), b=nn.Linear(6, 3)), (4,)),
    "hard-sigmoid": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.Hardsigmoid(), nn.PReLU(6, -0.2), nn.Linear(6, 3)),
        (4,),
    ),
    "interpolation": (
        lambda: headed(
            nn.Upsample(scale_factor=2, mode="bilinear"), nn.ReLU(), nn.Upsample(size=(5, 3), mode="bicubic")
        ),
        (2, 3, 3),
    ),
    "nearest": (
        lambda: headed(nn.Conv2d(1, 4, 2), nn.Upsample(scale_factor=2), nn.ReLU(), nn.PixelShuffle(2)),
        (1, 3, 3),
    ),
    "adaptive-max-pool": (lambda: headed(nn.Conv2d(1, 3, 3), nn.AdaptiveMaxPool2d((3, 2)), nn.ReLU()), (1, 6, 7)),
    "conv-transpose-1d": (lambda: headed(nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1), nn.ReLU()), (2, 5)),
    "images-on-the-axis-of-the-batch": (
        lambda: Forward(
            lambda m, x: m.l(F.max_pool2d(F.relu(m.c(x.reshape(-1, 1, 6, 6))), 2).reshape(x.shape[0], -1)),
            c=nn.Conv2d(1, 2, 3, padding=1),
            l=nn.Linear(36, 3),
        ),
        (2, 6, 6),
    ),
    "linear-on-the-last-axis": (
        lambda: Forward(lambda m, x: m.b(m.a(x).relu().flatten(1)), a=nn.Linear(4, 5), b=nn.Linear(15, 3)),
        (3, 4),
    ),
}

REGIONS = [(0.0, inf, (0.0, 1.0)), (0.1, inf, (0.0, 1.0)), (0.5, 2, (0.0, 1.0)), (1.0, 1, (0.0, 1.0)), (3.0, inf, None)]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", few(CASES, quick=list(CASES)[::4]))
def test_sampled_points_lie_inside_the_bounds(name: str) -> None:
    build, shape = CASES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build()
        module(torch.zeros(1, *shape))
    network = to_network(module.eval(), shape)
    rng = generator(1)
    for eps, norm, domain in REGIONS:
        centre = torch.rand((SAMPLES, *shape), generator=rng)
        ball = LpBall(centre, eps, norm, domain)
        size = (SAMPLES, ROWS, network.output_size)
        objective = torch.randn(size, generator=rng, dtype=torch.float64)
        points = torch.stack([ball.point(torch.rand(centre.shape, generator=rng)) for _ in range(POINTS)])
        outputs = network(points.double().flatten(0, 1)).view(POINTS, SAMPLES, -1)
        values = torch.einsum("sro,pso->psr", objective, outputs)
        slack = 1e-9 * (1 + values.abs())
        widths = []
        for method in ("ibp", "crown"):
            found = get_bounder(method).bound(network, ball, objective, Budget())
            assert bool((found.lower <= values + slack).all()), (method, eps, norm)
            assert bool((found.upper >= values - slack).all()), (method, eps, norm)
            widths.append(found.upper - found.lower)
        assert bool((widths[1] <= widths[0] + 1e-9 * (1 + widths[0])).all())
        if eps == 0:
            assert float(widths[0].max()) < 1e-9


def test_pooling_over_the_edge_takes_no_padding_into_account() -> None:
    """All values below zero: a maximum over padded zeros would be wrong."""
    network = to_network(nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Flatten()).eval(), (1, 3, 3))
    assert torch.equal(network(torch.full((1, 1, 3, 3), -2.0)), torch.full((1, 9), -2.0))


def test_ends_of_clamping_that_are_infinite_are_none() -> None:
    x = torch.linspace(-1, 1, 4, dtype=torch.float64)[None]
    for clamped in (lambda m, x: m.a(x).clamp(-inf, 0.2), lambda m, x: torch.maximum(m.a(x), torch.full((4,), -inf))):
        module = Forward(clamped, a=nn.Linear(4, 4)).eval()
        with torch.no_grad():
            torch.testing.assert_close(to_network(module, (4,))(x), module.double()(x))
    some = Forward(lambda m, x: m.a(x).clamp(min=torch.tensor([-inf, 0.0, 0.0, 0.0])), a=nn.Linear(4, 4)).eval()
    with pytest.raises(UnsupportedError, match="no end in some places"):
        to_network(some, (4,))


def test_a_softplus_that_becomes_the_identity_agrees_in_float64() -> None:
    """Beyond its threshold it is off by 2e-9, which the next layer may raise."""
    module = nn.Sequential(nn.Linear(1, 1), nn.Softplus(), nn.Linear(1, 1), Forward(lambda m, x: x.cos())).eval()
    with torch.no_grad():
        for layer, weight, bias in ((module[0], 0.1, 20.001), (module[2], 1000.0, 0.0)):
            layer.weight.fill_(weight)
            layer.bias.fill_(bias)
    assert to_network(module, (1,)).output_size == 1


def test_what_overflows_on_the_way_is_not_compared() -> None:
    """The norm of 1e25 is infinite in float32, and what is divided by it is 0."""
    module = Forward(lambda m, x: F.normalize(1e25 * m.a(x), dim=-1), a=nn.Linear(4, 3)).eval()
    network = to_network(module, (4,))
    error, _ = network.rounding_error(torch.ones(1, 4), torch.float32)
    assert not bool(error.isfinite().any())
