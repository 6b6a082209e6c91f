"""What a verifier says of a problem, in a form that survives JSON bit for bit."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from assay.verify.support import shown

# What results speak of unless they say otherwise.
NETWORK = "network"


class Verdict(StrEnum):
    """The answer."""

    VERIFIED = "verified"
    FALSIFIED = "falsified"
    UNKNOWN = "unknown"


class Reason(StrEnum):
    """Why an answer is UNKNOWN."""

    INCOMPLETE = "incomplete"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    UNSUPPORTED = "unsupported"
    NUMERICAL = "numerical"
    SOLVER = "solver"
    VACUOUS = "vacuous"


class Guarantee(StrEnum):
    """How much an answer may be trusted, from a checked proof down to a search that found nothing."""

    RIGOROUS = "rigorous"
    NUMERICAL = "numerical"
    STATISTICAL = "statistical"
    EMPIRICAL = "empirical"


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """A verdict with its evidence.

    ``margin``: a lower bound, over the region, of the distance to the unsafe set (min over disjuncts of max over
    rows of ``A y - b``), never above the true minimum; None if there is none. ``counterexample``: one input, no
    batch dimension, in the oracle's dtype. ``certificate``: plain data of the method's own. ``stats``: plain data.
    """

    problem_id: str
    verifier: str
    verdict: Verdict
    reason: Reason | None = None
    guarantee: Guarantee = Guarantee.NUMERICAL
    margin: float | None = None
    counterexample: Tensor | None = None
    certificate: dict[str, Any] | None = None
    confidence: float | None = None
    seconds: float = 0.0
    subject: str = NETWORK
    semantics: str = "real"
    stats: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.verdict is Verdict.UNKNOWN) != (self.reason is not None):
            raise ValueError("exactly the UNKNOWN results have a reason")
        if self.verdict is Verdict.FALSIFIED and self.counterexample is None:
            raise ValueError("a FALSIFIED result has a counterexample")

    def __repr__(self) -> str:
        return shown.line("Result", self.facts)

    def _repr_html_(self) -> str:
        return shown.table("Result", self.facts)

    @property
    def facts(self) -> dict[str, object]:
        """What people want to see of it."""
        answer = self.verdict.value if self.reason is None else f"{self.verdict.value} ({self.reason.value})"
        margin = {} if self.margin is None else {"margin": f"{self.margin:g}"}
        confidence = {} if self.confidence is None else {"confidence": f"{self.confidence:g}"}
        point = (
            {} if self.counterexample is None else {"counterexample": f"of shape {tuple(self.counterexample.shape)}"}
        )
        about = {} if self.subject == NETWORK else {"subject": self.subject}
        spent = {"seconds": f"{self.seconds:.3g}", "problem": self.problem_id[:8]}
        by = {"by": self.verifier, "guarantee": self.guarantee.value}
        return {"verdict": answer, **about, **margin, **confidence, **point, **by, **spent}

    def to_json(self) -> str:
        """One JSON object; floats whose bits matter are hexadecimal."""
        return json.dumps(
            {
                "problem_id": self.problem_id,
                "verifier": self.verifier,
                "verdict": self.verdict.value,
                "reason": self.reason and self.reason.value,
                "guarantee": self.guarantee.value,
                "margin": None if self.margin is None else float(self.margin).hex(),
                "counterexample": _encode(self.counterexample),
                "certificate": _encode(self.certificate),
                "confidence": None if self.confidence is None else float(self.confidence).hex(),
                "seconds": self.seconds,
                "subject": self.subject,
                "semantics": self.semantics,
                "stats": _encode(self.stats),
            },
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str) -> Result:
        """The inverse of :meth:`to_json`."""
        data = json.loads(text)
        return cls(
            problem_id=data["problem_id"],
            verifier=data["verifier"],
            verdict=Verdict(data["verdict"]),
            reason=Reason(data["reason"]) if data["reason"] else None,
            guarantee=Guarantee(data["guarantee"]),
            margin=None if data["margin"] is None else float.fromhex(data["margin"]),
            counterexample=_decode(data["counterexample"]),
            certificate=_decode(data["certificate"]),
            confidence=None if data["confidence"] is None else float.fromhex(data["confidence"]),
            seconds=data["seconds"],
            subject=data["subject"],
            semantics=data["semantics"],
            stats=_decode(data["stats"]),
        )


def _encode(value: Any) -> Any:
    """Tensors and floats that JSON has no word for as tagged objects; the rest as it is."""
    if isinstance(value, Tensor):
        flat = value.detach().cpu().flatten()
        items = [v.hex() for v in flat.tolist()] if value.is_floating_point() else flat.tolist()
        return {"$tensor": items, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, float) and not isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, dict):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if "$tensor" in value:
            dtype = getattr(torch, value["dtype"])
            items = [float.fromhex(v) if isinstance(v, str) else v for v in value["$tensor"]]
            return torch.tensor(items, dtype=dtype).reshape(value["shape"])
        if "$float" in value:
            return float(value["$float"])
        return {key: _decode(item) for key, item in value.items()}
    return [_decode(item) for item in value] if isinstance(value, list) else value
