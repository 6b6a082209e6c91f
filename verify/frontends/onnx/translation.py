"""The walk over an ONNX graph: node by node from the file's operations to ours.

Every value has the shape that the file gives it at a batch of one; as a node of the network it has the same shape
without the leading 1, where it has one. So a network without a batch dimension gets one, a Reshape to ``[1, -1]`` or a
Transpose that moves the batch dimension mean what they mean at a batch of one, and nothing is guessed. What does not
depend on the input, shapes included, is computed and is a constant, in its own dtype, as the runtime computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import Tensor

from assay.verify.core.errors import AssayError, InputError, ResourceError, UnsupportedError
from assay.verify.core.network import Builder, Network, Port
from assay.verify.core.ops import Concat, Gather, Op, Reshape
from assay.verify.frontends.composed import Value as Node
from assay.verify.frontends.composed import reshaped
from assay.verify.frontends.labels import WHOLE, shares
from assay.verify.frontends.onnx.graph import FLOATS, Attribute, Graph, GraphNode
from assay.verify.frontends.onnx.inference import output_shapes
from assay.verify.frontends.onnx.tensors import DTYPES
from assay.verify.frontends.refusal import Untranslatable

NO_MEMORY = "can't allocate memory"  # torch has no error of its own for this
MAX_TOTAL = 2**27  # elements of all values together; in float64 that is 1 GiB


def broadcast_shape(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that values of these shapes have together; :class:`ValueError` if there is none."""
    rank = max(map(len, shapes))
    columns = zip(*((*[1] * (rank - len(shape)), *shape) for shape in shapes), strict=True)
    lengths = [{n for n in column if n != 1} for column in columns]
    if any(len(different) > 1 for different in lengths):
        raise ValueError(f"shapes {', '.join(str(list(shape)) for shape in shapes)} do not broadcast")
    return tuple(different.pop() if different else 1 for different in lengths)


def finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite; nothing of the tensor's size is allocated."""
    return not tensor.numel() or all(bool(end.isfinite()) for end in torch.aminmax(tensor))


@dataclass(frozen=True, eq=False)
class Value:
    """What depends on the input: a node of the network, the shape in the file (batch of one), and the dtype.

    ``absent`` (shape): elements that a mask has set to -inf, whatever stands in their places; None if there are none.
    """

    position: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    absent: Tensor | None = None


