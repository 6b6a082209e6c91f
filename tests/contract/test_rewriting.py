"""The same function written in another way: bounds that should not change do not, and none becomes unsound."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from assay.verify.core.budget import Budget
from assay.verify.core.network import Network, chain
from assay.verify.core.ops import Conv2d, Linear, Op, Relu, Reshape, Scale
from assay.verify.core.region import Box
from assay.verify.registry import get_bounder
from tests import exact
from tests.breadth import seeds
from tests.contract.test_laws import BOUNDERS

Layers = list[tuple[Tensor, Tensor]]


def layers(seed: int) -> Layers:
    rng = torch.Generator().manual_seed(seed)
    sizes = [3, 5, 4, 2]
    return [
        (
            torch.randn(b, a, dtype=torch.float64, generator=rng) * a**-0.5,
            torch.randn(b, dtype=torch.float64, generator=rng) * 0.3,
        )
        for a, b in pairwise(sizes)
    ]


def ops(made: Layers) -> list[Op]:
    body: list[Op] = []
    for weight, bias in made:
        body += [Linear(weight, bias), Relu()]
    return body[:-1]


def rewired(made: Layers, change: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]) -> list[Op]:
    """``change`` applied to the rows of the first hidden layer and the columns that read them."""
    (w0, b0), (w1, b1), *rest = made
    w0, b0, w1 = change(w0, b0, w1)
    return ops([(w0, b0), (w1, b1), *rest])


def duplicated(w: Tensor, b: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    halved = torch.cat([out[:, :1] / 2, out[:, 1:], out[:, :1] / 2], 1)
    return torch.cat([w, w[:1]]), torch.cat([b, b[:1]]), halved


def with_a_dead_neuron(w: Tensor, b: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.cat([w, w[:1]]), torch.cat([b, b[:1] - 100]), torch.cat([out, out[:, :1] * 7], 1)


def permuted(w: Tensor, b: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    order = torch.tensor([3, 0, 4, 1, 2])
    return w[order], b[order], out[:, order]


def rescaled(w: Tensor, b: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    powers = 2.0 ** torch.tensor([-9, 3, 0, 12, -1]).double()
    return w * powers[:, None], b * powers, out / powers


def split(made: Layers) -> list[Op]:
    one = 2 * torch.eye(5, dtype=torch.float64)
    (w, b), *rest = made
    return [Linear(w / 2, b / 2), Linear(one, torch.zeros(5)), Relu(), *ops(rest)]


def by_convolution(made: Layers) -> list[Op]:
    """Every Linear as a 1 x 1 convolution on one pixel."""
    body: list[Op] = [Reshape((3, 1, 1))]
    for weight, bias in made:
        body += [Conv2d(weight[:, :, None, None], bias), Relu()]
    return [*body[:-1], Reshape((2,))]


def by_scaling(made: Layers) -> list[Op]:
    """A hidden bias as a shift after the layer, and one more pair of shifts that cancel after the ReLU."""
    (w, b), (w1, b1), *rest = made
    one, c = torch.ones((), dtype=torch.float64), torch.linspace(-3, 3, 5, dtype=torch.float64)
    return [Linear(w, torch.zeros(5)), Scale(one, b), Relu(), Scale(one, c), *ops([(w1, b1 - w1 @ c), *rest])]


def twice(made: Layers) -> list[Op]:
    return [op for part in ops(made) for op in ([part, Relu()] if isinstance(part, Relu) else [part])]


def as_difference(made: Layers) -> list[Op]:
    """x = relu(x) - relu(-x): the same function, but looser bounds."""
    (w, b), *rest = made
    both = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    return [Linear(both, torch.zeros(6)), Relu(), *ops([(torch.cat([w, -w], 1), b), *rest])]


NEUTRAL: dict[str, Callable[[Layers], list[Op]]] = {
    "permuted": lambda made: rewired(made, permuted),
    "duplicated": lambda made: rewired(made, duplicated),
    "dead": lambda made: rewired(made, with_a_dead_neuron),
    "rescaled": lambda made: rewired(made, rescaled),
    "split": split,
    "convolution": by_convolution,
    "scaling": by_scaling,
    "relu-twice": twice,
}
LOOSER = {"difference": as_difference}
BOX = (torch.tensor([-0.5, 0.0, 0.25]), torch.tensor([0.5, 0.75, 0.5]))


def lower(name: str, network: Network) -> Tensor:
    return get_bounder(name).bound(network, Box(*BOX), torch.eye(2, dtype=torch.float64), Budget()).lower[0]


@pytest.mark.parametrize("rewriting", [*NEUTRAL, *LOOSER])
def test_the_function_is_the_same(rewriting: str) -> None:
    made = layers(0)
    x = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    other = chain((3,), (NEUTRAL | LOOSER)[rewriting](made))
    torch.testing.assert_close(other(x), chain((3,), ops(made))(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [n for n in ("ibp", "crown") if n in BOUNDERS])
@pytest.mark.parametrize("rewriting", NEUTRAL)
@seeds(4, of=10)
def test_the_bounds_are_the_same(name: str, rewriting: str, seeds: range) -> None:
    for seed in seeds:
        made = layers(seed)
        lowest = lower(name, chain((3,), NEUTRAL[rewriting](made)))
        torch.testing.assert_close(lowest, lower(name, chain((3,), ops(made))), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", BOUNDERS)
@seeds(1, of=3)
def test_every_writing_is_sound(name: str, seeds: range) -> None:
    for seed in seeds:
        made = layers(seed)
        network = chain((3,), ops(made))
        true = torch.tensor(
            [exact.minimum(network, Box(*BOX), row) for row in torch.eye(2, dtype=torch.float64)], dtype=torch.float64
        )
        for rewriting in (NEUTRAL | LOOSER).values():
            assert bool((lower(name, chain((3,), rewriting(made))) <= true + 1e-7).all())
