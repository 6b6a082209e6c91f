"""Other libraries' attacks, called for side-by-side measurements: each gives points (batch x shape)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

Peer = Callable[[Any], Any]


def foolbox(attack: str, options: dict[str, Any], radius: bool = True) -> Peer:
    """One of foolbox's attacks with its ``options``; without ``radius`` the minimal-norm kind."""

    def call(given: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            box = import_module("foolbox")
            model = box.PyTorchModel(given.model, bounds=(0, 1), device="cpu")
            made = getattr(box.attacks, attack)(**options)
            return made(model, given.x, given.labels, epsilons=given.eps if radius else None)[1]

    return call


def torchattacks(attack: str, options: dict[str, Any]) -> Peer:
    """One of torchattacks' attacks with its ``options``."""

    def call(given: Any) -> Any:
        made = getattr(import_module("torchattacks"), attack)(given.model, eps=given.eps, **options)
        return made(given.x, given.labels)

    return call


def reference(*components: str) -> Peer:
    """The reference implementation of AutoAttack, all of it or some components."""

    def call(given: Any) -> Any:
        made = import_module("autoattack").AutoAttack(
            given.model, norm="Linf", eps=given.eps, version="standard", device="cpu", verbose=False
        )
        made.attacks_to_run = list(components) or made.attacks_to_run
        return made.run_standard_evaluation(given.x, given.labels, bs=len(given.x))

    return call


# Options that make the peers' attacks the same as ours with their defaults.
PEERS: dict[str, dict[str, Peer]] = {
    "foolbox": {
        "pgd": foolbox("LinfPGD", {"steps": 40, "rel_stepsize": 0.1}),
        "cw": foolbox("L2CarliniWagnerAttack", {}, radius=False),
        "ddn": foolbox("DDNAttack", {"steps": 100}, radius=False),
        "fmn": foolbox("L2FMNAttack", {"steps": 100}, radius=False),
    },
    "torchattacks": {"pgd": torchattacks("PGD", {"steps": 40}), "apgd-ce": torchattacks("APGD", {"steps": 100})},
    "autoattack": {
        "apgd-ce": reference("apgd-ce"),
        "apgd-t": reference("apgd-t"),
        "fab": reference("fab"),
        "square": reference("square"),
        "autoattack": reference(),
    },
}
