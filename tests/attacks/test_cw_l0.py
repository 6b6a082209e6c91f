"""Carlini and Wagner's l0 attack: the fewest changed values, in boxes only."""

from __future__ import annotations

import pytest
import torch

from assay.attacks.cw_l0 import CWL0
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.region import Box, LpBall
from tests.attacks.attack_models import linear, mlp, samples

NET = mlp(0)
X = samples(1, 16)
LABELS = NET(X).argmax(1)


def test_the_l0_form_changes_as_few_values_as_there_need_to_be() -> None:
    """Label 0 leads by 1: the first value alone can end that, the others only two together."""
    model = linear([[-2.2, -1.2, -1.2, 0.01], [0.0] * 4], [1 + 0.5 * (2.2 + 1.2 + 1.2 - 0.01), 0.0])
    x, labels = torch.full((1, 4), 0.5), torch.tensor([0])
    result = CWL0().run(model, x, labels, LpBall(x, 0.5, domain=None))
    assert result.success.tolist() == [True]
    assert result.distance.tolist() == [1]
    assert (result.adversarial != x).nonzero().tolist() == [[0, 0]]
    fixed = Box(torch.tensor([0.5, 0.0, 0.0, 0.0]), torch.tensor([0.5, 1.0, 1.0, 1.0]))
    result = CWL0().run(model, x, labels, fixed)
    assert result.success.tolist() == [True]
    assert result.distance.tolist() == [2]


def test_the_l0_form_needs_a_box() -> None:
    with pytest.raises(UnsupportedError, match="cw-l0 needs a region that is a box"):
        CWL0().run(NET, X, LABELS, LpBall(X, 0.5, 2, domain=None))
