"""Small networks for measuring exact methods: each made by one recipe from a fixed seed, and kept in a folder.

All of them are fully connected, trained against PGD (Madry et al. 2018, arXiv:1706.06083) by Adam with a learning rate
that falls as half a cosine: the same weights, bit for bit, on one machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from assay.models.data import Dataset


@dataclass(frozen=True)
class Net:
    """``hidden`` widths on a ``data`` set, trained against PGD of radius ``eps`` (linf) in ``steps`` steps."""

    data: str
    hidden: tuple[int, ...]
    eps: float
    epochs: int
    batch: int
    lr: float
    steps: int = 7
    seed: int = 0

    @property
    def size(self) -> str:
        """The widths of all layers."""
        inputs = {"digits": 64, "fashion-mnist": 784}[self.data]
        return "-".join(map(str, (inputs, *self.hidden, 10)))


NETS = {
    "d16": Net("digits", (16, 16), 0.15, epochs=60, batch=64, lr=5e-3),
    "d50": Net("digits", (50, 50), 0.15, epochs=60, batch=64, lr=5e-3),
    "f24": Net("fashion-mnist", (24, 24), 0.1, epochs=8, batch=256, lr=3e-3),
    "f100": Net("fashion-mnist", (100, 100), 0.05, epochs=8, batch=256, lr=3e-3),
}


def trained(name: str, folder: Path) -> nn.Module:
    """The network called ``name``, in eval mode: from the folder if it is there, otherwise trained and put there."""
    from safetensors.torch import load_file

    from assay.models import architectures, cards, data, training

    net = NETS[name]
    path = folder / f"{name}-{hashlib.sha256(repr(net).encode()).hexdigest()[:12]}.safetensors"
    learn = data.load(net.data, "train")
    with training.isolated(net.seed):
        model = architectures.mlp(learn.shape, learn.classes, net.hidden)
    if path.exists():
        model.load_state_dict(load_file(path))
        return model.eval()
    recipe = training.recipe(f"pgd(eps={net.eps},steps={net.steps})")
    for _ in training.Training(recipe, net.epochs, net.batch, net.lr, seed=net.seed).run(model, learn):
        pass
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(cards.encode(model))
    partial.replace(path)
    return model.eval()


def rightly_classified(name: str, model: nn.Module, count: int) -> Dataset:
    """The first ``count`` test samples that the network called ``name`` classifies rightly."""
    import torch

    from assay.models import data, training

    test = data.load(NETS[name].data, "test")
    with torch.no_grad():
        right = training.strictly_right(model(test.x), test.y).nonzero().flatten()[:count]
    return replace(test, x=test.x[right], y=test.y[right])
