"""From two files to an answer in every form in which it is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from assay import explanation, options, witness
from assay.benchmarks.harness.answer import Question, decided, exit_code, limits, read, unzipped, word
from assay.checks import cores
from assay.verify.core.errors import InputError
from assay.verify.core.result import Reason, Result
from assay.verify.solving import union
from assay.verify.support.files import replace_file

if TYPE_CHECKING:
    from assay.verify.check.certificate import Certificate


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
    result: Result
    question: Question
    certificate: Certificate | None = None


# What can be told before the work is back, once it is said why it is told then.
Draft = Callable[[Reason], Answer]


def unheard(draft: Draft) -> None:
    """Drafts are dropped."""


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
    check: bool = True,
    semantics: str = "real",
) -> Answer:
    """The checked answer of ``method`` to the property in ``prop`` about the network in ``net``.

    ``networks`` and ``outputs``: as :meth:`Problem.from_files` has them; ``memory``: bytes that the process may hold;
    ``draft`` hears of the answer so far after each stage of the work; ``check``: a decided answer by its certificate,
    under these ``semantics``.
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

    budget, certificate = limits(clock.left, memory, seed, threads, device), None
    if check and not networks and not outputs:
        result, certificate = decided(verifier, question, net, prop, budget, heard, semantics)
    else:
        result = union.verify(verifier, question.problems, budget, heard)
    took = spent()
    more = explanation.full(question, result, took) if explain else explanation.attempts(question, result)
    return replace(_told(question, result, took, more), certificate=certificate)


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
    return Answer(code, text, explanation.document(question, result, times), lines + more, result, question)


@dataclass(frozen=True)
class Asked:
    """The file of a property; of one that was told in ``words``, a file made for it, and ``lines`` that show it."""

    prop: Path
    words: str = ""
    lines: tuple[str, ...] = ()
    folder: TemporaryDirectory[str] | None = None

    def close(self) -> None:
        """The file that was made for it goes."""
        if self.folder is not None:
            self.folder.cleanup()


def asked(net: Path, prop: Path | None, inputs: str | None, require: str | None, save: Path | None) -> Asked:
    """The property in a file, or in words. Raises :class:`InputError` for neither, both, or what cannot be read."""
    if prop is not None:
        if inputs or require or save:
            raise InputError("a property is a file, or --input and --require: both were given")
        return Asked(prop)
    if not (inputs and require):
        raise InputError("expected a property: a VNN-LIB file, or --input and --require")
    from assay.verify.core import requirement
    from assay.verify.frontends.labels import Labelled
    from assay.verify.frontends.onnx import read_onnx

    network = read_onnx(net)
    lower, upper = requirement.box(inputs, network.nodes[0].size)
    outputs = 1 if isinstance(network.oracle, Labelled) else network.output_size  # a label is one number
    cases = requirement.unsafe(require, outputs)
    text = requirement.written(lower, upper, cases, outputs)
    folder = None if save else TemporaryDirectory(prefix="assay-")
    path = save or Path(folder.name if folder else "") / "property.vnnlib"
    replace_file(path, text.encode())
    told = f"unsafe outputs: {requirement.shown(cases)}".splitlines()
    return Asked(path, f"{inputs}; {require}", tuple(told), folder)


def kept(answer: Answer, path: Path | None, evidence: Path | None) -> list[str]:
    """The certificate written to a file, if one is asked for, and a line that tells of it, or why there is none."""
    if answer.certificate is None and (path or evidence):
        return [f"no certificate: {answer.result.stats.get('proof', {}).get('none', 'the question is open')}"]
    if answer.certificate is None or path is None:
        return []
    answer.certificate.save(path)
    return [f"certificate of {len(answer.certificate.content)} bytes in {path}"]


def keep_evidence(folder: Path, answer: Answer, net: Path, told: Asked, clock: Clock, seed: int) -> None:
    """The folder of evidence of an answer."""
    from assay import evidence

    files = {"model": unzipped(net), "property": unzipped(told.prop)}
    problems, times = answer.question.problems, {"all": clock.spent}
    words, command = told.words, evidence.command_line()
    evidence.write(
        folder, answer.certificate, answer.result, problems, files, command, seed, times, answer.lines, words
    )
