"""Other people's verifiers, called for side-by-side measurements."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor, nn

from assay.verify.backends.lirpa.shim import auto_lirpa
from assay.verify.core.region import Box


def lirpa_version() -> str:
    """The release of auto_LiRPA that is imported: newer ones say so themselves, 0.3 only to the package manager."""
    return str(getattr(auto_lirpa(), "__version__", None) or version("auto_LiRPA"))


def lirpa_crown(module: nn.Module, box: Box, objective: Tensor) -> Callable[[], Tensor]:
    """A call of auto_LiRPA's CROWN, ready to be timed: lower bounds of objective @ module(x) over the box.

    ``box``: of a batch; ``objective``: (batch x rows x outputs). Building its graph is not part of the call.
    """
    peer = auto_lirpa()
    centre = box.centre.float()
    perturbation = peer.PerturbationLpNorm(norm=float("inf"), x_L=box.lower.float(), x_U=box.upper.float())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bounded = peer.BoundedModule(module, centre, device="cpu")
    inputs = (peer.BoundedTensor(centre, perturbation),)

    def call() -> Tensor:
        with torch.no_grad():
            lower: Tensor = bounded.compute_bounds(x=inputs, C=objective, method="CROWN", bound_upper=False)[0]
        return lower.detach()

    return call
