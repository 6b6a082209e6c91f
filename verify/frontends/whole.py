"""Models as a whole: who only runs a model, as smoothing and attacks do, needs none of its operations to be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import CodeType

import numpy as np
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
    content = content_hash(repr(module), code_of(module), state_of(module), *tensors)
    op = Opaque(oracle, dtype, name, why, content, differentiable=True)
    return _network(op, shape)


def code_of(module: nn.Module) -> list[str]:
    """The compiled functions of a module and of its parts, their hooks among them: what tells two models of the same
    layers and weights apart. What these functions find outside of the model is not looked at."""
    told = []
    for part in module.modules():
        hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
        kinds = [kind for kind in type(part).__mro__ if kind.__module__.partition(".")[0] not in ("torch", "builtins")]
        owned = [(name, value) for kind in kinds for name, value in sorted(vars(kind).items())]
        owned += [(name, value) for name, value in sorted(vars(part).items()) if not name.startswith("_")]
        codes = [(name, getattr(value, "__code__", None)) for name, value in (*owned, *(("hook", h) for h in hooks))]
        told += [f"{name} {_spelled(code)}" for name, code in codes if isinstance(code, CodeType)]
    return told


def state_of(module: nn.Module) -> list[tuple[str, str, object]]:
    """Numbers, texts and tensors, and collections of these, that a module and its parts hold as plain attributes: by
    the names of part and attribute."""
    held = []
    for place, part in module.named_modules():
        for name, value in sorted(vars(part).items()):
            if not name.startswith("_") and name != "training" and (plain := _plain(value)) is not None:
                held.append((place, name, plain))
    return held


def _plain(value: object) -> object | None:
    """The value so that its content can be hashed; None for what has none that is the same in every process."""
    match value:
        case bool() | int() | float() | complex() | str() | bytes() | Tensor():
            return value
        case np.ndarray():
            return (value.shape, str(value.dtype), value.tobytes())
        case set() | frozenset():
            return sorted(map(repr, map(_plain, value)))
        case dict():
            return [(repr(key), _plain(inner)) for key, inner in value.items()]
        case tuple() | list():
            return [_plain(inner) for inner in value]
    return None


def _spelled(code: CodeType) -> str:
    """Instructions, names and constants of a function, and of those within it."""
    constants = [_spelled(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def _constant(value: object) -> str:
    """The same in every process, in which sets may have another order."""
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


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
