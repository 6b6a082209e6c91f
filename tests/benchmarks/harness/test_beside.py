"""Tests of benchmarks.harness.beside: whoever certifies a classifier in place of the network has an attacker."""

import pytest

from assay.benchmarks.harness.beside import attacked
from assay.verify.backends.crown import CROWN
from assay.verify.backends.smoothing.derandomized import Derandomized
from assay.verify.backends.smoothing.layer import LayerSmoothing
from assay.verify.backends.smoothing.layer_attack import LayerSmoothingAttack
from assay.verify.backends.smoothing.method import Smoothing
from assay.verify.core.verifier import OtherSubject, Verifier


@pytest.mark.parametrize(
    "method", [Smoothing(sigma=0.5), LayerSmoothing("laplace", 0.25), Derandomized("block", 3)], ids=lambda m: m.name
)
def test_each_classifier_has_one_attack(method: Verifier) -> None:
    first, second = attacked([method])
    assert first is method
    assert isinstance(first, OtherSubject)
    assert isinstance(second, OtherSubject)
    assert second.subject == first.subject
    assert attacked([method, second]) == [method, second]


def test_the_network_itself_needs_none() -> None:
    assert attacked([CROWN()]) == [CROWN()]


def test_other_noise_is_another_classifier() -> None:
    other = LayerSmoothingAttack("gaussian", 1.0)
    assert [m.name for m in attacked([LayerSmoothing("gaussian", 0.5), other])] == [
        "layer-smoothing",
        "layer-smoothing-attack",
        "layer-smoothing-attack",
    ]
