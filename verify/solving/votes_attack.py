"""An attack on the plurality of voters that each see a part of the image, by attacks that need no gradients."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import torch

from assay.attacks import get_attack
from assay.verify.backends.smoothing.derandomized import Derandomized, Seen
from assay.verify.backends.smoothing.sampling import centre
from assay.verify.backends.smoothing.statements import declined, stated
from assay.verify.core.budget import UNLIMITED, Budget, Expired, running
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem, check_problem
from assay.verify.core.result import Guarantee, Reason, Result
from assay.verify.solving.falsifier import Timed


@dataclass(frozen=True)
class DerandomizedAttack:
    """Looks among the patches, or the few changed pixels, for a point that loses the label its plurality, as
    ``derandomized`` with the same ``seen`` and ``width`` counts it; ``attack``: by name, one without gradients."""

    seen: Seen = "band"
    width: int = 2
    attack: str = "sparse-rs(queries=300)"
    name: ClassVar[str] = "derandomized-attack"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL

    def __post_init__(self) -> None:
        _ = self._method
        get_attack(self.attack)

    @property
    def _method(self) -> Derandomized:
        return Derandomized(self.seen, self.width)

    @property
    def subject(self) -> str:
        """The classifier that results speak of."""
        return self._method.subject

    def supports(self, problem: Problem) -> str | None:
        """As :meth:`Derandomized.supports`."""
        return self._method.supports(problem)

    def classify(self, network: Network, x: torch.Tensor, seed: int) -> int | None:
        """As :meth:`Derandomized.classify`: x (shape)."""
        return self._method.classify(network, x, seed)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """FALSIFIED with a point at which another class has as many votes as the label, or UNKNOWN."""
        check_problem(problem)
        budget, begun = running(budget), time.monotonic()
        if (none := declined(self, problem, budget, begun)) is not None:
            return none
        votes, x = Timed(self._method.votes(problem.network).eval(), budget), centre(problem)[None]
        labels = torch.tensor([problem.label])
        try:
            found = get_attack(self.attack).run(votes, x, labels, problem.region, seed=budget.seed)
        except Expired:
            return stated(self, problem, begun, Reason.TIMEOUT)
        except UnsupportedError as error:
            return stated(self, problem, begun, Reason.UNSUPPORTED, {"explanation": str(error)})
        if bool(found.success[0]):
            stats = {"pixels": float(found.distance[0]), "queries": int(found.queries[0])}
            return stated(self, problem, begun, None, stats, counterexample=found.adversarial[0])
        return stated(self, problem, begun, Reason.TIMEOUT if budget.expired else Reason.INCOMPLETE)
