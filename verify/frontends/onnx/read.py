"""An ONNX file as a network: parsed, translated, folded, and compared with onnxruntime on random points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from assay.verify.core.errors import AssayError, InternalError, ResourceError, UnsupportedError
from assay.verify.core.network import Network, Oracle, to_network
from assay.verify.frontends.agreement import agree
from assay.verify.frontends.fold import fold
from assay.verify.frontends.labels import Labelled
from assay.verify.frontends.onnx import handlers
from assay.verify.frontends.onnx.external import self_contained
from assay.verify.frontends.onnx.graph import parse, read_graph
from assay.verify.frontends.onnx.runtime import Runtime
from assay.verify.frontends.onnx.translation import NO_MEMORY, Translation
from assay.verify.frontends.recognised import recognised
from assay.verify.frontends.source import read_bytes, refuse_package


def read_onnx(path: str | Path, outputs: Sequence[str | int] = ()) -> Network:
    """The network in the file ``path``, plain or gzipped; where it is missing, in ``path.gz``. ``outputs``: those that
    are read, by name or place; several are flattened, side by side. None: the one that there is, or that holds
    floating-point numbers.

    Its input shape is that of one sample: without the batch dimension, where the file has one (a leading 1 before
    other dimensions, or a symbolic one); several inputs are flattened, side by side. The oracle is onnxruntime on the
    file itself.

    Raises :class:`InputError` for a file that is missing, damaged, or holds NaN or inf, and for inputs of no fixed
    shape; :class:`UnsupportedError` with all operations that cannot be represented; :class:`ResourceError` beyond the
    caps on sizes; :class:`InternalError` where network and onnxruntime differ.
    """
    path = Path(path)
    refuse_package(path)
    name = path.name.removesuffix(".gz").removesuffix(".onnx")
    return decode(read_bytes(path), str(path), name, path.parent, outputs)


def output_names(path: str | Path) -> list[str]:
    """The names of the outputs of the model in the file ``path``; raises as :func:`read_onnx` does."""
    return [value.name for value in parse(read_bytes(Path(path)), str(path)).graph.output]


def decode(
    content: bytes, what: str, name: str, folder: Path | None = None, outputs: Sequence[str | int] = ()
) -> Network:
    """The network in a file's ``content``. ``what``: the file, for messages; ``folder``: where external data may lie.

    Raises as :func:`read_onnx` does.
    """
    try:
        return _decode(content, what, name, folder, outputs)
    except RuntimeError as error:
        if NO_MEMORY not in str(error):
            raise
        raise ResourceError(f"{what} needs more memory than there is") from error


def _decode(content: bytes, what: str, name: str, folder: Path | None, outputs: Sequence[str | int]) -> Network:
    network, runtime, names, symbolic, delicate = _translated(content, what, name, folder, outputs)
    if symbolic:
        try:  # a batch of several is run at once only if it gives what its samples give alone
            batched = replace(network, oracle=_answering(replace(runtime, together=True), names))
            agree(batched)
            return batched
        except AssayError:
            pass
    try:
        agree(network)
    except InternalError as error:
        if not delicate:
            raise
        raise UnsupportedError(f"{delicate} takes elements by places that onnxruntime rounds otherwise") from error
    return network


def _translated(
    content: bytes, what: str, name: str, folder: Path | None, outputs: Sequence[str | int]
) -> tuple[Network, Runtime, Tensor, bool, str]:
    """The network, the model, the names of labels that it answers with, if it does, whether the batch dimension is
    symbolic, and a node whose meaning hangs on rounding.

    What was parsed is let go of.
    """
    model = parse(content, what)
    whole = self_contained(model, content, folder)
    graph = read_graph(model, outputs)
    translation = Translation(graph, handlers.traced(), handlers.constant())
    literal = translation.network()
    folded = fold(recognised(literal))
    shape = (1,) if len(translation.names) else folded.nodes[-1].shape
    runtime = Runtime(whole, graph.outputs, graph.inputs, folded.input_shape, shape, graph.dtype)
    network = replace(
        folded,
        oracle=_answering(runtime, translation.names),
        name=name,
        literal=literal,
        readout=translation.readout,
        inputs=literal.inputs,
        outputs=literal.outputs,
        held=literal.held,
    )
    return network, runtime, translation.names, graph.symbolic, translation.delicate


def _answering(runtime: Runtime, names: Tensor) -> Oracle:
    """The model as it is, or one whose answer is a label, by that label's ``names`` (labels)."""
    return Labelled(runtime, tuple(names.tolist())) if len(names) else runtime


@to_network.register
def _(path: Path, input_shape: Sequence[int] | None = None) -> Network:
    return to_network(read_onnx(path), input_shape)
