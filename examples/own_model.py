"""Your own model, normalisation and all: train it for a moment, then bracket its robust accuracy on digits.

    python examples/own_model.py

The command does the same with the function below: assay compare --model examples/own_model.py:build --eps 0.01,0.03
"""

from __future__ import annotations

import torch
from rich.console import Console
from torch import Tensor, nn

from assay.attacks import get_attack
from assay.benchmarks.harness.compare import compare
from assay.benchmarks.report import tables
from assay.models import data
from assay.verify import get_verifier


class Normalise(nn.Module):
    """The first layer of the model, so that inputs and radii stay in the units of the image, 0 to 1."""

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("deviation", torch.tensor(deviation))

    def forward(self, x: Tensor) -> Tensor:
        """(batch x 1 x 8 x 8) to itself."""
        return (x - self.mean) / self.deviation


def build() -> nn.Module:
    """A trained model in eval mode: what assay reads is an ordinary torch module."""
    torch.manual_seed(0)
    digits = data.load("digits", "train")
    conv = [nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(Normalise(0.3, 0.37), *conv, nn.Linear(8 * 4 * 4, 32), nn.ReLU(), nn.Linear(32, 10))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(digits.x), digits.y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()  # eval mode: layers such as BatchNorm and Dropout behave differently while training


def main() -> None:
    """Between what a method certifies and what an attack leaves standing lies the true robust accuracy."""
    samples = data.load("digits", "test").take(50)
    comparison = compare(build(), samples, [0.01, 0.03], [get_verifier("crown")], [get_attack("pgd")], name="my model")
    tables.show(comparison, Console())


if __name__ == "__main__":
    main()
