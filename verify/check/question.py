"""What is asked: a model, read from ONNX as layers, and a property; and what a certificate says of them.

Beside ``checker.py``, which answers, and ``property.py``, which reads the property; it shares no code with what is
checked, and refuses all that it does not know.
"""

import bz2
import gzip
import io
import json
import struct
import zipfile
from dataclasses import dataclass, replace
from functools import lru_cache, partialmethod
from math import prod

import numpy as np
import onnx

if __package__:
    from .property import Rejected, need, outward, read_property, stated
else:
    from property import Rejected, need, outward, read_property, stated

__all__ = ["Rejected", "need", "stated"]  # besides what is here

LARGEST = 1 << 31  # bytes unpacked, at most
UNIT = 2.0**-53  # the relative error of a number that is rounded
WINDOWS = {"pads": [0] * 4, "strides": [1, 1], "dilations": [1, 1]}  # what is usual


def unpacked(data: bytes) -> bytes:
    """What a gzipped file holds, or any other one is."""
    return gzip.GzipFile(fileobj=io.BytesIO(data)).read(LARGEST) if data[:2] == b"\x1f\x8b" else data


def opened(certificate: bytes):
    """The claims of a certificate, and its arrays of numbers."""
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(certificate)) as file:
        need(sum(i.file_size for i in file.infolist()) <= LARGEST, "a certificate too large")
        for info in file.infolist():
            if (name := info.filename).endswith(".npy"):
                array = np.array(np.load(io.BytesIO(member(file, info)), allow_pickle=False), order="C")
                need(array.dtype.kind in "iuf", "an array holds no numbers")
                whole = array.dtype.kind in "iu" and not name.endswith("slopes.npy")  # what small types do is no matter
                arrays[name[:-4]] = array.astype(np.int64) if whole else array
        return json.loads(member(file, file.getinfo("cert.json"))), arrays


def member(file, info):
    """A file of a zip; no more is unpacked than it says, which ``zipfile`` sees to where it is told, but for bzip2."""
    need(info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2), "a foreign packing")
    if info.compress_type != zipfile.ZIP_BZIP2:
        with file.open(info) as packed:
            return packed.read(info.file_size)
    file.fp.seek(info.header_offset + 26)
    file.fp.seek(sum(struct.unpack("<HH", file.fp.read(4))), io.SEEK_CUR)  # its name, and what else is told of it
    data = bz2.BZ2Decompressor().decompress(file.fp.read(info.compress_size), info.file_size + 1)
    need(len(data) == info.file_size, "a file of another size than is told")
    return data


def told(claims, arrays, parts):
    """What the certificate holds of each part of the property."""
    need(len(claims["parts"]) == len(parts) > 0, "not all of the property is spoken of")
    for n, (part, (_, _, low, high, unsafe)) in enumerate(zip(claims["parts"], parts, strict=True)):
        same = [part["lower"], part["upper"]] == [[v.hex() for v in side] for side in (low, high)]
        need(same and all(unsafe), "the certificate speaks of another box, or a case has no output to avoid")
        mine = {k.partition("/")[2]: v for k, v in arrays.items() if k.startswith(f"{n}/")}
        yield n, part, low, high, unsafe, mine


def numbered(unsafe):
    """The rows of all unsafe sets, and their numbers by set."""
    rows = [row for some in unsafe for row in some]
    numbers = iter(range(len(rows)))
    return rows, [[next(numbers) for _ in some] for some in unsafe]


@lru_cache(maxsize=1)  # who writes a proof and has it checked asks twice
def question(model, prop):
    """The network, and the property by boxes: lower and upper in fractions and in float64, and rows of each unsafe
    set."""
    network = Network(model)
    parts = read_property(prop.decode(), network.input.size, network.output.size)
    return network, [(*box, [outward(v, -1) for v in box[0]], [outward(v, 1) for v in box[1]], u) for *box, u in parts]


# ---- The network


