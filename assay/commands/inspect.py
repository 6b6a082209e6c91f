"""``assay inspect``: what a model is made of, as it is read, and how much of it a radius leaves open."""

from __future__ import annotations

from dataclasses import fields
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay import options
from assay.checks import writable_file
from assay.notes import wide
from assay.verify.core.errors import InputError
from assay.verify.core.norms import parse_norm
from assay.verify.support.plain import counted, plain
from assay.written import numbers

if TYPE_CHECKING:
    from assay.verify.core.network import Network
    from assay.verify.core.ops import Op
    from assay.verify.core.region import Region


def inspect(
    model: Annotated[str, typer.Argument(help=options.MODEL_FORMS)],
    input_shape: options.InputShape = "",
    weights: options.Weights = None,
    eps: Annotated[
        str | None, typer.Option(help="Count the neurons that are unstable within this radius of a sample of --data.")
    ] = None,
    data: options.Data = "digits",
    data_dir: options.DataDir = None,
    domain: options.Domain = None,
    eps_scale: options.EpsScale = None,
    index: Annotated[int, typer.Option(help="Position of that sample.")] = 0,
    norm: options.Norm = "inf",
    report: options.Report = None,
    json_: options.Json = False,
) -> None:
    """Show what a model is read as and who can read it; with --eps, its unstable neurons and what methods will cost."""
    writable_file("--report", report)
    p, given = parse_norm(norm), options.shape(input_shape)
    radii = None if eps is None else numbers("--eps", eps)
    if radii is not None and len(radii) > 1:
        raise InputError(f"--eps: expected one radius, got {eps}")

    from assay.models.resolve import resolve
    from assay.verify.core.network import Network, to_network
    from assay.verify.core.region import LpBall
    from assay.verify.support.documents import dump

    region: Region | None = None
    where: dict[str, Any] = {}
    if radii is not None:
        samples = options.samples(data, data_dir, domain, eps_scale=eps_scale)
        if not 0 <= index < len(samples):
            raise InputError(
                f"--index: {samples.name} has {counted(len(samples), 'sample')}, counted from 0, got {index}"
            )
        wide(radii, p, samples)
        where = {"eps": float(radii[0]), **options.told(samples)}
        region = LpBall(samples.x[index], samples.radius(radii[0]), p, samples.legal)
        given = given or samples.shape
    loaded = resolve(model, weights)
    if given is None and loaded.card is not None:
        given = loaded.card.input_shape
    if given is None and not isinstance(loaded.module, Network):
        raise InputError(f"{model} does not say what it takes: pass --input-shape, such as --input-shape 3,32,32")
    network = to_network(loaded.module, given)
    if region is not None and tuple(region.shape) != network.input_shape:
        raise InputError(f"expected samples of shape {network.input_shape}, got {tuple(region.shape)} of {data}")
    document = described(model, network, region) | where
    if report is not None:
        _write(document, report)
    if json_:
        print(dump(document))
    else:
        _show(document)
        if report is not None:
            print(f"wrote {plain(report)}")


def described(model: str, network: Network, region: Region | None) -> dict[str, Any]:
    """The network as plain data, and who can read it; with a region, how many neurons intervals leave unstable, layer
    by layer, and what methods will cost."""
    import torch

    from assay.explanation import unstable
    from assay.outlook import outlook
    from assay.verify.core.budget import Budget
    from assay.verify.core.region import Box

    anywhere = Box(torch.zeros(network.input_shape), torch.ones(network.input_shape))
    open_ = {} if region is None else unstable(network, region, Budget().started())
    layers = [
        {
            "operation": node.op.label,
            "from": list(node.inputs),
            "shape": list(node.shape),
            "parameters": parameters(node.op),
            "unstable": open_.get(position),
        }
        for position, node in enumerate(network.nodes)
    ]
    return {
        "model": model,
        "dtype": str(network.dtype).removeprefix("torch."),
        "input": list(network.input_shape),
        "outputs": network.output_size,
        "parameters": sum(layer["parameters"] for layer in layers),
        "activations": sum(prod(network.nodes[position].shape) for position in open_) if open_ else None,
        "unstable": sum(open_.values()) if open_ else None,
        "layers": layers,
        "methods": outlook(network, region or anywhere, open_),
    }


def parameters(op: Op) -> int:
    """Numbers that an operation holds, as it is read: what was folded into another is counted there."""
    held = (getattr(op, field.name) for field in fields(op))
    return sum(value.numel() for value in held if hasattr(value, "numel") and value.is_floating_point())


def _show(document: dict[str, Any]) -> None:
    from rich.console import Console

    from assay.benchmarks.report import layout

    shown = document["unstable"] is not None
    figures = [layout.figure(header) for header in ("from", "shape", "parameters", *(["unstable"] if shown else []))]
    grid = layout.grid(layout.figure("node"), layout.word("operation"), *figures, title=plain(document["model"]))
    for position, layer in enumerate(document["layers"]):
        cells = [",".join(map(str, layer["from"])), "x".join(map(str, layer["shape"])), str(layer["parameters"])]
        last = [] if not shown else ["" if layer["unstable"] is None else str(layer["unstable"])]
        grid.add_row(str(position), layer["operation"], *cells, *last)
    layout.show(grid, Console(), ("from",))
    who = layout.grid(layout.word("method"), layout.word("reads it"), layout.text("expected cost" if shown else ""))
    for each in document["methods"]:
        reads = "yes" if each["why_not"] is None else "no"
        who.add_row(each["method"], reads, plain(each["why_not"] or each["cost"] or ""))
    layout.show(who, Console())
    size = f"{counted(document['parameters'], 'parameter')} in {document['dtype']}, "
    size += counted(document["outputs"], "output")
    open_ = f"; activations that are unstable by intervals: {document['unstable']} of {document['activations']}"
    print(size + (open_ if shown else ""))


def _write(document: dict[str, Any], path: Path) -> None:
    from assay.benchmarks.harness.records.origin import version
    from assay.benchmarks.report import page
    from assay.verify.support.files import replace_file

    text = page.render("inspect.html", {"eps": "", **document, "written_by": version()})
    replace_file(path, text.encode("utf-8", "replace"))
