"""Tests of verify.support.child: answers, failures, limits, and that no process is left behind."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assay.verify.core.budget import Expired
from assay.verify.support import child
from assay.verify.support.child import ChildDied, ChildError, in_child

ROOT = Path(__file__).parents[3]
# A call that comes back to nobody: the child sleeps with its interpreter's lock held.
DEAF = "in_child(eval, ('__import__(\"ctypes\").PyDLL(None).sleep(1000)',))"


def test_a_function_is_answered_by_another_process() -> None:
    assert in_child(math.hypot, (3.0, 4.0)) == 5.0
    assert in_child(os.getpid) != os.getpid()


def test_the_process_serves_again() -> None:
    assert in_child(os.getpid) == in_child(os.getpid)


@pytest.mark.slow
def test_it_loads_no_more_than_the_function_needs() -> None:
    child._dismiss()  # those left by other tests have loaded what these needed
    assert in_child(eval, ("'torch' in __import__('sys').modules",)) is False


def test_the_function_s_own_failure_is_told() -> None:
    with pytest.raises(ChildError, match="ValueError: ") as caught:
        in_child(math.sqrt, (-1.0,))
    assert not isinstance(caught.value, ChildDied)
    assert in_child(math.sqrt, (4.0,)) == 2.0


@pytest.mark.parametrize(
    ("end", "words"), [(f"__import__('os').kill(__import__('os').getpid(), {signal.SIGSEGV})", "SIGSEGV"),
                       ("__import__('os')._exit(3)", "exit code 3")]
)  # fmt: skip
def test_a_death_is_told_and_made_good(end: str, words: str) -> None:
    with pytest.raises(ChildDied, match=words):
        in_child(eval, (end,))
    assert in_child(math.sqrt, (4.0,)) == 2.0


def test_what_does_not_stop_is_killed() -> None:
    pid = in_child(os.getpid)
    with pytest.raises(Expired):
        in_child(time.sleep, (60.0,), seconds=0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert in_child(math.sqrt, (4.0,)) == 2.0


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are set on Linux only")
def test_memory_is_limited_call_by_call() -> None:
    assert in_child(eval, ("len(bytes(200_000_000))",)) == 200_000_000
    with pytest.raises(MemoryError):
        in_child(eval, ("len(bytes(200_000_000))",), memory=100_000_000)
    assert in_child(eval, ("len(bytes(50_000_000))",), memory=100_000_000) == 50_000_000
    assert in_child(eval, ("len(bytes(200_000_000))",)) == 200_000_000


def test_what_is_printed_is_not_our_output() -> None:
    code = "from assay.verify.support.child import in_child; in_child(print, ('noise',)); print('ours')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "ours\n"


def test_a_script_without_a_guard_is_not_run_twice(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys, math; sys.path.insert(0, {str(ROOT)!r})\nprint('once', flush=True)\n"
        "from assay.verify.support.child import in_child\nprint(in_child(math.sqrt, (9.0,)))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "once\n3.0\n"
    assert done.stderr == ""


@pytest.mark.parametrize("then", ["time.sleep(60)", DEAF], ids=["idle", "deaf"])
def test_it_dies_with_its_parent(then: str) -> None:
    """On Linux even while it keeps the interpreter's lock."""
    if then == DEAF and sys.platform != "linux":
        pytest.skip("it takes a pipe that sends signals")
    code = "import os, time; from assay.verify.support.child import in_child; print(in_child(os.getpid), flush=True); "
    parent = subprocess.Popen([sys.executable, "-c", code + then], cwd=ROOT, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.5)  # until the call has reached the child
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(1200):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.05)
    pytest.fail("the child has outlived its parent")


def test_a_fork_starts_a_process_of_its_own() -> None:
    code = """if True:
        import os
        from assay.verify.support.child import in_child
        pid = in_child(os.getpid)
        if fork := os.fork():
            assert os.waitpid(fork, 0)[1] == 0
            assert in_child(os.getpid) == pid
        else:
            assert in_child(os.getpid) != pid
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
