"""Affine operations in a row are multiplied out for branch and bound, and what that rounds is charged: in leaves that
linear programs settle, and where products underflow."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from assay.verify.backends.bab.neurons.bab import BaB
from assay.verify.core.budget import Budget
from assay.verify.core.network import to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Verdict
from assay.verify.core.spec import Spec

B = 2.0**54  # B - 1 is no float64 number


def _net(*layers: Sequence[Sequence[float]] | None, last: float = 0.0) -> nn.Module:
    """Linear layers by their weights, a ReLU where there is None; ``last``: the constant of the last but one."""
    modules: list[nn.Module] = []
    for weight in layers:
        if weight is None:
            modules.append(nn.ReLU())
            continue
        linear = nn.Linear(len(weight[0]), len(weight)).double()
        linear.weight.data = torch.tensor(weight, dtype=torch.float64)
        linear.bias.data.zero_()
        modules.append(linear)
    if last:
        linears = [m for m in modules if isinstance(m, nn.Linear)]
        linears[-2].bias.data += last
    return nn.Sequential(*modules).eval().requires_grad_(False)


CANCEL = ([[1.0], [1.0]], [[B, 0.0], [-1.0, B]], [[1.0, -1.0]])  # x, and 0 where B - 1 is rounded to B
FOLD = ([[1.0], [-1.0]], None, [[1.0, -1.0]])  # x by unstable neurons
NETS = {
    "cancelled": _net(*CANCEL),
    "cancelled behind unstable neurons": _net(*FOLD, *CANCEL),
    # 4 relu(x - 0.75): the active half of the neuron, which decides, has no point where x - 0.75 is taken for -0.75
    "a half taken to be empty": _net(*CANCEL, None, [[4.0]], last=-0.75),
    "1 lost in a sum behind unstable neurons": _net(*FOLD, [[1.0]] * 3, [[B, 1.0, -B]]),
    "underflow": _net([[2.0**-600]], [[2.0**-600]], [[2.0**700]], [[2.0**500]]),  # x
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("method", [BaB(), BaB(output=False), BaB(neurons=0), BaB(steps=0, below=0)])
def test_what_a_row_of_affine_operations_rounds_is_no_proof(name: str, method: BaB) -> None:
    """All reach 1 at x = 1 in the reals, and unsafe is what is at least 0.5."""
    low = -1.0 if "unstable" in name else 0.0
    box = Box(torch.tensor([low], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64))
    problem = Problem(to_network(NETS[name], (1,)), box, Spec.halfspaces([[-1.0]], [-0.5]))
    result = method.verify(problem, Budget(20))
    assert result.verdict is not Verdict.VERIFIED
    assert result.margin is None or result.margin <= -0.5
