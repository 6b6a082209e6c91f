"""Who takes part in a comparison: methods, and attacks, which are asked as methods are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from assay.attacks.common.interface import Attack
from assay.benchmarks.harness.bracket import Role
from assay.verify.core.errors import InputError
from assay.verify.core.result import NETWORK, Guarantee
from assay.verify.core.verifier import OtherSubject, Verifier
from assay.verify.solving.cells import Cells
from assay.verify.solving.falsifier import Falsifier
from assay.verify.support.options import title


@dataclass(frozen=True)
class Participant:
    """A method, or an attack that is asked as one, with its role, the name of its rows, and what it speaks of."""

    role: Role
    name: str
    key: str
    verifier: Verifier
    subject: str = NETWORK


def by_cells(methods: Sequence[Verifier]) -> list[Verifier]:
    """Methods for perturbations: those that bound the network are asked cell by cell of the parameters."""
    return [
        method
        if isinstance(method, Cells | OtherSubject) or method.guarantee is Guarantee.EMPIRICAL
        else Cells(title(method))
        for method in methods
    ]


def participants_of(methods: Sequence[Verifier], attacks: Sequence[Attack]) -> list[Participant]:
    """The attacks, then the methods. Raises :class:`InputError` for one that is given twice, and for what is none."""
    for given in (methods, attacks):
        if not isinstance(given, Sequence):
            raise InputError(f"expected a list of methods and one of attacks, got {given!r}: put it in brackets")
    if text := next((one for one in (*methods, *attacks) if isinstance(one, str)), ""):
        raise InputError(
            f"expected methods and attacks, got the text {text!r}: get_verifier or get_attack makes one of it"
        )
    everybody = [*_attackers(attacks), *_verifiers(methods)]
    if repeated := {p.name for p in everybody if sum(q.name == p.name for q in everybody) > 1}:
        raise InputError(f"{', '.join(sorted(repeated))} is given twice")
    return everybody


def _attackers(attacks: Sequence[Attack]) -> Iterator[Participant]:
    for attack in attacks:
        yield Participant(Role.ATTACK, title(attack), repr(attack), Falsifier(attack))


def _verifiers(methods: Sequence[Verifier]) -> Iterator[Participant]:
    for method in methods:
        role = Role.ATTACK if method.guarantee is Guarantee.EMPIRICAL else Role.METHOD
        subject = method.subject if isinstance(method, OtherSubject) else NETWORK
        yield Participant(role, title(method), repr(method), method, subject)
