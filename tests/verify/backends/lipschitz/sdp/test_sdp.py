"""Tests of the semidefinite methods: the worked example, truth, and what a bad solver cannot do."""

from __future__ import annotations

from itertools import product
from math import inf
from typing import Any

import numpy as np
import pytest
import torch

from assay.verify.backends.lipschitz.sdp import lipsdp, relaxation, solving
from assay.verify.backends.lipschitz.sdp.check import least_eigenvalue
from assay.verify.backends.lipschitz.sdp.method import SDP, LipSDP
from assay.verify.backends.lipschitz.sdp.solving import Unsolved
from assay.verify.backends.lipschitz.sdp.unrolled import refusal, unrolled
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import Linear, Relu, Smooth
from assay.verify.core.problem import Problem
from assay.verify.core.result import Reason, Verdict
from assay.verify.registry import get_verifier
from tests import exact, nets
from tests.contract.graphs import random_graph

D = torch.float64
W1 = np.array([[1.0, 2.0], [3.0, -1.0], [0.0, 1.0]])
W2 = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])
EXAMPLE = chain(
    (2,),
    [
        Linear(torch.from_numpy(W1), torch.zeros(3, dtype=D)),
        Relu(),
        Linear(torch.from_numpy(W2), torch.zeros(2, dtype=D)),
    ],
)
ROW = np.array([[1.0, -1.0]])

every_solver = pytest.mark.parametrize("solver", ["CLARABEL", "SCS"])


# The unrolled network.


def test_the_unrolled_network_is_the_network() -> None:
    done = 0
    for seed in range(40):
        network = random_graph(seed, image=seed % 2 == 0)
        if refusal(network):
            continue
        layers = unrolled(network)
        for x in torch.randn(3, *network.input_shape, dtype=D, generator=nets.generator(seed)):
            v = np.concatenate([[1.0], x.flatten().numpy(), np.zeros(len(layers.z))])
            for k, z in enumerate(layers.z):
                v[1 + layers.inputs + k] = max(float(z @ v), 0.0)
            np.testing.assert_allclose(layers.y @ v, network(x[None]).flatten().numpy(), rtol=1e-9, atol=1e-9)
        assert float(layers.y_error.max()) < 1e-10
        done += 1
    assert done >= 20


def test_smooth_activations_are_refused() -> None:
    network = chain((2,), [Linear(torch.eye(2), torch.zeros(2)), Smooth("tanh")])
    assert refusal(network) == "no semidefinite program for Smooth(tanh)"


# Eigenvalues.


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_the_least_eigenvalue_is_never_overstated(scale: float) -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 10, 40):
        matrix = scale * rng.standard_normal((size, size))
        matrix = matrix + matrix.T
        true = np.linalg.eigvalsh(matrix)[0]
        norm = np.linalg.norm(matrix, 2)
        assert true - 1e-9 * norm <= least_eigenvalue(matrix, 0.0) <= true + 1e-13 * norm
        assert least_eigenvalue(matrix, 0.5 * norm) <= true - 0.49 * norm


def test_a_matrix_that_is_not_finite_has_no_eigenvalue() -> None:
    assert least_eigenvalue(np.array([[1.0, np.nan], [np.nan, 1.0]]), 0.0) == -inf


# LipSDP.


@every_solver
def test_the_worked_example_lies_between_the_patterns_and_the_product(solver: str) -> None:
    patterns = max(np.linalg.norm((ROW @ W2 * np.array(s)) @ W1) for s in product((0.0, 1.0), repeat=3))
    assert patterns == pytest.approx(6.324555, abs=1e-6)
    constant = lipsdp.constant(unrolled(EXAMPLE), ROW, solver, Budget().started())
    assert patterns <= constant <= 6.3247 < 10.611161


@every_solver
def test_the_constant_is_above_every_gradient_and_below_the_product(solver: str) -> None:
    for seed in range(4):
        network = to_network(nets.random_mlp(seed, (3, 7, 6, 2)), (3,))
        constant = lipsdp.constant(unrolled(network), ROW, solver, Budget().started())
        x = 3 * torch.randn(20_000, 3, dtype=D, generator=nets.generator(seed))
        x.requires_grad_()
        (network(x) @ torch.from_numpy(ROW[0])).sum().backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        weights = [op.weight.numpy() for op in (n.op for n in network.nodes) if isinstance(op, Linear)]
        norms = [np.linalg.norm(w, 2) for w in (weights[0], weights[1], ROW @ weights[2])]
        assert x.grad.norm(dim=1).max().item() <= constant <= np.prod(norms) * 1.0001


