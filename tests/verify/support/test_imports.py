"""Imports without the collector: it is there again afterwards, and what came first it leaves alone."""

import subprocess
import sys

CODE = """
import gc, sys
from assay.verify.support.imports import swift_imports

with swift_imports():
    assert not gc.isenabled()
    import json
assert gc.isenabled()
before, sys.modules["torch"] = gc.get_freeze_count(), None  # as if that were there
with swift_imports():
    pass
print(before > 1000, gc.get_freeze_count() == before)
"""


def test_what_is_imported_first_is_not_looked_at_again():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True True\n", "")
