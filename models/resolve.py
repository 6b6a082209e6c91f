"""Models by the name that the user gives: a zoo network, an ONNX or .safetensors file, or a factory in Python code."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import nn

from assay.models import cards, zoo
from assay.models.cards import Card
from assay.verify.core.errors import AssayError, InputError
from assay.verify.core.network import Network
from assay.verify.frontends.onnx import read_onnx
from assay.verify.frontends.source import refuse_package
from assay.verify.frontends.whole import runnable

FORMS = "zoo:NAME, file.onnx, file.safetensors with its card beside it, path/file.py:factory, or module:factory"
SAVE = "save the weights with safetensors.torch.save_file"
PICKLES = (".pt", ".pth", ".pkl", ".ckpt", ".bin")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A module in eval mode, or the network of an ONNX file; the text that named it, its card where it has one."""

    name: str
    module: nn.Module | Network
    card: Card | None = None


def resolve(text: str, weights: str | Path | None = None, whole: bool = False) -> LoadedModel:
    """The model that ``text`` names, in one of the five forms.

    A factory is a function without arguments that returns a ``torch.nn.Module`` in eval mode. Its code runs: name
    only files that you trust. ``weights``: a .safetensors file with all the tensors of the factory's model, which take
    the place of those that it made. ``whole``: an ONNX file may hold what is not read, for who only runs it. Raises
    :class:`InputError` for whatever cannot be loaded, and what :func:`assay.verify.frontends.onnx.read_onnx` raises.
    """
    left, colon, right = text.rpartition(":")
    suffix = Path(text).suffix.lower()
    own = (colon and left == "zoo") or suffix == ".safetensors" or text.lower().endswith((".onnx", ".onnx.gz"))
    if weights is not None and own:
        raise InputError(f"{text} has weights of its own: a weights file goes with path/file.py:factory")
    if weights is not None and Path(weights).suffix.lower() != ".safetensors":
        raise InputError(f"expected a .safetensors file of weights, got {weights}: {SAVE}")
    if colon and left == "zoo":
        return LoadedModel(text, zoo.load(right), zoo.card(right))
    if suffix == ".safetensors":
        module, card = cards.load(Path(text))
        return LoadedModel(text, module, card)
    if own:
        return LoadedModel(text, runnable(Path(text)) if whole else read_onnx(text))
    refuse_package(Path(text))
    if suffix in PICKLES:
        raise InputError(
            f"{text}: {suffix} files can run code when they are loaded and are refused; {SAVE}, or pass "
            "path/file.py:factory"
        )
    if colon and left and right:
        path = Path(left) if left.endswith(".py") else None
        folder = path.resolve().parent if path else Path.cwd()
        made = _made(_file(path, folder) if path else _module(left, folder), right, left, folder)
        if weights is not None:
            cards.fill(made, Path(weights), f"the model of {text}")
        return LoadedModel(text, made)
    if text in zoo.names():
        raise InputError(f"unknown model {text!r}; did you mean zoo:{text}?")
    raise InputError(f"unknown model {text!r}: expected {FORMS}")


def _file(path: Path, folder: Path) -> ModuleType:
    """A Python file in ``folder`` as a module; files beside it can be imported by it."""
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    own = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]  # files of one name in two folders are two
    name = f"assay_model_{path.stem}_{own}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look modules up by name
    try:
        with _importable(folder), _blamed_on(str(path)):
            spec.loader.exec_module(module)
    except InputError:
        del sys.modules[name]
        raise
    return module


def _module(name: str, folder: Path) -> ModuleType:
    """A module in ``folder``, or an installed one."""
    with _importable(folder):
        try:
            with _blamed_on(name):
                return importlib.import_module(name)
        except InputError as error:
            cause = error.__cause__
            if isinstance(cause, ModuleNotFoundError) and cause.name and f"{name}.".startswith(f"{cause.name}."):
                raise InputError(f"there is no module {cause.name!r} (for a model: {FORMS})") from None
            raise


def _made(source: ModuleType, factory: str, where: str, folder: Path) -> nn.Module:
    """What the factory returns, if it is a module in eval mode; it can import what ``source`` can."""
    make = getattr(source, factory, None)
    if make is None:
        raise InputError(f"{where} ({source.__file__}) has no factory {factory!r}")
    if not callable(make):
        raise InputError(f"{where}:{factory} is of type {type(make).__name__}: expected a function without arguments")
    with _importable(folder), _blamed_on(f"{where}:{factory}"):
        model = make()
    if not isinstance(model, nn.Module):
        raise InputError(f"{where}:{factory} returned {type(model).__name__}: expected a torch.nn.Module")
    if any(part.training for part in model.modules()):
        raise InputError(
            f"{where}:{factory} returned a module in train mode: call .eval() on it, so that Dropout and BatchNorm "
            "do what they do in use"
        )
    return model


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Make the folder's modules importable, first in order, as they are when Python runs a file of this folder."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextmanager
def _blamed_on(what: str) -> Iterator[None]:
    """Any failure of the user's code as one clear line."""
    try:
        yield
    except AssayError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{what} failed: {type(error).__name__}: {error}") from error
