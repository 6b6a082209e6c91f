"""What a VNN-LIB file says, before it is put to a network."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

from torch import Tensor

from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem
from assay.verify.core.rewiring import followed, rewired, with_inputs
from assay.verify.frontends.labels import Labelled, of_scores
from assay.verify.frontends.vnnlib.cases import Case
from assay.verify.frontends.vnnlib.declared import Declared
from assay.verify.frontends.vnnlib.linear import Monomial
from assay.verify.frontends.vnnlib.monomials import products
from assay.verify.support.plain import counted


@dataclass(frozen=True, eq=False)
class Property:
    """The counterexamples: inputs in the region and outputs in the unsafe set of any of ``cases``.

    ``inputs`` and ``outputs``: their numbers; the regions are flat, (inputs). ``linked``: inputs, by position, that the
    specifications speak of as outputs behind the others. ``shared``: where some are one and the same, which of the
    regions' inputs each is. ``declared``: the networks, where the file names them. ``monomials``: products that the
    specifications speak of behind the linked inputs. ``warnings``: what was left out or rounded on the way, one line
    each. ``source``: the file, None for a text.
    """

    inputs: int
    outputs: int
    cases: tuple[Case, ...]
    warnings: tuple[str, ...] = ()
    source: Path | None = None
    linked: tuple[int, ...] = ()
    shared: tuple[int, ...] = ()
    declared: tuple[Declared, ...] = ()
    monomials: tuple[Monomial, ...] = ()

    def problems(self, network: Network) -> list[Problem]:
        """One problem for each case, its region in the network's input shape; their union is the property.

        Raises :class:`InputError` where the network has other numbers of inputs or outputs.
        """
        shape, cases = network.input_shape, self.cases
        labels = network.oracle.names if isinstance(network.oracle, Labelled) else ()
        self.check(shape, 1 if labels else network.output_size)
        if labels and (self.linked or self.monomials):
            raise UnsupportedError("a property that ties a label to inputs, or multiplies it, is not supported")
        if labels:
            cases = tuple((region, of_scores(spec, labels)) for region, spec in cases)
        if self.shared:
            network = rewired(network, self.shared, self.shared)
        if self.linked:
            network = with_inputs(network, self.linked)
        if self.monomials:
            network = followed(network, products(self.outputs, self.linked, self.monomials))
        shape = network.input_shape

        def shaped(bound: Tensor) -> Tensor:
            return bound.reshape(shape)

        return [Problem(network, region.map(shaped), spec) for region, spec in cases]

    def check(self, shape: tuple[int, ...], outputs: int) -> None:
        """Raise :class:`InputError` where a network, of inputs in this ``shape``, has other numbers of either."""
        if (self.inputs, self.outputs) != (prod(shape), outputs):
            own = f"{counted(self.inputs, 'input')} and {counted(self.outputs, 'output')}"
            raise InputError(
                f"the property {self.source or ''} speaks of {own}; "
                f"the network takes {prod(shape)}, in the shape {shape}, and gives {outputs}"
            )
