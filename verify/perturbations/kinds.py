"""What can happen to an image, by name: each kind with its parameters, what it makes of one image at given values, and
what it makes over cells of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import inf, isfinite, pi

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.verify.core.errors import InputError, UnsupportedError, unknown_name
from assay.verify.perturbations import ranges
from assay.verify.perturbations.ranges import Range

# By name: the parameters, what one number a in parentheses means, and which of the parameters' ends are legal.
KINDS = {
    "rotation": (("degrees",), "from -a to a degrees, about the centre", (-360.0, 360.0)),
    "translation": (("down", "right"), "from -a to a pixels, down and to the right", (-1000.0, 1000.0)),
    "scaling": (("factor",), "larger by factors from 1-a to 1+a, about the centre", (0.05, 20.0)),
    "shear": (("share",), "each row moved by -a to a of its distance from the middle one", (-10.0, 10.0)),
    "blur": (("share",), "a share of 0 to a of the mean of nine pixels", (0.0, 1.0)),
    "gamma": (("exponent",), "values to the power of 1/(1+a) to 1+a", (0.01, 100.0)),
    "contrast": (("factor",), "values times 1-a to 1+a", (0.0, inf)),
    "brightness": (("shift",), "values plus -a to a", (-inf, inf)),
}
GEOMETRY = ("rotation", "translation", "scaling", "shear")
ABOUT_ONE = ("scaling", "contrast")


@dataclass(frozen=True)
class Part:
    """One kind of change, its parameters between two ends."""

    kind: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("perturbation", self.kind, KINDS)
        least, most = KINDS[self.kind][2]
        if not (isfinite(self.low) and isfinite(self.high) and least <= self.low <= self.high <= most):
            raise InputError(f"expected {self.kind} from {least:g} to {most:g}, got {self.low:g} to {self.high:g}")

    def __str__(self) -> str:
        return f"{self.kind}({_written(self.low)},{_written(self.high)})"

    @property
    def count(self) -> int:
        """How many parameters it has."""
        return len(KINDS[self.kind][0])

    @property
    def still(self) -> float:
        """The value of its parameters at which it leaves an image as it is."""
        return 1.0 if self.kind in (*ABOUT_ONE, "gamma") else 0.0

    def scaled(self, share: float) -> Part:
        """The ends that share of the way from where nothing happens: shares below 1 lie within."""
        if share == 1:
            return self
        low, high = (self.still + share * (end - self.still) for end in (self.low, self.high))
        if share < 1:
            return Part(self.kind, max(low, self.low), min(high, self.high))
        least, most = KINDS[self.kind][2]
        if not least <= low <= high <= most:
            far = f"{self.kind} from {low:g} to {high:g}, and it goes from {least:g} to {most:g}"
            raise InputError(f"{share:g} times the range of {self} is {far}: take a smaller eps, a share of the range")
        return Part(self.kind, low, high)

    @classmethod
    def parse(cls, text: str) -> Part:
        """``rotation(10)``, with both ends ``rotation(-5,20)``."""
        match = re.fullmatch(r"\s*([a-z]+)\s*\(([^()]*)\)\s*", text)
        if match is None:
            raise InputError(f"expected a perturbation such as rotation(10) or rotation(-5,20), got {text.strip()!r}")
        kind, numbers = match[1], match[2].split(",")
        if kind not in KINDS:
            raise unknown_name("perturbation", kind, KINDS)
        try:
            ends = [float(number) for number in numbers]
        except ValueError:
            raise InputError(f"expected one or two numbers in {text.strip()!r}") from None
        if len(ends) > 2:
            raise InputError(f"expected one or two numbers in {text.strip()!r}, got {len(ends)}")
        return cls(kind, ends[0], ends[1]) if len(ends) == 2 else cls(kind, *_both(kind, ends[0]))


def _written(number: float) -> str:
    """As short as it says which number it is."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def _both(kind: str, a: float) -> tuple[float, float]:
    """The ends that one number stands for."""
    if not (isfinite(a) and a >= 0):
        raise InputError(f"expected {kind}(a) with a number of at least 0, got {a:g}")
    if kind == "gamma":
        return 1 / (1 + a), 1 + a
    if kind == "blur":
        return 0.0, a
    return (1 - a, 1 + a) if kind in ABOUT_ONE else (-a, a)


