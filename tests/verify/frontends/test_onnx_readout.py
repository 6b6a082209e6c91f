"""Networks that end in a softmax: properties of the order of the outputs are those of the logits."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper

from assay.verify.core.budget import Budget
from assay.verify.core.result import Verdict
from assay.verify.frontends.files import read_problems
from assay.verify.frontends.onnx import read_onnx
from assay.verify.registry import get_verifier
from tests.nets import generator
from tests.verify.frontends.onnx_files import model, numbers, run, save

NODE = helper.make_node
BOX = "".join(f"(assert (>= X_{i} 0.9))(assert (<= X_{i} 0.901))" for i in range(6))
NAMES = "".join(f"(declare-const {name} Real)" for name in [*(f"X_{i}" for i in range(6)), "Y_0", "Y_1", "Y_2"])


def classifier(op: str, opset: int = 13, **attributes: int) -> onnx.ModelProto:
    nodes = [NODE("MatMul", ["x", "w"], ["z"]), NODE(op, ["z"], ["p"], name="last", **attributes)]
    nodes += [NODE("Identity", ["p"], ["y"])]
    return model(nodes, ("N", 6), {"w": numbers(0, 6, 3)}, opset)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(("opset", "attributes"), [(13, {}), (13, {"axis": 1}), (11, {}), (11, {"axis": 0})])
def test_the_network_ends_before_it(op: str, opset: int, attributes: dict[str, int], tmp_path: Path) -> None:
    proto = classifier(op, opset, **attributes)
    network = read_onnx(save(tmp_path, proto))
    assert network.readout == {"Softmax": "softmax", "LogSoftmax": "log_softmax"}[op]
    assert network.oracle is not None
    x = torch.randn(1, 6, generator=generator(0))
    true = run(proto, x)
    torch.testing.assert_close(network.oracle(x), true)
    logits = network(x.double())
    shares = logits.softmax(-1) if op == "Softmax" else logits.log_softmax(-1)
    torch.testing.assert_close(shares.float(), true)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_properties_of_the_order_are_answered_as_for_the_logits(op: str, tmp_path: Path) -> None:
    path, prop = save(tmp_path, classifier(op)), tmp_path / "p.vnnlib"
    label = int(run(classifier(op), torch.full((1, 6), 0.9)).argmax())
    others = [i for i in range(3) if i != label]
    verdicts = []
    for text in (
        f"(assert (or (<= Y_{label} Y_{others[0]}) (<= Y_{label} Y_{others[1]})))",
        f"(assert (> Y_{label} Y_{others[0]}))",
    ):
        prop.write_text(NAMES + BOX + text)
        (problem,) = read_problems(path, prop)
        verdicts.append(get_verifier("milp").verify(problem, Budget(60)).verdict)
    assert verdicts == [Verdict.VERIFIED, Verdict.FALSIFIED]


@pytest.mark.parametrize("text", ["(>= Y_0 0.5)", "(<= (+ Y_0 Y_1) Y_2)", "(<= Y_0 (+ Y_1 0.1))", "(<= Y_0 (* 2 Y_1))"])
def test_properties_of_values_are_those_of_the_whole(text: str, tmp_path: Path) -> None:
    proto = classifier("Softmax")
    path, prop = save(tmp_path, proto), tmp_path / "p.vnnlib"
    prop.write_text(f"{NAMES}{BOX}(assert {text})")
    (problem,) = read_problems(path, prop)
    assert not problem.network.readout
    x = problem.region.point(torch.rand(1, 6))
    torch.testing.assert_close(problem.network(x.double()).float(), run(proto, x.float()))
    verdict = get_verifier("crown").verify(problem, Budget(60)).verdict
    assert verdict in (Verdict.VERIFIED, Verdict.UNKNOWN)
    reached = problem.spec.margin(problem.spec.rows(problem.network(x.double())))
    assert verdict is Verdict.UNKNOWN or float(reached) > 0
