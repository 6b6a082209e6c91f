"""Random polytopes with room in them, of any tightness."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.verify.core.region import Box, Polytope
from tests.nets import generator


def random_polytope(
    lower: Tensor, upper: Tensor, seed: int, rows: int = 2, room: float = 0.1, away: Tensor | None = None
) -> Polytope:
    """Constraints that cut through the box and leave ``room`` (a share of their width) about a random point in it;
    ``away``: a point (inputs) that lies on their other side."""
    g = generator(seed)
    lower, upper = lower.double(), upper.double()
    inside = lower.flatten() + torch.rand(lower.numel(), generator=g, dtype=torch.float64) * (upper - lower).flatten()
    A = torch.randn(rows, lower.numel(), generator=g, dtype=torch.float64)
    if seed % 3 == 0:  # differences of two inputs, as people write them
        A = torch.zeros_like(A)
        for row in A:
            row[torch.randperm(len(row), generator=g)[:2]] = torch.tensor([1.0, -1.0], dtype=torch.float64)[: len(row)]
    if away is not None:
        A = torch.where((A @ (away - inside) < 0)[:, None], -A, A)
    width = A.abs() @ (upper - lower).flatten()
    return Polytope(Box(lower, upper), A, A @ inside + room * width)


def unit_box(size: int) -> tuple[Tensor, Tensor]:
    """From 0 to 1."""
    return torch.zeros(size, dtype=torch.float64), torch.ones(size, dtype=torch.float64)
