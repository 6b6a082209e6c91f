"""``assay methods`` and ``assay models``: what is there, for people and for programs."""

import json

import pytest

from assay.__main__ import main
from assay.attacks import list_attacks
from assay.commands import methods as command
from assay.models import zoo
from assay.verify import list_verifiers, registry


def document(capsys, *arguments):
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_methods_lists_everything_with_options_and_defaults(capsys):
    listed = document(capsys, "methods")
    assert [entry["name"] for entry in listed["methods"]] == list_verifiers()
    assert [entry["name"] for entry in listed["attacks"]] == list_attacks()
    for entry in [*listed["methods"], *listed["attacks"]]:
        assert entry["doc"]
        assert "error" not in entry
    (pgd,) = (entry for entry in listed["attacks"] if entry["name"] == "pgd")
    assert {"steps", "restarts"} <= {option["name"] for option in pgd["options"]}
    (crown,) = (entry for entry in listed["methods"] if entry["name"] == "crown")
    assert (crown["complete"], crown["guarantee"]) == (False, "numerical")


def test_methods_lists_those_that_are_named(capsys):
    listed = document(capsys, "methods", "pgd", "crown")
    assert {kind: [entry["name"] for entry in entries] for kind, entries in listed.items()} == {
        "methods": ["crown"],
        "attacks": ["pgd"],
    }
    assert main(["methods", "crown"]) == 0
    assert not {"ibp", "pgd", "torch"} & {*capsys.readouterr().out.split()}
    assert main(["methods", "crwn"]) == 40
    assert "did you mean 'crown'?" in capsys.readouterr().err


def test_packages_are_probed_and_the_missing_have_their_command(capsys, monkeypatch):
    missing = {"auto_LiRPA"}
    real = command.package_version
    monkeypatch.setattr(command, "package_version", lambda name: None if name in missing else real(name))
    packages = {entry["name"]: entry for entry in document(capsys, "methods")["packages"]}
    assert set(packages) == set(command.PACKAGES)
    assert packages["torch"]["version"].startswith("2.")
    assert packages["auto_LiRPA"]["version"] is None
    assert main(["methods"]) == 0
    assert "missing: pip install --no-deps auto_LiRPA==0.3" in capsys.readouterr().out


def test_a_method_that_cannot_be_loaded_is_listed_with_the_reason(capsys, monkeypatch):
    monkeypatch.setitem(registry.VERIFIERS, "third", "no_such_module:Third")
    (third,) = (entry for entry in document(capsys, "methods")["methods"] if entry["name"] == "third")
    assert "no_such_module" in third["error"]
    assert main(["methods"]) == 0
    assert "cannot be loaded" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["fgsm", "pgd", "ibp", "crown", "torch", "highspy"])
def test_methods_for_people(capsys, name):
    assert main(["methods"]) == 0
    assert name in capsys.readouterr().out


def test_models_are_the_zoo(capsys):
    listed = document(capsys, "models")["models"]
    assert [entry["model"] for entry in listed] == [f"zoo:{name}" for name in zoo.names()]
    for entry in listed:
        assert {"architecture", "data", "recipe", "clean_accuracy", "command"} <= entry.keys()
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in zoo.names())
