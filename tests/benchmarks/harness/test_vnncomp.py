"""A spread of instances of VNN-COMP: no verdict contradicts the one that is known."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from assay.__main__ import main

FOLDER = Path(__file__).parents[4] / "shared" / "vnncomp"
COUNT, SECONDS = 60, 1.0

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the VNN-COMP instances are not beside the checkout")


def spread(folder):
    """COUNT instances, the same number of each benchmark where there are enough, evenly over its list."""
    lines = {path.parent.name: path.read_text().split() for path in sorted(FOLDER.glob("*/instances.csv"))}
    chosen = defaultdict(list)
    left = COUNT
    for rank, (name, listed) in enumerate(sorted(lines.items(), key=lambda item: len(item[1]))):
        count = min(len(listed), left // (len(lines) - rank))
        left -= count
        chosen[name] = [listed[i * len(listed) // count] for i in range(count)]
    for name, listed in chosen.items():
        (folder / name).mkdir()
        for kind in ("onnx", "vnnlib"):
            (folder / name / kind).symlink_to(FOLDER / name / kind)
        (folder / name / "instances.csv").write_text("\n".join(listed) + "\n")
    return sum(map(len, chosen.values()))


def test_no_verdict_contradicts_what_is_known(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "all").mkdir()
    assert spread(tmp_path / "all") == COUNT
    command = ["bench", "all", "--workers", "1", "--timeout", str(SECONDS), "--expected", str(FOLDER / "expected.csv")]
    code = main([*command, "--json"])
    out, err = capsys.readouterr()
    rows = json.loads(out)
    assert code == 0, [row for row in rows if row["verdict"] == "error"] + err.splitlines()
    assert len(rows) == COUNT
    decided = [row for row in rows if row["verdict"] in ("sat", "unsat")]
    assert all(row["expected"] in (row["verdict"], "unknown", "conflict") for row in decided)
    assert len(decided) >= COUNT // 4
