"""FMN: on a linear model the first step ends on the boundary."""

from __future__ import annotations

from math import inf

import pytest
import torch

from assay.attacks.fmn import FMN
from assay.verify.core.region import LpBall
from tests.attacks.attack_models import linear


@pytest.mark.parametrize("p", [1.0, 2.0, inf])
def test_one_step_reaches_the_boundary_of_a_linear_model(p: float) -> None:
    """The margin of label 0 is 2 x0, at a distance of 0.5 from 0 in every norm; a tie breaks the sample."""
    model = linear([[2.0, 0.0], [0.0, 0.0]], [0.0, 0.0])
    x = torch.full((1, 2), 0.5)
    result = FMN(steps=1, refine=0).run(model, x, torch.tensor([0]), LpBall(x, 1.0, p, (-1.0, 1.0)))
    assert result.success.tolist() == [True]
    assert float(result.distance) == pytest.approx(0.5, rel=1e-4)
    assert float(result.adversarial[0, 1]) == 0.5
