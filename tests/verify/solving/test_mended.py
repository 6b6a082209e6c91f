"""Trees whose leaves are spoilt are searched again there, until the checker accepts them."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest

from assay.verify.backends.bab.neurons.bab import BaB
from assay.verify.check import bounds
from assay.verify.check.certificate import Certificate
from assay.verify.check.question import Rejected, opened
from assay.verify.core.budget import Budget
from assay.verify.solving import parts, proofs
from assay.verify.solving.mended import placed
from assay.verify.solving.parts import Files, Part
from tests.breadth import seeds
from tests.verify.programs.cases import case

NODES = BaB(neurons=100, passes=1, first=1, below=1, together=3, steps=1, leaves=0, tried=1, proof=True)  # many nodes


def spoilt(part: Part, leaf: int) -> Part:
    """Without what proves one leaf."""
    slopes = np.add.accumulate(part.arrays["slopes"], dtype=np.uint8)
    slopes[leaf] = 0
    where = placed(part.arrays["tree"].tolist())
    depths = [len(path) for code, (_, path) in zip(part.arrays["tree"], where, strict=True) if code == -1]
    multipliers, begin = part.arrays["multipliers"].copy(), sum(depths[:leaf])
    multipliers[begin : begin + depths[leaf]] = 0
    arrays = {"slopes": np.diff(slopes, axis=0, prepend=np.uint8(0)), "multipliers": multipliers}
    return replace(part, arrays=part.arrays | arrays)


@pytest.mark.slow
@seeds(1, 40, start=5)
def test_leaves_that_are_not_proved_are_searched_again(seeds: range) -> None:
    count = 0
    for seed in seeds:
        problem, _ = case("mlp", seed)
        result = NODES.verify(problem)
        if result.certificate is None:
            continue
        files = Files.of_problem(problem)
        part = parts.of_record(files, 0, problem.spec, result.certificate)
        assert part is not None
        leaves = int((part.arrays["tree"] == -1).sum())
        for leaf in range(leaves):  # the first one that is missed
            wrong = spoilt(part.fuller or part, leaf)
            try:
                files.certificate("tree", "real", [wrong]).check()
                continue
            except Rejected as why:
                number, left = why.left
            assert (number, len(left)) == (0, 1)
            assert wrong.arrays["tree"][left[0]] == -1
            mended = proofs.reopened(files, 0, wrong, left, problem, Budget(60).started())
            assert files.certificate("tree", "real", [mended]).check()["claim"] == "unsat"
            if "tree" in mended.arrays:  # a leaf whose every neuron is split may need boxes instead
                assert len(mended.arrays["tree"]) > len(wrong.arrays["tree"])
                count += 1
            break
    assert count > 0


def test_what_cannot_be_proved_is_not_mended() -> None:
    """A tree that is one leaf, of a property that is false."""
    problem, margin = case("mlp", 1)
    assert margin < 0
    files = Files.of_problem(problem)
    part = Part(parts.trees(len(files.parts[0][2]), [1.0] * sum(map(len, files.parts[0][2]))), [])
    with pytest.raises(proofs.Refuted, match="has found a counterexample"):
        proofs.reopened(files, 0, part, [0], problem, Budget(10).started())


def test_layers_are_bounded_in_full_before_leaves_are_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = case("mlp", 4)
    result, files, check = NODES.verify(problem), Files.of_problem(problem), Certificate.check
    part = parts.of_record(files, 0, problem.spec, result.certificate)
    assert part is not None
    assert [bounds.SIGNS] in part.layers
    assert ["layer1", bounds.SIGNS] in part.layers

    def strict(self: Certificate, exact: bool = False, until: float = inf) -> dict[str, Any]:
        if any(bounds.SIGNS in some for some in opened(self.content)[0]["parts"][0]["layers"]):
            raise Rejected("as though a leaf were not proved so", (0, [0]))
        return check(self, exact, until)

    monkeypatch.setattr(Certificate, "check", strict)
    monkeypatch.setattr(proofs, "reopened", None)
    certificate, report = proofs.proved(files, [problem], result)
    assert report["claim"] == "unsat"
    assert opened(certificate.content)[0]["parts"][0]["layers"] == [[None], [None, "layer1"]]
