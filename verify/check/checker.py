"""Check a certificate of assay: python checker.py CERTIFICATE MODEL.onnx PROPERTY [--exact]

One file that shares no code with what it checks: numpy, the standard library, and onnx to open the model. It believes
nothing that a certificate holds. Slopes, multipliers and weights are hints: lines whose slopes are forced between those
of its two pieces lie below a ReLU, and weights of splits and rows that are not negative bound the least value from
below, so that wrong hints give weak bounds, not false ones. All else, bounds of layers among it, is derived here, in
float64 with every rounding charged (Higham 2002, chapter 3), or with ``--exact`` in fractions. Noise is drawn again.
PROPERTY: VNN-LIB, or a ball in JSON. Exit code 0: accepted; 1: rejected.
"""

import gzip
import hashlib
import io
import json
import re
import sys
import zipfile
from collections import Counter
from dataclasses import dataclass, replace
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, Context, Decimal, localcontext
from fractions import Fraction
from functools import lru_cache, partial, partialmethod
from itertools import product
from math import inf, isfinite, nextafter, prod
from pathlib import Path
from time import monotonic
from typing import Any

try:
    import numpy as np
    import onnx
except ImportError as missing:
    if __name__ == "__main__":
        sys.exit(f"{missing}; the checker needs numpy, and onnx to read the model: pip install numpy onnx")
    raise

LARGEST, TERMS, DENSE = 1 << 31, 10_000, 1 << 23  # bytes unpacked, cases, and numbers of a matrix, at most
BLOCK, CACHED, BOXES = 64, 1 << 14, 512  # rows at a time, or more if so many numbers are not exceeded; boxes at a time


FORMAT = "assay-certificate-1"


class Rejected(Exception):
    """Why the certificate proves nothing here; ``left``: of a tree its part, and what of it is not proved: of a tree of
    boxes the numbers of leaves, of another one the places of nodes in it."""

    def __init__(self, why, left=()) -> None:
        super().__init__(why)
        self.left = left


def need(holds, why):
    if not holds:
        raise Rejected(why)


class Floats:
    """float64, rounded to nearest: the relative error ``unit`` of an operation, and more than underflows lose."""

    unit, dust = 2.0**-53, 2.0**-900

    def __init__(self, until=inf) -> None:
        self.until = until  # on the monotonic clock

    def of(self, x):
        return np.asarray(x, dtype=np.float64)

    def cut(self, x, side=0.0):
        """Any number near, or with a ``side`` one beyond it."""
        return np.nextafter(x, side) if side else x

    def dots(self, x, y):
        """Of each row with the other's."""
        return x @ y[0] if len(y) == 1 else np.einsum("ij,ij->i", x, y)

    def gamma(self, n, unit=2.0**-53):
        share = n * unit
        return share / (1 - share) if share < 0.1 else inf


class Rationals(Floats):
    """Arrays of fractions: slow, and exact but where any number will do."""

    unit, dust = Fraction(0), Fraction(0)

    def of(self, x):
        return np.frompyfunc(Fraction, 1, 1)(np.asarray(x, dtype=None if np.asarray(x).dtype == object else float))

    def cut(self, x, side=0.0):
        return np.frompyfunc(lambda v: Fraction(nextafter(float(v), side) if side else float(v)), 1, 1)(x)

    def dots(self, x, y):
        return (x * y).sum(1)

    def gamma(self, n, unit=0.0):
        return Fraction(super().gamma(n, unit))


# ---- The network


@dataclass
class Node:
    """One operation on flat vectors: ``input``, ``relu`` (slope ``left`` below 0), or an affine one, ``dense`` (out x
    in), ``conv`` (groups x out x in x kernel), ``scale``, ``pick`` (places, -1: 0) and ``sum`` (signs), whose weights
    have a relative error ``loose``. ``lower``, ``upper`` (domains x size): of its value, ``most``: of its magnitude;
    ``charge``: what rounding takes of a unit of coefficient."""

    kind: str
    inputs: tuple = ()
    size: int = 0
    weight: object = None
    bias: object = None
    shape: tuple = ()
    how: tuple = ()
    left: float = 0.0
    loose: float = 0.0
    lower: object = None
    upper: object = None
    most: object = None
    charge: object = None
    waste: float = 0.0
    thin: tuple = ()

    @property
    def operand(self):
        """The size of its operand, of a dense one or a convolution."""
        return self.weight.shape[1] if self.kind == "dense" else prod(self.weight.shape[:3:2]) * prod(self.shape[0])

    @property
    def products(self):
        """How many products a value sums up, at most."""
        return prod({"dense": np.shape(self.weight)[1:], "conv": np.shape(self.weight)[2:]}.get(self.kind, (4,)))

    @property
    def terms(self):
        """At least as many as are summed in any value, coefficient, or row of coefficients."""
        return self.size + self.products + (self.weight[0].size if self.kind == "conv" else 4)

    def windows(self, padded):
        (_, (oh, ow)), (sh, sw), (dh, dw) = self.shape, self.how[0], self.how[2]
        for i, j in np.ndindex(*self.weight.shape[3:]):
            rows, columns = slice(i * dh, i * dh + sh * (oh - 1) + 1, sh), slice(j * dw, j * dw + sw * (ow - 1) + 1, sw)
            yield self.weight[..., i, j], padded[..., rows, columns]

    def padded(self, rows):
        """Room for its operand and the padding, and where the operand stands."""
        (h, w), (top, left, bottom, right) = self.shape[0], self.how[1]
        room = np.zeros((rows, *self.weight.shape[:3:2], h + top + bottom, w + left + right), self.weight.dtype)
        return room, room[..., top : top + h, left : left + w]

    def push(self, *x, size=False):
        """Its value without the bias, or what the terms come to without signs: (n x in) to (n x out)."""
        w = np.abs(self.weight) if size and self.kind in ("dense", "scale") else self.weight
        if self.kind == "dense":
            return x[0] @ w.T
        if self.kind == "scale":
            return x[0] * w
        if self.kind == "pick":
            return np.where(w >= 0, x[0][:, w], 0)
        if self.kind == "sum":
            return sum(v if size else v * sign for v, sign in zip(x, w, strict=True))
        room, inside = self.padded(len(x[0]))
        inside[...] = x[0].reshape(inside.shape)
        parts = [
            (np.abs(k) if size else k) @ part.reshape(*part.shape[:3], prod(part.shape[3:]))
            for k, part in self.windows(room)
        ]
        return sum(parts).reshape(len(x[0]), self.size)

    def pull(self, a, which=0):
        """Coefficients of its value as those of an operand: (n x out) to (n x in)."""
        if self.thin:
            out, into, weight = self.thin
            found = np.zeros((len(a), self.operand), a.dtype)
            found[:, into] = a[:, out] @ weight
            return found
        if self.kind == "dense":
            return a @ self.weight
        if self.kind == "scale":
            return a * self.weight
        if self.kind == "sum":
            return a * self.weight[which]
        if self.kind == "pick":
            out, kept = np.zeros((len(a), self.shape[0]), a.dtype), self.weight >= 0
            np.add.at(out, (slice(None), self.weight[kept]), a[:, kept])
            return out
        room, inside = self.padded(len(a))
        a = a.reshape(len(a), len(self.weight), self.weight.shape[1], prod(self.shape[1]))
        w = self.weight.reshape(*self.weight.shape[:2], prod(self.weight.shape[2:]))
        parts = (np.swapaxes(w, 1, 2) @ a).reshape(len(a), len(w), *self.weight.shape[2:], *self.shape[1])
        for (i, j), (_, part) in zip(np.ndindex(*self.weight.shape[3:]), self.windows(room), strict=True):
            part += parts[:, :, :, i, j]
        return inside.reshape(len(a), self.operand)


# Operations that only move elements: places, attributes, and the constant operand if there is one.
MOVES = {
    "Identity": lambda p, a, to: p,
    "Dropout": lambda p, a, to: p,
    "Flatten": lambda p, a, to: p.reshape(prod(p.shape[: a.get("axis", 1)]), -1),
    "Reshape": lambda p, a, to: p.reshape([d or p.shape[i] for i, d in enumerate(to.tolist())]),
    "Transpose": lambda p, a, to: p.transpose(a.get("perm")),
}


