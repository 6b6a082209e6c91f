"""The examples run as they stand, say what they promise, and stay short."""

from __future__ import annotations

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


def test_radius() -> None:
    match = re.search(r"robust within ([\d.]+) \(crown\), not within ([\d.]+) \(pgd\)", run("radius.py"))
    assert match is not None
    assert 0 < float(match[1]) < float(match[2]) < 0.5


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_says_what_it_is(name: str) -> None:
    first = (ROOT / "examples" / name).read_text().splitlines()[0]
    assert first.startswith('"""')
