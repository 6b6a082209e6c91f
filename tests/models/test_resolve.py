"""Resolve: the forms that a model can be named in, and every way in which they fail."""

from __future__ import annotations

import copy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from assay.models import cards, zoo
from assay.models.resolve import resolve
from assay.verify.core.errors import InputError
from assay.verify.core.network import Network, to_network
from assay.verify.frontends.onnx import write_onnx

CODE = """
from torch import nn

import beside_{stem}

not_callable = 3
constant = nn.Linear(3, 2).eval()

def good():
    return nn.Linear(beside_{stem}.WIDTH, 2).eval()

def training():
    return nn.Linear(3, 2)

def partly_training():
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout()).eval()
    model[1].train()
    return model

def number():
    return 5

def failing():
    return 1 / 0

def leaving():
    raise SystemExit(3)
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A user's file with factories, and a module beside it that it imports; of names no other test uses."""
    stem = tmp_path.name.replace("-", "_")
    (tmp_path / f"beside_{stem}.py").write_text("WIDTH = 3\n")
    path = tmp_path / f"nets_{stem}.py"
    path.write_text(CODE.format(stem=stem))
    return path


def test_a_zoo_name() -> None:
    loaded = resolve("zoo:digits-mlp-pgd")
    assert loaded.name == "zoo:digits-mlp-pgd"
    assert loaded.card == zoo.card("digits-mlp-pgd")
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(loaded.module(x), zoo.load("digits-mlp-pgd")(x))


def test_a_safetensors_file_with_its_card(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".json"):
        shutil.copy(zoo.FOLDER / f"digits-mlp-pgd{suffix}", tmp_path / f"mine{suffix}")
    loaded = resolve(str(tmp_path / "mine.safetensors"))
    assert loaded.card == zoo.card("digits-mlp-pgd")
    assert not loaded.module.training


def test_an_onnx_file(tmp_path: Path) -> None:
    network = to_network(zoo.load("digits-mlp-pgd"), (1, 8, 8))
    path = tmp_path / "mine.onnx"
    write_onnx(network, path)
    loaded = resolve(str(path))
    assert isinstance(loaded.module, Network)
    assert (loaded.name, loaded.card) == (str(path), None)
    assert loaded.module.id == network.id


def test_a_factory_in_a_file(code: Path) -> None:
    before = list(sys.path)
    loaded = resolve(f"{code}:good")
    assert isinstance(loaded.module, nn.Linear)
    assert loaded.module.in_features == 3
    assert loaded.card is None
    assert sys.path == before


def test_a_factory_in_a_module_of_the_current_folder(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(code.parent)
    before = list(sys.path)
    assert isinstance(resolve(f"{code.stem}:good").module, nn.Linear)
    assert sys.path == before


def test_a_folder_called_models_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = "import torch\n\ndef mine():\n    return torch.nn.Linear(2, 2).eval()\n"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("")
    (tmp_path / "models" / "resnet.py").write_text(own)
    (tmp_path / "net.py").write_text("from models.resnet import mine\n")
    monkeypatch.chdir(tmp_path)
    for name in [n for n in sys.modules if n.split(".")[0] == "models"]:
        monkeypatch.delitem(sys.modules, name)
    assert resolve("zoo:digits-mlp-pgd").card is not None
    assert isinstance(resolve("net.py:mine").module, nn.Linear)
    assert isinstance(resolve("models.resnet:mine").module, nn.Linear)


def test_a_factory_of_a_package_imports_what_lies_beside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stem = tmp_path.name.replace("-", "_")
    (tmp_path / f"package_{stem}").mkdir()
    make = f"def make():\n    from beside_{stem} import WIDTH\n    return nn.Linear(WIDTH, 2).eval()\n"
    (tmp_path / f"package_{stem}" / "__init__.py").write_text("from torch import nn\n\n" + make)
    (tmp_path / f"beside_{stem}.py").write_text("WIDTH = 3\n")
    monkeypatch.chdir(tmp_path)
    assert isinstance(resolve(f"package_{stem}:make").module, nn.Linear)


WEIGHTS = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}


def test_a_factory_with_a_file_of_weights(code: Path) -> None:
    path = code.parent / "trained.safetensors"
    save_file(WEIGHTS, path)
    loaded = resolve(f"{code}:good", path)
    assert isinstance(loaded.module, nn.Module)
    state = loaded.module.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in WEIGHTS.items())


