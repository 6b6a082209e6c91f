"""Tests of bounds.optimised.roots: what was worked out is kept, cut short or not, and is what a new start gives."""

from __future__ import annotations

from itertools import count
from math import inf

import pytest
import torch

from assay.verify.backends.alpha_crown import AlphaCROWN
from assay.verify.backends.bab.neurons import raising
from assay.verify.backends.bab.neurons.bab import BaB
from assay.verify.bounds import layers
from assay.verify.bounds.optimised import raised, roots
from assay.verify.bounds.optimised.slopes import Ascent
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.budget import UNLIMITED, Budget, Expired
from assay.verify.core.network import Network, to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.spec import Spec
from assay.verify.core.verifier import Bounds
from tests import nets

ASCENT = Ascent(5, 0.3, 0.95)


def resnet(seed: int = 0) -> Network:
    return to_network(nets.random_resnet(seed), (1, 4, 4))


def box(width: float = 0.3) -> Box:
    centre = torch.rand(1, 1, 4, 4, generator=nets.generator(3), dtype=torch.float64)
    return Box(centre - width, centre + width)


def plain(network: Network, region: Box) -> list[torch.Tensor]:
    def further(relaxed: Relaxed, position: int, known: Bounds, wanted: torch.Tensor) -> Bounds:
        return raised.tighten(relaxed, position, known, wanted, ASCENT)

    bounds = layers.by_linear_bounds(network, region, torch.float64, further=further).bounds
    return [side for each in bounds for side in (each.lower, each.upper)]


def sides(relaxed: Relaxed) -> list[torch.Tensor]:
    return [side for each in relaxed.bounds for side in (each.lower, each.upper)]


def deep() -> Network:
    return to_network(nets.random_mlp(0, (4, 8, 8, 8, 3)), (4,))


def test_work_that_was_cut_short_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    region, network = Box(torch.zeros(1, 4), torch.ones(1, 4)), deep()
    expected, clock, cuts, root = plain(deep(), region), count(), 0, None
    monkeypatch.setattr("assay.verify.core.budget.time.monotonic", lambda: float(next(clock)))
    roots.tightened(deep(), region, ASCENT, Budget(1e9).started(), proof=False)
    seconds = 0.8 * next(clock)
    while root is None and cuts < 9:
        try:
            root, _ = roots.tightened(network, region, ASCENT, Budget(seconds).started(), proof=False)
        except Expired:
            cuts += 1
    assert root is not None
    assert cuts > 0
    for found, wanted in zip(sides(root), expected, strict=True):
        assert torch.equal(found, wanted)


def test_with_a_share_of_the_time_other_layers_have_bounds_that_are_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """And they are raised for whoever asks again."""

    def late(self: roots.Root, relaxed: Relaxed, position: int, known: Bounds, wanted: torch.Tensor) -> Bounds:
        raise Expired

    network = resnet()
    expected = sides(roots.tightened(resnet(), box(), ASCENT, UNLIMITED, proof=True)[0])
    crown = sides(layers.by_linear_bounds(resnet(), box(), torch.float64))
    with monkeypatch.context() as patch:
        patch.setattr(roots.Root, "further", late)
        cut, slopes = roots.tightened(network, box(), ASCENT, UNLIMITED, proof=True, share=0.5)
        assert slopes == {}
        assert all(torch.equal(found, wanted) for found, wanted in zip(sides(cut), crown, strict=True))
        with pytest.raises(Expired):
            roots.tightened(network, box(), ASCENT, UNLIMITED, proof=True)
    whole = sides(roots.tightened(network, box(), ASCENT, UNLIMITED, proof=True)[0])
    assert all(torch.equal(found, wanted) for found, wanted in zip(whole, expected, strict=True))
    assert not all(torch.equal(found, wanted) for found, wanted in zip(whole, crown, strict=True))


def test_another_box_and_another_ascent_are_other_roots() -> None:
    network = resnet()
    wide, _ = roots.tightened(network, box(0.5), ASCENT, UNLIMITED, proof=False)
    narrow, _ = roots.tightened(network, box(0.1), ASCENT, UNLIMITED, proof=False)
    again, _ = roots.tightened(network, box(0.5), ASCENT, UNLIMITED, proof=False)
    still, _ = roots.tightened(network, box(0.5), Ascent(0, 0.3, 0.95), UNLIMITED, proof=False)
    assert torch.equal(sides(wide)[-1], sides(again)[-1])
    for other in (narrow, still):
        assert not torch.equal(sides(wide)[-1], sides(other)[-1])
    assert [torch.equal(a, b) for a, b in zip(sides(narrow), plain(network, box(0.1)), strict=True)].count(False) == 0


