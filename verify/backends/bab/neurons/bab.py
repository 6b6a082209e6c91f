"""Branch and bound on neurons, with bounds by slopes and split multipliers (beta-CROWN: Wang et al. 2021,
arXiv:2103.06624)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf, nan
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from assay.verify.backends.bab.neurons import boxes, intervals
from assay.verify.backends.bab.neurons.climbing import Climbing
from assay.verify.backends.bab.neurons.compact import Compact, unsplit
from assay.verify.backends.bab.neurons.dealt import First, Rows, Said
from assay.verify.backends.bab.neurons.exact_leaves import ExactLeaves
from assay.verify.backends.bab.neurons.nodes import Nodes
from assay.verify.backends.bab.neurons.raising import Root
from assay.verify.backends.bab.neurons.record import Record
from assay.verify.backends.bab.neurons.refined import Grown, Passes
from assay.verify.backends.bab.neurons.subtrees import Plan, Subtrees, apart
from assay.verify.backends.bab.shared import Done, Share
from assay.verify.bounds import layers
from assay.verify.bounds.backward.rows import lower_rows
from assay.verify.bounds.optimised import raised, roots
from assay.verify.bounds.optimised.roots import Slopes
from assay.verify.bounds.optimised.slopes import Ascent
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.bounds.verdicts import concluded, decided, unanswerable, without_bounds
from assay.verify.core.budget import UNLIMITED, Budget, Expired, running
from assay.verify.core.errors import InputError
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall
from assay.verify.core.region.rounding import directed_sum
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.core.verifier import Bounds
from assay.verify.programs.relaxation import attempt
from assay.verify.programs.witness import by_disjunct, confirmed, descend
from assay.verify.support.executors import Job
from assay.verify.support.executors.chosen import chosen
from assay.verify.support.executors.processes import warm
from assay.verify.support.kept import Kept

ROOT = Ascent(steps=20, rate=0.4, decay=0.9)  # of the lines at the root
SHARE = 0.6  # of the time may be spent on that
BOXED = 0.9  # of what is left then, on boxes where these are worth it
NARROW = Climbing(steps=20, slope=0.2, multiplier=0.5, decay=0.9)
OTHERS = 0.25, 4.0  # times the size of multipliers' steps that are tried besides
PRELOAD = ("assay.verify.backends.bab.neurons.bab",)  # what processes import once
CURVED: WeakKeyDictionary[Problem, Relaxed] = WeakKeyDictionary()  # for whoever asks again with more time
REFINED = Kept[Problem, Passes]()  # likewise
DESCENT, FIRST = 20, 0.05  # steps from the best point so far, and the length of the first one in radii


@dataclass(frozen=True)
class BaB:
    """Neurons are split until linear bounds prove every leaf: ReLUs by their phases, and in networks with other
    activations the intervals of what these read. Complete on ReLUs, but for margins within rounding of zero.

    ``batch``: domains that are bounded together; ``steps``, ``slope``, ``multiplier``: of the ascent of slopes and
    multipliers of each; ``first``: domains below a root before anything is tightened; ``race``: on up to a tenth as
    many each, whether other steps are better; ``below``: domains below a node after which it is split and the bounds of
    ``neurons`` of its neurons are tightened, those whose relaxations cost most (0: of none); without an end where it
    is 0; ``tried``: neurons of which both phases are bounded before a node is split at one (1: at the costliest);
    ``passes``: how often that is done at the root; ``leaves``: the most that the trees have by which bounds of neurons
    are refined over the whole box, 0: none are; ``output``: where the output is unsafe, which tells no margin;
    ``together``: nodes that are searched together; ``workers``: processes that share the nodes, none but this one where
    it is 1; ``cluster``: where they are, as ``--cluster`` takes it, if not on this machine; ``proof``: return the
    trees, with all that proves them, as a certificate, where a quarter of the memory holds it and the region itself was
    not halved.
    """

    batch: int = 512
    steps: int = 5
    slope: float = 0.1
    multiplier: float = 0.5
    first: int = 2000
    race: bool = True
    below: int = 150
    neurons: int = 60
    tried: int = 8
    passes: int = 4
    output: bool = True
    leaves: int = 256
    together: int = 16
    workers: int = 1
    cluster: str | None = None
    proof: bool = False
    name: ClassVar[str] = "bab"
    complete: ClassVar[bool] = True
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        least = dict.fromkeys(("batch", "together", "tried", "passes", "workers"), 1)
        for option in (
            "batch",
            "steps",
            "slope",
            "multiplier",
            "first",
            "below",
            "neurons",
            "tried",
            "passes",
            "leaves",
            "together",
            "workers",
        ):
            value = getattr(self, option)
            if not least.get(option, 0) <= value < inf:
                raise InputError(f"{option} of bab must be a number of at least {least.get(option, 0)}, got {value}")

    def supports(self, problem: Problem) -> str | None:
        """Boxes, and operations with rules for linear bounds."""
        region = problem.region
        if isinstance(region, LpBall) and region.p != inf:
            return f"an l{region.p:g} ball, not a box"
        return without_bounds(problem.network)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """Bounds of all layers at the root, then the trees of the disjuncts that these leave open."""
        begun, budget = time.monotonic(), running(budget)
        declined = unanswerable(self, problem)
        if declined is not None:
            return declined
        if self.workers > 1 and self.cluster is None:
            warm(PRELOAD)  # while the root is bounded here
        work = Work(self, problem, budget.on_cpu())
        with torch.no_grad():
            stopped = attempt(work.run)
        seconds = time.monotonic() - begun
        reason = work.reason or (Reason.NUMERICAL if stopped is Reason.INCOMPLETE else stopped)
        result = concluded(self, problem, work.margin, reason, seconds, work.witness, work.stats)
        if work.closed and result.verdict is Verdict.UNKNOWN:
            # No input leads into the unsafe set; by how much it is missed, was not asked.
            result = replace(result, verdict=Verdict.VERIFIED, reason=None, margin=None)
        if work.record is not None and result.verdict is Verdict.VERIFIED:
            return replace(result, certificate=work.record.document())
        return result

    @property
    def plan(self) -> Plan:
        """How trees are searched."""
        how = Climbing(self.steps, self.slope, self.multiplier)
        others = replace(how, steps=2 * how.steps), *(replace(how, multiplier=f * how.multiplier) for f in OTHERS)
        return Plan(
            self.batch,
            (how, *others) if self.race else (how,),
            self.first,
            self.below,
            self.together,
            self.neurons,
            self.passes,
            NARROW,
            self.output,
            self.leaves,
            self.tried,
        )


@dataclass(eq=False)
class Work:
    """The state of the work on one problem.

    ``lower``: a proved bound of each disjunct's least margin; ``closed``: whether those that are not positive are
    proved unreachable all the same; ``seen``: the least margin at a point that was looked at; ``halved``: whether boxes
    have had their turn, before which no bounds of the whole are raised where these are worth it.
    """

    method: BaB
    problem: Problem
    budget: Budget
    lower: list[float] = field(default_factory=lambda: [nan])
    closed: bool = False
    seen: float = inf
    witness: Tensor | None = None
    reason: Reason | None = None
    halved: bool = False
    record: Record | None = None
    exact: ExactLeaves | None = None
    compact: Compact | None = None
    stats: dict[str, Any] = field(default_factory=lambda: {"domains": 0})

    def run(self) -> None:
        """Raises :class:`assay.verify.core.budget.Expired` when the time is over."""
        problem, spec = self.problem, self.problem.spec
        self.record = Record(problem, self.budget.memory // 4) if self.method.proof else None
        self.witness = self.look(problem.region.centre.reshape(1, -1).double())
        if self.witness is None and self.record is None and all(self.proved(self.by_intervals())):
            return  # where a proof is asked for it is that of a tree
        relaxed = self.root()
        proved = self.proved(raised.lower_rows(relaxed, spec.A[None], ROOT)[0])
        open_ = [d for d, safe in enumerate(proved) if not safe or self.record is not None]
        if self.witness is not None or not open_ or not all(len(spec.disjuncts[d].b) for d in open_):
            return
        if unsplit(problem.network):
            sets = [spec.disjuncts[d] for d in open_]
            found = intervals.searched(relaxed, sets, self.method.batch, self.look)
            self.witness, self.reason, self.closed = found.witness, found.reason, found.complete
            self.stats |= found.stats
            if self.closed:
                self.lower = [max(found.margin, low) if d in open_ else low for d, low in enumerate(self.lower)]
            return
        compact = self.compact or Compact.of(relaxed)
        if self.record is None and not self.halved and boxes.worth(compact):
            self.halved = True
            if not self._by_boxes(relaxed, compact, tuple(open_)):
                self.run()
            return
        # The worst one is on top of the stack: a counterexample is likeliest there.
        order = sorted(open_, key=self.lower.__getitem__, reverse=True)
        trees = self.trees(relaxed.bounds, compact, order)
        try:
            if self.alone:
                trees.run()
            else:
                bare = replace(problem, network=replace(problem.network, oracle=None))  # which processes do not ask
                memory = self.budget.memory // self.method.workers
                ground = Ground(self.method, bare, relaxed.bounds, compact, order, memory)
                job = Job(shared_out, ground, PRELOAD)
                with chosen(self.method.workers, self.method.cluster)(job) as executor:
                    trees.run(executor)
        finally:
            self.stats |= {**trees.stats, "closed": trees.account.measure, "unstable": compact.unstable}
            self.witness, self.reason = trees.witness, trees.reason
        if trees.account.complete:
            self.closed = True
            if not (self.method.output and self.method.neurons):
                self.lower = [trees.margin if d in open_ else low for d, low in enumerate(self.lower)]

    def by_intervals(self) -> Tensor:
        """Lower bounds of the specification's rows by intervals, which cost nothing beside a root: (rows)."""
        network, spec = self.problem.network, self.problem.spec
        box = layers.batch_box(self.problem.region.box(), network.input_shape)
        plain = layers.by_intervals(network, box, torch.float64, self.budget, lined=False)
        return lower_rows(plain, spec.A[None], linear=False)[0]

    def proved(self, rows: Tensor) -> list[bool]:
        """Whether bounds of the specification's rows (rows) prove each disjunct, of which they are noted."""
        spec = self.problem.spec
        margins = directed_sum(rows, -spec.b, up=False)
        some = ((margins[spec.disjunct == d], p) for d, p in enumerate(spec.disjuncts))
        self.lower = [mine.max().item() if len(p.b) else -inf for mine, p in some]
        safe: list[bool] = decided(torch.tensor(self.lower)).tolist()
        return safe

    def _by_boxes(self, relaxed: Relaxed, compact: Compact, open_: tuple[int, ...]) -> bool:
        """Whether halves of the region decide it, in a part of the time."""
        of = boxes.Boxes.of(self.problem, relaxed, compact, open_)
        self.witness = of.run(self.budget.part(BOXED), self.look)
        self.stats |= {"boxes": of.bounded, "closed": of.account.measure, "unstable": compact.unstable}
        self.closed = of.account.complete and self.witness is None
        if self.closed:
            self.lower = [max(low, of.lower.get(d, low)) for d, low in enumerate(self.lower)]
        return self.closed or self.witness is not None

    @property
    def alone(self) -> bool:
        """Whether this process does all of the work."""
        return self.method.workers == 1 and self.method.cluster is None

    def trees(self, bounds: Sequence[Bounds], compact: Compact, disjuncts: Sequence[int]) -> Subtrees:
        """The trees of these disjuncts in a network with these ``bounds`` of every node."""
        if self.exact is None:
            self.exact = ExactLeaves(self.problem, bounds, compact, self.look, self.budget)
        exact = self.exact
        exact.budget = self.budget
        plan, spec, proof = self.method.plan, self.problem.spec, self.record is not None
        passes = REFINED.of.get(self.problem)
        if passes is None or not passes.serves(compact, proof):
            passes = REFINED.of[self.problem] = Passes.begun(compact, proof)
        if self.record is not None:
            self.record.start(compact, disjuncts, exact, passes.heard)
        return Subtrees(spec, compact, disjuncts, plan, self.budget, self.look, exact.settle, passes, self.record)

    @property
    def margin(self) -> float:
        """A lower bound of the least margin; NaN stays NaN, and none lies above what was seen."""
        margin = torch.tensor(self.lower, dtype=torch.float64).amin().item()
        return margin if not margin > self.seen else self.seen

    def root(self) -> Relaxed:
        """The network with raised bounds of its unstable neurons."""
        problem = self.problem
        box = layers.batch_box(problem.region.box(), problem.network.input_shape).box()
        if unsplit(problem.network) is None:
            relaxed, slopes = self._tightened(box, proof=self.record is not None)
            if self.record is not None and slopes is not None:
                self.record.layers = slopes
            else:  # there is none, or not the memory for it
                self.record = None
            return relaxed
        known = CURVED.get(problem)
        if known is not None:
            return replace(known, budget=self.budget)

        def further(relaxed: Relaxed, position: int, known: Bounds, wanted: Tensor) -> Bounds:
            return raised.tighten(relaxed, position, known, wanted, ROOT)

        begun = time.monotonic()
        relaxed = intervals.bounded(problem.network, box, problem.spec, self.budget, further)
        if time.monotonic() - begun < self.budget.remaining:  # otherwise the time cut it short
            CURVED[problem] = relaxed
        return relaxed

    def _tightened(self, box: Box, proof: bool) -> tuple[Relaxed, Slopes | None]:
        """The same over the ``box``, and for a ``proof`` what proves the bounds: what another method has raised, or
        else within what can matter, but where that is too large to be written out."""
        network, budget = self.problem.network, self.budget
        before = roots.finished(network, box, ROOT, proof, budget.memory)
        if before is not None:
            return replace(before[0], budget=budget), before[1]
        try:
            root = Root.of(self.problem)
            if not self.halved and boxes.worth((begun := root.begun(budget)).compact):
                self.compact = begun.rest
                return replace(begun.relaxed, budget=budget), None
            relaxed, self.compact, slopes = root.bounded(budget, SHARE, proof)
        except MemoryError:
            return roots.tightened(network, box, ROOT, budget, proof, SHARE)
        return relaxed, slopes

    def look(self, points: Tensor) -> Tensor | None:
        """A counterexample among points (n x inputs) of the region, or near the best of all so far, if there is one."""
        problem = self.problem
        points = problem.region.project(points.view(-1, *problem.network.input_shape))
        margins = by_disjunct(problem, points)
        least = margins.amin(1)
        if bool(least.min() < self.seen):
            best = least.argmin()[None]
            descended = descend(problem, margins.argmin(1)[best], points[best], DESCENT, FIRST)
            points, margins = torch.cat([points, descended]), torch.cat([margins, by_disjunct(problem, descended)])
            self.seen = margins.min().item()
        return confirmed(problem, points) if bool((margins <= 0).any()) else None


