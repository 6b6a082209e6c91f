"""Labels and whole numbers computed from the input: read as they run, or as scores where they are the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from assay.attacks.pgd import PGD
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box
from assay.verify.core.result import Reason, Verdict
from assay.verify.core.spec import Spec
from assay.verify.frontends.agreement import agree_on
from assay.verify.frontends.labels import WHOLE, of_scores
from assay.verify.frontends.onnx.read import decode, read_onnx
from assay.verify.registry import get_bounder, get_verifier
from assay.verify.solving.auto import solve
from assay.verify.solving.falsifier import Falsifier
from tests.verify.frontends.onnx_files import ints, model, numbers, save

NODE = helper.make_node
TYPES = (TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)


def typed(proto: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    """The model with its output of another type."""
    proto.graph.output[0].type.tensor_type.elem_type = kind
    return proto


def whole_numbers(kind: str) -> onnx.ModelProto:
    """A model on (1 x 3 x 4) that computes whole numbers and answers with numbers."""
    to, out = TensorProto.FLOAT, [NODE("Cast", ["a"], ["y"], to=TensorProto.FLOAT)]
    place = [NODE("ArgMax", ["x"], ["p"], axis=2, keepdims=1)]
    constants = {"one": ints(1), "depth": np.int64(4), "values": np.array([-1, 3]), "t": np.array(2.0, np.float32)}
    rows = numbers(0, 4).round() * 10
    nodes: dict[str, list[onnx.NodeProto]] = {
        "first": [NODE("ArgMax", ["x"], ["a"], axis=1), *out],
        "last": [NODE("ArgMax", ["x"], ["a"], axis=-1, select_last_index=1, keepdims=0), *out],
        "smallest": [NODE("ArgMin", ["x"], ["a"], axis=2), *out],
        "one-hot": [*place, NODE("OneHot", ["p", "depth", "values"], ["a"], axis=1), *out],
        "from the end": [
            NODE("Cast", ["x"], ["p"], to=TensorProto.INT64),
            NODE("OneHot", ["p", "depth", "values"], ["a"]),
            *out,
        ],
        "equal": [*place, NODE("Equal", ["p", "one"], ["a"]), *out],
        "sum": [*place, NODE("Sub", ["p", "one"], ["q"]), NODE("ReduceSum", ["q", "axes"], ["a"], keepdims=0), *out],
        "narrower": [*place, NODE("Cast", ["p"], ["a"], to=TensorProto.INT32), *out],
        "truth": [*place, NODE("Cast", ["p"], ["a"], to=TensorProto.BOOL), *out],
        "floats": [NODE("Round", ["x"], ["p"]), NODE("Equal", ["p", "t"], ["a"]), *out],
        "classes": [
            NODE("ArgMax", ["x"], ["p"], axis=2, keepdims=0),
            NODE("ArrayFeatureExtractor", ["rows", "p"], ["y"], domain="ai.onnx.ml"),
        ],
    }
    used = {name for node in nodes[kind] for name in node.input}
    given = {n: c for n, c in {**constants, "axes": ints(1), "rows": rows[None]}.items() if n in used}
    proto = model(nodes[kind], (1, 3, 4), given, opset=13)
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    return typed(proto, to)


KINDS = ("first", "last", "smallest", "one-hot", "from the end", "equal", "sum", "narrower", "truth", "floats")


@pytest.mark.parametrize("kind", [*KINDS, "classes"])
def test_whole_numbers_are_read_as_they_run(kind: str) -> None:
    proto = whole_numbers(kind)
    network = decode(proto.SerializeToString(), "file", "file")
    draws = torch.randn(40, 3, 4, generator=torch.Generator().manual_seed(0))
    x = torch.cat([draws * 2, draws.round(), (draws * 2).trunc()])  # with ties, and on jumps
    assert network.oracle is not None
    true = network.oracle(x).flatten(1)
    assert torch.equal(network(x.double()).flatten(1), true.double())
    assert len(true.unique()) > 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["ibp", "crown"])
def test_bounds_of_whole_numbers_hold(kind: str, method: str) -> None:
    network = decode(whole_numbers(kind).SerializeToString(), "file", "file")
    generator = torch.Generator().manual_seed(1)
    centre = torch.randn(6, *network.input_shape, generator=generator, dtype=torch.float64).round()
    radius = torch.tensor([0.0, 0.02, 0.2, 0.7, 1.0, 2.0], dtype=torch.float64).view(6, 1, 1)
    rows = torch.eye(network.output_size, dtype=torch.float64)
    for low, high in zip(centre - radius, centre + radius, strict=True):
        bounds = get_bounder(method).bound(network, Box(low, high), rows, Budget(60))
        share = torch.rand(60, *low.shape, generator=generator, dtype=torch.float64)
        share[:20] = share[:20].round()
        y = network(low + share * (high - low)).flatten(1)
        assert bool((y >= bounds.lower - 1e-9).all() and (y <= bounds.upper + 1e-9).all())


def classifier(nodes: Sequence[onnx.NodeProto], kind: int = TensorProto.INT64) -> onnx.ModelProto:
    """A model of five inputs and four scores "s", from which ``nodes`` make a label "y"."""
    scores = [
        NODE("Gemm", ["x", "v"], ["h"]),
        NODE("Relu", ["h"], ["r"]),
        NODE("Gemm", ["r", "w"], ["s"]),
        *nodes,
    ]
    constants = {"v": numbers(3, 5, 7), "w": numbers(4, 7, 4), "flat": ints(-1), "names": np.array([[7, 3, 5, 9]])}
    used = {name for node in scores for name in node.input}
    proto = model(scores, ("N", 5), {n: c for n, c in constants.items() if n in used}, opset=13)
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    return typed(proto, kind)


LABEL = [NODE("ArgMax", ["s"], ["y"], axis=1)]
NAMED = [
    NODE("Softmax", ["s"], ["q"], axis=1),
    NODE("ArgMax", ["q"], ["p"], axis=1),
    NODE("ArrayFeatureExtractor", ["names", "p"], ["n"], domain="ai.onnx.ml"),
    NODE("Reshape", ["n", "flat"], ["f"]),
    NODE("Cast", ["f"], ["y"], to=TensorProto.FLOAT),
]


def text(box: Tensor, rows: str) -> str:
    """A property about a label over a box (2 x 5)."""
    declared = "".join(f"(declare-const X_{i} Real)" for i in range(5)) + "(declare-const Y_0 Real)"
    bounds = "".join(f"(assert (>= X_{i} {a:.6f}))(assert (<= X_{i} {b:.6f}))" for i, (a, b) in enumerate(box.T))
    return declared + bounds + f"(assert {rows})"


@pytest.mark.parametrize(("nodes", "names"), [(LABEL, (0, 1, 2, 3)), (NAMED, (7, 3, 5, 9))])
def test_a_label_that_is_the_answer_is_verified_by_its_scores(
    tmp_path: Path, nodes: list[onnx.NodeProto], names: tuple[int, ...]
) -> None:
    kind = TensorProto.INT64 if nodes is LABEL else TensorProto.FLOAT
    net, prop = save(tmp_path, classifier(nodes, kind)), tmp_path / "prop.vnnlib"
    network = read_onnx(net)
    assert (network.readout, network.output_size) == ("argmax", 4)
    assert [node.op.label for node in network.nodes] == ["Input", "Linear", "Relu", "Linear"]
    x = torch.randn(1, 5, generator=torch.Generator().manual_seed(2))
    place = int(network(x).argmax())
    label = names[place]
    assert network.oracle is not None
    assert network.oracle(x).argmax() == place
    near = torch.stack([x[0] - 1e-3, x[0] + 1e-3])
    far = torch.stack([x[0] - 3, x[0] + 3])
    for box, rows, verdict in (
        (near, f"(<= Y_0 {label - 1})", Verdict.VERIFIED),
        (near, f"(or (<= Y_0 {label - 0.5}) (>= Y_0 {label + 0.5}))", Verdict.VERIFIED),
        (near, f"(and (<= Y_0 {label + 0.5}) (>= Y_0 {label}))", Verdict.FALSIFIED),
        (far, f"(or (<= Y_0 {label - 1}) (>= Y_0 {label + 1}))", Verdict.FALSIFIED),
    ):
        prop.write_text(text(box, rows))
        (problem,) = Problem.from_files(net, prop)
        if rows == f"(<= Y_0 {label - 1})" and not problem.spec.disjuncts:
            continue  # the least label: nothing is unsafe
        assert solve(problem, Budget(20)).verdict is verdict, rows
    with pytest.raises(UnsupportedError, match="answers with a label"):
        Problem(network, Box(*near), Spec.halfspaces([[1.0, 0, 0, 0]], [0.0]))
    prop.write_text(
        text(near, "(<= Y_0 0)").replace("(declare-const Y_0", "(declare-const Y_1 Real)(declare-const Y_0")
    )
    with pytest.raises(InputError, match="speaks of 5 inputs and 2 outputs"):
        Problem.from_files(net, prop)


def test_labels_as_scores_at_ties() -> None:
    """The first of the largest scores is the label."""
    spec = of_scores(Spec.halfspaces([[1.0]], [1.5]), (0.0, 1.0, 2.0))  # labels 0 and 1 are unsafe
    scores = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1], [1, 0, 1], [2, 3, 1]], dtype=torch.float64)
    assert [bool(spec.violated(y[None])) for y in scores] == [True, True, False, True, True]


class Labels(nn.Module):
    """Five inputs to a label, by ``end``."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layers, self.end = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), end

    def forward(self, x: Tensor) -> Tensor:
        """(batch x 5) to labels."""
        return self.end(self.layers(x))


