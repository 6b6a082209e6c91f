"""Where tests of bounds run: on the CPU, as if that were another device, and on a CUDA device where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from assay.verify.support import devices

CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")
)
WHERE = ("cpu", "elsewhere", CUDA)
WAITS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "bincount")


@contextmanager
def placed(where: str, monkeypatch: pytest.MonkeyPatch, strict: bool = True) -> Iterator[str]:
    """The device of a budget. ``elsewhere`` the CPU is treated as another device, and where that is ``strict`` a tensor
    that is made without saying where is made where it cannot be used; so balls cannot be made there."""
    if where != "elsewhere":
        yield where
        return
    with monkeypatch.context() as patch, torch.device("meta") if strict else nullcontext():
        patch.setattr(devices, "is_host", lambda tensor: False)
        yield "cpu"


class Waits(TorchDispatchMode):
    """Counts how often the host needs a value, or a size that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        by_mask = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        self.count += name in WAITS or by_mask
        return func(*args, **(kwargs or {}))
