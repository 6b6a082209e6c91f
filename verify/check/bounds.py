"""Lower and upper bounds of all values of a network, by intervals and by lines, with all rounding charged.

Part of the checker: it shares no code with what it checks, and believes no bound that it has not derived. Lines whose
slopes are forced between 0 and 1 lie below a ReLU, so that slopes are hints: wrong ones give weak bounds, not false.
"""

from dataclasses import replace
from fractions import Fraction
from math import inf, nextafter, prod
from time import monotonic

import numpy as np

if __package__:
    from .question import UNIT, Layer, need
else:
    from question import UNIT, Layer, need

BLOCK, CACHED = 64, 1 << 14  # rows at a time, or more if so many numbers are not exceeded
SIGNS = "signs"  # what is asked of neurons of which only the sign counts where it can be told
DEPTHS = (1, 2, 4)  # ReLUs before a neuron, on whose values its sign is looked for first


class Floats:
    """float64, rounded to nearest: its relative error, and more than an operation loses that underflows."""

    unit, dust = UNIT, 2.0**-900

    def __init__(self, until=inf):
        self.until = until  # on the monotonic clock

    def of(self, x):
        return np.asarray(x, dtype=np.float64)

    def cut(self, x, side=0.0):
        """Any number near, or with a ``side`` one beyond it."""
        return np.nextafter(x, side) if side else x

    def gamma(self, n, unit=None):
        """What a sum of n products loses, of the sum of their magnitudes."""
        share = n * (self.unit if unit is None else unit)
        return share / (1 - share) if share < 0.1 else inf


class Rationals(Floats):
    """Arrays of fractions: slow, and exact but where any number will do."""

    dust = Fraction(0)

    def of(self, x):
        return np.frompyfunc(Fraction, 1, 1)(np.asarray(x, dtype=np.float64))

    def cut(self, x, side=0.0):
        return np.frompyfunc(lambda v: Fraction(nextafter(float(v), side) if side else float(v)), 1, 1)(x)

    def gamma(self, n, unit=0.0):
        return Fraction(super().gamma(n, unit))


def lines(low, high, slopes, ar):
    """Of h = max(z, 0), low <= z <= high: the slopes of a line below it, and of one above it with its height at 0,
    ``line z <= h <= chord z + top``: any line through 0 of a slope from 0 to 1 is below, and h is convex."""
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    chord = ar.cut(high / np.maximum(high - low, 2.0**-900))
    line = np.where(high > -low, 1, 0) if slopes is None else np.clip(slopes, 0, 1)
    return line, chord, np.maximum(-chord * low, (1 - chord) * high)


def bent(a, line, chord, top):
    """Coefficients of ReLUs (neurons x rows) as those of their operands, and the least that is left."""
    return np.where(a < 0, chord, line) * a, (np.minimum(a, 0) * top).sum(0)


def of_boxes(t, boxes):
    """What rows have of values by their boxes, (values x boxes) to (values x rows), or None: all have the same."""
    return t if boxes is None else np.take(t, boxes, 1)  # a third of what it takes by an index


def better(old, new):
    """The larger bound; what is not finite is none."""
    return np.where((new > old) & (new < inf), new, old)


def shares(slopes):
    """Slopes as numbers, transposed: bytes are shares of 255."""
    return slopes.T / 255 if slopes.dtype == np.uint8 else slopes.T


