"""VNN-LIB 2.0: tensors, what the package rejects, what it would let pass or die of, and what is not supported."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from assay.verify.core.errors import AssayError, InputError, ResourceError, UnsupportedError
from assay.verify.frontends.vnnlib import Property, operators, parse_vnnlib, version2
from assay.verify.frontends.vnnlib.rounding import neighbours

pytest.importorskip("vnnlib")

ROOT = Path(__file__).parents[3]
NETWORK = "(declare-network f\n(declare-input X real [1,2])\n(declare-output Y real [2,1,2])\n)\n"
BOX = "(assert (and (>= X[0,0] -1.0) (<= X[0,0] 1.0) (>= X[0,1] -1.0) (<= X[0,1] 1.0)))\n"
LINE = 7  # of what the helper below appends


def read(assertions: str, network: str = NETWORK, box: str = BOX) -> Property:
    return parse_vnnlib("(vnnlib-version <2.0>)\n" + network + box + assertions, "p.vnnlib")


def rows(assertions: str) -> list[tuple[list[list[float]], list[float], list[bool]]]:
    ((_, spec),) = read(assertions).cases
    return [(d.A.tolist(), d.b.tolist(), d.strict.tolist()) for d in spec.disjuncts]


def test_tensors_are_flattened_with_the_last_index_fastest() -> None:
    assert rows("(assert (<= Y[1,0,0] Y[0,0,1]))") == [([[0, -1, 1, 0]], [0], [False])]
    assert read("").inputs == 2
    assert read("").outputs == 4


def test_scalars_have_no_indices() -> None:
    network = "(declare-network f (declare-input A float32 []) (declare-output B float64 []))"
    prop = read("(assert (< B 0.5))", network, "(assert (>= A -1.0))(assert (<= A 1.0))")
    ((_, spec),) = prop.cases
    assert (prop.inputs, prop.outputs, spec.A.tolist()) == (1, 1, [[1.0]])


@pytest.mark.parametrize(
    ("comparison", "row", "limit", "strict"),
    [
        ("(<= (+ (* 2.0 (- Y[0,0,0] (+ Y[0,0,1] 1.0))) Y[0,0,1]) (- 4.0 Y[0,0,0]))", [3, -1, 0, 0], 6, False),
        ("(> (- Y[0,0,0]) 3.0)", [1, 0, 0, 0], -3, True),
        ("(>= Y[0,0,0] 2.0)", [-1, 0, 0, 0], -2, False),
        ("(< (- Y[0,0,0] 1.0 2.0) 3.0)", [1, 0, 0, 0], 6, True),
    ],
)
def test_comparisons_of_outputs_become_rows(comparison: str, row: list[float], limit: float, strict: bool) -> None:
    assert rows(f"(assert {comparison})") == [([row], [limit], [strict])]


def test_decimals_are_exact() -> None:
    ((box, _),) = read("", box=BOX.replace("-1.0", "0.30000000000000001")).cases
    assert box.inner is not None
    assert (box.lower[0], box.inner.lower[0]) == neighbours(Fraction("0.30000000000000001"))


@pytest.mark.parametrize("version", ["2.0", "2.1"])
def test_a_comment_may_stand_in_front_and_the_minor_version_may_differ(version: str) -> None:
    assert parse_vnnlib(f"; a comment\n(vnnlib-version <{version}>)" + NETWORK + BOX).inputs == 2


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("(assert (<= Y[0,0,0] 1e3))", 23, "unexpected 'e3'"),
        ("garbage", 1, "unexpected 'garbage'"),
        ("(assert (<= Y[0,0,0] 1.0)", 1, "ends too early"),
        ("(assert (<= Z 1.0))", 13, "Undeclared variable: 'Z'"),
        ("(assert (<= Y[0,0,2] 1.0))", 13, "Index 2 is out of bounds"),
        ("(assert (<= Y[0,0] 1.0))", 13, "Expected 3 indices"),
        ("(assert (<= Y[0,0,0] 1))", 22, "Type mismatch"),
        ("(assert (<= Y[0,-1,0] 1.0))", 1, "index -1 is out of range"),
        ("(assert (<= Y[0,0,0] 1.0))\x00(assert (<= Y[0,0,1] 1.0))", 27, "unexpected character"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, column: int, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text)
    assert str(caught.value).startswith(f"p.vnnlib:{LINE}:{column}: "), str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text", ["(assert (<= Y[99999999999999999999,0,0] 1.0))", f"(assert (<= Y[0,0,0] {'9' * 400}.0))", "é"]
)
def test_what_the_package_stumbles_over_is_the_files_fault(text: str) -> None:
    with pytest.raises(InputError, match=r"^p\.vnnlib: the package vnnlib cannot read it"):
        read(text)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            '(declare-network f (declare-input X real [2]) (declare-hidden H real [] "h") (declare-output Y real [2]))',
            "1 hidden node of the network f",
        ),
        ("(declare-network f (declare-input X float16 [2]) (declare-output Y real [2]))", "X has type F16"),
    ],
)
def test_other_interfaces_are_not_supported(network: str, message: str) -> None:
    indices = "[0,0]" if "[1,2]" in network else "[0]"
    with pytest.raises(UnsupportedError, match=message):
        read("", network, f"(assert (<= X{indices} X{indices}))")


def test_an_input_without_a_bound_is_named() -> None:
    with pytest.raises(InputError, match="input X_1 has no upper bound"):
        read("", box="(assert (and (>= X[0,0] -1.0) (<= X[0,0] 1.0) (>= X[0,1] -1.0)))")


def test_depth_is_capped_before_the_package_dies_of_it() -> None:
    for depth in (operators.MAX_DEPTH, 200_000):
        with pytest.raises(ResourceError, match="more than 200 nested parentheses"):
            read(f"(assert {'(and ' * depth}(<= Y[0,0,0] 1.0){')' * depth})")
    depth = operators.MAX_DEPTH - 2
    assert rows(f"(assert {'(and ' * depth}(<= Y[0,0,0] 1.0){')' * depth})")


def test_the_number_of_tokens_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version2, "MAX_TOKENS", 20)
    with pytest.raises(ResourceError, match="more than 20 tokens"):
        read("")


def test_huge_shapes_are_refused() -> None:
    network = "(declare-network f (declare-input X real [1000000000,1000]) (declare-output Y real [1]))"
    with pytest.raises(ResourceError, match="1000000000000 inputs"):
        read("", network, "(assert (<= Y[0] 1.0))")


def test_without_the_package_one_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vnnlib", None)
    with pytest.raises(AssayError, match="pip install vnnlib"):
        read("")


@pytest.mark.slow
def test_the_package_is_imported_when_it_is_needed() -> None:
    code = """
import sys
from assay.verify.frontends.vnnlib import parse_vnnlib
parse_vnnlib("(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= X_0 1))(assert (>= X_0 0))")
heavy = {"vnnlib", "onnx", "onnxruntime", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, check=True)
