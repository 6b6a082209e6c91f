"""What attacks refuse, and arrays in the place of tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from assay.attacks.common.interface import forward
from assay.attacks.fgsm import FGSM
from assay.attacks.pgd import PGD
from assay.verify.core.budget import Expired
from assay.verify.core.errors import InputError
from assay.verify.core.problem import Problem
from assay.verify.core.region import LpBall
from tests.attacks.attack_models import linear, mlp, samples

X = samples(0, 4)
LABELS = torch.zeros(4, dtype=torch.int64)
REGION = LpBall(X, 0.1, domain=None)


def run(**changed: Any) -> None:
    call = {"model": mlp(0), "x": X, "labels": LABELS, "region": REGION} | changed
    for attack in (FGSM(), PGD(steps=2)):
        attack.run(**call)


def test_the_unchanged_call_is_fine() -> None:
    run()
    run(labels=LABELS.to(torch.uint8), region=LpBall(X, torch.full((4,), 0.1), domain=None))


def mixing() -> nn.Module:
    """What normalises by the batch that it is given, whatever the mode."""
    return nn.BatchNorm1d(4, track_running_stats=False).eval()


def partly_training() -> nn.Module:
    model = mlp(0)
    model.get_submodule("2").train()
    return model


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": mlp(0).train()}, r"train mode: call model\.eval\(\)"),
        ({"model": partly_training()}, "submodule '2' is in train mode"),
        ({"model": 3}, "expected a model that can be called"),
        ({"model": mlp(0).double()}, "dtype torch.float64, got torch.float32"),
        ({"model": nn.Sequential(mlp(0), mixing()).eval()}, "depends on the batch: 1 normalises"),
        ({"model": nn.LazyLinear(4).eval()}, "tensor 'weight' of the model has no shape yet: run a batch through"),
        ({"model": lambda x: {}["logits"]}, r"does not run on inputs of shape \(4, 6\): 'logits'"),
        ({"model": mlp(0, inputs=7)}, r"does not run on inputs of shape \(4, 6\)"),
        ({"model": lambda x: x.sum()}, r"expected outputs \(batch x classes\) for a batch of 4, got \(\)"),
        ({"model": lambda x: [x]}, "got list"),
        ({"model": lambda x: x.detach(), "labels": X.argmax(1)}, "differentiably"),
        ({"model": linear([[torch.nan] * 6] * 2, [0, 0])}, "no finite output for sample 0"),
        ({"x": X[0]}, "expected a batch of samples"),
        ({"x": X.long()}, "expected floating-point samples"),
        ({"x": X.clone().fill_(torch.nan)}, "NaN or inf"),
        ({"x": X + 0.5}, "inside of the region, sample 0 lies outside"),
        ({"labels": LABELS[:3]}, r"shape \(4,\), got \(3,\)"),
        ({"labels": LABELS.float()}, "integer labels"),
        ({"labels": LABELS - 1}, "label -1 is out of range"),
        ({"labels": LABELS + 4}, "label 4 is out of range: the model has 4 classes, 0 to 3"),
        (
            {"region": LpBall(X[:, :5], 0.1, domain=None)},
            r"expected a region of shape \(6,\) or \(4, 6\), got \(4, 5\)",
        ),
        ({"region": LpBall(X[:3], 0.1, domain=None)}, r"got \(3, 6\)"),
        ({"region": X.numpy()}, "expected a region, LpBall, Box or Polytope, got ndarray"),
        ({"x": "image.png"}, "expected samples: a tensor or numbers, got str"),
        ({"x": X.double().numpy()}, "dtype torch.float32, got torch.float64"),
        ({"labels": ["cat"] * 4}, "expected labels: a tensor or numbers, got list"),
    ],
)
def test_refusals_say_what_is_wrong(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(**changed)


def test_arrays_are_taken_as_tensors_are() -> None:
    for attack in (FGSM(), PGD(steps=2)):
        arrays: Any = X.numpy(), LABELS.numpy(), LpBall(X.numpy(), np.full(4, 0.1), domain=None)  # type: ignore[arg-type]
        result, again = attack.run(mlp(0), X, LABELS, REGION), attack.run(mlp(0), *arrays)
        assert torch.equal(result.adversarial, again.adversarial)


@pytest.mark.parametrize("given", [X.numpy(), 3, ["model.onnx"], Problem.robustness(mlp(0), X[0], 0, 0.1, domain=None)])
def test_a_search_takes_problems(given: Any) -> None:
    for attack in (FGSM(), PGD(steps=2)):
        with pytest.raises(InputError, match="expected a sequence of problems, got"):
            attack.search(given)


def test_the_end_of_a_budget_is_not_the_models_fault() -> None:
    def late(x: Tensor) -> Tensor:
        raise Expired

    with pytest.raises(Expired):  # attacks then give what they have
        forward(late, X)


def test_running_out_of_memory_is_not_the_callers_fault() -> None:
    def hungry(x: Tensor) -> Tensor:
        raise RuntimeError("not enough memory: you tried to allocate 1 byte")

    with pytest.raises(RuntimeError, match="not enough memory"):
        run(model=hungry)


def test_that_time_is_over_is_no_fault_of_the_model() -> None:
    def late(_: Tensor) -> Tensor:
        raise Expired

    with pytest.raises(Expired):
        forward(late, torch.zeros(1, 2))
