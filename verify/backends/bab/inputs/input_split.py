"""Branch and bound over the input box, where few inputs vary."""

from __future__ import annotations

import time
from copy import copy
from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar, Protocol
from weakref import WeakKeyDictionary

import torch

from assay.verify.backends.bab.account import Account
from assay.verify.backends.bab.frontier import Leaves
from assay.verify.backends.bab.inputs.forward_tree import ForwardTree, dear
from assay.verify.backends.bab.inputs.input_record import InputRecord
from assay.verify.backends.bab.inputs.input_tree import NOTHING, InputTree
from assay.verify.backends.bab.inputs.prepared import inlet_size, varied
from assay.verify.backends.bab.search import Limits, Tree, search
from assay.verify.bounds.mirrored import merged
from assay.verify.bounds.optimised.slopes import Ascent
from assay.verify.bounds.touching import CHEAP
from assay.verify.bounds.verdicts import concluded, touched, unanswerable, without_bounds
from assay.verify.core.budget import UNLIMITED, Budget, running
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem
from assay.verify.core.region import LpBall, Polytope
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.programs.hints import recordable

INLET = 1 << 25  # coefficients of the values before all activations that are kept, where inputs are many
EARLY = 2000  # boxes after which it is asked whether a strict unsafe set is only touched
MANY, WIDE = 1024, 32  # boxes that are bounded together, where layers have so many values on average; narrower, more


@dataclass(frozen=True)
class InputSplit:
    """Inputs are halved until linear bounds decide: complete, but for margins within rounding of zero.

    ``batch``: boxes that are bounded together; without it as many as pay, the more the narrower layers are;
    ``fill``: while fewer are open, boxes are halved several times before they are bounded;
    ``max_inputs``: regions in which more inputs vary are declined; ``steps``, ``rate``: of the ascent of the slopes
    that each box's bound is improved by; ``merge``: neurons that read the same number, or opposite ones, into one
    (:mod:`assay.verify.bounds.mirrored`), of which there is no certificate; ``proof``: return the tree, with what
    proves it, as a certificate, where a box is asked about, all activations are ReLUs, none are merged, and boxes are
    not bounded forwards.
    """

    batch: int | None = None
    fill: int = 32
    max_inputs: int = 16
    steps: int = 5
    rate: float = 0.3
    merge: bool = True
    proof: bool = False
    name: ClassVar[str] = "input-split"
    complete: ClassVar[bool] = True
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        for option, least in (("batch", 1), ("fill", 0), ("max_inputs", 1), ("steps", 0), ("rate", 0)):
            value = getattr(self, option)
            if value is not None and not least <= value < inf:
                raise InputError(f"{option} of input-split must be a number of at least {least}, got {value}")

    def supports(self, problem: Problem) -> str | None:
        """Boxes and polytopes in which at most ``max_inputs`` inputs vary, and operations with rules for linear
        bounds."""
        network, region = problem.network, problem.region
        if isinstance(region, LpBall) and region.p != inf:
            return f"an l{region.p:g} ball, not a box"
        inputs = len(varied(region.box()))
        if inputs > self.max_inputs:
            return f"{inputs} inputs that vary, more than the {self.max_inputs} that are halved at most"
        if network.nodes[0].size > self.max_inputs and not by_zonotopes(problem) and inlet_size(network) > INLET:
            return f"{network.nodes[0].size} inputs of layers that are too wide to be bounded for many boxes at once"
        return without_bounds(problem.network)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """Search until the problem is decided or the budget is spent; ``stats`` tell what it took."""
        begun, budget = time.monotonic(), running(budget)
        declined = unanswerable(self, problem)
        if declined is not None:
            return declined
        with torch.no_grad():
            course = BEGUN.pop(problem, None)
            if course is None or replace(course.method, max_inputs=self.max_inputs) != self:
                course = Course.started(self, problem, budget)
            tree, before = course.tree, course.settled
            batch = min(self.batch or _many(problem.network), tree.affordable(budget))
            most = EARLY if problem.is_strict else inf
            limits = Limits(batch, self.fill if batch > 1 else 0, budget.memory // 4, most)
            outcome = search(tree, limits, budget, course.leaves, course.account)
            if outcome.witness is None and outcome.reason is None and not outcome.complete:
                # About a point where strict rows are 0 boxes are halved without an end.
                if touched(problem, CHEAP) == 0:
                    return concluded(
                        self, problem, 0.0, Reason.NUMERICAL, time.monotonic() - begun, None, outcome.stats
                    )
                first, before = outcome.stats, min(before, outcome.settled)
                outcome = search(tree, replace(limits, domains=inf), budget, outcome.open, course.account)
                outcome.stats.update({name: first[name] + outcome.stats[name] for name in ("domains", "rounds")})
        if outcome.reason is Reason.TIMEOUT:
            BEGUN[problem] = replace(course, leaves=outcome.open, settled=min(before, outcome.settled))
        seconds = time.monotonic() - begun
        stats = outcome.stats | {"domains_per_second": outcome.stats["domains"] / max(seconds, 1e-9)}
        # Only a tree that is closed proves anything, whatever the bounds of its leaves say.
        margin = min(before, outcome.margin) if outcome.complete else min(before, outcome.margin, 0.0)
        if margin == NOTHING:  # there was no point in any box, and so no question
            margin = inf
        reason = outcome.reason or Reason.NUMERICAL
        result = concluded(self, problem, margin, reason, seconds, outcome.witness, stats)
        if tree.record is None or not outcome.complete or result.verdict is not Verdict.VERIFIED:
            return result
        return replace(result, certificate=tree.record.document())


def _many(network: Network) -> int:
    """How many boxes pay, so that an operation takes longer than to begin it."""
    return MANY * max(1, WIDE * len(network.nodes) // sum(node.size for node in network.nodes))


def by_zonotopes(problem: Problem) -> bool:
    """Whether boxes are bounded by zonotopes."""
    return dear(problem.network) and not isinstance(problem.region, Polytope)


class BoxTree(Tree[Any], Protocol):
    """Boxes as domains; ``record``: of what is proved, if it is written down."""

    @property
    def record(self) -> InputRecord | None:
        """Of what is proved."""
        ...

    def affordable(self, budget: Budget) -> int:
        """How many boxes are bounded at a time, at most."""
        ...


@dataclass(frozen=True, eq=False)
class Course:
    """A search by a ``method`` as far as it has come: the open ``leaves`` of its tree, the ``account`` of the closed
    ones, and a lower bound of the margin on these."""

    method: InputSplit
    tree: BoxTree
    leaves: Leaves[Any]
    account: Account
    settled: float = inf

    @classmethod
    def started(cls, method: InputSplit, problem: Problem, budget: Budget) -> Course:
        """A search from its root on."""
        problem = copy(problem)  # what is kept of a problem must not be what keeps it
        network = merged(problem.network) if method.merge else problem.network
        if by_zonotopes(problem):
            tree: BoxTree = ForwardTree(problem)
        else:
            proof = method.proof and network is problem.network and recordable(problem)
            record = InputRecord(problem, budget.memory // 4) if proof else None
            tree = InputTree(problem, network, Ascent(method.steps, method.rate), record)
        leaves = Leaves.roots(tree.root())
        return cls(method, tree, leaves, Account(len(leaves.bound)))


BEGUN: WeakKeyDictionary[Problem, Course] = WeakKeyDictionary()  # for whoever asks again with more time
