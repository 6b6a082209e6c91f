"""The zoo: small trained networks that come with the package, each with its card."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from assay.models import cards
from assay.models.cards import Card
from assay.verify.core.errors import unknown_name

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The networks that :func:`load` knows."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def card(name: str) -> Card:
    """The card of a network. Raises :class:`InputError` for an unknown name."""
    return cards.read(_weights(name).with_suffix(".json"))


def load(name: str) -> nn.Module:
    """A network in eval mode, its checksum verified. Raises :class:`InputError` for an unknown name.

    >>> import torch
    >>> load("digits-mlp-pgd")(torch.zeros(1, 1, 8, 8)).shape
    torch.Size([1, 10])
    """
    model, _ = cards.load(_weights(name))
    return model


def _weights(name: str) -> Path:
    if name not in names():
        raise unknown_name("zoo model", name, names())
    return FOLDER / f"{name}.safetensors"
