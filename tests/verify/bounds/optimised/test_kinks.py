"""Tests of optimised.kinks: what columns find is what lines of any kind find, on every wiring, and faults show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import pytest
import torch
from torch import Tensor

from assay.verify.bounds import layers
from assay.verify.bounds.backward import matrix
from assay.verify.bounds.optimised import kinks, raised
from assay.verify.bounds.optimised.kinks import Columns, Kinks, Map
from assay.verify.bounds.optimised.raised import OwnRows
from assay.verify.bounds.optimised.slopes import Ascent, Moving
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.network import Network, Node
from assay.verify.core.ops import Add, Conv2d, Input, LeakyRelu, Linear, Relu, Reshape, evaluate
from assay.verify.core.region import LpBall
from tests import nets
from tests.breadth import seeds
from tests.verify.bounds.optimised.test_raised import NETWORKS, ball_about

D = torch.float64
ASCENT = Ascent(6, 0.4, 0.9)
SAME = 1e-3  # of what rows rise
IMAGE = (3, 4, 4)


def summing(seed: int, leak: float = 0.0) -> Network:
    """Sums of two convolutions, of one and its operand, and of dense layers; one value is read by two activations, and
    one by an activation and a sum."""
    draw = nets.generator(seed)

    def part(*shape: int) -> tuple[Tensor, Tensor]:
        weight = torch.randn(*shape, generator=draw, dtype=D) / torch.Size(shape[1:]).numel() ** 0.5
        return 1.5 * weight, torch.randn(shape[0], generator=draw, dtype=D) / 3

    def bend() -> Relu | LeakyRelu:
        return LeakyRelu(leak) if leak else Relu()

    one, two, none = (1, 1), (2, 2), (0, 0)
    nodes = [
        Node(Input(), (), (2, 8, 7)),
        Node(Conv2d(*part(3, 2, 3, 3), one, one), (0,), (3, 8, 7)),
        Node(bend(), (1,), (3, 8, 7)),
        Node(Conv2d(*part(3, 3, 3, 3), two, one), (2,), IMAGE),
        Node(bend(), (3,), IMAGE),
        Node(Conv2d(*part(3, 3, 3, 3), one, one), (4,), IMAGE),
        Node(Conv2d(*part(3, 3, 1, 1), two, none), (2,), IMAGE),
        Node(Add(), (5, 6), IMAGE),
        Node(bend(), (7,), IMAGE),
        Node(Add(), (8, 7), IMAGE),
        Node(bend(), (9,), IMAGE),
        Node(LeakyRelu(0.5), (9,), IMAGE),
        Node(Add(), (10, 11), IMAGE),
        Node(Reshape((48,)), (12,), (48,)),
        Node(Linear(*part(7, 48)), (13,), (7,)),
        Node(bend(), (14,), (7,)),
        Node(Linear(*part(7, 7)), (15,), (7,)),
        Node(Add(), (15, 16), (7,)),
        Node(bend(), (17,), (7,)),
        Node(Linear(*part(4, 7)), (18,), (4,)),
    ]
    return replace(Network(tuple(nodes)), dtype=D)


def bounded(network: Network, samples: int = 3, eps: float = 0.15) -> Relaxed:
    return layers.by_linear_bounds(network, ball_about(network, inf, samples, eps), D)


def asked(relaxed: Relaxed, position: int, count: int = 12) -> tuple[Tensor, Tensor]:
    """Rows of the node at ``position`` (rows x features), and the samples that they belong to, in no order."""
    draw = nets.generator(position)
    coef = torch.randn(count, relaxed.network.nodes[position].size, generator=draw, dtype=D)
    coef[::2] = torch.nn.functional.one_hot(torch.arange(count // 2) % coef.shape[1], coef.shape[1]).to(D)
    return coef, torch.randint(relaxed.samples, (count,), generator=draw)


def on_lines(relaxed: Relaxed, position: int, coef: Tensor, sample: Tensor, found: dict[int, Moving]) -> Tensor:
    """Bounds of the rows by the lines that were found."""
    here = OwnRows.of(relaxed, {position: coef}, sample)
    lines = dict(here.lines)
    for i, moved in found.items():
        lines[i] = raised.in_other_precision(relaxed.network, moved, lines[i], here.operands[i], i)
    return here.region.minimum(here.backward(lines, {}))


def both(relaxed: Relaxed, position: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bounds of rows by columns, by lines of any kind, and before anything is raised."""
    coef, sample = asked(relaxed, position)
    draft, columns = raised.in_float32(relaxed), Kinks.of(relaxed, position)
    assert columns is not None
    found = (
        columns.raised(coef, sample, ASCENT),
        raised.climbed(OwnRows.of(draft, {position: coef}, sample), ASCENT),
        {},
    )
    here, there, before = (on_lines(relaxed, position, coef, sample, lines) for lines in found)
    return here, there, before


