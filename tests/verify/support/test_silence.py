"""What native code prints in the block is gone, what is printed before and after it is not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from assay.verify.support.silence import silence


def test_nothing_comes_out_of_the_block_and_all_around_it(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(1, b"before,")
    with silence():
        os.write(1, b"inside,")
    with pytest.raises(KeyError), silence():
        raise KeyError
    os.write(1, b"after")
    assert capfd.readouterr().out == "before,after"


def test_descriptors_are_given_back() -> None:
    lowest = os.dup(1)
    os.close(lowest)
    for _ in range(3):
        with silence():
            pass
    again = os.dup(1)
    os.close(again)
    assert again == lowest


def test_a_closed_standard_output_stays_closed() -> None:
    code = (
        "import os; from assay.verify.support.silence import silence; os.close(1)\n"
        "with silence(): pass\n"
        "try: os.fstat(1)\n"
        "except OSError: os.write(2, b'closed')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stderr == b"closed"
