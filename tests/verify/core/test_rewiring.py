"""Networks put together: what they and their oracles give is what the parts give."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from assay.verify.core.errors import InputError, UnsupportedError
from assay.verify.core.network import Network, Port, to_network
from assay.verify.core.problem import Problem
from assay.verify.core.region import Box, LpBall, Polytope
from assay.verify.core.region import side_by_side as regions_side_by_side
from assay.verify.core.rewiring import Rewired, rewired, side_by_side, with_inputs
from assay.verify.core.spec import Spec
from tests.nets import generator, random_cnn, random_mlp


def mlp(seed: int = 0, sizes: tuple[int, ...] = (4, 6, 3)) -> Network:
    return to_network(random_mlp(seed, sizes), (sizes[0],))


def cnn() -> Network:
    return to_network(random_cnn(1), (1, 6, 6))


def points(*shape: int) -> torch.Tensor:
    return torch.rand(5, *shape, generator=generator(0))


@pytest.mark.parametrize("network", [mlp(), cnn()], ids=["mlp", "cnn"])
def test_inputs_stand_behind_outputs(network: Network) -> None:
    joined = with_inputs(network, (2, 0))
    x = points(*network.input_shape)
    wanted = torch.cat([network(x).flatten(1), x.flatten(1)[:, [2, 0]]], 1)
    for given in (
        joined(x),
        joined.oracle(x) if joined.oracle else None,
        joined.literal(x) if joined.literal else wanted,
    ):
        assert given is not None
        torch.testing.assert_close(given, wanted)
    assert joined.output_size == network.output_size + 2
    assert joined.input_shape == network.input_shape
    assert joined.dtype is network.dtype


@pytest.mark.parametrize("network", [mlp(), cnn()], ids=["mlp", "cnn"])
def test_rewired_inputs_are_those_at_the_index(network: Network) -> None:
    size = network.nodes[0].size
    index = [i // 2 for i in range(size)]
    joined = rewired(network, index, index)
    x = points((size + 1) // 2)
    wanted = network(x[:, index].reshape(5, *network.input_shape))
    torch.testing.assert_close(joined(x), wanted)
    assert isinstance(joined.oracle, Rewired)
    torch.testing.assert_close(joined.oracle(x), wanted)
    assert joined.oracle.stated == tuple(index)


def test_networks_side_by_side_keep_apart() -> None:
    first, second = mlp(), cnn()
    both = side_by_side([first, second])
    x = points(4 + 36)
    wanted = torch.cat([first(x[:, :4]), second(x[:, 4:].reshape(5, 1, 6, 6)).flatten(1)], 1)
    torch.testing.assert_close(both(x), wanted)
    assert both.oracle is not None
    torch.testing.assert_close(both.oracle(x), wanted)
    swapped = side_by_side([second, first])
    assert swapped.id != both.id


def test_what_does_not_go_together_is_refused() -> None:
    double = to_network(random_mlp(0, (4, 6, 3)).double(), (4,))
    with pytest.raises(InputError, match="one floating type"):
        side_by_side([mlp(), double])


def test_what_a_network_ends_before_comes_back_where_values_count() -> None:
    network = to_network(nn.Sequential(random_mlp(0, (4, 6, 3)), nn.Softmax(1)).eval(), (4,))
    x = points(4)
    for joined, wired in (
        (with_inputs(network, (0,)), x),
        (side_by_side([network, network]), torch.cat([x, x], 1)),
        (rewired(network, (3, 2, 1, 0), (3, 2, 1, 0)).whole, x),
        (rewired(network.whole.ordered, (3, 2, 1, 0), (3, 2, 1, 0)).whole, x),
    ):
        assert joined.oracle is not None
        assert not joined.readout
        torch.testing.assert_close(joined(wired), joined.oracle(wired))


def two_inputs() -> Network:
    return replace(mlp(0, (5, 6, 2)), inputs=(Port("a", (2,)), Port("b", (3,))))


def test_a_region_for_each_input_is_one_of_all() -> None:
    box = Box(torch.zeros(2), torch.ones(2))
    tied = Polytope(Box(torch.zeros(3), torch.ones(3)), [[1.0, 1.0, 1.0]], [1.0])
    problem = Problem.of_parts(two_inputs(), {"b": tied, "a": box}, Spec.halfspaces([[1.0, 0.0]], [0.0]))
    assert isinstance(problem.region, Polytope)
    assert problem.region.A.tolist() == [[0.0, 0.0, 1.0, 1.0, 1.0]]
    x = torch.tensor([[1.0, 1.0, 0.25, 0.25, 0.25], [0.0, 0.0, 0.5, 0.5, 0.5]])
    assert problem.region.contains(x).tolist() == [True, False]


def test_balls_are_their_boxes_with_their_members() -> None:
    ball = LpBall(torch.full((3,), 0.3), 0.1)
    region = regions_side_by_side(two_inputs(), {"a": Box(torch.zeros(2), torch.ones(2)), "b": ball})
    assert isinstance(region, Box)
    low, high = ball.bounds.allowed(torch.float32)
    lower, upper = region.allowed(torch.float32)
    assert torch.equal(lower[2:], low)
    assert torch.equal(upper[2:], high)


def test_other_names_shapes_and_balls_are_refused() -> None:
    box = Box(torch.zeros(2), torch.ones(2))
    with pytest.raises(InputError, match=r"each of the inputs \['a', 'b'\], got \['a', 'c'\]"):
        regions_side_by_side(two_inputs(), {"a": box, "c": box})
    with pytest.raises(InputError, match=r"shape \(3,\) for the input 'b', got \(2,\)"):
        regions_side_by_side(two_inputs(), {"a": box, "b": box})
    with pytest.raises(UnsupportedError, match="ball in l2"):
        regions_side_by_side(two_inputs(), {"a": box, "b": LpBall(torch.full((3,), 0.3), 0.1, 2)})
