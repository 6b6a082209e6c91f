"""Tests of sparse regions taken as their boxes, and of methods that cannot take them."""

from __future__ import annotations

from math import inf

import pytest
import torch

from assay.attacks.sparse_rs import SparseRS
from assay.verify.core.errors import InputError
from assay.verify.core.norms import PATCH
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, Intersection, LpBall
from assay.verify.core.result import Reason, Verdict
from assay.verify.core.spec import Spec
from assay.verify.core.verifier import Bounder
from assay.verify.registry import get_bounder, get_verifier
from assay.verify.solving.pieces import Pieces


def model(gain: float) -> torch.nn.Module:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
    with torch.no_grad():
        net[3].bias += torch.tensor([gain, 0.0, 0.0])
    return net


X = torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("norm", "eps"), [(0.0, 1), (PATCH, 2)])
@pytest.mark.parametrize("gain", [-0.1, 0.2, 1.0])
def test_verdicts_agree_with_search_and_attack(norm: float, eps: int, gain: float) -> None:
    problem = Problem.robustness(model(gain), X, 0, eps, norm)
    proved = Pieces("bab").verify(problem)
    bounded = Pieces("ibp").verify(problem)
    attacked = SparseRS(queries=100).search([problem], seed=1)
    assert proved.verdict in (Verdict.VERIFIED, Verdict.FALSIFIED)
    assert bool(attacked.success[0]) == (proved.verdict is Verdict.FALSIFIED)
    if bounded.verdict is Verdict.VERIFIED:
        assert proved.verdict is Verdict.VERIFIED
        assert bounded.margin is not None
        members = problem.region.sample(200, torch.Generator().manual_seed(2))
        y = problem.network(members)
        assert float((y[:, :1] - y[:, 1:]).min()) >= bounded.margin
    if proved.verdict is Verdict.FALSIFIED:
        assert proved.counterexample is not None
        assert bool(problem.region.contains(proved.counterexample[None]))


def test_the_tests_above_have_both_verdicts() -> None:
    verdicts = {Pieces("bab").verify(Problem.robustness(model(g), X, 0, 1, 0)).verdict for g in (-0.1, 1.0)}
    assert verdicts == {Verdict.VERIFIED, Verdict.FALSIFIED}


@pytest.mark.parametrize("name", ["ibp", "crown", "bab", "milp", "lp", "lp-bab", "input-split", "smt", "lipschitz"])
def test_no_method_takes_the_box_for_the_region(name: str) -> None:
    result = get_verifier(name).verify(Problem.robustness(model(3.0), X, 0, 1, 0))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED)


def test_too_many_sets_of_pixels_are_declined_and_other_regions_are_one_piece() -> None:
    result = Pieces(most=100).verify(Problem.robustness(model(3.0), X, 0, 5, 0))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED)
    ball = Problem.robustness(model(3.0), X, 0, 0.01)
    assert Pieces("crown").verify(ball).margin == get_verifier("crown").verify(ball).margin
    with pytest.raises(InputError):
        Pieces("nothing")


@pytest.mark.parametrize("name", ["ibp", "crown", "alpha-crown"])
def test_bounds_over_intersections_hold_and_use_the_ball(name: str) -> None:
    problem = Problem.robustness(model(1.0), X, 0, 0.0)
    both = Intersection.of(X, {inf: 0.3, 2.0: 0.4})
    objective = torch.eye(3, dtype=torch.float64)
    bounder: Bounder = get_bounder(name)
    bounds = bounder.bound(problem.network, both, objective)
    y = problem.network(both.sample(500, torch.Generator().manual_seed(3)))
    assert bool(((bounds.lower <= y) & (y <= bounds.upper)).all())
    wide = bounder.bound(problem.network, Box(both.box().lower, both.box().upper), objective)
    assert bool((bounds.lower >= wide.lower - 1e-9).all())
    if name != "ibp":
        assert float((bounds.upper - bounds.lower).sum()) < 0.8 * float((wide.upper - wide.lower).sum())


def test_verdicts_over_intersections() -> None:
    net, eps = model(1.0), {inf: 0.3, 2.0: 0.4}
    problem = Problem.robustness(net, X, 0, 0.0)
    both = Problem(problem.network, Intersection.of(X, eps), Spec.robust(0, 3), 0)
    alone = [Problem(problem.network, LpBall(X, eps[p], p), Spec.robust(0, 3), 0) for p in eps]
    proofs = [get_verifier("crown").verify(p).verdict is Verdict.VERIFIED for p in alone]
    assert (get_verifier("crown").verify(both).verdict is Verdict.VERIFIED) >= any(proofs)
    assert get_verifier("milp").verify(both).reason is Reason.UNSUPPORTED
