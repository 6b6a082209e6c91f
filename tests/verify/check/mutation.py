"""Whether each change of the checker is noticed by its tests.

    python -m tests.verify.check.mutation [--file checker] [--every 1] [--seed 0] [--kept CORPUS]

The quick tests of this folder are run once, and what they ask the checker is kept: certificates with the files they
speak of, and what was answered. Of every question it is known which lines it runs. A copy of ``checker.py``, or of what
lies beside it, with one change then answers, in this process, the questions that run the changed line, the quickest
first, until an answer differs: comparisons and arithmetic are turned into their neighbours, ``min`` into
``max``, ``and`` into ``or``, numbers are one larger, signs and ``not`` are left out, and so are statements. Printed
are the changes that no question notices; each is to be looked at, as some changes change nothing: ``survivors.txt``
says of those that are known why they are harmless, or what else notices them.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import io
import pickle
import random
import signal
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from assay.verify.check import bounds, checker, norms, question

ROOM = "assay.verify.check"
FOLDER = Path(question.__file__).parent
FILES = ("property", "question", "bounds", "checker", "norms")  # each is read by those behind it
TESTS = [f"tests/verify/check/test_{name}.py" for name in ("forged", "lines", "read", "checker", "margins", "draws")]
SEARCHES = "not runs_alone and not any_method and not too_much_memory and not sources"  # of their own, which take long
LONGEST, SLOW = 5.0, 0.3  # seconds: what takes longer is noticed; questions that take longer are left out
ENOUGH = 200  # questions that run a line, of each answer
SURVIVORS = Path(__file__).with_name("survivors.txt")
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Asked:
    """What a test asks: the arguments of ``check``."""

    certificate: bytes
    model: bytes
    prop: bytes
    exact: bool


@dataclass
class Question:
    """With its answer, the seconds that it takes, and the lines that it runs, by file."""

    asked: Asked
    answer: str
    seconds: float = 0.0
    lines: dict[str, set[int]] = field(default_factory=dict)


def answered(check: Callable[..., Any], asked: Asked) -> str:
    """What is proved, or that it is rejected, in no matter which words."""
    try:
        report = check(asked.certificate, asked.model, asked.prop, asked.exact)
    except Exception as error:
        return "rejected" if type(error).__name__ == "Rejected" else f"broken by {type(error).__name__}"
    return repr(sorted(report.items()))


def questions() -> list[Question]:
    """Of the tests, some for each line, with the lines that they run."""
    kept: set[Asked] = set()
    plain = checker.check

    def noted(certificate: bytes, model: bytes, prop: bytes, exact: bool = False, until: float = float("inf")) -> Any:
        kept.add(Asked(certificate, model, prop, exact))
        return plain(certificate, model, prop, exact, until)

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(checker, "check", noted)
        if pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-k", SEARCHES, *TESTS]) != 0:
            raise SystemExit("the tests fail as it is")
    found = [one for one in map(traced, sorted(kept, key=lambda one: len(one.certificate))) if one.seconds < SLOW]
    found.sort(key=lambda one: one.seconds)
    enough: dict[tuple[str, int, bool], int] = {}
    few = []
    for one in found:
        keys = [(name, line, one.answer == "rejected") for name, lines in one.lines.items() for line in lines]
        if any(enough.get(key, 0) < ENOUGH for key in keys):
            few.append(one)
            for key in keys:
                enough[key] = enough.get(key, 0) + 1
    return few


def traced(asked: Asked) -> Question:
    """A question, answered twice: for its time, and for its lines."""
    of = {
        "checker": checker.main,
        "bounds": bounds.lines,
        "question": question.opened,
        "property": question.need,
        "norms": norms.checked,
    }
    files = {function.__code__.co_filename: name for name, function in of.items()}
    lines: dict[str, set[int]] = {name: set() for name in FILES}

    def trace(frame: Any, event: str, _: Any) -> Any:
        name = files.get(frame.f_code.co_filename)
        if name is None:
            return None
        lines[name].add(frame.f_lineno)
        return trace

    question.question.cache_clear()
    begun = process_time()
    answer = answered(checker.check, asked)
    seconds = process_time() - begun
    if seconds < SLOW:
        question.question.cache_clear()
        sys.settrace(trace)
        try:
            answered(checker.check, asked)
        finally:
            sys.settrace(None)
    return Question(asked, answer, seconds, lines)


def places(tree: ast.Module) -> dict[int, list[tuple[int, int, int]]]:
    """By line, the nodes of which a change can be made: their numbers, and the lines that they reach over."""
    found: dict[int, list[tuple[int, int, int]]] = {}
    told = {id(node) for body in ast.walk(tree) for node in ast.walk(body) if _is_text(body)}
    for number, node in enumerate(ast.walk(tree)):
        if hasattr(node, "lineno") and id(node) not in told and _changed(copy.deepcopy(node)):
            found.setdefault(node.lineno, []).append((number, node.lineno, node.end_lineno or node.lineno))
    return found


def _is_text(node: ast.AST) -> bool:
    """Of what is said where something is rejected."""
    return isinstance(node, ast.JoinedStr)


def changed(tree: ast.Module, number: int) -> tuple[str, ast.Module]:
    """The module with the change of one node, and what it is."""
    other = copy.deepcopy(tree)
    here = next(each for i, each in enumerate(ast.walk(other)) if i == number)
    told = ast.unparse(here)
    _changed(here)
    return f"{told[:60]}  ->  {ast.unparse(here)[:60]}", ast.fix_missing_locations(other)


def _changed(node: ast.AST) -> bool:
    """Change a node in place, if it is of a kind that can be."""
    match node:
        case ast.Compare(ops=[op, *rest]) if type(op) in SWAPPED:
            node.ops = [SWAPPED[type(op)](), *rest]  # type: ignore[list-item]
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in SWAPPED:
            node.op = SWAPPED[type(op)]()  # type: ignore[assignment]
        case ast.UnaryOp(op=ast.USub()):
            node.op = ast.UAdd()
        case ast.UnaryOp(op=ast.Not()):
            node.operand = ast.UnaryOp(ast.Not(), node.operand)
        case ast.Constant(value=bool() as value):
            node.value = not value
        case ast.Constant(value=int() | float() as value):
            node.value = value + 1
        case ast.Call(func=ast.Name(id=name) as function) if name in NAMES:
            function.id = NAMES[name]
        case ast.Call(func=ast.Attribute(attr=name) as function) if name in NAMES:
            function.attr = NAMES[name]
        case ast.Expr(value=ast.Call()):
            node.value = ast.Constant(None)
        case ast.AugAssign(value=value):
            node.value = ast.Constant(0) if not isinstance(value, ast.List | ast.ListComp) else ast.List([], ast.Load())
        case _:
            return False
    return True


@contextlib.contextmanager
def replaced(name: str, module: ast.Module) -> Iterator[Callable[..., Any]]:
    """The ``check`` of a checker of which one file is this module; those behind it read it anew."""
    old = {each: sys.modules[f"{ROOM}.{each}"] for each in FILES}
    try:
        for each in FILES[FILES.index(name) :]:
            source = module if each == name else ast.parse((FOLDER / f"{each}.py").read_text())
            made = sys.modules[f"{ROOM}.{each}"] = types.ModuleType(f"{ROOM}.{each}")
            made.__dict__.update(__package__=ROOM, __file__=str(FOLDER / f"{each}.py"))
            exec(compile(source, str(FOLDER / f"{each}.py"), "exec"), made.__dict__)
        question.question.cache_clear()
        yield sys.modules[f"{ROOM}.checker"].check
    finally:
        for each, module_ in old.items():
            sys.modules[f"{ROOM}.{each}"] = module_


def noticed(name: str, module: ast.Module, asked: list[Question]) -> bool:
    """Whether an answer differs where this takes the place of a file, or takes too long."""

    def late(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST)
    try:
        with replaced(name, module) as check:
            return any(answered(check, one.asked) != one.answer for one in asked)
    except BaseException:
        return True
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def known() -> dict[str, str]:
    """Changes that no question notices, and why they may be."""
    lines = SURVIVORS.read_text().splitlines() if SURVIVORS.is_file() else []
    return {line: told for line, told in pairwise(lines) if not line.startswith(" ")}


def main() -> int:
    """Parse the options, change, ask, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--file", choices=FILES, default="checker")
    parser.add_argument("--every", type=int, default=1, help="of so many lines one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lines", type=int, nargs=2, default=(0, 10**6))
    parser.add_argument("--kept", type=Path, help="a file of questions, which is written if it is not there")
    options = parser.parse_args()
    if options.kept and options.kept.is_file():
        some = pickle.loads(options.kept.read_bytes())
    else:
        some = questions()
        if options.kept:
            options.kept.write_bytes(pickle.dumps(some))
    tree = ast.parse((FOLDER / f"{options.file}.py").read_text())
    found = {line: some for line, some in places(tree).items() if options.lines[0] <= line <= options.lines[1]}
    rng = random.Random(options.seed)
    lines = sorted(found)[rng.randrange(options.every) :: options.every]
    text = (FOLDER / f"{options.file}.py").read_text().splitlines()
    left = new = 0
    for line in lines:
        number, first, last = rng.choice(found[line])
        told, module = changed(tree, number)
        asked = [one for one in some if one.lines[options.file] & set(range(first, last + 1))]
        asked = asked or some  # what runs as the file is read, is of all of them
        if not noticed(options.file, module, asked):
            left += 1
            told = f"{options.file}: {text[line - 1].strip()} | {told}"
            new += told not in known()
            print(f"{line} ({len(asked)} questions)\n{told}", flush=True)
    print(f"{len(lines)} lines changed, {left} changes not noticed, of which {new} are not in {SURVIVORS.name}")
    return int(new > 0)


if __name__ == "__main__":
    raise SystemExit(main())
