"""auto_LiRPA's bounds (Xu et al. 2020, arXiv:2002.12920; alpha-CROWN: Xu et al. 2021, arXiv:2011.13824) as a method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from math import inf
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from assay.verify.backends.lirpa.module import Layers, convex, unsupported
from assay.verify.backends.lirpa.shim import INSTALL, auto_lirpa, available
from assay.verify.bounds import layers
from assay.verify.bounds.groups import lower_bounds
from assay.verify.bounds.rounding import largest
from assay.verify.bounds.verdicts import both_sides, verify_by_bounds
from assay.verify.core.budget import UNLIMITED, Budget, Expired, running
from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Network, check_network
from assay.verify.core.ops import Add, LeakyRelu, Linear, Relu, Reshape, Scale, Sub
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall, Region
from assay.verify.core.result import Guarantee, Reason, Result, Verdict
from assay.verify.core.verifier import Bounds
from assay.verify.support.floats import length

HUGE = 1e150  # squares and sums of anything smaller are finite
DUAL = {1.0: inf, 2.0: 2.0}


@dataclass(frozen=True)
class LiRPA:
    """Bounds by the installed release of auto_LiRPA, 0.3 or newer, all of it in float64.

    ``method``: as auto_LiRPA calls it; ``iterations``: of the slopes' optimisation, for alpha-CROWN alone, which
    optimises the slopes towards the last layer and keeps CROWN's intermediate bounds; ``group``: samples that are
    bounded together. Regions other than boxes get their bounding box's intermediate bounds, and in the end the
    better of the box and the ball (IBP: the box).
    """

    method: Literal["IBP", "CROWN-IBP", "CROWN", "alpha-CROWN"] = "CROWN"
    iterations: int = 20
    group: int = 8
    name: ClassVar[str] = "lirpa"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.group < 1:
            raise InputError(f"iterations and group must be at least 1, got {self.iterations} and {self.group}")

    def supports(self, problem: Problem) -> str | None:
        """auto_LiRPA must be installed, and every operation have a layer."""
        missing = unsupported(problem.network)
        if missing:
            return f"{', '.join(missing)} is not given to auto_LiRPA"
        return None if available() else f"auto_LiRPA is not installed: {INSTALL}"

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """VERIFIED if the bounds prove it; UNKNOWN(solver) where auto_LiRPA itself fails."""
        return self.verify_many([problem], budget)[0]

    def verify_many(self, problems: Sequence[Problem], budget: Budget = UNLIMITED) -> list[Result]:
        """One result per problem; a failure on one does not touch the others."""
        budget = running(budget)
        try:
            return verify_by_bounds(self, problems, budget, self._rows, torch.float64)
        except UnsupportedError as error:
            if len(problems) > 1:
                return [self.verify(problem, budget) for problem in problems]
            why = {"explanation": str(error)}
            return [Result(problems[0].id, repr(self), Verdict.UNKNOWN, Reason.SOLVER, self.guarantee, stats=why)]

    def bound(self, network: Network, region: Region, objective: Tensor, budget: Budget = UNLIMITED) -> Bounds:
        """Bounds of ``objective @ network(x)`` over the region: (batch x rows).

        Raises :class:`UnsupportedError` for a network that auto_LiRPA cannot take.
        """
        check_network(network)
        if missing := unsupported(network):
            raise UnsupportedError(f"{', '.join(missing)} is not given to auto_LiRPA")
        return both_sides(self._rows, network, region, objective, budget, torch.float64)

    def _rows(self, network: Network, region: Region, objective: Tensor, budget: Budget, dtype: torch.dtype) -> Tensor:
        peer = auto_lirpa()
        network = convex(network).to(dtype)

        def of_group(network: Network, region: Region, objective: Tensor, budget: Budget) -> Tensor:
            try:
                with _alone(dtype), Deadline(budget):
                    lower = self._lower(peer, network, region, objective.to(dtype))
                return lower - _rounding(network, region, objective, budget, linear="IBP" not in self.method)
            except (Expired, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                if "allocate memory" in str(error):
                    raise MemoryError(str(error)) from error
                release = getattr(peer, "__version__", "")
                what = f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}"
                raise UnsupportedError(
                    f"auto_LiRPA {release} fails on this network with {self.method}: {what}"
                ) from error

        return lower_bounds(of_group, network, region, objective, budget, self.group)

    def _lower(self, peer: Any, network: Network, region: Region, objective: Tensor) -> Tensor:
        method: str = self.method
        if method == "alpha-CROWN" and not any(isinstance(node.op, (Relu, LeakyRelu)) for node in network.nodes):
            method = "CROWN"  # there is nothing to optimise
        box = region.box()
        lower, _ = self._over_box(peer, network, box, objective, method, slopes=False)
        if isinstance(region, LpBall) and region.p != inf and method != "IBP":
            plain = "CROWN" if method == "alpha-CROWN" else method
            least, slopes = self._over_box(peer, network, box, objective, plain, slopes=True)
            lower = torch.maximum(lower, _over_ball(least, slopes, box, region))
        # A release that slips out of float64 decides nothing.
        return lower if lower.dtype == torch.float64 else torch.full_like(lower, torch.nan)

    def _over_box(
        self, peer: Any, network: Network, box: Box, objective: Tensor, method: str, slopes: bool
    ) -> tuple[Tensor, Tensor]:
        """Lower bounds over the box (batch x rows), and, if asked for, the slopes of the linear functions that gave
        them (batch x rows x inputs)."""
        centre = box.centre
        old = getattr(peer, "__version__", "") == "0.3"
        module, options = Layers(network, batched=old), self._options(network, old)
        bounded = peer.BoundedModule(module, centre, bound_opts=options, device="cpu")
        x = peer.BoundedTensor(centre, peer.PerturbationLpNorm(norm=inf, x_L=box.lower, x_U=box.upper))
        source, sink = bounded.input_name[0], bounded.output_name[0]  # inputs come before parameters
        optimised = method == "alpha-CROWN"
        with torch.set_grad_enabled(optimised):
            answer = bounded.compute_bounds(
                x=(x,),
                C=objective,
                method="CROWN-Optimized" if optimised else method,
                bound_upper=False,
                return_A=slopes,
                needed_A_dict={sink: {source}} if slopes else None,
            )
        return answer[0].detach(), answer[2][sink][source]["lA"].detach().flatten(2) if slopes else answer[0]

    def _options(self, network: Network, old: bool) -> dict[str, Any]:
        """Patches are the fast form of convolutions, but release 0.3 takes elementwise sums of vectors for images,
        and cannot carry patches through a reshaping into images."""
        nodes = network.nodes
        images = all(len(node.shape) == 3 for node in nodes if isinstance(node.op, (Add, Sub, Scale)))
        flat = all(len(node.shape) == 1 for node in nodes if isinstance(node.op, (Reshape, Linear)))
        return {
            "conv_mode": "patches" if images and flat else "matrix",
            # Release 0.3 keeps sparse indices of slopes that it stored densely, and the other way round.
            "sparse_features_alpha": not old,
            "sparse_spec_alpha": not old,
            # No early stop: it would make a sample's bounds depend on its batch.
            "optimize_bound_args": {"iteration": self.iterations, "early_stop_patience": self.iterations + 1},
        }


def _rounding(network: Network, region: Region, objective: Tensor, budget: Budget, linear: bool) -> Tensor:
    """What rounding may take of linear bounds of the rows (batch x rows), by whatever lines over intervals, or with
    ``linear`` over linear bounds of the layers: auto_LiRPA adds up what we do, in some order. NaN where values are so
    large that it may overflow unnoticed."""
    bounder = layers.by_linear_bounds if linear else layers.by_intervals
    relaxed = bounder(network, region, torch.float64, budget)
    assert relaxed.rounding is not None
    if any(not largest(b).amax().item() < HUGE for b in relaxed.bounds):
        return objective.new_full(objective.shape[:-1], torch.nan, dtype=torch.float64)
    error = relaxed.rounding.anyhow(relaxed.bounds)[-1].flatten(1)
    return (objective.double().abs() @ error[:, :, None]).squeeze(2)


def _over_ball(least: Tensor, slopes: Tensor, box: Box, ball: LpBall) -> Tensor:
    """Over an l1 or l2 ball, the least value of the linear functions that have the least value ``least`` over a box.

    The constant term is worked out from ``least``: the one that release 0.3 returns lacks the network's constants.
    """
    middle, centre = box.centre.flatten(1), ball.centre.flatten(1)
    half = ((box.upper - box.lower) / 2).flatten(1)
    at_centre = least + (slopes.abs() @ half[:, :, None] + slopes @ (centre - middle)[:, :, None]).squeeze(2)
    radius = torch.as_tensor(ball.eps, dtype=torch.float64).reshape(-1, 1)
    over_ball: Tensor = at_centre - length(slopes, DUAL[float(ball.p)]) * radius
    return over_ball


class Deadline(TorchFunctionMode):
    """Raises :class:`Expired` from within code that knows no budget, between two of its calls."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self.budget = budget

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The call itself, if there is time for it."""
        self.budget.check()
        return func(*args, **(kwargs or {}))


@contextmanager
def _alone(dtype: torch.dtype) -> Iterator[None]:
    """auto_LiRPA makes tensors of torch's default dtype, draws random numbers, and prints: all of it is put back."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with redirect_stdout(StringIO()), torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_default_dtype(before)
