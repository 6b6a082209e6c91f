"""The method for those who do not want to choose one: attacks, bounds and search in turn, every verdict checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from assay.attacks.fgsm import FGSM
from assay.attacks.pgd import PGD
from assay.verify.backends.alpha_crown import AlphaCROWN
from assay.verify.backends.bab.inputs.forward_tree import dear
from assay.verify.backends.bab.inputs.input_split import InputSplit
from assay.verify.backends.crown import CROWN
from assay.verify.backends.ibp import IBP
from assay.verify.bounds.relaxations.relax import relaxes
from assay.verify.core.budget import UNLIMITED, Budget
from assay.verify.core.ops import Conv2d, InverseSumExp, LeakyRelu, Relu
from assay.verify.core.problem import Problem
from assay.verify.core.result import Guarantee, Result
from assay.verify.core.verifier import Verifier
from assay.verify.solving import stages
from assay.verify.solving.crowds import Crowd
from assay.verify.solving.falsifier import Falsifier
from assay.verify.solving.stages import Late, Stage

MINUTE, HOUR = 60.0, 3600.0
FEW = 8  # inputs of networks whose boxes are halved before lines are raised and attacks take many steps
HANDFUL = 400  # ReLUs of networks in which linear programs come before other searches
BOXES = 8  # each at the price of linear bounds: with less time few inputs are halved after lines are raised, more never
CROWD = 16  # problems of few inputs whose boxes are halved together before any of them is searched by itself
ENDLESS = 10**9  # rounds of an attack that goes on for as long as there is time


def plain(problem: Problem) -> bool:
    """Whether a problem's network is one of ReLUs between affine operations."""
    return all(isinstance(node.op, Relu) or not relaxes(node.op) for node in problem.network.nodes[1:])


def curved(problem: Problem) -> str | None:
    """Why a problem's network is not one with more than ReLUs between affine operations, or has so few inputs that
    these are halved before; None if it is."""
    if plain(problem):
        return "a network of ReLUs"
    return "a network of few inputs" if InputSplit(max_inputs=FEW).supports(problem) is None else None


def unraised(problem: Problem) -> str | None:
    """Why lines need not be raised before a search: by phases of neurons it does so itself, over convolutions in a part
    of the time. None if they have to be."""
    convolved = any(isinstance(node.op, Conv2d) for node in problem.network.nodes[1:])
    return "a network of convolutions and ReLUs" if convolved and plain(problem) else None


def small(problem: Problem) -> str | None:
    """Why a problem's network is not one of few ReLUs, where programs are solved in no time; None if it is."""
    relus = sum(node.size for node in problem.network.nodes[1:] if isinstance(node.op, (Relu, LeakyRelu)))
    return None if relus <= HANDFUL else f"a network of {relus} ReLUs"


def attentive(problem: Problem) -> str | None:
    """Why a problem's network is not one with a softmax inside; None if it is."""
    inside = any(isinstance(node.op, InverseSumExp) for node in problem.network.nodes[1:])
    return None if inside else "a network without a softmax"


def shallow(problem: Problem) -> str | None:
    """Why a problem's network is not so deep that a box is bounded sooner than by linear bounds; None if it is."""
    return None if dear(problem.network) else "a network in which boxes take as long as linear bounds"


def single(problem: Problem) -> str | None:
    """Why a problem has no disjunct of several rows, whose losses differ; None if it has."""
    several = any(len(disjunct.b) > 1 for disjunct in problem.spec.disjuncts)
    return None if several else "one row in each disjunct"


@dataclass(frozen=True)
class Early:
    """A verifier that is asked, or earlier, for problems of some kind: ``other`` says why one is not of it."""

    verifier: Verifier
    other: Callable[[Problem], str | None] = field(repr=False)
    name: ClassVar[str] = "early"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def supports(self, problem: Problem) -> str | None:
        """Why it is not for a problem."""
        return self.other(problem) or self.verifier.supports(problem)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """What the verifier says."""
        return self.verifier.verify(problem, budget)


