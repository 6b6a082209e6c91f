"""Every method and attack is a class of ``assay``, for the interpreter and for editors, and costs nothing unused."""

import ast
import inspect
import subprocess
import sys

import pytest

import assay
from assay.attacks.registry import ATTACKS, get_attack
from assay.verify.registry import VERIFIERS, get_verifier

CLASSES = {home.partition(":")[2]: home.partition(":")[0] for home in [*VERIFIERS.values(), *ATTACKS.values()]}


def declared():
    """What a type checker sees: the imports under TYPE_CHECKING."""
    tree = ast.parse(inspect.getsource(assay))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    found = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname: node.module for node in found for alias in node.names}


def test_the_registries_and_what_editors_see_are_one():
    assert CLASSES.items() <= declared().items()
    assert set(declared()) | {"__version__"} == set(assay.__all__)
    assert set(assay.__all__) - {"__version__"} == set(dir(assay))


@pytest.mark.parametrize("name", ["CROWN", "MILP", "Auto", "PGD", "AutoAttack"])
def test_a_name_is_the_class(name):
    made = getattr(assay, name)
    assert made.__module__ == CLASSES[name]
    by_text = get_attack(made.name) if made.name in ATTACKS else get_verifier(made.name)
    assert repr(made()) == repr(by_text)


def test_options_are_fields():
    assert repr(assay.CROWN(dtype="float32")) == repr(get_verifier("crown(dtype=float32)"))


def test_names_cost_nothing_before_their_use():
    code = "import sys, assay; dir(assay); assert not {'torch', 'scipy', 'assay.verify.registry'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