@dataclass(frozen=True, eq=False)
class Ground:
    """What processes share: the method, the problem, bounds of every node, the network, the disjuncts, and the bytes of
    memory of each."""

    method: BaB
    problem: Problem
    bounds: Sequence[Bounds]
    compact: Compact
    disjuncts: Sequence[int]
    memory: int

    @cached_property
    def work(self) -> Work:
        """The work of one process, share by share: programs of leaves, and the best point, are kept."""
        return Work(self.method, self.problem, Budget(memory=self.memory))


def shared_out(ground: Ground, asked: Share | First | Rows) -> Done | Said | list[Grown]:
    """What comes of a share of nodes, of first searches or of trees of a layer, in a process of its own."""
    work = ground.work
    work.budget = Budget(asked.seconds, ground.memory).started()
    work.record = Record(ground.problem, ground.memory // 4) if ground.method.proof else None
    trees = work.trees(ground.bounds, ground.compact, ground.disjuncts)
    with torch.no_grad():
        if isinstance(asked, Rows):
            return asked.grown(ground.compact, work.budget, ground.method.proof)
        if isinstance(asked, First):
            return asked.said(trees)
        trees.how = asked.how
        try:
            nodes = apart(trees.small(Nodes.join(asked.nodes))) if asked.roots else asked.nodes
            return trees.done(trees.work(nodes, asked.slice))
        except Expired:
            return trees.done([], Reason.TIMEOUT)
