"""The interface of attacks: what they take, what they return, and the input that they refuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from assay.verify.core.budget import Expired
from assay.verify.core.errors import AssayError, InputError, ResourceError, UnsupportedError
from assay.verify.core.problem import Problem
from assay.verify.core.region import Intersection, LpBall, Region, Sparse, check_region
from assay.verify.core.region.sparse import channels
from assay.verify.support import shown
from assay.verify.support.failures import explained
from assay.verify.support.floats import length
from assay.verify.support.modules import MIXED, mixing

Model = Callable[[Tensor], Tensor]

# What a model's code raises on inputs that it was not made for; the end of a budget is none of these.


@dataclass(frozen=True, eq=False, repr=False)
class AttackResult:
    """The result of an attack, sample by sample.

    ``adversarial`` (batch x shape): exact members of the region in the dtype of the clean samples; for a broken
    sample the point that broke it, for the others the point of largest loss. ``success`` (batch), bool. ``loss``
    (batch): what the attack ascends, at ``adversarial``; -inf if no output was finite. ``distance`` (batch), float64:
    from the clean sample, in the region's norm; that of a minimal-norm attack is to the nearest point that breaks the
    sample, in the region or not, inf where none was found (:mod:`assay.attacks.common.minimal_norm`).
    ``queries`` (batch), int64: forward passes spent on the sample.
    """

    adversarial: Tensor
    success: Tensor
    loss: Tensor
    distance: Tensor
    queries: Tensor

    def __repr__(self) -> str:
        return shown.line("AttackResult", self.facts)

    def _repr_html_(self) -> str:
        return shown.table("AttackResult", self.facts)

    @property
    def facts(self) -> dict[str, object]:
        """What people want to see of it."""
        broken = self.distance[self.success].double()
        near = {} if not len(broken) else {"distances": shown.span(float(broken.min()), float(broken.max()))}
        mean = float(self.queries.double().mean()) if len(self.queries) else 0.0
        return {"broken": f"{len(broken)} of {len(self.success)}", **near, "queries": f"{mean:g} a sample"}


@runtime_checkable
class Attack(Protocol):
    """A search for points that a model gets wrong. Options are the fields of a frozen dataclass.

    What a sample draws, and every step that it takes, depend on the sample, its region and the seed, not on what else
    is in the batch. Only outputs depend on it, in their last digits: a matrix product rounds differently with the size
    of the batch and the place in it. A gradient within rounding of 0 may then have the other sign, and the point lie
    elsewhere; where no product rounds, all batches give the same bits. Success is confirmed in a batch of one.
    """

    name: ClassVar[str]

    def run(self, model: Model, x: Tensor, labels: Tensor, region: Region, seed: int = 0) -> AttackResult:
        """Attack classification: x (batch x shape), labels (batch); success where the label is not strictly largest.

        ``region``: of one sample's shape, it then serves the whole batch, or of the batch.
        Arrays and lists are taken, too. Raises :class:`InputError` as :func:`check_model`, :func:`check_inputs` and
        :func:`assay.verify.support.arrays.as_labels` do.
        """
        ...

    def search(self, problems: Sequence[Problem], seed: int = 0) -> AttackResult:
        """Attack each problem's own specification from the centre of its region; success where it is violated."""
        ...


@runtime_checkable
class Drawing(Protocol):
    """An attack that says whether it draws at random."""

    @property
    def random(self) -> bool:
        """Whether the result depends on the seed."""
        ...


def draws(attack: Attack) -> bool:
    """Whether another seed may give another result, which is assumed of an attack that does not say."""
    return not isinstance(attack, Drawing) or attack.random


