"""The package as a user has it: what the wheel and the source archive hold, and what an installation can do."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("verify", "attacks", "models", "benchmarks")

pytestmark = pytest.mark.wheel


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """What the command prints, without the checkout on its path; its complaints are the failure's message."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env={**clean, **(env or {})}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, folder: Path) -> Path:
    """The wheel of a checkout or of a source archive."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    run(*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel in it, and with this one's packages except for the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    scheme = {"base": str(folder), "platbase": str(folder)}
    # A folder that is named in a .pth file is searched, but its own .pth files, of which one leads here, are not read.
    Path(sysconfig.get_path("purelib", "venv", scheme), "base.pth").write_text(sysconfig.get_path("purelib") + "\n")
    interpreter = Path(sysconfig.get_path("scripts", "venv", scheme), "python")
    pip = [sys.executable, "-m", "pip", "--python", interpreter, "install", "--quiet", "--disable-pip-version-check"]
    run(*pip, "--no-deps", "--ignore-installed", wheel, cwd=folder)
    return interpreter


def contents(wheel: Path) -> dict[str, bytes]:
    """Every file but the list of them."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith(".dist-info/RECORD")}


def test_the_wheel_has_one_name_and_every_file_of_the_package(wheel: Path) -> None:
    names = contents(wheel)
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"assay"}
    places = {ROOT / "assay": "assay", **{ROOT / room: f"assay/{room}" for room in ROOMS}}
    expected = {
        f"{name}/{path.relative_to(place).as_posix()}"
        for place, name in places.items()
        for path in place.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("assay/")} == expected
    assert {"assay/py.typed", "assay/models/data/digits.npz", "assay/models/zoo/digits-mlp-pgd.safetensors"} <= expected


def test_the_licenses_come_along(wheel: Path) -> None:
    names = [name.partition(".dist-info/licenses/")[2] for name in contents(wheel)]
    assert {"LICENSE", "models/data/LICENSE-digits.txt", "models/data/LICENSE-fashion-mnist.txt"} <= set(names)


def test_the_source_archive_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", tmp_path, cwd=ROOT)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        tops = {Path(name).parts[1] for name in opened.getnames()}
    assert {"README.md", "CHANGELOG.md", "tests", "pyproject.toml", "Makefile", "constraints.txt"} <= tops
    again = tmp_path / "again"
    again.mkdir()
    assert contents(build(archive, again)) == contents(wheel)


def test_the_installed_command_answers(python: Path, tmp_path: Path) -> None:
    assay = python.with_name("assay")
    version = run(assay, "--version", cwd=tmp_path)
    assert version.startswith("assay ")
    where = run(python, "-c", "import assay; print(assay.__file__); print(assay.__version__)", cwd=tmp_path).split("\n")
    assert where[0].startswith(str(python.parents[1]))
    assert version == f"assay {where[1]}\n"
    code = "import assay; print(assay.data.load('fashion-mnist').take(1).shape, 'digits-mlp-pgd' in assay.zoo.names())"
    assert run(python, "-c", code, cwd=tmp_path) == "(1, 28, 28) True\n"
    assert "unsat" in run(python, ROOT / "tests" / "front_door.py", cwd=tmp_path)


def test_a_users_type_checker_sees_the_types(python: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "import assay\n"
        "def lower(problem: assay.Problem) -> float | None:\n"
        "    result = assay.solve(problem)\n"
        "    reveal_type(assay.Problem.robustness)\n"
        "    reveal_type(result.verdict)\n"
        "    return result.margin\n"
        "lower(3)\n"
    )
    command = [sys.executable, "-m", "mypy", "--python-executable", str(python), "--strict", "user.py"]
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MYPYPATH")}
    said = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True).stdout
    assert 'user.py:4: note: Revealed type is "def (' in said, said
    assert "core.problem.Problem" in said
    assert 'user.py:5: note: Revealed type is "assay.verify.core.result.Verdict"' in said
    assert 'user.py:7: error: Argument 1 to "lower" has incompatible type "int"' in said
    assert said.endswith("Found 1 error in 1 file (checked 1 source file)\n")
