"""Certificates of Lipschitz constants and quadratic forms, and those of balls: what is accepted is true."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assay.verify.check import checker, norms, question
from assay.verify.check.certificate import Certificate, save_checkers
from assay.verify.check.norms import Ball
from assay.verify.check.question import Rejected
from assay.verify.core.network import Network, to_network
from assay.verify.core.problem import Problem
from assay.verify.core.result import Verdict
from assay.verify.registry import get_verifier
from assay.verify.solving import parts, proofs
from assay.verify.solving.parts import Files
from tests import nets
from tests.breadth import few
from tests.verify.check.test_forged import model, prop

# By seed and norm: balls on which a program has to be solved, since linear bounds do not do.
SOLVED = {(3, 2.0): 0.1174, (3, inf): 0.0744, (1, inf): 0.3142, (5, 2.0): 1.0297, (5, inf): 0.8357}
METHODS = ("lipschitz", "lipsdp(proof=true)", "sdp(proof=true)")


def net(seed: int) -> torch.nn.Module:
    """Fully connected, or with a LeakyReLU, or convolutional."""
    if seed % 3 == 2:
        return nets.random_cnn(seed, (1, 3, 3), (2, 2))
    module = nets.random_mlp(seed, (3, 6, 4, 3))
    if seed % 3 == 1:
        module[3] = torch.nn.LeakyReLU(0.25)  # type: ignore[operator]
    return module.eval()


@cache
def network(seed: int) -> Network:
    return to_network(net(seed), (1, 3, 3) if seed % 3 == 2 else (3,))


def problem(seed: int, eps: float, norm: float, rank: int = 0) -> Problem:
    """Of the label that the network gives, or one that it ranks lower."""
    x = torch.rand(network(seed).input_shape, generator=nets.generator(seed)) * 0.5 + 0.25
    label = int(network(seed)(x[None])[0].argsort(descending=True)[rank])
    return Problem.robustness(network(seed), x, label, eps, norm, None)


@cache
def certificate(method: str, seed: int, norm: float) -> tuple[Problem, Certificate, float]:
    """Of the largest ball that the method verifies, among some; of one that linear bounds do not verify, of ``sdp``."""
    sizes = 0.6 * 0.7 ** np.arange(20)
    if method.startswith("sdp"):
        seed = seed if (seed, norm) in SOLVED else 3
        sizes = np.array([SOLVED[seed, norm]])
    for eps in map(float, sizes):
        posed = problem(seed, eps, norm)
        result = get_verifier(method).verify(posed)
        if result.verdict is Verdict.VERIFIED:
            return posed, proofs.certify(posed, result), eps
    raise AssertionError("nothing is verified")


def kind(told: Certificate) -> str:
    return str(question.opened(told.content)[0]["kind"])


@pytest.mark.parametrize("seed", few(range(12), (0, 1, 2)))
@pytest.mark.parametrize("norm", [2.0, inf])
@pytest.mark.parametrize("method", METHODS)
def test_what_methods_verify_is_proved_by_what_they_recorded(method: str, norm: float, seed: int) -> None:
    _, told, _ = certificate(method, seed, norm)
    assert told.check()["claim"] == "unsat"
    assert kind(told) == method.partition("(")[0]


def rewritten(told: Certificate, files: Files, claims: dict[str, Any], arrays: dict[str, Any]) -> Certificate:
    """The certificate with other claims and arrays, told of other files."""
    old, tables = question.opened(told.content)
    kept = {key: value for key, value in old.items() if key not in ("format", "model", "property")}
    mine = [
        {**part, "lower": [v.hex() for v in low], "upper": [v.hex() for v in high]}
        for part, (low, high, _) in zip(kept["parts"], files.parts, strict=True)
    ]
    return Certificate.of({**kept, "parts": mine, **claims}, {**tables, **arrays}, files.model, files.prop)


def false_files(posed: Problem) -> Files:
    """A property that a sampled point contradicts, of the same form: a rival's row is moved by what it wins by."""
    rows = posed.spec.rows(posed.network(posed.region.sample(50, nets.generator(0)).double()).flatten(1))
    moved = type(posed.spec)(
        tuple(type(d)(d.A, d.b + float(rows[:, i].min()) + 1e-9, d.strict) for i, d in enumerate(posed.spec.disjuncts))
    )
    return Files.of_problem(posed.with_parts(spec=moved))


