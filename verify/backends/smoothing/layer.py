"""Noise inside of the network: behind its leading affine layers, at the sensitivity that they have.

What lies before the noise is affine, ``x -> W x + b``: a perturbation of length r in the input's norm is one of at most
S r in the norm of the noise, S the operator norm of W. What follows sees noise about a vector, as a network with noise
at its input does, and what is certified there holds of the input at 1 / S of the radius (PixelDP: Lecuyer et al. 2019,
arXiv:1802.03471; with the radius of Cohen et al. 2019 in place of differential privacy's where it is asked for).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from assay.verify.backends.smoothing import certificates, kinds, named, vote
from assay.verify.backends.smoothing.deciding import never
from assay.verify.backends.smoothing.kinds import Kind
from assay.verify.backends.smoothing.method import beyond, check_options
from assay.verify.backends.smoothing.question import Certified, Question
from assay.verify.backends.smoothing.sampling import centre, drowned
from assay.verify.backends.smoothing.statements import declined, stated
from assay.verify.core.budget import UNLIMITED, Budget, running
from assay.verify.core.errors import InputError, ResourceError, unknown_name
from assay.verify.core.network import Network
from assay.verify.core.ops import Conv2d, ConvTranspose2d, Gather, Linear, Op, Reshape, Scale, evaluate
from assay.verify.core.problem import Problem, check_problem
from assay.verify.core.region import LpBall
from assay.verify.core.result import Guarantee, Reason, Result
from assay.verify.perturbations import Perturbed

WEIGHING: tuple[type[Op], ...] = (Linear, Conv2d, ConvTranspose2d)
AFFINE: tuple[type[Op], ...] = (*WEIGHING, Scale, Reshape, Gather)
LARGEST = 1 << 26  # numbers of W that are made
SLACK = 1 + 1e-9  # of what rounding in float64 may take from W
At = Literal["gaussian", "laplace"]
By = Literal["pixeldp", "cohen"]
NORMS = {"gaussian": 2.0, "laplace": 1.0}


@dataclass(frozen=True, eq=False)
class Parted:
    """A network as the affine part that it begins with, up to node ``cut``, and the rest of it."""

    network: Network
    cut: int

    @classmethod
    def of(cls, network: Network) -> Parted | None:
        """The longest affine beginning that a linear layer or a convolution is part of, and that nothing later looks
        behind; None if there is none."""
        found, weighs = None, False
        for position, node in enumerate(network.nodes[1:-1], 1):
            if list(node.inputs) != [position - 1] or not isinstance(node.op, AFFINE):
                break
            weighs = weighs or isinstance(node.op, WEIGHING)
            if weighs and all(i >= position for later in network.nodes[position + 1 :] for i in later.inputs):
                found = cls(network, position)
        return found

    def before(self, x: Tensor) -> Tensor:
        """What the affine part makes of x (batch x shape): (batch x shape of the cut)."""
        values = [x]
        for node in self.network.to(x.dtype, x.device).nodes[1 : self.cut + 1]:
            values.append(evaluate(node.op, *(values[i] for i in node.inputs)))
        return values[-1]

    def after(self, z: Tensor) -> Tensor:
        """The outputs at what the affine part made: (batch x shape of the cut) to (batch x outputs)."""
        values: dict[int, Tensor] = {self.cut: z}
        for position, node in enumerate(self.network.to(z.dtype, z.device).nodes[self.cut + 1 :], self.cut + 1):
            values[position] = evaluate(node.op, *(values[i] for i in node.inputs))
        return values[len(self.network.nodes) - 1]

    def matrix(self) -> Tensor:
        """W (features behind the affine part x inputs), float64. Raises :class:`ResourceError` if it is too large."""
        inputs, outputs = self.network.nodes[0].size, self.network.nodes[self.cut].size
        if inputs * outputs > LARGEST:
            raise ResourceError(f"the affine part has {inputs} x {outputs} coefficients, more than {LARGEST}")
        with torch.no_grad():
            unit = torch.eye(inputs, dtype=torch.float64).view(inputs, *self.network.input_shape)
            zero = torch.zeros(1, *self.network.input_shape, dtype=torch.float64)
            return (self.before(unit) - self.before(zero)).flatten(1).T


@dataclass(frozen=True)
class LayerSmoothing:
    """Certifies the majority vote of the network under noise behind its leading affine layers, with confidence
    1 - alpha for each sample.

    ``noise``: ``gaussian`` or ``laplace``, each value of it with the root mean square ``sigma`` (units of that layer).
    ``certificate``: ``pixeldp``, or ``cohen``, the noise's own radius, which is never shorter. ``n``, ``n0``: draws,
    and those that choose the class before.
    """

    noise: At = "gaussian"
    sigma: float = 0.5
    n: int = 100_000
    n0: int = 100
    alpha: float = 0.001
    certificate: By = "cohen"
    name: ClassVar[str] = "layer-smoothing"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.STATISTICAL

    def __post_init__(self) -> None:
        for what, value, known in (("noise", self.noise, At), ("certificate", self.certificate, By)):
            if value not in get_args(known):
                raise unknown_name(f"{what} of {self.name}", value, get_args(known))
        check_options(self.kind, self.n, self.n0, self.alpha)

    @property
    def kind(self) -> Kind:
        """The noise and how much of it."""
        return Kind(self.noise, self.sigma)

    @property
    def subject(self) -> str:
        """The classifier that results speak of."""
        return f"smoothed(layer {self.kind})"

    def supports(self, problem: Problem) -> str | None:
        """Balls, the specification that one label is strictly the largest output, and an affine beginning."""
        if isinstance(problem, Perturbed):
            return f"{self.name} certifies balls: smoothing certifies perturbations"
        why = beyond(problem, self.kind)
        parted = Parted.of(problem.network)
        if why is None and parted is None:
            why = "the network does not begin with a linear layer or a convolution that only the next layer sees"
        if why is None and parted is not None:
            why = drowned(parted.before(centre(problem)[None])[0], self.sigma)
        return why

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """VERIFIED if the vote's answer is the label everywhere in the ball; never FALSIFIED."""
        check_problem(problem)
        budget, begun = running(budget), time.monotonic()
        if (none := declined(self, problem, budget, begun)) is not None:
            return none
        region, parted = problem.region, Parted.of(problem.network)
        assert isinstance(region, LpBall)
        assert parted is not None
        try:
            sensitivity = self._sensitivity(parted, region.p)
        except ResourceError as error:
            return stated(self, problem, begun, Reason.MEMORY, {"explanation": str(error)})
        answer = self._ask(parted, centre(problem), budget.seed, lambda: budget.expired)
        eps, radius = float(region.eps), answer.radius / sensitivity if sensitivity > 0 else 0.0
        stats = {
            "prediction": answer.prediction,
            "radius": radius,
            "sensitivity": sensitivity,
            "n": answer.outcome.n,
            "p": answer.outcome.lower,
        }
        safe = answer.prediction == problem.label and isfinite(radius) and radius > eps
        reason = None if safe else Reason.TIMEOUT if answer.outcome.expired else Reason.INCOMPLETE
        return stated(self, problem, begun, reason, stats, self.alpha)

    def classify(self, network: Network, x: Tensor, seed: int) -> int | None:
        """The vote's answer at x (shape) on 10 n0 draws, at alpha; None where it abstains."""
        parted = Parted.of(network)
        if parted is None:
            raise InputError("the network does not begin with a linear layer or a convolution")
        return vote.most_frequent(replace(self.question(parted, x.to(network.dtype), seed), n=10 * self.n0))

    def question(self, parted: Parted, x: Tensor, seed: int, expired: Callable[[], bool] = never) -> Question:
        """What follows the affine part, at what that makes of x (shape), under the noise."""
        with torch.no_grad():
            z = parted.before(x[None])[0]
        classes, noise = parted.network.output_size, kinds.of_rms(self.noise, self.sigma, z.numel())
        norm = NORMS[self.noise]
        return Question(parted.after, z, classes, noise, norm, self.n, self.n0, self.alpha, seed, None, expired)

    def _ask(self, parted: Parted, x: Tensor, seed: int, expired: Callable[[], bool]) -> Certified:
        """The vote's answer, and its radius behind the affine part in the norm of the noise."""
        question = self.question(parted, x, seed, expired)
        return named.chosen(self.certificate, self.noise, "fixed").certify(question, "fixed")

    def _sensitivity(self, parted: Parted, norm: float) -> float:
        return certificates.sensitivity(parted.matrix(), norm, NORMS[self.noise]) * SLACK
