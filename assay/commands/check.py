"""``assay check``: a certificate, or a folder of evidence, checked again by the one file that trusts nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.verify.core.errors import InputError


def check(
    certificate: Annotated[Path, typer.Argument(metavar="CERT", help="Certificate, or a folder of evidence.")],
    net: Annotated[Path | None, typer.Argument(metavar="NET", help="ONNX file, plain or gzipped.")] = None,
    prop: Annotated[Path | None, typer.Argument(metavar="PROP", help="VNN-LIB file, plain or gzipped.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="In fractions, for small networks.")] = False,
) -> int:
    """Prove a certificate's claim again, about the two files that it speaks of.

    Exit code 0 if it holds, 20 if it is rejected, 90 if a folder of evidence has no certificate to check.
    """
    from assay import evidence
    from assay.verify.check import checker, question

    if certificate.is_dir():
        from assay import portfolio

        many = (certificate / portfolio.INDEX).is_file()
        return portfolio.again(certificate, exact) if many else evidence.again(certificate, exact)
    if not certificate.exists():
        raise InputError(f"there is no certificate and no folder of evidence {str(certificate)!r}")
    if net is None or prop is None:
        raise InputError("a certificate is checked about two files: assay check CERT NET PROP")
    from assay.benchmarks.harness.answer import unzipped

    try:
        data = [path.read_bytes() for path in (certificate, unzipped(net), unzipped(prop))]
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    try:
        report = checker.check(data[0], data[1], data[2], exact)
    except question.Rejected as why:
        print(f"rejected: {why}")
        return evidence.REJECTED
    print(told(report))
    return 0


def told(report: dict[str, object]) -> str:
    """What was accepted, in one line."""
    claims = {"unsat": "no input of the region leads to an unsafe output", "sat": "the point is unsafe"}
    how = f"semantics {report['semantics']}, {report['leaves']} leaves"
    if report["claim"] == "smoothed":
        how = f"semantics {report['semantics']}, confidence {report['confidence']:.6g}, {report['draws']} draws"
        claims["smoothed"] = f"{report['subject']} stays out of the unsafe outputs in all of the ball"
    return f"accepted: {claims[str(report['claim'])]} ({how})"
