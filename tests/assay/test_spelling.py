"""What results name their method by, spelled as the command takes it."""

import pytest

from assay.attacks import get_attack, list_attacks
from assay.spelling import spelled
from assay.verify import get_verifier, list_verifiers

GIVEN = [
    (get_verifier, "milp(solver=scipy,optimum=true)"),
    (get_verifier, "attack(attack=pgd(steps=3,restarts=2)+fgsm,rounds=20)"),
    (get_attack, "apgd(loss=ce,patience=inf)"),
    (get_attack, "pgd(steps=3,step_size=0.1,random_start=true)"),
]


@pytest.mark.parametrize(
    ("get", "name"), [*((get_verifier, n) for n in list_verifiers()), *((get_attack, n) for n in list_attacks())]
)
def test_defaults_are_left_out(get, name):
    assert spelled(repr(get(name))) == name


@pytest.mark.parametrize(("get", "text"), GIVEN)
def test_what_is_spelled_can_be_given(get, text):
    made = get(text)
    assert repr(get(spelled(repr(made)))) == repr(made)


@pytest.mark.parametrize(
    "key", ["", "mine", "Late(methods=('milp',))", "CROWN(group=1, x)", "CROWN(size=3)", "CROWN(group=1)", "f(x)"]
)
def test_others_stay_as_they_are(key):
    assert spelled(key) == key
