"""DeepFool where its steps are known by hand."""

from __future__ import annotations

from math import inf

import pytest
import torch

from assay.attacks.deepfool import DeepFool
from assay.verify.core.region import LpBall
from tests.attacks.attack_models import linear

# From the origin the boundary of class 1 is at 0.5 / |(1, 0)| and that of class 2 at 3 / |(3, 4)|, in the dual norm.
MODEL = linear([[0.0, 0.0], [1.0, 0.0], [3.0, 4.0]], [0.0, -0.5, -3.0])
X = torch.zeros(1, 2)


@pytest.mark.parametrize(("p", "expected"), [(2, 0.5), (inf, 3 / 7)])
def test_the_nearest_boundary_is_chosen_not_the_largest_rival(p: float, expected: float) -> None:
    result = DeepFool(refine=0).run(MODEL, X, torch.tensor([0]), LpBall(X, 2.0, p, (-1.0, 1.0)))
    assert float(result.distance) == pytest.approx(1.02 * expected, rel=1e-3)
    # The clean sample, again for its gradients, one step; then the replay, and the point in the region.
    assert result.queries.tolist() == [5]


def test_one_candidate_looks_at_the_largest_rival_only() -> None:
    """At 0.3 class 1 lacks 0.2 at slope 1 and class 2 lacks 0.9 at slope 5: that is nearer, but not looked at."""
    x = torch.full((1, 2), 0.3)
    for candidates, expected in ((1, 0.2), (2, 0.18)):
        attack = DeepFool(candidates=candidates, refine=0, overshoot=0.001)
        result = attack.run(MODEL, x, torch.tensor([0]), LpBall(x, 2.0, 2, (-1.0, 1.0)))
        assert float(result.distance) == pytest.approx(expected, rel=0.01)
