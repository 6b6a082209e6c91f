"""Options as text: every conversion, unknown names with a suggestion, duplicates, parentheses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.verify.core.errors import InputError
from assay.verify.support.options import build, convert, load, make, split


@dataclass(frozen=True)
class Sample:
    """A method with an option of every kind."""

    steps: int = 1
    size: float = 0.5
    fast: bool = False
    solver: str = "highs"
    loss: Literal["ce", "margin"] = "ce"
    order: Literal[1, 2] = 1
    limit: int | None = None
    ratio: Optional[float] = 1.0  # noqa: UP045 - both spellings are to be read
    mode: Literal["a", "b"] | None = None
    derived: int = field(default=0, init=False)
    name: ClassVar[str] = "sample"

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InputError(f"steps must be at least 0, got {self.steps}")


TABLE: Mapping[str, str] = {"sample": f"{__name__}:Sample", "other": "a.module.that.does.not.exist:Other"}


def sample(text: str) -> Any:
    return load("method", text, TABLE)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", Sample()),
        ("steps=20", Sample(steps=20)),
        (" steps = 20 , size = .25 ", Sample(steps=20, size=0.25)),
        ("size=1e-3", Sample(size=1e-3)),
        ("size=2", Sample(size=2.0)),
        ("fast=true", Sample(fast=True)),
        ("fast=False", Sample(fast=False)),
        ("solver=pulp:cbc", Sample(solver="pulp:cbc")),
        ("solver=f(x,y)", Sample(solver="f(x,y)")),
        ("solver=a=b", Sample(solver="a=b")),
        ("solver=none", Sample(solver="none")),
        ("loss=margin", Sample(loss="margin")),
        ("order=2", Sample(order=2)),
        ("limit=7", Sample(limit=7)),
        ("limit=none", Sample(limit=None)),
        ("ratio=None", Sample(ratio=None)),
        ("ratio=0.25", Sample(ratio=0.25)),
        ("mode=b", Sample(mode="b")),
        ("mode=none", Sample(mode=None)),
    ],
)
def test_options_become_fields(options: str, expected: Sample) -> None:
    made = sample(f"sample({options})")
    assert made == expected
    assert [type(value) for value in vars(made).values()] == [type(value) for value in vars(expected).values()]


@pytest.mark.parametrize("text", ["sample", " sample ", "sample()", "sample( )"])
def test_options_may_be_left_out(text: str) -> None:
    assert sample(text) == Sample()


@given(st.integers(0), st.floats(allow_nan=False), st.booleans(), st.one_of(st.none(), st.integers()))
def test_what_python_prints_is_read_back(steps: int, size: float, fast: bool, limit: int | None) -> None:
    assert sample(f"sample(steps={steps},size={size},fast={fast},limit={limit})") == Sample(
        steps=steps, size=size, fast=fast, limit=limit
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("steps=many", "option 'steps' of method 'sample': expected int, got 'many'"),
        ("steps=0.5", "option 'steps' of method 'sample': expected int, got '0.5'"),
        ("steps=", "option 'steps' of method 'sample': expected int, got ''"),
        ("size=big", "option 'size' of method 'sample': expected float, got 'big'"),
        ("fast=1", "option 'fast' of method 'sample': expected true or false, got '1'"),
        ("loss=hinge", "option 'loss' of method 'sample': expected one of ce, margin, got 'hinge'"),
        ("order=3", "option 'order' of method 'sample': expected one of 1, 2, got '3'"),
        ("limit=x", "option 'limit' of method 'sample': expected int, got 'x'"),
        ("mode=none of them", "option 'mode' of method 'sample': expected one of a, b, got 'none of them'"),
        ("steps", "expected option=value for method 'sample', got 'steps'"),
        ("steps=1,steps=1", "option 'steps' of method 'sample' is given twice"),
        ("steps=-1", "steps must be at least 0, got -1"),
    ],
)
def test_bad_values_are_refused_in_one_line(options: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        sample(f"sample({options})")
    assert str(caught.value) == message


@pytest.mark.parametrize(("given", "nearest"), [("step", "steps"), ("sovler", "solver"), ("STEPS", None)])
def test_unknown_options_are_refused_with_the_nearest(given: str, nearest: str | None) -> None:
    with pytest.raises(InputError, match=f"unknown option of method 'sample' '{given}'") as caught:
        sample(f"sample({given}=1)")
    assert (f"did you mean {nearest!r}?" in str(caught.value)) == (nearest is not None)
    assert "known: fast, limit, loss, mode, order, ratio, size, solver, steps" in str(caught.value)


@pytest.mark.parametrize("hidden", ["derived", "name", "__class__"])
def test_what_is_no_option_cannot_be_set(hidden: str) -> None:
    with pytest.raises(InputError, match="unknown option"):
        sample(f"sample({hidden}=1)")


@pytest.mark.parametrize("text", ["sampel", "sampel(steps=1)", "SAMPLE"])
def test_unknown_names_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="unknown method"):
        sample(text)


def test_a_class_is_no_name() -> None:
    with pytest.raises(InputError, match="expected the name of a method, got Sample: one that is made"):
        make("method", Sample(), {}, "assay.verifiers", "a Verifier", ())  # type: ignore[arg-type]


def test_an_unknown_name_comes_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown method 'sampel'; did you mean 'sample'\? \(known: other, sample\)"):
        sample("sampel")


@pytest.mark.parametrize(
    "text",
    [
        "sample(",
        "sample(steps=1",
        "sample)",
        "sample(steps=1))",
        "sample((steps=1)",
        "sample(steps=1)x",
        "sample()()",
        "",
    ],
)
def test_unbalanced_parentheses_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        sample(text)


def test_only_the_named_class_is_imported() -> None:
    assert sample("sample") == Sample()
    with pytest.raises(ModuleNotFoundError):
        sample("other")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        (" , ,", []),
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("a(x=1,y=2), b ,c(d(e,f),g)", ["a(x=1,y=2)", "b", "c(d(e,f),g)"]),
    ],
)
def test_split_keeps_parentheses_together(text: str, parts: list[str]) -> None:
    assert split(text) == parts


@pytest.mark.parametrize("text", ["(", ")", "a(b", "a)b", "a)(b", "a(b))c(", "a,b)"])
def test_split_refuses_unbalanced_parentheses(text: str) -> None:
    with pytest.raises(InputError, match="unbalanced parentheses"):
        split(text)


@given(st.lists(st.sampled_from(["a", "crown", "b()", "milp(solver=pulp:cbc,optimum=true)", "f(g(x,y),(z))"])))
def test_split_undoes_join(parts: list[str]) -> None:
    assert split(", ".join(parts)) == parts


def test_build_and_convert_stand_alone() -> None:
    assert build("method", "sample", Sample, ["steps=3"]) == Sample(steps=3)
    assert convert("3", int, "option") == 3
    assert convert("3", float | None, "option") == 3.0
    with pytest.raises(InputError, match="option: expected int, got 'x'"):
        convert("x", int, "option")
