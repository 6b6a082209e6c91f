"""Whether each change of the checker is noticed by its tests.

    python -m tests.verify.check.mutation [--every 1] [--seed 0]

A copy of ``checker.py`` with one change takes its place in a process of its own, which runs the quick tests of this
folder until one fails: comparisons and arithmetic are turned into their neighbours, ``min`` into ``max``, ``and`` into
``or``, numbers are one larger, signs and ``not`` are left out, and so are statements. One change a line, chosen by the
seed. Printed are the lines of which no change is noticed; each is to be looked at, as some changes change nothing.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import io
import os
import random
import signal
import time
from pathlib import Path

import pytest

from assay.verify.check import checker

SOURCE = Path(checker.__file__)
HERE = "tests/verify/check"
TESTS = [f"{HERE}/test_forged.py", f"{HERE}/test_checker.py"]
SEARCHES = "not runs_alone and not any_method and not too_much_memory and not sources"  # of their own, which take long
LONGEST = 120  # seconds; what takes longer is noticed
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


def places(tree: ast.Module) -> dict[int, list[int]]:
    """By line, the numbers of the nodes of which a change can be made."""
    found: dict[int, list[int]] = {}
    for number, node in enumerate(ast.walk(tree)):
        if hasattr(node, "lineno") and _changed(copy.deepcopy(node)):
            found.setdefault(node.lineno, []).append(number)
    return found


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


def noticed(module: ast.Module) -> bool:
    """Whether a test fails where this takes the checker's place."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        try:
            kept = checker.Rejected
            exec(compile(module, str(SOURCE), "exec"), checker.__dict__)
            checker.__dict__["Rejected"] = kept  # which the tests name
        except BaseException:
            os._exit(1)
        os._exit(int(tested() != 0))
    until = time.monotonic() + LONGEST
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def tested() -> int:
    """The exit code of the tests."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-k", SEARCHES, *TESTS]))


def main() -> int:
    """Parse the options, change, test, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="of so many lines one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lines", type=int, nargs=2, default=(0, 10**6))
    options = parser.parse_args()
    if tested() != 0:  # what is cached is kept by those that are split off
        raise SystemExit("the tests fail as it is")
    tree = ast.parse(SOURCE.read_text())
    found = {line: some for line, some in places(tree).items() if options.lines[0] <= line <= options.lines[1]}
    rng = random.Random(options.seed)
    lines = sorted(found)[rng.randrange(options.every) :: options.every]
    left = 0
    for line in lines:
        told, module = changed(tree, rng.choice(found[line]))
        if not noticed(module):
            left += 1
            print(f"{line}: {told}", flush=True)
    print(f"{len(lines)} lines changed, {left} changes not noticed")
    return int(left > 0)


if __name__ == "__main__":
    raise SystemExit(main())