@dataclass(eq=False)
class Layer:
    """The values ``out`` (groups x outs x places), by their numbers: sums over taps of ``weight`` (taps x groups x outs
    x ins) times the values ``into`` (taps x groups x ins x places), plus ``bias`` (as ``out``); weights have a relative
    error ``loose``. Without weights ReLUs of the values ``into``, of a LeakyReLU of slope ``left`` if that is not 0. In
    no tap a value stands twice, but number 0, which is always 0. ``charge``: what rounding takes of a unit of
    coefficient, and ``waste`` of all of them; ``lines``: of ReLUs, which hints are told of those at ``here``, in
    ``columns``; every so many of them, ``places``, have the same place in an image."""

    into: object
    out: object
    weight: object = None
    bias: object = None
    loose: float = 0.0
    left: float = 0.0
    charge: object = None
    waste: float = 0.0
    lines: tuple = ()
    here: object = None
    columns: object = None
    places: int = 1

    @property
    def terms(self):
        """At least as many as are summed in any value, coefficient, or row of coefficients."""
        return self.out.size + len(self.weight) * sum(self.weight.shape[2:])

    def times(self, weight, x):
        """(... outs x ins) with (... ins x n); numbers by themselves are faster multiplied one by one."""
        return weight * x if weight.shape[-2:] == (1, 1) else weight @ x

    def within(self, live):
        """Itself, of those ReLUs, or those places of its values, only where some values are ``live`` (all values)."""
        some = live[self.out]
        if some.all():
            return self
        if self.weight is None and some.any() and self.lines[0].shape[1] > 1:
            return self  # of many boxes it is dearer to cut than it saves
        if self.weight is None:
            kept = some[self.here]
            here, columns = np.cumsum(some)[self.here[kept]] - 1, np.arange(len(self.here))[kept] + self.columns.start
            lines = tuple(t[some] for t in self.lines)
            return replace(self, into=self.into[some], out=self.out[some], lines=lines, here=here, columns=columns)
        parts = ("into", "out", "bias", "charge")
        return replace(self, **{name: getattr(self, name)[..., some.any((0, 1))] for name in parts})

    def push(self, x, size=False):
        """Its values without the bias, or the sums of the magnitudes of their terms: (all values x n) to (outs x n)."""
        parts = (np.abs(w) if size else w for w in self.weight)
        of = (x[at].reshape(*at.shape[:2], prod(at.shape[2:]) * x.shape[1]) for at in self.into)
        return sum(map(self.times, parts, of)).reshape(self.out.size, x.shape[1])

    def pull(self, a, onto, place=None):
        """Add to the coefficients of all values, or of those that have a ``place``, those that coefficients of its own
        amount to: (outs x n)."""
        a = a.reshape(*self.out.shape[:2], prod(self.out.shape[2:]) * a.shape[1])
        for w, at in zip(self.weight, self.into, strict=True):
            at = at if place is None else place[at]
            onto[at] += self.times(np.swapaxes(w, 1, 2), a).reshape(*at.shape, onto.shape[1])


# Operations that only move elements: their numbers, attributes, and the constant operand if there is one.
MOVES = {
    "Identity": lambda x, a, to: x,
    "Dropout": lambda x, a, to: x,
    "Flatten": lambda x, a, to: x.reshape(prod(x.shape[: a.get("axis", 1)]), -1),
    "Reshape": lambda x, a, to: x.reshape([d or x.shape[i] for i, d in enumerate(to.tolist())]),
    "Transpose": lambda x, a, to: x.transpose(a.get("perm")),
}


