"""What a certificate is asked, and what it answers: a network at one point under noise, with its draws by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from assay.verify.backends.smoothing import confidence, deciding
from assay.verify.backends.smoothing.deciding import Outcome
from assay.verify.backends.smoothing.ledger import Draw, Ledger
from assay.verify.backends.smoothing.noises import Noise, Sampled
from assay.verify.backends.smoothing.noises.erasing import pixels
from assay.verify.backends.smoothing.sampling import BLOCK, Model, Stream
from assay.verify.core.errors import InputError

# Draws between two looks at the clock.
STRIDE = 10 * BLOCK


class OutOfTime(Exception):
    """A draw that must be whole could not be finished: nothing is known from it."""


@dataclass(frozen=True)
class Question:
    """A model at x (shape) with ``classes`` outputs, under ``noise``: its radius in ``norm``, at confidence 1 - alpha.

    ``n``: draws after a pilot of n0, at most. ``eps``: the radius that tests which stop early are to show. Draws are
    seeded by ``seed``, the point, the noise and their names. ``expired``: asked between draws.
    """

    model: Model
    x: Tensor
    classes: int
    noise: Noise
    norm: float = 2.0
    n: int = 100_000
    n0: int = 100
    alpha: float = 0.001
    seed: int = 0
    eps: float | None = None
    expired: Callable[[], bool] = deciding.never

    def __post_init__(self) -> None:
        confidence.check_alpha(self.alpha)
        if self.n < 1 or self.n0 < 1:
            raise InputError(f"expected n >= 1 and n0 >= 1 draws, got {self.n} and {self.n0}")

    @property
    def size(self) -> int:
        """Number of the point's values, of its pixels where they are what the radius counts."""
        return pixels(self.x).numel() if self.norm == 0 else self.x.numel()

    def stream(self, name: str, noise: Sampled | None = None) -> Stream:
        """A stream of its own for each ``name``, under the question's noise or another one."""
        return Stream(self.model, noise or self.noise, self.x, self.classes, self.seed, name)

    def draw(self, name: str, n: int, noise: Sampled | None = None) -> Draw:
        """The counts of n draws from the stream ``name``. Raises :class:`OutOfTime`."""
        stream, draw = self.stream(name, noise), Draw(name, [0] * (self.classes + 1))
        while draw.n < n:
            self._look()
            deciding.add(draw, stream.take(min(STRIDE, n - draw.n)))
        return draw

    def outputs(self, name: str, n: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As :meth:`Stream.outputs`, (k x shape) and (k x outputs) a block. Raises :class:`OutOfTime`."""
        for noisy, y in self.stream(name).outputs(n):
            self._look()
            yield noisy, y

    def pilot(self, ledger: Ledger) -> tuple[Draw, int | None]:
        """The draw that chooses the class, and the class; None where most outputs are tied or NaN."""
        draw = Draw("the pilot", self.stream("pilot").take(self.n0))
        label = ledger.choose(draw)
        return draw, None if label == self.classes else label

    def _look(self) -> None:
        if self.expired():
            raise OutOfTime


@dataclass(frozen=True)
class Certified:
    """The answer (None: abstained) and its certified radius, with the counts of both draws, class by class; the last
    count is of outputs that are tied or NaN."""

    prediction: int | None
    radius: float
    pilot: list[int]
    outcome: Outcome


def certified(label: int, radius: float, pilot: list[int], outcome: Outcome) -> Certified:
    """The answer where the radius is above 0, else the abstention."""
    return Certified(label, radius, pilot, outcome) if radius > 0 else abstained(pilot, outcome)


def abstained(pilot: list[int], outcome: Outcome | None = None) -> Certified:
    """No answer."""
    return Certified(None, 0.0, pilot, outcome or Outcome(0.0, [0] * len(pilot), 0))
