"""The table of methods: names to classes that are imported on first use, and third parties' entry points."""

from __future__ import annotations

from typing import cast

from assay.verify.core.errors import InputError
from assay.verify.core.verifier import Bounder, Verifier
from assay.verify.support import options

VERIFIERS = {
    "alpha-crown": "assay.verify.backends.alpha_crown:AlphaCROWN",
    "attack": "assay.verify.solving.falsifier:AttackVerifier",
    "auto": "assay.verify.solving.auto:Auto",
    "bab": "assay.verify.backends.bab.neurons.bab:BaB",
    "cells": "assay.verify.solving.cells:Cells",
    "crown": "assay.verify.backends.crown:CROWN",
    "crown-ibp": "assay.verify.backends.crown_ibp:CROWNIBP",
    "ibp": "assay.verify.backends.ibp:IBP",
    "derandomized-attack": "assay.verify.solving.votes_attack:DerandomizedAttack",
    "derandomized": "assay.verify.backends.smoothing.derandomized:Derandomized",
    "input-split": "assay.verify.backends.bab.inputs.input_split:InputSplit",
    "layer-smoothing": "assay.verify.backends.smoothing.layer:LayerSmoothing",
    "layer-smoothing-attack": "assay.verify.backends.smoothing.layer_attack:LayerSmoothingAttack",
    "lipschitz": "assay.verify.backends.lipschitz.method:Lipschitz",
    "lipsdp": "assay.verify.backends.lipschitz.sdp.method:LipSDP",
    "lirpa": "assay.verify.backends.lirpa.method:LiRPA",
    "lp": "assay.verify.backends.lp:LP",
    "lp-bab": "assay.verify.backends.bab.programs.lp_bab:LPBaB",
    "milp": "assay.verify.backends.milp:MILP",
    "pieces": "assay.verify.solving.pieces:Pieces",
    "smoothing": "assay.verify.backends.smoothing.method:Smoothing",
    "smoothing-attack": "assay.verify.backends.smoothing.attack:SmoothingAttack",
    "sdp": "assay.verify.backends.lipschitz.sdp.method:SDP",
    "smt": "assay.verify.backends.smt.method:SMT",
}

ENTRY_POINTS = "assay.verifiers"


def table() -> dict[str, str]:
    """Every known method, name -> "module:Class"; a third party's name never hides one of ours."""
    return options.known(VERIFIERS, ENTRY_POINTS)


def list_verifiers() -> list[str]:
    """The names that :func:`get_verifier` knows."""
    return sorted(table())


def get_verifier(text: str) -> Verifier:
    """The method written as ``name`` or ``name(option=value,...)``.

    Raises :class:`InputError` for an unknown name or option, a value of the wrong type, or a third party's method that
    cannot be imported or is none.
    """
    parts = ("name", "complete", "guarantee", "supports", "verify")
    return cast("Verifier", options.make("method", text, VERIFIERS, ENTRY_POINTS, "a Verifier", parts))


def get_bounder(text: str) -> Bounder:
    """The method written as ``name`` or ``name(option=value,...)``, as one that bounds objectives.

    Raises :class:`InputError` as :func:`get_verifier` does, and for a method that gives no bounds.
    """
    bounder = options.make("method", text, VERIFIERS, ENTRY_POINTS, "a Bounder", ("name",))
    if not isinstance(bounder, Bounder):
        raise InputError(f"method {text!r} gives verdicts, not bounds")
    return bounder
