"""Whatever can be split, however it is searched: verdicts are those of enumeration, and no planted hole is passed over.

Holes: y = 1 - height * relu(1 - steepness * |x - x*|_1), disguised, with all of it in a corner of the box that no
gradient leads to; at their twins, which are not as deep, the claim is true.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from assay.verify.check.replay import replay
from assay.verify.core.budget import Budget
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Reason, Verdict
from assay.verify.registry import get_verifier
from tests.breadth import seeds
from tests.contract.test_exact_agreement import CLOSE, agrees, supported
from tests.verify.backends.test_input_split_soundness import below, peak, value
from tests.verify.programs.cases import KINDS, cases

SEARCHES = ("bab", "input-split", "lp-bab")
EXACT = (*SEARCHES, "milp", "smt")
LONG, CLOSELY = 20.0, 1.0  # seconds; where the margin is next to nothing a search may say that it does not know


@pytest.mark.parametrize("kind", KINDS)
@seeds(1, of=20, start=2002)
def test_all_that_split_agree_with_enumeration(kind: str, seeds: range) -> None:
    """140 networks in all; a margin of 1e-4 may stay open where boxes or intervals are halved."""
    decided = asked = 0
    for problem, true in cases(kind, seeds):
        for name in EXACT:
            if not supported(name, problem):
                continue
            result = get_verifier(name).verify(problem, Budget(CLOSELY if abs(true) < 1e-3 else LONG))
            if result.verdict is Verdict.UNKNOWN and result.reason is Reason.TIMEOUT:
                assert name in ("input-split", "smt") or abs(true) < 1e-3
            else:
                agrees(result, problem, true)
            asked, decided = asked + 1, decided + (result.verdict is not Verdict.UNKNOWN)
    assert asked >= 2 * len(seeds)
    assert decided >= 0.7 * asked


def planted(seed: int, height: float) -> tuple[Problem, float]:
    """A hole and how far below the bound it is, if it is one."""
    margin = (1e-1, 1e-3, 1e-6)[seed % 3]
    network, at = peak(2 + seed % 2, (5.0, 25.0, 100.0)[seed % 5 % 3], height, seed)
    assert value(network, at) == [1 - Fraction(height)]
    return Problem(network, Box(torch.zeros_like(at), torch.ones_like(at)), below(-0.5 + margin)), margin


@pytest.mark.parametrize("name", SEARCHES)
@seeds(1, of=60)
def test_planted_holes_are_found_and_never_verified(name: str, seeds: range) -> None:
    found = 0
    for seed in seeds:
        problem, margin = planted(seed, 1.5)
        result = get_verifier(name).verify(problem, Budget(60.0))
        assert result.verdict is not Verdict.VERIFIED
        assert result.margin is None or result.margin <= -margin + CLOSE
        if result.counterexample is not None:
            assert replay(problem, result.counterexample).confirmed
            found += 1
    assert found >= 0.9 * len(seeds)


@pytest.mark.parametrize("name", SEARCHES)
@seeds(1, of=80)
def test_their_safe_twins_are_verified(name: str, seeds: range) -> None:
    for seed in seeds:
        problem, _ = planted(seed, 0.625)
        assert get_verifier(name).verify(problem, Budget(60.0)).verdict is Verdict.VERIFIED
