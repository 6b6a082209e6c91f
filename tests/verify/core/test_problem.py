"""Problems: ids that follow the content and nothing else, shapes that must fit, the batch form."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from math import inf, nextafter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import Linear
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.result import Verdict
from assay.verify.core.spec import Spec
from assay.verify.registry import get_verifier
from assay.verify.solving import stages
from tests.nets import random_cnn, random_mlp, random_resnet

ROOT = Path(__file__).parents[3]
X = torch.tensor([0.25, 0.5, 0.75, 1.0])


def problem(
    seed: int = 0, x: torch.Tensor = X, label: int = 1, eps: float = 0.1, p: float = inf, high: float = 1.0
) -> Problem:
    return Problem.robustness(random_mlp(seed), x, label, eps, p, (0.0, high))


def test_a_problem_is_network_region_and_specification() -> None:
    made = problem()
    assert made.network.input_shape == (4,)
    assert made.label == 1
    assert made.region.id == LpBall(X, 0.1, inf, (0.0, 1.0)).id
    assert made.spec.id == Spec.robust(1, 3).id
    assert torch.equal(made.network(X[None]), random_mlp(0)(X[None]))


def test_the_id_is_the_same_in_another_process() -> None:
    code = "from tests.verify.core.test_problem import problem; print(problem().id, problem(seed=1, p=2).id)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [problem().id, problem(seed=1, p=2).id]


def test_the_id_changes_with_everything_that_a_problem_is_made_of() -> None:
    moved = X.clone()
    moved[2] = nextafter(0.75, 1) + 2**-24
    closer = Problem(problem().network, Box(X - 0.1, X + 0.1), problem().spec)
    half_space = Problem(problem().network, problem().region, Spec.halfspaces([[1.0, 0.0, 0.0]], [0.0]))
    variants = [
        problem(),
        problem(seed=1),
        problem(x=moved),
        problem(label=2),
        problem(eps=nextafter(0.1, 1)),
        problem(p=2),
        problem(high=2.0),
        closer,
        half_space,
    ]
    assert len({v.id for v in variants}) == len(variants)
    assert problem().id == problem().id
    assert len(problem().id) == 32


@pytest.mark.parametrize("parameter", ["0.weight", "0.bias", "2.weight", "4.bias"])
def test_the_id_changes_with_the_last_bit_of_any_weight(parameter: str) -> None:
    module = random_mlp(0)
    before = Problem.robustness(module, X, 1, 0.1).id
    weights = module.get_parameter(parameter).data.flatten()
    weights[-1] = torch.nextafter(weights[-1], torch.tensor(inf))
    assert Problem.robustness(module, X, 1, 0.1).id != before


def test_the_label_alone_is_a_remark() -> None:
    made = problem()
    assert Problem(made.network, made.region, made.spec, label=None).id == made.id


@pytest.mark.parametrize("shape", [(3,), (5,), (1, 4), (4, 1), ()])
def test_a_region_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected a region of one sample of shape \(4,\), got"):
        Problem(problem().network, Box(torch.zeros(shape), torch.ones(shape)), Spec.robust(0, 3))


def test_a_region_of_a_batch_is_refused() -> None:
    with pytest.raises(InputError, match="one sample"):
        Problem(problem().network, LpBall(torch.zeros(2, 4), 0.1, domain=None), Spec.robust(0, 3))


def test_parts_of_other_kinds_are_named() -> None:
    network, region, spec = problem().network, problem().region, problem().spec
    with pytest.raises(InputError, match="expected a Network, got Linear: to_network"):
        Problem(torch.nn.Linear(4, 3), region, spec)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected a region, LpBall, Box or Polytope, got float"):
        Problem(network, 0.1, spec)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"expected a Spec, got 0: Problem\.robustness"):
        Problem(network, region, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("outputs", [2, 4])
def test_a_specification_of_another_width_is_refused(outputs: int) -> None:
    with pytest.raises(InputError, match=f"speaks of {outputs} outputs, the network has 3"):
        Problem(problem().network, problem().region, Spec.robust(0, outputs))


def test_a_network_takes_only_samples_of_its_shape() -> None:
    network = to_network(random_mlp(0), (4,))
    with pytest.raises(InputError, match=r"expected inputs of shape \(4,\), got \(5,\)"):
        Problem.robustness(network, torch.zeros(5), 0, 0.1)
    with pytest.raises(InputError, match="shape"):
        Problem.robustness(random_mlp(0), torch.zeros(5), 0, 0.1)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range_is_refused(label: int) -> None:
    with pytest.raises(InputError, match="out of range"):
        problem(label=label)


def test_a_sample_outside_of_the_domain_is_refused() -> None:
    with pytest.raises(InputError, match="outside of the domain"):
        problem(x=X + 1)
    assert Problem.robustness(random_mlp(0), X + 1, 0, 0.1, domain=None).label == 0


def test_as_many_labels_as_samples() -> None:
    with pytest.raises(InputError, match=r"expected one label per sample, shape \(2,\), got \(3,\)"):
        Problem.robustness_many(random_mlp(0), torch.zeros(2, 4), [0, 1, 2], 0.1)


def test_a_batch_is_not_one_sample() -> None:
    for labels in ([0, 1], torch.tensor([1])):
        with pytest.raises(InputError, match="robustness_many takes a batch"):
            Problem.robustness(random_mlp(0), torch.zeros(2, 4), labels, 0.1)  # type: ignore[arg-type]


def test_arrays_make_the_same_problem() -> None:
    given: Any = (X.numpy(), np.int64(1), np.float32(0.25), np.zeros(4), np.ones(4))
    x, label, eps, low, high = given
    assert (
        Problem.robustness(random_mlp(0), x, label, eps, inf, (low, high)).region.id
        == LpBall(X, 0.25, inf, (torch.zeros(4), torch.ones(4))).id
    )
    many = Problem.robustness_many(random_mlp(0), x[None], np.array([1], dtype=np.uint8), 0.1)  # type: ignore[arg-type]
    assert [p.id for p in many] == [problem().id]


@pytest.mark.parametrize("label", [1.5, "1", None, True])
def test_a_label_is_an_integer(label: Any) -> None:
    with pytest.raises(InputError, match="labels"):
        problem(label=label)


@pytest.mark.parametrize("norm", [1, 2, inf])
@pytest.mark.parametrize(
    ("module", "shape"), [(random_mlp(2), (4,)), (random_cnn(2), (1, 6, 6)), (random_resnet(2), (1, 4, 4))]
)
def test_many_equals_one_by_one(module: torch.nn.Module, shape: tuple[int, ...], norm: float) -> None:
    xs = torch.rand((3, *shape), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, 0, 2])
    many = Problem.robustness_many(module, xs, labels, 0.1, norm)
    alone = [Problem.robustness(module, x, int(y), 0.1, norm) for x, y in zip(xs, labels, strict=True)]
    assert [p.id for p in many] == [p.id for p in alone]
    assert [p.label for p in many] == [2, 0, 2]
    assert all(p.network is many[0].network for p in many)


def test_no_samples_are_no_problems() -> None:
    assert Problem.robustness_many(random_mlp(0), torch.zeros(0, 4), [], 0.1) == []


def test_samples_may_be_plain_numbers() -> None:
    made = Problem.robustness(random_mlp(0), X.tolist(), 1, 0.1)  # type: ignore[arg-type]
    assert made.id == problem().id
    assert isinstance(made.network, Network)


IDENTITY = chain((1,), [Linear(torch.eye(1), torch.zeros(1))])


def one_input(lower: float, upper: float, limit: float) -> Problem:
    """Does the identity on [lower, upper] reach a value of at most ``limit``?"""
    ends = torch.tensor([[lower], [upper]], dtype=torch.float64)
    return Problem(IDENTITY, Box(ends[0], ends[1]), Spec.halfspaces([[1.0]], [limit]))


@pytest.mark.parametrize("method", ["auto", "attack", "milp", "input-split", "lp-bab", "bab", "smt", "crown"])
def test_a_box_without_a_float32_has_no_counterexample(method: str) -> None:
    for limit, safe in ((1e9, True), (1e9 + 15, False)):
        problem = one_input(1e9 + 10, 1e9 + 20, limit)
        assert problem.moved is None
        assert "no float32 lies between the bounds of input 0" in (problem.unreachable or "")
        (result,) = stages.decide(get_verifier(method), [problem], Budget(2 if method == "auto" else 20))
        assert result.verdict is (Verdict.VERIFIED if safe and method != "attack" else Verdict.UNKNOWN)
        assert result.verdict is Verdict.VERIFIED or "explanation" in result.stats


def test_one_value_that_is_no_float32_is_warned_of_and_told() -> None:
    with pytest.warns(UserWarning, match=r"input 0 is the value 0\.1, which is no float32"):
        problem = one_input(0.1, 0.1, 0.05)
    (result,) = stages.decide(get_verifier("crown"), [problem], Budget(20))
    assert (result.verdict, result.stats["moved"]) == (Verdict.VERIFIED, problem.moved)
    with pytest.warns(UserWarning, match="proofs cover both"):
        above = one_input(0.1, 0.1, 0.1)  # the nearest float32 is larger, the value itself is not
    (result,) = stages.decide(get_verifier("crown"), [above], Budget(20))
    assert result.verdict is Verdict.UNKNOWN


def test_a_value_that_the_models_dtype_holds_is_not_moved() -> None:
    wide = replace(IDENTITY, dtype=torch.float64)
    box = Box(torch.tensor([0.1], dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64))
    assert Problem(wide, box, Spec.halfspaces([[1.0]], [0.05])).moved is None
    assert one_input(0.25, 0.25, 0.1).moved is None
    assert one_input(0.25, 0.5, 0.1).unreachable is None


def test_a_point_in_l2_that_the_dtype_does_not_hold_is_unreachable() -> None:
    ball = LpBall(torch.tensor([0.1], dtype=torch.float64), 0.0, 2, None)
    problem = Problem(IDENTITY, ball, Spec.halfspaces([[1.0]], [0.05]))
    assert problem.moved is None
    assert problem.unreachable is not None


def test_the_dual_norm_of_tiny_and_huge_coefficients() -> None:
    """y = w . x + 1.2 over the unit l2 ball times r, with |w| r = sqrt 2: the least value is below zero."""
    for scale in (1e-170, 1e-200, 1e150, 1e-100):
        rows = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64) / scale
        network = replace(
            chain((2,), [Linear(rows, torch.tensor([1.2, 0.0], dtype=torch.float64))]), dtype=torch.float64
        )
        ball = LpBall(torch.zeros(2, dtype=torch.float64), scale, 2, None)
        problem = Problem(network, ball, Spec.robust(0, 2))
        for method in ("ibp", "crown", "crown-ibp", "lp", "lipschitz", "sdp", "lipsdp"):
            result = get_verifier(method).verify(problem, Budget(20))
            assert result.verdict is not Verdict.VERIFIED, (method, scale)
            assert result.margin is None or result.margin <= 1.2 - 2**0.5


IMAGE = torch.linspace(0.2, 0.8, 12).view(3, 2, 2)


@pytest.mark.parametrize(
    ("eps", "domain"),
    [
        (torch.tensor([0.1, 0.0, 0.2]).view(3, 1, 1), (0.0, 1.0)),
        (torch.tensor([0.1, 0.0, 0.2]), (torch.zeros(3, 1, 1), torch.tensor([0.9, 0.8, 0.85]).view(3, 1, 1))),
        (torch.linspace(0, 0.3, 12).view(3, 2, 2), None),
        (torch.tensor([0.05, 0.1]), (torch.zeros(3, 2, 2), 1.0)),
        (np.full((1, 2, 2), 0.1), (np.zeros((3, 1, 1)), np.ones((3, 1, 1)))),
    ],
)
def test_eps_and_domain_for_each_channel_and_feature(eps: Any, domain: Any) -> None:
    network = to_network(torch.nn.Sequential(torch.nn.Flatten(), random_mlp(0, (12, 6, 3))).eval(), (3, 2, 2))
    ones = torch.as_tensor(eps, dtype=torch.float64)
    radius = (ones.view(3, 1, 1) if ones.shape == (3,) else ones).expand(3, 2, 2)
    low, high = (torch.as_tensor(side, dtype=torch.float64) for side in domain or (-inf, inf))
    lower, upper = torch.maximum(IMAGE - radius, low), torch.minimum(IMAGE + radius, high)
    label = int(network(IMAGE[None])[0].argmax())
    posed = Problem.robustness(network, IMAGE, label, eps, domain=domain)
    box = posed.region.box()
    assert torch.allclose(box.lower, lower, atol=1e-12)
    assert torch.allclose(box.upper, upper, atol=1e-12)
    same = Problem(network, Box(lower, upper), posed.spec, label)
    both = Problem.robustness_many(network, torch.stack([IMAGE, IMAGE / 2 + 0.2]), [label, label], eps, domain=domain)
    for method in ("ibp", "crown", "lp", "milp"):
        verifier = get_verifier(method)
        margins = [verifier.verify(p, Budget(20)).margin for p in (posed, same)]
        assert margins[0] == pytest.approx(margins[1], abs=1e-6)
    together = stages.decide(get_verifier("crown"), both, Budget())
    assert together[0].margin == pytest.approx(get_verifier("crown").verify(posed, Budget()).margin)
    for name in ("attack", "attack(attack=fgsm)", "attack(attack=apgd)", "attack(attack=square)"):
        for problem, result in zip(both, stages.decide(get_verifier(name), both, Budget(20)), strict=True):
            assert "alarm" not in result.stats
            assert result.counterexample is None or problem.region.contains(result.counterexample[None]).all()


def test_shapes_that_do_not_fit_are_named() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
    with pytest.raises(InputError, match=r"a domain of a shape that broadcasts to the input's \(3, 2, 2\), got \(3,\)"):
        Problem.robustness(model, IMAGE, 0, 0.01, domain=(torch.zeros(3), torch.ones(3)))
    with pytest.raises(InputError, match=r"eps of a shape that broadcasts .* got \(4,\)"):
        Problem.robustness(model, IMAGE, 0, torch.full((4,), 0.01))
    for p in (1, 2):
        with pytest.raises(InputError, match=f"a ball in l{p} has no eps for each feature"):
            Problem.robustness(model, IMAGE, 0, torch.full((3, 1, 1), 0.01), p)


def test_balls_lie_in_the_unit_cube_unless_told_otherwise() -> None:
    assert LpBall(torch.tensor([0.0, 1.0]), 0.5).box().upper.tolist() == [0.5, 1.0]
    assert LpBall(torch.tensor([0.0, 1.0]), 0.5, domain=None).box().upper.tolist() == [0.5, 1.5]
    with pytest.raises(InputError, match="outside of the domain"):
        LpBall(torch.tensor([0.0, 2.0]), 0.5)


def test_problems_are_shown_in_one_line_and_as_a_table() -> None:
    shown = problem(eps=0.1, p=2)
    line = repr(shown)
    assert line == (
        "Problem(network Network(name Sequential, inputs (4,), outputs 3, operations 5), region LpBall(shape (4,), "
        f"norm l2, eps 0.1, domain 0 to 1), spec Spec(disjuncts 2, rows 2), label 1, id {shown.id[:8]})"
    )
    named = replace(shown.network, name="<script>")
    table = Problem(named, Box(X, X + 0.5), Spec(()))._repr_html_()
    assert "&lt;script&gt;" in table
    assert "<script>" not in table
    assert "Box(shape (4,), within 0.25 to 1.5, widths 0.5)" in table
    for thing in (shown.network, shown.spec, shown.region, shown.region.box(), LpBall(X, 0.1, domain=None)):
        assert thing._repr_html_().startswith("<table><caption>" + type(thing).__name__)
