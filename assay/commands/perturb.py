"""``assay perturb``: how a model stands against turns, shifts, brightness and the like, sample by sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay import options
from assay.checks import at_least_one, positive, seed_in_range, use_threads, writable_file
from assay.verify.core.errors import InputError
from assay.verify.support.plain import counted, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assay.verify.core.result import Result


def perturb(
    model: options.Model,
    perturbation: Annotated[
        str,
        typer.Option(
            help="What happens to the images: rotation(10), translation(2), scaling(0.1), shear(0.1), blur(0.5), "
            "gamma(0.2), contrast(0.2), brightness(0.1); several with + between them; both ends as in rotation(-5,20)."
        ),
    ],
    weights: options.Weights = None,
    data: options.Data = "digits",
    data_dir: options.DataDir = None,
    n: options.First = None,
    method: Annotated[str, typer.Option(help="Method that certifies each cell of the parameters.")] = "crown",
    timeout: Annotated[float, typer.Option(help="Seconds for each sample.")] = 60.0,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Write each sample's result to this file as it comes: JSON lines."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Take finished samples from --out.")] = False,
    seed: options.Seed = 0,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    json_: options.Json = False,
) -> None:
    """Certify images against every value of a perturbation's parameters, and look for values that break them."""
    for name, value in (("--n", n), ("--threads", threads)):
        at_least_one(name, value)
    positive("--timeout", timeout, "seconds")
    seed_in_range(seed)
    if resume and out is None:
        raise InputError("--resume goes on from the file that --out names")

    import torch

    from assay.benchmarks.harness.progress import watch
    from assay.verify.core.budget import Budget
    from assay.verify.core.network import to_network
    from assay.verify.core.result import Verdict
    from assay.verify.core.spec import strictly_largest
    from assay.verify.perturbations import Perturbation
    from assay.verify.solving.perturbed import Perturbed, verify
    from assay.verify.support.signals import interruptible

    verifier = options.method(method)
    budget = Budget(timeout, seed=seed, threads=use_threads(threads))
    samples = options.samples(data, data_dir, None, n)
    change = Perturbation.parse(perturbation, samples.domain)
    network = to_network(options.fitting(model, weights, samples), samples.shape)
    if len(samples.shape) != 3:
        raise InputError(f"expected images of shape (channels, height, width), {samples.name} has {samples.shape}")
    writable_file("--out", out)

    known = {} if out is None else _known(out, resume)
    results: list[Result | None] = []
    with interruptible(), watch(unit="sample", quiet=quiet) as progress:
        progress.begin(len(samples))
        for x, y in zip(samples.x, samples.y, strict=True):
            question = Perturbed(network, x.to(torch.float64), int(y), change)
            with torch.no_grad():
                right = strictly_largest((network.oracle or network)(x[None].to(network.dtype)).flatten(1), y[None])
            result = known.get((question.id, repr(verifier)))
            if result is not None and result.verdict is Verdict.UNKNOWN:
                result = None  # it may have more time now
            if bool(right) and result is None:
                result = verify(question, verifier, budget)
                if out is not None:
                    _append(out, result)
            results.append(result if bool(right) else None)
            progress.advance(1)
    document = {"model": model, "data": samples.name, "perturbation": perturbation, "method": method, "seed": seed}
    _tell(document, results, json_)


def _known(path: Path, resume: bool) -> dict[tuple[str, str], Result]:
    """What the file holds, by question and method; a line that was cut off is taken out of it. A file that is there is
    not written over."""
    from assay.verify.core.result import Result
    from assay.verify.support.files import replace_file

    if not path.is_file() or not path.stat().st_size:
        return {}
    if not resume:
        raise InputError(f"--out: {plain(path)} is there already: --resume goes on with it, or name another file")
    found = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            result = Result.from_json(line)
        except (ValueError, KeyError, TypeError):
            continue
        found[result.problem_id, result.verifier] = result
    if not found:
        raise InputError(f"--resume: {plain(path)} holds no results of assay perturb")
    replace_file(path, "".join(f"{result.to_json()}\n" for result in found.values()).encode())
    return found


def _append(path: Path, result: Result) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{result.to_json()}\n")
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _tell(document: dict[str, Any], results: Sequence[Result | None], as_json: bool) -> None:
    """The shares of samples, and each sample's result, None for those that are wrong without any change."""
    from scipy.stats import binomtest

    from assay.benchmarks.report.tables import dump
    from assay.verify.core.result import Verdict

    n = len(results)
    broken = sum(result is None or result.verdict is Verdict.FALSIFIED for result in results)
    counts = {
        "clean": sum(result is not None for result in results),
        "left standing": n - broken,
        "certified": sum(result is not None and result.verdict is Verdict.VERIFIED for result in results),
    }
    shares = {}
    for name, count in counts.items():
        interval = binomtest(count, n).proportion_ci(0.95, method="exact")
        shares[name] = {"count": count, "share": count / n, "low": float(interval.low), "high": float(interval.high)}
    if as_json:
        rows = [None if result is None else json.loads(result.to_json()) for result in results]
        print(dump(document | {"n": n, "shares": shares, "samples": rows}))
        return

    from rich.console import Console

    from assay.benchmarks.report import layout

    title = f"{plain(document['model'])} on {plain(document['data'])}, {plain(document['perturbation'])}"
    grid = layout.grid(layout.name(), *map(layout.figure, ("accuracy", "95% CI", "samples")), title=title)
    for (name, share), sign in zip(shares.items(), ("", "\u2264 ", "\u2265 "), strict=True):
        ends = f"{100 * share['low']:.1f}\u2013{100 * share['high']:.1f}"
        grid.add_row(name, f"{sign}{share['share']:.1%}", ends, str(share["count"]))
    layout.show(grid, Console())
    open_ = [result for result in results if result is not None and result.verdict is Verdict.UNKNOWN]
    if open_:
        reasons = ", ".join(sorted({str(result.reason) for result in open_}))
        why = next((str(r.stats["explanation"]) for r in open_ if "explanation" in r.stats), "")
        print(f"open: {counted(len(open_), 'sample')} ({reasons}{f': {plain(why)}' if why else ''})")
