"""Training on images of which most is erased (Levine and Feizi 2020, arXiv:1911.09272, arXiv:2002.10733), as the votes
over erased images will show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.models.training.recipe import Step
from assay.verify.core.errors import InputError, unknown_name
from assay.verify.core.region.sparse import channels

Seen = Literal["pixels", "band", "block"]


@dataclass(frozen=True)
class Erasing:
    """What a sample shows of itself, drawn anew each time: ``seen=pixels``, the share ``keep`` of them at random;
    ``band``, as many columns as ``width``; ``block``, a square. The rest is 0; places wrap around."""

    name: ClassVar[str] = "erasing"
    seen: Seen = "pixels"
    keep: float = 0.1
    width: int = 2

    def __post_init__(self) -> None:
        if self.seen not in get_args(Seen):
            raise unknown_name("view of erasing", self.seen, get_args(Seen))
        if not 0 < self.keep < 1 or self.width < 1:
            raise InputError(f"erasing: expected 0 < keep < 1 and width >= 1, got {self.keep} and {self.width}")

    @property
    def eps(self) -> float:
        """None is trained for in linf."""
        return 0.0

    def prepare(self, model: nn.Module, step: Step) -> None:
        """Nothing: the initialisation stays."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """Mean cross-entropy of what is seen: x (batch x shape), y (batch)."""
        images = channels(x)
        shown = torch.where(self._mask(images, step.generator), images, torch.zeros_like(images))
        return F.cross_entropy(model(shown.view_as(x)), y)

    def _mask(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Which pixels are seen of images (batch x channels x rows x columns): (batch x 1 x rows x columns), bool."""
        batch, _, rows, columns = images.shape
        if self.seen == "pixels":
            order = torch.rand(batch, rows * columns, generator=generator)
            kept = order.argsort(1).argsort(1) < max(1, round(self.keep * rows * columns))
            return kept.view(batch, 1, rows, columns)
        across = _band(batch, columns, self.width, generator)[:, None, None, :]
        if self.seen == "band":
            return across.expand(batch, 1, rows, columns)
        return across & _band(batch, rows, self.width, generator)[:, None, :, None]


def _band(batch: int, extent: int, width: int, generator: torch.Generator) -> Tensor:
    """A band at a random place of each sample: (batch x extent), bool."""
    first = torch.randint(extent, (batch, 1), generator=generator)
    return (torch.arange(extent)[None, :] - first) % extent < width