@dataclass(frozen=True)
class Perturbation:
    """Changes that happen together. The image is blurred, then moved, all geometry as one map and one interpolation
    (bilinear, 0 beyond the border), the parts of that in the order in which they are written; then its values are
    changed: gamma, contrast, brightness; at last they are cut to the ``domain``. Gamma goes with neither blur nor
    geometry.
    """

    parts: tuple[Part, ...]
    domain: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        kinds = [part.kind for part in self.parts]
        if not kinds:
            raise InputError("expected at least one perturbation, such as rotation(10)")
        if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
            raise InputError(f"{twice} is given twice")
        if "gamma" in kinds and set(kinds) & {"blur", *GEOMETRY}:
            raise UnsupportedError("gamma has no bounded slope at black pixels: it goes with neither blur nor geometry")
        if "gamma" in kinds and self.domain != (0.0, 1.0):
            raise UnsupportedError(f"gamma is of values from 0 to 1, the domain is {self.domain}")

    @classmethod
    def parse(cls, text: str, domain: tuple[float, float] = (0.0, 1.0)) -> Perturbation:
        """``rotation(5)+brightness(0.1)``."""
        return cls(tuple(Part.parse(part) for part in text.split("+")), domain)

    def __str__(self) -> str:
        """As :meth:`parse` takes it, both ends of each part."""
        return "+".join(map(str, self.parts))

    @property
    def holds_still(self) -> bool:
        """Whether the values at which nothing happens to an image are among the parameters."""
        return all(part.low <= part.still <= part.high for part in self.parts)

    def scaled(self, share: float) -> Perturbation:
        """The ends that share of the way from where nothing happens to the image. Raises :class:`InputError` where what
        comes of it would not lie within this one."""
        if not 0 <= share < inf:
            raise InputError(f"expected a share of the parameters' ranges >= 0, got {share:g}")
        if share != 1 and not self.holds_still:
            raise InputError(f"shares of {self} do not lie within each other: nothing in it leaves the image as it is")
        return replace(self, parts=tuple(part.scaled(share) for part in self.parts))

    @property
    def low(self) -> Tensor:
        """The least values of all parameters: (parameters)."""
        return torch.tensor([p.low for p in self.parts for _ in range(p.count)], dtype=torch.float64)

    @property
    def high(self) -> Tensor:
        """The largest values of all parameters: (parameters)."""
        return torch.tensor([p.high for p in self.parts for _ in range(p.count)], dtype=torch.float64)

    @property
    def names(self) -> list[str]:
        """Of the parameters."""
        return [f"{p.kind} {name}" if p.count > 1 else p.kind for p in self.parts for name in KINDS[p.kind][0]]

    @property
    def stretch(self) -> float:
        """How many times the size of the image its coordinates may come to, on the way or in the end, at most."""
        found = 1.0
        for part in self.parts:
            if part.kind in GEOMETRY:
                most = 1 / part.low if part.kind == "scaling" else max(abs(part.low), abs(part.high))
                found *= 2.0 if part.kind == "rotation" else 1 + most
        return found

    @property
    def linear(self) -> list[bool]:
        """Of which parameters every pixel is an affine function while the others rest."""
        return [p.kind in ("blur", "contrast", "brightness") for p in self.parts for _ in range(p.count)]

    def images(self, image: Tensor, at: Tensor) -> Tensor:
        """The image (channels x height x width) at parameters (count x parameters): (count x image), in float64."""
        over = self.over(image, at, at)
        return (over.low + (over.high - over.low) / 2).view(len(at), *image.shape).clamp(*self.domain)

    def over(self, image: Tensor, low: Tensor, high: Tensor) -> Range:
        """Every pixel's values and slopes over cells of parameters, low and high (cells x parameters), before they are
        cut to the domain: (cells x values of the image). At cells of no width the values, but for rounding."""
        image = image.to(torch.float64)
        of = dict(self._parameters(low, high))
        count = low.shape[1]
        moved = self._moved(image, of, count)
        if "gamma" in of:
            moved = ranges.power(image.flatten()[None], of["gamma"][0])
        if "contrast" in of:
            moved = moved * of["contrast"][0]
        if "brightness" in of:
            moved = moved + of["brightness"][0]
        shape = (len(low), image.numel())
        sides = (moved.low.expand(shape), moved.high.expand(shape))
        return Range(*sides, moved.down.expand(count, *shape), moved.up.expand(count, *shape))

    def _parameters(self, low: Tensor, high: Tensor) -> list[tuple[str, list[Range]]]:
        """By kind its parameters as ranges (cells x 1)."""
        found, first = [], 0
        for part in self.parts:
            own = [ranges.parameter(k, low, high, 2) for k in range(first, first + part.count)]
            found.append((part.kind, own))
            first += part.count
        return found

    def _moved(self, image: Tensor, of: dict[str, list[Range]], count: int) -> Range:
        """The image blurred and moved: (cells x values), or (1 x values) where no parameter is of that."""
        kinds = [kind for kind in of if kind in GEOMETRY]
        layers = [image]
        if "blur" in of:
            layers.append(F.avg_pool2d(image[None], 3, 1, 1, count_include_pad=True)[0] - image)
        if kinds:
            y, x = self._sources(image, of, kinds, count)
            made = [_flat(ranges.interpolated(layer, y, x)) for layer in layers]
        else:
            made = [ranges.constant(layer.flatten()[None], count) for layer in layers]
        return made[0] if len(made) == 1 else made[0] + made[1] * of["blur"][0]

    def _sources(self, image: Tensor, of: dict[str, list[Range]], kinds: list[str], count: int) -> tuple[Range, Range]:
        """Where each pixel comes from: the coordinates (cells x pixels) down and to the right, from the first pixel."""
        height, width = image.shape[-2:]
        middle = ((height - 1) / 2, (width - 1) / 2)
        grid = torch.meshgrid(
            torch.arange(height, dtype=torch.float64) - middle[0],
            torch.arange(width, dtype=torch.float64) - middle[1],
            indexing="ij",
        )
        y, x = (ranges.constant(side.flatten()[None], count) for side in grid)
        for kind in reversed(kinds):  # what is done last is undone first
            y, x = _undone(kind, of[kind], y, x)
        return y.shifted(middle[0]), x.shifted(middle[1])


def _undone(kind: str, by: list[Range], y: Range, x: Range) -> tuple[Range, Range]:
    """Where a point comes from that a kind of geometry moved to (y, x), from the centre."""
    if kind == "rotation":
        angle = by[0].scaled(pi / 180)
        cos, sin = ranges.cosine(angle), ranges.sine(angle)
        return y * cos + x * sin, x * cos + (y * sin).scaled(-1.0)
    if kind == "translation":
        return y + by[0].scaled(-1.0), x + by[1].scaled(-1.0)
    if kind == "scaling":
        shrunk = ranges.inverse(by[0])
        return y * shrunk, x * shrunk
    return y, x + (y * by[0]).scaled(-1.0)


def _flat(r: Range) -> Range:
    """Channels and pixels as one axis."""
    return Range(r.low.flatten(1), r.high.flatten(1), r.down.flatten(2), r.up.flatten(2))