@pytest.mark.parametrize(
    "end",
    [
        lambda y: y.argmax(1),
        lambda y: y.softmax(-1).argmax(-1, keepdim=True),
        lambda y: (-y).argmin(1),
    ],
)
def test_modules_that_answer_with_a_label(end: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    module = Labels(end).eval()
    network, x = to_network(module, (5,)), torch.rand(5)
    label = int(module(x[None]))
    assert network.readout == "argmax"
    near, far = (Problem.robustness(module, x, label, eps) for eps in (0.01, 1.0))
    assert get_verifier("crown").verify(near).verdict is Verdict.VERIFIED
    found = solve(far, Budget(20))
    assert found.verdict is Verdict.FALSIFIED
    assert found.counterexample is not None
    assert int(module(found.counterexample[None])) != label


def test_whole_numbers_within_modules() -> None:
    def chosen(y: Tensor) -> Tensor:
        place = y.argmax(1, keepdim=True)
        return y * (place == 1) + (place != 2).float() + place.float()

    torch.manual_seed(1)
    module = Labels(chosen).eval()
    network, x = to_network(module, (5,)), torch.randn(300, 5)
    assert torch.allclose(network(x.double()).float(), module(x), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "factor", "highest", "within"),
    [
        (TensorProto.INT32, 1, 2.0**31, False),
        (TensorProto.INT32, 1, 2.0**30, True),
        (TensorProto.INT32, 100000, 30000.0, False),
        (TensorProto.INT64, 100000, 30000.0, True),
        (TensorProto.INT64, 1, 2.0**63, False),
        (TensorProto.INT16, 100, 320.0, True),
        (TensorProto.INT16, 100, 330.0, False),
        (TensorProto.INT8, 2, 63.0, True),
        (TensorProto.INT8, 2, 64.0, False),
        (TensorProto.UINT8, 2, 127.0, True),
        (TensorProto.UINT8, 2, 128.0, False),
    ],
)
def test_whole_numbers_that_wrap_around_prove_nothing(
    tmp_path: Path, kind: int, factor: int, highest: float, within: bool
) -> None:
    narrow = kind not in (TensorProto.INT32, TensorProto.INT64)  # of which there are no products
    k = np.array(factor, np.float32 if narrow else helper.tensor_dtype_to_np_dtype(kind))
    product, cast = (
        NODE("Mul", ["x" if narrow else "a", "k"], ["b"]),
        NODE("Cast", ["b" if narrow else "x"], ["a"], to=kind),
    )
    last = NODE("Cast", ["a" if narrow else "b"], ["y"], to=TensorProto.FLOAT)
    nodes = [product, cast, last] if narrow else [cast, product, last]
    network = read_onnx(save(tmp_path, model(nodes, [1, 1], {"k": k})))
    box = Box(torch.zeros(network.input_shape).double(), torch.full(network.input_shape, highest).double())
    problem = Problem(network, box, Spec.halfspaces([[1.0]], [-5.0]))
    assert (solve(problem, Budget(1)).verdict is Verdict.VERIFIED) == within
    for method in ("ibp", "crown", "bab", "milp"):
        assert (get_verifier(method).verify(problem).verdict is Verdict.VERIFIED) == within


