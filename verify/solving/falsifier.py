"""Attacks as methods: they may falsify, and never verify."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from assay.attacks.common.interface import Attack, draws
from assay.attacks.common.option_ranges import whole
from assay.attacks.registry import get_attack
from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.errors import UnsupportedError
from assay.verify.core.problem import Problem
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.core.spec import Spec


@dataclass(frozen=True)
class Falsifier:
    """An attack as a verifier: FALSIFIED with the point it found, or UNKNOWN.

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
        budget = budget.started()
        results: dict[int, Result] = {}
        networks: dict[int, list[int]] = {}
        for i, problem in enumerate(problems):
            if problem.region.empty or not problem.spec.disjuncts:
                results[i] = self._result(problem, Reason.VACUOUS)
            else:
                networks.setdefault(id(problem.network), []).append(i)
        for members in networks.values():
            results |= self._attacked({i: problems[i] for i in members}, budget)
        return [results[i] for i in range(len(problems))]

    def _attacked(self, problems: Mapping[int, Problem], budget: Budget) -> dict[int, Result]:
        """The results of problems of one network."""
        found: dict[int, Tensor] = {}
        begun, none = time.monotonic(), Reason.TIMEOUT
        for tried in range(self.rounds if draws(self.attack) else 1):
            standing = [i for i in problems if i not in found]
            if not standing or budget.expired:
                break
            none = Reason.INCOMPLETE
            owners, targets = zip(*((i, t) for i in standing for t in self._targets(problems[i])), strict=True)
            attacked = self.attack.search(targets, seed=budget.seed + tried)
            broken = zip(owners, attacked.adversarial, attacked.success.tolist(), strict=True)
            found |= {i: x.detach().clone() for i, x, success in broken if success}
        seconds = (time.monotonic() - begun) / len(problems)
        return {i: self._result(p, None if i in found else none, found.get(i), seconds) for i, p in problems.items()}

    def _targets(self, problem: Problem) -> list[Problem]:
        if not self.targeted:
            return [problem]
        return [replace(problem, spec=Spec((disjunct,))) for disjunct in problem.spec.disjuncts]

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
    """An attack on the specification, as a method: falsified with the point it found, or unknown.

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
        budget, results = budget.started(), dict[int, Result]()
        spent = [0.0] * len(problems)
        for tried, falsifier in self._turns():
            standing = [i for i in range(len(problems)) if i not in results or _open(results[i])]
            if not standing or (results and budget.expired):
                break
            again = replace(budget, seed=budget.seed + tried)
            found = self._by(falsifier, [problems[i] for i in standing], again)
            for i, result in zip(standing, found, strict=True):
                spent[i] += result.seconds
                results[i] = result
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
