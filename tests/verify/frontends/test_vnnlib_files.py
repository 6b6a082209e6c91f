"""Property files: found, unpacked, capped; with a model as problems; and those of a competition, where they are."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from assay.verify.core.errors import AssayError, InputError, ResourceError
from assay.verify.core.network import to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.spec import Spec
from assay.verify.frontends.onnx import write_onnx
from assay.verify.frontends.vnnlib import parse_vnnlib, read, read_vnnlib, write_vnnlib
from tests.nets import random_cnn
from tests.verify.frontends.vnnlib_formulas import content

ROOT = Path(__file__).parents[3]

TEXT = """(declare-const X_0 Real)
(declare-const Y_0 Real)
(assert (or (and (>= X_0 0.1) (<= X_0 1)) (and (>= X_0 2) (<= X_0 3))))
(assert (<= Y_0 0.5))
"""


def stored(path: Path, content: bytes = TEXT.encode()) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_plain_and_gzipped_files_say_the_same(tmp_path: Path) -> None:
    expected = content(parse_vnnlib(TEXT))
    plain, packed = stored(tmp_path / "a.vnnlib"), stored(tmp_path / "b.vnnlib.gz")
    assert content(read_vnnlib(plain)) == content(read_vnnlib(packed)) == content(read_vnnlib(str(plain))) == expected
    assert content(read_vnnlib(tmp_path / "b.vnnlib")) == expected  # found where .gz is left out
    assert read_vnnlib(plain).source == plain


@pytest.mark.parametrize("prefix", [b"\xef\xbb\xbf", b"; \xe9\xff a comment in another encoding\n", b"\r\n"])
def test_marks_and_comments_of_other_encodings_do_no_harm(prefix: bytes, tmp_path: Path) -> None:
    path = stored(tmp_path / "p.vnnlib", prefix + TEXT.replace("\n", "\r\n").encode())
    assert content(read_vnnlib(path)) == content(parse_vnnlib(TEXT))


def test_files_that_cannot_be_read_are_the_callers_mistake(tmp_path: Path) -> None:
    whole = gzip.compress(TEXT.encode())
    damaged = {
        "cut.vnnlib.gz": whole[:-9],
        "plain.vnnlib.gz": TEXT.encode(),
        "flipped.vnnlib.gz": whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:],
        "utf16.vnnlib": TEXT.encode("utf-16"),
        "empty.vnnlib": b"",
        "pointer.vnnlib": b"version https://git-lfs.github.com/spec/v1\noid sha256:12ab\nsize 7\n",
    }
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
    for name in (*damaged, "missing.vnnlib", "."):
        with pytest.raises(InputError):
            read_vnnlib(tmp_path / name)


def test_long_files_and_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MAX_BYTES", 1000)
    long = TEXT.encode() + b";" * 1000
    for path in (stored(tmp_path / "a.vnnlib", long), stored(tmp_path / "b.vnnlib.gz", long)):
        with pytest.raises(ResourceError, match="1000"):
            read_vnnlib(path)


def problem_files(folder: Path, property_: str) -> tuple[Path, Path]:
    """A network of 1 x 6 x 6 inputs and 3 outputs, and a property on all inputs in [0, 1]."""
    network = to_network(random_cnn(0), (1, 6, 6))
    write_onnx(network, folder / "net.onnx")
    lines = [f"(declare-const X_{i} Real)" for i in range(36)] + [f"(declare-const Y_{i} Real)" for i in range(3)]
    lines += [f"(assert (>= X_{i} 0.1))(assert (<= X_{i} 1))" for i in range(36)]
    path = folder / "prop.vnnlib"
    path.write_text("\n".join([*lines, property_]))
    return folder / "net.onnx", path


def test_a_model_and_a_property_make_problems_of_one_network(tmp_path: Path) -> None:
    net, prop = problem_files(
        tmp_path, "(assert (or (<= X_7 0.25) (>= X_7 0.5)))(assert (or (<= Y_0 Y_1) (<= Y_0 Y_2)))"
    )
    problems = Problem.from_files(net, prop)
    assert len(problems) == 2
    assert problems[0].network is problems[1].network
    first, second = (problem.region for problem in problems)
    assert isinstance(first, Box)
    assert isinstance(second, Box)
    assert first.upper[0, 1, 1] == 0.25
    assert second.lower[0, 1, 1] == 0.5
    assert problems[0].spec.id == Spec.robust(0, 3).id
    x = first.sample(3)
    assert torch.allclose(problems[0].network(x), random_cnn(0)(x), atol=1e-5)
    assert [p.id for p in problems] == [p.id for p in Problem.from_files(str(net), str(prop))]


def test_what_is_left_out_is_warned_of(tmp_path: Path) -> None:
    net, prop = problem_files(tmp_path, "(assert (or (<= X_7 -1) (<= Y_0 Y_1)))")
    with pytest.warns(UserWarning, match=r"prop\.vnnlib: 1 disjunct of 2 left out, being empty"):
        assert len(Problem.from_files(net, prop)) == 1


def test_a_vacuous_property_is_one_vacuous_problem(tmp_path: Path) -> None:
    net, prop = problem_files(tmp_path, "(assert (<= X_7 -1))")
    with pytest.warns(UserWarning, match="there is no counterexample by definition"):
        (problem,) = Problem.from_files(net, prop)
    assert problem.region.empty


def test_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    net, _ = problem_files(tmp_path, "")
    stored(tmp_path / "other.vnnlib")
    with pytest.raises(InputError, match=r"other\.vnnlib speaks of 1 input and 1 output; the network takes 36"):
        Problem.from_files(net, tmp_path / "other.vnnlib")


def test_a_written_problem_comes_back_through_files(tmp_path: Path) -> None:
    network = to_network(random_cnn(1), (1, 6, 6))
    problem = Problem.robustness(network, torch.full((1, 6, 6), 0.5), 1, 0.1)
    write_onnx(network, tmp_path / "net.onnx")
    write_vnnlib(problem, tmp_path / "prop.vnnlib.gz")
    (back,) = Problem.from_files(tmp_path / "net.onnx", tmp_path / "prop.vnnlib")
    assert back.spec.id == problem.spec.id
    assert torch.equal(
        back.region.project(torch.full((1, 1, 6, 6), 9.0)), problem.region.project(torch.full((1, 1, 6, 6), 9.0))
    )


@pytest.mark.slow
def test_the_vocabulary_reads_no_frontend_until_it_is_asked_to() -> None:
    code = """
import sys
from assay import Problem
Problem.from_files
assert not [name for name in sys.modules if name.startswith("assay.verify.frontends")]
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


def test_a_file_cut_within_a_statement_is_refused() -> None:
    cuts = [at for at in range(len(TEXT)) if TEXT.count("(", 0, at) > TEXT.count(")", 0, at)]
    assert len(cuts) > 50
    for at in cuts:
        with pytest.raises(AssayError, match=r"^cut:\d+:\d+: "):
            parse_vnnlib(TEXT[:at], "cut")
