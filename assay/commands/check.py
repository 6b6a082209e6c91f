"""``assay check``: a certificate, or a folder of evidence, checked again by the one file that trusts nothing."""

from __future__ import annotations

from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay import options
from assay.verify.core.errors import InputError

if TYPE_CHECKING:
    from assay.models.data import Dataset


def check(
    certificate: Annotated[Path, typer.Argument(metavar="CERT", help="Certificate, or a folder of evidence.")],
    net: Annotated[Path | None, typer.Argument(metavar="NET", help="ONNX file, plain or gzipped.")] = None,
    prop: Annotated[Path | None, typer.Argument(metavar="PROP", help="VNN-LIB file, plain or gzipped.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="In fractions, for small networks.")] = False,
    data: Annotated[
        str | None, typer.Option(help="Of a comparison: the data set whose samples the evidence has to be about.")
    ] = None,
    data_dir: options.DataDir = None,
) -> int:
    """Prove a certificate's claim again, about the two files that it speaks of.

    Exit code 0 if it holds, 20 if it is rejected, 90 if a folder of evidence has no certificate to check.
    """
    from assay import evidence
    from assay.verify.check import checker, question

    if certificate.is_dir():
        from assay import portfolio

        if (certificate / portfolio.INDEX).is_file():
            find = None if data is None and data_dir is None else partial(_samples, data, data_dir)
            return portfolio.again(certificate, exact, find)
    if data is not None or data_dir is not None:
        raise InputError("--data and --data-dir are for the evidence of a comparison")
    if certificate.is_dir():
        return evidence.again(certificate, exact)
    if not certificate.exists():
        raise InputError(f"there is no certificate and no folder of evidence {str(certificate)!r}")
    if net is None or prop is None:
        raise InputError("a certificate is checked about two files: assay check CERT NET PROP")
    from assay.benchmarks.harness.answer import unzipped

    try:
        files = [path.read_bytes() for path in (certificate, unzipped(net), unzipped(prop))]
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    try:
        report = checker.check(files[0], files[1], files[2], exact)
    except question.Rejected as why:
        print(f"rejected: {why}")
        return evidence.REJECTED
    print(told(report))
    return 0


def _samples(data: str | None, folder: Path | None, known: str) -> Dataset:
    """The data set of that name, or of the one that is ``known`` of the evidence."""
    from assay.models.data import load

    return load(data or known, folder=folder, domain=(-inf, inf))


def told(report: dict[str, object]) -> str:
    """What was accepted, in one line."""
    claims = {"unsat": "no input of the region leads to an unsafe output", "sat": "the point is unsafe"}
    how = f"semantics {report['semantics']}, {report['leaves']} leaves"
    if report["claim"] == "smoothed":
        how = f"semantics {report['semantics']}, confidence {report['confidence']:.6g}, {report['draws']} draws"
        claims["smoothed"] = f"{report['subject']} stays out of the unsafe outputs in all of the ball"
    return f"accepted: {claims[str(report['claim'])]} ({how})"
