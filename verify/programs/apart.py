"""Programs solved in a process of their own, by solvers that may not stop in time by themselves: they are killed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from uuid import uuid4

from assay.verify.core.budget import Expired
from assay.verify.core.errors import UnsupportedError
from assay.verify.programs.program import Answer, Program, Status, Vector
from assay.verify.programs.solver import Model, Solver
from assay.verify.programs.start import Begin
from assay.verify.support.child import ChildDied, ChildError, in_child

ATTEMPTS = 2  # a solver's process may crash whatever the program is: it is started once more

# In the process that solves: the model that it has loaded last, by its key.
_loaded: dict[str, Model] = {}


@dataclass(frozen=True, eq=False)
class Apart:
    """``program`` inside a ``solver`` in another process, which keeps it from one solve to the next."""

    solver: Solver
    program: Program
    threads: int
    seed: int
    key: str = field(default_factory=lambda: uuid4().hex)

    def solve(self, cost: Vector, seconds: float, target: float, begin: Begin) -> Answer:
        """``cost``: (columns). Ends a second late at most; starts from no basis; a dead process is replaced once."""
        deadline = time.monotonic() + seconds
        answer = Answer(Status.TIMEOUT)
        for _ in range(ATTEMPTS):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                return in_child(solve_here, (self, cost, left, target), left)
            except Expired:
                return Answer(Status.TIMEOUT)
            except ChildDied as error:
                answer = Answer(Status.FAILED, message=str(error))
            except (ChildError, UnsupportedError) as error:
                return Answer(Status.FAILED, message=str(error))
        return answer


def solve_here(task: Apart, cost: Vector, seconds: float, target: float) -> Answer:
    """The task of the other process: ``cost`` (columns); loading counts towards the ``seconds``."""
    begun = time.monotonic()
    if task.key not in _loaded:
        _loaded.clear()
        _loaded[task.key] = task.solver.load(task.program, task.threads, task.seed)
    left = max(seconds - (time.monotonic() - begun), 0.0)
    return _loaded[task.key].solve(cost, left, target, lambda: None)
