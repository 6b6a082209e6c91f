"""Certificates forged by hand for properties that are false, and files that are easily misread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from onnx import helper as onnx

from assay.verify.check import checker, norms, question
from assay.verify.check.certificate import Certificate
from assay.verify.check.question import Rejected
from assay.verify.solving import parts
from assay.verify.solving.parts import Files, Part

Bounds = Sequence[tuple[str, str]]


def model(
    nodes: Sequence[tuple[str, Sequence[str], str, dict[str, Any]]],
    constants: dict[str, Any],
    shape: Sequence[int] = (1,),
    kind: int = TensorProto.DOUBLE,
    opset: int = 15,
) -> bytes:
    """From ``x`` to ``y``; nodes: operation, inputs, output, attributes."""
    made = [onnx.make_node(op, list(names), [out], **attributes) for op, names, out, attributes in nodes]
    graph = onnx.make_graph(
        made,
        "g",
        [onnx.make_tensor_value_info("x", kind, shape)],
        [onnx.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made_of = onnx.make_model(graph, opset_imports=[onnx.make_opsetid("", opset)])
    made_of.ir_version = 8
    return bytes(made_of.SerializeToString())


def prop(box: Bounds, formula: str, outputs: int = 1) -> bytes:
    lines = [f"(declare-const X_{i} Real)" for i in range(len(box))]
    lines += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    lines += [f"(assert (>= X_{i} {low}))(assert (<= X_{i} {high}))" for i, (low, high) in enumerate(box)]
    return "\n".join([*lines, f"(assert {formula})"]).encode()


def forged(net: bytes, said: bytes, **arrays: Any) -> Certificate:
    """Trees that are one leaf each, but for the ``arrays`` given."""
    files = Files.of(net, said)
    hints = parts.trees(len(files.parts[0][2]), [1.0] * sum(map(len, files.parts[0][2])))
    hints |= {name: np.asarray(value) for name, value in arrays.items()}
    return files.certificate("tree", "real", [Part(hints, [])])


IDENTITY = model([("Identity", ["x"], "y", {})], {})


def test_neurons_are_listed_once() -> None:
    """A column of numbers, all the same: what a neuron gives would be counted five times."""
    net = model([("Relu", ["x"], "h", {}), ("Sub", ["h", "c"], "y", {})], {"c": np.array([2.0])})
    hints = {"tree": [0, -2, -1], "slopes": np.ones((1, 5)), "multipliers": [3.0]}
    with pytest.raises(Rejected):
        forged(net, prop([("1", "2")], "(<= Y_0 0)"), listed=[[0]] * 5, **hints).check()


def test_hints_have_the_rank_that_is_expected() -> None:
    """Slopes of three dimensions: sums over neurons would be sums over leaves."""
    net = model([("Relu", ["x"], "h", {}), ("MatMul", ["h", "w"], "y", {})], {"w": np.ones((2, 1))}, (1, 2))
    said = prop([("4", "5")] * 2, "(or (<= Y_0 -100) (<= Y_0 9))")
    with pytest.raises(Rejected, match="rank"):
        forged(net, said, listed=[0, 1], slopes=[[[1.0, -1.0], [1.0, 1.0]]]).check()


def test_bounds_of_inputs_are_rounded_outward() -> None:
    """0.1 lies below the float64 number next to it."""
    net = model([("Sub", ["x", "c"], "y", {})], {"c": np.array([0.1])})
    with pytest.raises(Rejected):
        forged(net, prop([("0.1", "0.1")], "(<= Y_0 -1e-18)")).check(exact=True)


def test_numbers_that_underflow_are_charged() -> None:
    with pytest.raises(Rejected):
        forged(IDENTITY, prop([("1e10", "1e10")], "(<= (* 3e-324 Y_0) 4e-314)")).check(exact=True)
    ends = {"s": np.array([5e-324]), "b": np.zeros(1), "m": np.zeros(1), "v": np.array([3.0])}
    net = model([("BatchNormalization", ["x", *ends], "y", {})], ends, (1, 1))
    with pytest.raises(Rejected):
        forged(net, prop([("1e300", "1e300")], "(<= Y_0 4e-24)")).check(exact=True)


def test_the_end_of_an_open_interval_is_no_counterexample() -> None:
    said = prop([("-1", "1")], "(and (> X_0 0) (<= Y_0 0.5))")
    with pytest.raises(Rejected):
        parts.counterexample(Files.of(IDENTITY, said), [0.0]).check()


def test_counterexamples_in_float32_are_charged_for_it() -> None:
    ends = {"c": np.array([1e8], np.float32)}
    net = model([("Add", ["x", "c"], "h", {}), ("Sub", ["h", "c"], "y", {})], ends, kind=TensorProto.FLOAT)
    files = Files.of(net, prop([("0", "1")], "(and (>= Y_0 0.5) (<= Y_0 0.75))"))
    for semantics in ("real", "float32-any-order"):
        claims = {"kind": "counterexample", "semantics": semantics, "point": [(0.625).hex()]}
        certificate = Certificate.of(claims, {}, files.model, files.prop)
        if semantics == "real":
            assert certificate.check()["claim"] == "sat"
        else:
            with pytest.raises(Rejected):
                certificate.check()


def test_a_matrix_times_a_vector_is_a_vector() -> None:
    """Which a column added to it makes a matrix of."""
    nodes: list[Any] = [
        ("MatMul", ["w", "x"], "a", {}),
        ("Add", ["a", "column"], "b", {}),
        ("Reshape", ["b", "shape"], "c", {}),
        ("AveragePool", ["c"], "y", {"kernel_shape": [2, 1], "strides": [4, 1]}),
    ]
    ends = {"w": np.array([[1.0], [0.0]]), "column": np.array([[0.0], [10.0]]), "shape": np.array([1, 1, -1, 1])}
    with pytest.raises(Rejected):
        forged(model(nodes, ends), prop([("1", "1")], "(<= Y_0 0.6)")).check()


def test_a_mean_counts_zeros_that_were_padded_before_it() -> None:
    """And not those that it pads by itself."""
    how = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 0, 1, 0], "count_include_pad": 0}
    nodes: list[Any] = [
        ("Pad", ["x", "pads"], "p", {"mode": "constant"}),  # 0 3 7 0, 0 5 12 0
        ("AveragePool", ["p"], "m", how),  # 1.5 3.5, 2.5 6
        ("Flatten", ["m"], "f", {}),
        ("MatMul", ["f", "w"], "y", {}),
    ]
    ends = {"pads": np.array([0, 0, 0, 1, 0, 0, 0, 1]), "w": np.array([[1.0], [10.0], [100.0], [1000.0]])}
    net, box = model(nodes, ends, (1, 1, 2, 2)), [(v, v) for v in ("3", "7", "5", "12")]
    assert forged(net, prop(box, "(<= Y_0 6286.4)")).check()["claim"] == "unsat"
    with pytest.raises(Rejected):
        forged(net, prop(box, "(<= Y_0 6286.6)")).check()
    for wrong in ({**ends, "pads": np.array([0, 0, 0, 1, 0, 0, 0, -1])}, {**ends, "one": np.array(1.0)}):
        nodes[0] = ("Pad", ["x", *([name for name in wrong if name != "w"])], "p", {"mode": "constant"})
        with pytest.raises(Rejected, match="padding"):
            forged(model(nodes, wrong, (1, 1, 2, 2)), prop(box, "(<= Y_0 0)")).check()


@pytest.mark.parametrize("padded", [0, 1])
@pytest.mark.parametrize("shape", [(1, 2, 4, 1), (1, 3, 2, 4), (1, 1, 1, 5)])
def test_pools_of_many_channels_are_averages(shape: tuple[int, ...], padded: int) -> None:
    how = {"kernel_shape": [2, 1], "pads": [1, 0, 1, 0], "count_include_pad": padded}
    shape = (shape[0], shape[1], max(shape[2], 2), shape[3])
    net = model([("AveragePool", ["x"], "y", how)], {}, shape, TensorProto.FLOAT)
    x = np.random.default_rng(0).random(shape).astype(np.float32)
    (want,) = onnxruntime.InferenceSession(net).run(None, {"x": x})
    network, _ = question.question(net, prop([("0", "1")] * x.size, "(<= Y_0 0)", want.size))
    flat = x.ravel().astype(np.float64)
    assert network.output.size == want.size
    found = checker.Bounder(network, [], [flat], [flat]).lower[network.output, 0]
    assert np.allclose(found, want.ravel(), atol=1e-6)


@pytest.mark.parametrize("term", ["Y_-1", "Y_00", "Y_1_0", "Y_2", "1/2", "1_0", "1e999999999", "nan"])
def test_strange_names_and_numbers_are_refused(term: str) -> None:
    net = model([("Identity", ["x"], "y", {})], {}, (2,))
    with pytest.raises(Rejected):
        forged(net, prop([("1", "1")] * 2, f"(<= {term} -5)", 2)).check()


def test_what_is_no_network_of_real_numbers_is_refused() -> None:
    whole = model([("Div", ["x", "c"], "y", {})], {"c": np.array([2])}, kind=TensorProto.INT64)
    ends = {"s": np.ones(1), "b": np.zeros(1), "m": np.zeros(1), "v": np.ones(1)}
    training = model([("BatchNormalization", ["x", *ends], "y", {"is_test": 0})], ends, (1, 1), opset=6)
    for net in (whole, training):
        with pytest.raises(Rejected, match="beyond this checker"):
            forged(net, prop([("1", "1")], "(<= Y_0 0.2)"))


@pytest.mark.parametrize("moved", [False, True])
def test_what_is_added_to_a_product_is_not_added_where_others_read_it(moved: bool) -> None:
    """y = 2 x + 100 + 2 x, whichever name the product is read by."""
    read = "t" if moved else "z"
    move: Any = [("Identity", ["z"], "t", {})] if moved else []
    nodes = [("MatMul", ["x", "w"], "z", {}), *move, ("Add", [read, "c"], "a", {}), ("Add", ["a", "z"], "y", {})]
    net = model(nodes, {"w": np.array([[2.0]]), "c": np.array([100.0])}, (1, 1))
    assert forged(net, prop([("1", "1")], "(<= Y_0 103.9)")).check()["claim"] == "unsat"
    with pytest.raises(Rejected):
        forged(net, prop([("1", "1")], "(<= Y_0 104.1)")).check()


def test_what_an_absent_input_is_called_is_no_value() -> None:
    """y = relu(x) + (x + 10): the name of an input that is left out, read once, is not that of the product."""
    ends = {"w": np.ones((1, 1)), "s": np.ones(1), "b": np.zeros(1), "m": np.array([-10.0]), "v": np.ones(1)}
    nodes: list[Any] = [
        ("MatMul", ["x", "w"], "z", {}),
        ("Relu", ["z"], "r", {}),
        ("BatchNormalization", ["z", "s", "b", "m", "v"], "n", {"epsilon": 0.0}),
        ("Add", ["r", "n"], "t", {}),
        ("Dropout", ["t", ""], "y", {}),
    ]
    net = model(nodes, ends, (1, 1))
    assert forged(net, prop([("1", "1")], "(<= Y_0 11.9)")).check()["claim"] == "unsat"
    with pytest.raises(Rejected):
        forged(net, prop([("1", "1")], "(<= Y_0 12.1)")).check()


@pytest.mark.parametrize("name", ["a", "c", "x"])
def test_a_name_stands_for_one_value(name: str) -> None:
    nodes: list[Any] = [("MatMul", ["x", "w"], "a", {}), ("Relu", ["a"], name, {}), ("Add", ["a", "c"], "y", {})]
    net = model(nodes, {"w": np.ones((1, 1)), "c": np.array([10.0])}, (1, 1))
    with pytest.raises(Rejected, match="two values"):
        forged(net, prop([("1", "1")], "(<= Y_0 0)"))


def test_constants_in_the_graph_and_the_slope_that_is_left_out() -> None:
    """y = 2 + leaky(x), of the slope 0.01."""
    two = numpy_helper.from_array(np.array([2.0]))
    nodes: list[Any] = [
        ("Constant", [], "c", {"value": two}),
        ("LeakyRelu", ["x"], "h", {}),
        ("Add", ["h", "c"], "y", {}),
    ]
    net = model(nodes, {})
    assert forged(net, prop([("-1", "-1")], "(<= Y_0 1.989)")).check()["claim"] == "unsat"
    with pytest.raises(Rejected):
        forged(net, prop([("-1", "-1")], "(<= Y_0 1.991)")).check()


def test_convolutions_without_a_bias() -> None:
    net = model([("Conv", ["x", "w"], "y", {})], {"w": np.full((1, 1, 1, 1), 2.0)}, (1, 1, 1, 1))
    assert forged(net, prop([("1", "1")], "(<= Y_0 1.9)")).check()["claim"] == "unsat"


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_value_may_be_read_twice_by_one_layer(sign: float) -> None:
    """y = relu(x) + relu(x), or what is left of it."""
    net = model([("Relu", ["x"], "h", {}), ("Add" if sign > 0 else "Sub", ["h", "h"], "y", {})], {})
    least = 2.0 if sign > 0 else 0.0
    assert forged(net, prop([("1", "3")], f"(<= Y_0 {least - 0.1})")).check()["claim"] == "unsat"
    with pytest.raises(Rejected):
        forged(net, prop([("1", "3")], f"(<= Y_0 {least + 0.1})")).check()
    assert norms.constants(question.Network(net), 2)[1] >= 2.0


def test_what_is_added_in_many_places_stands_in_each() -> None:
    """y_ij = x_i + c_j."""
    net = model([("Add", ["x", "c"], "y", {})], {"c": np.array([[10.0, 20.0, 30.0]])}, (2, 1))
    for number, least in enumerate((11.0, 21.0, 31.0, 12.0, 22.0, 32.0)):
        said = [prop([("1", "1"), ("2", "2")], f"(<= Y_{number} {least + more})", 6) for more in (-0.1, 0.1)]
        assert forged(net, said[0]).check()["claim"] == "unsat"
        with pytest.raises(Rejected):
            forged(net, said[1]).check()


def test_leaky_slopes_are_charged_in_float32() -> None:
    """0.1 x 1e7 at x = -1e7, next to which float32 has no number but in steps of 0.06."""
    net = model([("LeakyRelu", ["x"], "y", {"alpha": 0.1})], {}, kind=TensorProto.FLOAT)
    files = Files.of(net, prop([("-10000000", "-10000000")], "(<= Y_0 -1000000.02)"))
    part = Part(parts.trees(1, [1.0]), [])
    assert files.certificate("tree", "real", [part]).check()["claim"] == "unsat"
    with pytest.raises(Rejected):
        files.certificate("tree", "float32-any-order", [part]).check()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int64, np.float16])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("room", ["finer", "tighter"])
def test_numbers_of_neurons_of_any_type_prove_nothing_false(kind: type, exact: bool, room: str) -> None:
    """relu(x) - 1.5 is negative at 1."""
    net = model([("Relu", ["x"], "h", {}), ("Sub", ["h", "c"], "y", {})], {"c": np.array([1.5])})
    none, line = np.zeros(0), np.full((1, 1), 255, np.uint8)
    arrays = {"neurons": np.array([1], kind), "rows": np.array([1], kind), "slopes": line, "multipliers": none}
    own = {"tree": np.array([-1]), "weights": none}, {"at": np.array([0], kind), "weights": np.zeros(1)}
    arrays |= own[room == "tighter"]
    told = {f"{room}/{name}": array for name, array in arrays.items()}
    with pytest.raises(Rejected):
        forged(
            net,
            prop([("1", "2")], "(<= Y_0 0)"),
            listed=[0],
            tree=[-1],
            slopes=np.zeros((1, 1), np.uint8),
            multipliers=none,
            **told,
        ).check(exact=exact)


@pytest.mark.parametrize("norm", [1, 2, np.inf])
def test_outputs_that_are_padded_in_front_have_the_constants_of_their_network(norm: float) -> None:
    """1000 x reaches -1000."""
    nodes: list[Any] = [("MatMul", ["x", "w"], "m", {}), ("Pad", ["m", "p"], "y", {"mode": "constant"})]
    net = model(nodes, {"w": np.array([[1000.0]]), "p": np.array([0, 1, 0, 0])}, (1, 1))
    files = Files.of(net, prop([("-1", "1")], "(<= Y_1 -500)", outputs=2))
    with pytest.raises(Rejected):
        files.certificate("lipschitz", "real", [Part({"norms": np.array([[norm]])}, [])]).check()


NO_SPLITS = {"slopes": np.zeros((2, 2), np.uint8), "multipliers": np.zeros(0, np.float16)}


def named(codes: Sequence[int], kind: str) -> dict[str, Any]:
    """Bounds of neurons of a row of its own each, or under what the output has to be, by these codes."""
    mine = {"neurons": codes, "rows": [len(codes)], **NO_SPLITS, "slopes": np.zeros((len(codes), 2), np.uint8)}
    tree = {"tree": [-1] * len(codes), "weights": np.zeros(0, np.float16)}
    more = tree if kind == "finer" else {"at": [0], "weights": np.zeros(len(codes))}
    return {f"{kind}/{name}": np.asarray(value) for name, value in (mine | more).items()}


@pytest.mark.parametrize("kind", ["finer", "tighter"])
@pytest.mark.parametrize("exact", [False, True])
def test_bounds_of_values_that_two_relus_read_are_those_of_both(kind: str, exact: bool) -> None:
    """y = 1.5 - relu(x) - relu(x) is -0.5 where x is 1."""
    twice = [("Relu", ["x"], "a", {}), ("Relu", ["x"], "b", {}), ("Add", ["a", "b"], "s", {})]
    net = model([*twice, ("Sub", ["c", "s"], "y", {})], {"c": np.array([1.5])})
    shared = {"listed": np.array([0, 1], np.int32), "slopes": np.zeros((1, 2), np.uint8)} | named([1, 3], kind)
    with pytest.raises(Rejected, match="not proved"):
        forged(net, prop([("-1", "1")], "(<= Y_0 0)"), **shared).check(exact)
    assert forged(net, prop([("-1", "1")], "(<= Y_0 -0.6)"), **shared).check(exact)["claim"] == "unsat"


@pytest.mark.parametrize("kind", ["finer", "tighter"])
@pytest.mark.parametrize("code", [-1, -2])
def test_neurons_of_numbers_below_0_are_none(kind: str, code: int) -> None:
    """y = relu(x) - 5 is always below 0."""
    net = model([("Relu", ["x"], "a", {}), ("Sub", ["a", "c"], "y", {})], {"c": np.array([5.0])})
    arrays = named([code], kind)
    arrays[f"{kind}/slopes"] = np.zeros((1, 1), np.uint8)
    listed = {"listed": np.array([0], np.int32), "slopes": np.zeros((1, 1), np.uint8)}
    certificate = forged(net, prop([("-1", "1")], "(<= Y_0 0)"), **listed, **arrays)
    with pytest.raises(Rejected, match="neurons that there are not"):
        certificate.check()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("name", ["slopes", "multipliers", "weights", "finer/multipliers", "tighter/weights"])
def test_hints_that_are_no_finite_numbers_are_refused_in_words(name: str, value: float) -> None:
    """In fractions, which there are none of, as in float64, where a tree that needs no such hint would be accepted."""
    net = model([("Relu", ["x"], "a", {}), ("Add", ["a", "c"], "y", {})], {"c": np.array([5.0])})
    arrays = {"listed": [0], "tree": [0, -1, -1], "slopes": np.zeros((2, 1)), "multipliers": [0.0] * 2}
    arrays |= {"weights": [1.0] * 2, **named([0], "finer"), **named([0], "tighter")}
    arrays |= {f"{kind}/slopes": np.zeros((1, 1), np.uint8) for kind in ("finer", "tighter")}
    arrays |= {"finer/tree": [0, -1, -1], "finer/multipliers": [0.0] * 2, "finer/slopes": np.zeros((2, 1), np.uint8)}
    said = prop([("-1", "1")], "(<= Y_0 0)")
    assert forged(net, said, **arrays).check()["claim"] == "unsat"
    arrays[name] = np.full_like(np.asarray(arrays[name], np.float64), value)
    for exact in (False, True):
        with pytest.raises(Rejected, match="finite"):
            forged(net, said, **arrays).check(exact)
