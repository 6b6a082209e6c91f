"""VNN-LIB 1.0: real constants X_0, X_1, ... and Y_0, Y_1, ..., and assertions about them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from assay.verify.core.errors import ResourceError, UnsupportedError, unknown_name
from assay.verify.frontends.vnnlib.formula import Bound, Conjunct, Formula, Row, conjunction
from assay.verify.frontends.vnnlib.linear import NUMBER, ONE, Linear, constant, number, variable
from assay.verify.frontends.vnnlib.operators import MAX_DEPTH, OVER_FORMULAS, OVER_TERMS, UNSUPPORTED, apply
from assay.verify.frontends.vnnlib.text import Text, shown

MAX_TOKENS = 5_000_000  # a plain bound counts as one, and so does a declaration
MAX_KNOWN = 10_000  # bounds that are not read again

# Commands of SMT-LIB that say nothing about the question; after some of them it is complete.
SILENT = ("set-logic", "set-info", "set-option", "get-info", "get-option", "get-model", "get-value", "echo")
LAST = ("check-sat", "exit")
TRUTHS = {"true": Formula(), "false": Formula(choices=())}

# All quantifiers are possessive (Python 3.11): matching takes linear time whatever the text.
INDEX = r"(0|[1-9][0-9]{0,8}+)"
BOUND = rf"\(\s*+(<=|>=|<|>)\s++([XY])_{INDEX}\s++({NUMBER})\s*+\)"

_GAP = re.compile(r"(?:\s++|;[^\n]*+)*+", re.ASCII)
_TOKEN = re.compile(r"[()]|[^\s()\";|]++", re.ASCII)
_BOUND = re.compile(BOUND, re.ASCII)
_ASSERTED_BOUND = re.compile(rf"\(\s*+assert\s++{BOUND}\s*+\)", re.ASCII)
_DECLARATION = re.compile(rf"\(\s*+declare-const\s++([XY]_{INDEX})\s++Real\s*+\)", re.ASCII)
# A token, a text or a name in bars: what commands that say nothing about the question may hold.
_ANYTHING = re.compile(r'[()]|"(?:[^"]|"")*+"|\|[^|]*+\||[^\s()";|]++', re.ASCII)
_VARIABLE = re.compile(rf"([XY])_{INDEX}", re.ASCII)


@dataclass
class Open:
    """An operator that is not closed yet, its place, and what it applies to so far."""

    operator: str
    place: int
    values: list[Formula | Linear] = field(default_factory=list)


class Parser:
    """Reads one whole text, front to end; plain bounds and declarations are matched in one step, for speed."""

    def __init__(self, text: Text, start: int = 0) -> None:
        self.text, self.content, self.position, self.tokens = text, text.content, start, 0
        self.declared: dict[str, set[int]] = {"X": set(), "Y": set()}
        self.known: dict[str, Formula] = {}  # bounds that boxes have in common, by their text
        self.complete = ""  # the command after which nothing may be asserted

    def parse(self) -> tuple[Formula, int, int]:
        """All assertions together, and the numbers of inputs and outputs.

        Raises :class:`InputError` for what is no VNN-LIB, :class:`UnsupportedError` for other operators,
        :class:`ResourceError` beyond the caps; all name the place.
        """
        bounds: list[Bound] = []  # thousands, as a rule; the order of rows is kept, that of bounds says nothing
        assertions: list[Formula] = []
        while self.skip():
            if match := self.match(_ASSERTED_BOUND):
                self.still_open(match.start())
                plain = self.bound(match)
                bounds += plain.bounds
                assertions += [Formula(plain)] if plain.rows else []
            elif match := self.match(_DECLARATION):
                self.declare(match[1], match.start(1))
            else:
                assertions += self.statement()
        inputs, outputs = self.count("X"), self.count("Y")
        with self.text.located(self.position):
            return conjunction([Formula(Conjunct(tuple(bounds))), *assertions]), inputs, outputs

    def statement(self) -> list[Formula]:
        """One statement in any form: what it asserts, if anything."""
        start = self.position
        self.expect("(")
        command, place = self.token()
        if command in SILENT or command in LAST:
            self.leave()
            self.complete = self.complete or command * (command in LAST)
            return []
        if command in ("declare-const", "declare-fun"):
            name, at = self.token()
            if command == "declare-fun":  # without arguments it is the same
                self.expect("(")
                self.expect(")")
            sort, where = self.token()
            if sort != "Real":
                raise self.text.error(where, f"expected the sort Real, got {shown(sort)}")
            self.expect(")")
            self.declare(name, at)
            return []
        if command != "assert":
            with self.text.located(place):
                raise unknown_name("command", command[:40], ("assert", "declare-const"))
        value, at = self.expression()
        if not isinstance(value, Formula):
            raise self.text.error(at, "expected a comparison, and or or; got a term")
        self.expect(")")
        self.still_open(start)
        return [value]

    def still_open(self, place: int) -> None:
        """Nothing has ended the question: what is asserted afterwards would not count, or be asked for apart."""
        if self.complete:
            raise self.text.error(place, f"an assertion after ({self.complete}), which ends the property")

    def leave(self) -> None:
        """Take the rest of a statement, whatever it holds."""
        depth = 1
        while depth:
            if not self.skip():
                raise self.text.error(self.position, "the text ends too early")
            piece = self.match(_ANYTHING)
            if not piece:
                raise self.text.error(self.position, f"unexpected character {self.content[self.position]!r}")
            depth += (piece[0] == "(") - (piece[0] == ")")

    def expression(self) -> tuple[Formula | Linear, int]:
        """One formula or term, and its place; without recursion, so that depth is limited by ``MAX_DEPTH`` alone."""
        pending: list[Open] = []
        while True:
            value: Formula | Linear
            if self.skip() and (match := self.match(_BOUND)):
                known = self.known.get(match[0])
                if known is None:
                    known = Formula(self.bound(match))
                    if len(self.known) < MAX_KNOWN:
                        self.known[match[0]] = known
                value, place = known, match.start()
            else:
                token, place = self.token()
                if token == "(":
                    pending.append(self.opened(place, len(pending)))
                    continue
                if token == ")":
                    value, place = self.closed(pending, place)
                else:
                    value = self.atom(token, place)
            if not pending:
                return value, place
            pending[-1].values.append(value)

    def opened(self, place: int, depth: int) -> Open:
        """The operator after an opening parenthesis."""
        operator, at = self.token()
        if depth >= MAX_DEPTH:
            raise self.text.error(place, f"more than {MAX_DEPTH} nested parentheses", ResourceError)
        if operator in UNSUPPORTED:
            raise self.text.error(at, f"the operator {operator} is not supported", UnsupportedError)
        if operator not in OVER_FORMULAS and operator not in OVER_TERMS:
            with self.text.located(at):
                raise unknown_name("operator", operator[:40], {*OVER_FORMULAS, *OVER_TERMS})
        return Open(operator, place)

    def closed(self, pending: list[Open], place: int) -> tuple[Formula | Linear, int]:
        """What the last open operator amounts to, and its place."""
        if not pending:
            raise self.text.error(place, "expected a formula, got ')'")
        done = pending.pop()
        with self.text.located(done.place):
            return apply(done.operator, done.values), done.place

    def atom(self, token: str, place: int) -> Formula | Linear:
        """A number, a declared variable, or a truth."""
        if token in TRUTHS:
            return TRUTHS[token]
        with self.text.located(place):
            value = number(token)
            if value is not None:
                return constant(value)
        match = _VARIABLE.fullmatch(token)
        if not match or int(match[2]) not in self.declared[match[1]]:
            raise self.text.error(place, f"expected a number or a declared variable X_i or Y_i, got {shown(token)}")
        return variable(match[1], int(match[2]))

    def bound(self, match: re.Match[str]) -> Conjunct:
        """A comparison with a number in the plain form ``(<= X_0 1.5)``."""
        operator, kind, index, digits = match[1], match[2], int(match[3]), match[4]
        if index not in self.declared[kind]:
            raise self.text.error(match.start(2), f"{kind}_{index} is not declared")
        with self.text.located(match.start(4)):
            value = number(digits)
        assert value is not None
        upper, strict = operator[0] == "<", len(operator) == 1
        if kind == "X":
            return Conjunct(bounds=(Bound(index, value, upper, strict),))
        return Conjunct(rows=(Row(((index, ONE if upper else -ONE),), value if upper else -value, strict),))

    def declare(self, name: str, place: int) -> None:
        """A variable becomes known."""
        match = _VARIABLE.fullmatch(name)
        if not match:
            raise self.text.error(place, f"expected a variable X_i or Y_i, got {shown(name)}")
        known, index = self.declared[match[1]], int(match[2])
        if index in known:
            raise self.text.error(place, f"{name} is declared twice")
        known.add(index)

    def count(self, kind: str) -> int:
        """The number of variables of a kind; their indices must leave no gap."""
        known = self.declared[kind]
        if not known or max(known) != len(known) - 1:
            missing = next(i for i in range(len(known) + 1) if i not in known)
            raise self.text.error(self.position, f"{kind}_{missing} is not declared")
        return len(known)

    def skip(self) -> bool:
        """Move over blanks and comments; whether anything is left."""
        gap = _GAP.match(self.content, self.position)
        assert gap is not None
        self.position = gap.end()
        return self.position < len(self.content)

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Take what ``pattern`` matches here, if it does."""
        matched = pattern.match(self.content, self.position)
        if matched:
            self.position = matched.end()
            self.tokens += 1
            if self.tokens > MAX_TOKENS:
                raise self.text.error(self.position, f"more than {MAX_TOKENS} tokens", ResourceError)
        return matched

    def token(self) -> tuple[str, int]:
        """The next token and its place."""
        if not self.skip():
            raise self.text.error(self.position, "the text ends too early")
        match = self.match(_TOKEN)
        if not match:
            raise self.text.error(self.position, f"unexpected character {self.content[self.position]!r}")
        return match[0], match.start()

    def expect(self, parenthesis: str) -> None:
        """Take a parenthesis."""
        token, place = self.token()
        if token != parenthesis:
            raise self.text.error(place, f"expected {parenthesis!r}, got {shown(token)}")
