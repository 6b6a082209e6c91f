"""The noises by name: those that move values, each at the scale that gives every value of it one root mean square, and
those that erase pixels, by the share that they keep; and those of a parameter that changes all values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from assay.verify.backends.smoothing import noises
from assay.verify.backends.smoothing.double import generalised_gaussian
from assay.verify.backends.smoothing.noises import Noise, with_rms
from assay.verify.backends.smoothing.noises.erasing import pixels
from assay.verify.backends.smoothing.noises.parameters import RESOLVED, OfParameter
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
    "masking",
    "ablation",
    "gamma",
    "contrast",
    "brightness",
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


ERASING = ("masking", "ablation")
OF_PARAMETER = tuple(RESOLVED)


@dataclass(frozen=True)
class Kind:
    """How much noise of which name: ``sigma``, the root mean square of each value or of the parameter, or ``keep``, the
    share of the pixels that is not erased. Raises :class:`InputError` for what cannot be."""

    name: Name = "gaussian"
    sigma: float = 0.25
    keep: float = 0.1

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.erases and not 0 < self.keep < 1:
            raise InputError(f"keep must be a share of the pixels between 0 and 1, got {self.keep}")
        if self.of_parameter:
            OfParameter(self.name, self.sigma)
        elif not self.erases:
            of_rms(self.name, self.sigma, 100)

    @property
    def erases(self) -> bool:
        """Whether it is for few changed pixels."""
        return self.name in ERASING

    @property
    def of_parameter(self) -> bool:
        """Whether it is for perturbations of one kind."""
        return self.name in OF_PARAMETER

    def __str__(self) -> str:
        return f"{self.name}, keep {self.keep:g}" if self.erases else f"{self.name}, {self.sigma:g}"

    def of(self, x: Tensor) -> Noise:
        """The noise for a sample x (shape)."""
        if self.of_parameter:
            return OfParameter(self.name, self.sigma)
        if not self.erases:
            return of_rms(self.name, self.sigma, x.numel())
        if self.name == "masking":
            return noises.Masking(self.keep)
        return noises.Ablation(max(1, round(self.keep * pixels(x).numel())))


def check_name(name: str) -> None:
    """Raise :class:`InputError` for an unknown noise."""
    if name not in get_args(Name):
        raise unknown_name("noise", name, get_args(Name))


def of_rms(name: Name, sigma: float, size: int) -> Noise:
    """The noise ``name``, its other parameters as they come, in which each of ``size`` values has the root mean square
    ``sigma``. Raises :class:`InputError` for noises without one."""
    check_name(name)
    if name in ERASING:
        raise InputError(f"{name} noise erases pixels, and has no deviation")
    if name in OF_PARAMETER:
        raise InputError(f"{name} noise is of one parameter, and not of each value")
    if not 0 < sigma < float("inf"):
        raise InputError(f"sigma must be a finite number > 0, got {sigma}")
    if name == "generalised-gaussian":
        return generalised_gaussian(sigma, size, max(0, size // 2 - REST))
    noise: Noise = with_rms(STANDARD[name](), sigma, size)
    return noise