@pytest.mark.parametrize("method", METHODS)
def test_no_hint_proves_a_false_property(method: str) -> None:
    posed, told, _ = certificate(method, 0, inf)
    files, (_, tables) = false_files(posed), question.opened(told.content)
    values = (0.0, -1.0, 1e-300, 1e300, inf, -inf, np.nan)
    mutants = [{}] + [{name: np.full_like(table, v)} for name, table in tables.items() for v in values]
    mutants += [{name: table * f} for name, table in tables.items() for f in (-1.0, 0.5, 2.0, 1e6)]
    mutants += [{name: table[:, :0]} for name, table in tables.items()]
    mutants += [{name: table[:0]} for name, table in tables.items()]
    mutants += [{name: table[:1] for name, table in tables.items()}]
    mutants += [
        {name: np.clip(table * 1000, 0, 200).astype(t) for name, table in tables.items()}
        for t in (np.uint8, np.int16, np.float16)
    ]
    for arrays in mutants:
        with pytest.raises(Rejected):
            rewritten(told, files, {}, arrays).check()
    for other in {"lipschitz", "lipsdp", "sdp", "tree", "smoothing"}:
        with pytest.raises(Rejected):
            rewritten(told, files, {"kind": other}, {}).check()


@pytest.mark.parametrize("method", [method for method in METHODS if "sdp" in method])
def test_every_row_has_multipliers_of_its_own(method: str) -> None:
    posed, told, _ = certificate(method, 0, 2.0)
    tables = question.opened(told.content)[1]
    first = {name: table[:1] for name, table in tables.items()}
    assert all(len(table) > 1 for table in tables.values())
    with pytest.raises(Rejected):
        rewritten(told, Files.of_problem(posed, True), {}, first).check()


def test_tables_of_small_numbers_are_summed_as_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    posed, told, _ = certificate("lipschitz", 0, 2.0)
    kept: list[dict[str, Any]] = []

    def noted(nodes: Any, rows: Any, low: Any, high: Any, ball: Any, arrays: dict[str, Any]) -> Any:
        kept.append(arrays)
        return np.ones(len(rows))

    monkeypatch.setitem(norms.MARGINS, "lipschitz", noted)
    small = {name: table.astype(np.float16) for name, table in question.opened(told.content)[1].items()}
    rewritten(told, Files.of_problem(posed, True), {}, small).check()
    assert all(table.dtype == np.float64 for table in kept[0].values())


@pytest.mark.parametrize("method", METHODS)
def test_a_certificate_is_of_its_own_radius_norm_and_centre(method: str) -> None:
    posed, told, eps = certificate(method, 0, 2.0)
    prop = told.prop.replace(float(eps).hex().encode(), float(1.5 * eps).hex().encode())
    assert prop != told.prop
    for other in (prop, told.prop.replace(b'"norm": "2.0"', b'"norm": "1.0"')):
        with pytest.raises(Rejected, match="another property"):
            Certificate(told.content, told.model, other).check()
    for norm in ("0.5", "nan", "3.0"):
        wrong = told.prop.replace(b'"norm": "2.0"', f'"norm": "{norm}"'.encode())
        with pytest.raises(Rejected, match="ball"):
            Files.of(told.model, wrong)
    for radius in ("-0x1.0p-3", "nan", "inf"):
        wrong = told.prop.replace(float(eps).hex().encode(), radius.encode())
        with pytest.raises(Rejected, match="ball"):
            Files.of(told.model, wrong)
    larger = Files.of_problem(replace(posed, region=replace(posed.region, eps=40 * eps)))
    with pytest.raises(Rejected):
        rewritten(told, larger, {}, {}).check()
    with pytest.raises(Rejected):
        rewritten(told, Files.of_problem(posed), {"semantics": "float32-any-order"}, {}).check()


