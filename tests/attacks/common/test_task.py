"""Searches on specifications: agreement with labels, conjunctions, disjunctions, and regions without a member."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.attacks import baselines
from assay.attacks.common.interface import Attack
from assay.attacks.common.losses import LossName
from assay.attacks.fgsm import FGSM
from assay.attacks.pgd import PGD
from assay.verify.core.errors import InputError
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.core.spec import Polyhedron, Spec
from tests.attacks.attack_models import Counting, linear, mlp, network, samples

NET = mlp(0)
X = samples(1, 24)
LABELS = NET(X).argmax(1)


@pytest.mark.parametrize("oracle", [True, False])
@pytest.mark.parametrize(("p", "eps"), [(inf, 0.15), (2, 0.3), (1, 0.5)])
def test_search_agrees_with_run_on_robustness(oracle: bool, p: float, eps: float) -> None:
    problems = Problem.robustness_many(network(NET, 6, oracle), X, LABELS, eps, p)
    for attack in (FGSM(loss="margin"), PGD(steps=8, restarts=2, loss="margin")):
        searched = attack.search(problems, seed=2)
        ran = attack.run(NET, X, LABELS, LpBall(X, eps, p, (0.0, 1.0)), seed=2)
        assert 0 < int(ran.success.sum()) < len(X)
        assert torch.equal(searched.success, ran.success)
        assert torch.equal(searched.queries, ran.queries)
        assert torch.allclose(searched.adversarial, ran.adversarial, atol=1e-5)
        assert torch.allclose(searched.distance, ran.distance, atol=1e-5)
        assert torch.allclose(searched.loss, ran.loss, atol=1e-5)


IDENTITY = network(linear([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), 2)
UNIT = Box(torch.zeros(2), torch.ones(2))


def conjunction(A: list[list[float]], b: list[float], strict: bool = False) -> Polyhedron:
    rows = torch.tensor(A, dtype=torch.float64)
    return Polyhedron(rows, torch.tensor(b, dtype=torch.float64), torch.full((len(b),), strict))


@pytest.mark.parametrize("loss", ["margin", "ce"])
@pytest.mark.parametrize("attack", [PGD(steps=30), PGD(steps=30, momentum=0.5, restarts=2)])
def test_a_conjunction_needs_all_of_its_rows(attack: PGD, loss: LossName) -> None:
    corner = conjunction([[1, 0], [0, 1]], [0.1, 0.1])  # y0 <= 0.1 and y1 <= 0.1
    beyond = conjunction([[1, 0], [0, 1]], [0.1, -0.1])  # y1 <= -0.1 is never reached
    diagonal = conjunction([[1, 1], [-1, 0]], [1.0, -0.9])  # y0 + y1 <= 1 and y0 >= 0.9
    specs = [Spec((d,)) for d in (corner, beyond, diagonal)]
    result = replace(attack, loss=loss).search([Problem(IDENTITY, UNIT, spec) for spec in specs])
    assert result.success.tolist() == [True, False, True]
    for spec, point, broken in zip(specs, result.adversarial, result.success, strict=True):
        assert bool(spec.violated(point[None])) == bool(broken)
    assert result.adversarial[1, 1] == 0  # the best point has gone as far as it can
    assert float(result.loss[1]) == pytest.approx(-0.1, abs=1e-6 if loss == "margin" else 1e-3)


def test_a_disjunction_needs_one_of_its_disjuncts() -> None:
    never = conjunction([[1, 0]], [-1.0])
    corner = conjunction([[-1, 0], [0, -1]], [-0.9, -0.9])  # y0 >= 0.9 and y1 >= 0.9
    far = conjunction([[0, 1], [0, -1]], [-5.0, 7.0])
    specs = [Spec((never, corner, far)), Spec((far, never)), Spec((corner,))]
    result = PGD(steps=30).search([Problem(IDENTITY, UNIT, spec) for spec in specs])
    assert result.success.tolist() == [True, False, True]
    assert bool((result.adversarial[0] >= 0.9).all())


def test_strictness_decides_at_the_boundary() -> None:
    specs = [Spec((conjunction([[1, 0]], [0.0], strict),)) for strict in (False, True)]
    result = PGD(steps=20).search([Problem(IDENTITY, UNIT, spec) for spec in specs])
    assert result.success.tolist() == [True, False]
    assert result.adversarial[:, 0].tolist() == [0, 0]


def test_no_constraint_makes_the_centre_a_counterexample_and_no_disjunct_none() -> None:
    everything = Spec((Polyhedron(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, dtype=torch.bool)),))
    result = PGD(steps=3).search([Problem(IDENTITY, UNIT, spec) for spec in (everything, Spec(()))])
    assert result.success.tolist() == [True, False]
    assert result.queries.tolist() == [1, 4]
    assert result.adversarial[0].tolist() == [0.5, 0.5]


def test_regions_without_a_member_cost_nothing() -> None:
    odd = torch.tensor([1 / 3, 1 / 3], dtype=torch.float64)  # no float32
    empty: list[Region] = [Box(torch.ones(2), torch.zeros(2)), LpBall(odd, 0.0, 2, domain=None)]
    spec = Spec.halfspaces([[1.0, 0.0]], [0.2])
    result = PGD().search([Problem(IDENTITY, region, spec) for region in [*empty, UNIT]])
    assert result.success.tolist() == [False, False, True]
    assert result.queries[:2].tolist() == [0, 0]
    assert result.loss[:2].tolist() == [-inf, -inf]


def test_kinds_of_regions_and_networks_mix() -> None:
    other = network(mlp(9), 6, oracle=False)
    domain = (torch.zeros(6), torch.ones(6))
    problems = []
    for i, x in enumerate(X[::2]):
        region: Region = Box(x - 0.05, x + 0.05) if i % 4 == 0 else LpBall(x, 0.1 + i / 100, (1, 2, inf)[i % 3], domain)
        problems.append(Problem(other if i % 5 == 0 else network(NET, 6), region, Spec.robust(int(LABELS[2 * i]), 4)))
    attack = PGD(steps=10, restarts=2)
    result = attack.search(problems, seed=1)
    assert 0 < int(result.success.sum()) < len(problems)
    for i, problem in enumerate(problems):
        point = result.adversarial[i : i + 1]
        assert bool(problem.region.contains(point))
        alone = attack.search([problem], seed=1)
        assert alone.success[0] == result.success[i]
        y = problem.network(point)
        if float(y.topk(2).values.diff().abs()) > 1e-5:
            assert bool(problem.spec.violated(y)) == bool(result.success[i])


def test_problems_of_one_network_run_as_one_batch() -> None:
    calls: list[int] = []

    class Watching(Counting):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(len(x))
            return super().forward(x)

    net = network(NET, 6)
    object.__setattr__(net, "oracle", Watching(NET))
    PGD(steps=3).search(Problem.robustness_many(net, X, LABELS, 1e-6))
    assert calls == [24] * 4


def test_the_example_of_an_attack_in_contributing_works() -> None:
    text = (Path(__file__).parents[3] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    example = text.partition("## An attack")[2].partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = dict(vars(baselines))  # with its imports
    exec(example, names)
    attack = names["Corners"](draws=20)
    assert isinstance(attack, Attack)
    for region in (LpBall(X, 0.2, domain=None), LpBall(X, 0.5, 2, (0.0, 1.0)), LpBall(X, 0.8, 1, (0.0, 1.0))):
        result = attack.run(NET, X, LABELS, region)
        assert 0 < int(result.success.sum()) < len(X)
        assert int(result.queries.max()) == 21
    problems = Problem.robustness_many(network(NET, 6), X, LABELS, 0.2)
    assert bool(attack.search(problems).success.any())


def test_bad_calls() -> None:
    wide = Problem(network(mlp(0, inputs=3), 3), Box(torch.zeros(3), torch.ones(3)), Spec.robust(0, 4))
    narrow = Problem(IDENTITY, UNIT, Spec.robust(0, 2))
    with pytest.raises(InputError, match="one input shape and dtype"):
        FGSM().search([wide, narrow])
    with pytest.raises(InputError, match=r"call model\.eval\(\)"):
        FGSM().search([Problem(network(mlp(0).train(), 6), LpBall(X[0], 0.1, domain=None), Spec.robust(0, 4))])
    assert len(FGSM().search([]).success) == 0
