"""Labels: places of the largest values and what is equal among whole numbers; a label that is the model's answer is
read as the scores that it is chosen from."""

from __future__ import annotations

from torch import Tensor

from assay.verify.core.ops import Sub
from assay.verify.frontends import composed, labels
from assay.verify.frontends.composed import Value, number
from assay.verify.frontends.refusal import Untranslatable
from assay.verify.frontends.translation import Handler, Operand, Step
from assay.verify.frontends.translations.arithmetic import affine, constant


def place(sign: float) -> Handler:
    """The rule of where the largest value is, or with -1 the smallest: the first such one."""

    def rule(step: Step) -> Value | Tensor:
        x: Operand = step["self"]
        shape, axis = x.number.shape, step["dim"]
        if axis is None:
            raise Untranslatable("over all axes, of which one is the batch's")
        axis %= len(shape)
        n = shape[axis]
        scores = step.value("self", lambda t: t.movedim(axis, -1))
        scores = composed.scaled(step.emit, scores, sign)
        if step.ends and not step.live and axis and x.number.numel() == n > 1:
            return step.translation.ends_in(step, "argmax", composed.reshaped(step.emit, scores, (n,)))
        return step.shaped(labels.place(step.emit, scores))

    return rule


def equal(opposite: bool) -> Handler:
    """The rule of where two whole numbers or truth values are equal, or are not."""

    def rule(step: Step) -> Value:
        if any(o.number.is_floating_point() for name in ("self", "other") if isinstance(o := step[name], Operand)):
            raise Untranslatable("whether two values are equal, of which almost none are")
        if step.traced("self") and step.traced("other"):
            x = step.spread("self")
            gap = step.emit(Sub(), x, step.spread("other"), shape=x.shape)
        else:
            name, other = ("self", "other") if step.traced("self") else ("other", "self")
            gap = affine(step, name, number(1.0), -constant(step, other))
        same = labels.zero(step.emit, gap, True)
        return composed.negated(step.emit, same) if opposite else same

    return rule
