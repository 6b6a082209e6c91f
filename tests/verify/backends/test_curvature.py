"""Products bounded together: functions below rows, enclosures of operands, quadratic forms that are convex."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from assay.verify.backends.bab.inputs.curvature import minimiser, split
from assay.verify.backends.bab.inputs.forms import mix, weigh
from assay.verify.backends.bab.inputs.prepared import Prepared
from assay.verify.backends.bab.inputs.relaxed import Relaxed, bound_layers, raise_rows, rows_of
from assay.verify.bounds.optimised.slopes import Ascent, Functions
from assay.verify.core.budget import Budget
from assay.verify.core.network import Network
from assay.verify.core.ops import Add, Linear, Relu, Smooth
from assay.verify.core.verifier import Bounds
from tests.curved import Net
from tests.nets import generator

D = torch.float64
BOXES, POINTS = 6, 400


def controlled(seed: int) -> Network:
    """A quadratic form of where a controller of a system with a sine takes it, as Lyapunov functions are."""
    net = Net((3,), seed)
    control = net.linear(net.add(Relu(), net.linear(0, 4)), 3)
    after = net.add(Add(), 0, net.add(Add(), control, net.times(net.add(Smooth("sin"), 0), control)))
    here, there = net.times(0, net.linear(0, 3)), net.times(after, net.linear(after, 3))
    return net.builder.build(net.add(Add(), net.linear(here, 2), net.linear(there, 2)), dtype=D)


def quadratic(matrix: Tensor) -> Network:
    """``x @ matrix @ x``."""
    net, n = Net((len(matrix),), 0), len(matrix)
    right = net.add(Linear(matrix, torch.zeros(n, dtype=D)), 0)
    return net.builder.build(net.add(Linear(torch.ones(1, n, dtype=D), torch.zeros(1, dtype=D)), net.times(0, right)))


def parts(network: Network, seed: int, radius: float) -> tuple[Relaxed, Tensor]:
    """The network relaxed over boxes within one, and points of each of them (boxes x points x inputs)."""
    rng, inputs = generator(seed), network.nodes[0].size
    centre = torch.randn(BOXES, inputs, generator=rng, dtype=D)
    reach = radius * torch.rand(BOXES, inputs, generator=rng, dtype=D)
    lower, upper = centre - reach, centre + reach
    prepared = Prepared.of(network, Bounds(lower.amin(0, keepdim=True), upper.amax(0, keepdim=True)))
    signs = torch.zeros(BOXES, sum(prepared.relus.values()), dtype=torch.int8)
    share = torch.rand(BOXES, POINTS, inputs, generator=rng, dtype=D)
    corners = torch.tensor(list(product([0.0, 1.0], repeat=inputs)), dtype=D).expand(BOXES, -1, -1)
    points = torch.lerp(lower[:, None], upper[:, None], torch.cat([share, corners], 1))
    return bound_layers(prepared, lower, upper, signs, Budget())[0], points


def assert_below(functions: Functions, points: Tensor, values: Tensor) -> None:
    """Functions, one a box, at points (boxes x points x inputs)."""
    under = functions.constant[:, None] + (points @ functions.coef[:, :, None])[..., 0]
    assert bool((under <= values + 1e-11 * (1 + values.abs())).all())


def test_functions_lie_below_rows_at_all_points() -> None:
    for seed, radius in product(range(2), (1e-3, 0.1, 1.0)):
        relaxed, points = parts(controlled(seed), seed, radius)
        row = torch.randn(BOXES, 2, generator=generator(seed), dtype=D)
        values = (relaxed.prepared.network(points.flatten(0, 1)).view(*points.shape[:2], 2) @ row[:, :, None])[..., 0]
        box, nought = torch.arange(BOXES), torch.zeros(BOXES, dtype=D)
        first = rows_of(relaxed, row, nought, box, Budget())
        raised, lost, bent = raise_rows(relaxed, row, nought, Ascent(5, 0.3))
        assert_below(first, points, values)
        assert_below(raised.function, points, values)
        assert bool((raised.bound >= relaxed.minimum(first) - 1e-9).all())
        assert bent is not None
        assert all(bool((t >= 0).all()) for t in [bent, *lost.values()])


def test_operands_lie_within_their_enclosures() -> None:
    for seed, radius in product(range(3), (1e-3, 0.3)):
        relaxed, points = parts(controlled(seed), seed, radius)
        network, curvature = relaxed.prepared.network, relaxed.curvature
        assert curvature is not None
        away = points - curvature.centre[:, None]
        for position, factors in relaxed.prepared.factors.items():
            sources = [network.values(points.flatten(0, 1))[i].flatten(1) for i in factors.sources]
            operands = torch.cat(sources, 1)[:, factors.index].view(BOXES, -1, *factors.index.shape)
            for side, column in ((curvature.left, 0), (curvature.right, 1)):
                about = side[position].mid[:, None] + away @ side[position].slope.mT
                off = (operands[..., column] - about).abs()
                assert bool((off <= side[position].radius[:, None] + 1e-12).all())


def test_a_convex_form_loses_nothing_and_planes_of_products_do() -> None:
    factor = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, -1.0], [0.0, 0.0, 1.0]], dtype=D)
    matrix = factor.T @ factor
    relaxed, _ = parts(quadratic(matrix), 0, 1.0)
    one, nought = torch.ones(BOXES, 1, dtype=D), torch.zeros(BOXES, dtype=D)
    raised, _, bent = raise_rows(relaxed, one, nought, Ascent(0, 0.0))
    bound = raised.bound
    centre, reach = (relaxed.lower + relaxed.upper) / 2, (relaxed.upper - relaxed.lower) / 2
    exact = torch.stack([least_of(matrix, c, r) for c, r in zip(centre, reach, strict=True)])
    assert bool((bound <= exact + 1e-9).all())
    assert bool((bound >= exact - 1e-3 * (1 + exact)).all())
    assert bent is not None
    assert float(bent.max()) < 1e-9
    alone = Relaxed(relaxed.prepared, relaxed.lower, relaxed.upper, relaxed.lines, relaxed.operands)
    by_planes = raise_rows(alone, one, nought, Ascent(20, 0.3))[0].bound
    assert float((exact - by_planes).mean()) > 10 * float((exact - bound).mean())


def least_of(matrix: Tensor, centre: Tensor, reach: Tensor) -> Tensor:
    """The least value of ``x @ matrix @ x`` over a box, on one of its faces: each is tried."""
    found = []
    for face in product((-1.0, 0.0, 1.0), repeat=len(centre)):
        side = torch.tensor(face, dtype=D)
        free = side == 0
        x = centre + side * reach
        if bool(free.any()):
            rest = matrix[free][:, ~free] @ x[~free]
            x[free] = torch.linalg.solve(matrix[free][:, free], -rest)
        if bool(((x - centre).abs() <= reach * (1 + 1e-12)).all()):
            found.append(x @ matrix @ x)
    return torch.stack(found).min()


def test_what_is_taken_of_forms_makes_them_convex() -> None:
    rng = generator(3)
    form = torch.randn(50, 4, 4, generator=rng, dtype=D)
    form = form + form.mT
    form[:10] = form[:10] @ form[:10]
    taken, convex = split(form)
    assert bool((taken >= 0).all())
    assert float(taken[:10].max()) < 1e-12
    assert float(torch.linalg.eigvalsh(convex).min()) > -1e-12
    torch.testing.assert_close(convex - torch.diag_embed(taken), form)
    at = minimiser(torch.randn(50, 4, generator=rng, dtype=D), convex)
    assert bool((at.abs() <= 1).all())


def test_forms_of_numbers_that_are_none_or_nothing_are_no_error() -> None:
    form = torch.eye(3, dtype=D)[None].repeat(6, 1, 1) * -1.0
    form[0, 0, 1], form[1, 2, 2] = torch.nan, torch.inf
    form[2], form[3], form[4] = 1e200 * form[2], 1e-200 * form[3], 0.0
    taken, convex = split(form)
    assert not bool((taken[:2].isfinite() & convex[:2].diagonal(dim1=1, dim2=2).isfinite()).all())
    torch.testing.assert_close(taken[2:], torch.tensor([[1e200], [1e-200], [0.0], [1.0]], dtype=D).expand(4, 3))


def test_two_forms_are_weighed_exactly() -> None:
    rng = generator(4)
    forms = Functions(torch.randn(30, 2, 5, generator=rng, dtype=D), torch.randn(30, 2, generator=rng, dtype=D))
    forms.coef[:3, 1] = forms.coef[:3, 0]
    lower = torch.randn(30, 5, generator=rng, dtype=D)
    upper = lower + torch.rand(30, 5, generator=rng, dtype=D)
    best, weights = weigh(forms, lower, upper, 12)
    torch.testing.assert_close(mix(forms, weights).minimum(lower, upper), best)
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(1), torch.ones(30, dtype=D))
    for share in torch.linspace(0, 1, 101, dtype=D):
        pair = torch.stack([share, 1 - share]).expand(30, 2)
        assert bool((mix(forms, pair).minimum(lower, upper) <= best + 1e-12).all())
