"""The floors: what each package may import, no cycles, nothing loaded before it is used, no ``**kwargs``."""

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
FOLDERS = ("verify", "attacks", "models", "benchmarks")

CORE, SUPPORT, BOUNDS = "assay.verify.core", "assay.verify.support", "assay.verify.bounds"
CLUSTER = "assay.verify.support.executors.cluster"
PROGRAMS, GROUND = "assay.verify.programs", (CORE, SUPPORT)

# Part of the tree -> the first-party parts that it may import beside itself. The longest prefix decides.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "assay.lazy": (),
    "assay.checkout": (),
    CORE: (SUPPORT,),
    SUPPORT: (CORE, CLUSTER),  # on use
    CLUSTER: GROUND,
    "assay.verify.frontends": GROUND,
    BOUNDS: GROUND,
    PROGRAMS: (*GROUND, BOUNDS),
    "assay.verify.check": GROUND,
    "assay.verify.perturbations": GROUND,
    "assay.attacks": ("assay.lazy", "assay.checkout", *GROUND),
    "assay.verify.backends": (*GROUND, BOUNDS, PROGRAMS, "assay.verify.perturbations"),
    "assay.verify.registry": GROUND,
    "assay.verify.solving": ("assay.verify", "assay.attacks"),
    "assay.verify": ("assay.lazy", "assay.checkout", CORE, "assay.verify.registry", "assay.verify.solving"),
    "assay.models": ("assay.lazy", "assay.checkout", "assay.attacks", *GROUND, "assay.verify.frontends", BOUNDS),
    "assay.benchmarks": ("assay.checkout",),
    "assay.benchmarks.harness": ("assay.verify", "assay.attacks", "assay.models"),
    "assay.benchmarks.report": ("assay.verify", "assay.attacks", "assay.models", "assay.benchmarks.harness"),
    "assay.benchmarks.tables": ("assay.verify", "assay.benchmarks.harness"),
    "assay.benchmarks.measure": ("assay",),
    "assay": (
        *("assay.verify", "assay.attacks", "assay.models"),
        *("assay.benchmarks.harness", "assay.benchmarks.report", "assay.benchmarks.tables"),
    ),
}

# What may be imported from outside, beside the standard library; where nothing is said, anything.
THIRD_PARTY: dict[str, tuple[str, ...]] = {
    CORE: ("torch", "scipy"),  # scipy on use: linear programs, for the room in polytopes
    SUPPORT: ("torch",),
    CLUSTER: ("torch", "numpy", "ray"),  # the last two on use
    "assay.attacks": ("torch",),
    # onnx: the checker opens models itself; its own files, by their bare names where they run without this package
    "assay.verify.check": ("torch", "numpy", "onnx", "property", "question", "bounds", "checker"),
}

# Too heavy for ``import assay.verify``.
HEAVY = ("cvxpy", "pulp", "z3", "highspy", "onnx", "onnxruntime", "scipy", "matplotlib", "auto_LiRPA")


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
    own = [*sorted((ROOT / "assay").glob("*.py")), *sorted((ROOT / "assay" / "commands").glob("*.py"))]
    linked = [path for folder in FOLDERS for path in sorted((ROOT / "assay" / folder).resolve().rglob("*.py"))]
    named = {module_name(path): path for path in own} | {f"assay.{module_name(path)}": path for path in linked}
    return {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in named.items()}


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
    statements: list[Import] = []
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
                statements += [Import(name, node.lineno, target, id(node) in guarded) for target in named]
    return tuple(statements)


def part(name: str) -> str:
    """The entry of the table that speaks of module ``name``."""
    return max((prefix for prefix in MAY_IMPORT if under(name, prefix)), key=len)


def allowed(item: Import) -> bool:
    own = part(item.by)
    if own == "assay.verify.backends":
        # Methods share through bounds and programs, never through each other.
        method = ".".join(item.by.split(".")[:4])
        if under(item.target, own):
            return item.by != own and under(item.target, method)
    elif under(item.target, own) and part(item.target) == own:
        return True
    if own == "assay.verify.solving" and item.target == "assay.verify":
        return False  # the lazy package would be a way around the table
    if item.by == "assay" and item.target in ("assay.benchmarks", "assay.lazy"):
        return True  # the face names the package itself
    return any(under(item.target, prefix) for prefix in MAY_IMPORT[own])


def is_first_party(target: str) -> bool:
    return target.split(".")[0] in ("assay", *FOLDERS)


def test_there_is_something_to_read() -> None:
    assert {"assay.verify", "assay.verify.core.region", "assay.verify.core.network", "assay.attacks"} <= set(modules())
    assert "assay.verify.core.ops" in {i.target for i in imports() if i.by == "assay.verify.core.network"}
    assert "assay.verify.core.network" in graph()["assay.verify.core.problem"]


