"""Models and properties as the checker reads them: certificates of what is easily misread, and of what it refuses."""

from __future__ import annotations

import gzip
import io
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from assay.verify.check import question
from assay.verify.check.certificate import Certificate, packed
from assay.verify.check.question import Rejected
from assay.verify.solving import parts
from tests.verify.check.test_forged import IDENTITY, Bounds, model, prop

Nodes = Sequence[tuple[str, Sequence[str], str, dict[str, Any]]]


def posed(net: bytes, said: bytes, box: Bounds, sets: int = 1) -> Certificate:
    """A tree of one leaf for each unsafe set, about files that need not be such as the checker reads."""
    sides = [[float(v).hex() for v in side] for side in zip(*box, strict=True)]
    part = {"lower": sides[0], "upper": sides[1], "layers": []}
    arrays = {f"0/{name}": array for name, array in parts.trees(sets, [1.0] * sets).items()}
    return Certificate.of({"kind": "tree", "semantics": "real", "parts": [part]}, arrays, net, said)


def gives(net: bytes, x: Sequence[float], y: Sequence[float]) -> None:
    """That of the outputs at a point each is proved to be what it is, from below and above."""
    box = [(repr(v), repr(v)) for v in x]
    for number, v in enumerate(y):
        for row, far, near in (("(<= Y_{} {})", -1e-6, 1e-6), ("(>= Y_{} {})", 1e-6, -1e-6)):
            told = [posed(net, prop(box, row.format(number, v + d), len(y)), box) for d in (far, near)]
            assert told[0].check()["claim"] == "unsat"
            with pytest.raises(Rejected, match="1 leaves are not proved"):
                told[1].check()


def test_windows_are_dense_and_begin_at_the_edge_where_nothing_else_is_said() -> None:
    ends = {"w": np.array([[[[1.0, 10.0], [100.0, 1000.0]]]])}
    net = model([("Conv", ["x", "w"], "y", {})], ends, (1, 1, 3, 3))
    gives(net, [1, 2, 3, 4, 5, 6, 7, 8, 9], [5421.0, 6532.0, 8754.0, 9865.0])


def test_groups_dilations_strides_and_pads_that_differ_by_axis() -> None:
    ends = {"w": np.array([[[[1.0, 10.0]]], [[[100.0, 1000.0]]]]), "b": np.array([0.5, 0.25])}
    how = {"group": 2, "dilations": [1, 2], "strides": [2, 1], "pads": [0, 1, 1, 0]}
    net = model([("Conv", ["x", "w", "b"], "y", how)], ends, (1, 2, 2, 3))
    gives(net, [*range(1, 7), *range(7, 13)], [20.5, 31.5, 0.5, 0.5, 8000.25, 9700.25, 0.25, 0.25])


@pytest.mark.parametrize("transposed", [0, 1])
def test_products_with_and_without_a_bias(transposed: int) -> None:
    w = np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    for ends, y in (
        ({"w": w}, [10.0, 100.0, 1000.0]),
        ({"w": w, "b": np.array([1.0, 2.0, 3.0])}, [11.0, 102.0, 1003.0]),
    ):
        told = {**ends, "w": w if transposed else w.T}
        gives(model([("Gemm", ["x", *told], "y", {"transB": transposed})], told, (1, 2)), [4.0, 3.0], y)


def test_values_that_are_read_in_part_are_read() -> None:
    """The convolution leaves out z_1."""
    nodes: Nodes = [("MatMul", ["x", "eye"], "z", {}), ("Conv", ["z", "one"], "y", {"strides": [1, 2]})]
    gives(model(nodes, {"eye": np.eye(2), "one": np.ones((1, 1, 1, 1))}, (1, 1, 1, 2)), [-5.0, 1.0], [-5.0])


def test_moves_that_copy_sizes_and_infer_them() -> None:
    nodes: Nodes = [
        ("Reshape", ["x", "to"], "a", {}),
        ("Transpose", ["a"], "b", {"perm": [0, 2, 1]}),
        ("Flatten", ["b"], "c", {"axis": 2}),
        ("Flatten", ["c"], "d", {"axis": 0}),
        ("MatMul", ["d", "w"], "y", {}),
    ]
    w = 10.0 ** np.arange(6)[:, None]
    gives(model(nodes, {"to": np.array([0, 3, -1]), "w": w}, (1, 6)), [1, 2, 3, 4, 5, 6], [642531.0])


