"""From two files to an answer in every form in which it is told."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from assay import explanation, witness
from assay.benchmarks.harness.answer import exit_code, limits, read, word
from assay.checks import cores
from assay.verify.registry import get_verifier
from assay.verify.solving import union


@dataclass(frozen=True)
class Clock:
    """When the work began, on the monotonic clock, and the seconds that it may take."""

    began: float
    seconds: float

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds to come, at least 0."""
        return max(0.0, self.seconds - self.spent)


@dataclass(frozen=True)
class Answer:
    """The answer as VNN-COMP's text, as plain data, and as lines for a person."""

    exit_code: int
    text: str
    document: dict[str, Any]
    lines: list[str]


def ask(
    net: Path,
    prop: Path,
    method: str,
    clock: Clock,
    *,
    memory: float,
    seed: int = 0,
    threads: int = 1,
    explain: bool = False,
) -> Answer:
    """The checked answer of ``method`` to the property in ``prop`` about the network in ``net``.

    ``memory``: bytes that the process may hold. Raises what reading the files raises, and :class:`InputError` for a
    method that does not exist; what goes wrong while solving is an answer.
    """
    torch.set_num_threads(min(threads, cores()))
    verifier = get_verifier(method)
    times = {"starting": clock.spent}
    question = read(net, prop)
    times["reading"] = clock.spent - sum(times.values())
    result = union.verify(verifier, question.problems, limits(clock.left, memory, seed, threads))
    times["solving"] = clock.spent - sum(times.values())

    code = exit_code(result)
    text = word(code).value
    if result.counterexample is not None:
        y = witness.outputs(question.problems[0].network, result.counterexample)
        text += "\n" + witness.text(result.counterexample, y)
    lines = [f"warning: {warning}" for warning in question.warnings]
    lines += explanation.brief(question, result, clock.spent)
    lines += explanation.full(question, result, times) if explain else explanation.attempts(question, result)
    return Answer(code, text, explanation.document(question, result, times), lines)
