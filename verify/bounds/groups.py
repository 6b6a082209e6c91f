"""A batch of objectives bounded group by group: what fits into cache, memory and time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from math import inf

import torch
from torch import Tensor

from assay.verify.bounds.layers import Crowded, batch_box
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network
from assay.verify.core.region import Region, take

# Lower bounds of the rows of a group's objective, from its network, region and objective.
GroupBounder = Callable[[Network, Region, Tensor, Budget], Tensor]

# The same of many samples together, or None where that is for groups.
Together = Callable[[Network, Region, Tensor, Budget], Tensor | None]

HALVINGS = 3


def lower_bounds(
    bounder: GroupBounder,
    network: Network,
    region: Region,
    objective: Tensor,
    budget: Budget,
    size: int,
    together: Together | None = None,
    most: int = 0,
) -> Tensor:
    """Lower bounds of ``objective @ network(x)`` over the region, ``size`` samples at a time: (batch x rows), float64.

    ``objective``: (rows x outputs) or (batch x rows x outputs). NaN where the time was over before a sample's turn.
    A group in which anything is not finite is done again one by one, since a NaN spreads through matrix products;
    a group that does not fit into memory is halved, three times at most, then :class:`MemoryError` stands.
    ``together``: what is tried first with up to ``most`` samples, if these are more.
    """
    region = batch_box(region, network.input_shape)
    objective = objective if objective.dim() == 3 else objective[None].expand(region.shape[0], -1, -1)
    if objective.dim() != 3 or objective.shape[0] != region.shape[0] or objective.shape[2] != network.output_size:
        raise InputError(
            f"expected an objective of ({region.shape[0]} x) rows x {network.output_size}, got {tuple(objective.shape)}"
        )
    bounds = torch.full(objective.shape[:2], torch.nan, dtype=torch.float64, device="cpu")

    def attempt(begin: int, end: int, halvings: int) -> None:
        part, whole = slice(begin, end), end - begin == len(objective)
        try:
            lower = bounder(network, region if whole else take(region, part), objective[part], budget)
        except Crowded:
            one_by_one(begin, end, halvings)
            return
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if halvings == 0 or end - begin == 1:
                raise MemoryError(str(error)) from error
            middle = (begin + end) // 2
            attempt(begin, middle, halvings - 1)
            attempt(middle, end, halvings - 1)
            return
        if end - begin > 1 and not bool(lower.isfinite().all()):
            one_by_one(begin, end, halvings)
            return
        bounds[part] = lower.double().masked_fill(lower == inf, torch.nan).cpu()  # an overflow is no bound

    def at_once(part: slice) -> bool:
        if together is None or part.stop - part.start <= size:
            return False
        try:
            lower = together(network, take(region, part), objective[part], budget)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            return False
        if lower is None or not bool(lower.isfinite().all()):
            return False
        bounds[part] = lower.double().cpu()
        return True

    def one_by_one(begin: int, end: int, halvings: int) -> None:
        for one in range(begin, end):
            attempt(one, one + 1, halvings)

    with torch.no_grad(), product_sums():
        try:
            for start in range(0, len(objective), max(size, most)):
                stop = min(start + max(size, most), len(objective))
                if at_once(slice(start, stop)):
                    continue
                for begin in range(start, stop, size):
                    budget.check()
                    attempt(begin, min(begin + size, stop), HALVINGS)
        except Expired:
            pass
    return bounds


def product_sums() -> AbstractContextManager[None]:
    """Where convolutions are sums of their products: others, of which cuDNN may choose one, have other errors."""
    return torch.backends.cudnn.flags(enabled=False)


def out_of_memory(error: BaseException) -> bool:
    """Whether there was not enough of it, which torch says in several ways."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
