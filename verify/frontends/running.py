"""Whether a model runs what was recorded of its code, however it is called: with gradients or without, one sample or
several. Values at some points do not tell: code that asks who calls it may differ only where nobody looks."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from assay.verify.core.errors import ResourceError, UnsupportedError
from assay.verify.core.network import Oracle
from assay.verify.frontends.symbolic import OfOneInput
from assay.verify.frontends.trace import line
from assay.verify.support.failures import explained

CLOSE = 1e-6  # relative; constants that were computed in another precision

# In which situations a model must do the same: in words, the mode of autograd, what is given, and how many samples.
Situation = tuple[str, Callable[[], AbstractContextManager[Any]], Callable[[Tensor], Tensor], int]
SITUATIONS: tuple[Situation, ...] = (
    ("on two samples", torch.no_grad, torch.clone, 2),
    ("on one sample", torch.no_grad, torch.clone, 1),
    ("in inference mode", torch.inference_mode, torch.clone, 1),
    ("where gradients are recorded", torch.enable_grad, torch.clone, 1),
    ("on an input with gradients", torch.enable_grad, lambda x: x.clone().requires_grad_() * 1, 1),
    ("on an input that is a parameter", torch.enable_grad, lambda x: nn.Parameter(x.clone()), 1),
)


# What is the same in all of them may be asked where nothing is recorded.
SAME = ("device", "is_cuda", "dtype", "is_floating_point", "is_complex", "layout", "ndim", "dim")

Pairs = dict[tuple[int, int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Constant:
    """A tensor in which the input has no part, and its version when it was used."""

    tensor: Tensor
    version: int


@dataclass(frozen=True)
class Number:
    """A value that depends on the input, by its place among them."""

    place: int


@dataclass(eq=False)
class Trail:
    """What was done to the input: ``steps``, operations of torch with their operands, and ``questions``, how often each
    function was called that gives no tensor.

    ``values`` that depend on the input are kept, so that no other tensor takes their ids and their ``memory``.
    """

    steps: list[tuple[Any, list[Any]]] = field(default_factory=list)
    questions: Counter[Any] = field(default_factory=Counter)
    values: list[Tensor] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    memory: set[int] = field(default_factory=set)

    def follow(self, x: Any) -> None:
        """Note the tensors in ``x`` as values that depend on the input."""
        for leaf in leaves(x):
            if isinstance(leaf, Tensor):
                self.places[id(leaf)] = len(self.values)
                self.values.append(leaf)
                self.memory.add(_memory(leaf))

    def depends(self, leaf: Any) -> bool:
        """Whether an operand depends on the input: it is one of the values, or lies where one of them does."""
        return isinstance(leaf, Tensor) and (id(leaf) in self.places or (_memory(leaf) or -1) in self.memory)

    def operand(self, leaf: Any) -> Any:
        """An operand as it is compared."""
        if not isinstance(leaf, Tensor):
            return leaf
        if self.depends(leaf):
            return Number(self.places.get(id(leaf), -1))
        return Constant(leaf, 0 if leaf.is_inference() else leaf._version)

    @property
    def moved(self) -> bool:
        """Whether a constant was overwritten after it was used."""
        return any(
            isinstance(leaf, Constant) and not leaf.tensor.is_inference() and leaf.tensor._version != leaf.version
            for _, operands in self.steps
            for leaf in operands
        )


def leaves(*given: Any) -> list[Any]:
    """What is in nested lists, tuples and dictionaries, with their lengths and keys."""
    found: list[Any] = []
    for item in given:
        if isinstance(item, (list, tuple)):
            found += [len(item), *leaves(*item)]
        elif isinstance(item, dict):
            found += [*item, *leaves(*item.values())]
        else:
            found.append(item)
    return found


def _memory(tensor: Tensor) -> int:
    """Where the numbers lie; 0 for a tensor without any."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


class Calls(TorchFunctionMode):
    """Notes the calls of torch's functions on what depends on the input: operations, questions about its shape, and
    ways past torch to its numbers. Which mode autograd is in makes no difference to them."""

    def __init__(self, trail: Trail) -> None:
        super().__init__()
        self.trail = trail

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and note it."""
        operands = [self.trail.operand(leaf) for leaf in leaves(args, kwargs or {})]
        result = func(*args, **(kwargs or {}))
        if any(isinstance(operand, Number) for operand in operands):
            if any(isinstance(leaf, Tensor) for leaf in leaves(result)):
                self.trail.steps.append((func, operands))
                self.trail.follow(result)
            else:
                self.trail.questions[func] += 1
        return result


@contextmanager
def _compiling() -> Iterator[None]:
    """Code that asks torch.compiler hears that it is compiled."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        with torch.no_grad():
            yield
    finally:
        torch.compiler._is_compiling_flag = before


