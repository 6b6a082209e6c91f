"""Where tensors are: on the host's processors, or on a device that the host should not wait for; and what there is."""

from __future__ import annotations

import os

from torch import Tensor, cuda


def is_host(tensor: Tensor) -> bool:
    """Whether asking for a value of the tensor costs next to nothing."""
    return tensor.device.type == "cpu"


def accelerators() -> list[str]:
    """The CUDA devices that this process sees, as a process that is to see only some of them is told."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = cuda.device_count()
    return [str(number) for number in range(count)] if named is None else named.split(",")[:count]


def free(device: str) -> int:
    """Bytes of a CUDA device's memory that nobody has."""
    return int(cuda.mem_get_info(device)[0])
