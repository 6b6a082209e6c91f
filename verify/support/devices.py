"""Where tensors are: on the host's processors, or on a device that the host should not wait for."""

from __future__ import annotations

from torch import Tensor


def is_host(tensor: Tensor) -> bool:
    """Whether asking for a value of the tensor costs next to nothing."""
    return tensor.device.type == "cpu"
