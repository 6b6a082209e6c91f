"""Trees that are searched in parts: below a node for as long as that takes few domains; else the node is split, and the
bounds of its halves' neurons are tightened. What many domains share is worth tightening; what few do is not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Any, Literal

import torch
from torch import Tensor

from assay.verify.backends.bab.account import Account
from assay.verify.backends.bab.frontier import Leaves
from assay.verify.backends.bab.neurons import candidates, dealt
from assay.verify.backends.bab.neurons.climbing import Climbing, climb, typical
from assay.verify.backends.bab.neurons.compact import Compact
from assay.verify.backends.bab.neurons.exact_leaves import Look
from assay.verify.backends.bab.neurons.multipliers import Kinks, Multipliers, Walk
from assay.verify.backends.bab.neurons.nodes import Nodes
from assay.verify.backends.bab.neurons.phases import PhaseTree, pooled
from assay.verify.backends.bab.neurons.race import Race
from assay.verify.backends.bab.neurons.record import Record
from assay.verify.backends.bab.neurons.refined import Passes, Refining, grown, price, refine
from assay.verify.backends.bab.neurons.tables import Tables
from assay.verify.backends.bab.neurons.tightened import Reach, tighten
from assay.verify.backends.bab.search import Limits, Outcome, search
from assay.verify.backends.bab.shared import Done, share
from assay.verify.core.budget import Budget
from assay.verify.core.result import Reason
from assay.verify.core.spec import Spec
from assay.verify.programs.expressions import as_array
from assay.verify.support.executors import Executor

ENOUGH = 1e-5  # of a node's bound, or of 1: more than float32 is wrong by, as a rule
STEPS = 20  # in which the bound of a node itself is raised
COPIES = 32  # of a domain's numbers that live at once
SMALLEST = 1e-3  # of what an unsafe row comes to
SHARE = 0.25  # of what lower lines may hide that counts as a cost
PART = 0.5  # of the time that is left may be spent on refining bounds
FORKED = 0.2  # seconds that processes take to begin where all that they import is there
AFTER = 200  # domains below each root after a pass

# The exact bound of a leaf by its phases, of all unstable neurons, and its disjunct; and a counterexample.
Exact = Callable[[Tensor, int], tuple[float, Tensor | None]]


@dataclass(frozen=True)
class Plan:
    """How trees are searched: ``batch``: domains at a time; ``raced``: how they are raised, in ways that are compared;
    ``first``: so many below a root before anything is tightened; ``below``: so many below a node, 0: without an end,
    and nodes are not split; ``together``: nodes that are searched together; ``neurons``: so many of a node are
    tightened, ``passes`` times at the root, and ``tightening``: how; ``output``: where the output is unsafe;
    ``refining``: the most leaves that bounds of neurons have at the root, 0: no trees; ``tried``: neurons at which a
    node may be split."""

    batch: int
    raced: tuple[Climbing, ...]
    first: int
    below: int
    together: int
    neurons: int
    passes: int
    tightening: Climbing
    output: bool
    refining: int = 0
    tried: int = 1

    @property
    def starts(self) -> bool:
        """Whether there is a search below roots before anything is tightened."""
        return bool(self.first and self.below and self.neurons)


@dataclass(frozen=True, eq=False)
class Found:
    """What a search below nodes leaves: the ``nodes``, of all unstable neurons, and ``here``, of those that can matter;
    what relaxations ``cost`` their rows, and may have ``hidden`` (unstable x nodes); which are ``left`` open, numbers;
    and the ``worst`` bound of a node, before it was."""

    nodes: Nodes
    here: Nodes
    cost: Tensor
    hidden: Tensor
    left: Tensor
    worst: float
    tables: Tables


@dataclass(eq=False)
class Subtrees:
    """The trees of some ``disjuncts`` of a specification. ``margin``: a bound of the least margin in all closed parts,
    where nothing was taken to be unsafe; ``passes``: by which bounds at the roots are refined; ``record``: is told of
    all that proves."""

    spec: Spec
    compact: Compact
    disjuncts: Sequence[int]
    plan: Plan
    budget: Budget
    look: Look
    exact: Exact
    passes: Passes
    record: Record | None = None
    account: Account = field(init=False)
    how: Climbing = field(init=False)
    executor: Executor | None = None
    rates: list[float] = field(default_factory=list)
    margin: float = inf
    witness: Tensor | None = None
    reason: Reason | None = None
    stats: dict[str, Any] = field(
        default_factory=lambda: {"domains": 0, "raced": 0, "nodes": 0, "depth": 0, "refined": 0}
    )

    def __post_init__(self) -> None:
        self.account, self.how = Account(len(self.disjuncts)), self.plan.raced[0]

    def run(self, executor: Executor | None = None) -> None:
        """Until every tree is closed, a counterexample is found, or there is a ``reason`` to stop; processes of an
        ``executor`` take shares of the nodes.

        Raises :class:`assay.verify.core.budget.Expired` when the time is over.
        """
        roots, self.executor = self.roots(), executor
        if self.plan.starts:
            roots = self._raced(roots)
        if self.plan.refining and len(roots) and not self.over:
            unseen = self.plan.starts and not self.account.leaves
            roots = self._refined(roots)
            if unseen and len(roots) and not self.over:
                roots = self._raced(roots)
        if executor is None:
            self.work(apart(roots))
        elif len(roots):
            self.work(share(self, apart(roots), executor, self.budget, self.plan.together))

    def work(self, stack: list[Nodes], seconds: float = inf) -> list[Nodes]:
        """Search below nodes, one round at least; those that are left open when the ``seconds`` are over.

        Raises :class:`assay.verify.core.budget.Expired` when the time is over.
        """
        until = time.monotonic() + seconds
        while stack and not self.over:
            self.check()
            nodes, stack = Nodes.join(stack[-self.plan.together :]), stack[: -self.plan.together]
            halves = self._halved(nodes)
            stack = stack if halves is None else stack + apart(halves)
            if time.monotonic() >= until:
                break
        return stack

    @property
    def over(self) -> bool:
        """Whether there is no need to go on, or no use."""
        return self.witness is not None or self.reason is not None

    def check(self) -> None:
        """Raises :class:`assay.verify.core.budget.Expired` when the time is over."""
        self.budget.check()

    def done(self, left: list[Nodes], reason: Reason | None = None) -> Done:
        """What came of the nodes of which these are left, and why others may be, if there is a ``reason``."""
        found = None if self.record is None else self.record.found
        return Done(self.account, self.margin, self.stats, self.witness, self.reason or reason, left, found)

    def take(self, done: Done) -> bool:
        """Note what came of nodes elsewhere; False where its counterexample is none here, and nothing is noted."""
        if done.witness is not None:
            self.witness = self.look(done.witness)
            return self.witness is not None
        self.account.join(done.account)
        if self.record is not None:
            self.record.join(done.found)
        self.margin, self.reason = min(self.margin, done.margin), self.reason or done.reason
        self.stats["raced"] += done.stats["raced"]
        self._count(done.stats["domains"], done.stats["nodes"], done.stats["depth"])
        return True

    def roots(self) -> Nodes:
        """The roots of all trees."""
        tree = torch.arange(len(self.disjuncts))
        lower, upper = (t[:, None].repeat(1, len(tree)) for t in (self.passes.lower, self.passes.upper))
        member = self._member(tree)
        alpha = (upper > -lower).float()
        phase = torch.zeros(lower.shape, dtype=torch.int8)
        weight = member / member.sum(0)
        return Nodes(phase, lower, upper, alpha, torch.zeros_like(alpha), weight, tree, torch.zeros_like(tree))

    def _ready(self, seconds: float = 0.0) -> Executor | None:
        """The executor, if there are processes that could begin at once, or in so many seconds."""
        return self.executor if self.executor is not None and self.executor.ready(seconds) else None

    def _raced(self, nodes: Nodes) -> Nodes:
        """See :meth:`raced`; here, if no processes are there to do so."""
        if self.executor is not None and len(self.plan.raced) == 1:
            return nodes
        if (executor := self._ready(FORKED)) is None:
            return self.raced(nodes, self.executor is None)
        return dealt.raced(self, nodes, self.plan.raced, executor)

    def raced(self, nodes: Nodes, rest: bool) -> Nodes:
        """See how domains are best raised, and go on in that way if the ``rest`` is not for others; the nodes without
        those below which few domains do, which nothing has to be tightened for."""
        compact, index = _cut(self.compact, nodes)
        tables, count, ways = self._tables(compact), len(nodes), self.plan.raced
        _, walk, here = self._raised(tables[0], nodes.of_neurons(index))
        whole = nodes.put(index, here)
        each = torch.arange(count).repeat(len(ways))
        tree = self._tree(tables, here.take(each), walk, whole.take(each), index)
        race = Race(ways, count, Leaves.roots(tree.root()))
        batch, memory = self._batch(compact), self.budget.memory // 4
        for way, domains in race.heats(self.plan.first * count, rest, self._other):
            tree.how = ways[way]
            limits = Limits(batch, 0, memory, domains, "shallow")
            outcome = search(tree, limits, self.budget, race.take(way), race.account)
            race.note(outcome)
            self._note(outcome)
            tried = bool(race.spent.any(1).all())
            if tried and self.plan.refining and self.passes.short == inf and not race.account.leaves:
                break  # by such bounds nothing is closed in any way
            if self.over:
                break
        self.how, self.rates = ways[race.best], race.rates
        self._count(0, count, int(nodes.depth.max()))
        self.stats["raced"] += int(race.spent.sum() - race.spent[race.best].sum())
        if self.record is not None:
            self.record.searched(whole.take(each), race.first_closed)
        closed = race.closed
        self.account.close(nodes.depth[closed], nodes.tree[closed])
        return nodes.take((~closed).nonzero().flatten())

    @property
    def _other(self) -> float:
        """How many domains take as long as the next pass by which bounds of neurons are refined; inf: there is none."""
        passes = self.passes
        if not self.plan.refining or not passes.worth(self.budget.remaining):
            return inf
        return price(self.compact, passes.lower, passes.upper, Refining(passes.leaves, self.plan.refining, self.how))

    def _refined(self, nodes: Nodes) -> Nodes:
        """The roots that are left with bounds of neurons over the box by trees of their own, which grow from pass to
        pass for as long as that pays and a part of the time allows."""
        passes, note = self.passes, None if self.record is None else self.record.refined
        budget = self.budget.part(PART)
        while len(nodes) and passes.worth(budget.remaining) and not self.over:
            begun = time.monotonic()
            self.stats["refined"] = min(passes.leaves, self.plan.refining)
            refining = Refining(self.stats["refined"], self.plan.refining, self.how)
            grow = grown if self.executor is None else dealt.growing(self.executor)
            bounds = refine(self.compact, passes.lower, passes.upper, refining, budget, note, grow)
            passes.lower, passes.upper = bounds
            if self.record is not None and not self.record.whole:
                passes.proof = False  # what proves some of these bounds was given up
            lower, upper = (t[:, None].repeat(1, len(nodes)) for t in bounds)
            nodes = replace(nodes, lower=lower, upper=upper)
            executor = self._ready()
            nodes, worst = (
                self.shallow(nodes, AFTER) if executor is None else dealt.shallow(self, nodes, AFTER, executor)
            )
            if budget.expired:
                break
            passes.note(-worst, self.plan.refining, time.monotonic() - begun)
        return nodes

    def shallow(self, nodes: Nodes, domains: int) -> tuple[Nodes, float]:
        """Search below nodes for so many domains each; the nodes that are left, and the worst bound of one before."""
        compact, index = _cut(self.compact, nodes)
        found = self._search(compact, index, nodes, domains * len(nodes))
        return nodes.take(found.left), found.worst

    def small(self, nodes: Nodes) -> Nodes:
        """The roots without those below which few domains do, which nothing has to be tightened for."""
        if self.over or not len(nodes) or not self.plan.starts:
            return nodes
        return self.shallow(nodes, self.plan.first)[0]

    def _halved(self, nodes: Nodes) -> Nodes | None:
        """Search below these nodes; the halves of those that are too large for that, None if there are none."""
        compact, index = _cut(self.compact, nodes)
        reach = torch.zeros(())
        if self.plan.neurons:
            here, empty, reach = self._tightened(self._tables(compact), nodes.of_neurons(index), nodes, index)
            self.account.close(here.depth[empty], here.tree[empty])
            if self.record is not None:
                self.record.empty(nodes, empty)
            left = (~empty).nonzero().flatten()
            if self.witness is not None or not len(left):
                return None
            here = here.take(left)
            nodes = nodes.take(left).put(index, here)
            compact, again = _cut(compact, here)
            index, reach = index[again], reach[again][:, left]
        found = self._search(compact, index, nodes, self.plan.below * len(nodes) or inf)
        if self.over or not len(found.left):
            return None
        # A neuron is worth a split for what its relaxation costs the row, and the bounds of neurons after it, or hides.
        cost = torch.maximum(found.cost + reach, found.hidden)[:, found.left]
        return self._split(found.nodes.take(found.left), found.here.take(found.left), cost, index, found.tables)

    def _split(self, nodes: Nodes, here: Nodes, cost: Tensor, index: Tensor, tables: Tables) -> Nodes:
        """The halves of nodes at neurons of a large ``cost`` (neurons x nodes), of those at ``index``, in ``tables``;
        ``here``: what the nodes say of these."""
        stable = (here.lower >= 0) | (here.upper <= 0)
        cost = cost.masked_fill(stable, -1.0).masked_fill(here.phase != 0, -2.0)
        neuron = index[candidates.best(tables, here, cost, self.plan.tried, self.how)]
        if self.record is not None:
            self.record.split(nodes, neuron)
        return nodes.split(neuron)

    def below(self, node: Nodes) -> bool:
        """Whether all below a node is closed, which is split at once, where its row says."""
        compact, index = _cut(self.compact, node)
        tables = self._tables(compact)[0]
        kinks, walk, here = self._raised(tables, node.of_neurons(index))
        if not bool((here.phase == 0).any()):
            return False
        halves = self._split(node, here, walk.seen.clamp(max=0).neg_() * kinks.height, index, tables)
        left = self.work(apart(halves))
        return not left and not self.over

    def _search(self, compact: Compact, index: Tensor, nodes: Nodes, domains: float) -> Found:
        """Search below nodes, in the network as far as it matters there, whose unstable neurons are those at ``index``,
        for as long as so many domains."""
        tables = self._tables(compact)
        kinks, walk, here = self._raised(tables[0], nodes.of_neurons(index))
        nodes = nodes.put(index, here)
        cost = walk.seen.clamp(max=0).neg_() * kinks.height
        hidden = _hidden(here, walk)
        worst = float(walk.bound.min())
        tree = self._tree(tables, here, walk, nodes, index)
        order: Literal["shallow", "deep"] = "deep" if domains == inf else "shallow"  # narrow, or to all nodes alike
        limits = Limits(self._batch(compact), 0, self.budget.memory // 4, domains, order)
        outcome = search(tree, limits, self.budget)
        closed = torch.tensor(outcome.closed)
        if self.record is not None:
            self.record.searched(nodes, closed)
        self.account.close(here.depth[closed], here.tree[closed])
        self._note(outcome)
        self._count(0, len(here), int(here.depth.max()))
        return Found(nodes, here, cost, hidden, (~closed).nonzero().flatten(), worst, tables[0])

    def _note(self, outcome: Outcome) -> None:
        self.witness, self.reason = outcome.witness, outcome.reason
        self.margin = min(self.margin, outcome.settled)
        self._count(outcome.stats["domains"], 0, 0)

    def _count(self, domains: int, nodes: int, depth: int) -> None:
        self.stats["domains"] += domains
        self.stats["nodes"] += nodes
        self.stats["depth"] = max(self.stats["depth"], depth)

    def _tightened(
        self, tables: tuple[Tables, Tables], nodes: Nodes, whole: Nodes, index: Tensor
    ) -> tuple[Nodes, Tensor, Tensor]:
        """The nodes with tighter bounds of the neurons whose relaxations cost most, which of them are empty, and what
        relaxations cost by way of these bounds (unstable x nodes). They are those of the neurons at ``index`` of the
        ``whole``."""
        plan = self.plan
        note = None if self.record is None else partial(self.record.bounded, whole, index)
        empty, cost = torch.zeros(len(nodes), dtype=torch.bool), torch.zeros(nodes.phase.shape)
        for _ in range(plan.passes if not int(nodes.depth.max()) else 1):
            kinks, walk, nodes = self._raised(tables[0], nodes)
            self.witness = self.look(tables[0].compact.point(walk.at_input.sign().neg_()))
            if self.witness is not None:
                break
            chosen = _costliest(walk.seen.abs() * kinks.height, plan.neurons)
            free = self._member(nodes.tree) / walk.bound.abs().clamp(min=SMALLEST) if plan.output else None
            reach = Reach.of(nodes, walk.seen)
            nodes, none = tighten(*tables, nodes, chosen & ~empty, free, plan.tightening, self.budget, reach, note)
            empty, cost = empty | none, reach.cost
        return nodes, empty, cost

    def _raised(self, single: Tables, nodes: Nodes) -> tuple[Kinks, Walk, Nodes]:
        """The nodes themselves bounded, and with what was raised for that."""
        kinks = Kinks.of(single, nodes.lower, nodes.upper, nodes.phase, torch.arange(len(nodes)))
        own = Multipliers(nodes.alpha * kinks.open + kinks.fixed, nodes.beta.clone(), nodes.weight.clone())
        walk = climb(single, kinks, own, replace(self.how, steps=STEPS), None, self._mixed(nodes.tree))
        return kinks, walk, replace(nodes, alpha=own.alpha, beta=own.beta, weight=own.weight)

    def _tree(self, tables: tuple[Tables, Tables], here: Nodes, walk: Walk, nodes: Nodes, index: Tensor) -> PhaseTree:
        """The search below nodes, ``here`` as far as neurons can matter, which are those at ``index``."""
        count = len(here)
        own = Multipliers(here.alpha, here.beta, here.weight)
        start = pooled(here.phase.T.contiguous(), own, torch.full((count,), -1), torch.arange(count))
        # What bounds alone say of phases holds as well.
        implied = (nodes.lower >= 0).to(torch.int8) - (nodes.upper <= 0).to(torch.int8)

        def settle(phase: Tensor, tree: int) -> tuple[float, Tensor | None]:
            full = torch.where(nodes.phase[:, tree] == 0, implied[:, tree], nodes.phase[:, tree])
            least, witness = self.exact(full.index_copy(0, index, phase), self.disjuncts[int(here.tree[tree])])
            if self.record is not None and least > 0:
                self.record.settled(nodes, index, phase, tree)
            return least, witness

        unit, free = typical(tables[0], walk).expand(-1, count), self._mixed(here.tree)
        enough = ENOUGH * min(1.0, float(walk.bound.abs().max()))
        bounds = (here.lower, here.upper)
        closed = None if self.record is None else partial(self.record.leaves, nodes, index)
        return PhaseTree(*tables, *bounds, start, self.how, unit, free, enough, self.look, settle, closed)

    def _member(self, tree: Tensor) -> Tensor:
        """Which unsafe rows belong to nodes of these trees, 0 or 1: (unsafe rows x nodes)."""
        return (self.spec.disjunct[:, None] == torch.tensor(self.disjuncts)[tree]).float()

    def _mixed(self, tree: Tensor) -> Tensor | None:
        """The same where there are disjuncts of several rows."""
        member = self._member(tree)
        return member if bool((member.sum(0) > 1).any()) else None

    def _tables(self, compact: Compact) -> tuple[Tables, Tables]:
        output = compact.output.weighed(as_array(self.spec.A), as_array(self.spec.b))
        return Tables(compact, output, torch.float32), Tables(compact, output, torch.float64)

    def _batch(self, compact: Compact) -> int:
        """As many domains at a time as are asked for and memory allows."""
        features = len(compact.varied) + sum(len(layer.features) for layer in compact.layers) + compact.unstable
        return max(1, min(self.plan.batch, self.budget.memory // (8 * COPIES * max(1, features))))


def apart(nodes: Nodes) -> list[Nodes]:
    """The nodes, each by itself."""
    return [nodes.take(torch.tensor([i])) for i in range(len(nodes))]


def _cut(compact: Compact, nodes: Nodes) -> tuple[Compact, Tensor]:
    """What can matter at any of the nodes, and the numbers of the unstable neurons there."""
    return compact.cut(nodes.lower.amin(1), nodes.upper.amax(1), (nodes.phase != 0).any(1))


def _hidden(nodes: Nodes, walk: Walk) -> Tensor:
    """What lower lines may hide at nodes (unstable x nodes): how far the values of neurons may lie above them, in terms
    of the row, but no more than what this is short of zero.

    Where the row is least such a neuron may be on its line, so that a split of it raises no bound. But as long as it
    is not split, nothing can be made of what its phase would say of the neurons before it.
    """
    low, high = nodes.lower.float(), nodes.upper.float()
    gap = torch.maximum(-nodes.alpha * low, (1 - nodes.alpha) * high) * walk.seen.clamp(min=0)
    return torch.minimum(gap, walk.bound.clamp(max=0).neg()).mul_(SHARE)


def _costliest(cost: Tensor, most: int) -> Tensor:
    """A mask of the largest ones of each column: cost (neurons x nodes)."""
    chosen = torch.zeros_like(cost, dtype=torch.bool)
    return chosen.scatter_(0, cost.topk(min(most, len(cost)), 0).indices, True)
