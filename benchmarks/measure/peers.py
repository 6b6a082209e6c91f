"""Other people's verifiers, called for side-by-side measurements."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import version
from math import inf

import torch
from torch import Tensor

from assay.verify.backends.lirpa.module import Layers, convex
from assay.verify.backends.lirpa.shim import auto_lirpa
from assay.verify.core.network import Network
from assay.verify.core.region import Box

# Our methods by auto_LiRPA's names.
LIRPA = {"ibp": "IBP", "crown-ibp": "CROWN-IBP", "crown": "CROWN", "alpha-crown": "CROWN-Optimized"}


def lirpa_version() -> str:
    """The release of auto_LiRPA that is imported: newer ones say so themselves, 0.3 only to the package manager."""
    return str(getattr(auto_lirpa(), "__version__", None) or version("auto_LiRPA"))


def lirpa_bounds(
    network: Network, box: Box, objective: Tensor, method: str, dtype: torch.dtype
) -> Callable[[], Callable[[], Tensor]]:
    """What builds auto_LiRPA's graph, and gives a call: lower bounds of objective @ network(x) over the box.

    ``box``: of a batch; ``objective``: (batch x rows x outputs); ``method``: by our name. Its options are its own, but
    for 20 iterations of alpha-CROWN, as ours has.
    """
    peer, theirs = auto_lirpa(), LIRPA[method]
    module = Layers(convex(network).to(dtype), batched=lirpa_version() == "0.3")
    lower, upper, centre = box.lower.to(dtype), box.upper.to(dtype), box.centre.to(dtype)
    objective = objective.to(dtype)
    options = {"optimize_bound_args": {"iteration": 20}}

    def build() -> Callable[[], Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bounded = peer.BoundedModule(module, centre, bound_opts=options, device="cpu")
        inputs = (peer.BoundedTensor(centre, peer.PerturbationLpNorm(norm=inf, x_L=lower, x_U=upper)),)

        def call() -> Tensor:
            with torch.set_grad_enabled(theirs == "CROWN-Optimized"):
                least: Tensor = bounded.compute_bounds(x=inputs, C=objective, method=theirs, bound_upper=False)[0]
            return least.detach()

        return call

    return build
