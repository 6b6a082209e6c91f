"""Modules of several inputs or outputs as modules of one flat input and one flat output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, Port, to_network
from assay.verify.frontends.torch import read_module


class Parted(nn.Module):
    """``module``, which takes several inputs, on one that holds them side by side, flattened: (batch x inputs).

    ``inputs``: the shape of one sample of each, by the name of the argument of ``forward``, in any order. ``outputs``:
    those that are given, by key or place, side by side, flattened; none of them: the module's answer as it is.

    Raises :class:`InputError` for no inputs at all, and in ``forward`` for outputs that are not there.
    """

    def __init__(
        self, module: nn.Module, inputs: Mapping[str, Sequence[int]], outputs: Sequence[str | int] = ()
    ) -> None:
        super().__init__()
        if not inputs:
            raise InputError("expected the shapes of the inputs of a module by name, got none")
        self.module = module
        self.ports = tuple(Port(name, tuple(shape)) for name, shape in inputs.items())
        self.chosen = tuple(outputs)
        self.train(module.training)

    @property
    def size(self) -> int:
        """Number of all inputs together."""
        return sum(port.size for port in self.ports)

    def forward(self, x: Tensor) -> Any:
        """(batch x inputs) to what the module answers, or to (batch x chosen outputs)."""
        given, begin = {}, 0
        for port in self.ports:
            given[port.name] = x[:, begin : begin + port.size].reshape(-1, *port.shape)
            begin += port.size
        answer = self.module(**given)
        if not self.chosen:
            return answer
        try:
            parts = [answer[key] for key in self.chosen]
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(
                f"the module has no output {error}: expected {', '.join(map(repr, self.chosen))}"
            ) from None
        return torch.cat([part.flatten(1) for part in parts], 1)


@to_network.register
def _(module: Parted, input_shape: Sequence[int] | None = None) -> Network:
    if input_shape is not None and tuple(input_shape) != (module.size,):
        raise InputError(f"expected inputs of shape {(module.size,)}, all parts together, got {tuple(input_shape)}")
    return replace(read_module(module, (module.size,)), inputs=module.ports)