@pytest.mark.parametrize(
    ("dtype", "factor", "highest", "within"),
    [
        (torch.int32, 100000, 30000.0, False),
        (torch.int32, 100000, 20000.0, True),
        (torch.int16, 100, 320.0, True),
        (torch.int16, 100, 330.0, False),
        (torch.int8, -2, 64.0, True),
        (torch.int8, -2, 65.0, False),
        (torch.uint8, 2, 127.0, True),
        (torch.uint8, 2, 128.0, False),
    ],
)
def test_whole_numbers_within_modules_that_wrap_around(
    dtype: torch.dtype, factor: int, highest: float, within: bool
) -> None:
    class Wrapping(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.to(dtype) * factor).to(x.dtype)

    network = to_network(Wrapping().eval(), (2,))
    box = Box(torch.zeros(2).double(), torch.full((2,), highest).double())
    problem = Problem(network, box, Spec.halfspaces([[1.0 if factor > 0 else -1.0, 0.0]], [-5.0]))
    assert (get_verifier("ibp").verify(problem).verdict is Verdict.VERIFIED) == within
    found = Falsifier(PGD()).verify(problem)  # what the model itself does wrong is told all the same
    assert (found.reason is Reason.UNSUPPORTED, found.verdict is Verdict.VERIFIED) == (False, False)


