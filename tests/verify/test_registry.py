"""Tests of verify.registry: names and options become methods, or one clear line."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest

from assay.verify import registry
from assay.verify.backends.crown import CROWN
from assay.verify.core.errors import InputError
from assay.verify.core.verifier import Bounder, Verifier
from assay.verify.registry import get_bounder, get_verifier, list_verifiers, table
from assay.verify.support import options


@pytest.mark.parametrize("name", list_verifiers())
def test_every_name_loads_a_verifier_that_knows_its_name(name: str) -> None:
    verifier = get_verifier(name)
    assert isinstance(verifier, Verifier)
    assert verifier.name == name
    assert get_verifier(name) == verifier
    assert repr(get_verifier(name)) == repr(verifier)


def test_the_names_are_sorted_and_hold_ours() -> None:
    assert list_verifiers() == sorted(list_verifiers())
    assert {"auto", "crown", "ibp"} <= set(list_verifiers())


def test_options_are_fields() -> None:
    assert get_verifier("crown(dtype=float32,group=3)") == CROWN(dtype="float32", group=3)
    assert repr(get_verifier("crown")) != repr(get_verifier("crown(group=3)"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("crow", ["crow", "did you mean 'crown'"]),
        ("", ["unknown method"]),
        ("crown(dtyp=float32)", ["dtyp", "did you mean 'dtype'"]),
        ("crown(dtype=float16)", ["dtype", "float64", "float16"]),
        ("crown(group=many)", ["group", "int", "many"]),
        ("crown(group=0)", ["group", "0"]),
        ("crown(group=-1)", ["group", "-1"]),
        ("crown(name=other)", ["name"]),
        ("crown(group=1", ["("]),
        ("auto(restarts=0)", ["restarts", "0"]),
        ("auto(steps=-1)", ["steps", "-1"]),
    ],
)
def test_mistakes_are_one_clear_line(text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        get_verifier(text)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_options_are_checked_when_built_in_python_too() -> None:
    with pytest.raises(InputError):
        CROWN(dtype="float16")  # type: ignore[arg-type]


def test_bounders() -> None:
    assert isinstance(get_bounder("crown(group=2)"), Bounder)
    with pytest.raises(InputError, match="'auto' gives verdicts, not bounds"):
        get_bounder("auto")


@dataclass(frozen=True)
class Unfinished:
    """A third party's method that is not written yet."""

    name: ClassVar[str] = "bound"
    complete: ClassVar[bool] = False


def test_third_parties_are_found_and_never_hide_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("mine", "assay.verify.backends.ibp:IBP", registry.ENTRY_POINTS),
        EntryPoint("crown", "os:getcwd", registry.ENTRY_POINTS),
        EntryPoint("broken", "os:PathLike", registry.ENTRY_POINTS),
        EntryPoint("absent", "no_such_module:X", registry.ENTRY_POINTS),
        EntryPoint("bound", "tests.verify.test_registry:Unfinished", registry.ENTRY_POINTS),
    ]
    monkeypatch.setattr(options, "entry_points", lambda group: points)
    assert table()["crown"] == registry.VERIFIERS["crown"]
    assert get_verifier("mine").name == "ibp"
    for name, message in (
        ("broken", "cannot be loaded"),
        ("absent", "cannot be loaded: ModuleNotFoundError"),
        ("bound", "is not a Verifier: it lacks guarantee, supports, verify$"),
    ):
        for get in (get_verifier, get_bounder)[: 1 if name == "bound" else 2]:
            with pytest.raises(InputError, match=rf"method '{name}' .*{message}"):
                get(name)


def test_what_is_no_verifier_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.VERIFIERS, "odd", "assay.verify.core.budget:Budget")
    with pytest.raises(InputError, match="not a Verifier"):
        get_verifier("odd")