@pytest.mark.parametrize("seed", few(range(9), (0, 1, 2)))
@pytest.mark.parametrize("norm", [1.0, 2.0, inf])
def test_constants_hold_between_sampled_points(norm: float, seed: int) -> None:
    posed = problem(seed, 0.2, norm)
    files = Files.of_problem(posed)
    rows, _ = question.numbered(files.parts[0][2])
    x = posed.region.sample(200, nets.generator(seed)).double()
    y = posed.spec.rows(posed.network(x).flatten(1))
    apart = torch.linalg.vector_norm((x[:100] - x[100:]).flatten(1), norm, dim=1)
    steep = ((y[:100] - y[100:]).abs() / apart[:, None]).amax(0).numpy()
    low, high, _ = files.parts[0]
    unsafe = checker.Bounder(files.network, rows, [low], [high]).layers[-1].weight[0, 0]
    found = norms.steepest(files.network, unsafe, norm)
    assert (found >= np.sort(steep)[0]).all()
    assert found.max() >= steep.max()


def test_spectral_norms_and_eigenvalues_are_bounded_outward() -> None:
    rng = np.random.default_rng(0)
    for size in ((3, 2), (2, 3), (20, 20), (1, 7)):
        matrix = rng.standard_normal(size)
        exact = np.linalg.norm(matrix, 2)
        assert exact <= norms.spectral(matrix) <= exact * (1 + 1e-6)
    below = rng.standard_normal((6, 6))
    below = below + below.T
    least = float(np.linalg.eigvalsh(below)[0])
    assert -least <= norms.deficit(below, np.zeros((6, 6))) <= -least + 1e-6
    assert norms.deficit(below, np.full((6, 6), 0.1)) >= -least + 0.6
    for bad in (np.nan, inf):
        assert not norms.deficit(np.full((2, 2), bad), np.zeros((2, 2))) < inf
    assert norms.spectral(np.array([[3.0, 1.0], [1.0, 2.0], [0.0, 1.0]])) == pytest.approx(3.658574, abs=1e-6)


@pytest.mark.parametrize("norm", [1.0, 2.0, inf])
def test_linear_functions_over_balls(norm: float) -> None:
    posed = problem(0, 0.3, norm)
    ball = Ball(norm, 0.3, posed.region.centre.double().flatten().numpy())
    a = np.random.default_rng(0).standard_normal((5, 3))
    seen = (posed.region.sample(400, nets.generator(0)).double().flatten(1).numpy() @ a.T).min(0)
    exact = a @ ball.centre - 0.3 * np.linalg.norm(a, norms.DUAL[norm], axis=1)
    least = ball.least(a.T, checker.Floats())
    assert (least <= seen).all()
    assert (least <= exact).all()
    assert np.allclose(least, exact)
    assert np.allclose(ball.least(checker.Rationals().of(a.T), checker.Rationals()).astype(float), exact)


SUM = model([("MatMul", ["x", "w"], "y", {})], {"w": np.ones((2, 1))}, (1, 2))
EYE, TEN, ONES = np.eye(2), np.full(2, 10.0), np.ones((2, 1))
RELUS = model(  # the same near 0
    [("Gemm", ["x", "eye", "ten"], "z", {}), ("Relu", ["z"], "h", {}), ("Gemm", ["h", "w", "less"], "y", {})],
    {"eye": EYE, "ten": TEN, "w": ONES, "less": np.full(1, -20.0)},
    (1, 2),
)
TAPS = model(  # and by two taps
    [("Conv", ["x", "w", "more"], "z", {}), ("Relu", ["z"], "h", {}), ("Add", ["h", "less"], "y", {})],
    {"w": np.ones((1, 1, 1, 2)), "more": np.full(1, 20.0), "less": np.full(1, -20.0)},
    (1, 1, 1, 2),
)
PAST = model(  # one and a half times as much, some of it past a layer
    [
        ("Gemm", ["x", "half", "ten"], "z", {}),
        ("Relu", ["z"], "h", {}),
        ("Add", ["h", "x"], "s", {}),
        ("Gemm", ["s", "w", "less"], "y", {}),
    ],
    {"half": EYE / 2, "ten": TEN, "w": ONES, "less": np.full(1, -20.0)},
    (1, 2),
)
SUMS = {"sum": (SUM, 1.0), "relus": (RELUS, 1.0), "taps": (TAPS, 1.0), "past": (PAST, 1.5)}