def agree(relaxed: Relaxed, position: int) -> bool:
    """Where a value is 0 but for rounding, its sign tells which way a slope goes: so far bounds may differ."""
    here, there, before = both(relaxed, position)
    assert bool((there > before + 1e-4).any())
    return float((here - there).abs().mean()) <= SAME * float((there - before).mean())


@pytest.mark.parametrize("name", ["mlp", "cnn", "leaky"])
def test_bounds_are_those_by_lines_of_any_kind(name: str) -> None:
    relaxed = bounded(NETWORKS[name])
    assert agree(relaxed, len(relaxed.network.nodes) - 1)


@pytest.mark.parametrize("leak", [0.0, 0.2], ids=["", "leaky"])
@seeds(2, of=12)
def test_bounds_through_sums_are_those_by_lines_of_any_kind(leak: float, seeds: range) -> None:
    for seed in seeds:
        relaxed = bounded(summing(seed, leak))
        for position in (7, 9, 14, 17, 19):
            assert agree(relaxed, position)


@pytest.mark.parametrize("samples", [1, 2])
def test_rows_of_the_first_layers_have_nothing_to_raise_or_little(samples: int) -> None:
    relaxed = bounded(summing(1), samples)
    for position in (1, 2, 3):
        here, there, _ = both(relaxed, position)
        torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-5)


def test_the_bound_on_the_way_is_that_of_the_lines() -> None:
    relaxed = bounded(summing(2))
    coef, sample = asked(relaxed, 19)
    columns = Kinks.of(relaxed, 19)
    assert columns is not None
    _, bound = Columns.of(columns, coef, sample).gradient(True)
    assert bound is not None
    torch.testing.assert_close(bound.double(), on_lines(relaxed, 19, coef, sample, {}), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(2))
def test_the_gradient_is_what_bounds_change_by(seed: int) -> None:
    """Along it, where no coefficient changes sign."""
    relaxed = bounded(summing(seed))
    columns = Kinks.of(relaxed, 19)
    assert columns is not None
    climb = Columns.of(columns, *asked(relaxed, 19))
    climb.slope.lerp_((climb.least + climb.most) / 2, 0.5)
    gradient, before = climb.gradient(True)
    # Activations turn where z is 0: the step is small against what else float32 loses.
    step = 1e-3 * gradient / gradient.norm(dim=0)
    climb.slope += step
    after = climb.gradient(True)[1]
    assert before is not None
    assert after is not None
    torch.testing.assert_close(after - before, (gradient * step).sum(0), rtol=0.05, atol=2e-5)


