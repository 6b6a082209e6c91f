"""The walk over a traced torch module: node by node from torch's graph to ours, with concrete values beside.

Two samples travel along in float64 (a training batch, for live weights): whatever does not depend on the input is
computed by torch itself and is a constant, shapes are read off the values, and each operation must give the module's
own value the moment it is translated.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from assay.verify.core.errors import InputError, InternalError, ResourceError, UnsupportedError
from assay.verify.core.network import Builder, Node
from assay.verify.core.ops import Gather, Input, Op, Reshape, evaluate, map_tensors
from assay.verify.support.failures import explained

# What may be asked of a value without depending on its numbers.
METADATA = {"size", "dim", "ndimension", "numel", "shape", "ndim", "dtype", "device", len, getattr}


class Untranslatable(Exception):
    """An operation on traced values that has no counterpart; the reason, where its name does not say it."""


PRECISIONS = (torch.float32, torch.float64)  # that a value may be cast to and keep every bit of a float32
CASTS = {"float", "double", "to", "type", "type_as"}


@dataclass(frozen=True, eq=False)
class Value:
    """What a graph node stands for: a node of the network under construction, and its concrete value."""

    position: int
    concrete: Tensor


UNKNOWN = -1  # the position of what could not be translated; it was complained about where it arose


@dataclass(frozen=True, eq=False)
class Call:
    """One node of the traced graph with its operands resolved; ``concrete`` is the value that torch gives it."""

    translation: Translation
    node: fx.Node
    module: nn.Module | None
    args: list[Any]
    kwargs: dict[str, Any]
    concrete: Any

    def options(self, names: Sequence[str], defaults: Mapping[str, Any] | None = None) -> list[Any]:
        """The operand and the options ``names``, from the module's attributes or the function's arguments."""
        if self.module is not None:
            return [self.args[0] if self.args else self.kwargs["input"], *(getattr(self.module, n) for n in names[1:])]
        given = dict(zip(names, self.args, strict=False)) | self.kwargs
        extra = set(given) - set(names) - {"inplace", "out"}
        if len(self.args) > len(names) or extra or given.get("out") is not None or names[0] not in given:
            raise Untranslatable
        known = {**(defaults or {}), **given}
        if set(names) - set(known):
            raise Untranslatable
        return [known[name] for name in names]

    @property
    def operand(self) -> Value:
        """The first operand, which must be traced."""
        return traced(self.args[0] if self.args else self.kwargs.get("input"))

    def emit(self, op: Op, *operands: Value, last: bool = True) -> Value:
        """``op`` appended to the network; the ``last`` one of a call must have the call's value."""
        return self.translation.emit(op, operands, self.concrete if last else None)

    def again(self, numbers: Tensor) -> Any:
        """The same call with its first operand replaced."""
        args, kwargs = _map([self.args, self.kwargs], lambda leaf: leaf.concrete if isinstance(leaf, Value) else leaf)
        if args:
            args[0] = numbers
        else:
            kwargs["input"] = numbers
        return self.translation.call(self.node, args, kwargs)


Handler = Callable[[Call], Any]


def traced(value: Any) -> Value:
    """``value`` if it is one that depends on the input."""
    if not isinstance(value, Value):
        raise Untranslatable
    return value


