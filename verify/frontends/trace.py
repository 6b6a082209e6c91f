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

from assay.verify.core.errors import InputError, InternalError, UnsupportedError
from assay.verify.core.network import Builder, Node
from assay.verify.core.ops import Input, Op, Reshape, evaluate, map_tensors

# What may be asked of a value without depending on its numbers.
METADATA = {"size", "dim", "ndimension", "numel", "shape", "ndim", "dtype", "device", len, getattr}


class Untranslatable(Exception):
    """An operation on traced values that has no counterpart."""


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

    ``live``: operations keep the module's weights themselves, in their dtype, with their place in autograd's graph.
    """

    def __init__(self, graph: fx.GraphModule, sample: Tensor, table: Mapping[Any, Handler], live: bool = False) -> None:
        self.graph = graph
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
        with torch.set_grad_enabled(self.live and torch.is_grad_enabled()):
            for node in self.graph.graph.nodes:
                if node.op == "output":
                    output = self._resolve(node.args[0])
                else:
                    self.environment[node] = self._step(node)
        if self.unsupported:
            listed = ", ".join(f"{name} (x{n})" if n > 1 else name for name, n in self.unsupported.items())
            raise UnsupportedError(f"unsupported operations: {listed}. {hint}")
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
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)

    def _resolve(self, argument: Any) -> Any:
        return fx.node.map_arg(argument, lambda n: self.environment[n])

    def _step(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            first = not any(n.op == "placeholder" for n in self.environment)
            return Value(0, self.sample) if first else (node.args[0] if node.args else None)
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.graph)
        args: list[Any] = list(self._resolve(node.args))
        kwargs: dict[str, Any] = dict(self._resolve(node.kwargs))
        operands = _values([args, kwargs])
        if any(v.position == UNKNOWN for v in operands):
            return self._spoilt(node, args, kwargs)
        concrete, overwritten = self._concrete(node, args, kwargs)
        if not operands or (node.target in METADATA and not isinstance(concrete, Tensor)):
            return concrete
        module = self.modules[str(node.target)] if node.op == "call_module" else None
        handler = self.table.get(type(module) if module is not None else node.target)
        try:
            if handler is None or self._misread(overwritten):
                raise Untranslatable
            return handler(Call(self, node, module, args, kwargs, concrete))
        except Untranslatable:
            name = self._name(node)
            self.unsupported[name] = self.unsupported.get(name, 0) + 1
            return _unknown(concrete)

    def _spoilt(self, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Past something that was not translated: go on to find what else is not, and no further."""
        try:
            concrete, _ = self._concrete(node, args, kwargs)
        except Exception:  # the structure of what was not translated may be lost; it is named already
            return Value(UNKNOWN, self.sample)
        if node.target in METADATA and not isinstance(concrete, Tensor):
            return concrete
        key = type(self.modules[str(node.target)]) if node.op == "call_module" else node.target
        if key not in self.table and node.target is not operator.getitem:
            name = self._name(node)
            self.unsupported[name] = self.unsupported.get(name, 0) + 1
        return _unknown(concrete)

    def _concrete(self, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, list[Value]]:
        """The node's concrete value, and which of its operands it overwrites (copies of them, here)."""
        copies: list[tuple[Tensor, Value]] = []

        def bare(argument: Any) -> Any:
            if not isinstance(argument, Value):
                return argument
            copies.append((argument.concrete.clone(), argument))
            return copies[-1][0]

        bare_args, bare_kwargs = _map([args, kwargs], bare)
        before = [copy._version for copy, _ in copies]
        concrete = self.call(node, bare_args, bare_kwargs)
        return concrete, [v for (copy, v), n in zip(copies, before, strict=True) if copy._version != n]

    def _misread(self, overwritten: list[Value]) -> bool:
        """Whether a value is overwritten that something else reads, or that is the input or a view of another."""
        for value in overwritten:
            holders = [n for n, v in self.environment.items() if isinstance(v, Value) and v.position == value.position]
            view = isinstance(self.builder.nodes[value.position].op, (Input, Reshape))
            if view or any(len(holder.users) != 1 for holder in holders):
                return True
        return False

    def _name(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return f"{type(self.modules[str(node.target)]).__name__} ({node.target})"
        return str(getattr(node.target, "__name__", node.target))


def _map(argument: Any, function: Callable[[Any], Any]) -> Any:
    """``function`` of every leaf of nested lists, tuples and dictionaries."""
    if isinstance(argument, dict):
        return {key: _map(item, function) for key, item in argument.items()}
    if isinstance(argument, (list, tuple)) and not isinstance(argument, torch.Size):
        return type(argument)(_map(item, function) for item in argument)
    return function(argument)


def _values(argument: Any) -> list[Value]:
    found: list[Value] = []
    _map(argument, lambda leaf: found.append(leaf) if isinstance(leaf, Value) else None)
    return found


def _unknown(concrete: Any) -> Any:
    """The value of an operation that was not translated, with the structure that torch gave it."""
    if isinstance(concrete, (tuple, list)):
        return tuple(_unknown(item) for item in concrete)
    return Value(UNKNOWN, concrete if isinstance(concrete, Tensor) else torch.as_tensor(concrete))


def _detached(op: Op) -> Op:
    tensors = {f.name: value for f in fields(op) if isinstance(value := getattr(op, f.name), Tensor)}
    return replace(op, **{name: tensor.detach() for name, tensor in tensors.items()}) if tensors else op
