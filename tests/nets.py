"""Shared material of the tests: random networks, the float traps, exact evaluation, and hypothesis strategies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from math import inf

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from assay.verify.core.network import to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.core.spec import Spec

Shape = tuple[int, ...]


def generator(seed: int) -> torch.Generator:
    """Randomness of one's own: the global state stays untouched."""
    return torch.Generator().manual_seed(seed)


def randomised(module: nn.Module, seed: int) -> nn.Module:
    """``module`` in eval mode; its weights (He initialisation), biases and running statistics drawn from ``seed``."""
    rng = generator(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, (nn.Linear, nn.Conv2d)):
                part.weight.normal_(0, (2 / part.weight[0].numel()) ** 0.5, generator=rng)
                if part.bias is not None:
                    part.bias.normal_(0, 0.3, generator=rng)
            elif isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_(0, 0.5, generator=rng)
                part.running_var.uniform_(0.5, 2, generator=rng)
                part.weight.uniform_(-1.5, 1.5, generator=rng)
                part.bias.normal_(0, 0.3, generator=rng)
    return module.eval().requires_grad_(False)


def random_mlp(seed: int, sizes: Sequence[int] = (4, 8, 8, 3)) -> nn.Module:
    """Fully connected layers of the given widths, ReLU between them: (batch x sizes[0]) to (batch x sizes[-1]).

    >>> random_mlp(0, (4, 8, 3))(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return randomised(nn.Sequential(*layers[:-1]), seed)


def random_cnn(
    seed: int, shape: tuple[int, int, int] = (1, 6, 6), channels: Sequence[int] = (3, 4), classes: int = 3
) -> nn.Module:
    """Convolutions 3 x 3 of stride 2 with ReLU, then one fully connected layer: (batch x shape) to (batch x classes).

    >>> random_cnn(0)(torch.zeros(2, 1, 6, 6)).shape
    torch.Size([2, 3])
    """
    depth, height, width = shape
    layers: list[nn.Module] = []
    for before, after in pairwise([depth, *channels]):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        height, width = (height + 1) // 2, (width + 1) // 2
    head = [nn.Flatten(), nn.Linear(channels[-1] * height * width, classes)]
    return randomised(nn.Sequential(*layers, *head), seed)


class ResidualNet(nn.Module):
    """A stem, one residual block with BatchNorm (its shortcut a convolution), and a fully connected head."""

    def __init__(self, shape: tuple[int, int, int], width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(shape[0], width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
        )
        self.shortcut = nn.Conv2d(width, width, 1)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(width * shape[1] * shape[2], classes))

    def forward(self, x: Tensor) -> Tensor:
        """(batch x shape) to (batch x classes)."""
        h = torch.relu(self.stem(x))
        scores: Tensor = self.head(torch.relu(self.body(h) + self.shortcut(h)))
        return scores


def random_resnet(seed: int, shape: tuple[int, int, int] = (1, 4, 4), width: int = 3, classes: int = 3) -> nn.Module:
    """:class:`ResidualNet` with running statistics that are not trivial: (batch x shape) to (batch x classes).

    >>> random_resnet(0)(torch.zeros(2, 1, 4, 4)).shape
    torch.Size([2, 3])
    """
    return randomised(ResidualNet(shape, width, classes), seed)


class Functional(nn.Module):
    """Operations written as functions and methods in place of modules; two skip connections, one of the input."""

    def __init__(self, shape: tuple[int, int, int], width: int, classes: int) -> None:
        super().__init__()
        size = shape[0] * shape[1] * shape[2]
        self.conv = nn.Conv2d(shape[0], shape[0], 3, padding=1)
        self.first = nn.Linear(size, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch x shape) to (batch x classes)."""
        h = torch.relu(self.conv((x - 0.5) / 0.25)) + x
        h = F.relu(self.first(torch.flatten(h, 1)))
        h = h + self.second(h).relu()
        scores: Tensor = self.last(h.view(h.size(0), -1))
        return scores


def random_functional(
    seed: int, shape: tuple[int, int, int] = (1, 4, 4), width: int = 6, classes: int = 3
) -> nn.Module:
    """:class:`Functional`: (batch x shape) to (batch x classes).

    >>> random_functional(0)(torch.zeros(2, 1, 4, 4)).shape
    torch.Size([2, 3])
    """
    return randomised(Functional(shape, width, classes), seed)


def weighted(layers: Sequence[tuple[Sequence[Sequence[float]], Sequence[float]]], dtype: torch.dtype) -> nn.Module:
    """Given weights and biases as fully connected layers with ReLU between them; they must be exact in ``dtype``."""
    parts: list[nn.Module] = []
    for weight, bias in layers:
        linear = nn.Linear(len(weight[0]), len(weight), dtype=dtype)
        for parameter, values in ((linear.weight, weight), (linear.bias, bias)):
            exact = torch.tensor(values, dtype=torch.float64)
            parameter.data = exact.to(dtype)
            assert torch.equal(parameter.data.double(), exact), f"{values} has no exact value in {dtype}"
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1]).eval().requires_grad_(False)


# Networks on which rounding changes the answer, by the largest output over x in [0, 1] in real arithmetic.
TRAPS = {"N1": 1.0, "N2": 1.0, "N3": 0.0, "N4": 1.0, "N4b": 1.0, "N5": 1.0, "N5c": 1.0, "N6": 1.0}

# Those that no method may ever call verified: the claim y < 0.5 is false for them in real arithmetic.
NEVER_VERIFIED = sorted(set(TRAPS) - {"N3"})


