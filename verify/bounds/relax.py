"""Linear relaxations of activations: two lines between which the activation lies over an interval.

Tensors are (features x samples), the layout of the backward propagation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor

from verify.core.errors import UnsupportedError
from verify.core.ops import Op, Relu
from verify.core.verifier import Bounds


@dataclass(frozen=True, eq=False)
class Lines:
    """``lower_slope * z <= activation(z) <= (lower_slope + rise) * z + intercept`` for z in the interval."""

    lower_slope: Tensor
    rise: Tensor
    intercept: Tensor


@singledispatch
def relax(op: Op, z: Bounds) -> Lines:
    """The relaxation of ``op`` over the interval ``z``."""
    raise UnsupportedError(f"operation {op.label} has no linear relaxation")


@relax.register
def _(op: Relu, z: Bounds) -> Lines:
    """The chord above; below, the line of slope 0 or 1 that leaves the smaller triangle (Zhang et al. 2018,
    arXiv:1811.00866). Stable neurons are exact."""
    low, high = z.lower.clamp(max=0), z.upper.clamp(min=0)
    width = high - low
    # A neuron that is zero on all of its interval has width 0 and slope 0; no division by zero leaks through.
    slope = high / width.clamp(min=torch.finfo(width.dtype).tiny)
    lower = (slope > 0.5).to(slope)
    return Lines(lower, slope - lower, -low * slope)


def relaxes(op: Op) -> bool:
    """Whether ``op`` is an activation with a relaxation here."""
    return relax.dispatch(type(op)) is not relax.dispatch(object)
