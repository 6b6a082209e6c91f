"""Boxes of a tree that the checker does not accept, halved until it does."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.verify.check import bounds, checker, question
from assay.verify.solving.parts import TINY, Files, Part

Array = NDArray[Any]

MOST = 100_000  # boxes
FAIRNESS = 1e-3  # what each input is worth, so that all of them are halved in the end


def halved(
    files: Files, number: int, part: Part, left: Sequence[int], semantics: str = "real", until: float = inf
) -> Part:
    """A tree of boxes of which the leaves that are ``left`` to be proved, by number, are halved until they are. Raises
    :class:`question.Rejected` where that takes longer than ``until``."""
    low, high, unsafe = files.parts[number]
    (rows, sets), arithmetic = question.numbered(unsafe), bounds.Floats(until)
    codes, stack = part.arrays["boxes"].tolist(), [(-1, np.array(low), np.array(high))]
    first, second = list(range(1, len(codes) + 1)), [0] * len(codes)  # halves of each box that is halved
    leaves: list[tuple[int, Array, Array, Array]] = []
    for box, code in enumerate(codes):
        above, lo, hi = stack.pop()
        second[above] = box
        if code < 0:
            leaves.append((box, lo, hi, part.arrays["hints"][len(leaves)]))
        else:
            stack += [(box, *half) for half in _halves(lo, hi, code)[::-1]]
    kept, waiting = {leaf[0]: leaf[3] for leaf in leaves}, [leaves[number] for number in left]
    while waiting:
        if len(codes) > MOST:
            raise question.Rejected(f"more than {MOST} boxes")
        some, waiting = waiting[-checker.BOXES :], waiting[: -checker.BOXES]
        lower, upper, hints = (np.stack([box[side] for box in some]) for side in (1, 2, 3))
        with np.errstate(all="ignore"):
            net = checker.boxed(files.network, rows, semantics, arithmetic, lower, upper, files.least(arithmetic))
            found = checker.over_boxes(net, sets, hints, part.arrays["slopes"], part.arrays["weights"])
        open_ = ~((found > 0) & (found < inf))
        gain = np.zeros(lower.shape)
        for which, mine in enumerate(sets):
            gain += open_[:, which, None] * np.abs(net.slants[:, mine]).max(1) * (upper - lower)
        gain += FAIRNESS * (upper - lower) * gain.max(1, keepdims=True) / np.maximum(np.array(high) - low, TINY)
        for i, (box, lo, hi, hint) in enumerate(some):
            if not open_[i].any():
                kept[box] = hint
                continue
            codes[box], first[box], second[box] = int(gain[i].argmax()), len(codes), len(codes) + 1
            waiting += [(len(codes) + n, *half, hint) for n, half in enumerate(_halves(lo, hi, codes[box]))]
            codes, first, second = [*codes, -1, -1], [*first, -1, -1], [*second, -1, -1]
    order, boxes = [], [0]
    while boxes:
        box = boxes.pop()
        order.append(box)
        boxes += [second[box], first[box]] if codes[box] >= 0 else []
    told = {"boxes": np.array([codes[box] for box in order], np.int32)}
    return Part({**part.arrays, **told, "hints": np.stack([kept[box] for box in order if codes[box] < 0])}, [])


def _halves(low: Array, high: Array, axis: int) -> list[tuple[Array, Array]]:
    middle = low[axis] / 2 + high[axis] / 2
    halves = [(low.copy(), high.copy()), (low.copy(), high.copy())]
    halves[0][1][axis] = halves[1][0][axis] = middle
    return halves
