"""The checker of certificates: what it accepts is true, and what is false it rejects, whatever it is told."""

from __future__ import annotations

import io
import json
import re
import runpy
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assay.benchmarks.measure.proofs import TAMPERS, mutants, told_of
from assay.verify.backends.bab.inputs.input_split import InputSplit
from assay.verify.backends.bab.neurons.bab import BaB
from assay.verify.backends.bab.neurons.compact import unsplit
from assay.verify.check import bounds, checker, question
from assay.verify.check.certificate import Certificate, packed, save_checkers
from assay.verify.check.question import Rejected
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import chain, to_network
from assay.verify.core.ops import Linear, Relu
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Reason, Verdict
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.registry import get_verifier
from assay.verify.solving import parts, proofs
from assay.verify.solving.halved import halved
from assay.verify.solving.parts import Files, Part
from tests import nets
from tests.breadth import few, seeds
from tests.verify.check.test_forged import model
from tests.verify.programs.cases import case

LEAVES = BaB(neurons=0, steps=1, below=0, leaves=0, proof=True)  # many leaves
NODES = BaB(neurons=100, passes=1, first=1, below=1, together=3, steps=1, leaves=0, tried=1, proof=True)  # many nodes
FINER = BaB(first=0, leaves=6, proof=True)  # bounds by trees of their own


@cache
def proved(kind: str, seed: int, method: BaB) -> tuple[Problem, float, Certificate] | None:
    """A verified problem, its true margin, and the certificate of its trees."""
    problem, margin = case(kind, seed)
    if unsplit(problem.network):
        return None
    result = method.verify(problem)
    if result.verdict is not Verdict.VERIFIED:
        return None
    files = Files.of_problem(problem)
    assert result.certificate is not None
    part = parts.of_record(files, 0, problem.spec, result.certificate)
    assert part is not None
    return problem, margin, files.certificate("tree", "real", [part])


def all_proved(kinds: tuple[str, ...], numbers: range, method: BaB) -> list[tuple[Problem, float, Certificate]]:
    found = [proved(kind, seed, method) for kind in kinds for seed in numbers]
    return [each for each in found if each is not None]


@seeds(6, 14)
@pytest.mark.parametrize("method", [LEAVES, NODES, FINER], ids=["leaves", "nodes", "finer"])
@pytest.mark.parametrize("kind", ["mlp", "conv", "residual", "leaky"])
def test_trees_are_accepted_and_what_they_prove_is_true(kind: str, method: BaB, seeds: range) -> None:
    some = all_proved((kind,), seeds, method)
    assert some
    for _, margin, certificate in some:
        assert margin > 0
        assert certificate.check()["claim"] == "unsat"


def test_there_are_trees_of_many_leaves_and_tightened_nodes() -> None:
    some = all_proved(("mlp",), range(12), NODES)
    assert max(certificate.check()["leaves"] for _, _, certificate in some) > 3
    assert any(len(opened(certificate)[1]["0/tighter/at"]) for _, _, certificate in some)
    assert any((opened(certificate)[1]["0/tree"] == -2).any() for _, _, certificate in some)


def test_there_are_bounds_by_trees_that_are_split() -> None:
    some = all_proved(("mlp", "residual"), range(12), FINER)
    arrays = [opened(certificate)[1] for _, _, certificate in some]
    assert any((part.get("0/finer/tree", np.full(1, -1)) >= 0).any() for part in arrays)


def test_bounds_by_trees_are_no_better_than_their_leaves() -> None:
    """Some of them all alone, by points."""
    checked = 0
    for number, (problem, _, certificate) in enumerate(all_proved(("mlp",), range(24), FINER)):
        claims, arrays = opened(certificate)
        mine = {name.partition("/")[2]: array for name, array in arrays.items()}
        if "finer/tree" not in mine:
            continue
        network, boxes = question.question(certificate.model, certificate.prop)
        rows, sets = question.numbered(boxes[0][-1])
        bounds = [[v] for v in boxes[0][2:4]]
        net = checker.Bounder(network, rows, *bounds, "real", mine["listed"], claims["parts"][0]["layers"], mine)
        trees = checker.Trees(net, mine, sets)
        trees.finer()
        u = torch.rand(500, *problem.network.input_shape, dtype=torch.float64, generator=nets.generator(number))
        box = problem.region.box()
        values = problem.network.values(torch.lerp(box.lower, box.upper, u))
        at = [values[n.inputs[0]].flatten(1) for n in problem.network.nodes if isinstance(n.op, Relu)]
        z = torch.cat(at, 1)[:, mine["listed"]].numpy()
        _, low, high = trees.root
        assert (low <= z.min(0)).all()
        assert (z.max(0) <= high).all()
        checked += int((low > trees.net.lower[trees.spots, 0]).sum() + (high < trees.net.upper[trees.spots, 0]).sum())
    assert checked > 0


