"""Tests of verify.solving.auto: the bracket closes from both sides, and what cannot be decided says why."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.verify import solve
from assay.verify.backends.bab.inputs.input_split import InputSplit
from assay.verify.backends.crown import CROWN
from assay.verify.core.budget import Budget
from assay.verify.core.network import chain, to_network
from assay.verify.core.ops import Linear, Op, Smooth
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Reason, Result, Verdict
from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.solving.auto import BOXES, FEW, Auto
from tests import nets

NETWORK = to_network(nets.random_mlp(3, (4, 10, 10, 3)), (4,))
XS = torch.rand(12, 4, generator=nets.generator(0))
LABELS = NETWORK(XS.double()).argmax(1)


def robust(eps: float) -> list[Problem]:
    return Problem.robustness_many(NETWORK, XS, LABELS, eps)


def test_small_radii_are_verified_and_large_ones_falsified() -> None:
    small = Auto().verify_many(robust(1e-4), Budget())
    large = Auto().verify_many(robust(1.0), Budget())
    assert {r.verdict for r in small} == {Verdict.VERIFIED}
    assert all(r.margin is not None and r.margin > 0 for r in small)
    assert sum(r.verdict is Verdict.FALSIFIED for r in large) > 6
    assert all("counterexample_margin" in r.stats for r in large if r.verdict is Verdict.FALSIFIED)


def test_a_wrong_label_is_falsified_by_the_sample_itself() -> None:
    problem = Problem.robustness(NETWORK, XS[0], (int(LABELS[0]) + 1) % 3, 0.0)
    result = solve(problem)
    assert result.verdict is Verdict.FALSIFIED
    assert result.counterexample is not None
    assert torch.equal(result.counterexample, XS[0])


def test_results_speak_in_the_name_of_auto() -> None:
    result = solve(robust(1e-4)[0])
    assert result.verifier == repr(Auto())
    assert len(result.stats["stages"]) >= 2
    assert Result.from_json(result.to_json()).stats == result.stats


def test_the_same_seed_gives_the_same_answer() -> None:
    first, second = (Auto().verify_many(robust(0.1), Budget(seed=5)) for _ in range(2))
    assert [(r.verdict, r.margin) for r in first] == [(r.verdict, r.margin) for r in second]


def test_no_time() -> None:
    result = solve(robust(1e-4)[0], Budget(seconds=0))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.TIMEOUT)


@pytest.mark.parametrize("empty", ["region", "spec"])
def test_empty_questions_are_vacuous(empty: str) -> None:
    low, high = (torch.ones(2), torch.zeros(2)) if empty == "region" else (torch.zeros(2), torch.ones(2))
    spec = Spec(()) if empty == "spec" else Spec.robust(0, 2)
    result = solve(Problem(chain((2,), []), Box(low, high), spec))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.VACUOUS)


def test_without_output_constraints_every_point_is_a_counterexample() -> None:
    anything = Polyhedron(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    result = solve(Problem(chain((2,), []), Box(torch.zeros(2), torch.ones(2)), Spec((anything,))))
    assert result.verdict is Verdict.FALSIFIED


@pytest.mark.slow  # each time with less time, as a law of every method
@pytest.mark.parametrize("name", nets.NEVER_VERIFIED[::3])
def test_float_traps_are_never_verified(name: str) -> None:
    assert Auto(rounds=1).verify(nets.trap_problem(name), Budget()).verdict is not Verdict.VERIFIED


def test_neurons_are_split_after_lines_have_been_raised() -> None:
    stages = [repr(stage.verifier) for stage in Auto().stages()]
    split = [i for i, name in enumerate(stages) if name.startswith("Late") and "'bab'" in name]
    raised = max(i for i, name in enumerate(stages) if name.startswith("Early(verifier=AlphaCROWN"))
    assert split
    assert min(split) > raised


def test_lines_are_not_raised_twice_where_a_search_does_it_in_less_time() -> None:
    dense, convolved = ((nets.random_mlp(0, (4, 8, 3)), (4,)), (nets.random_cnn(0, (1, 4, 4), (2,)), (1, 4, 4)))
    for (module, shape), proof, wanted in ((dense, False, True), (convolved, False, False), (convolved, True, False)):
        network = to_network(module, shape)
        problem = Problem.robustness(network, torch.zeros(shape), 0, 0.1)
        last = [s.verifier for s in Auto(proof=proof).stages() if "AlphaCROWN" in repr(s.verifier)][-1]
        assert (last.supports(problem) is None) is wanted


def test_programs_come_before_splits_for_few_relus_alone() -> None:
    early = [stage.verifier for stage in Auto().stages()]
    programs = next(verifier for verifier in early if "lp-bab" in repr(verifier))
    few, many = (
        Problem.robustness(to_network(nets.random_mlp(0, (9, size, size, 2)), (9,)), torch.zeros(9), 0, 0.1)
        for size in (200, 201)
    )
    assert programs.supports(few) is None
    assert "402 ReLUs" in str(programs.supports(many))
    assert any("lp-bab" in repr(verifier) and verifier.supports(many) is None for verifier in early), "but later"


def test_networks_with_attention_are_searched_before_lines_of_layers_are_raised() -> None:
    """On bounds of all layers, which are worked out once; the search raises the lines of rows itself."""
    verifiers = [stage.verifier for stage in Auto().stages()]
    names = [repr(verifier) for verifier in verifiers]
    bounded = next(i for i, name in enumerate(names) if name.startswith("Early(verifier=CROWN"))
    searched = next(i for i, name in enumerate(names) if name.startswith("Early(verifier=Late"))
    assert bounded < searched < next(i for i, name in enumerate(names) if "AlphaCROWN" in name)
    assert all(verifiers[i].supports(robust(0.1)[0]) is not None for i in (bounded, searched))
    softmax = nn.Sequential(nn.Linear(9, 3), nn.Softmax(-1), nn.Linear(3, 2))
    nn.init.eye_(softmax[0].weight)
    nn.init.eye_(softmax[2].weight)
    nn.init.zeros_(softmax[0].bias)
    nn.init.zeros_(softmax[2].bias)
    x = torch.zeros(9)
    x[0] = 0.6
    problem = Problem.robustness(softmax.eval(), x, 0, 0.2)
    assert all(verifiers[i].supports(problem) is None for i in (bounded, searched))
    assert verifiers[searched].verify(problem).verdict is Verdict.VERIFIED


@pytest.mark.parametrize("seed", [0, 2])
def test_boxes_of_few_inputs_are_halved_before_lines_are_raised(seed: int) -> None:
    """What linear bounds leave open is decided by the stage that comes next, if there are few inputs."""
    verifiers = [stage.verifier for stage in Auto().stages()]
    names = [type(verifier).__name__ for verifier in verifiers]
    first = names.index("InputSplit")
    attacks = [i for i, verifier in enumerate(verifiers) if "PGD" in repr(verifier)]
    raised = [i for i, verifier in enumerate(verifiers) if "AlphaCROWN" in repr(verifier)]
    assert names.index("CROWN") < first < min(*raised, *attacks)
    network = to_network(nets.random_mlp(seed, (4, 16, 16, 3)), (4,))
    x = torch.rand(4, generator=nets.generator(seed))
    problem = Problem.robustness(network, x, int(network(x[None].double()).argmax()), 0.3)
    assert CROWN().verify(problem).verdict is Verdict.UNKNOWN
    assert verifiers[first].verify(problem).verdict is Verdict.VERIFIED
    many = to_network(nets.random_mlp(seed, (9, 4, 2)), (9,))
    assert verifiers[first].supports(Problem.robustness(many, torch.zeros(9), 0, 0.1)) is not None


def test_few_inputs_are_halved_before_lines_are_raised_where_there_is_time() -> None:
    stages = Auto().stages()
    halved = [i for i, stage in enumerate(stages) if stage.verifier == InputSplit(max_inputs=FEW)]
    raised = max(i for i, stage in enumerate(stages) if "AlphaCROWN" in repr(stage.verifier))
    assert len([i for i in halved if i < raised]) == 2
    assert all(stages[i].price == (BOXES, CROWN()) for i in halved if i < raised)
    assert [stages[i].price for i in halved if i > raised] == [(1, CROWN())], "or else after them"
    many = next(stage for stage in stages if stage.verifier == InputSplit())
    assert many.price == (BOXES, CROWN())


def test_few_relus_are_split_where_linear_bounds_do_not_decide() -> None:
    network = to_network(nets.random_mlp(1, (20, 12, 12, 3)), (20,))
    x = torch.rand(20, generator=nets.generator(1))
    label = int(network(x[None].double()).argmax())
    decided = []
    for eps in (0.1, 0.15, 0.2):
        problem = Problem.robustness(network, x, label, eps)
        assert Auto().supports(problem) is None
        result = solve(problem, Budget(seconds=20))
        if CROWN().verify(problem, Budget()).verdict is Verdict.UNKNOWN and result.verdict is Verdict.VERIFIED:
            decided.append(eps)
            assert result.stats["stages"][-1].startswith("LPBaB")
    assert decided


def tanh(eps: float) -> Problem:
    """Linear bounds prove it at 0.02, attacks break it at 0.2, and in between it takes more."""
    g = nets.generator(0)
    ops: list[Op] = []
    for inputs in (20, 9):
        ops += [Linear(torch.randn(9, inputs, generator=g), torch.zeros(9)), Smooth("tanh")]
    network = chain((20,), [*ops, Linear(torch.randn(2, 9, generator=nets.generator(1)), torch.zeros(2))])
    x = torch.rand(20, generator=nets.generator(2))
    return Problem.robustness(network, x, int(network(x[None].double()).argmax()), eps)


def test_raised_lines_decide_what_fixed_ones_leave_open() -> None:
    """Of sigmoids: boxes of so many inputs are not split, and programs do not take them."""
    parts = nn.Linear(20, 16), nn.Sigmoid(), nn.Linear(16, 16), nn.Sigmoid(), nn.Linear(16, 3)
    model = nets.randomised(nn.Sequential(*parts), 5)
    for layer in (parts[0], parts[2]):
        assert isinstance(layer, nn.Linear)
        layer.weight.mul_(5)  # steep, and about 0 in the middle of the inputs
        layer.bias.sub_(layer.weight.sum(1) / 2)
    network = to_network(model, (20,))
    x = torch.rand(20, generator=nets.generator(5))
    problem = Problem.robustness(network, x, int(network(x[None].double()).argmax()), 0.095)
    assert CROWN().verify(problem).verdict is Verdict.UNKNOWN
    result = solve(problem)
    assert result.verdict is Verdict.VERIFIED
    assert result.stats["stages"][-1].startswith("BaB")
    assert result.stats["tried"][-1].get("domains", 0) == 0


@pytest.mark.slow
def test_without_a_limit_of_time_there_is_an_end_all_the_same() -> None:
    results = [Auto(rounds=1).verify(tanh(eps), Budget()) for eps in (0.02, 0.11, 0.2)]
    assert [each.verdict for each in results] == [Verdict.VERIFIED, Verdict.VERIFIED, Verdict.FALSIFIED]
    assert results[1].stats["tried"][-1]["closed"] == 1.0, "the intervals of neurons were split"


def test_with_a_limit_of_time_all_of_it_is_used() -> None:
    result = Auto(rounds=1).verify(tanh(0.14), Budget(1.0))
    assert result.reason in (None, Reason.TIMEOUT), "there is no giving up before"


@pytest.mark.slow
def test_operands_of_maxima_are_split() -> None:
    """``lp-bab`` splits no maximum, and linear bounds alone do not decide."""
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 12), nn.ReLU()]
    network = to_network(nets.randomised(nn.Sequential(*layers, nn.Linear(12, 3)), 1), (1, 6, 6))
    x = torch.rand(1, 6, 6, generator=nets.generator(4))
    label = int(network(x[None].double()).argmax())
    deciders = set()
    for eps in (0.02, 0.08, 0.12, 0.14):
        result = Auto().verify(Problem.robustness(network, x, label, eps), Budget(60.0))
        assert result.verdict is not Verdict.UNKNOWN
        deciders.add(result.stats["stages"][-1].partition("(")[0])
    assert "BaB" in deciders
