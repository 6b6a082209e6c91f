"""Certificates: what they cost beside the search, and mutants of them that are told of a false property.

    python -m assay.benchmarks.measure.proofs NET.onnx PROP.vnnlib [--seconds 60] [--mutants 10000] [--seed 0]

One line a property: CPU seconds of the search without and with recording, leaves, bytes, bytes a leaf, CPU seconds of
the check (reading the files among them) and of the leaves alone. Mutants are made of the certificate, told of a
property of the same sizes that is false at the middle of the box; none may be accepted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from assay.verify.backends.bab.neurons.bab import BaB
from assay.verify.check import question
from assay.verify.check.certificate import Certificate, packed
from assay.verify.core.budget import Budget
from assay.verify.core.problem import Problem
from assay.verify.core.result import Verdict
from assay.verify.core.spec import Spec
from assay.verify.solving import parts
from assay.verify.solving.parts import Files

Arrays = dict[str, NDArray[Any]]
Tamper = Callable[[dict[str, Any], Arrays, np.random.Generator], None]
T = TypeVar("T")


def scrambled(name: str) -> Tamper:
    """One number of an array becomes another."""

    def tamper(claims: dict[str, Any], arrays: Arrays, rng: np.random.Generator) -> None:
        whole = arrays.get(f"0/{name}", np.zeros(0))
        if whole.size:
            values = [np.nan, np.inf, -1, 0, 1e300] if whole.dtype.kind == "f" else [-2, -1, 0, 1, 7, 100]
            with np.errstate(over="ignore"):
                whole.flat[rng.integers(whole.size)] = np.array(values[rng.integers(len(values))]).astype(whole.dtype)

    return tamper


def dropped(claims: dict[str, Any], arrays: Arrays, rng: np.random.Generator) -> None:
    """One entry of an array is gone."""
    name = list(arrays)[rng.integers(len(arrays))]
    if len(arrays[name]):
        arrays[name] = np.delete(arrays[name], rng.integers(len(arrays[name])), 0)


def cut(claims: dict[str, Any], arrays: Arrays, rng: np.random.Generator) -> None:
    """The tree ends too early."""
    arrays["0/tree"] = arrays["0/tree"][: rng.integers(len(arrays["0/tree"]) + 1)]


def trimmed(claims: dict[str, Any], arrays: Arrays, rng: np.random.Generator) -> None:
    """Bounds by trees of their own have no splits."""
    if "0/finer/tree" in arrays:
        arrays["0/finer/tree"] = np.full(len(arrays["0/finer/neurons"]), -1, np.int32)


def unlayered(claims: dict[str, Any], arrays: Arrays, rng: np.random.Generator) -> None:
    """Layers are bounded by intervals alone."""
    claims["parts"][0]["layers"] = []


def shut(claims: dict[str, Any], arrays: Arrays, rng: np.random.Generator) -> None:
    """A few nodes, all of them said to be leaves, or empty."""
    count = rng.integers(1, int((arrays["0/tree"] < 0).sum()) + 1)
    arrays["0/tree"] = np.full(count, rng.choice([-1, -2]), np.int32)


NAMES = (
    *("tree", "slopes", "multipliers", "weights", "listed", "tighter/at", "tighter/rows", "tighter/neurons"),
    *("finer/tree", "finer/neurons", "finer/rows", "finer/slopes", "finer/multipliers"),
)
OTHERS: dict[str, Tamper] = {"dropped": dropped, "cut": cut, "trimmed": trimmed, "unlayered": unlayered, "shut": shut}
TAMPERS: dict[str, Tamper] = {name: scrambled(name) for name in NAMES} | OTHERS


def mutants(certificate: Certificate, tamper: Tamper, count: int, seed: int) -> Iterator[Certificate]:
    """Certificates that were tampered with, one to three times each."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        claims, arrays = question.opened(certificate.content)
        arrays = {name: array.copy() for name, array in arrays.items()}
        for _ in range(rng.integers(1, 4)):
            tamper(claims, arrays, rng)
        yield replace(certificate, content=packed(claims, arrays))


def told_of(certificate: Certificate, files: Files) -> Certificate:
    """The same proof, said to be of other files."""
    claims, arrays = question.opened(certificate.content)
    kept = {key: claims[key] for key in ("kind", "semantics", "parts")}
    return Certificate.of(kept, arrays, files.model, files.prop)


def accepted(certificate: Certificate) -> bool:
    """Whether the checker accepts it."""
    try:
        certificate.check()
    except question.Rejected:
        return False
    return True


@dataclass(frozen=True)
class Row:
    """What one property came to."""

    verdict: str
    search: float
    recorded: float
    leaves: int = 0
    size: int = 0
    check: float = 0.0
    reading: float = 0.0

    def __str__(self) -> str:
        each = f"{self.size / self.leaves:.0f}" if self.leaves else "-"
        return (
            f"{self.verdict}: search {self.search:.2f} s, recorded {self.recorded:.2f} s, {self.leaves} leaves, "
            f"{self.size} bytes ({each} a leaf), check {self.check:.2f} s, of it reading {self.reading:.2f} s"
        )


def measured(net: Path, prop: Path, seconds: float) -> tuple[Row, Certificate | None, Files]:
    """The first problem of a property by ``bab``, its certificate written and checked."""
    files = Files.of(net.read_bytes(), prop.read_bytes())
    problem = Problem.from_files(net, prop)[0]
    _, search = timed(lambda: BaB().verify(problem, Budget(seconds)))
    result, recorded = timed(lambda: BaB(proof=True).verify(problem, Budget(seconds)))
    if result.verdict is not Verdict.VERIFIED or result.certificate is None:
        return Row(result.verdict.value, search, recorded), None, files
    part = parts.of_record(files, 0, problem.spec, result.certificate)
    if part is None:
        return Row("no certificate", search, recorded), None, files
    certificate = files.certificate("tree", "real", [part])
    question.question.cache_clear()  # who checks it has not read the files before
    report, check = timed(certificate.check)
    question.question.cache_clear()
    _, reading = timed(lambda: Files.of(files.model, files.prop))
    row = Row("accepted", search, recorded, report["leaves"], len(certificate.content), check, reading)
    return row, certificate, files


def falsified(net: Path, prop: Path) -> Files:
    """The files of a property of the same sizes that is false at the middle of the box."""
    problem = Problem.from_files(net, prop)[0]
    at = problem.spec.rows(problem.network(problem.region.centre[None].double()).flatten(1))[0] + problem.spec.b
    sets = [at[problem.spec.disjunct == d] for d in range(len(problem.spec.disjuncts))]
    spec = Spec(tuple(replace(d, b=b + 1e-6) for d, b in zip(problem.spec.disjuncts, sets, strict=True)))
    return Files.of_problem(problem.with_parts(spec=spec))


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What it gives, and the CPU seconds that it takes."""
    begun = process_time()
    result = work()
    return result, process_time() - begun


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the options, measure, print; 1 if a mutant was accepted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("net", type=Path)
    parser.add_argument("prop", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--mutants", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    row, certificate, _ = measured(options.net, options.prop, options.seconds)
    print(row)
    if certificate is None or not options.mutants:
        return 0
    told = told_of(certificate, falsified(options.net, options.prop))
    each = -(-options.mutants // len(TAMPERS))
    wrong = {
        name: sum(accepted(mutant) for mutant in mutants(told, tamper, each, options.seed))
        for name, tamper in TAMPERS.items()
    }
    print(f"{each * len(TAMPERS)} mutants of a false property, accepted: {sum(wrong.values())} {wrong}")
    return int(any(wrong.values()))


if __name__ == "__main__":
    raise SystemExit(main())
