"""Sparse-RS (Croce et al. 2022, arXiv:2006.12834): random search over few pixels, or over a patch and its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, inf, sqrt
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from assay.attacks.baselines import clean_record
from assay.attacks.common import task
from assay.attacks.common.early_stopping import EarlyStopping, check_patience
from assay.attacks.common.interface import AttackResult, Model
from assay.attacks.common.option_ranges import fraction, whole
from assay.attacks.common.random_streams import sample_keys, uniform
from assay.attacks.common.task import Record, Task
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.problem import Problem
from assay.verify.core.region import FewPixels, Region, Sparse, Window
from assay.verify.core.region.sparse import channels

# After these queries of ten thousand the share that a proposal changes is the first one divided by so much.
SCHEDULE = ((0, 2), (50, 4), (200, 5), (500, 6), (1000, 8), (2000, 10), (4000, 12), (6000, 15), (8000, 20))
MOVES = 4  # every so many queries a patch is moved instead of repainted
# Queries before which no sample is given up: a random search may go many queries without progress.
WARMUP = 500


def share_at(query: int, queries: int, first: float) -> float:
    """The share of the pixels, or of the patch, that the proposal of a query changes.

    >>> [share_at(query, 1000, 0.3) for query in (0, 1, 999)]
    [0.3, 0.15, 0.015]
    """
    scaled = query * 10000 / queries
    return first / next((divisor for end, divisor in reversed(SCHEDULE) if scaled > end), 1)


class Proposals(Protocol):
    """The best points of samples so far, and what to try next. Images are (batch x channels x rows x columns)."""

    def draw(self, u: Tensor, query: int, queries: int, share: float) -> Tensor:
        """Images to try: at query 0 at random, later near the best ones; u (batch x draws) in [0, 1)."""
        ...

    def accept(self, better: Tensor) -> None:
        """Of what was drawn last keep what is ``better``: (batch), bool."""
        ...

    def take(self, index: Tensor) -> None:
        """Keep the samples at the positions ``index`` (samples) only."""
        ...


class Pixels:
    """Proposals of ``number`` pixels: some return to the clean values, as many others go to corners of the domain.

    ``clean``, ``low``, ``high``: images.
    """

    def __init__(self, clean: Tensor, low: Tensor, high: Tensor, number: int) -> None:
        self.clean, self.low, self.high, self.number = clean, low, high, number
        self.best, self.mask = clean, torch.zeros_like(clean[:, 0].flatten(1), dtype=torch.bool)
        self.tried = self.best, self.mask

    def draw(self, u: Tensor, query: int, queries: int, share: float) -> Tensor:
        """See :class:`Proposals`: u (batch x (channels + 2) * pixels)."""
        size = self.mask.shape[1]
        rank, colour = u[:, : 2 * size].view(-1, 2, size), u[:, 2 * size :].view_as(self.clean)
        number = min(self.number, size)
        moved = number if query == 0 else max(int(share * number), min(1, number))
        kept = self.mask & ~_first(rank[:, 0].masked_fill(~self.mask, -1), moved) if query else self.mask
        fresh = _first(rank[:, 1].masked_fill(kept, -1), moved)
        corner = torch.where(colour < 0.5, self.low, self.high)
        new = torch.where(self._image(kept), self.best, torch.where(self._image(fresh), corner, self.clean))
        self.tried = new, kept | fresh
        return new

    def accept(self, better: Tensor) -> None:
        """See :class:`Proposals`."""
        new, mask = self.tried
        self.best = torch.where(better[:, None, None, None], new, self.best)
        self.mask = torch.where(better[:, None], mask, self.mask)

    def take(self, index: Tensor) -> None:
        """See :class:`Proposals`."""
        for name in ("clean", "low", "high", "best", "mask"):
            setattr(self, name, getattr(self, name)[index])

    def _image(self, mask: Tensor) -> Tensor:
        return mask.view(len(mask), 1, *self.clean.shape[2:])


class Patches:
    """Proposals of a patch: a square of it repainted at a corner of the domain, or another place nearby.

    ``clean``, ``low``, ``high``: images. The patch is kept as shares (batch x channels x height x width) of the way
    from low to high.
    """

    def __init__(self, clean: Tensor, low: Tensor, high: Tensor, window: Window) -> None:
        self.clean, self.low, self.high, self.window = clean, low, high, window
        self.paint = torch.zeros(*clean.shape[:2], window.height, window.width, dtype=clean.dtype, device=clean.device)
        self.place = torch.zeros(len(clean), 2, dtype=torch.int64, device=clean.device)
        self.tried = self.paint, self.place

    def draw(self, u: Tensor, query: int, queries: int, share: float) -> Tensor:
        """See :class:`Proposals`: u (batch x (4 + channels * height * width))."""
        corner = (u[:, 4:].view_as(self.paint) < 0.5).to(self.paint)
        room = torch.tensor(self.clean.shape[2:]) - torch.tensor((self.window.height, self.window.width))
        room = room.to(self.place)
        if query == 0:
            self.tried = corner, (u[:, :2] * (room + 1)).long()
        elif query % MOVES == 0:
            reach = max(1, ceil(max(self.clean.shape[2:]) * (1 - query / queries) / 2))
            step = ((u[:, :2].double() * (2 * reach + 1)).long() - reach).clamp(-reach, reach)
            self.tried = self.paint, torch.minimum((self.place + step).clamp(min=0), room)
        else:
            side = max(1, round(sqrt(share * self.window.height * self.window.width)))
            square = _square(u[:, 2:4], self.window, side)
            self.tried = torch.where(square[:, None], corner[:, :, :1, :1], self.paint), self.place
        return self._pasted(*self.tried)

    def accept(self, better: Tensor) -> None:
        """See :class:`Proposals`."""
        paint, place = self.tried
        self.paint = torch.where(better[:, None, None, None], paint, self.paint)
        self.place = torch.where(better[:, None], place, self.place)

    def take(self, index: Tensor) -> None:
        """See :class:`Proposals`."""
        for name in ("clean", "low", "high", "paint", "place"):
            setattr(self, name, getattr(self, name)[index])

    def _pasted(self, paint: Tensor, place: Tensor) -> Tensor:
        """The clean images with the patches at their places."""
        height, width = self.window.height, self.window.width
        rows, columns = (
            torch.arange(extent, device=place.device) - first[:, None]
            for extent, first in zip(self.clean.shape[2:], place.unbind(1), strict=True)
        )
        sample = torch.arange(len(place), device=place.device)[:, None, None]
        at = paint.permute(0, 2, 3, 1)[
            sample, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]
        ]
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
        colour = torch.where(at.permute(0, 3, 1, 2) > 0.5, self.high, self.low)
        return torch.where(inside[:, None], colour, self.clean)


@dataclass(frozen=True)
class SparseRS:
    """``queries`` of random search on the margin in few pixels or a patch: what raises the loss is kept.

    ``share``: of the pixels that the first proposals change; it shrinks as the search goes on. No gradient is needed.
    ``patience``: a sample is given up once its recent progress, kept up so many times as fast, would not break it; inf
    for never.
    """

    queries: int = 5000
    share: float = 0.3
    restarts: int = 1
    patience: float = 10.0
    name: ClassVar[str] = "sparse-rs"

    def __post_init__(self) -> None:
        whole(self, "queries", "restarts")
        fraction(self, "share")
        check_patience(self.patience)

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch); at most ``restarts * queries + 1`` forward passes.

        Raises :class:`InputError` as every attack does, :class:`UnsupportedError` for balls and boxes.
        """
        return task.run(model, x, labels, region, "margin", lambda job: self._method(job, seed))

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification."""
        return task.search(problems, lambda job: self._method(job, seed))

    def _method(self, job: Task, seed: int) -> AttackResult:
        if not isinstance(job.region, Sparse):
            raise UnsupportedError(f"{self.name} searches few pixels or a patch, not a {type(job.region).__name__}")
        job = replace(job, goal=job.goal.with_loss("margin"))
        record, keys = clean_record(job), sample_keys(job.clean, seed)
        for restart in range(self.restarts):
            standing = record.standing
            if len(standing):
                self._search(record, job.take(standing), standing, keys[standing], restart << 32)
        return record.result(job.region)

    def _search(self, record: Record, job: Task, index: Tensor, keys: Tensor, stream: int) -> None:
        """One run of all queries from a random start."""
        proposals, draws = _proposals(job)
        best = torch.full((len(index),), -inf, dtype=torch.float64, device=index.device)
        stopping = EarlyStopping(self.queries, self.patience, WARMUP)
        for query in range(self.queries):
            if not len(index):
                return
            u = uniform(keys, (draws,), stream + query)
            new = proposals.draw(u, query, self.queries, share_at(query, self.queries, self.share))
            new = new.reshape(len(new), *job.clean.shape[1:])
            loss, success = job.evaluate(new)
            success = job.confirm(new, success)
            record.note(index, new, loss, success)
            better = loss >= best  # moves along a plateau are taken, too
            proposals.accept(better)
            best = torch.where(better, loss.double(), best)
            done = success | stopping.should_stop(query, best)
            if bool(done.any()):
                left = (~done).nonzero()[:, 0]
                index, job, keys, best = index[left], job.take(left), keys[left], best[left]
                proposals.take(left)
                stopping.take(left)


def _proposals(job: Task) -> tuple[Proposals, int]:
    """What is to be tried on a task, and how many random numbers each proposal takes."""
    region = job.region
    assert isinstance(region, Sparse)
    low, high = (side.to(job.clean) for side in region.anything.allowed(job.clean.dtype))
    clean, low, high = (
        channels(side.expand_as(job.clean)).contiguous() for side in (region.centre.to(job.clean), low, high)
    )
    pixels = clean[0, 0].numel()
    if isinstance(region.support, FewPixels):
        return Pixels(clean, low, high, region.support.number), (2 + clean.shape[1]) * pixels
    if isinstance(region.support, Window):
        window = region.support
        return Patches(clean, low, high, window), 4 + clean.shape[1] * window.height * window.width
    raise UnsupportedError(f"sparse-rs knows no way through {region.support!r}")


def _first(rank: Tensor, count: int) -> Tensor:
    """The ``count`` places of the highest rank (batch x places) among those of at least 0: bool."""
    chosen = rank.topk(count, dim=1).indices
    return torch.zeros_like(rank, dtype=torch.bool).scatter_(1, chosen, True) & (rank >= 0)


def _square(u: Tensor, window: Window, side: int) -> Tensor:
    """A square at a random place u (batch x 2) of the patch: (batch x height x width), bool."""
    inside = []
    for extent, at in zip((window.height, window.width), u.double().unbind(1), strict=True):
        length = min(side, extent)
        places = torch.arange(extent, device=u.device) - (at * (extent - length + 1)).long()[:, None]
        inside.append((places >= 0) & (places < length))
    return inside[0][:, :, None] & inside[1][:, None, :]
