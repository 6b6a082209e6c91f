"""Certificates for verified properties: slopes and splits that a search has found, written as the checker reads them.

The cheapest proof that the checker accepts is taken: by what a method recorded (Lipschitz constants, multipliers of
quadratic forms, trees of a search on splits or on boxes, whose leaves that are not proved so are searched again or
halved), by intervals, by linear bounds on lines of slopes 0 or 1, and by searches of its own. What is said of a
smoothed classifier is proved by draws that are made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from assay.verify.check import bounds, question
from assay.verify.check.certificate import Certificate
from assay.verify.check.replay import withdrawn
from assay.verify.core.budget import UNLIMITED, Budget, running
from assay.verify.core.errors import AlarmError, UnsupportedError, check_type
from assay.verify.core.problem import Problem, check_problem
from assay.verify.core.result import NETWORK, Guarantee, Reason, Result, Verdict
from assay.verify.core.verifier import Verifier
from assay.verify.solving.halved import halved
from assay.verify.solving.parts import (
    Files,
    Part,
    by_margins,
    counterexample,
    of_draws,
    of_search,
    order_of,
    trees,
)

INPUTS = 8  # networks of so many inputs at most are proved by halving these
MISSING = "no proof was found that could be written"
HALVES = "it was proved by halves of the region, and there is less time than that took to find another proof"
ROUNDS, SHARE = 3, 0.25  # how often a part is mended, and what of the time that is left a search for that may take


class Refuted(Exception):
    """What was said to be verified has a counterexample."""


# What bounds the layers, from the cheapest on: intervals, and linear bounds besides, by few rows or by all.
PLAIN: tuple[list[list[str | None]], ...] = ([], [[bounds.SIGNS]], [[None]])


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
    if _by_halves(result) and until - monotonic() < result.seconds:
        raise question.Rejected(HALVES)
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
    for _ in range(len(parts) * (ROUNDS + 1)):
        certificate = files.certificate("tree", semantics, parts)
        try:
            return certificate, certificate.check(until=until) | again
        except question.Rejected as why:  # what was proved of larger boxes need not be proved of their halves
            if not why.left:
                raise
            number, left = why.left
        if fuller := parts[number].fuller:
            parts[number] = fuller
        elif "boxes" in parts[number].arrays:
            parts[number] = halved(files, number, parts[number], left, semantics, until)
        else:
            parts[number] = reopened(files, number, parts[number], left, problems[number], budget)
    certificate = files.certificate("tree", semantics, parts)
    return certificate, certificate.check(until=until) | again


def _by_halves(result: Result) -> bool:
    """Whether halves of the region have decided some part, whose bounds no certificate holds."""
    return any(part["stats"].get("boxes") for part in result.stats.get("parts", [{"stats": result.stats}]))


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


def plain(files: Files, number: int, semantics: str = "real", until: float = inf) -> Part | None:
    """The proof of a part without any search, if there is one: trees that are one leaf each. Raises
    :class:`question.Rejected` where that takes longer than ``until``, on the monotonic clock."""
    low, high, unsafe = files.parts[number]
    rows, sets = question.numbered(unsafe)
    arithmetic = bounds.Floats(until)
    least = files.least(arithmetic)
    for layers in (kind * len(files.relus) for kind in PLAIN):
        with np.errstate(all="ignore"):
            net = bounds.Bounder(
                files.network, rows, [low], [high], semantics, layers=layers, ar=arithmetic, least=least
            )
            bound = net.alone()[0]
        if all(len(some) and max(bound[some]) > 0 for some in sets):
            weights = [float(r == max(some, key=bound.__getitem__)) for some in sets for r in some]
            return Part(trees(len(sets), weights), layers)
    return None


def searched(files: Files, number: int, problem: Problem, budget: Budget) -> tuple[Part, str]:
    """The proof of a part by a search of its own, and which one: what any method has found is proved so, milp and smt
    too, by splits of ReLUs or of inputs. Raises :class:`question.Rejected` where there is none, and
    :class:`Refuted`."""
    from assay.verify.backends.bab.inputs.input_split import InputSplit
    from assay.verify.backends.bab.neurons.bab import BaB
    from assay.verify.backends.bab.programs.lp_bab import LPBaB

    methods: list[tuple[Verifier, float]] = [(BaB(proof=True), 0.6), (LPBaB(), 1.0)]
    if len(files.parts[0][0]) <= INPUTS:
        methods = [(InputSplit(merge=False, proof=True), 0.6), *methods]
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


def reopened(files: Files, number: int, part: Part, left: Sequence[int], problem: Problem, budget: Budget) -> Part:
    """Trees of splits with the nodes that are ``left`` to be proved, by their places, searched again within a share of
    the budget, or where that proves nothing, all of them. Raises :class:`question.Rejected` and :class:`Refuted`."""
    from assay.verify.solving.mended import mended  # here: a search takes a second to import

    order, budget = order_of(files, files.parts[number][2], problem.spec), running(budget)
    share = budget.part(SHARE)
    crown = not any(set(layer) - {None, bounds.SIGNS} for layer in part.layers)
    arrays = None if order is None else mended(part.arrays, left, problem, order, share, crown)
    return searched(files, number, problem, budget)[0] if arrays is None else Part(arrays, part.layers)


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
