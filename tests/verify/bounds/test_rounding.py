"""Tests of verify.bounds.rounding: bounds by intervals and by linear functions hold in the reals, tolerance 0."""

from __future__ import annotations

from fractions import Fraction
from math import inf, isnan

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from assay.verify.backends.alpha_crown import AlphaCROWN
from assay.verify.backends.crown import CROWN
from assay.verify.backends.crown_ibp import CROWNIBP
from assay.verify.backends.ibp import IBP
from assay.verify.bounds import layers
from assay.verify.bounds.backward.group import Group
from assay.verify.bounds.relaxations.relax import relax
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.bounds.rounding import Rounding, largest, worst
from assay.verify.core.budget import Budget
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, chain, to_network
from assay.verify.core.ops import Conv2d, Gather, LeakyRelu, Linear, Op, Relu, Scale, evaluate
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.core.result import Verdict
from assay.verify.core.roundings import magnitude, terms
from assay.verify.core.spec import Spec
from assay.verify.core.verifier import Bounds, Verifier
from assay.verify.support.floats import gamma
from tests import exact, nets
from tests.breadth import seeds, slow
from tests.contract.graphs import eye, members, random_box, random_graph
from tests.verify.bounds.test_rigorous import branched, image_ops, magnified

DTYPES = "float64", "float32"
METHODS = [CROWN(), CROWNIBP(), IBP(), AlphaCROWN(steps=2), *(m(dtype="float32") for m in (CROWN, CROWNIBP, IBP))]


def assert_holds(network: Network, region: Region, points: Tensor) -> None:
    """Real values at ``points`` lie within the output's bounds by each method, and within the bounds of all nodes that
    linear relaxations are made of."""
    values = [exact.values(network, x) for x in points]
    for method in METHODS:
        bounds = method.bound(network, region, eye(network), Budget())
        _contain(bounds, [v[-1] for v in values], repr(method))
    for dtype in (torch.float64, torch.float32):
        relaxed = layers.by_linear_bounds(network, layers.batch_box(region, network.input_shape), dtype)
        for position, bounds in enumerate(relaxed.bounds):
            _contain(bounds, [v[position] for v in values], f"node {position}, {dtype}")


def _contain(bounds: Bounds, values: list[list[Fraction]], name: str) -> None:
    lower, upper = (t[0].flatten().tolist() for t in (bounds.lower, bounds.upper))
    for i, (low, high) in enumerate(zip(lower, upper, strict=True)):
        if "float32" in name and isnan(low) and isnan(high):  # no bounds at such magnitudes
            continue
        assert low <= min(v[i] for v in values), f"{name}, {i}"
        assert max(v[i] for v in values) <= high, f"{name}, {i}"


@pytest.mark.parametrize("image", [False, True])
@seeds(6, of=18)
def test_real_values_lie_within(image: bool, seeds: range) -> None:
    for seed in seeds:
        network = random_graph(seed, image, steps=8)
        lower, upper = random_box(network, seed)
        assert_holds(network, Box(lower, upper), members(lower, upper, 4, seed))


@pytest.mark.parametrize("examples", [8, slow(25)])
def test_at_points_of_no_width_only_rounding_is_lost(examples: int) -> None:
    @settings(max_examples=examples)
    @given(nets.mlps(), nets.seeds)
    def check(made: tuple[nn.Module, tuple[int, ...]], seed: int) -> None:
        module, shape = made
        for factor in (1.0, 2.0**40, 3.0**-30):
            network = magnified(to_network(module, shape), factor)
            x = torch.rand(shape, generator=nets.generator(seed)).double()
            assert_holds(network, Box(x, x), x[None])
            _, size = network.rounding_error(x[None], torch.float64)
            for method in METHODS:
                bounds = method.bound(network, Box(x, x), eye(network), Budget())
                few = 1e-3 if getattr(method, "dtype", "") == "float32" else 1e-11
                # float32 has no bounds of magnitudes beyond 2**40: a NaN decides nothing.
                assert not bool((bounds.upper - bounds.lower > few * size).any())

    check()


@pytest.mark.parametrize("p", [1.0, 2.0])
@seeds(4, of=11)
def test_balls(p: float, seeds: range) -> None:
    """At the centre of a ball whose radius is next to nothing."""
    for seed in seeds:
        network = to_network(nets.random_mlp(seed, (4, 9, 9, 3)), (4,))
        x = torch.randn(4, dtype=torch.float64, generator=nets.generator(seed))
        for eps in (2.0**-60, 0.0):
            assert_holds(network, LpBall(x, eps, p, domain=None), x[None])


