"""Where nodes are split: neurons that are tried both ways."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from assay.verify.backends.bab.neurons import candidates
from assay.verify.backends.bab.neurons.bab import BaB
from assay.verify.backends.bab.neurons.climbing import Climbing
from assay.verify.backends.bab.neurons.compact import unsplit
from assay.verify.backends.bab.neurons.multipliers import Kinks, Multipliers, backward
from assay.verify.backends.bab.neurons.nodes import Nodes
from assay.verify.backends.bab.neurons.tables import Tables
from assay.verify.core.result import Verdict
from tests import nets
from tests.breadth import seeds
from tests.contract.test_exact_agreement import agrees
from tests.verify.backends.test_bab import KINDS, Made, made, supported
from tests.verify.backends.test_bab_shared import accepted
from tests.verify.programs.cases import case

STILL = Climbing(0)  # rows as they are
SPLIT = BaB(neurons=4, passes=1, first=0, below=1, together=3, steps=1, leaves=0)  # many nodes

every_kind = pytest.mark.parametrize("kind", KINDS)


def roots(at: Made, seed: int, count: int = 3) -> tuple[Nodes, Tensor]:
    """Nodes without splits, with slopes of any kind, and what neurons may cost: (unstable x nodes)."""
    rng = nets.generator(seed)
    lower, upper = (t[:, None].repeat(1, count) for t in at.compact.bounds())
    alpha = torch.rand(lower.shape, generator=rng)
    weight = torch.rand(len(at.rows), count, generator=rng)
    number = torch.zeros(count, dtype=torch.int64)
    phase = torch.zeros(lower.shape, dtype=torch.int8)
    nodes = Nodes(phase, lower, upper, alpha, torch.zeros_like(alpha), weight / weight.sum(0), number, number)
    return nodes, torch.rand(lower.shape, generator=rng)


def bound(tables: Tables, node: Nodes) -> float:
    """Of the row of one node, on its lines."""
    kinks = Kinks.of(tables, node.lower, node.upper, node.phase, torch.zeros(1, dtype=torch.int64))
    own = Multipliers(node.alpha * kinks.open + kinks.fixed, node.beta, node.weight)
    return backward(tables, kinks, own).bound.item()


def single(at: Made) -> Tables:
    return Tables(at.compact, at.double.output, torch.float32)


@every_kind
def test_the_neuron_whose_halves_gain_most_is_chosen_among_the_costliest(kind: str) -> None:
    other = 0
    for seed in supported(kind, range(1000, 1005)):
        at = made(kind, seed)
        nodes, cost = roots(at, seed)
        tables, most = single(at), min(4, at.compact.unstable)
        if most < 2:
            continue
        chosen = candidates.best(tables, nodes, cost, most, STILL)
        for i, neuron in enumerate(chosen.tolist()):
            node, costliest = nodes.take(torch.tensor([i])), cost[:, i].topk(most).indices
            assert neuron in costliest.tolist()
            short = max(0.0, -bound(tables, node))
            values = []
            for tried in costliest.tolist():
                value = 1.0
                for half in range(2):
                    part = node.split(torch.tensor([tried])).take(torch.tensor([half]))
                    value *= max(candidates.LEAST * short, short - max(0.0, -bound(tables, part)))
                values.append(value)
            assert values[costliest.tolist().index(neuron)] == pytest.approx(max(values), rel=1e-3, abs=1e-6)
            other += neuron != int(cost[:, i].argmax())
    assert other > 0


def test_of_one_candidate_it_is_the_costliest_and_what_costs_nothing_is_not_chosen() -> None:
    at = made("mlp", 1000)
    nodes, cost = roots(at, 0)
    tables, size = single(at), at.compact.unstable
    assert candidates.best(tables, nodes, cost, 1, STILL).equal(cost.argmax(0))
    only = torch.full_like(cost, -1.0)
    only[1] = 0.5
    assert candidates.best(tables, nodes, only, size, STILL).tolist() == [1, 1, 1]
    assert candidates.best(tables, nodes, only - 1, size, STILL).tolist() == [1, 1, 1]


@every_kind
@seeds(2, of=12, start=2000)
def test_verdicts_are_the_true_ones_however_many_neurons_are_tried(kind: str, seeds: range) -> None:
    split = 0
    for problem, true in (case(kind, seed) for seed in seeds):
        if unsplit(problem.network) is None:
            for tried in (1, 8):
                result = replace(SPLIT, tried=tried).verify(problem)
                agrees(result, problem, true)
                split += result.stats.get("depth", 0)
    assert split or kind != "mlp" or len(seeds) < 10


@seeds(3, of=10, start=1000)
def test_trees_that_are_split_so_are_proved_to_the_checker(seeds: range) -> None:
    checked = 0
    for problem, margin in (case("mlp", seed) for seed in seeds):
        if margin > 0:
            result = replace(SPLIT, proof=True).verify(problem)
            assert result.verdict is Verdict.VERIFIED
            assert accepted(result, problem)
            checked += 1
    assert checked > 0