def test_sums_and_differences_of_values_and_constants() -> None:
    """3 (c - min(x, 0)) / f, of a row and a column."""
    nodes: Nodes = [
        ("Relu", ["x"], "h", {}),
        ("Sub", ["x", "h"], "a", {}),
        ("Sub", ["c", "a"], "b", {}),
        ("Mul", ["d", "b"], "e", {}),
        ("Div", ["e", "f"], "y", {}),
    ]
    ends = {"c": np.array([[1.0, 2.0]]), "d": np.array([3.0]), "f": np.array([[4.0], [8.0]])}
    gives(model(nodes, ends, (1, 2)), [-2.0, 5.0], [2.25, 1.5, 1.125, 0.75])


def test_normalisation_is_what_its_parts_say() -> None:
    ends = {
        "s": np.array([2.0, 3.0]),
        "b": np.array([10.0, 20.0]),
        "m": np.array([1.0, -1.0]),
        "v": np.array([4.0, 9.0]),
    }
    net = model([("BatchNormalization", ["x", *ends], "y", {"epsilon": 0.0})], ends, (1, 2, 1, 2))
    gives(net, [1.0, 2.0, 3.0, 4.0], [10.0, 11.0, 24.0, 25.0])
    near = model([("BatchNormalization", ["x", *ends], "y", {})], ends | {"v": np.zeros(2)}, (1, 2))
    gives(near, [1.5, -1.0], [10 + 1 / np.sqrt(float(np.float32(1e-5))), 20.0])


def test_rounding_of_products_is_charged() -> None:
    """Three times the number next to 0.1 is less than the number next to 0.3 that it is rounded to."""
    w, v = np.array([[0.1, 3 * 0.1]]), np.array([[3.0], [-1.0]])
    nodes: Nodes = [("MatMul", ["x", "w"], "z", {}), ("MatMul", ["z", "v"], "y", {})]
    net, box = model(nodes, {"w": w, "v": v}, (1, 1)), [("1", "1")]
    for exact in (False, True):
        with pytest.raises(Rejected, match="1 leaves"):
            posed(net, prop(box, "(<= Y_0 -1e-17)"), box).check(exact=exact)
    assert posed(net, prop(box, "(<= Y_0 -1e-16)"), box).check(exact=True)["claim"] == "unsat"


def test_terms_are_at_least_as_many_as_any_sum_has() -> None:
    nodes: Nodes = [
        ("Conv", ["x", "w"], "c", {}),
        ("Relu", ["c"], "h", {}),
        ("Add", ["h", "c"], "a", {}),
        ("Flatten", ["a"], "f", {}),
        ("MatMul", ["f", "v"], "y", {}),
    ]
    ends = {"w": np.ones((3, 2, 2, 2)), "v": np.ones((27, 2))}
    layers = [n for n in question.Network(model(nodes, ends, (1, 2, 4, 4))).layers if n.weight is not None]
    assert len(layers) == 3
    for layer in layers:
        taps, _, outs, ins = layer.weight.shape
        assert layer.terms >= max(taps * ins, taps * outs, layer.out.size)