@seeds(5, of=18)
def test_real_values_of_every_operation_lie_within(seeds: range) -> None:
    network = chain((1, 3, 3), image_ops())
    for seed in seeds:
        lower, upper = random_box(network, seed)
        assert_holds(network, Box(lower, upper), members(lower, upper, 4, seed))


@seeds(4, of=10)
def test_activations_of_activations(seeds: range) -> None:
    for seed in seeds:
        rng = nets.generator(seed)
        ops: list[Op] = [
            Relu(),
            LeakyRelu(1 / 3),
            Linear(torch.randn(3, 3, generator=rng), torch.randn(3, generator=rng)),
        ]
        network = chain((3,), [*ops, LeakyRelu(2.5), Relu(), *ops])
        lower, upper = random_box(network, seed)
        assert_holds(network, Box(lower, upper), members(lower, upper, 4, seed))


@pytest.mark.parametrize("slope", [100.3, 1e10 / 3, 1e17])
@seeds(4, of=11)
def test_leaky_relus_that_are_steep(slope: float, seeds: range) -> None:
    """What their negative side loses is a share of the slope, which is not to be lost from the other side."""
    for seed in seeds:
        rng = nets.generator(seed)
        network = chain((3,), [LeakyRelu(slope), Linear(torch.randn(2, 3, generator=rng), torch.zeros(2))])
        lower, upper = random_box(network, seed)
        assert_holds(network, Box(lower, upper), members(lower, upper, 4, seed))


# Ends of intervals: ordinary, of very different sizes, and next to each other.
ENDS = [0.0, 1.0, 0.1, 1 / 3, 1.0 + 2.0**-52, 1e-9, 2.0**-47, 5e-324, 1e30]


@pytest.mark.parametrize("slope", [0.0, 0.01, 1 / 3, 1.0, 1.0 + 2.0**-52, 2.5, 1e10 / 3, 1e17])
def test_lines_about_a_kink_hold_with_what_they_are_charged(slope: float) -> None:
    """In fractions, at the ends of the interval and at the kink."""
    ends = sorted({sign * end for end in ENDS for sign in (1, -1)})
    pairs = [(low, high) for low in ends for high in ends if low <= high]
    network = chain((len(pairs),), [LeakyRelu(slope) if slope else Relu()])
    z = Bounds(*(torch.tensor([[pair[k] for pair in pairs]], dtype=torch.float64) for k in (0, 1)))
    lines = relax(network.nodes[1].op, z)
    intercept = torch.zeros_like(lines.intercept_gap) if lines.intercept is None else lines.intercept
    columns = (lines.slope, lines.slope_gap, intercept, lines.intercept_gap, Rounding(network).at(1, lines, z))
    for i, pair in enumerate(pairs):
        below, slope_gap, least, intercept_gap, charge = (Fraction(t[0, i].item()) for t in columns)
        for at in map(Fraction, (*pair, min(max(0.0, pair[0]), pair[1]))):
            value = at if at > 0 else Fraction(slope) * at
            assert below * at + least - charge <= value, (pair, float(at))
            assert value <= (below + slope_gap) * at + least + intercept_gap + charge, (pair, float(at))


def test_what_underflows_is_charged_to_large_coefficients() -> None:
    small, zero = torch.full((1, 1), 2.0**-540, dtype=torch.float64), torch.zeros(1)
    network = chain((1,), [Linear(small, zero)])
    for method in METHODS:
        bounds = method.bound(network, Box(small[0], small[0]), eye(network) * 2.0**1000, Budget())
        assert not bounds.upper.item() < 2.0**-80


def test_what_underflows_at_a_last_activation() -> None:
    x = torch.full((1,), 2.0**-1074, dtype=torch.float64)
    for method in METHODS:
        bounds = method.bound(chain((1,), [Relu()]), Box(x, x), 0.1 * torch.ones(1, 1), Budget())
        assert bounds.upper.item() > 0


@seeds(4, of=10)
def test_real_values_of_branches_lie_within(seeds: range) -> None:
    for seed in seeds:
        network = branched(seed)
        lower, upper = random_box(network, seed)
        assert_holds(network, Box(lower, upper), members(lower, upper, 6, seed))


@seeds(2, of=4)
def test_windows_of_images(seeds: range) -> None:
    """Rows on small windows of images are charged as all others."""
    for seed in seeds:
        network = (
            to_network(nets.random_cnn(seed), (1, 6, 6))
            if seed % 2
            else to_network(nets.random_resnet(seed), (1, 4, 4))
        )
        x = torch.rand(network.input_shape, generator=nets.generator(seed), dtype=torch.float64)
        for width in (0.0, 0.02):
            assert_holds(network, Box(x - width, x + width), members(x - width, x + width, 3, seed))


