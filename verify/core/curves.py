"""Smooth functions of one number: the table of what is known of each, one entry a curve.

All that bounds and errors need of a curve follows from its function, its derivative, and the points between which it
is convex or concave. A new activation is one more entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from math import inf, isfinite, pi, sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.core.errors import InputError, UnsupportedError

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Curve:
    """A function of one number and its ``derivative``, both element by element, on tensors of any shape.

    ``breaks``: where the derivative turns from rising to falling or back, in order, other than ``poles``; at a break
    at which it jumps, it has its value on the convex side. ``domain``: outside of it nothing is defined, and at an end
    of it the function may be infinite. ``poles``: points that an interval must not contain. ``period``: of a function
    that repeats, whose breaks are those of one period; 0 for any other. ``turns``: where the function itself turns from
    rising to falling or back, as ``breaks``. ``kinks``: the breaks at which the derivative falls at once. ``image``:
    between which numbers all values lie. ``noise``: beside the value's own magnitude, that of what is summed on the way
    to it or to the derivative, which rounding errors are relative to; None where nothing cancels.

    Lines about a curve rest on its breaks and poles. They are sound but may be loose where one line touches two convex
    pieces.
    """

    function: Function
    derivative: Function
    breaks: tuple[float, ...] = ()
    domain: tuple[float, float] = (-inf, inf)
    poles: tuple[float, ...] = ()
    period: float = 0.0
    turns: tuple[float, ...] = ()
    kinks: tuple[float, ...] = ()
    image: tuple[float, float] = (-inf, inf)
    noise: Function | None = None


@lru_cache(maxsize=256)
def curve(name: str, parameter: float = 0.0) -> Curve:
    """The curve of a name in :data:`CURVES`. Raises :class:`UnsupportedError` for an unknown name, and
    :class:`InputError` for a parameter that it has no meaning for."""
    if name not in CURVES:
        raise UnsupportedError(f"there is no curve {name!r} (known: {', '.join(sorted(CURVES))})")
    entry = CURVES[name]
    return entry if isinstance(entry, Curve) else entry(parameter)


def _tanh_slope(x: Tensor) -> Tensor:
    return x.cosh().square().reciprocal()


def _sigmoid_slope(x: Tensor) -> Tensor:
    return x.sigmoid() * x.neg().sigmoid()


def _gelu_slope(x: Tensor) -> Tensor:
    density = (-x.square() / 2).exp() / sqrt(2 * pi)
    below: Tensor = torch.special.ndtr(x)
    return below + x * density


def _gelu_tanh_slope(x: Tensor) -> Tensor:
    x = x.clamp(-100.0, 100.0)  # where it is 0 or 1 already, and nothing overflows
    inner, rise = sqrt(2 / pi) * (x + 0.044715 * x**3), sqrt(2 / pi) * (1 + 3 * 0.044715 * x.square())
    right, left = (2 * inner).sigmoid(), (-2 * inner).sigmoid()
    return right + 2 * x * right * left * rise


def _silu_slope(x: Tensor) -> Tensor:
    return x.sigmoid() * (1 + x * x.neg().sigmoid())


def _softplus(x: Tensor) -> Tensor:
    """Without the library's threshold, from which on it takes the function for the identity."""
    return torch.logaddexp(x, torch.zeros_like(x))


def _mish(x: Tensor) -> Tensor:
    return x * _softplus(x).tanh()


def _mish_slope(x: Tensor) -> Tensor:
    soft = _softplus(x)
    return soft.tanh() + x * x.sigmoid() * _tanh_slope(soft)


def _elu(alpha: float) -> Curve:
    if not 0 < alpha < inf:
        raise InputError(f"elu needs a finite parameter above 0, got {alpha}")
    breaks = (0.0,) if alpha > 1 else ()

    def slope(x: Tensor) -> Tensor:
        return torch.where(x > 0, 1.0, alpha * x.clamp(max=0).exp())

    def noise(x: Tensor) -> Tensor:
        return torch.full_like(x, alpha)

    return Curve(partial(F.elu, alpha=alpha), slope, breaks, kinks=breaks, noise=noise)