Operand = Value | Tensor
Result = Operand | Sequence[Operand | None]  # None: an output that is not given
WITH_INFINITIES = ("Attention", "Add", "Clip", "Max", "Min", "Where")  # which infinite constants go into
OF_MASKED = ("Identity", "Softmax")  # which what a mask has set to -inf goes into
# What means the same of whole numbers and of truth values.
ANY_TYPE = {
    *("And", "Cast", "Concat", "DequantizeLinear", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"),
    *("Identity", "Not", "Or", "Pad", "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze", "Tile", "Transpose"),
    *("Unsqueeze", "Where"),
}
# What means the same of whole numbers, as long as they stay within what their type holds.
ARITHMETIC = {
    *("Abs", "Add", "ArrayFeatureExtractor", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mul", "Neg"),
    *("OneHot", "ReduceSum", "Sub"),
}
LONG = (torch.int32, torch.int64)  # that hold any label
# What a label goes through on its way out, as an operand of which place; a Cast to numbers that hold it.
OF_LABELS = {"ArrayFeatureExtractor": 1, "Cast": 0, "Flatten": 0, "Identity": 0, "Reshape": 0, "Squeeze": 0}
# Positions of what could not be translated, and was complained about where it arose: of what depends on the input but
# has no known shape, and of what does not depend on it.
UNKNOWN, LOST = -1, -2


def sample_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a value as a node of the network: without the leading 1, where there is one.

    A single number is a vector of one, so that every value has a dimension beside the batch's.
    """
    return (shape[1:] if len(shape) > 1 and shape[0] == 1 else shape) or (1,)


def aligned(constant: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A constant that broadcasts against ``shape`` as it broadcasts against the sample of that shape, in float64."""
    dropped = len(shape) - len(sample_shape(shape))
    constant = constant[0] if dropped > 0 and constant.dim() == len(shape) else constant
    return constant.to(torch.float64)


@dataclass(eq=False)
class Call:
    """One node with its operands resolved; attributes that nobody asked for make it untranslatable."""

    translation: Translation
    node: GraphNode
    inputs: list[Operand | None]
    asked: set[str] = field(default_factory=set)

    def has(self, index: int) -> bool:
        """Whether operand ``index`` is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def operand(self, index: int = 0) -> Operand:
        """Operand ``index``, which must be given."""
        operand = self.inputs[index] if index < len(self.inputs) else None
        if operand is None:
            raise InputError(f"{self.node.label} has no operand {index}")
        return operand

    def traced(self, index: int = 0) -> Value:
        """Operand ``index``, which must depend on the input."""
        operand = self.operand(index)
        if not isinstance(operand, Value):
            raise Untranslatable("of a constant")
        return operand

    def constant(self, index: int, what: str = "") -> Tensor:
        """Operand ``index``, which must not depend on the input."""
        operand = self.operand(index)
        if isinstance(operand, Value):
            raise Untranslatable(f"{what or f'operand {index}'} depends on the input")
        return operand

    def integer(self, name: str, default: int) -> int:
        """The attribute ``name``, a whole number."""
        value = self._attribute(name, default)
        if not isinstance(value, int):
            raise InputError(f"{self.node.label}: attribute {name!r} must be a whole number")
        return value

    def number(self, name: str, default: float) -> float:
        """The attribute ``name``, a number."""
        value = self._attribute(name, default)
        if not isinstance(value, float):
            raise InputError(f"{self.node.label}: attribute {name!r} must be a number")
        return value

    def text(self, name: str, default: str) -> str:
        """The attribute ``name``, a text."""
        value = self._attribute(name, default)
        if not isinstance(value, str):
            raise InputError(f"{self.node.label}: attribute {name!r} must be a text")
        return value

    def integers(self, name: str, index: int | None = None) -> tuple[int, ...] | None:
        """The attribute ``name``, or operand ``index`` where newer operator sets have it; None if neither is given."""
        if index is not None and self.has(index):
            constant = self.constant(index, name)
            if constant.is_floating_point():
                raise InputError(f"{self.node.label}: {name} must be whole numbers")
            return tuple(int(n) for n in constant.flatten().tolist())
        value = self._attribute(name, ())
        if not isinstance(value, tuple) or not all(isinstance(n, int) for n in value):
            raise InputError(f"{self.node.label}: {name} must be whole numbers")
        return tuple(int(n) for n in value) if name in self.node.attributes else None

    def numbers(self, name: str) -> tuple[float, ...]:
        """The attribute ``name``, numbers, which must be given."""
        value = self._attribute(name, ())
        if not isinstance(value, tuple) or not all(isinstance(n, float) for n in value):
            raise InputError(f"{self.node.label}: {name} must be numbers")
        return tuple(float(n) for n in value)

    def needed(self, name: str, index: int | None = None) -> tuple[int, ...]:
        """Like :meth:`integers`, of something that must be given."""
        given = self.integers(name, index)
        if given is None:
            raise InputError(f"{self.node.label} has no {name}")
        return given

    def ignore(self, *names: str) -> None:
        """Attributes that have no bearing on the value."""
        self.asked.update(names)

    def emit(self, op: Op, shape: tuple[int, ...], *operands: Value) -> Value:
        """``op`` appended to the network; ``shape``: that of its value in the file."""
        return self.translation.emit(op, shape, *operands)

    def sample(self, value: Value) -> Node:
        """A value as the node of the network that it is."""
        return Node(value.position, sample_shape(value.shape))

    def append(self, op: Op, *nodes: Node, shape: tuple[int, ...]) -> Node:
        """``op`` appended to the network, by shapes of one sample."""
        self.translation.claim(shape)
        return Node(self.translation.builder.add(op, *(n.position for n in nodes), shape=shape), shape)

    def value(self, node: Node, shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        """A node as a value of ``shape`` in the file."""
        return Value(reshaped(self.append, node, sample_shape(shape)).position, shape, dtype)

    def _attribute(self, name: str, default: Attribute) -> Attribute:
        self.asked.add(name)
        return self.node.attributes.get(name, default)


Handler = Callable[[Call], Result]


class Translation:
    """Translates a graph with two tables of handlers by operation: of values that depend on the input, of constants.

    ``ends``: the names of values that are the one output; ``readout``: what it goes through last that was left out;
    ``labels``: the names of values that, in another shape or type, are the one output; ``names``: those of the labels,
    where the output is one, by the place of the score that each is chosen for; ``compared``: of values that are
    compared with each other only;
    ``held``: nodes that are whole numbers, and their type, beyond which they wrap around;
    ``delicate``: a node whose meaning hangs on how the runtime rounds.
    """

    def __init__(self, graph: Graph, traced: Mapping[str, Handler], constant: Mapping[str, Handler]) -> None:
        self.graph = graph
        self.traced = traced
        self.constant = constant
        self.environment: dict[str, Operand | None] = {}
        self.builder = self._begin()
        self.unsupported: dict[tuple[str, str], list[str]] = {}  # by operation and reason
        self.total = 0
        self.readout = ""
        self.delicate = ""
        self.held: set[tuple[int, torch.dtype]] = set()
        self.ends = set(graph.outputs if len(graph.outputs) == 1 else ())
        self.labels, self.names = set(self.ends), torch.empty(0)
        self.compared: set[str] = set()
        self.scores: Value | None = None
        for node in reversed(graph.nodes):
            if node.op == "Identity" and not self.ends.isdisjoint(node.outputs):
                self.ends.update(node.inputs)
            if self.labels.isdisjoint(node.outputs):
                continue
            to = node.attributes.get("to", 1)
            if node.op in OF_LABELS and isinstance(to, int) and DTYPES.get(to, torch.bool) in (*LONG, *FLOATS):
                self.labels.add(node.inputs[OF_LABELS[node.op]])
            elif node.op == "ArgMax":
                self.compared.add(node.inputs[0])

    def _begin(self) -> Builder:
        """The one input, or several as parts of one that is flat."""
        if len(self.graph.inputs) == 1:
            (port,) = self.graph.inputs
            self.environment[port.name] = Value(0, port.shape, self.graph.dtype)
            return Builder(sample_shape(port.shape))
        builder, begin = Builder((sum(port.size for port in self.graph.inputs),)), 0
        for port in self.graph.inputs:
            part = Gather(torch.arange(begin, begin + port.size), sample_shape(port.shape))
            self.environment[port.name] = Value(builder.add(part, 0), port.shape, self.graph.dtype)
            begin += port.size
        return builder

    def network(self) -> Network:
        """The network, as the file has it. All operations that have no translation are named at once."""
        for node in self.graph.nodes:
            results = self._step(node)
            for position, name in enumerate(node.outputs):
                if name in self.environment or name in self.graph.initialisers:
                    raise InputError(f"{node.label} gives the value {name!r}, which there is already")
                if name:
                    self.environment[name] = results[position] if position < len(results) else None
        if self.unsupported:
            raise UnsupportedError(f"unsupported operations: {self._complaints()}. {self.hint()}")
        ends = [self.scores] if self.scores is not None else [self._output(name) for name in self.graph.outputs]
        last = ends[0].position
        if len(ends) > 1:
            flat = [self.builder.add(Reshape((prod(end.shape),)), end.position) for end in ends]
            last = self.builder.add(Concat(0), *flat)
        outputs = (Port(n, sample_shape(end.shape)) for n, end in zip(self.graph.outputs, ends, strict=True))
        network = self.builder.build(last, dtype=self.graph.dtype)
        inputs = (Port(port.name, sample_shape(port.shape)) for port in self.graph.inputs)
        return replace(network, inputs=tuple(inputs), outputs=tuple(outputs), held=shares(self.builder, self.held))

    def _output(self, name: str) -> Value:
        output = self.environment[name] if name in self.environment else self.graph.constant(name)
        if output is None:
            raise InputError(f"no node gives the output {name!r}: the file is damaged")
        if not isinstance(output, Value):
            raise InputError(f"the output {name!r} does not depend on the input")
        if output.absent is not None:
            raise UnsupportedError(f"the output {name!r} holds what a mask has set to -inf: leave the mask out")
        return output

    def label(self, scores: Value, names: Tensor) -> None:
        """The output is the name of the largest of the ``scores`` (1 x labels), the first one; ``names``: (labels)."""
        self.scores, self.names, self.readout = scores, names, "argmax"

    def renamed(self, name: str, names: Tensor) -> bool:
        """Whether the value ``name`` is the label that is the output: then these are the ``names`` of its places."""
        if self.scores is None or name not in self.labels:
            return False
        places = torch.arange(len(self.names))
        if len(set(names.tolist())) != len(places) or not torch.equal(self.names, places):
            raise Untranslatable("of labels that are not one for each score")
        self.names = names
        return True

    def _complaints(self) -> str:
        """Each kind of node once, with the first of its name and how many there are."""
        return ", ".join(
            f"{label}{more}{f' ({reason})' if reason else ''}"
            for (_, reason), labels in self.unsupported.items()
            for label, more in [(labels[0], f" and {len(labels) - 1} more" if len(labels) > 1 else "")]
        )

    def hint(self) -> str:
        """What could be used instead."""
        return f"assay reads {', '.join(sorted(self.traced))}"

    def claim(self, shape: Sequence[int]) -> None:
        """To be asked before anything of ``shape`` is allocated; raises :class:`ResourceError` beyond the cap."""
        if any(n < 0 for n in shape):
            raise InputError(f"a value would have the shape {list(shape)}")
        self.total += prod(shape)
        if self.total > MAX_TOTAL:
            raise ResourceError(f"the network's values need more than {MAX_TOTAL} numbers, the last {list(shape)}")

    def emit(self, op: Op, shape: tuple[int, ...], *operands: Value) -> Value:
        """``op`` appended to the network; a Reshape follows where it does not give the sample's shape by itself."""
        self.claim(shape)
        position = self.builder.add(op, *(v.position for v in operands))
        if self.builder.nodes[position].shape != sample_shape(shape):
            position = self.builder.add(Reshape(sample_shape(shape)), position)
        return Value(position, shape, operands[0].dtype)

    def _step(self, node: GraphNode) -> Sequence[Operand | None]:
        operands: list[Operand | None] = []
        try:
            operands += [self._resolve(node, name) for name in node.inputs]
            return self._translated(Call(self, node, operands))
        except Untranslatable as reason:
            self.unsupported.setdefault((node.op, str(reason)), []).append(node.label)
        except AssayError:
            if not self.unsupported:
                raise  # otherwise it may follow from what stands in for a value that could not be translated
        except (RuntimeError, ValueError, IndexError, TypeError, ArithmeticError) as error:
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            if NO_MEMORY in line:
                raise
            if not self.unsupported:
                raise InputError(f"{node.label} does not fit its operands: {line}") from error
        return self._unknown(node, operands)

    def _translated(self, call: Call) -> Sequence[Operand | None]:
        node = call.node
        if node.fault or (node.op not in self.traced and node.op not in self.constant):
            raise Untranslatable(node.fault)
        positions = {v.position for v in call.inputs if isinstance(v, Value)}
        if UNKNOWN in positions and node.op not in self.traced:
            raise Untranslatable("of a value that depends on the input")
        if not positions.isdisjoint((UNKNOWN, LOST)):
            return self._unknown(node, call.inputs)
        if any(isinstance(v, Value) for v in call.inputs):
            if node.op not in self.traced:
                raise Untranslatable("of a value that depends on the input")
            self._demand_numbers(call)
            translated = self.traced[node.op](call)
        else:
            translated = self.constant.get(node.op, self._alone)(call)
        if left := set(node.attributes) - call.asked:
            raise Untranslatable(f"attribute {min(left)!r}")
        results = [translated] if isinstance(translated, (Value, Tensor)) else list(translated)
        for value in results:
            if isinstance(value, Value) and value.dtype in WHOLE and not _fits(call):
                self.held.add((value.position, value.dtype))
        return results

    def _alone(self, call: Call) -> Tensor:
        """A layer of constants: translated as a network of its own, which is run on the first of them."""
        first = call.constant(0)
        inner = Translation(replace(self.graph, inputs=(Port("", tuple(first.shape)),)), self.traced, self.constant)
        value = Value(0, tuple(first.shape), first.dtype)
        translated = self.traced[call.node.op](replace(call, translation=inner, inputs=[value, *call.inputs[1:]]))
        if not isinstance(translated, Value):
            raise Untranslatable("of constants")
        self.claim([inner.total])
        network = inner.builder.build(translated.position)
        result = network(first.double().reshape(1, *network.input_shape)).reshape(translated.shape)
        return result.to(first.dtype)

    def _demand_numbers(self, call: Call) -> None:
        """Numbers that are finite, and no whole ones, where these mean something else."""
        types = {v.dtype for v in call.inputs if isinstance(v, Value) and not v.dtype.is_floating_point}
        summed = call.node.op in ARITHMETIC and (types.issubset(WHOLE) or call.node.op == "Equal")
        if types and call.node.op not in ANY_TYPE and not summed:
            raise Untranslatable("of whole numbers or truth values that depend on the input")
        masked = any(isinstance(v, Value) and v.absent is not None for v in call.inputs)
        if masked and call.node.op not in OF_MASKED:
            raise Untranslatable("of what a mask has set to -inf")
        if call.node.op in WITH_INFINITIES:
            return
        for name, operand in zip(call.node.inputs, call.inputs, strict=True):
            if isinstance(operand, Tensor) and operand.is_floating_point() and not finite(operand):
                raise InputError(f"tensor {name!r} of the model holds NaN or inf")

    def _unknown(self, node: GraphNode, operands: Sequence[Operand | None]) -> Sequence[Operand | None]:
        """Stand-ins for what could not be translated, so that what follows is looked at too.

        What depends on the input and has a known shape is zeros of that shape; anything else has no place at all.
        """
        values = [v for v in operands if isinstance(v, Value)]
        if not values or any(v.position in (UNKNOWN, LOST) for v in values):
            place = UNKNOWN if any(v.position != LOST for v in values) else LOST
            return [Value(place, (), self.graph.dtype) for _ in node.outputs]
        known = [None if v is None else (tuple(v.shape), v.dtype) for v in operands]
        whole = [v if isinstance(v, Tensor) else None for v in operands]
        return [self._zeros(shape, values[0]) for shape in output_shapes(node, self.graph.opset, known, whole)]

    def _zeros(self, shape: tuple[int, ...] | None, hung: Value) -> Value:
        if shape is None or prod(shape) > MAX_TOTAL - self.total:
            return Value(UNKNOWN, (), self.graph.dtype)
        return self.emit(Gather(torch.full((prod(shape),), -1), sample_shape(shape)), shape, hung)

    def _resolve(self, node: GraphNode, name: str) -> Operand | None:
        """The operand of that name; None where an optional one is left out."""
        if not name:
            return None
        operand = self.environment[name] if name in self.environment else self.graph.constant(name)
        if operand is None and name in self.environment:
            raise Untranslatable(f"reads {name!r}, an output that assay does not give")
        if operand is None:
            raise InputError(f"{node.label} reads the value {name!r}, which nothing before it gives")
        return operand


def _fits(call: Call) -> bool:
    """Whether whole numbers that a node gives cannot be beyond what their type holds: places, truth values, and what
    saturates."""
    given = call.inputs[0] if call.node.op == "Cast" else None
    return call.node.op in ("ArgMax", "ArgMin", "QuantizeLinear") or (given is not None and given.dtype is torch.bool)
