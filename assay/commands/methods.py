"""``assay methods``: the methods and attacks with their options, and which optional packages are here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Annotated, Any

import typer

from assay.benchmarks.harness.origin import package_version

# Distribution and the command that installs it. auto_LiRPA's index release pins a torch of 2022, hence --no-deps.
PACKAGES = {
    "torch": "pip install torch",
    "numpy": "pip install numpy",
    "scipy": "pip install scipy",
    "cvxpy": "pip install cvxpy",
    "pulp": "pip install 'pulp>=3.3,<4'",
    "z3-solver": "pip install z3-solver",
    "maraboupy": "pip install maraboupy",
    "highspy": "pip install highspy",
    "pyscipopt": "pip install pyscipopt",
    "gurobipy": "pip install gurobipy",
    "auto_LiRPA": "pip install --no-deps auto_LiRPA==0.3",
    "foolbox": "pip install foolbox",
    "torchattacks": "pip install torchattacks",
    "deel-torchlip": "pip install deel-torchlip",
}


def methods(json_: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """List the methods, the attacks and their options, and the packages that they can use."""
    from assay.attacks import get_attack, list_attacks
    from assay.benchmarks.report.tables import dump
    from assay.verify.programs.loading import listed
    from assay.verify.registry import get_verifier, list_verifiers

    document = {
        "methods": _listed(list_verifiers(), get_verifier),
        "attacks": _listed(list_attacks(), get_attack),
        "solvers": listed(),
        "packages": [
            {"name": name, "version": package_version(name), "install": install} for name, install in PACKAGES.items()
        ],
    }
    if json_:
        print(dump(document))
    else:
        _show(document)


def _listed(names: Sequence[str], load: Callable[[str], Any]) -> list[dict[str, Any]]:
    """What each method says of itself; one that cannot be loaded is listed with the reason."""
    entries = []
    for name in names:
        try:
            entries.append(_described(name, load(name)))
        except Exception as error:
            entries.append({"name": name, "error": f"{type(error).__name__}: {error}"})
    return entries


def _described(name: str, method: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "doc": _summary(method)}
    for fact in ("complete", "guarantee"):
        if hasattr(method, fact):
            entry[fact] = getattr(method, fact)
    entry["options"] = [
        {"name": field.name, "type": str(field.type), "default": _plain_data(getattr(method, field.name))}
        for field in fields(method)
        if field.init
    ]
    return entry


def _summary(method: Any) -> str:
    """The first paragraph of its docstring, without the marks of code."""
    paragraph = inspect.cleandoc(type(method).__doc__ or "").partition("\n\n")[0]
    return " ".join(paragraph.replace("``", "").split())


def _plain_data(value: Any) -> Any:
    finite = not isinstance(value, float) or abs(value) < float("inf")
    return value if isinstance(value, (int, float, str, bool, type(None))) and finite else str(value)


def _show(document: dict[str, list[dict[str, Any]]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from assay.verify.support.plain import plain

    console = Console()
    for kind in ("methods", "attacks"):
        table = Table(title=Text(kind, "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("name", style="bold", no_wrap=True)
        if kind == "methods":
            table.add_column("complete")
            table.add_column("guarantee")
        table.add_column("what it does, and its options")
        for entry in document[kind]:
            options = ", ".join(f"{option['name']}={option['default']}" for option in entry.get("options", ()))
            text = Text(plain(entry.get("doc") or f"cannot be loaded: {entry.get('error', '')}"))
            if options:
                text.append(f"\n{plain(options)}", "dim")
            complete = ("yes" if entry["complete"] else "no") if "complete" in entry else ""
            facts = [complete, str(entry.get("guarantee", ""))]
            table.add_row(plain(entry["name"]), *(facts if kind == "methods" else ()), text)
        console.print(table)
    table = Table(title=Text("solvers of programs", "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("solver", style="bold", no_wrap=True)
    table.add_column("for methods")
    table.add_column("here", no_wrap=True)
    for solver in document["solvers"]:
        here = Text("yes") if solver["missing"] is None else Text(f"missing: {solver['missing']}", "yellow")
        table.add_row(solver["name"], ", ".join(solver["methods"]), here)
    console.print(table)
    table = Table(title=Text("packages", "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("version")
    for package in document["packages"]:
        version = Text(package["version"]) if package["version"] else Text(f"missing: {package['install']}", "yellow")
        table.add_row(package["name"], version)
    console.print(table)
