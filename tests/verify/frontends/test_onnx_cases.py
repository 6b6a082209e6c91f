"""Models whose graph hangs on whole numbers among the inputs: every case, and their union."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from assay.attacks.fgsm import FGSM
from assay.verify.backends.ibp import IBP
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Verdict
from assay.verify.frontends.files import read_problems
from assay.verify.frontends.onnx.cases import apart, blocks, read_cases
from assay.verify.solving.falsifier import Falsifier
from tests.verify.frontends.onnx_files import ints, model, numbers

SIZE = 6  # of the image, a row of pixels; behind it stands the place of a patch


def patched(seed: int = 0, besides: bool = False) -> onnx.ModelProto:
    """A dense network of a row of pixels, of which the one at a place is taken out; ``besides``: and of the place."""
    nodes = [
        helper.make_node("Slice", ["x", "zero", "size", "one"], ["image"]),
        helper.make_node("Gather", ["x", "last"], ["at"], axis=1),
        helper.make_node("Cast", ["at"], ["place"], to=onnx.TensorProto.INT64),
        helper.make_node("Reshape", ["place", "flat"], ["begin"]),
        helper.make_node("Add", ["begin", "step"], ["end"]),
        helper.make_node("Slice", ["ones", "begin", "end", "zero"], ["cut"]),
        helper.make_node("Shape", ["cut"], ["length"]),
        helper.make_node("Expand", ["nothing", "length"], ["patch"]),
        helper.make_node("Slice", ["numbers", "begin", "end", "zero"], ["index"]),
        helper.make_node("Unsqueeze", ["index", "one"], ["indices"]),
        helper.make_node("ScatterND", ["ones", "indices", "patch"], ["mask"]),
        helper.make_node("Mul", ["image", "mask"], ["rest"]),
        helper.make_node("Gemm", ["rest", "w", "b"], ["z"]),
        helper.make_node("Relu", ["z"], ["h"]),
        helper.make_node("Gemm", ["h", "v", "c"], ["s"]),
        helper.make_node("Add", ["s", "at"], ["y"]) if besides else helper.make_node("Identity", ["s"], ["y"]),
    ]
    constants = {
        "zero": ints(0),
        "one": ints(1),
        "size": ints(SIZE),
        "last": ints(SIZE),
        "flat": ints(1),
        "step": ints(1),
        "ones": np.ones(SIZE, dtype=np.float32),
        "nothing": np.zeros(1, dtype=np.float32),
        "numbers": np.arange(SIZE, dtype=np.int64),
        "w": numbers(seed, SIZE, 5),
        "b": numbers(seed + 1, 5),
        "v": numbers(seed + 2, 5, 1),
        "c": numbers(seed + 3, 1),
    }
    return model(nodes, [1, SIZE + 1], constants)


def asked(
    folder: Path, low: float, high: float, below: float, eps: float = 0.0, besides: bool = False
) -> list[Problem]:
    """Whether the output may be at most ``below`` with the patch between two places."""
    net, prop = folder / "net.onnx", folder / "prop.vnnlib"
    onnx.save(patched(besides=besides), net)
    pixels = [(0.1 * i - eps, 0.1 * i + eps) for i in range(SIZE)]
    lines = [f"(declare-const X_{i} Real)" for i in range(SIZE + 1)] + ["(declare-const Y_0 Real)"]
    for i, (least, most) in enumerate([*pixels, (low, high)]):
        lines += [f"(assert (>= X_{i} {least:.9f}))", f"(assert (<= X_{i} {most:.9f}))"]
    prop.write_text("\n".join([*lines, f"(assert (<= Y_0 {below:.9f}))"]))
    return read_problems(net, prop)


def sampled(problems: list[Problem], low: float, high: float) -> torch.Tensor:
    """Outputs of the model as it runs, at places between the two ends and at the pixels of the first problem."""
    oracle = problems[0].network.oracle
    assert oracle is not None
    x = problems[0].region.point(torch.full(problems[0].region.shape, 0.5)).repeat(200, 1)
    x[:, SIZE] = torch.linspace(low, high, 200).clamp(low, high)
    return oracle(x.float()).flatten()


def test_blocks_cover_a_grid_once() -> None:
    labels = np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2], [0, 3, 3]])
    seen = np.full(labels.shape, -1)
    for ((first, last), (left, right)), label in blocks(labels):
        assert (seen[first : last + 1, left : right + 1] == -1).all()
        seen[first : last + 1, left : right + 1] = label
    assert (seen == labels).all()
    assert len([*blocks(np.zeros((3, 4), dtype=np.int64))]) == 1


@pytest.mark.filterwarnings("ignore:input")
def test_every_place_is_a_case(tmp_path: Path) -> None:
    """The network at members of each case is what the model gives there, and the cases cover all places."""
    covered = set()
    for problem in asked(tmp_path, -0.5, SIZE - 1.0, 0.0):
        oracle = problem.network.oracle
        assert oracle is not None
        box = problem.region.box()
        low, high = box.lower[SIZE].item(), box.upper[SIZE].item()
        assert -0.5 <= low <= high <= SIZE - 1
        for place in (low, low / 2 + high / 2, float(np.nextafter(high, low))):
            x = torch.lerp(box.lower, box.upper, 0.5).float()
            x[SIZE] = place if int(np.float32(place)) == int(place) else low
            covered.add(int(x[SIZE].item()))
            torch.testing.assert_close(problem.network(x[None]), oracle(x[None]), rtol=1e-5, atol=1e-5)
    assert covered == set(range(SIZE))


@pytest.mark.filterwarnings("ignore:input")
def test_a_place_just_below_a_whole_number_is_that_number_where_the_model_runs(tmp_path: Path) -> None:
    run, stated = asked(tmp_path, 0.999999999, 0.999999999, 0.0)
    assert run.region.box().lower[SIZE] == run.region.box().upper[SIZE] == 1.0
    assert stated.region.box().lower[SIZE] < 1.0
    oracle = run.network.oracle
    assert oracle is not None
    x = run.region.point(torch.full(run.region.shape, 0.5))
    torch.testing.assert_close(run.network(x[None]).float(), oracle(x[None].float()), rtol=1e-5, atol=1e-5)
    assert not torch.equal(run.region.box().lower[SIZE + 1 :], stated.region.box().lower[SIZE + 1 :])


@pytest.mark.filterwarnings("ignore:input")
def test_the_union_is_decided_as_the_model_decides(tmp_path: Path) -> None:
    """Verified just below the least output of all places, falsified just above it."""
    low, high = 0.0, SIZE - 1.0
    least = sampled(asked(tmp_path, low, high, 0.0), low, high).min().item()
    verified = IBP().verify_many(asked(tmp_path, low, high, least - 1e-3))
    assert {result.verdict for result in verified} == {Verdict.VERIFIED}
    problems = asked(tmp_path, low, high, least + 1e-3)
    falsified = [r for r in Falsifier(FGSM()).verify_many(problems) if r.verdict is Verdict.FALSIFIED]
    assert falsified
    for result in falsified:
        oracle = problems[0].network.oracle
        assert result.counterexample is not None
        assert oracle is not None
        assert oracle(result.counterexample[None]).item() <= least + 1e-3


@pytest.mark.filterwarnings("ignore:input")
def test_pixels_that_change_are_bounded_in_each_case(tmp_path: Path) -> None:
    problems = asked(tmp_path, 1.0, 3.0, 0.0, eps=0.05)
    generator = torch.Generator().manual_seed(5)
    for problem in problems:
        oracle = problem.network.oracle
        assert oracle is not None
        bounds = IBP().bound(problem.network, problem.region, torch.ones(1, 1, dtype=torch.float64))
        y = oracle(problem.region.point(torch.rand(50, *problem.region.shape, generator=generator)).float()).double()
        assert (bounds.lower - 1e-5 <= y).all()
        assert (y <= bounds.upper + 1e-5).all()


def test_places_that_are_read_besides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="reads them besides"):
        asked(tmp_path, 0.0, 3.0, 0.0, besides=True)


def test_models_without_such_numbers_have_no_cases(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"])]
    onnx.save(model(nodes, [1, 3], {"w": numbers(1, 3, 2)}), tmp_path / "net.onnx")
    assert read_cases(tmp_path / "net.onnx") is None


def test_values_that_float32_does_not_hold_are_taken_where_the_model_runs_and_as_they_are() -> None:
    lower = torch.tensor([0.5, 0.1, 0.0], dtype=torch.float64)
    box = Box(lower, torch.tensor([0.5, 0.1, 1.0], dtype=torch.float64))
    run, stated = apart(box, torch.float32)
    assert run.lower[1] == run.upper[1] == float(np.float32(0.1))
    assert stated.lower[1] <= 0.1 <= stated.upper[1]
    assert not stated.has_members(torch.float32)
    assert not (stated.moved(torch.float32) | run.moved(torch.float32)).any()
    for part in (run, stated):
        assert part.lower[[0, 2]].tolist() == [0.5, 0.0]
        assert part.upper[[0, 2]].tolist() == [0.5, 1.0]
    assert len(apart(Box(torch.zeros(2), torch.ones(2)), torch.float32)) == 1
