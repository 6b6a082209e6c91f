"""Inside a checkout the folders ``verify``, ``attacks``, ... can be imported too: as the very modules of ``assay``.

An installation has the one name ``assay``. Where somebody types ``from verify import Problem`` beside the folders, they
are found under their bare names, and would be loaded a second time, with classes that are not the same.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import ClassVar


class SameModules(MetaPathFinder, Loader):
    """Finds ``verify.core.problem`` as ``assay.verify.core.problem``, for the folders that were imported so."""

    folders: ClassVar[set[str]] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module of ``assay`` that ``name`` means, if it is one."""
        if name.partition(".")[0] not in self.folders or find_spec(f"assay.{name}") is None:
            return None
        return ModuleSpec(name, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself, which is loaded once."""
        module = import_module(f"assay.{spec.name}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run; only its own spec is put back."""
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state


FINDER = SameModules()


def same_modules(folder: str) -> None:
    """Let ``folder``, which is being imported by its bare name, and all in it be what ``assay`` has."""
    if FINDER not in sys.meta_path:
        sys.meta_path.insert(0, FINDER)
    FINDER.folders.add(folder)
    sys.modules[folder] = import_module(f"assay.{folder}")
