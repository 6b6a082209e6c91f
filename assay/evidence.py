"""A folder for an auditor: what was claimed, what proves it, how it was found, and the means to check it again."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as of_package
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from assay.benchmarks.harness.records.origin import version
from assay.verify.check.certificate import CHECKERS, Certificate, save_checkers
from assay.verify.core.errors import InputError
from assay.verify.core.problem import Problem
from assay.verify.core.result import Guarantee, Result, Verdict
from assay.verify.support.files import replace_file, writable_folder

PACKAGES = ("torch", "numpy", "scipy", "onnx", "onnxruntime", "highspy")
NAMES = ("certificate.zip", "model.onnx", "property.vnnlib", "log.txt", *CHECKERS)
REPORTS = ("report.txt", "report.html")
REJECTED, UNPROVED = 20, 90  # exit codes of a check

ASSUMED = {
    "real": [
        "The network computes in real numbers what its ONNX file says; in float32 it may differ by its rounding.",
        "Python, numpy and the processor round every float64 operation as IEEE 754 says, to nearest.",
        "The file reader (onnx) returns the numbers that the file holds.",
        "The property file says what was meant: see the requirement above.",
    ],
    "float32-any-order": [
        "Every layer is computed in float32, its sums in any order, with or without fused multiplication and addition.",
        "Python, numpy and the processor round every float64 operation as IEEE 754 says, to nearest.",
        "The file reader (onnx) returns the numbers that the file holds.",
        "The property file says what was meant: see the requirement above.",
    ],
}

CHECKS = (
    "How to check it again:",
    "With this package: assay check FOLDER",
    "Without it, with Python, numpy and onnx: python checker.py certificate.zip model.onnx property.vnnlib",
)


def write(
    folder: Path,
    certificate: Certificate | None,
    result: Result,
    problems: Sequence[Problem],
    files: Mapping[str, Path],
    command: str,
    seed: int,
    times: Mapping[str, float],
    log: Sequence[str],
    words: str = "",
) -> None:
    """Write the folder; ``files``: the model and the property, ``words``: the requirement as it was given.

    Raises :class:`InputError` where it cannot be written, or holds something else.
    """
    from assay.verify.check import question

    room(folder)
    for name in CHECKERS:
        (folder / name).unlink(missing_ok=True)
    save_checkers(folder, () if certificate is None else certificate.checkers)
    if certificate is not None:
        certificate.save_with_files(folder)
    else:
        (folder / "certificate.zip").unlink(missing_ok=True)
        for name, path in (("model.onnx", files["model"]), ("property.vnnlib", files["property"])):
            replace_file(folder / name, question.unpacked(path.read_bytes()))
    replace_file(folder / "log.txt", "".join(f"{line}\n" for line in log).encode())
    told = {
        "verdict": result.verdict.value,
        "guarantee": result.guarantee.value,
        "semantics": result.semantics,
        "requirement": words,
        "mathematics": mathematics(certificate.model, certificate.prop)
        if certificate is not None
        else question.stated([_part(problem) for problem in problems]),
        "proof": result.stats.get("proof", {}),
        "counterexample": None if result.counterexample is None else result.counterexample.flatten().tolist(),
        "method": result.verifier,
        "files": {name: str(path) for name, path in files.items()},
        "sha256": hashes(folder, NAMES),
        "versions": {"assay": version(), "python": platform.python_version(), **_versions()},
        "machine": {"system": platform.platform(), "processor": platform.machine()},
        "command": command,
        "seed": seed,
        "seconds": {name: round(spent, 3) for name, spent in times.items()},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "assumed": ASSUMED.get(result.semantics, []),
    }
    lines = report(told)
    for name, content in zip(REPORTS, (text(lines), page(lines)), strict=True):
        replace_file(folder / name, content.encode())
    told["reports"] = hashes(folder, REPORTS)
    replace_file(folder / "evidence.json", json.dumps(told, indent=1, default=str).encode())


def room(folder: Path) -> None:
    """Make the folder. Raises :class:`InputError` where it cannot be written, or holds something else."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "evidence.json").is_file():
        raise InputError(f"--evidence: {str(folder)!r} holds something else: expected a new or empty folder")
    writable_folder(folder)


