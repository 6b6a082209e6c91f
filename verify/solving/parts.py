"""A certificate written part by part: the files that it speaks of, and the proof of each box of the property by what a
method has recorded: trees of splits or of boxes, Lipschitz constants, multipliers of quadratic forms, draws."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from math import inf, prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from assay.verify.check import bounds, norms, question
from assay.verify.check.certificate import Certificate
from assay.verify.core.problem import Problem
from assay.verify.core.region import LpBall
from assay.verify.core.spec import Spec
from assay.verify.programs.hints import differences, tree

Array = NDArray[Any]

ALIKE = 1e-8  # relative difference, at most, of rows that are the same, rounded in two ways
TINY = 1e-300


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

    @property
    def fuller(self) -> Part | None:
        """The same with both bounds of every neuron, as a search has them, before those by slopes of its own; None
        where there are already."""
        if not any(bounds.SIGNS in some for some in self.layers):
            return None
        return Part(self.arrays, [[None, *(name for name in some if name != bounds.SIGNS)] for some in self.layers])


def counterexample(files: Files, point: Sequence[float]) -> Certificate:
    """The certificate of a point of the region of which the output is unsafe."""
    claims = {"kind": "counterexample", "semantics": "real", "point": [float(v).hex() for v in point]}
    return Certificate.of(claims, {}, files.model, files.prop)


def trees(count: int, weights: Sequence[float]) -> dict[str, Array]:
    """Trees without splits, as many as there are unsafe sets, with the ``weights`` of the rows of these."""
    codes, none = np.full(count, -1), np.zeros((count, 0), np.uint8)
    listed = {"listed": np.zeros(0, np.int32)}
    return listed | tree(codes, none, np.zeros(0, np.float16), np.array(weights, np.float16))


def of_search(files: Files, number: int, spec: Spec, record: Mapping[str, Any] | None) -> Part | None:
    """The proof of a part by what a search recorded, if it did."""
    kinds = {"bab": of_record, "lp": of_record, "lp-bab": of_record, "input-split": of_boxes}
    kind = None if record is None else kinds.get(record["kind"])
    return None if record is None or kind is None else kind(files, number, spec, record)


def of_record(files: Files, number: int, spec: Spec, record: Mapping[str, Any]) -> Part | None:
    """The proof of a part by the trees of a search on the phases of its ReLUs: what
    :meth:`assay.verify.backends.bab.neurons.record.Record.document` tells. None where the layers are not those of the
    model."""
    _, _, unsafe = files.parts[number]
    order = order_of(files, unsafe, spec)
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
    layers: list[list[str | None]] = [[bounds.SIGNS] for _ in files.relus]
    for relu, rows in record["layers"].items():
        layers[int(relu)] = [f"layer{relu}", bounds.SIGNS]
        arrays |= {f"layer{relu}/{name}": rows[name].numpy() for name in ("neurons", "slopes")}
    finer = {f"finer/{name}": array.numpy() for name, array in record["finer"].items()}
    if finer:
        finer["finer/weights"] = np.zeros(0, np.float16)
        finer["finer/slopes"] = differences(finer["finer/slopes"])
    return Part({**arrays, **finer}, layers)


def of_boxes(files: Files, number: int, spec: Spec, record: Mapping[str, Any]) -> Part | None:
    """The proof of a part by the tree of a search on boxes: what
    :meth:`assay.verify.backends.bab.inputs.input_record.InputRecord.document` tells. None where its layers are
    others."""
    _, _, unsafe = files.parts[number]
    order = order_of(files, unsafe, spec)
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
        order = order_of(files, files.parts[number][2], problem.spec)
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


def order_of(files: Files, unsafe: Sequence[Sequence[Any]], spec: Spec) -> list[int] | None:
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
