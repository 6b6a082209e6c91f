"""Models whose graph hangs on whole numbers that elements of the input are cut to, as the places of a patch in an
image are: case by case.

Such numbers take finitely many values over a box, and all that is computed of nothing else, shapes included, is
constant in each of these cases. It becomes an input of the one network that is read, and constants in its place that of
each case.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import inf, nextafter, prod, trunc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Network, Port
from assay.verify.core.ops import Gather, Reshape
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, Region
from assay.verify.core.rewiring import Rewired
from assay.verify.core.spec import Spec
from assay.verify.frontends.agreement import agree_on
from assay.verify.frontends.fold import fold
from assay.verify.frontends.onnx import handlers
from assay.verify.frontends.onnx.external import self_contained
from assay.verify.frontends.onnx.graph import Graph, GraphNode, parse, read_graph
from assay.verify.frontends.onnx.runtime import Runtime
from assay.verify.frontends.onnx.tensors import DTYPES
from assay.verify.frontends.onnx.translation import Translation, sample_shape
from assay.verify.frontends.recognised import recognised
from assay.verify.frontends.source import read_bytes

if TYPE_CHECKING:
    from onnx import ModelProto

MOST = 1 << 13  # cases of one box
CHECKED = 32  # of which, at most, network and model are compared
WHOLE = (torch.int32, torch.int64)  # that inputs are cut to

# A block of cases that are one: the least and the largest whole number of each place.
Block = tuple[tuple[int, int], ...]


def read_cases(path: str | Path, outputs: Sequence[str] = ()) -> Cases | None:
    """The model in the ONNX file ``path`` in cases; None where no part of it hangs on whole numbers that elements of
    its one input are cut to.

    Raises what :func:`assay.verify.frontends.onnx.read_onnx` does.
    """
    path = Path(path)
    content = read_bytes(path)
    model = parse(content, str(path))
    whole = self_contained(model, content, path.parent)
    graph = read_graph(model, outputs)
    if len(graph.inputs) != 1 or graph.symbolic:
        return None
    decided, places = _decided(graph)
    between = _between(graph, decided)
    if not places or not between:
        return None
    (port,) = graph.inputs
    chooser = Runtime(_ending_in(model, between), between, graph.inputs, sample_shape(port.shape), (), graph.dtype)
    first = _values(chooser, torch.zeros(port.shape, dtype=graph.dtype))
    if any(value.dtype is not graph.dtype for value in first):
        raise UnsupportedError(f"{path} computes with whole numbers that depend on the input")
    ports = tuple(Port(name, tuple(value.shape)) for name, value in zip(between, first, strict=True))
    nodes = tuple(node for node in graph.nodes if decided.isdisjoint(node.outputs))
    translation = Translation(
        replace(graph, inputs=(port, *ports), nodes=nodes), handlers.traced(), handlers.constant()
    )
    literal = translation.network()
    if translation.readout or translation.delicate:
        raise UnsupportedError(f"{path} hangs on whole numbers among its inputs, and on labels or roundings besides")
    if _read(literal, places):
        raise UnsupportedError(f"{path} cuts elements of its input to whole numbers, and reads them besides")
    folded = fold(recognised(literal))
    answer = Runtime(whole, graph.outputs, graph.inputs, sample_shape(port.shape), folded.nodes[-1].shape, graph.dtype)
    own = tuple(range(port.size))
    network = replace(
        folded,
        oracle=Rewired(answer, own, answer.sample, own),
        name=path.name.removesuffix(".gz").removesuffix(".onnx"),
        literal=literal,
        held=literal.held,
        outputs=literal.outputs,
    )
    return Cases(network, chooser, places)


@dataclass(frozen=True, eq=False)
class Cases:
    """``network``: of the model's flattened input and, behind it, the values that whole numbers decide, which its
    oracle works out by itself; ``chooser``: these values, as the model computes them; ``places``: the elements of the
    input that are cut to whole numbers, and read nowhere else."""

    network: Network
    chooser: Runtime
    places: tuple[int, ...]

    def problems(self, asked: Sequence[tuple[Region, Spec]]) -> list[Problem]:
        """The problems of all cases of regions of the model's flattened input, each with its unsafe set.

        Where the least whole number of a case is a member of the region, it stands for all of it: the outputs are the
        same, as nothing else depends on the places. Raises :class:`UnsupportedError` for other regions than boxes and
        for too many cases.
        """
        boxes = list[tuple[Box, Spec]]()
        for region, spec in asked:
            if not isinstance(region, Box):
                raise UnsupportedError("whole numbers among the inputs are read over boxes only")
            if region.empty:
                continue
            # Where the model runs, another number may be cut off than where the box is stated.
            here = [box for part in apart(region, self.network.dtype) for box in self._over(part)]
            if not boxes:
                values = here[0].lower[len(region.lower) :]
                lower, upper = (torch.cat([side, values]) for side in (region.lower, region.upper))
                _ = Problem(self.network, Box(lower, upper), spec)  # warns of what the model's type does not hold
            boxes += [(box, spec) for box in here]
        self._compare([box for box, _ in boxes])
        return [Problem(self.network, box, spec) for box, spec in boxes]

    def _over(self, region: Box) -> list[Box]:
        """The boxes of one case each that a box (inputs) consists of, with the values there behind them."""
        index = torch.tensor(self.places)
        lower, upper = (bound[index].tolist() for bound in (region.lower, region.upper))
        ends = [(trunc(low), trunc(high)) for low, high in zip(lower, upper, strict=True)]
        lengths = [last - first + 1 for first, last in ends]
        if prod(lengths) > MOST:
            raise UnsupportedError(f"whole numbers among the inputs have {prod(lengths)} cases, more than {MOST}")
        x = region.point(torch.full(region.shape, 0.5)).to(self.network.dtype)
        labels, known, values = np.zeros(prod(lengths), dtype=np.int64), dict[bytes, int](), list[Tensor]()
        for i, numbers in enumerate(product(*(range(first, last + 1) for first, last in ends))):
            x[index] = torch.tensor(numbers, dtype=x.dtype)
            here = torch.cat([value.flatten() for value in _values(self.chooser, x)])
            if len(here) + len(x) != self.network.nodes[0].size:
                raise UnsupportedError("the shapes of values that the model computes with hang on its input")
            labels[i] = known.setdefault(here.numpy().tobytes(), len(known))
            if labels[i] == len(values):
                values.append(here.double())
        first = torch.tensor([first for first, _ in ends])
        boxes = []
        for block, label in blocks(labels.reshape(lengths)):
            least, most = (first + torch.tensor(side) for side in zip(*block, strict=True))
            low = torch.tensor([_lowest(int(number)) for number in least], dtype=torch.float64)
            high = torch.tensor([-_lowest(-int(number)) for number in most], dtype=torch.float64)
            members = region.inner or region
            inside = (members.lower[index] <= least) & (least <= members.upper[index])
            low, high = (torch.where(inside, least.double(), side) for side in (low, high))
            boxes.append(_within(region, index, low, high, values[label]))
        return boxes

    def _compare(self, boxes: Sequence[Box]) -> None:
        """The import check at members of some of the cases, spread over all of them."""
        generator = torch.Generator().manual_seed(3)
        some = boxes[:: -(-len(boxes) // CHECKED)] if boxes else []
        points = [box.point(torch.rand(box.shape, generator=generator)).double() for box in some]
        if points:
            agree_on(self.network, torch.stack(points))


def apart(box: Box, dtype: torch.dtype) -> list[Box]:
    """A box; where bounds are one value that ``dtype`` does not hold, the box with the nearest ones, at which the model
    is run, and the box as it is stated. What lies between these values, which is neither, would be widened by every
    layer."""
    moved = box.moved(dtype)
    if not bool(moved.any()):
        return [box]
    nearest = box.allowed(dtype)[0].double()
    above = torch.where(moved, box.upper.nextafter(box.upper.new_tensor(inf)), box.upper)
    run = [
        Box(torch.where(moved, nearest, one.lower), torch.where(moved, nearest, one.upper))
        for one in (box, box if box.inner is None else box.inner)
    ]
    return [replace(run[0], inner=run[1]), Box(box.lower, above)]


def _within(box: Box, index: Tensor, low: Tensor, high: Tensor, values: Tensor) -> Box:
    """The part of a box between ``low`` and ``high`` (places) at the elements of that ``index``, with single ``values``
    behind all."""
    lower = box.lower.index_copy(0, index, torch.maximum(box.lower[index], low))
    upper = box.upper.index_copy(0, index, torch.minimum(box.upper[index], high))
    inner = None if box.inner is None else _within(box.inner, index, low, high, values)
    return Box(torch.cat([lower, values]), torch.cat([upper, values]), inner)


def blocks(labels: NDArray[np.int64]) -> Iterator[tuple[Block, int]]:
    """Blocks of one label each that a grid of ``labels`` (any number of axes) consists of: the first and the last index
    along each axis, and the label."""
    if bool((labels == labels.flat[0]).all()):
        yield tuple((0, length - 1) for length in labels.shape), int(labels.flat[0])
        return
    change = [i for i in range(1, len(labels)) if bool((labels[i] != labels[i - 1]).any())]
    for begin, end in zip([0, *change], [*change, len(labels)], strict=True):
        if labels.ndim == 1:
            yield ((begin, end - 1),), int(labels[begin])
        else:
            yield from ((((begin, end - 1), *block), label) for block, label in blocks(labels[begin]))


def _lowest(number: int) -> float:
    """The least of the numbers that are cut to this one, or the first above what is not."""
    return float(number) if number > 0 else nextafter(number - 1.0, inf)


def _read(network: Network, places: Sequence[int]) -> bool:
    """Whether anything is computed of elements of the flat input at these places, rather than passed over."""
    moved, wanted = {0: torch.arange(network.nodes[0].size)}, torch.tensor(places)
    for position, node in enumerate(network.nodes[1:], start=1):
        before = [moved[i] for i in node.inputs if i in moved]
        if isinstance(node.op, Gather) and before:
            moved[position] = torch.cat([before[0], torch.tensor([-1])])[node.op.index]
        elif isinstance(node.op, Reshape) and before:
            moved[position] = before[0]
        elif any(bool(torch.isin(origin, wanted).any()) for origin in before):
            return True
    return len(network.nodes) - 1 in moved


def _decided(graph: Graph) -> tuple[set[str], tuple[int, ...]]:
    """The names of values that whole numbers decide alone, and the elements of the flat input that are cut to these.

    What has one shape whatever the input is no such value, nor is that shape.
    """
    depends = {graph.inputs[0].name}
    decided: set[str] = set()
    places: set[int] = set()
    for node in graph.nodes:
        names = [name for name in node.inputs if name in depends]
        if not names or (node.op in ("Shape", "Size") and decided.isdisjoint(names)):
            continue
        depends.update(node.outputs)
        if decided.issuperset(names):
            decided.update(node.outputs)
        elif node.op == "Cast" and DTYPES.get(_whole(node.attributes.get("to"))) in WHOLE:
            picked = _picked(graph, names[0], depends)
            if picked is not None:
                decided.update(node.outputs)
                places.update(picked)
    return decided, tuple(sorted(places))


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _picked(graph: Graph, name: str, depends: set[str]) -> list[int] | None:
    """The elements of the input that the value ``name`` consists of; None where it is more than that."""
    wanted, leading = {name}, list[GraphNode]()
    for node in reversed(graph.nodes):
        if not wanted.isdisjoint(node.outputs):
            leading.append(node)
            wanted.update(node.inputs)
    moves = ("Gather", "Slice", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten")
    if any(node.op not in moves for node in leading if not depends.isdisjoint(node.outputs)):
        return None
    try:
        part = replace(graph, outputs=(name,), nodes=tuple(reversed(leading)))
        network = Translation(part, handlers.traced(), handlers.constant()).network()
    except (InputError, UnsupportedError):
        return None
    if not all(isinstance(node.op, Gather | Reshape) for node in network.nodes[1:]):
        return None
    size = network.nodes[0].size
    numbers = torch.arange(1, size + 1, dtype=torch.float64).view(1, *network.input_shape)
    chosen = network(numbers).flatten().long() - 1
    return None if bool((chosen < 0).any()) else [int(i) for i in chosen]


def _between(graph: Graph, decided: set[str]) -> tuple[str, ...]:
    """The values that whole numbers decide, and that others are computed with."""
    read = [name for node in graph.nodes if decided.isdisjoint(node.outputs) for name in node.inputs]
    return tuple(dict.fromkeys(name for name in (*read, *graph.outputs) if name in decided))


def _ending_in(model: ModelProto, names: Sequence[str]) -> bytes:
    """The model with these values for its outputs."""
    from onnx import ModelProto, ValueInfoProto

    other = ModelProto()
    other.CopyFrom(model)
    del other.graph.output[:]
    other.graph.output.extend(ValueInfoProto(name=name) for name in names)
    content: bytes = other.SerializeToString()
    return content


def _values(chooser: Runtime, x: Tensor) -> list[Tensor]:
    """What the chooser's model gives at one sample (inputs), in the shapes that the model gives them."""
    (port,) = chooser.inputs
    session = chooser.session
    try:
        values = session.run(list(chooser.names), {port.name: x.reshape(port.shape).numpy()})
    except Exception as error:  # the runtime has a dozen kinds of its own
        raise UnsupportedError("the model has no answer for some of the whole numbers among its inputs") from error
    return [torch.from_numpy(value) for value in values]