class Network:
    """An ONNX graph as ``layers`` on one vector of ``size`` values: 0, those of the ``input``, and what they give; by
    value how many of them ``read`` it. A value of the graph is an array of the numbers of its elements: what only moves
    elements moves these."""

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
        self.size, self.layers = 1, []
        self.input = self.numbers([d.dim_value or 1 for d in inputs[0].type.tensor_type.shape.dim])
        self.values = {inputs[0].name: self.input}
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
                to = [self.constant(name) for name in node.input[1:] if name]
                self.values[node.output[0]] = move(self.values[node.input[0]], a, *to or [None])
            else:
                self.values[node.output[0]] = rule(list(node.input), a)
        self.output = self.values[graph.output[0].name].ravel()
        self.read = np.bincount(self.output, minlength=self.size)
        for layer in self.layers[::-1]:
            if self.read[layer.out].any():
                self.read[np.unique(layer.into)] += 1
            else:
                self.layers.remove(layer)

    @staticmethod
    def array(t):
        known = t.data_type in (1, 6, 7, 11) and not t.data_location
        need(known, f"tensor {t.name!r} is of a type, or in a place, beyond this checker")
        values = onnx.numpy_helper.to_array(t)
        values = values.astype(np.float64 if values.dtype.kind == "f" else np.int64)  # both widen exactly
        need(np.isfinite(values).all(), f"tensor {t.name!r} is not finite")
        return values

    def constant(self, name):
        need(name in self.constants, f"{name!r} is expected to be constant")
        return self.constants[name]

    def numbers(self, shape):
        """Of new values."""
        self.size += prod(shape)
        return np.arange(self.size - prod(shape), self.size).reshape(shape)

    def affine(self, shape, into, weight, bias=0.0, loose=0.0):
        """Values in this shape; see :class:`Layer`."""
        for tap in into:
            need(len(np.unique(tap[tap > 0])) == (tap > 0).sum(), "a value that stands twice is beyond this checker")
        out = self.numbers((*weight.shape[1:3], into.shape[3]))
        bias = np.broadcast_to(np.asarray(bias, np.float64), shape).reshape(out.shape)
        self.layers.append(Layer(into, out, np.asarray(weight, np.float64), bias, loose))
        return out.reshape(shape)

    def on_Relu(self, names, a, left=0.0):
        x = self.values[names[0]]
        out = self.numbers(x.shape)
        self.layers.append(Layer(x.ravel(), out.ravel(), left=left, places=prod(x.shape[2:]) if x.ndim == 4 else 1))
        return out

    def on_LeakyRelu(self, names, a):
        """max(x, left x) = left x + (1 - left) max(x, 0)."""
        left = a.get("alpha", float(np.float32(0.01)))
        need(0 <= left <= 1, "LeakyRelu of such a slope is beyond this checker")
        return self.added(self.values[names[0]], self.on_Relu(names, a, left), left, 1 - left, UNIT)

    def added(self, x, y, one, other, loose=0.0):
        need(x.shape == y.shape, "a sum of values of different shapes is beyond this checker")
        into = np.stack([x.reshape(1, 1, -1), y.reshape(1, 1, -1)])
        return self.affine(x.shape, into, np.reshape([one, other], (2, 1, 1, 1)), loose=loose)

    def on_Gemm(self, names, a):
        plain = a.get("alpha", 1.0) == a.get("beta", 1.0) == 1 and not a.get("transA")
        need(plain, "Gemm with alpha, beta or transA is beyond this checker")
        w = self.constant(names[1]) if a.get("transB") else self.constant(names[1]).T
        return self.linear(self.values[names[0]], w, (1, len(w)), self.constant(names[2]) if len(names) > 2 else 0.0)

    def on_MatMul(self, names, a):
        behind = names[1] in self.constants
        w, x = self.constant(names[behind]), self.values[names[not behind]]
        if behind:
            return self.linear(x, w.T, (*x.shape[:-1], w.shape[-1]))
        # What stands in front of a vector leaves it one.
        return self.linear(x, w, (*x.shape[:-2], len(w), *x.shape[-1:]) if x.ndim > 1 else (len(w),))

    def linear(self, x, w, shape, bias=0.0):
        one = w.ndim == 2 and x.size == w.shape[1] and prod(shape) == len(w)
        need(one, "a matrix product of more than one vector is beyond this checker")
        return self.affine(shape, x.reshape(1, 1, -1, 1), w[None, None], bias)

    def on_Conv(self, names, a):
        w = self.constant(names[1])
        bias = self.constant(names[2]) if len(names) > 2 else np.zeros(len(w))
        return self.convolved(names[0], w.reshape(a.get("group", 1), -1, *w.shape[1:]), bias, a)

    def convolved(self, name, w, bias, a):
        x, plain = self.values[name], a.get("auto_pad", b"NOTSET") == b"NOTSET" and not a.get("ceil_mode")
        need(plain and (x.ndim, w.ndim) == (4, 5), "a convolution or pooling of this kind is beyond this checker")
        fits = len(x) == 1 and x.shape[1] == len(w) * w.shape[2] and bias.size == len(w) * w.shape[1]
        need(fits, "a convolution of these sizes is beyond this checker")
        taps = self.taps(x, w.shape[3:], a)
        into = taps.reshape(len(taps), len(w), w.shape[2], -1)
        weight = np.moveaxis(w.reshape(*w.shape[:3], len(taps)), -1, 0)
        return self.affine((1, w.shape[0] * w.shape[1], *taps.shape[2:]), into, weight, bias.reshape(1, -1, 1, 1))

    @staticmethod
    def taps(x, window, a):
        """What stands at each place of a window, wherever it is laid: (places of the window x channels x rows x
        columns); 0 where it is padded."""
        pads, strides, steps = (a.get(k, d) for k, d in WINDOWS.items())
        padded = np.pad(x[0], ((0, 0), pads[::2], pads[1::2]))
        span = np.multiply(steps, np.subtract(window, 1))
        out = [(padded.shape[1 + i] - span[i] - 1) // strides[i] + 1 for i in (0, 1)]
        need(min(*out, *strides, *steps) >= 1, "windows of these sizes are beyond this checker")
        starts = (np.multiply(tap, steps) for tap in np.ndindex(*window))
        ranges = ([slice(b, b + s * n, s) for b, s, n in zip(at, strides, out, strict=True)] for at in starts)
        return np.stack([padded[:, *slices] for slices in ranges])

    def on_Pad(self, names, a):
        x, told = self.values[names[0]], [self.constant(n) for n in names[1:] if n]
        pads = np.reshape(told[0] if told else a["pads"], (2, -1)).T
        zeros = a.get("mode", b"constant") == b"constant" and not np.any(told[1:] or a.get("value", 0.0))
        plain = zeros and len(told) < 3 and len(pads) == x.ndim and (pads >= 0).all()
        need(plain, "padding of this kind is beyond this checker")
        return np.pad(x, pads)  # by the value 0

    def on_AveragePool(self, names, a):
        shape, kernel = self.values[names[0]].shape, a["kernel_shape"]
        summed = self.convolved(names[0], np.ones((shape[1], 1, 1, *kernel)), np.zeros(shape[1]), a)
        count = self.taps(np.ones(shape, np.int64), kernel, a).sum(0)[None]  # not what it pads itself
        return self.scaled(summed, 1 / (prod(kernel) if a.get("count_include_pad") else count), 0.0, 2 * UNIT)

    def on_BatchNormalization(self, names, a):
        x = self.values[names[0]]
        scale, shift, mean, var = (
            self.constant(n).reshape([-1 if i == 1 else 1 for i in range(x.ndim)]) for n in names[1:5]
        )
        need((var >= 0).all(), "BatchNormalization of this kind is beyond this checker")
        factor = scale / np.sqrt(var + a.get("epsilon", float(np.float32(1e-5))))
        return self.scaled(self.scaled(self.scaled(x, 1.0, -mean), factor, 0.0, 8 * UNIT), 1.0, shift)

    def scaled(self, x, weight, bias, loose=0.0):
        """The value times a weight plus a bias, number by number."""
        shape, last = np.broadcast_shapes(x.shape, np.shape(weight), np.shape(bias)), self.layers[-1:]
        if prod(shape) > x.size:  # what stands in many places becomes so many values
            spread = np.broadcast_to(x, shape).reshape(-1, 1) == x.ravel()
            x = self.linear(x, 1.0 * spread, shape)
        same = last and last[0].weight is not None and np.array_equal(x.ravel(), last[0].out.ravel())
        if same and np.all(weight == 1) and not loose and not last[0].bias.any():
            # The bias of what was a product, which stays for others who may read it.
            return self.affine(shape, last[0].into, last[0].weight, bias, last[0].loose)
        weight = np.broadcast_to(weight, shape).reshape(1, -1, 1, 1)
        return self.affine(shape, x.reshape(1, -1, 1, 1), weight, bias, loose)

    def on_Add(self, names, a, sign=1.0):
        x, y = (self.values.get(n) for n in names)
        if x is None:
            return self.scaled(y, sign, self.constant(names[0]))
        return self.scaled(x, 1.0, sign * self.constant(names[1])) if y is None else self.added(x, y, 1.0, sign)

    on_Sub = partialmethod(on_Add, sign=-1.0)

    def on_Mul(self, names, a):
        first = names[0] in self.constants
        return self.scaled(self.values[names[first]], self.constant(names[not first]), 0.0)

    def on_Div(self, names, a):
        return self.scaled(self.values[names[0]], 1 / self.constant(names[1]), 0.0, 2 * UNIT)
