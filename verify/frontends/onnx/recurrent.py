"""Recurrent layers, one step after the other: each is a few products of matrices, gates and products of values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import cast

import torch
from torch import Tensor

from assay.verify.core.errors import InputError
from assay.verify.core.ops import Add, Concat, Linear, Relu
from assay.verify.frontends import composed
from assay.verify.frontends.composed import Emit, picked, smooth
from assay.verify.frontends.composed import Value as Node
from assay.verify.frontends.onnx.moves import everywhere
from assay.verify.frontends.onnx.translation import Call, Handler, Operand, Value
from assay.verify.frontends.refusal import Untranslatable

Activation = Callable[[Emit, Node], Node]
Advance = Callable[["Layer", Node, Node, "Node | None"], "tuple[Node, Node | None]"]  # gates, h, c -> h, c

ACTIVATIONS: dict[str, Activation] = {
    "relu": lambda emit, x: emit(Relu(), x, shape=x.shape),
    "sigmoid": composed.sigmoid,
    "softplus": lambda emit, x: smooth(emit, x, "softplus"),
    "softsign": lambda emit, x: smooth(emit, x, "softsign"),
    "tanh": lambda emit, x: smooth(emit, x, "tanh"),
}


class Layer:
    """One direction of a layer: its weights (gates x hidden ...), and what it does to a value."""

    def __init__(self, call: Call, direction: int, gates: int, activations: Sequence[str]) -> None:
        self.emit, self.hidden = call.append, call.integer("hidden_size", 0)
        weight, recurrence = (call.constant(i, "a weight").to(torch.float64)[direction] for i in (1, 2))
        rows = gates * self.hidden
        bias = call.constant(3, "the bias").to(torch.float64)[direction] if call.has(3) else torch.zeros(2 * rows)
        if len(weight) != rows or tuple(recurrence.shape) != (rows, self.hidden) or len(bias) != 2 * rows:
            raise InputError(f"{call.node.label} has weights {list(weight.shape)} of {gates} gates x {self.hidden}")
        self.weight, self.recurrence = weight, recurrence
        self.bias, self.inner = bias[:rows].double(), bias[rows:].double()
        self.apart = bool(call.integer("linear_before_reset", 0)) if gates == 3 else False
        self.functions = [ACTIVATIONS[name.lower()] for name in activations]

    def linear(self, x: Node, weight: Tensor, bias: Tensor) -> Node:
        """``x W^T + b`` on the last axis."""
        return self.emit(Linear(weight, bias), x, shape=(*x.shape[:-1], len(weight)))

    def gate(self, gates: Node, i: int) -> Node:
        """The i-th gate of all."""
        return picked(self.emit, gates, torch.arange(self.hidden) + i * self.hidden, (self.hidden,))

    def sum(self, a: Node, b: Node) -> Node:
        """``a + b``."""
        return self.emit(Add(), a, b, shape=a.shape)


def _simple(layer: Layer, gates: Node, h: Node, c: Node | None) -> tuple[Node, Node | None]:
    fed = layer.sum(gates, layer.linear(h, layer.recurrence, layer.inner))
    return layer.functions[0](layer.emit, fed), None


def _lstm(layer: Layer, gates: Node, h: Node, c: Node | None) -> tuple[Node, Node | None]:
    assert c is not None
    inner, candidate, outer = layer.functions
    fed = layer.sum(gates, layer.linear(h, layer.recurrence, layer.inner))
    given, out, forget = (inner(layer.emit, layer.gate(fed, i)) for i in range(3))
    kept = composed.product(layer.emit, forget, c)
    c = layer.sum(kept, composed.product(layer.emit, given, candidate(layer.emit, layer.gate(fed, 3))))
    return composed.product(layer.emit, out, outer(layer.emit, c)), c


def _gru(layer: Layer, gates: Node, h: Node, c: Node | None) -> tuple[Node, Node | None]:
    inner, candidate = layer.functions
    size, emit = layer.hidden, layer.emit
    fed = layer.linear(h, layer.recurrence[: 2 * size], layer.inner[: 2 * size])
    update, reset = (inner(emit, layer.sum(layer.gate(gates, i), layer.gate(fed, i))) for i in range(2))
    weight, bias = layer.recurrence[2 * size :], layer.inner[2 * size :]
    if layer.apart:
        seen = composed.product(emit, reset, layer.linear(h, weight, bias))
    else:
        seen = layer.linear(composed.product(emit, reset, h), weight, bias)
    new = candidate(emit, layer.sum(layer.gate(gates, 2), seen))
    # (1 - z) new + z h
    fresh = composed.product(emit, composed.negated(emit, update), new)
    return layer.sum(fresh, composed.product(emit, update, h)), None


KINDS: dict[str, tuple[Advance, int, tuple[str, ...]]] = {
    "RNN": (_simple, 1, ("tanh",)),
    "LSTM": (_lstm, 4, ("sigmoid", "tanh", "tanh")),
    "GRU": (_gru, 3, ("sigmoid", "tanh")),
}


def recurrent(kind: str) -> Handler:
    """The handler of RNN, LSTM or GRU, on (steps x 1 x features); the outputs are all states and the last ones."""
    advance, gates, usual = KINDS[kind]

    def handle(call: Call) -> list[Operand]:
        x, direction = call.traced(), call.text("direction", "forward")
        if len(x.shape) != 3 or x.shape[1] != 1 or call.integer("layout", 0) or call.integer("input_forget", 0):
            raise Untranslatable("with the batch in another place than second, or coupled gates")
        if "clip" in call.node.attributes or call.has(7) or (call.has(4) and _other(call.constant(4), x.shape[0])):
            raise Untranslatable("with clipping, peepholes, or sequences of several lengths")
        both = direction == "bidirectional"
        names = call.node.attributes.get("activations", usual * (2 if both else 1))
        call.ignore("activations", "activation_alpha", "activation_beta", "linear_before_reset")
        if not isinstance(names, tuple) or any(str(name).lower() not in ACTIVATIONS for name in names):
            raise Untranslatable(f"with the activations {names}")
        ends: list[tuple[list[Node], Node | None]] = []
        for i, backwards in enumerate((False, True) if both else (direction == "reverse",)):
            own = [str(name) for name in names[i * len(usual) : (i + 1) * len(usual)]]
            ends.append(_run(call, x, Layer(call, i, gates, own), advance, i, backwards))
        return _outputs(call, x, ends)

    return handle


def _other(lengths: Tensor, steps: int) -> bool:
    return bool((lengths != steps).any())


def _run(
    call: Call, x: Value, layer: Layer, advance: Advance, direction: int, backwards: bool
) -> tuple[list[Node], Node | None]:
    """The states after each step, in the order of the input, and the last cell."""
    steps = x.shape[0]
    fed = layer.linear(call.sample(x), layer.weight, layer.bias)
    rows = fed.shape[-1]
    h: Node = _initial(call, x, 5, direction, layer.hidden)
    c: Node | None = _initial(call, x, 6, direction, layer.hidden) if advance is _lstm else None
    states: list[Node] = []
    for t in reversed(range(steps)) if backwards else range(steps):
        gates = picked(layer.emit, fed, torch.arange(rows) + t * rows, (rows,))
        h, c = advance(layer, gates, h, c)
        states.append(h)
    return states[::-1] if backwards else states, c


def _initial(call: Call, x: Value, index: int, direction: int, size: int) -> Node:
    """A state before the first step."""
    given = call.operand(index) if call.has(index) else torch.zeros(direction + 1, 1, size)
    if isinstance(given, Value):
        return picked(call.append, call.sample(given), torch.arange(size) + direction * size, (size,))
    return call.sample(everywhere(call, given[direction], x))


def _outputs(call: Call, x: Value, ends: list[tuple[list[Node], Node | None]]) -> list[Operand]:
    steps, size = x.shape[0], ends[0][0][0].size
    all_states = [states[t] for t in range(steps) for states, _ in ends]
    backwards = call.text("direction", "forward")
    last = [states[0 if i or backwards == "reverse" else -1] for i, (states, _) in enumerate(ends)]
    cells = [c for _, c in ends if c is not None]
    shape = (len(ends), 1, size)
    outputs = [_beside(call, all_states, (steps, *shape), x), _beside(call, last, shape, x)]
    return cast("list[Operand]", [*outputs, _beside(call, cells, shape, x)] if cells else outputs)


def _beside(call: Call, nodes: list[Node], shape: tuple[int, ...], x: Value) -> Value:
    node = nodes[0] if len(nodes) == 1 else call.append(Concat(0), *nodes, shape=(prod(shape),))
    return call.value(node, shape, x.dtype)
