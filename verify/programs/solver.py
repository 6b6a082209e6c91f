"""What a solver is: it takes programs at scale, and solves each for one cost vector after another."""

from __future__ import annotations

from typing import Protocol

from assay.verify.programs.program import Answer, Program, Vector
from assay.verify.programs.start import Begin


class Model(Protocol):
    """A program inside a solver, which may be solved for one cost vector after another."""

    def solve(self, cost: Vector, seconds: float, target: float, begin: Begin) -> Answer:
        """Minimise ``cost @ x``, cost (columns); where integers are sought, a point of value ``target`` or less may do.

        ``begin`` makes a basis for this cost, for a solver that can start from one.
        """
        ...


class Solver(Protocol):
    """A solver: loads a program, which keeps its cost out of the model. One that is not punctual can be pickled.

    ``tolerance``: by how much, on the program's own scale, its answers may violate rows and integrality;
    ``punctual``: whether it stops when its time is over, at any stage; ``drops``: it may take coefficients
    smaller than this for 0.
    """

    @property
    def tolerance(self) -> float: ...

    @property
    def punctual(self) -> bool: ...

    @property
    def drops(self) -> float: ...

    def load(self, program: Program, threads: int, seed: int) -> Model:
        """``program``, at scale, inside the solver."""
        ...
