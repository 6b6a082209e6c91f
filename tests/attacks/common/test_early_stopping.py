"""Early stopping: by hand, and the same samples broken in fewer queries."""

from __future__ import annotations

from math import inf

import pytest
import torch

from assay.attacks.apgd import APGDT
from assay.attacks.common.early_stopping import EarlyStopping, check_patience
from assay.attacks.square import Square
from assay.verify.core.errors import InputError
from assay.verify.core.region import LpBall
from tests.attacks.attack_models import mlp, samples


def test_samples_that_could_still_succeed_go_on() -> None:
    """Gaps of -1 at step 0 that shrink by 0.01, 0.001 and 0 a step; 100 steps, checked every fifth."""
    stopping = EarlyStopping(steps=100, patience=2.0, warmup=25)
    rates = torch.tensor([0.01, 0.001, 0.0], dtype=torch.float64)
    given_up = {step: stopping.should_stop(step, -1 + rates * step).tolist() for step in range(40)}
    assert [step for step, some in given_up.items() if any(some)] == [25, 30, 35]
    assert given_up[25] == [False, True, True]
    unbroken = torch.full((1,), -inf, dtype=torch.float64)
    assert not any(bool(EarlyStopping(100, 2.0, 10).should_stop(step, unbroken)) for step in range(40))
    assert not any(bool(EarlyStopping(100, inf, 10).should_stop(step, rates - 1).any()) for step in range(100))


def test_the_latter_half_is_what_counts() -> None:
    stopping = EarlyStopping(steps=20, patience=1.0, warmup=2)
    late = [-1.0] * 8 + [-0.7, -0.5]
    answers = [bool(stopping.should_stop(step, torch.tensor([gap]))) for step, gap in enumerate(late)]
    assert answers[7]
    assert not answers[9]  # half of the way in the last five steps, ten are left


@pytest.mark.slow
def test_attacks_break_the_same_samples_in_fewer_queries() -> None:
    net, x = mlp(0), samples(1, 12)
    labels, region = net(x).argmax(1), LpBall(x, 0.1, domain=None)
    for early, full in (
        (Square(queries=2000), Square(queries=2000, patience=inf)),
        (APGDT(), APGDT(patience=inf)),
    ):
        stopped, unstopped = early.run(net, x, labels, region), full.run(net, x, labels, region)
        assert torch.equal(stopped.success, unstopped.success)
        assert int(stopped.queries.sum()) < 0.7 * int(unstopped.queries.sum())


def test_patience_below_one_is_refused() -> None:
    for value in (0.5, torch.nan):
        with pytest.raises(InputError, match="patience must be a number of at least 1"):
            check_patience(value)
