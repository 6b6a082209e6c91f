"""A recording as a network: its operations are run once more, on one sample, with the elements' origins beside them.

Beside each number that depends on the input stands its origin: which element of which node of the network it is. What
only moves values around moves origins the same way, with whatever views and writing in place there are; what computes
is translated by a rule of a table. 0 stands beside a constant, which has its value in the run itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from assay.verify.core.errors import InputError, InternalError, ResourceError, UnsupportedError
from assay.verify.core.network import Builder as Nodes
from assay.verify.core.network import Network, Node
from assay.verify.core.ops import Concat, Gather, Input, Op, Reshape, Scale, evaluate, map_tensors
from assay.verify.frontends.composed import Value
from assay.verify.frontends.dispatch import bound, tensors_in, writes
from assay.verify.frontends.labels import WHOLE, shares
from assay.verify.frontends.memory import Geometry, Memory, geometry
from assay.verify.frontends.recording import Call, Recording, Slot
from assay.verify.frontends.refusal import Untranslatable
from assay.verify.support.failures import explained, line

STORING = ("fill", "zero", "copy")  # what rounds no number


@dataclass(frozen=True, eq=False)
class Operand:
    """A tensor among an operation's arguments as it is before the operation, and the origins of its elements."""

    number: Tensor
    origin: Tensor | None

    @cached_property
    def traced(self) -> bool:
        """Whether it depends on the input."""
        return self.origin is not None and bool((self.origin != 0).any())

    @property
    def origins(self) -> Tensor:
        """The origins, zeros for a constant."""
        return torch.zeros(self.number.shape, dtype=torch.float64) if self.origin is None else self.origin


