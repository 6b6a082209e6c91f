"""``assay check``, certificates and evidence: written, accepted, and refused once anything was changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from assay import evidence
from assay.__main__ import main
from assay.verify.core.network import to_network
from assay.verify.frontends.onnx.write import write_onnx
from tests import nets

SAFE, BOX = "y[0] > y[1] - 1000", "0 <= x <= 0.1"


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    write_onnx(to_network(nets.random_mlp(0), (4,)), tmp_path / "net.onnx")
    return "net.onnx"


def verify(net: str, require: str, *more: str) -> int:
    return main(["verify", net, "--input", BOX, "--require", require, "--save-property", "p.vnnlib", *more])


def test_a_certificate_is_accepted_for_its_own_files_alone(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(net, SAFE, "--certificate", "c.zip") == 0
    told = capsys.readouterr()
    assert told.out.startswith("unsat")
    assert "rigorous" in told.err
    assert main(["check", "c.zip", net, "p.vnnlib"]) == 0
    assert "accepted" in capsys.readouterr().out
    assert verify(net, "y[0] > y[1] - 999") == 0
    assert main(["check", "c.zip", net, "p.vnnlib"]) == 20
    assert main(["check", "c.zip"]) == 40
    capsys.readouterr()
    assert main(["check", "nowhere"]) == 40
    assert "no certificate and no folder of evidence 'nowhere'" in capsys.readouterr().err


def test_a_counterexample_is_a_certificate_too(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(net, "y[0] > y[1] + 1000", "--certificate", "c.zip") == 10
    assert main(["check", "c.zip", net, "p.vnnlib"]) == 0
    assert "the point is unsafe" in capsys.readouterr().out
    assert verify(net, "y[0] > y[1] + 1000", "--evidence", "folder") == 10
    assert main(["check", "folder"]) == 0
    assert "accepted: falsified" in capsys.readouterr().out


@pytest.mark.parametrize("semantics", ["real", "float32-any-order"])
def test_evidence_is_checked_again(net: str, semantics: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(net, SAFE, "--evidence", "folder", "--semantics", semantics) == 0
    told = json.loads(Path("folder/evidence.json").read_text())
    assert (told["verdict"], told["guarantee"], told["semantics"]) == ("verified", "rigorous", semantics)
    assert SAFE in Path("folder/report.txt").read_text()
    assert "<h2>What is assumed</h2>" in Path("folder/report.html").read_text()
    assert main(["check", "folder"]) == 0
    for false in ({"semantics": "imagined"}, {"guarantee": "statistical"}, {"verdict": "falsified"}):
        Path("folder/evidence.json").write_text(json.dumps(told | false))
        assert main(["check", "folder"]) == 20
    Path("folder/evidence.json").write_text(json.dumps(told))
    assert told["sha256"]["log.txt"] in Path("folder/report.txt").read_text()
    for name in ("report.txt", "property.vnnlib", "log.txt"):
        with Path("folder", name).open("a") as file:
            file.write("\n")
        capsys.readouterr()
        assert main(["check", "folder"]) == 20
        assert f"{name} changed" in capsys.readouterr().out.replace(",", " changed")


def test_what_evidence_says_is_held_against_its_files(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever changes it, and the hashes with it, is told by what the checker reads."""
    assert verify(net, SAFE, "--evidence", "folder") == 0
    told, folder = json.loads(Path("folder/evidence.json").read_text()), Path("folder")
    pages = {name: Path(folder, name).read_bytes() for name in evidence.REPORTS}
    formulas = [*told["mathematics"][:-1], "  { y[0] <= 7.0 }"]
    changes = {
        "requirement": (told["requirement"].replace("y[0]", "2 * y[0]"), "the requirement in words"),
        "mathematics": (formulas, "the formulas are not"),
        "counterexample": ([0.0, 0.0, 0.0], "the counterexample is not"),
        "proof": (told["proof"] | {"leaves": 0}, "the certificate is not as large"),
        "assumed": (told["assumed"][:-1], "what is assumed is not"),
        "method": ("another", "report.txt does not say"),
    }
    for key, (value, fault) in changes.items():
        false = told | {key: value}
        lines = evidence.report(false)
        if key != "method":  # pages that agree with what is false
            for name, content in zip(evidence.REPORTS, (evidence.text(lines), evidence.page(lines)), strict=True):
                Path(folder, name).write_text(content)
        false["reports"] = evidence.hashes(folder, evidence.REPORTS)
        Path(folder, "evidence.json").write_text(json.dumps(false))
        capsys.readouterr()
        assert main(["check", "folder"]) == 20
        assert f"rejected: {fault}" in capsys.readouterr().out
        for name, content in pages.items():
            Path(folder, name).write_bytes(content)
    Path(folder, "evidence.json").write_text(json.dumps(told))
    assert main(["check", "folder"]) == 0
    assert "note: " not in capsys.readouterr().out
    older = told | {"versions": told["versions"] | {"assay": "0.0"}}  # of which pages may say it in other words
    Path(folder, "evidence.json").write_text(json.dumps(older))
    assert main(["check", "folder"]) == 0
    note = "note: report.txt, report.html: written by assay 0.0, and this is assay"
    assert note in capsys.readouterr().out


