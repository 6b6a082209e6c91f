"""A project of the user's with folders and files called as ours are: each finds its own, whoever is imported first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from assay.models.architectures import parse
from assay.verify.core.network import to_network
from assay.verify.frontends.onnx import write_onnx
from tests.breadth import slow

ROOT = Path(__file__).parents[2]

FILES = {
    "models/__init__.py": "from models.resnet import resnet18\n",
    "models/resnet.py": """
import utils
from torch import nn

def resnet18():
    import attacks
    from benchmarks.numbers import WIDTH

    assert attacks.MINE and utils.MINE
    return nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10)).eval()
""",
    "attacks/__init__.py": "MINE = True\n",
    "benchmarks/__init__.py": "",
    "benchmarks/numbers.py": "WIDTH = 5\n",
    "verify.py": "raise RuntimeError('the wrong verify')\n",
    "utils.py": "MINE = True\n",
    "net.py": "from models import resnet18\n",
    "script.py": """
import assay.verify
import attacks

assert attacks.MINE
print(assay.get_attack("fgsm").name, assay.verify.Problem.__module__)
""",
}
DATA = ["--data", "digits", "--eps", "0.01", "--n", "1", "--methods", "ibp", "--attacks", "fgsm"]
COMPARE = ["compare", *DATA, "--json", "--model"]
INSPECT = ["inspect", "--input-shape", "64", "--json"]
# As the installed command starts: the current folder is not searched, unless PYTHONPATH says so.
COMMAND = [sys.executable, "-P", "-c", "from assay.__main__ import run; run()"]
MODULE = [sys.executable, "-m", "assay"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return tmp_path


def ran(arguments: list[str], folder: Path, search: str = "") -> subprocess.CompletedProcess[str]:
    """A process in ``folder`` that searches ``search`` for modules before it finds assay."""
    paths = os.pathsep.join(part for part in (search, str(ROOT)) if part)
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # python3 is the one that tests
    environment = {**os.environ, "PATH": programs, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("command", "model", "search", "told"),
    [
        pytest.param([*COMMAND, *COMPARE], "models.resnet:resnet18", ".", '"ibp"', id="on-the-path"),
        slow([*COMMAND, *INSPECT], "net.py:resnet18", "", '"Relu"', id="file"),
        slow([*MODULE, *INSPECT], "models:resnet18", "", '"Relu"', id="python-m"),
    ],
)
def test_a_model_of_a_project_with_folders_called_as_ours(
    project: Path, command: list[str], model: str, search: str, told: str
) -> None:
    done = ran([*command, model], project, search)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout


@pytest.mark.slow
def test_a_script_beside_a_folder_called_attacks(project: Path) -> None:
    done = ran([sys.executable, "script.py"], project)
    assert done.stdout == "fgsm assay.verify.core.problem\n", done.stderr


@pytest.mark.slow
def test_an_instance_is_run_beside_a_file_called_verify(project: Path) -> None:
    network = to_network(parse("mlp(hidden=3)").build((2,), 2).eval(), (2,))
    write_onnx(network, project / "net.onnx")
    lines = [f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1")]
    lines += [f"(assert ({sign} X_{i} {value}))" for i in (0, 1) for sign, value in ((">=", 0.0), ("<=", 1.0))]
    (project / "prop.vnnlib").write_text("\n".join([*lines, "(assert (>= Y_0 1e9))"]) + "\n")
    script = str(ROOT / "vnncomp" / "run_instance.sh")
    done = ran([script, "v1", "own", "net.onnx", "prop.vnnlib", "answer.txt", "60"], project)
    assert done.returncode == 0, done.stderr
    assert (project / "answer.txt").read_text().split() == ["unsat"]
