"""Draws: how often a network gives each answer under noise, drawn in blocks that do not depend on who asks for them.

Each sample has streams of its own, seeded by the seed, the sample's values and the noise. A stream is drawn, and the
network run, in whole blocks of ``BLOCK`` noisy copies, in one buffer: the first n answers are the same whatever is
asked for before or after them, and whatever else is in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from assay.verify.backends.smoothing.noises import Sampled
from assay.verify.core.network import content_hash
from assay.verify.core.problem import Problem
from assay.verify.perturbations import Perturbed

# Divides the customary numbers of draws; part of what a seed means.
BLOCK = 100
# The largest spacing of numbers about the input, in parts of sigma.
FINEST = 2.0**-10
# Blocks whose outputs are kept until their answers are counted.
TOGETHER = 10

Model = Callable[[Tensor], Tensor]


class Stream:
    """Answers of ``model`` under ``noise`` at ``x`` (shape); ``name`` tells the streams of one sample apart.

    Answers are classes; where the largest output is shared or NaN it counts as the class number ``classes``.
    """

    def __init__(self, model: Model, noise: Sampled, x: Tensor, classes: int, seed: int, name: str) -> None:
        self.model, self.noise, self.x, self.classes = model, noise, x.contiguous(), classes
        key = content_hash("smoothing", seed, repr(noise), self.x, name)
        self.generator = torch.Generator(x.device).manual_seed(int(key[:15], 16))
        self.buffer = torch.empty((BLOCK, *x.shape), dtype=x.dtype, device=x.device)
        self.left = torch.empty(0, dtype=torch.int64, device=x.device)

    @torch.inference_mode()
    def take(self, n: int) -> list[int]:
        """How often each class was the answer in the next n draws, ties and NaN last: classes + 1 counts."""
        counts = torch.zeros(self.classes + 1, dtype=torch.int64, device=self.x.device)
        while n:
            if not len(self.left):
                self.left = self._answers(min(-(-n // BLOCK), TOGETHER))
            now, self.left = self.left[:n], self.left[n:]
            counts += torch.bincount(now, minlength=self.classes + 1)
            n -= len(now)
        return [int(count) for count in counts]

    @torch.inference_mode()
    def outputs(self, n: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The next n draws themselves, block by block, with their outputs: (k x shape), (k x outputs). The noisy
        copies are overwritten by the next block; the rest of the last block is dropped."""
        for start in range(0, n, BLOCK):
            y = self._run()
            yield self.buffer[: n - start], y[: n - start]

    def _run(self) -> Tensor:
        return self.model(self.noise.sample(self.x, BLOCK, self.generator, out=self.buffer)).flatten(1)

    def _answers(self, blocks: int) -> Tensor:
        """The answers of so many blocks. They are told from the outputs all at once: what runs after each block pushes
        the network out of the caches. Copied, since a model may return its input, which the next block overwrites."""
        return answers(torch.cat([self._run().clone() for _ in range(blocks)]))


def answers(y: Tensor) -> Tensor:
    """The class of each output y (n x classes); ``classes`` where the largest is shared or NaN."""
    value, answer = y.topk(2, dim=1)
    return torch.where(value[:, 0] > value[:, 1], answer[:, 0], y.shape[1])  # NaN sorts first, and exceeds nothing


def drowned(x: Tensor, sigma: float) -> str | None:
    """Why noise of root mean square ``sigma`` is lost at x (shape) in its dtype's arithmetic, in one line; None if not.

    What is run then is another function than the one that radii speak of: that of rounded inputs.
    """
    largest = float(x.abs().amax()) if x.numel() else 0.0
    spacing = torch.finfo(x.dtype).eps * (largest + sigma)
    if spacing <= FINEST * sigma:
        return None
    return (
        f"noise of sigma {sigma:g} is rounded away beside input values of up to {largest:g}: {str(x.dtype)[6:]} "
        f"numbers are {spacing:.3g} apart there, and sigma must be {1 / FINEST:g} times that: shift or scale it, "
        "or use a model in float64"
    )


def oracle(problem: Problem) -> Model:
    """What is run under the noise: the original model where there is one, behind the perturbation."""
    network = problem.behind if isinstance(problem, Perturbed) else problem.network
    return network.oracle or network


def centre(problem: Problem) -> Tensor:
    """The sample (shape), in the dtype that the model takes, as nothing happened to it."""
    if isinstance(problem, Perturbed):
        return problem.clean
    return problem.region.centre.to(problem.network.dtype)
