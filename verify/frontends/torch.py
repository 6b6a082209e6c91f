"""``torch.nn.Module`` in eval mode to :class:`Network`: traced by torch.fx, folded, equal on random points."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.parametrize import is_parametrized

from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Network, Oracle, to_network
from assay.verify.frontends import torchlip
from assay.verify.frontends.agreement import agree
from assay.verify.frontends.fold import fold
from assay.verify.frontends.trace import Handler, Translation
from assay.verify.frontends.translations.table import HINT, table


@to_network.register
def read_module(module: nn.Module, input_shape: Sequence[int] | None = None) -> Network:
    """``module``, which must be in eval mode, on inputs of ``input_shape`` (one sample, no batch dimension).

    Raises :class:`InputError` for a module in train mode, weights that are NaN or inf, or a shape that the module
    does not take; :class:`UnsupportedError` with all the operations that have no translation.
    """
    if input_shape is None:
        raise InputError("a torch module does not say what it takes: pass input_shape (one sample, no batch dimension)")
    dtype, oracle = _oracle(_validated(module))
    double = _doubled(module, dtype)
    sample = torch.rand(2, *input_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _run(double, sample.clone(), input_shape)
    translation = Translation(_trace(double), sample, _table())
    output = translation.output(HINT)
    scalar = output.concrete.dim() == 1
    oracle = Column(oracle) if scalar else oracle
    literal = translation.builder.build(output.position, oracle, dtype, type(module).__name__)
    network = replace(fold(literal), literal=literal)
    agree(network, Column(double) if scalar else double)
    return network


@dataclass(frozen=True)
class Column:
    """A model with one number for each sample, as a model with an output of length one."""

    model: Oracle

    def __call__(self, x: Tensor) -> Tensor:
        """(batch x shape) to (batch x 1)."""
        return self.model(x)[:, None]


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
    key = module.training
    if module not in _TRACED or _TRACED[module][0] != key:
        _TRACED[module] = (key, _trace(module))
    translation = Translation(_TRACED[module][1], x, _table(), live=True)
    output = translation.output(HINT)
    network = translation.builder.build(output.position, dtype=x.dtype, name=type(module).__name__)
    return fold(network), output.concrete


# Traced once for each module and mode; the traced graph refers to the module's parts, which hold the live weights.
_TRACED: WeakKeyDictionary[nn.Module, tuple[bool, fx.GraphModule]] = WeakKeyDictionary()


def _validated(module: nn.Module) -> nn.Module:
    training = [name or type(module).__name__ for name, part in module.named_modules() if part.training]
    if training:
        raise InputError(f"the model is in train mode ({', '.join(training[:3])}): call model.eval() first")
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"tensor {name!r} of the model holds NaN or inf")
    return module


def _oracle(module: nn.Module) -> tuple[torch.dtype, Oracle]:
    """The dtype in which the model runs and a callable on CPU tensors; half precision is widened, which is exact."""
    tensor = next((p for p in [*module.parameters(), *module.buffers()] if p.is_floating_point()), None)
    if tensor is None or (tensor.dtype in (torch.float32, torch.float64) and tensor.device.type == "cpu"):
        return (torch.float32 if tensor is None else tensor.dtype), module
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return torch.float32, _copied(module).float()
    device = tensor.device
    return tensor.dtype, lambda x: module(x.to(device)).to(x.device)


def _doubled(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy in float64; parametrised weights are what the model, running in ``dtype``, makes of them."""
    double = _copied(module)
    for part in list(double.modules()):
        for name in _parametrised(part):
            part.to(torch.promote_types(getattr(part, name).dtype, dtype))
            part.get_submodule("parametrizations").add_module(name, Evaluated(getattr(part, name).detach()))
    return double.double()


def _parametrised(part: nn.Module) -> list[str]:
    return [n for n, _ in part.get_submodule("parametrizations").named_children()] if is_parametrized(part) else []


class Evaluated(nn.Module):
    """In place of the parametrisation of a weight: the weight. Removing that would change a class shared by copies."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.clone())

    def forward(self) -> Tensor:
        """The weight."""
        return self.get_buffer("weight")


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module).cpu()
    except RuntimeError as error:  # a tensor kept from a step of training, with its place in autograd's graph
        raise InputError(
            f"the model cannot be copied ({str(error).splitlines()[0]}); run it once in eval mode, or load its "
            "state_dict into a new one"
        ) from error


def _run(module: nn.Module, sample: Tensor, input_shape: Sequence[int]) -> Tensor:
    try:
        with torch.no_grad():
            output: Any = module(sample)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"the model does not take inputs of shape {tuple(input_shape)}: {reason}") from error
    if not isinstance(output, Tensor) or output.dim() < 1 or output.shape[0] != len(sample):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"expected the model to return one tensor with a batch dimension, got {got}")
    return output


class Tracer(fx.Tracer):
    """Looks into every module that is not in the ``table`` and is not torch's own."""

    def __init__(self, table: Mapping[Any, Handler]) -> None:
        super().__init__()
        self.table = table

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether the graph has the module as one node."""
        if type(m) in self.table or is_parametrized(m):  # the class of the latter, made by torch, is in no table
            return type(m) in self.table
        return bool(super().is_leaf_module(m, module_qualified_name))


def _trace(module: nn.Module) -> fx.GraphModule:
    try:
        return fx.GraphModule(module, Tracer(_table()).trace(module), type(module).__name__)
    except Exception as error:  # torch.fx raises many kinds; all mean that Python decided something by tensor values
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnsupportedError(
            f"torch.fx cannot trace the model ({reason}); make forward() free of branches"
        ) from error


def _table() -> dict[Any, Handler]:
    return {**table(), **torchlip.table()}
