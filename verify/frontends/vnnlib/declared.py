"""The networks that a property declares, and the models that stand for them, put together as one network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, Port
from assay.verify.core.rewiring import rewired, side_by_side
from assay.verify.support.plain import counted


@dataclass(frozen=True)
class Declared:
    """A network as a property declares it: its ``name``, its inputs and outputs, and another network that it is
    ``equal_to``. ``types``: of its elements, F32 or F64, nothing where they are real numbers. ``named``: its inputs and
    outputs have the names that the model has for them; elsewhere their variables' names count where the model has all
    of these, and else their order."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    equal_to: str = ""
    named: bool = False
    types: frozenset[str] = frozenset()

    def doubt(self, network: Network) -> str | None:
        """What is told of a model of other types; None if there is nothing to tell."""
        other = self.types - {"F64" if network.dtype is torch.float64 else "F32"}
        if not other:
            return None
        taken = str(network.dtype).removeprefix("torch.")
        return f"{self.name} is declared with elements of type {', '.join(sorted(other))}; the model takes {taken}"

    def chosen(self, there: Sequence[str]) -> tuple[str | int, ...]:
        """The outputs of a model that has those of the names ``there``, by name or place; nothing where it is the one
        that is read by itself."""
        names = tuple(port.name for port in self.outputs)
        if self.named or set(names) <= set(there):
            return names
        return () if len(names) == 1 else tuple(range(len(names)))

    def places(self, network: Network) -> list[int]:
        """Where the network's flattened inputs stand among those that are declared.

        Raises :class:`InputError` where names or sizes do not fit.
        """
        own = network.inputs if len(network.inputs) == len(self.inputs) else (Port("", network.input_shape),)
        size = sum(port.size for port in self.inputs)
        if len(own) != len(self.inputs) or sum(port.size for port in own) != size:
            raise InputError(
                f"the property declares {counted(len(self.inputs), 'input')} of {self.name}, with "
                f"{counted(size, 'value')}; the model has {len(network.inputs) or 1}, with {network.nodes[0].size}"
            )
        stated, names = [port.name for port in self.inputs], [port.name for port in own]
        by_name = sorted(stated) == sorted(names)
        if self.named and not by_name and len(own) > 1:
            raise InputError(f"the property declares the inputs {stated} of {self.name}; the model has {names}")
        ends = list(accumulate(port.size for port in self.inputs))
        places: list[int] = []
        for i, port in enumerate(own):
            k = stated.index(port.name) if by_name else i
            if self.inputs[k].size != port.size:
                raise InputError(
                    f"the property declares the shape {list(self.inputs[k].shape)} of the input {stated[k]!r} of "
                    f"{self.name}; the model has {list(port.shape)}"
                )
            places += range(ends[k] - port.size, ends[k])
        return places


def together(declared: Sequence[Declared], models: Sequence[Network]) -> Network:
    """The models of declared networks as one network of the declared inputs and outputs, flat where they are several.

    Raises :class:`InputError` where a model does not fit its declaration.
    """
    places: list[int] = []
    for network, model in zip(declared, models, strict=True):
        begin = len(places)
        places += [begin + place for place in network.places(model)]
    whole = models[0] if len(models) == 1 else side_by_side(models)
    if places == list(range(len(places))):
        return whole
    return rewired(whole, places, range(len(places)))