BATCH = {"s": np.ones(1), "b": np.zeros(1), "m": np.zeros(1), "v": np.ones(1)}
MIXED = np.array([1.0, -1.0])
KERNEL = {"w": np.ones((1, 1, 2, 2))}
ODD: dict[str, tuple[Nodes, dict[str, Any], Sequence[int]]] = {
    "another domain": ([("Relu", ["x"], "y", {"domain": "com.example"})], {}, (1,)),
    "an unknown operation": ([("Abs", ["x"], "y", {})], {}, (1,)),
    "old broadcasting": ([("Add", ["x", "c"], "y", {"broadcast": 1})], {"c": np.ones(1)}, (1,)),
    "sizes of zero": ([("Reshape", ["x", "to"], "y", {"allowzero": 1})], {"to": np.array([1])}, (1,)),
    "statistics of places": ([("BatchNormalization", ["x", *BATCH], "y", {"spatial": 0})], BATCH, (1, 1)),
    "training": ([("BatchNormalization", ["x", *BATCH], "y", {"training_mode": 1})], BATCH, (1, 1)),
    "variances below 0": (
        [("BatchNormalization", ["x", *BATCH], "y", {})],
        {k: np.array([1.0, -1.0]) for k in BATCH},
        (1, 2),
    ),
    "dropout in training": ([("Dropout", ["x", "r", "t"], "y", {})], {"r": np.array(0.5), "t": np.array(1)}, (1,)),
    "steep leaks": ([("LeakyRelu", ["x"], "y", {"alpha": 1.5})], {}, (1,)),
    "leaks that fall": ([("LeakyRelu", ["x"], "y", {"alpha": -0.5})], {}, (1,)),
    "scaled products": ([("Gemm", ["x", "w"], "y", {"alpha": 2.0})], {"w": np.ones((1, 1))}, (1, 1)),
    "scaled biases": ([("Gemm", ["x", "w", "b"], "y", {"beta": 2.0})], {"w": np.ones((1, 1)), "b": np.ones(1)}, (1, 1)),
    "turned inputs": ([("Gemm", ["x", "w"], "y", {"transA": 1})], {"w": np.ones((1, 1))}, (1, 1)),
    "pads that are not told": ([("Conv", ["x", "w"], "y", {"auto_pad": "VALID"})], KERNEL, (1, 1, 2, 2)),
    "windows beyond the edge": (
        [("AveragePool", ["x"], "y", {"kernel_shape": [2, 2], "ceil_mode": 1})],
        {},
        (1, 1, 2, 2),
    ),
    "windows that are too large": ([("Conv", ["x", "w"], "y", {})], KERNEL, (1, 1, 1, 3)),
    "several images": ([("Conv", ["x", "w"], "y", {})], KERNEL, (2, 1, 2, 2)),
    "channels that do not fit": ([("Conv", ["x", "w"], "y", {})], KERNEL, (1, 2, 2, 2)),
    "biases that do not fit": ([("Conv", ["x", "w", "b"], "y", {})], {**KERNEL, "b": np.ones(2)}, (1, 1, 2, 2)),
    "several vectors": ([("MatMul", ["x", "w"], "y", {})], {"w": np.ones((2, 1))}, (2, 2)),
    "numbers that are none": ([("Add", ["x", "c"], "y", {})], {"c": np.array([np.nan])}, (1,)),
    "infinity beside numbers": ([("Add", ["x", "c"], "y", {})], {"c": np.array([1.0, np.inf])}, (2,)),
    "numbers of one byte": ([("Add", ["x", "c"], "y", {})], {"c": np.array([1], np.int8)}, (1,)),
    "outer sums": (
        [("Relu", ["x"], "h", {}), ("Transpose", ["h"], "t", {}), ("Add", ["x", "t"], "y", {})],
        {},
        (1, 2),
    ),
    "pads by a mirror": ([("Pad", ["x", "p"], "y", {"mode": "reflect"})], {"p": np.array([0, 0, 0, 1])}, (1, 2)),
    "pads by a number": ([("Pad", ["x", "p", "c"], "y", {})], {"p": np.array([0, 1]), "c": np.array(2.0)}, (1,)),
    "pads that are taken off": ([("Pad", ["x", "p"], "y", {})], {"p": np.array([0, -1])}, (2,)),
    "quotients by values": ([("Relu", ["x"], "h", {}), ("Div", ["c", "h"], "y", {})], {"c": np.ones(1)}, (1,)),
}


@pytest.mark.parametrize("name", list(ODD))
def test_what_is_not_known_is_refused(name: str) -> None:
    nodes, ends, shape = ODD[name]
    made = onnx.load_model_from_string(model(nodes, ends, shape))
    box = [("1", "1")] * int(np.prod(shape))
    for outputs in (1, 2, 4):
        with pytest.raises(Rejected):
            posed(made.SerializeToString(), prop(box, "(<= Y_0 -1000)", outputs), box).check()


@pytest.mark.parametrize("change", ["input", "output", "type", "function", "value", "external"])
def test_what_is_no_function_of_one_input_is_refused(change: str) -> None:
    made = onnx.load_model_from_string(model([("Add", ["x", "c"], "y", {})], {"c": np.ones(1)}))
    graph, box = made.graph, [("1", "1")]
    assert posed(made.SerializeToString(), prop(box, "(<= Y_0 -1000)"), box).check()["claim"] == "unsat"
    if change == "input":
        graph.input.append(helper.make_tensor_value_info("more", TensorProto.DOUBLE, (1,)))
    elif change == "output":
        graph.output.append(helper.make_tensor_value_info("x", TensorProto.DOUBLE, (1,)))
    elif change == "type":
        graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    elif change == "function":
        made.functions.append(helper.make_function("", "Add", ["a", "b"], ["d"], [], [helper.make_opsetid("", 15)]))
    elif change == "value":
        graph.node.append(helper.make_node("Relu", ["x"], ["c"]))
    else:
        graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(Rejected):
        posed(made.SerializeToString(), prop(box, "(<= Y_0 -1000)"), box).check()


