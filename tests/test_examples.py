"""The examples run as they stand, say what they promise, and stay short."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def run(name: str) -> str:
    """What the example prints, run from its own folder as a newcomer would."""
    done = subprocess.run(
        [sys.executable, "-W", "error", name],
        cwd=ROOT / "examples",
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_there_are_three_and_they_are_short() -> None:
    assert EXAMPLES == ["comparing_methods.py", "own_model.py", "radius.py"]
    for name in EXAMPLES:
        assert len((ROOT / "examples" / name).read_text().splitlines()) < 60


@pytest.mark.slow  # it trains a network
def test_own_model() -> None:
    text = run("own_model.py")
    assert "my model on digits (test), linf, 50 samples" in text
    clean = re.search(r"clean\s+([\d.]+)%", text)
    assert clean is not None
    assert float(clean[1]) > 80
    certified = [float(share) for share in re.findall(r"all methods\s+≥ ([\d.]+)%", text)]
    attacked = [float(share) for share in re.findall(r"all attacks\s+≤ ([\d.]+)%", text)]
    assert len(certified) == len(attacked) == 2
    assert all(low <= high for low, high in zip(certified, attacked, strict=True))
    assert certified[0] > 0


@pytest.mark.slow
def test_comparing_methods() -> None:
    rows = {line[:22].strip(): line[22:].split() for line in run("comparing_methods.py").splitlines()[1:]}
    assert list(rows) == ["ibp", "crown", "crown(dtype=float32)", "auto"]
    assert all(sum(map(int, row[:3])) == 50 for row in rows.values())
    assert int(rows["ibp"][0]) <= int(rows["crown"][0]) == int(rows["crown(dtype=float32)"][0]) <= int(rows["auto"][0])
    assert int(rows["auto"][1]) > 0


@pytest.mark.slow
def test_radius() -> None:
    match = re.search(r"robust within ([\d.]+) \(crown\), not within ([\d.]+) \(pgd\)", run("radius.py"))
    assert match is not None
    assert 0 < float(match[1]) < float(match[2]) < 0.5


# Cell by cell, as a notebook does: what stands last in a cell is shown.
RUNNER = """
import ast, json, pathlib, sys
names = {}
for cell in json.loads(pathlib.Path(sys.argv[1]).read_text())["cells"]:
    if cell["cell_type"] == "code":
        body = ast.parse("".join(cell["source"])).body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), sys.argv[1], "exec"), names)
        shown = None if last is None else eval(compile(ast.Expression(last.value), sys.argv[1], "eval"), names)
        print(getattr(shown, "_repr_html_", lambda: None)() or repr(shown))
"""


def shown(name: str) -> list[str]:
    """What the cells of a notebook show."""
    command = [sys.executable, "-W", "error", "-c", RUNNER, name]
    done = subprocess.run(command, cwd=ROOT / "examples", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.slow
def test_the_notebook_about_the_bracket() -> None:
    _, comparison, figure, radii, lines = shown("bracket.ipynb")[0:5]
    assert comparison.startswith("<table><caption>model digits-mlp-pgd, data digits (test), samples 20, eps 0.02 ")
    assert "Figure" in figure
    assert "radii of 0.1" in radii
    assert all(low <= high for _, low, high in eval(lines))


@pytest.mark.slow
def test_the_notebook_about_one_question() -> None:
    _, problem, solved, crown, broken, _, attack = shown("one_question.ipynb")
    assert "<caption>Problem" in problem
    assert all("<td>verified</td>" in each for each in (solved, crown))
    assert "<td>falsified</td>" in broken
    assert "1 of 1" in attack


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").glob("*.ipynb")))
def test_notebooks_carry_no_outputs(name: str) -> None:
    cells = json.loads((ROOT / "examples" / name).read_text())["cells"]
    assert cells[0]["cell_type"] == "markdown"
    assert not any(cell.get("outputs") for cell in cells)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_says_what_it_is(name: str) -> None:
    first = (ROOT / "examples" / name).read_text().splitlines()[0]
    assert first.startswith('"""')