@dataclass(frozen=True)
class Auto:
    """Attacks, bounds and searches in turn, the cheapest first, each with a share of the time that is left; under a
    limit of time, what the searches leave goes to longer attacks.

    ``restarts``, ``steps``: of the first PGD; ``rounds``: of the longer one, which has momentum, starts from
    diversified outputs, and takes each disjunct by itself; ``proof``: keep what proves a verdict, for a certificate.
    """

    restarts: int = 2
    steps: int = 40
    rounds: int = 20
    proof: bool = False
    name: ClassVar[str] = "auto"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        _ = self.stages()  # the attacks refuse what cannot be, now and not later

    def stages(self) -> list[Stage]:
        """The stages in order. Each is passed over where it does not support the problem, or has had its say before."""
        quick = PGD(steps=self.steps, restarts=self.restarts, loss="margin")
        strong = PGD(steps=100, step_size=0.1, momentum=0.9, loss="margin", random_start=True, diversify=10)
        smooth = replace(strong, loss="ce")
        other = PGD(steps=200, restarts=4, step_size=0.05, momentum=0.75, loss="ce", random_start=True, diversify=5)
        lines = AlphaCROWN(proof=self.proof)
        exact = Late(("lp-bab(proof=false)", "milp"))
        boxes = InputSplit(max_inputs=FEW, proof=self.proof)
        split = Late(("bab(proof=true)" if self.proof else "bab",))
        return [
            Stage(Falsifier(FGSM()), share=0.1),
            Stage(IBP(), share=0.25),
            Stage(CROWN(), share=0.1, most=1.0),
            Stage(Crowd(), share=0.8, unlimited=HOUR, crowd=CROWD),
            Stage(boxes, share=0.1, most=2.0, price=(BOXES, CROWN())),
            Stage(Falsifier(quick), share=0.2),
            Stage(Early(boxes, shallow), share=0.8, unlimited=HOUR),
            Stage(Early(CROWN(), attentive), share=0.6, unlimited=MINUTE),
            Stage(Early(split, attentive), share=0.8, unlimited=MINUTE),
            Stage(Early(split, curved), share=0.3, unlimited=MINUTE),
            Stage(CROWN(), share=0.6),
            Stage(boxes, share=0.8, unlimited=HOUR, price=(BOXES, CROWN())),
            Stage(Early(lines, unraised), share=0.3),
            Stage(boxes, share=0.8, unlimited=HOUR, price=(1, CROWN())),
            Stage(InputSplit(proof=self.proof), share=0.25, unlimited=HOUR, price=(BOXES, CROWN())),
            Stage(Early(exact, small), share=0.1, most=2.0),
            Stage(split, share=0.2, most=4.0),  # what it does not close by then, it begins again below
            Stage(Early(Falsifier(smooth, rounds=self.rounds, targeted=True), single), share=0.05),
            Stage(Falsifier(strong, rounds=self.rounds, targeted=True), share=0.1),
            Stage(split, share=0.95, unlimited=HOUR),
            Stage(exact, share=0.7, unlimited=HOUR),
            Stage(Late(("milp", "lp(tighten=all)")), share=0.7, unlimited=HOUR),
            Stage(InputSplit(max_inputs=64, proof=self.proof), share=0.5, unlimited=0.0),
            Stage(Falsifier(other, rounds=ENDLESS, targeted=True), unlimited=0.0),
        ]

    def supports(self, problem: Problem) -> str | None:
        """Attacks take every problem."""
        return None

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """The first checked verdict of the stages."""
        return self.verify_many([problem], budget)[0]

    def verify_many(self, problems: Sequence[Problem], budget: Budget = UNLIMITED) -> list[Result]:
        """One result per problem; each stage sees only what is still undecided."""
        return stages.decide(self, problems, budget)


def solve(problem: Problem, budget: Budget | None = None) -> Result:
    """The ``auto`` method on one problem, with no limit of time unless a budget sets one."""
    return Auto().verify(problem, budget or Budget())
