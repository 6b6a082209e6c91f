"""Trees of splits of which the checker does not accept some leaves: these are searched again, and what is found takes
their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.verify.backends.bab.neurons.reopened import Hint, subtree
from assay.verify.core.budget import Budget
from assay.verify.core.problem import Problem
from assay.verify.programs.hints import differences, summed

Array = NDArray[Any]
Arrays = dict[str, Array]

Splits = tuple[tuple[int, int], ...]  # neurons and phases, from above


def mended(
    arrays: Arrays,
    places: Sequence[int],
    problem: Problem,
    disjuncts: Sequence[int],
    budget: Budget,
    crown: bool = False,
) -> Arrays | None:
    """Trees with the nodes at these ``places`` searched again, each for its share of the budget; None where that proves
    nothing. ``disjuncts``: of the specification, one a tree; ``crown``: whether layers are bounded by CROWN alone."""
    rows = [len(problem.spec.disjuncts[d].b) for d in disjuncts]
    for count, place in enumerate(sorted(places, reverse=True)):
        where = placed(arrays["tree"].tolist())
        tree, splits = where[place]
        part = budget.part(1 / (len(places) - count))
        hint = _hint(arrays, place, where, rows)
        below = subtree(problem, disjuncts[tree], splits, arrays["listed"], part, crown, hint)
        if below is None:
            return None
        arrays = arrays | spliced(arrays, place, below, where, rows)
    return arrays


def _hint(arrays: Arrays, place: int, where: Sequence[tuple[int, Splits]], rows: Sequence[int]) -> Hint | None:
    """What a leaf has for proof, where a search may begin; None for a node whose bounds were said to cross."""
    leaf = arrays["tree"] == -1
    if not leaf[place]:
        return None
    before = np.flatnonzero(leaf[:place]).tolist()
    tree, splits = where[place]
    first, weighed = sum(len(where[at][1]) for at in before), sum(rows[where[at][0]] for at in before)
    slopes = summed(arrays["slopes"])[len(before)]
    return (
        slopes / 255 if slopes.dtype == np.uint8 else slopes,
        arrays["multipliers"][first : first + len(splits)],
        arrays["weights"][weighed : weighed + rows[tree]],
    )


def placed(codes: Sequence[int]) -> list[tuple[int, Splits]]:
    """Of each node its tree, and the splits above it."""
    found: list[tuple[int, Splits]] = []
    tree = 0
    path: list[tuple[int, int]] = []
    for code in codes:
        found.append((tree, tuple(path)))
        if code >= 0:
            path.append((code, -1))
            continue
        while path and path[-1][1] > 0:
            path.pop()
        if path:
            path[-1] = (path[-1][0], 1)
        else:
            tree += 1
    return found


def spliced(
    arrays: Arrays, place: int, below: Arrays, where: Sequence[tuple[int, Splits]], rows: Sequence[int]
) -> Arrays:
    """The arrays with a subtree in the place of a node without children. ``where``: see :func:`placed`; ``rows``: how
    many each unsafe set has."""
    codes, slopes = arrays["tree"], summed(arrays["slopes"])
    if slopes.dtype != np.uint8:
        below = below | {"slopes": (below["slopes"] / 255).astype(slopes.dtype)}
    leaf = codes == -1
    deep, wide = (np.array(t) for t in zip(*((len(path), rows[tree]) for tree, path in where), strict=True))
    at, count = arrays["tighter/at"], arrays["tighter/rows"]
    first, block = int(leaf[:place].sum()), int(np.searchsorted(at, place, side="right"))
    after = first + int(leaf[place])

    def put(name: str, begin: int, end: int, old: Array | None = None) -> Array:
        whole = arrays[name] if old is None else old
        return np.concatenate([whole[:begin], below[name], whole[end:]])

    def of_leaves(each: Array) -> tuple[int, int]:
        sums = np.cumsum([0, *each[leaf]])
        return int(sums[first]), int(sums[after])

    mended = {
        "tree": put("tree", place, place + 1),
        "slopes": differences(put("slopes", first, after, slopes)),
        "multipliers": put("multipliers", *of_leaves(deep)),
        "weights": put("weights", *of_leaves(wide)),
        "tighter/rows": put("tighter/rows", block, block),
    }
    later = at[block:] + (len(below["tree"]) - 1)
    mended["tighter/at"] = np.concatenate([at[:block], below["tighter/at"] + place, later]).astype(at.dtype)
    one = np.ones_like(deep)
    for name, each in (("neurons", one), ("slopes", one), ("multipliers", deep), ("weights", wide)):
        begin = int((count * each[at])[:block].sum())
        mended[f"tighter/{name}"] = put(f"tighter/{name}", begin, begin)
    return mended