def again(folder: Path, exact: bool = False) -> int:
    """Check a folder again: the files' hashes, and the certificate by the checker; the exit code.

    0 where it is accepted, ``REJECTED`` where something is wrong, ``UNPROVED`` where there is no certificate to check.
    """
    from assay.verify.check import checker, question

    try:
        told = json.loads((folder / "evidence.json").read_bytes())
        noted = {**told["sha256"], **told["reports"]}
        data = {name: (folder / name).read_bytes() for name in noted if name in (*NAMES, *REPORTS)}
        verdict, guarantee, none = told["verdict"], told["guarantee"], told["proof"].get("none", "the question is open")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(folder)!r} is no folder of evidence: {error}") from None
    changed = [name for name, content in data.items() if hashlib.sha256(content).hexdigest() != noted[name]]
    if changed:
        print(f"rejected: {', '.join(changed)} changed since it was written")
        return REJECTED
    content, model, prop = (data.get(name, b"") for name in NAMES[:3])
    held = set(NAMES[1:4])
    if "certificate.zip" in data:
        try:
            held |= {NAMES[0], *Certificate(content, model, prop).checkers}
        except (BadZipFile, KeyError, ValueError) as error:
            print(f"rejected: certificate.zip is malformed: {type(error).__name__}: {error}")
            return REJECTED
    strange = set(noted) ^ {*held, *REPORTS} | {name for name in NAMES if (folder / name).exists()} - held
    if strange:
        print(f"rejected: {', '.join(sorted(strange))}: not the files that a folder holds, or not those that it names")
        return REJECTED
    if "certificate.zip" not in data:
        if guarantee == Guarantee.RIGOROUS.value and verdict == Verdict.VERIFIED.value:
            print("rejected: the report says that it is proved, without a certificate")
            return REJECTED
        print(f"nothing to check: the verdict is {verdict}, {guarantee}, without a certificate ({none})")
        return UNPROVED
    if any(data[name] != Path(checker.__file__).with_name(name).read_bytes() for name in CHECKERS if name in data):
        print("note: the checker in the folder is not the one of this version, which is used here")
    try:
        found = checker.check(content, model, prop, exact)
    except question.Rejected as why:
        print(f"rejected: {why}")
        return REJECTED
    proves = Verdict.FALSIFIED if found["claim"] == "sat" else Verdict.VERIFIED
    levels = {"smoothed": {Guarantee.STATISTICAL}, "sat": set(Guarantee)}.get(found["claim"], {Guarantee.RIGOROUS})
    if verdict != proves.value or guarantee not in {level.value for level in levels}:
        print(f"rejected: the certificate proves {found['claim']!r}, the report says '{verdict}, {guarantee}'")
        return REJECTED
    if found["claim"] == "unsat" and told.get("semantics") != found["semantics"]:
        print(f"rejected: the certificate speaks of {found['semantics']!r}, the report of {told.get('semantics')!r}")
        return REJECTED
    try:
        faults = list(misstated(told, data, found))
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        faults = [f"evidence.json cannot be read: {type(error).__name__}: {error}"]
    for fault in faults:
        print(f"rejected: {fault}")
    if faults:
        return REJECTED
    print(f"accepted: {verdict} (semantics {found['semantics']}, {found['leaves']} leaves)")
    return 0


