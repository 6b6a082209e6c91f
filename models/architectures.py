"""Small architectures of ReLU networks, and the text that rebuilds each: ``mlp(hidden=50-50)``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite, prod
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from assay.models.text import Sizes
from assay.verify.core.errors import InputError
from assay.verify.support import options

Shape = Sequence[int]


class Architecture(Protocol):
    """Options that, with the shape of a sample and the number of classes, make a freshly initialised network."""

    name: ClassVar[str]

    def build(self, input_shape: Shape, classes: int) -> nn.Module:
        """A module from (batch x input shape) to logits (batch x classes), in train mode."""
        ...


class Normalize(nn.Module):
    """``(x - mean) / std``, numbers or one per channel (first axis of a sample); to be a model's first layer."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            tensor = torch.as_tensor(value, dtype=torch.float32)
            self.register_buffer(name, tensor.reshape(-1, 1, 1) if tensor.dim() else tensor)
        if not bool(((self.std > 0) & self.std.isfinite()).all()) or not bool(self.mean.isfinite().all()):
            raise InputError(f"normalisation needs a finite mean and a std > 0, got {mean} and {std}")

    def forward(self, x: Tensor) -> Tensor:
        """x (batch x shape) to the same shape."""
        return (x - self.mean) / self.std


def mlp(input_shape: Shape, classes: int, hidden: Sequence[int] = (50, 50), batchnorm: bool = False) -> nn.Sequential:
    """Fully connected layers of the given widths with ReLU, and BatchNorm before it if wanted, between them."""
    widths = [prod(input_shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias=not batchnorm), *([nn.BatchNorm1d(after)] if batchnorm else [])]
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


def cnn(
    input_shape: Shape, classes: int, channels: Sequence[int] = (16, 32), hidden: int = 64, batchnorm: bool = False
) -> nn.Sequential:
    """Convolutions 4 x 4 of stride 2, each halving the image, then a fully connected layer (none if ``hidden`` = 0);
    with BatchNorm before every ReLU if wanted."""
    depth, height, width = _image(input_shape)
    layers: list[nn.Module] = []
    for before, after in pairwise([depth, *channels]):
        layers.append(nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1, bias=not batchnorm))
        layers += [*([nn.BatchNorm2d(after)] if batchnorm else []), nn.ReLU()]
        height, width = height // 2, width // 2
    if not height or not width:
        raise InputError(f"{len(channels)} halvings are too many for images of {input_shape[1]} x {input_shape[2]}")
    head = mlp((channels[-1], height, width), classes, (hidden,) if hidden else (), batchnorm)
    return nn.Sequential(*layers, *head)


class Block(nn.Module):
    """Residual block (He et al. 2016, arXiv:1512.03385): two 3 x 3 convolutions with BatchNorm, and a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """x (batch x before x height x width) to (batch x after x height/stride x width/stride)."""
        y: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return y


def resnet(input_shape: Shape, classes: int, channels: Sequence[int] = (8, 16)) -> nn.Sequential:
    """One residual block for each number of channels, each of stride 2, after a convolution of stride 1."""
    depth, height, width = _image(input_shape)
    layers: list[nn.Module] = [
        nn.Conv2d(depth, channels[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(channels[0]),
        nn.ReLU(),
    ]
    for before, after in pairwise([channels[0], *channels]):
        layers.append(Block(before, after, stride=2))
        height, width = (height + 1) // 2, (width + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * height * width, classes))


@dataclass(frozen=True)
class MLP:
    """:func:`mlp` behind a normalisation."""

    name: ClassVar[str] = "mlp"
    hidden: Sizes = field(default=Sizes((50, 50)))
    mean: float = 0.0
    std: float = 1.0
    batchnorm: bool = False

    def __post_init__(self) -> None:
        _check_normalisation(self.mean, self.std)

    def build(self, input_shape: Shape, classes: int) -> nn.Module:
        """See :class:`Architecture`."""
        return _normalised(mlp(input_shape, classes, self.hidden, self.batchnorm), self.mean, self.std)


@dataclass(frozen=True)
class CNN:
    """:func:`cnn` behind a normalisation."""

    name: ClassVar[str] = "cnn"
    channels: Sizes = field(default=Sizes((16, 32)))
    hidden: int = 64
    mean: float = 0.0
    std: float = 1.0
    batchnorm: bool = False

    def __post_init__(self) -> None:
        _check_normalisation(self.mean, self.std)
        if self.hidden < 0:
            raise InputError(f"cnn: expected hidden >= 0, got {self.hidden}")

    def build(self, input_shape: Shape, classes: int) -> nn.Module:
        """See :class:`Architecture`."""
        body = cnn(input_shape, classes, self.channels, self.hidden, self.batchnorm)
        return _normalised(body, self.mean, self.std)


@dataclass(frozen=True)
class ResNet:
    """:func:`resnet` behind a normalisation."""

    name: ClassVar[str] = "resnet"
    channels: Sizes = field(default=Sizes((8, 16)))
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        _check_normalisation(self.mean, self.std)

    def build(self, input_shape: Shape, classes: int) -> nn.Module:
        """See :class:`Architecture`."""
        return _normalised(resnet(input_shape, classes, self.channels), self.mean, self.std)


TABLE = {
    **{architecture.name: f"{__name__}:{architecture.__name__}" for architecture in (MLP, CNN, ResNet)},
    "linf-distance": "assay.models.distance:LinfDistances",
}


def parse(text: str) -> Architecture:
    """``mlp(hidden=50-50)`` as an :class:`Architecture`. Raises :class:`InputError` for unknown names and options.

    >>> parse("mlp(hidden=20)").build((1, 8, 8), classes=10)[1]
    Linear(in_features=64, out_features=20, bias=True)
    """
    architecture: Architecture = options.load("architecture", text, TABLE)
    return architecture


def _check_normalisation(mean: float, std: float) -> None:
    if not isfinite(mean) or not (isfinite(std) and std > 0):
        raise InputError(f"normalisation needs a finite mean and a std > 0, got {mean} and {std}")


def _normalised(body: nn.Sequential, mean: float, std: float) -> nn.Sequential:
    return body if (mean, std) == (0.0, 1.0) else nn.Sequential(Normalize(mean, std), *body)


def _image(shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise InputError(f"convolutions need samples of shape (channels, height, width), got {tuple(shape)}")
    depth, height, width = shape
    return depth, height, width
