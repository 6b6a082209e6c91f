"""A counterexample as VNN-COMP wants it: every input and output by name, as decimals that are the floats' values."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.verify.core.network import Network, Oracle
from assay.verify.core.rewiring import Followed, Rewired, WithInputs
from assay.verify.frontends.labels import Labelled


def inputs(network: Network, x: Tensor) -> Tensor:
    """The inputs that the question states at ``x`` (one sample's shape), flat: one that stands for several is told for
    each of them."""
    oracle = _stated(network)
    return x.flatten()[list(oracle.stated)] if isinstance(oracle, Rewired) else x.flatten()


def outputs(network: Network, x: Tensor) -> Tensor:
    """The original model's outputs at ``x`` (one sample's shape), flat, in its own arithmetic; a label as one."""
    oracle = _stated(network)
    with torch.no_grad():
        y = oracle(x.to(network.dtype)[None]).detach().flatten()
    inner = oracle.model if isinstance(oracle, Rewired) else oracle
    if isinstance(inner, Labelled) and not y.isnan().any():
        return torch.tensor([inner.names[int(y.argmax())]], dtype=y.dtype)
    return y


def _stated(network: Network) -> Oracle:
    """The original model without the inputs and products that a specification compares its outputs with."""
    oracle = network.oracle or network
    while isinstance(oracle, (WithInputs, Followed)):
        oracle = oracle.model
    return oracle


def text(x: Tensor, y: Tensor) -> str:
    """``((X_0 v)``, one line for each further value, and a closing parenthesis.

    v is the shortest decimal that reads back as the value in float64: that of a float32 would read in float64 as a
    number half a unit in its last place away, perhaps outside of the box.

    >>> print(text(torch.tensor([0.1, 0.5]), torch.tensor([2.0])))
    ((X_0 0.10000000149011612)
     (X_1 0.5)
     (Y_0 2.0))
    """
    named = ((name, part.flatten().tolist()) for name, part in (("X", x), ("Y", y)))
    return "(" + "\n ".join(f"({name}_{i} {value!r})" for name, part in named for i, value in enumerate(part)) + ")"
