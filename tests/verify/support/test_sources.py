"""A hash of sources: it moves with code alone, and tells nodes of a cluster apart."""

from __future__ import annotations

import operator
import pickle
from pathlib import Path

import pytest

from assay.verify.support.executors import Fate
from assay.verify.support.executors.cluster import Order, _perform, _version
from assay.verify.support.sources import FOLDERS, hashed


def test_it_moves_with_code_and_where_it_lies(tmp_path: Path) -> None:
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text("x = 1")
    first = hashed(package=tmp_path)
    (tmp_path / "models" / "weights.bin").write_bytes(b"1")
    assert hashed(package=tmp_path) == first
    (tmp_path / "models" / "a.py").rename(tmp_path / "models" / "b.py")
    moved = hashed(package=tmp_path)
    (tmp_path / "verify" / "a.py").write_text("x = 2")
    assert len({first, moved, hashed(package=tmp_path), hashed()}) == 4


@pytest.mark.parametrize("other", ["0.0.other", f"{_version()} "], ids=["version", "sources"])
def test_a_node_with_another_package_does_nothing_and_is_named(other: str) -> None:
    order = Order(operator.getitem, "00", 1.0, 1.0, other)
    fate, error = _perform(order, pickle.dumps({}), pickle.dumps("a"))
    assert fate is Fate.RAISED
    assert str(error).endswith(f"has assay {_version()}, and the run began with {other}")
