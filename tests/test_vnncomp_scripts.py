"""The competition's scripts: they take its arguments, and leave an answer in the results file whatever happens."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.instance_files import PROPERTIES, net
from tests.breadth import few

SCRIPTS = Path(__file__).parents[1] / "vnncomp"


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Calls a script in a folder with net.onnx and the properties; python3 is the python of the tests."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    net(tmp_path / "net.onnx")
    for name, (text, _) in PROPERTIES.items():
        (tmp_path / f"{name}.vnnlib").write_text(text)
    scripts = tmp_path / "copy" / "vnncomp"  # elsewhere, so that no .venv is beside it
    scripts.mkdir(parents=True)
    for path in SCRIPTS.iterdir():
        (scripts / path.name).write_bytes(path.read_bytes())
    site = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(tmp_path / "bin"), str(site), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(SCRIPTS.parent), *(path for path in sys.path if "site-packages" in path)]),
    }

    def call(script, *arguments):
        command = ["sh", str(scripts / script), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return call


@pytest.mark.parametrize("name", few(["safe", "broken"], quick=["broken"]))
def test_an_instance_leaves_its_answer_in_the_results_file(call, tmp_path, name):
    assert call("prepare_instance.sh", "v1", "tiny", "net.onnx", f"{name}.vnnlib").returncode == 0
    (tmp_path / "out.txt").write_text("of an earlier run")
    done = call("run_instance.sh", "v1", "tiny", "net.onnx", f"{name}.vnnlib", "out.txt", "60")
    assert (done.returncode, done.stdout) == (0, "")
    lines = (tmp_path / "out.txt").read_text().splitlines()
    assert lines[0] == PROPERTIES[name][1]
    assert len(lines) == (5 if name == "broken" else 1)


@pytest.mark.slow
def test_a_failure_is_an_answer(call, tmp_path):
    assert call("run_instance.sh", "v1", "tiny", "net.onnx", "none.vnnlib", "out.txt", "60").returncode == 0
    assert (tmp_path / "out.txt").read_text() == "error\n"


def test_files_that_are_missing_are_noticed_in_time(call):
    assert call("prepare_instance.sh", "v1", "tiny", "net.onnx", "none.vnnlib").returncode == 1


@pytest.mark.parametrize("script", ["install_tool.sh", "prepare_instance.sh", "run_instance.sh"])
def test_another_version_of_the_rules_is_refused(call, script):
    done = call(script, "v2")
    assert done.returncode == 1
    assert done.stderr.startswith("usage:")