def check_model(model: Model, x: Tensor) -> None:
    """Refuse a module in train mode, or with parameters of another dtype or device than ``x`` (batch x shape)."""
    if not isinstance(model, nn.Module):
        if not callable(model):
            raise InputError(f"expected a model that can be called on a batch, got {type(model).__name__}")
        return
    training = next((name for name, module in model.named_modules() if module.training), None)
    if training is not None:
        where = f"its submodule {training!r}" if training else "it"
        raise InputError(f"expected a model in eval mode, but {where} is in train mode: call model.eval() first")
    if mixed := mixing(model):
        raise InputError(MIXED.format(", ".join(mixed)))
    if lazy := next((name for name, weight in model.named_parameters() if is_lazy(weight)), ""):
        raise InputError(f"tensor {lazy!r} of the model has no shape yet: run a batch through the model first")
    weights = [p for p in model.parameters() if p.is_floating_point()]
    dtypes, devices = {p.dtype for p in weights}, {p.device for p in weights}
    if dtypes and x.dtype not in dtypes:
        raise InputError(f"expected inputs of the model's dtype {dtypes.pop()}, got {x.dtype}: convert one of them")
    if devices and x.device not in devices:
        raise InputError(f"expected inputs on the model's device {devices.pop()}, got {x.device}: move one of them")


def check_inputs(x: Tensor, region: Region) -> None:
    """Refuse samples x (batch x shape) that are not finite floats within ``region``, of one sample's or x's shape."""
    if x.dim() < 2:
        raise InputError(f"expected a batch of samples (batch x shape), got shape {tuple(x.shape)}: add the batch")
    if not x.is_floating_point():
        raise InputError(f"expected floating-point samples, got {x.dtype}: convert them, x.float()")
    if not bool(x.isfinite().all()):
        raise InputError("the samples hold NaN or inf")
    check_region(region)
    sample = tuple(x.shape[1:])
    if tuple(region.shape) not in (sample, tuple(x.shape)):
        raise InputError(f"expected a region of shape {sample} or {tuple(x.shape)}, got {tuple(region.shape)}")
    if isinstance(region, LpBall) and isinstance(region.eps, Tensor) and region.eps.dim():
        per_sample = region.shape == tuple(x.shape) and tuple(region.eps.shape) == (len(x),)
        if not per_sample:
            raise InputError(f"expected one eps, or one per sample ({len(x)},), got shape {tuple(region.eps.shape)}")
    outside = (~region.contains(x)).nonzero()
    if len(outside):
        raise InputError(f"expected clean samples inside of the region, sample {int(outside[0])} lies outside")


def check_problems(problems: Sequence[Problem]) -> None:
    """Refuse anything but a sequence of problems."""
    if not isinstance(problems, Sequence) or not all(isinstance(problem, Problem) for problem in problems):
        what = "Problem.robustness_many makes them from samples, and run() attacks samples"
        raise InputError(f"expected a sequence of problems, got {type(problems).__name__}: {what}")


def forward(model: Model, x: Tensor) -> Tensor:
    """The outputs at x (batch x shape), flattened to (batch x outputs).

    Raises :class:`InputError` if the model does not run on x or returns something else; :class:`Expired` passes.
    """
    try:
        y = model(x)
    except Exception as error:  # whatever the user's code raises
        if isinstance(error, (AssayError, Expired)) or isinstance(explained(error), ResourceError):
            raise
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"the model does not run on inputs of shape {tuple(x.shape)}: {line}") from error
    if not isinstance(y, Tensor) or y.dim() < 2 or len(y) != len(x):
        got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise InputError(f"expected outputs (batch x classes) for a batch of {len(x)}, got {got}")
    return y.flatten(1)


def norm(region: Region) -> float:
    """The norm that the region is measured in, that of an intersection's roundest ball; boxes and polytopes have the
    maximum norm, and few changed pixels 0."""
    if isinstance(region, Intersection):
        return region.round.p
    return 0.0 if isinstance(region, Sparse) else region.p if isinstance(region, LpBall) else inf


def distances(clean: Tensor, x: Tensor, region: Region) -> Tensor:
    """How far x lies from ``clean`` (both batch x shape), measured as the region is, in pixels where few of them may
    change: (batch), float64."""
    if isinstance(region, Sparse):
        return channels(x != clean).any(1).flatten(1).sum(1).double()
    return length((x.double() - clean.double()).flatten(1), norm(region))


def balls_only(attack: str, region: Region) -> None:
    """Refuse few changed pixels and intersections, for attacks whose steps are made for balls and boxes."""
    if isinstance(region, (Sparse, Intersection)):
        what = "few changed pixels" if isinstance(region, Sparse) else "an intersection of balls"
        raise UnsupportedError(f"{attack} is for boxes and balls, got {what}: sparse-rs, pgd and random take them")