class Translation:
    """Translates a traced graph with a table of handlers, keyed by module type, function or method name.

    ``dtype``: in which the model runs; ``casts`` tells whether it casts values itself,
    ``readout`` what it ends in that was left out. ``live``: operations keep the
    module's weights themselves, in their dtype, with their place in autograd's graph.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        sample: Tensor,
        table: Mapping[Any, Handler],
        dtype: torch.dtype = torch.float64,
        live: bool = False,
    ) -> None:
        self.graph = graph
        self.dtype = dtype
        self.casts = False
        self.readout = ""
        self.sample = sample
        self.table = table
        self.live = live
        self.builder = Builder(tuple(sample.shape[1:]))
        self.environment: dict[fx.Node, Any] = {}
        self.unsupported: dict[str, int] = {}
        self.modules = dict(graph.named_modules())

    def output(self, hint: str) -> Value:
        """Walk over all of the graph; every operation without a translation is collected before complaining."""
        output: Any = None
        kept = [*self.graph.named_parameters(), *self.graph.named_buffers()]
        versions = [tensor._version for _, tensor in kept]
        with torch.set_grad_enabled(self.live and torch.is_grad_enabled()):
            for node in self.graph.graph.nodes:
                if node.op == "output":
                    output = self._resolve(node.args[0])
                else:
                    self.environment[node] = self._step(node)
        if self.unsupported:
            listed = ", ".join(f"{name} (x{n})" if n > 1 else name for name, n in self.unsupported.items())
            raise UnsupportedError(f"unsupported operations: {listed}. {hint}")
        changed = [name for (name, tensor), n in zip(kept, versions, strict=True) if tensor._version != n]
        if changed and not self.live:
            raise UnsupportedError(f"the model overwrites its own {_own_name(changed[0])!r} whenever it runs")
        if not isinstance(output, Value):
            raise InputError("the model's output does not depend on its input")
        return output

    def emit(self, op: Op, operands: Sequence[Value], expected: Tensor | None) -> Value:
        """Append ``op``; its value must be ``expected``, if given."""
        positions = tuple(v.position for v in operands)
        if self.live:
            op = map_tensors(op, dtype=self.sample.dtype)
            value = evaluate(op, *(v.concrete for v in operands)) if expected is None else expected
            self.builder.nodes.append(Node(op, positions, tuple(value.shape[1:])))
            return Value(len(self.builder.nodes) - 1, value)
        position = self.builder.add(_detached(op), *positions)
        value = evaluate(self.builder.nodes[position].op, *(v.concrete for v in operands))
        if expected is None:
            return Value(position, value)
        scale = 1 + expected.abs().amax()
        if value.shape != expected.shape or not bool(((value - expected).abs() <= 1e-9 * scale).all()):
            raise InternalError(f"{op.label} was translated wrongly; please report this")
        return Value(position, expected)

    def call(self, node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What torch computes at ``node`` from these arguments."""
        if node.op == "call_module":
            return self.modules[str(node.target)](*args, **kwargs)
        found = called(node, args, kwargs)
        if self.live or node.op != "call_method" or node.target not in CASTS or not isinstance(found, Tensor):
            return found
        return self._cast(args[0], found) if found.is_floating_point() else found

    def _cast(self, before: Tensor, after: Tensor) -> Tensor:
        """A cast as the model in its own precision does it, here where everything is in float64."""
        self.casts |= after.dtype is not torch.float64
        kept = after.dtype in PRECISIONS and after.itemsize >= self.dtype.itemsize
        return before.to(torch.float64) if kept else after

    def _resolve(self, argument: Any) -> Any:
        return fx.node.map_arg(argument, lambda n: self.environment[n])

    def _step(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return Value(0, self.sample)
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.graph)
        args: list[Any] = list(self._resolve(node.args))
        kwargs: dict[str, Any] = dict(self._resolve(node.kwargs))
        operands = _values([args, kwargs])
        if any(v.position == UNKNOWN for v in operands):
            return self._spoilt(node, args, kwargs)
        concrete: Any = self.sample  # of an operation that fails here, nothing else is known
        try:
            concrete, overwritten = self._concrete(node, args, kwargs)
            if not operands or (node.target in METADATA and not isinstance(concrete, Tensor)):
                return self.dtype if concrete is torch.float64 else concrete  # that of the model, as it runs
            return self._translated(node, args, kwargs, concrete, overwritten)
        except Untranslatable as why:
            self._complain(node, str(why))
            return _unknown(concrete)

    def _translated(
        self, node: fx.Node, args: list[Any], kwargs: dict[str, Any], concrete: Any, overwritten: list[Value]
    ) -> Any:
        module = self.modules[str(node.target)] if node.op == "call_module" else None
        handler = self.table.get(type(module) if module is not None else node.target)
        if handler is None:
            raise Untranslatable
        if self._misread(overwritten):
            raise Untranslatable("overwrites in place what is read elsewhere, or the input")
        try:
            return handler(Call(self, node, module, args, kwargs, concrete))
        except (Untranslatable, UnsupportedError, InternalError):
            raise
        except Exception as error:  # options that nobody thought of
            if isinstance(explained(error), ResourceError):
                raise
            raise Untranslatable(f"in a form that is not read ({line(error)})") from error

    def _complain(self, node: fx.Node, why: str = "") -> None:
        name = self._name(node) + (f": {why}" if why else "")
        self.unsupported[name] = self.unsupported.get(name, 0) + 1

    def _spoilt(self, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Past something that was not translated: go on to find what else is not, and no further."""
        try:
            concrete, _ = self._concrete(node, args, kwargs)
        except Untranslatable:  # the structure of what was not translated may be lost; it is named already
            return Value(UNKNOWN, self.sample)
        if node.target in METADATA and not isinstance(concrete, Tensor):
            return concrete
        key = type(self.modules[str(node.target)]) if node.op == "call_module" else node.target
        if key not in self.table and node.target is not operator.getitem:
            self._complain(node)
        return _unknown(concrete)

    def _concrete(self, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, list[Value]]:
        """The node's concrete value, and which of its operands it overwrites (copies of them, here)."""
        given: list[tuple[Tensor, int, Value | None]] = []

        def bare(argument: Any) -> Any:
            tensor = argument.concrete.clone() if isinstance(argument, Value) else argument
            if isinstance(tensor, Tensor):
                given.append((tensor, tensor._version, argument if isinstance(argument, Value) else None))
            return tensor

        bare_args, bare_kwargs = _map([args, kwargs], bare)
        try:
            concrete = self.call(node, bare_args, bare_kwargs)
        except Exception as error:
            if isinstance(explained(error), ResourceError):
                raise
            raise Untranslatable(f"fails ({line(error)})") from error
        overwritten = [value for tensor, version, value in given if tensor._version != version]
        if any(value is None for value in overwritten) and any(value is not None for _, _, value in given):
            raise Untranslatable("overwrites a constant in place")
        return concrete, [value for value in overwritten if value is not None]

    def _misread(self, overwritten: list[Value]) -> bool:
        """Whether a value is overwritten that something else reads, itself or as a part of another, or the input."""
        environment = [(n, v) for n, v in self.environment.items() if isinstance(v, Value)]
        for value in overwritten:
            position = value.position
            while True:
                if any(len(holder.users) != 1 for holder, v in environment if v.position == position):
                    return True
                node = self.builder.nodes[position]
                if isinstance(node.op, Input):
                    return True
                if not isinstance(node.op, (Reshape, Gather)):  # else it may be a view of its operand
                    break
                (position,) = node.inputs
        return False

    def _name(self, node: fx.Node) -> str:
        if node.op == "call_module":
            where = _own_name(str(node.target))
            return type(self.modules[str(node.target)]).__name__ + (f" ({where})" if where else "")
        return str(getattr(node.target, "__name__", node.target))


def _own_name(target: str) -> str:
    """The name of a part within the model, from that in the graph, where the model is a part itself."""
    return target.partition(".")[2]


def called(node: fx.Node, args: Any, kwargs: Any) -> Any:
    """What the function or the method at ``node`` gives."""
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)


