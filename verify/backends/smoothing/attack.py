"""An attack on the smoothed classifier: ascent over fixed or fresh noise, judged by a fresh vote."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.verify.backends.smoothing import kinds, named
from assay.verify.backends.smoothing.kinds import Kind
from assay.verify.backends.smoothing.ledger import Ledger
from assay.verify.backends.smoothing.method import Smoothing, beyond, check_options, subject
from assay.verify.backends.smoothing.noises import Noise
from assay.verify.backends.smoothing.question import Question
from assay.verify.backends.smoothing.sampling import centre, oracle
from assay.verify.backends.smoothing.scores import exceed
from assay.verify.backends.smoothing.statements import declined, stated
from assay.verify.backends.smoothing.vote import outvotes
from assay.verify.core.budget import UNLIMITED, Budget, running
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, content_hash
from assay.verify.core.ops import Opaque
from assay.verify.core.problem import Problem, check_problem
from assay.verify.core.region import LpBall, Region, Sparse
from assay.verify.core.result import Guarantee, Reason, Result
from assay.verify.perturbations import Perturbed
from assay.verify.support.floats import length

# Of a perturbation: parameters that are tried at each step, anywhere for a share of the steps, then about the worst few
# so far, as near to each as this share of the ranges, which shrinks.
DRAWS, BROAD, PLACES, NEAR, SHRINK = 8, 0.3, 3, 0.3, 0.8


@dataclass(frozen=True)
class SmoothingAttack:
    """Looks in the ball, or among a perturbation's parameters, for a point that the majority vote under noise gets
    wrong, as ``smoothing`` defines it.

    ``steps`` of projected ascent of -log of the label's mean probability over ``copies`` noises (SmoothAdv: Salman et
    al. 2019, arXiv:1906.04584), the same ones at each step, or new ones with ``fresh`` (expectation over
    transformation: Athalye et al. 2018, arXiv:1707.07397); among few pixels the steps go to the edge of the domain, in
    those of the largest gain (PGD0: Croce and Hein 2019, arXiv:1909.05040), and parameters are drawn, ever closer about
    the worst few. A point breaks a sample if a rival, chosen on n0 draws at the point, has more votes than the label
    among n fresh ones by a one-sided binomial test at alpha. With ``scores`` the classifier is that of the largest mean
    score (``certificate=soft``), and so is what the rival must exceed.
    """

    noise: kinds.Name = "gaussian"
    sigma: float = 0.25
    n: int = 10_000
    n0: int = 100
    alpha: float = 0.001
    steps: int = 20
    copies: int = 32
    fresh: bool = False
    scores: bool = False
    keep: float = 0.1
    name: ClassVar[str] = "smoothing-attack"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL

    def __post_init__(self) -> None:
        check_options(self.kind, self.n, self.n0, self.alpha)
        if self.scores:
            named.chosen("soft", self.noise, "fixed")
        for option in ("steps", "copies"):
            if getattr(self, option) < 1:
                raise InputError(f"{option} of {self.name} must be at least 1, got {getattr(self, option)}")

    @property
    def subject(self) -> str:
        """The classifier that results speak of."""
        return subject(self.kind, self.scores)

    @property
    def kind(self) -> Kind:
        """The noise and how much of it."""
        return Kind(self.noise, self.sigma, self.keep)

    def supports(self, problem: Problem) -> str | None:
        """Balls, the specification that one label is strictly the largest output, and models that have gradients."""
        ops = (node.op for node in problem.network.nodes)
        if blind := [op.label for op in ops if isinstance(op, Opaque) and not op.differentiable]:
            return f"{blind[0]} has no gradients"
        return beyond(problem, self.kind)

    def classify(self, network: Network, x: Tensor, seed: int) -> int | None:
        """As :meth:`Smoothing.classify`: x (shape)."""
        certificate: named.Name = "soft" if self.scores else "cohen"
        judge = Smoothing(self.noise, self.sigma, 1, self.n0, self.alpha, "fixed", certificate, self.keep)
        return judge.classify(network, x, seed)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """FALSIFIED with the point that the vote gets wrong, or UNKNOWN."""
        check_problem(problem)
        budget, begun = running(budget), time.monotonic()
        if (none := declined(self, problem, budget, begun)) is not None:
            return none
        assert problem.label is not None
        clean = centre(problem)
        noise = self.kind.of(clean)
        if isinstance(problem, Perturbed):
            point = self._worst(problem, noise, problem.label, budget)
            image = problem.images(point[None])[0]
            about: dict[str, Any] = {"parameters": problem.named(point)}
        else:
            point = image = self._ascend(problem, noise, clean, problem.label, budget)
            about = {"distance": distance(problem.region, point)}
        broken, counts = self._broken(problem, noise, image, problem.label, budget.seed)
        reason = None if broken else Reason.TIMEOUT if budget.expired else Reason.INCOMPLETE
        stats = {"counts": counts, **about}
        return stated(self, problem, begun, reason, stats, self.alpha, counterexample=point if broken else None)

    def _worst(self, problem: Perturbed, noise: Noise, label: int, budget: Budget) -> Tensor:
        """Of some parameters the ones (parameters) at whose image the label's mean probability is least under the same
        noises: ends, middle and draws, then ever closer about the worst few so far."""
        low, high = problem.perturbation.low, problem.perturbation.high
        seed = int(content_hash(self.name, budget.seed, problem.clean)[:15], 16)
        generator = torch.Generator().manual_seed(seed)

        def losses(at: Tensor) -> Tensor:
            copies = [
                noise.sample(image, self.copies, torch.Generator().manual_seed(seed)) for image in problem.images(at)
            ]
            with torch.no_grad():
                y = oracle(problem)(torch.cat(copies)).flatten(1)
            each = F.cross_entropy(y, torch.full((len(y),), label), reduction="none").view(len(at), self.copies)
            return -(-each).logsumexp(1).nan_to_num(nan=-torch.inf)

        found = torch.stack([(low + high) / 2, low, high])
        loss, wide = losses(found), NEAR
        for turn in range(self.steps):
            if budget.expired:
                break
            share = torch.rand(DRAWS, len(low), dtype=torch.float64, generator=generator)
            if turn <= BROAD * self.steps:
                at = low + share * (high - low)
            else:
                worst = found[loss.topk(PLACES).indices]
                at = worst[torch.arange(DRAWS) % PLACES] + (2 * share - 1) * wide * (high - low)
                at, wide = torch.minimum(torch.maximum(at, low), high), wide * SHRINK
            found, loss = torch.cat([found, at]), torch.cat([loss, losses(at)])
        return found[loss.argmax()]

    def _ascend(self, problem: Problem, noise: Noise, clean: Tensor, label: int, budget: Budget) -> Tensor:
        """The member of the region (shape) with the largest loss over the noises of its own step."""
        model = oracle(problem)
        if not isinstance(model, nn.Module):  # a runtime gives no gradients
            model = problem.network
        key = content_hash(self.name, budget.seed, clean)
        generator = torch.Generator().manual_seed(int(key[:15], 16))
        # What erases multiplies by masks, the rest is added.
        blank = torch.ones_like(clean) if self.kind.erases else torch.zeros_like(clean)
        noises = noise.sample(blank, self.copies, generator)

        def outputs(point: Tensor) -> Tensor:
            drawn = noise.sample(blank, self.copies, generator) if self.fresh else noises
            return model(point * drawn if self.kind.erases else point + drawn)

        return ascended(problem.region, clean, label, outputs, self.steps, budget)

    def _broken(self, problem: Problem, noise: Noise, point: Tensor, label: int, seed: int) -> tuple[bool, list[int]]:
        """Whether a rival beats the label at the point with confidence 1 - alpha, and the votes."""
        classes = problem.network.output_size
        question = Question(oracle(problem), point, classes, noise, n=self.n, n0=self.n0, alpha=self.alpha, seed=seed)
        rival, counts = strongest(question, label)
        if rival is None:
            return False, counts
        if self.scores:
            return exceed(question, "attack scores", rival, [label]), counts
        return outvotes(question, "attack vote", rival, label)


def ascended(
    region: Region, clean: Tensor, label: int, outputs: Callable[[Tensor], Tensor], steps: int, budget: Budget
) -> Tensor:
    """The member of the region (shape) with the largest -log of the label's mean probability on the way of projected
    ascent from the clean point (shape); ``outputs``: of the noisy copies of a point (1 x shape), (copies x classes)."""
    x = region.project(clean[None])
    best, largest = x[0], -torch.inf
    size = 2 / steps
    for _ in range(steps + 1):
        if budget.expired:
            break
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            y = outputs(point).flatten(1)
            each = F.cross_entropy(y, torch.full((len(y),), label), reduction="none")
            loss = -(-each).logsumexp(0)
            (grad,) = torch.autograd.grad(loss, point)
        if float(loss.detach()) > largest:
            best, largest = x[0], float(loss.detach())
        x = region.project(x + size * region.steepest(grad.nan_to_num()))
    return best.detach().clone()


def strongest(question: Question, label: int) -> tuple[int | None, list[int]]:
    """The rival of the label that has most votes among n0 draws, None where none has any; and the rivals' votes."""
    pilot = question.draw("attack pilot", question.n0)
    pilot.counts[label] = pilot.counts[question.classes] = 0
    rival = Ledger(question.alpha).choose(pilot)
    return rival if pilot.counts[rival] else None, pilot.counts


def distance(region: Region, point: Tensor) -> float:
    """Of a point (shape) from the centre: in the norm of a ball, or in changed pixels."""
    if isinstance(region, Sparse):
        return float(region.changed(point[None]).sum())
    assert isinstance(region, LpBall)
    return float(length((point.double() - region.centre).flatten(), region.p))