def about(norm: float, formula: str, low: str = "-2", high: str = "2") -> bytes:
    """A property of two inputs within 2 of 0, and between these."""
    within = prop([(low, high)] * 2, formula).decode()
    return json.dumps({"norm": str(norm), "radius": "0x2", "centre": ["0x0"] * 2, "property": within}).encode()


@pytest.mark.parametrize(("norm", "least"), [(1.0, -2.0), (2.0, -(8**0.5)), (inf, -4.0)])
@pytest.mark.parametrize("name", SUMS)
def test_sums_are_proved_as_far_as_they_go(name: str, norm: float, least: float) -> None:
    net, times = SUMS[name]
    least *= times

    def proves(end: float, kind: str, part: parts.Part) -> bool:
        try:
            return bool(Files.of(net, about(norm, f"(<= Y_0 {end})")).certificate(kind, "real", [part]).check())
        except Rejected:
            return False

    for named in ([1.0], [2.0], [inf], [1.0, 2.0, inf]):
        part = parts.Part({"norms": np.array([named])}, [])
        assert not proves(0.999 * least, "lipschitz", part)
        assert proves(1.001 * least, "lipschitz", part) == (norm in named or (norm != 1.0 and named != [inf]))
    leaf = parts.Part(parts.trees(1, [1.0]), [[None]] * (name != "sum"))
    assert not proves(0.999 * least, "tree", leaf)
    assert proves(1.001 * least, "tree", leaf)


@pytest.mark.parametrize(("low", "high", "end"), [("0", "1", "(>= Y_0 1.9)"), ("-1", "0", "(<= Y_0 -1.9)")])
def test_boxes_reach_as_far_as_their_farther_end(low: str, high: str, end: str) -> None:
    files = Files.of(SUM, about(inf, end, low, high))
    with pytest.raises(Rejected):
        files.certificate("lipschitz", "real", [parts.Part({"norms": np.array([[1.0, 2.0, inf]])}, [])]).check()


@pytest.mark.parametrize(("norm", "most"), [(2.0, 8**0.5), (inf, 4.0)])
@pytest.mark.parametrize("name", ["sum", "relus"])
def test_no_multipliers_prove_more_than_is_true(name: str, norm: float, most: float) -> None:
    """Of forms that are, and are not, semidefinite: sums are between -4, or by a ball -8^(1/2), or -1, and most."""
    rng, net = np.random.default_rng(0), SUMS[name][0]
    neurons = 0 if name == "sum" else 2
    tables = [
        ("sdp", {"multipliers": rng.exponential(0.3, (1, 3 + 4 * neurons)) * rng.choice([0, 1, 1])}) for _ in "123"
    ]
    own = np.zeros((3, 1, 3 + 4 * neurons))  # none, of the box, and of the ball
    own[1, :, :2] = own[2, :, -1] = 0.5
    tables += [("sdp", {"multipliers": table}) for table in own]
    told = [(kind, table | {"t": np.array([[t]])}) for kind, table in tables for t in (-6, -3, -1.75, -0.5, 1)]
    for t in (0.01, 1.0, 2.0, 3.0) if neurons else ():
        told += [("lipsdp", {"multipliers": np.full((1, 2), t), "rho": np.array([[rho]])}) for rho in (0.01, 1.0, 1.9)]
    for formula, low in (
        (f"(>= Y_0 {0.99 * most})", "-0.5"),
        ("(<= Y_0 -0.99)", "-0.5"),
        (f"(<= Y_0 -{0.99 * most})", "-2"),
    ):
        files = Files.of(net, about(norm, formula, low))
        for kind, arrays in told:
            with pytest.raises(Rejected):
                files.certificate(kind, "real", [parts.Part(arrays, [])]).check()
    files = Files.of(net, about(norm, f"(<= Y_0 -{1.01 * most})"))
    if neurons:
        best = {"multipliers": np.full((1, 2), 2.0), "rho": np.array([[2.001]])}
        assert files.certificate("lipsdp", "real", [parts.Part(best, [])]).check()["claim"] == "unsat"


