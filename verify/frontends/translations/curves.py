"""Smooth activations: each one curve of a value, scaled and shifted before and after."""

from __future__ import annotations

import math

import torch

from assay.verify.frontends import composed
from assay.verify.frontends.composed import Value, number, power, scaled, smooth, stepped, truncated
from assay.verify.frontends.refusal import Untranslatable
from assay.verify.frontends.translation import Handler, Operand, Step
from assay.verify.frontends.translations.arithmetic import affine, constant


def curve(
    name: str,
    parameter: float = 0.0,
    inner: tuple[float, float] = (1.0, 0.0),
    outer: tuple[float, float] = (1.0, 0.0),
) -> Handler:
    """The rule ``c f(a x + b) + d``, (a, b) = ``inner`` and (c, d) = ``outer``."""

    def rule(step: Step) -> Value:
        x = scaled(step.emit, step.value("self"), *inner)
        return scaled(step.emit, smooth(step.emit, x, name, parameter), *outer)

    return rule


def sigmoid(step: Step) -> Value:
    """The logistic function."""
    return composed.sigmoid(step.emit, step.value("self"))


def gelu(step: Step) -> Value:
    """``x`` times the normal distribution function of x, or that by a tanh."""
    names = {"none": "gelu", "tanh": "gelu_tanh"}
    return smooth(step.emit, step.value("self"), names[step["approximate"]])


def softplus(step: Step) -> Value:
    """``log(1 + exp(beta x)) / beta``; torch gives x itself beyond a threshold, which may not be told from it."""
    beta, threshold = float(step["beta"]), float(step["threshold"])
    unit = torch.finfo(step.translation.sample.dtype).eps / 2
    if beta <= 0 or not math.log1p(math.exp(-threshold)) <= unit * threshold:
        raise Untranslatable(f"jumps at its threshold {threshold:g} (beta {beta:g}) by more than is rounded")
    x = scaled(step.emit, step.value("self"), beta)
    return scaled(step.emit, smooth(step.emit, x, "softplus"), 1 / beta)


def elu(step: Step) -> Value:
    """``scale`` times x where x > 0, times ``alpha (exp(input_scale x) - 1)`` elsewhere; SELU and CELU are such."""
    alpha, scale, inner = (float(step[name]) for name in ("alpha", "scale", "input_scale"))
    if inner <= 0:
        raise Untranslatable(f"an input scale of {inner:g}, expected a positive one")
    x = scaled(step.emit, step.value("self"), inner)
    return scaled(step.emit, smooth(step.emit, x, "elu", alpha * inner), scale / inner)


def celu(step: Step) -> Value:
    """``x`` where x > 0, ``alpha (exp(x / alpha) - 1)`` elsewhere."""
    alpha = float(step["alpha"])
    if alpha <= 0:
        raise Untranslatable(f"an alpha of {alpha:g}, expected a positive one")
    x = scaled(step.emit, step.value("self"), 1 / alpha)
    return scaled(step.emit, smooth(step.emit, x, "elu", 1.0), alpha)


def gated(step: Step) -> Value:
    """One half of a value times the logistic function of the other half."""
    axis, size = int(step["dim"]), step["self"].number.shape[int(step["dim"])] // 2
    first = step.value("self", lambda x: x.narrow(axis, 0, size))
    second = step.value("self", lambda x: x.narrow(axis, size, size))
    return composed.product(step.emit, first, composed.sigmoid(step.emit, second))


def exponentiation(step: Step) -> Value:
    """A value to a constant power, or a positive constant to the power of a value."""
    if not (isinstance(step["exponent"], Operand) and step.traced("exponent")):
        exponent = constant(step, "exponent")
        if not exponent.numel() or bool((exponent != exponent.flatten()[0]).any()):
            raise Untranslatable("to several powers")
        return power(step.emit, step.spread("self"), float(exponent.flatten()[0]))
    if isinstance(step["self"], Operand) and step.traced("self"):
        raise Untranslatable("to a power that depends on the input")
    base = constant(step, "self")
    if not bool((base > 0).all()):
        raise Untranslatable("of a base that is not positive")
    return smooth(step.emit, affine(step, "exponent", base.log(), number(0.0)), "exp")


def steps(kind: str) -> Handler:
    """The rule of a function that is constant in pieces."""

    def rule(step: Step) -> Value:
        if step.given.get("decimals"):
            raise Untranslatable("to decimals")
        return stepped(step.emit, step.value("self"), kind)

    return rule


def trunc(step: Step) -> Value:
    """Towards zero."""
    return truncated(step.emit, step.value("self"))
