"""``assay verify``: one network, one property, one answer in the words of VNN-COMP."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from assay import options
from assay.checks import at_least_one, positive, seed_in_range, writable_file
from assay.verify.core.errors import InputError, ResourceError
from assay.verify.support.imports import swift_imports
from assay.verify.support.plain import plain
from assay.verify.support.signals import interruptible

if TYPE_CHECKING:
    from assay.answering import Draft

SEMANTICS = ("real", "float32-any-order")
GRACE = 1.0  # seconds beyond the timeout after which what does not come back is left behind


def verify(
    net: Annotated[Path, typer.Argument(metavar="NET", help="ONNX file, plain or gzipped.")],
    prop: Annotated[
        Path | None, typer.Argument(metavar="[PROP]", help="VNN-LIB file, plain or gzipped; or say --require.")
    ] = None,
    method: Annotated[str, typer.Option(help="Method, with options as in 'crown(dtype=float32)'.")] = "auto",
    timeout: options.Timeout = inf,
    results: Annotated[Path | None, typer.Option(help="File for the answer, besides stdout.")] = None,
    seed: options.Seed = 0,
    threads: Annotated[int, typer.Option(help="Threads; more than one rarely pays.")] = 1,
    device: options.Device = "cpu",
    memory: options.Memory = inf,
    json_: options.Json = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say on stderr what was tried and what it gave.")] = False,
    network: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="File of another network that PROP declares.")
    ] = None,
    output: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Output of NET that PROP speaks of; several are joined.")
    ] = None,
    input_: Annotated[
        str | None, typer.Option("--input", help="Box of inputs in place of PROP, as in '0 <= x <= 1 and x[2] <= 0.5'.")
    ] = None,
    require: Annotated[
        str | None, typer.Option(help="What outputs must meet in place of PROP, as in 'y[0] < 0.5 and y[1] > y[2]'.")
    ] = None,
    save_property: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what --input and --require say as a VNN-LIB file.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the certificate of the answer, for 'assay check'.")
    ] = None,
    evidence: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write certificate, checker, report and log for an auditor.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Have the answer's certificate accepted, or keep it numerical.")
    ] = True,
    semantics: Annotated[
        str, typer.Option(help="What certificates speak of: 'real', or 'float32-any-order', inference as it runs.")
    ] = "real",
) -> int:
    """Say whether a property has counterexamples: sat, with one of them, unsat, unknown or timeout."""
    began = time.monotonic()
    sink = Output(results, json_)
    with interruptible():
        with sink.failing():
            positive("--timeout", timeout, "seconds")
            positive("--memory", memory, "GiB")
            at_least_one("--threads", threads)
            seed_in_range(seed)
            writable_file("--results", results)
            writable_file("--certificate", certificate)
            writable_file("--save-property", save_property)
            if not net.exists() and net.suffix != ".onnx" and (net.suffix == ".py" or ":" in net.name):
                raise InputError(f"expected an ONNX file: 'assay export {net} FILE.onnx' makes one of a model")
            if semantics not in SEMANTICS:
                raise InputError(f"--semantics must be one of {', '.join(SEMANTICS)}, got {semantics!r}")
            if not check and (certificate or evidence):
                raise InputError("--no-check leaves no certificate to write")

            from assay.watchdog import Watchdog

            size = memory * 2**30
            with Watchdog(began + timeout + GRACE, size, sink.last_words), redirect_stdout(sys.stderr):
                options.foresee(method)
                with swift_imports():
                    from assay import answering
                if evidence is not None:  # before the work, not after it
                    from assay.evidence import room

                    room(evidence)
                clock = answering.Clock(began, timeout)
                asked = answering.asked(net, prop, input_, require, save_property)
                answer = answering.ask(
                    net,
                    asked.prop,
                    method,
                    clock,
                    memory=size,
                    seed=seed,
                    threads=threads,
                    device=device,
                    explain=explain,
                    networks=further(network or ()),
                    outputs=output or (),
                    draft=sink.drafts.append,
                    check=check,
                    semantics=semantics,
                )
                with knowing(answer.text):
                    lines = [*asked.lines, *answer.lines, *answering.kept(answer, certificate, evidence)]
                    if evidence is not None:
                        answering.keep_evidence(evidence, answer, net, asked, clock, seed)
                asked.close()
            sink.write(answer.text)
        sink.say(answer.text, answer.document)  # the file has the answer, even where stdout is full
    remark(lines)
    return answer.exit_code


@contextmanager
def knowing(answer: str) -> Iterator[None]:
    """What cannot be written of an answer does not hide it: the error's line tells it, too."""
    try:
        yield
    except (InputError, ResourceError) as error:
        raise type(error)(f"{error} (the answer is {answer.partition(chr(10))[0]})") from error


def further(networks: Sequence[str]) -> dict[str, Path]:
    """Files by the names of networks, each written as ``NAME=FILE``."""
    files = {}
    for one in networks:
        name, equals, file = one.partition("=")
        if not (name and equals and file):
            raise InputError(f"expected --network NAME=FILE, got {one!r}")
        files[name] = Path(file)
    return files


def remark(lines: Sequence[str]) -> None:
    """Lines for a person, on stderr."""
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()))
        print(f"assay: {indent}{plain(line)}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Output:
    """Where the answer goes: to stdout, as text or as JSON, and as text to the file ``results`` if there is one.

    ``drafts``: of an answer that is not there yet, the newest last.
    """

    results: Path | None
    as_json: bool
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    drafts: list[Draft] = field(default_factory=list)

    def say(self, text: str, document: dict[str, Any]) -> None:
        """Print ``text``, or ``document``."""
        from assay.verify.support.documents import dump

        print(dump(document) if self.as_json else text, file=self.stdout, flush=True)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """An error in the block is an answer too; as JSON it is told by who catches it."""
        try:
            yield
        except Exception:
            with suppress(ResourceError):
                self.write("error")
            if not self.as_json:
                print("error", file=self.stdout, flush=True)
            raise

    def last_words(self, code: int, why: str) -> int:
        """Say what is known of work that does not come back; the exit code that goes with it."""
        from assay.verify.core.result import Reason

        said = "timeout" if code == 30 else "error"
        print(f"assay: {said}: {why}", file=sys.stderr, flush=True)
        text, document = said, {"verdict": said, "exit_code": code, "reason": why}
        if self.drafts:
            answer = self.drafts[-1](Reason.TIMEOUT if code == 30 else Reason.MEMORY)
            code, text, document = answer.exit_code, answer.text, answer.document
            remark(answer.lines)
        with suppress(ResourceError, OSError):
            self.write(text)
            self.say(text, document)
        return code

    def write(self, text: str) -> None:
        """``text`` to the file, if there is one. Raises :class:`ResourceError` where it cannot be written."""
        from assay.verify.support.files import write_atomic

        if self.results is not None:
            try:
                write_atomic(self.results, f"{text}\n".encode())
            except (OSError, ValueError) as error:  # ValueError: a path without a name, such as "."
                why = f"cannot write {str(self.results)!r}: {getattr(error, 'strerror', None) or error}"
                with knowing(text):
                    raise ResourceError(why) from error
