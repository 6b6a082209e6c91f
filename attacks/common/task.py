"""The task of an attack, made from a labelled batch or from problems, and the record of its best points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from math import inf

import torch
from torch import Tensor, nn

from assay.attacks.common.interface import (
    AttackResult,
    Model,
    check_inputs,
    check_model,
    check_problems,
    distances,
    forward,
    norm,
)
from assay.attacks.common.losses import Goal, LossName, Misclassify, Violate
from assay.attacks.common.targeted import Reach
from assay.verify.core.binary import class_scores
from assay.verify.core.errors import InputError, InternalError
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall, Polytope, Region, kind, plain, stack, take
from assay.verify.support.arrays import as_labels, as_tensor


@dataclass(frozen=True, eq=False)
class Task:
    """A model, clean members (batch x shape) of a region of one sample's shape or the batch's, and a goal.

    ``lower`` and ``upper``, in the dtype of the members, broadcast against them. Where the region is a box (``is_box``)
    they are its lowest and highest member, so that projecting is one clamp; otherwise its bounding box, narrowed by a
    ten-thousandth.
    """

    model: Model
    clean: Tensor
    region: Region
    goal: Goal
    lower: Tensor
    upper: Tensor
    is_box: bool

    @classmethod
    def of(cls, model: Model, clean: Tensor, region: Region, goal: Goal) -> Task:
        """The task on all samples ``clean`` (batch x shape)."""
        if norm(region) == inf and isinstance(region, (Box, LpBall)):
            far = torch.full_like(clean if len(region.shape) == clean.dim() else clean[:1], inf)
            return cls(model, clean, region, goal, region.project(-far), region.project(far), True)
        box = region.box()
        rim = (box.upper - box.lower) * 1e-4
        return cls(model, clean, region, goal, (box.lower + rim).to(clean), (box.upper - rim).to(clean), False)

    def take(self, index: Tensor) -> Task:
        """The task on the samples at the positions ``index`` (samples) only."""
        clean, goal = self.clean[index], self.goal.take(index)
        if len(self.region.shape) < self.clean.dim():
            return replace(self, clean=clean, goal=goal)
        region, lower, upper = take(self.region, index), self.lower[index], self.upper[index]
        return replace(self, clean=clean, goal=goal, region=region, lower=lower, upper=upper)

    def step(self, x: Tensor, direction: Tensor, size: float | Tensor) -> Tensor:
        """The member after a step of ``size`` radii from x of steepest ascent along ``direction``, all (batch x shape).

        ``size``: one number, or one per sample, (batch x 1 x ...).
        """
        if self.is_box:
            return torch.clamp(x + size * self.region.steepest(direction), self.lower, self.upper)
        # A coordinate at the edge of the domain cannot move further out, and would use up an l1 or l2 step.
        stuck = ((x >= self.upper) & (direction > 0)) | ((x <= self.lower) & (direction < 0))
        return self.region.project(x + size * self.region.steepest(direction.masked_fill(stuck, 0)))

    def project(self, x: Tensor) -> Tensor:
        """Each finite x (batch x shape) projected onto the region: (batch x shape)."""
        return torch.clamp(x, self.lower, self.upper) if self.is_box else self.region.project(x)

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and success, both (batch), at x (batch x shape); where an output is not finite, and next to a polytope,
        -inf and no success."""
        y = forward(self.model, x)
        loss, success = self.goal(y)
        counts = y.detach().isfinite().all(1)
        if isinstance(self.region, Polytope):  # projections may fail
            counts = counts & self.region.contains(x.detach())
        return torch.where(counts, loss, -inf), success & counts

    def confirm(self, x: Tensor, success: Tensor) -> Tensor:
        """``success`` (batch) at x (batch x shape) where it holds in a batch of one too, whose rounding may differ."""
        successes = success.nonzero()[:, 0].tolist()
        if len(x) == 1 or not successes:
            return success
        confirmed = success.clone()
        for i in successes:
            one = slice(i, i + 1)
            confirmed[one] = self.take(torch.tensor([i], device=x.device)).evaluate(x[one])[1]
        return confirmed