def of_sample(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a node for a tensor of ``shape`` in a run on one sample: a first axis of length one is the batch.

    A single number is a vector of one.
    """
    return tuple(shape[1:] if tuple(shape[:1]) == (1,) else shape) or (1,)


# A rule gives the node whose elements are the operation's result, or their origins, of several results a list of them.
Translated = Value | Tensor | list[Any]
Handler = Callable[["Step"], Translated]


@dataclass(frozen=True, eq=False)
class Step:
    """One operation with its arguments by name; ``results`` are the tensors that torch gives."""

    translation: Translation
    call: Call
    given: Mapping[str, Any]
    results: list[Tensor]

    def __getitem__(self, name: str) -> Any:
        """An argument that is no tensor; an :class:`Operand` for one that is."""
        return self.given[name]

    def traced(self, name: str) -> bool:
        """Whether an argument depends on the input."""
        given = self.given.get(name)
        return isinstance(given, Operand) and given.traced

    def value(self, name: str, moved: Callable[[Tensor], Tensor] = lambda x: x) -> Value:
        """The node that an argument is, after its elements were ``moved``."""
        operand = self.given[name]
        if not isinstance(operand, Operand):
            raise Untranslatable
        return self.translation.node(moved(operand.origins), moved(operand.number))

    def spread(self, name: str) -> Value:
        """The node that an argument is, broadcast to the shape of the result."""
        return self.value(name, lambda x: x.expand(self.shape))

    def shaped(self, value: Value) -> Value:
        """A node in the shape of the result."""
        shape = of_sample(self.shape)
        return value if value.shape == shape else self.emit(Reshape(shape), value, shape=shape)

    def constant(self, name: str) -> Any:
        """An argument in which the input has no part: a tensor, or None."""
        operand = self.given.get(name)
        if not isinstance(operand, Operand):
            return operand
        if operand.traced:
            raise Untranslatable(f"of a {name} that depends on the input")
        return self.translation.own(operand.number)

    def origins(self, value: Value, shape: Sequence[int]) -> Tensor:
        """The origins of a node's elements, in another shape."""
        return self.translation.origins(value.position).view(*shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first result."""
        return tuple(self.results[0].shape)

    @property
    def ends(self) -> bool:
        """Whether the first result is the model's answer, of which nothing else is made."""
        return self.call.results[0] in self.translation.answer

    @property
    def live(self) -> bool:
        """Whether weights keep their place in autograd's graph."""
        return self.translation.live

    def emit(self, op: Op, *values: Value, shape: Sequence[int] | None = None) -> Value:
        """``op`` appended to the network; ``shape`` of its value, where it is known."""
        return self.translation.emit(op, values, shape)


class Translation:
    """Translates a recording with a table of rules, by an operation's name in torch or a module's kind.

    ``live``: operations keep the weights of ``module`` themselves, with their place in autograd's graph.
    ``statistics``: for each batch normalisation of the run in turn, the mean and variance of the batch, or None.
    Afterwards ``readout`` says what the model goes on with, and ``rounded`` whether it computes constants in its own
    precision that the network holds more exactly, or the reverse: within a tensor of values, or in a layer.
    """

    def __init__(
        self,
        recording: Recording,
        sample: Tensor,
        table: Mapping[Any, Handler],
        module: nn.Module | None = None,
        live: bool = False,
        statistics: Sequence[tuple[Tensor, Tensor] | None] = (),
    ) -> None:
        self.recording, self.table, self.live = recording, table, live
        self.sample = sample.detach().clone()
        self.known: dict[Geometry, Tensor] = {}
        if module is not None and live:
            self.known = {geometry(p): p for p in module.parameters()}
        self.statistics = list(statistics)
        self.memory = Memory(torch.float64)
        self.nodes: list[Node] = Nodes(of_sample(self.sample.shape)).nodes
        self.starts = [1]
        self.environment: dict[int, Tensor] = {0: self.sample}
        self.complaints: dict[str, int] = {}
        self.pending: list[tuple[Call, str, Value | None, Tensor]] = []  # values that may not be used, by their origins
        self.readout, self.rounded = "", False
        self.held: set[tuple[int, torch.dtype]] = set()  # nodes of whole numbers, which wrap around beyond their type
        self.answer = _answer(recording)
        self.total = self.nodes[0].size + 1
        self.memory.put(self.sample, self.origins(0).view(self.sample.shape))

    def network(self, hint: str, dtype: torch.dtype, name: str = "", oracle: Any = None) -> Network:
        """Run all of it; every operation without a rule is collected before complaining."""
        gradients = torch.set_grad_enabled(self.live and torch.is_grad_enabled())
        with gradients, torch.inference_mode(False), torch._C.DisableTorchFunctionSubclass():
            for call in self.recording.calls:
                self._step(call)
        output = self.environment.get(self.recording.output)
        origin = None if output is None else self.memory.of(output)
        last = None if self.complaints or origin is None else self._last(output, origin)
        if self.complaints:
            listed = ", ".join(f"{what} (x{n})" if n > 1 else what for what, n in self.complaints.items())
            raise UnsupportedError(f"unsupported operations: {listed}. {hint}")
        if last is None:
            raise InputError("the model's output does not depend on its input")
        builder = Nodes(self.nodes[0].shape)
        builder.nodes = self.nodes
        made = builder.build(last.position, oracle, dtype, name)
        return made if self.live else replace(made, held=shares(builder, self.held))

    def _last(self, output: Any, origin: Tensor) -> Value | None:
        flat = origin.flatten()
        if not bool((flat != 0).any()):
            return None
        if float(flat[0]) < 0 and bool((flat == flat[0]).all()):
            _, name, logits, result = self.pending[int(-flat[0]) - 1]
            if logits is not None and geometry(result)[:2] == geometry(output)[:2] and output.numel() == result.numel():
                self.readout = name
                return logits
        if bool((flat < 0).any()):
            self._used(flat)
            return None
        value = self.node(origin, output)
        shape = tuple(output.shape[1:])
        return value if value.shape == shape else self.emit(Reshape(shape), (value,), shape)

    def own(self, constant: Tensor) -> Tensor:
        """A constant; where it is a parameter of the module, or lies as one does, the parameter."""
        return self.known.get(geometry(constant), constant)

    def emit(self, op: Op, values: Sequence[Value], shape: Sequence[int] | None = None) -> Value:
        """Append ``op``; ``shape`` of its value, where it is known."""
        op = map_tensors(op, dtype=self.sample.dtype) if self.live else _copied(op)
        if shape is None:
            like = next((t.dtype for t in _tensors(op).values() if t.is_floating_point()), torch.float64)
            with torch.no_grad():
                zeros = (torch.zeros(1, *value.shape, dtype=like) for value in values)
                shape = evaluate(op, *zeros).shape[1:]
        if isinstance(op, Scale) and tuple(shape) != values[0].shape:
            raise InternalError(f"a Scale cannot widen its operand from {values[0].shape} to {tuple(shape)}")
        self.nodes.append(Node(op, tuple(value.position for value in values), tuple(shape)))
        self._begin()
        return Value(len(self.nodes) - 1, tuple(shape))

    def _fresh(self, node: Node) -> Tensor:
        """The origins of the elements of a new node."""
        self.nodes.append(node)
        self._begin()
        return self.origins(len(self.nodes) - 1)

    def _begin(self) -> None:
        self.starts.append(self.total)
        self.total += self.nodes[-1].size

    def origins(self, position: int) -> Tensor:
        """The origins of the elements of a node, in one row."""
        start = self.starts[position]
        return torch.arange(start, start + self.nodes[position].size, dtype=torch.float64)

    def node(self, origin: Tensor, number: Tensor) -> Value:
        """The node whose elements have these origins; ``number``: their values, for those that are constants."""
        flat, shape = origin.flatten(), of_sample(origin.shape)
        constant = flat == 0
        inner = flat[~constant]
        if not len(inner) or bool((inner < 0).any()):
            raise Untranslatable
        first, last = (bisect_right(self.starts, float(end)) - 1 for end in (inner.min(), inner.max()))
        if first == last:
            source, base = Value(first, self.nodes[first].shape), self.starts[first]
            index = flat.long() - base
        else:
            source, index = self._joined(flat, constant)
        index[constant] = -1
        if len(index) == prod(source.shape) and bool((index == torch.arange(len(index))).all()):
            return source if source.shape == shape else self.emit(Reshape(shape), (source,), shape)
        if not bool(constant.any()):
            return self.emit(Gather(index, shape), (source,), shape)
        filled = number.detach().flatten().double()
        kept = filled[constant]
        if bool((kept == kept[0]).all()):
            return self.emit(Gather(index, shape, float(kept[0])), (source,), shape)
        shift = filled.masked_fill(~constant, 0.0).view(shape)
        return self.emit(Scale(shift.new_ones(()), shift), (self.emit(Gather(index, shape), (source,), shape),), shape)

    def _joined(self, flat: Tensor, constant: Tensor) -> tuple[Value, Tensor]:
        """Several nodes side by side, and where in them the elements are that have these origins."""
        starts = torch.tensor(self.starts, dtype=torch.float64)
        at = torch.searchsorted(starts, flat, right=True) - 1
        used = torch.unique(at[~constant])
        sizes = torch.tensor([self.nodes[int(p)].size for p in used])
        before = sizes.cumsum(0) - sizes
        parts = []
        for position in used.tolist():
            size = self.nodes[position].size
            part = Value(position, self.nodes[position].shape)
            parts.append(part if part.shape == (size,) else self.emit(Reshape((size,)), (part,), (size,)))
        offset = torch.zeros(len(starts), dtype=torch.long)
        offset[used] = before
        index = flat.long() - starts[at].long() + offset[at]
        total = int(sizes.sum())
        return self.emit(Concat(0), parts, (total,)), index

    def _resolve(self, given: Any) -> Any:
        return tree_map(lambda leaf: self.environment[leaf.number] if isinstance(leaf, Slot) else leaf, given)

    def _step(self, call: Call) -> None:
        args, kwargs = self._resolve((call.args, call.kwargs))
        written = writes(call.function, args, kwargs) if hasattr(call.function, "_schema") else []
        operands = {id(leaf): leaf for leaf in tensors_in(args, kwargs)}
        before = {key: self._operand(leaf, any(leaf is w for w in written)) for key, leaf in operands.items()}
        traced = any(operand.traced for operand in before.values())
        result = call.function(*args, **kwargs)
        results = tensors_in(result)
        for number, tensor in zip(call.results, results, strict=True):
            self.environment[number] = tensor
        if not traced:
            beside = [origin for tensor in written if (origin := self.memory.of(tensor)) is not None]
            for origin in beside:
                origin.zero_()
            self.rounded |= bool(beside) and _key(call) not in STORING
            return
        self.rounded |= isinstance(call.function, nn.Module)
        if not written and all(self._is_view(tensor) for tensor in results):
            return
        args, kwargs = tree_map(lambda leaf: before[id(leaf)] if isinstance(leaf, Tensor) else leaf, (args, kwargs))
        given = {"self": args[0]} if isinstance(call.function, nn.Module) else bound(call.function, args, kwargs)
        self._write(call, results, written, self._translated(Step(self, call, given, results), before.values()))
        for tensor in results:
            origin = self.memory.of(tensor) if tensor.dtype in WHOLE else None
            if origin is not None:
                numbers = {*origin[origin > 0].tolist()}
                self.held |= {(bisect_right(self.starts, number) - 1, tensor.dtype) for number in numbers}

    def _operand(self, tensor: Tensor, written: bool) -> Operand:
        origin = self.memory.of(tensor)
        if not written:
            return Operand(tensor, origin)
        return Operand(tensor.detach().clone(), None if origin is None else origin.clone())

    def _is_view(self, tensor: Tensor) -> bool:
        """Whether a result is known already, as a view of an operand; one that is read as it lies in memory."""
        return self.memory.of(tensor) is not None and not tensor.is_neg() and not tensor.is_conj()

    def _translated(self, step: Step, operands: Any) -> Translated | None:
        call = step.call
        flats = [operand.origin.flatten() for operand in operands if operand.traced]
        handler = self.table.get(_key(call))
        if handler is None:
            self._complain(call)
        for flat in flats:
            self._used(flat)
        if handler is None or any(bool((flat < 0).any()) for flat in flats):
            return None
        try:
            return handler(step)
        except Untranslatable as why:
            self._complain(call, str(why))
        except (UnsupportedError, InternalError):
            raise
        except Exception as error:  # options that the handler does not expect
            if isinstance(explained(error), ResourceError):
                raise
            self._complain(call, f"in a form that is not read ({line(error)})")
        return None

    def _write(self, call: Call, results: list[Tensor], written: list[Tensor], made: Translated | None) -> None:
        """Put down the origins of the results; what the rule says nothing of may not be used."""
        given = list(made) if isinstance(made, list) else [made]
        for i, tensor in enumerate(written if written and len(results) <= len(written) else results):
            one = given[i] if i < len(given) else None
            if isinstance(one, Value):
                if prod(one.shape) != tensor.numel():
                    raise InternalError(f"{call.operation} was translated wrongly; please report this")
                origin = self.origins(one.position).view(tensor.shape)
            elif isinstance(one, Tensor):
                origin = one
            elif made is None:  # unknown, and complained about: what comes of it is looked at, too
                origin = self._fresh(Node(Input(), (), (tensor.numel(),))).view(tensor.shape)
            else:
                origin = self._pending(call, f"its result {i} is not read", None, tensor)
            self.memory.put(tensor, origin)

    def ends_in(self, step: Step, name: str, logits: Value) -> Tensor:
        """Origins of a result that is the model's output or not read at all; the network ends at ``logits``."""
        return self._pending(step.call, name, logits, step.results[0])

    def _pending(self, call: Call, what: str, logits: Value | None, result: Tensor) -> Tensor:
        """The origins of a value that may not be used: one negative number."""
        self.pending.append((call, what, logits, result))
        return torch.full(result.shape, -float(len(self.pending)), dtype=torch.float64)

    def _used(self, flat: Tensor) -> None:
        """Complain about values that may not be used and are."""
        for code in torch.unique(flat[flat < 0]).tolist():
            call, why, logits, _ = self.pending[int(-code) - 1]
            self._complain(call, why if logits is None else "is read as the last layer only")

    def _complain(self, call: Call, why: str = "") -> None:
        parts = [part for part in call.where.split(", ") if part.strip("_") != call.operation.strip("_")]
        name = call.operation.strip("_") + (f" ({', '.join(parts)})" if parts and parts != [""] else "")
        what = f"{name}: {why}" if why else name
        self.complaints[what] = self.complaints.get(what, 0) + 1


SEEN = ("view", "_unsafe_view", "squeeze", "unsqueeze", "detach", "alias")  # the whole of a value, in another shape


def _answer(recording: Recording) -> set[int]:
    """The slots of the model's answer as one operation gives it, and as it is seen afterwards; none where more is made
    of it."""
    slots = {recording.output}
    ways = [call for call in recording.calls if call.operation in SEEN]
    for call in reversed(ways):
        if not slots.isdisjoint(call.results):
            slots.update(leaf.number for leaf in tree_leaves((call.args, call.kwargs)) if isinstance(leaf, Slot))
    others = (call for call in recording.calls if call not in ways or slots.isdisjoint(call.results))
    read = {leaf.number for call in others for leaf in tree_leaves((call.args, call.kwargs)) if isinstance(leaf, Slot)}
    return set() if read & slots else slots


def _key(call: Call) -> Any:
    """The key of an operation's rule: its name, the same where it writes in place."""
    if isinstance(call.function, nn.Module):
        return type(call.function)
    name = call.operation
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _tensors(op: Op) -> dict[str, Tensor]:
    return {f.name: value for f in fields(op) if isinstance(value := getattr(op, f.name), Tensor)}


def _copied(op: Op) -> Op:
    """``op`` with tensors of its own, its weights in one dtype."""
    tensors = _tensors(op)
    if not tensors:
        return op
    weights = {t.dtype for t in tensors.values() if t.is_floating_point()}
    one = torch.float64 if len(weights) > 1 or weights & {torch.float16, torch.bfloat16} else None
    return replace(op, **{name: _own(tensor, one) for name, tensor in tensors.items()})


def _own(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    kept = tensor.detach().as_subclass(Tensor).cpu()
    wanted = dtype if dtype is not None and kept.is_floating_point() else kept.dtype
    return kept.to(wanted, copy=True, memory_format=torch.contiguous_format)
