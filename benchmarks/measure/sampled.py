"""Bounds of every operation beside sampled points: how many lie outside, which must be none, and how wide bounds are.

    python -m assay.benchmarks.measure.sampled [--operations gelu,softmax,...] [--methods ibp,crown,alpha-crown]
        [--cases 10000] [--seed 0]

Each operation stands between two random layers, over random boxes of several widths, some of them points; in each box
twenty points are drawn, half of them corners. A case is a point with all outputs there. ``width``: the mean over the
boxes of the bounds' width, as a multiple of that of the values that were seen. ``undecided``: boxes without finite
bounds. Ends with 1 if any point lies outside.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.verify.core.budget import Budget
from assay.verify.core.network import Network, to_network
from assay.verify.core.region import Box
from assay.verify.registry import get_bounder

METHODS = "ibp,crown,alpha-crown"
INPUTS, VALUES, POINTS, TOGETHER = 4, 6, 20, 100
WIDTHS = (0.0, 1e-6, 0.01, 0.1, 0.5, 2.0)
SLACK = 1e-9

Function = Callable[[Tensor], Tensor]
# Of values (batch x 6), to any shape.
OPERATIONS: Mapping[str, Function] = {
    "relu": F.relu,
    "leaky-relu": lambda x: F.leaky_relu(x, 0.2),
    "steep-leaky-relu": lambda x: F.leaky_relu(x, 1.5),
    "abs": torch.abs,
    "clamp": lambda x: x.clamp(-0.5, 0.7),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "softshrink": F.softshrink,
    "maximum": lambda x: torch.maximum(x[:, :3], x[:, 3:]),
    "max": lambda x: x.view(-1, 2, 3).amax(-1),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "gelu-tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "softplus": lambda x: F.softplus(x, threshold=50),  # where it shows is further out in double precision
    "softsign": F.softsign,
    "logsigmoid": F.logsigmoid,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "arctan": torch.arctan,
    "exp": lambda x: x.clamp(max=4).exp(),
    "log": lambda x: (x.abs() + 0.2).log(),
    "sqrt": lambda x: (x.abs() + 0.2).sqrt(),
    "reciprocal": lambda x: (x.abs() + 0.3).reciprocal(),
    "square": torch.square,
    "cube": lambda x: x**3,
    "root": lambda x: (x.abs() + 0.1) ** 0.3,
    "sign": torch.sign,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "trunc": torch.trunc,
    "greater": lambda x: (x[:, :3] > x[:, 3:]).double(),
    "where": lambda x: torch.where(x[:, :3] > 0.1, x[:, 3:], x[:, :3].square()),
    "argmax": lambda x: x.view(-1, 2, 3).argmax(-1).double() + x[:, :2],
    "product": lambda x: x[:, :3] * x[:, 3:],
    "quotient": lambda x: x[:, :3] / (x[:, 3:].abs() + 0.4),
    "matrix-product": lambda x: x.view(-1, 2, 3) @ x.view(-1, 3, 2),
    "bilinear": lambda x: F.bilinear(x[:, :3], x[:, 3:], torch.linspace(-1, 1, 18, dtype=x.dtype).view(2, 3, 3)),
    "convolution-3d": lambda x: F.conv3d(
        x.view(-1, 1, 1, 2, 3), torch.linspace(-1, 1, 4, dtype=x.dtype).view(1, 1, 1, 2, 2)
    ),
    "norm": lambda x: x.norm(dim=-1, keepdim=True) + x[:, :2],
    "softmax": lambda x: x.softmax(-1) + 0 * x,
    "log-softmax": lambda x: x.log_softmax(-1) + 0 * x,
    "logsumexp": lambda x: x.logsumexp(-1, keepdim=True) + x[:, :2],
    "attention": lambda x: F.scaled_dot_product_attention(
        x.view(-1, 1, 3, 2), x.view(-1, 1, 3, 2), x.view(-1, 1, 3, 2)
    ),
    "layer-norm": lambda x: F.layer_norm(x, (6,), eps=1e-3),
    "rms-norm": lambda x: F.rms_norm(x, (6,), eps=1e-3),
    "group-norm": lambda x: F.group_norm(x.view(-1, 2, 3), 2, eps=1e-3),
}


class Between(nn.Module):
    """One operation between two random layers."""

    def __init__(self, function: Function, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def layer(inputs: int, outputs: int) -> nn.Linear:
            made = nn.Linear(inputs, outputs).double()
            for weight in made.parameters():
                weight.data = torch.randn(weight.shape, generator=generator, dtype=torch.float64) / inputs**0.5
            return made

        self.first, self.function = layer(INPUTS, VALUES), function
        values = function(self.first(torch.zeros(1, INPUTS, dtype=torch.float64))).numel()
        self.last = layer(values, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(batch x 4) to (batch x 3)."""
        outputs: Tensor = self.last(self.function(2 * self.first(x)).flatten(1))
        return outputs


def drawn(count: int, generator: torch.Generator) -> tuple[Box, Tensor]:
    """Boxes (count x 4) of several widths, and points in them (count x points x 4)."""
    widths = torch.tensor(WIDTHS, dtype=torch.float64)[torch.randint(len(WIDTHS), (count, 1), generator=generator)]
    centre = torch.randn(count, INPUTS, generator=generator, dtype=torch.float64)
    box = Box(centre - widths / 2, centre + widths / 2)
    share = torch.rand(count, POINTS, INPUTS, generator=generator, dtype=torch.float64)
    share[:, ::2] = share[:, ::2].round()
    low, high = box.lower[:, None], box.upper[:, None]
    return box, torch.minimum(torch.lerp(low, high, share), high)


def examine(network: Network, method: str, cases: int, seed: int) -> tuple[int, int, float]:
    """How many of so many sampled points lie outside, how many boxes have no bounds, and how wide bounds are."""
    generator, rows = torch.Generator().manual_seed(seed), torch.eye(network.output_size, dtype=torch.float64)
    outside = unknown = 0
    ratios = []
    for begin in range(0, cases, TOGETHER * POINTS):
        count = min(TOGETHER, -(-(cases - begin) // POINTS))
        box, points = drawn(count, generator)
        bounds = get_bounder(method).bound(network, box, rows, Budget())
        with torch.no_grad():
            values = network(points.flatten(0, 1)).view(count, POINTS, -1)
        slack = SLACK * (1 + values.abs())
        below, above = values < bounds.lower[:, None] - slack, values > bounds.upper[:, None] + slack
        outside += int((below | above).any(-1).sum())
        width, seen = bounds.upper - bounds.lower, values.amax(1) - values.amin(1)
        known = width.isfinite().all(1)
        unknown += int((~known).sum())
        clear = known[:, None] & (seen > 1e-3)
        ratios += (width[clear] / seen[clear]).tolist()
    return outside, unknown, sum(ratios) / max(len(ratios), 1)


def main(argv: list[str] | None = None) -> int:
    """Print a line for each operation and method; 1 if any sampled point lies outside of its bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", default=",".join(OPERATIONS))
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    total = 0
    for name in options.operations.split(","):
        network = to_network(Between(OPERATIONS[name], options.seed).eval(), (INPUTS,))
        for method in options.methods.split(","):
            outside, unknown, width = examine(network, method, options.cases, options.seed)
            total += outside
            print(f"{name:18} {method:12} outside {outside}, undecided {unknown}, width {width:.3g}", flush=True)
    print(f"{total} of the sampled points lie outside of their bounds")
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main())
