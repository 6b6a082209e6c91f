"""``assay methods``: the methods and attacks with their options, and which optional packages are here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay import options
from assay.benchmarks.harness.records.origin import package_version
from assay.verify.core.errors import unknown_name

if TYPE_CHECKING:
    from rich.text import Text

WHAT = "what it does, and its options"

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


def methods(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Only these methods and attacks; all if not given.")
    ] = None,
    json_: options.Json = False,
) -> None:
    """List the methods, the attacks and their options, and the packages that they can use."""
    from assay.attacks import get_attack, list_attacks
    from assay.benchmarks.report.tables import dump
    from assay.verify.programs.loading import listed
    from assay.verify.registry import get_verifier, list_verifiers

    verifiers, attacks = list_verifiers(), list_attacks()
    if unknown := sorted({*(names or ())} - {*verifiers, *attacks}):
        raise unknown_name("method or attack", unknown[0], [*verifiers, *attacks])
    document = {
        "methods": _listed([each for each in verifiers if not names or each in names], get_verifier),
        "attacks": _listed([each for each in attacks if not names or each in names], get_attack),
    }
    if not names:
        document["solvers"] = listed()
        document["packages"] = [
            {"name": name, "version": package_version(name), "install": install} for name, install in PACKAGES.items()
        ]
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
    """The first paragraph of its docstring, with code in single backticks."""
    paragraph = inspect.cleandoc(type(method).__doc__ or "").partition("\n\n")[0]
    return " ".join(paragraph.replace("``", "`").split())


def _plain_data(value: Any) -> Any:
    finite = not isinstance(value, float) or abs(value) < float("inf")
    return value if isinstance(value, (int, float, str, bool, type(None))) and finite else str(value)


def _show(document: dict[str, list[dict[str, Any]]]) -> None:
    from rich.console import Console
    from rich.text import Text

    from assay.benchmarks.report import layout
    from assay.verify.support.plain import plain

    console = Console()
    for kind in [kind for kind in ("methods", "attacks") if document[kind]]:
        grid = layout.grid(layout.word("name"), layout.text(WHAT), title=kind)
        for entry in document[kind]:
            grid.add_row(Text(plain(entry["name"]), "bold"), _what(entry))
        layout.show(grid, console)
    if "solvers" not in document:
        return
    grid = layout.grid(layout.word("solver"), "for methods", "here", title="solvers of programs")
    for solver in document["solvers"]:
        here = Text("yes") if solver["missing"] is None else Text(f"missing: {solver['missing']}", "yellow")
        grid.add_row(Text(plain(solver["name"]), "bold"), ", ".join(solver["methods"]), here)
    layout.show(grid, console)
    grid = layout.grid(layout.word("name"), "version", title="packages")
    for package in document["packages"]:
        version = Text(package["version"]) if package["version"] else Text(f"missing: {package['install']}", "yellow")
        grid.add_row(Text(package["name"], "bold"), version)
    layout.show(grid, console)


def _what(entry: dict[str, Any]) -> Text:
    """What it does; in lines of their own what its answers are, and its options."""
    from rich.text import Text

    from assay.verify.support.plain import plain

    said = Text(plain(entry.get("doc") or f"cannot be loaded: {entry.get('error', '')}"))
    if "guarantee" in entry:
        said.append(f"\nguarantee: {entry['guarantee']}{'; complete' if entry['complete'] else ''}", "italic")
    given = ", ".join(f"{option['name']}={option['default']}" for option in entry.get("options", ()))
    return said.append(f"\n{plain(given)}", "dim") if given else said
