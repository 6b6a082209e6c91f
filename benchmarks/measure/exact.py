"""Exact methods side by side on the same cases: verdicts, optima that agree, CPU seconds and nodes.

    python -m assay.benchmarks.measure.exact FOLDER [--suites d16,d50] [--methods 'lp-bab,milp(solver=scip)']
        [--samples 20][--seconds 60] [--no-optimum] [--json]

The networks are trained by fixed recipes (``trained.py``) and kept in FOLDER; the cases are the first test
samples that they classify rightly, linf balls clipped to [0, 1]. Each method decides every case (the sign of the least
margin), and, unless ``--no-optimum``, finds the least margin itself where its suite says so; optima must agree to 1e-6
of 1 or of their size. Seconds are CPU seconds of this process, on one thread, and of all that it starts, after one case
that loads the solvers; nodes a second are those of the whole call. The last table is the triangle relaxation inside
HiGHS, one linear program a neuron: where only the cost vector is new, the simplex method goes on from the last basis.
Ends with exit code 70 where two methods contradict each other.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from assay.benchmarks.measure.trained import rightly_classified, trained
from assay.benchmarks.measure.warm import Warm, warm_programs

if TYPE_CHECKING:
    from assay.verify.core.problem import Problem

AGREE = 1e-6
ALARM = 70


@dataclass(frozen=True)
class Suite:
    """``samples`` of the network ``net`` at radius ``eps``, for these methods; those in ``optimum`` find it, too.

    ``pixels``: how many of them may change, to anything, in place of all by ``eps``.
    """

    net: str
    eps: float
    samples: int
    methods: tuple[str, ...]
    optimum: tuple[str, ...] = ()
    pixels: int = 0


SOLVERS = ("highs", "pulp:cbc", "pulp:highs", "cvxpy:HIGHS", "scipy", "scip", "gurobi")
MILP = tuple("milp" if solver == "highs" else f"milp(solver={solver})" for solver in SOLVERS)

SUITES = {
    "d16": Suite("d16", 0.1, 10, ("lp-bab", *MILP, "smt"), ("lp-bab", *MILP, "smt")),
    "d50": Suite("d50", 0.1, 20, ("lp-bab", *MILP), ("lp-bab", *MILP)),
    "d50-wide": Suite("d50", 0.15, 20, ("lp-bab", "milp"), ("lp-bab", "milp")),
    "d50-pixels": Suite("d50", 1.0, 10, ("lp-bab", "milp", "smt"), ("lp-bab", "milp"), pixels=8),
    "f24": Suite("f24", 0.1, 20, ("lp-bab", "milp"), ("lp-bab", "milp")),
    "f100": Suite("f100", 0.05, 10, ("lp-bab", "milp"), ("lp-bab",)),
}


@dataclass(frozen=True)
class Row:
    """One method on one suite: how many cases it decided, what it took (CPU seconds), and for optima the largest
    difference to the first method's, relative to 1 or to their size."""

    suite: str
    method: str
    asked: str
    cases: int
    verified: int
    falsified: int
    unknown: int
    cpu: float
    median: float
    most: float
    nodes: int | None
    nodes_per_second: float | None
    difference: float | None


