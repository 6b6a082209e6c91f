"""Random graphs of ONNX, of today's operations and of others: read as onnxruntime runs them, or refused by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper

from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.frontends.onnx.read import decode
from tests.breadth import seeds
from tests.verify.frontends.onnx_files import ints, model, run

NODE = helper.make_node
OPSET = 18

ALONE = ("Softplus", "Softsign", "Tanh", "Sigmoid", "Erf", "Sin", "Cos", "Atan", "Asinh", "Mish", "HardSwish", "Elu")
ALONE += ("Selu", "Celu", "Relu", "LeakyRelu", "Abs", "Neg", "HardSigmoid", "Identity")
JUMPS = ("Sign", "Floor", "Ceil", "Round")
UNREAD = ("Tan", "Acos", "Hardmax", "IsNaN")


class Graph:
    """A graph that grows: the value at its end is named and has a shape (1 x rows x columns)."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.noise = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Any] = {}
        self.rows, self.columns = self.rng.choice([2, 3, 4]), self.rng.choice([2, 3, 5])
        self.start = (1, self.rows, self.columns)
        self.value = "x"
        self.earlier: list[str] = []  # of the shape that the value has

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; its value's name."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(NODE(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: Any) -> str:
        """Append a constant; its name."""
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def numbers(self, *shape: int) -> str:
        """Append random numbers; their name."""
        return self.constant(self.noise.normal(size=shape).astype(np.float32))

    def number(self, value: float) -> str:
        """Append a number; its name."""
        return self.constant(np.float32(value))

    def go_on(self, value: str, rows: int | None = None, columns: int | None = None) -> None:
        """``value`` is the end now, perhaps in another shape."""
        if rows is None and columns is None:
            self.earlier.append(self.value)
        else:
            self.earlier = []
            self.rows, self.columns = rows or self.rows, columns or self.columns
        self.value = value

    @property
    def other(self) -> str:
        """A value of the same shape, the end itself or an earlier one."""
        return self.rng.choice([*self.earlier, self.value])


def alone(g: Graph) -> None:
    g.go_on(g.node(g.rng.choice(ALONE), g.value))


def positive(g: Graph) -> None:
    """What is defined above 0 only, of 1/2 + x^2."""
    above = g.node("Add", g.node("Mul", g.value, g.value), g.number(0.5))
    op = g.rng.choice(["Log", "Sqrt", "Reciprocal", "Pow"])
    exponent = [g.number(g.rng.choice([-1.0, -0.5, 0.5, 1.5, 2.0]))] if op == "Pow" else []
    g.go_on(g.node(op, above, *exponent))


def exponential(g: Graph) -> None:
    small = g.node("Mul", g.value, g.number(0.1))
    g.go_on(g.node(g.rng.choice(["Exp", "Sinh", "Cosh"]), g.node("Clip", small, g.number(-3), g.number(3))))


def arithmetic(g: Graph) -> None:
    op = g.rng.choice(["Add", "Sub", "Mul", "Max", "Min"])
    constant = g.numbers(*g.rng.choice([(), (g.columns,), (g.rows, 1), (1, g.rows, g.columns)]))
    second = g.rng.choice([g.other, constant])
    g.go_on(g.node(op, *g.rng.sample([g.value, second], 2)))


def quotient(g: Graph) -> None:
    g.go_on(g.node("Div", g.value, g.node("Add", g.node("Abs", g.other), g.number(1.0))))


def matrix(g: Graph) -> None:
    columns = g.rng.choice([2, 3])
    g.go_on(g.node("MatMul", g.value, g.numbers(g.columns, columns)), columns=columns)


def gram(g: Graph) -> None:
    turned = g.node("Transpose", g.other, perm=[0, 2, 1])
    g.go_on(g.node("MatMul", g.value, turned), columns=g.rows)


def attention(g: Graph) -> None:
    turned = g.node("Transpose", g.other, perm=[0, 2, 1])
    share = g.node("Softmax", g.node("MatMul", g.value, turned), axis=-1)
    g.go_on(g.node("MatMul", share, g.other))


def softmax(g: Graph) -> None:
    g.go_on(g.node(g.rng.choice(["Softmax", "LogSoftmax"]), g.value, axis=g.rng.choice([1, 2, -1])))


def norm(g: Graph) -> None:
    weights = [g.numbers(g.columns), g.numbers(g.columns)]
    kinds: list[Callable[[], str]] = [
        lambda: g.node("LayerNormalization", g.value, *weights, epsilon=0.01),
        lambda: g.node("InstanceNormalization", g.value, g.numbers(g.rows), g.numbers(g.rows), epsilon=0.01),
        lambda: g.node("LpNormalization", g.node("Add", g.value, g.number(9.0)), axis=g.rng.choice([1, 2])),
    ]
    g.go_on(g.rng.choice(kinds)())


def reduction(g: Graph) -> None:
    op = g.rng.choice(["Mean", "Sum", "Max", "Min", "L1", "SumSquare", "LogSumExp"])
    summary = g.node(f"Reduce{op}", g.value, g.constant(ints(g.rng.choice([1, 2]))), keepdims=1)
    g.go_on(g.node("Sub", g.value, summary))


