"""Statistics of a batch in training, and their gradients."""

from __future__ import annotations

import pytest
import torch

from assay.verify.frontends.live import Moments


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2), (2, 3, 4, 5), (2, 1, 1, 1)])
@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_moments_are_mean_and_variance_of_each_channel(shape: tuple[int, ...], shift: float) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + shift
    ours, axes = x.clone().requires_grad_(), [axis for axis in range(x.dim()) if axis != 1]
    theirs = x.clone().requires_grad_()
    moments, (variance, mean) = Moments.apply(ours), torch.var_mean(theirs, axes, correction=0)  # type: ignore[no-untyped-call]
    for a, b in zip(moments, (mean, variance), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-6 if shift else 1e-12)
    weights = torch.arange(1.0, shape[1] + 1, dtype=torch.float64)
    for a, b in ((moments[0], mean), (moments[1], variance), (moments[0] * moments[1], mean * variance)):
        (of_ours,) = torch.autograd.grad((weights * a).sum(), ours, retain_graph=True)
        (of_theirs,) = torch.autograd.grad((weights * b).sum(), theirs, retain_graph=True)
        torch.testing.assert_close(of_ours, of_theirs, rtol=1e-9, atol=1e-6 if shift else 1e-12)
