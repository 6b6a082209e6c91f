"""HiGHS through its own interface: a model stays loaded, and each solve starts from the last one's basis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import inf
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from assay.verify.programs.program import Answer, Program, Status, Vector
from assay.verify.programs.start import Begin, Start
from assay.verify.support.silence import silence

# After a warm solve of more steps than this, solves begin from a basis that is made for their cost.
PATIENCE = 20


class Model:
    """A program inside HiGHS; ``options`` are set after those of :func:`settings`."""

    def __init__(self, program: Program, threads: int, seed: int, options: Mapping[str, Any] = MappingProxyType({})):
        self._integer = bool(program.integer.any())
        self._columns = np.arange(len(program.lower), dtype=np.int32)
        self._steps = 0  # of the last solve that began where the one before had ended
        self.highs = made({**settings(self._integer, threads, seed), **options})
        self.highs.passModel(as_lp(program))

    def solve(self, cost: Vector, seconds: float, target: float, begin: Begin) -> Answer:
        """``cost``: (columns). Starts from the last basis while that takes few steps, otherwise from ``begin``'s."""
        self.aim(cost)
        self.highs.setOptionValue("objective_target", target if self._integer else -inf)
        warm = self.highs.getBasis().valid and self._steps <= PATIENCE
        if not warm and not self._integer and (basis := begin()) is not None:
            self.highs.setBasis(as_basis(basis))
        status = self.run(seconds)
        if warm:
            self._steps = int(self.highs.getInfo().simplex_iteration_count)
        return self._answer(status, cost)

    def aim(self, cost: Vector) -> None:
        """Minimise ``cost @ x`` from now on, cost (columns)."""
        self.highs.changeColsCost(len(cost), self._columns, cost)

    def run(self, seconds: float) -> Status:
        """Minimise from the basis that is set, and once more from scratch if that fails: HiGHS refuses to run where
        its threads were started in another number before."""
        status = self._run(seconds)
        if status is Status.FAILED:
            self.highs.clearSolver()
            self.highs.resetGlobalScheduler(True)
            status = self._run(seconds)
        return status

    def _run(self, seconds: float) -> Status:
        highs, (by_name, error) = self.highs, _statuses()
        highs.setOptionValue("time_limit", highs.getRunTime() + seconds)
        failed = highs.run() == error
        return Status.FAILED if failed else by_name.get(highs.getModelStatus(), Status.FAILED)

    def _answer(self, status: Status, cost: Vector) -> Answer:
        solution, info = self.highs.getSolution(), self.highs.getInfo()
        x = np.array(solution.col_value) if solution.value_valid and info.primal_solution_status == 2 else None
        return Answer(
            status,
            inf if x is None else float(cost @ x),
            x,
            np.array(solution.row_dual) if solution.dual_valid else None,
            float(info.mip_dual_bound) if self._integer else -inf,
            max(int(info.mip_node_count), 0) if self._integer else 0,
        )


@cache
def _statuses() -> tuple[dict[Any, Status], Any]:
    """What HiGHS's statuses of a model mean, and that of a run that failed."""
    import highspy

    status = highspy.HighsModelStatus
    by_name = {
        status.kOptimal: Status.OPTIMAL,
        status.kInfeasible: Status.INFEASIBLE,
        status.kUnboundedOrInfeasible: Status.INFEASIBLE,  # every column has bounds
        status.kObjectiveTarget: Status.TARGET,
        status.kObjectiveBound: Status.CUTOFF,
        status.kTimeLimit: Status.TIMEOUT,
    }
    return by_name, highspy.HighsStatus.kError


def made(options: Mapping[str, Any]) -> Any:
    """An instance of HiGHS that prints nothing: from 1.16 on it greets when it is made, before any option is set."""
    import highspy

    with silence():
        highs = highspy.Highs()  # type: ignore[no-untyped-call]
    for option, value in options.items():
        highs.setOptionValue(option, value)
    return highs


def settings(integer: bool, threads: int, seed: int) -> dict[str, Any]:
    """HiGHS's options. Presolve takes longer than it saves on these programs, as heuristics do: points are found by
    descent before. The programs are at scale already."""
    tolerances = ("primal_feasibility_tolerance", "dual_feasibility_tolerance", "mip_feasibility_tolerance")
    options = {
        "output_flag": False,
        "threads": threads,
        "random_seed": seed % 2**31,
        "small_matrix_value": Highs.drops,
        "presolve": "off",
        **dict.fromkeys((*tolerances, "mip_abs_gap"), Highs.tolerance),
        "mip_rel_gap": 0.0,
    }
    if not integer:
        return options | {"solver": "simplex", "simplex_scale_strategy": 0}
    heuristics = ("feasibility_jump", "rins", "rens", "root_reduced_cost")
    return options | {f"mip_heuristic_run_{name}": False for name in heuristics}


def as_basis(start: Start) -> Any:
    """As HiGHS has it."""
    import highspy

    status = highspy.HighsBasisStatus
    by_number = np.array([status.kLower, status.kBasic, status.kUpper], dtype=object)
    basis = highspy.HighsBasis()
    basis.col_status, basis.row_status = by_number[start.columns].tolist(), by_number[start.rows].tolist()
    basis.valid = True
    return basis


def as_lp(program: Program) -> Any:
    """As HiGHS has it."""
    import highspy

    lp = highspy.HighsLp()
    lp.num_row_, lp.num_col_ = program.matrix.shape
    lp.col_cost_, lp.offset_ = program.cost, 0.0
    lp.col_lower_, lp.col_upper_ = program.lower, program.upper
    lp.row_lower_, lp.row_upper_ = program.row_lower, program.row_upper
    matrix = lp.a_matrix_
    matrix.format_ = highspy.MatrixFormat.kRowwise
    matrix.num_row_, matrix.num_col_ = program.matrix.shape
    matrix.start_, matrix.index_, matrix.value_ = program.matrix.indptr, program.matrix.indices, program.matrix.data
    if program.integer.any():
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        lp.integrality_ = [kinds[int(whole)] for whole in program.integer]
    return lp


@dataclass(frozen=True)
class Highs:
    """HiGHS (Huangfu, Hall 2018, doi:10.1007/s12532-017-0130-5)."""

    tolerance: ClassVar[float] = 1e-9
    punctual: ClassVar[bool] = True
    drops: ClassVar[float] = 1e-12

    def load(self, program: Program, threads: int, seed: int) -> Model:
        """The program inside HiGHS."""
        return Model(program, threads, seed)
