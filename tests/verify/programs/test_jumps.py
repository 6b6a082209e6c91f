"""Tests of verify.programs.jumps: integer programs of piecewise constant functions beside all of their pieces."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from assay.verify.backends.lp import LP
from assay.verify.check.replay import replay
from assay.verify.core.budget import Budget
from assay.verify.core.network import Builder, Network
from assay.verify.core.ops import STEPS, Add, Linear, Step, evaluate
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Verdict
from assay.verify.core.spec import Spec
from assay.verify.registry import get_verifier
from tests.breadth import seeds

ROW = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
METHODS = {"milp": "programs", "smt": "queries", "lp-bab": "nodes"}  # and what tells that they were asked
BELOW = {"floor": 0.0, "ceil": -1.0, "round": -0.5}  # where the piece of a value begins, seen from it


class Stepped:
    """``V step(W x + b) + U x`` of two inputs, three steps and two outputs."""

    def __init__(self, kind: str, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self.op = Step(kind)
        self.W, self.b, self.V, self.U = (draw.normal(size=s) for s in ((3, 2), (3,), (2, 3), (2, 2)))
        self.centre, self.eps = draw.normal(size=2), draw.choice([0.7, 1.2])
        self.box = Box(*(torch.from_numpy(self.centre + sign * self.eps) for sign in (-1, 1)))

    @property
    def network(self) -> Network:
        W, b, V, U = (torch.from_numpy(t) for t in (self.W, self.b, self.V, self.U))
        builder, zero = Builder((2,)), torch.zeros(2, dtype=torch.float64)
        steps = builder.add(self.op, builder.add(Linear(W, b), 0))
        sides = builder.add(Linear(V, zero), steps), builder.add(Linear(U, zero), 0)
        return builder.build(builder.add(Add(), *sides))

    def least(self) -> float:
        """The least ``y_0 - y_1`` over the closures of all pieces that meet the box."""
        low, high = (self.W @ self.centre + self.b + sign * np.abs(self.W).sum(1) * self.eps for sign in (-1, 1))
        first, last = (evaluate(self.op, torch.from_numpy(side)).int().tolist() for side in (low, high))
        row, ends = ROW[0].numpy(), list(zip(self.box.lower.tolist(), self.box.upper.tolist(), strict=True))
        best = np.inf
        for values in product(*(range(a, b + 1) for a, b in zip(first, last, strict=True))):
            begin, end = np.array([self.piece(v) for v in values]).T - self.b
            A, b = np.concatenate([self.W, -self.W]), np.concatenate([end, -begin])
            known = np.isfinite(b)
            answer = linprog(row @ self.U, A_ub=A[known], b_ub=b[known], bounds=ends)
            if answer.status == 0:
                best = min(best, answer.fun + row @ self.V @ np.array(values))
        return best

    def piece(self, value: int) -> tuple[float, float]:
        """The closure of the operands that have this value."""
        if self.op.kind == "sign":
            return {1: (0.0, np.inf), -1: (-np.inf, 0.0), 0: (0.0, 0.0)}[value]
        return value + BELOW[self.op.kind], value + BELOW[self.op.kind] + 1


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("method", METHODS)
@seeds(1, of=4, start=2)
def test_exact_methods_agree_with_enumeration(method: str, kind: str, seeds: range) -> None:
    seen = set()
    for seed in seeds:
        stepped = Stepped(kind, seed)
        true, network = stepped.least(), stepped.network
        assert float(LP().bound(network, stepped.box, ROW).lower) <= true + 1e-7
        for gap in (-0.05, 0.05):
            problem = Problem(network, stepped.box, Spec.halfspaces(ROW.tolist(), [true + gap]))
            result = get_verifier(f"{method}(steps=0)").verify(problem, Budget(30))
            assert result.verdict is (Verdict.VERIFIED if gap < 0 else Verdict.FALSIFIED)
            assert result.margin is None or result.margin <= -gap + 1e-7
            if result.counterexample is not None:
                assert replay(problem, result.counterexample).confirmed
            seen.add(result.stats[METHODS[method]] > 0)
    assert True in seen


def test_a_jump_that_is_just_reached() -> None:
    """The sign is 0 in the corner of the box alone, and -1 nowhere in it: both are within the closed graph."""
    builder = Builder((1,))
    network = builder.build(builder.add(Step("sign"), 0))
    corner, clear = (Box(torch.tensor([low]), torch.tensor([1.0])) for low in (0.0, 1e-6))
    for box, side, verdict in (
        (clear, 0.5, Verdict.VERIFIED),
        (corner, 0.5, Verdict.FALSIFIED),
        (corner, -0.5, Verdict.VERIFIED),
    ):
        problem = Problem(network, box, Spec.halfspaces([[1.0]], [side]))
        result = get_verifier("milp").verify(problem, Budget(10))
        assert result.verdict in (verdict, Verdict.UNKNOWN), (box, side)
        assert box is corner or result.verdict is verdict
