"""Linear programs over one model inside HiGHS, one after the other: what a new cost vector costs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from assay.benchmarks.measure.trained import NETS, rightly_classified, trained


@dataclass(frozen=True)
class Warm:
    """Linear programs over one model: its size, CPU milliseconds of the first one and of those with a new cost vector
    only (median), and of the bound that is proved from the duals."""

    net: str
    model: str
    columns: int
    rows: int
    nonzeros: int
    programs: int
    cold_ms: float
    warm_ms: float
    proof_ms: float


def warm_programs(net: str, folder: Path) -> Iterator[Warm]:
    """Bounds of a network's unstable neurons, layer by layer, and of its outputs, over one ball."""
    import numpy as np
    import torch

    from assay.verify.core.budget import Budget
    from assay.verify.core.problem import Problem
    from assay.verify.programs.dual import safe_bounds
    from assay.verify.programs.encode import Wanted, encode
    from assay.verify.programs.loading import get_solver, load
    from assay.verify.programs.program import Vector, widened
    from assay.verify.programs.relaxation import known

    model = trained(net, folder)
    test = rightly_classified(net, model, 1)
    eps = NETS[net].eps
    problem = Problem.robustness(model, test.x[0], int(test.y[0]), eps, domain=test.domain)
    lines: list[Warm] = []

    def measured(wanted: Wanted, low: Vector, high: Vector) -> tuple[Vector, Vector]:
        """Both bounds of each value over the draft: measured, and not used."""
        draft, values = wanted.draft, wanted.values
        program = draft.program()
        loaded = load(get_solver("highs"), program)
        solves, proofs = [], []
        for row in values.over(draft.width).matrix.toarray():
            for cost in (widened(row, draft.width), widened(-row, draft.width)):
                begun = time.process_time()
                answer = loaded.solve(cost)
                solved = time.process_time()
                assert answer.duals is not None
                safe_bounds(program, answer.duals[None], cost)
                solves.append(1000 * (solved - begun))
                proofs.append(1000 * (time.process_time() - solved))
        rows, columns = program.matrix.shape
        lines.append(
            Warm(
                net,
                f"layer {len(lines) + 1}",
                columns,
                rows,
                program.matrix.nnz,
                programs=len(solves),
                cold_ms=round(solves[0], 3),
                warm_ms=round(median(solves[1:] or solves), 3),
                proof_ms=round(median(proofs), 3),
            )
        )
        return low, high

    with torch.no_grad():
        bounds = known(problem.network, problem.region, problem.spec.A, Budget()).bounds
        encoding = encode(problem.network, problem.region, bounds, refine=measured)
        last = Wanted(len(problem.network.nodes) - 1, np.arange(0), encoding.output, encoding.draft, encoding.neurons)
        measured(last, *(2 * (encoding.output.constant,)))
    yield from lines
