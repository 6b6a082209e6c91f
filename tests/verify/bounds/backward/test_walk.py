"""Tests of bounds.backward.walk: what is done where and how often, by rows that are written down as text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from assay.verify.bounds.backward.walk import propagate_backwards
from assay.verify.core.network import Builder, Network
from assay.verify.core.ops import Add, Linear, Op, Relu, Sub


class Words:
    """Rows are words: each operation appends its position, sums are sorted; every pull is noted, and adds 1."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.pulled: list[int] = []

    def pull(self, position: int, rows: str) -> tuple[Sequence[str], Tensor | None]:
        self.pulled.append(position)
        inputs = self.network.nodes[position].inputs
        constant = None if len(inputs) > 1 else torch.ones(1)
        return [f"{rows}{position}{'ab'[k] if len(inputs) > 1 else ''}" for k in range(len(inputs))], constant

    def add(self, position: int, a: str, b: str) -> str:
        return f"({'+'.join(sorted((a, b)))})"


def network_of(*steps: tuple[Op, int] | tuple[Op, int, int]) -> Network:
    builder = Builder((1,))
    last = 0
    for op, *sources in steps:
        last = builder.add(op, *sources)
    return builder.build(last)


ONE = Linear(torch.ones(1, 1), torch.zeros(1))


def test_rows_of_several_paths_are_added_up_before_they_go_on() -> None:
    network = network_of((ONE, 0), (Relu(), 1), (ONE, 1), (Add(), 2, 3))
    rules = Words(network)
    rest, total = propagate_backwards(network.nodes, rules, {4: "r"}, torch.zeros(1))
    assert rest == {0: "(r4a2+r4b3)1"}
    assert rules.pulled == [4, 3, 2, 1], "each node once, the last one first"
    assert total.item() == 3


def test_a_node_that_is_added_to_itself_gets_both_rows() -> None:
    for op in (Add(), Sub()):
        network = network_of((ONE, 0), (op, 1, 1))
        rest, _ = propagate_backwards(network.nodes, Words(network), {2: "r"}, torch.zeros(1))
        assert rest == {0: "(r2a+r2b)1"}


def test_rows_rest_where_they_are_told_to_and_can_go_on_from_there() -> None:
    network = network_of((ONE, 0), (Relu(), 1), (ONE, 2), (Add(), 3, 0), (ONE, 4))
    pending = {5: "r"}
    rest, total = propagate_backwards(network.nodes, Words(network), pending, torch.zeros(1), lambda i: i == 2)
    assert rest == {2: "r54a3", 0: "r54b"}
    assert pending == {5: "r"}, "what is handed over is left alone"
    on, total = propagate_backwards(network.nodes, Words(network), rest, total)
    whole, at_once = propagate_backwards(network.nodes, Words(network), {5: "r"}, torch.zeros(1))
    assert on == whole
    assert torch.equal(total, at_once)


def test_rows_may_begin_at_several_nodes() -> None:
    network = network_of((ONE, 0), (Relu(), 1), (ONE, 2))
    rest, _ = propagate_backwards(network.nodes, Words(network), {1: "a", 3: "b"}, torch.zeros(1))
    assert rest == {0: "(a+b32)1"}


def test_rows_of_the_input_are_there() -> None:
    network = network_of((ONE, 0))
    rest, total = propagate_backwards(network.nodes, Words(network), {0: "r"}, torch.zeros(1))
    assert (rest, total.item()) == ({0: "r"}, 0)


def test_nodes_that_no_row_reads_are_passed_over() -> None:
    network = network_of((ONE, 0), (ONE, 0), (Add(), 1, 2))
    rules = Words(network)
    propagate_backwards(network.nodes, rules, {2: "r"}, torch.zeros(1))
    assert rules.pulled == [2]
