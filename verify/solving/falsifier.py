"""Attacks as methods: they may falsify, and never verify."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar

from torch import Tensor, nn

from assay.attacks.common.interface import Attack, draws
from assay.attacks.common.option_ranges import whole
from assay.attacks.registry import get_attack
from assay.verify.bounds.verdicts import unanswerable
from assay.verify.check.replay import replayed
from assay.verify.core.budget import UNLIMITED, Budget, Expired, running
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.ops import Step
from assay.verify.core.problem import Problem
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.core.spec import Spec

TOGETHER = 1 << 24  # values of neurons in one forward pass, at most


class Timed(nn.Module):
    """A model that is not run again once the time is over: attacks know no budget, but for what they run.

    Raises :class:`Expired` instead; an attack that can tell what it has by then catches that.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], budget: Budget) -> None:
        super().__init__()
        self.model, self.budget = model, budget
        self.training = isinstance(model, nn.Module) and model.training

    def forward(self, x: Tensor) -> Tensor:
        """The model's output at x (batch x shape), (batch x outputs), as long as there is time."""
        self.budget.check()
        return self.model(x)


def _timed(problems: Mapping[int, Problem], budget: Budget) -> dict[int, Problem]:
    """Problems of one network, with the model that is attacked timed; one that jumps as its network, which has
    gradients there."""
    network = next(iter(problems.values())).network
    jumps = any(isinstance(node.op, Step) for node in network.nodes)
    model = network.oracle if isinstance(network.oracle, nn.Module) and not jumps else network
    timed = replace(network, oracle=Timed(model, budget))
    return {i: problem.with_parts(network=timed) for i, problem in problems.items()}


