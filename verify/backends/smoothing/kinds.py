"""The noises by name, each at the scale that gives every value of it one root mean square."""

from __future__ import annotations

from typing import Literal, get_args

from assay.verify.backends.smoothing import noises
from assay.verify.backends.smoothing.double import generalised_gaussian
from assay.verify.backends.smoothing.noises import Noise, with_rms
from assay.verify.core.errors import InputError, unknown_name

Name = Literal[
    "gaussian",
    "laplace",
    "uniform",
    "pareto",
    "uniform-ball",
    "exp1",
    "exp2",
    "expinf",
    "expp",
    "powinf",
    "generalised-gaussian",
]

STANDARD = {
    kind.name: kind
    for kind in (
        noises.Gaussian,
        noises.Laplace,
        noises.Uniform,
        noises.Pareto,
        noises.UniformBall,
        noises.Exp1,
        noises.Exp2,
        noises.ExpInf,
        noises.Expp,
        noises.PowInf,
    )
}
# What the generalised Gaussian leaves of the exponent: the authors' choice for images of 784 values (size / 2 - k).
REST = 12


def check_name(name: str) -> None:
    """Raise :class:`InputError` for an unknown noise."""
    if name not in get_args(Name):
        raise unknown_name("noise", name, get_args(Name))


def of_rms(name: Name, sigma: float, size: int) -> Noise:
    """The noise ``name``, its other parameters as they come, in which each of ``size`` values has the root mean square
    ``sigma``. Raises :class:`InputError` for noises without one."""
    check_name(name)
    if not 0 < sigma < float("inf"):
        raise InputError(f"sigma must be a finite number > 0, got {sigma}")
    if name == "generalised-gaussian":
        return generalised_gaussian(sigma, size, max(0, size // 2 - REST))
    noise: Noise = with_rms(STANDARD[name](), sigma, size)
    return noise
