"""Requirements as engineers write them: ``y[0] < 0.5 and y[1] > y[2]``, and inputs in the same little language.

Comparisons of linear terms, chained as in ``0 <= y[0] <= 1``, joined by ``and``, ``or``, ``not`` and brackets. A
variable without an index, as in ``0 <= x <= 1``, stands for each of its values; ``argmax(y) == 3`` says that output 3
is larger than all others, ``y[0] == 3`` that a label, or another output, is that number. Numbers are read exactly.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import inf

from assay.verify.core.errors import InputError

LONGEST, SMALLEST = 100, 1e-300  # a number's digits, and its magnitude
MOST = 10_000  # cases that a requirement may come apart into
SIGNS = {
    ast.Lt: ((1, True),),
    ast.LtE: ((1, False),),
    ast.Gt: ((-1, True),),
    ast.GtE: ((-1, False),),
    ast.Eq: ((1, False), (-1, False)),
}


@dataclass(frozen=True)
class Row:
    """``sum of terms + constant <= 0``, or ``< 0`` where strict; terms: coefficients by index."""

    terms: tuple[tuple[int, Fraction], ...]
    constant: Fraction
    strict: bool

    def denied(self) -> Row:
        """What holds where it does not."""
        return Row(tuple((i, -v) for i, v in self.terms), -self.constant, not self.strict)

    def shown(self, name: str = "y") -> str:
        """As mathematics."""
        parts = [f"{_factor(v)}{name}[{i}]" for i, v in self.terms]
        left = " + ".join(parts).replace("+ -", "- ") or "0"
        return f"{left} {'<' if self.strict else '<='} {_number(-self.constant)}"


# Alternatives, each of which says that all of its rows hold.
Cases = list[list[Row]]


def unsafe(text: str, outputs: int) -> Cases:
    """Where a requirement of outputs ``y`` does not hold. Raises :class:`InputError` for what is none."""
    return Reader(text, "y", outputs).cases(False)


def box(text: str, inputs: int) -> tuple[list[Fraction], list[Fraction]]:
    """Lower and upper bounds of inputs ``x``. Raises :class:`InputError` for what is no box."""
    cases = Reader(text, "x", inputs).cases(True)
    if len(cases) != 1:
        raise InputError("--input describes one box: bounds of inputs joined by 'and'")
    lower: list[Fraction | float] = [-inf] * inputs
    upper: list[Fraction | float] = [inf] * inputs
    for row in cases[0]:
        if len(row.terms) != 1 or row.strict:
            raise InputError(f"--input describes a closed box, got {row.shown('x')}")
        ((i, factor),) = row.terms
        if factor > 0:
            upper[i] = min(upper[i], -row.constant / factor)
        else:
            lower[i] = max(lower[i], -row.constant / factor)
    low, high = ([v for v in side if isinstance(v, Fraction)] for side in (lower, upper))
    for i, (least, most) in enumerate(zip(lower, upper, strict=True)):
        if -inf in (least, most) or inf in (least, most):
            side = "lower" if least == -inf else "upper"
            raise InputError(
                f"--input leaves x[{i}] of {inputs} inputs without {'a' if side == 'lower' else 'an'} {side} bound"
            )
        if least > most:
            raise InputError(f"--input describes no box: x[{i}] >= {float(least):g} and x[{i}] <= {float(most):g}")
    return low, high


class Reader:
    """A formula about one vector, ``name``, of so many values."""

    def __init__(self, text: str, name: str, size: int) -> None:
        self.text, self.name, self.size = text, name, size

    def cases(self, wanted: bool) -> Cases:
        """Where it holds, or where it does not."""
        try:
            tree = ast.parse(self.text.strip(), mode="eval").body
            return self._of(tree, wanted)
        except (SyntaxError, RecursionError, ValueError) as error:
            why = error.msg if isinstance(error, SyntaxError) else error
            raise InputError(f"cannot read {self.text!r}: {why}: expected {self._language()}") from None

    def _of(self, node: ast.expr, wanted: bool) -> Cases:
        if isinstance(node, ast.BoolOp):
            parts = [self._of(value, wanted) for value in node.values]
            return _all(parts) if isinstance(node.op, ast.And) == wanted else [c for part in parts for c in part]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return self._of(node.operand, not wanted)
        if isinstance(node, ast.Compare):
            rows = list(self._compared(node))
            return [rows] if wanted else [[row.denied()] for row in rows]
        raise self._strange(node)

    def _compared(self, node: ast.Compare) -> Iterable[Row]:
        terms = [node.left, *node.comparators]
        if self._is_argmax(node.left) and len(terms) == 2 and isinstance(node.ops[0], ast.Eq):
            label = self._index(terms[1])
            for i in range(self.size):
                if i != label:
                    yield Row(((i, Fraction(1)), (label, Fraction(-1))), Fraction(0), True)
            return
        for left, op, right in zip(terms, node.ops, terms[1:], strict=False):
            if type(op) not in SIGNS:
                raise self._strange(node)
            for i in range(self.size) if self._is_whole(left) or self._is_whole(right) else (-1,):
                total = _plus(self._linear(left, i), self._linear(right, i), -1)
                for sign, strict in SIGNS[type(op)]:
                    scaled = {k: sign * v for k, v in total.items() if v}
                    constant = scaled.pop(-1, Fraction(0))
                    yield Row(tuple(sorted(scaled.items())), constant, strict)

    def _linear(self, node: ast.expr, each: int) -> dict[int, Fraction]:
        """Coefficients by index, the constant's at -1; ``each``: what a vector without an index stands for."""
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            digits = ast.get_source_segment(self.text.strip(), node) or ""
            zero = not set(digits.lower().partition("e")[0]) - set("0_.")
            if len(digits) > LONGEST or not (zero or SMALLEST <= abs(node.value) <= 1 / SMALLEST):
                raise InputError(f"{digits[:LONGEST]} is beyond the numbers that can be read")
            return {-1: Fraction(0 if zero else digits)}
        if isinstance(node, ast.Name) and node.id == self.name and each >= 0:
            return {each: Fraction(1)}
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == self.name:
            return {self._index(node.slice): Fraction(1)}
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            sign = -1 if isinstance(node.op, ast.USub) else 1
            return _plus({}, self._linear(node.operand, each), sign)
        if isinstance(node, ast.BinOp):
            left, right = self._linear(node.left, each), self._linear(node.right, each)
            if isinstance(node.op, (ast.Add, ast.Sub)):
                return _plus(left, right, 1 if isinstance(node.op, ast.Add) else -1)
            if isinstance(node.op, ast.Mult) and not set(left) - {-1}:
                left, right = right, left
            if isinstance(node.op, (ast.Mult, ast.Div)) and not set(right) - {-1}:
                factor = right.get(-1, Fraction(0))
                if isinstance(node.op, ast.Div):
                    if not factor:
                        raise InputError(f"{self.text!r} divides by 0")
                    factor = 1 / factor
                return {k: v * factor for k, v in left.items()}
        raise self._strange(node)

    def _index(self, node: ast.expr) -> int:
        if isinstance(node, ast.Constant) and type(node.value) is int and 0 <= node.value < self.size:
            return node.value
        raise InputError(f"{ast.unparse(node)!r} is no index of {self.name}, which has {self.size} values")

    def _is_whole(self, node: ast.expr) -> bool:
        inner = {id(n.value) for n in ast.walk(node) if isinstance(n, ast.Subscript)}
        return any(isinstance(n, ast.Name) and n.id == self.name and id(n) not in inner for n in ast.walk(node))

    def _is_argmax(self, node: ast.expr) -> bool:
        return ast.unparse(node) == f"argmax({self.name})"

    def _strange(self, node: ast.expr) -> InputError:
        return InputError(f"cannot read {ast.unparse(node)!r}: expected {self._language()}")

    def _language(self) -> str:
        values = f"{self.name}[0]" + (f" to {self.name}[{self.size - 1}]" if self.size > 1 else "")
        return f"comparisons of linear terms of {values}, joined by and, or, not"


