"""Where the processes of a run find the model that it is about, and whether it is that one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import nn

from assay.verify.core.errors import InputError
from assay.verify.core.network import Network


class Source(Protocol):
    """Where a model comes from, for a process that has none yet."""

    def load(self) -> nn.Module | Network:
        """The model, as it is there. Raises :class:`InputError` where it cannot be loaded."""
        ...


@dataclass(frozen=True)
class Held:
    """A model that goes along itself: its class must be one that others can import."""

    model: nn.Module | Network

    def load(self) -> nn.Module | Network:
        """It."""
        return self.model


@dataclass(frozen=True)
class Named:
    """A model by its name and its file of weights, which each process reads on its own: nothing else of it travels.
    ``whole``: it is only run, and need not be read."""

    text: str
    weights: Path | None = None
    whole: bool = False

    def load(self) -> nn.Module | Network:
        """See :func:`assay.models.resolve.resolve`."""
        from assay.models.resolve import resolve

        return resolve(self.text, self.weights, self.whole).module


def checked(network: Network, identity: str) -> Network:
    """The network, if its content is the one that is meant. Raises :class:`InputError`."""
    if network.id != identity:
        raise InputError(
            "the model that this process finds is not the one that the run began with: its content differs (was the "
            "file changed, is another one on this machine, or does its function draw other weights each time? Then "
            "seed it, or give --weights)"
        )
    return network