def test_every_module_has_its_floor() -> None:
    strangers = [name for name in modules() if part(name) == "assay.verify" and name != "assay.verify"]
    strangers += [n for n in modules() if part(n) == "assay.benchmarks" and n != "assay.benchmarks"]
    assert not strangers, f"no rule says what these may import: {strangers}"


def test_the_folders_are_imported_through_assay_alone() -> None:
    bare = [str(item) for item in imports() if item.target.split(".")[0] in FOLDERS]
    assert not bare, "\n".join(bare)


def test_no_floor_imports_a_higher_one() -> None:
    wrong = [str(item) for item in imports() if is_first_party(item.target) and not allowed(item)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("by", "target", "expected"),
    [
        ("assay.verify.core.region", "assay.verify.core.network", True),
        ("assay.verify.core.region", "assay.verify.bounds.backward.columns", False),
        ("assay.verify.core.region", "assay.verify", False),
        ("assay.verify.core.region", "verify.core.ops", False),
        ("assay.verify.core.region", "assay.attacks.common.interface", False),
        ("assay.verify.bounds.backward.columns", "assay.verify.core.ops", True),
        ("assay.verify.bounds.backward.columns", "assay.verify.frontends.torch", False),
        ("assay.verify.frontends.torch", "assay.verify.bounds.backward.columns", False),
        ("assay.verify.frontends.torch", "assay.verify.frontends.fold", True),
        ("assay.verify.programs.linear", "assay.verify.bounds.backward.columns", True),
        ("assay.verify.check.replay", "assay.verify.core.problem", True),
        ("assay.verify.check.replay", "assay.verify.bounds.interval", False),
        ("assay.verify.backends.crown", "assay.verify.bounds.backward.columns", True),
        ("assay.verify.backends.crown", "assay.verify.programs.linear", True),
        ("assay.verify.backends.crown", "assay.verify.backends.ibp", False),
        ("assay.verify.backends.crown", "assay.verify.backends", False),
        ("assay.verify.backends.crown", "assay.verify.frontends.torch", False),
        ("assay.verify.backends.crown", "assay.attacks.pgd", False),
        ("assay.verify.backends.bab.tree", "assay.verify.backends.bab.leaf", True),
        ("assay.verify.backends.bab", "assay.verify.backends.bab.leaf", True),
        ("assay.verify.backends.bab.tree", "assay.verify.backends.crown", False),
        ("assay.verify.backends", "assay.verify.backends.crown", False),
        ("assay.verify.registry", "assay.verify.solving.auto", False),
        ("assay.benchmarks.harness.compare", "assay.benchmarks.report.tables", False),
        ("assay.benchmarks.report.tables", "assay.benchmarks.harness.compare", True),
        ("assay.benchmarks.report.tables", "assay.benchmarks.measure.turns", False),
        ("assay.benchmarks.measure.bounds", "assay.benchmarks.harness.records.store", True),
        ("assay.commands.compare", "assay.benchmarks.measure.turns", False),
        ("assay.verify.solving.stages", "assay.verify.check.replay", True),
        ("assay.verify.solving.stages", "assay.attacks.common.interface", True),
        ("assay.verify.solving.auto", "assay.verify.solving.stages", True),
        ("assay.verify.solving.stages", "assay.models.zoo", False),
        ("assay.verify.solving.auto", "assay.benchmarks.harness.compare", False),
        ("assay.verify", "assay.verify.core.problem", True),
        ("assay.verify", "assay.verify.solving.auto", True),
        ("assay.verify", "assay.verify.backends.crown", False),
        ("assay.attacks.pgd", "assay.attacks.common.interface", True),
        ("assay.attacks.pgd", "assay.verify.core.region", True),
        ("assay.attacks.pgd", "assay.verify.solving.stages", False),
        ("assay.attacks.pgd", "assay.models", False),
        ("assay.models.training.ibp", "assay.verify.bounds.interval", True),
        ("assay.models.training.pgd", "assay.attacks.pgd", True),
        ("assay.models.zoo", "assay.verify.backends.crown", False),
        ("assay.models.zoo", "assay.benchmarks.harness.records.store", False),
        ("assay.benchmarks.harness.compare", "assay.verify.solving.stages", True),
        ("assay.benchmarks.harness.compare", "assay.models.data", True),
        ("assay.benchmarks.harness.compare", "assay.__main__", False),
        ("assay.commands.compare", "assay.benchmarks.harness.compare", True),
    ],
)
def test_the_rules_say_what_they_should(by: str, target: str, expected: bool) -> None:
    assert allowed(Import(by, 1, target, False)) == expected


