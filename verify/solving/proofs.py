"""Certificates for verified properties: slopes and splits that a search has found, written as the checker reads them.

The cheapest proof that the checker accepts is taken: by what a method recorded (Lipschitz constants, multipliers of
quadratic forms, trees of a search on splits or on boxes, whose leaves that are not proved so are searched again or
halved), by intervals, by linear bounds on lines of slopes 0 or 1, and by searches of its own. What is said of a
smoothed classifier is proved by draws that are made again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from math import inf, prod
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from assay.verify.check import checker, norms, question
from assay.verify.check.certificate import Certificate
from assay.verify.check.replay import withdrawn
from assay.verify.core.budget import UNLIMITED, Budget, running
from assay.verify.core.errors import AlarmError, UnsupportedError, check_type
from assay.verify.core.problem import Problem, check_problem
from assay.verify.core.region import LpBall
from assay.verify.core.result import NETWORK, Guarantee, Reason, Result, Verdict
from assay.verify.core.spec import Spec
from assay.verify.core.verifier import Verifier
from assay.verify.programs.hints import differences, tree

Array = NDArray[Any]

MOST = 100_000  # boxes
INPUTS = 8  # networks of so many inputs at most are proved by halving these
ALIKE = 1e-8  # relative difference, at most, of rows that are the same, rounded in two ways
MISSING = "no proof was found that could be written"
ROUNDS, SHARE = 3, 0.25  # how often a part is mended, and what of the time that is left a search for that may take
FAIRNESS, TINY = 1e-3, 1e-300  # what each input is worth, so that all of them are halved in the end


class Refuted(Exception):
    """What was said to be verified has a counterexample."""


# What bounds the layers, from the cheapest on: nothing but intervals, and linear bounds besides.
PLAIN: tuple[list[list[str | None]], ...] = ([], [[None]])


@dataclass(frozen=True, eq=False)
class Files:
    """A model and a property as the checker reads them. ``parts``: (lower, upper, unsafe sets) of each box."""

    model: bytes
    prop: bytes
    network: Any
    parts: list[tuple[list[float], list[float], list[Any]]]
    ball: Any

    @classmethod
    def of(cls, model: bytes, prop: bytes) -> Files:
        """Raises :class:`question.Rejected` for what is beyond the checker."""
        model, prop = question.unpacked(model), question.unpacked(prop)
        try:
            network, parts, ball = norms.asked(model, prop)
        except (KeyError, ValueError, IndexError, TypeError, RecursionError) as error:
            raise question.Rejected(f"beyond this checker: {type(error).__name__}: {error}") from error
        return cls(model, prop, network, [(low, high, unsafe) for *_, low, high, unsafe in parts], ball)

    @classmethod
    def of_problem(cls, problem: Problem, round_: bool = False) -> Files:
        """Files written for a problem: the network in plain form; the property as VNN-LIB, or where it is a ball, and
        in l1 and l2 or ``round_``, as JSON. Raises what writing it does."""
        from assay.verify.frontends.onnx import write
        from assay.verify.frontends.vnnlib import write as written

        region = problem.region
        if not isinstance(region, LpBall) or not (round_ or region.p != inf):
            return cls.of(write.encode(problem.network), written.encode(problem))
        if torch.as_tensor(region.eps).dim():
            raise question.Rejected("a ball of several radii is beyond this checker")
        within = written.encode(Problem(problem.network, region.box(), problem.spec)).decode()
        ball = {"norm": str(float(region.p)), "radius": float(region.eps).hex()}
        centre = [v.hex() for v in region.centre.flatten().tolist()]
        prop = json.dumps({**ball, "centre": centre, "property": within}, indent=1).encode()
        return cls.of(write.encode(problem.network), prop)

    @property
    def relus(self) -> list[int]:
        """The sizes of the layers of ReLUs."""
        return [layer.out.size for layer in self.network.layers if layer.weight is None]

    def least(self, arithmetic: Any) -> Any:
        """What bounds linear functions over the ball, if there is one."""
        return None if self.ball is None else partial(self.ball.least, ar=arithmetic)

    def certificate(self, kind: str, semantics: str, parts: Sequence[Part]) -> Certificate:
        """Of a proof of each part."""
        told: list[dict[str, Any]] = []
        arrays: dict[str, Array] = {}
        for n, ((low, high, _), part) in enumerate(zip(self.parts, parts, strict=True)):
            told.append({"lower": [v.hex() for v in low], "upper": [v.hex() for v in high], "layers": part.layers})
            arrays |= {f"{n}/{name}": array for name, array in part.arrays.items()}
        return Certificate.of({"kind": kind, "semantics": semantics, "parts": told}, arrays, self.model, self.prop)


@dataclass(frozen=True, eq=False)
class Part:
    """The proof of one box: how ``layers`` are bounded, and the ``arrays`` of its trees."""

    arrays: dict[str, Array]
    layers: list[list[str | None]]


def counterexample(files: Files, point: Sequence[float]) -> Certificate:
    """The certificate of a point of the region of which the output is unsafe."""
    claims = {"kind": "counterexample", "semantics": "real", "point": [float(v).hex() for v in point]}
    return Certificate.of(claims, {}, files.model, files.prop)


def plain(files: Files, number: int, semantics: str = "real", until: float = inf) -> Part | None:
    """The proof of a part without any search, if there is one: trees that are one leaf each. Raises
    :class:`question.Rejected` where that takes longer than ``until``, on the monotonic clock."""
    low, high, unsafe = files.parts[number]
    rows, sets = question.numbered(unsafe)
    arithmetic = checker.Floats(until)
    least = files.least(arithmetic)
    for layers in (kind * len(files.relus) for kind in PLAIN):
        with np.errstate(all="ignore"):
            net = checker.Bounder(
                files.network, rows, [low], [high], semantics, layers=layers, ar=arithmetic, least=least
            )
            bound = net.alone()[0]
        if all(len(some) and max(bound[some]) > 0 for some in sets):
            weights = [float(r == max(some, key=bound.__getitem__)) for some in sets for r in some]
            return Part(trees(len(sets), weights), layers)
    return None


def trees(count: int, weights: Sequence[float]) -> dict[str, Array]:
    """Trees without splits, as many as there are unsafe sets, with the ``weights`` of the rows of these."""
    codes, none = np.full(count, -1), np.zeros((count, 0), np.uint8)
    listed = {"listed": np.zeros(0, np.int32)}
    return listed | tree(codes, none, np.zeros(0, np.float16), np.array(weights, np.float16))


def halved(
    files: Files, number: int, part: Part, left: Sequence[int], semantics: str = "real", until: float = inf
) -> Part:
    """A tree of boxes of which the leaves that are ``left`` to be proved, by number, are halved until they are. Raises
    :class:`question.Rejected` where that takes longer than ``until``."""
    low, high, unsafe = files.parts[number]
    (rows, sets), arithmetic = question.numbered(unsafe), checker.Floats(until)
    codes, stack = part.arrays["boxes"].tolist(), [(-1, np.array(low), np.array(high))]
    first, second = list(range(1, len(codes) + 1)), [0] * len(codes)  # halves of each box that is halved
    leaves: list[tuple[int, Array, Array, Array]] = []
    for box, code in enumerate(codes):
        above, lo, hi = stack.pop()
        second[above] = box
        if code < 0:
            leaves.append((box, lo, hi, part.arrays["hints"][len(leaves)]))
        else:
            stack += [(box, *half) for half in _halves(lo, hi, code)[::-1]]
    kept, waiting = {leaf[0]: leaf[3] for leaf in leaves}, [leaves[number] for number in left]
    while waiting:
        if len(codes) > MOST:
            raise question.Rejected(f"more than {MOST} boxes")
        some, waiting = waiting[-checker.BOXES :], waiting[: -checker.BOXES]
        lower, upper, hints = (np.stack([box[side] for box in some]) for side in (1, 2, 3))
        with np.errstate(all="ignore"):
            net = checker.boxed(files.network, rows, semantics, arithmetic, lower, upper, files.least(arithmetic))
            found = checker.over_boxes(net, sets, hints, part.arrays["slopes"], part.arrays["weights"])
        open_ = ~((found > 0) & (found < inf))
        gain = np.zeros(lower.shape)
        for which, mine in enumerate(sets):
            gain += open_[:, which, None] * np.abs(net.slants[:, mine]).max(1) * (upper - lower)
        gain += FAIRNESS * (upper - lower) * gain.max(1, keepdims=True) / np.maximum(np.array(high) - low, TINY)
        for i, (box, lo, hi, hint) in enumerate(some):
            if not open_[i].any():
                kept[box] = hint
                continue
            codes[box], first[box], second[box] = int(gain[i].argmax()), len(codes), len(codes) + 1
            waiting += [(len(codes) + n, *half, hint) for n, half in enumerate(_halves(lo, hi, codes[box]))]
            codes, first, second = [*codes, -1, -1], [*first, -1, -1], [*second, -1, -1]
    order, boxes = [], [0]
    while boxes:
        box = boxes.pop()
        order.append(box)
        boxes += [second[box], first[box]] if codes[box] >= 0 else []
    told = {"boxes": np.array([codes[box] for box in order], np.int32)}
    return Part({**part.arrays, **told, "hints": np.stack([kept[box] for box in order if codes[box] < 0])}, [])


def _halves(low: Array, high: Array, axis: int) -> list[tuple[Array, Array]]:
    middle = low[axis] / 2 + high[axis] / 2
    halves = [(low.copy(), high.copy()), (low.copy(), high.copy())]
    halves[0][1][axis] = halves[1][0][axis] = middle
    return halves


def of_boxes(files: Files, number: int, spec: Spec, record: Mapping[str, Any]) -> Part | None:
    """The proof of a part by the tree of a search on boxes: what
    :meth:`assay.verify.backends.bab.input_record.InputRecord.document` tells. None where its layers are others."""
    _, _, unsafe = files.parts[number]
    order = _order(files, unsafe, spec)
    if order is None or files.relus != record["relus"]:
        return None
    hints, slopes, told = (record[name].numpy() for name in ("hints", "slopes", "weights"))
    hints = hints[:, order]
    ends = np.cumsum([0, *map(len, unsafe)])
    weights = np.zeros((len(slopes), ends[-1]), np.float16)
    for which, begin in enumerate(ends[:-1].tolist()):
        mine, size = hints[:, which], len(unsafe[which])
        mine = mine[mine >= 0]
        weights[mine, begin : begin + size] = told[mine, :size]
    arrays = {"boxes": record["tree"].numpy(), "hints": hints.astype(np.int32), "slopes": slopes, "weights": weights}
    return Part(arrays, [])


def of_record(files: Files, number: int, spec: Spec, record: Mapping[str, Any]) -> Part | None:
    """The proof of a part by the trees of a search on the phases of its ReLUs: what
    :meth:`assay.verify.backends.bab.record.Record.document` tells. None where the layers are not those of the model."""
    _, _, unsafe = files.parts[number]
    order = _order(files, unsafe, spec)
    if files.relus != record["relus"] or order is None:
        return None
    told = [record["trees"].get(str(d)) for d in order]
    if None in told:
        return None
    arrays = {name: np.concatenate([t[name].numpy() for t in told]) for name in told[0]}
    lengths = np.cumsum([0, *(len(t["tree"]) for t in told)])
    at = [t["tighter/at"].numpy() + begin for t, begin in zip(told, lengths, strict=False)]
    arrays["tighter/at"] = np.concatenate(at).astype(np.int32)
    arrays["slopes"] = differences(arrays["slopes"])
    arrays["listed"] = record["listed"].numpy()
    layers: list[list[str | None]] = [[None] for _ in files.relus]
    for relu, rows in record["layers"].items():
        layers[int(relu)] = [None, f"layer{relu}"]
        arrays |= {f"layer{relu}/{name}": rows[name].numpy() for name in ("neurons", "slopes")}
    finer = {f"finer/{name}": array.numpy() for name, array in record["finer"].items()}
    if finer:
        finer["finer/weights"] = np.zeros(0, np.float16)
        finer["finer/slopes"] = differences(finer["finer/slopes"])
    return Part({**arrays, **finer}, layers)


def _order(files: Files, unsafe: Sequence[Sequence[Any]], spec: Spec) -> list[int] | None:
    """The disjunct of the specification that each unsafe set of the checker's is, the nearest one, as they are rounded
    in two ways; None where they differ by more, measured by the largest number of a row."""
    tables = [torch.cat([disjunct.A, disjunct.b[:, None]], 1).numpy() for disjunct in spec.disjuncts]
    order = []
    for rows in unsafe:
        table = np.zeros((len(rows), files.network.output.size + 1))
        for line, (terms, constant, _) in zip(table, rows, strict=True):
            line[list(terms)] = [float(v) for v in terms.values()]
            line[-1] = -float(constant)
        size = np.maximum(np.abs(table).max(1, keepdims=True), TINY)
        apart = [float((np.abs(table - other) / size).max()) if other.shape == table.shape else inf for other in tables]
        if not min(apart) <= ALIKE:
            return None
        order.append(apart.index(min(apart)))
    return order


def proved(
    files: Files,
    problems: Sequence[Problem],
    result: Result,
    budget: Budget = UNLIMITED,
    semantics: str = "real",
    until: float = inf,
) -> tuple[Certificate, dict[str, Any]]:
    """A certificate of the verdict of problems that are one property, and what the checker says that it proves. Raises
    :class:`question.Rejected` where there is none.

    What the result holds is written; what it does not, is found by a search of its own within the ``budget``.
    """
    if result.verdict is Verdict.FALSIFIED:
        assert result.counterexample is not None
        point = counterexample(files, result.counterexample.double().flatten().tolist())
        return point, point.check(until=until)
    if result.verdict is not Verdict.VERIFIED or len(problems) != len(files.parts):
        raise question.Rejected(MISSING)
    records = [part["certificate"] for part in result.stats.get("parts", [{"certificate": result.certificate}])]
    if result.subject != NETWORK:
        drawn = of_draws(files, problems[0], records[0])
        return drawn, drawn.check(until=until)
    margins = by_margins(files, problems, records, semantics)
    if margins is not None:
        with suppress(question.Rejected):
            return margins, margins.check(until=until)
    if not any(records) and (found := at_once(files, semantics, until)) is not None:
        return found
    parts, how = [], set()
    for number, (problem, record) in enumerate(zip(problems, records, strict=True)):
        part = of_search(files, number, problem.spec, record) or plain(files, number, semantics, until)
        if part is None:
            part, by = searched(files, number, problem, budget)
            how.add(by)
        parts.append(part)
    again = {"by": ", ".join(sorted(how))} if how else {}
    for _ in range(len(parts) * ROUNDS):
        certificate = files.certificate("tree", semantics, parts)
        try:
            return certificate, certificate.check(until=until) | again
        except question.Rejected as why:  # what was proved of larger boxes need not be proved of their halves
            if not why.left:
                raise
            number, left = why.left
        if "boxes" in parts[number].arrays:
            parts[number] = halved(files, number, parts[number], left, semantics, until)
        else:
            parts[number] = reopened(files, number, parts[number], left, problems[number], budget)
    certificate = files.certificate("tree", semantics, parts)
    return certificate, certificate.check(until=until) | again


def at_once(files: Files, semantics: str, until: float) -> tuple[Certificate, dict[str, Any]] | None:
    """The proof without any search of a property whose unsafe sets have one row each, so that nothing has to be worked
    out before it is checked; None where there is none."""
    sets = [unsafe for _, _, unsafe in files.parts]
    if any(len(rows) != 1 for unsafe in sets for rows in unsafe):
        return None
    for layers in (kind * len(files.relus) for kind in PLAIN):
        parts = [Part(trees(len(unsafe), [1.0] * len(unsafe)), layers) for unsafe in sets]
        certificate = files.certificate("tree", semantics, parts)
        try:
            return certificate, certificate.check(until=until)
        except question.Rejected as why:
            if not why.left:
                raise
    return None


def searched(files: Files, number: int, problem: Problem, budget: Budget) -> tuple[Part, str]:
    """The proof of a part by a search of its own, and which one: what any method has found is proved so, milp and smt
    too, by splits of ReLUs or of inputs. Raises :class:`question.Rejected` where there is none, and
    :class:`Refuted`."""
    from assay.verify.backends.bab.bab import BaB
    from assay.verify.backends.bab.input_split import InputSplit
    from assay.verify.backends.bab.lp_bab import LPBaB

    methods: list[tuple[Verifier, float]] = [(BaB(proof=True), 0.6), (LPBaB(), 1.0)]
    if len(files.parts[0][0]) <= INPUTS:
        methods = [(InputSplit(proof=True), 0.6), *methods]
    budget, why = running(budget), MISSING
    for method, share in methods:
        again = method.verify(problem, budget.part(share))
        if again.verdict is Verdict.FALSIFIED:
            raise Refuted(f"{method.name} has found a counterexample")
        part = of_search(files, number, problem.spec, again.certificate)
        if part is not None:
            return part, method.name
        if again.reason is Reason.TIMEOUT:
            why = "no proof was found in the time that was left"
    raise question.Rejected(why)


def by_margins(
    files: Files, problems: Sequence[Problem], records: Sequence[Mapping[str, Any] | None], semantics: str
) -> Certificate | None:
    """The certificate of bounds of the rows by Lipschitz constants or quadratic forms, if a method recorded these."""
    kinds = {None if record is None else str(record["kind"]) for record in records}
    kind = kinds.pop()
    if kinds or kind not in norms.MARGINS or semantics != "real":
        return None
    parts = []
    for number, (problem, record) in enumerate(zip(problems, records, strict=True)):
        assert record is not None
        order = _order(files, files.parts[number][2], problem.spec)
        if order is None:
            return None
        rows = torch.cat([(problem.spec.disjunct == d).nonzero().flatten() for d in order]).numpy()
        tables = {name: table.numpy()[rows] for name, table in record.items() if isinstance(table, torch.Tensor)}
        more = {"norms": np.array([record["norms"]])} if "norms" in record else {}
        parts.append(Part({**tables, **more}, []))
    return files.certificate(kind, semantics, parts)


def of_draws(files: Files, problem: Problem, record: Mapping[str, Any] | None) -> Certificate:
    """The certificate of what is said of a smoothed classifier: its draws, and how alpha was handed out to them. Raises
    :class:`question.Rejected` for draws, and theorems, that the checker does not know."""
    from assay.verify.backends.smoothing import deciding, kinds

    if record is None or record["noise"] not in norms.NOISES or record["theorem"] != "cohen":
        raise question.Rejected("noise, or a theorem of smoothing, beyond this checker")
    if record["test"] == "anytime" or problem.network.dtype != torch.float32:
        raise question.Rejected("draws that stop at any time, or are not float32, are beyond this checker")
    shape = tuple(problem.region.centre.shape)
    noise, alpha, counts = (
        kinds.of_rms(record["noise"], record["sigma"], prod(shape)),
        record["alpha"],
        record["counts"],
    )
    sizes = deciding.stages_of(record["most"]) if record["test"] == "staged" else [record["n"]]
    share = alpha / len(sizes) * (1 - 2.0**-50)  # of alpha: all of them come to no more
    ends = np.cumsum(sizes)
    if len(sizes) > 1:  # as many stages as were drawn
        sizes = [size for size, end in zip(sizes, ends, strict=True) if end <= record["n"]]
    claims = {
        "kind": "smoothing",
        "semantics": "real",
        "noise": record["noise"],
        "scale": float(getattr(noise, fields(noise)[0].name)).hex(),  # type: ignore[arg-type]
        "seed": record["seed"],
        "shape": shape,
        "alpha": float(alpha).hex(),
        "ledger": [(size, float(share).hex()) for size in sizes],
        "count": counts[problem.label or 0],
        "pilot": record["pilot"],
    }
    return Certificate.of(claims, {}, files.model, files.prop)


def reopened(files: Files, number: int, part: Part, left: Sequence[int], problem: Problem, budget: Budget) -> Part:
    """Trees of splits with the nodes that are ``left`` to be proved, by their places, searched again within a share of
    the budget, or where that proves nothing, all of them. Raises :class:`question.Rejected` and :class:`Refuted`."""
    from assay.verify.solving.mended import mended  # here: a search takes a second to import

    order, budget = _order(files, files.parts[number][2], problem.spec), running(budget)
    share = budget.part(SHARE)
    crown = all(layer == [None] for layer in part.layers)
    arrays = None if order is None else mended(part.arrays, left, problem, order, share, crown)
    return searched(files, number, problem, budget)[0] if arrays is None else Part(arrays, part.layers)


def of_search(files: Files, number: int, spec: Spec, record: Mapping[str, Any] | None) -> Part | None:
    """The proof of a part by what a search recorded, if it did."""
    kinds = {"bab": of_record, "lp": of_record, "lp-bab": of_record, "input-split": of_boxes}
    kind = None if record is None else kinds.get(record["kind"])
    return None if record is None or kind is None else kind(files, number, spec, record)


def certify(problem: Problem, result: Result, budget: Budget = UNLIMITED, semantics: str = "real") -> Certificate:
    """The certificate of a decided result, accepted by the checker: it is about the network in plain form, its numbers
    rounded to the network's dtype, and the property, which it holds as the files that ``save_with_files`` writes.

    ``semantics``: ``real``, or ``float32-any-order``. Raises :class:`UnsupportedError` where there is none.
    """
    return accepted(problem, result, budget, semantics)[0]


def accepted(
    problem: Problem, result: Result, budget: Budget = UNLIMITED, semantics: str = "real"
) -> tuple[Certificate, dict[str, Any]]:
    """As :func:`certify`, with what the checker says that it proves."""
    check_problem(problem)
    check_type(result, Result, "a Result", "solve(problem) gives one")
    budget = running(budget)
    try:
        files, until = Files.of_problem(problem, result.subject != NETWORK), monotonic() + budget.remaining
        return proved(files, [problem], result, budget, semantics, until)
    except question.Rejected as why:
        raise UnsupportedError(f"no certificate: {why}") from None
    except Refuted as why:
        raise AlarmError(f"a verdict of {result.verifier} is false: {why}") from None


def checked(
    net: Path,
    prop: Path,
    problems: Sequence[Problem],
    result: Result,
    seconds: float,
    semantics: str = "real",
    search: float = inf,
) -> tuple[Result, Certificate | None]:
    """The result, RIGOROUS if a certificate of its being verified was accepted, and the certificate, if there is one.

    ``stats["proof"]`` tells of it: how many leaves and bytes it has, and which search it comes ``by`` where the method
    itself kept none, or why there is none. It is given up after so many ``seconds``, of which a ``search`` may take so
    many; what was verified numerically then stays so, unless the search has found a counterexample.
    """
    began = monotonic()
    try:
        files, budget = Files.of(net.read_bytes(), prop.read_bytes()), Budget(min(search, seconds)).started()
        certificate, report = proved(files, problems, result, budget, semantics, began + seconds)
    except Refuted as why:
        return withdrawn(result, {"alarm": f"a verdict of {result.verifier} is false: {why}"}), None
    except Exception as why:  # whatever stands in the way of a proof takes nothing from the verdict
        told = {"none": str(why) or type(why).__name__}
        return replace(result, stats={**result.stats, "proof": told}), None
    by = {key: report[key] for key in ("by",) if key in report}
    size = {"leaves": report["leaves"], "bytes": len(certificate.content), "seconds": monotonic() - began} | by
    result = replace(result, stats={**result.stats, "proof": size})
    if result.verdict is Verdict.VERIFIED:
        result = replace(result, guarantee=Guarantee.RIGOROUS, semantics=semantics)
    return result, certificate
