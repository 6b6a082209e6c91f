"""Check a certificate of assay: python checker.py CERTIFICATE MODEL.onnx PROPERTY [--exact]

It shares no code with what it checks, and needs numpy, the standard library, onnx to open the model, and beside it
``question.py``, which reads the two files; and ``norms.py`` for what is not about boxes. It believes nothing that a
certificate holds. Slopes, multipliers and weights are hints: lines whose slopes are forced between 0 and 1 lie below a
ReLU, and weights of splits and rows that are not negative bound the least value from below, so that wrong hints give
weak bounds, not false ones. All else, bounds of layers among it, is derived here, in float64 with all rounding charged
(Higham 2002, chapter 3), or with ``--exact`` in fractions. Exit code 0: accepted; 1: rejected.
"""

import hashlib
import json
import sys
from dataclasses import replace
from fractions import Fraction
from functools import partial
from importlib import import_module
from math import inf, nextafter, prod
from pathlib import Path
from time import monotonic

try:
    import numpy as np
    import onnx  # noqa: F401
except ImportError as missing:
    if __name__ == "__main__":
        sys.exit(f"{missing}; the checker needs numpy, and onnx to read the model: pip install numpy onnx")
    raise

if __package__:
    from .question import UNIT, Layer, Rejected, need, numbered, opened, question, told, unpacked
else:
    sys.path.insert(0, str(Path(__file__).parent))
    from question import UNIT, Layer, Rejected, need, numbered, opened, question, told, unpacked

FORMAT = "assay-certificate-1"
BLOCK, CACHED, BOXES = 64, 1 << 14, 512  # rows at a time, or more if so many numbers are not exceeded; boxes at a time


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


# ---- Bounds


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


def better(old, new):
    """The larger bound; what is not finite is none."""
    return np.where((new > old) & (new < inf), new, old)


def shares(slopes):
    """Slopes as numbers, transposed: bytes are shares of 255."""
    return slopes.T / 255 if slopes.dtype == np.uint8 else slopes.T


