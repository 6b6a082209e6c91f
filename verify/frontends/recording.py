"""What a model runs on one sample: torch's operations as they are executed, on ordinary tensors, one after the other.

A mode of torch's dispatcher sees every operation, whoever calls it: hooks, patched layers, functional calls, scripts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._pytree import tree_leaves, tree_map

from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Oracle
from assay.verify.frontends.dispatch import Operations, name_of, tensors_in, writes
from assay.verify.frontends.memory import Geometry, geometry, place
from assay.verify.frontends.running import LEAVES, Calls, Trail, branches, end, explaining

OWN = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


@dataclass(frozen=True)
class Slot:
    """A value of the run, by its number; 0 is the input."""

    number: int


@dataclass(frozen=True, eq=False)
class Call:
    """One operation: values of the run among its arguments are slots, other tensors are constants of the model.

    ``results``: the slots of the tensors that it gives, or that it writes to; ``operation``: its name, in torch's
    words; ``where``: the function, the module or the line that it comes from.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[int, ...]
    operation: str
    where: str


@dataclass(eq=False)
class Recording:
    """The operations of one run, and the slot of its output."""

    calls: list[Call] = field(default_factory=list)
    output: int = -1


class Recorder:
    """Notes the operations that are executed, in a :class:`Recording`."""

    def __init__(self, x: Tensor, calls: Calls, layers: Layers, module: nn.Module | None) -> None:
        self.recording = Recording()
        self.calls, self.layers = calls, layers
        self.names = {place(tensor): name for name, tensor in tensors_of(module) if tensor.numel()}
        self.parts = {} if module is None else {id(part): name for name, part in module.named_modules()}
        self.slots: dict[Geometry, int] = {geometry(x): 0}
        self.kept: list[Any] = [x]  # so that no other tensor takes their memory
        self.depend = {place(x)}
        self.made: set[int] = set()

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run and note it."""
        if func.namespace == "profiler":
            return func(*args, **kwargs)
        name, tensors = name_of(func), tensors_in(args, kwargs)
        self._check(func, name, tensors)
        depends = any(place(tensor) in self.depend for tensor in tensors)
        self._check_written(name, writes(func, args, kwargs))
        inside = self.layers.now is not None
        noted = (args, kwargs) if inside else tree_map(self._noted, (args, kwargs))
        result = func(*args, **kwargs)
        if depends and not tensors_in(result):
            self._refuse(branches(self._where() or name) if name in DATA else UnsupportedError(LEAVES.format(name)))
        if torch.Tag.inplace_view in func.tags:  # it moves no number: a view, which takes the place of its operand
            if name in ("resize_", "set_"):
                self._refuse(UnsupportedError(f"the model gives a tensor other memory ({name})"))
            noted = ((noted[0][0], result.size(), result.stride(), result.storage_offset()), {})
            func, name = torch.ops.aten.as_strided.default, name.rstrip("_")
        if inside:
            self._follow(result, depends)
        else:
            self.note(func, noted, result, name, depends)
        return result

    def note(self, func: Any, noted: Any, result: Any, name: str, depends: bool) -> None:
        """Append a call that gave ``result``."""
        self._follow(result, depends)
        slots = [self.slots.setdefault(geometry(leaf), len(self.slots)) for leaf in tensors_in(result)]
        args, kwargs = noted
        self.recording.calls.append(Call(func, args, kwargs, tuple(slots), name, self._where()))

    def slot(self, tensor: Tensor) -> int | None:
        """The number of a value of the run; None for a constant."""
        return self.slots.get(geometry(tensor))

    def _follow(self, result: Any, depends: bool) -> None:
        for leaf in tensors_in(result):
            self.kept.append(leaf)
            if leaf.layout != torch.strided:
                self._refuse(UnsupportedError(f"the model computes with {leaf.layout} tensors"))
            if place(leaf) not in self.names:
                self.made.add(place(leaf))
            if depends:
                self.depend.add(place(leaf))
                self.calls.trail.seen.add(place(leaf))

    def _noted(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or (isinstance(leaf, nn.Parameter) and place(leaf) in self.names):
            return leaf
        number = self.slots.get(geometry(leaf))
        if number is None and place(leaf) in self.made | self.depend and place(leaf) not in self.names:
            # a view that no operation gave, such as torch makes of a value that is written to under autograd
            self._refuse(UnsupportedError("the model makes views of its values in a way that is not read"))
        return leaf if number is None else Slot(number)

    def _check(self, func: Any, name: str, tensors: list[Tensor]) -> None:
        if torch.Tag.nondeterministic_seeded in func.tags and name not in DETERMINISTIC:
            where = f" ({self._where()})" if self._where() else ""
            self._refuse(UnsupportedError(f"the model draws at random: {name.rstrip('_')}{where}"))
        for tensor in tensors:
            if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
                self._refuse(UnsupportedError(f"the model computes with a {type(tensor).__name__}, a kind of its own"))

    def _check_written(self, name: str, written: list[Tensor]) -> None:
        for tensor in written:
            if tensor is self.kept[0] or (place(tensor) == place(self.kept[0]) and tensor.numel()):
                self._refuse(UnsupportedError(f"the model overwrites its input in place ({name})"))
            if place(tensor) in self.names:
                own = self.names[place(tensor)]
                what = f"the model keeps a state: it overwrites its own {own!r} whenever it runs ({name})"
                self._refuse(UnsupportedError(what))
            elif tensor.numel() and place(tensor) not in self.made:
                self._refuse(UnsupportedError(f"the model keeps a state: it overwrites what it holds ({name})"))

    def _refuse(self, error: UnsupportedError) -> NoReturn:
        self.calls.trail.refuse(error)

    def _where(self) -> str:
        function = self.calls.running[0].strip("_") if self.calls.running else ""
        at = _running()
        if isinstance(at, nn.Module):
            at = f"{type(at).__name__} {self.parts.get(id(at), '')}".strip()
        return ", ".join(part for part in (function, at) if part)


DATA = ("_local_scalar_dense", "is_nonzero", "equal", "item")
# Tagged as random, which they are in train mode only; the table decides.
DETERMINISTIC = ("rrelu_with_noise", "_scaled_dot_product_flash_attention_for_cpu", "_fused_sdp_choice")


def _running() -> nn.Module | str:
    """The innermost module of torch's own that is running, or else the line of the user's code, as far as known."""
    frame, line = sys._getframe(2), ""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "_call_impl" and code.co_filename.startswith(OWN[0]):
            module: nn.Module = frame.f_locals["self"]
            if type(module).__module__.startswith("torch.") and not isinstance(module, nn.Sequential):
                return module
        elif code.co_name == "recorded" and code.co_filename == __file__:
            break
        elif not line and not code.co_filename.startswith((*OWN, "<")):
            line = f"{Path(code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return line


class Layers:
    """Modules of certain kinds, whose operations are noted as one call of the module, told by hooks of all modules."""

    def __init__(self, kinds: Mapping[Any, Any]) -> None:
        self.kinds = tuple(kinds)
        self.now: nn.Module | None = None
        self.recorder: Recorder | None = None

    @contextmanager
    def told(self) -> Iterator[None]:
        """While modules tell that they run."""
        with ExitStack() as stack:
            if self.kinds:
                stack.callback(register_module_forward_pre_hook(self._enter).remove)
                stack.callback(register_module_forward_hook(self._leave, always_call=True).remove)
            yield

    def _enter(self, module: nn.Module, given: Any) -> None:
        if self.now is None and type(module) in self.kinds and _as_it_is(module) and len(given) == 1:
            self.now = module

    def _leave(self, module: nn.Module, given: Any, output: Any) -> None:
        if module is not self.now or self.recorder is None:
            return
        self.now = None
        with torch._C.DisableTorchFunction():
            slot = self.recorder.slot(given[0])
            if slot is not None and isinstance(output, Tensor):
                self.recorder.note(module, ((Slot(slot),), {}), output, type(module).__name__, True)


def _as_it_is(module: nn.Module) -> bool:
    """Whether a module is called as its class says, and nothing else."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def tensors_of(module: nn.Module | None) -> list[tuple[str, Tensor]]:
    """The parameters and buffers of a module, with their names."""
    return [] if module is None else [*module.named_parameters(), *module.named_buffers()]


