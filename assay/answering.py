"""From two files to an answer in every form in which it is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from assay import explanation, options, witness
from assay.benchmarks.harness.answer import Question, exit_code, limits, read, word
from assay.checks import cores
from assay.verify.core.result import Reason, Result
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


# What can be told before the work is back, once it is said why it is told then.
Draft = Callable[[Reason], Answer]


def unheard(draft: Draft) -> None:
    """Where nobody waits for drafts."""


def ask(
    net: Path,
    prop: Path,
    method: str,
    clock: Clock,
    *,
    memory: float,
    seed: int = 0,
    threads: int = 1,
    device: str = "cpu",
    explain: bool = False,
    networks: Mapping[str, Path] = MappingProxyType({}),
    outputs: Sequence[str] = (),
    draft: Callable[[Draft], None] = unheard,
) -> Answer:
    """The checked answer of ``method`` to the property in ``prop`` about the network in ``net``.

    ``networks`` and ``outputs``: as :meth:`Problem.from_files` has them; ``memory``: bytes that the process may hold;
    ``draft`` hears of the answer so far after each stage of the work.
    Raises what reading the files raises, and :class:`InputError` for a method that does not exist; what goes wrong
    while solving is an answer.
    """
    torch.set_num_threads(min(threads, cores()))
    verifier = options.method(method)
    times = {"starting": clock.spent}
    question = read(net, prop, networks, outputs)
    times["reading"] = clock.spent - sum(times.values())

    def spent() -> dict[str, float]:
        return times | {"solving": clock.spent - sum(times.values())}

    def heard(result: Result) -> None:
        def written(why: Reason) -> Answer:
            said = _cut_short(result, why)
            return _told(question, said, spent(), explanation.attempts(question, said, seconds=0.0))

        draft(written)

    result = union.verify(verifier, question.problems, limits(clock.left, memory, seed, threads, device), heard)
    took = spent()
    more = explanation.full(question, result, took) if explain else explanation.attempts(question, result)
    return _told(question, result, took, more)


def _cut_short(result: Result, why: Reason) -> Result:
    """A result that nothing can be added to any more; one that is decided is what it is."""
    return result if result.reason is None else replace(result, reason=why)


def _told(question: Question, result: Result, times: dict[str, float], more: list[str]) -> Answer:
    """The answer in all its forms; ``more``: lines after what is always told."""
    code = exit_code(result)
    text = word(code).value
    if result.counterexample is not None:
        network, x = question.problems[0].network, result.counterexample
        text += "\n" + witness.text(witness.inputs(network, x), witness.outputs(network, x))
    lines = [f"warning: {warning}" for warning in question.warnings]
    lines += explanation.brief(question, result, sum(times.values()))
    return Answer(code, text, explanation.document(question, result, times), lines + more)
