"""Classifiers of one output: 1 above 0, 0 below, and at 0 no label is right."""

from math import inf

import pytest
import torch
from torch import nn

from assay.attacks import get_attack, list_attacks
from assay.verify import Budget, LpBall, Problem, Spec, Verdict, get_verifier, solve
from assay.verify.core.binary import class_scores
from assay.verify.core.errors import InputError, UnsupportedError


def line(weight=(1.0, 0.0), bias=-0.5, *more):
    """y = weight x + bias on two inputs."""
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weight]))
        layer.bias.fill_(bias)
    return nn.Sequential(layer, *more).eval()


def sample(x0):
    return torch.tensor([x0, 0.5])


@pytest.mark.parametrize("method", ["ibp", "crown", "lp", "milp", "lp-bab", "bab", "input-split", "smt", "lipschitz"])
@pytest.mark.parametrize(("x0", "label"), [(0.75, 1), (0.25, 0)])
def test_methods_know_how_far_it_is_to_0(method, x0, label):
    for eps, safe in ((0.125, True), (0.375, False)):
        problem = Problem.robustness(line(), sample(x0), label, eps)
        result = get_verifier(method).verify(problem, Budget(20))
        assert (result.verdict is Verdict.VERIFIED) == safe
        if safe and result.margin is not None:
            assert result.margin == pytest.approx(0.125, abs=1e-6)


@pytest.mark.parametrize("label", [0, 1])
def test_0_itself_is_wrong_for_both(label):
    problem = Problem.robustness(line(), sample(0.5), label, 0.0)
    assert solve(problem).verdict is Verdict.FALSIFIED
    assert bool(problem.spec.violated(torch.zeros(1, 1)))
    away = torch.tensor([[1e-30 if label else -1e-30]])
    assert not bool(problem.spec.violated(away))
    assert bool(problem.spec.violated(-away))


def test_the_specification_is_that_of_two_scores():
    y = torch.linspace(-2, 2, 9)[:, None]
    for label in (0, 1):
        one, two = Spec.binary(label), Spec.robust(label, 2)
        assert torch.equal(one.margin(one.rows(y)), two.margin(two.rows(class_scores(y))))
        assert torch.equal(one.violated(y), two.violated(class_scores(y)))


@pytest.mark.parametrize("label", [-1, 2])
def test_there_are_two_labels(label):
    with pytest.raises(InputError, match=f"label {label} is out of range"):
        Spec.binary(label)


@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.ReLU()], ids=["sigmoid", "relu"])
@pytest.mark.parametrize("flat", [False, True])
def test_what_is_never_negative_has_another_threshold(last, flat):
    model = line((1.0, 0.0), -0.5, last, *([nn.Flatten()] if flat else []))
    with pytest.raises(UnsupportedError, match="never negative"):
        Problem.robustness(model, sample(0.75), 1, 0.1)


class Mirrored(nn.Module):
    """The other class's probability, turned about 0 or not."""

    def __init__(self, sign):
        super().__init__()
        self.line, self.sign = line(), sign

    def forward(self, x):
        return self.sign * (1 - torch.sigmoid(self.line(x)))


@pytest.mark.parametrize(("sign", "words"), [(1.0, "never negative"), (-1.0, "never positive")])
def test_what_is_scaled_behind_the_sigmoid_counts_too(sign, words):
    with pytest.raises(UnsupportedError, match=words):
        Problem.robustness(Mirrored(sign).eval(), sample(0.75), 0, 0.1)


def test_what_is_negative_at_times_is_read():
    shifted = line((1.0, 0.0), 0.0, nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        shifted[2].weight.fill_(1.0)
        shifted[2].bias.fill_(-0.5)
    assert solve(Problem.robustness(shifted, sample(0.75), 1, 0.125)).verdict is Verdict.VERIFIED
    tanh = Problem.robustness(line((1.0, 0.0), -0.5, nn.Tanh()), sample(0.75), 1, 0.125)
    assert get_verifier("ibp").verify(tanh, Budget(5)).verdict is Verdict.VERIFIED


def test_smoothing_does_not_count_one_answer():
    problem = Problem.robustness(line(), sample(0.25), 0, 0.01, norm=2)
    assert "not of one" in str(get_verifier("smoothing(n=100)").supports(problem))


@pytest.mark.parametrize("name", [name for name in list_attacks() if name != "sparse-rs"])
def test_attacks_break_what_can_be_broken_and_no_more(name):
    """Both samples are 1/4 away from 0 in every norm; the third stands on it."""
    attack = get_attack(name)
    x, labels = torch.stack([sample(0.75), sample(0.25), sample(0.5)]), torch.tensor([1, 0, 1])
    norm = getattr(attack, "minimises", (inf,))[0]
    far = attack.run(line(), x, labels, LpBall(x, 0.45, norm, (0, 1)))
    assert far.success.tolist() == [True] * 3
    y = line()(far.adversarial)[:, 0]
    assert bool(torch.where(labels == 1, y <= 0, y >= 0).all())
    near = attack.run(line(), x, labels, LpBall(x, 0.2, norm, (0, 1)))
    assert near.success.tolist() == [False, False, True]
