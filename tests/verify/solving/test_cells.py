"""Perturbations cell by cell: what is verified no parameter breaks, what is falsified breaks the model itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from assay.verify.core.budget import Budget
from assay.verify.core.network import to_network
from assay.verify.core.problem import Problem
from assay.verify.core.result import Reason, Verdict
from assay.verify.perturbations import Perturbation, Perturbed
from assay.verify.registry import get_verifier
from assay.verify.solving import stages
from assay.verify.solving.cells import Cells
from tests.breadth import seeds
from tests.nets import generator, random_cnn


def question(seed: int, text: str) -> Perturbed:
    x = torch.rand(1, 8, 8, dtype=torch.float64, generator=generator(seed))
    network = to_network(random_cnn(seed), (1, 8, 8))
    return Perturbed.of(network, x, int(network(x[None])[0].argmax()), Perturbation.parse(text))


@pytest.mark.parametrize("text", ["rotation(20)", "translation(0.4)", "brightness(0.3)+contrast(0.3)"])
@seeds(3, of=9)
def test_what_is_verified_no_parameter_breaks(text: str, seeds: range) -> None:
    verdicts = []
    for seed in seeds:
        asked = question(seed, text)
        result = stages.decide(Cells(most=12), [asked], Budget())[0]
        low, high = asked.perturbation.low, asked.perturbation.high
        at = low + (high - low) * torch.rand(500, len(low), dtype=torch.float64, generator=generator(seed))
        margins = asked.spec.margin(asked.spec.rows(asked.behind(asked.images(at).double())))
        assert "alarm" not in result.stats
        if result.verdict is Verdict.VERIFIED:
            assert bool((margins > 0).all())
            assert result.margin is not None
            assert result.margin <= float(margins.min()) + 1e-6
            assert result.stats["closed"] == pytest.approx(1.0)
        if result.verdict is Verdict.FALSIFIED:
            assert result.counterexample is not None
            assert list(result.stats["parameters"].values()) == result.counterexample.tolist()
            assert int(asked.behind(asked.images(result.counterexample[None]))[0].argmax()) != asked.label
        verdicts.append(result.verdict)
    assert Verdict.VERIFIED in verdicts


class Corner(nn.Module):
    """Class 1 where the last pixel is above a half."""

    def forward(self, x: Tensor) -> Tensor:
        last = x.flatten(1)[:, -1:]
        return torch.cat([1 - last, last], 1)


def test_the_border_between_true_and_false_is_found() -> None:
    x = torch.full((1, 3, 3), 0.25, dtype=torch.float64)
    network = to_network(Corner().eval(), (1, 3, 3))
    for shift, verdict in ((0.2499, Verdict.VERIFIED), (0.2501, Verdict.FALSIFIED)):
        asked = Perturbed.of(network, x, 0, Perturbation.parse(f"brightness({shift})"))
        assert Cells().verify(asked).verdict is verdict
    result = Cells().verify(Perturbed.of(network, x, 0, Perturbation.parse("contrast(1,2.5)")))
    assert result.stats["parameters"]["contrast"] >= 2.0


def test_cells_are_halved_until_all_is_proved() -> None:
    asked = question(3, "rotation(60)")
    result = Cells("ibp", most=20).verify(asked)
    assert result.verdict is not Verdict.VERIFIED or result.stats["cells"] > 1
    few = Cells("ibp", most=1).verify(asked)
    assert few.stats["cells"] <= 1
    assert few.reason in (None, Reason.INCOMPLETE)


def test_without_time_nothing_is_proved() -> None:
    result = Cells().verify(question(0, "rotation(5)"), Budget(0))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.TIMEOUT)


def test_a_method_that_cannot_read_the_network_says_so() -> None:
    result = Cells("input-split").verify(question(0, "rotation(0.1)"))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED)
    assert "inputs" in result.stats["explanation"]


class Wrapping(nn.Module):
    """2e8 times the sum of all pixels in whole numbers, which wrap around."""

    def forward(self, x: Tensor) -> Tensor:
        large = (x.flatten(1) * 4096).sum(1, keepdim=True).to(torch.int32) * 200_000
        return torch.cat([large.to(x.dtype), torch.zeros_like(large).to(x.dtype) - 1], 1)


def test_whole_numbers_that_may_wrap_around_prove_nothing() -> None:
    x = torch.full((1, 3, 3), 0.25, dtype=torch.float64)
    network = to_network(Wrapping().eval(), (1, 3, 3))
    assert network.held is not None
    asked = Perturbed.of(network, x, 0, Perturbation.parse("brightness(0.05)"))
    assert Cells("ibp", most=20).verify(asked).verdict is not Verdict.VERIFIED


def test_problems_without_a_perturbation_are_those_of_the_method() -> None:
    network = to_network(random_cnn(0), (1, 8, 8))
    problem = Problem.robustness(network, torch.full((1, 8, 8), 0.5), 0, 0.001)
    cells, crown = Cells().verify(problem), get_verifier("crown").verify(problem)
    assert (cells.verdict, cells.margin) == (crown.verdict, crown.margin)
    assert Cells("smt").supports(problem) == get_verifier("smt").supports(problem)
