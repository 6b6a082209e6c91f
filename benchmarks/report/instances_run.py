"""A run over instances, kept in its store with the peers beside it, and read back from there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from assay.benchmarks.harness.answer import Word, exit_code, reason, word
from assay.benchmarks.harness.instances import Instance
from assay.benchmarks.harness.records.described import INSTANCES
from assay.benchmarks.harness.records.origin import machine, source_hash, versions
from assay.benchmarks.harness.records.store import Record, Store
from assay.benchmarks.harness.suite import Limits, Outcome, Row
from assay.benchmarks.report.competition import Peers, Standing
from assay.verify.core.errors import InputError
from assay.verify.core.result import Result
from assay.verify.support.documents import finite
from assay.verify.support.plain import plain

UNFINISHED = (
    "The run did not come to its end, or was made before runs were described: instances without a record are not "
    "listed, and neither the expected verdicts nor the peers are known."
)


@dataclass(frozen=True, eq=False)
class Run:
    """What was run, and of each row the result in the store, None where there is none.

    ``settings``: name and value; ``unknown``: what a reader may miss, and why.
    """

    method: str
    command: str
    started: str
    outcome: Outcome
    peers: Peers
    results: tuple[Result | None, ...]
    settings: tuple[tuple[str, str], ...]
    unknown: tuple[str, ...]
    faults: tuple[str, ...]


def keep(store: Store, method: str, limits: Limits, outcome: Outcome, peers: Peers) -> None:
    """Write the rows, and whom they stand beside, into the store; results are there already."""
    places = store.noted.enrolled()
    document = {
        "method": method,
        "seed": limits.seed,
        "workers": limits.workers,
        "memory": limits.memory,
        "rows": [
            {
                **row.to_json(),
                "exit_code": row.exit_code,
                "limit": row.instance.seconds,
                "folder": str(row.instance.folder),
                "problem": places.get(row.instance.place, ""),
            }
            for row in outcome.rows
        ],
        "contradictions": list(outcome.contradictions),
        "resumed": outcome.resumed,
        "seconds": outcome.seconds,
        "standings": [asdict(standing) for standing in peers.standings],
        "peer_seconds": {
            tool: [[*name, spent] for name, spent in by.items()] for tool, by in (peers.seconds or {}).items()
        },
        "versions": versions(),
        "source": source_hash(),
        "machine": machine(),
    }
    store.noted.describe(store.run, INSTANCES, json.dumps(finite(document), allow_nan=False))


def read(store: Store, run: int | None = None) -> Run:
    """The run of that number, or the last one over instances.

    Raises :class:`InputError` where there is none.
    """
    noted = {number: text for number, (form, text) in store.noted.described().items() if form == INSTANCES}
    chosen = run if run is not None else max(noted, default=None)
    records, faults = store.read()
    runs = dict(enumerate(store.runs(), 1))
    if chosen is not None and chosen in noted:
        try:
            return _described(json.loads(noted[chosen]), runs[chosen], records, faults)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{store.path}: run {chosen} cannot be read ({type(error).__name__}: {error}); it was written by "
                f"another version of assay, or damaged"
            ) from None
    if run is not None:
        raise InputError(f"{store.path} has no run {run} over instances that came to its end")
    return _undescribed(store, runs, records, faults)


def _described(
    told: Mapping[str, Any], noted: Mapping[str, str], records: Sequence[Record], faults: Sequence[str]
) -> Run:
    by = {r.key.problem: r.result for r in records if r.key.source == told["source"] and r.key.seed == told["seed"]}
    rows, results = [], []
    for entry in told["rows"]:
        place = (entry["benchmark"], entry["onnx"], entry["vnnlib"], float(entry["limit"]), Path(entry["folder"]))
        said = (Word(entry["verdict"]), int(entry["exit_code"]), float(entry["seconds"]))
        rows.append(Row(Instance(*place), *said, str(entry["reason"]), entry["expected"]))
        results.append(by.get(entry["problem"]))
    seconds = {
        str(tool): {(name[0], name[1], name[2]): float(name[3]) for name in every}
        for tool, every in told["peer_seconds"].items()
    }
    peers = Peers(tuple(Standing(**standing) for standing in told["standings"]), seconds)
    memory = float(told["memory"])
    settings = [
        ("started", noted["started"]),
        ("seconds of the whole run", f"{told['seconds']:.1f}"),
        ("method", str(told["method"])),
        ("seed", str(told["seed"])),
        ("processes", str(told["workers"])),
        ("memory of each", "no limit" if memory == inf else f"{memory / 2**30:g} GiB"),
        ("rows from an earlier run", str(told["resumed"])),
        ("sources of assay (SHA-256)", str(told["source"])),
        *((name, str(value)) for name, value in {**told["versions"], **told["machine"]}.items()),
    ]
    outcome = Outcome(tuple(rows), tuple(told["contradictions"]), int(told["resumed"]), float(told["seconds"]))
    named = (str(told["method"]), noted["command"], noted["started"])
    return Run(*named, outcome, peers, tuple(results), tuple(settings), (), tuple(faults))


def _undescribed(
    store: Store, runs: Mapping[int, Mapping[str, str]], records: Sequence[Record], faults: Sequence[str]
) -> Run:
    """The records of the instances that the store knows by name, of a run that did not come to its end or is older."""
    by: dict[str, Record] = {record.key.problem: record for record in records}
    rows, results = [], []
    for (folder, onnx, vnnlib), problem in sorted(store.noted.enrolled().items()):
        if problem in by:
            result = by[problem].result
            instance = Instance(Path(folder).name, onnx, vnnlib, by[problem].budget or 0.0, Path(folder))
            code = exit_code(result)
            rows.append(Row(instance, word(code), code, result.seconds, plain(reason(result))))
            results.append(result)
    if not rows:
        raise InputError(f"{store.path} has no run over instances in it: expected a store that assay bench wrote")
    of = runs[max(runs)] if runs else {}
    outcome = Outcome(tuple(rows), (), 0, sum(row.seconds for row in rows))
    settings = (("started", of.get("started", "")), ("method", of.get("model", "")))
    named = (of.get("model", ""), of.get("command", ""), of.get("started", ""))
    return Run(*named, outcome, Peers(), tuple(results), settings, (UNFINISHED,), tuple(faults))