def line(error: Exception) -> str:
    """What went wrong, in one line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _map(argument: Any, function: Callable[[Any], Any]) -> Any:
    """``function`` of every leaf of nested lists, tuples and dictionaries."""
    if isinstance(argument, dict):
        return {key: _map(item, function) for key, item in argument.items()}
    if isinstance(argument, (list, tuple)) and not isinstance(argument, torch.Size):
        items = [_map(item, function) for item in argument]
        return type(argument)(*items) if hasattr(argument, "_fields") else type(argument)(items)
    return function(argument)


def _values(argument: Any) -> list[Value]:
    found: list[Value] = []
    _map(argument, lambda leaf: found.append(leaf) if isinstance(leaf, Value) else None)
    return found


def _unknown(concrete: Any) -> Any:
    """The value of an operation that was not translated, with the structure that torch gave it."""
    if isinstance(concrete, (tuple, list)):
        return tuple(_unknown(item) for item in concrete)
    return Value(UNKNOWN, concrete) if isinstance(concrete, Tensor) else concrete


def _detached(op: Op) -> Op:
    tensors = {f.name: value for f in fields(op) if isinstance(value := getattr(op, f.name), Tensor)}
    return replace(op, **{name: tensor.detach() for name, tensor in tensors.items()}) if tensors else op