@pytest.mark.slow
def test_a_proof_that_takes_too_much_memory_is_given_up_and_the_verdict_stands() -> None:
    problem, _ = case("mlp", 5)
    results = [LEAVES.verify(problem, Budget(memory=memory)) for memory in (1 << 30, 4000)]
    assert [result.verdict for result in results] == [Verdict.VERIFIED] * 2
    assert [result.certificate is None for result in results] == [False, True]


@seeds(4, 30)
@pytest.mark.parametrize("method", [LEAVES, NODES, FINER], ids=["leaves", "nodes", "finer"])
def test_rational_arithmetic_agrees(method: BaB, seeds: range) -> None:
    for _, _, certificate in all_proved(("mlp", "leaky"), seeds, method):
        assert certificate.check() == certificate.check(exact=True)


def test_lines_are_those_of_the_hints_wherever_the_bounds_lie() -> None:
    """Of a neuron that bounds show to be active, too: that of a flatter line makes use of its being so."""
    rng = np.random.default_rng(0)
    low, width, slopes = rng.uniform(-1, 1, 500), rng.random(500), rng.uniform(-0.5, 1.5, 500)
    z = low + width * np.linspace(0, 1, 20)[:, None]
    for told in (slopes, None):
        line, chord, top = bounds.lines(low, low + width, told, checker.Floats())
        assert (line * z <= np.maximum(z, 0) + 1e-15).all()
        assert (np.maximum(z, 0) <= chord * z + top + 1e-15).all()
        assert (chord * z + top <= np.maximum(z, 0) + np.maximum(0, np.minimum(-low, low + width)) + 1e-15).all()
        assert (line == (np.clip(slopes, 0, 1) if told is not None else (2 * low + width > 0))).all()


def test_rounding_of_sums_is_charged_in_full() -> None:
    for arithmetic in (checker.Floats(), checker.Rationals()):
        for n, unit in ((1, 2.0**-53), (1000, 2.0**-53), (1000, 2.0**-24), (10**14, 2.0**-53)):
            share = n * Fraction(unit)
            charge = Fraction(arithmetic.gamma(n, unit))
            assert abs(charge / (share / (1 - share)) - 1) <= Fraction(2) ** -50
    assert checker.Floats().gamma(10**16) == np.inf


@pytest.mark.parametrize("seed", range(3))
def test_coefficients_go_back_as_values_go_forward(seed: int) -> None:
    """``a @ push(x)`` is ``pull(a) @ x``, and magnitudes are those of the terms."""
    rng = np.random.default_rng(seed)
    how = [([1, 2], [1, 0, 2, 1], [1, 1]), ([2, 1], [0, 1, 0, 0], [2, 1]), ([1, 1], [0, 0, 0, 0], [1, 2])][seed]
    attributes = dict(zip(("strides", "pads", "dilations"), how, strict=True), group=2)
    nodes: list[Any] = [
        ("Conv", ["x", "w"], "c", attributes),
        ("Mul", ["c", "s"], "d", {}),
        ("Sub", ["c", "d"], "e", {}),
        ("Flatten", ["e"], "y", {}),
    ]
    ends = {"w": rng.normal(size=(6, 2, 2, 3)), "s": rng.normal(size=(1, 6, 1, 1))}
    network = question.Network(model(nodes, ends, (1, 4, 5, 5)))
    assert len(network.layers) == 3
    for layer in network.layers:
        x, a = rng.normal(size=(network.size, 3)), rng.normal(size=(layer.out.size, 2))
        x[0], onto = 0, np.zeros((network.size, 2))
        layer.pull(a, onto)
        assert np.allclose(a.T @ layer.push(x), onto.T @ x)
        all_ = np.eye(network.size)
        all_[0] = 0
        assert np.allclose(layer.push(np.abs(x), size=True), np.abs(layer.push(all_)) @ np.abs(x))


