"""Modules in training as networks: the weights themselves, and the statistics of the batch, with their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network
from assay.verify.frontends import torchlip
from assay.verify.frontends.fold import fold
from assay.verify.frontends.recording import Recording, plain_attention, recorded
from assay.verify.frontends.running import leaves, named
from assay.verify.frontends.translation import Translation
from assay.verify.frontends.translations.table import HINT, table

Key = tuple[bool, tuple[int, ...]]


def read_live(module: nn.Module, x: Tensor) -> tuple[Network, Tensor]:
    """``module`` as a network that holds its weights themselves, for training, and the module's output at ``x``.

    ``x``: a batch in the dtype of the weights. Operations keep the weights' dtype and their place in autograd's
    graph. In train mode batch normalisation becomes a scaling by the statistics of this very batch, which its
    gradients pass through, for bounds as for samples (Shi et al. 2021, arXiv:2103.17268), merged into the layer
    before it. The module runs once: running statistics move once. Bounds of the network in
    ``bounds/interval.py`` and ``bounds/differentiable.py`` are differentiable; the network has no oracle
    and serves no verdict.

    Raises :class:`UnsupportedError` with all the operations that have no translation, dropout in train mode too.
    """
    key: Key = (module.training, tuple(id(tensor) for tensor in [*module.parameters(), *module.buffers()]))
    if module not in _RECORDED or _RECORDED[module][0] != key:
        with _resting(module):
            recording, trail = recorded(module, x[:1].detach(), module, torchlip.table())
        _RECORDED[module] = (key, recording, trail.functions)
    _, recording, functions = _RECORDED[module]
    run = Training()
    with plain_attention(), run:
        output = module(x)
    if run.functions != functions:
        raise UnsupportedError("the model runs other operations in train mode than in eval mode")
    translation = Translation(recording, x[:1], {**table(), **torchlip.table()}, module, True, run.statistics)
    return fold(translation.network(HINT, x.dtype, type(module).__name__)), output


# Recorded once for each module and mode; what is recorded refers to the live weights.
_RECORDED: WeakKeyDictionary[nn.Module, tuple[Key, Recording, list[str]]] = WeakKeyDictionary()


@contextmanager
def _resting(module: nn.Module) -> Iterator[None]:
    """The module in eval mode, and then each part in the mode in which it was."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, training in modes:
            part.training = training


class Training(TorchFunctionMode):
    """Takes the statistics of the batch from each batch normalisation, and refuses what draws at random."""

    def __init__(self) -> None:
        super().__init__()
        self.statistics: list[tuple[Tensor, Tensor] | None] = []
        self.functions: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run it."""
        kwargs, name = kwargs or {}, named(func)
        if any(isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in leaves(args, kwargs)):
            self.functions.append(name)
        if "dropout" in name and (kwargs.get("training") or args[2:3] == (True,)):
            raise UnsupportedError(f"unsupported operations: {name} in train mode (Dropout). {HINT}")
        if name == "batch_norm":
            self.statistics.append(self._of_batch(func, args, kwargs))
        elif name == "instance_norm":
            self.statistics.append(None)
        return func(*args, **kwargs)

    def _of_batch(self, func: Any, args: Any, kwargs: Any) -> tuple[Tensor, Tensor] | None:
        if not (kwargs.get("training") or args[5:6] == (True,)):
            return None
        if func is not F.batch_norm:
            raise UnsupportedError("unsupported operations: torch.batch_norm in train mode; use nn.BatchNorm")
        x: Tensor = args[0] if args else kwargs["input"]
        mean, variance = Moments.apply(x)  # type: ignore[no-untyped-call]
        return mean, variance


class Moments(torch.autograd.Function):
    """Mean and variance of each channel of x (batch x channels [x ...]): (channels) each.

    The same as ``torch.var_mean``, more than twice as fast with its gradient: it is a line in x, of its own in each
    channel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """The biased ones, as batch normalisation takes them."""
        mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)
        ctx.save_for_backward(x, mean)
        return mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_mean: Tensor, of_variance: Tensor) -> Tensor:
        """d mean / dx = 1 / n, d variance / dx = 2 (x - mean) / n."""
        x, mean = ctx.saved_tensors
        count, shape = x.numel() // x.shape[1], (-1, *[1] * (x.dim() - 2))
        slope = 2 / count * of_variance
        return torch.addcmul((of_mean / count - slope * mean).reshape(shape), x, slope.reshape(shape))
