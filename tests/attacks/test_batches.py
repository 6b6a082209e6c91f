"""What else is in the batch: nothing where no product rounds, and no more than rounding anywhere."""

import pytest
import torch
from torch import nn

from assay.attacks import get_attack
from assay.attacks.curves import curve

ATTACKS = (
    "fgsm(loss=margin)",
    "pgd(steps=8,step_size=0.25,loss=margin)",
    "pgd(steps=4,step_size=0.5,loss=margin,momentum=1)",
)


def integers():
    """A ReLU network of small whole numbers: on inputs in 64ths all its sums are exact in float32."""
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randint(-3, 4, weight.shape, generator=generator))
    x = torch.randint(16, 49, (37, 20), generator=generator) / 64
    return model, x, model(x).argmax(1)


def found(name, model, x, y, batch):
    parts = [
        curve(get_attack(name), model, *part, [1 / 16, 1 / 8], domain=(0, 1), seed=1)
        for part in zip(torch.split(x, batch), torch.split(y, batch), strict=True)
    ]
    return torch.cat([part.success for part in parts], 1), torch.cat([part.adversarial for part in parts], 1)


@pytest.mark.parametrize("name", ATTACKS[:2])
@pytest.mark.parametrize("batch", [1, 2, 7, 16])
def test_exact_products_give_the_same_bits_in_every_batch(name, batch):
    model, x, y = integers()
    whole, part = found(name, model, x, y, len(x)), found(name, model, x, y, batch)
    assert 0 < int(whole[0].sum()) < whole[0].numel()
    assert torch.equal(whole[0], part[0])
    assert torch.equal(whole[1], part[1])


@pytest.mark.parametrize("name", ATTACKS)
def test_every_success_holds_alone(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4)).eval()
    x = torch.rand(37, 20)
    y = model(x).argmax(1)
    success, points = found(name, model, x, y, 16)
    assert int(success.sum())
    for level, broken in zip(points, success, strict=True):
        for point, label in zip(level[broken], y[broken], strict=True):
            scores = model(point[None])[0]
            assert bool((scores[torch.arange(4) != label] >= scores[label]).any())
