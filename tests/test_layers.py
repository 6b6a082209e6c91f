"""The floors: what each package may import, no cycles, nothing loaded before it is used, no stars, no ``**kwargs``."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("verify", "attacks", "models", "benchmarks", "assay")

CORE, BOUNDS, PROGRAMS = "verify.core", "verify.bounds", "verify.programs"
TOP = ("verify.registry", "verify.attack", "verify.pipeline", "verify.union", "verify.auto")

# Part of the tree -> the first-party parts that it may import beside itself. The longest prefix decides.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "verify.core": (),
    "verify.frontends": (CORE,),
    "verify.bounds": (CORE,),
    "verify.programs": (CORE, BOUNDS),
    "verify.check": (CORE,),
    "attacks": (CORE,),
    "verify.backends": (CORE, BOUNDS, PROGRAMS),
    "models": ("attacks", CORE, "verify.frontends", BOUNDS),
    **dict.fromkeys(TOP, ("verify", "attacks")),
    "verify": ("verify.core", *TOP),  # the lazy __init__ alone: other modules have an entry of their own
    "benchmarks": ("verify", "attacks", "models"),
    "assay": ("verify", "attacks", "models", "benchmarks"),
}

# What may be imported from outside, beside the standard library; where nothing is said, anything.
THIRD_PARTY: dict[str, tuple[str, ...]] = {
    "verify.core": ("torch",),
    "attacks": ("torch",),
    "verify.check": ("torch", "numpy"),
}

# Too heavy for ``import verify``; a user's own package called models must not be touched either.
HEAVY = ("cvxpy", "pulp", "z3", "highspy", "onnx", "onnxruntime", "sklearn", "scipy", "matplotlib", "auto_LiRPA")


@dataclass(frozen=True)
class Import:
    """One imported name: by which module, in which line, and whether only for type checkers."""

    by: str
    line: int
    target: str
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.by}:{self.line} imports {self.target}"


def under(name: str, prefix: str) -> bool:
    """Whether ``name`` is ``prefix`` or lies in it."""
    return name == prefix or name.startswith(prefix + ".")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> dict[str, ast.Module]:
    """Every first-party module, parsed, by its dotted name."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {module_name(path): ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in files}