class Reader:
    """An ONNX graph as nodes. A value is the number of a node with the places in it of its elements, in the shape that
    ONNX gives it: what only moves elements moves places."""

    def __init__(self, data):
        model = onnx.load_model_from_string(data)
        graph, old = model.graph, any(o.version < 7 for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.constants = {t.name: self.array(t) for t in graph.initializer}
        inputs = [i for i in graph.input if i.name not in self.constants]
        need(len(inputs) == len(graph.output) == 1, "a model of one input and one output is expected")
        real = inputs[0].type.tensor_type.elem_type in (1, 11)
        need(real and not model.functions, "inputs that are no real numbers, or functions, are beyond this checker")
        told = [t.name for t in (inputs[0], *graph.initializer)] + [o for node in graph.node for o in node.output if o]
        need(len(set(told)) == len(told), "a name is given to two values")
        dims = [d.dim_value or 1 for d in inputs[0].type.tensor_type.shape.dim]
        self.nodes, self.values = [], {inputs[0].name: (0, np.arange(prod(dims)).reshape(dims))}
        self.add(dims, Node("input", how=tuple(dims)))
        for node in graph.node:
            a = {x.name: onnx.helper.get_attribute_value(x) for x in node.attribute}
            if node.op_type == "Constant" and "value" in a:
                self.constants[node.output[0]] = self.array(a["value"])
                continue
            odd = a.get("broadcast") or a.get("allowzero") or not a.get("spatial", 1) or a.get("training_mode")
            odd = odd or (node.op_type == "Dropout" and len(node.input) > 2) or node.domain not in ("", "ai.onnx")
            odd = odd or (old and node.op_type in ("BatchNormalization", "Dropout") and not a.get("is_test"))
            move, rule = MOVES.get(node.op_type), getattr(self, f"on_{node.op_type}", None)
            need((move or rule) and not odd, f"operation {node.op_type} is beyond this checker")
            if move:
                (number, places), to = self.values[node.input[0]], [self.constant(n) for n in node.input[1:] if n]
                self.values[node.output[0]] = number, move(places, a, *to or [None])
            else:
                self.values[node.output[0]] = rule(list(node.input), a)
        self.scaled(self.values[graph.output[0].name], 1.0, 0.0)

    @staticmethod
    def array(t):
        known = t.data_type in (1, 6, 7, 11) and not t.data_location
        need(known, f"tensor {t.name!r} is of a type, or in a place, beyond this checker")
        values = onnx.numpy_helper.to_array(t)
        values = values.astype(np.float64 if values.dtype.kind == "f" else np.int64)  # both widen exactly
        need(np.isfinite(values).all(), f"tensor {t.name!r} is not finite")
        return values

    def add(self, dims, node):
        node.size = prod(dims)
        self.nodes.append(node)
        return len(self.nodes) - 1, np.arange(node.size).reshape(dims)

    def constant(self, name):
        need(name in self.constants, f"{name!r} is expected to be constant")
        return self.constants[name]

    def flat(self, value):
        """The number of a node that holds the value in order."""
        number, places = value
        size = self.nodes[number].size
        if not np.array_equal(places.ravel(), np.arange(size)):
            number, _ = self.add((places.size,), Node("pick", (number,), weight=places.ravel(), shape=(size,)))
        return number

    def on_Relu(self, names, a, left=0.0):
        value = self.values[names[0]]
        return self.add(value[1].shape, Node("relu", (self.flat(value),), left=left))

    def on_LeakyRelu(self, names, a):
        left = a.get("alpha", float(np.float32(0.01)))
        need(0 <= left <= 1, "LeakyRelu of such a slope is beyond this checker")
        return self.on_Relu(names, a, left)

    def on_Gemm(self, names, a):
        plain = a.get("alpha", 1.0) == a.get("beta", 1.0) == 1 and not a.get("transA")
        need(plain, "Gemm with alpha, beta or transA is beyond this checker")
        w = self.constant(names[1]) if a.get("transB") else self.constant(names[1]).T
        return self.linear(names[0], w, self.constant(names[2]) if len(names) > 2 else 0.0, (1, len(w)))

    def on_MatMul(self, names, a):
        behind = names[1] in self.constants
        w, shape = self.constant(names[behind]), self.values[names[not behind]][1].shape
        if behind:
            return self.linear(names[0], w.T, 0.0, (*shape[:-1], w.shape[-1]))
        # What stands in front of a vector leaves it one.
        return self.linear(names[1], w, 0.0, (*shape[:-2], len(w), *shape[-1:]) if len(shape) > 1 else (len(w),))

    def linear(self, name, w, bias, shape):
        value = self.values[name]
        one = w.ndim == 2 and value[1].size == w.shape[1] and prod(shape) == len(w)
        need(one, "a matrix product of more than one vector is beyond this checker")
        node = Node("dense", (self.flat(value),), weight=w, bias=np.broadcast_to(bias, (1, len(w)))[0])
        return self.add(shape, node)

    def on_Conv(self, names, a):
        w = self.constant(names[1])
        bias = self.constant(names[2]) if len(names) > 2 else np.zeros(len(w))
        return self.convolved(names[0], w.reshape(a.get("group", 1), -1, *w.shape[1:]), bias, a)

    def convolved(self, name, w, bias, a):
        (number, places), pads = self.values[name], a.get("pads", [0] * 4)
        plain = a.get("auto_pad", b"NOTSET") == b"NOTSET" and not a.get("ceil_mode")
        need(plain and (places.ndim, w.ndim) == (4, 5), "a convolution or pooling of this kind is beyond this checker")
        (one, channels, *size), strides, steps = places.shape, a.get("strides", [1, 1]), a.get("dilations", [1, 1])
        room = [size[i] + pads[i] + pads[i + 2] - steps[i] * (w.shape[3 + i] - 1) - 1 for i in (0, 1)]
        out = [room[i] // strides[i] + 1 for i in (0, 1)]
        fits = min(*out, *strides, *steps) >= 1 and min(pads) >= 0 and one == 1
        need(fits and channels == w.shape[0] * w.shape[2], "a convolution of these sizes is beyond this checker")
        how, shape, bias = (strides, pads, steps), (size, out), np.repeat(bias, prod(out))
        node = Node("conv", (self.flat((number, places)),), weight=w, bias=bias, shape=shape, how=how)
        return self.add((1, w.shape[0] * w.shape[1], *out), node)

    def on_Pad(self, names, a):
        (number, places), told = self.values[names[0]], [self.constant(n) for n in names[1:] if n]
        pads = np.reshape(told[0] if told else a["pads"], (2, -1)).T
        zeros = a.get("mode", b"constant") == b"constant" and not np.any(told[1:] or a.get("value", 0.0))
        plain = zeros and len(told) < 3 and len(pads) == places.ndim and (pads >= 0).all()
        need(plain, "padding of this kind is beyond this checker")
        return number, np.pad(places, pads, constant_values=-1)

    def on_AveragePool(self, names, a):
        places, kernel = self.values[names[0]][1], a["kernel_shape"]
        value = self.convolved(names[0], np.ones((places.shape[1], 1, 1, *kernel)), np.zeros(places.shape[1]), a)
        count = self.nodes[value[0]].push(np.ones((1, places.size)))[0]
        count = np.full(count.shape, 1.0 * prod(kernel)) if a.get("count_include_pad") else count
        return self.scaled(value, 1 / count.reshape(value[1].shape), 0.0, 2 * Floats.unit)

    def on_BatchNormalization(self, names, a):
        value = self.values[names[0]]
        axes = [-1 if i == 1 else 1 for i in range(value[1].ndim)]
        scale, shift, mean, var = (self.constant(n).reshape(axes) for n in names[1:5])
        need((var >= 0).all(), "BatchNormalization of this kind is beyond this checker")
        factor = scale / np.sqrt(var + a.get("epsilon", float(np.float32(1e-5))))
        return self.scaled(self.scaled(self.scaled(value, 1.0, -mean), factor, 0.0, 8 * Floats.unit), 1.0, shift)

    def scaled(self, value, weight, bias, loose=0.0):
        """The value times a weight plus a bias."""
        number, places = value
        places = np.broadcast_arrays(places, np.asarray(weight) + np.asarray(bias))[0]
        weight, bias = (np.broadcast_to(t, places.shape).astype(np.float64).ravel() for t in (weight, bias))
        node = Node("scale", (self.flat((number, places)),), weight=weight, bias=bias, loose=loose)
        return self.add(places.shape, node)

    def on_Add(self, names, a, sign=1.0):
        x, y = (self.values.get(n) for n in names)
        if x is None:
            return self.scaled(y, sign, self.constant(names[0]))
        if y is None:
            return self.scaled(x, 1.0, sign * self.constant(names[1]))
        need(x[1].shape == y[1].shape, "a sum of values of different shapes is beyond this checker")
        return self.add(x[1].shape, Node("sum", (self.flat(x), self.flat(y)), weight=(1.0, sign)))

    on_Sub = partialmethod(on_Add, sign=-1.0)

    def on_Mul(self, names, a):
        first = names[0] in self.constants
        return self.scaled(self.values[names[first]], self.constant(names[not first]), 0.0)

    def on_Div(self, names, a):
        return self.scaled(self.values[names[0]], 1 / self.constant(names[1]), 0.0, 2 * Floats.unit)


def joined(nodes):
    """The nodes, with what is added to a product that nobody else reads as its bias."""
    read, kept, number = Counter(i for node in nodes for i in node.inputs), [], []
    for node in nodes:
        inputs = tuple(number[i] for i in node.inputs)
        before = kept[inputs[0]] if inputs and node is not nodes[-1] else node
        alone = before.kind == "dense" and read[node.inputs[0]] == 1 and not before.bias.any()
        if alone and node.kind == "scale" and (node.weight == 1).all():
            before.bias = node.bias
            number.append(inputs[0])
        else:
            number.append(len(kept))
            kept.append(replace(node, inputs=inputs))
    return kept


# ---- The property


def read_property(text, inputs, outputs):
    """VNN-LIB 1.0 as boxes, each with its unsafe sets: [(lower, upper, sets)], all in fractions. A set is rows
    (coefficients of outputs, c, strict) that say ``coefficients @ y + c <= 0``. An empty box has no point."""
    stack, counts, asserts = [[]], {"X": 0, "Y": 0}, []
    for token in re.findall(r"[()]|[^\s()]+", re.sub(r";[^\n]*", "", text)):
        if token == ")":
            stack[-2].append(stack.pop())
        else:
            stack.append([]) if token == "(" else stack[-1].append(token)
    (statements,) = stack
    for kind, *rest in statements:
        if kind == "declare-const" and rest[1:] == ["Real"] and rest[0] == f"{rest[0][0]}_{counts[rest[0][0]]}":
            counts[rest[0][0]] += 1
        else:
            need(kind == "assert" and len(rest) == 1, f"a statement {kind!r} of this kind is beyond this checker")
            asserts.append(cases(rest[0]))
    told = f"the property declares {counts}, the model has {inputs} inputs and {outputs} outputs"
    need(counts == {"X": inputs, "Y": outputs}, told)
    known, _ = conjunction([atom for some in asserts if len(some) == 1 for atom in some[0]], {})
    found = {}
    for atoms in every([some for some in asserts if len(some) > 1 or not bounds_alone(some[0])]):
        ends, rows = conjunction(atoms, known)
        found.setdefault(frozenset(ends.items()), []).append(rows)
    boxes = []
    for ends, unsafe in found.items():
        ends = known | dict(ends)
        need(len(ends) == 2 * inputs, "an input without bounds is beyond this checker")
        lower, upper = (tuple(side * ends[i, side] for i in range(inputs)) for side in (-1, 1))
        if all(low <= high for low, high in zip(lower, upper, strict=True)):
            boxes.append((lower, upper, unsafe))
    return boxes


def every(parts):
    """One alternative of each part, in all ways, joined."""
    need(prod(map(len, parts)) <= TERMS, "a property of so many cases is beyond this checker")
    return [[atom for alternative in chosen for atom in alternative] for chosen in product(*parts)]


def cases(formula):
    """A formula as alternatives: lists of comparisons ``terms <= 0``, or strict ones."""
    head, *parts = formula
    if head == "or":
        return [alternative for part in parts for alternative in cases(part)]
    if head == "and":
        return every([cases(part) for part in parts])
    need(head in ("<=", ">=", "<", ">") and len(parts) == 2, f"{head!r} in a property is beyond this checker")
    low, high = map(linear, parts if "<" in head else parts[::-1])
    terms = {k: low.get(k, 0) - high.get(k, 0) for k in low | high}
    return [[(terms.pop("", Fraction(0)), {k: v for k, v in terms.items() if v}, len(head) == 1)]]


def linear(term):
    """A term as coefficients by name; the constant's at ''."""
    if isinstance(term, str):
        if re.fullmatch("[XY]_(0|[1-9][0-9]*)", term):
            return {term: 1}
        number = re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?", term)
        need(number, f"{term[:50]!r} in a property is beyond this checker")
        return {"": Fraction(term)}
    head, *parts = term[0], *map(linear, term[1:])
    if head == "*" and len(parts) == 2:
        constant, other = sorted(parts, key=lambda part: not set(part) <= {""})
        need(set(constant) <= {""}, "a product of two variables is beyond this checker")
        return {k: v * constant.get("", 0) for k, v in other.items()}
    need(head in ("+", "-") and parts, f"{head!r} in a property is beyond this checker")
    kept = len(parts) if head == "+" else len(parts) > 1  # so many are added, all others subtracted
    parts = parts[:kept] + [{k: -v for k, v in part.items()} for part in parts[kept:]]
    return {k: sum(part.get(k, 0) for part in parts) for part in parts for k in part}


def bounds_alone(atoms):
    """Whether comparisons are bounds of single inputs, ends included."""
    return all(len(terms) == 1 and min(terms)[0] == "X" and not strict for _, terms, strict in atoms)


def conjunction(atoms, known):
    """What is at least ``side`` times each input, by (number, side), where that is less than is known; and rows."""
    ends, rows = {}, []
    for constant, terms, strict in atoms:
        if len(terms) == 1 and min(terms)[0] == "X":
            ((name, factor),) = terms.items()
            side = 1 if factor > 0 else -1
            at, end = (int(name[2:]), side), -constant / abs(factor)
            if end < ends.get(at, known.get(at, inf)):
                ends[at] = end
            if strict:  # boxes are closed: a row that no point meets keeps those at their ends from being in the set
                rows.append(({}, Fraction(0), True))
        else:
            tied = any(k[0] == "X" for k in terms)
            need(not tied, "inputs tied to each other, or to outputs, are beyond this checker")
            rows.append(({int(k[2:]): v for k, v in terms.items()}, constant, strict))
    return ends, rows


def outward(number, side):
    """The nearest float64 that is not on the inner side of a fraction."""
    near = float(number)
    above, below = near.as_integer_ratio()
    beyond = above * number.denominator - number.numerator * below
    return near if beyond * side >= 0 else nextafter(near, side * inf)


@dataclass
class Ball:
    """Inputs within ``radius`` of a ``centre`` in the norm l_p, p in {1, 2, inf}."""

    p: float
    radius: float
    centre: object

    def holds(self, x):
        """Whether it has the point, in fractions."""
        apart = [abs(Fraction(a) - Fraction(b)) for a, b in zip(x, self.centre.tolist(), strict=True)]
        radius = Fraction(self.radius)
        return sum(v * v for v in apart) <= radius**2 if self.p == 2 else (sum if self.p == 1 else max)(apart) <= radius

    def least(self, a, ar):
        """At most the least values of linear functions (rows x inputs) over it."""
        size = ar.gamma(4 * a.shape[1] + 16) * (np.abs(a) @ np.abs(ar.of(self.centre)))
        return a @ ar.of(self.centre) - 2 * size - ar.of(above(self.radius * length(a, DUAL[self.p])))


def parted(prop) -> Any:
    """A property as VNN-LIB, and the ball that its inputs lie in besides, or None: JSON of the two."""
    if prop[:1] != b"{":
        return prop.decode(), None
    told = json.loads(prop)
    ball = Ball(float(told["norm"]), float.fromhex(told["radius"]), np.array([*map(float.fromhex, told["centre"])]))
    if ball.p not in (1, 2, inf) or not (0 <= ball.radius < inf) or not np.isfinite(ball.centre).all():
        raise Rejected("a ball of such a norm, radius or centre is beyond this checker")
    return told["property"], ball


# ---- Bounds


@dataclass
class Hints:
    """Of some rows: lines' ``slopes``, ``push``, the multipliers of splits with their signs, and the bounds ``lower``,
    ``upper`` of the listed neurons under splits: (rows or 1 x listed neurons) each."""

    slopes: object = None
    push: object = None
    lower: object = None
    upper: object = None


def lines(low, high, left, slopes, ar):
    """Of h = max(z, left z), low <= z <= high: the slopes of a line below it, and of one above it with its height at 0,
    ``line z <= h <= chord z + top``: any line through 0 of a slope between is below, and h is convex."""
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    chord = ar.cut((high - left * low) / np.maximum(high - low, 2.0**-900))
    line = np.where(high > -low, 1, left) if slopes is None else np.maximum(slopes, left)
    return line, chord, np.maximum((left - chord) * low, (1 - chord) * high)


class Bounder:
    """A network over boxes (domains x inputs), with the rows of unsafe sets at its end, and bounds of every node.
    ``listed``: the neurons that hints speak of, numbered through the ReLUs in order, rising. ``layers``: by ReLU, what
    its operands are bounded by beside intervals: lines of slopes 0 or 1 (None), or those in an array of this name.
    ``slants``: coefficients of the inputs that the last rows had, for those who look for proofs. ``ball``: that inputs
    lie in besides."""

    def __init__(
        self, nodes, rows, lower, upper, semantics="real", listed=(), layers=(), arrays=None, ar=None, ball=None
    ) -> None:
        self.ar, self.ball = (ar := ar or Floats()), ball
        self.deployed, listed = semantics == "float32-any-order", np.asarray(listed, np.int64)
        A, c = np.zeros((len(rows), nodes[-1].size)), np.array([float(row[1]) for row in rows])
        for i, (terms, _, _) in enumerate(rows):
            A[i, list(terms)] = [float(v) for v in terms.values()]
        unsafe = Node("dense", (len(nodes) - 1,), len(rows), weight=A, bias=c, loose=2 * Floats.unit)
        self.nodes = [replace(n, bias=np.zeros(n.size) if n.bias is None else n.bias) for n in (*nodes, unsafe)]
        need(not self.deployed or not any(n.left for n in nodes), "LeakyRelu in float32 is beyond this checker")
        if isinstance(ar, Rationals):
            for n in self.nodes:
                n.weight = ar.of(n.weight) if n.kind in ("dense", "conv", "scale") else n.weight
                n.bias, n.loose, n.left = ar.of(n.bias), Fraction(n.loose), Fraction(n.left)
        self.block = max(BLOCK, CACHED // max(n.size for n in self.nodes))  # rows at a time
        self.columns, self.rest, self.lines, begin, done = {}, {}, {}, 0, 0
        for k, node in enumerate(self.nodes):
            if node.kind == "input":
                node.lower, node.upper = ar.of(lower), ar.of(upper)
                self.centre = ar.cut(node.lower / 2 + node.upper / 2)
                self.radius = np.maximum(node.upper - self.centre, self.centre - node.lower)
            elif node.kind == "relu":
                z, here = self.nodes[node.inputs[0]], listed[(listed >= begin) & (listed < begin + node.size)] - begin
                self.columns[k], begin, done = (done, done + len(here), here), begin + node.size, done + len(here)
                summed = (
                    ball or len(self.columns) > 1 or sum(n.kind in ("dense", "conv", "sum") for n in self.nodes[:k]) > 1
                )
                for name in layers[len(self.columns) - 1] if layers and summed else ():
                    self.tighten(node.inputs[0], z, name, arrays)
                self.lines[k] = lines(z.lower, z.upper, node.left, None, ar)
                z.most = np.maximum(np.abs(z.lower), np.abs(z.upper)).max(0)
                node.lower, node.upper = (np.where(t > 0, t, t * node.left) for t in (z.lower, z.upper))
                other = ~np.isin(np.arange(node.size), here)
                dead, live = (z.upper <= 0).all(0) & (node.left == 0), (z.lower >= 0).all(0)
                self.rest[k] = np.flatnonzero(other & dead), np.flatnonzero(other & ~dead & ~live)
                if sum(node.inputs[0] in n.inputs for n in nodes) == 1:
                    self.thin(node.inputs[0], np.flatnonzero(~(other & dead)))
            else:
                self.enter(node, self.deployed and k < len(nodes))
            node.most = np.maximum(np.abs(node.lower), np.abs(node.upper)).max(0)
        need(done == len(listed) and (np.diff(listed) > 0).all(), "the listed neurons are not neurons in order")

    def enter(self, node, deployed):
        """Its intervals, and what rounding takes: in float64 here, and in float32 where the network is ``deployed``."""
        ar, x = self.ar, [self.nodes[i] for i in node.inputs]
        centre = [ar.cut((n.lower + n.upper) / 2) for n in x]
        radius = [ar.cut(np.maximum(n.upper - c, c - n.lower), inf) for n, c in zip(x, centre, strict=True)]
        value, spread = node.push(*centre) + node.bias, node.push(*radius, size=True)
        size = node.push(*(n.most[None] for n in x), size=True)[0] + np.abs(node.bias)
        dust = ar.dust or (node.loose and Fraction(Floats.dust))  # weights that are rounded may have underflowed
        waste = dust * (1 + sum(n.most.sum() for n in x))
        charge = (4 * ar.gamma(4 * node.terms + 16) + 2 * node.loose) * size + waste
        if deployed:
            charge = charge + 2 * ar.gamma(node.products + 4, 2.0**-24) * size + ar.of(node.products * 2.0**-125)
            charge = np.where(size < 2.0**120, charge, inf)
        node.lower, node.upper = ar.cut(value - spread - charge, -inf), ar.cut(value + spread + charge, inf)
        node.charge, node.waste = charge, node.terms * waste

    def tighten(self, k, z, name, arrays):
        """Bounds of the operands ``z`` of a ReLU, by rows of their own."""
        domain, feature = np.nonzero((z.lower < 0) & (z.upper > 0))
        slopes = None
        if name is not None:
            feature, slopes = arrays[f"{name}/neurons"], shares(arrays[f"{name}/slopes"])
            domain = 0 * feature
            there = ((feature >= 0) & (feature < z.size)).all() and len(slopes) == 2 * len(feature)
            need(there, "slopes of neurons that there are not")
        step = self.block // 2
        for begin in range(0, len(feature), step):
            f, d = feature[begin : begin + step], domain[begin : begin + step]
            one = np.zeros((2 * len(f), z.size), z.lower.dtype)
            one[np.arange(2 * len(f)), np.tile(f, 2)] = np.repeat([1, -1], len(f))
            rows = np.r_[begin : begin + len(f), begin + len(feature) : begin + len(f) + len(feature)]
            hints = Hints(None if slopes is None else self.ar.of(slopes[rows]))
            low, high = np.split(self.lower({k: self.ar.of(one)}, hints, np.tile(d, 2)), 2)
            z.lower[d, f], z.upper[d, f] = better(z.lower[d, f], low), -better(-z.upper[d, f], high)
        need(not (z.lower > z.upper).any(), "bounds cross")

    def thin(self, k, out):
        """From now on only the values ``out`` of a dense layer have coefficients, and inputs that are 0 get none."""
        node = self.nodes[k]
        if node.kind == "dense":
            x = self.nodes[node.inputs[0]]
            into = np.flatnonzero((x.lower != 0).any(0) | (x.upper != 0).any(0))
            node.thin = out, into, node.weight[np.ix_(out, into)]

    def lower(self, start, hints, domain=None) -> Any:
        """Lower bounds of rows that begin as coefficients (rows x size) of nodes, by number: (rows)."""
        ar, total, lost, size = self.ar, 0, 0, 0
        need(monotonic() <= ar.until, "the time is over")
        domain = slice(None) if domain is None or len(self.nodes[0].lower) == 1 else domain
        pending = dict(start)
        for k in range(max(start), -1, -1):
            node, a = self.nodes[k], pending.pop(k, None)
            if a is None:
                continue
            if node.kind == "input":
                self.slants, slants = a, np.abs(a)
                term = ar.dots(a, self.centre[domain]) - ar.dots(slants, self.radius[domain])
                if self.ball:
                    term = np.maximum(term, self.ball.least(a, ar))
                lost = lost + ar.gamma(4 * node.size + 16) * (slants @ node.most)
                total, size = total + term, size + np.abs(term)
                continue
            if node.kind == "relu":
                a, term, scale = self.bent(k, node, a, hints, domain)
                dust = ar.dust * (1 + self.nodes[node.inputs[0]].most.sum())
                lost, back = lost + ar.gamma(2 * node.size + 32) * scale + dust, [a]
            else:
                term, back = a @ node.bias, [node.pull(a, i) for i in range(len(node.inputs))]
                lost = lost + np.abs(a) @ node.charge + node.waste
            for i, coefficients in zip(node.inputs, back, strict=True):
                if i in pending:
                    coefficients = coefficients + pending[i]
                    lost = lost + 2 * ar.unit * (np.abs(coefficients) @ self.nodes[i].most)
                pending[i] = coefficients
            total, size = total + term, size + np.abs(term)
        return ar.cut(total - (lost + lost / 64 + ar.gamma(8 * len(self.nodes) + 64) * size), -inf)

    def bent(self, k, node, a, hints, domain):
        """Coefficients of the values of a ReLU as those of its operands, the constants, and what these are sums of."""
        z, (begin, end, here), (dead, free) = self.nodes[node.inputs[0]], self.columns[k], self.rest[k]
        mine = [None if t is None or t.shape[1] < end else t[:, begin:end] for t in vars(hints).values()]
        parts, term, scale = [(slice(None), *[None] * 4)], 0, 0
        if any(t is not None for t in mine):
            a, parts = a.copy(), [(here, *mine), (free, *[None] * 4)]
            a[:, dead] = 0
        for where, slopes, push, low, high in parts:
            g = a[:, where]
            if slopes is None and low is None:
                line, chord, top = (t[:, where][domain] for t in self.lines[k])
            else:
                low, high = (t[:, where][domain] for t in (z.lower, z.upper)) if low is None else (low, high)
                line, chord, top = lines(low, high, node.left, slopes, self.ar)
            nu = np.where(g < 0, chord, line) * g
            term, scale = term + self.ar.dots(np.minimum(g, 0), top), scale + np.abs(g) @ (3 * z.most[where])
            if push is not None:
                nu = nu - push
                term = term + np.minimum(push * low, push * high).sum(1)
                scale = scale + np.abs(push) @ (3 * z.most[where])
            if len(parts) == 1:
                return nu, term, scale
            a[:, where] = nu
        return a, term, scale


def better(old, new):
    """The larger bound; what is not finite is none."""
    return np.where((new > old) & (new < inf), new, old)


def shares(slopes):
    """Slopes as numbers from 0 to 1: bytes are shares of 255."""
    return slopes / 255 if slopes.dtype == np.uint8 else np.clip(slopes, 0, 1)


# ---- Lipschitz constants, and quadratic forms

DUAL = {1: inf, 2: 2, inf: 1}


def above(x, terms=0):
    """At least what came out as x, a sum of so many terms, or of fewer, none of which is negative."""
    return x * (1 + 4 * Floats().gamma(terms + 16)) + Floats.dust


def length(rows, p):
    """At least the l_p norms of rows."""
    rows = np.abs(rows.astype(np.float64))
    if p == inf:
        return above(rows.max(1, initial=0))
    return above(rows.sum(1), rows.shape[1]) if p == 1 else above(np.sqrt(above((rows**2).sum(1), rows.shape[1])))


def deficit(matrix, error):
    """At least how far below 0 the least eigenvalue lies of a symmetric matrix that is this one within ``error``, both
    tables: it is L L^T + R, whatever L is, and eigenvalues of R are at most its largest row sum."""
    size = np.abs(matrix).sum(1).max(initial=0) + Floats.dust
    if not isfinite(size):
        return inf
    shift = max(0.0, len(matrix) * 2.0**-46 * size - float(np.linalg.eigvalsh(matrix)[0]))
    moved = matrix + shift * np.eye(len(matrix))
    factor = np.linalg.cholesky(moved)
    charge = 4 * Floats().gamma(len(matrix) + 16) * (np.abs(factor) @ np.abs(factor).T + np.abs(matrix) + shift)
    return above(shift + above((np.abs(moved - factor @ factor.T) + charge + error).sum(1), len(matrix)).max())


def spectral(matrix):
    """At least its 2-norm."""
    matrix = matrix if len(matrix) >= matrix.shape[1] else matrix.T
    gram = matrix.T @ matrix
    error = 4 * Floats().gamma(len(matrix) + 16) * (np.abs(matrix).T @ np.abs(matrix)) + Floats.dust
    square = above(float(np.linalg.eigvalsh(gram)[-1])) if np.isfinite(gram).all() else inf
    gap = square * np.eye(len(gram)) - gram
    return above(np.sqrt(above(max(square, 0.0) + deficit(gap, error + 2 * Floats.unit * np.abs(gap)))))


def absolute(node):
    return replace(node, weight=np.abs(node.weight)) if node.kind in ("dense", "conv", "scale") else node


def share(node):
    """What rounding, and weights that are rounded, take of the sum of the magnitudes of the terms of its values."""
    return 4 * Floats().gamma(4 * node.terms + 16) + 2 * node.loose


def operator(node, inputs, p):
    """At least the l_p norm of an affine operation of one operand of so many ``inputs``."""
    size, more = absolute(node), 1 + share(node)
    sums = {inf: size.push(np.ones((1, inputs)), size=True), 1: size.pull(np.ones((1, node.size)))}
    one, other = (above(float(sums[q].max(initial=0)) * more) for q in (1, inf))
    if p != 2:
        return {1: one, inf: other}[p]
    norm = above(np.sqrt(above(one * other)))
    if node.kind in ("dense", "conv") and not node.loose and node.size * inputs <= DENSE:
        norm = min(norm, spectral(node.pull(np.eye(node.size))))
    return norm


def constants(nodes, p):
    """Lipschitz constants in l_p of all values: norms multiplied, and added where values are."""
    found = [1.0]
    for node in nodes[1:]:
        of = [found[i] for i in node.inputs]
        if node.kind in ("relu", "sum"):
            found.append(of[0] if node.kind == "relu" else above(sum(of)))
        else:
            found.append(above(of[0] * operator(node, nodes[node.inputs[0]].size, p)))
    return found


def steepest(nodes, rows, p):
    """Lipschitz constants in l_p of rows of the output, by way of the last affine operations at once."""
    rows, lost, k = rows, 2 * Floats.unit * np.abs(rows), len(nodes) - 1
    while nodes[k].kind not in ("relu", "sum", "input"):
        node, size = nodes[k], absolute(nodes[k])
        lost = above(size.pull(above(lost + share(node) * (np.abs(rows) + lost))), node.terms)
        rows, k = node.pull(rows), node.inputs[0]
    return above((length(rows, DUAL[p]) + length(lost, DUAL[p])) * constants(nodes[: k + 1], p)[k])


def reach(low, high, ball, p):
    """A point, and at least how far from it in l_p any point of the region is."""
    centre = ball.centre if ball else low / 2 + high / 2
    far = float(length(np.maximum(high - centre, centre - low)[None], p)[0])
    return centre, min(far, within(ball, p)) if ball else far


def within(ball, p):
    """At least how far from its centre in l_p any point of a ball is."""
    return above(ball.radius * above(len(ball.centre) ** max(0.0, 1 / p - 1 / ball.p)))


def by_constants(nodes, rows, low, high, ball, arrays):
    """Lower bounds of rows: values at a point, less what constants in some ``norms`` allow them to lose."""
    lost = inf
    for p in {1, 2, inf} & set(arrays["norms"].ravel().tolist()):
        centre, far = reach(low, high, ball, p)
        unsafe = Bounder(nodes, rows, [centre], [centre]).nodes[-1]
        lost = np.minimum(lost, above(steepest(nodes, unsafe.weight, p) * far))
    return np.nextafter(unsafe.lower[0] - lost, -inf)


def unrolled(nodes):
    """Values as affine functions of v = (1, x, max(z, 0) of all operands z of ReLUs): coefficients (v x values), what
    rounding has moved them by, and those of all z."""
    count, begin = 1 + sum(n.size for n in nodes if n.kind in ("input", "relu")), 1
    if count * max(count, *(n.size for n in nodes)) > DENSE:
        raise Rejected("a network too large for quadratic forms")
    values, z = [], []
    for node in nodes:
        of, zero = [values[i] for i in node.inputs], np.zeros((count, node.size))
        if node.kind in ("input", "relu"):
            own, begin = zero.copy(), begin + node.size
            own[np.arange(begin - node.size, begin), np.arange(node.size)] = 1
            z += of
            if node.left:
                moved = 8 * Floats.unit * (np.abs(of[0][0]) + own) + Floats.dust
                values.append((node.left * of[0][0] + (1 - node.left) * own, above(node.left * of[0][1] + moved)))
            else:
                values.append((own, zero))
            continue
        bias = np.zeros(node.size) if node.bias is None else node.bias
        value, error = node.push(*(v for v, _ in of)), node.push(*(e for _, e in of), size=True)
        size = node.push(*(np.abs(v) + e for v, e in of), size=True)
        value[0], size[0] = value[0] + bias, size[0] + np.abs(bias)
        values.append((value, above(error + share(node) * size, node.terms)))
    return values[-1], [np.concatenate([zero[:, :0], *(part[side] for part in z)], 1) for side in (0, 1)]


def combined(pair, rows):
    """Rows of values, from the coefficients of these with their errors."""
    value, error = pair
    size = (np.abs(value) + error) @ np.abs(rows).T
    return value @ rows.T, above(error @ np.abs(rows).T + 8 * Floats().gamma(rows.shape[1] + 16) * size, rows.shape[1])


def by_multipliers(nodes, rows, low, high, ball, arrays):
    """LipSDP: for multipliers t >= 0 let Q be rho |x|^2 - (c u)^2 - 2 (z - h)^T t h, a form in u = (x, h). As of two
    points h (z - h) >= 0, and |u|^2 is at most ``whole`` |x|^2, a row loses at most (rho + deficit(Q) whole)^(1/2) over
    a distance of 1."""
    centre, far = reach(low, high, ball, 2)
    unsafe, (y, z) = Bounder(nodes, rows, [centre], [centre]).nodes[-1], unrolled(nodes)
    whole = 1 + sum(above(v * v) for n, v in zip(nodes, constants(nodes, 2), strict=True) if n.kind == "relu")
    (c, off), (z, z_off), n = (t[1:] for t in combined(y, unsafe.weight)), (t[1:] for t in z), len(low)
    found = []
    for i, (t, rho) in enumerate(zip(np.maximum(arrays["multipliers"], 0), arrays["rho"][:, 0], strict=True)):
        parts, errors = np.zeros((len(c), len(c))), np.zeros((len(c), len(c)))
        parts[:, n:], errors[:, n:] = z * t, z_off * t
        sides = np.outer(np.abs(c[:, i]), off[:, i])
        diagonal = np.concatenate([np.full(n, rho), 2 * t])
        form = np.diag(diagonal) - np.outer(c[:, i], c[:, i]) - parts - parts.T
        size = np.diag(np.abs(diagonal)) + np.outer(np.abs(c[:, i]), np.abs(c[:, i])) + np.abs(parts) + np.abs(parts.T)
        error = sides + sides.T + np.outer(off[:, i], off[:, i]) + errors + errors.T + 32 * Floats.unit * size
        square = above(rho + deficit(form, above(error)) * above(whole, len(nodes)))
        found.append(above(np.sqrt(max(square, 0.0))))  # NaN stays NaN, which bounds nothing
    need(len(found) == len(rows), "not every row has its multipliers")
    return np.nextafter(unsafe.lower[0] - above(np.array(found) * far), -inf)


def by_forms(nodes, rows, low, high, ball, arrays):
    """The semidefinite relaxation: v = (1, x, h) has (v - l) (v - u) <= 0, -h <= 0, z - h <= 0, h (h - z) = 0, and in a
    ball |x|^2 - 2 c x + c c - r^2 <= 0. A row plus multiples of these, of either sign of the equations alone, is a form
    v^T S v, and at least t less ``deficit`` |v|^2 if t is taken off the corner of S."""
    relus = [n for n in nodes if n.kind == "relu"]
    net = Bounder(nodes, rows, [low], [high], layers=[[None]] * len(relus))
    best = net.lower({len(nodes): np.eye(len(rows))}, Hints())
    ends = [np.concatenate([side, *(np.maximum(getattr(net.nodes[n.inputs[0]], name)[0], 0) for n in relus)])
            for name, side in (("lower", low), ("upper", high))]  # fmt: skip
    (y, (z, z_off)), most = unrolled(nodes), np.concatenate([[1.0], np.maximum(*map(np.abs, ends))])
    (goals, off), n = combined(y, net.nodes[-1].weight), len(low)
    total, count = above((most**2).sum(), len(most)), len(most) - 1
    round_ = ball if ball and ball.p == 2 else Ball(2, 0.0, np.zeros(n))
    for i, (told, t) in enumerate(zip(arrays["multipliers"], arrays["t"][:, 0], strict=True)):
        box, below, over, free, inside = np.split(told, np.cumsum([count, *[count - n] * 3]))
        box, below, over, inside = (np.maximum(v, 0) for v in (box, below, over, inside))
        inside = float(inside.sum()) if round_ is ball else 0.0
        line, size = goals[:, i] + z @ over, np.abs(goals[:, i]) + np.abs(z) @ over
        line[1 + n :] -= below + over
        size[1 + n :] += below + over
        line[1:] -= box * (ends[0] + ends[1])
        size[1:] += box * (np.abs(ends[0]) + np.abs(ends[1]))
        line[1 : 1 + n] -= 2 * inside * round_.centre
        size[1 : 1 + n] += 2 * inside * np.abs(round_.centre)
        bias, square = float(net.nodes[-1].bias[i]), float(round_.centre @ round_.centre)
        corner = bias + float(box @ (ends[0] * ends[1])) + inside * (square - round_.radius**2) - t
        corners = abs(bias) + float(box @ np.abs(ends[0] * ends[1])) + inside * (square + round_.radius**2) + abs(t)
        parts, errors = np.zeros((1 + count,) * 2), np.zeros((1 + count,) * 2)
        parts[:, 1 + n :], errors[:, 1 + n :] = -z * free / 2, z_off * np.abs(free)
        parts[:, 0], errors[:, 0] = parts[:, 0] + line / 2, off[:, i] + z_off @ over
        diagonal = np.concatenate([[corner], box + np.concatenate([np.full(n, inside), free])])
        sizes = np.abs(parts) + np.abs(parts.T) + np.diag(np.abs(diagonal))
        sizes[:, 0] += size
        sizes[0] += size
        sizes[0, 0] += corners
        error = errors + errors.T + 32 * Floats().gamma(len(sizes) + 64) * sizes
        lost = above(deficit(parts + parts.T + np.diag(diagonal), above(error)) * total)
        best[i] = better(best[i], nextafter(t - lost, -inf))
    return best


MARGINS = {"lipschitz": by_constants, "lipsdp": by_multipliers, "sdp": by_forms}


# ---- Randomized smoothing

COPIES, CLOSE = 100, 2.0**-12  # of a sample that are drawn at once; what float32 may change of an output, at most
UPWARD = Context(prec=50, rounding=ROUND_CEILING, Emax=MAX_EMAX, Emin=MIN_EMIN)


def tail(n, k, p):
    """At least the chance of k successes or more in n draws of chance p each: the terms from p^n down, rounded up."""
    with localcontext(UPWARD):
        term, square, left, odds = Decimal(1), p, n, (1 - p) / p
        while left:
            term, square, left = term * square if left & 1 else term, square * square, left >> 1
        total = term
        for i in range(n, k, -1):
            term = term * i * odds / (n - i + 1)
            total += term
        return total


def normal(z):
    """At least the standard normal distribution at z >= 0: 1/2 + exp(-z z / 2) / (2 pi)^(1/2) (z + z^3 / 3 + ...)."""
    with localcontext(UPWARD):
        term, total, i = z, z, 1
        while term > total * Decimal(10) ** -45 or 2 * z * z > i:
            i += 2
            term = term * z * z / i
            total += term
        density = (-z * z / 2).exp() / Decimal("2.506628274631000502415765284811")
        return Decimal("0.5") + (total + term) * density * (1 + Decimal(10) ** -40)


# By noise: how torch's is called, scales in its root mean square, the norm in which it certifies, and the chance that a
# shift by z scales asks for.
NOISES = {
    "gaussian": ("Gaussian(sigma={!r})", 1.0, 2, normal),
    "uniform": ("Uniform(scale={!r})", 3**0.5, 1, lambda z: UPWARD.add(Decimal("0.5"), UPWARD.divide(z, 2))),
}


def noisy(name, scale, seed, shape, x):
    """Noisy copies of x, block by block, as torch draws them on a processor in float32, but for rounding: 24 bits of
    each word of a Mersenne twister, and where they are Gaussian 16 at a time by Box and Muller. The twister's seed is a
    hash of the seed, the noise and x, so that there is nothing to choose but the first of them."""
    told = f"sequence 5;str 'smoothing';int {seed};str {NOISES[name][0].format(scale)!r};tensor torch.float32 {shape};"
    told = told.encode() + x.astype("<f4").tobytes() + b"str 'estimate';"
    words, size = np.random.RandomState(int(hashlib.sha256(told).hexdigest()[:15], 16) % 2**32), COPIES * len(x)

    def shares(count):
        return (words.randint(0, 2**32, count, np.uint32) % 2**24) / 2**24

    def bell(u):
        first, second = np.moveaxis(u.reshape(-1, 2, 8), 1, 0)
        size, turn = np.sqrt(-2 * np.log1p(-first)), 2 * np.pi * second
        return np.stack([size * np.cos(turn), size * np.sin(turn)], 1).ravel()

    while True:
        noise = shares(size)
        if name == "gaussian":
            noise[: size // 16 * 16] = bell(noise[: size // 16 * 16])
            if size % 16:  # the last 16 are drawn anew
                noise[-16:] = bell(shares(16))
        else:
            noise = 2 * noise - 1
        yield x + scale * noise.reshape(COPIES, -1)


def smoothed(nodes, rows, sets, ball, cert, ar):
    """That at every point of the ball noise leaves the output out of the unsafe sets with a chance above 1/2. So it is
    if at the centre the chance exceeds a ``floor`` (Neyman and Pearson). It does at confidence 1 - alpha: were it not
    above, one of the draws in the ledger, whose shares sum up to alpha, would have so many successes with a probability
    of its share at most (Clopper and Pearson)."""
    name, scale, alpha = cert["noise"], float.fromhex(cert["scale"]), float.fromhex(cert["alpha"])
    ledger, shape = [(n, float.fromhex(part)) for n, part in cert["ledger"]], tuple(cert["shape"])
    declared = nodes[0].how
    if name not in NOISES or not 0 < scale < inf or shape not in (declared, declared[1:], (1, *declared)):
        raise Rejected("noise of this kind, or of another shape, is beyond this checker")
    numbers = [cert["seed"], *shape, *(n for n, _ in ledger)]
    if (
        prod(shape) != len(ball.centre)
        or any(type(n) is not int or n < 0 for n in numbers)
        or not 0 < sum(n for n, _ in ledger) < LARGEST
    ):
        raise Rejected("draws that cannot be made")
    if not 0 < alpha < 1 or min(p for _, p in ledger) <= 0 or sum(Fraction(p) for _, p in ledger) > Fraction(alpha):
        raise Rejected("the ledger hands out more than alpha")
    _, many, norm, needed = NOISES[name]
    floor = needed(UPWARD.divide(Decimal(within(ball, norm)), Decimal(scale)))
    won, close = successes(nodes, rows, sets, noisy(name, scale, cert["seed"], shape, ball.centre), ledger, ar)
    if type(cert["count"]) is not int or abs(cert["count"] - sum(won)) > sum(close):
        raise Rejected(f"{cert['count']} draws are said to succeed, {sum(won)} do")
    if not floor < 1 or all(tail(n, k, floor) > Decimal(part) for (n, part), k in zip(ledger, won, strict=True)):
        raise Rejected(f"{won} successes do not show a chance above {float(floor):.6g}")
    subject, draws = f"smoothed({name}, {scale / many:g})", sum(n for n, _ in ledger)
    return {"subject": subject, "confidence": 1 - alpha, "seed": cert["seed"], "draws": draws}


def successes(nodes, rows, sets, blocks, ledger, ar):
    """How many draws surely succeed, entry by entry of the ledger, and of how many float32 may tell otherwise."""
    total, together = sum(n for n, _ in ledger), max(1, CACHED * 8 // (COPIES * max(n.size for n in nodes)))
    found, left = [], -(-total // COPIES)
    while left > 0:
        if monotonic() > ar.until:
            raise Rejected("the time is over")
        x, left = np.concatenate([next(blocks) for _ in range(min(left, together))]), left - together
        last = Bounder(nodes, rows, x, x, ar=ar).nodes[-1]
        low, high = (np.stack([side[:, some].max(1) for some in sets]).min(0) for side in (last.lower, last.upper))
        slack = CLOSE * (1 + np.abs(last.lower).max(1))
        found.append(np.stack([low > 0, (low <= slack) & (high >= -slack)]))
    ends = np.cumsum([n for n, _ in ledger])
    parts = np.split(np.concatenate(found, 1)[:, :total], ends[:-1], axis=1)
    return ([int(part[side].sum()) for part in parts] for side in (0, 1))


# ---- The certificate


class Trees:
    """Trees of splits, one for each unsafe set, in preorder: of a split the number of the neuron among the listed ones,
    its inactive half first; -1: a leaf, all of which is safe; -2: one whose bounds cross. A split has two halves, and a
    tree ends where each has been told, so that it covers the box."""

    def __init__(self, net, arrays, unsafe):
        self.net, self.arrays, self.unsafe = net, arrays, unsafe
        self.leaves, self.used, self.waiting = arrays["slopes"], {}, []
        if self.leaves.dtype == np.uint8:  # each as the difference to the one before
            self.leaves = np.add.accumulate(self.leaves, dtype=np.uint8)
        self.spots = [(net.nodes[k].inputs[0], f) for k, (_, _, here) in net.columns.items() for f in here.tolist()]
        root = [np.array([getattr(net.nodes[z], side)[0, f] for z, f in self.spots]) for side in ("lower", "upper")]
        self.root = [net.ar.of(t) for t in root]

    def run(self):
        """How many leaves there are, and the places of nodes without children that are not proved."""
        blocks = np.stack([self.arrays["tighter/at"], self.arrays["tighter/rows"]], 1).tolist()[::-1]
        begin = done = leaves = 0
        path, bounds, left = [], self.root, []  # of (neuron, sign, bounds before the split)
        for at, code in enumerate(self.arrays["tree"].tolist()):
            need(done < len(self.unsafe), "something follows the last tree")
            while blocks and blocks[-1][0] == at:
                begin, end = begin + blocks.pop()[1], begin
                bounds = self.tightened(done, path, bounds, end, begin)
            if code >= 0:
                path.append((code, -1, bounds))
                bounds = self.half(bounds, code, -1)
                continue
            if code == -1:
                self.waiting.append((done, [step[:2] for step in path], bounds, at))
            elif not (bounds[0] > bounds[1]).any():
                left.append(at)
            while path and path[-1][1] > 0:
                path.pop()
            if path:
                code, _, before = path.pop()
                path.append((code, 1, before))
                bounds = self.half(before, code, 1)
            else:
                done, bounds = done + 1, self.root
            if self.waiting and (len(self.waiting) == self.net.block or done == len(self.unsafe)):
                begun, leaves = leaves, leaves + len(self.waiting)
                found = self.lower(self.waiting, self.leaves[begun:leaves])
                for bound, (_, _, (low, high), place) in zip(found, self.waiting, strict=True):
                    if not (0 < bound < inf or (low > high).any()):  # what holds no point is safe
                        left.append(place)
                self.waiting = []
        need(done == len(self.unsafe), "a tree is not complete")
        return leaves, left

    def half(self, bounds, neuron, sign):
        low, high = (t.copy() for t in bounds)
        if sign < 0:
            high[neuron] = min(high[neuron], 0)
        else:
            low[neuron] = max(low[neuron], 0)
        return low, high

    def tightened(self, done, path, bounds, begin, end):
        """Bounds of neurons, 2 * number + 1 for upper ones, of points of which the output is in the unsafe set."""
        codes, slopes = (self.arrays[f"tighter/{name}"][begin:end] for name in ("neurons", "slopes"))
        found = self.lower([(done, [step[:2] for step in path], bounds, 0)] * len(codes), slopes, "tighter/", codes)
        low, high = (t.copy() for t in bounds)
        for code, bound in zip(codes.tolist(), found, strict=True):
            side, sign = ((low, 1), (high, -1))[code & 1]
            side[code >> 1] = sign * better(sign * side[code >> 1], bound)
        return low, high

    def lower(self, rows, slopes, prefix="", codes=()):
        """Bounds of rows, each (unsafe set, path, bounds, place): weights of unsafe rows, and neurons by ``codes``."""
        net, of, last = self.net, self.net.ar.of, len(self.net.nodes) - 1
        start = {last: np.zeros((len(rows), net.nodes[last].size))}
        push = np.zeros((len(rows), len(self.spots)))
        steps = [(i, n, sign) for i, (_, path, *_) in enumerate(rows) for n, sign in path]
        parts = [(i, r, 1) for i, (d, *_) in enumerate(rows) for r in self.unsafe[d]]
        for into, places, name in ((push, steps, "multipliers"), (start[last], parts, "weights")):
            begin = self.used.get(prefix + name, 0)
            self.used[prefix + name] = end = begin + len(places)
            row, column, sign = np.array(places, np.int64).reshape(-1, 3).T
            into[row, column] = np.maximum(self.arrays[prefix + name][begin:end], 0) * sign
        for i, code in enumerate(codes):
            z, feature = self.spots[code >> 1]
            start.setdefault(z, np.zeros((len(rows), net.nodes[z].size)))[i, feature] = 1 - 2 * (code & 1)
        low, high = (np.stack([bounds[side] for _, _, bounds, _ in rows]) for side in (0, 1))
        hints = Hints(of(shares(slopes)), of(push), low, high)
        return net.lower({k: of(t) for k, t in start.items()}, hints)


def boxed(nodes, rows, semantics, ar, lower, upper, ball=None) -> Any:
    """The network over boxes (boxes x inputs), where hints may speak of every neuron."""
    relus = [n.size for n in nodes if n.kind == "relu"]
    layers = [[None]] * len(relus)
    return Bounder(nodes, rows, lower, upper, semantics, np.arange(sum(relus)), layers, ar=ar, ball=ball)


def over_boxes(net, sets, hints, slopes, weights) -> Any:
    """Lower bounds over each box of ``net`` of a weighed sum of the rows of each unsafe set (boxes x sets): the best
    row alone, or by the ``hints`` (boxes x sets) that number rows of slopes and weights, -1: none."""
    last, boxes = len(net.nodes) - 1, len(net.nodes[0].lower)
    need(hints.shape == (boxes, len(sets)), "not every leaf has its hints")
    one = np.tile(np.eye(net.nodes[last].size), (boxes, 1))
    bounds = net.lower({last: net.ar.of(one)}, Hints(), np.repeat(np.arange(boxes), net.nodes[last].size))
    net.slants = net.slants.reshape(boxes, net.nodes[last].size, -1)
    found = np.stack([bounds.reshape(boxes, -1)[:, rows].max(1) for rows in sets], 1)
    box, which = np.nonzero(hints >= 0)
    if len(box):
        row, own = hints[box, which], np.array([np.isin(np.arange(net.nodes[last].size), rows) for rows in sets])
        start = net.ar.of(np.maximum(weights[row], 0) * own[which])
        slants, hinted = net.slants, Hints(net.ar.of(shares(slopes[row])))
        found[box, which] = net.lower({last: start}, hinted, box)
        net.slants = slants
    return found


def box_tree(make, arrays, lower, upper, sets):
    """How many leaves a tree of boxes has, and the numbers of those that are not proved. It is told in preorder: the
    input that is halved, or -1: a leaf, safe from all unsafe sets at once."""
    waiting, stack, leaves, left = [], [(np.array(lower), np.array(upper))], 0, []
    for code in arrays["boxes"].tolist():
        low, high = stack.pop()
        if code >= 0:
            middle = low[code] / 2 + high[code] / 2
            halves = [(low.copy(), high.copy()), (low.copy(), high.copy())]
            halves[0][1][code] = halves[1][0][code] = middle
            stack += halves[::-1]
        else:
            waiting.append((low, high))
        if waiting and (len(waiting) == BOXES or not stack):
            net, begin, leaves = make(*map(np.stack, zip(*waiting, strict=True))), leaves, leaves + len(waiting)
            found = over_boxes(net, sets, arrays["hints"][begin:leaves], arrays["slopes"], arrays["weights"])
            left += (begin + np.flatnonzero(~((found > 0) & (found < inf)).all(1))).tolist()
            waiting = []
    need(not stack, "the tree is not complete")
    return leaves, left


def unpacked(data: bytes) -> bytes:
    return gzip.GzipFile(fileobj=io.BytesIO(data)).read(LARGEST) if data[:2] == b"\x1f\x8b" else data


def opened(certificate: bytes) -> tuple[Any, Any]:
    """The claims of a certificate, and its arrays of numbers."""
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(certificate)) as file:
        small = sum(i.file_size for i in file.infolist()) <= LARGEST
        need(small and not file.testzip(), "a damaged certificate, or one too large")
        for name in file.namelist():
            if name.endswith(".npy"):
                arrays[name[:-4]] = np.array(np.load(io.BytesIO(file.read(name)), allow_pickle=False), order="C")
                need(arrays[name[:-4]].dtype.kind in "iuf", "an array holds no numbers")
        return json.loads(file.read("cert.json")), arrays


def check(certificate: bytes, model: bytes, prop: bytes, exact: bool = False, until: float = inf) -> dict[str, Any]:
    """What the certificate proves of the model and the property, all three as bytes. Raises :class:`Rejected`."""
    try:
        with np.errstate(all="ignore"):
            return checked(
                *opened(certificate), unpacked(model), unpacked(prop), (Rationals if exact else Floats)(until)
            )
    except Rejected:
        raise
    except Exception as error:
        raise Rejected(f"malformed, or beyond this checker: {type(error).__name__}: {error}") from error


@lru_cache(maxsize=1)  # who writes a proof and has it checked asks twice
def question(model, prop) -> tuple[Any, Any]:
    """The network's nodes, and the property by boxes: lower and upper in fractions and in float64, and rows of each
    unsafe set."""
    nodes = joined(Reader(model).nodes)
    text, ball = parted(prop)
    parts = read_property(text, nodes[0].size, nodes[-1].size)
    alone = not ball or (len(parts) < 2 and len(ball.centre) == nodes[0].size)
    need(alone, "a ball of other inputs, or of several boxes")
    return nodes, [(*box, [outward(v, -1) for v in box[0]], [outward(v, 1) for v in box[1]], u) for *box, u in parts]


def numbered(unsafe) -> tuple[Any, Any]:
    """The rows of all unsafe sets, and their numbers by set."""
    ends = np.cumsum([len(rows) for rows in unsafe]).tolist()
    return [row for rows in unsafe for row in rows], [
        list(range(e - len(r), e)) for e, r in zip(ends, unsafe, strict=True)
    ]


def checked(cert, arrays, model, prop, ar):
    for name, data in (("model", model), ("property", prop)):
        need(cert[name] == hashlib.sha256(data).hexdigest(), f"the certificate speaks of another {name}")
    kind, semantics = cert["kind"], cert["semantics"]
    known = cert["format"] == FORMAT and semantics in ("real", "float32-any-order")
    need(known, "a format, or semantics, beyond this checker")
    (nodes, parts), (_, ball) = question(model, prop), parted(prop)
    report = {"kind": kind, "semantics": semantics, "claim": "unsat", "leaves": 0}
    if kind == "counterexample":
        x = [float.fromhex(v) for v in cert["point"]]
        single = semantics == "real" or all(np.float32(v) == v for v in x)
        need(single, "the point is not one of float32 numbers")
        for low, high, _, _, unsafe in parts:
            rows, sets = numbered(unsafe)
            y = Bounder(nodes, rows, [x], [x], semantics, ar=ar).nodes[-1].upper[0].tolist()
            inside = len(x) == len(low) and all(a <= b <= c for a, b, c in zip(low, x, high, strict=True))
            inside = inside and (ball is None or ball.holds(x))
            if inside and any(all(y[r] < 0 or (y[r] == 0 and not rows[r][2]) for r in some) for some in sets):
                return report | {"claim": "sat"}
        raise Rejected("the point is no counterexample")
    if kind == "smoothing" and ball and parts and semantics == "real":
        (_, _, _, _, unsafe), ends = parts[0], numbered(parts[0][-1])
        if not all(unsafe):
            raise Rejected("a case has no output to avoid")
        return report | {"claim": "smoothed"} | smoothed(nodes, *ends, ball, cert, Floats(ar.until))
    if kind not in ("tree", *(MARGINS if semantics == "real" else ())) or len(cert["parts"]) != len(parts) or not parts:
        raise Rejected(f"{kind!r}: a kind beyond this checker, or not all of the property")
    for n, (part, (_, _, low, high, unsafe)) in enumerate(zip(cert["parts"], parts, strict=True)):
        if [part["lower"], part["upper"]] != [[v.hex() for v in side] for side in (low, high)] or not all(unsafe):
            raise Rejected("the certificate speaks of another box, or a case has no output to avoid")
        mine = {k.partition("/")[2]: v for k, v in arrays.items() if k.startswith(f"{n}/")}
        flat = kind == "tree" and "boxes" not in mine  # which arrays are lists and not tables
        if any(v.ndim != (1 if k == "boxes" or (flat and not k.endswith("slopes")) else 2) for k, v in mine.items()):
            raise Rejected("an array of another rank than is expected")
        rows, sets = numbered(unsafe)
        left = []
        if kind in MARGINS:
            mine = {k: v.astype(np.float64) for k, v in mine.items()}  # sums of smaller types wrap, or are rounded
            found, leaves = MARGINS[kind](nodes, rows, np.array(low), np.array(high), ball, mine), len(sets)
            need(len(found) == len(rows), "not every row has its numbers")
            need(all(0 < max(found[some]) < inf for some in sets), "a row is not proved")
        elif "boxes" in mine:
            leaves, left = box_tree(partial(boxed, nodes, rows, semantics, ar, ball=ball), mine, low, high, sets)
        else:
            net = Bounder(nodes, rows, [low], [high], semantics, mine["listed"], part["layers"], mine, ar, ball)
            leaves, left = Trees(net, mine, sets).run()
        if left:
            raise Rejected(f"{len(left)} leaves are not proved", (n, left))
        report["leaves"] += leaves
    return report


def main(arguments):
    paths = [a for a in arguments if a != "--exact"]
    if len(paths) != 3:
        sys.exit(__doc__)
    try:
        report = check(*(Path(path).read_bytes() for path in paths), exact="--exact" in arguments)
    except (Rejected, OSError) as why:
        print(f"rejected: {why}")
        return 1
    print(f"accepted: {json.dumps(report)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
