"""Where the start-up goes: the parts are all there, and add up to the whole."""

import json

import pytest

from assay.benchmarks.measure import startup
from tests.benchmarks.instance_files import PROPERTIES, net


@pytest.mark.slow  # it starts many processes
def test_the_parts_add_up_to_the_whole_and_peers_stand_beside(tmp_path, capsys):
    net(tmp_path / "net.onnx")
    (tmp_path / "safe.vnnlib").write_text(PROPERTIES["safe"][0])
    arguments = [str(tmp_path / "net.onnx"), str(tmp_path / "safe.vnnlib"), "--repeats", "1", "--json"]
    startup.main([*arguments, "--peer", "quick=test -f {net} -a -f {prop}"])
    measured = json.loads(capsys.readouterr().out)
    parts, whole = measured["parts"], measured["processes"]
    assert list(parts)[:3] == ["interpreter", "command", "torch"]
    assert {"onnx", "onnxruntime", "assay", "property", "network", "check", "solve", "exit"} <= set(parts)
    assert sum(parts.values()) == pytest.approx(whole["all steps"], abs=0.01)
    assert list(whole) == ["all steps", "assay verify", "import torch", "quick"]


def test_a_command_that_fails_is_no_measurement(tmp_path):
    with pytest.raises(SystemExit, match="exit code 1"):
        startup.run(["test", "-d", str(tmp_path / "missing")])


@pytest.mark.parametrize("arguments", [["net.onnx"], ["--repeats", "0"], ["--peer", "nothing"]])
def test_other_arguments_are_refused(arguments):
    with pytest.raises(SystemExit):
        startup.main(arguments)