class Bounder:
    """A network over boxes (boxes x inputs), with the rows of unsafe sets at its end: bounds ``lower``, ``upper`` of
    all values (values x boxes). ``listed``: the neurons that hints speak of, numbered through the ReLUs in order,
    rising. ``layers``: by ReLU, what its operands are bounded by beside intervals, in order: lines of slopes 0 or 1 on
    both sides (None), or as far as SIGNS ask for it, or those in an array of this name. ``least``: of linear functions
    (inputs x rows), where inputs are in less than the box. ``slants``: coefficients of the inputs that the last rows
    had, for those who look for proofs."""

    def __init__(
        self,
        net,
        rows,
        lower,
        upper,
        semantics="real",
        listed=(),
        layers=(),
        arrays=None,
        ar=None,
        least=None,
    ):
        self.ar, self.least, listed = ar or Floats(), least, np.asarray(listed, np.int64)
        self.unsafe = np.arange(net.size, net.size + len(rows))
        A, c = np.zeros((len(rows), net.output.size)), np.array([float(row[1]) for row in rows])
        for line, (terms, _, _) in zip(A, rows, strict=True):
            line[list(terms)] = [float(v) for v in terms.values()]
        last = Layer(net.output.reshape(1, 1, -1, 1), self.unsafe.reshape(1, -1, 1), A[None, None], c.reshape(1, -1, 1))
        self.layers = [*map(replace, net.layers), replace(last, loose=2 * UNIT)]
        self.taps = sum(1 if layer.weight is None else len(layer.weight) for layer in self.layers)
        self.size, self.inputs = net.size + len(rows), net.input.ravel()
        self.block = max(BLOCK, CACHED // max(self.inputs.size, *(layer.out.size for layer in self.layers)))
        self.lower, self.upper, self.centre, self.radius = (
            self.ar.of(np.zeros((self.size, len(lower)))) for _ in range(4)
        )
        self.most = self.ar.of(np.zeros(self.size))
        self.put(self.inputs, self.ar.of(lower).T, self.ar.of(upper).T)
        begin = done = number = mixed = 0
        for k, layer in enumerate(self.layers):
            if layer.weight is not None:
                self.enter(layer, semantics == "float32-any-order" and k < len(net.layers))
                mixed += prod(layer.weight[:, 0].shape) > 1
                continue
            z, layer.here = layer.into, listed[(listed >= begin) & (listed < begin + layer.into.size)] - begin
            layer.columns = slice(done, done + len(layer.here))
            seen = np.zeros(z.size, bool)
            for name in layers[number] if layers and (least or number or mixed > 1) else ():
                self.tighten(k, name, arrays, seen)
            self.put(layer.out, np.maximum(self.lower[z], 0), np.maximum(self.upper[z], 0))
            live = (self.upper[z] > 0).any(1)
            live[layer.here] = True
            before = self.layers[k - 1]
            if np.array_equal(before.out.ravel(), z) and net.read[z].max() == 1:
                self.thin(before, live)
            layer.into, layer.out = z[live], layer.out[live]
            layer.here = np.searchsorted(np.flatnonzero(live), layer.here)
            layer.lines = lines(self.lower[layer.into], self.upper[layer.into], None, self.ar)
            begin, done, number = begin + z.size, done + len(layer.here), number + 1
        need(done == len(listed) and (np.diff(listed) > 0).all(), "the listed neurons are not neurons in order")

    def put(self, at, low, high):
        """Bounds of some values."""
        self.lower[at], self.upper[at], self.centre[at] = low, high, (centre := self.ar.cut(low / 2 + high / 2))
        self.radius[at] = self.ar.cut(np.maximum(high - centre, centre - low), inf)
        self.most[at] = np.maximum(np.abs(low), np.abs(high)).max(1)

    def loss(self, terms):
        """What sums of so many terms lose, of their magnitudes; more may be added to each by every tap."""
        return 4 * self.ar.gamma(4 * (terms + self.taps) + 16)

    def enter(self, layer, deployed):
        """Its intervals, and what rounding takes: in float64 here, and in float32 where the network is ``deployed``."""
        ar, bias = self.ar, self.ar.of(layer.bias).ravel()
        layer.weight, layer.bias, layer.loose = ar.of(layer.weight), bias.reshape(layer.out.shape), ar.of(layer.loose)
        value, spread = layer.push(self.centre) + bias[:, None], layer.push(self.radius, size=True)
        size = layer.push(self.most[:, None], size=True)[:, 0] + np.abs(bias)
        dust = ar.dust or Fraction(Floats.dust) * bool(layer.loose)  # weights that are rounded may have underflowed
        waste = dust * (1 + self.most[np.unique(layer.into)].sum() * len(layer.into))
        layer.charge = (self.loss(layer.terms) + 2 * layer.loose) * size + waste
        if deployed:
            products = max(4, prod(layer.weight.shape[::3]))
            layer.charge = layer.charge + 2 * ar.gamma(products + 4, 2.0**-24) * size + ar.of(products * 2.0**-125)
            layer.charge = np.where(size < 2.0**120, layer.charge, inf)
        layer.waste, spread = layer.terms * waste, spread + layer.charge[:, None]
        layer.charge = layer.charge.reshape(layer.out.shape)
        self.put(layer.out.ravel(), ar.cut(value - spread, -inf), ar.cut(value + spread, inf))

    def tighten(self, k, name, arrays, seen):
        """Bounds of the operands of a ReLU, layer ``k``, by rows of their own: of the neurons that hints of this
        ``name`` speak of, which are ``seen`` from then on, or of all others by lines of slopes 0 or 1. Of SIGNS the
        side that is nearer to 0 comes first, on the values of few ReLUs before it and then of all, and the other one
        only where the sign is still open."""
        z = self.layers[k].into
        open_ = (self.lower[z] < 0) & (self.upper[z] > 0) & ~seen[:, None]
        near, ways = np.where(self.lower[z] + self.upper[z] > 0, 1, -1), [(1, inf), (-1, inf)]
        if name == SIGNS:
            before = sum(layer.weight is None for layer in self.layers[:k])
            ways = [(1, depth) for depth in DEPTHS if depth < before] + ways
        elif name is not None:
            feature, slopes = arrays[f"{name}/neurons"], arrays[f"{name}/slopes"]
            there = ((feature >= 0) & (feature < z.size)).all() and len(slopes) == 2 * len(feature)
            need(there, "slopes of neurons that there are not")
            seen[feature], ways = True, []
            self.bound(k, np.tile(feature, 2), 0 * np.tile(feature, 2), np.repeat([1, -1], len(feature)), slopes)
        while ways:
            turn, depth = ways.pop(0)
            feature, domain = np.nonzero(open_)
            self.bound(k, feature, domain, turn * near[feature, domain], depth=depth)
            if name == SIGNS:
                open_ &= (self.lower[z] < 0) & (self.upper[z] > 0)
                if 4 * open_.sum() > 3 * len(feature):  # it is of no use to stop early here
                    ways = [way for way in ways if way[1] == inf]
        need(not (self.lower[z] > self.upper[z]).any(), "bounds cross")
        self.put(z, self.lower[z], self.upper[z])

    def bound(self, k, feature, domain, sign, slopes=None, depth=inf):
        """Lower bounds, or where the ``sign`` is -1 upper ones, of operands of the ReLU, layer ``k``, in boxes."""
        order = np.argsort(feature % self.layers[k].places, kind="stable")  # neighbours depend on the same values
        for begin in range(0, len(order), self.block):
            some = order[begin : begin + self.block]
            f, d, up = self.layers[k].into[feature[some]], domain[some], sign[some] > 0
            at, which = np.unique(f, return_inverse=True)
            start = np.zeros((len(at), len(f)))
            start[which, np.arange(len(f))] = sign[some]
            hints = None if slopes is None else (self.ar.of(shares(slopes[some])), None, None, None)
            found = self.least_of(at, self.ar.of(start), hints, d, k, depth)
            for side, sure, mine in ((self.lower, 1, up), (self.upper, -1, ~up)):
                side[f[mine], d[mine]] = sure * better(sure * side[f[mine], d[mine]], found[mine])

    def thin(self, before, live):
        """From now on a matrix that gives what a ReLU alone reads has rows only for its neurons that are not inactive,
        and columns only for inputs that are not 0."""
        if before.weight is None or before.into.size > before.into.shape[2]:
            return
        x = before.into[0, 0, :, 0]
        some = (self.lower[x] != 0).any(1) | (self.upper[x] != 0).any(1)
        before.into, before.out = before.into[:, :, some], before.out[:, live]
        before.weight = before.weight[:, :, live][..., some]
        before.bias, before.charge = before.bias[:, live], before.charge[:, live]

    def least_of(self, at, start, hints=None, domain=None, layers=None, depth=inf):
        """Lower bounds of rows: coefficients (some values x rows) of the values ``at`` of the first so many layers.
        ``hints``: slopes of lines, multipliers of splits with their signs, and lower and upper bounds under splits of
        the listed neurons, or None: (listed neurons x rows) each. ``domain``: the boxes of the rows. ``depth``: so many
        ReLUs are passed at most."""
        ar, walk, live = self.ar, [], np.zeros(self.size, bool)
        need(monotonic() <= ar.until, "the time is over")
        whole = depth == inf and (layers is None or bool(self.least))
        live[0] = live[at] = live[self.inputs[: self.inputs.size * whole]] = True
        for layer in self.layers[:layers][::-1]:  # no values have coefficients but these and what they are made of
            if layer.weight is None and hints and hints[1] is not None:
                live[layer.out[layer.here]] = True  # they have multipliers
            layer = layer.within(live)
            if layer.out.size and layer.weight is None:
                if not depth:
                    break
                depth -= 1
            if layer.out.size:
                live[layer.into] = live[layer.out] = True
                walk.append(layer)
        place, rows = np.cumsum(live) - 1, start.shape[1]
        a, live[:] = ar.of(np.zeros((place[-1] + 1, rows))), False
        a[place[at]], live[at] = start, True
        total = lost = size = ar.of(np.zeros(rows))
        boxes = None if self.lower.shape[1] == 1 else domain
        for layer in walk:
            out = layer.out.ravel()
            mine = a[place[out]]
            live[out] = False
            if not mine.any():
                continue
            if layer.weight is None:
                mine, term, scale = self.backward(layer, mine, hints, boxes)
                a[place[layer.into]] += mine
                lost = lost + self.loss(layer.out.size) * scale + ar.dust * (1 + self.most[layer.into].sum())
            else:
                term = layer.bias.ravel() @ mine
                lost = lost + layer.charge.ravel() @ np.abs(mine) + layer.waste
                layer.pull(mine, a, place)
            total, size = total + term, size + np.abs(term)
            live[layer.into] = True
        live[0] = False
        at = self.inputs if whole else np.flatnonzero(live)
        self.slants = a = a[place[at]]
        slants = np.abs(a)
        if self.lower.shape[1] == 1:
            term = self.centre[at, 0] @ a - self.radius[at, 0] @ slants
        else:
            term = (a * of_boxes(self.centre[at], boxes) - slants * of_boxes(self.radius[at], boxes)).sum(0)
        if whole and self.least:
            term = np.maximum(term, self.least(a))
        lost = lost + self.loss(len(a)) * (self.most[at] @ slants)
        total, size = total + term, size + np.abs(term)
        return ar.cut(total - (lost + lost / 64 + self.loss(len(self.layers)) * size), -inf)

    def alone(self):
        """Lower bounds of each row of the unsafe sets: (boxes x rows)."""
        boxes, rows = self.lower.shape[1], self.unsafe.size
        start = np.tile(np.eye(rows), boxes)
        return self.least_of(self.unsafe, self.ar.of(start), None, np.repeat(np.arange(boxes), rows)).reshape(
            boxes, rows
        )

    def backward(self, layer, a, hints, domain):
        """Coefficients of the values of a ReLU as those of its operands, the constants, and what these are sums of."""
        most, own = 3 * self.most[layer.into], a[layer.here]
        if hints is None:
            return *bent(a, *(of_boxes(t, domain) for t in layer.lines)), most @ np.abs(a)
        scale = most @ np.abs(a)
        a[layer.here] = 0
        a, term = bent(a, *(of_boxes(t, domain) for t in layer.lines))
        slopes, push, low, high = (None if t is None else t[layer.columns] for t in hints)
        if low is None:
            low, high = (of_boxes(t[layer.into[layer.here]], domain) for t in (self.lower, self.upper))
        if slopes is not None:
            need(slopes.shape == own.shape, "not every neuron has its slopes")
            left = self.ar.of(layer.left)  # they are told of a LeakyReLU
            slopes = (slopes - left) / (1 - left)
        own, more = bent(own, *lines(low, high, slopes, self.ar))
        term = term + more
        if push is not None:
            own, term = own - push, term + np.minimum(push * low, push * high).sum(0)
            scale = scale + most[layer.here] @ np.abs(push)
        a[layer.here] = own
        return a, term, scale
