"""``torch.nn.Module`` in eval mode to :class:`Network`: traced by torch.fx, folded, equal on random points."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import has_torch_function

from assay.verify.core.errors import InputError, ResourceError, UnsupportedError
from assay.verify.core.network import Network, Oracle, to_network
from assay.verify.frontends import torchlip
from assay.verify.frontends.agreement import agree
from assay.verify.frontends.fold import fold
from assay.verify.frontends.hooks import refuse_hooks, weight_hooks
from assay.verify.frontends.running import OtherRunError, refuse_other_runs
from assay.verify.frontends.symbolic import asks_precision, record
from assay.verify.frontends.trace import Handler, Translation, Value, line
from assay.verify.frontends.translations.table import HINT, table
from assay.verify.support.failures import explained
from assay.verify.support.modules import MIXED, mixing, unwrapped


@to_network.register
def read_module(module: nn.Module, input_shape: Sequence[int] | None = None) -> Network:
    """``module``, which must be in eval mode, on inputs of ``input_shape`` (one sample, no batch dimension).

    Raises :class:`InputError` for a module in train mode, weights that are NaN or inf, or a shape that the module
    does not take; :class:`UnsupportedError` with all the operations that have no translation.
    """
    if input_shape is None:
        raise InputError("a torch module does not say what it takes: pass input_shape (one sample, no batch dimension)")
    original = _validated(unwrapped(module))
    refuse_hooks(module, table())
    dtype, oracle = _oracle(module, original)
    sample = torch.rand(2, *input_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _run(oracle, sample.to(dtype), input_shape)
    own = _evaluated(_copied(original), dtype)
    double = _doubled(own, sample)
    runs = _running(module, original, oracle, own)
    compiled = any(part is not unwrapped(part) for part in module.modules())

    def read(graph: fx.GraphModule) -> tuple[Translation, Value]:
        translation = Translation(graph.double(), sample, _table(), dtype)
        output = translation.output(HINT)
        refuse_other_runs(runs, graph, own, sample.to(dtype), compiled)
        return translation, output

    found = None
    graph = None if double is None else _recorded(double, sample)
    if graph is not None and not asks_precision(graph):
        with suppress(OtherRunError):
            found = read(graph)
    if found is None:  # in float64 it may go another way
        found, double = read(_recorded(copy.deepcopy(own), sample.to(dtype))), None
    translation, output = found
    scalar = output.concrete.dim() == 1
    oracle = Column(oracle) if scalar else oracle
    literal = translation.builder.build(output.position, oracle, dtype, type(original).__name__)
    network = replace(fold(literal), literal=literal, readout=translation.readout)
    if translation.casts:  # it runs in float64, if at all, with roundings to less
        double = None
    agree(network, Column(double) if scalar and double is not None else double)
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
        refuse_hooks(module, table())
        _TRACED[module] = (key, record(module, _table()))
    translation = Translation(_TRACED[module][1], x, _table(), x.dtype, live=True)
    output = translation.output(HINT)
    network = translation.builder.build(output.position, dtype=x.dtype, name=type(module).__name__)
    return fold(network), output.concrete


# Traced once for each module and mode; the traced graph refers to the module's parts, which hold the live weights.
_TRACED: WeakKeyDictionary[nn.Module, tuple[bool, fx.GraphModule]] = WeakKeyDictionary()


def _validated(module: nn.Module) -> nn.Module:
    scripted = [name or "itself" for name, part in module.named_modules() if isinstance(part, torch.jit.ScriptModule)]
    if scripted:
        raise UnsupportedError(
            f"the model is TorchScript ({scripted[0]}), which is not read: pass the nn.Module that it was made from, "
            "or export it to ONNX"
        )
    if any(isinstance(part, fx.GraphModule) and _exported(part) for part in module.modules()):
        raise UnsupportedError("the model is a torch.export program, which is not read: pass the nn.Module it is of")
    training = [name or type(module).__name__ for name, part in module.named_modules() if part.training]
    if training:
        raise InputError(f"the model is in train mode ({', '.join(training[:3])}): call model.eval() first")
    tensors = [*module.named_parameters(), *module.named_buffers()]
    if lazy := [name for name, tensor in tensors if is_lazy(tensor)]:
        raise InputError(f"tensor {lazy[0]!r} of the model has no shape yet: run a batch through the model first")
    for name, tensor in tensors:
        if has_torch_function((tensor,)) or type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
            raise UnsupportedError(f"tensor {name!r} of the model is a {type(tensor).__name__}, a kind of its own")
        if tensor.is_meta:
            raise InputError(f"tensor {name!r} of the model is on the meta device, without numbers: load weights")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"tensor {name!r} of the model holds NaN or inf")
    if mixed := mixing(module):
        raise InputError(MIXED.format(", ".join(mixed)))
    return module


def _exported(part: fx.GraphModule) -> bool:
    return any(isinstance(node.target, torch._ops.OpOverload) for node in part.graph.nodes)


def _oracle(module: nn.Module, original: nn.Module) -> tuple[torch.dtype, Oracle]:
    """The dtype in which the model runs and a callable on CPU tensors; half precision is widened, which is exact."""
    tensor = next((p for p in [*original.parameters(), *original.buffers()] if p.is_floating_point()), None)
    if tensor is None or (tensor.dtype in (torch.float32, torch.float64) and tensor.device.type == "cpu"):
        return (torch.float32 if tensor is None else tensor.dtype), module
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return torch.float32, _copied(original).float()
    if tensor.dtype not in (torch.float32, torch.float64):
        raise UnsupportedError(
            f"the model's weights are {tensor.dtype}: expected float16, bfloat16, float32 or float64"
        )
    device = tensor.device
    return tensor.dtype, lambda x: module(x.to(device)).to(x.device)


def _running(module: nn.Module, original: nn.Module, oracle: Oracle, own: nn.Module) -> nn.Module:
    """The module whose code the oracle runs; its copy where compiled parts or backward hooks add steps of their own."""
    if any(
        part is not unwrapped(part) or part._backward_hooks or part._backward_pre_hooks for part in original.modules()
    ):
        return own
    return oracle if isinstance(oracle, nn.Module) and oracle is not module else original


def _recorded(model: nn.Module, sample: Tensor) -> fx.GraphModule:
    """The graph of ``model`` without gradients, in which it is verified and replayed."""
    with torch.no_grad():
        return record(model, _table(), [sample[:1], sample])


def _evaluated(copied: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy whose parametrised weights are what the model, running in ``dtype``, makes of them, and in ``dtype``."""
    for part in list(copied.modules()):
        for name, child in list(part.named_children()):
            if child is not unwrapped(child):
                setattr(part, name, unwrapped(child))
        part._backward_hooks.clear()  # change no value, and cannot be traced
        part._backward_pre_hooks.clear()
        for name in _parametrised(part):
            part.to(torch.promote_types(getattr(part, name).dtype, dtype))
            part.get_submodule("parametrizations").add_module(name, Evaluated(getattr(part, name).detach()))
        for key, name, hook in weight_hooks(part):
            part.to(torch.promote_types(next(part.parameters()).dtype, dtype))
            hook(part, ())
            weight = getattr(part, name).detach().clone()
            del part._forward_pre_hooks[key]
            delattr(part, name)
            part.register_buffer(name, weight)
    return copied.to(dtype)


