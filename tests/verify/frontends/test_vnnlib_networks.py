"""Properties of several networks, of version 2.0: equivalence, monotonicity, shared inputs, inputs and outputs by
name, and the witness that is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from assay import witness
from assay.verify.check.replay import replay
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import Port, to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, Polytope
from assay.verify.core.result import Verdict
from assay.verify.frontends.onnx import write_onnx
from assay.verify.frontends.vnnlib import parse_vnnlib
from assay.verify.frontends.vnnlib.declared import Declared
from assay.verify.registry import get_verifier
from tests.nets import random_mlp, weighted
from tests.verify.frontends.test_ports import write as write_two

pytest.importorskip("vnnlib")

HEAD = "(vnnlib-version <2.0>)\n"


def declare(name: str, x: str, y: str, how: str = "", inputs: int = 2) -> str:
    return f"(declare-network {name} {how} (declare-input {x} real [{inputs}]) (declare-output {y} real [1]))\n"


def within(x: str, low: str = "0.0", high: str = "1.0", inputs: int = 2) -> str:
    bounds = " ".join(f"(>= {x}[{i}] {low}) (<= {x}[{i}] {high})" for i in range(inputs))
    return f"(assert (and {bounds}))\n"


def same(x: str, u: str, inputs: int = 2) -> str:
    return "".join(f"(assert (== {x}[{i}] {u}[{i}]))\n" for i in range(inputs))


def saved(path: Path, seed: int = 0, shift: float = 0.0) -> Path:
    """A network of two inputs and one output, moved up by ``shift``."""
    model = random_mlp(seed, (2, 4, 1))
    with torch.no_grad():
        next(reversed(list(model.parameters()))).add_(shift)
    write_onnx(to_network(model, (2,)), path)
    return path


def asked(tmp_path: Path, text: str, **networks: Path) -> Problem:
    prop = tmp_path / "p.vnnlib"
    prop.write_text(HEAD + text)
    (problem,) = Problem.from_files(saved(tmp_path / "f.onnx"), prop, networks)
    return problem


EQUAL = declare("f", "X", "Y") + declare("g", "U", "V") + within("X") + same("X", "U")


def apart(by: float) -> str:
    return f"(assert (or (>= Y[0] (+ V[0] {by})) (<= Y[0] (- V[0] {by}))))\n"


@pytest.mark.parametrize("method", ["milp", "lp-bab", "smt", "input-split"])
@pytest.mark.parametrize(("by", "verdict"), [(0.0625, Verdict.VERIFIED), (0.0156, Verdict.FALSIFIED)])
def test_equivalence(method: str, by: float, verdict: Verdict, tmp_path: Path) -> None:
    """Two networks that differ by 1/32 everywhere; their inputs are one."""
    problem = asked(tmp_path, EQUAL + apart(by), g=saved(tmp_path / "g.onnx", shift=1 / 32))
    assert isinstance(problem.region, Box)
    assert problem.network.input_shape == (2,)
    result = get_verifier(method).verify(problem, Budget(60))
    assert result.verdict is verdict
    if result.counterexample is not None:
        assert replay(problem, result.counterexample).confirmed
        x, y = (of(problem.network, result.counterexample) for of in (witness.inputs, witness.outputs))
        assert x[:2].tolist() == x[2:].tolist() == result.counterexample.tolist()
        assert len(y) == 2
        assert abs(float(y[0] - y[1])) == pytest.approx(1 / 32, abs=1e-5)


@pytest.mark.parametrize("method", ["crown", "milp", "lp-bab", "smt", "input-split"])
def test_monotonicity(method: str, tmp_path: Path) -> None:
    """y = relu(x0) - x1 / 2 does not fall where x0 grows; it does where x1 does. One file stands for both."""
    model = weighted([([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), ([[1.0, -0.5]], [0.0])], torch.float32)
    net, prop = tmp_path / "f.onnx", tmp_path / "p.vnnlib"
    write_onnx(to_network(model, (2,)), net)
    twice = declare("f", "X", "Y") + declare("g", "U", "V", "(equal-to f)") + within("X") + within("U")
    falls = "(assert (<= V[0] (- Y[0] 0.125)))\n"
    for grows, verdict in ((0, Verdict.VERIFIED), (1, Verdict.FALSIFIED)):
        tie = f"(assert (<= X[{grows}] U[{grows}]))(assert (== X[{1 - grows}] U[{1 - grows}]))\n"
        prop.write_text(HEAD + twice + tie + falls)
        (problem,) = Problem.from_files(net, prop)
        assert isinstance(problem.region, Polytope)
        assert problem.region.shape == (3,)
        result = get_verifier(method).verify(problem, Budget(60))
        assert result.verdict is verdict or (verdict is Verdict.FALSIFIED and method == "crown"), grows
        if result.counterexample is not None:
            assert replay(problem, result.counterexample).confirmed


def test_networks_without_a_file_or_a_declaration_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="declares the networks f, g: pass the file of g too"):
        asked(tmp_path, EQUAL + apart(0.5))
    with pytest.raises(InputError, match="declares no network 'h'"):
        asked(tmp_path, EQUAL + apart(0.5), g=saved(tmp_path / "g.onnx"), h=tmp_path / "f.onnx")


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    text = declare("f", "X", "Y", inputs=3) + within("X", inputs=3) + "(assert (<= Y[0] 0.0))"
    with pytest.raises(InputError, match=r"declares 1 input of f, with 3 values; the model has 1, with 2"):
        asked(tmp_path, text)


def test_other_types_than_the_model_has_are_told(tmp_path: Path) -> None:
    text = within("X") + "(assert (<= Y[0] -1000.0))"
    for kind in ("real", "float32"):
        asked(tmp_path, declare("f", "X", "Y").replace("real", kind) + text)
    with pytest.warns(UserWarning, match="f is declared with elements of type F64; the model takes float32"):
        asked(tmp_path, declare("f", "X", "Y").replace("real", "float64") + text)


PARTS = """(declare-network f
  (declare-input state real [1,3]) (declare-input image real [1,2,3])
  (declare-output score real [1,2]))
