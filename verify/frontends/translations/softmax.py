"""Softmax: the one that a classifier ends in is left out, as the order of the outputs stays the same; any other is a
function of the differences of its operands."""

from __future__ import annotations

from math import inf

from torch import Tensor

from assay.verify.frontends import composed
from assay.verify.frontends.composed import Value
from assay.verify.frontends.refusal import Untranslatable
from assay.verify.frontends.translation import Handler, Operand, Step
from assay.verify.frontends.translations.arithmetic import axes_of, last


def softmax(logarithm: bool) -> Handler:
    """The rule of the softmax over one axis, or of its logarithm."""

    def rule(step: Step) -> Tensor:
        axis, whole = int(step["dim"]) % max(len(step.shape), 1), step["self"].traced
        if step.given.get("half_to_float"):
            raise Untranslatable("casts to another precision")
        if step.ends and not step.live and axis == 1 and len(step.shape) == 2 and step.shape[0] == 1 and whole:
            return step.translation.ends_in(step, NAMES[logarithm], step.value("self"))
        return _over(step, axis, composed.log_softmax if logarithm else composed.softmax)

    return rule


NAMES = {True: "log_softmax", False: "softmax"}


def _over(step: Step, axis: int, function: composed.Softmax) -> Tensor:
    """What a mask has set to -inf is left out, and a constant in the result."""
    given: Operand = step["self"]
    origin, number = given.origins.movedim(axis, -1), given.number.movedim(axis, -1)
    absent = (origin == 0) & (number == -inf)
    some = bool(absent.any())
    x = step.translation.node(origin, number.masked_fill(absent, 0.0))
    y = function(step.emit, x, absent.view(x.shape) if some else None)
    return step.origins(y, origin.shape).masked_fill(absent, 0.0).movedim(-1, axis)


def log_sum_exp(step: Step) -> Value:
    """``log sum_j exp(x_j)`` over some axes."""
    axes = axes_of(step)
    return composed.log_sum_exp(step.emit, step.value("self", lambda x: last(x, axes)))


def attention(step: Step) -> list[Tensor]:
    """``softmax(scale q k^T) v`` of heads: q, k and v are (1 x heads x tokens x features)."""
    q, k, v = (step.value(name, lambda x: x.flatten(0, 1)[None]) for name in ("query", "key", "value"))
    options = ("attn_mask", "attn_bias", "is_causal", "dropout_p")
    if any(step.given.get(name) not in (None, False, 0.0) for name in options):
        raise Untranslatable("with a mask or dropout in a kernel of its own: use SDPBackend.MATH")
    scale = step.given.get("scale") or q.shape[-1] ** -0.5
    return [step.origins(composed.attention(step.emit, q, k, v, scale), step.shape)]
