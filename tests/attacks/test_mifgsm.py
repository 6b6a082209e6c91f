"""MI-FGSM is PGD with momentum whose steps add up to the radius."""

from __future__ import annotations

import torch

from assay.attacks.mifgsm import MIFGSM
from assay.attacks.pgd import PGD
from assay.verify.core.region import LpBall
from tests.attacks.attack_models import linear, mlp, samples


def test_it_is_pgd_with_momentum_1() -> None:
    net, x = mlp(0), samples(1, 16)
    labels = net(x).argmax(1)
    result = MIFGSM(steps=5).run(net, x, labels, LpBall(x, 0.1, domain=None))
    assert torch.equal(
        result.adversarial,
        PGD(5, step_size=0.2, momentum=1.0).run(net, x, labels, LpBall(x, 0.1, domain=None)).adversarial,
    )


def test_its_steps_add_up_to_the_radius() -> None:
    model = linear([[1.0, -1.0], [0.0, 0.0]], [9.0, 0.0])
    x = torch.full((1, 2), 0.5)
    result = MIFGSM(steps=4).run(model, x, torch.tensor([0]), LpBall(x, 0.25, domain=None))
    assert result.adversarial.tolist() == [[0.25, 0.75]]
    assert result.queries.tolist() == [5]
