"""Questions about parameters: what attacks break is an image of the perturbation that the model gets wrong."""

from __future__ import annotations

import pickle
from itertools import pairwise

import pytest
import torch
from torch import nn

from assay.attacks import get_attack
from assay.verify.check.replay import replay
from assay.verify.core.errors import InputError
from assay.verify.core.network import to_network
from assay.verify.core.result import Reason
from assay.verify.perturbations import Perturbation, Perturbed
from assay.verify.registry import get_verifier
from tests.nets import generator, random_cnn

X = torch.rand(1, 8, 8, dtype=torch.float64, generator=generator(1))


def question(text: str, seed: int = 0, label: int | None = None) -> Perturbed:
    network = to_network(random_cnn(seed), (1, 8, 8))
    right = int(network(X[None])[0].argmax())
    return Perturbed.of(network, X, right if label is None else label, Perturbation.parse(text))


def test_the_network_of_the_parameters_is_the_model_at_the_image() -> None:
    asked = question("rotation(30)+brightness(0.2)")
    at = torch.tensor([[10.0, 0.1], [-30.0, 0.0]], dtype=torch.float64)
    images = asked.images(at)
    assert images.dtype == asked.behind.dtype
    assert torch.equal(asked.network.oracle(at), asked.behind.oracle(images))  # type: ignore[misc]
    torch.testing.assert_close(asked.network(at), asked.behind(images.double()))
    assert torch.equal(asked.images(torch.zeros(1, 2)), asked.clean[None])
    assert asked.named(at[0]) == {"rotation": 10.0, "brightness": 0.1}


@pytest.mark.parametrize("name", ["grid(points=64)", "random(points=20)", "pgd(steps=5,restarts=1)", "fgsm"])
@pytest.mark.parametrize("text", ["rotation(60)", "translation(2)", "gamma(2)", "contrast(0.5)+brightness(0.3)"])
def test_what_attacks_break_is_broken(name: str, text: str) -> None:
    asked = question(text)
    low, high = asked.perturbation.low, asked.perturbation.high
    at = low + (high - low) * torch.rand(200, len(low), dtype=torch.float64, generator=generator(2))
    worst = asked.spec.margin(asked.spec.rows(asked.behind(asked.images(at).double())))
    other = Perturbed.of(asked.behind, X, (int(asked.label or 0) + 1) % asked.behind.output_size, asked.perturbation)
    found = get_attack(name).search([asked, other], seed=1)
    assert bool(found.success[1])  # a wrong label is broken anywhere
    if bool(found.success[0]):
        assert replay(asked, found.adversarial[0]).confirmed
    elif name.startswith("grid") and len(low) == 1:
        assert float(worst.min()) > -0.05


def test_gradients_lead_to_the_parameters() -> None:
    asked = question("rotation(30)")
    at = torch.tensor([[3.3]], dtype=torch.float64, requires_grad=True)
    asked.network(at)[0, 0].backward()
    step = 1e-6
    with torch.no_grad():
        # The images are rounded to float32: differences are taken before that.
        change = asked.perturbation
        images = torch.cat([change.images(X, at + step), change.images(X, at - step)])
        y = asked.behind(images)[:, 0]
    assert at.grad is not None
    assert float(at.grad) == pytest.approx(float(y[0] - y[1]) / (2 * step), rel=1e-3, abs=1e-4)


def test_methods_that_know_boxes_do_not_take_the_parameters_for_inputs() -> None:
    for name in ("ibp", "crown", "bab", "milp", "lipschitz", "input-split"):
        assert get_verifier(name).verify(question("rotation(5)")).reason is Reason.UNSUPPORTED


class Sign(nn.Module):
    """One output, above 0 where the image is bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).mean(1, keepdim=True) - 0.5


def test_models_of_one_output_have_two_classes() -> None:
    network = to_network(Sign().eval(), (1, 4, 4))
    x = torch.full((1, 4, 4), 0.6, dtype=torch.float64)
    for shift, broken in ((0.09, False), (0.11, True)):
        asked = Perturbed.of(network, x, 1, Perturbation.parse(f"brightness({shift})"))
        assert bool(get_attack("grid(points=16)").search([asked]).success[0]) is broken


def test_questions_differ_by_content_and_travel() -> None:
    one, same = question("rotation(5)"), question("rotation(5)")
    others = [question("rotation(6)"), question("shear(5)"), question("rotation(5)", seed=1)]
    assert one.id == same.id
    assert len({one.id, *(other.id for other in others)}) == 4
    assert pickle.loads(pickle.dumps(one)).id == one.id


def test_shares_of_a_perturbation_lie_within_each_other() -> None:
    change = Perturbation.parse("rotation(10)+gamma(1)+brightness(-0.2,0.4)".replace("rotation(10)+", ""))
    assert str(change.scaled(0.5)) == "gamma(0.75,1.5)+brightness(-0.1,0.2)"
    assert change.scaled(1) == change
    assert Perturbation.parse(str(change)) == change
    for kind in ("scaling(0.3)", "rotation(-7.3,11.1)", "gamma(0.7)", "contrast(0.523,1.4)"):
        (whole,) = Perturbation.parse(kind).parts
        shares = [whole.scaled(share) for share in (0.3, 0.7, 1 - 2.0**-53, 1.0, 1.5)]
        assert all(b.low <= a.low <= a.high <= b.high for a, b in pairwise(shares)), kind
    third = Perturbation.parse("scaling(0.1)").scaled(1 / 3)
    assert Perturbation.parse(str(third)) == third
    with pytest.raises(InputError, match="do not lie within each other"):
        Perturbation.parse("rotation(5,20)").scaled(0.5)
    with pytest.raises(InputError, match="share"):
        change.scaled(-1.0)
    with pytest.raises(InputError, match=r"2 times the range of contrast\(0\.4,1\.6\) is contrast from -0\.2 to 2\.2"):
        Perturbation.parse("contrast(0.6)").scaled(2)


def test_what_is_no_question_is_refused() -> None:
    network, p = to_network(random_cnn(0), (1, 8, 8)), Perturbation.parse("rotation(1)")
    x = torch.rand(1, 8, 8, dtype=torch.float64, generator=generator(0))
    for asked, words in (
        (lambda: Perturbed.of(network, x[:, :3], 0, p), "of the shape that the network takes"),
        (lambda: Perturbed.of(network, x + 1, 0, p), "values from 0 to 1"),
        (lambda: Perturbed.of(network, x * torch.nan, 0, p), "values from 0 to 1"),
        (lambda: Perturbed.of(network, x, 99, p), "out of range"),
        (lambda: Perturbed.of(network, x, 0, "rotation(1)"), "Perturbation.parse"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=words):
            asked()
