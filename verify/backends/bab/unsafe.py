"""A specification as rows that are each bounded once, and the disjuncts that are made of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.verify.core.spec import Spec


@dataclass(frozen=True, eq=False)
class Unsafe:
    """Rows ``A y - b`` without repetition, A (rows x outputs), b (rows); ``members`` (disjuncts x most rows of one):
    the rows of each disjunct, the first one repeated where it has fewer; ``uses`` (disjuncts x rows): the same as 0/1.
    """

    A: Tensor
    b: Tensor
    members: Tensor
    uses: Tensor

    @classmethod
    def of(cls, spec: Spec) -> Unsafe:
        """A disjunct without rows gets one that always holds, 0 <= 0."""
        blank = torch.zeros(1, spec.A.shape[1] + 1, dtype=torch.float64)
        parts = [torch.cat([d.A, d.b[:, None]], 1) if len(d.b) else blank for d in spec.disjuncts]
        rows, index = torch.unique(torch.cat(parts), dim=0, return_inverse=True)
        most = max(len(part) for part in parts)
        members = torch.stack([torch.cat([i, i[:1].expand(most - len(i))]) for i in index.split([*map(len, parts)])])
        uses = torch.zeros(len(parts), len(rows), dtype=torch.float64).scatter_(1, members, 1.0)
        return cls(rows[:, :-1].contiguous(), rows[:, -1].contiguous(), members, uses)

    def needed(self, open_: Tensor) -> tuple[Tensor, Tensor]:
        """Domain and row of each row that some disjunct still open refers to: open_ (domains x disjuncts)."""
        domain, row = (open_.to(self.uses) @ self.uses > 0).nonzero(as_tuple=True)
        return domain, row