def test_no_more_roots_are_kept_than_some() -> None:
    network = resnet()
    for i in range(2 * roots.KEPT):
        roots.tightened(network, box(0.1 + i / 100), ASCENT, UNLIMITED, proof=False)
    assert len(roots.ROOTS[network]) == roots.KEPT


def test_what_proves_bounds_is_there_where_it_is_asked_for_and_fits() -> None:
    network = resnet()
    _, none = roots.tightened(network, box(), ASCENT, UNLIMITED, proof=False)
    _, slopes = roots.tightened(network, box(), ASCENT, UNLIMITED, proof=True)
    _, shared = roots.tightened(network, box(), ASCENT, UNLIMITED, proof=False)
    assert none is None
    assert slopes
    assert shared is none
    for feature, by_activation in slopes.values():
        assert by_activation
        assert all(len(t) == 2 * len(feature) for t in by_activation.values())
    network = resnet()
    for _ in range(2):
        _, large = roots.tightened(network, box(), ASCENT, Budget(memory=1 << 14), proof=True)
        assert large is None
    assert len(roots.ROOTS[network]) == 1
    _, some = roots.tightened(network, box(), ASCENT, UNLIMITED, proof=True)
    assert some is not None
    assert {i: feature.tolist() for i, (feature, _) in some.items()} == {
        i: feature.tolist() for i, (feature, _) in slopes.items()
    }


def test_a_search_goes_on_from_the_bounds_of_another_method(monkeypatch: pytest.MonkeyPatch) -> None:
    network = resnet(1)
    problem = Problem(network, LpBall(torch.rand(1, 4, 4, generator=nets.generator(1)), 0.2), Spec.robust(0, 3))
    AlphaCROWN().verify(problem)
    made: list[str] = []

    def counted(where: object, name: str) -> None:
        original = getattr(where, name)
        monkeypatch.setattr(where, name, lambda *given: made.append(name) or original(*given))

    counted(raised, "tighten")
    counted(raising.Raising, "run")
    here = BaB().verify(problem)
    assert not made
    assert here.verdict is BaB().verify(Problem(resnet(1), problem.region, problem.spec)).verdict
    assert made


@pytest.mark.parametrize("p", [1, 2, inf])
def test_only_boxes_are_kept(p: float) -> None:
    region = LpBall(torch.zeros(1, 1, 4, 4), 0.1, p)
    assert roots.kept(resnet(), region) == (p == inf)
    assert not roots.kept(to_network(nets.random_cnn(0), (1, 6, 6)), LpBall(torch.zeros(2, 1, 6, 6), 0.1))


def test_dear_layers_are_raised_in_few_steps_and_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    long = Ascent(20, 0.4, 0.9)
    hurried, _ = roots.tightened(resnet(), box(), raised.HURRIED, UNLIMITED, proof=False)
    monkeypatch.setattr(raised, "DEAR", 0)
    network = resnet()
    dear, _ = roots.tightened(network, box(), long, UNLIMITED, proof=False)
    assert all(torch.equal(a, b) for a, b in zip(sides(dear), sides(hurried), strict=True))
    u = torch.rand(500, 1, 4, 4, generator=nets.generator(5), dtype=torch.float64).round()
    for bounds, values in zip(dear.bounds, network.values(box().lower + 0.6 * u), strict=True):
        assert bool(((values >= bounds.lower - 1e-9) & (values <= bounds.upper + 1e-9)).all())


def test_bounds_are_of_the_box_that_is_asked_for_where_its_numbers_were_changed_in_place() -> None:
    network, lower, upper = deep(), torch.zeros(1, 4, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64)
    roots.tightened(network, Box(lower, upper), ASCENT, UNLIMITED, proof=False)
    lower -= 2
    upper += 2
    relaxed, _ = roots.tightened(network, Box(lower, upper), ASCENT, UNLIMITED, proof=False)
    assert all(map(torch.equal, sides(relaxed), plain(deep(), Box(lower, upper))))