def _doubled(own: nn.Module, sample: Tensor) -> nn.Module | None:
    """``own`` in float64, or None if it cannot run there: it makes tensors of another precision itself."""
    double = copy.deepcopy(own).double()
    try:
        with torch.no_grad():
            double(sample.clone())
    except Exception as error:
        if isinstance(explained(error), ResourceError):
            raise
        return None
    return double


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
    """A copy on the CPU; tensors that a step of training left in it are copied without their past."""
    left = [t for part in module.modules() for t in vars(part).values() if isinstance(t, Tensor) and not t.is_leaf]
    try:
        return copy.deepcopy(module, {id(tensor): tensor.detach().clone() for tensor in left}).cpu()
    except Exception as error:
        raise InputError(
            f"the model cannot be copied ({line(error)}); run it once in eval mode, or load its state_dict into a new "
            "one"
        ) from error


def _run(module: Oracle, sample: Tensor, input_shape: Sequence[int]) -> None:
    """Raise :class:`InputError` unless the model takes ``sample`` and gives one tensor of numbers for it."""
    try:
        with torch.no_grad():
            output: Any = module(sample)
    except Exception as error:  # whatever the user's code raises
        if isinstance(explained(error), ResourceError):
            raise
        reason = f"{type(error).__name__}: {line(error)}"
        raise InputError(
            f"the model does not run on a batch of inputs of shape {tuple(input_shape)}: {reason} (do the data fit it?)"
        ) from error
    if not isinstance(output, Tensor) or output.dim() < 1 or output.shape[0] != len(sample):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"expected the model to return one tensor with a batch dimension, got {got}")
    if not output.is_floating_point():
        raise InputError(f"expected the model to return floating-point numbers, got {output.dtype}")


def _table() -> dict[Any, Handler]:
    return {**table(), **torchlip.table()}
