"""The same figures measured here: each network that stands for published ones is compared at their radii."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from assay.benchmarks.harness.bracket import ALL_ATTACKS, ALL_METHODS, CLEAN, Role, Row
from assay.benchmarks.tables.published import Figure, Table
from assay.verify.core.result import NETWORK


@dataclass(frozen=True)
class Group:
    """The figures that one comparison is the measurement of: those of a ``model`` and the ``methods`` that certify."""

    model: str
    methods: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Line:
    """A published figure; beside it the network that stands for it, and what it does here: its clean accuracy, what
    methods certify at least and what attacks leave standing at most. Rows that nobody gave are None."""

    figure: Figure
    model: str = ""
    clean: Row | None = None
    certified: Row | None = None
    standing: Row | None = None


def groups(table: Table, data: str, own: Sequence[str] = ()) -> list[Group]:
    """What is to be compared on the ``data``: the networks that stand for figures, and the user's ``own`` ones, beside
    every radius of the table."""
    who: dict[tuple[str, str], list[Figure]] = {}
    for figure in table.figures:
        if data in figure.models:
            who.setdefault((figure.models[data], figure.methods or table.methods), []).append(figure)
    for model in own:
        who[model, table.methods] = [Figure(who=model, source="yours", eps=eps) for eps in table.radii]
    return [Group(model, methods, tuple(figures)) for (model, methods), figures in who.items()]


def lines(table: Table, asked: Sequence[Group], rows: Sequence[Sequence[Row]]) -> list[Line]:
    """Every figure of the table, in its order, then those of the user's own networks; where a network stands for it
    with what the ``rows`` of its group's comparison say."""
    found = {
        id(figure): _measured(figure, group.model, said)
        for group, said in zip(asked, rows, strict=True)
        for figure in group.figures
    }
    own = [figure for group in asked for figure in group.figures if figure not in table.figures]
    return [found.get(id(figure), Line(figure)) for figure in (*table.figures, *own)]


def _measured(figure: Figure, model: str, rows: Sequence[Row]) -> Line:
    """What the rows say at the figure's radius of the classifier that is certified: the network, or a smoothed one."""
    here = [row for row in rows if row.eps == figure.eps and not row.refusal]
    certified = _best([row for row in here if row.role is Role.METHOD], ALL_METHODS, max)
    subject = NETWORK if certified is None else certified.subject
    clean = next((row for row in rows if row.key == CLEAN and row.subject == subject), None)
    attacks = [row for row in here if row.role is Role.ATTACK and row.subject == subject and row.key != CLEAN]
    return Line(figure, model, clean, certified, _best(attacks, ALL_ATTACKS, min))


def _best(rows: Sequence[Row], jaw: str, choose: Callable[..., Row]) -> Row | None:
    """The network's jaw where anybody spoke of the network, else the best of those who spoke of another classifier."""
    asked = [row for row in rows if row.name != jaw]
    if not asked:
        return None
    if any(row.subject == NETWORK for row in asked):
        return next((row for row in rows if row.name == jaw), None)
    return choose(asked, key=lambda row: row.accuracy)


def entry(line: Line) -> dict[str, Any]:
    """A line as plain data, the same keys for every one: published shares as fractions of 1 like measured ones, each
    measured share with the ends of its exact 95% interval."""
    published = {
        key: None if value is None else round(value / 100, 6)
        for key, value in (("clean", line.figure.clean), ("certified", line.figure.certified))
    }
    measured: dict[str, Any] = {}
    for key, row in (("clean", line.clean), ("certified", line.certified), ("standing", line.standing)):
        ends = (None, None, None) if row is None else (row.accuracy, *row.interval)
        measured |= dict(zip((f"{key} here", f"{key} from", f"{key} to"), ends, strict=True))
    return {
        "who": line.figure.who,
        "source": line.figure.source,
        "eps": line.figure.eps,
        **published,
        "model": line.model or None,
        "n": None if line.clean is None else line.clean.n,
        **measured,
    }