def _power(p: float) -> Curve:
    if not isfinite(p) or p == 0:
        raise InputError(f"power needs a finite exponent other than 0, got {p}")
    whole, odd = p == int(p), p % 2 == 1
    breaks = (0.0,) if whole and odd and p > 1 else ()
    turns = (0.0,) if whole and not odd and p > 0 else ()
    poles = (0.0,) if p < 0 else ()
    domain = (-inf, inf) if whole else (0.0, inf)
    image = (-inf, inf) if odd else (0.0, inf)
    return Curve(lambda x: x.pow(p), lambda x: p * x.pow(p - 1), breaks, domain, poles, turns=turns, image=image)


def _hardswish_slope(x: Tensor) -> Tensor:
    return torch.where(x.abs() <= 3, x / 3 + 0.5, (x > 0).to(x))


def _softsign_slope(x: Tensor) -> Tensor:
    return (1 + x.abs()).square().reciprocal()


def _one(x: Tensor) -> Tensor:
    return torch.ones_like(x)


GELU_TURN, GELU_TANH_TURN, SILU_TURN, MISH_TURN = (
    -0.7517915246935645,
    -0.7524614220710161,
    -1.2784645427610738,
    -1.1924312145154954,
)
GELU_TANH_BREAK, SILU_BREAK = 1.4185040087908283, 2.3993572805154675

# Curves, and families of them by their parameter.
CURVES: Mapping[str, Curve | Callable[[float], Curve]] = {
    "tanh": Curve(torch.tanh, _tanh_slope, (0.0,), image=(-1.0, 1.0)),
    "sigmoid": Curve(torch.sigmoid, _sigmoid_slope, (0.0,), image=(0.0, 1.0)),
    "erf": Curve(torch.erf, lambda x: 2 / sqrt(pi) * (-x.square()).exp(), (0.0,), image=(-1.0, 1.0)),
    "arctan": Curve(torch.arctan, lambda x: 1 / (1 + x.square()), (0.0,)),
    "arcsinh": Curve(torch.arcsinh, lambda x: torch.hypot(x, torch.ones_like(x)).reciprocal(), (0.0,)),
    "softsign": Curve(F.softsign, _softsign_slope, (0.0,), image=(-1.0, 1.0)),
    "gelu": Curve(F.gelu, _gelu_slope, (-sqrt(2), sqrt(2)), turns=(GELU_TURN,), noise=torch.abs),
    "gelu_tanh": Curve(
        partial(F.gelu, approximate="tanh"),
        _gelu_tanh_slope,
        (-GELU_TANH_BREAK, GELU_TANH_BREAK),
        turns=(GELU_TANH_TURN,),
        noise=torch.abs,
    ),
    "silu": Curve(F.silu, _silu_slope, (-SILU_BREAK, SILU_BREAK), turns=(SILU_TURN,), noise=torch.abs),
    "mish": Curve(_mish, _mish_slope, (-2.256376396360793, 1.4905711794854284), turns=(MISH_TURN,), noise=torch.abs),
    "hardswish": Curve(F.hardswish, _hardswish_slope, (-3.0, 3.0), turns=(-1.5,), kinks=(-3.0, 3.0), noise=torch.abs),
    "softplus": Curve(_softplus, torch.sigmoid, image=(0.0, inf), noise=_one),
    "logsigmoid": Curve(F.logsigmoid, lambda x: x.neg().sigmoid(), image=(-inf, 0.0), noise=_one),
    "elu": _elu,
    "exp": Curve(torch.exp, torch.exp, image=(0.0, inf)),
    "sinh": Curve(torch.sinh, torch.cosh, (0.0,)),
    "cosh": Curve(torch.cosh, torch.sinh, turns=(0.0,), image=(1.0, inf)),
    "log": Curve(torch.log, torch.reciprocal, domain=(0.0, inf)),
    "sqrt": Curve(torch.sqrt, lambda x: 0.5 * x.rsqrt(), domain=(0.0, inf), image=(0.0, inf)),
    "reciprocal": Curve(torch.reciprocal, lambda x: -x.square().reciprocal(), poles=(0.0,)),
    "square": Curve(torch.square, lambda x: 2 * x, turns=(0.0,), image=(0.0, inf)),
    "power": _power,
    "sin": Curve(torch.sin, torch.cos, (0.0, pi), period=2 * pi, turns=(pi / 2, 3 * pi / 2), image=(-1.0, 1.0)),
    "cos": Curve(
        torch.cos, lambda x: -x.sin(), (pi / 2, 3 * pi / 2), period=2 * pi, turns=(0.0, pi), image=(-1.0, 1.0)
    ),
}