def said(rest: str) -> bytes:
    """Of 1 <= x <= 3."""
    names = "(declare-const X_0 Real)(declare-const Y_0 Real)"
    return f"{names}(assert (>= X_0 1))(assert (<= X_0 3)){rest}".encode()


def of_identity(rest: str, *weights: float) -> Certificate:
    """A tree of one leaf for each unsafe set, of which the rows have these weights, about y = x."""
    text = said(rest)
    ((_, _, low, high, unsafe),) = question.question(IDENTITY, text)[1]
    part = {"lower": [v.hex() for v in low], "upper": [v.hex() for v in high], "layers": []}
    arrays = {f"0/{name}": array for name, array in parts.trees(len(unsafe), weights).items()}
    return Certificate.of({"kind": "tree", "semantics": "real", "parts": [part]}, arrays, IDENTITY, text)


@pytest.mark.parametrize(
    ("rest", "weights"),
    [
        ("(assert (<= Y_0 0.9))", [1]),
        ("(assert (>= Y_0 3.1))", [1]),
        ("(assert (<= 3.1 Y_0))", [1]),
        ("(assert (>= 0.9 Y_0))", [1]),
        ("(assert (< Y_0 0.9))", [1]),
        ("(assert (> Y_0 3.1))", [1]),
        ("(assert (<= (* 2 Y_0) 1.9))", [1]),
        ("(assert (<= (- Y_0) -3.1))", [1]),
        ("(assert (<= (- Y_0 1) -0.1))", [1]),
        ("(assert (<= (- 1 Y_0 1) -3.1))", [1]),
        ("(assert (<= (+ Y_0 1 Y_0) 2.9))", [1]),
        ("(assert (<= (* -1.5e0 Y_0) -4.6))", [1]),
        ("(assert (<= (* (- 3 1) Y_0) 1.9))", [1]),
        ("(assert (or (<= Y_0 0.9) (>= Y_0 3.1)))", [1, 1]),
        ("(assert (and (<= Y_0 1.1) (<= Y_0 0.9)))", [0, 1]),
        ("(assert (or (and (<= Y_0 0.9) (<= Y_0 9)) (>= Y_0 3.1)))", [1, 0, 1]),
        ("(assert (<= Y_0 2))(assert (<= Y_0 0.9))", [0, 1]),
        ("(assert (<= Y_0 2))(assert (or (<= Y_0 0.9) (<= Y_0 0.8)))", [0, 1, 0, 1]),
        ("(assert (>= X_0 2))(assert (<= Y_0 1.9))", [1]),
        ("(assert (>= (* 2 X_0) 4))(assert (<= Y_0 1.9))", [1]),
        ("(assert (<= (* -1 X_0) -2))(assert (<= Y_0 1.9))", [1]),
        ("(assert (<= X_0 5))(assert (>= Y_0 3.1))", [1]),
        ("; (assert (<= Y_0 5))\n(assert (<= Y_0 0.9)) ; all of it", [1]),
    ],
)
def test_what_properties_ask_is_proved(rest: str, weights: list[float]) -> None:
    assert of_identity(rest, *weights).check()["claim"] == "unsat"


@pytest.mark.parametrize(
    ("rest", "weights"),
    [
        ("(assert (<= Y_0 1.1))", [1]),
        ("(assert (>= Y_0 2.9))", [1]),
        ("(assert (<= (* Y_0 2) 2.1))", [1]),
        ("(assert (<= (- Y_0) -2.9))", [1]),
        ("(assert (<= (- Y_0 1) 0.1))", [1]),
        ("(assert (<= (+ Y_0 1 Y_0) 3.1))", [1]),
        ("(assert (<= (* -1.5e0 Y_0) -4.4))", [1]),
        ("(assert (or (<= Y_0 0.9) (>= Y_0 2.9)))", [1, 1]),
        ("(assert (or (<= Y_0 1.1) (>= Y_0 3.1)))", [1, 1]),
        ("(assert (and (<= Y_0 1.1) (<= Y_0 1.2)))", [1, 1]),
        ("(assert (>= X_0 2))(assert (<= Y_0 2.1))", [1]),
        ("(assert (and (> X_0 0) (<= Y_0 1.1)))", [1, 1]),
        ("(assert (> X_0 0))(assert (<= Y_0 1.1))", [1, 1]),
        ("(assert (<= (* 0 Y_0) 0))", [1]),
    ],
)
def test_what_does_not_hold_is_not_proved(rest: str, weights: list[float]) -> None:
    for exact in (False, True):
        with pytest.raises(Rejected, match="not proved"):
            of_identity(rest, *weights).check(exact=exact)


