"""VNN-LIB 2.0: named tensors X[0,1] of declared networks, parsed and type-checked by the package ``vnnlib``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from assay.verify.core.errors import AssayError, InputError, ResourceError, UnsupportedError
from assay.verify.core.network import Port
from assay.verify.frontends.vnnlib.declared import Declared
from assay.verify.frontends.vnnlib.formula import Formula, conjunction
from assay.verify.frontends.vnnlib.linear import Linear, constant, number, variable
from assay.verify.frontends.vnnlib.operators import MAX_DEPTH, apply
from assay.verify.frontends.vnnlib.text import Text, shown
from assay.verify.support.plain import counted

if TYPE_CHECKING:
    import vnnlib

MAX_TOKENS = 20_000_000

OPERATORS = {
    "And": "and",
    "Or": "or",
    "LessEqual": "<=",
    "LessThan": "<",
    "GreaterEqual": ">=",
    "GreaterThan": ">",
    "Equal": "==",
    "NotEqual": "!=",
    "Plus": "+",
    "Minus": "-",
    "Negate": "-",
    "Multiply": "*",
}
TYPES = ("Real", "F32", "F64")

_TOKEN = re.compile(r';[^\n]*+|"(?:[^"\\]|\\.)*+"|[()"]|[^\s()";]++', re.ASCII | re.DOTALL)
_SYNTAX_ERROR = re.compile(r"syntax error at line (\d+), column \d+: '(.*)'", re.DOTALL)


def parse(text: Text) -> tuple[Formula, tuple[Declared, ...]]:
    """All assertions together, and the networks that are declared. Tensors are flattened, the last index fastest, and
    stand one after the other, in the order of their declarations, inputs (X) and outputs (Y) apart.

    Constants are exact decimals, whatever the declared type.

    Raises :class:`InputError` for what the package rejects, :class:`UnsupportedError` for hidden nodes, other types
    than real, float32 and float64, :class:`ResourceError` beyond the caps.
    """
    _check_size(text)
    query = _query(text)
    tensors: dict[str, Tensor] = {}
    networks = tuple(_declared(text, network, tensors) for network in query.networks)
    reader = Reader(text, tensors)
    assertions = [reader.formula(assertion.expr) for assertion in query.assertions]
    with text.located(len(text.content)):
        return conjunction(assertions), networks


class Tensor(NamedTuple):
    """A declared input (X) or output (Y), which begins at ``offset`` among all of its kind."""

    kind: str
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def size(self) -> int:
        """The number of its elements."""
        return prod(self.shape)

    def position(self, indices: Sequence[int]) -> int:
        """Where an element stands once the tensor is flattened."""
        position = 0
        for index, extent in zip(indices, self.shape, strict=True):
            if not 0 <= index < extent:
                raise InputError(f"index {index} is out of range: the dimension has {extent} elements")
            position = position * extent + index
        return self.offset + position


class Reader:
    """Turns the package's syntax trees, whose depth has been checked, into formulas."""

    def __init__(self, text: Text, tensors: dict[str, Tensor]) -> None:
        self.text, self.tensors = text, tensors

    def formula(self, tree: vnnlib.BoolExpr) -> Formula:
        """An asserted formula."""
        value, _ = self.value(tree)
        assert isinstance(value, Formula)  # the package checks types
        return value

    def value(self, tree: vnnlib.Node) -> tuple[Formula | Linear, int]:
        """A formula or a term, and the line of its first element or number: the package keeps no other places."""
        import vnnlib

        if isinstance(tree, (vnnlib.Var, vnnlib.Literal)):
            with self.text.located(self.text.offset(tree.line)):
                return self.leaf(tree), tree.line
        values, lines = zip(*(self.value(child) for child in tree.children()), strict=True)
        with self.text.located(self.text.offset(lines[0])):
            return apply(OPERATORS[type(tree).__name__], values), lines[0]

    def leaf(self, tree: vnnlib.Var | vnnlib.Literal) -> Linear:
        """An element of a tensor or a number."""
        import vnnlib

        if isinstance(tree, vnnlib.Var):
            tensor = self.tensors[tree.name]
            return variable(tensor.kind, tensor.position(tree.indices))
        value = number(tree.lexeme)
        if value is None:
            raise UnsupportedError(f"{shown(tree.lexeme)} is no decimal number")
        return constant(value)


def _check_size(text: Text) -> None:
    """The package parses by recursion and stops at a NUL without a word: neither may happen."""
    nul = text.content.find("\0")
    if nul >= 0:
        raise text.error(nul, "unexpected character '\\x00'")
    depth = 0
    for count, token in enumerate(_TOKEN.finditer(text.content)):
        if token[0] == "(":
            depth += 1
            if depth > MAX_DEPTH:
                raise text.error(token.start(), f"more than {MAX_DEPTH} nested parentheses", ResourceError)
        elif token[0] == ")":
            depth -= 1
        if count > MAX_TOKENS:
            raise text.error(token.start(), f"more than {MAX_TOKENS} tokens", ResourceError)


def _query(text: Text) -> vnnlib.Query:
    try:
        import vnnlib
    except ImportError:
        raise UnsupportedError(f"{text.name}: VNN-LIB 2.0 needs the package vnnlib: pip install vnnlib") from None
    try:
        return vnnlib.parse_query_string(text.content)
    except vnnlib.VNNLibException as error:
        raise _rejected(text, str(error)) from None
    except (IndexError, ValueError) as error:  # numbers that its own are too small for, text that is not ASCII
        raise InputError(f"{text.name}: the package vnnlib cannot read it: {error}") from None


def _rejected(text: Text, message: str) -> AssayError:
    """The first complaint of the package, with its place."""
    match = _SYNTAX_ERROR.search(message)
    if match:
        what = f"unexpected {shown(match[2])}" if match[2] else "the text ends too early"
        return text.error(text.offset(int(match[1]), match[2]), what)
    try:
        first = json.loads(message)["errors"][0]
        symbol = first["offendingSymbol"]
        what = f"{first['message']}: {shown(symbol)}. {first['hint']}"
        return text.error(text.offset(first["line"], symbol), what)
    except (ValueError, LookupError, TypeError):
        return InputError(f"{text.name}: {message}")


def _declared(text: Text, network: vnnlib.Network, tensors: dict[str, Tensor]) -> Declared:
    """What is declared of a network; its tensors go behind those before, by name."""
    if network.hidden:
        raise UnsupportedError(
            f"{text.name}: the property speaks of {counted(len(network.hidden), 'hidden node')} of the network "
            f"{network.name}; of inputs and outputs alone is supported"
        )
    ports: dict[str, list[Port]] = {"X": [], "Y": []}
    for kind, several in (("X", network.inputs), ("Y", network.outputs)):
        for tensor in several:
            if tensor.dtype.name not in TYPES:
                raise UnsupportedError(
                    f"{text.name}: {tensor.name} has type {tensor.dtype.name}; expected real or float"
                )
            offset = sum(t.size for t in tensors.values() if t.kind == kind)
            tensors[tensor.name] = Tensor(kind, tuple(tensor.shape), offset)
            ports[kind].append(Port(tensor.onnx_name or tensor.name, tuple(tensor.shape)))
    named = all(tensor.onnx_name for tensor in network.inputs) and all(t.onnx_name for t in network.outputs)
    types = {tensor.dtype.name for tensor in network.inputs} | {tensor.dtype.name for tensor in network.outputs}
    inputs, outputs = (tuple(ports[kind]) for kind in "XY")
    return Declared(network.name, inputs, outputs, network.equal_to or "", named, frozenset(types - {"Real"}))
