"""What bounds are measured on: networks of the zoo, ONNX files, and larger networks with random weights from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn

from assay.models import data, zoo
from assay.models.architectures import mlp
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, to_network
from assay.verify.core.region import Box, LpBall
from assay.verify.core.spec import Spec
from assay.verify.frontends.onnx import read_onnx
from assay.verify.support.options import convert

RADIUS = 0.02  # of networks that were trained for none, and of ONNX files
UNIT = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Subject:
    """Boxes of a batch, and the margins of the predicted classes (batch x rows x outputs), to be bounded from below.

    Ends of the boxes are float32 numbers, so that they are the same boxes in float32 and in float64.
    """

    name: str
    network: Network
    box: Box
    objective: Tensor


@dataclass(frozen=True)
class Made:
    """A network with random weights: a function that makes it, its input shape, and the radius and domain of inputs."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    eps: float
    domain: tuple[float, float] | None = UNIT


class Block(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential()
        if (inputs, stride) != (outputs, 1):
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(batch x inputs x height x width) to (batch x outputs x height / stride x width / stride)."""
        return torch.relu(self.branch(x) + self.shortcut(x))


def resnet(width: int, blocks: tuple[int, ...]) -> nn.Module:
    """A ResNet for images of 3x32x32: ``blocks`` of each of four widths, of which the first is ``width``."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for level, count in enumerate(blocks):
        for block in range(count):
            outputs = width * 2**level
            layers.append(Block(inputs, outputs, 2 if level and not block else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(inputs, 10))


def vgg11() -> nn.Module:
    """VGG-11 (Simonyan and Zisserman 2015, arXiv:1409.1556) for 3x32x32, with one linear layer and average pooling."""
    layers: list[nn.Module] = []
    inputs = 3
    for level in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for outputs in level:
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            inputs = outputs
        layers.append(nn.AvgPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs, 10))


IMAGE, CIFAR = (1, 28, 28), (3, 32, 32)
# Radii at which CROWN's bounds of the smaller ones are about as large as the margins. Intervals of the deepest ones are
# beyond all sense at any radius: what they cost can be measured all the same.
MADE = {
    "mlp-256x4": Made(lambda: mlp(IMAGE, 10, (256,) * 4), IMAGE, 0.005),
    "mlp-256x6": Made(lambda: mlp(IMAGE, 10, (256,) * 6), IMAGE, 0.003),
    "resnet10-w8": Made(lambda: resnet(8, (1, 1, 1, 1)), CIFAR, 0.001),
    "resnet18": Made(lambda: resnet(64, (2, 2, 2, 2)), CIFAR, 0.0001),
    "vgg11": Made(vgg11, CIFAR, 0.001),
}


def seeded(made: Made) -> nn.Module:
    """The network with He's initial weights (2015, arXiv:1502.01852), in eval mode, always the same.

    What BatchNorm knows of its inputs comes from a random batch, on which the outputs then vary by 1, too.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        module = made.build().train()
        for part in module.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                if part.bias is not None:
                    part.bias.zero_()
            elif isinstance(part, nn.BatchNorm2d):
                part.momentum = None  # the plain mean of what it sees
        x = torch.rand(16, *made.shape)
        module(x)
        module.eval()
        last = [part for part in module.modules() if isinstance(part, nn.Linear)][-1]
        last.weight /= module(x).std()
    return module


def subject(text: str, batch: int) -> Subject:
    """What ``text`` names, with ``batch`` inputs: ``NAME[@EPS]`` or ``FILE.onnx[.gz][@EPS[@clip]]``.

    NAME: of :data:`MADE` or of the zoo. A network of the zoo has test images about which its data set's domain ends
    the boxes, and the radius that it was trained for; others have random inputs between 0 and 1. The boxes of an ONNX
    file reach beyond, unless ``@clip``.
    """
    name, _, rest = text.partition("@")
    radius, _, clip = rest.partition("@")
    if clip not in ("", "clip"):
        raise InputError(f"expected NAME@EPS or FILE.onnx@EPS@clip, got {text!r}")
    given = convert(radius, float, "the radius") if radius else None
    if name.endswith((".onnx", ".onnx.gz")):
        network, eps, domain = read_onnx(name), RADIUS, UNIT if clip else None
        x = _random(batch, network.input_shape)
    elif name in MADE:
        made = MADE[name]
        network, eps, domain = to_network(seeded(made), made.shape), made.eps, made.domain
        x = _random(batch, made.shape)
    else:
        card = zoo.card(name)
        test = data.load(card.data, "test").take(batch)
        network, eps, domain = to_network(zoo.load(name), card.input_shape), card.eps or RADIUS, test.domain
        x = test.x
    box = LpBall(x, given or eps, inf, domain).box()
    labels = network(x.double()).flatten(1).argmax(1).tolist()
    objective = torch.stack([Spec.robust(label, network.output_size).A for label in labels])
    kept = Network(network.nodes, dtype=network.dtype, name=name)  # without the model that it was made from
    return Subject(text, kept, Box(box.lower.float().double(), box.upper.float().double()), objective)


def _random(batch: int, shape: tuple[int, ...]) -> Tensor:
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))
