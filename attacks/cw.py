"""Carlini and Wagner's attacks (2017, arXiv:1608.04644): the nearest adversarial point in l2 or linf, by Adam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from assay.attacks.common import minimal_norm
from assay.attacks.common.interface import AttackResult, Model
from assay.attacks.common.minimal_norm import Closest, bisect_segment, length, loss_and_gradient, per_sample
from assay.attacks.common.option_ranges import nonnegative, positive, whole
from assay.attacks.common.penalty_descent import Adam, WeightSearch, descend, l2_penalty, linf_penalty
from assay.attacks.common.task import Task
from assay.verify.core.problem import Problem
from assay.verify.core.region import Region

# By norm.
ROUNDS = {2.0: 9, inf: 30}


@dataclass(frozen=True)
class CW:
    """Minimises the distance plus ``c`` times what the margin lacks to ``confidence``, by Adam within the domain.

    In l2 the distance is squared, and ``c`` is searched for each sample: ten times larger until it breaks the sample,
    bisected from then on. In linf it is the sum of the excess over a threshold, nine tenths of the distance reached;
    where that is not met ``c`` doubles, ten times at most. Each round starts where the one before it ended.

    ``rounds``: of the search, None is 9 in l2 and 30 in linf; ``steps``: of Adam in each, at most; ``rate``: their
    size, in the units of the input. ``c``: the first one; None takes it from the gradient at the sample.
    ``confidence``: the margin to be reached. ``refine``: bisections of the segment to the sample at the end.
    ``targeted``: the labels given to :meth:`run` are the classes to be reached.
    """

    rounds: int | None = None
    steps: int = 50
    rate: float = 0.01
    c: float | None = None
    confidence: float = 0.0
    refine: int = 10
    targeted: bool = False
    name: ClassVar[str] = "cw"
    random: ClassVar[bool] = False
    minimises: ClassVar[tuple[float, ...]] = (2.0, inf)

    def __post_init__(self) -> None:
        whole(self, "steps", *(["rounds"] if self.rounds is not None else []))
        whole(self, "refine", least=0)
        positive(self, "rate", *(["c"] if self.c is not None else []))
        nonnegative(self, "confidence")

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch); nothing is random.

        Raises :class:`InputError` as every attack does, :class:`UnsupportedError` for a region of another kind.
        """
        return minimal_norm.run(self, model, x, labels, region, "margin", self._method, self.targeted)

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's specification, whose distance to violation takes the margin's place."""
        return minimal_norm.search(self, problems, self._method)

    def _method(self, job: Task, closest: Closest) -> None:
        rounds = ROUNDS[closest.p] if self.rounds is None else self.rounds
        (self._l2 if closest.p == 2 else self._linf)(job, closest, rounds)
        if self.confidence == 0:
            bisect_segment(job, closest, self.refine)

    def _l2(self, job: Task, closest: Closest, rounds: int) -> None:
        adam, search, x = self._adam, WeightSearch(self._first(job, 2.0)), job.clean
        for _ in range(rounds):
            descent = descend(job, closest, x, search.c, l2_penalty, adam)
            search.update(descent.broken)
            x = torch.where(per_sample(closest.broken, x) > 0, closest.adversarial, descent.x)

    def _linf(self, job: Task, closest: Closest, rounds: int) -> None:
        c = self._first(job, inf)
        largest, threshold, x = 2**10 * c, torch.full_like(c, inf), job.clean.clone()
        active = torch.arange(len(x), device=x.device)
        for _ in range(rounds):
            near = Closest(job.clean[active], inf)
            descent = descend(
                job.take(active), near, x[active], c[active], linf_penalty(threshold[active]), self._adam, stop=True
            )
            closest.queries[active] += near.queries
            closest.keep(active, near.adversarial, near.distance)
            met = near.distance <= threshold[active]
            c[active] = torch.where(met, c[active], 2 * c[active])
            threshold[active] = torch.where(met, 0.9 * closest.distance[active], threshold[active])
            x[active] = torch.where(per_sample(near.broken, descent.x) > 0, near.adversarial, descent.x)
            active = active[c[active] <= largest[active]]
            if not len(active):
                break

    @property
    def _adam(self) -> Adam:
        return Adam(self.steps, self.rate, self.confidence)

    def _first(self, job: Task, p: float) -> Tensor:
        """The first ``c`` (batch): the one whose optimum on a linear model lies on the boundary (l2), or that outweighs
        the penalty of the steepest coordinate (linf)."""
        if self.c is not None:
            return torch.full((len(job.clean),), self.c, dtype=torch.float64, device=job.clean.device)
        loss, _, grad = loss_and_gradient(job, job.clean)
        steep = length(grad.double(), p).clamp(min=1e-9)
        return 2 * (self.confidence - loss.double()) / steep.square() if p == 2 else 1 / steep