@dataclass(eq=False)
class Table:
    """What is known of each case, by suite and number, for comparison."""

    decided: dict[tuple[str, int], tuple[str, str]] = field(default_factory=dict)
    optima: dict[tuple[str, int], float] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)

    def verdict(self, suite: str, case: int, method: str, verdict: str) -> None:
        """Note a verdict, and an alarm if it contradicts one."""
        other, before = self.decided.setdefault((suite, case), (method, verdict))
        if before != verdict:
            self.alarms.append(f"{suite} {case}: {other} says {before}, {method} says {verdict}")

    def optimum(self, suite: str, case: int, method: str, value: float) -> float:
        """The difference between an optimum and the first one that was found."""
        known = self.optima.setdefault((suite, case), value)
        difference = abs(value - known) / max(1.0, abs(known))
        if not difference <= AGREE:
            self.alarms.append(f"{suite} {case}: {method} says {value!r}, it was {known!r}")
        return difference


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m assay.benchmarks.measure.exact", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="where the trained networks are kept")
    parser.add_argument("--suites", default=",".join(SUITES), help=f"of {', '.join(SUITES)}")
    parser.add_argument("--methods", default="", help="in place of the suites' own")
    parser.add_argument("--samples", type=int, default=0, help="of each suite, at most")
    parser.add_argument("--seconds", type=float, default=60.0, help="wall-clock limit of a case")
    parser.add_argument("--no-optimum", action="store_true", help="decide the sign only")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(argv)
    names = [name for name in options.suites.split(",") if name]
    if unknown := sorted(set(names) - SUITES.keys()):
        parser.error(f"expected suites among {', '.join(SUITES)}, got {', '.join(unknown)}")
    if options.samples < 0 or not options.seconds > 0:
        parser.error("expected --samples >= 0 and --seconds > 0")
    import torch

    torch.set_num_threads(1)
    table, rows, warm = Table(), list[Row](), list[Warm]()
    for name in names:
        methods = _split(options.methods) or None
        for row in compare(name, table, options.folder, methods, options.samples, options.seconds, options.no_optimum):
            rows.append(row)
            if not options.json:
                _show_row(row, len(rows) == 1)
    for net in dict.fromkeys(SUITES[name].net for name in names):
        for line in warm_programs(net, options.folder):
            warm.append(line)
            if not options.json:
                _show_warm(line, len(warm) == 1)
    if options.json:
        document = {"rows": [asdict(r) for r in rows], "programs": [asdict(w) for w in warm], "alarms": table.alarms}
        print(json.dumps(document, indent=1))
    for alarm in table.alarms:
        print(f"alarm: {alarm}", file=sys.stderr)
    if table.alarms:
        raise SystemExit(ALARM)


def cases(suite: Suite, folder: Path, samples: int) -> list[Problem]:
    """The problems of a suite, at most so many."""
    import torch

    from assay.verify.core.problem import Problem
    from assay.verify.core.region import Box
    from assay.verify.core.spec import Spec

    model = trained(suite.net, folder)
    count = min(samples or suite.samples, suite.samples)
    test = rightly_classified(suite.net, model, count)
    if not suite.pixels:
        return Problem.robustness_many(model, test.x, test.y.tolist(), suite.eps, domain=test.domain)
    made = []
    for i, (x, label) in enumerate(zip(test.x, test.y.tolist(), strict=True)):
        free = torch.randperm(x.numel(), generator=torch.Generator().manual_seed(i))[: suite.pixels]
        lower, upper = x.double().clone(), x.double().clone()
        lower.view(-1)[free] = test.domain[0]
        upper.view(-1)[free] = test.domain[1]
        plain = Problem.robustness(model, x, label, 0.0, domain=test.domain)
        made.append(Problem(plain.network, Box(lower, upper), Spec.robust(label, test.classes)))
    return made


def compare(
    name: str, table: Table, folder: Path, methods: Sequence[str] | None, samples: int, seconds: float, sign_only: bool
) -> Iterator[Row]:
    """The rows of one suite; methods that are not there, or lack their solver, are left out with a word on stderr."""
    suite = SUITES[name]
    problems = cases(suite, folder, samples)
    for asked, default in (("sign", suite.methods), ("optimum", () if sign_only else suite.optimum)):
        for method in methods if methods and default else default:
            text = method if asked == "sign" else _with_optimum(method)
            if (why := _absent(text, problems[0])) is not None:
                print(f"{name}: {text} is left out: {why}", file=sys.stderr)
                continue
            yield measure(name, text, asked, problems, table, seconds)