def test_sampled_slopes_of_networks_of_every_wiring() -> None:
    for seed in (1, 2, 3, 5, 7):
        network = random_graph(seed, image=False)
        rows = torch.randn(1, network.output_size, dtype=D, generator=nets.generator(seed))
        constant = lipsdp.constant(unrolled(network), rows.numpy(), "CLARABEL", Budget().started())
        x = torch.randn(10_000, *network.input_shape, dtype=D, generator=nets.generator(seed))
        y = x + torch.randn(x.shape, dtype=D, generator=nets.generator(seed + 1)) * 0.1
        rise = ((network(x) - network(y)).flatten(1) @ rows[0]).abs()
        assert (rise / (x - y).flatten(1).norm(dim=1)).max().item() <= constant * (1 + 1e-9)


def test_any_multipliers_prove_a_true_constant() -> None:
    """What a solver says is never believed: multipliers at random prove a constant above the truth, or none."""
    truth, proofs = 6.324555, 0
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 30.0, 1e3):
        for _ in range(20):
            constant = lipsdp.proved(unrolled(EXAMPLE), ROW, scale * rng.random(3))
            assert constant >= truth
            proofs += constant < inf
    assert proofs > 10
    assert lipsdp.proved(unrolled(EXAMPLE), ROW, np.zeros(3)) == inf


def test_the_certified_radius_is_below_the_attackers() -> None:
    result = LipSDP().verify(Problem.robustness(EXAMPLE, torch.ones(2), 0, 0.6, 2, None), Budget())
    assert result.verdict is Verdict.VERIFIED
    assert result.stats["radius"] == pytest.approx(4 / 6.324555, abs=1e-4)
    wide = LipSDP().verify(Problem.robustness(EXAMPLE, torch.ones(2), 0, 0.64, 2, None), Budget())
    assert (wide.verdict, wide.reason) == (Verdict.UNKNOWN, Reason.INCOMPLETE)


