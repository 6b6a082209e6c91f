"""Certificates, most of them forged, that tell the checker from others of which one line is a little different."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from assay.verify.check import checker, question
from assay.verify.check.certificate import Certificate
from assay.verify.check.question import Rejected
from assay.verify.solving import parts
from assay.verify.solving.parts import Files, Part
from tests.verify.check.test_forged import IDENTITY, forged, model, prop

RELU = model([("Relu", ["x"], "y", {})], {})
NONE = np.zeros(0, np.float16)


def told(net: bytes, said: bytes, semantics: str, claims: dict[str, str] | None = None) -> Certificate:
    """A tree of one leaf, in these semantics, of other claims."""
    files = Files.of(net, said)
    made = files.certificate("tree", semantics, [Part(parts.trees(1, [1.0]), [])])
    known, arrays = question.opened(made.content)
    kept = {key: value for key, value in known.items() if key not in ("model", "property")}
    return Certificate.of({**kept, **(claims or {})}, arrays, files.model, files.prop)


def test_fractions_prove_what_rounding_hides() -> None:
    close = forged(IDENTITY, prop([("1", "1")], "(<= Y_0 0.999999999999999)"))
    assert close.check(exact=True)["claim"] == "unsat"
    with pytest.raises(Rejected):
        close.check()


def test_its_command_says_how_it_is_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    close = forged(IDENTITY, prop([("1", "1")], "(<= Y_0 0.999999999999999)"))
    close.save_with_files(tmp_path)
    files = [str(tmp_path / name) for name in ("certificate.zip", "model.onnx", "property.vnnlib")]
    assert checker.main(files) == 1
    assert "rejected: 1 leaves are not proved" in capsys.readouterr().out
    assert checker.main(["--exact", *files]) == 0
    assert capsys.readouterr().out.startswith("accepted: {")
    for wrong in ([], files[:2], [*files, "more"]):
        with pytest.raises(SystemExit, match=r"python checker\.py CERTIFICATE MODEL\.onnx PROPERTY"):
            checker.main(wrong)


def test_neurons_that_others_read_stay_where_they_are_inactive() -> None:
    """y = relu(z_0) + relu(z_1) + z_0 = -4, where z_0 is read twice and z_1 once."""
    nodes: list[Any] = [
        ("MatMul", ["x", "eye"], "z", {}),
        ("Relu", ["z"], "h", {}),
        ("Conv", ["z", "one"], "c", {"strides": [1, 2]}),
        ("Flatten", ["c"], "d", {}),
        ("Flatten", ["h"], "f", {}),
        ("MatMul", ["f", "sum"], "s", {}),
        ("Add", ["s", "d"], "y", {}),
    ]
    ends = {"eye": np.eye(2), "one": np.ones((1, 1, 1, 1)), "sum": np.ones((2, 1))}
    net, box = model(nodes, ends, (1, 1, 1, 2)), [("-5", "-5"), ("1", "1")]
    assert forged(net, prop(box, "(<= Y_0 -4.1)")).check()["claim"] == "unsat"
    with pytest.raises(Rejected):
        forged(net, prop(box, "(<= Y_0 -3)")).check()


@pytest.mark.parametrize("exact", [False, True])
def test_a_neuron_that_is_listed_twice_has_no_two_multipliers(exact: bool) -> None:
    tree = {"tree": [0, -2, -1], "slopes": np.ones((1, 2)), "multipliers": [3.0], "weights": [1.0]}
    with pytest.raises(Rejected, match="in order"):
        forged(RELU, prop([("1", "2")], "(<= Y_0 2)"), listed=[0, 0], **tree).check(exact=exact)


@pytest.mark.parametrize("exact", [False, True])
def test_what_a_multiplier_takes_is_put_back_at_its_least(exact: bool) -> None:
    """relu(x) reaches 1: coefficients of x are 1 - 3, and 3 x is 3 at least, and not 6."""
    tree = {"tree": [0, -2, -1], "slopes": np.ones((1, 1)), "multipliers": [3.0], "weights": [1.0]}
    with pytest.raises(Rejected, match="1 leaves"):
        forged(RELU, prop([("1", "2")], "(<= Y_0 1.5)"), listed=[0], **tree).check(exact=exact)


def test_rounding_of_large_multipliers_is_charged() -> None:
    """What is taken off a coefficient, and put back, cancels but for its rounding, of as many terms as neurons."""
    net, box = model([("Relu", ["x"], "y", {})], {}, (200,)), [("1000000", "1000000"), *[("1", "1")] * 199]
    for size in 10.0 ** np.arange(0, 18, 3):
        tree = {"tree": [0, -2, -1], "slopes": np.ones((1, 1)), "multipliers": [size], "weights": [1.0]}
        with pytest.raises(Rejected, match="1 leaves"):
            forged(net, prop(box, "(<= Y_0 1000000)", 200), listed=[0], **tree).check()


def test_what_underflows_before_a_large_operand_is_charged() -> None:
    """The output is 0 where the operand is -1e298."""
    net = model([("MatMul", ["x", "w"], "z", {}), ("Relu", ["z"], "y", {})], {"w": np.array([[1e290]])}, (1, 1))
    leaf = {"tree": [-1], "slopes": np.zeros((1, 1)), "multipliers": NONE, "weights": [1.0]}
    with pytest.raises(Rejected, match="1 leaves"):
        forged(net, prop([("-100000000", "1e-290")], "(<= (* 1e-290 Y_0) 0.5)"), listed=[0], **leaf).check()


@pytest.mark.parametrize("exact", [False, True])
def test_a_neuron_that_is_0_holds_a_point(exact: bool) -> None:
    """Of max(max(x, 0), 0) both bounds are 0; they do not cross."""
    net = model([("Relu", ["x"], "h", {}), ("Relu", ["h"], "y", {})], {})
    tree = {"slopes": np.zeros((0, 2)), "multipliers": NONE, "weights": NONE}
    for codes, many in (([-2], 1), ([1, -2, -2], 2), ([0, -2, -2], 1)):  # of the last one half holds no point
        with pytest.raises(Rejected, match=f"{many} leaves are not proved"):
            forged(net, prop([("-2", "-1")], "(<= Y_0 0)"), listed=[0, 1], tree=codes, **tree).check(exact=exact)


def test_nothing_follows_the_last_tree() -> None:
    said, leaf = prop([("1", "2")], "(<= Y_0 0.5)"), {"slopes": np.ones((1, 1)), "multipliers": NONE, "weights": [1.0]}
    assert forged(RELU, said, listed=[0], tree=[-1], **leaf).check()["claim"] == "unsat"
    for codes in ([-1, -1], [-1, 0], [-1, -2], [], [0, -1]):
        with pytest.raises(Rejected):
            forged(RELU, said, listed=[0], tree=codes, **leaf).check()


def finer(**others: Any) -> Certificate:
    """y = relu(x) + relu(x - 1) with a better bound of x - 1, which it does not need."""
    nodes: list[Any] = [
        ("MatMul", ["x", "w"], "z", {}),
        ("Add", ["z", "b"], "a", {}),
        ("Relu", ["a"], "h", {}),
        ("MatMul", ["h", "s"], "y", {}),
    ]
    net = model(nodes, {"w": np.ones((1, 2)), "b": np.array([0.0, -1.0]), "s": np.ones((2, 1))}, (1, 1))
    bound = {"neurons": [2], "rows": [1], "tree": [0, -1, -1], "slopes": np.zeros((2, 2), np.uint8)}
    arrays = bound | {"multipliers": [0.0, 0.0], "weights": NONE} | others
    hints = {"slopes": np.full((1, 2), 255, np.uint8), "multipliers": NONE, "weights": [1.0], "tree": [-1]}
    own = {f"finer/{name}": np.asarray(array) for name, array in arrays.items()}
    return forged(net, prop([("-1", "2")], "(<= Y_0 -3.5)"), listed=[0, 1], **hints, **own)


def test_every_bound_has_its_tree_and_every_tree_its_bound() -> None:
    assert finer().check()["claim"] == "unsat"
    for wrong in (
        {"tree": [0, -1, -1, -1]},
        {"tree": [0, -1]},
        {"neurons": [2, 3]},
        {"rows": [2]},
        {"rows": np.zeros(0, np.int32)},
        {"neurons": np.zeros(0, np.int32)},
    ):
        with pytest.raises(Rejected):
            finer(**wrong).check()


@pytest.mark.parametrize("semantics", ["real", "float32-any-order"])
def test_other_formats_and_semantics_are_refused(semantics: str) -> None:
    said = prop([("1", "1")], "(<= Y_0 0.5)")
    assert told(IDENTITY, said, semantics).check()["semantics"] == semantics
    for wrong in ({"format": "assay-certificate-2"}, {"semantics": "float16"}, {"semantics": ""}, {"kind": "trees"}):
        with pytest.raises(Rejected, match="beyond this checker"):
            told(IDENTITY, said, semantics, wrong).check()


def test_what_is_no_float32_is_not_proved_for_it() -> None:
    """1e30 x overflows where x is 1e10."""
    net = model([("Mul", ["x", "c"], "y", {})], {"c": np.array([1e30], np.float32)}, kind=TensorProto.FLOAT)
    said = prop([("10000000000", "10000000000")], "(<= Y_0 0)")
    assert told(net, said, "real").check()["claim"] == "unsat"
    with pytest.raises(Rejected):
        told(net, said, "float32-any-order").check()


def test_counterexamples_in_float32_are_points_of_float32() -> None:
    files = Files.of(IDENTITY, prop([("0", "1")], "(<= Y_0 0.5)"))
    for point, semantics in ((0.1, "real"), (0.125, "float32-any-order")):
        claims = {"kind": "counterexample", "semantics": semantics, "point": [point.hex()]}
        assert Certificate.of(claims, {}, files.model, files.prop).check()["claim"] == "sat"
    claims = {"kind": "counterexample", "semantics": "float32-any-order", "point": [(0.1).hex()]}
    with pytest.raises(Rejected, match="float32"):
        Certificate.of(claims, {}, files.model, files.prop).check()


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("row", ["(< Y_0 0.5)", "(<= Y_0 0.5)"])
def test_what_touches_an_unsafe_set_is_neither_proved_nor_a_counterexample(row: str, exact: bool) -> None:
    said = prop([("0.5", "0.5")], row)
    with pytest.raises(Rejected):
        forged(IDENTITY, said).check(exact=exact)
    with pytest.raises(Rejected):
        parts.counterexample(Files.of(IDENTITY, said), [0.5]).check(exact=exact)


@pytest.mark.parametrize("arithmetic", [checker.Floats, checker.Rationals])
def test_intervals_lie_outside_of_the_values_of_every_box(arithmetic: type[checker.Floats]) -> None:
    """Magnitudes are of the largest box."""
    rng = np.random.default_rng(0)
    nodes: list[Any] = [("MatMul", ["x", "w"], "z", {}), ("Relu", ["z"], "h", {}), ("MatMul", ["h", "v"], "y", {})]
    net = question.Network(model(nodes, {"w": rng.integers(-3, 4, (2, 4)), "v": rng.integers(-3, 4, (4, 1))}, (1, 2)))
    rows = [({0: 1}, 0, False)]
    x = np.array([[1.0, 2.0], [-300.0, 5.0], [0.0, 0.25]])
    found = checker.boxed(net, rows, "real", arithmetic(), x, x)
    want = np.maximum(x @ net.layers[0].weight[0, 0].T, 0) @ net.layers[2].weight[0, 0].T
    assert (found.lower[net.output] < want.T).all()
    assert (found.upper[net.output] > want.T).all()
    size = np.maximum(np.abs(found.lower), np.abs(found.upper))
    assert (found.most[:, None] >= size).all()