class Record:
    """The best point of each sample so far, with its loss, and its queries, as in :class:`AttackResult`."""

    def __init__(self, clean: Tensor) -> None:
        n, device = len(clean), clean.device
        self.clean = clean
        self.adversarial = clean.clone()
        self.success = torch.zeros(n, dtype=torch.bool, device=device)
        self.loss = torch.full((n,), -inf, dtype=torch.float64, device=device)
        self.queries = torch.zeros(n, dtype=torch.int64, device=device)

    def note(self, index: Tensor, x: Tensor, loss: Tensor, success: Tensor) -> None:
        """One forward pass of the unbroken samples ``index`` (samples) at x (samples x shape).

        ``loss``, ``success`` (samples): x is kept where it succeeds, or has the largest loss so far.
        """
        self.queries[index] += 1
        better = success | (loss > self.loss[index])
        rows = index[better]
        self.adversarial[rows] = x[better]
        self.loss[rows] = loss[better].to(self.loss)
        self.success[rows] = success[better]

    @property
    def standing(self) -> Tensor:
        """Positions of the samples that are not broken: (samples), int64."""
        return (~self.success).nonzero()[:, 0]

    def result(self, region: Region) -> AttackResult:
        """The record as a result. Raises :class:`InternalError` if a point is not a member of the region."""
        if not bool(region.contains(self.adversarial).all()):
            raise InternalError("an attack left its region: please report it with the region and the model")
        distance = distances(self.clean, self.adversarial, region)
        return AttackResult(self.adversarial, self.success, self.loss, distance, self.queries)


class Classifier(nn.Module):
    """A model by the scores of its classes: (batch x classes), two for a model of one output."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """The scores at x: (batch x shape) to (batch x classes)."""
        return class_scores(forward(self.model, x))


Method = Callable[[Task], AttackResult]


def run(
    model: Model,
    x: Tensor,
    labels: Tensor,
    region: Region,
    loss: LossName,
    method: Method,
    targeted: bool = False,
) -> AttackResult:
    """:meth:`Attack.run` for a ``method`` that works on tasks: x (batch x shape), labels (batch).

    ``targeted``: the goal is to reach the labels. A model of one output has two classes
    (:mod:`assay.verify.core.binary`). Raises as :meth:`Attack.run` does, and if the model gives no finite output for a
    sample.
    """
    with torch.inference_mode(False), torch.no_grad():
        clean = as_tensor(x, "samples").clone()
        region = plain(region, tuple(clean.shape[1:])) if isinstance(region, LpBall) else region
        check_inputs(clean, region)
        classes = as_labels(labels, len(clean)).clone().to(clean.device)
        check_model(model, clean)
        goal: Goal = (Reach if targeted else Misclassify).of(classes, loss)
        result = method(Task.of(Classifier(model), clean, region, goal))
    dead = (result.loss == -inf).nonzero()
    if len(dead):
        raise InputError(f"the model gave no finite output for sample {int(dead[0])}: look for NaN or inf weights")
    return result


def search(problems: Sequence[Problem], method: Method, loss: LossName = "margin") -> AttackResult:
    """:meth:`Attack.search` for a ``method`` that works on tasks, by what a ``loss`` is for rows of a specification;
    the result is on the CPU.

    One batch per network and kind of region. Runs the oracle where it is a module, otherwise the network, in the
    oracle's dtype. A region without a member in that dtype costs no query and stays unbroken. Raises
    :class:`InputError` for problems of several input shapes or dtypes.
    """
    check_problems(problems)
    kinds = {(p.network.input_shape, p.network.dtype) for p in problems}
    if len(kinds) > 1:
        raise InputError(f"expected problems of one input shape and dtype, got {sorted(map(str, kinds))}")
    shape, dtype = next(iter(kinds), ((), torch.float32))
    groups: dict[object, list[int]] = {}
    for position, problem in enumerate(problems):
        groups.setdefault((id(problem.network), kind(plain(problem.region, shape))), []).append(position)
    with torch.inference_mode(False), torch.no_grad():
        blank = Record(torch.zeros((len(problems), *shape), dtype=dtype))
        distance = torch.zeros(len(problems), dtype=torch.float64)
        whole = AttackResult(blank.adversarial, blank.success, blank.loss, distance, blank.queries)
        for positions in groups.values():
            region = stack([plain(problems[i].region, shape) for i in positions])
            clean = region.project(region.centre.to(dtype))
            whole.adversarial[positions] = clean
            members = region.contains(clean).nonzero()[:, 0]
            if not len(members):
                continue
            if len(members) < len(positions):
                region, clean = take(region, members), clean[members]
                positions = [positions[i] for i in members.tolist()]
            model, device = _model(problems[positions[0]])
            clean = clean.to(device)
            check_model(model, clean)
            goal = Violate.of([problems[i].spec for i in positions], device, loss)
            result = method(Task.of(model, clean, region, goal))
            for part in fields(AttackResult):
                getattr(whole, part.name)[positions] = getattr(result, part.name).cpu()
    return whole


def _model(problem: Problem) -> tuple[Model, torch.device]:
    """The model to run, and its device."""
    oracle = problem.network.oracle
    if not isinstance(oracle, nn.Module):
        return problem.network, torch.device("cpu")
    weight = next(oracle.parameters(), None)
    return oracle, torch.device("cpu") if weight is None else weight.device
