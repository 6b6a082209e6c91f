"""Errors: the tree drawn in the docstring is the tree of the classes, exit codes included."""

from __future__ import annotations

import re

import pytest

from assay.verify.core import errors
from assay.verify.core.errors import AssayError, unknown_name

CLASSES = {
    name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)
}


def drawn() -> dict[str, tuple[str | None, int]]:
    """Name -> (parent, exit code) as the module's docstring draws them; the root has a code of its own."""
    tree: dict[str, tuple[str | None, int]] = {"AssayError": (None, AssayError.exit_code)}
    path = {0: "AssayError"}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^( *(?:\| +)?)[|`]-- (\w+) +(\d+)", line)
        if match:
            depth = len(match[1]) // 4
            tree[match[2]] = (path[depth - 1], int(match[3]))
            path[depth] = match[2]
    return tree


def test_the_drawn_tree_is_the_tree_of_the_classes() -> None:
    actual = {
        name: (None if value is AssayError else value.__bases__[0].__name__, value("").exit_code)
        for name, value in CLASSES.items()
        if issubclass(value, AssayError)
    }
    assert set(actual) == set(CLASSES), "an error outside of the tree"
    assert drawn() == actual
    assert len(actual) == 7


def test_the_root_is_an_ordinary_exception() -> None:
    assert AssayError.__base__ is Exception
    assert AssayError.exit_code == 70


@pytest.mark.parametrize(("name", "code"), [("InputError", 40), ("UnsupportedError", 50), ("ResourceError", 60)])
def test_exit_codes_are_the_commands(name: str, code: int) -> None:
    error = CLASSES[name]("what")
    assert isinstance(error, AssayError)
    assert error.exit_code == code
    assert str(error) == "what"


def test_an_unknown_name_is_told_with_what_is_known_and_the_nearest() -> None:
    error = unknown_name("method", "crwn", ["ibp", "crown"])
    assert str(error) == "unknown method 'crwn'; did you mean 'crown'? (known: crown, ibp)"
    assert error.exit_code == 40
    assert str(unknown_name("method", "zzz", ["ibp", "crown"])) == "unknown method 'zzz' (known: crown, ibp)"
