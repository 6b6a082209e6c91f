"""Tests of verify.bounds.memo: remembered for an operation, forgotten with it, never for live weights."""

from __future__ import annotations

import gc
import weakref

import torch

from assay.verify.bounds.memo import per_op
from assay.verify.core.ops import Linear, Op


def test_remembered_by_identity_not_by_content() -> None:
    calls: list[Op] = []
    remembered = per_op(lambda op: calls.append(op) or len(calls))  # type: ignore[func-returns-value]
    first = Linear(torch.zeros(1, 1), torch.zeros(1))
    second = Linear(torch.zeros(1, 1), torch.zeros(1))
    assert [remembered(op) for op in (first, first, second, first)] == [1, 1, 2, 1]


def test_live_weights_are_worked_out_anew() -> None:
    live = Linear(torch.zeros(1, 1, requires_grad=True), torch.zeros(1))
    counted = iter(range(10))
    remembered = per_op(lambda op: next(counted))
    assert [remembered(live), remembered(live)] == [0, 1]


def test_an_operation_can_die() -> None:
    remembered = per_op(lambda op: op.label)
    op = Linear(torch.zeros(1, 1), torch.zeros(1))
    remembered(op)
    watch = weakref.ref(op)
    del op
    gc.collect()
    assert watch() is None
