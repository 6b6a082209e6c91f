"""Tests of verify.bounds.touching: rows bounded without rounding never exceed what sampled points attain."""

from __future__ import annotations

from math import inf

import pytest
import torch

from assay.verify.bounds.touching import lower_rows
from assay.verify.core.network import chain, to_network
from assay.verify.core.ops import Linear, Relu
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, Polytope
from assay.verify.core.spec import Polyhedron, Spec
from tests.contract.graphs import eye, members, random_box, random_graph


@pytest.mark.parametrize("seed", range(40))
def test_no_point_lies_below(seed: int) -> None:
    network = random_graph(seed)
    lower, upper = random_box(network, seed)
    rows = eye(network)
    spec = Spec((Polyhedron(rows, torch.zeros(len(rows)), torch.ones(len(rows), dtype=torch.bool)),))
    bound = lower_rows(Problem(network, Box(lower, upper), spec))
    if bound is None:  # an operation that is not bounded so
        return
    y = network(members(lower, upper, 500)).flatten(1).double()
    least = (y @ rows.double().T).amin(0)
    assert bool((bound.rows <= least + 1e-9 * (1 + y.abs().amax())).all())


def test_some_graphs_are_bounded() -> None:
    known = 0
    for seed in range(40):
        network = random_graph(seed)
        spec = Spec.halfspaces([[1.0] * network.output_size], [0.0])
        known += lower_rows(Problem(network, Box(*random_box(network, seed)), spec)) is not None
    assert known > 10


def test_what_is_touched_is_attained_to_the_bit_and_no_bound_is_none() -> None:
    network = chain((1,), [Linear(torch.eye(1), torch.zeros(1)), Relu()])
    strict = Spec((Polyhedron(torch.ones(1, 1), torch.zeros(1), torch.ones(1, dtype=torch.bool)),))
    rows = lower_rows(Problem(network, Box(-torch.ones(1), torch.ones(1)), strict))
    assert rows is not None
    assert rows.rows.tolist() == [0.0]
    opposite = Spec((Polyhedron(-torch.ones(1, 1), torch.zeros(1), torch.ones(1, dtype=torch.bool)),))
    endless = Problem(network, Box(torch.tensor([-inf]), torch.tensor([inf])), opposite)
    rows = lower_rows(endless)
    assert rows is None or not bool(opposite.avoided(rows.rows))


def test_an_unsafe_set_of_all_outputs_has_no_rows_to_pull_through_a_concatenation() -> None:
    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, 2 * x], 1)

    box, none = Box(torch.zeros(2), torch.ones(2)), torch.zeros(0, dtype=torch.float64)
    region = Polytope(box, torch.tensor([[1.0, -1.0]]), torch.zeros(1), torch.tensor([True]))
    spec = Spec((Polyhedron(none.view(0, 4), none, none.bool()),))
    exact = lower_rows(Problem(to_network(Twice().eval(), (2,)), region, spec))
    assert exact is not None
    assert exact.rows.shape == (0,)
