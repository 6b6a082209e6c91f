"""What stands beside the numbers that a run of torch keeps: another number for each, seen through the same views.

Tensors that share their memory share what stands beside it, so that views and writing in place need no rules.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def place(tensor: Tensor) -> int:
    """The memory in which the numbers lie; 0 for a tensor without any."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


Geometry = tuple[Any, ...]


def geometry(tensor: Tensor) -> Geometry:
    """Where the numbers of a tensor lie: two with the same are one."""
    return (place(tensor), tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


class Memory:
    """Tensors of ``dtype`` beside those that :meth:`put` was told of; the memory of these is kept from other use.

    ``copied``: where a tensor is put that shares its memory with others, these have their own numbers beside them,
    and else zeros.
    """

    def __init__(self, dtype: torch.dtype, copied: bool = False) -> None:
        self.dtype = dtype
        self.copied = copied
        self._beside: dict[int, tuple[Tensor, Tensor]] = {}

    def of(self, tensor: Tensor) -> Tensor | None:
        """What stands beside ``tensor``, a view in its shape; None if nothing does, or it is of another dtype."""
        kept = self._beside.get(place(tensor))
        if kept is None or kept[0].dtype != tensor.dtype or tensor.layout != torch.strided:
            return None
        return kept[1].as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())

    def begin(self, tensor: Tensor) -> Tensor:
        """What stands beside ``tensor``, from now on if nothing has yet."""
        numbers = self.of(tensor)
        if numbers is None:
            size = tensor.untyped_storage().nbytes() // tensor.element_size()
            whole = tensor.detach().as_strided((size,), (1,), 0)
            beside = whole.to(self.dtype, copy=True) if self.copied else torch.zeros(size, dtype=self.dtype)
            self._beside[place(tensor)] = (whole, beside)
            numbers = beside.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
        return numbers

    def put(self, tensor: Tensor, values: Tensor) -> None:
        """Let ``values`` stand beside ``tensor``, of one shape."""
        if tensor.numel():
            self.begin(tensor).copy_(values)
