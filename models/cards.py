"""Model cards: what a stored network is, how well it does, and the command that makes it again; JSON by the weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as decode_weights
from safetensors.torch import save as encode_weights
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from assay.models import architectures
from assay.verify.core.errors import InputError
from assay.verify.support.files import replace_file


@dataclass(frozen=True)
class Robustness:
    """Accuracies within linf balls of radius ``eps``: at most what the attack leaves standing (``pgd``), at least
    what interval and linear bounds in float64 prove (``ibp``, ``crown``)."""

    eps: float
    pgd: float
    ibp: float
    crown: float


@dataclass(frozen=True)
class Smoothed:
    """Certified accuracy of the smoothed classifier ``subject``: the shares ``certified`` of ``samples`` of the test
    split beyond the l2 ``radii``, each with n draws at confidence 1 - alpha, as ``command`` measures them."""

    subject: str
    n: int
    alpha: float
    samples: int
    radii: tuple[float, ...]
    certified: tuple[float, ...]
    command: str


@dataclass(frozen=True)
class Certified:
    """What a complete method proves within linf balls of radius ``eps``: shares of the first ``samples`` of the test
    split, right as they are and ``certified``, as ``command`` measures them."""

    method: str
    eps: float
    samples: int
    clean: float
    certified: float
    command: str


@dataclass(frozen=True)
class Card:
    """What is known of a stored network. ``clean_accuracy`` is a share of the ``samples`` of the test split.

    ``eps``: the linf radius that was trained for (0: none); ``robustness``: on the first ``robust_samples`` of the
    test split, ``attack`` being what its upper limits come from; ``selected_on``: what the training
    held out for choosing settings; ``sha256``: of the weights file; ``version``: of this package; ``smoothed``: for
    networks that are made for randomized smoothing; ``certified``: by methods that take too long for each training.
    """

    name: str
    architecture: str
    input_shape: tuple[int, ...]
    classes: int
    data: str
    recipe: str
    eps: float
    epochs: int
    seed: int
    command: str
    selected_on: str
    samples: int
    clean_accuracy: float
    robust_samples: int
    robustness: tuple[Robustness, ...]
    attack: str
    sha256: str
    version: str
    smoothed: tuple[Smoothed, ...] = ()
    certified: tuple[Certified, ...] = ()

    def to_json(self) -> str:
        """One JSON object, one field a line."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> Card:
        """The inverse of :meth:`to_json`; ``source`` names the text in errors.

        Raises :class:`InputError` for text that is not JSON, and for missing, unknown or mistyped keys.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"{source}:{error.lineno}:{error.colno}: the card is not JSON: {error.msg}") from None
        return cls(**_checked(data, cls, source))


Part = Robustness | Smoothed | Certified


def sha256(weights: bytes) -> str:
    """The checksum that cards carry."""
    return hashlib.sha256(weights).hexdigest()


def encode(model: nn.Module) -> bytes:
    """The weights as a .safetensors file: the same bytes for the same weights. Matrices and kernels whose values half
    precision holds exactly take half of the room; they are read as what they were."""
    return encode_weights({key: _shortest(value.detach()).contiguous() for key, value in model.state_dict().items()})


def _shortest(values: Tensor) -> Tensor:
    """The same values, in half precision where that loses nothing."""
    if values.dim() < 2 or values.dtype != torch.float32:
        return values
    half = values.half()
    return half if torch.equal(half.float(), values) else values


def save(folder: Path, card: Card, weights: bytes) -> tuple[Path, Path]:
    """Write ``NAME.safetensors`` and ``NAME.json``, each whole or not at all; returns both paths."""
    if card.sha256 != sha256(weights):
        raise InputError(f"the card of {card.name!r} belongs to other weights")
    paths = folder / f"{card.name}.safetensors", folder / f"{card.name}.json"
    for path, content in zip(paths, (weights, card.to_json().encode()), strict=True):
        replace_file(path, content)
    return paths


def read(path: Path) -> Card:
    """The card in a .json file. Raises :class:`InputError` naming the file if it cannot be read."""
    try:
        return Card.from_json(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise InputError(f"cannot read the card {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: the card is not UTF-8 text") from None


def load(path: Path) -> tuple[nn.Module, Card]:
    """The network of a .safetensors file, in eval mode, rebuilt from the card beside it and checked against it.

    Raises :class:`InputError` where a file is missing or damaged, or weights and card do not belong together.
    """
    weights = _content(path)
    beside = path.with_suffix(".json")
    if not beside.exists():
        raise InputError(f"{path} has no card: expected {beside}, as `assay train` writes it")
    card = read(beside)
    if (digest := sha256(weights)) != card.sha256:
        raise InputError(f"{path}: expected sha256 {card.sha256[:16]}... as in its card, got {digest[:16]}...")
    state = _decoded(weights, path)
    with torch.random.fork_rng(devices=[]):  # building draws initial weights, which are about to be replaced
        model = architectures.parse(card.architecture).build(card.input_shape, card.classes)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} does not fit its card's architecture {card.architecture}: {reason}") from None
    return model.eval(), card


def fill(model: nn.Module, path: Path, what: str) -> None:
    """Put the tensors of the .safetensors file ``path`` in place of those of ``model``, called ``what``, all of them.

    Tensors that the model uses in several places need be in the file once. Raises :class:`InputError` where names,
    shapes or precisions differ, or the file is missing or damaged; ``model`` is then as it was.
    """
    given, wanted = _decoded(_content(path), path), model.state_dict()
    places: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        places.setdefault(id(tensor), []).append(name)
    for names in places.values():
        if there := next((name for name in names if name in given), ""):
            given.update({name: given[there] for name in names if name not in given})
    if wrong := _differences(given, wanted):
        raise InputError(f"{path} does not fit {what}: {'; '.join(wrong)}")
    model.load_state_dict(given)


def _differences(given: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """What a file lacks, has beside, and has otherwise than the model; the first few names of each."""
    both = [name for name in wanted if name in given]
    kinds = [
        ("missing", [name for name in wanted if name not in given]),
        ("unexpected", [name for name in given if name not in wanted]),
        (
            "of another shape",
            [
                f"{name} (expected {tuple(wanted[name].shape)}, got {tuple(given[name].shape)})"
                for name in both
                if not is_lazy(wanted[name]) and given[name].shape != wanted[name].shape
            ],
        ),
        (
            "of a precision that the model would round",
            [
                f"{name} (expected {wanted[name].dtype}, got {given[name].dtype})"
                for name in both
                if torch.promote_types(given[name].dtype, wanted[name].dtype) != wanted[name].dtype
            ],
        ),
    ]
    return [
        f"{kind}: {', '.join(sorted(names)[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for kind, names in kinds
        if names
    ]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the weights {path}: {error.strerror}") from None


def _decoded(content: bytes, path: Path) -> dict[str, Tensor]:
    try:
        return decode_weights(content)
    except SafetensorError as error:
        raise InputError(f"{path} is not a .safetensors file: {error}") from None


def _checked(data: Any, cls: type[Card] | type[Part], source: str) -> dict[str, Any]:
    """The fields of ``cls``, each of its type, from a JSON object with exactly these keys; those that have a default
    may be missing."""
    if not isinstance(data, dict):
        raise InputError(f"{source}: expected a {cls.__name__.lower()} (a JSON object), got {type(data).__name__}")
    known = {f.name: str(f.type) for f in fields(cls)}
    optional = {f.name for f in fields(cls) if f.default is not MISSING}
    if missing := sorted(known.keys() - data.keys() - optional):
        raise InputError(f"{source}: the card lacks {', '.join(missing)}")
    if unknown := sorted(data.keys() - known.keys()):
        raise InputError(f"{source}: the card has keys that this version does not know: {', '.join(unknown)}")
    return {key: _typed(data[key], known[key], f"{source}: {key}") for key in known if key in data}


def _typed(value: Any, hint: str, what: str) -> Any:
    """``value`` as a field of the annotated type; whole numbers are accepted as floats, a bool for no number."""
    parts: dict[str, type[Part]] = {f"tuple[{part.__name__}, ...]": part for part in (Robustness, Smoothed, Certified)}
    if hint in parts:
        if not isinstance(value, list):
            raise InputError(f"{what}: expected a list, got {value!r}")
        return tuple(parts[hint](**_checked(item, parts[hint], what)) for item in value)
    if hint == "tuple[float, ...]":
        if not isinstance(value, list):
            raise InputError(f"{what}: expected a list, got {value!r}")
        return tuple(_typed(item, "float", what) for item in value)
    if hint == "tuple[int, ...]":
        if not isinstance(value, list) or not all(type(item) is int and item > 0 for item in value):
            raise InputError(f"{what}: expected a list of positive whole numbers, got {value!r}")
        return tuple(value)
    if hint == "float" and type(value) in (int, float):
        return float(value)
    if type(value).__name__ != hint:
        raise InputError(f"{what}: expected {hint}, got {value!r}")
    return value