def test_a_folder_names_its_files_and_no_line_of_it_is_several(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(net, SAFE, "--evidence", "folder") == 0
    told, folder = json.loads(Path("folder/evidence.json").read_text()), Path("folder")

    def says(**changes: Any) -> str:
        false = told | changes
        lines = evidence.report(false)
        for name, content in zip(evidence.REPORTS, (evidence.text(lines), evidence.page(lines)), strict=True):
            Path(folder, name).write_text(content)
        false["reports"] = evidence.hashes(folder, evidence.REPORTS)
        Path(folder, "evidence.json").write_text(json.dumps(false))
        capsys.readouterr()
        assert main(["check", "folder"]) == 20
        return capsys.readouterr().out

    for left_out in ("checker.py", "log.txt"):
        few = {name: value for name, value in told["sha256"].items() if name != left_out}
        assert f"rejected: {left_out}: not the files" in says(sha256=few)
    assert "rejected: ../net.onnx: not the files" in says(sha256=told["sha256"] | {"../net.onnx": "0"})
    assert "rejected: the certificate proves 'unsat'" in says(guarantee="exact")
    assert "a line of the report holds several" in says(method="ibp\nProved: anything")
    bare = {name: told["sha256"][name] for name in ("model.onnx", "property.vnnlib", "log.txt")}
    for name in set(told["sha256"]) - set(bare):
        Path(folder, name).unlink()
    assert "proved, without a certificate" in says(sha256=bare)


def test_without_checking_it_is_numerical(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(net, SAFE, "--no-check", "--json") == 0
    assert json.loads(capsys.readouterr().out)["guarantee"] == "numerical"
    assert verify(net, SAFE, "--no-check", "--certificate", "c.zip") == 40
    assert main(["verify", net]) == 40
    assert main(["check", "."]) == 40


def test_evidence_without_a_certificate_says_so(
    net: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["assay", "verify", net, "--input", BOX])
    assert verify(net, "y[0] > y[1] + 1000", "--method", "ibp", "--evidence", "folder") == 20
    assert "no certificate: the question is open" in capsys.readouterr().err
    report = Path("folder/report.txt").read_text()
    assert f"Command: assay verify {net} --input '{BOX}'" in report
    assert "certificate.zip" not in report
    assert main(["check", "folder"]) == 90
    assert "nothing to check: the verdict is unknown, numerical, without a certificate" in capsys.readouterr().out
    Path("folder/report.txt").write_text("mended")
    assert main(["check", "folder"]) == 20


def test_evidence_is_not_mixed_with_other_files(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").touch()
    assert verify(net, SAFE, "--evidence", "mine") == 40
    assert "holds something else" in capsys.readouterr().err
    assert not Path("p.vnnlib").exists()  # refused before any work


def test_a_requirement_may_name_a_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = (helper.make_tensor_value_info(*a) for a in (("x", 1, ["n", 3]), ("y", 7, ["n"])))
    node = helper.make_node("ArgMax", ["x"], ["y"], axis=1, keepdims=0)
    opset = [helper.make_opsetid("", 13)]
    graph = helper.make_graph([node], "label", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), "l.onnx")
    box = ["--input", "0 <= x <= 3 and x[0] <= 1 and x[1] <= 1 and x[2] >= 2"]
    assert main(["verify", "l.onnx", *box, "--require", "y == 2"]) == 0
    assert main(["verify", "l.onnx", *box, "--require", "y[0] < 1.5"]) == 10
    told = capsys.readouterr().out
    assert "(Y_0 2.0))" in told  # the label, not a score for each
    assert "Y_1" not in told
