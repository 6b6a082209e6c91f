"""Counter-based random numbers: what a sample draws depends on its content and the seed, not on its batch.

The generator is splitmix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"), computed
for all samples at once on int64 tensors, whose arithmetic wraps; it gives the same numbers on every device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import log2, pi, prod

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The int64 with the bits of ``value`` modulo 2**64."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def sample_keys(x: Tensor, seed: int) -> Tensor:
    """One 64-bit key per sample from the seed and the sample's values: x (batch x shape), result (batch) int64."""
    salt = str(seed).encode()
    rows = x.detach().to("cpu", torch.float64).flatten(1).numpy()
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8, key=salt).digest() for row in rows]
    return torch.tensor([int.from_bytes(d, "little", signed=True) for d in digests], dtype=torch.int64, device=x.device)


def splitmix64(state: Tensor, n: int) -> Tensor:
    """The next n outputs of the generator in each ``state`` (batch): (batch x n), int64.

    >>> [value % 2**64 for value in splitmix64(torch.tensor([1234567]), 2)[0].tolist()]
    [6457827717110365317, 3203168211198807973]
    """
    steps = torch.arange(1, n + 1, dtype=torch.int64, device=state.device)
    return _mix(state[:, None] + steps * _GAMMA)


def uniform(keys: Tensor, shape: Sequence[int], stream: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform in [0, 1), every value exact in ``dtype``: keys (batch), result (batch x shape).

    Different streams of one key are independent of each other.
    """
    state = _mix(keys ^ _mix(torch.tensor(_signed((stream + 1) * _GAMMA), device=keys.device)))
    digits = 1 - round(log2(torch.finfo(dtype).eps))
    top = _shift(splitmix64(state, prod(shape)), 64 - digits)
    return (top.to(torch.float64) * 2.0**-digits).to(dtype).view(len(keys), *shape)


def normal(keys: Tensor, shape: Sequence[int], stream: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers by Box and Muller's transform of the streams ``stream`` and ``stream + 1``.

    keys (batch), result (batch x shape).
    """
    radius = (-2 * (1 - uniform(keys, shape, stream, torch.float64)).log()).sqrt()
    return (radius * (2 * pi * uniform(keys, shape, stream + 1, torch.float64)).cos()).to(dtype)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: that of int64 copies the sign bit, which is masked out."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    return z ^ _shift(z, 31)
