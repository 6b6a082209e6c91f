"""Branch and bound over the phases of ReLUs, with a linear program at each node."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf, isfinite, nan
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from assay.verify.backends.bab.account import Account
from assay.verify.backends.bab.frontier import Leaves
from assay.verify.backends.bab.programs.certificate import Tree, written
from assay.verify.backends.bab.programs.lp_shared import Parts, Share, Shares, searched
from assay.verify.backends.bab.programs.lp_tree import Branches, LPTree, Target
from assay.verify.backends.bab.programs.simplex import Simplex
from assay.verify.backends.bab.programs.splits import Phases, Splits
from assay.verify.backends.bab.search import Limits, Outcome, search
from assay.verify.backends.bab.shared import give_out
from assay.verify.bounds.verdicts import concluded, unanswerable, without_bounds
from assay.verify.core.budget import UNLIMITED, Budget, Expired, running
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network
from assay.verify.core.ops import Max
from assay.verify.core.problem import Problem
from assay.verify.core.region import LpBall
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.programs.encode import Encoding, encode, without_encoding
from assay.verify.programs.hints import document, leaky, recordable
from assay.verify.programs.loading import missing
from assay.verify.programs.program import Program, Status, Vector
from assay.verify.programs.relaxation import Known, attempt, known
from assay.verify.programs.witness import by_disjunct, confirmed, descend
from assay.verify.support.executors import Job
from assay.verify.support.executors.chosen import chosen
from assay.verify.support.executors.processes import warm

INSET = 1e-4  # of a jump's interval, from which a counterexample keeps away
GAP = 1e-7  # between an optimum and its bound, relative to 1 and to it
NODES = 8  # that were looked at for each process before nodes are shared
PRELOAD = ("assay.verify.backends.bab.programs.lp_bab",)  # what processes import once


@dataclass(frozen=True)
class LPBaB:
    """The triangle relaxation (Ehlers 2017, arXiv:1705.01320) of CROWN's bounds in one warm-started HiGHS model; ReLUs
    are split until every leaf is proved from its duals.

    ``optimum``: find the least margin itself, and where it is, not its sign alone; ``steps``: of the descents that
    look for a counterexample; ``proof``: return the tree with what its duals say as a certificate; ``workers``:
    processes that share the nodes, none but this one where it is 1; ``cluster``: where they are, as ``--cluster`` takes
    it, if not on this machine.
    """

    optimum: bool = False
    steps: int = 20
    proof: bool = True
    workers: int = 1
    cluster: str | None = None
    name: ClassVar[str] = "lp-bab"
    complete: ClassVar[bool] = True
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InputError(f"steps of lp-bab must be at least 0, got {self.steps}")
        if self.workers < 1:
            raise InputError(f"workers of lp-bab must be at least 1, got {self.workers}")

    def supports(self, problem: Problem) -> str | None:
        """ReLU, leaky ReLU and what is constant in pieces, over boxes and balls in l1 and linf."""
        region, network = problem.region, problem.network
        if isinstance(region, LpBall) and region.p == 2:
            return "a ball in l2, which is not linear"
        return _unsplit(network) or without_bounds(network) or without_encoding(network) or missing("highs", False)

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """Bounds, then a descent, then the trees; ``stats`` tell what they took."""
        begun, budget = time.monotonic(), running(budget)
        declined = unanswerable(self, problem)
        if declined is not None:
            return declined
        if self.workers > 1 and self.cluster is None:
            warm(PRELOAD)  # while the bounds are worked out here
        work = Work(self, problem, budget)
        with torch.no_grad():
            reason = attempt(work.run)
            margin, reason = work.decided(reason)
        seconds = time.monotonic() - begun
        result = concluded(self, problem, margin, reason, seconds, work.witness, work.stats)
        proved = result.verdict is Verdict.VERIFIED or "optimum" in work.stats
        return replace(result, certificate=work.certificate() if proved else None)


def _unsplit(network: Network) -> str | None:
    return "no splits for Max" if any(isinstance(node.op, Max) for node in network.nodes) else None


@dataclass(eq=False)
class Work:
    """The state of the work on one problem.

    ``lower``: a proved bound of each disjunct's least margin; ``seen``: the least that it has at a point of the region
    that was looked at, and ``at`` the point where the least of all is; ``clear``: the programs of disjuncts by which
    points away from jumps are found.
    """

    method: LPBaB
    problem: Problem
    budget: Budget
    lower: list[float] = field(default_factory=lambda: [nan])
    grain: float = inf
    seen: Tensor = field(init=False)
    at: Tensor | None = None
    witness: Tensor | None = None
    known: Known | None = None
    encoding: Encoding | None = None
    tree: LPTree | None = None
    outcome: Outcome | None = None
    clear: dict[int, Simplex] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=lambda: {"domains": 0, "nodes": 0})

    def __post_init__(self) -> None:
        self.seen = torch.full((len(self.problem.spec.disjuncts),), inf, dtype=torch.float64)

    def run(self) -> None:
        """Bounds, gradient descent, trees; raises :class:`Expired` when the time is over."""
        problem = self.problem
        self.known = known(problem.network, problem.region, problem.spec.A, self.budget, sides=problem.spec.b)
        self.grain, self.lower = self.known.grain, self.known.by_disjunct(problem.spec)
        order = sorted(range(len(self.lower)), key=self.lower.__getitem__)
        centre = problem.region.centre[None]
        self._see(problem.region.project(centre))
        if self.method.optimum or any(not low > self.grain for low in self.lower):
            self._descend(order, centre.expand(len(order), *problem.network.input_shape), 0.5)
        wanted = [d for d in order if len(problem.spec.disjuncts[d].b) and (self.method.proof or self._open(d))]
        if not wanted or self.found() is not None:
            return
        self.encoding = encode(problem.network, problem.region, self.known.bounds, split=True)
        self.tree = self.planted(wanted)
        leaves, account = Leaves.roots(self.tree.root()), Account(len(wanted))
        if self.method.workers > 1 or self.method.cluster is not None:
            leaves = self._share(leaves, account, wanted)
        self._search(leaves, account)

    def _search(self, leaves: Leaves[Branches], account: Account, domains: float = inf) -> Leaves[Branches]:
        """Search below leaves, up to so many domains; what is open then."""
        assert self.tree is not None
        limits = replace(self.limits, domains=domains)
        self.outcome = search(self.tree, limits, self.budget, leaves, account)
        self._count(self.outcome.stats["domains"])
        return self.outcome.open

    @property
    def limits(self) -> Limits:
        """Of a search."""
        assert self.tree is not None
        return Limits(self.tree.batch, 0, self.budget.memory // 4, order="worst", aside=True)

    def _share(self, leaves: Leaves[Branches], account: Account, wanted: Sequence[int]) -> Leaves[Branches]:
        """Have processes search below what is open, once there is enough of it; what they leave."""
        method, problem, known, tree = self.method, self.problem, self.known, self.tree
        leaves = self._search(leaves, account, NODES * method.workers)
        if not len(leaves.bound) or self.found() is not None or known is None or tree is None:
            return leaves
        bare = replace(problem, network=replace(problem.network, oracle=None))  # which processes do not ask
        ground = Ground(method, bare, known, wanted, self.lower, self.budget.memory // method.workers)
        shares = Shares(tree, leaves, account, self)
        job = Job(shared_out, ground, PRELOAD)
        with chosen(method.workers, method.cluster)(job) as executor, suppress(Expired):  # as the search says again
            give_out(shares, executor, self.budget)
        self._count(shares.domains)
        return shares.left

    def see(self, point: Tensor) -> None:
        """See a point of the region."""
        self._see(self.problem.region.project(point[None].double()))

    def limit(self) -> float:
        """What the bound of a leaf has to pass."""
        least = self.seen.min().item() if self.method.optimum else inf
        return least - GAP * (1 + abs(least)) if isfinite(least) else self.grain

    def found(self) -> Tensor | None:
        """A counterexample, if that is all that was asked for, and there is one."""
        return None if self.method.optimum else self.witness

    def look(self, at: Sequence[tuple[int, Vector]], roots: bool) -> None:
        """See points (columns) that the programs of disjuncts gave; from ``roots`` descents lead on."""
        points = self._points([x for _, x in at])
        if roots:
            self._descend([d for d, _ in at], points, 0.25)
        else:
            self._see(self.problem.region.project(points))

    def exact(self, disjunct: int, x: Vector, phases: Phases) -> float:
        """A disjunct's margin at a point (columns), and where a short descent leads if that is not enough; of a network
        that jumps at the least point of these phases that is away from jumps, too."""
        point = self.problem.region.project(self._points([x]))
        least = self._see(point)[:, disjunct].min().item()
        if (least > self.grain or self.witness is None) and (clear := self._clear(disjunct, phases)) is not None:
            apart = self.problem.region.project(self._points([clear]))
            least = min(least, self._see(apart)[:, disjunct].min().item())
        if least <= self.grain and not self.method.optimum and self.witness is None:
            self._descend([disjunct], point, 0.02)
        return least

    def decided(self, reason: Reason) -> tuple[float, Reason]:
        """The margin that is proved, and why the problem is open if that does not decide it."""
        self._gather()
        margin = torch.tensor(self.lower, dtype=torch.float64).amin().item()  # NaN stays NaN
        if self.outcome is not None and self.outcome.reason is not None:
            reason = self.outcome.reason
        if reason is Reason.INCOMPLETE:
            reason = Reason.NUMERICAL
        least = self.seen.min().item()
        if self.method.optimum and margin >= least - 1e-6 * (1 + abs(least)):
            self.stats |= {"optimum": margin, "minimiser": self.at}
        return (nan, Reason.NUMERICAL) if 0 < margin <= self.grain else (margin, reason)

    def certificate(self) -> dict[str, Any] | None:
        """The trees, if they are wanted and each is closed."""
        if self.tree is None or self.encoding is None or not (self.tree.recorded and recordable(self.problem)):
            return None
        trees = dict(zip((target.number for target in self.tree.targets), self.tree.trees, strict=True))
        if len(trees) < len(self.lower) or not all(tree.complete for tree in trees.values()):
            return None
        neurons, disjuncts = self.encoding.neurons, self.problem.spec.disjuncts
        left = leaky(self.problem, neurons)
        told = {
            target.number: written(
                trees[target.number], target.splits, target.cost, len(disjuncts[target.number].b), left
            )
            for target in self.tree.targets
        }
        return document(self.problem, self.method.name, neurons, told, {})

    def _open(self, d: int) -> bool:
        """Whether more about disjunct ``d`` would change the answer; one without rows is everywhere."""
        return len(self.problem.spec.disjuncts[d].b) > 0 and not self.lower[d] > self.limit()

    def planted(self, wanted: Sequence[int]) -> LPTree:
        """The roots of these disjuncts; those of one row share a program."""
        assert self.encoding is not None
        encoding, targets = self.encoding, list[Target]()
        shared: tuple[Splits, Simplex] | None = None
        for d in wanted:
            disjunct = self.problem.spec.disjuncts[d]
            A, b = disjunct.A.numpy(), disjunct.b.numpy()
            if len(b) == 1:
                shared = shared or self._model(encoding.draft.program(), encoding)
                splits, simplex = shared
                cost, offset = encoding.cost(A[0], float(b[0]))
            else:
                program = encoding.disjunct(A, b)
                splits, simplex = self._model(program, encoding)
                cost, offset = program.cost, program.offset
            line, cost = cost, splits.cost(cost)
            targets.append(Target(d, splits, simplex, line, cost, offset, simplex.objective(cost, offset)))
        return LPTree(targets, self, [Tree() for _ in targets], self.budget.memory // 2, self.method.proof)

    def _clear(self, disjunct: int, phases: Phases) -> Vector | None:
        """The least point (columns) of a disjunct's program in these phases that is away from all jumps; None if there
        is none, or there are no jumps."""
        if self.encoding is None or self.known is None or not len(self.encoding.jumps):
            return None
        if disjunct not in self.clear:
            problem = self.problem
            apart = encode(problem.network, problem.region, self.known.bounds, inset=INSET, split=True)
            part = problem.spec.disjuncts[disjunct]
            program = apart.disjunct(part.A.numpy(), part.b.numpy())
            splits, simplex = self._model(program, apart)
            simplex.aim(simplex.objective(splits.cost(program.cost), program.offset))
            self.clear[disjunct] = simplex
        simplex = self.clear[disjunct]
        simplex.within(phases)
        found = simplex.solve(None, inf, self.budget.remaining) is Status.OPTIMAL
        return simplex.solution()[0] if found else None

    def _model(self, program: Program, encoding: Encoding) -> tuple[Splits, Simplex]:
        splits = Splits.of(encoding, program)
        return splits, Simplex(splits, self.budget.threads, self.budget.seed)

    def _points(self, at: Sequence[Vector]) -> Tensor:
        """The network's inputs at points of programs (columns), which share the first ones: (points x input shape)."""
        assert self.encoding is not None
        shared = np.stack([x[: self.encoding.inputs.max(initial=-1) + 1] for x in at])
        return torch.from_numpy(self.encoding.inputs_at(shared)).view(-1, *self.problem.network.input_shape)

    def _descend(self, disjuncts: Sequence[int], points: Tensor, first: float) -> None:
        """Descend from a point (n x input shape) for each of these disjuncts, and see where that leads."""
        points = self.problem.region.project(points.double())
        self._see(descend(self.problem, torch.tensor(disjuncts), points, self.method.steps, first, self.budget))

    def _see(self, points: Tensor) -> Tensor:
        """The margin of each disjunct at members of the region: (points x disjuncts)."""
        margins = by_disjunct(self.problem, points)
        if margins.min() < self.seen.min():
            self.at = points[int(margins.amin(1).argmin())]
        self.seen = torch.minimum(self.seen, margins.amin(0))
        if self.witness is None and bool((margins <= 0).any()):
            self.witness = confirmed(self.problem, points)
        return margins

    def _count(self, domains: int) -> None:
        self.stats["domains"] += domains

    def _gather(self) -> None:
        """Bounds of the disjuncts from all leaves, closed or not, and what the search took."""
        if self.tree is None or self.outcome is None:
            return
        open_, trees = self.outcome.open, self.tree.trees
        for place, (target, tree) in enumerate(zip(self.tree.targets, trees, strict=True)):
            d, left = target.number, open_.bound[open_.tree == place].tolist()
            least = max(self.lower[d], min([tree.bound, *left]))
            # A region is not empty, and no bound lies above what was seen: bounds that say so are dropped.
            seen = self.seen[d].item()
            self.lower[d] = nan if least == inf or least > seen + GAP * (1 + abs(seen)) else least
        self.stats = {**self.outcome.stats, "domains": self.stats["domains"], "nodes": self.tree.programs}
        self.stats["unstable"] = len(self.encoding.neurons) + len(self.encoding.jumps) if self.encoding else 0


