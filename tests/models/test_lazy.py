"""``import assay.models`` is free; its public parts come on use."""

from __future__ import annotations

import subprocess
import sys

import pytest

from assay import models


def test_importing_models_imports_nothing_else() -> None:
    code = (
        "import sys, assay.models; "
        "assert not {'torch', 'scipy', 'assay.models.zoo', 'assay.models.data'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_public_parts_come_on_use() -> None:
    code = "from assay import models; assert models.data.load and models.zoo.load; from assay.models import zoo, data"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert dir(models) == ["data", "zoo"]


def test_other_names_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = models.nothing