@pytest.mark.parametrize("B", [2.0**25, 2.0**54])
@pytest.mark.parametrize("name", sorted(nets.TRAPS))
def test_float_traps(name: str, B: float) -> None:
    network = to_network(nets.trap(name, B, torch.float64), (1,))
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    assert_holds(network, Box(zero, one), torch.rand(5, 1, dtype=torch.float64, generator=nets.generator(0)))
    problem = nets.trap_problem(name, B, torch.float64)
    if nets.TRAPS[name] >= 0.5:
        assert all(method.verify(problem, Budget()).verdict is not Verdict.VERIFIED for method in METHODS)


@pytest.mark.parametrize("method", METHODS, ids=[m.name for m in METHODS])
def test_what_is_lost_early_and_magnified_late(method: Verifier) -> None:
    """x in [0, 2**-29], y = 2**30 relu(relu(x + 2**25) - 2**25): 2 is reached where floating point adds nothing."""
    one = torch.ones(1, 1, dtype=torch.float64)
    shift, factor = torch.tensor([2.0**25], dtype=torch.float64), 2.0**30
    ops: list[Op] = [Linear(one, shift), Relu(), Linear(one, -shift), Relu(), Scale(one[0] * factor, 0 * shift)]
    network = chain((1,), ops)
    box = Box(torch.zeros(1, dtype=torch.float64), torch.full((1,), 2.0**-29, dtype=torch.float64))
    assert exact.value(network, box.upper) == [2]
    claim = Spec.halfspaces([[-1.0]], [-1.0])  # unsafe: y >= 1
    assert method.verify(Problem(network, box, claim), Budget()).verdict is Verdict.UNKNOWN


def test_little_is_charged() -> None:
    """A network of eight layers, in which magnitudes carried through all weights would be a thousand times larger."""
    network = to_network(nets.random_mlp(0, (20, *[100] * 8, 5)), (20,))
    x = torch.rand(20, generator=nets.generator(0)).double()
    bounds = CROWN().bound(network, Box(x, x), eye(network), Budget())
    assert bool((bounds.upper - bounds.lower < 1e-8).all())


def test_lower_precisions_are_charged_more() -> None:
    network = to_network(nets.random_mlp(0), (4,))
    x = torch.full((4,), 0.5)
    widths = []
    for dtype in ("float64", "float32"):
        bounds = CROWN(dtype=dtype).bound(network, Box(x, x), eye(network), Budget())
        widths.append(float((bounds.upper - bounds.lower).amax()))
    assert 0 < 1e6 * widths[0] < widths[1] < 1e-2


@pytest.mark.parametrize("by", ["precision", "autocast", "environment"])
def test_float32_is_refused_where_products_are_not_of_float32(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = to_network(nets.random_mlp(0), (4,)), torch.full((4,), 0.5)
    if by == "precision":
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    if by == "environment":
        monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    with torch.autocast("cpu", enabled=by == "autocast"):
        with pytest.raises(InputError, match="less than its precision"):
            CROWN(dtype="float32").bound(network, Box(x, x), eye(network), Budget())
        assert bool(CROWN().bound(network, Box(x, x), eye(network), Budget()).lower.isfinite().all())


def never_verified(network: Network, box: Box, objective: float, side: float) -> None:
    """A property that the real network just breaks."""
    spec = Spec.halfspaces([[objective]], [side])
    for method in METHODS:
        assert method.verify(Problem(network, box, spec)).verdict is not Verdict.VERIFIED, repr(method)


def one(weight: float) -> Linear:
    return Linear(torch.tensor([[weight]], dtype=torch.float64), torch.zeros(1, dtype=torch.float64))


def ends(low: float, high: float) -> Box:
    return Box(*(torch.tensor([end], dtype=torch.float64) for end in (low, high)))


def test_small_objectives_of_large_values() -> None:
    """What float32 makes of the objective is worth as much as the value is large."""
    never_verified(chain((1,), [one(1e38)]), ends(-1, 1), 7e-46, -1e-9)
    never_verified(chain((1,), [one(3e38)]), ends(-1, 1), 1.9e-45, -1e-9)


@pytest.mark.parametrize("ops", [[Relu(), one(-7e-46)], [one(7e-46), LeakyRelu(1.5)], [Relu()]])
def test_small_weights_of_large_inputs(ops: list[Op]) -> None:
    never_verified(chain((1,), ops), ends(-1e38, 1e38), 1.0 if len(ops) > 1 else -7e-46, -1e-9)


def test_small_weights_of_huge_inputs() -> None:
    never_verified(chain((1,), [Relu(), one(-1e-164)]), ends(0, 1e308), 1e-160, -1e-20)


def test_errors_that_are_not_known_pass_activations() -> None:
    """What searches are charged for any lines: of inputs beyond what is counted there is no bound."""
    box = Bounds(torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), 1e308, dtype=torch.float64))
    assert all(bool(error.isnan().all()) for error in worst(chain((1,), [Relu(), one(-1e-164)]), box))


