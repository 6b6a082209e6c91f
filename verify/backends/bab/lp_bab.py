"""Branch and bound over the phases of ReLUs, with a linear program at each node."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf, isfinite, nan
from typing import Any, ClassVar

import torch
from torch import Tensor

from assay.verify.backends.bab.certificate import written
from assay.verify.backends.bab.lp_shared import Parts, Share, searched, share
from assay.verify.backends.bab.lp_tree import Search, Target
from assay.verify.backends.bab.simplex import Simplex
from assay.verify.backends.bab.splits import Splits
from assay.verify.bounds.verdicts import concluded, unanswerable, without_bounds
from assay.verify.core.budget import UNLIMITED, Budget, running
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network
from assay.verify.core.ops import Max
from assay.verify.core.problem import Problem
from assay.verify.core.region import LpBall
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.programs.encode import Encoding, encode, without_encoding
from assay.verify.programs.hints import document, leaky, recordable
from assay.verify.programs.loading import missing
from assay.verify.programs.program import Program, Vector
from assay.verify.programs.relaxation import Known, attempt, known
from assay.verify.programs.witness import by_disjunct, confirmed, descend
from assay.verify.support.executors import Job
from assay.verify.support.executors.chosen import chosen
from assay.verify.support.executors.processes import warm

GAP = 1e-7  # between an optimum and its bound, relative to 1 and to it
NODES = 4  # that are open for each process before nodes are shared
PRELOAD = ("assay.verify.backends.bab.lp_bab",)  # what processes import once
RESERVE = 0.05  # of the time, for proving what a search that was cut short has


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
        """ReLU and leaky ReLU over boxes and balls in l1 and linf."""
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
            margin, reason = work.outcome(reason)
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
    that was looked at, and ``at`` the point where the least of all is.
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
    targets: dict[int, Target] = field(default_factory=dict)
    search: Search = field(init=False)
    stats: dict[str, Any] = field(default_factory=lambda: {"nodes": 0})

    def __post_init__(self) -> None:
        self.seen = torch.full((len(self.problem.spec.disjuncts),), inf, dtype=torch.float64)
        deadline = self.budget.deadline
        if deadline is not None and isfinite(deadline):
            deadline -= RESERVE * self.budget.remaining
        self.search = Search(self._look_at, self.limit, self.done, replace(self.budget, deadline=deadline))

    def run(self) -> None:
        """Bounds, gradient descent, trees; raises :class:`Expired` when the time is over."""
        problem = self.problem
        self.known = known(problem.network, problem.region, problem.spec.A, self.budget, sides=problem.spec.b)
        self.grain, self.lower = self.known.grain, self.known.by_disjunct(problem.spec)
        order = sorted(range(len(self.lower)), key=self.lower.__getitem__)
        centre = problem.region.centre[None]
        self._see(problem.region.project(centre))
        if self.method.optimum or any(not low > self.grain for low in self.lower):
            self._look(order, centre.expand(len(order), *problem.network.input_shape), 0.5)
        wanted = [d for d in order if len(problem.spec.disjuncts[d].b) and (self.method.proof or self._open(d))]
        if not wanted or self.done():
            return
        self.encoding = encode(problem.network, problem.region, self.known.bounds)
        self._plant(self.encoding, wanted)
        for target in self.targets.values():
            if not self.done():
                self.search.root(target)
        self._descend_from_roots()
        if self.method.workers > 1 or self.method.cluster is not None:
            self._share(wanted)
        self.search.run()

    def _share(self, wanted: Sequence[int]) -> None:
        """Have processes search below what is open, once there is enough of it."""
        method, problem, known = self.method, self.problem, self.known
        self.search.run(open_=NODES * method.workers)
        if not self.search.heap or self.done() or known is None:
            return
        bare = replace(problem, network=replace(problem.network, oracle=None))  # which processes do not ask
        ground = Ground(method, bare, known, wanted, self.lower, self.budget.memory // method.workers)
        with chosen(method.workers, method.cluster)(Job(shared_out, ground, PRELOAD)) as executor:
            share(self.search, self, executor, self.search.budget)

    def look(self, point: Tensor) -> None:
        """See a point of the region."""
        self._see(self.problem.region.project(point[None].double()))

    def limit(self) -> float:
        """What the bound of a leaf has to pass."""
        least = self.seen.min().item() if self.method.optimum else inf
        return least - GAP * (1 + abs(least)) if isfinite(least) else self.grain

    def done(self) -> bool:
        """Whether a counterexample is all that was asked for, and there is one."""
        return self.witness is not None and not self.method.optimum

    def outcome(self, reason: Reason) -> tuple[float, Reason]:
        """The margin that is proved, and why the problem is open if that does not decide it."""
        if self.targets:
            self._gather()
        margin = torch.tensor(self.lower, dtype=torch.float64).amin().item()  # NaN stays NaN
        if reason is Reason.INCOMPLETE:
            reason = Reason.NUMERICAL
        least = self.seen.min().item()
        if self.method.optimum and margin >= least - 1e-6 * (1 + abs(least)):
            self.stats |= {"optimum": margin, "minimiser": self.at}
        return (nan, Reason.NUMERICAL) if 0 < margin <= self.grain else (margin, reason)

    def certificate(self) -> dict[str, Any] | None:
        """The trees, if they are wanted and each is closed."""
        trees = {d: target.tree for d, target in self.targets.items()}
        whole = len(trees) == len(self.lower) and all(tree.complete for tree in trees.values())
        if not (self.method.proof and whole and self.encoding is not None and recordable(self.problem)):
            return None
        neurons, disjuncts = self.encoding.neurons, self.problem.spec.disjuncts
        left = leaky(self.problem, neurons)
        told = {
            d: written(target.tree, target.splits, target.cost, len(disjuncts[d].b), left)
            for d, target in self.targets.items()
        }
        return document(self.problem, self.method.name, neurons, told, {})

    def _open(self, d: int) -> bool:
        """Whether more about disjunct ``d`` would change the answer; one without rows is everywhere."""
        return len(self.problem.spec.disjuncts[d].b) > 0 and not self.lower[d] > self.limit()

    def _plant(self, encoding: Encoding, wanted: Sequence[int]) -> None:
        """A target for each disjunct; those of one row share a program."""
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
            objective = simplex.objective(cost, offset)
            self.targets[d] = Target(d, splits, simplex, line, cost, offset, objective, self.lower[d])

    def _model(self, program: Program, encoding: Encoding) -> tuple[Splits, Simplex]:
        splits = Splits.of(encoding, program)
        return splits, Simplex(splits, self.budget.threads, self.budget.seed)

    def _descend_from_roots(self) -> None:
        roots, self.search.points = self.search.points, []
        if roots and not self.done():
            points = torch.cat([self._points(x[None]) for _, x in roots])
            self._look([target.number for target, _ in roots], points, 0.25)

    def _points(self, x: Vector) -> Tensor:
        """The network's inputs at points of a program (points x columns): (points x input shape)."""
        assert self.encoding is not None
        return torch.from_numpy(self.encoding.inputs_at(x)).view(-1, *self.problem.network.input_shape)

    def _look_at(self, d: int, x: Vector, exact: bool) -> float:
        points = self.problem.region.project(self._points(x))
        least = self._see(points)[:, d].min().item()
        if exact and least <= self.grain and not self.method.optimum and self.witness is None:
            self._look([d], points, 0.02)
        return least

    def _look(self, disjuncts: Sequence[int], points: Tensor, first: float) -> None:
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

    def _gather(self) -> None:
        """Bounds of the disjuncts from all leaves, closed or not, and what the search took."""
        proved: dict[tuple[int, int], float] = {}
        for nodes in self.search.open_nodes():
            if self.budget.expired:
                break
            target = nodes[0].target
            bounds = target.proved(nodes).tolist()
            proved |= {(target.number, node.number): bound for node, bound in zip(nodes, bounds, strict=True)}
        for d, target in self.targets.items():
            open_ = [max(target.floor, proved.get((d, number), -inf)) for number in target.tree.open_nodes]
            least = max(self.lower[d], min([target.tree.bound, *open_]))
            # A region is not empty, and no bound lies above what was seen: bounds that say so are dropped.
            seen = self.seen[d].item()
            self.lower[d] = nan if least == inf or least > seen + GAP * (1 + abs(seen)) else least
        trees = [target.tree for target in self.targets.values()]
        self.stats |= {
            "nodes": self.search.nodes,
            "leaves": sum(len(tree.leaves) for tree in trees),
            "open": sum(len(tree.open_nodes) for tree in trees),
            "unstable": len(self.encoding.neurons) if self.encoding else 0,
        }


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
        work.encoding = encode(self.problem.network, self.problem.region, self.known.bounds)
        work._plant(work.encoding, self.wanted)
        return work


def shared_out(ground: Ground, share: Share) -> Parts:
    """What comes of a share of nodes, in a process of its own."""
    work = ground.work
    work.seen, work.at, work.witness = torch.minimum(work.seen, share.seen), None, None
    budget = Budget(share.seconds, ground.memory).started()
    work.search = Search(work._look_at, work.limit, work.done, budget)
    with torch.no_grad():
        trees = searched(work.search, work.targets, share)
    found = work.witness is not None
    return Parts(trees, work.search.nodes, work.witness if found else work.at, found)