@pytest.mark.parametrize(
    "rest",
    [
        "(assert (<= (+ X_0 Y_0) -100))",
        "(assert (<= (* Y_0 Y_0) -1))",
        "(assert (<= (* (+ Y_0 1) Y_0) -1))",
        "(assert (= Y_0 0))",
        "(assert (not (<= Y_0 5)))",
        "(assert (<= Y_0 -1 -2))",
        "(assert (<= (/ Y_0 2) -1))",
        "(assert (<= Y_0 -1e))",
        "(assert (<= Z_0 -1))",
        "(assert (<= Y_0 -1)) (check-sat)",
        "(declare-const Y_1 Real)(assert (<= Y_0 -1))",
        "(declare-const Z Real)(assert (<= Y_0 -1))",
        "(declare-const X_0 Real)(assert (<= Y_0 -1))",
        "(assert (<= Y_0 -1)",
        "(assert (<= Y_0 -1)))",
        "(assert)",
        "(assert (<= (-) -1))",
        "(define-fun Y_0 () Real)",
        "(assume (<= Y_0 -1))",
        "(assert (<= Y_0 -1) (<= Y_0 5))",
        "".join(f"(assert (or (<= Y_0 -{2 * n + 1}) (<= Y_0 -{2 * n + 2})))" for n in range(14)),
    ],
)
def test_properties_that_are_not_known_are_refused(rest: str) -> None:
    with pytest.raises(Rejected):
        posed(IDENTITY, said(rest), [("1", "3")]).check()


def test_alternatives_of_inputs_are_cases() -> None:
    """x = 2 is in none of them."""
    rest = "(assert (or (<= X_0 1.5) (>= X_0 2.5)))(assert (<= Y_0 2.7))"
    for point, found in ((1.25, True), (2.0, False), (2.625, True), (2.875, False)):
        claims = {"kind": "counterexample", "semantics": "real", "point": [point.hex()]}
        certificate = Certificate.of(claims, {}, IDENTITY, said(rest))
        if found:
            assert certificate.check()["claim"] == "sat"
        else:
            with pytest.raises(Rejected):
                certificate.check()


def test_of_another_box_of_no_box_and_of_all_outputs_nothing_is_said() -> None:
    box = [("1", "3")]
    assert posed(IDENTITY, said("(assert (<= Y_0 -1))"), box).check()["claim"] == "unsat"
    with pytest.raises(Rejected, match="another box"):
        posed(IDENTITY, said("(assert (<= Y_0 -1))"), [("1", "2")]).check()
    with pytest.raises(Rejected, match="no output to avoid"):
        posed(IDENTITY, said(""), box).check()
    empty = said("(assert (<= X_0 0))(assert (<= Y_0 -1))")
    for claims in ([], [{"lower": [], "upper": [], "layers": []}]):
        with pytest.raises(Rejected, match="not all of the property"):
            Certificate.of({"kind": "tree", "semantics": "real", "parts": claims}, {}, IDENTITY, empty).check()


class Exits:
    """What ends the process if it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return sys.exit, (1,)


def test_nothing_is_unpickled_and_arrays_are_of_numbers() -> None:
    good = posed(IDENTITY, said("(assert (<= Y_0 -1))"), [("1", "3")])
    claims, arrays = question.opened(good.content)
    for array in (np.array([1j]), np.array(["1"]), np.array([True])):
        with pytest.raises(Rejected, match="no numbers"):
            replace(good, content=packed(claims, arrays | {"0/weights": array})).check()
    data, whole = io.BytesIO(), io.BytesIO()
    np.save(data, np.array([Exits()], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(io.BytesIO(good.content)) as old, zipfile.ZipFile(whole, "w") as new:
        for name in old.namelist():
            new.writestr(name, data.getvalue() if name == "0/weights.npy" else old.read(name))
    with pytest.raises(Rejected, match="allow_pickle"):
        replace(good, content=whole.getvalue()).check()


def test_files_may_be_packed() -> None:
    good = posed(IDENTITY, said("(assert (<= Y_0 -1))"), [("1", "3")])
    zipped = replace(good, model=gzip.compress(good.model), prop=gzip.compress(good.prop))
    assert zipped.check() == good.check()