@pytest.mark.parametrize("seed", range(4))
def test_what_is_filled_in_is_rounded_too(seed: int) -> None:
    """Fifty copies of 0.9 with large coefficients that cancel."""
    objective = torch.randn(50, dtype=torch.float64, generator=nets.generator(seed)) * 1e6
    objective[-1] = 0
    objective[-1] = -objective.sum()
    network = chain((1,), [Relu(), Gather(torch.full((50,), -1), (50,), 0.9)])
    true = sum(Fraction(v) for v in objective.tolist()) * Fraction(0.9)
    for method in METHODS:
        bounds = method.bound(network, ends(1, 1), objective[None], Budget())
        assert not Fraction(bounds.lower.item()) > true, repr(method)
        assert not Fraction(bounds.upper.item()) < true, repr(method)


def test_flushed_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor flushes nothing")
    try:
        for method in METHODS:
            with pytest.raises(InputError, match="set_flush_denormal"):
                method.bound(chain((1,), [one(1e38)]), ends(1e-38, 1e-38), torch.ones(1, 1), Budget())
    finally:
        torch.set_flush_denormal(False)


def test_float32_is_refused_where_its_sums_are_not_ordinary_ones() -> None:
    torch._C._set_mkldnn_enabled(False)
    try:
        with pytest.raises(InputError, match="oneDNN"):
            CROWN(dtype="float32").bound(chain((1,), [one(1.0)]), ends(0, 1), torch.ones(1, 1), Budget())
    finally:
        torch._C._set_mkldnn_enabled(True)


def test_numbers_beyond_float32() -> None:
    network = chain((1,), [one(1.0), LeakyRelu(1e39), one(1.0)])
    with pytest.raises(InputError, match="float64"):
        CROWN(dtype="float32").bound(network, ends(-1, 1), torch.ones(1, 1), Budget())
    assert AlphaCROWN().bound(network, ends(-1, 1), torch.ones(1, 1), Budget()).lower.item() <= -1e39


def test_an_overflow_is_no_bound() -> None:
    for method in METHODS:
        bounds = method.bound(chain((1,), [one(3e38)]), ends(3e38, 3e38), torch.full((1, 1), 1e38), Budget())
        assert not bool((bounds.lower == inf).any() | (bounds.upper == -inf).any())


def test_deep_rows_are_charged_by_what_their_coefficients_come_to_and_not_by_norms() -> None:
    rng = nets.generator(0)
    ops = [
        op
        for _ in range(14)
        for op in (Linear(torch.randn(24, 24, generator=rng).double() / 12**0.5, torch.zeros(24)), Relu())
    ]
    network = chain((24,), ops[:-1])
    x = torch.rand(24, generator=rng).double()
    box = Box(x - 1e-13, x + 1e-13)
    relaxed = layers.by_linear_bounds(network, box, torch.float64)
    assert relaxed.rounding is not None
    width = (relaxed.bounds[-1].upper - relaxed.bounds[-1].lower).amax()
    assert 100 * width < relaxed.rounding.anyhow(relaxed.bounds)[-1].amin()
    values = [exact.values(network, point)[-1] for point in members(box.lower, box.upper, 3, 0)]
    _contain(CROWN().bound(network, box, eye(network)), values, "crown")


@pytest.mark.parametrize("image", [False, True])
def test_columns_in_float32_lose_less_at_the_first_layer_alone(image: bool) -> None:
    """They take its value at the centre of the box as it is: all later activations are charged as for other rows."""
    module, shape = (nets.random_cnn(3), (1, 6, 6)) if image else (nets.random_mlp(3, (40, 9, 9, 9, 3)), (40,))
    network = to_network(module, shape)
    x = torch.rand(shape, generator=nets.generator(3)).double()
    box = Box(x[None] - 0.01, x[None] + 0.01)
    relaxed = Relaxed.start(network, box, torch.float32, Budget(), sharp=True)
    group = Group(relaxed)
    for position in range(1, len(network.nodes)):
        value = relaxed.next()
        group.enter(position, value)
        relaxed.bounds.append(value)
    first, *others = sorted(relaxed.lines)
    assert relaxed.network.nodes[first].inputs == (group.entrance,)
    for position in (first, *others):
        ours, every = group.whole[position], relaxed.charged(position)
        lost, usual = ours.intercept_gap[:, 0], every.intercept_gap[0]
        assert bool(lost.sum() < usual.sum()) if position == first else torch.equal(lost, usual)


