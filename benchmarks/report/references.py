"""Whom to cite: the entries in BibTeX of methods and attacks, which name in ``keywords`` those that stand on them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.resources import files

from assay.attacks import list_attacks
from assay.verify.core.errors import unknown_name
from assay.verify.registry import list_verifiers

BESIDE = ("assay.verify", "assay.attacks")  # each has its references.bib
KEYWORDS = re.compile(r"^  keywords = \{(.*)\},\n", re.MULTILINE)


def entries() -> Iterator[tuple[str, frozenset[str]]]:
    """Every entry, without its keywords, and these."""
    for package in BESIDE:
        text = files(package).joinpath("references.bib").read_text(encoding="utf-8")
        for entry in text.strip().split("\n\n"):
            found = KEYWORDS.search(entry)
            names = found[1].split(", ") if found else []
            yield KEYWORDS.sub("", entry), frozenset(names)


def of(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The entries of these methods and attacks, options left out, each once; and the names that nobody published.

    Raises :class:`InputError` for a name that is none.
    """
    wanted = list(dict.fromkeys(name.partition("(")[0].strip() for name in names))
    known = {*list_verifiers(), *list_attacks()}
    for name in wanted:
        if name not in known and ":" not in name:  # another library's attack
            raise unknown_name("method or attack", name, sorted(known))
    every = list(entries())
    cited = [entry for entry, of_whom in every if of_whom & set(wanted)]
    return cited, [name for name in wanted if not any(name in of_whom for _, of_whom in every)]
