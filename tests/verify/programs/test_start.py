"""Tests of verify.programs.start: the basis is one, its bound is CROWN's, and the simplex method soon ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from assay.verify.bounds import layers
from assay.verify.bounds.backward.rows import Backward
from assay.verify.core.network import Network, to_network
from assay.verify.core.region import Box
from assay.verify.programs.dual import safe_bounds
from assay.verify.programs.encode import Encoding, encode
from assay.verify.programs.loading import get_solver, load
from assay.verify.programs.program import Status
from assay.verify.programs.solvers import highs
from assay.verify.programs.start import BASIC, LOWER, UPPER, start
from tests import nets
from tests.contract.graphs import random_box, random_graph


def both(made: Network, box: Box) -> tuple[Encoding, list[float]]:
    """The encoding, and CROWN's bounds of the outputs without a look at intervals."""
    with torch.no_grad():
        relaxed = layers.by_linear_bounds(made, layers.batch_box(box, made.input_shape), torch.float64)
        rows = torch.eye(made.output_size, dtype=torch.float64)[None]
        return encode(made, box, relaxed.bounds), Backward.of(relaxed, rows).over_region()[0].tolist()


@pytest.mark.parametrize("seed", range(10))
def test_its_bound_is_crowns(seed: int) -> None:
    made = to_network(nets.random_mlp(seed, (5, 10, 10, 10, 3)), (5,))
    encoding, crown = both(made, Box(torch.zeros(5), torch.ones(5)))
    program = encoding.draft.program()
    for row, bound in zip(np.eye(3), crown, strict=True):
        cost, offset = encoding.cost(row)
        begin = start(program, cost)
        assert begin is not None
        assert safe_bounds(program, begin.duals[None], cost, offset).bound.item() == pytest.approx(bound, rel=1e-9)


def test_it_is_a_basis() -> None:
    """As many basic columns and rows as there are rows, their matrix invertible, each row on a side that it has."""
    for seed in range(40):
        made = random_graph(seed, image=seed % 2 == 0)
        encoding, _ = both(made, Box(*random_box(made, seed)).box())
        program = encoding.draft.program()
        cost, _ = encoding.cost(np.linspace(-1, 2, made.output_size))
        begin = start(program, cost)
        assert begin is not None
        height = len(program.row_lower)
        basic = np.hstack([program.matrix.toarray(), -np.eye(height)])[
            :, np.concatenate([begin.columns, begin.rows]) == BASIC
        ]
        assert basic.shape == (height, height)
        assert np.linalg.matrix_rank(basic) == height
        assert np.isfinite(program.row_lower[begin.rows == LOWER]).all()
        assert np.isfinite(program.row_upper[begin.rows == UPPER]).all()


def test_the_end_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    made = to_network(nets.random_mlp(0, (20, 60, 60, 5)), (20,))
    encoding, _ = both(made, Box(torch.full((20,), 0.4), torch.full((20,), 0.6)))
    program = encoding.draft.program()
    cost, offset = encoding.cost(np.eye(5)[0])
    steps = {}
    for name, patience in (("cold", 10**9), ("begun", -1)):
        monkeypatch.setattr(highs, "PATIENCE", patience)
        loaded = load(get_solver("highs"), program)
        if name == "cold":
            monkeypatch.setattr("assay.verify.programs.loading.start", lambda program, cost: None)
        answer = loaded.solve(cost, offset)
        monkeypatch.undo()
        assert answer.status is Status.OPTIMAL
        steps[name] = (answer.value, loaded.model.highs.getInfo().simplex_iteration_count)  # type: ignore[attr-defined]
    assert steps["cold"][0] == pytest.approx(steps["begun"][0], abs=1e-9)
    assert 3 * steps["begun"][1] < steps["cold"][1]