def test_what_float32_loses_is_little_beside_the_width() -> None:
    network = to_network(nets.random_mlp(5, (64, 48, 48, 10)), (64,))
    x = torch.rand(64, generator=nets.generator(5)).double()
    box = Box((x - 0.02).float().double(), (x + 0.02).float().double())
    double, single = (CROWN(dtype=dtype).bound(network, box, eye(network)) for dtype in ("float64", "float32"))
    assert bool((single.lower <= double.lower).all())
    assert bool(((double.lower - single.lower) < 0.02 * (double.upper - double.lower)).all())


@pytest.mark.parametrize("power", [48, 60, 72])
@pytest.mark.parametrize("image", [False, True])
def test_intervals_in_float32_grow_beyond_what_rows_of_neurons_have_bounds_for(image: bool, power: int) -> None:
    module, shape = (nets.random_cnn(3), (1, 6, 6)) if image else (nets.random_mlp(3, (4, 9, 9, 3)), (4,))
    network = to_network(module, shape)
    linear = sum(isinstance(node.op, Linear) for node in network.nodes)
    network = magnified(network, 2.0 ** (power // linear))
    x = torch.rand(shape, generator=nets.generator(3)).double()
    lower, upper = ((x - 0.1).float().double(), (x + 0.1).float().double())
    values = [exact.values(network, point)[-1] for point in members(lower, upper, 4, 0)]
    for kind in (IBP, CROWNIBP):
        double, single = (kind(dtype=dtype).bound(network, Box(lower, upper), eye(network)) for dtype in DTYPES)
        assert not torch.equal(double.lower, single.lower)
        assert bool(((double.upper - double.lower) > 0.9 * (single.upper - single.lower)).all())
        _contain(single, values, repr(kind))


@pytest.mark.parametrize(("power", "most"), [(30, 2.0**-40), (75, 1.0)])
def test_more_is_lost_below_the_smallest_numbers_beside_larger_ones(power: int, most: float) -> None:
    """Two values, one of them large, the other 0: what both may lose is at least what so many coefficients of the large
    one underflow by, 2**40 of 2**-126 each."""
    weight = torch.tensor([[2.0**power], [0.0]], dtype=torch.float64)
    network = chain((1,), [Linear(weight, torch.zeros(2, dtype=torch.float64)), Relu()])
    least = 2.0 ** (40 - 126) * 2.0**power
    relaxed = layers.by_intervals(network, ends(1, 1), torch.float32)
    assert least <= -relaxed.bounds[1].lower[0, 1].item() <= most
    for kind in (IBP, CROWNIBP):
        bounds = kind(dtype="float32").bound(network, ends(1, 1), torch.tensor([[0.0, 1.0]]))
        assert least <= -bounds.lower.item() <= 8 * most


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("sharp", [False, True])
@pytest.mark.parametrize("shift", [-3.0, 3.0])
def test_magnitudes_of_convolutions_are_those_of_all_products(shift: float, sharp: bool, groups: int) -> None:
    rng = nets.generator(groups)
    weight, bias = torch.randn(6, 4 // groups, 3, 2, generator=rng), torch.randn(6, generator=rng)
    op = Conv2d(weight.double(), bias.double(), (2, 1), (1, 0), (1, 1), groups)
    network = chain((4, 5, 5), [op])
    lower = torch.randn(3, 4, 5, 5, generator=rng).double() + shift
    box = Bounds(lower, lower + torch.rand(3, 4, 5, 5, generator=rng).double())
    rounding = Rounding(network, sharp=sharp)
    rounding.begin(largest(box))
    nothing = torch.zeros(3, *network.nodes[1].shape, dtype=torch.float64)
    wide = rounding.enter(1, [box], Bounds(nothing, nothing.clone()))
    size = evaluate(magnitude(op), largest(box))
    assert bool((wide.upper > 2 * gamma(terms(op)) * size).all())
    assert bool((rounding.lost[1] > rounding.share(1) * size).all())
