"""Imports without the collector: it is there again afterwards, and what came first it leaves alone."""

import subprocess
import sys

CODE = """
import gc
from assay.verify.support.imports import swift_imports

with swift_imports():
    assert not gc.isenabled()
    import {module}
assert gc.isenabled()
before = gc.get_freeze_count()
with swift_imports():
    pass
print(before > 10_000, gc.get_freeze_count() == before)
"""


def test_what_is_imported_first_is_not_looked_at_again():
    done = subprocess.run([sys.executable, "-c", CODE.format(module="torch")], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True True\n", "")