class OtherRunError(UnsupportedError):
    """A model runs something else than what was recorded."""


COMPILED: Situation = ("where it is compiled", _compiling, torch.clone, 1)


def refuse_other_runs(
    model: nn.Module, graph: fx.GraphModule, own: nn.Module, sample: Tensor, compiled: bool = False
) -> None:
    """Raise :class:`OtherRunError` unless ``model`` runs what ``graph`` records, in all :data:`SITUATIONS`.

    ``own``: a copy of the model whose weights the graph is run with, in the dtype of ``sample`` (2 x input shape).
    ``compiled``: some of it is run by torch.compile, and must do the same there.
    """
    device = next((t.device for t in [*model.parameters(), *model.buffers()]), sample.device)
    sample = sample.to(device)
    ours = _with_weights(graph, own if device.type == "cpu" else copy.deepcopy(own).to(device), sample)
    alike: Pairs = {}
    recorded: dict[int, Trail] = {}  # by the number of samples
    for situation in (*SITUATIONS, COMPILED) if compiled else SITUATIONS:
        where, _, _, count = situation
        if count not in recorded:
            recorded[count] = _trail(ours, sample[:count], situation)
        trail = _trail(model, sample[:count], situation)
        what = _difference(trail, recorded[count], alike)
        if not what and not trail.moved:
            continue
        again = _trail(model, sample[:count], situation)
        if trail.moved or _difference(trail, again, {}):
            raise UnsupportedError("one input has several outputs: the model draws at random or keeps a state")
        raise OtherRunError(
            f"what the model runs {where} is not what torch.fx recorded of its code ({what}): it asks what it is given "
            "or how it is called, catches errors, or leaves torch; make forward() the same operations in every call"
        )


def _with_weights(graph: fx.GraphModule, own: nn.Module, like: Tensor) -> Oracle:
    """The recorded graph over the parts of ``own``; constants that were made while recording go along."""
    root = OfOneInput(own)
    for name, value in vars(graph).get("_buffers", {}).items():
        setattr(root, name, value.to(like) if value.is_floating_point() else value)
    return fx.Interpreter(root, graph=graph.graph).run


def _trail(model: Oracle, sample: Tensor, situation: Situation) -> Trail:
    """What ``model`` does with ``sample``."""
    where, mode, given, _ = situation
    trail = Trail()
    try:
        with torch.inference_mode(False), mode():
            x = given(sample)
            trail.follow(x)
            with Calls(trail):
                output = model(x)
            trail.steps.append(("its output", [trail.operand(leaf) for leaf in leaves(output)]))
    except Exception as error:  # whatever the user's code raises
        if isinstance(explained(error), ResourceError):
            raise
        raise OtherRunError(f"the model does not run {where} ({line(error)})") from error
    return trail


def _difference(theirs: Trail, ours: Trail, alike: Pairs) -> str:
    """Where the first trail goes another way than the second, in words; "" if it does not.

    ``alike``: constants that are known to be the same, by their ids, and kept, so that no others take these.
    """
    for (name, operands), (recorded, others) in zip(theirs.steps, ours.steps, strict=False):
        if name != recorded:
            return f"{_named(name)} instead of {_named(recorded)}"
        if len(operands) != len(others) or not all(_same(a, b, alike) for a, b in zip(operands, others, strict=True)):
            return f"{_named(name)} of other operands"
    if len(theirs.steps) != len(ours.steps):
        return f"{len(theirs.steps)} operations instead of {len(ours.steps)}"
    asked = [name for function in theirs.questions - ours.questions if (name := _named(function)) not in SAME]
    return ", ".join(f"it calls {name}" for name in asked)


def _named(function: Any) -> str:
    """The name of a function, or of the attribute that it gets."""
    name = str(getattr(function, "__name__", function))
    return str(getattr(getattr(function, "__self__", None), "__name__", name)) if name == "__get__" else name


def _same(a: Any, b: Any, alike: Pairs) -> bool:
    """Whether two operands are the same, constants up to the rounding of another precision."""
    if isinstance(a, Constant) and isinstance(b, Constant):
        pair = (id(a.tensor), id(b.tensor))
        if pair not in alike:
            if not _close(a.tensor.detach(), b.tensor.detach()):
                return False
            alike[pair] = (a.tensor, b.tensor)
        return True
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (a != a and b != b) or abs(a - b) <= CLOSE * abs(a)
    return type(a) is type(b) and bool(a == b)


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.is_floating_point() != b.is_floating_point():
        return False
    return torch.equal(a, b) or torch.allclose(a.double(), b.double(), CLOSE, 0.0, equal_nan=True)