def test_tensors_used_in_several_places_are_in_the_file_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    other = copy.deepcopy(model)
    save_file({k: v for k, v in other.state_dict().items() if k != "0.weight"}, tmp_path / "tied.safetensors")
    with torch.no_grad():
        model[0].weight.zero_()
    cards.fill(model, tmp_path / "tied.safetensors", "it")
    assert torch.equal(model[0].weight, other[0].weight)
    assert model[1].weight is model[0].weight


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bias": None}, "missing: bias$"),
        ({"scale": torch.ones(1)}, "unexpected: scale$"),
        ({"weight": torch.ones(3, 2)}, r"of another shape: weight \(expected \(2, 3\), got \(3, 2\)\)"),
        ({"bias": torch.ones(2).double()}, r"would round: bias \(expected torch.float32, got torch.float64\)"),
        ({"bias": None, "scale": torch.ones(1)}, "missing: bias; unexpected: scale"),
    ],
)
def test_weights_that_do_not_fit_are_told(code: Path, changed: dict[str, Tensor | None], message: str) -> None:
    path = code.parent / "other.safetensors"
    save_file({name: tensor for name, tensor in (WEIGHTS | changed).items() if tensor is not None}, path)
    with pytest.raises(InputError, match=message):
        resolve(f"{code}:good", path)


@pytest.mark.parametrize(
    ("text", "weights", "message"),
    [
        ("zoo:digits-mlp-pgd", "w.safetensors", "has weights of its own"),
        ("net.onnx", "w.safetensors", "has weights of its own"),
        ("net.safetensors", "w.safetensors", "has weights of its own"),
        ("CODE", "w.pth", r"expected a \.safetensors file of weights, got .*w\.pth: save the weights with"),
        ("CODE", "none.safetensors", "cannot read the weights .*none.safetensors"),
        ("CODE", "damaged.safetensors", r"is not a \.safetensors file"),
    ],
)
def test_what_is_no_file_of_weights(code: Path, text: str, weights: str, message: str) -> None:
    (code.parent / "damaged.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=message):
        resolve(f"{code}:good" if text == "CODE" else text, code.parent / weights)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("missing", "has no factory 'missing'"),
        ("not_callable", "is of type int: expected a function without arguments"),
        ("constant", r"failed: TypeError"),
        ("training", r"in train mode: call \.eval\(\)"),
        ("partly_training", r"in train mode: call \.eval\(\)"),
        ("number", r"number returned int: expected a torch\.nn\.Module"),
        ("failing", "failing failed: ZeroDivisionError: division by zero"),
        ("leaving", "leaving failed: SystemExit: 3"),
    ],
)
def test_factories_that_give_no_model(code: Path, factory: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(f"{code}:{factory}")


def test_a_file_that_fails_is_named_with_its_error(tmp_path: Path) -> None:
    path = tmp_path / "broken_file.py"
    path.write_text("def f(:\n")
    with pytest.raises(InputError, match=r"broken_file\.py failed: SyntaxError"):
        resolve(f"{path}:f")
    assert not any(name.startswith("assay_model_broken_file") for name in sys.modules)


def test_a_module_whose_own_import_fails_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imports_nothing.py").write_text("import no_such_module_at_all\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"imports_nothing failed: ModuleNotFoundError.*no_such_module_at_all"):
        resolve("imports_nothing:f")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zoo:nothing", "unknown zoo model 'nothing'"),
        ("digits-mlp-pgd", "did you mean zoo:digits-mlp-pgd"),
        ("nothing", "expected zoo:NAME, file.onnx, file.safetensors"),
        ("", "expected zoo:NAME"),
        ("module:", "expected zoo:NAME"),
        (":factory", "expected zoo:NAME"),
        ("none.onnx", "there is no file none.onnx"),
        ("none.onnx.gz", "there is no file none.onnx.gz"),
        ("none.safetensors", "cannot read the weights none.safetensors"),
        ("none/none.py:factory", "there is no file none/none.py"),
        ("no_such_package.part:factory", "there is no module 'no_such_package'"),
        ("model.pt", "refused; save the weights with safetensors"),
        ("model.PTH", "refused; save the weights with safetensors"),
    ],
)
def test_texts_that_name_no_model(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(text)


def test_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    made = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(
            "import torch\nclass Own(torch.nn.Linear): pass\ndef make():\n    return Own(2, 2).eval()\n"
        )
        made.append(resolve(f"{tmp_path / folder / 'net.py'}:make").module)
    first, second = (sys.modules[type(module).__module__] for module in made)
    assert first is not second
    assert (first.Own, second.Own) == tuple(map(type, made))
