"""Trees that are searched in parts: below a node as long as that takes few domains, else the node is split, and the
bounds of its neurons are tightened in both halves."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import torch
from torch import Tensor

from assay.verify.backends.bab.account import Account
from assay.verify.backends.bab.compact import Compact
from assay.verify.backends.bab.multipliers import Climbing, Multipliers, Splits, Tables, Walk, climb, typical
from assay.verify.backends.bab.phases import Look, Phases, PhaseTree, pooled
from assay.verify.backends.bab.search import Limits, search
from assay.verify.backends.bab.tightened import Nodes, tighten
from assay.verify.core.budget import Budget
from assay.verify.core.result import Reason
from assay.verify.core.spec import Spec
from assay.verify.programs.expressions import as_array


@dataclass(eq=False)
class Subtrees:
    spec: Spec
    compact: Compact
    disjuncts: list[int]
    how: Climbing
    method: Any
    budget: Budget
    look: Look
    account: Account = field(init=False)
    witness: Tensor | None = None
    reason: Reason | None = None
    stats: dict[str, Any] = field(default_factory=lambda: {"domains": 0, "nodes": 0, "tighten": 0.0, "search": 0.0})

    def __post_init__(self) -> None:
        self.account = Account(len(self.disjuncts))

    def run(self) -> None:
        roots = self._roots()
        stack = [roots.take(torch.tensor([i])) for i in range(len(roots))]
        while stack and self.witness is None and self.reason is None:
            if self.budget.expired:
                self.reason = Reason.TIMEOUT
                return
            nodes, stack = Nodes.join(stack[-self.method.together :]), stack[: -self.method.together]
            stack += self._work(nodes)

    def _member(self, tree: Tensor) -> Tensor:
        """Which unsafe rows belong to nodes of these trees: (unsafe rows x nodes)."""
        return (self.spec.disjunct[:, None] == torch.tensor(self.disjuncts)[tree]).float()

    def _roots(self) -> Nodes:
        tree = torch.arange(len(self.disjuncts))
        lower, upper = (t[:, None].repeat(1, len(tree)) for t in self.compact.bounds())
        shape = (self.compact.unstable, len(tree))
        member = self._member(tree)
        alpha = (upper > -lower).float()
        return Nodes(torch.zeros(shape, dtype=torch.int8), lower, upper, alpha, torch.zeros(shape), member / member.sum(0), tree, torch.zeros_like(tree))

    def _tables(self, compact: Compact) -> tuple[Tables, Tables]:
        output = compact.output.weighed(as_array(self.spec.A), as_array(self.spec.b))
        return Tables(compact, output, torch.float32), Tables(compact, output, torch.float64)

    def _cut(self, compact: Compact, nodes: Nodes) -> tuple[Compact, Tensor]:
        return compact.cut(nodes.lower.amin(1), nodes.upper.amax(1), (nodes.phase != 0).any(1))

    def _bounded(self, single: Tables, nodes: Nodes, steps: int) -> tuple[Splits, Walk, Nodes, Tensor]:
        splits = Splits.of(single, nodes.lower, nodes.upper, nodes.phase, torch.arange(len(nodes)))
        own = Multipliers(nodes.alpha * splits.open + splits.fixed, nodes.beta.clone(), nodes.weight.clone())
        member = self._member(nodes.tree)
        free = member if bool((member.sum(0) > 1).any()) else None
        walk = climb(single, splits, own, replace(self.how, steps=steps), None, free)
        unit = typical(single, walk)
        return splits, walk, replace(nodes, alpha=own.alpha, beta=own.beta, weight=own.weight), unit

    def _work(self, nodes: Nodes) -> list[Nodes]:
        t0 = time.perf_counter()
        compact, first = self._cut(self.compact, nodes)
        here = nodes.of_neurons(first)
        single, double = self._tables(compact)
        member = self._member(nodes.tree)
        splits, walk, here, _ = self._bounded(single, here, 20)
        if self.method.output is not None:
            free = member / walk.bound.abs().clamp(min=1e-3) if self.method.output else None
            for _ in range((self.method.passes if int(here.depth.max()) == 0 else 1) - 1):
                here, _ = tighten(single, double, here, free, Climbing(self.method.tight, 0.5, 0.5, 0.8), self.budget, self._worth(walk, splits))
                splits, walk, here, _ = self._bounded(single, here, 10)
                free = member / walk.bound.abs().clamp(min=1e-3)
            here, empty = tighten(single, double, here, free, Climbing(self.method.tight, 0.5, 0.5, 0.8), self.budget, self._worth(walk, splits))
            closed = empty.nonzero().flatten()
            self.account.close(here.depth[closed], here.tree[closed])
            left = (~empty).nonzero().flatten()
            here, nodes = here.take(left), nodes.take(left).put(first, here.take(left))
            if not len(left):
                return []
            compact, second = self._cut(compact, here)
            here, index = here.of_neurons(second), first[second]
            single, double = self._tables(compact)
        else:
            index = first
        before = walk.bound
        splits, walk, here, unit = self._bounded(single, here, 20)
        t1 = time.perf_counter()
        tree = self._tree(single, double, here, unit, index)
        last = self.method.below <= 0
        limits = Limits(self.method.batch, 0, 0, inf if last else self.method.below * len(here), "deep" if last else "shallow")
        outcome = search(tree, limits, self.budget)
        t2 = time.perf_counter()
        self.stats["domains"] += outcome.stats["domains"]
        self.stats["nodes"] += len(nodes)
        self.stats["tighten"] += t1 - t0
        self.stats["search"] += t2 - t1
        self.witness, self.reason = outcome.witness, outcome.reason
        closed = torch.tensor(outcome.closed)
        self.account.close(here.depth[closed], here.tree[closed])
        self.stats["measure"] = self.account.measure
        self.stats["deep"] = max(self.stats.get("deep", 0), int(here.depth.max()))
        if self.method.verbose: print(f"nodes {len(here)} depth {here.depth.tolist()} tree {here.tree.tolist()} unstable {compact.unstable} bound {[round(x,3) for x in before.tolist()]} -> {[round(x,3) for x in walk.bound.tolist()]} closed {int(closed.sum())} domains {outcome.stats['domains']} rounds {outcome.stats['rounds']} tighten {t1-t0:.3f} search {t2-t1:.3f}", flush=True)
        open_ = (~closed).nonzero().flatten()
        if self.witness is not None or self.reason is not None or not len(open_):
            return []
        return self._split(tree, nodes.put(index, here).take(open_), here.take(open_), splits, walk, open_, index)

    def _worth(self, walk: Walk, splits: Splits) -> Tensor:
        """The neurons whose relaxations cost most (unstable x nodes)."""
        cost = walk.seen.abs() * splits.height
        chosen = torch.zeros_like(cost, dtype=torch.bool)
        count = min(self.method.rows, len(cost))
        return chosen.scatter_(0, cost.topk(count, 0).indices, True)

    def _tree(self, single: Tables, double: Tables, nodes: Nodes, unit: Tensor, index: Tensor) -> PhaseTree:
        member = self._member(nodes.tree)
        free = member if bool((member.sum(0) > 1).any()) else None
        own = Multipliers(nodes.alpha, nodes.beta, nodes.weight)
        start = pooled(nodes.phase.T.contiguous(), own, torch.full((len(nodes),), -1), torch.arange(len(nodes)))
        return PhaseTree(single, double, nodes.lower, nodes.upper, start, self.how, unit.expand(-1, len(nodes)), free, self.look, self._settle)

    def _settle(self, phase: Tensor, tree: int, budget: Budget) -> tuple[float, Tensor | None]:
        return -inf, None

    def _split(self, tree: PhaseTree, nodes: Nodes, here: Nodes, splits: Splits, walk: Walk, open_: Tensor, index: Tensor) -> list[Nodes]:
        """Each node in two, at the candidate whose worse half is best."""
        score = walk.seen.clamp(max=0).neg_()[:, open_] * splits.height[:, open_]
        count = min(self.method.candidates, len(score))
        neuron = score.topk(count, 0).indices  # (candidates x nodes)
        each = torch.arange(len(open_)).repeat(2 * count)
        at, phase = neuron.repeat(2, 1).flatten(), torch.tensor([-1, 1], dtype=torch.int8).repeat_interleave(count * len(open_))
        trial = here.take(each)
        column = torch.arange(len(each))
        trial.phase[at, column] = phase
        own = Multipliers(trial.alpha, trial.beta, trial.weight)
        _, found = tree.raised(trial.phase, open_[each], own, self.how)
        both = found.bound.clamp(max=0).view(2, count, -1)
        best = (both.amin(0) + 0.1 * both.amax(0)).argmax(0)
        chosen = index[neuron.gather(0, best[None])[0]]
        halves = []
        for i in range(len(nodes)):
            for side in (-1, 1):
                child = nodes.take(torch.tensor([i]))
                child.phase[chosen[i], 0] = side
                child.alpha[chosen[i], 0] = max(side, 0)
                halves.append(replace(child, depth=child.depth + 1))
        return halves
