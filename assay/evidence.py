"""A folder for an auditor: what was claimed, what proves it, how it was found, and the means to check it again."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as of_package
from pathlib import Path
from typing import Any

from assay.benchmarks.harness.records.origin import version
from assay.verify.check.certificate import CHECKERS, Certificate, save_checkers
from assay.verify.core.errors import InputError
from assay.verify.core.problem import Problem
from assay.verify.core.result import Guarantee, Result, Verdict
from assay.verify.support.files import replace_file, writable_folder

PACKAGES = ("torch", "numpy", "scipy", "onnx", "onnxruntime", "highspy")
SHOWN = 12  # inputs, or rows, that are written out
NAMES = ("certificate.zip", "model.onnx", "property.vnnlib", *CHECKERS)
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
    told = {
        "verdict": result.verdict.value,
        "guarantee": result.guarantee.value,
        "semantics": result.semantics,
        "requirement": words,
        "mathematics": mathematics(problems),
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
    replace_file(folder / "log.txt", "".join(f"{line}\n" for line in log).encode())
    lines = report(told)
    replace_file(folder / "report.txt", "".join(f"{line}\n" for line in lines).encode())
    replace_file(folder / "report.html", page(lines).encode())
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
        data = {name: (folder / name).read_bytes() for name in noted}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(folder)!r} is no folder of evidence: {error}") from None
    changed = [name for name, content in data.items() if hashlib.sha256(content).hexdigest() != noted[name]]
    if changed:
        print(f"rejected: {', '.join(changed)} changed since it was written")
        return REJECTED
    if "certificate.zip" not in data:
        why = told["proof"].get("none", "the question is open")
        print(f"nothing to check: the verdict is {told['verdict']}, {told['guarantee']}, without a certificate ({why})")
        return UNPROVED
    if any(data[name] != Path(checker.__file__).with_name(name).read_bytes() for name in CHECKERS if name in data):
        print("note: the checker in the folder is not the one of this version, which is used here")
    try:
        found = checker.check(data["certificate.zip"], data["model.onnx"], data["property.vnnlib"], exact)
    except question.Rejected as why:
        print(f"rejected: {why}")
        return REJECTED
    verdict = Verdict.FALSIFIED if found["claim"] == "sat" else Verdict.VERIFIED
    drawn = told.get("guarantee") == Guarantee.STATISTICAL.value
    if told["verdict"] != verdict.value or drawn != (found["claim"] == "smoothed"):
        says = f"{told['verdict']}, {told.get('guarantee')}"
        print(f"rejected: the certificate proves {found['claim']!r}, the report says {says!r}")
        return REJECTED
    if found["claim"] == "unsat" and told.get("semantics") != found["semantics"]:
        print(f"rejected: the certificate speaks of {found['semantics']!r}, the report of {told.get('semantics')!r}")
        return REJECTED
    print(f"accepted: {told['verdict']} (semantics {found['semantics']}, {found['leaves']} leaves)")
    return 0


def hashes(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """sha256 of the files that are there."""
    paths = [folder / name for name in names if (folder / name).is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def mathematics(problems: Sequence[Problem]) -> list[str]:
    """What is claimed, as formulas: for every input x of a region, the output y is in none of the unsafe sets."""
    lines = []
    for number, problem in enumerate(problems):
        box = problem.region.box()
        lower, upper = box.lower.flatten().tolist(), box.upper.flatten().tolist()
        if len(problems) > 1:
            lines.append(f"Case {number + 1} of {len(problems)}:")
        lines.append(f"For every x of {len(lower)} inputs with")
        bounds = [f"  {low!r} <= x[{i}] <= {high!r}" for i, (low, high) in enumerate(zip(lower, upper, strict=True))]
        lines += [
            *bounds[:SHOWN],
            *([f"  and {len(bounds) - SHOWN} more (property.vnnlib)"] if len(bounds) > SHOWN else []),
        ]
        lines.append("the output y = f(x) of the network is in none of these sets:")
        for disjunct in problem.spec.disjuncts[:SHOWN]:
            rows = zip(disjunct.A.tolist(), disjunct.b.tolist(), disjunct.strict.tolist(), strict=True)
            lines.append("  { " + " and ".join(_row(*row) for row in rows) + " }")
        if len(problem.spec.disjuncts) > SHOWN:
            lines.append(f"  and {len(problem.spec.disjuncts) - SHOWN} more (property.vnnlib)")
    return lines


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


def _row(A: Sequence[float], b: float, strict: bool) -> str:
    terms = [f"{'' if v == 1 else '-' if v == -1 else f'{v!r} '}y[{i}]" for i, v in enumerate(A) if v]
    return f"{' + '.join(terms).replace('+ -', '- ') or '0'} {'<' if strict else '<='} {b!r}"


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = of_package(name)
        except PackageNotFoundError:
            continue
    return found
