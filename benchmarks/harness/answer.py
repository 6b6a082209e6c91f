"""One instance as VNN-COMP poses it, a network file and a property file, and its answer in one word."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from assay.verify.core.budget import Budget
from assay.verify.core.problem import Problem
from assay.verify.core.result import NETWORK, Reason, Result, Verdict
from assay.verify.core.verifier import Verifier
from assay.verify.registry import get_verifier
from assay.verify.solving import union
from assay.verify.support.failures import explained

if TYPE_CHECKING:
    from assay.verify.check.certificate import Certificate


class Word(StrEnum):
    """The first line of an answer; the property states what is to be avoided, so sat means falsified."""

    SAT = "sat"
    UNSAT = "unsat"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"
    ERROR = "error"


WORDS = {0: Word.UNSAT, 10: Word.SAT, 20: Word.UNKNOWN, 30: Word.TIMEOUT}
UNDECIDED = {Reason.TIMEOUT: 30, Reason.UNSUPPORTED: 50, Reason.MEMORY: 60}
ALARM = 70


@dataclass(frozen=True, eq=False)
class Question:
    """The problems whose union is the property, and what reading the files left to say, one line each."""

    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]


def read(
    net: Path,
    prop: Path,
    networks: Mapping[str, Path] = MappingProxyType({}),
    outputs: Sequence[str] = (),
) -> Question:
    """The question in two files, each plain or as NAME.gz, and in those of further ``networks``, by name, about the
    ``outputs`` of these names. Raises what :meth:`Problem.from_files` does."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        problems = Problem.from_files(net, prop, networks, outputs)
    return Question(tuple(problems), tuple(dict.fromkeys(str(each.message) for each in caught)))


CHECKING = 2.0  # seconds that a search for a proof may take, or as long as the verdict took, where that is longer
CHECKED = 15.0  # so many times that, but for the time that there is, all of a check may take
RESERVE = 0.5  # seconds that are left after checking
ELSEWHERE = ("milp", "smt")  # exact methods whose verdicts are proved by another's search, in all of the time
RECORDERS = (
    "auto",
    "bab",
    "input-split",
    "lipsdp",
    "lp",
    "lp-bab",
    "sdp",
)  # methods that keep what proves a verdict where they are told to


def decided(
    verifier: Verifier,
    question: Question,
    net: Path,
    prop: Path,
    budget: Budget,
    report: Callable[[Result], None] | None = None,
    semantics: str = "real",
) -> tuple[Result, Certificate | None]:
    """The answer to the question in two files, with a certificate that proves it once it was accepted."""
    budget = budget.started()
    recording: Any = verifier
    if verifier.name in RECORDERS:
        recording = replace(recording, proof=True)
    told = union.verify(recording, question.problems, budget, report)
    result = replace(told, verifier=repr(verifier))
    if result.reason is not None or result.subject != NETWORK:
        return result, None
    if report is not None:
        report(result)
    search = max(CHECKING, result.seconds)
    seconds = min(CHECKED * search, budget.remaining - RESERVE)
    if verifier.name in ELSEWHERE:
        search = seconds = budget.remaining - RESERVE
    if seconds <= 0:
        return result, None
    from assay.verify.solving import proofs

    return proofs.checked(unzipped(net), unzipped(prop), question.problems, result, seconds, semantics, search)


def unzipped(path: Path) -> Path:
    """The file, or the same name with ``.gz``."""
    return path if path.exists() else path.with_name(f"{path.name}.gz")


@dataclass(frozen=True)
class Request:
    """An instance to be solved within ``seconds``, by the method written as ``method``; ``memory`` in bytes; ``check``:
    verdicts by their certificates."""

    net: Path
    prop: Path
    method: str
    seconds: float
    seed: int = 0
    memory: float = inf
    check: bool = True


@dataclass(frozen=True)
class Reply:
    """The result as JSON, or the ``error`` that stood in the way with its exit code; what is left to say beside it."""

    result: str = ""
    error: str = ""
    exit_code: int = 0
    warnings: tuple[str, ...] = ()


def answer(_: None, request: Request) -> Reply:
    """Read, solve and check one instance on one thread, on no common ground; every failure is a reply too."""
    torch.set_num_threads(1)
    budget = limits(request.seconds, request.memory, request.seed).started()
    try:
        question = read(request.net, request.prop)
        verifier = get_verifier(request.method)
        if request.check:
            result, _certificate = decided(verifier, question, request.net, request.prop, budget)
            result = replace(result, certificate=None)
        else:
            result = union.verify(verifier, question.problems, budget)
        return Reply(result.to_json(), warnings=question.warnings)
    except Exception as error:
        failure = explained(error)
        return Reply(error=str(failure), exit_code=failure.exit_code)


def limits(seconds: float, memory: float = inf, seed: int = 0, threads: int = 1, device: str = "cpu") -> Budget:
    """A budget whose buffers take half of ``memory`` (bytes of the whole process), or less."""
    return Budget(seconds, memory=int(min(Budget.memory, memory / 2)), seed=seed, threads=threads, device=device)


def exit_code(result: Result) -> int:
    """0 verified, 10 falsified; an open answer ends as an alarm, as the failure that it records, or by its reason."""
    if result.verdict is Verdict.VERIFIED:
        return 0
    if result.verdict is Verdict.FALSIFIED:
        return 10
    if "alarm" in result.stats:
        return ALARM
    return int(result.stats.get("exit_code", UNDECIDED.get(result.reason or Reason.INCOMPLETE, 20)))


def word(code: int) -> Word:
    """The word that goes with an exit code; every failure is an error."""
    return WORDS.get(code, Word.ERROR)


def reason(result: Result) -> str:
    """Why the answer is open, in one line; empty for a decided one."""
    if result.reason is None:
        return ""
    if "alarm" in result.stats:
        return f"soundness alarm: {result.stats['alarm']}"
    why = result.stats.get("explanation") or shortfall(result)
    return f"{result.reason.value}: {why}" if why else result.reason.value


def shortfall(result: Result) -> str:
    """How far the best bound of the margin is from deciding an open answer; empty where there is no bound."""
    if result.reason is None or result.margin is None:
        return ""
    return f"the best bound of the margin is {result.margin:g}, which falls short of 0 by {0.0 - result.margin:g}"