def opened(certificate: Certificate) -> tuple[dict[str, Any], dict[str, Any]]:
    claims, arrays = question.opened(certificate.content)
    return claims, arrays


@pytest.mark.parametrize("name", list(TAMPERS))
def test_mutants_are_rejected_in_words_if_they_are(name: str) -> None:
    method = FINER if name.startswith(("finer", "trimmed")) else NODES
    for number, (_, _, certificate) in enumerate(all_proved(("mlp",), range(8), method)[:3]):
        for mutant in mutants(certificate, TAMPERS[name], 6, number):
            with suppress(Rejected):
                assert mutant.check()["claim"] == "unsat"


@pytest.mark.parametrize("name", list(TAMPERS))
def test_no_certificate_proves_a_false_property(name: str) -> None:
    """The trees of a true property, told of one that is false by a little: the same sizes all through."""
    method = FINER if name.startswith(("finer", "trimmed")) else NODES
    for number, (problem, margin, certificate) in enumerate(all_proved(("mlp",), range(8), method)[:3]):
        false = Spec(tuple(replace(d, b=d.b + margin + 1e-6) for d in problem.spec.disjuncts))
        files = Files.of_problem(problem.with_parts(spec=false))
        told = told_of(certificate, files)
        for mutant in [told, *mutants(told, TAMPERS[name], 6, number)]:
            with pytest.raises(Rejected):
                mutant.check()


def test_damaged_bytes_are_rejected_or_true() -> None:
    ((_, _, certificate), *_) = all_proved(("mlp",), range(8), NODES)
    rng = np.random.default_rng(0)
    for _ in range(40):
        content = bytearray(certificate.content)
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        damaged = bytes(content[: rng.integers(len(content))] if rng.random() < 0.3 else content)
        with suppress(Rejected):
            assert replace(certificate, content=damaged).check() == certificate.check()


def test_no_more_is_unpacked_than_is_told() -> None:
    """A member of a million numbers that says that it has ten bytes."""
    content = bytearray(packed({}, {"x": np.zeros(1 << 20)}))
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as file:
        *_, last = file.infolist()
        assert last.compress_type == zipfile.ZIP_BZIP2
        assert question.member(file, last) == file.read(last)
    told, false = struct.pack("<I", last.file_size), struct.pack("<I", 10)
    assert content.count(told) >= 2  # beside the member, and in the list of all
    lying = bytes(content.replace(told, false))
    with pytest.raises(Rejected, match="another size than is told"):
        question.opened(lying)
    small = bytearray(packed({}, {"x": np.zeros(100)}))  # which is packed otherwise
    lying = bytes(small.replace(struct.pack("<I", 128 + 800), false))
    with pytest.raises((Rejected, ValueError, zipfile.BadZipFile)):
        question.opened(lying)
    foreign = io.BytesIO()
    with zipfile.ZipFile(foreign, "w") as file:
        file.writestr("cert.json", "{}", zipfile.ZIP_LZMA)
    with pytest.raises(Rejected, match="a foreign packing"):
        question.opened(foreign.getvalue())


def test_other_files_are_refused() -> None:
    ((_, _, one), (_, _, other), *_) = all_proved(("mlp",), range(12), LEAVES)
    for swapped in (
        replace(one, model=other.model),
        replace(one, prop=other.prop),
        replace(one, prop=one.prop + b"\n"),
    ):
        with pytest.raises(Rejected, match="speaks of another"):
            swapped.check()


@pytest.mark.parametrize("semantics", ["real", "float32-any-order"])
@pytest.mark.parametrize("name", sorted(nets.TRAPS))
def test_traps_of_floating_point(name: str, semantics: str) -> None:
    """True of N3 in the reals alone, false of all others."""
    problem = nets.trap_problem(name)
    files = Files.of_problem(problem)
    result = BaB(proof=True).verify(problem)
    some = [proofs.plain(files, 0, semantics)]
    if result.certificate is not None:
        some.append(parts.of_record(files, 0, problem.spec, result.certificate))
    accepted = 0
    for part in some:
        if part is not None:
            try:
                accepted += files.certificate("tree", semantics, [part]).check()["claim"] == "unsat"
            except Rejected:
                continue
    assert bool(accepted) == (name == "N3" and semantics == "real")


