"""Proofs of what other methods have found: whose search they come from, and what becomes of a claim that it refutes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assay.verify.backends.bab.programs.lp_bab import LPBaB
from assay.verify.check.checker import Rejected
from assay.verify.core.budget import Budget
from assay.verify.core.errors import AlarmError, UnsupportedError
from assay.verify.core.problem import Problem
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.registry import get_verifier
from assay.verify.solving import parts, proofs
from assay.verify.solving.mended import placed
from assay.verify.solving.parts import Files
from tests.verify.backends.test_lp_bab import hard
from tests.verify.programs.cases import case, lowered


def said(problem: Problem) -> Result:
    """What a method says that keeps no proof."""
    return Result(problem.id, "milp()", Verdict.VERIFIED, guarantee=Guarantee.NUMERICAL)


def test_what_keeps_no_proof_is_proved_by_a_search_that_is_named() -> None:
    _, report = proofs.accepted(hard(), get_verifier("milp").verify(hard()))
    assert report["claim"] == "unsat"
    assert report["by"] == "input-split"


def test_searches_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where inputs are many, and one search ends with nothing that could be written, the next one is asked."""
    monkeypatch.setattr(proofs, "INPUTS", 0)
    monkeypatch.setattr("assay.verify.backends.bab.neurons.record.Record.document", lambda self: None)
    assert proofs.accepted(hard(), said(hard()))[1]["by"] == "lp-bab"
    monkeypatch.setattr(LPBaB, "verify", lambda self, problem, budget: replace(said(problem), certificate=None))
    with pytest.raises(UnsupportedError, match="no certificate: no proof was found"):
        proofs.accepted(hard(), said(hard()))


def test_a_claim_that_is_false_is_an_alarm(tmp_path: Path) -> None:
    problem, true = case("mlp", 5)
    false = lowered(problem, -0.1 - true)
    with pytest.raises(AlarmError, match="has found a counterexample"):
        proofs.accepted(false, said(false))
    files = Files.of_problem(false)
    net, prop = tmp_path / "net.onnx", tmp_path / "prop.vnnlib"
    net.write_bytes(files.model)
    prop.write_bytes(files.prop)
    result, certificate = proofs.checked(net, prop, [false], said(false), 20.0)
    assert certificate is None
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.NUMERICAL)
    assert "milp() is false" in result.stats["alarm"]
    result, certificate = proofs.checked(net, prop, [problem], said(problem), 20.0)
    assert certificate is None  # the files are about another property
    assert result.verdict is not Verdict.VERIFIED or result.guarantee is Guarantee.NUMERICAL


def test_no_other_proof_is_sought_in_less_time_than_halves_took() -> None:
    result = replace(said(hard()), stats={"boxes": 3}, seconds=1000.0)
    with pytest.raises(UnsupportedError, match="proved by halves of the region, and there is less time"):
        proofs.accepted(hard(), result, Budget(500.0))
    assert proofs.accepted(hard(), replace(result, seconds=0.0), Budget(500.0))[1]["claim"] == "unsat"


def test_leaves_of_programs_that_are_spoilt_are_searched_from_where_they_are() -> None:
    problem = hard()
    result = LPBaB().verify(problem, Budget())
    files = Files.of_problem(problem)
    part = parts.of_search(files, 0, problem.spec, result.certificate)
    assert part is not None
    slopes = part.arrays["slopes"].copy()
    slopes[0] = 0
    wrong = replace(part, arrays=part.arrays | {"slopes": slopes})
    with pytest.raises(Rejected, match="not proved") as why:
        files.certificate("tree", "real", [wrong]).check()
    _, left = why.value.left
    mended = proofs.reopened(files, 0, wrong, left, problem, Budget(60).started())
    assert files.certificate("tree", "real", [mended]).check()["claim"] == "unsat"
    assert mended.arrays["slopes"].dtype == np.float32
    assert len(placed(mended.arrays["tree"].tolist())) > len(wrong.arrays["tree"])
