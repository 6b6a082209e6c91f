"""Random modules of torch: each is read as it runs, or refused by name; never misread, and never an internal error."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Network, to_network
from assay.verify.core.region import Box
from assay.verify.registry import get_bounder

QUICK, MANY = 36, 150
Function = Callable[[Tensor], Tensor]


@dataclass(eq=False)
class Draw:
    """A source of random choices, and the shape of a sample so far: (features), (channels x length) or an image."""

    rng: random.Random
    shape: tuple[int, ...]

    def one(self, *choices: Any) -> Any:
        """One of them."""
        return self.rng.choice(choices)

    def tensor(self, *shape: int) -> Tensor:
        """Random numbers."""
        return torch.randn(shape, generator=torch.Generator().manual_seed(self.rng.randrange(2**30)))


class Steps(nn.Module):
    """Functions one after the other, with the modules that they call."""

    def __init__(self, steps: list[tuple[str, Any]]) -> None:
        super().__init__()
        self.names = [name for name, _ in steps]
        self.steps = [step for _, step in steps]
        self.parts = nn.ModuleList([step for step in self.steps if isinstance(step, nn.Module)])

    def forward(self, x: Tensor) -> Tensor:
        """All of them."""
        x = x.clone()  # some write in place
        for step in self.steps:
            x = step(x)
        return x


def linear(d: Draw) -> Any:
    return nn.Linear(d.shape[-1], d.one(1, 3, 4), bias=d.one(True, False))


def functional_product(d: Draw) -> Any:
    weight = d.tensor(d.shape[-1], d.one(2, 3))
    return d.one(
        lambda x: x @ weight, lambda x: torch.einsum("...i,io->...o", x, weight), lambda x: F.linear(x, weight.T)
    )


def product_from_the_left(d: Draw) -> Any:
    if len(d.shape) < 2:
        return None
    weight = d.tensor(3, d.shape[-2])
    return d.one(lambda x: weight @ x, lambda x: torch.einsum("oi,...ij->...oj", weight, x))


def batched_product(d: Draw) -> Any:
    if len(d.shape) != 3:
        return None
    channels, _, width = d.shape
    right, left = d.tensor(channels, width, 2), d.tensor(channels, 2, d.shape[1])
    return d.one(lambda x: x @ right, lambda x: left @ x, lambda x: torch.einsum("bchw,cwo->bcho", x, right))


def convolution(d: Draw) -> Any:
    if len(d.shape) < 2:
        return None
    kind = d.one(nn.Conv1d, nn.ConvTranspose1d) if len(d.shape) == 2 else d.one(nn.Conv2d, nn.ConvTranspose2d)
    channels = d.shape[0]
    groups = d.one(1, channels)
    options = {"stride": d.one(1, 2), "padding": d.one(0, 1), "dilation": d.one(1, 2), "groups": groups}
    if kind in (nn.Conv1d, nn.Conv2d):
        options["padding_mode"] = d.one("zeros", "zeros", "reflect", "replicate", "circular")
    return kind(channels, 2 * channels, d.one(1, 2, 3), bias=d.one(True, False), **options)


def normalisation(d: Draw) -> Any:
    size = d.shape[0]
    kind = nn.BatchNorm2d if len(d.shape) == 3 else nn.BatchNorm1d
    if len(d.shape) > 1 and d.one(True, False):
        kind = nn.InstanceNorm2d if len(d.shape) == 3 else nn.InstanceNorm1d
    layer: Any = kind(size, affine=d.one(True, False), track_running_stats=True)
    layer.running_mean.copy_(d.tensor(size))
    layer.running_var.copy_(d.tensor(size).abs() + 0.1)
    return layer


def activation(d: Draw) -> Any:
    constant = d.tensor(d.shape[-1])
    return d.one(
        *(
            nn.ReLU(),
            nn.ReLU(inplace=True),
            nn.LeakyReLU(0.2),
            nn.LeakyReLU(1.5),
            nn.PReLU(),
            nn.ReLU6(),
            nn.Hardtanh(),
        ),
        *(nn.Tanh(), nn.Sigmoid(), nn.Hardsigmoid(), nn.Threshold(0.0, 0.0), nn.PReLU(d.shape[0], init=-0.3)),
        *(torch.abs, lambda x: x.clamp(-0.5, 0.7), lambda x: x.clamp(max=0.1), lambda x: torch.maximum(x, 1 - x)),
        *(lambda x: torch.minimum(x, constant), lambda x: torch.max(constant, x), lambda x: x.clamp(min=constant)),
    )


def pooling(d: Draw) -> Any:
    kernel, stride, padding, ceil = d.one(2, 3), d.one(1, 2), d.one(0, 1), d.one(True, False)
    if len(d.shape) == 2:
        return d.one(
            nn.MaxPool1d(kernel, stride, padding, ceil_mode=ceil),
            nn.AvgPool1d(kernel, stride, padding, ceil_mode=ceil, count_include_pad=d.one(True, False)),
            *(nn.AdaptiveAvgPool1d(2), nn.AdaptiveMaxPool1d(2)),
        )
    if len(d.shape) == 3:
        return d.one(
            nn.MaxPool2d(kernel, stride, padding, d.one(1, 2), ceil_mode=ceil),
            nn.AvgPool2d(kernel, stride, padding, ceil, d.one(True, False), d.one(None, 3)),
            *(nn.AdaptiveAvgPool2d((2, 3)), nn.AdaptiveMaxPool2d((3, 2)), nn.AdaptiveAvgPool2d(1)),
        )
    return None


def resizing(d: Draw) -> Any:
    if len(d.shape) == 2:
        return nn.Upsample(scale_factor=2, mode=d.one("nearest", "linear"))
    if len(d.shape) == 3 and d.shape[1] * d.shape[2] <= 64:
        mode = d.one("nearest", "nearest-exact", "bilinear", "bicubic")
        corners = d.one(True, False) if mode in ("bilinear", "bicubic") else None
        size = d.one(None, (d.shape[1] + 1, d.shape[2] + 2))
        return nn.Upsample(size, None if size else 1.5, mode, corners)
    return None


def padding(d: Draw) -> Any:
    mode = d.one("constant", "constant", "reflect", "replicate", "circular")
    sides = [d.one(0, 1, 2) for _ in range(2 * (len(d.shape) - 1))] or [1, 2]
    return lambda x: F.pad(x, sides, mode, 0.3 if mode == "constant" else None)


def moving(d: Draw) -> Any:
    axis = d.rng.randrange(1, len(d.shape) + 1)
    size = d.shape[axis - 1]
    index = torch.tensor([d.rng.randrange(size) for _ in range(d.one(1, 3))])
    mask = d.tensor(*d.shape) > 0
    return d.one(
        *(lambda x: x.flip(axis), lambda x: x.roll(1, axis), lambda x: x.index_select(axis, index)),
        *(lambda x: torch.cat([x, -x], axis), lambda x: torch.cat([x, torch.ones_like(x)], axis)),
        *(lambda x: torch.stack([x, 2 * x], axis).flatten(axis, axis + 1), lambda x: x.transpose(1, -1).contiguous()),
        *(lambda x: x.masked_fill(mask, 0.25), lambda x: torch.where(mask, x, x - 1), lambda x: x[:, mask]),
        *(lambda x: x.unsqueeze(1).expand(-1, 2, *x.shape[1:]).flatten(1, 2), lambda x: x.repeat_interleave(2, axis)),
        *(lambda x: x.movedim(axis, 1), lambda x: x.narrow(axis, 0, max(size - 1, 1)), lambda x: x.flatten(1)),
        *(
            lambda x: sum(x.split(1, axis)) * torch.ones(size, *[1] * (len(d.shape) - axis)),
            lambda x: x.unsqueeze(1).tril().squeeze(1),
        ),
    )


def writing(d: Draw) -> Any:
    def half(x: Tensor) -> Tensor:
        y = x.clone()
        y[:, : d.shape[0] // 2] = -1.5
        y[:, -1] += y[:, 0]
        return y

    def collected(x: Tensor) -> Tensor:
        y = x.new_zeros(x.shape[0], d.shape[0] + 1, *d.shape[1:])
        y[:, 1:] = x
        y[:, :1].copy_(x[:, -1:])
        return y

    def through_a_view(x: Tensor) -> Tensor:
        y = x + 0.5
        y.transpose(1, -1)[:, 0].mul_(3)
        y.view(x.shape[0], -1)[:, ::2].relu_()
        return y

    return d.one(half, collected, through_a_view)


def arithmetic(d: Draw) -> Any:
    constant, positive = d.tensor(*d.shape), d.tensor(d.shape[-1]).abs() + 0.5
    return d.one(
        *(lambda x: (x - 0.3) / positive, lambda x: constant - x, lambda x: x * constant + 1, lambda x: 2 - x / 3),
        *(
            lambda x: torch.sub(constant, x, alpha=2),
            lambda x: torch.add(x, x.relu(), alpha=-0.5),
            lambda x: -x + x.abs(),
        ),
        *(
            lambda x: x + x.mean(-1, keepdim=True),
            lambda x: x - x.sum(1, keepdim=True) / 4,
            lambda x: x.double().float(),
        ),
    )


def reduction(d: Draw) -> Any:
    if len(d.shape) < 2:
        return None
    axis = d.rng.randrange(1, len(d.shape) + 1)
    return d.one(
        *(lambda x: x.mean(axis), lambda x: x.sum(axis), lambda x: x.amax(axis), lambda x: x.min(axis)[0]),
        *(lambda x: x.max(axis, keepdim=True).values, lambda x: x.mean(tuple(range(2, x.dim())))),
    )


def smooth(d: Draw) -> Any:
    return d.one(
        *(
            nn.GELU(),
            nn.GELU("tanh"),
            nn.SiLU(),
            nn.Mish(),
            nn.Softplus(),
            nn.Softplus(2.0),
            nn.Softsign(),
            nn.ELU(0.7),
        ),
        *(nn.ELU(1.5), nn.SELU(), nn.CELU(0.5), nn.Hardswish(), nn.LogSigmoid(), nn.Tanhshrink(), nn.Softshrink(0.3)),
        *(torch.sin, torch.cos, torch.erf, torch.arctan, torch.asinh, torch.square, lambda x: (x / 8).exp()),
        *(lambda x: x.clamp(max=3).expm1(), lambda x: (1 + x.relu()).log(), lambda x: x.square().log1p()),
        *(lambda x: (1 + x * x).sqrt(), lambda x: (1 + x.abs()).rsqrt(), lambda x: (2 + x.sin()).reciprocal()),
        *(lambda x: (x / 4) ** 3, lambda x: (1 + x.abs()) ** 1.5, lambda x: (1 + x**2) ** -2, lambda x: 2 ** x.tanh()),
        *(lambda x: (x / 8).sinh(), lambda x: (x / 8).cosh(), lambda x: x.clamp(max=3).exp2()),
    )


def product_of_values(d: Draw) -> Any:
    gate = nn.Linear(d.shape[-1], d.shape[-1])
    return d.one(
        *(lambda x: x * gate(x), lambda x: x * x, lambda x: x * x.mean(-1, keepdim=True), lambda x: x / (1 + x.abs())),
        *(lambda x: gate(x) / (1 + x.square()), lambda x: 1 / (1 + x * x), lambda x: x.lerp(gate(x), 0.3)),
        *(lambda x: F.glu(torch.cat([x, gate(x)], -1)), lambda x: x.unsqueeze(-1) @ x.unsqueeze(-2)),
        *(lambda x: torch.einsum("...i,...i->...", x, gate(x))[..., None], lambda x: x.unsqueeze(1) @ x.unsqueeze(-1)),
    )


def own_statistics(d: Draw) -> Any:
    layers = [nn.LayerNorm(d.shape[-1]), nn.RMSNorm(d.shape[-1], eps=1e-3), nn.GroupNorm(1, d.shape[0])]
    if len(d.shape) == 3 and d.shape[1] * d.shape[2] > 1:
        layers.append(nn.InstanceNorm2d(d.shape[0], affine=True))
    return d.one(
        *layers,
        *(lambda x: F.normalize(x + 3, dim=-1), lambda x: x - x.norm(dim=-1, keepdim=True)),
        *(lambda x: x / (1 + x.std(-1, keepdim=True, correction=0)), lambda x: x * (1 + x.var(-1, keepdim=True))),
        *(
            lambda x: x + x.norm(1, -1, keepdim=True),
            lambda x: x - x.norm(torch.inf, -1, keepdim=True),
        ),
    )


def softmax(d: Draw) -> Any:
    axis = d.rng.randrange(1, len(d.shape) + 1)
    rows = d.shape[-2] if len(d.shape) > 1 else 1
    seen = torch.ones(rows, rows, dtype=torch.bool).tril()
    attention = [lambda x: F.scaled_dot_product_attention(x, x, x, seen), lambda x: (x @ x.mT).softmax(-1) @ x]
    return d.one(
        *(lambda x: x.softmax(axis), lambda x: x.log_softmax(axis), lambda x: F.softmin(x, axis) * 2),
        *(lambda x: x.logsumexp(axis, keepdim=True), lambda x: x.cumsum(axis)),
        *(attention if len(d.shape) > 1 else []),
    )


def larger(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(x < y, y, x)


def chosen(d: Draw) -> Any:
    other = nn.Linear(d.shape[-1], d.shape[-1])
    return d.one(
        *(lambda x: (x > 0.1).float(), lambda x: torch.where(x > 0, x, 0.2 * x), lambda x: x * (x >= -0.3)),
        *(lambda x: larger(x, other(x)), lambda x: x.masked_fill(x <= 0.1, 0.1)),
        *(lambda x: torch.where((x > 0) & ~(x > 1), x, other(x)), lambda x: ((x < -1) | (x > 1)) * x),
        *(lambda x: x.round(), lambda x: x.floor() - x.ceil(), lambda x: x.sign() + x, lambda x: x.trunc()),
    )


def recurrent(d: Draw) -> Any:
    if len(d.shape) != 2 or d.shape[0] > 6:
        return None
    layer = d.one(nn.LSTM, nn.GRU, nn.RNN)(d.shape[1], 3, batch_first=True, bidirectional=d.one(True, False))
    return First(layer)


class First(nn.Module):
    """The first of what a layer gives."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """The states."""
        states: Tensor = self.layer(x)[0]
        return states


def unreadable(d: Draw) -> Any:
    return d.one(
        *(lambda x: x.sort(-1)[0], lambda x: x.abs() ** x, lambda x: x - x.mean(0), lambda x: x.bfloat16().float()),
        *(lambda x: x.cumprod(-1), lambda x: (x == 0) + x, lambda x: x.tan(), nn.Dropout(0.5).train()),
    )


READ = (linear, functional_product, product_from_the_left, batched_product, convolution, normalisation, activation)
READ += (pooling, resizing, padding, moving, writing, arithmetic, reduction)  # type: ignore[assignment]
CURVED = (smooth, product_of_values, own_statistics, softmax, chosen, recurrent)


def made(seed: int) -> tuple[Steps, tuple[int, ...], bool]:
    """A module in eval mode, the shape of its samples, and whether it holds something that is not read."""
    rng = random.Random(seed)
    shape = rng.choice([(5,), (3, 6), (2, 5, 6), (4, 4, 4)])
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(seed))
    steps: list[tuple[str, Any]] = []
    foreign = rng.random() < 0.15
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for i in range(rng.randint(2, 7)):
            draw = Draw(rng, tuple(x.shape[1:]))
            build = unreadable if foreign and i == 1 else rng.choice(CURVED if rng.random() < 0.4 else READ)
            step = build(draw)
            if isinstance(step, nn.Module) and not isinstance(step, nn.Dropout):
                step.eval()
            try:
                y = step(x.clone())
            except Exception:  # not for this shape
                continue
            fine = step is not None and y.dim() > 1 and len(y) == 2 and 0 < y.numel() <= 4000
            if fine and bool(y.isfinite().all()) and float(y.abs().max()) < 1e4:
                steps.append((build.__name__, step))
                x = y
    module = Steps(steps)
    if not any(isinstance(part, nn.Dropout) for part in module.modules()):
        module.eval()
    return module, shape, any(name == "unreadable" for name, _ in steps)


def examine(seed: int) -> bool:
    """Whether the module is read; it is, unless it holds what is not, or gives a constant."""
    module, shape, foreign = made(seed)
    network, refusal = None, ""
    try:
        network = to_network(module, shape)
    except (UnsupportedError, InputError) as error:
        refusal = str(error)
    if network is None:
        constant = "does not depend on its input" in refusal
        assert foreign or constant, f"seed {seed}, {module.names}: {refusal}"
        assert re.search("unsupported operations: |depends on the batch|draws at random|train mode|not depend", refusal)
        assert not constant or torch.equal(*(module(torch.randn(1, *shape)) for _ in range(2)))
        return False
    x = torch.cat([torch.rand(4, *shape), 3 * torch.randn(4, *shape), torch.zeros(1, *shape)])
    with torch.no_grad():
        true = module(x.clone())
    network = network.whole
    ours, (error, _) = network(x.double()), network.rounding_error(x, torch.float32)
    sure = true.isfinite() & (error < 0.1 * (1 + true.abs()))  # where it jumps or explodes, rounding decides
    slack = error + 1e-4 * (1 + true[sure].abs().sum() / max(int(sure.sum()), 1))
    assert bool(((ours - true).abs() <= slack)[sure].all()), f"seed {seed}, {module.names}"
    _contained(network, x[:1].double(), f"seed {seed}, {module.names}")
    return True


def _contained(network: Network, centre: Tensor, told: str) -> None:
    """No sampled point contradicts intervals; bounds that are NaN or infinite say nothing."""
    box = Box(centre[0] - 0.05, centre[0] + 0.05)
    bounds = get_bounder("ibp").bound(network, box, torch.eye(network.output_size, dtype=torch.float64), Budget(60))
    points = box.point(torch.rand((20, *network.input_shape), generator=torch.Generator().manual_seed(3)))
    values = network(points.double()).flatten(1)
    slack = 1e-9 * (1 + values.abs())
    assert not bool(((values < bounds.lower - slack) | (values > bounds.upper + slack)).any()), told


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("seed", range(QUICK))
def test_random_modules_are_read_or_refused(seed: int) -> None:
    examine(seed)


@pytest.mark.slow
def test_many_random_modules_are_read_or_refused() -> None:
    read = [examine(seed) for seed in range(QUICK, QUICK + MANY)]
    assert sum(read) > 0.8 * MANY
    assert not all(read)
