"""Products of sparse matrices, by whichever way: against dense ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from assay.verify.backends.bab.neurons.products import Product, Space
from assay.verify.programs.program import Matrix


def windows(places: int, channels: int, seed: int) -> Matrix:
    """Rows of which ``channels`` at a time read the same 40 of 400 operands, shuffled; a tenth of them read nothing."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((places * channels, 400))
    for place in range(places):
        reads = rng.choice(400, 40, replace=False)
        for channel in range(channels):
            rows[channel * places + place, reads] = rng.normal(size=40)
    rows[rng.random(len(rows)) < 0.1] = 0.0
    return sparse.csr_array(rows)


def dense(matrix: Matrix) -> Tensor:
    return torch.from_numpy(matrix.toarray())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("columns", "blocked"), [(1, False), (2000, True)])
def test_products_are_those_of_dense_matrices(dtype: torch.dtype, columns: int, blocked: bool) -> None:
    torch.manual_seed(0)
    matrix = windows(6, 40, 1)
    product, space = Product(matrix, dtype, Space()), Space()
    assert (product.blocks(columns) is not None) == blocked
    for again in (product, Product(windows(5, 50, 2), dtype, space), Product(windows(6, 40, 3), dtype, space)):
        x, held = torch.randn(400, columns, dtype=dtype), torch.randn(again.rows, columns, dtype=dtype)
        true = dense(again.matrix).to(dtype) @ x
        into = torch.full_like(held, torch.nan)
        again.put(x, into)
        torch.testing.assert_close(into, true, atol=1e-4, rtol=1e-5)
        for sign in (1.0, -1.0):
            into = held.clone()
            again.add(x, into, sign)
            torch.testing.assert_close(into, held + sign * true, atol=1e-4, rtol=1e-5)


def test_rows_of_the_same_mark_that_read_other_operands_are_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were all marks one number, rows of as many entries would all have the same."""

    class Constant:
        def integers(self, low: int, high: int, size: int, dtype: type) -> np.ndarray:
            return np.ones(size, dtype=dtype)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Constant())
    matrix = sparse.csr_array(np.kron(np.eye(40), np.ones((40, 10))))
    product = Product(matrix, torch.float64, Space())
    x, into = torch.randn(400, 4096, dtype=torch.float64), torch.zeros(1600, 4096, dtype=torch.float64)
    product.put(x, into)
    torch.testing.assert_close(into, dense(matrix) @ x)


def test_dense_matrices_and_those_without_rows_are_no_blocks() -> None:
    for matrix in (sparse.csr_array(np.ones((50, 40))), sparse.csr_array((0, 40)), sparse.csr_array((50, 40))):
        product = Product(matrix, torch.float32, Space())
        assert product.blocks(10_000) is None
        into = torch.ones(product.rows, 3)
        product.put(torch.ones(40, 3), into)
        assert torch.equal(into, torch.full_like(into, 40.0 if matrix.nnz else 0.0))