def test_rows_together_are_proved_by_one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constants between those of a program each and the product of the layers, opposite rows the same."""
    programs = []
    solve = lipsdp.solve
    monkeypatch.setattr(lipsdp, "solve", lambda *args: (programs.append(1), solve(*args))[1])
    for seed in range(3):
        programs.clear()
        module = nets.random_mlp(seed, (3, 7, 6, 4))
        network, x = to_network(module, (3,)), torch.rand(3, generator=nets.generator(seed))
        constants = {}
        for rows in ("together", "each"):
            for label in (0, 1):
                problem = Problem.robustness(network, x, label, 0.01, 2)
                constants[rows, label] = LipSDP(rows=rows).verify(problem, Budget()).stats["constant"]  # type: ignore[arg-type]
            assert len(programs) == (1 if rows == "together" else 1 + 5)  # 3 pairs and 2 more, of 4 classes
        product = get_verifier("lipschitz").verify(problem, Budget()).stats["constant"] * 2**0.5
        for label in (0, 1):
            assert constants["each", label] * (1 - 1e-3) <= constants["together", label] <= product


def test_a_bad_option_is_refused() -> None:
    with pytest.raises(InputError, match="each or together"):
        LipSDP(rows="all")  # type: ignore[arg-type]


# The relaxation.


@every_solver
def test_margins_never_pass_the_truth_and_come_close(solver: str) -> None:
    gaps = []
    for seed in range(5):
        network = to_network(nets.random_mlp(seed, (2, 5, 4, 2)), (2,))
        x = torch.rand(2, generator=nets.generator(seed))
        problem = Problem.robustness(network, x, int(network(x[None].double()).argmax()), 0.15, inf, None)
        true, result = exact.true_margin(problem), SDP(solver).verify(problem, Budget())
        assert result.margin is not None
        assert result.margin <= true + 1e-9
        gaps.append(true - result.margin)
    assert sorted(gaps)[2] < 0.05


def test_a_ball_in_l2_is_not_treated_as_its_box() -> None:
    network = to_network(nets.random_mlp(3, (3, 6, 5, 3)), (3,))
    x = torch.rand(3, generator=nets.generator(3))
    label = int(network(x[None].double()).argmax())
    ball, box = (Problem.robustness(network, x, label, 0.1, p, None) for p in (2, inf))
    margins = [SDP().verify(problem, Budget()).margin for problem in (ball, box)]
    assert margins[0] is not None
    assert margins[1] is not None
    assert margins[0] > margins[1] + 0.1
    members = ball.region.sample(5000, nets.generator(0)).double()
    assert ball.spec.margin(ball.spec.rows(network(members))).min().item() >= margins[0]


def test_any_multipliers_prove_a_true_bound() -> None:
    network = to_network(nets.random_mlp(1, (2, 4, 2)), (2,))
    layers, row = unrolled(network), np.array([1.0, -1.0])
    lower, upper = np.zeros(2), np.ones(2)
    z = layers.z[:, 1:3]
    high = layers.z[:, 0] + np.maximum(z, 0) @ upper
    ranges = relaxation.Ranges(np.concatenate([lower, np.zeros(4)]), np.concatenate([upper, np.maximum(high, 0)]))
    members = torch.rand(5000, 2, dtype=D, generator=nets.generator(0))
    true = (network(members) @ torch.from_numpy(row)).min().item()
    forms, rng = relaxation.constraints(layers, ranges), np.random.default_rng(0)
    for scale in (1e-3, 1.0, 100.0):
        for t in (-10.0, 0.0, true, true + 1, 100.0):
            multipliers = scale * rng.random(len(forms.free))
            assert relaxation.proved(layers, ranges, row, multipliers, t) <= true


# Solvers.


class Answer:
    """A problem whose solver ends with a given status."""

    def __init__(self, status: str) -> None:
        self.status = status

    def solve(self, solver: str, time_limit: float) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    "status", ["optimal_inaccurate", "user_limit", "infeasible", "infeasible_inaccurate", "unbounded"]
)
def test_an_answer_that_is_not_optimal_certifies_nothing(monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    with pytest.raises(Unsolved, match=status):
        solving.solve(Answer(status), "CLARABEL", Budget().started())
    solving.solve(Answer("optimal"), "CLARABEL", Budget().started())

    def bad(problem: Any, solver: str, budget: Budget) -> None:
        raise Unsolved(f"status {status}")

    monkeypatch.setattr(lipsdp, "solve", bad)
    network = to_network(nets.random_mlp(0, (2, 4, 2)), (2,))
    result = LipSDP().verify(Problem.robustness(network, torch.ones(2), 0, 0.01, 2, None), Budget())
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.SOLVER)
    assert status in result.stats["explanation"]


def test_time_that_is_over() -> None:
    with pytest.raises(Expired):
        solving.solve(Answer("optimal"), "CLARABEL", Budget(seconds=0).started())


def test_networks_that_are_too_large() -> None:
    network: Network = to_network(nets.random_mlp(0, (12, 300, 300, 3)), (12,))
    problem = Problem.robustness(network, torch.rand(12), 0, 0.01)
    for method in (LipSDP(), SDP()):
        result = method.verify(problem, Budget())
        assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.MEMORY)
        assert "612" in result.stats["explanation"]


def test_two_networks_have_their_own_constants() -> None:
    first, second = (to_network(nets.random_mlp(seed, (2, 4, 2)), (2,)) for seed in range(2))
    x = torch.rand(2, generator=nets.generator(0))

    def constant(network: Network) -> float:
        result: float = LipSDP().verify(Problem.robustness(network, x, 0, 0.01, 2), Budget()).stats["constant"]
        return result

    again = [to_network(nets.random_mlp(seed, (2, 4, 2)), (2,)) for seed in range(2)]
    assert constant(first) != constant(second)
    assert [constant(first), constant(second)] == [constant(again[0]), constant(again[1])]


def test_unknown_solvers_are_refused() -> None:
    for method in (LipSDP, SDP):
        with pytest.raises(InputError, match="CLARABEL or SCS"):
            method("HIGHS")
