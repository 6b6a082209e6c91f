"""Problems that are one property together: how verdicts, reasons, margins and time combine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch

from assay.verify.backends.crown import CROWN
from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.network import to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.core.spec import Spec
from assay.verify.solving import union
from assay.verify.solving.auto import Auto
from tests.nets import random_mlp

V, F, U = Verdict.VERIFIED, Verdict.FALSIFIED, Verdict.UNKNOWN
INCOMPLETE, TIMEOUT, VACUOUS = Reason.INCOMPLETE, Reason.TIMEOUT, Reason.VACUOUS


def part(verdict=V, reason=None, margin=None, name="p", **more):
    point = torch.zeros(2) if verdict is F else None
    return Result(name, "m()", verdict, reason, margin=margin, counterexample=point, **more)


def unknown(reason, margin=None, **more):
    return part(U, reason, margin, **more)


@pytest.mark.parametrize(
    ("parts", "verdict", "reason"),
    [
        ([part(), part()], V, None),
        ([part(), part(F)], F, None),
        ([unknown(TIMEOUT), part(F), part()], F, None),
        ([part(), unknown(TIMEOUT)], U, TIMEOUT),
        ([unknown(TIMEOUT), unknown(INCOMPLETE)], U, INCOMPLETE),
        ([unknown(TIMEOUT), unknown(Reason.MEMORY), unknown(INCOMPLETE)], U, Reason.MEMORY),
        ([unknown(Reason.MEMORY), unknown(Reason.UNSUPPORTED)], U, Reason.UNSUPPORTED),
        ([unknown(VACUOUS), part()], V, None),
        ([unknown(VACUOUS), part(F)], F, None),
        ([unknown(VACUOUS), unknown(TIMEOUT)], U, TIMEOUT),
        ([unknown(VACUOUS), unknown(VACUOUS)], U, VACUOUS),
    ],
)
def test_verdicts_combine(parts, verdict, reason):
    for order in (parts, parts[::-1]):
        result = union.combine(order)
        assert (result.verdict, result.reason) == (verdict, reason)
        assert (result.counterexample is not None) == (verdict is F)
        assert len(result.stats["parts"]) == len(parts)


def test_every_mixture_is_verified_only_if_all_that_is_real_is():
    kinds = [part(), part(F), unknown(VACUOUS), *(unknown(reason) for reason in Reason if reason is not VACUOUS)]
    for first in kinds:
        for second in kinds:
            verdicts = {each.verdict for each in (first, second) if each.reason is not VACUOUS}
            expected = F if F in verdicts else V if verdicts == {V} else U
            assert union.combine([first, second]).verdict is expected


def test_the_margin_is_the_smallest_and_none_where_one_is_missing():
    assert union.combine([part(margin=0.5), part(margin=0.2)]).margin == 0.2
    assert union.combine([part(margin=0.5), unknown(INCOMPLETE, -3.0)]).margin == -3.0
    assert union.combine([part(margin=0.5), part()]).margin is None
    assert union.combine([part(margin=0.5), unknown(VACUOUS)]).margin == 0.5


def test_the_guarantee_is_the_weakest_of_what_the_verdict_rests_on():
    rigorous, statistical = part(guarantee=Guarantee.RIGOROUS), part(guarantee=Guarantee.STATISTICAL, confidence=0.99)
    both = union.combine([rigorous, statistical, statistical])
    assert both.guarantee is Guarantee.STATISTICAL
    assert both.confidence == pytest.approx(0.98)
    broken = part(F, guarantee=Guarantee.EMPIRICAL)
    assert union.combine([broken, rigorous]).guarantee is Guarantee.EMPIRICAL
    assert union.combine([rigorous, rigorous]).confidence is None


def test_what_explains_the_chief_part_explains_the_whole():
    parts = [
        part(),
        unknown(TIMEOUT, stats={"explanation": "late"}),
        unknown(INCOMPLETE, stats={"explanation": "loose"}),
    ]
    result = union.combine(parts)
    assert (result.stats["part"], result.stats["explanation"]) == (2, "loose")
    assert union.combine([part(F), unknown(Reason.NUMERICAL, stats={"alarm": "wrong"})]).stats["alarm"] == "wrong"


def test_one_part_is_the_answer_itself_and_no_part_is_vacuous():
    one = part(margin=0.1)
    assert union.combine([one]) is one
    result = union.verify(CROWN(), [], Budget())
    assert (result.verdict, result.reason) == (U, VACUOUS)


def test_the_whole_survives_json():
    parts = [part(F, name="a", seconds=0.5), unknown(TIMEOUT, -float("inf"), name="b")]
    result = union.combine(parts)
    assert Result.from_json(result.to_json()).to_json() == result.to_json()
    assert union.combine(parts[::-1]).problem_id != result.problem_id


@dataclass(frozen=True)
class Told:
    """Says of each box, known by its lowest value, what it is told to; keeps whom it was asked."""

    verdicts: dict[float, Verdict]
    seconds: float = 0.0
    asked: list[float] = field(default_factory=list)
    name: ClassVar[str] = "told"
    complete: ClassVar[bool] = True
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def supports(self, problem: Problem) -> str | None:
        return None

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        box = problem.region.box()
        key = round(float(box.lower.min()), 3)
        self.asked.append(key)
        time.sleep(self.seconds)
        verdict = self.verdicts[key]
        point = box.centre.float() if verdict is F else None
        return Result(problem.id, "told", verdict, INCOMPLETE if verdict is U else None, counterexample=point)


@dataclass(frozen=True)
class Batched(Told):
    """The same, all at once."""

    def verify_many(self, problems: Sequence[Problem], budget: Budget = UNLIMITED) -> list[Result]:
        return [self.verify(problem, budget) for problem in problems]


@pytest.fixture(scope="module")
def network():
    return to_network(random_mlp(3), (4,))


def problems(network, *corners, unsafe=True):
    """One problem for each box that begins at a corner; all of the output space is unsafe, or next to nothing."""
    spec = Spec.halfspaces([[1.0, 0.0, 0.0]], [1e9 if unsafe else -1e9])
    boxes = [Box(torch.full((4,), corner), torch.full((4,), corner + 0.1)) for corner in corners]
    return [Problem(network, box, spec) for box in boxes]


def test_the_first_falsified_part_ends_the_work(network):
    method = Told({0.1: U, 0.2: F, 0.3: U})
    result = union.verify(method, problems(network, 0.1, 0.2, 0.3), Budget())
    assert (result.verdict, result.stats["part"]) == (F, 1)
    assert method.asked == [0.1, 0.2]


def test_a_batch_is_asked_at_once(network):
    method = Batched({0.1: V, 0.2: V})
    assert union.verify(method, problems(network, 0.1, 0.2, unsafe=False), Budget()).verdict is V
    assert method.asked == [0.1, 0.2]


def test_the_parts_share_one_deadline(network):
    method = Told({0.1: U, 0.2: U, 0.3: U}, seconds=0.2)
    result = union.verify(method, problems(network, 0.1, 0.2, 0.3), Budget(0.1))
    assert (result.verdict, result.reason) == (U, INCOMPLETE)
    assert [each["reason"] for each in result.stats["parts"]] == ["incomplete", "timeout", "timeout"]
    assert method.asked == [0.1]


def test_each_verdict_is_checked_before_it_counts(network):
    method = Told({0.1: F, 0.2: V})
    lies = union.verify(method, problems(network, 0.1, 0.2, unsafe=False), Budget())
    assert (lies.verdict, lies.reason) == (U, Reason.NUMERICAL)
    assert "alarm" in lies.stats
    assert method.asked == [0.1, 0.2]  # a claim that fails its check does not end the work


def test_auto_leaves_the_rest_once_a_part_is_falsified(network):
    easy, hard = problems(network, 0.1, 0.2)
    hard = Problem(network, hard.region, Spec.halfspaces([[1.0, 0.0, 0.0]], [-1e9]))
    result = union.verify(Auto(), [easy, hard], Budget())
    assert (result.verdict, result.stats["part"]) == (F, 0)
    stages = [len(each["stats"]["stages"]) for each in result.stats["parts"]]
    assert stages == [1, 1]
    assert union.verify(Auto(), [hard, hard], Budget()).verdict is V
