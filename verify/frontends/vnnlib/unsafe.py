"""Comparisons of outputs as the unsafe set: an OR of polyhedra."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import chain

import torch

from assay.verify.core.spec import Polyhedron, Spec
from assay.verify.frontends.vnnlib.boxes import Ends
from assay.verify.frontends.vnnlib.formula import Row
from assay.verify.frontends.vnnlib.rounding import half_space

Rows = tuple[Row, ...]
Direction = tuple[tuple[int, Fraction], ...]


def contradiction(rows: Rows, name: Callable[[int], str]) -> str | None:
    """Why nothing satisfies all of ``rows``, where two bounds of one direction leave no number between them; ``name``:
    of what is at a position."""
    ends: Ends[Direction] = Ends()
    for row in rows:
        lead = row.terms[0][1]
        direction = tuple((position, coefficient / lead) for position, coefficient in row.terms)
        ends.tighten(direction, row.limit / lead, lead > 0, row.strict)
    empty = ends.empty()
    if empty is None:
        return None
    return f"the bounds of {', '.join(name(position) for position, _ in empty)} contradict each other"


def unsafe_set(disjuncts: Iterable[Rows], outputs: int) -> tuple[Spec, int]:
    """One polyhedron for each of ``disjuncts``, and how many rows have coefficients that had to be rounded.

    What is the same in float64 is kept once. A disjunct without rows is all of the output space: the others add
    nothing to it.
    """
    parts = list(dict.fromkeys(tuple(dict.fromkeys(map(half_space, rows))) for rows in disjuncts))
    if () in parts:
        parts = [()]
    spaces = list(chain.from_iterable(parts))
    A = torch.zeros(len(spaces), outputs, dtype=torch.float64)
    for row, space in zip(A, spaces, strict=True):
        row[list(space.positions)] = torch.tensor(space.coefficients, dtype=torch.float64)
    b = torch.tensor([space.limit for space in spaces], dtype=torch.float64)
    strict = torch.tensor([space.strict for space in spaces], dtype=torch.bool)
    split = (torch.split(tensor, list(map(len, parts))) for tensor in (A, b, strict))
    spec = Spec(tuple(Polyhedron(*tensors) for tensors in zip(*split, strict=True)))
    return spec, sum(not space.exact for space in spaces)
