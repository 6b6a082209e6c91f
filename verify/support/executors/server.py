"""What the server of the processes imports before all else: it only imports and forks, and so has no use for the
collector of cycles, which takes a tenth of torch's import. Each process has it back (see :mod:`processes`), but for
what was imported, which stays: to look through it would take a copy of all of its pages, too.

By itself the server looks for the end of whoever started it between two forks, and not while it imports: until then it
would keep the terminal's output open. On Linux it is killed (elsewhere that took a thread, which forks do not go with).
"""

import gc
import sys
from multiprocessing import forkserver

from assay.verify.support.processes import die_with_other_end

gc.disable()


def alive() -> int | None:
    """The pipe whose other end those have that the server works for; None in a process that is no server."""
    frame = sys._getframe()
    while (back := frame.f_back) is not None:
        frame = back
        if frame.f_code is forkserver.main.__code__:
            return frame.f_locals.get("alive_r")
    return None


if sys.platform == "linux" and (pipe := alive()) is not None:
    die_with_other_end(pipe, leader=False)