def shown(cases: Cases) -> str:
    """Cases as mathematics, one a line."""
    return "\n".join(("   " if not i else "or ") + " and ".join(r.shown() for r in c) for i, c in enumerate(cases))


def written(lower: Iterable[Fraction], upper: Iterable[Fraction], cases: Cases, outputs: int) -> str:
    """The counterexamples as a VNN-LIB 1.0 file, numbers exact."""
    bounds = list(zip(lower, upper, strict=True))
    lines = [f"(declare-const X_{i} Real)" for i in range(len(bounds))]
    lines += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    for i, (low, high) in enumerate(bounds):
        lines += [f"(assert (>= X_{i} {_decimal(low)}))", f"(assert (<= X_{i} {_decimal(high)}))"]
    disjuncts = [f"(and {' '.join(_smt(row) for row in case)})" for case in cases]
    return "\n".join([*lines, f"(assert (or {' '.join(disjuncts)}))", ""])


def _smt(row: Row) -> str:
    terms = [f"(* {_decimal(v)} Y_{i})" if v != 1 else f"Y_{i}" for i, v in row.terms] or ["0.0"]
    total = terms[0] if len(terms) == 1 else f"(+ {' '.join(terms)})"
    return f"({'<' if row.strict else '<='} {total} {_decimal(-row.constant)})"


def _all(parts: list[Cases]) -> Cases:
    count = 1
    for part in parts:
        count *= len(part)
    if count > MOST:
        raise InputError(f"the requirement comes apart into {count} cases, more than {MOST}")
    return [[row for case in chosen for row in case] for chosen in product(*parts)]


def _plus(left: dict[int, Fraction], right: dict[int, Fraction], sign: int) -> dict[int, Fraction]:
    return {k: left.get(k, Fraction(0)) + sign * right.get(k, Fraction(0)) for k in left | right}


def _decimal(value: Fraction) -> str:
    """The number as a decimal. Raises :class:`InputError` where it has none that ends."""
    tens, rest = 0, value.denominator
    while rest % 10 == 0 or rest % 2 == 0 or rest % 5 == 0:
        rest //= 10 if rest % 10 == 0 else 2 if rest % 2 == 0 else 5
        tens += 1
    if rest != 1 or tens > 400:
        raise InputError(f"{value} has no finite decimal: write it as one")
    digits = str(abs(value.numerator) * 10**tens // value.denominator).rjust(tens + 1, "0")
    whole, part = digits[: len(digits) - tens], digits[len(digits) - tens :]
    return f"{'-' if value < 0 else ''}{whole}.{part or '0'}"


def _number(value: Fraction) -> str:
    return f"{float(value):g}"


def _factor(value: Fraction) -> str:
    return {1: "", -1: "-"}.get(int(value) if value.denominator == 1 else 0, f"{_number(value)} ")
