"""A leaf of a recorded tree that is not proved after all: it is split, and what is below it is searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.verify.backends.bab.neurons.bab import BaB, Work
from assay.verify.backends.bab.neurons.compact import Compact
from assay.verify.backends.bab.neurons.nodes import Nodes
from assay.verify.backends.bab.neurons.record import Record, listed
from assay.verify.bounds import layers
from assay.verify.bounds.relaxed import Relaxed
from assay.verify.core.budget import Budget, Expired
from assay.verify.core.problem import Problem

Array = NDArray[Any]


# What is known of a leaf: slopes (neurons), multipliers of its splits (splits) and weights of the unsafe rows (rows).
Hint = tuple[Array, Array, Array]


def subtree(
    problem: Problem,
    disjunct: int,
    splits: Sequence[tuple[int, int]],
    neurons: Array,
    budget: Budget,
    crown: bool = False,
    hint: Hint | None = None,
) -> dict[str, Array] | None:
    """The arrays of a tree below the ``splits`` of a leaf, neurons and phases from above, as
    :meth:`assay.verify.backends.bab.neurons.record.Record.tree` gives them; None where nothing is proved within the
    budget.

    ``neurons``: the unstable ones that the recorded tree speaks of, numbered through the ReLUs; ``crown``: the layers
    of the network are bounded as CROWN does, and not better; ``hint``: where lines and multipliers are raised from.
    """
    work = Work(BaB(proof=True), problem, budget.on_cpu())
    work.record = record = Record(problem, budget.memory // 4)
    with torch.no_grad():
        try:
            relaxed: Relaxed = _crown(problem, work.budget) if crown else work.root()
            compact = Compact.of(relaxed)
            if work.record is None or not np.array_equal(listed(problem.network, compact), neurons):
                return None
            trees = work.trees(relaxed.bounds, compact, [disjunct])
            node = trees.roots()
            phase, number = node.phase.clone(), torch.tensor([n for n, _ in splits], dtype=torch.int64)
            phase[number, 0] = torch.tensor([sign for _, sign in splits], dtype=torch.int8)
            if hint is not None:
                node = _started(node, number, *hint)
            alpha = torch.where(phase == 0, node.alpha, (phase > 0).float())
            depth = torch.full_like(node.depth, len(splits))
            closed = trees.below(replace(node, phase=phase, alpha=alpha, depth=depth))
        except Expired:
            return None
    return record.tree(0, disjunct, splits) if closed else None


def _crown(problem: Problem, budget: Budget) -> Relaxed:
    box = layers.batch_box(problem.region.box(), problem.network.input_shape)
    return layers.by_linear_bounds(problem.network, box, torch.float64, budget)


def _started(node: Nodes, number: Tensor, slopes: Array, multipliers: Array, weights: Array) -> Nodes:
    """A root that begins where a leaf has come to, split at neurons by ``number``."""
    alpha, beta, weight = (torch.from_numpy(part.astype(np.float32)) for part in (slopes, multipliers, weights))
    whole = node.weight.clone()
    if weight.sum() > 0:
        whole[whole > 0] = weight.clamp(min=0) / weight.clamp(min=0).sum()
    beta = node.beta.index_copy(0, number, beta.clamp(min=0)[:, None])
    return replace(node, alpha=alpha.clamp(0, 1)[:, None], beta=beta, weight=whole)