@dataclass(frozen=True, eq=False)
class Ground:
    """What processes share: the method, the problem and what is known of it, the disjuncts that are searched, bounds of
    all, and the bytes of memory of each."""

    method: LPBaB
    problem: Problem
    known: Known
    wanted: Sequence[int]
    lower: list[float]
    memory: int

    @cached_property
    def work(self) -> Work:
        """The work of one process, share by share: its programs are kept."""
        work = Work(self.method, self.problem, Budget(memory=self.memory), lower=list(self.lower))
        work.known, work.grain = self.known, self.known.grain
        work.encoding = encode(self.problem.network, self.problem.region, self.known.bounds, split=True)
        work.tree = work.planted(self.wanted)
        return work


def shared_out(ground: Ground, share: Share) -> Parts:
    """What comes of a share of nodes, in a process of its own."""
    work = ground.work
    # What was seen in a share whose reply was lost is seen again.
    work.seen, work.at, work.witness = share.seen, None, None
    tree, before = work.tree, 0 if work.tree is None else work.tree.programs
    assert tree is not None
    budget = Budget(share.seconds, ground.memory).started()
    with torch.no_grad():
        outcome, account = searched(tree, share.leaves, work.limits, budget, share.slice)
    found = work.witness is not None
    point, programs = work.witness if found else work.at, tree.programs - before
    domains = outcome.stats["domains"]
    return Parts(tree.trees, tree.recorded, account, outcome.open, domains, programs, point, found)
