"""Attacks by name, and third parties' attacks, of which a broken one does not disturb the others."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest

from assay import attacks
from assay.attacks import get_attack, list_attacks, registry
from assay.attacks.common.interface import Attack
from assay.attacks.fgsm import FGSM
from assay.attacks.pgd import PGD
from assay.verify.core.errors import InputError
from assay.verify.support import options


def test_names_and_options() -> None:
    assert get_attack("fgsm") == FGSM()
    assert get_attack("pgd(steps=7, restarts=2, step_size=0.5, momentum=1, loss=margin, random_start=true)") == PGD(
        7, 2, 0.5, 1.0, "margin", True
    )
    assert get_attack("pgd(step_size=none)") == PGD()


def test_every_listed_attack_is_one() -> None:
    assert {"fgsm", "pgd"} <= set(list_attacks())
    for name in registry.ATTACKS:
        attack = get_attack(name)
        assert isinstance(attack, Attack)
        assert attack.name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pdg", "did you mean 'pgd'"),
        ("pgd(stepz=3)", "did you mean 'steps'"),
        ("pgd(steps=0)", "steps of pgd must be a whole number of at least 1, got 0"),
        ("pgd(steps=2.5)", "expected int, got '2.5'"),
        ("pgd(restarts=0)", "restarts of pgd"),
        ("pgd(step_size=0)", "step_size of pgd must be a positive"),
        ("pgd(step_size=nan)", "step_size of pgd must be a positive"),
        ("pgd(momentum=-1)", "momentum of pgd"),
        ("pgd(momentum=inf)", "momentum of pgd"),
        ("pgd(loss=hinge)", "expected one of ce, margin, dlr"),
        ("fgsm(loss=)", "expected one of ce, margin"),
    ],
)
def test_bad_text_is_an_input_error(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        get_attack(text)


def test_options_are_checked_from_python_too() -> None:
    with pytest.raises(InputError, match="unknown loss 'crossentropy'"):
        FGSM(loss="crossentropy")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="steps of pgd"):
        PGD(steps=2.5)  # type: ignore[arg-type]


@dataclass(frozen=True)
class WithoutSearch:
    """A third party's attack that knows samples only."""

    name: ClassVar[str] = "halfway"

    def run(self) -> None:
        """Not called."""


def test_third_parties_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("broken", "no_such_module:X", registry.ENTRY_POINTS),
        EntryPoint("nothing", "math:pi", registry.ENTRY_POINTS),
        EntryPoint("foreign", "assay.verify.core.budget:Budget", registry.ENTRY_POINTS),
        EntryPoint("pgd", "no_such_module:X", registry.ENTRY_POINTS),
        EntryPoint("halfway", "tests.attacks.test_registry:WithoutSearch", registry.ENTRY_POINTS),
        EntryPoint("theirs", "assay.attacks.fgsm:FGSM", registry.ENTRY_POINTS),
    ]
    monkeypatch.setattr(options, "entry_points", lambda group: points if group == "assay.attacks" else [])
    assert {"broken", "pgd", "theirs"} <= set(list_attacks())
    assert get_attack("pgd") == PGD()
    assert get_attack("theirs(loss=margin)") == FGSM(loss="margin")
    for name in ("broken", "nothing"):
        with pytest.raises(InputError, match=f"attack '{name}' .* cannot be loaded"):
            get_attack(name)
    with pytest.raises(InputError, match=r"'halfway' is not an Attack: it lacks search$"):
        get_attack("halfway")
    with pytest.raises(InputError, match="'foreign' is not an Attack"):
        get_attack("foreign")


def test_importing_and_listing_load_no_torch() -> None:
    code = "import sys, attacks; attacks.list_attacks(); assert 'torch' not in sys.modules; attacks.AttackResult"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_public_names() -> None:
    assert attacks.__all__ == ["AttackResult", "Curve", "curve", "get_attack", "list_attacks"]
    assert dir(attacks) == attacks.__all__
    with pytest.raises(AttributeError, match="no attribute 'foo'"):
        _ = attacks.foo
