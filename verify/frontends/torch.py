"""``torch.nn.Module`` in eval mode to :class:`Network`: what it runs, translated, folded, equal on random points."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from assay.verify.core.errors import InputError, ResourceError, UnsupportedError
from assay.verify.core.network import Network, Oracle, to_network
from assay.verify.frontends import torchlip
from assay.verify.frontends.agreement import agree
from assay.verify.frontends.fold import fold
from assay.verify.frontends.labels import Labelled
from assay.verify.frontends.outputs import answered
from assay.verify.frontends.recognised import recognised
from assay.verify.frontends.recording import recorded
from assay.verify.frontends.running import refuse_batch_sizes, refuse_mixing, refuse_other_runs
from assay.verify.frontends.scripts import refuse_branching_scripts
from assay.verify.frontends.translation import Translation
from assay.verify.frontends.translations.table import HINT, table
from assay.verify.frontends.widened import Widened
from assay.verify.support.failures import explained, line
from assay.verify.support.modules import MIXED, mixing, unwrapped


@to_network.register
def read_module(module: nn.Module, input_shape: Sequence[int] | None = None) -> Network:
    """``module``, which must be in eval mode, on inputs of ``input_shape`` (one sample, no batch dimension).

    What is read are the operations that it runs, hooks and all. Of several outputs, the first of a tuple or list or
    the one named "logits" or "out" of a dictionary is read.

    Raises :class:`InputError` for a module in train mode, weights that are NaN or inf, or a shape that the module
    does not take; :class:`UnsupportedError` with all the operations that have no translation.
    """
    original = validated(unwrapped(module))
    return read(_subject(module, original), input_shape)


def called(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[Oracle, torch.dtype, str]:
    """``module`` as it is called on batches, its dtype and its name; nothing of it is read.

    Raises :class:`InputError` as :func:`read_module` does.
    """
    subject = _subject(module, validated(unwrapped(module)))
    pair = torch.rand(2, *input_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    output = _run(subject.oracle, pair.to(subject.dtype), input_shape)
    return answered(subject.oracle, output, len(pair)), subject.dtype, subject.name


@dataclass(frozen=True)
class Subject:
    """What is read: ``oracle`` is the model as it is called, on batches in ``dtype``; ``runs`` does the same without
    wrappers around it, with the tensors of ``parts``. ``alone``: it takes one sample at a time; ``compiled``:
    torch.compile runs some of it."""

    oracle: Oracle
    runs: Oracle
    parts: nn.Module
    dtype: torch.dtype
    name: str
    alone: bool = False
    compiled: bool = False


def read(subject: Subject, input_shape: Sequence[int] | None) -> Network:
    """The network of what the subject runs, compared with it."""
    if input_shape is None:
        raise InputError("a torch module does not say what it takes: pass input_shape (one sample, no batch dimension)")
    pair = torch.rand(2, *input_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pair, dtype, layers = pair.to(subject.dtype), subject.dtype, torchlip.table()
    output = _run(subject.oracle, pair, input_shape)
    oracle, runs = (answered(model, output, len(pair)) for model in (subject.oracle, subject.runs))
    with _eager() if subject.compiled else nullcontext(), _forward_only(subject.parts):
        recording, trail = recorded(runs, pair[:1], subject.parts, layers)
        translation = Translation(recording, pair[:1], {**table(), **layers})
        literal = translation.network(HINT, dtype, subject.name, oracle)
        refuse_other_runs(runs, pair[:1], trail, subject.compiled)
        if not subject.alone:
            refuse_batch_sizes(runs, pair[:1], trail)
            refuse_mixing(runs, pair[:1])
        network = replace(
            fold(recognised(literal), torch.float64), literal=literal, readout=translation.readout, held=literal.held
        )
    wide: Oracle = Widened(Eager(runs) if subject.compiled else runs, dtype)
    if translation.readout == "argmax":
        names = tuple(map(float, range(network.output_size)))
        network, wide = replace(network, oracle=Labelled(oracle, names)), Labelled(wide, names)
    agree(network, None if dtype is torch.float64 or translation.rounded else wide)
    return network


def _eager() -> AbstractContextManager[Any]:
    """While this lasts, what torch.compile wraps runs as it is."""
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def _forward_only(module: nn.Module) -> Iterator[None]:
    """While this lasts, no hooks of backward passes are on its parts: they change no value, and add steps."""
    kept = [(part, part._backward_hooks, part._backward_pre_hooks) for part in module.modules()]
    try:
        for part, *_ in kept:
            part._backward_hooks, part._backward_pre_hooks = OrderedDict(), OrderedDict()
        yield
    finally:
        for part, hooks, before in kept:
            part._backward_hooks, part._backward_pre_hooks = hooks, before


@dataclass(frozen=True)
class Eager:
    """A model of which torch.compile wraps parts, as it is without that."""

    model: Oracle

    def __call__(self, x: Tensor) -> Tensor:
        """(batch x shape) to (batch x outputs)."""
        with _eager():
            return self.model(x)


def validated(module: nn.Module) -> nn.Module:
    """The module, if it is in eval mode, or exported, with weights that are numbers."""
    exported = [part for part in module.modules() if isinstance(part, fx.GraphModule) and _exported(part)]
    fixed = {id(inner) for part in exported for inner in part.modules()}  # in the mode in which they were exported
    training = [
        name or type(module).__name__
        for name, part in module.named_modules()
        if part.training and id(part) not in fixed
    ]
    if training:
        raise InputError(f"the model is in train mode ({', '.join(training[:3])}): call model.eval() first")
    tensors = [*module.named_parameters(), *module.named_buffers()]
    if lazy := [name for name, tensor in tensors if is_lazy(tensor)]:
        raise InputError(f"tensor {lazy[0]!r} of the model has no shape yet: run a batch through the model first")
    for name, tensor in tensors:
        if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
            raise UnsupportedError(f"tensor {name!r} of the model is a {type(tensor).__name__}, a kind of its own")
        if tensor.is_meta:
            raise InputError(f"tensor {name!r} of the model is on the meta device, without numbers: load weights")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"tensor {name!r} of the model holds NaN or inf")
    refuse_branching_scripts(module)
    if mixed := mixing(module):
        raise InputError(MIXED.format(", ".join(mixed)))
    return module


def _exported(part: fx.GraphModule) -> bool:
    return any(isinstance(node.target, torch._ops.OpOverload) for node in part.graph.nodes)


def _subject(module: nn.Module, original: nn.Module) -> Subject:
    """How the model is called on CPU tensors; half precision is widened, which is exact."""
    name = type(original).__name__
    tensor = next((p for p in [*original.parameters(), *original.buffers()] if p.is_floating_point()), None)
    if (size := _fixed_batch(original)) is not None:
        if size != 1 or (tensor is not None and tensor.dtype not in (torch.float32, torch.float64)):
            raise UnsupportedError(FIXED.format(size, "float32" if tensor is None else tensor.dtype))
        one = OneByOne(module)
        return Subject(one, one, original, torch.float32 if tensor is None else tensor.dtype, name, alone=True)
    if tensor is None or (tensor.dtype in (torch.float32, torch.float64) and tensor.device.type == "cpu"):
        compiled = any(hasattr(part, "_orig_mod") for part in module.modules())
        dtype = torch.float32 if tensor is None else tensor.dtype
        return Subject(module, original, original, dtype, name, compiled=compiled)
    if tensor.dtype in (torch.float16, torch.bfloat16):
        wide = _copied(original).float()
        return Subject(wide, wide, wide, torch.float32, name)
    if tensor.dtype not in (torch.float32, torch.float64):
        raise UnsupportedError(
            f"the model's weights are {tensor.dtype}: expected float16, bfloat16, float32 or float64"
        )
    moved = Moved(module, tensor.device)
    return Subject(moved, moved, original, tensor.dtype, name)


FIXED = (
    "the program was exported for batches of exactly {} ({}): export it in float32 or float64 with a dynamic first "
    "axis (dynamic_shapes), or for one sample"
)


def _fixed_batch(module: nn.Module) -> int | None:
    """The size of the batches that an exported program takes, if it takes no others."""
    if not (isinstance(module, fx.GraphModule) and _exported(module)):
        return None
    given = next((node.meta.get("val") for node in module.graph.nodes if node.op == "placeholder"), None)
    size = given.shape[0] if isinstance(given, Tensor) and given.dim() else None
    return size if isinstance(size, int) else None


@dataclass(frozen=True)
class OneByOne:
    """A model that takes one sample at a time, on batches."""

    model: Oracle

    def __call__(self, x: Tensor) -> Tensor:
        """(batch x shape) to (batch x outputs)."""
        return torch.cat([self.model(x[i : i + 1]) for i in range(len(x))])


@dataclass(frozen=True)
class Moved:
    """A model on another device, called on tensors as they come."""

    model: Oracle
    device: torch.device

    def __call__(self, x: Tensor) -> Tensor:
        """(batch x shape) to (batch x outputs), both on the device of ``x``."""
        return self.model(x.to(self.device)).to(x.device)


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


def _run(module: Oracle, sample: Tensor, input_shape: Sequence[int]) -> Any:
    """What the model gives for ``sample``; raises :class:`InputError` if it does not take it."""
    try:
        with torch.no_grad():
            return module(sample.clone())
    except Exception as error:  # whatever the user's code raises
        if isinstance(explained(error), ResourceError):
            raise
        reason = f"{type(error).__name__}: {line(error)}"
        raise InputError(
            f"the model does not run on a batch of inputs of shape {tuple(input_shape)}: {reason} (do the data fit it?)"
        ) from error