"""


def within_parts(text: str) -> str:
    """state = (0, 1, 2), image = 0."""
    bounds = [f"(>= state[0,{i}] {i}.0) (<= state[0,{i}] {i}.0)" for i in range(3)]
    bounds += [f"(>= image[0,{i},{j}] 0.0) (<= image[0,{i},{j}] 0.0)" for i in range(2) for j in range(3)]
    return f"{HEAD}{text}(assert (and {' '.join(bounds)}))(assert (<= score[0,0] -1000.0))"


def test_inputs_and_outputs_go_by_the_names_of_the_model(tmp_path: Path) -> None:
    """Declared in another order than the file has them."""
    net, prop = write_two(tmp_path / "two.onnx"), tmp_path / "p.vnnlib"
    prop.write_text(within_parts(PARTS))
    (problem,) = Problem.from_files(net, prop)
    x = problem.region.centre[None].float()
    assert x.flatten().tolist() == [0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert problem.network.oracle is not None
    in_order = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0]])
    (plain,) = Problem.from_files(net, _of_version_1(tmp_path), outputs=("score",))
    assert plain.network.oracle is not None
    torch.testing.assert_close(problem.network.oracle(x), plain.network.oracle(in_order))
    torch.testing.assert_close(problem.network(x), plain.network(in_order))


def test_other_names_go_by_their_order_and_must_fit(tmp_path: Path) -> None:
    net, prop = write_two(tmp_path / "two.onnx"), tmp_path / "p.vnnlib"
    prop.write_text(within_parts(PARTS).replace("state", "S").replace("image", "I"))
    with pytest.raises(InputError, match=r"the shape \[1, 3\] of the input 'S' of f; the model has \[2, 3\]"):
        Problem.from_files(net, prop)


def test_names_that_the_model_does_not_have_are_refused() -> None:
    model = replace(to_network(random_mlp(0, (5, 4, 2)), (5,)), inputs=(Port("a", (2,)), Port("b", (3,))))
    ports = (Port("b", (3,)), Port("a", (2,)))
    assert Declared("f", ports, (Port("y", (2,)),), named=True).places(model) == [3, 4, 0, 1, 2]
    other = Declared("f", (Port("c", (2,)), Port("b", (3,))), (Port("y", (2,)),), named=True)
    with pytest.raises(InputError, match=r"declares the inputs \['c', 'b'\] of f; the model has \['a', 'b'\]"):
        other.places(model)
    assert replace(other, named=False).places(model) == [0, 1, 2, 3, 4]
    assert other.chosen(["x"]) == ("y",)
    assert replace(other, named=False).chosen(["x"]) == ()


def _of_version_1(tmp_path: Path) -> Path:
    prop = tmp_path / "one.vnnlib"
    lines = [f"(declare-const X_{i} Real)(assert (>= X_{i} 0))(assert (<= X_{i} 3))" for i in range(9)]
    prop.write_text("\n".join([*lines, "(declare-const Y_0 Real)(declare-const Y_1 Real)(assert (<= Y_0 -1000))"]))
    return prop


def test_inputs_said_to_be_equal_are_one_in_any_property() -> None:
    text = "".join(f"(declare-const X_{i} Real)(assert (>= X_{i} -1))(assert (<= X_{i} {i + 1}))" for i in range(3))
    prop = parse_vnnlib(text + "(declare-const Y_0 Real)(assert (= X_0 X_2))(assert (<= (+ X_2 Y_0) 1))")
    assert prop.shared == (0, 1, 0)
    assert prop.linked == (0,)
    ((region, spec),) = prop.cases
    assert isinstance(region, Box)
    assert region.upper.tolist() == [1.0, 2.0]
    assert spec.A.tolist() == [[1.0, 1.0]]