@pytest.mark.parametrize(("norm", "far"), [(1.0, 1.0), (2.0, 2**0.5), (inf, 2.0)])
def test_points_are_in_balls_as_far_as_they_go(norm: float, far: float) -> None:
    files = Files.of(SUM, about(norm, "(<= Y_0 100)"))
    assert parts.counterexample(files, [0.999 * far] * 2).check()["claim"] == "sat"
    for point in ([1.001 * far] * 2, [2.001, 0.0]):
        with pytest.raises(Rejected, match="no counterexample"):
            parts.counterexample(files, point).check()


@pytest.mark.parametrize("norm", [1.0, 2.0])
def test_counterexamples_lie_in_the_ball(norm: float) -> None:
    flipped = problem(0, 0.25, norm, rank=2)
    files, centre = Files.of_problem(flipped), flipped.region.centre.flatten().double()
    assert parts.counterexample(files, centre.tolist()).check()["claim"] == "sat"
    for step in ([0.2, 0.2, 0.2], [0.25 + 1e-15, 0.0, 0.0]):
        point = parts.counterexample(files, (centre + torch.tensor(step, dtype=torch.float64)).tolist())
        with pytest.raises(Rejected, match="no counterexample"):
            point.check()


@pytest.mark.parametrize("method", ["crown", "lipschitz(scope=local)"])
def test_trees_speak_of_balls_too(method: str) -> None:
    """In l1 and l2 rows are bounded over the ball, which is much smaller than the box about it."""
    for norm in (1.0, 2.0):
        posed, told, _ = certificate(method, 0, norm)
        assert told.check()["claim"] == "unsat"
        assert told.check(exact=True)["claim"] == "unsat" or kind(told) != "tree"
        forged = rewritten(told, false_files(posed), {}, {})
        with pytest.raises(Rejected):
            forged.check()


@pytest.mark.parametrize("name", nets.NEVER_VERIFIED)
def test_traps_of_floating_point_are_not_proved(name: str) -> None:
    posed = nets.trap_problem(name)
    files = Files.of_problem(posed)
    neurons = sum(files.relus)
    tables = {
        "lipschitz": {"norms": np.array([[1.0, 2.0, inf]])},
        "lipsdp": {"multipliers": np.ones((1, neurons)), "rho": np.ones((1, 1))},
        "sdp": {"multipliers": np.ones((1, 1 + 4 * neurons)), "t": np.zeros((1, 1))},
    }
    for each, arrays in tables.items():
        with pytest.raises(Rejected):
            files.certificate(each, "real", [parts.Part(arrays, [])]).check()


def test_networks_that_are_read_are_those_that_are_run() -> None:
    """Affine functions of (1, x, h): at a point they are what the network gives, whatever the order of layers."""
    for seed in range(3):
        posed = problem(seed, 0.1, inf)
        files = Files.of_problem(posed)
        (value, error), (z, _) = norms.unrolled(files.network)
        x = posed.region.centre.double()
        flat = x.flatten().numpy()
        v = np.concatenate([[1.0], flat, np.zeros(len(value) - 1 - len(flat))])
        for k in range(z.shape[1]):  # neurons know only those before them
            v[1 + len(flat) + k] = max(0.0, float(v @ z[:, k]))
        assert np.allclose(v @ value, posed.network(x[None]).flatten().numpy(), atol=1e-5)
        assert (error >= 0).all()


def test_what_is_about_norms_runs_alone_too(tmp_path: Path) -> None:
    _, told, _ = certificate("lipschitz", 0, 2.0)
    told.save_with_files(tmp_path)
    save_checkers(tmp_path, told.checkers)
    command = [sys.executable, "-I", "checker.py", "certificate.zip", "model.onnx", "property.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("accepted: "), done.stdout + done.stderr
