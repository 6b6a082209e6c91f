"""Tests of bounds.backward.chain: rows of chains and of sums as by columns, in the reals, and what is left to these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor

from assay.verify.backends.crown import CROWN
from assay.verify.bounds import layers
from assay.verify.bounds.backward import chain, layered, ragged
from assay.verify.bounds.backward.ragged import Level
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network, Node
from assay.verify.core.network import chain as chained
from assay.verify.core.ops import Add, Conv2d, Input, LeakyRelu, Linear, Op, Relu, Reshape
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.core.verifier import Bounds
from tests import exact
from tests.breadth import seeds

D, S = torch.float64, torch.float32
DTYPES = pytest.mark.parametrize("dtype", [D, S], ids=["double", "single"])
WIDTHS = (6, 9, 12, 8, 4)


def changed(monkeypatch: pytest.MonkeyPatch, name: str, value: float) -> None:
    """Another value of a constant, wherever it is."""
    (module,) = (module for module in (chain, ragged, layered) if hasattr(module, name))
    monkeypatch.setattr(module, name, value)


@pytest.fixture(autouse=True)
def sums_in_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where chains leave sums to columns they are right, too."""
    monkeypatch.setattr(chain, "SUMMING", {D, S})


def made(seed: int, scale: float = 1.0, widths: tuple[int, ...] = WIDTHS) -> Network:
    """Numbers of float32, so that the network is the same in both precisions."""
    generator = torch.Generator().manual_seed(seed)
    ops: list[Op] = [Reshape((widths[0],))]
    for inputs, outputs in pairwise(widths):
        weight = torch.randn(outputs, inputs, generator=generator) * (scale / inputs**0.5)
        ops += [Linear(weight.double(), (0.3 * torch.randn(outputs, generator=generator)).double()), Relu()]
    return chained((2, widths[0] // 2), ops[:-1])


def asked(seed: int, samples: int = 3, radius: float = 0.2) -> tuple[Box, Tensor]:
    """Boxes, of which some sides have no width, and rows: (samples x 5 x outputs)."""
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(samples, 2, 3, generator=generator)
    width = radius * torch.rand(samples, 2, 3, generator=generator).clamp(min=0.1).sub(0.1)
    objective = torch.randn(samples, 5, WIDTHS[-1], generator=generator).double()
    return Box((middle - width).double(), (middle + width).double()), objective


def imaged(seed: int, scale: float = 1.0) -> Network:
    """Convolutions whose neurons' rows are kept on windows as far as the input, half of the way, and nowhere."""
    generator = torch.Generator().manual_seed(seed)

    def part(*shape: int) -> tuple[Tensor, Tensor]:
        weight = torch.randn(*shape, generator=generator) * (scale / weight_inputs(shape) ** 0.5)
        return weight.double(), (0.3 * torch.randn(shape[0], generator=generator)).double()

    def weight_inputs(shape: tuple[int, ...]) -> int:
        return int(torch.Size(shape[1:]).numel())

    ops: list[Op] = [
        Conv2d(*part(3, 2, 3, 3), (1, 1), (1, 1)),
        Relu(),
        Conv2d(*part(4, 3, 3, 2), (2, 1), (0, 1)),
        Relu(),
        Conv2d(*part(5, 4, 3, 3), (2, 2), (1, 1)),
        Relu(),
        Reshape((40,)),
        Linear(*part(8, 40)),
        Relu(),
        Linear(*part(4, 8)),
    ]
    return chained((2, 8, 7), ops)


def summing(seed: int, scale: float = 1.0) -> Network:
    """Blocks with a shortcut through a convolution, with one past two of them, and with a sum of three as it comes;
    then dense ones with a shortcut of their own."""
    generator = torch.Generator().manual_seed(seed)

    def part(*shape: int) -> tuple[Tensor, Tensor]:
        weight = torch.randn(*shape, generator=generator) * (scale / torch.Size(shape[1:]).numel() ** 0.5)
        return weight.double(), (0.3 * torch.randn(shape[0], generator=generator)).double()

    small, large, image = (1, 1), (2, 2), (3, 4, 4)
    nodes = [
        Node(Input(), (), (2, 8, 7)),
        Node(Conv2d(*part(3, 2, 3, 3), small, small), (0,), (3, 8, 7)),
        Node(Relu(), (1,), (3, 8, 7)),
        Node(Conv2d(*part(3, 3, 3, 3), large, small), (2,), image),
        Node(Relu(), (3,), image),
        Node(Conv2d(*part(3, 3, 3, 3), small, small), (4,), image),
        Node(Conv2d(*part(3, 3, 1, 1), large, (0, 0)), (2,), image),
        Node(Add(), (5, 6), image),
        Node(Relu(), (7,), image),
        Node(Conv2d(*part(3, 3, 3, 3), small, small), (8,), image),
        Node(Add(), (9, 8), image),
        Node(Add(), (10, 7), image),
        Node(Relu(), (11,), image),
        Node(Reshape((48,)), (12,), (48,)),
        Node(Linear(*part(7, 48)), (13,), (7,)),
        Node(Relu(), (14,), (7,)),
        Node(Linear(*part(7, 7)), (15,), (7,)),
        Node(Add(), (15, 16), (7,)),
        Node(Relu(), (17,), (7,)),
        Node(Linear(*part(4, 7)), (18,), (4,)),
    ]
    return Network(tuple(nodes))


def asked_of_images(seed: int, samples: int = 3, radius: float = 0.05) -> tuple[Box, Tensor]:
    """Boxes about images, of which some sides have no width, and rows: (samples x 5 x outputs)."""
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(samples, 2, 8, 7, generator=generator)
    width = radius * torch.rand(samples, 2, 8, 7, generator=generator).clamp(min=0.1).sub(0.1)
    objective = torch.randn(samples, 5, WIDTHS[-1], generator=generator).double()
    return Box((middle - width).double(), (middle + width).double()), objective


def points(box: Box, seed: int, count: int = 24) -> Tensor:
    """Corners and members of a batch's boxes: (count x batch x shape), numbers that float64 holds."""
    share = torch.rand(count, *box.lower.shape, generator=torch.Generator().manual_seed(seed)).double()
    share[: count // 2] = share[: count // 2].round()
    return torch.lerp(box.lower, box.upper, share).clamp(box.lower, box.upper)


def rows(network: Network, box: Box, objective: Tensor, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode():
        lower = chain.lower_rows(network, box, objective, dtype, Budget())
    assert lower is not None
    return lower.double()


def by_columns(network: Network, box: Box, objective: Tensor, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode():
        return layers.rows_by_linear_bounds(network, box, objective, dtype)[1].double()


def excess(network: Network, box: Box, objective: Tensor, lower: Tensor, seed: int) -> float:
    """By how much a bound is above what the objective is worth at some point, at most."""
    least = torch.full_like(lower, torch.inf)
    for x in points(box, seed, 200):
        least = torch.minimum(least, (objective @ network(x)[..., None])[..., 0])
    return (lower - least).amax().item()


@seeds(6, of=40)
def test_bounds_are_those_by_columns(seeds: range) -> None:
    for seed in seeds:
        network, (box, objective) = made(seed), asked(seed)
        torch.testing.assert_close(
            rows(network, box, objective, D), by_columns(network, box, objective, D), rtol=1e-10, atol=1e-10
        )


@DTYPES
@seeds(3, of=20)
def test_bounds_through_convolutions_are_those_by_columns(
    dtype: torch.dtype, seeds: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where both sides of all neurons are bounded at once; in turn, either may know more of what nobody reads."""
    for seed in seeds:
        network, (box, objective) = imaged(seed), asked_of_images(seed)
        assert excess(network, box, objective, rows(network, box, objective, dtype), seed) <= 0
        with monkeypatch.context() as patch:
            patch.setattr(chain, "FEW_DEAR", 1 << 20)
            here, there = rows(network, box, objective, dtype), by_columns(network, box, objective, dtype)
        close = 1e-9 if dtype == D else 2e-3
        torch.testing.assert_close(here, there, rtol=close, atol=close)


@DTYPES
@pytest.mark.parametrize(
    "changes", [{}, {"CUTTING": 0}, {"SMALL": 9.0}, {"SMALL": 0.0, "CUTTING": 0}], ids=["", "cut", "windows", "none"]
)
@seeds(2, of=8)
def test_bounds_through_sums_are_those_by_columns(
    changes: dict[str, float], dtype: torch.dtype, seeds: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FEW_DEAR": 1 << 20, **changes}.items():
        changed(monkeypatch, name, value)
    for seed in seeds:
        for radius, scale in ((0.05, 1.0), (0.2, 2.0)):
            network, (box, objective) = summing(seed, scale), asked_of_images(seed, radius=radius)
            here, there = rows(network, box, objective, dtype), by_columns(network, box, objective, dtype)
            assert excess(network, box, objective, here, seed) <= 0
            close = 1e-9 if dtype == D else 5e-2  # of which rounding takes more by columns
            torch.testing.assert_close(here, there, rtol=close, atol=close)


@seeds(1, of=6)
def test_real_values_of_sums_are_above(seeds: range) -> None:
    for seed in seeds:
        for radius in (0.0, 0.3):
            network, (box, objective) = summing(seed, 2.0), asked_of_images(seed, 1, radius)
            lower = {dtype: rows(network, box, objective, dtype)[0].tolist() for dtype in (D, S)}
            (x,) = points(box, seed, 1)[0]
            y = exact.values(network, x)[-1]
            for number, row in enumerate(objective[0].tolist()):
                value = sum((Fraction(c) * v for c, v in zip(row, y, strict=True)), Fraction(0))
                assert all(Fraction(bounds[number]) <= value for bounds in lower.values())
                if not radius:
                    assert lower[D][number] >= float(value) - 1e-9


def test_sums_in_float64_are_left_to_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    network, (box, objective) = summing(1), asked_of_images(1)
    monkeypatch.undo()
    assert chain.lower_rows(network, box, objective, D, Budget()) is None
    assert chain.lower_rows(network, box, objective, S, Budget()) is not None


def test_neurons_of_sums_hold_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each layer and sum, what is known of it when it is bounded by rows."""
    network, (box, objective) = summing(3, 1.5), asked_of_images(3, radius=0.1)
    met, found = chain._met, dict[int, Bounds]()

    def noted(below: chain.Below, position: int, known: chain.Known) -> Bounds | None:
        z = met(below, position, known)
        assert z is not None
        found[position] = Bounds(z.lower.clone(), z.upper.clone())
        return z

    monkeypatch.setattr(chain, "_met", noted)
    rows(network, box, objective, D)
    assert list(found) == [3, 7, 11, 14, 17]
    for x in points(box, 3, 200):
        values = network.values(x)
        for position, z in found.items():
            value = values[position].flatten(1)
            assert bool(((z.lower <= value) & (value <= z.upper)).all())


@DTYPES
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("reshaped", [False, True])
@seeds(2, of=20)
def test_rows_whose_windows_grow_too_wide_go_through_each_layer_once(
    channels: int, reshaped: bool, dtype: torch.dtype, seeds: range
) -> None:
    """As large as the input, or not; the first layer may be dense."""
    for seed in seeds:
        draw = torch.Generator().manual_seed(seed)

        def part(*shape: int, draw: torch.Generator = draw) -> tuple[Tensor, Tensor]:
            scale = torch.Size(shape[1:]).numel() ** -0.5
            return (torch.randn(*shape, generator=draw) * scale).double(), torch.randn(
                shape[0], generator=draw
            ).double()

        first: list[Op] = (
            [Reshape((49,)), Linear(*part(49 * channels, 49)), Relu(), Reshape((channels, 7, 7))]
            if reshaped
            else [Conv2d(*part(channels, 1, 3, 3), (1, 1), (1, 1)), Relu()]
        )
        rest: list[Op] = [
            Conv2d(*part(3, channels, 3, 3), (1, 1), (1, 1)),
            Relu(),
            Reshape((147,)),
            Linear(*part(4, 147)),
        ]
        network, middle = chained((1, 7, 7), first + rest), torch.randn(2, 1, 7, 7, generator=draw).double()
        box, objective = Box(middle - 0.25, middle + 0.25), torch.randn(2, 5, 4, generator=draw).double()
        close = 1e-9 if dtype == D else 2e-3
        here, there = rows(network, box, objective, dtype), by_columns(network, box, objective, dtype)
        torch.testing.assert_close(here, there, rtol=close, atol=close)
        assert excess(network, box, objective, here, seed) <= 0


@seeds(1, of=6)
def test_real_values_of_convolutions_are_above(seeds: range) -> None:
    for seed in seeds:
        network, (box, objective) = imaged(seed, 2.0), asked_of_images(seed, 1, 0.3)
        lower = {dtype: rows(network, box, objective, dtype)[0].tolist() for dtype in (D, S)}
        (x,) = points(box, seed, 1)[0]
        y = exact.values(network, x)[-1]
        for number, row in enumerate(objective[0].tolist()):
            value = sum((Fraction(c) * v for c, v in zip(row, y, strict=True)), Fraction(0))
            assert all(Fraction(bounds[number]) <= value for bounds in lower.values())


@DTYPES
def test_a_point_s_bounds_through_convolutions_are_its_values(dtype: torch.dtype) -> None:
    network, (box, objective) = imaged(1), asked_of_images(1, 2, 0.0)
    value = (objective @ network(box.lower)[..., None])[..., 0]
    lower = rows(network, box, objective, dtype)
    assert bool((lower <= value).all())
    torch.testing.assert_close(lower, value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [{"SMALL": 0.0}, {"SMALL": 9.0}, {"CUTTING": 0, "KEPT": 9.0}, {"CUTTING": 0, "KEPT": 9.0, "SMALL": 0.0},
     {"MANY": 400, "ENOUGH": 1}, {"BLOCK": 900}, {"SUMMED": 3}],
    ids=["no-windows", "windows", "cut", "cut-no-windows", "pieces", "pieces-at-input", "short-blocks"],
)  # fmt: skip
def test_how_rows_are_kept_changes_nothing(changes: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    network, (box, objective) = imaged(2, 2.0), asked_of_images(2)
    whole = rows(network, box, objective, D)
    for name, value in changes.items():
        changed(monkeypatch, name, value)
    torch.testing.assert_close(rows(imaged(2, 2.0), box, objective, D), whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("few", [0, 999])
def test_one_side_first_or_both_at_once(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, (box, objective) = imaged(3, 2.0), asked_of_images(3)
    monkeypatch.setattr(chain, "FEW_DEAR", few)
    here = rows(network, box, objective, D)
    torch.testing.assert_close(here, by_columns(network, box, objective, D), rtol=1e-3, atol=1e-3)
    assert excess(network, box, objective, here, 3) <= 0


@seeds(6, of=40)
def test_float32_loses_a_little_and_no_more_than_by_columns(seeds: range) -> None:
    for seed in seeds:
        network, (box, objective) = made(seed), asked(seed)
        single, double = (rows(network, box, objective, dtype) for dtype in (S, D))
        assert bool((single <= double + 1e-12).all())
        assert bool((single >= double - 1e-3 * (1 + double.abs())).all())
        assert bool((single >= by_columns(network, box, objective, S) - 1e-5).all())


@DTYPES
@seeds(2, of=20)
def test_real_values_are_above(dtype: torch.dtype, seeds: range) -> None:
    for seed in seeds:
        for radius, scale in ((0.0, 1.0), (0.3, 1.0), (0.1, 8.0)):
            network, (box, objective) = made(seed, scale), asked(seed, 2, radius)
            lower = rows(network, box, objective, dtype)
            for batch in points(box, seed, 4):
                for sample, x in enumerate(batch):
                    y = exact.values(network, x)[-1]
                    for row, bound in zip(objective[sample].tolist(), lower[sample].tolist(), strict=True):
                        value = sum((Fraction(c) * v for c, v in zip(row, y, strict=True)), Fraction(0))
                        assert Fraction(bound) <= value


@seeds(5, of=30)
def test_the_least_value_of_one_input_is_not_passed(seeds: range) -> None:
    """Of one input the least value is at an end or at a kink, which bisection finds among very many points."""
    for seed in seeds:
        network = made(seed, 2.0, (2, 5, 5, 2))
        box = Box(torch.tensor([[[-1.0], [0.5]]], dtype=D), torch.tensor([[[1.5], [0.5]]], dtype=D))
        network = chained((2, 1), [node.op for node in network.nodes[1:]])
        x = torch.linspace(-1.0, 1.5, 4001, dtype=D)[:, None, None].expand(-1, 2, 1).clone()
        x[:, 1] = 0.5
        for dtype in (D, S):
            lower = rows(network, box, torch.eye(2, dtype=D)[None], dtype)
            assert bool((lower[0] <= network(x).amin(0)).all())


@DTYPES
def test_a_batch_is_bounded_as_its_samples_are(dtype: torch.dtype) -> None:
    network, (box, objective) = made(3, 2.0), asked(3, 9)
    each = [rows(network, Box(low[None], high[None]), row[None], dtype) for low, high, row in zip(
        box.lower, box.upper, objective, strict=True)]  # fmt: skip
    close = 1e-10 if dtype == D else 1e-4
    torch.testing.assert_close(rows(network, box, objective, dtype), torch.cat(each), rtol=close, atol=close)


@pytest.mark.parametrize(
    ("name", "value"), [("BLOCK", 1), ("BLOCK", 200), ("MANY", 30), ("FEW_ROWS", 0), ("FEW_ROWS", 999)]
)
def test_pieces_and_sides_change_nothing(name: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, (box, objective) = made(4, 2.0), asked(4, 7)
    whole = rows(network, box, objective, D)
    changed(monkeypatch, name, value)
    torch.testing.assert_close(rows(network, box, objective, D), whole, rtol=1e-10, atol=1e-10)


def test_little_memory_changes_nothing() -> None:
    network, (box, objective) = made(5, 2.0), asked(5, 4)
    little = chain.lower_rows(network, box, objective, D, Budget(memory=1))
    assert little is not None
    torch.testing.assert_close(little, rows(network, box, objective, D), rtol=1e-10, atol=1e-10)


@DTYPES
def test_layers_of_which_nothing_is_active(dtype: torch.dtype) -> None:
    network, (box, objective) = made(6), asked(6)
    for dead in (2, 4):
        ops = [node.op for node in network.nodes[1:]]
        linear = ops[dead - 1 if isinstance(ops[dead - 1], Linear) else dead]
        assert isinstance(linear, Linear)
        ops[ops.index(linear)] = replace(linear, bias=linear.bias - 1e3)
        still = chained(network.input_shape, ops)
        value = (objective @ still(box.lower)[..., None])[..., 0]
        assert bool((rows(still, box, objective, dtype) <= value).all())
        torch.testing.assert_close(rows(still, box, objective, dtype), value, rtol=1e-4, atol=1e-4)


@DTYPES
def test_one_layer_of_which_nothing_is_active(dtype: torch.dtype) -> None:
    first = Linear(torch.ones(3, 6, dtype=D), torch.full((3,), -99.0, dtype=D))
    last = Linear(torch.ones(4, 3, dtype=D), torch.arange(4.0, dtype=D))
    network, (box, objective) = chained((2, 3), [Reshape((6,)), first, Relu(), last]), asked(6)
    lower, value = rows(network, box, objective, dtype), (objective @ last.bias[:, None])[..., 0]
    assert bool((lower <= value).all())
    torch.testing.assert_close(lower, value, rtol=1e-4, atol=1e-4)


def _spoilt(change: Callable[[Tensor], None]) -> Callable[[Level], Level]:
    def spoil(level: Level) -> Level:
        table = level.table.clone()
        change(table)
        return replace(level, table=table)

    return spoil


def _turned(times: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A matrix that takes each output's row for the next one's."""
    return lambda below, position, rows, kept: times(below, position, replace(rows, coef=rows.coef.roll(1, 0)), kept)


def _dropped(times: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda below, position, rows, kept: times(below, position, rows, kept).index_fill(0, torch.tensor([0]), 0.0)


FAULTS: dict[str, Callable[[Level], Level]] = {
    "the upper line is the lower one": _spoilt(lambda t: t[1::2].zero_()),
    "the upper line's constant is dropped": _spoilt(lambda t: t[3].zero_()),
    "the constant below is flipped": _spoilt(lambda t: t[2].neg_()),
    "the constant below is dropped": _spoilt(lambda t: t[2].zero_()),
    "lines are exchanged": _spoilt(lambda t: t[:2].copy_(torch.stack([t[0] + t[1], -t[1]]))),
    "lines are another sample's": _spoilt(lambda t: t.copy_(t.roll(1, 1))),
}
SPOILT: dict[str, Callable[[Callable[..., Tensor]], Callable[..., Tensor]]] = {
    "weights are stale": _turned,
    "a coefficient is dropped": _dropped,
}


@pytest.mark.parametrize("kind", ["dense", "images", "sums"])
@pytest.mark.parametrize("name", [*FAULTS, *SPOILT])
def test_faults_are_found(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def worst(enough: float) -> float:
        found = [-torch.inf]
        for seed, radius in product(range(6), {"dense": (0.2,), "images": (0.02,), "sums": (0.02, 0.15, 0.4)}[kind]):
            network = {"dense": partial(made, scale=2.0), "images": imaged, "sums": summing}[kind](seed)
            box, objective = (asked if kind == "dense" else asked_of_images)(seed, radius=radius)
            lower = chain.lower_rows(network, box, objective, D, Budget())
            # Intervals that cross tell of a fault, too.
            found.append(1.0 if lower is None else excess(network, box, objective, lower, seed))
            if found[-1] > enough:
                break
        return max(found)

    assert worst(0) <= 0
    if name in FAULTS:
        monkeypatch.setattr(chain, "Level", lambda *args: FAULTS[name](Level(*args)))
    else:
        monkeypatch.setattr(chain.Below, "_times", SPOILT[name](chain.Below._times))
    assert worst(1e-3) > 1e-3


@pytest.mark.parametrize("name", ["lost", "constant"])
def test_a_path_of_a_sum_that_is_dropped_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a point, whose bounds are its values but for rounding."""
    network, (box, objective) = summing(1), asked_of_images(1, 2, 0.0)
    value, summed = (objective @ network(box.lower)[..., None])[..., 0], chain._sum
    whole = rows(network, box, objective, D)

    def spoilt(of: chain.Chain, operands: Sequence[chain.Known]) -> chain.Known:
        known = summed(of, operands)
        return replace(known, **{name: torch.zeros_like(getattr(known, name))})

    monkeypatch.setattr(chain, "_sum", spoilt)
    lower = chain.lower_rows(network, box, objective, D, Budget())
    assert bool((whole <= value).all())
    if name == "lost":  # which rows then do not lose
        assert lower is not None
        assert bool((lower > whole).any())
    else:
        assert lower is None or bool((lower > value + 1e-3).any())


def test_a_sum_loses_what_both_of_its_operands_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    network, (box, objective) = summing(1), asked_of_images(1)
    summed, seen = chain._sum, list[bool]()

    def noted(of: chain.Chain, operands: Sequence[chain.Known]) -> chain.Known:
        known, (a, b) = summed(of, operands), operands
        seen.append(bool((known.lost > a.lost + b.lost).all()))
        return known

    monkeypatch.setattr(chain, "_sum", noted)
    rows(network, box, objective, D)
    assert seen == [True] * 4


@DTYPES
def test_intervals_are_charged_for_all_products_of_a_sum(dtype: torch.dtype) -> None:
    """Those of the middle and of the radius each."""
    of = layered.chain_of(summing(1).to(dtype))
    assert of is not None
    for layer in of.layers.values():
        products = layer.op.weight[0].numel()
        assert layer.wide > 2 * products * torch.finfo(dtype).eps / 2


def test_a_radius_that_is_too_small_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    network, (box, objective) = made(1, 2.0), asked(1)
    halves = chain.middle_and_radius
    monkeypatch.setattr(chain, "middle_and_radius", lambda box: (halves(box)[0], halves(box)[1] / 4))
    lower = chain.lower_rows(network, box, objective, D, Budget())
    assert lower is None or excess(network, box, objective, lower, 1) > 1e-3


def test_what_is_left_to_others() -> None:
    network, (box, objective) = made(7), asked(7)
    first = network.nodes[2].op
    assert isinstance(first, Linear)
    leaky = chained(
        (2, 3), [Reshape((6,)), first, LeakyRelu(0.1), Linear(torch.eye(9).double(), torch.zeros(9).double())]
    )
    affine = chained((2, 3), [Reshape((6,)), first])
    for other in (leaky, affine):
        nine = torch.eye(9, dtype=D).expand(3, 9, 9)
        assert chain.lower_rows(other, box, nine, D, Budget()) is None
    ball = LpBall(box.centre, 0.1, 2, None)
    assert chain.lower_rows(network, ball, objective, D, Budget()) is None
    assert chain.lower_rows(network, LpBall(box.centre, 0.1, torch.inf, None), objective, D, Budget()) is not None
    assert chain.lower_rows(network, box, objective, D, Budget(seconds=0).started()) is None


@DTYPES
def test_numbers_out_of_the_ordinary_are_left_to_others(dtype: torch.dtype) -> None:
    network, (box, objective) = made(8), asked(8)
    for factor in (2.0**45, 2.0**120) if dtype == S else (2.0**850, 2.0**1000):
        big = Box(box.lower * factor, box.upper * factor)
        assert chain.lower_rows(network, big, objective, dtype, Budget()) is None
    nothing = objective.clone()
    nothing[1, 2, 0] = torch.nan
    assert chain.lower_rows(network, box, nothing, dtype, Budget()) is None


def test_float32_of_no_use_is_left_to_others() -> None:
    """What rounding takes of a row is more than is left open of what is 0 but for rounding."""
    zero = torch.tensor([[1.0, -1.0]], dtype=D).repeat(600, 1)
    ops = [
        Linear(torch.ones(2, 1, dtype=D), torch.zeros(2, dtype=D)),
        Relu(),
        Linear(zero, torch.zeros(600, dtype=D)),
        Relu(),
        Linear(torch.ones(1, 600, dtype=D), torch.zeros(1, dtype=D)),
    ]
    box, one = Box(torch.ones(1, 1, dtype=D), torch.ones(1, 1, dtype=D)), torch.ones(1, 1, 1, dtype=D)
    assert chain.lower_rows(chained((1,), ops), box, one, S, Budget()) is None
    assert abs(rows(chained((1,), ops), box, one, D).item()) < 1e-9


def test_many_samples_of_dense_layers_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """And in groups where that fails."""
    network, (box, objective), seen, refused = made(9), asked(9, 7), list[int](), set[int]()
    whole, lower_rows = rows(network, box, objective, D), chain.lower_rows

    def noted(network: Network, region: Region, objective: Tensor, *rest: Any) -> Tensor | None:
        seen.append(len(objective))
        return None if len(objective) in refused else lower_rows(network, region, objective, *rest)

    monkeypatch.setattr(chain, "lower_rows", noted)
    assert chain.samples_together(imaged(9), D) == 0
    for groups in [7], [7, 3, 3, 1]:
        seen.clear()
        lower = CROWN(group=3).lower(network, box, objective, Budget())
        assert seen == groups
        torch.testing.assert_close(lower, whole, rtol=1e-10, atol=1e-10)
        refused.add(7)


@DTYPES
def test_crown_takes_it(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    network, (box, objective) = made(10), asked(10)
    name = "float64" if dtype == D else "float32"
    here = rows(network, box, objective, dtype)
    torch.testing.assert_close(CROWN(dtype=name).lower(network, box, objective, Budget()), here, rtol=0, atol=0)
    monkeypatch.setattr(chain, "lower_rows", lambda *_: None)
    there = CROWN(dtype=name).lower(network, box, objective, Budget())
    torch.testing.assert_close(there, here, rtol=2e-4, atol=2e-4)