class Bounder:
    """A network over boxes (boxes x inputs), with the rows of unsafe sets at its end: bounds ``lower``, ``upper`` of
    all values (values x boxes). ``listed``: the neurons that hints speak of, numbered through the ReLUs in order,
    rising. ``layers``: by ReLU, what its operands are bounded by beside intervals: lines of slopes 0 or 1 (None), or
    those in an array of this name. ``least``: of linear functions (inputs x rows), where inputs are in less than the
    box. ``slants``: coefficients of the inputs that the last rows had, for those who look for proofs."""

    def __init__(
        self, net, rows, lower, upper, semantics="real", listed=(), layers=(), arrays=None, ar=None, least=None
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
            for name in layers[number] if layers and (least or number or mixed > 1) else ():
                self.tighten(k, z, name, arrays)
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
        layer.weight, layer.bias, layer.loose = ar.of(layer.weight), bias, ar.of(layer.loose)
        value, spread = layer.push(self.centre) + bias[:, None], layer.push(self.radius, size=True)
        size = layer.push(self.most[:, None], size=True)[:, 0] + np.abs(bias)
        dust = ar.dust or Fraction(Floats.dust) * bool(layer.loose)  # weights that are rounded may have underflowed
        waste = dust * (1 + self.most[np.unique(layer.into)].sum() * len(layer.into))
        layer.charge = (self.loss(layer.terms) + 2 * layer.loose) * size + waste
        if deployed:
            products = max(4, prod(layer.weight.shape[::3]))
            layer.charge = layer.charge + 2 * ar.gamma(products + 4, 2.0**-24) * size + ar.of(products * 2.0**-125)
            layer.charge = np.where(size < 2.0**120, layer.charge, inf)
        layer.waste = layer.terms * waste
        spread = spread + layer.charge[:, None]
        self.put(layer.out.ravel(), ar.cut(value - spread, -inf), ar.cut(value + spread, inf))

    def tighten(self, k, z, name, arrays):
        """Bounds of the operands ``z`` of a ReLU, layer ``k``, by rows of their own."""
        feature, domain = np.nonzero((self.lower[z] < 0) & (self.upper[z] > 0))
        slopes = None
        if name is not None:
            feature, slopes = arrays[f"{name}/neurons"], arrays[f"{name}/slopes"]
            domain = 0 * feature
            there = ((feature >= 0) & (feature < z.size)).all() and len(slopes) == 2 * len(feature)
            need(there, "slopes of neurons that there are not")
        for begin in range(0, len(feature), self.block // 2):
            some = slice(begin, begin + self.block // 2)
            f, d = z[feature[some]], domain[some]
            a = np.zeros((self.size, 2 * len(f)))
            a[np.tile(f, 2), np.arange(2 * len(f))] = np.repeat([1, -1], len(f))
            hints = None
            if slopes is not None:
                both = np.concatenate([slopes[: len(feature)][some], slopes[len(feature) :][some]])
                hints = self.ar.of(shares(both)), None, None, None
            low, high = np.split(self.least_of(self.ar.of(a), hints, np.tile(d, 2), k), 2)
            self.lower[f, d], self.upper[f, d] = better(self.lower[f, d], low), -better(-self.upper[f, d], high)
        need(not (self.lower[z] > self.upper[z]).any(), "bounds cross")
        self.put(z, self.lower[z], self.upper[z])

    def thin(self, before, live):
        """From now on a matrix that gives what a ReLU alone reads has rows only for its neurons that are not inactive,
        and columns only for inputs that are not 0."""
        if before.weight is None or before.into.size > before.into.shape[2]:
            return
        x = before.into[0, 0, :, 0]
        some = (self.lower[x] != 0).any(1) | (self.upper[x] != 0).any(1)
        before.into, before.out = before.into[:, :, some], before.out[:, live]
        before.weight = before.weight[:, :, live][..., some]
        before.bias, before.charge = before.bias[live], before.charge[live]

    def least_of(self, a, hints=None, domain=None, layers=None):
        """Lower bounds of rows: coefficients (values x rows) of values of the first so many layers; these are lost.
        ``hints``: slopes of lines, multipliers of splits with their signs, and lower and upper bounds under splits of
        the listed neurons, or None: (listed neurons x rows) each. ``domain``: the boxes of the rows."""
        ar, total, lost, size = self.ar, 0, 0, 0
        need(monotonic() <= ar.until, "the time is over")
        domain = slice(None) if domain is None or self.lower.shape[1] == 1 else domain
        for layer in self.layers[:layers][::-1]:
            mine = a[layer.out.ravel()]
            if not mine.any():
                continue
            if layer.weight is None:
                mine, term, scale = self.backward(layer, mine, hints, domain)
                a[layer.into] += mine
                lost = lost + self.loss(layer.out.size) * scale + ar.dust * (1 + self.most[layer.into].sum())
            else:
                term = layer.bias @ mine
                lost = lost + layer.charge @ np.abs(mine) + layer.waste
                layer.pull(mine, a)
            total, size = total + term, size + np.abs(term)
        self.slants = a = a[self.inputs]
        slants = np.abs(a)
        term = (a * self.centre[self.inputs][:, domain] - slants * self.radius[self.inputs][:, domain]).sum(0)
        if self.least:
            term = np.maximum(term, self.least(a))
        lost = lost + self.loss(len(a)) * (self.most[self.inputs] @ slants)
        total, size = total + term, size + np.abs(term)
        return ar.cut(total - (lost + lost / 64 + self.loss(len(self.layers)) * size), -inf)

    def alone(self):
        """Lower bounds of each row of the unsafe sets: (boxes x rows)."""
        boxes, rows = self.lower.shape[1], self.unsafe.size
        start = np.zeros((self.size, boxes * rows))
        start[np.tile(self.unsafe, boxes), np.arange(boxes * rows)] = 1
        return self.least_of(self.ar.of(start), None, np.repeat(np.arange(boxes), rows)).reshape(boxes, rows)

    def backward(self, layer, a, hints, domain):
        """Coefficients of the values of a ReLU as those of its operands, the constants, and what these are sums of."""
        most, own = 3 * self.most[layer.into], a[layer.here]
        if hints is None:
            return *bent(a, *(t[:, domain] for t in layer.lines)), most @ np.abs(a)
        scale = most @ np.abs(a)
        a[layer.here] = 0
        a, term = bent(a, *(t[:, domain] for t in layer.lines))
        slopes, push, low, high = (None if t is None else t[layer.columns] for t in hints)
        if low is None:
            low, high = (t[layer.into[layer.here]][:, domain] for t in (self.lower, self.upper))
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


# ---- The certificate


class Trees:
    """Trees of splits, one for each unsafe set, in preorder: of a split the number of the neuron among the listed ones,
    its inactive half first; -1: a leaf, all of which is safe; -2: one whose bounds cross. A split has two halves, and a
    tree ends where each has been told, so that it covers the box."""

    def __init__(self, net, arrays, sets):
        self.net, self.arrays, self.sets, self.used = net, arrays, sets, {}
        self.leaves = arrays["slopes"]
        if self.leaves.dtype == np.uint8:  # each as the difference to the one before
            self.leaves = np.add.accumulate(self.leaves, dtype=np.uint8)
        spots = [layer.into[layer.here] for layer in net.layers if layer.weight is None]
        self.spots = np.concatenate([np.zeros(0, np.int64), *spots])
        self.root = ((), net.lower[self.spots, 0], net.upper[self.spots, 0])

    def finer(self):
        """Take bounds of neurons over the box, each by a tree of its own: the least one of its leaves. How many do not
        build on one another is in ``rows``."""
        codes, tree, rows, slopes = (self.arrays[f"finer/{name}"] for name in ("neurons", "tree", "rows", "slopes"))
        tree, slopes, first, leaf = tree.tolist()[::-1], np.add.accumulate(slopes, dtype=np.uint8), 0, 0
        for count in rows.tolist():
            stack, found = [(n, *self.root) for n in range(count)][::-1], np.full(count, inf, self.root[1].dtype)
            while stack:
                some = []  # leaves: whose, and without an unsafe set the path and bounds
                while stack and len(some) < self.net.block:
                    n, *node = stack.pop()
                    if (code := tree.pop()) >= 0:
                        stack += [(n, *half) for half in halves(*node, code)]
                    else:
                        some.append((n, (None, *node)))
                owner, nodes = [n for n, _ in some], [node for _, node in some]
                bound = self.bounds(nodes, slopes[leaf : leaf + len(some)], "finer/", codes[first:][owner])
                empty = [(low > high).any() for _, _, low, high in nodes]  # what holds no point
                np.minimum.at(found, owner, np.where(empty, inf, bound))
                leaf += len(some)
            self.root = ((), *taken(*self.root[1:], codes[first : first + count], found))
            first += count
        need(first == len(codes) and not tree, "a bound's tree is not complete")

    def run(self):
        """How many leaves there are, and the places of nodes without children that are not proved."""
        if "finer/tree" in self.arrays:
            self.finer()
        blocks = np.stack([self.arrays["tighter/at"], self.arrays["tighter/rows"]], 1).tolist()[::-1]
        stack, waiting, left, done, leaves, begin = [self.root], [], [], 0, 0, 0
        for place, code in enumerate(self.arrays["tree"].tolist()):
            need(done < len(self.sets), "something follows the last tree")
            path, low, high = stack.pop()
            while blocks and blocks[-1][0] == place:
                begin, end = begin + blocks.pop()[1], begin
                low, high = self.tightened((done, path, low, high), end, begin)
            if code >= 0:
                stack += halves(path, low, high, code)
                continue
            if code == -1:
                waiting.append((done, path, low, high, place))
            elif not (low > high).any():
                left.append(place)
            if not stack:
                stack, done = [self.root], done + 1
            if waiting and (len(waiting) == self.net.block or done == len(self.sets)):
                rows, places = [row[:4] for row in waiting], [row[4] for row in waiting]
                bound = self.bounds(rows, self.leaves[leaves : leaves + len(rows)])
                empty = [(low > high).any() for _, _, low, high in rows]  # what holds no point is safe
                left += np.array(places)[~((bound > 0) & (bound < inf) | empty)].tolist()
                waiting, leaves = [], leaves + len(rows)
        need(done == len(self.sets), "a tree is not complete")
        return leaves, left

    def tightened(self, row, begin, end):
        """Bounds of neurons, 2 * number + 1 for upper ones, of points of which the output is in the unsafe set."""
        codes, slopes = (self.arrays[f"tighter/{name}"][begin:end] for name in ("neurons", "slopes"))
        return taken(*row[2:], codes, self.bounds([row] * len(codes), slopes, "tighter/", codes))

    def bounds(self, rows, slopes, prefix="", codes=None):
        """Of rows, each (unsafe set, path, lower, upper): weights of unsafe rows, and neurons by ``codes``."""
        net, of, size = self.net, self.net.ar.of, len(rows)
        start, push = np.zeros((net.size, size)), np.zeros((len(self.spots), size))
        steps = [(neuron, i, sign) for i, (_, path, _, _) in enumerate(rows) for neuron, sign in path]
        sets = [() if which is None else self.sets[which] for which, *_ in rows]
        parts = [(net.unsafe[r], i, 1) for i, some in enumerate(sets) for r in some]
        for onto, places, name in ((push, steps, "multipliers"), (start, parts, "weights")):
            begin = self.used.get(prefix + name, 0)
            self.used[prefix + name] = end = begin + len(places)
            at, column, sign = np.array(places, np.int64).reshape(-1, 3).T
            onto[at, column] = np.maximum(self.arrays[prefix + name][begin:end], 0) * sign
        if codes is not None:
            start[self.spots[codes >> 1], np.arange(size)] = np.where(codes & 1, -1, 1)
        low, high = (np.stack([row[side] for row in rows], 1) for side in (2, 3))
        return net.least_of(of(start), (of(shares(slopes)), of(push), low, high))


def halves(path, low, high, neuron):
    """A node where the neuron is active, and where it is inactive, which comes first."""
    least, most = low.copy(), high.copy()
    least[neuron], most[neuron] = max(low[neuron], 0), min(high[neuron], 0)
    return [((*path, (neuron, 1)), least, high), ((*path, (neuron, -1)), low, most)]


def taken(low, high, codes, found):
    """Bounds of neurons where better ones were ``found``, of 2 * number, and its opposite's of 2 * number + 1."""
    low, high = low.copy(), high.copy()
    for code, bound in zip(codes.tolist(), found, strict=True):
        side, sign = ((low, 1), (high, -1))[code & 1]
        side[code >> 1] = sign * better(sign * side[code >> 1], bound)
    return low, high


def boxed(net, rows, semantics, ar, lower, upper, least=None):
    """The network over boxes (boxes x inputs), where hints may speak of every neuron."""
    relus = [layer.out.size for layer in net.layers if layer.weight is None]
    return Bounder(net, rows, lower, upper, semantics, np.arange(sum(relus)), [[None]] * len(relus), None, ar, least)


def over_boxes(net, sets, hints, slopes, weights):
    """Lower bounds over each box of ``net`` of a weighed sum of the rows of each unsafe set (boxes x sets): the best
    row alone, or by the ``hints`` (boxes x sets) that number rows of slopes and weights, -1: none."""
    bounds, rows = net.alone(), net.unsafe.size
    need(hints.shape == (len(bounds), len(sets)), "not every leaf has its hints")
    slants = net.slants.T.reshape(len(bounds), rows, -1)
    found = np.stack([bounds[:, some].max(1) for some in sets], 1)
    box, which = np.nonzero(hints >= 0)
    if len(box):
        row, own = hints[box, which], np.array([np.isin(np.arange(rows), some) for some in sets])
        start = np.zeros((net.size, len(box)))
        start[net.unsafe] = (np.maximum(weights[row], 0) * own[which]).T
        found[box, which] = net.least_of(net.ar.of(start), (net.ar.of(shares(slopes[row])), None, None, None), box)
    net.slants = slants
    return found


def box_tree(make, arrays, lower, upper, sets):
    """How many leaves a tree of boxes has, and the numbers of those that are not proved. It is told in preorder: the
    input that is halved, or -1: a leaf, safe from all unsafe sets at once."""
    waiting, stack, leaves, left = [], [(np.array(lower), np.array(upper))], 0, []
    for code in arrays["boxes"].tolist():
        low, high = stack.pop()
        if code >= 0:
            least, most = low.copy(), high.copy()
            least[code] = most[code] = low[code] / 2 + high[code] / 2
            stack += [(least, high), (low, most)]
        else:
            waiting.append((low, high))
        if waiting and (len(waiting) == BOXES or not stack):
            net, begin, leaves = make(*map(np.stack, zip(*waiting, strict=True))), leaves, leaves + len(waiting)
            found = over_boxes(net, sets, arrays["hints"][begin:leaves], arrays["slopes"], arrays["weights"])
            left += (begin + np.flatnonzero(~((found > 0) & (found < inf)).all(1))).tolist()
            waiting = []
    need(not stack, "the tree is not complete")
    return leaves, left


def check(certificate: bytes, model: bytes, prop: bytes, exact: bool = False, until: float = inf):
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


def checked(claims, arrays, model, prop, ar):
    for name, data in (("model", model), ("property", prop)):
        need(claims[name] == hashlib.sha256(data).hexdigest(), f"the certificate speaks of another {name}")
    known = claims["format"] == FORMAT and claims["semantics"] in ("real", "float32-any-order")
    need(known, "a format, or semantics, beyond this checker")
    if claims["kind"] in ("tree", "counterexample") and prop[:1] != b"{":
        return proved(claims, arrays, *question(model, prop), ar)
    return import_module(".norms" if __package__ else "norms", __package__).checked(claims, arrays, model, prop, ar)


def proved(claims, arrays, network, parts, ar, ball=None):
    """What a tree, or a point, proves of a property; ``ball``: in which the inputs are besides."""
    semantics, report = claims["semantics"], {"kind": claims["kind"], "semantics": claims["semantics"], "leaves": 0}
    if claims["kind"] == "counterexample":
        replayed([float.fromhex(v) for v in claims["point"]], semantics, network, parts, ar, ball)
        return report | {"claim": "sat"}
    least = partial(ball.least, ar=ar) if ball else None
    for n, part, low, high, unsafe, mine in told(claims, arrays, parts):
        lists = [k for k in mine if k == "boxes" or ("boxes" not in mine and not k.endswith("slopes"))]
        need(all(v.ndim == 2 - (k in lists) for k, v in mine.items()), "an array of another rank than is expected")
        rows, sets = numbered(unsafe)
        if "boxes" in mine:
            leaves, left = box_tree(partial(boxed, network, rows, semantics, ar, least=least), mine, low, high, sets)
        else:
            net = Bounder(network, rows, [low], [high], semantics, mine["listed"], part["layers"], mine, ar, least)
            leaves, left = Trees(net, mine, sets).run()
        if left:
            raise Rejected(f"{len(left)} leaves are not proved", (n, left))
        report["leaves"] += leaves
    return report | {"claim": "unsat"}


def replayed(x, semantics, network, parts, ar, ball):
    single = semantics == "real" or all(float(np.float32(v)) == v for v in x)
    need(single, "the point is not one of float32 numbers")
    for low, high, _, _, unsafe in parts:
        inside = len(x) == len(low) and all(a <= b <= c for a, b, c in zip(low, x, high, strict=True))
        if inside and (ball is None or ball.holds(x)):
            rows, sets = numbered(unsafe)
            net = Bounder(network, rows, [x], [x], semantics, ar=ar)
            y = net.upper[net.unsafe, 0].tolist()
            if any(all(y[r] < 0 for r in some) for some in sets):  # strictly, whatever they say: bounds lie outside
                return
    raise Rejected("the point is no counterexample")


def main(arguments):
    """Check three files; the exit code."""
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
