"""Tests of bab.inputs.forward_tree: enumeration's verdicts, bounds that hold on every box, and who is bounded so."""

from __future__ import annotations

import pytest
import torch

from assay.verify.backends.bab.inputs import input_split
from assay.verify.backends.bab.inputs.forward_tree import ForwardTree, Parts, dear, forwards
from assay.verify.backends.bab.inputs.input_split import InputSplit
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.network import Network, chain
from assay.verify.core.ops import Conv2d, Linear, Relu, Reshape, Smooth
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, Polytope
from assay.verify.core.result import Reason, Verdict
from assay.verify.core.spec import Polyhedron, Spec
from tests import nets
from tests.breadth import seeds
from tests.contract.graphs import members, random_box, random_graph
from tests.contract.test_exact_agreement import agrees
from tests.contract.test_searches import planted
from tests.verify.backends.test_input_split_soundness import check, random_problem
from tests.verify.programs.cases import cases


@pytest.fixture
def forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks are bounded as deep ones are."""
    monkeypatch.setattr(input_split, "dear", lambda network: True)


@pytest.mark.usefixtures("forward")
@pytest.mark.parametrize("kind", ["mlp", "conv", "residual", "leaky", "max"])
@seeds(1, of=8, start=3)
def test_verdicts_are_enumerations(kind: str, seeds: range) -> None:
    for problem, true in cases(kind, seeds):
        result = InputSplit(proof=True).verify(problem, Budget(2.0))
        if result.reason is not Reason.TIMEOUT:
            agrees(result, problem, true)
        assert result.certificate is None


@pytest.mark.usefixtures("forward")
@seeds(3, of=40)
def test_random_problems_agree_with_samples(seeds: range) -> None:
    for seed in seeds:
        problem = random_problem(seed)
        check(problem, InputSplit().verify(problem, Budget(0.2)))


@pytest.mark.usefixtures("forward")
@seeds(1, of=8)
def test_planted_holes_are_never_verified(seeds: range) -> None:
    for seed in seeds:
        problem, _ = planted(seed, 2.0)
        assert InputSplit().verify(problem, Budget(0.5)).verdict is not Verdict.VERIFIED


def curved_at_the_end(seed: int) -> Network:
    """A small convolutional network whose last value passes a curve."""
    rng = nets.generator(seed)
    ops = [
        Conv2d(torch.randn(3, 1, 2, 2, generator=rng), torch.randn(3, generator=rng)),
        Relu(),
        Reshape((12,)),
        Linear(torch.randn(4, 12, generator=rng), torch.randn(4, generator=rng)),
        Relu(),
        Linear(torch.randn(2, 4, generator=rng), torch.randn(2, generator=rng)),
        Smooth("tanh"),
    ]
    return chain((1, 3, 3), ops)


@seeds(4, of=40)
def test_every_value_lies_within_its_bounds(seeds: range) -> None:
    for seed in seeds:
        network = curved_at_the_end(seed) if seed % 2 else random_graph(seed, image=seed % 4 == 0)
        lower, upper = random_box(network, seed)
        relaxed = forwards(network, Box(lower[None], upper[None]), Budget())
        for value, known in zip(network.values(members(lower, upper, 64)), relaxed.bounds, strict=True):
            slack = 1e-12 * (1 + value.abs().amax())
            assert bool(((known.lower <= value + slack) & (value <= known.upper + slack)).all())


def test_halves_are_all_of_a_box_and_keep_what_is_closed() -> None:
    network = curved_at_the_end(1)
    lower, upper = torch.zeros(1, 3, 3), torch.ones(1, 3, 3)
    # One disjunct that is closed at once, one that no box closes soon.
    rows = [torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([[0.0, 1.0]], dtype=torch.float64)]
    middle = network(torch.full((1, 1, 3, 3), 0.5, dtype=torch.float64))[0, 1]
    sides = [torch.tensor([-2.0], dtype=torch.float64), middle[None] - 1e-3]
    disjuncts = tuple(Polyhedron(A, b, torch.zeros(1, dtype=torch.bool)) for A, b in zip(rows, sides, strict=True))
    tree = ForwardTree(Problem(network, Box(lower, upper), Spec(disjuncts)))
    bounded = tree.bound(tree.root(), Budget())
    assert bounded.domains.open.tolist() == [[False, True]]
    assert 0 < bounded.cleared <= 2
    assert float(bounded.lower) < 0
    first, second = (Parts(*(t[i] for t in vars(tree.halve(bounded.domains)).values())) for i in range(2))
    (axis,) = (first.upper < second.upper).nonzero().flatten().tolist()
    assert first.upper[axis] == second.lower[axis] == 0.5
    other = torch.arange(9) != axis
    assert torch.equal(first.upper[other], second.upper[other])
    assert torch.equal(first.lower[other], second.lower[other])


def test_who_is_bounded_forwards() -> None:
    rng = nets.generator(0)
    wide = [Conv2d(torch.randn(64, 64, 3, 3, generator=rng), torch.zeros(64), (1, 1), (1, 1)), Relu()]
    assert dear(chain((64, 32, 32), wide))
    assert not dear(curved_at_the_end(0))


@pytest.mark.usefixtures("forward")
def test_polytopes_are_for_the_other_tree_and_time_ends() -> None:
    network = chain((2,), [Linear(torch.eye(2), torch.zeros(2)), Relu()])
    low, high = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    A, b = torch.ones(1, 2, dtype=torch.float64), torch.full((1,), 0.5, dtype=torch.float64)
    # Within the polytope the sum is at most a half; in the box it is not.
    spec = Spec.halfspaces([[-1.0, -1.0]], [-0.75])
    assert InputSplit().verify(Problem(network, Polytope(Box(low, high), A, b), spec)).verdict is Verdict.VERIFIED
    assert InputSplit().verify(Problem(network, Box(low, high), spec)).verdict is Verdict.FALSIFIED
    problem = Problem(network, Box(low, high), spec)
    with pytest.raises(Expired):
        ForwardTree(problem).bound(ForwardTree(problem).root(), Budget(0.0).started())


def test_inputs_that_do_not_vary_are_not_counted() -> None:
    rng = nets.generator(1)
    network = chain((40,), [Linear(torch.randn(5, 40, generator=rng), torch.zeros(5)), Relu(),
                            Linear(torch.randn(1, 5, generator=rng), torch.zeros(1))])  # fmt: skip
    low = torch.rand(40, generator=rng).double()
    high = low.clone()
    high[[3, 17]] += 0.5
    y = network(members(low, high, 256))
    for gap, verdict in ((-5.0, Verdict.VERIFIED), (0.1, Verdict.FALSIFIED)):
        spec = Spec.halfspaces([[1.0]], [float(y.min()) + gap])
        assert InputSplit().verify(Problem(network, Box(low, high), spec), Budget(10.0)).verdict is verdict
    why = InputSplit().supports(Problem(network, Box(low, low + 0.5), spec))
    assert why is not None
    assert "40 inputs that vary" in why