@pytest.mark.parametrize("seed", few(range(12), (0, 1)))
@pytest.mark.parametrize("make", [nets.random_mlp, nets.random_cnn, nets.random_resnet])
def test_bounds_hold_at_points_that_float32_runs(make: Callable[[int], torch.nn.Module], seed: int) -> None:
    module = make(seed)
    shape = (4,) if make is nets.random_mlp else ((1, 6, 6) if make is nets.random_cnn else (1, 4, 4))
    network = to_network(module, shape)
    files = Files.of_problem(Problem(network, Box(torch.zeros(shape), torch.ones(shape) * 0.3), Spec.robust(0, 3)))
    low, high, unsafe = files.parts[0]
    rows, _ = question.numbered(unsafe)
    x = torch.rand(500, *shape, generator=nets.generator(seed)) * 0.3
    real, single = (("real", network(x.double())), ("float32-any-order", module(x).double()))
    for (semantics, y), name in ((real, None), (real, bounds.SIGNS), (single, None), (single, bounds.SIGNS)):
        layers = [[name]] * len(files.relus)
        net = checker.Bounder(files.network, rows, [low], [high], semantics, layers=layers)
        seen = np.stack(
            [
                (y.flatten(1)[:, list(terms)].numpy() @ np.array(list(map(float, terms.values()))))
                for terms, _, _ in rows
            ],
            1,
        )
        least = net.alone()[0]
        slack = 1e-12 if semantics == "real" else 0.0
        assert (least <= seen.min(0) + slack).all()
        assert (net.lower[net.unsafe, 0] <= seen.min(0) + slack).all()
        assert (net.upper[net.unsafe, 0] >= seen.max(0) - slack).all()


