"""Certificates about more than boxes: balls in l1, l2 and linf, Lipschitz constants, quadratic forms, and noise.

Beside ``checker.py``, which hands these on. All hints are numbers of which any value is sound, again: what is proved of
a matrix is proved of what a factorisation, right or wrong, leaves of it. Noise is drawn again.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, Context, Decimal, localcontext
from fractions import Fraction
from math import inf, isfinite, nextafter, prod
from time import monotonic

import numpy as np

if __package__:
    from .bounds import CACHED, Bounder, Floats, better
    from .checker import proved
    from .question import LARGEST, UNIT, Rejected, need, numbered, question, told
else:
    from bounds import CACHED, Bounder, Floats, better
    from checker import proved
    from question import LARGEST, UNIT, Rejected, need, numbered, question, told

DENSE = 1 << 23  # numbers of a matrix, at most
DUAL = {1: inf, 2: 2, inf: 1}


def asked(model, prop):
    """The network, the property by boxes, and the ball that its inputs lie in besides, or None: JSON of the two."""
    if prop[:1] != b"{":
        return *question(model, prop), None
    told = json.loads(prop)
    ball = Ball(float(told["norm"]), float.fromhex(told["radius"]), np.array([*map(float.fromhex, told["centre"])]))
    finite = 0 <= ball.radius < inf and np.isfinite(ball.centre).all()
    need(ball.p in (1, 2, inf) and finite, "a ball of such a norm, radius or centre is beyond this checker")
    network, parts = question(model, told["property"].encode())
    need(len(parts) < 2 and len(ball.centre) == network.input.size, "a ball of other inputs, or of several boxes")
    return network, parts, ball


def checked(claims, arrays, model, prop, ar):
    """What a certificate proves; see :func:`checker.check`."""
    network, parts, ball = asked(model, prop)
    kind, real = claims["kind"], claims["semantics"] == "real"
    if kind in ("tree", "counterexample"):
        return proved(claims, arrays, network, parts, ar, ball)
    need(real and (kind in MARGINS or (kind == "smoothing" and ball and parts)), f"{kind!r}: beyond this checker")
    report = {"kind": kind, "semantics": "real", "claim": "unsat", "leaves": 0}
    if kind == "smoothing":
        unsafe = parts[0][-1]
        need(all(unsafe), "a case has no output to avoid")
        return report | {"claim": "smoothed"} | smoothed(network, *numbered(unsafe), ball, claims, Floats(ar.until))
    for _, _, low, high, unsafe, mine in told(claims, arrays, parts):
        need(all(v.ndim == 2 for v in mine.values()), "an array of another rank than is expected")
        rows, sets = numbered(unsafe)
        mine = {k: v.astype(np.float64) for k, v in mine.items()}  # sums of smaller types wrap, or are rounded
        found = MARGINS[kind](network, rows, np.array(low), np.array(high), ball, mine)
        need(all(0 < max(found[some]) < inf for some in sets), "a row is not proved")
        report["leaves"] += len(sets)
    return report


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
        """At most the least values of linear functions (inputs x rows) over it."""
        centre = ar.of(self.centre)
        size = ar.gamma(4 * len(a) + 16) * (np.abs(centre) @ np.abs(a))
        return centre @ a - 2 * size - ar.of(above(self.radius * length(a.T, DUAL[self.p])))


# ---- Lipschitz constants, and quadratic forms


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
    if not matrix.size:  # a tap that reads padding alone
        return 0.0
    matrix = matrix if len(matrix) >= matrix.shape[1] else matrix.T
    gram = matrix.T @ matrix
    error = 4 * Floats().gamma(len(matrix) + 16) * (np.abs(matrix).T @ np.abs(matrix)) + Floats.dust
    square = above(float(np.linalg.eigvalsh(gram)[-1])) if np.isfinite(gram).all() else inf
    gap = square * np.eye(len(gram)) - gram
    return above(np.sqrt(above(max(square, 0.0) + deficit(gap, error + 2 * UNIT * np.abs(gap)))))


def absolute(layer):
    """With the magnitudes of its weights."""
    return replace(layer, weight=np.abs(layer.weight))


def share(layer):
    """What rounding, and weights that are rounded, take of the sum of the magnitudes of the terms of its values."""
    return 4 * Floats().gamma(4 * layer.terms + 16) + 2 * layer.loose


def pulled(layer, a, size):
    """Coefficients of all values, of rows of a layer (its values x rows)."""
    onto = np.zeros((size, a.shape[1]))
    layer.pull(a, onto)
    onto[0] = 0
    return onto


def operator(layer, size, p):
    """At least the l_p norm of an affine layer on ``size`` values."""
    ones, more = np.ones((size, 1)), 1 + share(layer)
    ones[0] = 0
    sums = {inf: layer.push(ones, size=True), 1: pulled(absolute(layer), np.ones((layer.out.size, 1)), size)}
    one, other = (above(float(sums[q].max(initial=0)) * more) for q in (1, inf))
    if p != 2:
        return {1: one, inf: other}[p]
    norm, read = above(np.sqrt(above(one * other))), np.unique(layer.into[layer.into > 0])
    terms = np.sort(layer.into.transpose(1, 3, 0, 2).reshape(-1, prod(layer.into.shape[::2])))
    twice = ((np.diff(terms) == 0) & (terms[:, 1:] > 0)).any()
    if not layer.loose and not twice and layer.out.size * len(read) <= DENSE:
        norm = min(norm, spectral(pulled(layer, np.eye(layer.out.size), size)[read]))
    return norm


def sources(network):
    """By value the number of the layer that gives it, -1: an input; by layer those of the ones that its taps read."""
    whose, read = np.full(network.size, -1), []
    for k, layer in enumerate(network.layers):
        into = layer.into[None] if layer.weight is None else layer.into
        read.append([int(whose[tap.max()]) for tap in into])  # a tap reads one of them, beside the value 0
        whose[layer.out] = k
    return whose, read


def constants(network, p):
    """Lipschitz constants in l_p of the values of each layer, and of the inputs (last): norms multiplied, and added
    where values are."""
    _, read = sources(network)
    found = np.ones(len(network.layers) + 1)
    for k, (layer, taps) in enumerate(zip(network.layers, read, strict=True)):
        if layer.weight is None:
            found[k] = found[taps[0]]
            continue
        parts = [[t for t, tap in enumerate(taps) if tap == one] for one in sorted(set(taps))]
        each = [operator(replace(layer, weight=layer.weight[t], into=layer.into[t]), network.size, p) for t in parts]
        found[k] = above(sum(above(norm * found[taps[t[0]]]) for norm, t in zip(each, parts, strict=True)), len(parts))
    return found


def steepest(network, rows, p):
    """Lipschitz constants in l_p of rows of the output, by way of the last affine layers at once."""
    values, (whose, read) = np.zeros((network.size, len(rows))), sources(network)
    values[network.output] = rows.T
    lost, k = 2 * UNIT * np.abs(values), int(whose[network.output.max()])  # 0 is a padding
    while k >= 0 and network.layers[k].weight is not None and len(set(read[k])) == 1:
        layer, at = network.layers[k], network.layers[k].out.ravel()
        error = above(lost[at] + share(layer) * (np.abs(values[at]) + lost[at]))
        lost = above(pulled(absolute(layer), error, network.size), layer.terms)
        values, k = pulled(layer, values[at], network.size), read[k][0]
    return above((length(values.T, DUAL[p]) + length(lost.T, DUAL[p])) * constants(network, p)[k])


def reach(low, high, ball, p):
    """A point, and at least how far from it in l_p any point of the region is."""
    centre = ball.centre if ball else low / 2 + high / 2
    far = float(length(np.maximum(high - centre, centre - low)[None], p)[0])
    return centre, min(far, within(ball, p)) if ball else far


def within(ball, p):
    """At least how far from its centre in l_p any point of a ball is."""
    return above(ball.radius * above(len(ball.centre) ** max(0.0, 1 / p - 1 / ball.p)))


def by_constants(network, rows, low, high, ball, arrays):
    """Lower bounds of rows: values at a point, less what constants in some ``norms`` allow them to lose."""
    lost = inf
    for p in {1, 2, inf} & set(arrays["norms"].ravel().tolist()):
        centre, far = reach(low, high, ball, p)
        net = Bounder(network, rows, [centre], [centre])
        lost = np.minimum(lost, above(steepest(network, net.layers[-1].weight[0, 0], p) * far))
    return np.nextafter(net.lower[net.unsafe, 0] - lost, -inf)


def unrolled(network):
    """Values as affine functions of v = (1, x, max(z, 0) of all operands z of ReLUs): coefficients (v x outputs), what
    rounding has moved them by, and those of all z."""
    relus = [layer for layer in network.layers if layer.weight is None]
    begin, count = 1 + network.input.size, 1 + network.input.size + sum(layer.out.size for layer in relus)
    need(count * network.size <= 4 * DENSE, "a network too large for quadratic forms")
    value, error = np.zeros((network.size, count)), np.zeros((network.size, count))
    value[network.input.ravel(), np.arange(1, begin)] = 1
    for layer in network.layers:
        at = layer.out.ravel()
        if layer.weight is None:
            begin, own = begin + at.size, np.arange(begin, begin + at.size)
            value[at, own] = 1
            continue
        size, bias = layer.push(np.abs(value) + error, size=True), layer.bias.ravel()
        size[:, 0] += np.abs(bias)
        error[at] = above(layer.push(error, size=True) + share(layer) * size, layer.terms)
        value[at] = layer.push(value)
        value[at, 0] += bias
    z = np.concatenate([np.zeros(0, np.int64), *(layer.into for layer in relus)])
    return tuple((value[at].T, error[at].T) for at in (network.output, z))


def combined(pair, rows):
    """Rows of values, from the coefficients of these with their errors."""
    value, error = pair
    size = (np.abs(value) + error) @ np.abs(rows).T
    return value @ rows.T, above(error @ np.abs(rows).T + 8 * Floats().gamma(rows.shape[1] + 16) * size, rows.shape[1])


def by_multipliers(network, rows, low, high, ball, arrays):
    """LipSDP: for multipliers t >= 0 let Q be rho |x|^2 - (c u)^2 - 2 (z - h)^T t h, a form in u = (x, h). As of two
    points h (z - h) >= 0, and |u|^2 is at most ``whole`` |x|^2, a row loses at most (rho + deficit(Q) whole)^(1/2) over
    a distance of 1."""
    centre, far = reach(low, high, ball, 2)
    net, (y, z) = Bounder(network, rows, [centre], [centre]), unrolled(network)
    layers = zip(network.layers, constants(network, 2), strict=False)
    whole = 1 + sum(above(v * v) for layer, v in layers if layer.weight is None)
    (c, off), (z, z_off), n = (
        (t[1:] for t in combined(y, net.layers[-1].weight[0, 0])),
        (t[1:] for t in z),
        len(low),
    )
    found = []
    for i, (t, rho) in enumerate(zip(np.maximum(arrays["multipliers"], 0), arrays["rho"][:, 0], strict=True)):
        parts, errors = np.zeros((len(c), len(c))), np.zeros((len(c), len(c)))
        parts[:, n:], errors[:, n:] = z * t, z_off * t
        sides = np.outer(np.abs(c[:, i]), off[:, i])
        diagonal = np.concatenate([np.full(n, rho), 2 * t])
        form = np.diag(diagonal) - np.outer(c[:, i], c[:, i]) - parts - parts.T
        size = np.diag(np.abs(diagonal)) + np.outer(np.abs(c[:, i]), np.abs(c[:, i])) + np.abs(parts) + np.abs(parts.T)
        error = sides + sides.T + np.outer(off[:, i], off[:, i]) + errors + errors.T + 32 * UNIT * size
        square = above(rho + deficit(form, above(error)) * above(whole, len(network.layers)))
        found.append(above(np.sqrt(max(square, 0.0))))  # NaN stays NaN, which bounds nothing
    need(len(found) == len(rows), "not every row has its multipliers")
    return np.nextafter(net.lower[net.unsafe, 0] - above(np.array(found) * far), -inf)


def by_forms(network, rows, low, high, ball, arrays):
    """The semidefinite relaxation: v = (1, x, h) has (v - l) (v - u) <= 0, -h <= 0, z - h <= 0, h (h - z) = 0, and in a
    ball |x|^2 - 2 c x + c c - r^2 <= 0. A row plus multiples of these, of either sign of the equations alone, is a form
    v^T S v, and at least t less ``deficit`` |v|^2 if t is taken off the corner of S."""
    relus = [layer for layer in network.layers if layer.weight is None]
    net = Bounder(network, rows, [low], [high], layers=[[None]] * len(relus))
    best = net.alone()[0]
    at = np.concatenate([network.input.ravel(), *(layer.out for layer in relus)])
    ends = [net.lower[at, 0], net.upper[at, 0]]
    (y, (z, z_off)), most = unrolled(network), np.concatenate([[1.0], np.maximum(*map(np.abs, ends))])
    (goals, off), n = combined(y, net.layers[-1].weight[0, 0]), len(low)
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
        bias, square = float(net.layers[-1].bias.ravel()[i]), float(round_.centre @ round_.centre)
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


def smoothed(network, rows, sets, ball, cert, ar):
    """That at every point of the ball noise leaves the output out of the unsafe sets with a chance above 1/2. So it is
    if at the centre the chance exceeds a ``floor`` (Neyman and Pearson). It does at confidence 1 - alpha: were it not
    above, one of the draws in the ledger, whose shares sum up to alpha, would have so many successes with a probability
    of its share at most (Clopper and Pearson)."""
    name, scale, alpha = cert["noise"], float.fromhex(cert["scale"]), float.fromhex(cert["alpha"])
    ledger, shape = [(n, float.fromhex(part)) for n, part in cert["ledger"]], tuple(cert["shape"])
    declared = network.input.shape
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
    won, close = successes(network, rows, sets, noisy(name, scale, cert["seed"], shape, ball.centre), ledger, ar)
    if type(cert["count"]) is not int or abs(cert["count"] - sum(won)) > sum(close):
        raise Rejected(f"{cert['count']} draws are said to succeed, {sum(won)} do")
    if not floor < 1 or all(tail(n, k, floor) > Decimal(part) for (n, part), k in zip(ledger, won, strict=True)):
        raise Rejected(f"{won} successes do not show a chance above {float(floor):.6g}")
    subject, draws = f"smoothed({name}, {scale / many:g})", sum(n for n, _ in ledger)
    return {"subject": subject, "confidence": 1 - alpha, "seed": cert["seed"], "draws": draws}


def successes(network, rows, sets, blocks, ledger, ar):
    """How many draws surely succeed, entry by entry of the ledger, and of how many float32 may tell otherwise."""
    total, together = (
        sum(n for n, _ in ledger),
        max(1, CACHED * 8 // (COPIES * max(layer.out.size for layer in network.layers))),
    )
    found, left = [], -(-total // COPIES)
    while left > 0:
        if monotonic() > ar.until:
            raise Rejected("the time is over")
        x, left = np.concatenate([next(blocks) for _ in range(min(left, together))]), left - together
        net = Bounder(network, rows, x, x, ar=ar)
        last = [side[net.unsafe] for side in (net.lower, net.upper)]
        low, high = (np.stack([side[some].max(0) for some in sets]).min(0) for side in last)
        slack = CLOSE * (1 + np.abs(last[0]).max(0))
        found.append(np.stack([low > 0, (low <= slack) & (high >= -slack)]))
    ends = np.cumsum([n for n, _ in ledger])
    parts = np.split(np.concatenate(found, 1)[:, :total], ends[:-1], axis=1)
    return ([int(part[side].sum()) for part in parts] for side in (0, 1))