def hashes(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """sha256 of the files that are there."""
    paths = [folder / name for name in names if (folder / name).is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def mathematics(model: bytes, prop: bytes) -> list[str]:
    """What is claimed, as formulas, by how the checker reads the two files."""
    from assay.verify.check import question

    lines: list[str] = question.stated([(*part[:2], part[-1]) for part in question.question(model, prop)[1]])
    return lines


def _part(problem: Problem) -> tuple[list[float], list[float], list[Any]]:
    box = problem.region.box()
    tables = [zip(d.A.tolist(), d.b.tolist(), d.strict.tolist(), strict=True) for d in problem.spec.disjuncts]
    unsafe = [[(dict(enumerate(terms)), -b, strict) for terms, b, strict in table] for table in tables]
    return box.lower.flatten().tolist(), box.upper.flatten().tolist(), unsafe


def misstated(told: Mapping[str, Any], data: Mapping[str, bytes], found: Mapping[str, Any]) -> Iterator[str]:
    """What a folder says that its files do not: in words, in formulas, of the proof, and on its pages; ``found``: what
    the checker says. Of another version the pages cannot be told by this one."""
    from assay.verify.check import question
    from assay.verify.core import requirement

    prop = data["property.vnnlib"]
    if told["requirement"]:
        inputs, _, require = told["requirement"].partition("; ")
        counts = [len(set(re.findall(rb"declare-const %c_([0-9]+) " % side, prop))) for side in b"XY"]
        cases = requirement.unsafe(require, counts[1])
        if requirement.written(*requirement.box(inputs, counts[0]), cases, counts[1]).encode() != prop:
            yield "the requirement in words is not the property"
    if told["mathematics"] != mathematics(data["model.onnx"], prop):
        yield "the formulas are not the property"
    point = question.opened(data["certificate.zip"])[0].get("point")
    if told["counterexample"] != (None if point is None else [float.fromhex(v) for v in point]):
        yield "the counterexample is not that of the certificate"
    if (told["proof"].get("leaves"), told["proof"].get("bytes")) != (found["leaves"], len(data["certificate.zip"])):
        yield "the certificate is not as large as is said"
    if told["versions"]["assay"] != version():
        print(another(told["versions"]["assay"], REPORTS))
        return
    if told["assumed"] != ASSUMED.get(told["semantics"], []):
        yield "what is assumed is not what proofs rest on"
    lines = report(told)
    if any(line.splitlines() != [line] for line in lines if line):
        yield "a line of the report holds several"
    pages = zip(REPORTS, (text(lines), page(lines)), strict=True)
    yield from (
        f"{name} does not say what evidence.json does" for name, content in pages if data[name] != content.encode()
    )


def another(wrote: str, names: Sequence[str]) -> str:
    """What is said of files that another version wrote, which this one would write otherwise."""
    files = f"{', '.join(names)}: written by assay {wrote}, and this is assay {version()}"
    return f"note: {files}, so that their hashes were checked, and not what they say"


def report(told: Mapping[str, Any]) -> list[str]:
    """The report, line by line; lines that end with a colon are headings."""
    proved = told["verdict"] == Verdict.VERIFIED.value
    answer = {"verified": "The requirement holds", "falsified": "The requirement does not hold"}
    level = {
        "rigorous": "Proved: an independent checker accepted a certificate, every rounding error charged.",
        "numerical": "Verified up to floating-point error: there is no certificate that was accepted.",
    }
    proof = told["proof"]
    figures = f"{proof['leaves']} leaves, {proof['bytes']} bytes" if "leaves" in proof else proof.get("none", "none")
    return [
        "Evidence of robustness:",
        f"{answer.get(told['verdict'], 'The question is open')} ({told['verdict']}, {told['guarantee']}).",
        *([level.get(told["guarantee"], f"Guarantee: {told['guarantee']}.")] if proved else []),
        f"Semantics: {told['semantics']}.",
        "What was asked:",
        *([f"Requirement: {told['requirement']}"] if told["requirement"] else []),
        *told["mathematics"],
        *(["Counterexample:", f"x = {told['counterexample']}"] if told["counterexample"] is not None else []),
        *(["What is assumed:", *(f"- {line}" for line in told["assumed"])] if told["assumed"] else []),
        "How it was found:",
        f"Method: {told['method']}, seed {told['seed']}",
        f"Command: {told['command']}",
        f"Seconds: {', '.join(f'{k} {v}' for k, v in told['seconds'].items())}",
        f"Versions: {', '.join(f'{k} {v}' for k, v in told['versions'].items())}",
        f"Machine: {told['machine']['system']} ({told['machine']['processor']}), written {told['written']}",
        f"Certificate: {figures}",
        *(CHECKS if "certificate.zip" in told["sha256"] else []),
        "Files (sha256):",
        *(f"{name} {digest}" for name, digest in told["sha256"].items()),
    ]


def text(lines: Sequence[str]) -> str:
    """The report as a file."""
    return "".join(f"{line}\n" for line in lines)


def page(lines: Sequence[str]) -> str:
    """The same as one page of HTML."""
    style = (
        "body{font:15px/1.45 sans-serif;max-width:52em;margin:2em auto;padding:0 1em}h2{font-size:1em;margin:1em 0 0}"
    )
    style += "p{margin:0;white-space:pre-wrap;overflow-wrap:anywhere}"
    body = [f"<h2>{escape(line[:-1])}</h2>" if _is_heading(line) else f"<p>{escape(line)}</p>" for line in lines]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Evidence</title><style>{style}</style>'
    return f"{head}<body>{''.join(body)}</body></html>\n"


def command_line() -> str:
    """The command as it was given, to be pasted into a shell."""
    return shlex.join(["assay", *sys.argv[1:]])


def _is_heading(line: str) -> bool:
    return line.endswith(":") and not line.startswith((" ", "the output", "Case"))


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = of_package(name)
        except PackageNotFoundError:
            continue
    return found