def recorded(
    model: Oracle, sample: Tensor, module: nn.Module | None = None, kinds: Mapping[Any, Any] = MappingProxyType({})
) -> tuple[Recording, Trail]:
    """What ``model`` runs on ``sample`` (1 x input shape), as operations and as calls of torch's functions.

    ``module``: names its parts and its own tensors. ``kinds`` of modules are noted as one call. Raises
    :class:`UnsupportedError` where what it runs is no graph of operations: it branches on data, draws at random, keeps
    a state, or leaves torch.
    """
    trail, layers = Trail(), Layers(kinds)
    with explaining(trail, "on one sample"), torch.inference_mode(False), torch.no_grad():
        x = sample.clone()
        trail.follow(x, True)
        calls = Calls(trail)
        recorder = layers.recorder = Recorder(x, calls, layers, module)
        with plain_kernels(), layers.told(), Operations(recorder.run), calls:
            output = model(x)
        end(trail, output)
        _refuse_other_recordings(model, sample, recorder, module)
        recording = recorder.recording
        if isinstance(output, Tensor) and (slot := recorder.slot(output)) is not None:
            recording.output = slot
    return recording, trail


def _refuse_other_recordings(model: Oracle, sample: Tensor, first: Recorder, module: nn.Module | None) -> None:
    """Raise :class:`UnsupportedError` unless the same operations are executed while no function of torch is noted."""
    if first.layers.kinds:  # they are told apart by hooks, and their operations are not noted
        return
    again = Recorder(sample.clone(), Calls(Trail()), Layers({}), module)
    with explaining(again.calls.trail, "on one sample"), plain_kernels(), Operations(again.run):
        model(again.kept[0])
    if _content(first.recording) != _content(again.recording):
        raise UnsupportedError(
            "the model runs other operations when it is run again: it draws at random or keeps a state, or asks "
            "whether functions of torch are overridden"
        )


def _content(recording: Recording) -> list[Any]:
    """The operations with their arguments, of constants their shapes."""
    return [(call.operation, *tree_leaves(tree_map(_comparable, (call.args, call.kwargs)))) for call in recording.calls]


def _comparable(leaf: Any) -> Any:
    if isinstance(leaf, torch.ScriptObject):  # packed weights, of an operation that is not read
        return type(leaf)
    return (tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else leaf


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Layers as the operations that they are made of, and not as kernels that take several at once."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)  # torch.backends.mkldnn.flags() warns of what else it sets
    try:
        with plain_attention():
            yield
    finally:
        torch._C._set_mkldnn_enabled(before)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention as the operations that it is made of; all else as it is."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