def measure(name: str, method: str, asked: str, problems: list[Problem], table: Table, seconds: float) -> Row:
    """One method on the cases of a suite."""
    from assay.verify.core.budget import Budget
    from assay.verify.core.result import Verdict
    from assay.verify.registry import get_verifier

    verifier = get_verifier(method)
    verifier.verify(problems[0], Budget(seconds=min(seconds, 5.0)))  # loads what it needs
    counts, spent, nodes, difference = dict.fromkeys(Verdict, 0), [], [], None
    for case, problem in enumerate(problems):
        begun = cpu_seconds()
        result = verifier.verify(problem, Budget(seconds=seconds))
        spent.append(cpu_seconds() - begun)
        counts[result.verdict] += 1
        nodes.append(result.stats.get("nodes"))
        if result.verdict is not Verdict.UNKNOWN:
            table.verdict(name, case, method, result.verdict)
        if "optimum" in result.stats:
            difference = max(difference or 0.0, table.optimum(name, case, method, result.stats["optimum"]))
    total = sum(spent)
    known = [n for n in nodes if n is not None]
    return Row(
        suite=name,
        method=method,
        asked=asked,
        cases=len(problems),
        verified=counts[Verdict.VERIFIED],
        falsified=counts[Verdict.FALSIFIED],
        unknown=counts[Verdict.UNKNOWN],
        cpu=round(total, 4),
        median=round(median(spent), 4),
        most=round(max(spent), 4),
        nodes=sum(known) if known else None,
        nodes_per_second=round(sum(known) / total) if known and total else None,
        difference=difference,
    )


def cpu_seconds() -> float:
    """Of this process, of those it started that have ended, and, on Linux, of those that live."""
    import resource

    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(map(_cpu_of, _children(os.getpid())))


def _children(process: int) -> list[str]:
    lists = Path(f"/proc/{process}/task").glob("*/children")
    return [child for path in lists for child in path.read_text().split()]


def _cpu_of(process: str) -> float:
    """CPU seconds of a living process, of its own and of its children that have ended."""
    try:
        numbers = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, numbers[11:15])) / os.sysconf("SC_CLK_TCK")


def _with_optimum(method: str) -> str:
    return f"{method[:-1]},optimum=True)" if method.endswith(")") else f"{method}(optimum=True)"


def _split(methods: str) -> list[str]:
    """A list in which commas within brackets separate nothing."""
    from assay.verify.support.options import split

    return split(methods)


def _absent(method: str, problem: Problem) -> str | None:
    from assay.verify.core.errors import AssayError
    from assay.verify.registry import get_verifier

    try:
        return get_verifier(method).supports(problem)
    except AssayError as error:
        return str(error)


def _show_row(row: Row, first: bool) -> None:
    if first:
        print(f"{'suite':11}{'asked':9}{'method':40}{'ver':>4}{'fal':>4}{'unk':>4}", end="")
        print(f"{'cpu':>9}{'median':>9}{'most':>9}{'nodes':>8}{'nodes/s':>9}{'difference':>12}")
    print(f"{row.suite:11}{row.asked:9}{row.method:40}{row.verified:4}{row.falsified:4}{row.unknown:4}", end="")
    print(f"{row.cpu:9.2f}{row.median:9.3f}{row.most:9.3f}{_or_dash(row.nodes):>8}", end="")
    print(f"{_or_dash(row.nodes_per_second):>9}", end="")
    print(f"{'-' if row.difference is None else f'{row.difference:.1e}':>12}", flush=True)


def _show_warm(line: Warm, first: bool) -> None:
    if first:
        print(f"\n{'net':6}{'model':10}{'columns':>8}{'rows':>7}{'nonzeros':>10}{'programs':>10}", end="")
        print(f"{'first ms':>10}{'warm ms':>9}{'proof ms':>10}")
    print(f"{line.net:6}{line.model:10}{line.columns:8}{line.rows:7}{line.nonzeros:10}{line.programs:10}", end="")
    print(f"{line.cold_ms:10.2f}{line.warm_ms:9.2f}{line.proof_ms:10.2f}", flush=True)


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


if __name__ == "__main__":
    main()
