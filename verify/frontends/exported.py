"""Programs of torch.export, in memory: the operations that they hold are those that they run."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import Any

from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, to_network
from assay.verify.frontends.torch import read_module


class Exported(ABC):  # noqa: B024 (nobody inherits from it)
    """``torch.export.ExportedProgram``, known by its name: to import it takes as long as torch itself."""

    @classmethod
    def __subclasshook__(cls, other: type) -> bool:
        return other.__name__ == "ExportedProgram" and other.__module__.startswith("torch.export")


@to_network.register
def read_exported(program: Exported, input_shape: Sequence[int] | None = None) -> Network:
    """The program, which takes one tensor. Raises what :func:`read_module` raises."""
    made: Any = program
    given = made.graph_signature.user_inputs
    if len(given) != 1:
        raise InputError(f"expected a program with one input, got {len(given)}")
    shape = next(node.meta["val"].shape for node in made.graph.nodes if node.name == given[0])
    if input_shape is None and all(isinstance(size, int) for size in shape[1:]):
        input_shape = tuple(shape[1:])
    return read_module(made.module(), input_shape)
