"""Where the files of a data set are looked for, and what the user reads if they are nowhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.verify.core.errors import InputError

VARIABLE = "ASSAY_DATA"


@dataclass(frozen=True)
class Layout:
    """The places of one data set: subfolders of any root ("" is the root itself), and a distribution's own folder."""

    name: str
    subfolders: tuple[str, ...]
    system: Path | None = None
    package: str = ""


def cache() -> Path:
    """The folder that downloads go to, where the system keeps caches: ``$XDG_CACHE_HOME/assay/data`` on Linux, by
    default below ``~/.cache``."""
    from platformdirs import user_cache_path  # here: most runs need none

    return user_cache_path("assay", appauthor=False) / "data"


def find(layout: Layout, files: Sequence[Sequence[str]], folder: Path | None = None) -> list[Path]:
    """The paths that :func:`found` tells. Raises :class:`InputError` where there are none."""
    paths = found(layout, files, folder)
    if paths is None:
        raise InputError(f"{layout.name}: {nowhere(layout, files, folder)}")
    return paths


def found(layout: Layout, files: Sequence[Sequence[str]], folder: Path | None = None) -> list[Path] | None:
    """The paths of ``files``, each given by its possible names, best first; all from one folder. None if nowhere.

    The first folder that holds any of them must hold them all, otherwise :class:`InputError` is raised. A ``folder``
    that is given is the only root; without it they are ``$ASSAY_DATA``, the distribution's folder, the user's cache.
    """
    for place in _places(layout, folder):
        here = [next((place / name for name in names if (place / name).is_file()), None) for names in files]
        paths = [path for path in here if path is not None]
        if len(paths) == len(files):
            return paths
        if paths:
            missing = ", ".join(" or ".join(names) for names, path in zip(files, here, strict=True) if path is None)
            raise InputError(f"{layout.name}: {place} has {paths[0].name} but lacks {missing}")
    return None


def nowhere(layout: Layout, files: Sequence[Sequence[str]], folder: Path | None = None) -> str:
    """What was looked for where, and how to get it."""
    sought = ", ".join(" or ".join(names) for names in files)
    where = ", ".join(map(str, _places(layout, folder)))
    return f"found no {sought} in {where}; {_remedy(layout, given=folder is not None)}"


def _places(layout: Layout, folder: Path | None) -> list[Path]:
    if folder is not None:
        return _below(folder, layout)
    root = os.environ.get(VARIABLE)
    places = _below(Path(root).expanduser(), layout) if root else []
    if layout.system is not None:
        places.append(layout.system)
    return [*places, cache() / layout.name]


def _below(root: Path, layout: Layout) -> list[Path]:
    return [root / subfolder for subfolder in layout.subfolders]


def _remedy(layout: Layout, given: bool) -> str:
    ways = [] if given else [f"pass --data-dir FOLDER, set ${VARIABLE}"]
    if given:
        ways.append(f"pass another --data-dir, or none to look into ${VARIABLE}, the system's folders and the cache")
    if layout.package:
        ways.append(f"install the Debian package {layout.package}")
    ways.append(f"download it: python -c \"from assay.models import data; data.download('{layout.name}')\"")
    return ", or ".join(ways)
