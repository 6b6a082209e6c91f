"""An attack on the vote under noise inside of the network: ascent through the layers before the noise."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from assay.verify.backends.smoothing import kinds
from assay.verify.backends.smoothing.attack import ascended, distance, strongest
from assay.verify.backends.smoothing.layer import At, LayerSmoothing, Parted
from assay.verify.backends.smoothing.sampling import centre
from assay.verify.backends.smoothing.statements import declined, stated
from assay.verify.backends.smoothing.vote import outvotes
from assay.verify.core.budget import UNLIMITED, Budget, running
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, content_hash
from assay.verify.core.ops import Opaque
from assay.verify.core.problem import Problem, check_problem
from assay.verify.core.result import Guarantee, Reason, Result


@dataclass(frozen=True)
class LayerSmoothingAttack:
    """Looks in the ball for a point that the vote under noise behind the leading affine layers gets wrong, as
    ``layer-smoothing`` with the same ``noise`` and ``sigma`` defines it.

    ``steps`` of projected ascent of -log of the label's mean probability over ``copies`` noises (SmoothAdv: Salman et
    al. 2019, arXiv:1906.04584), the same ones at each step. A point breaks a sample if a rival, chosen on n0 draws at
    the point, has more votes than the label among n fresh ones by a one-sided binomial test at alpha.
    """

    noise: At = "gaussian"
    sigma: float = 0.5
    n: int = 10_000
    n0: int = 100
    alpha: float = 0.001
    steps: int = 20
    copies: int = 32
    name: ClassVar[str] = "layer-smoothing-attack"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL

    def __post_init__(self) -> None:
        _ = self._method
        for option in ("steps", "copies"):
            if getattr(self, option) < 1:
                raise InputError(f"{option} of {self.name} must be at least 1, got {getattr(self, option)}")

    @property
    def _method(self) -> LayerSmoothing:
        return LayerSmoothing(self.noise, self.sigma, self.n, self.n0, self.alpha)

    @property
    def subject(self) -> str:
        """The classifier that results speak of."""
        return self._method.subject

    def supports(self, problem: Problem) -> str | None:
        """As :meth:`LayerSmoothing.supports`, of networks that have gradients."""
        ops = (node.op for node in problem.network.nodes)
        if blind := [op.label for op in ops if isinstance(op, Opaque) and not op.differentiable]:
            return f"{blind[0]} has no gradients"
        return self._method.supports(problem)

    def classify(self, network: Network, x: Tensor, seed: int) -> int | None:
        """As :meth:`LayerSmoothing.classify`: x (shape)."""
        return self._method.classify(network, x, seed)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """FALSIFIED with the point that the vote gets wrong, or UNKNOWN."""
        check_problem(problem)
        budget, begun = running(budget), time.monotonic()
        if (none := declined(self, problem, budget, begun)) is not None:
            return none
        parted, label, clean = Parted.of(problem.network), problem.label, centre(problem)
        assert parted is not None
        assert label is not None
        point = self._ascend(problem, parted, clean, label, budget)
        question = self._method.question(parted, point, budget.seed)
        rival, counts = strongest(question, label)
        broken = False
        if rival is not None:
            broken, counts = outvotes(question, "attack vote", rival, label)
        reason = None if broken else Reason.TIMEOUT if budget.expired else Reason.INCOMPLETE
        stats = {"counts": counts, "distance": distance(problem.region, point)}
        return stated(self, problem, begun, reason, stats, self.alpha, counterexample=point if broken else None)

    def _ascend(self, problem: Problem, parted: Parted, clean: Tensor, label: int, budget: Budget) -> Tensor:
        """The member of the region (shape) with the largest loss over noises that stay the same."""
        key = content_hash(self.name, budget.seed, clean)
        generator = torch.Generator().manual_seed(int(key[:15], 16))
        blank = torch.zeros_like(parted.before(clean[None])[0])
        noise = kinds.of_rms(self.noise, self.sigma, blank.numel())
        noises = noise.sample(blank, self.copies, generator)
        return ascended(
            problem.region, clean, label, lambda x: parted.after(parted.before(x) + noises), self.steps, budget
        )