def trap(name: str, B: float = 2.0**25, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The float trap ``name``, (batch x 1) to (batch x 1): ``B`` = 2**25 defeats float32, 2**54 defeats float64.

    N1, N2, N4, N4b, N5: y = x on [0, 1]. N6: y = 4 relu(x - 0.75). N3: y = 0, though float32 strays from it.
    N5, N5c: solvers drop the small coefficients. N3, N5 and N5c do not depend on B.

    >>> trap("N1", B=4.0)(torch.tensor([[0.25]])).item()
    0.25
    """
    twin = ([[1.0], [1.0]], [0.0, 0.0])
    cross = ([[B, 0.0], [-1.0, B]], [0.0, 0.0])
    triple = ([[1.0], [1.0], [1.0]], [0.0, 0.0, 0.0])
    layers = {
        "N1": [([[1.0]], [B]), ([[1.0]], [-B])],
        "N2": [twin, cross, ([[1.0, -1.0]], [0.0])],
        "N3": [([[44739244.0], [22369620.0], [67108864.0]], [0.0, 0.0, 0.0]), ([[1.0, 1.0, -1.0]], [0.0])],
        "N4": [triple, ([[B, 1.0, -B]], [0.0])],
        "N4b": [triple, ([[B, -B, 1.0]], [0.0])],
        "N5": [([[2.0**-34]], [0.0]), ([[2.0**34]], [0.0])],
        "N5c": [([[2.0**-18]], [-(2.0**-19)]), ([[2.0**-18]], [0.0]), ([[2.0**37]], [0.0])],
        "N6": [twin, cross, ([[1.0, -1.0]], [-0.75]), ([[4.0]], [0.0])],
    }
    return weighted(layers[name], dtype)


def trap_problem(name: str, B: float = 2.0**25, dtype: torch.dtype = torch.float32) -> Problem:
    """Is y < 0.5 on the trap for all x in [0, 1]? Unsafe: y >= 0.5."""
    region = Box(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    return Problem(to_network(trap(name, B, dtype), (1,)), region, Spec.halfspaces([[-1.0]], [-0.5]))


def rational(module: nn.Module, x: Sequence[Fraction | float]) -> list[Fraction]:
    """The output of a sequence of Linear and ReLU at one sample, in exact rational arithmetic.

    >>> rational(trap("N4"), [Fraction(1, 3)])
    [Fraction(1, 3)]
    """
    values = [Fraction(v) for v in x]
    for layer in module.children():
        if isinstance(layer, nn.ReLU):
            values = [max(v, Fraction(0)) for v in values]
        else:
            assert isinstance(layer, nn.Linear)
            rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
            values = [Fraction(b) + sum(Fraction(w) * v for w, v in zip(r, values, strict=True)) for r, b in rows]
    return values


seeds = st.integers(0, 2**16 - 1)


@st.composite
def mlps(draw: st.DrawFn) -> tuple[nn.Module, Shape]:
    """Small fully connected networks with the shape of a sample."""
    inputs, classes = draw(st.integers(1, 5)), draw(st.integers(2, 4))
    hidden = draw(st.lists(st.integers(1, 8), min_size=1, max_size=3))
    return random_mlp(draw(seeds), [inputs, *hidden, classes]), (inputs,)


@st.composite
def image_networks(draw: st.DrawFn) -> tuple[nn.Module, Shape]:
    """Small networks of every other kind with the shape of a sample."""
    shape = (draw(st.integers(1, 2)), draw(st.integers(2, 5)), draw(st.integers(2, 5)))
    seed, classes = draw(seeds), draw(st.integers(2, 4))
    modules: list[Callable[[], nn.Module]] = [
        lambda: random_cnn(seed, shape, classes=classes),
        lambda: random_resnet(seed, shape, classes=classes),
        lambda: random_functional(seed, shape, classes=classes),
    ]
    return draw(st.sampled_from(modules))(), shape


def networks() -> st.SearchStrategy[tuple[nn.Module, Shape]]:
    """Small networks of every kind, each with the shape of a sample."""
    return st.one_of(mlps(), image_networks())


@st.composite
def balls(draw: st.DrawFn, shape: Shape, norms: Sequence[float] = (1, 2, inf)) -> LpBall:
    """Balls about float32 points of the unit cube, clipped to it or not; eps = 0 and eps beyond the cube included."""
    centre = torch.rand(shape, generator=generator(draw(seeds)))
    eps = draw(st.one_of(st.sampled_from([0.0, 2.0**-30, 0.1, 2.0]), st.floats(0, 1, allow_subnormal=False)))
    return LpBall(centre, eps, draw(st.sampled_from(norms)), draw(st.sampled_from([(0.0, 1.0), None])))


@st.composite
def boxes(draw: st.DrawFn, shape: Shape) -> Box:
    """Boxes with float64 bounds inside of the unit cube; some of no width, or too narrow to hold a float32."""
    lower = torch.rand(shape, generator=generator(draw(seeds)), dtype=torch.float64)
    width = torch.rand(shape, generator=generator(draw(seeds)), dtype=torch.float64)
    return Box(lower, lower + width * (1 - lower) * draw(st.sampled_from([0.0, 1e-12, 1e-3, 0.1, 1.0])))


def regions(shape: Shape, norms: Sequence[float] = (1, 2, inf)) -> st.SearchStrategy[Region]:
    """Regions of one sample of ``shape``: boxes and balls."""
    return st.one_of(boxes(shape), balls(shape, norms))