@dataclass(frozen=True)
class Falsifier:
    """An attack as a verifier: FALSIFIED with the point it found, for who asks to replay, or UNKNOWN.

    ``rounds``: how often it is tried, with another seed each time, while there is time; once, if nothing in it is
    random. ``targeted``: each disjunct of a specification is attacked by itself, which costs more, and finds what the
    nearest disjunct hides.
    """

    attack: Attack
    rounds: int = 1
    targeted: bool = False
    name: ClassVar[str] = "attack"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL

    def supports(self, problem: Problem) -> str | None:
        """Attacks take every problem that has a differentiable model."""
        return None

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """FALSIFIED if the attack breaks the problem."""
        return self.verify_many([problem], budget)[0]

    def verify_many(self, problems: Sequence[Problem], budget: Budget = UNLIMITED) -> list[Result]:
        """One result per problem."""
        budget = running(budget)
        results: dict[int, Result] = {}
        networks: dict[int, list[int]] = {}
        for i, problem in enumerate(problems):
            if declined := unanswerable(self, problem):
                results[i] = replace(declined, verifier=repr(self.attack), guarantee=self.guarantee)
            else:
                networks.setdefault(id(problem.network), []).append(i)
        for members in networks.values():
            results |= self._attacked({i: problems[i] for i in members}, budget)
        return [results[i] for i in range(len(problems))]

    def _attacked(self, problems: Mapping[int, Problem], budget: Budget) -> dict[int, Result]:
        """The results of problems of one network."""
        points: dict[int, Tensor] = {}
        begun, tried = time.monotonic(), 0
        timed = _timed(problems, budget)
        while tried < (self.rounds if draws(self.attack) else 1) and len(points) < len(timed) and not budget.expired:
            self._round(timed, points, budget, budget.seed + tried)
            tried += 1
        seconds = (time.monotonic() - begun) / len(problems)
        none = Reason.TIMEOUT if budget.expired else Reason.INCOMPLETE
        return {i: self._result(p, None if i in points else none, points.get(i), seconds) for i, p in problems.items()}

    def _round(self, problems: Mapping[int, Problem], points: dict[int, Tensor], budget: Budget, seed: int) -> None:
        """Attack everything that still stands once, as much of it together as fits; ``points`` grows."""
        nodes = next(iter(problems.values())).network.nodes
        most = max(1, TOGETHER // sum(node.size for node in nodes))
        targets = ((i, t) for i, problem in problems.items() for t in self._targets(problem) if i not in points)
        while part := [*islice(targets, most)]:
            try:
                budget.check()
                attacked = self.attack.search([target for _, target in part], seed=seed)
            except Expired:
                return
            broken = zip(part, attacked.adversarial, attacked.success.tolist(), strict=True)
            points |= {i: x.detach().clone() for (i, _), x, success in broken if success}

    def _targets(self, problem: Problem) -> Iterator[Problem]:
        if not self.targeted:
            yield problem
        else:
            yield from (problem.with_parts(spec=Spec((disjunct,))) for disjunct in problem.spec.disjuncts)

    def _result(self, problem: Problem, reason: Reason | None, x: Tensor | None = None, seconds: float = 0.0) -> Result:
        return Result(
            problem.id,
            repr(self.attack),
            Verdict.FALSIFIED if reason is None else Verdict.UNKNOWN,
            reason,
            guarantee=self.guarantee,
            counterexample=x,
            seconds=seconds,
            semantics="float32",
        )


@dataclass(frozen=True)
class AttackVerifier:
    """An attack on the specification, as a method: falsified with the point it found, once replayed, or unknown.

    ``attack``: by name, ``pgd(steps=100)``; several with ``+`` between them take turns. ``rounds``: how often each is
    tried while there is time, with another seed each time; once, if nothing in it is random. ``targeted``: each
    disjunct is attacked by itself.
    """

    attack: str = "pgd"
    rounds: int = 1
    targeted: bool = False
    name: ClassVar[str] = "attack"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL

    def __post_init__(self) -> None:
        whole(self, "rounds")
        _ = self._falsifiers  # unknown attacks and options are refused now and not later

    def supports(self, problem: Problem) -> str | None:
        """Only the attack itself knows: an UNKNOWN result tells."""
        return None

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """FALSIFIED if the attack breaks the problem."""
        return self.verify_many([problem], budget)[0]

    def verify_many(self, problems: Sequence[Problem], budget: Budget = UNLIMITED) -> list[Result]:
        """One result per problem; what the attack cannot treat is UNKNOWN(unsupported)."""
        budget, results = running(budget), dict[int, Result]()
        spent = [0.0] * len(problems)
        for tried, falsifier in self._turns():
            standing = [i for i in range(len(problems)) if i not in results or _open(results[i])]
            if not standing or (results and budget.expired):
                break
            again = replace(budget, seed=budget.seed + tried)
            attacked = self._by(falsifier, [problems[i] for i in standing], again)
            for i, result in zip(standing, attacked, strict=True):
                spent[i] += result.seconds
                falsified = result.verdict is Verdict.FALSIFIED
                results[i] = replayed(problems[i], result) if falsified else result
        late = Reason.TIMEOUT if budget.expired else None
        return [self._told(results[i], late, spent[i]) for i in range(len(problems))]

    def _told(self, result: Result, late: Reason | None, seconds: float) -> Result:
        reason = late if late and result.reason is Reason.INCOMPLETE else result.reason
        return replace(result, verifier=repr(self), reason=reason, seconds=seconds)

    def _by(self, falsifier: Falsifier, problems: Sequence[Problem], budget: Budget) -> list[Result]:
        try:
            return falsifier.verify_many(problems, budget)
        except UnsupportedError as error:
            if len(problems) > 1:
                return [result for problem in problems for result in self._by(falsifier, [problem], budget)]
            why = {"explanation": str(error)}
            return [Result(problems[0].id, "", Verdict.UNKNOWN, Reason.UNSUPPORTED, self.guarantee, stats=why)]

    def _turns(self) -> Iterator[tuple[int, Falsifier]]:
        """Which attack is next, with the number of its round; one that draws nothing at random has one round."""
        falsifiers = self._falsifiers
        yield from ((0, falsifier) for falsifier in falsifiers)
        again = [falsifier for falsifier in falsifiers if draws(falsifier.attack)]
        for tried in range(1, self.rounds if again else 1):
            yield from ((tried, falsifier) for falsifier in again)

    @property
    def _falsifiers(self) -> list[Falsifier]:
        names = re.split(r"\+(?![^(]*\))", self.attack)  # not the plus of an option's exponent
        return [Falsifier(get_attack(name), targeted=self.targeted) for name in names]


def _open(result: Result) -> bool:
    """Whether another attack may still tell."""
    return result.verdict is Verdict.UNKNOWN and result.reason is not Reason.VACUOUS
