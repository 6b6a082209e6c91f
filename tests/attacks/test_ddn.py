"""DDN: the radius of its steps by hand."""

from __future__ import annotations

import pytest
import torch

from assay.attacks.ddn import DDN
from assay.verify.core.region import LpBall
from tests.attacks.attack_models import linear


@pytest.mark.parametrize(("radius", "broken"), [(0.4, False), (0.6, True)])
def test_one_step_goes_to_the_grown_radius(radius: float, broken: bool) -> None:
    """The boundary is at distance 0.5; the clean sample is right, so that the radius grows by gamma first."""
    model = linear([[3.0, 4.0], [0.0, 0.0]], [2.5, 0.0])
    x = torch.zeros(1, 2)
    attack = DDN(steps=1, radius=radius, gamma=0.1, refine=0)
    result = attack.run(model, x, torch.tensor([0]), LpBall(x, 2.0, 2, domain=None))
    assert result.success.tolist() == [broken]
    if broken:
        assert float(result.distance) == pytest.approx(0.66, rel=1e-4)
        assert result.adversarial[0].tolist() == pytest.approx([-0.6 * 0.66, -0.8 * 0.66], rel=1e-4)
