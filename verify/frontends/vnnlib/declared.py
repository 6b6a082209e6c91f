"""The networks that a property declares, and the models that stand for them, put together as one network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, Port
from assay.verify.core.rewiring import rewired, side_by_side
from assay.verify.support.plain import counted


@dataclass(frozen=True)
class Declared:
    """A network as a property declares it: its ``name``, its inputs and outputs, each with the name that the model has
    for it, empty where none is stated; ``equal_to``: another network that it is the same as."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    equal_to: str = ""

    @property
    def chosen(self) -> tuple[str | int, ...]:
        """The outputs of the model, by name or place; nothing where there is one, without a name."""
        if len(self.outputs) == 1 and not self.outputs[0].name:
            return ()
        return tuple(port.name or i for i, port in enumerate(self.outputs))

    def places(self, network: Network) -> list[int]:
        """Where the network's flattened inputs stand among those that are declared.

        Raises :class:`InputError` where names or sizes do not fit.
        """
        own = network.inputs if len(network.inputs) == len(self.inputs) else (Port("", network.input_shape),)
        if len(own) != len(self.inputs) or sum(p.size for p in own) != sum(p.size for p in self.inputs):
            raise InputError(
                f"the property declares {counted(len(self.inputs), 'input')} of {self.name}, with "
                f"{counted(sum(p.size for p in self.inputs), 'value')}; the model has {len(network.inputs) or 1}, with "
                f"{network.nodes[0].size}"
            )
        begins, begin = [], 0
        for port in self.inputs:
            begins.append(begin)
            begin += port.size
        places: list[int] = []
        for i, port in enumerate(own):
            k = next((k for k, stated in enumerate(self.inputs) if stated.name == port.name != ""), None)
            if k is None:
                k = i
                if self.inputs[i].name and port.name and len(own) > 1:
                    raise InputError(f"the model has no input {self.inputs[i].name!r}, which the property declares")
            if self.inputs[k].size != port.size:
                raise InputError(
                    f"the property declares the shape {list(self.inputs[k].shape)} of an input of {self.name}; the "
                    f"model has {list(port.shape)}"
                )
            places += range(begins[k], begins[k] + port.size)
        if len(set(places)) < len(places):
            raise InputError(f"the property names some inputs of {self.name} and others not: name all of them, or none")
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
