"""Check a certificate of assay: python checker.py CERTIFICATE MODEL.onnx PROPERTY [--exact]

It shares no code with what it checks, and needs numpy, the standard library, onnx to open the model, and beside it
``bounds.py``, ``question.py`` and ``property.py``, which read the two files, and ``norms.py`` for what is not about
boxes. It believes nothing that a certificate holds. Slopes, multipliers and weights are hints: lines whose slopes are
forced between 0 and 1 lie below a ReLU, and weights of splits and rows that are not negative bound the least value from
below, so that wrong hints give weak bounds, not false ones. All else, bounds of layers among it, is derived here, in
float64 with all rounding charged (Higham 2002, chapter 3), or with ``--exact`` in fractions. Exit code 0: accepted; 1:
rejected.
"""

import hashlib
import json
import sys
from functools import partial
from importlib import import_module
from math import inf
from pathlib import Path

try:
    import numpy as np
    import onnx  # noqa: F401
except ImportError as missing:
    if __name__ == "__main__":
        sys.exit(f"{missing}; the checker needs numpy, and onnx to read the model: pip install numpy onnx")
    raise

if __package__:
    from .bounds import Bounder, Floats, Rationals, better, shares
    from .question import Rejected, need, numbered, opened, question, stated, told, unpacked
else:
    sys.path.insert(0, str(Path(__file__).parent))
    from bounds import Bounder, Floats, Rationals, better, shares
    from question import Rejected, need, numbered, opened, question, stated, told, unpacked

FORMAT = "assay-certificate-1"
BOXES = 512  # at a time


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
        at, push = np.concatenate([net.unsafe, self.spots]), np.zeros((len(self.spots), size))
        start = np.zeros((len(at), size))
        steps = [(neuron, i, sign) for i, (_, path, _, _) in enumerate(rows) for neuron, sign in path]
        sets = [() if which is None else self.sets[which] for which, *_ in rows]
        parts = [(r, i, 1) for i, some in enumerate(sets) for r in some]
        for onto, places, name in ((push, steps, "multipliers"), (start, parts, "weights")):
            begin = self.used.get(prefix + name, 0)
            self.used[prefix + name] = end = begin + len(places)
            row, column, sign = np.array(places, np.int64).reshape(-1, 3).T
            onto[row, column] = np.maximum(self.arrays[prefix + name][begin:end], 0) * sign
        if codes is not None:
            need((codes >= 0).all(), "bounds of neurons that there are not")
            start[net.unsafe.size + (codes >> 1), np.arange(size)] = np.where(codes & 1, -1, 1)
        low, high = (np.stack([row[side] for row in rows], 1) for side in (2, 3))
        at, which = np.unique(at, return_inverse=True)  # ReLUs may read the same value, of which a row has one
        whole = np.zeros((len(at), size))
        np.add.at(whole, which, start)
        some = whole.any(1)
        return net.least_of(at[some], of(whole[some]), (of(shares(slopes)), of(push), low, high))


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
        start, hint = (np.maximum(weights[row], 0) * own[which]).T, net.ar.of(shares(slopes[row]))
        found[box, which] = net.least_of(net.unsafe, net.ar.of(start), (hint, None, None, None), box)
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
        need(all(np.isfinite(v).all() for v in mine.values()), "an array holds what is no finite number")
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
    if (prop := unpacked(Path(paths[2]).read_bytes()))[:1] != b"{":
        asked = question(unpacked(Path(paths[1]).read_bytes()), prop)[1]
        print("what was asked:", *stated([(*part[:2], part[-1]) for part in asked]), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
