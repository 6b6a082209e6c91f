"""What travels between processes as bytes: as pickle has it, but for tensors, which travel by their own numbers alone.

By itself a tensor that is a part of another one takes all of that along: a sample its whole data set.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def dumps(value: object) -> bytes:
    """``value`` as bytes, for :func:`pickle.loads`. Raises what pickle does for what cannot travel."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = _table()
    pickler.dump(value)
    return buffer.getvalue()


@cache
def _table() -> dict[type, Callable[[Any], Any]]:
    from torch import Tensor

    return {**copyreg.dispatch_table, Tensor: _reduced}


def _reduced(tensor: Any) -> Any:
    """How a tensor is made again: from an array, where it can be one and takes no more room so."""
    try:
        if tensor.nbytes <= tensor.untyped_storage().nbytes():
            return _tensor, (tensor.numpy(),)
    except (TypeError, RuntimeError):  # on another device, to be differentiated, or of numbers that numpy has not
        pass
    return tensor.__reduce_ex__(pickle.HIGHEST_PROTOCOL)


def _tensor(array: Any) -> Tensor:
    """A tensor (shape of the array)."""
    import torch

    return torch.from_numpy(array)