@pytest.mark.parametrize("outputs", [None, [7, 3, 30]], ids=["all", "some"])
@pytest.mark.parametrize("inputs", [None, [50, 2, 31, 30, 6]], ids=["all", "some"])
@pytest.mark.parametrize("kind", ["image", "dense"])
def test_maps_go_both_ways(kind: str, inputs: list[int] | None, outputs: list[int] | None) -> None:
    draw = nets.generator(0)
    op = (
        Conv2d(torch.randn(4, 2, 3, 3, generator=draw), torch.randn(4, generator=draw), (2, 1), (1, 0))
        if kind == "image"
        else Linear(torch.randn(32, 56, generator=draw), torch.randn(32, generator=draw))
    )
    shape = (2, 4, 7) if kind == "image" else (56,)
    node = Node(op, (0,), tuple(evaluate(op, torch.zeros(1, *shape)).shape[1:]))
    places = [None if t is None else torch.tensor(t) for t in (inputs, outputs)]
    x, coef = torch.zeros(5, 56), torch.zeros(5, node.size)
    some, wanted = (torch.arange(n) if p is None else p for n, p in zip((56, node.size), places, strict=True))
    x[:, some], coef[:, wanted] = torch.randn(5, len(some)), torch.randn(5, len(wanted))
    value = evaluate(op, x.view(-1, *shape)).flatten(1)
    for _ in range(2):  # the second time what is kept
        map_ = Map.of(node, shape, *places)
        forth = map_.forth.pull(x[:, some].T.contiguous()) + map_.bias
        torch.testing.assert_close(forth, value[:, wanted].T, rtol=1e-5, atol=1e-5)
        back = map_.back.pull(coef[:, wanted].T.contiguous())
        ours = (back * x[:, some].T).sum(0) + (coef[:, wanted].T * map_.bias).sum(0)
        torch.testing.assert_close(ours, (coef * value).sum(1), rtol=1e-4, atol=1e-4)
    if kind == "image":
        everything = Map.of(node, shape, None, None).forth.pull(x.T.contiguous())
        assert everything.shape[0] == node.size, "what is kept is of other features"


def test_what_is_left_to_lines_of_any_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(network: Network, p: float = inf) -> Kinks | None:
        ball = LpBall(torch.rand(1, *network.input_shape, generator=nets.generator(0)), 0.1, p, None)
        return Kinks.of(layers.by_linear_bounds(network, ball, D), len(network.nodes) - 1)

    assert of(summing(0)) is not None
    assert of(summing(0), 2) is None
    assert all(of(NETWORKS[name]) is None for name in ("tanh", "steep", "pooled", "mixed"))
    monkeypatch.setattr(matrix, "LARGEST", 10)
    assert of(summing(3)) is None


def _gradient(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    original = Columns.gradient

    def spoilt(self: Columns, bounded: bool) -> tuple[Tensor, Tensor | None]:
        gradient, bound = original(self, bounded)
        return change(gradient), bound

    return spoilt


def _begun(change: Callable[[Columns], None]) -> Callable[..., Columns]:
    original = Columns.of.__func__  # type: ignore[attr-defined]

    def spoilt(cls: type[Columns], *rest: Any) -> Columns:
        columns: Columns = original(cls, *rest)
        change(columns)
        return columns

    return classmethod(spoilt)  # type: ignore[return-value]


FAULTS: dict[str, tuple[str, Any]] = {
    "the gradient is flipped": ("gradient", _gradient(torch.neg)),
    "a feature's gradient is another's": ("gradient", _gradient(lambda g: g.roll(1, 0))),
    "a row's gradient is another's": ("gradient", _gradient(lambda g: g.roll(1, 1))),
    "upper lines are lower ones": ("of", _begun(lambda c: c.upper.copy_(c.slope))),
    "heights are dropped": ("of", _begun(lambda c: c.height.zero_())),
    "rows are largest, not least": ("of", _begun(lambda c: c.radius.neg_())),
    "the box is elsewhere": ("of", _begun(lambda c: c.centre.zero_())),
    "tables are another sample's": ("of", _begun(lambda c: c.height.copy_(c.height.roll(1, 1)))),
    "slopes stay where they are": ("move", lambda *rest: None),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No fault makes a bound wrong, which others prove: they make it worse."""
    relaxed = bounded(summing(1), eps=0.25)
    assert agree(relaxed, 19)
    monkeypatch.setattr(kinks.Columns, *FAULTS[name])
    assert not agree(relaxed, 19)