def targets(node: ast.Import | ast.ImportFrom, by: str, is_package: bool) -> Iterator[str]:
    """Dotted names that a statement imports: ``from a import b`` is a.b where that is a module, else a."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        parts = by.split(".") if is_package else by.split(".")[:-1]
        base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
    for alias in node.names:
        submodule = f"{base}.{alias.name}"
        yield submodule if submodule in modules() else base


def is_package(name: str) -> bool:
    return (ROOT / Path(*name.split(".")) / "__init__.py").exists()


def is_typing(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


@cache
def imports() -> tuple[Import, ...]:
    """Every import statement of every module, those inside of functions included."""
    found: list[Import] = []
    for name, tree in modules().items():
        guarded = {
            id(node)
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and is_typing(block.test)
            for statement in block.body
            for node in ast.walk(statement)
        }
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                named = targets(node, name, is_package(name))
                found += [Import(name, node.lineno, target, id(node) in guarded) for target in named]
    return tuple(found)


def part(name: str) -> str:
    """The entry of the table that speaks of module ``name``."""
    return max((prefix for prefix in MAY_IMPORT if under(name, prefix)), key=len)


def allowed(item: Import) -> bool:
    own = part(item.by)
    if own == "verify.backends":
        # Methods share through bounds and programs, never through each other.
        method = ".".join(item.by.split(".")[:3])
        if under(item.target, own):
            return item.by != own and under(item.target, method)
    elif under(item.target, own) and part(item.target) == own:
        return True
    if own == "verify" and item.by == own:
        return any(under(item.target, prefix) for prefix in MAY_IMPORT[own])
    return any(under(item.target, prefix) for prefix in MAY_IMPORT[own])


def is_first_party(target: str) -> bool:
    return target.split(".")[0] in PACKAGES


def test_there_is_something_to_read() -> None:
    assert {"verify", "verify.core.region", "verify.core.network", "attacks"} <= set(modules())
    assert "verify.core.ops" in {item.target for item in imports() if item.by == "verify.core.network"}
    assert "verify.core.network" in graph()["verify.core.problem"]


def test_every_module_has_its_floor() -> None:
    strangers = [name for name in modules() if part(name) == "verify" and name != "verify"]
    assert not strangers, f"no rule says what these may import: {strangers}"


def test_no_floor_imports_a_higher_one() -> None:
    wrong = [str(item) for item in imports() if is_first_party(item.target) and not allowed(item)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("by", "target", "expected"),
    [
        ("verify.core.region", "verify.core.network", True),
        ("verify.core.region", "verify.bounds.linear", False),
        ("verify.core.region", "verify", False),
        ("verify.core.region", "attacks.base", False),
        ("verify.bounds.linear", "verify.core.ops", True),
        ("verify.bounds.linear", "verify.frontends.torch", False),
        ("verify.frontends.torch", "verify.bounds.linear", False),
        ("verify.frontends.torch", "verify.frontends.fold", True),
        ("verify.programs.linear", "verify.bounds.linear", True),
        ("verify.check.replay", "verify.core.problem", True),
        ("verify.check.replay", "verify.bounds.interval", False),
        ("verify.backends.crown", "verify.bounds.linear", True),
        ("verify.backends.crown", "verify.programs.linear", True),
        ("verify.backends.crown", "verify.backends.ibp", False),
        ("verify.backends.crown", "verify.backends", False),
        ("verify.backends.crown", "verify.frontends.torch", False),
        ("verify.backends.crown", "attacks.pgd", False),
        ("verify.backends.bab.tree", "verify.backends.bab.leaf", True),
        ("verify.backends.bab", "verify.backends.bab.leaf", True),
        ("verify.backends.bab.tree", "verify.backends.crown", False),
        ("verify.backends", "verify.backends.crown", False),
        ("verify.pipeline", "verify.check.replay", True),
        ("verify.pipeline", "attacks.base", True),
        ("verify.auto", "verify.pipeline", True),
        ("verify.pipeline", "models.zoo", False),
        ("verify.auto", "benchmarks.harness", False),
        ("verify", "verify.core.problem", True),
        ("verify", "verify.auto", True),
        ("verify", "verify.backends.crown", False),
        ("attacks.pgd", "attacks.base", True),
        ("attacks.pgd", "verify.core.region", True),
        ("attacks.pgd", "verify.pipeline", False),
        ("attacks.pgd", "models", False),
        ("models.training.ibp", "verify.bounds.interval", True),
        ("models.training.pgd", "attacks.pgd", True),
        ("models.zoo", "verify.backends.crown", False),
        ("models.zoo", "benchmarks.files", False),
        ("benchmarks.harness", "verify.pipeline", True),
        ("benchmarks.harness", "models.data", True),
        ("benchmarks.harness", "assay.__main__", False),
        ("assay.commands.compare", "benchmarks.harness", True),
    ],
)
def test_the_rules_say_what_they_should(by: str, target: str, expected: bool) -> None:
    assert allowed(Import(by, 1, target, False)) == expected


def test_the_lower_floors_need_torch_alone() -> None:
    wrong = []
    for item in imports():
        root = item.target.split(".")[0]
        may = THIRD_PARTY.get(part(item.by))
        if may is not None and root not in (*sys.stdlib_module_names, *PACKAGES, *may):
            wrong.append(str(item))
    assert not wrong, "\n".join(wrong)


def test_relative_imports_are_understood() -> None:
    def read(code: str, by: str, package: bool) -> list[str]:
        node = ast.parse(code).body[0]
        assert isinstance(node, (ast.Import, ast.ImportFrom))
        return list(targets(node, by, package))

    assert read("from .region import Box", "verify.core.problem", False) == ["verify.core.region"]
    assert read("from . import region", "verify.core.problem", False) == ["verify.core.region"]
    assert read("from . import region", "verify.core", True) == ["verify.core.region"]
    assert read("from .. import core", "verify.core.problem", False) == ["verify.core"]
    assert read("from verify.core import region, errors", "x", False) == ["verify.core.region", "verify.core.errors"]
    assert read("from verify import Problem", "x", False) == ["verify"]
    assert read("import torch.nn, json", "x", False) == ["torch.nn", "json"]


def graph() -> dict[str, set[str]]:
    """Who imports whom, at whatever time; the lazy packages name their exports for type checkers only."""
    edges: dict[str, set[str]] = {name: set() for name in modules()}
    for item in imports():
        lazy = item.typing_only and is_package(item.by)
        if item.target in edges and item.target != item.by and not lazy:
            edges[item.by].add(item.target)
    return edges


def test_there_are_no_cycles() -> None:
    try:
        tuple(TopologicalSorter(graph()).static_order())
    except CycleError as error:
        pytest.fail("imports in a circle: " + " <- ".join(error.args[1]))


def fresh(code: str) -> list[str]:
    """What ``code`` prints in a process of its own, as words."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


LOADED = "import sys; before = set(sys.modules); {}; print(*sorted(set(sys.modules) - before))"


@pytest.mark.parametrize("package", ["verify", "attacks"])
def test_importing_a_package_loads_nothing_else(package: str) -> None:
    loaded = fresh(LOADED.format(f"import {package}"))
    assert package in loaded
    strangers = [name for name in loaded if name.split(".")[0] not in sys.stdlib_module_names and name != package]
    assert not strangers


def test_the_vocabulary_loads_torch_but_no_solver_and_no_model_zoo() -> None:
    loaded = fresh(LOADED.format("from verify import Problem, Network, Box, LpBall, Spec, Budget, Bounds, Result"))
    assert {"torch", "verify.core.problem"} <= set(loaded)
    above = [name for name in loaded if is_first_party(name) and not under(name, CORE) and name != "verify"]
    assert not above
    assert not {name.split(".")[0] for name in loaded} & set(HEAVY)


def test_the_methods_are_listed_without_loading_any() -> None:
    loaded = fresh(
        LOADED.format(
            "from verify import list_verifiers; from attacks import list_attacks; "
            "assert 'crown' in list_verifiers() and 'pgd' in list_attacks()"
        )
    )
    assert not [name for name in loaded if under(name, "verify.backends") or name == "attacks.pgd"]
    assert not {name.split(".")[0] for name in loaded} & {*HEAVY, "models", "benchmarks", "assay"}


def test_no_file_imports_a_star() -> None:
    trees = {**modules(), **{str(p): ast.parse(p.read_text(encoding="utf-8")) for p in (ROOT / "tests").rglob("*.py")}}
    stars = [
        f"{name}:{node.lineno}"
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    ]
    assert not stars


def test_no_function_takes_arbitrary_keywords() -> None:
    open_ended = [
        f"{name}:{node.lineno} takes **{node.args.kwarg.arg}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and node.args.kwarg is not None
    ]
    assert not open_ended, "\n".join(open_ended)
