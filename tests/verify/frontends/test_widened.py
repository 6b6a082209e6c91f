"""Tests of verify.frontends.widened: a model in float64 is the model with the constants of its own precision."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.verify.frontends.widened import Widened
from tests import nets
from tests.verify.frontends.test_torch import Forward

FUNCTIONS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "layers": lambda m, x: m.l(F.relu(x.flatten(1))),
    "in-place": lambda m, x: m.l(F.relu_(x.flatten(1) * 3).sub_(0.5)),
    "written": lambda m, x: m.l(written(x)),
    "attention": lambda m, x: m.a(x, x, x)[0].softmax(-1),
    "cast": lambda m, x: m.l(x.double().to(m.l.weight.dtype).flatten(1)),
    "normalised": lambda m, x: F.layer_norm(m.b(x), (6,)),
    "constants": lambda m, x: x.flatten(1) * (m.l.weight * 2).sum(0) + torch.tensor(0.1),
}


def written(x: Tensor) -> Tensor:
    y = x.new_zeros(x.shape[0], 3, 6)
    y[:, 1:] = x[:, :2]
    y[:, 0].copy_(x[:, 2]).mul_(2)
    return y.view(x.shape[0], -1)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_is_the_model_in_float64(name: str) -> None:
    parts = {"l": nn.Linear(18, 4), "a": nn.MultiheadAttention(6, 2, batch_first=True), "b": nn.BatchNorm1d(3)}
    model = Forward(FUNCTIONS[name], **{key: nets.randomised(part, 1) for key, part in parts.items()}).eval()
    x = torch.randn(5, 3, 6, generator=nets.generator(0))
    double = copy.deepcopy(model).double()
    with torch.no_grad():
        found = Widened(model, torch.float32)(x.double())
        if name == "constants":  # of them, what the model makes in float32
            made = (model.l.weight * 2).sum(0).double()
            expected = x.double().flatten(1) * made + torch.tensor(0.1).double()
        else:
            expected = double(x.double()).double()
        assert found.dtype is torch.float64
        torch.testing.assert_close(found, expected, rtol=1e-6 if name == "written" else 1e-12, atol=1e-12)
        torch.testing.assert_close(found.float(), model(x), rtol=1e-4, atol=1e-5)


def test_nothing_of_the_model_changes() -> None:
    model = nets.random_resnet(0)
    before = copy.deepcopy(model.state_dict())
    Widened(model, torch.float32)(torch.rand(3, 1, 4, 4, dtype=torch.float64))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
