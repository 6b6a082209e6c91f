"""Floor 2, models: architectures, data sets, training recipes, cards, and the zoo of trained networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay.lazy import lazily

if TYPE_CHECKING:
    from assay.models import data as data
    from assay.models import zoo as zoo

_HOME = {name: f"assay.models.{name}:" for name in ("data", "zoo")}

__all__ = sorted(_HOME)
__getattr__, __dir__ = lazily(__name__, _HOME)

if __name__ != "assay.models":  # imported by its bare name, beside the folder
    from assay.checkout import same_modules

    same_modules(__name__)
