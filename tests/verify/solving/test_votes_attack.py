"""The attack on a derandomized vote finds what the certificate does not cover, and nothing that it does."""

from __future__ import annotations

import pytest
import torch

from assay.verify.backends.smoothing.derandomized import Derandomized
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.norms import PATCH
from assay.verify.core.problem import Problem
from assay.verify.core.result import NETWORK, Reason, Verdict
from assay.verify.solving import stages
from assay.verify.solving.votes_attack import DerandomizedAttack
from tests.nets import generator

X = torch.rand(1, 6, 6, generator=generator(1))


def problem(bias: float, eps: int) -> Problem:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3)).eval()
    with torch.no_grad():
        model[1].bias += torch.tensor([bias, 0.0, 0.0])
    return Problem.robustness(model, X, 0, eps, PATCH)


@pytest.mark.parametrize("seen", ["band", "block"])
def test_attack_and_certificate_never_disagree(seen: str) -> None:
    verdicts = set()
    for bias in (0.1, 0.3, 2.0):
        for eps in (1, 3):
            asked = problem(bias, eps)
            proof = Derandomized(seen, 2).verify(asked)  # type: ignore[arg-type]
            attack = DerandomizedAttack(seen, 2, "sparse-rs(queries=40)")  # type: ignore[arg-type]
            (found,) = stages.decide(attack, [asked], Budget())
            assert found.subject == proof.subject != NETWORK
            assert {proof.verdict, found.verdict} != {Verdict.VERIFIED, Verdict.FALSIFIED}
            if found.counterexample is not None:
                assert bool(asked.region.contains(found.counterexample[None]))
                assert Derandomized(seen, 2).classify(asked.network, found.counterexample, 0) != 0  # type: ignore[arg-type]
            verdicts |= {proof.verdict, found.verdict}
    assert {Verdict.VERIFIED, Verdict.FALSIFIED} <= verdicts


def test_what_cannot_be_attacked_is_declined() -> None:
    ball = Problem.robustness(problem(0.1, 1).network, X, 0, 0.1)
    assert DerandomizedAttack().verify(ball).reason is Reason.UNSUPPORTED
    assert DerandomizedAttack().verify(problem(2.0, 1), Budget(0)).reason is Reason.TIMEOUT
    with pytest.raises(InputError, match="unknown attack"):
        DerandomizedAttack(attack="magic")
    with pytest.raises(InputError, match="unknown view"):
        DerandomizedAttack(seen="all")  # type: ignore[arg-type]