@pytest.mark.parametrize("make", [nets.random_mlp, nets.random_cnn, nets.random_resnet])
def test_signs_are_told_by_fewer_rows_where_both_sides_tell_them(
    make: Callable[[int], torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All bounds hold at points, whether rows end early or not; a sign that both sides tell is told by one."""
    shape = (4,) if make is nets.random_mlp else ((1, 6, 6) if make is nets.random_cnn else (1, 4, 4))
    network = to_network(make(1), shape)
    files = Files.of_problem(Problem(network, Box(torch.zeros(shape), torch.ones(shape) * 0.3), Spec.robust(0, 3)))
    low, high, unsafe = files.parts[0]
    rows, walked = question.numbered(unsafe)[0], []
    least_of = checker.Bounder.least_of

    def counted(self: Any, at: Any, start: Any, *more: Any) -> Any:
        walked.append(start.shape[1])
        return least_of(self, at, start, *more)

    monkeypatch.setattr(checker.Bounder, "least_of", counted)
    found, counts = [], []
    for layers in ([], [[None]] * len(files.relus), [[bounds.SIGNS]] * len(files.relus)):
        walked.clear()
        found.append(checker.Bounder(files.network, rows, [low], [high], layers=layers))
        counts.append(sum(walked))
    u = nets.generator(0)
    x = [np.array(low) + np.array(high) * torch.rand(len(low), generator=u, dtype=torch.float64).numpy() for _ in "ab"]
    flat = checker.Bounder(files.network, rows, np.minimum(x, high), np.minimum(x, high))
    for net in found:
        assert (net.lower <= flat.upper).all()
        assert (net.upper >= flat.lower).all()
    open_ = [(net.lower[:, 0] < 0) & (net.upper[:, 0] > 0) for net in found]
    assert (open_[2] <= open_[0]).all()
    assert counts[0] == 0
    relus = np.concatenate([layer.into for layer in files.network.layers if layer.weight is None])
    assert open_[2][relus].sum() <= open_[1][relus].sum() + 1
    assert counts[2] <= 1.2 * counts[1]


def test_a_row_may_end_at_any_relu() -> None:
    """Earlier bounds are weaker here, and all of them hold."""
    network = to_network(nets.random_cnn(3), (1, 6, 6))
    box = Box(torch.zeros(1, 6, 6), torch.ones(1, 6, 6) * 0.3)
    files = Files.of_problem(Problem(network, box, Spec.robust(0, 3)))
    low, high, unsafe = files.parts[0]
    net = checker.Bounder(files.network, question.numbered(unsafe)[0], [low], [high], layers=[[None]] * 9)
    start = np.eye(net.unsafe.size)
    bound = [net.least_of(net.unsafe, start, None, None, None, depth) for depth in (0, 1, 2, np.inf)]
    assert (bound[0] <= bound[1] + 1e-9).all()
    assert (bound[1] < bound[3]).all()
    y = network(0.3 * torch.rand(400, 1, 6, 6, generator=nets.generator(3), dtype=torch.float64)).flatten(1).numpy()
    rows = [[float(terms.get(i, 0)) for i in range(y.shape[1])] for terms, _, _ in question.numbered(unsafe)[0]]
    assert all((some <= (y @ np.array(rows).T).min(0)).all() for some in bound)


def test_counterexamples_are_replayed() -> None:
    problem = nets.trap_problem("N6", B=4.0)
    files = Files.of_problem(problem)
    assert parts.counterexample(files, [1.0]).check()["claim"] == "sat"
    for point in ([0.5], [1.5], [1.0, 0.0], [float("nan")]):
        with pytest.raises(Rejected):
            parts.counterexample(files, point).check()


def test_what_cannot_be_written_is_named_and_not_what_is_copied(tmp_path: Path) -> None:
    (tmp_path / "checker.py").mkdir()
    with pytest.raises(InputError, match=f"cannot write {re.escape(str(tmp_path))}"):
        save_checkers(tmp_path)


def test_it_runs_alone(tmp_path: Path) -> None:
    ((_, _, certificate), *_) = all_proved(("mlp",), range(8), NODES)
    certificate.save_with_files(tmp_path)
    save_checkers(tmp_path, certificate.checkers)
    assert not (tmp_path / "norms.py").exists()
    files = ["checker.py", "certificate.zip", "model.onnx", "property.vnnlib"]

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", *files]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    accepted = run()
    assert accepted.returncode == 0
    first, *asked = accepted.stdout.splitlines()
    assert json.loads(first.removeprefix("accepted: "))["claim"] == "unsat"
    _, parts = question.question(certificate.model, certificate.prop)
    assert asked == ["what was asked:", *question.stated([(*part[:2], part[-1]) for part in parts])]
    (tmp_path / "property.vnnlib").write_bytes(b"")
    assert run().returncode == 1
    assert run().stdout.startswith("rejected: ")


def test_without_onnx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SystemExit, match="pip install numpy onnx"):
        runpy.run_path(checker.__file__, run_name="__main__")


def test_arrays_are_plain() -> None:
    ((_, _, certificate), *_) = all_proved(("mlp",), range(8), NODES)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(certificate.content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            data = io.BytesIO()
            np.save(data, np.array([{"a": 1}], dtype=object), allow_pickle=True)
            new.writestr(name, data.getvalue() if name == "0/tree.npy" else old.read(name))
    with pytest.raises(Rejected, match="allow_pickle"):
        replace(certificate, content=buffer.getvalue()).check()


@cache
def boxes(seed: int) -> tuple[Problem, float, Files, Part] | None:
    """A verified problem, its true margin, and the tree of boxes that a search has recorded."""
    problem, margin = case("mlp", seed)
    record = InputSplit(batch=4, fill=0, proof=True).verify(problem).certificate
    if record is None:
        return None
    files = Files.of_problem(problem)
    part = parts.of_boxes(files, 0, problem.spec, record)
    assert part is not None
    return problem, margin, files, part


def trees_of_boxes() -> list[tuple[Problem, float, Files, Part]]:
    return [tree for seed in range(12) if (tree := boxes(seed)) is not None]


def test_boxes_that_a_search_has_halved_are_proved_by_their_recorded_slopes() -> None:
    trees = trees_of_boxes()
    assert any(len(part.arrays["slopes"]) for _, _, _, part in trees)
    assert any(len(part.arrays["boxes"]) > 8 for _, _, _, part in trees)
    for _, _, files, part in trees:
        certificate = files.certificate("tree", "real", [part])
        leaves = int((part.arrays["boxes"] < 0).sum())
        assert certificate.check()["leaves"] == leaves
        if leaves < 4:
            assert certificate.check(exact=True) == certificate.check()


def test_boxes_that_no_row_proves_alone_are_proved_as_they_are_recorded() -> None:
    """Outputs x and -x are not both at most -0.1, and each of them may be."""
    first = Linear(torch.ones(1, 1), torch.tensor([2.0]))
    last = Linear(torch.tensor([[1.0], [-1.0]]), torch.tensor([-2.0, 2.0]))
    both = Polyhedron(torch.eye(2), torch.full((2,), -0.1), torch.zeros(2, dtype=torch.bool))
    box = Box(torch.full((1,), -1.0), torch.full((1,), 1.0))
    problem = Problem(chain((1,), [first, Relu(), last]), box, Spec((both,)))
    result = InputSplit(proof=True).verify(problem)
    files = Files.of_problem(problem)
    part = parts.of_search(files, 0, problem.spec, result.certificate)
    assert part is not None
    assert files.certificate("tree", "real", [part]).check()["leaves"] == 1


def test_boxes_that_are_not_proved_are_told_and_halved_until_they_are() -> None:
    for _, _, files, part in trees_of_boxes():
        if len(part.arrays["boxes"]) == 1:
            continue
        sets = part.arrays["hints"].shape[1]
        root = {"boxes": np.full(1, -1, np.int32), "hints": np.full((1, sets), -1, np.int32)}
        whole = replace(part, arrays=part.arrays | root)
        with pytest.raises(Rejected, match="not proved") as why:
            files.certificate("tree", "real", [whole]).check()
        assert why.value.left == (0, [0])
        mended = halved(files, 0, whole, [0])
        assert files.certificate("tree", "real", [mended]).check()["leaves"] > 1


def test_no_tree_of_boxes_proves_a_false_property() -> None:
    for problem, margin, files, part in trees_of_boxes():
        false = Spec(tuple(replace(d, b=d.b + margin + 1e-6) for d in problem.spec.disjuncts))
        told = Files.of_problem(problem.with_parts(spec=false))
        arrays = part.arrays
        cut = [arrays["boxes"][:-1], np.array([-1]), np.repeat(-1, 3), np.array([99, -1, -1]), np.zeros(0, np.int64)]
        for tree in (arrays["boxes"], *cut):
            with pytest.raises(Rejected):
                told.certificate("tree", "real", [replace(part, arrays=arrays | {"boxes": tree})]).check()
        for name, value in (("hints", 0), ("hints", 10**6), ("weights", -1), ("weights", np.nan), ("slopes", 0)):
            wrong = replace(part, arrays=arrays | {name: np.full_like(arrays[name], value)})
            with pytest.raises(Rejected):
                told.certificate("tree", "real", [wrong]).check()
        for hints in (arrays["hints"][:0], arrays["hints"][:-1], arrays["hints"][:, :0]):
            for some in (told, files):
                with pytest.raises(Rejected, match="hints"):
                    some.certificate("tree", "real", [replace(part, arrays=arrays | {"hints": hints})]).check()
        if len(arrays["boxes"]) > 1:
            for tree in (arrays["boxes"][:-1], arrays["boxes"][1:], np.zeros(0, np.int64)):
                with pytest.raises(Rejected):
                    files.certificate("tree", "real", [replace(part, arrays=arrays | {"boxes": tree})]).check()


def test_results_of_any_method_are_certified() -> None:
    problem, _ = case("mlp", 4)
    for method in ("ibp", "crown", "alpha-crown", "lp-bab", "bab", "bab(proof=true)", "input-split(proof=true)"):
        result = get_verifier(method).verify(problem)
        if result.verdict is Verdict.VERIFIED:
            assert proofs.certify(problem, result).check()["claim"] == "unsat"
    with pytest.raises(UnsupportedError, match="no certificate"):
        proofs.certify(problem, replace(result, verdict=Verdict.UNKNOWN, reason=Reason.INCOMPLETE))
    wide = problem.with_parts(spec=Spec.halfspaces([[0.0] * problem.network.output_size], [1.0]))
    with pytest.raises(UnsupportedError, match="no certificate"):
        proofs.certify(wide, result, Budget(0.1))


@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_trees_are_told_of_their_own_unsafe_sets(scale: float) -> None:
    """However small the rows, and however near two thresholds are."""
    network = to_network(nets.random_mlp(4, (2, 4, 2)), (2,))
    A = scale * torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    b = scale * torch.tensor([-50.0, -50 - 1e-8, -50.0, -50.0], dtype=torch.float64)
    strict = torch.zeros(1, dtype=torch.bool)
    spec = Spec(tuple(Polyhedron(row[None], value[None], strict) for row, value in zip(A, b, strict=True)))
    files = Files.of_problem(Problem(network, Box(torch.zeros(2), torch.ones(2)), spec))
    assert parts.order_of(files, files.parts[0][2], spec) == [0, 1, 2, 3]
    assert parts.order_of(files, files.parts[0][2], Spec(spec.disjuncts[:3])) is None
