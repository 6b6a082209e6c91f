"""What a piece of work may cost: seconds, memory, threads, and with which seed and device."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from math import inf, isnan

from assay.verify.core.errors import InputError, check_type


class Expired(Exception):
    """The time is over: raised by :meth:`Budget.check` inside a method, which turns it into a result."""


@dataclass(frozen=True)
class Budget:
    """Limits that are passed down and asked. The clock starts with the work (:meth:`started`), not here.

    ``seconds``: wall-clock limit; ``memory``: bytes for working buffers; ``threads``: for solvers and workers;
    ``device``: where bounds are computed (ibp, crown-ibp, crown, alpha-crown), on the CPU all else. One that is not
    here is refused.
    """

    seconds: float = inf
    memory: int = 2 << 30
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    deadline: float | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, limit in (("seconds", self.seconds), ("memory", self.memory), ("threads", self.threads)):
            check_type(limit, (int, float), "a number", f"the {name} of a budget, as in Budget(seconds=10)")
        if isnan(self.seconds) or self.seconds < 0:
            raise InputError(f"a budget's seconds must be at least 0, got {self.seconds}")
        if self.memory <= 0 or self.threads <= 0:
            raise InputError(f"memory and threads must be positive, got {self.memory} and {self.threads}")
        if self.device != "cpu":
            _check_device(self.device)

    def started(self) -> Budget:
        """This budget with its clock running; a running one is returned as it is, so that deadlines are shared."""
        return self if self.deadline is not None else replace(self, deadline=time.monotonic() + self.seconds)

    def part(self, share: float) -> Budget:
        """This budget with a share of the time that is left, its clock running: none where that is over."""
        return replace(self, seconds=share * max(0.0, self.remaining), deadline=None).started()

    def on_cpu(self) -> Budget:
        """This budget for bounds that are read on the CPU."""
        return self if self.device == "cpu" else replace(self, device="cpu")

    @property
    def remaining(self) -> float:
        """Seconds left; all of them where the clock has not started."""
        return self.seconds if self.deadline is None else self.deadline - time.monotonic()

    @property
    def expired(self) -> bool:
        """Whether the time is over."""
        return self.remaining <= 0

    def check(self) -> None:
        """Raise :class:`Expired` if the time is over."""
        if self.expired:
            raise Expired


def check_budget(value: object) -> None:
    """Raise :class:`InputError` for what is no budget, such as a number of seconds."""
    check_type(value, Budget, "a Budget", "Budget(seconds=10) allows ten seconds; leave it out for no limit")


def running(budget: Budget) -> Budget:
    """``budget`` with its clock running, for the work that begins here. Raises as :func:`check_budget` does."""
    check_budget(budget)
    return budget.started()


def _check_device(name: str) -> None:
    """Refuse a device that does not exist or is not here."""
    import torch  # here: a budget for the CPU needs none of it

    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"expected a device, cpu or cuda, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"expected a device, cpu or cuda, got {name!r}")
    if device.type == "cuda":
        here = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= here:
            raise InputError(f"device {name!r} is not here: torch finds {here} CUDA devices; use cpu")


UNLIMITED = Budget()  # what methods work with that are given none
