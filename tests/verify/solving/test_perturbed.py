"""Semantic robustness: what is verified no parameter breaks, what is falsified breaks the model itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import to_network
from assay.verify.core.result import Reason, Verdict
from assay.verify.perturbations import Perturbation
from assay.verify.registry import get_verifier
from assay.verify.solving.perturbed import Perturbed, attack, verify
from tests.breadth import seeds
from tests.nets import generator, random_cnn

CROWN = get_verifier("crown")


def question(seed: int, text: str) -> Perturbed:
    x = torch.rand(1, 8, 8, dtype=torch.float64, generator=generator(seed))
    network = to_network(random_cnn(seed), (1, 8, 8))
    return Perturbed(network, x, int(network(x[None])[0].argmax()), Perturbation.parse(text))


@pytest.mark.parametrize("text", ["rotation(20)", "translation(0.4)", "brightness(0.3)+contrast(0.3)"])
@seeds(3, of=20)
def test_what_is_verified_no_parameter_breaks(text: str, seeds: range) -> None:
    verdicts = []
    for seed in seeds:
        asked = question(seed, text)
        result = verify(asked, CROWN, Budget(2))
        low, high = asked.perturbation.low, asked.perturbation.high
        at = low + (high - low) * torch.rand(500, len(low), dtype=torch.float64, generator=generator(seed))
        _, margins, right = asked.answers(at)
        if result.verdict is Verdict.VERIFIED:
            assert bool(right.all())
            assert result.margin is not None
            assert result.margin <= float(margins.min()) + 1e-6
            assert result.stats["closed"] == pytest.approx(1.0)
        if result.verdict is Verdict.FALSIFIED:
            assert result.counterexample is not None
            assert int(asked.network(result.counterexample[None])[0].argmax()) != asked.label
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
        asked = Perturbed(network, x, 0, Perturbation.parse(f"brightness({shift})"))
        assert verify(asked, CROWN).verdict is verdict
    found = attack(Perturbed(network, x, 0, Perturbation.parse("contrast(1,2.5)")))
    assert found is not None
    assert float(found.image[0, 2, 2]) >= 0.5
    result = verify(Perturbed(network, x, 0, Perturbation.parse("contrast(1,2.5)")), CROWN)
    assert result.stats["parameters"]["contrast"] >= 2.0


def test_cells_are_halved_until_all_is_proved() -> None:
    asked = question(3, "rotation(60)")
    result = verify(asked, get_verifier("ibp"), Budget(20))
    assert result.verdict is not Verdict.VERIFIED or result.stats["cells"] > 1


def test_without_time_nothing_is_proved() -> None:
    result = verify(question(0, "rotation(5)"), CROWN, Budget(0))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.TIMEOUT)


def test_a_method_that_cannot_read_the_network_says_so() -> None:
    result = verify(question(0, "rotation(0.1)"), get_verifier("input-split"), Budget(5))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.UNSUPPORTED)
    assert "inputs" in result.stats["explanation"]


def test_what_is_no_question_is_refused() -> None:
    network, p = to_network(random_cnn(0), (1, 8, 8)), Perturbation.parse("rotation(1)")
    x = torch.rand(1, 8, 8, dtype=torch.float64, generator=generator(0))
    for asked, words in (
        (lambda: Perturbed(network, x[:, :3], 0, p), "of the shape that the network takes"),
        (lambda: Perturbed(network, x + 1, 0, p), "values from 0 to 1"),
        (lambda: Perturbed(network, x * torch.nan, 0, p), "values from 0 to 1"),
        (lambda: Perturbed(network, x, 99, p), "out of range"),
        (lambda: Perturbed(network, x, 0, "rotation(1)"), "Perturbation.parse"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=words):
            asked()


class Wrapping(nn.Module):
    """2e8 times the sum of all pixels in whole numbers, which wrap around."""

    def forward(self, x: Tensor) -> Tensor:
        large = (x.flatten(1) * 4096).sum(1, keepdim=True).to(torch.int32) * 200_000
        return torch.cat([large.to(x.dtype), torch.zeros_like(large).to(x.dtype) - 1], 1)


def test_whole_numbers_that_may_wrap_around_prove_nothing() -> None:
    x = torch.full((1, 3, 3), 0.25, dtype=torch.float64)
    network = to_network(Wrapping().eval(), (1, 3, 3))
    assert network.held is not None
    asked = Perturbed(network, x, 0, Perturbation.parse("brightness(0.05)"))
    assert verify(asked, get_verifier("ibp"), Budget(2)).verdict is not Verdict.VERIFIED
