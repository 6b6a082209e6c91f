"""Tests of verify.backends.ibp: closed forms, and the merging of the last layer with the specification."""

from __future__ import annotations

import pytest
import torch

from assay.verify.backends.ibp import IBP
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import chain
from assay.verify.core.ops import Linear, Relu
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Verdict
from assay.verify.core.spec import Spec

D = torch.float64
# y = (relu(x0 - x1), relu(x1)) W with x in [0, 1]^2: the ReLUs lie in [0, 1].
NETWORK = chain(
    (2,),
    [
        Linear(torch.tensor([[1.0, -1.0], [0.0, 1.0]], dtype=D), torch.zeros(2, dtype=D)),
        Relu(),
        Linear(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=D), torch.tensor([0.5, 0.0], dtype=D)),
    ],
)
UNIT = Box(torch.zeros(2), torch.ones(2))


def test_closed_form() -> None:
    bounds = IBP().bound(NETWORK, UNIT, torch.eye(2, dtype=D), Budget())
    assert bounds.lower[0].tolist() == pytest.approx([0.5, -1.0], abs=1e-12)
    assert bounds.upper[0].tolist() == pytest.approx([2.5, 1.0], abs=1e-12)


def test_the_last_layer_is_merged_with_the_objective() -> None:
    """y0 - y1 = 2 h1 + 0.5 with h1 in [0, 1]: without merging it would be at least -0.5."""
    bounds = IBP().bound(NETWORK, UNIT, torch.tensor([[1.0, -1.0]], dtype=D), Budget())
    assert (bounds.lower.item(), bounds.upper.item()) == pytest.approx((0.5, 2.5), abs=1e-12)
    result = IBP().verify(Problem(NETWORK, UNIT, Spec.robust(0, 2)), Budget())
    assert result.verdict is Verdict.VERIFIED
    assert result.margin == pytest.approx(0.5, abs=1e-12)


def test_objectives_of_a_wrong_shape_are_refused() -> None:
    outputs = NETWORK.output_size
    for shape in ((3, 3), (outputs,), (), (1, 1, 1, outputs)):
        with pytest.raises(InputError, match="expected an objective"):
            IBP().bound(NETWORK, UNIT, torch.ones(shape, dtype=D), Budget())


def test_float32_bounds_are_close() -> None:
    bounds = IBP("float32").bound(NETWORK, UNIT, torch.eye(2, dtype=D), Budget())
    torch.testing.assert_close(bounds.lower, torch.tensor([[0.5, -1.0]], dtype=D), rtol=0, atol=1e-4)