@pytest.mark.parametrize(("least", "most", "within"), [(0.0, 1.0, False), (0.6, 0.4, True)])
def test_bytes_below_0_prove_nothing(least: float, most: float, within: bool) -> None:
    """0 - 1 is 255 there."""

    class Difference(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            above = (x > 0.5).byte()
            return (above[:, :1] - above[:, 1:]).to(x.dtype)

    network = to_network(Difference().eval(), (2,))
    box = Box(torch.tensor([least, 0.0]).double(), torch.tensor([1.0, most]).double())
    problem = Problem(network, box, Spec.halfspaces([[-1.0]], [-1.5]))
    assert (get_verifier("ibp").verify(problem).verdict is Verdict.VERIFIED) == within


def quantised(dtype: torch.dtype) -> nn.Module:
    """Activations that are rounded to whole numbers of a type and back, as quantised models simulate it."""

    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            ends = torch.iinfo(dtype)
            h = torch.clamp(torch.round(self.first(x) * 40), max(ends.min, -500), min(ends.max, 500)).to(dtype)
            logits: Tensor = self.last(h.to(x.dtype) / 40)
            return logits

    torch.manual_seed(0)
    return Quantised().eval()


@pytest.mark.parametrize("dtype", WHOLE, ids=str)
def test_models_of_clipped_whole_numbers_are_bounded(dtype: torch.dtype) -> None:
    network = to_network(quantised(dtype), (4,))
    region = Box(torch.full((4,), 0.3).double(), torch.full((4,), 0.7).double())
    x = 0.3 + 0.4 * torch.rand(1000, 4, generator=torch.Generator().manual_seed(0))
    assert network.oracle is not None
    y = network.oracle(x).double()
    for name in ("ibp", "crown"):
        bounds = get_bounder(name).bound(network, region, torch.eye(3).double(), Budget(60))
        assert bool(((y >= bounds.lower - 1e-5) & (y <= bounds.upper + 1e-5)).all())
    low = float(get_bounder("crown").bound(network, region, torch.eye(3).double(), Budget(60)).lower[0, 0])
    safe = Problem(network, region, Spec.halfspaces([[1.0, 0.0, 0.0]], [low - 0.1]))
    assert get_verifier("crown").verify(safe).verdict is Verdict.VERIFIED


def test_the_same_operations_on_other_whole_numbers_are_another_network(tmp_path: Path) -> None:
    def read(kind: int) -> str:
        nodes = [NODE("Cast", ["x"], ["c"], to=kind), NODE("Cast", ["c"], ["y"], to=TensorProto.FLOAT)]
        return read_onnx(save(tmp_path, model(nodes, [1, 1], {}))).id

    assert read(TensorProto.INT32) != read(TensorProto.INT64)


def test_where_whole_numbers_wrap_around_nothing_is_compared() -> None:
    class Large(nn.Module):
        def __init__(self, factor: int) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x: Tensor) -> Tensor:
            return ((x * 4096).sum(1, keepdim=True).to(torch.int32) * self.factor).to(x.dtype)

    network = to_network(Large(200_000).eval(), (9,))
    assert float(network(torch.zeros(1, 9, dtype=torch.float64))) == 0.0
    with pytest.raises(UnsupportedError, match="more than their type holds at all of"):
        agree_on(network, torch.ones(3, 9))