def choice(g: Graph) -> None:
    op = g.rng.choice(["Greater", "Less", "GreaterOrEqual", "LessOrEqual"])
    condition = g.node(op, g.value, g.rng.choice([g.other, g.number(0.2)]))
    g.go_on(g.node("Where", condition, g.other, g.rng.choice([g.other, g.number(0.2)])))


def jump(g: Graph) -> None:
    g.go_on(g.node(g.rng.choice(JUMPS), g.value))


def label(g: Graph) -> None:
    """Whole numbers and truth values on the way, and numbers again at the end."""
    axis = g.rng.choice([1, 2])
    place = g.node(g.rng.choice(["ArgMax", "ArgMin"]), g.other, axis=axis, keepdims=1)
    kinds: list[Callable[[], str]] = [
        lambda: g.node("Equal", place, g.constant(ints(g.rng.choice([0, 1])))),
        lambda: g.node("Sub", place, g.constant(ints(1))),
        lambda: g.node("Cast", g.other, to=g.rng.choice([onnx.TensorProto.BOOL, onnx.TensorProto.INT32])),
        lambda: g.node("OneHot", g.node("Squeeze", place, g.constant(ints(axis))), *hot, axis=axis),
    ]
    hot = (g.constant(np.int64((g.rows, g.columns)[axis - 1])), g.constant(np.array([0.5, 2.0], np.float32)))
    g.go_on(g.node("Mul", g.value, g.node("Cast", g.rng.choice(kinds)(), to=onnx.TensorProto.FLOAT)))


def answer(g: Graph) -> str:
    """A label of all values as the end: the name of what is the output."""
    flat = g.node("Reshape", g.value, g.constant(ints(1, -1)))
    return g.node("Cast", g.node("ArgMax", flat, axis=1, keepdims=0), to=onnx.TensorProto.FLOAT)


def move(g: Graph) -> None:
    if g.rng.random() < 0.5:
        g.go_on(g.node("Transpose", g.value, perm=[0, 2, 1]), g.columns, g.rows)
    else:
        g.go_on(g.node("Concat", g.value, g.other, axis=1), rows=2 * g.rows)


def einsum(g: Graph) -> None:
    equation = g.rng.choice(["bij,bij->bij", "bij,bij->bij", "bij,kj->bij"])
    second = g.numbers(2, g.columns) if "k" in equation else g.other
    g.go_on(g.node("Einsum", g.value, second, equation=equation))


STEPS: Sequence[Callable[[Graph], None]] = (
    *(alone, alone, alone, positive, exponential, arithmetic, arithmetic, quotient, matrix, matrix, gram, attention),
    *(softmax, norm, reduction, choice, jump, label, move, einsum),
)


def made(seed: int) -> tuple[onnx.ModelProto, tuple[int, ...], bool]:
    """A model, the shape of its input, and whether it holds what is not read."""
    g = Graph(seed)
    foreign = g.rng.random() < 0.1
    for i in range(g.rng.randint(2, 6)):
        if foreign and i == 1:
            g.go_on(g.node(g.rng.choice(UNREAD), g.value))
            g.go_on(g.node("Cast", g.value, to=onnx.TensorProto.FLOAT))
        g.rng.choice(STEPS)(g)
        if g.rows * g.columns > 60:
            break
    g.nodes.append(NODE("Identity", [answer(g) if g.rng.random() < 0.1 else g.value], ["y"]))
    used = {name for node in g.nodes for name in node.input}
    return model(g.nodes, g.start, {n: c for n, c in g.constants.items() if n in used}, OPSET), g.start, foreign


def examine(seed: int) -> bool:
    """Whether the graph is read; it is, unless it holds what is not."""
    proto, shape, foreign = made(seed)
    told = f"seed {seed}: {[node.op_type for node in proto.graph.node]}"
    network, refusal = None, ""
    try:
        network = decode(proto.SerializeToString(), "file", "file")
        network = network if network.readout == "argmax" else network.whole
    except (UnsupportedError, InputError) as error:
        refusal = str(error)
    if network is None:
        assert foreign or "not depend on the input" in refusal, f"{told}: {refusal}"
        return False
    x = 2 * torch.randn(6, *shape[1:], generator=torch.Generator().manual_seed(seed))
    true = torch.stack([run(proto, one[None]).flatten() for one in x]).double()
    ours, (error, _) = network(x.double()).flatten(1), (network.literal or network).rounding_error(x, torch.float32)
    if network.readout == "argmax":
        best = ours.topk(2, 1)
        clear = best.values[:, 0] - best.values[:, 1] > 2 * error.flatten(1).amax(1)
        assert torch.equal(best.indices[clear, 0], true.flatten()[clear].long()), told
        return True
    error = error.flatten(1)
    sure = true.isfinite() & (error < 0.1 * (1 + true.abs()))  # where it jumps or explodes, rounding decides
    slack = 2 * error + 1e-5 * (1 + true.abs())
    assert bool(((ours - true).abs() <= slack)[sure].all()), told
    return True


@seeds(15, of=75)
def test_random_graphs_are_read_as_they_run(seeds: range) -> None:
    read = [examine(seed) for seed in seeds]
    assert sum(read) > 0.8 * len(read)
