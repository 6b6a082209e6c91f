"""Operations of today's networks in ONNX files, against onnxruntime: curves, products, normalisation, choices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from assay.verify.core.errors import UnsupportedError
from assay.verify.core.ops import InverseSumExp, Product, Relu, Smooth, Step
from assay.verify.frontends.onnx import read_onnx
from tests.verify.frontends.onnx_files import check, ints, model, numbers, one, run, save

NODE = helper.make_node
VECTOR, ROWS, IMAGE, TOKENS = (1, 6), (1, 4, 6), (1, 4, 3, 5), (1, 2, 4, 3)


def after(op: str, shape: tuple[int, ...], *constants: Any, **options: Any) -> onnx.ModelProto:
    """``op`` of 1 + x^2, which lies where everything is defined."""
    square = [NODE("Mul", ["x", "x"], ["s"]), NODE("Add", ["s", "unit"], ["p"])]
    proto = one(op, shape, *constants, **options)
    proto.graph.node[0].input[0] = "p"
    for node in reversed(square):
        proto.graph.node.insert(0, node)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([1.0]), "unit"))
    return proto


CURVES: dict[str, onnx.ModelProto] = {
    **{op: one(op, VECTOR) for op in ("Asinh", "Atan", "Cos", "Cosh", "Erf", "Exp", "Sin", "Sinh", "Softplus")},
    **{op: one(op, VECTOR) for op in ("Softsign", "Tanh", "Sigmoid", "Elu", "Selu", "Celu")},
    **{op: after(op, VECTOR) for op in ("Log", "Sqrt", "Reciprocal")},
    "Mish": one("Mish", VECTOR, opset=18),
    "HardSwish": one("HardSwish", VECTOR, opset=14),
    "Gelu": one("Gelu", VECTOR, opset=20),
    "Gelu-tanh": one("Gelu", VECTOR, opset=20, approximate="tanh"),
    "Elu-alpha": one("Elu", VECTOR, alpha=1.7),
    "Selu-alpha": one("Selu", VECTOR, alpha=0.5, gamma=2.0),
    "Celu-alpha": one("Celu", VECTOR, alpha=0.4),
    **{f"Pow {p}": one("Pow", VECTOR, np.float32(p)) for p in (1.0, 2.0, 3.0)},
    **{f"Pow {p}": after("Pow", VECTOR, np.float32(p)) for p in (-0.5, 0.5, -1.0, 1.5, -2.0)},
    "a constant to the power of x": one("Pow", VECTOR, np.float32([2, 0.5, 3, 1, 4, 5]), place=1),
    "Pow, broadcast": one("Pow", VECTOR, np.full((2, 6), 2, np.float32)),
}


@pytest.mark.parametrize("name", CURVES)
def test_curves(name: str, tmp_path: Path) -> None:
    check(tmp_path, CURVES[name], VECTOR)


@pytest.mark.parametrize("op", ["Sign", "Floor", "Ceil", "Round"])
def test_what_is_constant_in_pieces(op: str, tmp_path: Path) -> None:
    network = check(tmp_path, one(op, VECTOR), VECTOR)
    assert isinstance(network.nodes[-1].op, Step)
    assert network.nodes[-1].op.kind == op.lower()


def of_two(op: str, first: tuple[int, ...], second: tuple[int, ...], **attributes: Any) -> onnx.ModelProto:
    """``op`` of two values, each of them a part of x in a shape of its own."""
    a, b = int(np.prod(first)), int(np.prod(second))
    nodes = [NODE("Split", ["x", "sizes"], ["a", "b"], axis=1), NODE("Reshape", ["a", "first"], ["u"])]
    nodes += [NODE("Reshape", ["b", "second"], ["v"]), NODE(op, ["u", "v"], ["y"], name="node", **attributes)]
    constants = {"sizes": ints(a, b), "first": ints(*first), "second": ints(*second)}
    return model(nodes, (1, a + b), constants)


TWO: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "Mul": ("Mul", (1, 4), (1, 4), {}),
    "Mul, broadcast": ("Mul", (1, 2, 3), (2, 1), {}),
    "MatMul": ("MatMul", (1, 3, 4), (1, 4, 2), {}),
    "MatMul, stacked": ("MatMul", (1, 2, 3, 4), (1, 2, 4, 2), {}),
    "MatMul, broadcast": ("MatMul", (1, 2, 3, 4), (4, 2), {}),
    "MatMul, a row": ("MatMul", (4,), (1, 4, 2), {}),
    "MatMul, a column": ("MatMul", (1, 3, 4), (4,), {}),
    "MatMul, vectors": ("MatMul", (4,), (4,), {}),
    "Gemm": ("Gemm", (3, 4), (2, 4), {"transB": 1, "alpha": 0.5}),
    "Einsum": ("Einsum", (1, 3, 4), (1, 2, 4), {"equation": "bij,bkj->bik"}),
    "Einsum, outer": ("Einsum", (1, 3), (1, 2), {"equation": "bi,bj->bij"}),
    "Einsum, sums": ("Einsum", (1, 3, 2), (1, 3), {"equation": "bij,bi->b"}),
    "Einsum, element by element": ("Einsum", (1, 3), (1, 3), {"equation": "bi,bi->bi"}),
}


@pytest.mark.parametrize("name", TWO)
def test_products_of_two_values(name: str, tmp_path: Path) -> None:
    op, first, second, attributes = TWO[name]
    proto = of_two(op, first, second, **attributes)
    network = check(tmp_path, proto, (1, int(np.prod(first)) + int(np.prod(second))))
    assert any(isinstance(node.op, Product) for node in network.nodes)


ONE_SIDED: dict[str, tuple[onnx.ModelProto, tuple[int, ...]]] = {
    "Div by a value": (after("Div", VECTOR, np.float32([2.0]), place=0), VECTOR),
    "a stack on the right": (one("MatMul", (1, 2, 3, 4), numbers(0, 2, 4, 5)), (1, 2, 3, 4)),
    "a stack on the left": (one("MatMul", (1, 2, 4, 3), numbers(0, 2, 5, 4), place=1), (1, 2, 4, 3)),
    "a stack of one and many": (one("MatMul", (1, 1, 3, 4), numbers(0, 3, 4, 5)), (1, 1, 3, 4)),
    "einsum by a constant": (one("Einsum", (1, 3, 4), numbers(0, 4, 2), equation="bij,jk->bik"), (1, 3, 4)),
    "einsum by a stack": (one("Einsum", (1, 3, 4), numbers(0, 3, 4, 2), equation="bij,ijk->bik"), (1, 3, 4)),
    "einsum of a diagonal": (one("Einsum", (1, 4, 4), equation="bii->bi"), (1, 4, 4)),
    "einsum, turned": (one("Einsum", (1, 3, 4), equation="bij->bji"), (1, 3, 4)),
    "einsum, summed": (one("Einsum", (1, 3, 4), equation="bij->bj"), (1, 3, 4)),
    "CumSum": (one("CumSum", ROWS, np.int64(2)), ROWS),
    "CumSum, backwards": (one("CumSum", ROWS, np.int64(1), exclusive=1, reverse=1), ROWS),
    "ReduceL2": (one("ReduceL2", ROWS, axes=[1]), ROWS),
    "ReduceSumSquare": (one("ReduceSumSquare", ROWS, axes=[-1], keepdims=0), ROWS),
    "ReduceLogSumExp": (one("ReduceLogSumExp", ROWS, axes=[-1], keepdims=0), ROWS),
    "ReduceLogSumExp of all": (one("ReduceLogSumExp", VECTOR), VECTOR),
    "ReduceLogSum": (after("ReduceLogSum", ROWS, axes=[2]), ROWS),
    "LpNormalization": (after("LpNormalization", ROWS, axis=1, p=2), ROWS),
    "LpNormalization in l1": (after("LpNormalization", ROWS, axis=-1, p=1), ROWS),
    "LayerNormalization": (
        one("LayerNormalization", ROWS, numbers(0, 6), numbers(1, 6), opset=17, epsilon=1e-3),
        ROWS,
    ),
    "LayerNormalization of two axes": (
        one("LayerNormalization", ROWS, numbers(0, 4, 6), opset=17, axis=1),
        ROWS,
    ),
    "InstanceNormalization": (one("InstanceNormalization", IMAGE, numbers(0, 4), numbers(1, 4)), IMAGE),
    "GroupNormalization": (
        one("GroupNormalization", IMAGE, numbers(0, 4), numbers(1, 4), opset=21, num_groups=2),
        IMAGE,
    ),
    "GroupNormalization, weights of groups": (
        one("GroupNormalization", IMAGE, numbers(0, 2), numbers(1, 2), opset=18, num_groups=2),
        IMAGE,
    ),
    "MeanVarianceNormalization": (one("MeanVarianceNormalization", IMAGE), IMAGE),
    "ScatterND": (one("ScatterND", ROWS, np.int64([[0, 1], [0, 3]]), numbers(0, 2, 6)), ROWS),
    "ScatterElements": (one("ScatterElements", ROWS, np.int64([[[1, -1]]]), numbers(0, 1, 1, 2), axis=2), ROWS),
    "ScatterND of values": (
        one("ScatterND", (1, 2), numbers(0, 5), np.int64([[[1], [3]]]), place=2),
        (1, 2),
    ),
    "Trilu": (one("Trilu", ROWS, np.int64(1), opset=14, upper=0), ROWS),
    "Swish": (one("Swish", VECTOR, opset=24, alpha=1.5), VECTOR),
    "RMSNormalization": (one("RMSNormalization", ROWS, numbers(0, 6), opset=23), ROWS),
}


@pytest.mark.parametrize("name", ONE_SIDED)
def test_what_is_made_of_them(name: str, tmp_path: Path) -> None:
    proto, shape = ONE_SIDED[name]
    try:
        check(tmp_path, proto, shape)
    except Exception as error:
        if name in ("Swish", "RMSNormalization") and "onnxruntime" in str(error):
            pytest.skip("this onnxruntime does not know the operator set")
        raise


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [1, 2, -1, 3])
@pytest.mark.parametrize("opset", [11, 13])
def test_a_softmax_inside(op: str, axis: int, opset: int, tmp_path: Path) -> None:
    network = check(tmp_path, one(op, TOKENS, opset=opset, axis=axis), TOKENS)
    assert not network.readout
    assert any(isinstance(node.op, InverseSumExp) for node in network.nodes)


def choices() -> dict[str, onnx.ModelProto]:
    """Comparisons and what is chosen by them, of z = x + w and x."""
    add = NODE("Add", ["x", "w"], ["z"])
    constants = {"w": numbers(3, 6), "zero": np.float32(0), "one": np.float32(1), "c": np.float32(0.2)}

    def made(*nodes: onnx.NodeProto, opset: int = 16) -> onnx.ModelProto:
        return model([add, *nodes], VECTOR, constants, opset)

    to_float = {"to": TensorProto.FLOAT}
    return {
        **{
            op: made(NODE(op, ["x", "c"], ["t"]), NODE("Cast", ["t"], ["y"], **to_float))
            for op in ("Greater", "Less", "GreaterOrEqual", "LessOrEqual")
        },
        "relu": made(NODE("Greater", ["x", "zero"], ["t"]), NODE("Where", ["t", "x", "zero"], ["y"])),
        "max": made(NODE("Less", ["x", "z"], ["t"]), NODE("Where", ["t", "z", "x"], ["y"])),
        "leaky": made(
            NODE("GreaterOrEqual", ["z", "zero"], ["t"]),
            NODE("Mul", ["z", "c"], ["s"]),
            NODE("Where", ["t", "z", "s"], ["y"]),
        ),
        "other": made(NODE("Greater", ["x", "c"], ["t"]), NODE("Where", ["t", "z", "x"], ["y"])),
        "constants": made(NODE("Greater", ["x", "c"], ["t"]), NODE("Where", ["t", "w", "one"], ["y"])),
        "logic": made(
            NODE("Greater", ["x", "zero"], ["p"]),
            NODE("Less", ["z", "one"], ["q"]),
            NODE("Not", ["q"], ["n"]),
            NODE("And", ["p", "q"], ["a"]),
            NODE("Or", ["a", "n"], ["t"]),
            NODE("Where", ["t", "x", "w"], ["y"]),
        ),
        "whole numbers": made(NODE("Cast", ["x"], ["t"], to=TensorProto.INT64), NODE("Cast", ["t"], ["y"], **to_float)),
    }


@pytest.mark.parametrize("name", choices())
def test_choices(name: str, tmp_path: Path) -> None:
    check(tmp_path, choices()[name], VECTOR)


@pytest.mark.parametrize("name", ["relu", "max", "leaky"])
def test_choices_that_are_piecewise_linear_are_relus(name: str, tmp_path: Path) -> None:
    operations = [type(node.op) for node in read_onnx(save(tmp_path, choices()[name])).nodes]
    assert Relu in operations
    assert not {Product, Step} & set(operations)


def recurrent(kind: str, direction: str, **attributes: Any) -> onnx.ModelProto:
    """A layer over 4 steps of 3 features, the states last."""
    gates, ways = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind], 2 if direction == "bidirectional" else 1
    constants = {"w": numbers(0, ways, gates * 2, 3), "r": numbers(1, ways, gates * 2, 2), "s": ints(4, 1, 3)}
    constants["b"] = numbers(2, ways, gates * 4)
    nodes = [NODE("Reshape", ["x", "s"], ["t"])]
    outputs = ["h", "last", "cell"] if kind == "LSTM" else ["h", "last"]
    nodes += [NODE(kind, ["t", "w", "r", "b"], outputs, hidden_size=2, direction=direction, name="node", **attributes)]
    nodes += [NODE("Reshape", [name, "flat"], [f"{name}-flat"]) for name in outputs]
    nodes += [NODE("Concat", [f"{name}-flat" for name in outputs], ["y"], axis=1)]
    return model(nodes, (1, 12), {**constants, "flat": ints(1, -1)}, 14)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrent_layers(kind: str, direction: str, tmp_path: Path) -> None:
    check(tmp_path, recurrent(kind, direction), (1, 12))


def test_recurrent_layers_of_other_kinds(tmp_path: Path) -> None:
    check(tmp_path, recurrent("GRU", "forward", linear_before_reset=1), (1, 12))
    check(tmp_path, recurrent("RNN", "forward", activations=["Relu"]), (1, 12))
    with pytest.raises(UnsupportedError, match="clipping"):
        read_onnx(save(tmp_path, recurrent("LSTM", "forward", clip=1.0)))
    with pytest.raises(UnsupportedError, match="activations"):
        read_onnx(save(tmp_path, recurrent("RNN", "forward", activations=["Affine"])))


def test_quantised_activations(tmp_path: Path) -> None:
    """By their exact steps, within the range of the whole numbers."""
    scale, zero = np.float32(0.25), np.uint8(3)
    nodes = [NODE("QuantizeLinear", ["x", "s", "z"], ["q"]), NODE("DequantizeLinear", ["q", "s", "z"], ["y"])]
    proto = model(nodes, VECTOR, {"s": scale, "z": zero})
    network = check(tmp_path, proto, VECTOR)
    x = torch.tensor([[-100.0, -0.75, -0.7, 0.1, 0.4, 100.0]])
    torch.testing.assert_close(network(x.double()).float(), run(proto, x))


def test_a_value_times_itself_is_a_square(tmp_path: Path) -> None:
    network = read_onnx(save(tmp_path, model([NODE("Mul", ["x", "x"], ["y"])], VECTOR)))
    (operation,) = (node.op for node in network.nodes[1:])
    assert isinstance(operation, Smooth)
    assert operation.curve == "square"


MASK = np.triu(np.full((4, 4), -np.inf, np.float32), 1)


@pytest.mark.parametrize(
    "node", [NODE("Add", ["p", "mask"], ["m"]), NODE("Where", ["seen", "p", "nothing"], ["m"])], ids=["add", "where"]
)
def test_what_a_mask_leaves_out_counts_for_nothing(node: onnx.NodeProto, tmp_path: Path) -> None:
    nodes = [NODE("Transpose", ["x"], ["t"], perm=[0, 2, 1]), NODE("MatMul", ["x", "t"], ["p"]), node]
    nodes += [NODE("Softmax", ["m"], ["s"], axis=-1), NODE("MatMul", ["s", "x"], ["y"])]
    constants = {"mask": MASK, "seen": MASK == 0, "nothing": np.float32(-np.inf)}
    kept = {name: value for name, value in constants.items() if name in node.input}
    check(tmp_path, model(nodes, (1, 4, 3), kept), (1, 4, 3))
    elsewhere = [*nodes[:3], NODE("Relu", ["m"], ["y"])]
    with pytest.raises(UnsupportedError, match="mask has set to -inf"):
        read_onnx(save(tmp_path, model(elsewhere, (1, 4, 3), kept)))


MASKED = NODE("Where", ["mask", "never", "x"], ["m"])


@pytest.mark.parametrize(
    ("nodes", "mask", "words"),
    [
        ([NODE("Identity", ["m"], ["y"])], [False, True, False, False, False, False], "the output 'y'"),
        ([NODE("Softmax", ["m"], ["s"]), NODE("Neg", ["s"], ["y"])], [True] * 6, "leaves nothing"),
    ],
)
def test_what_a_mask_makes_infinite_or_no_number_is_no_value(
    nodes: list[onnx.NodeProto], mask: list[bool], words: str, tmp_path: Path
) -> None:
    constants = {"mask": np.array([mask]), "never": np.float32(-np.inf)}
    with pytest.raises(UnsupportedError, match=words):
        read_onnx(save(tmp_path, model([MASKED, *nodes], VECTOR, constants)))


def test_a_mean_variance_normalization_of_values_that_are_close(tmp_path: Path) -> None:
    """What is added to a variance would count there."""
    proto = one("MeanVarianceNormalization", (1, 4), axes=[1])
    network = read_onnx(save(tmp_path, proto))
    x = torch.tensor([[-1e-5, -1e-5, 1e-5, 1e-5]])
    torch.testing.assert_close(network(x.double()), run(proto, x).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("op", ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Sum", "SumSquare"])
def test_a_summary_of_each_element_alone(op: str, tmp_path: Path) -> None:
    for keep in (0, 1):
        proto = one(f"Reduce{op}", (1, 2, 3), keepdims=keep, noop_with_empty_axes=1, opset=18)
        if op == "LogSum":
            proto.graph.node[0].input[0] = "s"
            proto.graph.node.insert(0, NODE("Exp", ["x"], ["s"]))
        check(tmp_path, proto, (1, 2, 3))
