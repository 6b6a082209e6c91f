"""Models as a whole: who only runs a model, as smoothing and attacks do, needs none of its operations to be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network, Node, content_hash, to_network
from assay.verify.core.ops import Input, Opaque
from assay.verify.frontends.agreement import random_points
from assay.verify.frontends.onnx.external import self_contained
from assay.verify.frontends.onnx.graph import parse, read_graph
from assay.verify.frontends.onnx.runtime import Runtime
from assay.verify.frontends.onnx.translation import sample_shape
from assay.verify.frontends.source import read_bytes
from assay.verify.frontends.torch import called

Model = nn.Module | Network | Path


def runnable(model: Model, input_shape: Sequence[int] | None = None) -> Network:
    """``model`` as a network; where its operations are not read, one operation that runs it: it has values, and no
    bounds. A model that draws at random or depends on the batch is refused then, as it is anyway.

    Raises what :func:`assay.verify.core.network.to_network` does, but for operations that cannot be represented.
    """
    try:
        return to_network(model, input_shape)
    except UnsupportedError as error:
        why = str(error).partition(". ")[0]  # without what is read
        if isinstance(model, Path):
            whole = _of_file(model, why)
        elif isinstance(model, nn.Module) and input_shape is not None:
            whole = _of_module(model, tuple(input_shape), why)
        else:
            raise
        if not _steady(whole):
            raise
        return whole


def _of_module(module: nn.Module, shape: tuple[int, ...], why: str) -> Network:
    oracle, dtype, name = called(module, shape)
    tensors = [*module.named_parameters(), *module.named_buffers()]
    content = content_hash(repr(module), *((key, tensor) for key, tensor in tensors))
    op = Opaque(oracle, dtype, name, why, content, differentiable=True)
    return _network(op, shape)


def _of_file(path: Path, why: str) -> Network:
    content = read_bytes(path)
    model = parse(content, str(path))
    graph = read_graph(model)
    sizes = tuple(port.size for port in graph.inputs)
    sample = sample_shape(graph.inputs[0].shape) if len(sizes) == 1 else (sum(sizes),)
    runtime = Runtime(self_contained(model, content, path.parent), graph.outputs, graph.inputs, sample, (), graph.dtype)
    zeros = {port.name: torch.zeros(port.shape, dtype=graph.dtype).numpy() for port in graph.inputs}
    outputs = runtime.session.run(list(graph.outputs), zeros)
    runtime = replace(runtime, output=(sum(output.size for output in outputs),))
    name = path.name.removesuffix(".gz").removesuffix(".onnx")
    return _network(Opaque(runtime, graph.dtype, name, why, content_hash(content.hex())), sample)


def _network(op: Opaque, shape: tuple[int, ...]) -> Network:
    with torch.no_grad():
        output = op.run(torch.zeros(1, *shape, dtype=op.dtype))
    nodes = (Node(Input(), (), shape), Node(op, (0,), tuple(output.shape[1:])))
    return Network(nodes, oracle=op.run, dtype=op.dtype, name=op.name)


def _steady(network: Network) -> bool:
    """Whether it gives the same again, and for each sample alone what it gives in a batch, but for rounding."""
    points = random_points(network).to(network.dtype)
    with torch.no_grad():
        runs: list[Tensor] = [network(points), network(points), torch.cat([network(x[None]) for x in points])]
    scale = 1e-4 * (1 + runs[0].abs().nan_to_num().amax())
    return all(bool(torch.isclose(run, runs[0], 0.0, float(scale), equal_nan=True).all()) for run in runs)