def test_the_lower_floors_need_torch_alone() -> None:
    wrong = []
    for item in imports():
        root = item.target.split(".")[0]
        may = THIRD_PARTY.get(part(item.by))
        if may is not None and root not in (*sys.stdlib_module_names, "assay", *may):
            wrong.append(str(item))
    assert not wrong, "\n".join(wrong)


def test_relative_imports_are_understood() -> None:
    def read(code: str, by: str, package: bool) -> list[str]:
        node = ast.parse(code).body[0]
        assert isinstance(node, (ast.Import, ast.ImportFrom))
        return list(targets(node, by, package))

    assert read("from .region import Box", "assay.verify.core.problem", False) == ["assay.verify.core.region"]
    assert read("from . import region", "assay.verify.core.problem", False) == ["assay.verify.core.region"]
    assert read("from . import region", "assay.verify.core", True) == ["assay.verify.core.region"]
    assert read("from .. import core", "assay.verify.core.problem", False) == ["assay.verify.core"]
    assert read("from assay.verify.core import region, errors", "x", False) == [
        "assay.verify.core.region",
        "assay.verify.core.errors",
    ]
    assert read("from assay.verify import Problem", "x", False) == ["assay.verify"]
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


@pytest.mark.parametrize("package", ["assay", "assay.verify", "assay.attacks", "assay.models", "assay.benchmarks"])
def test_importing_a_package_loads_nothing_else(package: str) -> None:
    loaded = fresh(LOADED.format(f"import {package}"))
    assert package in loaded
    usual = {*sys.stdlib_module_names, "assay"}
    assert not [name for name in loaded if name.split(".")[0] not in usual]
    assert {name for name in loaded if is_first_party(name)} <= {"assay", "assay.lazy", package}


def test_the_vocabulary_and_the_lists_of_methods_load_torch_but_no_solver_and_no_model_zoo() -> None:
    loaded = fresh(
        LOADED.format(
            "from assay import Problem, Network, Box, LpBall, Spec, Budget, Bounds, Result; "
            "ground = ('assay.verify.core', 'assay.verify.support', 'assay.lazy'); "
            "above = [name for name in sys.modules if name.startswith('assay.') and not name.startswith(ground)]; "
            "assert above == ['assay.verify'], above; "
            "from assay import list_verifiers, list_attacks; "
            "assert 'crown' in list_verifiers() and 'pgd' in list_attacks()"
        )
    )
    assert {"torch", "assay.verify.core.problem"} <= set(loaded)
    assert not {name.split(".")[0] for name in loaded} & set(HEAVY)
    above = [name for name in loaded if under(name, "assay.verify.backends") or name == "assay.attacks.pgd"]
    assert not above + [name for name in loaded if under(name, "assay.models") or under(name, "assay.benchmarks")]


def test_every_public_name_is_there() -> None:
    code = "import assay, assay.verify, assay.attacks, assay.models; "
    for package in ("assay", "assay.verify", "assay.attacks", "assay.models"):
        code += f"[getattr({package}, name) for name in dir({package})]; "
    assert fresh(code + "print(assay.solve.__name__, assay.compare.__name__)") == ["solve", "compare"]


def test_the_folders_by_their_bare_names_are_the_same_modules() -> None:
    code = (
        "from verify import Problem; from verify.core.problem import Problem as same; import attacks.pgd, assay; "
        "import benchmarks.harness.records.store, models.zoo; from assay.attacks.pgd import PGD; "
        "print(Problem is same is assay.Problem, attacks.pgd.PGD is PGD, attacks.pgd.__spec__.name, "
        "models.zoo is assay.zoo)"
    )
    assert fresh(code) == ["True", "True", "assay.attacks.pgd", "True"]
    wrong = subprocess.run([sys.executable, "-c", "import verify.nothing"], cwd=ROOT, capture_output=True, text=True)
    assert "ModuleNotFoundError" in wrong.stderr


def test_no_function_takes_arbitrary_keywords() -> None:
    open_ended = [
        f"{name}:{node.lineno} takes **{node.args.kwarg.arg}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and node.args.kwarg is not None
    ]
    assert not open_ended, "\n".join(open_ended)


def test_what_only_some_systems_have_is_imported_on_use() -> None:
    for name, tree in modules().items():
        for statement in tree.body:
            names = [alias.name for alias in statement.names] if isinstance(statement, ast.Import) else []
            names += [statement.module or ""] if isinstance(statement, ast.ImportFrom) else []
            assert not {"fcntl", "resource", "pwd", "termios"} & set(names), name
