"""Derandomised ablation (Levine and Feizi 2020, arXiv:2002.10733): a vote over every place of a band or a block.

A voter sees one band of columns, or one block, of the image and nothing else. What a patch may change is seen by few
voters: the class that the others elect, whatever these say, is certain. Nothing is drawn at random.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from assay.verify.backends.smoothing.method import ONE_OUTPUT
from assay.verify.backends.smoothing.sampling import centre, oracle
from assay.verify.backends.smoothing.statements import declined, stated
from assay.verify.core.budget import UNLIMITED, Budget, running
from assay.verify.core.errors import InputError, UnsupportedError, unknown_name
from assay.verify.core.network import Network
from assay.verify.core.problem import Problem, check_problem
from assay.verify.core.region import FewPixels, Sparse
from assay.verify.core.region.sparse import Support, pixels
from assay.verify.core.result import Guarantee, Reason, Result
from assay.verify.core.spec import Spec

Seen = Literal["band", "block"]
# Two largest outputs that are closer than so many parts of the largest may be in another order in another batch.
CLOSE = 1e-5
TOGETHER = 1 << 22  # values of the images that are run at once
UNSURE = -1


class Votes(nn.Module):
    """The votes for each class: images (batch x shape) to counts (batch x classes), float32. ``seen``: by each voter
    (voters x rows x columns), bool; the other pixels are 0."""

    seen: Tensor

    def __init__(self, model: Callable[[Tensor], Tensor], seen: Tensor, classes: int) -> None:
        super().__init__()
        self.model, self.classes = model, classes
        self.register_buffer("seen", seen)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """The counts at x (batch x shape)."""
        votes = self.of_each(x)
        return torch.stack([(votes == k).sum(1) for k in range(self.classes)], 1).float()

    @torch.no_grad()
    def of_each(self, x: Tensor) -> Tensor:
        """What each voter says at x (batch x shape): (batch x voters), ``UNSURE`` where two classes are as good."""
        seen = self.seen.view(len(self.seen), *[1] * max(0, x.dim() - 3), *self.seen.shape[1:])
        seen = seen.view(len(self.seen), *x.shape[1:]) if x.dim() == 2 else seen
        size = max(1, TOGETHER // x[0].numel())
        votes = [self._of(x[i], part) for i in range(len(x)) for part in torch.split(seen, size)]
        return torch.cat(votes).view(len(x), -1)

    def _of(self, x: Tensor, seen: Tensor) -> Tensor:
        y = self.model(torch.where(seen, x, torch.zeros_like(x))).flatten(1)
        value, answer = y.topk(2, dim=1)
        sure = value[:, 0] - value[:, 1] > CLOSE * y.abs().amax(1)  # NaN is greater than nothing
        return torch.where(sure, answer[:, 0], UNSURE)


def views(shape: tuple[int, ...], kind: Seen, width: int) -> Tensor:
    """What each voter sees of samples of this ``shape``: (voters x rows x columns), bool; places wrap around."""
    rows, columns = pixels(shape)
    across = _bands(columns, width)
    if kind == "band":
        return across[:, None, :].expand(-1, rows, -1)
    down = _bands(rows, width)
    return (down[:, None, :, None] & across[None, :, None, :]).reshape(-1, rows, columns)


@dataclass(frozen=True)
class Derandomized:
    """Certifies the plurality of voters that see one ``seen`` each of the image, ``width`` pixels wide: a ``band`` of
    columns, or a square ``block``. For patches, and for few changed pixels, which more voters see.

    The label must keep a lead over every rival however the voters that a change may reach would vote; a patch is tried
    at every place. Answers that rounding might change count as reached.
    """

    seen: Seen = "band"
    width: int = 2
    name: ClassVar[str] = "derandomized"
    complete: ClassVar[bool] = False
    guarantee: ClassVar[Guarantee] = Guarantee.NUMERICAL

    def __post_init__(self) -> None:
        if self.seen not in get_args(Seen):
            raise unknown_name("view of derandomized", self.seen, get_args(Seen))
        if not isinstance(self.width, int) or self.width < 1:
            raise InputError(f"width of derandomized must be a whole number of at least 1, got {self.width}")

    @property
    def subject(self) -> str:
        """The classifier that results speak of."""
        return f"derandomized({self.seen}, {self.width})"

    def supports(self, problem: Problem) -> str | None:
        """Patches and few changed pixels, and the specification that one label is strictly the largest output."""
        if not isinstance(problem.region, Sparse):
            return f"derandomized certifies patches and few changed pixels, no {type(problem.region).__name__.lower()}"
        if problem.network.output_size < 2:
            return ONE_OUTPUT
        if problem.label is None or problem.spec.id != Spec.robust(problem.label, problem.network.output_size).id:
            return "derandomized certifies that one label stays the plurality's, no other specification"
        return None

    def votes(self, network: Network) -> Votes:
        """The classifier as a module that counts votes, for who wants to run or to attack it."""
        model = network.oracle or network
        return Votes(model, views(network.input_shape, self.seen, self.width), network.output_size)

    def classify(self, network: Network, x: Tensor, seed: int) -> int | None:
        """The class with strictly the most votes at x (shape); None where there is none."""
        if network.output_size < 2:
            raise UnsupportedError(ONE_OUTPUT)
        counts = self.votes(network)(x.to(network.dtype)[None])[0]
        most, label = counts.topk(2)
        return int(label[0]) if most[0] > most[1] else None

    def verify(self, problem: Problem, budget: Budget = UNLIMITED) -> Result:
        """VERIFIED if the label keeps its lead; ``lead`` in the stats: by how many votes, at worst."""
        check_problem(problem)
        begun = time.monotonic()
        budget = running(budget)
        if (none := declined(self, problem, budget, begun)) is not None:
            return none
        region, label = problem.region, problem.label
        assert isinstance(region, Sparse)
        assert label is not None
        classes, seen = problem.network.output_size, views(problem.network.input_shape, self.seen, self.width)
        model = oracle(problem)
        if isinstance(model, nn.Module) and model.training:
            raise InputError("expected a model in eval mode, but it is in train mode: call model.eval() first")
        votes = Votes(model, seen, classes).of_each(centre(problem)[None])[0]
        lead = least_lead(votes, label, classes, seen, region.support)
        counts = [int((votes == k).sum()) for k in range(classes)]
        stats = {"lead": lead, "votes": counts, "unsure": int((votes == UNSURE).sum())}
        return stated(self, problem, begun, None if lead > 0 else Reason.INCOMPLETE, stats)


def least_lead(votes: Tensor, label: int, classes: int, seen: Tensor, support: Support) -> int:
    """The least lead of ``label`` over any rival, whatever the voters say that see what may change.

    ``votes`` (voters): classes, or ``UNSURE``, which counts against the label wherever the change is; ``seen`` (voters
    x rows x columns). For a patch it is exact over all its places; for few pixels each counts as if no two of them were
    seen by one voter.
    """
    rows, columns = seen.shape[1:]
    sure = votes != UNSURE
    flat = seen.flatten(1).float()
    leads = []
    for rival in (k for k in range(classes) if k != label):
        # What it costs when a voter turns to the rival.
        cost = torch.where(votes == label, 2.0, torch.where(votes == rival, 0.0, 1.0)) * sure
        if isinstance(support, FewPixels):
            each = cost @ flat
            worst = min(float(each.topk(support.size(rows, columns)).values.sum()), float(cost.sum()))
        else:
            reached = support.every(rows, columns).flatten(1).float() @ flat.T > 0  # places x voters
            worst = float((reached.float() @ cost).max())
        lead = int((votes == label).sum()) - int((votes == rival).sum()) - int((~sure).sum()) - round(worst)
        leads.append(lead)
    return min(leads)


def _bands(extent: int, width: int) -> Tensor:
    """Which places each band covers: (extent x extent), bool; all of them where it is as wide."""
    places = torch.arange(extent)
    return (places[None, :] - places[:, None]) % extent < width
