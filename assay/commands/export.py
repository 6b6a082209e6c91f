"""``assay export``: a model as an ONNX file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from assay import options
from assay.verify.core.errors import InputError


def export(
    model: Annotated[str, typer.Argument(help=options.MODEL_FORMS)],
    path: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="The file to write; an old one is replaced.")],
    input_shape: options.InputShape = "",
    weights: options.Weights = None,
    json_: options.Json = False,
) -> None:
    """Write a model as an ONNX file with a symbolic batch dimension, read it back, and compare the two."""
    if path.suffix.lower() != ".onnx":
        raise InputError(f"expected a file name that ends in .onnx, got {str(path)!r}")
    given = options.shape(input_shape)

    from assay.models.resolve import resolve
    from assay.verify.core.network import Network, to_network
    from assay.verify.frontends.onnx import write_onnx

    loaded = resolve(model, weights)
    if given is None and loaded.card is not None:
        given = loaded.card.input_shape
    if given is None and not isinstance(loaded.module, Network):
        raise InputError(f"{model} does not say what it takes: pass --input-shape, such as --input-shape 3,32,32")
    written = write_onnx(to_network(loaded.module, given), path)
    shapes = list(written.input_shape), list(written.nodes[-1].shape)
    if json_:
        document = {"model": model, "file": str(path), "input": shapes[0], "output": shapes[1]}
        print(json.dumps(document | {"bytes": path.stat().st_size}))
        return
    print(f"wrote {path}: input {shapes[0]}, output {shapes[1]}, {path.stat().st_size} bytes; read back and compared")
